//! `check`, and how results look.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use crate::support::{Cluster, Server, quorate, stderr, stdout};

#[test]
fn a_cluster_is_good_until_a_member_is_missing() {
    let cluster = Cluster::new::<3>();
    let mut servers: Vec<Server> = cluster.start_all();
    cluster.ctl(&["put", "a", "1"]);
    let text = cluster.ctl(&["check"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    let says = "GOOD: all 3 members hold the same data at revision 2; n";
    assert!(lines[4].starts_with(says), "{text}");
    // Keys that were written are gone, but the revision shows that there were some.
    assert_eq!(cluster.ctl(&["get", "", "--from-key", "--keys-only"]), "a\n");
    let before = cluster.json(&["get", "a"])["header"]["revision"].as_u64().unwrap();
    assert_eq!(before, 2 + 3 * 6);
    let json = cluster.json(&["check", "--read-only", "--samples", "1"]);
    assert_eq!(json["good"], true, "{json}");
    assert!(json["members"][0]["read_us"]["median"].as_u64().unwrap() > 0, "{json}");
    assert!(json["members"][0]["write_us"].is_null(), "{json}");
    assert_eq!(cluster.json(&["get", "a"])["header"]["revision"], before);

    let hashes = cluster.json(&["endpoint", "hashkv", "--rev", "2"]);
    assert!(hashes[0]["HashKV"]["hash"].is_u64(), "{hashes}");
    assert_eq!(hashes[0]["HashKV"]["hash"], hashes[2]["HashKV"]["hash"]);
    let lines = cluster.ctl(&["endpoint", "hashkv", "--cluster"]);
    assert_eq!(lines.lines().filter(|line| line.contains(", ")).count(), 3, "{lines}");

    // One endpoint leads to all members.
    servers[2].process.signal("KILL");
    servers[2].process.wait();
    let endpoint = cluster.client_url(0);
    let output = quorate().args(["check", "--endpoints", &endpoint]).output().unwrap();
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("\nwrong: n2: "), "{text}");
    let last = text.lines().last().unwrap();
    assert_eq!(last, "BAD: 1 problem; 2 of 3 members answer", "{text}");
    assert_eq!(stderr(&output), "");

    // Without a quorum there is something to say as well.
    servers[1].process.signal("KILL");
    servers[1].process.wait();
    let arguments = ["check", "-o", "json", "--command-timeout", "300ms", "--endpoints", &endpoint];
    let output = quorate().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["good"], false, "{json}");
}

#[test]
fn colours_are_for_those_who_want_them() {
    let run = |arguments: &[&str]| quorate().args(arguments).output().unwrap();
    let unreachable = ["--endpoints", "127.0.0.1:1"];
    let plain = run(&[&["get", "a"], &unreachable[..]].concat());
    assert!(stderr(&plain).starts_with("Error: "), "{plain:?}");
    let painted = run(&[&["get", "a", "--color", "always"], &unreachable[..]].concat());
    assert!(stderr(&painted).starts_with("\u{1b}[1;31mError:\u{1b}[0m "), "{painted:?}");
    assert_eq!(plain.status.code(), Some(2));
    // What to do is for people; programs compare words.
    assert_eq!(stderr(&plain).lines().count(), 1);
    assert!(stderr(&painted).contains("hint:\u{1b}[0m is a server running there?"), "{painted:?}");

    let cluster = Cluster::new::<1>();
    let _servers: Vec<Server> = cluster.start_all();
    let status = cluster.ctl(&["status", "--color", "always"]);
    assert!(status.contains("\u{1b}[32mleader\u{1b}[0m"), "{status:?}");
    assert!(!cluster.ctl(&["status"]).contains('\u{1b}'));
    let list = cluster.ctl(&["member", "list", "--color=always"]);
    assert!(list.starts_with("\u{1b}[1;4mID\u{1b}[0m "), "{list:?}");
}
