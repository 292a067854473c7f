//! One member as a process.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::os::unix::process::ExitStatusExt;

use crate::support::{Cluster, eventually, http, metric, ports, quorate, stderr};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

#[test]
fn every_line_of_the_log_has_its_four_keys_and_none_is_an_error() {
    let cluster = Cluster::new::<1>();
    let mut server = cluster.start(0);
    server.ready();
    server.process.wait_for("serving client traffic insecurely; this is strongly discouraged!");
    server.process.signal("TERM");
    let status = server.process.wait();
    assert_eq!(status.signal(), Some(SIGTERM));
    for line in &server.process.seen {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["level", "ts", "caller", "msg"] {
            assert!(line[key].as_str().is_some_and(|text| !text.is_empty()), "{line}");
        }
        assert!(["info", "warn"].contains(&line["level"].as_str().unwrap()), "{line}");
    }
    let texts = server.process.seen.join("\n");
    assert!(texts.contains("\"snapshot-catchup-entries\":5000"));
    assert!(texts.contains("received signal; shutting down"));
}

#[test]
fn pages_are_served_beside_the_api() {
    let cluster = Cluster::new::<1>();
    let [metrics_port] = ports();
    let mut command = cluster.command(0);
    command.arg(format!("--listen-metrics-urls=http://127.0.0.1:{metrics_port}"));
    command.args(["--metrics", "extensive", "--api-version=3.5.9"]);
    let mut server = cluster.start_with(0, command);
    server.ready();
    let port = server.client_port;
    assert_eq!(http(port, "GET /health"), (200, r#"{"health":"true","reason":""}"#.to_owned()));
    assert_eq!(http(port, "GET /livez"), (200, "ok\n".to_owned()));
    assert_eq!(http(port, "GET /readyz").0, 200);
    assert_eq!(http(port, "POST /health").0, 405);
    assert_eq!(http(port, "GET /nothing").0, 404);
    assert_eq!(http(port, "GET /debug/vars").0, 200);
    // The cluster agrees on its version a moment after it serves.
    eventually(|| {
        http(port, "GET /version").1
            == r#"{"etcdserver":"3.5.9","etcdcluster":"3.5.0","storage":"3.5.0"}"#
    });

    assert_eq!(http(metrics_port, "GET /health").0, 200);
    assert_eq!(http(metrics_port, "GET /metrics").0, 200);
    assert_eq!(http(metrics_port, "GET /version").0, 404);

    cluster.ctl(&["put", "a", "1"]);
    cluster.ctl(&["put", "b", "1"]);
    cluster.ctl(&["del", "a", "--prefix"]);
    for (name, value) in [
        ("etcd_mvcc_put_total", "2"),
        ("etcd_mvcc_delete_total", "1"),
        ("etcd_server_has_leader", "1"),
        ("etcd_server_is_leader", "1"),
        ("etcd_server_is_learner", "0"),
        ("etcd_server_version{server_version=\"3.5.9\"}", "1"),
        ("etcd_cluster_version{cluster_version=\"3.5\"}", "1"),
        (
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
            "2",
        ),
        (
            "grpc_server_handling_seconds_count{grpc_method=\"Put\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
            "2",
        ),
    ] {
        assert_eq!(metric(port, name).as_deref(), Some(value), "{name}");
    }
    assert_ne!(metric(port, "etcd_disk_wal_fsync_duration_seconds_count").as_deref(), Some("0"));
}

#[test]
fn a_watch_whose_client_goes_away_is_counted_as_canceled() {
    let cluster = Cluster::new::<1>();
    let mut server = cluster.start(0);
    server.ready();
    let mut command = quorate();
    command.args(["watch", "k", "--endpoints", &server.endpoint()]);
    let mut watch = crate::support::Process::start(command, false);
    // It is there once it has printed something.
    while watch.seen.is_empty() {
        cluster.ctl(&["put", "k", "v"]);
        std::thread::sleep(std::time::Duration::from_millis(20));
        watch.poll();
    }
    watch.child.kill().unwrap();
    let name = "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",\
                grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"}";
    eventually(|| metric(server.client_port, name).as_deref() == Some("1"));
}

#[test]
fn with_urls_for_http_those_for_clients_carry_only_grpc() {
    let cluster = Cluster::new::<1>();
    let [http_port] = ports();
    let mut command = cluster.command(0);
    command.arg(format!("--listen-client-http-urls=http://127.0.0.1:{http_port}"));
    let mut server = cluster.start_with(0, command);
    server.ready();
    assert_eq!(http(http_port, "GET /version").0, 200);
    assert_eq!(http(server.client_port, "GET /version").0, 404);
    cluster.ctl(&["put", "a", "1"]);
}

#[test]
fn what_was_written_is_there_after_a_kill() {
    let cluster = Cluster::new::<1>();
    let mut server = cluster.start(0);
    server.ready();
    cluster.ctl(&["put", "a", "1"]);
    let before = cluster.ctl(&["member", "list"]);
    server.process.signal("KILL");
    server.process.wait();
    // What the cluster is comes from the data now, and not from flags.
    let mut command = quorate();
    command.args(["serve", "--name", "n0", "--data-dir"]).arg(cluster.data_dir(0));
    command.args(["--listen-client-urls", &cluster.client_url(0)]);
    command.args(["--advertise-client-urls", &cluster.client_url(0)]);
    command.args(["--listen-peer-urls", &cluster.peer_url(0)]);
    let mut server = cluster.start_with(0, command);
    server.ready();
    assert_eq!(cluster.ctl(&["get", "a"]), "a\n1\n");
    assert_eq!(cluster.ctl(&["member", "list"]), before);
    server.process.signal("INT");
    assert_eq!(server.process.wait().signal(), Some(SIGINT));
}

#[test]
fn settings_come_from_variables_and_from_a_file() {
    let cluster = Cluster::new::<1>();
    let mut command = quorate();
    command
        .arg("serve")
        .env("ETCD_NAME", "n0")
        .env("ETCD_DATA_DIR", cluster.data_dir(0))
        .env("ETCD_LISTEN_CLIENT_URLS", cluster.client_url(0))
        .env("ETCD_ADVERTISE_CLIENT_URLS", cluster.client_url(0))
        .env("ETCD_LISTEN_PEER_URLS", cluster.peer_url(0))
        .env("ETCD_INITIAL_ADVERTISE_PEER_URLS", cluster.peer_url(0))
        .env("ETCD_INITIAL_CLUSTER", format!("n0={}", cluster.peer_url(0)))
        .env("ETCD_NONSENSE", "1");
    let mut server = cluster.start_with(0, command);
    let line = server.process.wait_for("unrecognized environment variable");
    assert!(line.contains("ETCD_NONSENSE"));
    server.ready();
    server.process.signal("TERM");
    server.process.wait();

    let path = cluster.directory.path().join("etcd.yml");
    let text = format!(
        "name: n0\ndata-dir: {}\nlisten-client-urls: {url}\nadvertise-client-urls: {url}\n\
         listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\n\
         initial-cluster: n0={peer}\nexperimental-max-learners: 2\nnonsense: 1\n",
        cluster.data_dir(0).display(),
        url = cluster.client_url(0),
        peer = cluster.peer_url(0)
    );
    std::fs::write(&path, text).unwrap();
    let mut command = quorate();
    command.args(["serve", "--log-format", "console", "--config-file"]).arg(&path);
    let mut server = cluster.start_with(0, command);
    server.process.wait_for("unknown key of the configuration file");
    server.process.wait_for("\"max-learners\":2");
    server.ready();
}

#[test]
fn log_lines_may_go_to_files_and_look_otherwise() {
    let cluster = Cluster::new::<1>();
    let path = cluster.directory.path().join("server.log");
    let mut command = cluster.command(0);
    command.args(["--log-format=console", "--log-level", "warn", "--log-outputs"]);
    command.arg(format!("stderr,{}", path.display()));
    command.arg("--experimental-initial-corrupt-check");
    let mut server = cluster.start_with(0, command);
    let line = server.process.wait_for("this check is not made");
    assert_eq!(line.split('\t').nth(1), Some("warn"), "{line}");
    // The file has it a moment after the other output.
    eventually(|| std::fs::read_to_string(&path).unwrap().contains(&line));
}

#[test]
fn slow_requests_are_told_of() {
    let cluster = Cluster::new::<1>();
    let mut command = cluster.command(0);
    command.args(["--experimental-warning-unary-request-duration", "1ns"]);
    let mut server = cluster.start_with(0, command);
    server.ready();
    cluster.ctl(&["put", "a", "1"]);
    let line = server.process.wait_for("request stats");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["level"], "warn");
    assert_eq!(line["response type"], "/etcdserverpb.KV/Put");
}

#[test]
fn a_port_in_use_ends_the_start() {
    let cluster = Cluster::new::<1>();
    let mut first = cluster.start(0);
    first.ready();
    let other = Cluster::new::<1>();
    let mut command = other.command(0);
    // The last one counts.
    command.args(["--listen-client-urls", &cluster.client_url(0)]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "fatal");
    let message = line["msg"].as_str().unwrap();
    assert!(message.contains(&cluster.client_url(0)), "{message}");
    assert!(message.contains("in use"), "{message}");
}

#[test]
fn a_data_directory_belongs_to_one_process() {
    let cluster = Cluster::new::<1>();
    let mut first = cluster.start(0);
    first.ready();
    let other = Cluster::new::<1>();
    let mut command = other.command(0);
    command.arg("--data-dir").arg(cluster.data_dir(0));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = stderr(&output);
    let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "fatal", "{line}");
    let message = line["msg"].as_str().unwrap();
    assert!(message.contains(cluster.data_dir(0).to_str().unwrap()), "{message}");
    // The first one has not noticed.
    cluster.ctl(&["put", "a", "1"]);
}

#[test]
fn listening_beyond_this_machine_without_tls_is_warned_about() {
    let cluster = Cluster::new::<1>();
    let mut command = cluster.command(0);
    let port = cluster.client_url(0).rsplit(':').next().unwrap().to_owned();
    command.args(["--listen-client-urls", &format!("http://0.0.0.0:{port}")]);
    let mut server = cluster.start_with(0, command);
    let line = server.process.wait_for("beyond this machine without TLS");
    assert!(line.contains("\"level\":\"warn\""));
    server.ready();
}

#[test]
fn the_program_is_the_server_under_the_name_of_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("etcd");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_quorate"), &link).unwrap();
    let output = std::process::Command::new(link).arg("--version").output().unwrap();
    assert!(crate::support::stdout(&output).starts_with("etcd Version: 3.6.0\n"));
}
