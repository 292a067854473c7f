//! Three nodes in processes of their own: killed without warning, frozen, restarted and wiped while
//! they work. What their clients saw is judged by the linearizability checker of the simulator.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::DEADLINE;
use support::process::{Answer, Cluster, Process};
use support::store::KEYS;

/// Not a test but what the processes of the tests run: this file again, as one node.
#[test]
fn node_process() {
    support::process::run();
}

/// Clients that ask one thing after another, each at one node while that lives.
struct Clients {
    nodes: Arc<RwLock<Vec<Option<Arc<Process>>>>>,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Clients {
    /// `kinds`: what they ask for, in turn.
    fn start(processes: Vec<Process>, count: u64, kinds: &'static [&'static str]) -> Self {
        let nodes = processes.into_iter().map(|process| Some(Arc::new(process))).collect();
        let (nodes, done) = (Arc::new(RwLock::new(nodes)), Arc::new(AtomicBool::new(false)));
        let client = |client: u64| {
            let (nodes, done) = (Arc::clone(&nodes), Arc::clone(&done));
            std::thread::spawn(move || work(client, &nodes, &done, kinds))
        };
        let threads = (1..=count).map(client).collect();
        Self { nodes, done, threads }
    }

    fn node(&self, id: u64) -> Arc<Process> {
        Arc::clone(self.nodes.read().unwrap()[id as usize - 1].as_ref().unwrap())
    }

    /// Nobody asks this node any more.
    fn leave(&self, id: u64) -> Arc<Process> {
        self.nodes.write().unwrap()[id as usize - 1].take().unwrap()
    }

    fn come(&self, id: u64, process: Process) {
        process.open_session();
        self.nodes.write().unwrap()[id as usize - 1] = Some(Arc::new(process));
    }

    /// How long the slowest answer took.
    fn stop(&mut self) -> Duration {
        self.done.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    }
}

