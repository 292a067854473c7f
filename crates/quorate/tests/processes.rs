//! Three nodes in processes of their own, killed without warning while they work.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use quorate::{Node, Snapshot, StateMachine};

/// Counts how often each number was given to it.
#[derive(Default, Clone)]
struct Tally(BTreeMap<u64, u64>);

impl StateMachine for Tally {
    type Command = u64;
    type Reply = u64;

    fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
        let count = |command| {
            let count = self.0.entry(command).or_default();
            *count += 1;
            *count
        };
        commands.into_iter().map(count).collect()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0.clone())
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        self.0 = quorate::read_snapshot(snapshot)?;
        Ok(())
    }
}

const NODE: &str = "QUORATE_TEST_NODE";

/// Not a test but what the processes of the tests run: this file again, as one node.
#[test]
fn node_process() {
    let Ok(arguments) = std::env::var(NODE) else { return };
    let mut arguments = arguments.split(' ');
    let id: u64 = arguments.next().unwrap().parse().unwrap();
    let directory = arguments.next().unwrap().to_owned();
    let members: Vec<(u64, String)> = (1..).zip(arguments.map(str::to_owned)).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let node = Node::builder(id, Tally::default())
            .data_dir(directory)
            .members(members)
            .tune(|tuning| {
                tuning.core.election_timeout_min_us = 500_000;
                tuning.core.election_timeout_max_us = 1_000_000;
                tuning.segment_bytes = 1 << 20;
                tuning.snapshot_entries = 300;
            })
            .start()
            .await
            .unwrap();
        let session = node.session().await.unwrap();
        say("ready");
        let (sender, mut lines) = tokio::sync::mpsc::channel(1024);
        std::thread::spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        while let Some(line) = lines.recv().await {
            if let Ok(number) = line.parse::<u64>() {
                let session = session.clone();
                tokio::spawn(async move {
                    if let Ok(count) = session.propose(number).await {
                        say(&format!("done {number} {count}"));
                    }
                });
            } else if line == "leader" {
                say(&format!("leader {}", node.leader().0.map_or(0, |leader| leader.0)));
            } else if line == "tally" {
                let tally = node.read(|tally| tally.0.clone()).await.unwrap();
                let tally: Vec<String> =
                    tally.iter().map(|(number, count)| format!("{number}:{count}")).collect();
                say(&format!("tally {}", tally.join(" ")));
            } else {
                break;
            }
        }
        node.shutdown().await;
    });
}

fn say(line: &str) {
    // The test harness prints things of its own.
    let mut out = io::stdout().lock();
    writeln!(out, "\n@{line}").unwrap();
    out.flush().unwrap();
}

