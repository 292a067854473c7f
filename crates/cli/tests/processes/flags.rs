//! What `quorate serve` says before it is a server.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use crate::support::{quorate, run, stderr, stdout};

/// The one line that a start which is refused ends with.
fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> serde_json::Value {
    let directory = tempfile::tempdir().unwrap();
    let output = quorate()
        .arg("serve")
        .arg("--data-dir")
        .arg(directory.path())
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = stderr(&output);
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn the_version_has_four_lines() {
    for spelling in ["--version", "-version", "--version=true"] {
        let output = run(&["serve", spelling]);
        assert!(output.status.success());
        let text = stdout(&output);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[0], "etcd Version: 3.6.0");
        for (line, start) in
            lines.iter().zip(["etcd Version: ", "Git SHA: ", "Go Version: ", "Go OS/Arch: "])
        {
            assert!(line.starts_with(start), "{text}");
        }
    }
    assert!(stdout(&run(&["serve", "--api-version=3.5.1", "--version"])).contains(": 3.5.1\n"));
}

#[test]
fn help_goes_to_the_standard_output() {
    for spelling in ["-h", "--help"] {
        let output = run(&["serve", spelling]);
        assert!(output.status.success());
        assert!(stdout(&output).contains("--initial-cluster-token 'etcd-cluster'"));
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn flags_that_make_no_sense_end_with_2() {
    for (arguments, text) in [
        (&["--nonsense"][..], "flag provided but not defined: -nonsense"),
        (&["--name"], "flag needs an argument: -name"),
        (&["-heartbeat-interval=x"], "invalid value \"x\" for flag -heartbeat-interval"),
        (&["--pre-vote=maybe"], "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        (&["--listen-peer-urls", "localhost"], "URL scheme must be http, https, unix, or unixs"),
        (&["--initial-cluster-state", "old"], "invalid value \"old\""),
        (&["--feature-gates=Nonsense=true"], "unrecognized feature gate: Nonsense"),
    ] {
        let output = run(&[&["serve"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).starts_with(text) || stderr(&output).contains(text));
        assert!(stderr(&output).contains("\nUsage:\n"), "{arguments:?}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn settings_that_do_not_fit_end_with_1_and_a_line_of_the_log() {
    let line = refusal(&["--listen-client-urls", "http://127.0.0.1:0"], &[]);
    assert_eq!(line["level"], "warn");
    assert_eq!(line["msg"], "failed to verify flags");
    assert_eq!(
        line["error"],
        "--advertise-client-urls is required when --listen-client-urls is set explicitly"
    );
    let line = refusal(&["--cert-file", "x.pem"], &[]);
    assert_eq!(line["error"], "--cert-file cannot be honoured: TLS is not supported yet");
    let line = refusal(&["--enable-grpc-gateway"], &[]);
    assert!(line["error"].as_str().unwrap().contains("the JSON gateway is not there yet"));
    let line = refusal(&["--auth-token", "jwt"], &[]);
    assert!(line["error"].as_str().unwrap().contains("authentication is not supported yet"));
    let line = refusal(&["--pre-vote", "false"], &[]);
    assert_eq!(
        (&line["level"], &line["msg"]),
        (&"fatal".into(), &"\"false\" is not a valid flag".into())
    );
}

#[test]
fn a_variable_beside_its_flag_is_a_conflict() {
    let line = refusal(&["--name", "a"], &[("ETCD_NAME", "b")]);
    assert_eq!(line["level"], "fatal");
    assert!(line["msg"].as_str().unwrap().starts_with(
        "conflicting environment variable \"ETCD_NAME\" is shadowed by corresponding command-line \
         flag"
    ));
    let line = refusal(&[], &[("ETCD_ELECTION_TIMEOUT", "3")]);
    assert!(line["error"].as_str().unwrap().contains("at least as 5 times as"));
}

#[test]
fn a_configuration_file_stands_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("etcd.yml");
    std::fs::write(&path, "heartbeat-interval: 1000\nelection-timeout: 1000\n").unwrap();
    let path = path.to_str().unwrap();
    let line = refusal(&["--heartbeat-interval=10", "--config-file", path], &[]);
    assert!(line["error"].as_str().unwrap().contains("--heartbeat-interval[1000ms]"), "{line}");
    std::fs::write(path, "heartbeat-interval: [").unwrap();
    assert!(refusal(&["--config-file", path], &[])["msg"].as_str().unwrap().contains(path));
    let line = refusal(&[], &[("ETCD_CONFIG_FILE", "/nowhere.yml")]);
    assert!(line["msg"].as_str().unwrap().contains("/nowhere.yml"));
}
