//! Transactions and leases, as commands.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::io::Write;
use std::process::Stdio;

use crate::support::{Cluster, Process, Server, quorate, stderr, stdout};

/// Runs a command with an input.
fn feed(cluster: &Cluster, arguments: &[&str], input: &str) -> std::process::Output {
    let mut child = quorate()
        .args(arguments)
        .env("ETCDCTL_ENDPOINTS", cluster.endpoints())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn transactions_come_from_the_input_or_from_arguments() {
    let cluster = Cluster::new::<1>();
    let _servers: Vec<Server> = cluster.start_all();
    cluster.ctl(&["put", "a", "1"]);
    let script = "mod(\"a\") > \"0\"\nvalue(\"a\") = \"1\"\n\nput a \"x y\" --prev-kv\nget a\n\
                  get a --count-only\ndel none\n\nget a\n\n";
    let output = feed(&cluster, &["txn"], script);
    assert_eq!(stdout(&output), "SUCCESS\n\nOK\na\n1\n\na\nx y\n\n1\n\n0\n");
    assert_eq!(stderr(&output), "");
    let output = feed(&cluster, &["txn"], script);
    assert_eq!(stdout(&output), "FAILURE\n\na\nx y\n");

    let output = feed(&cluster, &["txn", "-i"], "\nput b 2\n");
    assert_eq!(stdout(&output), "SUCCESS\n\nOK\n");
    assert_eq!(
        stderr(&output),
        "compares:\nsuccess requests (get, put, del):\nfailure requests (get, put, del):\n"
    );

    let create =
        ["txn", "--compare", "create(c) = 0", "--success", "put c 3", "--failure", "get c"];
    assert_eq!(cluster.ctl(&create), "SUCCESS\n\nOK\n");
    assert_eq!(cluster.ctl(&create), "FAILURE\n\nc\n3\n");
    let json = cluster.json(&create);
    assert!(json["succeeded"].is_null());
    assert_eq!(json["responses"][0]["Response"]["ResponseRange"]["kvs"][0]["value"], "Mw==");
    let fields = cluster.ctl(&[&create[..], &["-w", "fields"]].concat());
    assert!(fields.contains("\"Succeeded\" : false\n"), "{fields}");

    for (input, says) in [
        ("foo\n", "Error: malformed comparison: foo\n"),
        ("mod(a) = x\n", "Error: malformed comparison: mod(a) = x; \"x\" is no number\n"),
        ("\nput a\n", "Error: invalid txn request: a put must have a value\n"),
    ] {
        let output = feed(&cluster, &["txn"], input);
        assert_eq!((output.status.code(), stderr(&output)), (Some(3), says.to_owned()));
    }
    let output = feed(&cluster, &["txn"], "\nwatch a\n");
    assert!(stderr(&output).starts_with("Error: invalid txn request: watch a: "), "{output:?}");
}

#[test]
fn leases_live_as_long_as_they_are_renewed() {
    let cluster = Cluster::new::<1>();
    let _servers: Vec<Server> = cluster.start_all();
    assert_eq!(
        cluster.ctl(&["lease", "grant", "100", "--id", "1f"]),
        "lease 000000000000001f granted with TTL(100s)\n"
    );
    let json = cluster.json(&["lease", "grant", "60"]);
    assert_eq!(json["TTL"], 60);
    assert!(json["ID"].as_i64().unwrap() > 0 && json["revision"] == 1, "{json}");
    cluster.ctl(&["put", "k", "v", "--lease", "1f"]);
    let list = cluster.ctl(&["lease", "list"]);
    assert!(list.starts_with("found 2 leases\n"), "{list}");
    assert!(list.contains("\n000000000000001f\n"), "{list}");
    assert_eq!(cluster.json(&["lease", "list"])["leases"].as_array().unwrap().len(), 2);
    let shown = cluster.ctl(&["lease", "timetolive", "1f", "--keys"]);
    let begin = "lease 000000000000001f granted with TTL(100s), remaining(";
    assert!(shown.starts_with(begin), "{shown}");
    assert!(shown.ends_with("), attached keys([k])\n"), "{shown}");
    let json = cluster.json(&["lease", "ttl", "1f", "--keys"]);
    assert_eq!((&json["granted-ttl"], &json["keys"][0]), (&100.into(), &"aw==".into()));
    assert_eq!(
        cluster.ctl(&["lease", "keep-alive", "--once", "1f"]),
        "lease 000000000000001f keepalived with TTL(100)\n"
    );
    assert_eq!(cluster.json(&["lease", "keep-alive", "--once", "1f"])["TTL"], 100);
    let mut forever = quorate();
    forever.args(["lease", "keep-alive", "1f", "--endpoints", &cluster.endpoints()]);
    Process::start(forever, false).wait_for("keepalived");

    assert_eq!(cluster.ctl(&["lease", "revoke", "1f"]), "lease 000000000000001f revoked\n");
    assert_eq!(cluster.ctl(&["get", "k"]), "");
    assert_eq!(
        cluster.ctl(&["lease", "timetolive", "1f"]),
        "lease 000000000000001f already expired\n"
    );
    assert_eq!(cluster.json(&["lease", "timetolive", "1f"])["ttl"], -1);
    for (command, says) in [
        ("revoke", "Error: etcdserver: requested lease not found\n"),
        ("keep-alive", "Error: lease 000000000000001f expired or revoked.\n"),
    ] {
        let arguments = ["lease", command, "1f", "--endpoints", &cluster.endpoints()];
        let output = quorate().args(arguments).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(1), says.to_owned()));
    }
}
