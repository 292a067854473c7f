//! `wal` and `sim`, as commands.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::{Cluster, Server, run, stderr, stdout};

/// All files below a directory, and what is in them.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn the_log_of_a_member_is_looked_at_and_left_alone() {
    let cluster = Cluster::new::<1>();
    let mut servers: Vec<Server> = cluster.start_all();
    cluster.ctl(&["put", "a key", "its value"]);
    cluster.ctl(&["lease", "grant", "100", "--id", "1f"]);
    let data = cluster.data_dir(0).display().to_string();

    // While it is in use, somebody is named.
    let output = run(&["wal", "dump", &data]);
    let pid = servers[0].process.child.id();
    let note = format!("note: process {pid} is using this log");
    assert!(stderr(&output).starts_with(&note), "{output:?}");
    let dump = stdout(&output);
    assert!(dump.contains(" put \"a key\" 9 bytes\n"), "{dump}");
    assert!(dump.contains(" grant lease 1f for 100 s\n"), "{dump}");

    servers[0].process.signal("TERM");
    servers[0].process.wait();
    let before = contents(&cluster.data_dir(0));
    let output = run(&["wal", "dump", &data, "--values"]);
    assert_eq!(stderr(&output), "");
    assert!(stdout(&output).contains(" put \"a key\" \"its value\"\n"), "{output:?}");
    let log = format!("{data}/member/log");
    for directory in [&data, &format!("{data}/member"), &log] {
        let output = run(&["wal", "verify", directory]);
        assert!(stdout(&output).ends_with("no damage\n"), "{output:?}");
        assert_eq!(output.status.code(), Some(0));
        let list = stdout(&run(&["wal", "list", directory]));
        assert!(list.contains("\ngroup "), "{list}");
    }
    let list: serde_json::Value =
        serde_json::from_slice(&run(&["wal", "list", &data, "-o", "json"]).stdout).unwrap();
    let last = list["groups"][0]["last_index"].as_u64().unwrap();
    assert!(last >= 3 && list["in_use_by"].is_null(), "{list}");
    let from = last.to_string();
    let output = run(&["wal", "dump", &data, "--from", &from, "-o", "json"]);
    let text = stdout(&output);
    let entry: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(entry["index"], last, "{text}");
    assert!(!stdout(&run(&["wal", "dump", &data, "--records"])).contains("lease"));
    assert!(contents(&cluster.data_dir(0)) == before, "something was written");

    // A byte of the value rots.
    let needle = b"its value";
    let (file, bytes) = before
        .iter()
        .find(|(name, bytes)| {
            name.contains("/log/") && bytes.windows(needle.len()).any(|part| part == needle)
        })
        .unwrap();
    let at = bytes.windows(needle.len()).position(|part| part == needle).unwrap();
    let rotten = std::fs::File::options().write(true).open(file).unwrap();
    rotten.write_all_at(b"X", at as u64).unwrap();
    let output = run(&["wal", "verify", &data]);
    assert!(stdout(&output).contains("DAMAGE: "), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&run(&["wal", "dump", &data])).contains(" DAMAGED, "));

    let empty = tempfile::tempdir().unwrap();
    let output = run(&["wal", "list", &empty.path().display().to_string()]);
    assert!(
        stderr(&output).contains("there is no log here; name the data directory"),
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(run(&["wal", "list", "/nonexistent"]).status.code(), Some(6));
}

#[test]
fn the_simulator_is_part_of_the_program() {
    let output = run(&["sim", "run", "--seeds", "2", "--steps", "500"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = run(&["sim", "replay", "7", "--steps", "300"]);
    assert!(stdout(&output).ends_with("all properties hold\n"), "{output:?}");
    assert!(stdout(&run(&["sim", "help"])).contains("\n  quorate sim replay SEED"));
    let output = run(&["sim", "fly"]);
    assert_eq!(stderr(&output), "`fly` is not understood\nTry `quorate sim help`.\n");
    assert_eq!(output.status.code(), Some(2));
}
