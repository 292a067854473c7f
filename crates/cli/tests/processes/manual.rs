//! `completion`, `man`, and the unit of systemd.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::path::Path;
use std::process::Command;

use crate::support::{run, stderr, stdout};

#[test]
fn shells_complete_commands_and_the_flags_of_the_server() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completion", shell]);
        let script = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        for word in ["keep-alive", "initial-cluster-state", "auto-compaction-mode", "require-marks"]
        {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("cluster-active-size"), "{shell} completes what is deprecated");
    }
    // What bash makes of it.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quorate.bash");
    std::fs::write(&path, run(&["completion", "bash"]).stdout).unwrap();
    let complete = |words: &str| {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _quorate quorate \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            path.display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
        stdout(&output)
    };
    assert_eq!(complete("quorate mov"), "move-leader\n");
    assert_eq!(complete("quorate serve --initial-cluster-s"), "--initial-cluster-state\n");
    assert_eq!(complete("quorate lease gra"), "grant\n");
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("man1").display().to_string();
    let said = stdout(&run(&["man", "--dir", &target]));
    let pages = std::fs::read_dir(&target).unwrap().count();
    assert_eq!(said, format!("{pages} pages written to {target}\n"));
    assert!(pages > 40, "{pages}");
    let read = |name: &str| std::fs::read_to_string(Path::new(&target).join(name)).unwrap();
    assert!(read("quorate.1").contains("quorate\\-check(1)"));
    let serve = read("quorate-serve.1");
    assert!(serve.contains("\\-\\-initial\\-cluster\\-token"), "{serve}");
    assert!(serve.contains(".SH CLUSTERING"), "{serve}");
    assert!(serve.contains("ETCD_INITIAL_CLUSTER_TOKEN"), "{serve}");
    assert!(!serve.contains("\\-\\-endpoints"), "{serve}");
    assert!(read("quorate-snapshot-save.1").contains("\\-\\-endpoints"));
    assert_eq!(stdout(&run(&["man", "lease", "grant"])), read("quorate-lease-grant.1"));
    let output = run(&["man", "fly"]);
    assert_eq!(stderr(&output), "Error: there is no command \"fly\"; see `quorate help`\n");
}

#[test]
fn the_unit_is_one_that_systemd_understands() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/quorate.service");
    let unit = std::fs::read_to_string(path).unwrap();
    assert!(unit.contains("\nType=notify\n"));
    // It looks for the program, which is not installed here, and for its manual page.
    let unit = unit
        .replace("/usr/local/bin/quorate", env!("CARGO_BIN_EXE_quorate"))
        .replace("Documentation=", "#");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quorate.service");
    std::fs::write(&path, unit).unwrap();
    // Where there is no systemd, nobody can be asked.
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&path).output() else {
        return;
    };
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("quorate.service"), "{}", stderr(&output));
}
