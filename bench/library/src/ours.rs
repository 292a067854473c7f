//! The work on this library: its public interface, nothing else.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use quorate::{InProcess, Node, Raw, Snapshot, StateMachine};

/// Does nothing with commands of any size.
#[derive(Default)]
pub struct Nothing;

impl StateMachine for Nothing {
    type Command = Raw;
    type Reply = ();

    fn apply(&mut self, commands: Vec<Raw>) -> Vec<()> {
        vec![(); commands.len()]
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::from_bytes([])
    }

    fn restore(&mut self, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

/// Three nodes with logs in memory; returns them, the leader first.
pub async fn cluster() -> Vec<Node<Nothing>> {
    let network = InProcess::new();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let builder = Node::builder(id, Nothing)
            .in_memory()
            .members([(1, ""), (2, ""), (3, "")])
            .in_process(&network)
            .tune(|tuning| {
                tuning.core.election_timeout_min_us = 200_000;
                tuning.core.election_timeout_max_us = 400_000;
            });
        nodes.push(builder.start().await.expect("a node in memory starts"));
    }
    nodes[0].propose(Raw::default()).await.expect("a leader is elected");
    let leader = nodes[0].leader().0;
    nodes.sort_by_key(|node| Some(node.id()) != leader);
    nodes
}

/// Proposes `commands` commands of `bytes` bytes by `clients` clients, each of which waits for the
/// reply before the next one.
pub async fn run(clients: usize, commands: usize, bytes: usize) -> (Duration, Vec<u64>) {
    let nodes = cluster().await;
    let leader = nodes[0].handle();
    let each = commands / clients;
    let payload = Raw(vec![7; bytes].into());
    let begun = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let leader = leader.clone();
            let payload = payload.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(each / 16 + 1);
                for at in 0..each {
                    let sample = (at % 16 == 0).then(Instant::now);
                    leader.propose(payload.clone()).await.expect("nothing fails here");
                    latencies.extend(sample.map(|since| since.elapsed().as_nanos() as u64));
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no client panics"));
    }
    let elapsed = begun.elapsed();
    let metrics = leader.metrics();
    if std::env::var_os("BENCH_METRICS").is_some() {
        eprintln!("{metrics:?}");
    }
    for node in nodes {
        node.stop().await;
    }
    (elapsed, latencies)
}

