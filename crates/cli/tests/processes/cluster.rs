//! Three members as processes, and the commands that talk to them.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::time::{Duration, Instant};

use crate::support::{Cluster, Process, Server, eventually, http, quorate, stderr, stdout};

/// Which member leads, and in which term; as the others see it if it is not `without`.
fn leader(cluster: &Cluster, without: Option<usize>) -> Option<(usize, u64)> {
    (0..3).filter(|member| Some(*member) != without).find_map(|member| {
        let endpoint = cluster.client_url(member);
        let output =
            quorate().args(["status", "-w", "json", "--endpoints", &endpoint]).output().unwrap();
        let answers: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let status = &answers.get(0)?["Status"];
        (status["leader"] == status["header"]["member_id"])
            .then(|| (member, status["raftTerm"].as_u64().unwrap()))
    })
}

fn wait_for_leader(cluster: &Cluster, without: Option<usize>) -> (usize, u64) {
    let mut found = None;
    eventually(|| {
        found = leader(cluster, without);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_leader_that_is_told_to_stop_hands_leadership_over() {
    let cluster = Cluster::new::<3>();
    let mut servers: Vec<Server> = cluster.start_all();
    let (old, term) = wait_for_leader(&cluster, None);
    let told = Instant::now();
    servers[old].process.signal("TERM");
    let mut found = None;
    while found.is_none() && told.elapsed() < Duration::from_secs(5) {
        found = leader(&cluster, Some(old));
    }
    let took = told.elapsed();
    let (new, new_term) = found.unwrap();
    assert_ne!(new, old);
    // An election after a time-out could take more than one term, and takes at least a second.
    assert_eq!(new_term, term + 1);
    assert!(took < Duration::from_millis(900), "another leader after {took:?}");
    servers[old].process.wait();
    assert!(told.elapsed() < Duration::from_millis(2_500), "gone after {:?}", told.elapsed());

    // It comes back, and knows what happened meanwhile.
    cluster.ctl(&["put", "meanwhile", "1"]);
    let mut back = cluster.start(old);
    back.ready();
    let endpoint = back.endpoint();
    let output = quorate().args(["get", "meanwhile", "--endpoints", &endpoint]).output().unwrap();
    assert_eq!(stdout(&output), "meanwhile\n1\n");
}

#[test]
fn a_cluster_survives_the_kill_of_its_leader_but_not_of_a_majority() {
    let cluster = Cluster::new::<3>();
    let mut servers: Vec<Server> = cluster.start_all();
    cluster.ctl(&["put", "a", "1"]);
    let (old, _) = wait_for_leader(&cluster, None);
    servers[old].process.signal("KILL");
    servers[old].process.wait();
    wait_for_leader(&cluster, Some(old));
    assert_eq!(cluster.ctl(&["get", "a"]), "a\n1\n");
    cluster.ctl(&["put", "a", "2"]);

    let (second, last) = ((old + 1) % 3, (old + 2) % 3);
    // The last one has it, and knows that it counts.
    let endpoint = cluster.client_url(last);
    let local = || {
        let get = ["get", "a", "--consistency=s", "--endpoints", &endpoint];
        stdout(&quorate().args(get).output().unwrap())
    };
    eventually(|| local() == "a\n2\n");
    servers[second].process.signal("KILL");
    servers[second].process.wait();
    let port = servers[last].client_port;
    eventually(|| {
        http(port, "GET /health")
            == (503, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n".to_owned())
    });
    assert_eq!(http(port, "GET /livez").0, 200);
    // What it has can still be read.
    assert_eq!(local(), "a\n2\n");
    let output = quorate()
        .args(["put", "a", "3", "--command-timeout", "500ms", "--endpoints", &endpoint])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "Error: no answer within 500ms\n");
}

#[test]
fn commands_print_what_people_and_programs_can_read() {
    let cluster = Cluster::new::<3>();
    let mut servers: Vec<Server> = cluster.start_all();
    let ctl = |arguments: &[&str]| cluster.ctl(arguments);
    assert_eq!(ctl(&["put", "k1", "v1"]), "OK\n");
    assert_eq!(ctl(&["put", "k1", "v2", "--prev-kv"]), "OK\nk1\nv1\n");
    ctl(&["put", "k2", "-v"]);
    ctl(&["put", "other", "x"]);
    assert_eq!(ctl(&["get", "k", "--prefix"]), "k1\nv2\nk2\n-v\n");
    assert_eq!(ctl(&["get", "k", "--prefix", "--keys-only"]), "k1\nk2\n");
    assert_eq!(ctl(&["get", "k", "--prefix", "--print-value-only", "--limit", "1"]), "v2\n");
    assert_eq!(ctl(&["get", "k1", "k2"]), "k1\nv2\n");
    assert_eq!(ctl(&["get", "k2", "--from-key", "--order", "descend"]), "other\nx\nk2\n-v\n");
    assert_eq!(ctl(&["get", "", "--from-key", "--count-only"]), "3\n");
    assert_eq!(ctl(&["get", "k1", "--rev", "2"]), "k1\nv1\n");
    assert_eq!(ctl(&["get", "none"]), "");
    let json = cluster.json(&["get", "k1"]);
    assert_eq!(json["kvs"][0]["key"], "azE=");
    assert_eq!(json["kvs"][0]["version"], 2);
    assert_eq!(json["count"], 1);
    assert!(ctl(&["get", "k1", "-w", "fields"]).contains("\"ModRevision\" : 3\n"));
    assert_eq!(ctl(&["del", "k", "--prefix", "--prev-kv"]), "2\nk1\nv2\nk2\n-v\n");
    assert_eq!(ctl(&["compact", "3"]), "compacted revision 3\n");
    let output = quorate()
        .args(["get", "k1", "--rev", "2", "--endpoints", &cluster.endpoints()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "Error: etcdserver: mvcc: required revision has been compacted\n");

    let status = ctl(&["status"]);
    assert_eq!(status.lines().count(), 4, "{status}");
    assert_eq!(status.matches(" leader ").count(), 1, "{status}");
    assert_eq!(status.matches(" follower ").count(), 2, "{status}");
    assert_eq!(cluster.json(&["endpoint", "status"]).as_array().unwrap().len(), 3);
    assert_eq!(ctl(&["health"]).matches(" is healthy: ").count(), 3);
    assert_eq!(ctl(&["alarm", "list"]), "");
    let list = ctl(&["member", "list"]);
    assert_eq!(list.matches(", started, n").count(), 3, "{list}");
    assert_eq!(cluster.json(&["member", "list"])["members"].as_array().unwrap().len(), 3);
    assert!(ctl(&["member", "list", "-w", "table"]).starts_with("+--"));

    let (old, _) = wait_for_leader(&cluster, None);
    let other = list.lines().find(|line| !line.contains(&format!(", n{old}, "))).unwrap();
    let other = other.split(',').next().unwrap();
    assert!(ctl(&["move-leader", other]).starts_with("Leadership transferred from "));

    // The first endpoint is gone; the others answer.
    servers[0].process.signal("KILL");
    servers[0].process.wait();
    eventually(|| leader(&cluster, Some(0)).is_some());
    assert_eq!(ctl(&["get", "other"]), "other\nx\n");
    let output = quorate().args(["status", "--endpoints", &cluster.endpoints()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output).lines().count(), 3);
    assert!(stderr(&output).contains("cannot be reached"));
}

#[test]
fn a_watch_goes_on_at_another_member() {
    let cluster = Cluster::new::<3>();
    let mut servers: Vec<Server> = cluster.start_all();
    let mut command = quorate();
    command.args(["watch", "k", "--prefix", "--rev", "1", "--endpoints", &cluster.endpoints()]);
    let mut watch = Process::start(command, false);
    cluster.ctl(&["put", "k1", "v1"]);
    watch.wait_for("v1");
    servers[0].process.signal("KILL");
    servers[0].process.wait();
    eventually(|| leader(&cluster, Some(0)).is_some());
    cluster.ctl(&["put", "k2", "v2"]);
    cluster.ctl(&["del", "k1"]);
    watch.wait_for("v2");
    watch.wait_for("DELETE");
    assert_eq!(watch.seen, ["PUT", "k1", "v1", "PUT", "k2", "v2", "DELETE"]);
}

/// Starts a member that joins a cluster, with what `member add` printed for it.
fn join(cluster: &Cluster, other: &Cluster, added: &str) -> Server {
    let value = |name: &str| {
        let line = added.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches(['=', '"']).to_owned()
    };
    let mut command = quorate();
    command.arg("serve").arg("--data-dir").arg(other.data_dir(0));
    for name in ["ETCD_NAME", "ETCD_INITIAL_CLUSTER", "ETCD_INITIAL_CLUSTER_STATE"] {
        command.env(name, value(&format!("{name}=")));
    }
    command.args(["--initial-advertise-peer-urls", &other.peer_url(0)]);
    command.args(["--listen-peer-urls", &other.peer_url(0)]);
    command.args(["--listen-client-urls", &other.client_url(0)]);
    command.args(["--advertise-client-urls", &other.client_url(0)]);
    assert_eq!(cluster.ctl(&["get", "nothing"]), "");
    other.start_with(0, command)
}

#[test]
fn members_join_and_leave() {
    let cluster = Cluster::new::<1>();
    let mut first = cluster.start(0);
    first.ready();
    cluster.ctl(&["put", "a", "1"]);

    // A learner has no vote, so the cluster goes on alone.
    let learner = Cluster::new::<1>();
    let added =
        cluster.ctl(&["member", "add", "l", "--learner", "--peer-urls", &learner.peer_url(0)]);
    let id = added.split_whitespace().nth(1).unwrap().to_owned();
    let mut joined = join(&cluster, &learner, &added);
    joined.ready();
    let at_learner = |arguments: &[&str]| {
        quorate().args(arguments).args(["--endpoints", &joined.endpoint()]).output().unwrap()
    };
    eventually(|| stdout(&at_learner(&["get", "a", "--consistency=s"])) == "a\n1\n");
    assert_eq!(
        stderr(&at_learner(&["put", "a", "2"])),
        "Error: etcdserver: rpc not supported for learner\n"
    );
    assert!(stdout(&at_learner(&["status"])).contains(" learner "));
    assert_eq!(http(joined.client_port, "GET /readyz/non_learner").0, 503);
    assert_eq!(crate::support::metric(joined.client_port, "etcd_server_is_learner").unwrap(), "1");
    eventually(|| {
        let output = quorate()
            .args(["member", "promote", &id, "--endpoints", &cluster.endpoints()])
            .output()
            .unwrap();
        output.status.success()
    });
    assert!(cluster.ctl(&["member", "list"]).contains(&format!("{id}, started, l, ")));

    // Whoever is removed ends, and well.
    cluster.ctl(&["member", "remove", &id]);
    let status = joined.process.wait();
    assert_eq!(status.code(), Some(0), "{}", joined.process.seen.join("\n"));
    assert_eq!(cluster.ctl(&["member", "list"]).lines().count(), 1);
    cluster.ctl(&["put", "a", "3"]);
}

#[test]
fn a_member_that_was_not_added_does_not_join() {
    let cluster = Cluster::new::<1>();
    let mut first = cluster.start(0);
    first.ready();
    let other = Cluster::new::<1>();
    let mut command = other.command(0);
    let members = format!("n0={},n1={}", other.peer_url(0), cluster.peer_url(0));
    command.args(["--initial-cluster", &members, "--initial-cluster-state", "existing"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).lines().last().unwrap().contains("\"level\":\"fatal\""));
}

#[test]
fn a_snapshot_is_saved_whole_or_not_at_all() {
    let cluster = Cluster::new::<1>();
    let mut server = cluster.start(0);
    server.ready();
    cluster.ctl(&["put", "a", "1"]);
    let path = cluster.directory.path().join("backup.db");
    let text = cluster.ctl(&["snapshot", "save", path.to_str().unwrap()]);
    assert!(text.starts_with(&format!("Snapshot saved at {}\n", path.display())), "{text}");
    assert_eq!(std::fs::metadata(&path).unwrap().len() % 512, 32);
    let file = path.to_str().unwrap();
    let status = cluster.json(&["snapshot", "status", file]);
    assert_eq!((&status["revision"], &status["totalKey"]), (&2.into(), &1.into()));
    assert!(cluster.ctl(&["snapshot", "status", file]).contains(", 2, 1, "));

    // A new cluster begins with what was saved, and not with what came after.
    cluster.ctl(&["put", "a", "2"]);
    let new = Cluster::new::<3>();
    let members: Vec<String> =
        (0..3).map(|member| format!("n{member}={}", new.peer_url(member))).collect();
    for member in 0..3 {
        let mut restore = quorate();
        restore.args(["snapshot", "restore", file, "--name", &format!("n{member}")]);
        restore.args(["--initial-cluster", &members.join(",")]);
        restore.args(["--initial-advertise-peer-urls", &new.peer_url(member), "--data-dir"]);
        restore.arg(new.data_dir(member));
        restore.args(["--bump-revision", "1000", "--mark-compacted"]);
        let output = restore.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stdout(&output).starts_with("Snapshot restored to "));
        assert_eq!(restore.output().unwrap().status.code(), Some(6), "it is not empty any more");
    }
    let _servers = new.start_all();
    assert_eq!(new.ctl(&["get", "a"]), "a\n1\n");
    assert!(new.json(&["get", "a"])["header"]["revision"].as_i64().unwrap() > 1000);
    assert_eq!(new.ctl(&["member", "list"]).lines().count(), 3);

    let broken = cluster.directory.path().join("broken.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&broken, bytes).unwrap();
    let output = quorate()
        .args(["snapshot", "restore", broken.to_str().unwrap(), "--data-dir"])
        .arg(cluster.directory.path().join("unused"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(stderr(&output).starts_with("Error: expected sha256 ["), "{}", stderr(&output));

    let nowhere = cluster.directory.path().join("nowhere/backup.db");
    let output = quorate()
        .args(["snapshot", "save", nowhere.to_str().unwrap()])
        .args(["--endpoints", &cluster.endpoints()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6));
}

#[test]
fn mistakes_have_exit_codes() {
    let [port] = crate::support::ports();
    let endpoint = format!("127.0.0.1:{port}");
    for (arguments, code) in [
        (&["get"][..], 128),
        (&["get", "a", "--nonsense"], 128),
        (&["nonsense"], 128),
        (&["get", "a", "--endpoints", &endpoint], 2),
        (&["get", "a", "--endpoints", "https://127.0.0.1:1"], 3),
        (&["get", "a", "--endpoints", &endpoint, "-w", "table"], 2),
        (&["--help"], 0),
        (&["--version"], 0),
    ] {
        let output = crate::support::run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    }
    let output = quorate().args(["get", "a"]).env("ETCDCTL_CACERT", "ca.pem").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("TLS and users are not supported yet"));
}

#[test]
fn one_goes_on_alone_and_says_what_that_costs() {
    let cluster = Cluster::new::<3>();
    let servers = cluster.start_all();
    cluster.ctl(&["put", "a", "1"]);
    // Reaches all of them.
    cluster.ctl(&["get", "a"]);
    let endpoint = cluster.client_url(1);
    eventually(|| {
        let output = quorate()
            .args(["get", "a", "--consistency=s", "--endpoints", &endpoint])
            .output()
            .unwrap();
        stdout(&output) == "a\n1\n"
    });
    drop(servers);
    let mut command = cluster.command(1);
    command.args(["--force-new-cluster", "--unsafe-no-fsync"]);
    let mut alone = cluster.start_with(1, command);
    let line = alone.process.wait_for("nothing waits for the disk");
    assert!(line.contains("\"level\":\"warn\""), "{line}");
    alone.process.wait_for("all other members are given up");
    alone.ready();
    let ctl = |arguments: &[&str]| {
        let output = quorate().args(arguments).args(["--endpoints", &endpoint]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    assert_eq!(ctl(&["get", "a"]), "a\n1\n");
    ctl(&["put", "a", "2"]);
    assert_eq!(ctl(&["member", "list"]).lines().count(), 1);
    alone.process.signal("KILL");
    alone.process.wait();
    let mut command = cluster.command(1);
    command.arg("--force-new-cluster");
    let mut again = cluster.start_with(1, command);
    again.process.wait_for("--force-new-cluster is ignored: it was carried out already");
    again.ready();
    assert_eq!(ctl(&["get", "a"]), "a\n2\n");
}
