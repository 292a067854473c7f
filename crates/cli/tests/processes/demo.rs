//! `quorate demo`, as somebody tries it.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use crate::support::{Process, quorate, stdout};

/// The endpoints that a demonstration prints.
fn endpoints(demo: &mut Process) -> String {
    let line = demo.wait_for("export ETCDCTL_ENDPOINTS=");
    line.split_once('=').unwrap().1.to_owned()
}

fn ctl(endpoints: &str, arguments: &[&str]) -> String {
    let output = quorate().args(arguments).env("ETCDCTL_ENDPOINTS", endpoints).output().unwrap();
    assert!(output.status.success(), "{}", crate::support::stderr(&output));
    stdout(&output)
}

#[test]
fn what_it_says_to_try_works() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = quorate();
        command.args(["demo", "--port", "0", "--data-dir"]).arg(directory.path());
        Process::start(command, false)
    };
    let mut demo = start();
    let first = endpoints(&mut demo);
    assert_eq!(first.split(',').count(), 3);
    assert_eq!(ctl(&first, &["put", "greeting", "hello"]), "OK\n");
    assert_eq!(ctl(&first, &["member", "list"]).lines().count(), 3);
    let status = ctl(&first, &["status"]);
    assert!(status.contains("leader"), "{status}");
    demo.wait_for("Ctrl-C stops the cluster.");
    let list = ctl(&first, &["member", "list"]);
    let ids: Vec<&str> = list.lines().map(|line| line.split(',').next().unwrap()).collect();
    // At least two of these are news.
    for id in ids {
        ctl(&first, &["move-leader", id]);
    }
    demo.wait_for("leads term");
    demo.signal("INT");
    demo.wait();

    // The directory remembers data and ports.
    let mut demo = start();
    assert_eq!(endpoints(&mut demo), first);
    assert_eq!(ctl(&first, &["get", "greeting"]), "greeting\nhello\n");
}

#[test]
fn without_a_directory_it_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = quorate();
    command.args(["demo", "--port", "0"]).env("TMPDIR", temporary.path());
    let mut demo = Process::start(command, false);
    endpoints(&mut demo);
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 1);
    demo.signal("TERM");
    demo.wait();
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn nothing_is_lost_while_members_are_killed() {
    let mut command = quorate();
    command.args(["demo", "--port", "0", "--chaos", "--every", "1s", "--for", "6s"]);
    let mut demo = Process::start(command, false);
    demo.wait_for("is killed");
    demo.wait_for("is back");
    demo.wait_for("writes");
    let verdict = demo.wait_for(" acknowledged writes, ");
    assert!(verdict.starts_with("GOOD: "), "{}", demo.seen.join("\n"));
    assert!(verdict.contains("every acknowledged write is still there"), "{verdict}");
    assert_eq!(demo.wait().code(), Some(0));
}
