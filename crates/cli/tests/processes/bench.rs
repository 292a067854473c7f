//! `quorate bench`, against real servers.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::process::Stdio;

use crate::support::{Cluster, quorate, stderr};
use serde_json::Value;

const SHORT: [&str; 4] = ["--duration", "300ms", "--warm-up", "50ms"];
const KEYS: [&str; 2] = ["--keys", "500"];

/// Runs a load on a cluster.
fn bench(cluster: &Cluster, load: &[&str]) -> Value {
    cluster.json(&[&["bench"], load, &SHORT].concat())
}

#[test]
fn every_load_does_its_work() {
    let cluster = Cluster::new::<3>();
    let servers = cluster.start_all();
    let pids: Vec<String> =
        servers.iter().map(|server| server.process.child.id().to_string()).collect();
    let pids = pids.join(",");
    let filled = cluster.json(&["bench", "fill", "--keys", "500"]);
    assert_eq!(filled["keys"], 500);
    assert_eq!(cluster.ctl(&["get", "bench/", "--prefix", "--keys-only"]).lines().count(), 500);
    for (load, keyed, operations) in [
        ("put --clients 20 --threads 2", true, &["put"][..]),
        ("put --clients 4 --rate 200 --distribution sequential", true, &["put"]),
        ("range --clients 8 --distribution zipf", true, &["range"]),
        ("range --clients 4 --serializable --width 50", true, &["range"]),
        ("range --clients 4 --puts 100", true, &["range", "put"]),
        ("txn --clients 8", true, &["txn"]),
        ("mixed --clients 8 --reads 50", true, &["range", "put"]),
        ("lease --clients 8", false, &["keepalive"]),
        ("watch --clients 2 --watchers 30 --streams 4 --rate 100", false, &["event", "put"]),
    ] {
        let mut words: Vec<&str> = load.split(' ').collect();
        words.extend(["--pid", &pids]);
        if keyed {
            words.extend(KEYS);
        }
        let result = bench(&cluster, &words);
        for operation in operations {
            let result = &result["results"][operation];
            assert!(result["count"].as_u64().unwrap() > 0, "{load}: {result}");
            let latency = &result["latency_us"];
            let spans = ["min", "p50", "p90", "p99", "p999", "max"];
            let spans = spans.map(|name| latency[name].as_f64().unwrap());
            assert!(spans[0] > 0.0 && spans.is_sorted(), "{load}: {result}");
        }
        // Serializable reads may be of a time before the keys, nothing else may fail.
        assert_eq!(result["errors"], serde_json::json!({}), "{load}");
        assert_eq!(result["unanswered"], 0, "{load}");
        if let Some(conflicts) = result["results"].get("conflict") {
            assert_eq!(conflicts["count"], 0, "{load}");
        }
        if cfg!(target_os = "linux") {
            let servers = &result["servers"];
            assert_eq!(servers["resident_bytes"].as_array().unwrap().len(), 3, "{load}: {servers}");
        }
    }
    let text = cluster.ctl(&[&["bench", "put", "--keys", "500"], &SHORT[..]].concat());
    assert!(text.contains("PER SECOND") && text.contains("generator: "), "{text}");
    // All leases were given back.
    let lines = cluster.ctl(&["bench", "lease", "--clients", "1", "--duration", "50ms"]);
    assert!(lines.contains("keepalive"), "{lines}");
}

#[test]
fn a_member_that_goes_away_is_errors_and_a_gap() {
    let cluster = Cluster::new::<1>();
    let mut servers = cluster.start_all();
    let load = quorate()
        .args(["bench", "put", "--clients", "2", "--keys", "100", "-o", "json"])
        .args(["--duration", "6s", "--warm-up", "0s", "--endpoints", &cluster.endpoints()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    crate::support::eventually(|| {
        !cluster.ctl(&["get", "bench/", "--prefix", "--limit", "1", "--keys-only"]).is_empty()
    });
    drop(servers.pop());
    servers.push(cluster.start(0));
    servers[0].ready();
    let before = cluster.json(&["status"])[0]["Status"]["header"]["revision"].as_u64().unwrap();
    // The clients have come back.
    crate::support::eventually(|| {
        let now = cluster.json(&["status"])[0]["Status"]["header"]["revision"].as_u64().unwrap();
        now > before
    });
    let output = load.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(result["errors"]["Unavailable"]["count"].as_u64().unwrap() > 0, "{result}");
    assert!(result["longest_gap_us"].as_u64().unwrap() > 1000, "{result}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let cluster = Cluster::new::<1>();
    let _servers = cluster.start_all();
    let endpoints = cluster.endpoints();
    for (arguments, code, words) in [
        ("range", 5, "`quorate bench fill`"),
        ("range --width 0", 3, "--width"),
        ("put --clients 0", 3, "--clients"),
        ("put --keys 0", 3, "--keys"),
        ("put --key-size 3", 3, "--key-size"),
        ("txn --clients 8 --keys 4", 3, "--keys"),
        ("put --connections 1 --threads 2", 3, "--connections"),
        ("put --rate 0", 3, "--rate"),
        ("put --endpoints 127.0.0.1:1", 2, "127.0.0.1:1"),
        ("put --threads 2 --endpoints 127.0.0.1:1", 2, "127.0.0.1:1"),
        ("put -o fields", 3, "json"),
        ("watch --streams 0", 3, "--streams"),
        ("lease --ttl 0", 3, "--ttl"),
    ] {
        let mut command = quorate();
        command.arg("bench").args(arguments.split(' ')).args(SHORT);
        if !arguments.contains("--endpoints") {
            command.args(["--endpoints", &endpoints]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments}: {}", stderr(&output));
    }
}