/// A node's process; killed when it is dropped.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    fn start(id: u64, cluster: &Cluster) -> Self {
        let directory = cluster.directory.join(id.to_string());
        let arguments = format!("{id} {} {}", directory.display(), cluster.addresses.join(" "));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node_process", "--nocapture", "--test-threads=1"])
            .env(NODE, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(said) = line.strip_prefix('@')
                    && sender.send(said.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, lines }
    }

    /// Says something; a process that is dead does not hear it.
    fn tell(&mut self, line: &str) {
        if let Some(input) = &mut self.input {
            let _ = writeln!(input, "{line}");
        }
    }

    /// The next line that begins so; what comes before is given to `other`.
    fn hear(&self, start: &str, mut other: impl FnMut(&str)) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(rest) {
                Ok(line) => match line.strip_prefix(start) {
                    Some(rest) => return rest.trim().to_owned(),
                    None => other(&line),
                },
                Err(error) => panic!("never heard `{start}`: {error}"),
            }
        }
    }

    /// As `kill -9`.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Cluster {
    directory: PathBuf,
    addresses: Vec<String>,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let name = format!("quorate-processes-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&directory);
        let listeners: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        Self { directory, addresses: listeners.iter().map(address).collect() }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Notes what a process says to be done.
fn note(acknowledged: &mut BTreeSet<u64>, line: &str) {
    if let Some(done) = line.strip_prefix("done ") {
        let (number, count) = done.split_once(' ').unwrap();
        assert_eq!(count, "1", "number {number} was counted before");
        acknowledged.insert(number.parse().unwrap());
    }
}

#[test]
fn leaders_are_killed_under_load_and_every_command_counts_once() {
    let cluster = Cluster::new("kill");
    let mut processes: Vec<Process> = (1..=3).map(|id| Process::start(id, &cluster)).collect();
    for process in &processes {
        process.hear("ready", |_| {});
    }
    let mut acknowledged = BTreeSet::new();
    let mut next = 0;
    for round in 0..4 {
        // Whoever leads dies with commands of all clients under way.
        for _ in 0..300 {
            next += 1;
            processes[next as usize % 3].tell(&next.to_string());
        }
        let mut leader = 0;
        while leader == 0 {
            let asked = &mut processes[round % 3];
            asked.tell("leader");
            let answer = asked.hear("leader", |line| note(&mut acknowledged, line));
            leader = answer.parse::<usize>().unwrap();
        }
        processes[leader - 1].kill();
        for line in processes[leader - 1].lines.try_iter() {
            note(&mut acknowledged, &line);
        }
        for _ in 0..100 {
            next += 1;
            processes[next as usize % 3].tell(&next.to_string());
        }
        processes[leader - 1] = Process::start(leader as u64, &cluster);
        processes[leader - 1].hear("ready", |_| {});
    }
    // Commands of processes that live are answered in the end.
    let deadline = Instant::now() + Duration::from_secs(60);
    let tally = loop {
        for process in &processes {
            loop {
                match process.lines.recv_timeout(Duration::from_millis(50)) {
                    Ok(line) => note(&mut acknowledged, &line),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(error) => panic!("a process has ended: {error}"),
                }
            }
        }
        processes[0].tell("tally");
        let tally = processes[0].hear("tally", |line| note(&mut acknowledged, line));
        let tally: BTreeMap<u64, u64> = tally
            .split(' ')
            .filter_map(|part| part.split_once(':'))
            .map(|(number, count)| (number.parse().unwrap(), count.parse().unwrap()))
            .collect();
        if acknowledged.iter().all(|number| tally.contains_key(number)) {
            break tally;
        }
        assert!(Instant::now() < deadline, "acknowledged commands are lost");
    };
    assert!(acknowledged.len() > 400, "only {} were acknowledged", acknowledged.len());
    assert!(tally.values().all(|count| *count == 1), "something was executed twice: {tally:?}");
    for process in &mut processes {
        process.tell("tally");
        let other = process.hear("tally", |_| {});
        assert!(other.split(' ').count() >= tally.len(), "all have the same");
    }
    for process in &mut processes {
        process.tell("stop");
        assert!(process.child.wait().unwrap().success());
    }
}

#[test]
fn a_frozen_leader_is_replaced_and_serves_nothing_old_when_it_wakes() {
    let cluster = Cluster::new("freeze");
    let mut processes: Vec<Process> = (1..=3).map(|id| Process::start(id, &cluster)).collect();
    for process in &processes {
        process.hear("ready", |_| {});
    }
    let mut leader = 0;
    while leader == 0 {
        processes[0].tell("leader");
        leader = processes[0].hear("leader", |_| {}).parse::<usize>().unwrap();
    }
    let signal = |process: &Process, name: &str| {
        let pid = process.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal(&processes[leader - 1], "-STOP");
    // Its connections stay, so only the silence tells.
    let other = leader % 3;
    for number in 1..=20 {
        processes[other].tell(&number.to_string());
    }
    let mut acknowledged = BTreeSet::new();
    while acknowledged.len() < 20 {
        let done = processes[other].hear("done", |_| {});
        note(&mut acknowledged, &format!("done {done}"));
    }
    signal(&processes[leader - 1], "-CONT");
    // A linearizable read at the one that slept: it sees what it missed.
    processes[leader - 1].tell("tally");
    let tally = processes[leader - 1].hear("tally", |_| {});
    assert_eq!(tally.split(' ').count(), 20, "{tally}");
    for process in &mut processes {
        process.tell("stop");
    }
}
