//! The work on this library: its public interface, nothing else.

use std::io::{self, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use quorate::{Handle, InProcess, Node, Raw, Snapshot, StateMachine};

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

/// The version measured.
pub const VERSION: &str = "0.1.0";

/// Where logs are, and how nodes reach each other.
#[derive(Clone, Copy, PartialEq)]
pub enum Setup {
    Memory,
    Disk,
    DiskAndSockets,
}

/// Three members at free ports.
pub fn members() -> Vec<(u64, String)> {
    let listeners: Vec<_> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free")).collect();
    let address = |listener: &TcpListener| listener.local_addr().expect("it listens").to_string();
    (1..).zip(listeners.iter().map(address)).collect()
}

/// A directory that goes away with the cluster.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let name = format!("quorate-bench-library-{}", std::process::id());
        let scratch = Self(std::env::temp_dir().join(name));
        let _ = std::fs::remove_dir_all(&scratch.0);
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Three nodes, the leader first.
async fn cluster(setup: Setup) -> (Vec<Node<Nothing>>, Scratch) {
    let scratch = Scratch::new();
    let network = InProcess::new();
    let members = members();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let builder = Node::builder(id, Nothing).members(members.clone()).tune(|tuning| {
            tuning.core.election_timeout_min_us = 400_000;
            tuning.core.election_timeout_max_us = 800_000;
        });
        let builder = match setup {
            Setup::Memory => builder.in_memory(),
            Setup::Disk | Setup::DiskAndSockets => builder.data_dir(scratch.0.join(id.to_string())),
        };
        let builder = match setup {
            Setup::Memory | Setup::Disk => builder.in_process(&network),
            Setup::DiskAndSockets => builder,
        };
        nodes.push(builder.start().await.expect("the node starts"));
    }
    nodes[0].propose(Raw::default()).await.expect("a leader is elected");
    let leader = nodes[0].leader().0;
    nodes.sort_by_key(|node| Some(node.id()) != leader);
    (nodes, scratch)
}

/// Proposes `commands` commands of `bytes` bytes by `clients` clients, each of which waits for the
/// reply before the next one. Gives the time that took, and some latencies in nanoseconds.
pub async fn run(
    setup: Setup,
    clients: usize,
    commands: usize,
    bytes: usize,
) -> (Duration, Vec<u64>) {
    let (nodes, _scratch) = cluster(setup).await;
    let ran = drive(&nodes[0].handle(), clients, commands, bytes).await;
    for node in nodes {
        node.stop().await;
    }
    ran
}

/// What [`run`] does at a leader that is there.
pub async fn drive(
    leader: &Handle<Nothing>,
    clients: usize,
    commands: usize,
    bytes: usize,
) -> (Duration, Vec<u64>) {
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
    (begun.elapsed(), latencies)
}