fn work(
    client: u64,
    nodes: &RwLock<Vec<Option<Arc<Process>>>>,
    done: &AtomicBool,
    kinds: &[&str],
) -> Duration {
    let count = nodes.read().unwrap().len();
    let (mut at, mut turn, mut slowest) = (client as usize % count, client, Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        turn += 1;
        let kind = kinds[turn as usize % kinds.len()];
        let key = (turn / kinds.len() as u64 + client) % KEYS;
        // Under the lock it is said, so that nothing is said to a node after it was left.
        let begun = {
            let nodes = nodes.read().unwrap();
            nodes[at].as_ref().map(|process| process.begin(kind, client, key))
        };
        let since = Instant::now();
        match begun.map(|answer| answer.recv()) {
            Some(Ok(answer)) => {
                slowest = slowest.max(since.elapsed());
                let is_session = kind == "in-session";
                let answered = matches!(answer, Answer::Returned(_));
                assert!(answered || !is_session, "a session's proposal failed: {answer:?}");
            }
            // It was left, or it is dead.
            _ => {
                at = (at + 1) % count;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    slowest
}

/// Waits until so many more writes are acknowledged.
fn more(cluster: &Cluster, count: u64) {
    let goal = cluster.recorder.acknowledged() + count;
    let deadline = Instant::now() + DEADLINE;
    while cluster.recorder.acknowledged() < goal {
        assert!(Instant::now() < deadline, "the cluster does not go on");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn leaders_are_killed_under_load_and_what_clients_saw_is_linearizable() {
    let cluster = Cluster::new(3);
    let kinds = &["in-session", "read", "propose"];
    let mut clients = Clients::start(cluster.start_all(), 9, kinds);
    let rounds = if std::env::var_os("QUORATE_LONG").is_some() { 1_000 } else { 8 };
    for round in 0..rounds {
        more(&cluster, 150);
        // Whoever leads dies with what all clients have under way.
        let leader = clients.node(1 + round % 3).leader();
        clients.node(leader).kill();
        let dead = clients.leave(leader);
        more(&cluster, 50);
        drop(dead);
        clients.come(leader, cluster.start(leader));
    }
    clients.stop();
    assert!(cluster.recorder.reads() > 100, "only {} reads", cluster.recorder.reads());
    let executed = clients.node(1).executed();
    cluster.recorder.judge(&executed);
    for id in 1..=3 {
        assert_eq!(clients.node(id).executed(), executed, "all have the same");
    }
    for id in 1..=3 {
        clients.leave(id).stop();
    }
}

#[test]
fn two_of_five_are_killed_and_then_all() {
    let cluster = Cluster::new(5);
    let kinds = &["in-session", "propose", "read"];
    let mut clients = Clients::start(cluster.start_all(), 10, kinds);
    for round in 0..2 {
        more(&cluster, 100);
        // The one that leads, and another one.
        let leader = clients.node(1 + round).leader();
        let both = [leader, leader % 5 + 1];
        for id in both {
            clients.node(id).kill();
        }
        let dead = both.map(|id| clients.leave(id));
        more(&cluster, 100);
        drop(dead);
        for id in both {
            clients.come(id, cluster.start(id));
        }
    }
    more(&cluster, 50);
    // The lights go out.
    for id in 1..=5 {
        clients.node(id).kill();
    }
    for id in 1..=5 {
        drop(clients.leave(id));
    }
    let all: Vec<Process> = (1..=5).map(|id| cluster.start(id)).collect();
    for (id, process) in (1..).zip(all) {
        clients.come(id, process);
    }
    more(&cluster, 100);
    clients.stop();
    let executed = clients.node(5).executed();
    cluster.recorder.judge(&executed);
}

#[test]
fn a_rolling_restart_fails_no_proposal_of_a_session() {
    let cluster = Cluster::new(3);
    let mut clients = Clients::start(cluster.start_all(), 6, &["in-session", "in-session", "read"]);
    for id in 1..=3 {
        more(&cluster, 100);
        // Clients go elsewhere; what the node has taken on by then, it finishes.
        clients.leave(id).stop();
        more(&cluster, 50);
        clients.come(id, cluster.start(id));
    }
    more(&cluster, 100);
    let slowest = clients.stop();
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    let executed = clients.node(3).executed();
    cluster.recorder.judge(&executed);
    assert_eq!(executed.len() as u64, cluster.recorder.acknowledged());
}

#[test]
fn a_frozen_leader_is_replaced_and_serves_nothing_old_when_it_wakes() {
    let cluster = Cluster::new(3);
    let processes = cluster.start_all();
    let leader = processes[0].leader();
    let (frozen, other) = (&processes[leader as usize - 1], &processes[leader as usize % 3]);
    frozen.tell("lease 400000");
    assert_eq!(frozen.hear("lease "), "on");
    let before = frozen.ask("in-session", 1, 0).unwrap();
    assert!(matches!(before, Answer::Returned(None)), "{before:?}");
    // The lease begins with the first round that knows of it.
    let deadline = Instant::now() + DEADLINE;
    while !matches!(frozen.ask("lease-read", 1, 0), Some(Answer::Returned(Some(_)))) {
        assert!(Instant::now() < deadline, "there is no lease");
    }
    // It reads all the time, so that nothing comes before the next read when it wakes up.
    frozen.tell("spin 0");
    let before = frozen.ask("in-session", 1, 0);
    assert!(matches!(before, Some(Answer::Returned(_))), "{before:?}");
    frozen.signal("-STOP");
    // Its connections stay, so only the silence tells. Meanwhile it is asked, and cannot answer.
    let mut asked = vec![frozen.begin("lease-read", 2, 0), frozen.begin("read", 3, 0)];
    for _ in 1..=20 {
        let answer = other.ask("in-session", 4, 0);
        assert!(matches!(answer, Some(Answer::Returned(Some(_)))), "{answer:?}");
        asked.push(frozen.begin("lease-read", 2, 0));
        asked.push(frozen.begin("read", 3, 0));
    }
    frozen.signal("-CONT");
    for answer in asked {
        answer.recv().unwrap();
    }
    println!("{} reads by lease when it woke", frozen.spun(5, 0));
    // A linearizable read at the one that slept sees what it missed.
    let mut seen = frozen.ask("read", 1, 0);
    while !matches!(seen, Some(Answer::Returned(_))) {
        assert!(Instant::now() < deadline, "{seen:?}");
        seen = frozen.ask("read", 1, 0);
    }
    let executed = frozen.executed();
    assert_eq!(executed.len(), 22);
    cluster.recorder.judge(&executed);
    for process in &processes {
        process.stop();
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn copies_strangers_and_the_wiped_take_no_part() {
    let cluster = Cluster::new(3);
    let mut processes = cluster.start_all();
    let works = |process: &Process| {
        let deadline = Instant::now() + DEADLINE;
        while !matches!(process.ask("in-session", 1, 0), Some(Answer::Returned(_))) {
            assert!(Instant::now() < deadline, "it does not go on");
        }
    };
    works(&processes[0]);
    for process in &processes {
        process.tell("bound");
        process.hear("bound");
    }

    // A directory is copied, and there are two of one node.
    let third = processes.pop().unwrap();
    third.stop();
    let place = |name: &str| cluster.scratch.0.join(name);
    copy_all(&cluster.scratch.of(3), &place("copy"));
    let third = cluster.start(3);
    works(&processes[0]);
    third.tell("leader");
    third.hear("leader ");
    let double =
        cluster.start_as(3, "quorate", &place("copy").display().to_string(), "127.0.0.1:0");
    let why = double.hear("refused by node");
    assert!(why.contains("another process runs as node 3"), "{why}");
    works(&processes[1]);
    drop(double);

    // One that belongs elsewhere, by mistake with our addresses.
    let stranger =
        cluster.start_as(2, "another", &place("stranger").display().to_string(), "127.0.0.1:0");
    let why = stranger.hear("refused by node");
    assert!(why.contains("this node belongs to cluster"), "{why}");
    works(&processes[0]);
    drop(stranger);

    // All lose power at once, and one of them its disk, too.
    processes.push(third);
    for process in &processes {
        process.kill();
    }
    std::fs::remove_dir_all(cluster.scratch.of(3)).unwrap();
    let processes: Vec<Process> = (1..=3).map(|id| cluster.start(id)).collect();
    let why = processes[2].hear("refused by");
    assert!(why.contains("remove it and add it under a new id"), "{why}");
    for process in &processes[..2] {
        process.open_session();
        works(process);
    }
    let executed = processes[0].executed();
    cluster.recorder.judge(&executed);
    assert_ne!(processes[0].leader(), 3);
    processes[2].tell("applied");
    assert_eq!(processes[2].hear("applied "), "0");
}
