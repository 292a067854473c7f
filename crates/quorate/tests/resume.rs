//! Transfers of snapshots that break: only the rest is sent again.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::io::{self, Read};

use quorate::{Node, Snapshot, StateMachine};
use support::proxy::Mesh;
use support::{Scratch, stop_all, until};

const BYTES: u64 = 8 << 20;
/// What a break may cost: what the receiver does not trust after a restart, what was in buffers,
/// and what frames it all.
const SLACK: u64 = 1 << 20;

/// A sum with much ballast in its snapshots.
#[derive(Default)]
struct Heavy(u64);

/// Bytes that do not repeat.
fn ballast() -> Vec<u8> {
    let word = |at: u64| (at.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    (0..BYTES / 8).flat_map(|at| word(at).to_le_bytes()).collect()
}

impl StateMachine for Heavy {
    type Command = u64;
    type Reply = u64;

    fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
        let add = |command| {
            self.0 += command;
            self.0
        };
        commands.into_iter().map(add).collect()
    }

    fn snapshot(&self) -> Snapshot {
        let sum = self.0;
        Snapshot::new(move |out| {
            out.write_all(&sum.to_le_bytes())?;
            out.write_all(&ballast())
        })
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        let mut sum = [0; 8];
        snapshot.read_exact(&mut sum)?;
        let mut rest = Vec::new();
        snapshot.read_to_end(&mut rest)?;
        assert!(rest == ballast(), "all of it arrives, unchanged");
        self.0 = u64::from_le_bytes(sum);
        Ok(())
    }
}

struct Cluster {
    scratch: Scratch,
    mesh: Mesh,
}

impl Cluster {
    async fn start(&self, id: u64) -> Node<Heavy> {
        Node::builder(id, Heavy::default())
            .data_dir(self.scratch.of(id))
            .members(self.mesh.members())
            .listen(self.mesh.listen(id))
            .tcp(|settings| settings.snapshot_bytes_per_second = 16 << 20)
            .tune(|tuning| {
                tuning.segment_bytes = 1 << 20;
                // By hand, so that there is one.
                tuning.snapshot_entries = 1_000_000;
                tuning.node.compact_entries = 50;
                tuning.node.keep_entries = 10;
                tuning.node.keep_for_followers = 0;
            })
            .start()
            .await
            .unwrap()
    }

    /// Two nodes whose logs start behind a snapshot, and a third that needs it.
    async fn new() -> (Self, Vec<Node<Heavy>>) {
        let cluster = Self { scratch: Scratch::new(), mesh: Mesh::new(3).await };
        let nodes = vec![cluster.start(1).await, cluster.start(2).await];
        let session = nodes[0].session().await.unwrap();
        for _ in 0..100 {
            session.propose(1).await.unwrap();
        }
        for node in &nodes {
            until("it has applied all", async || node.read(|heavy| heavy.0).await == Ok(100)).await;
            // The log reaches back to the one before the latest.
            node.snapshot().await.unwrap();
        }
        session.propose(1).await.unwrap();
        for node in &nodes {
            until("it has applied all", async || node.read(|heavy| heavy.0).await == Ok(101)).await;
            node.snapshot().await.unwrap();
            until("the log is cut", async || node.status().await.unwrap().compacted.index.0 > 10)
                .await;
        }
        (cluster, nodes)
    }

    /// The third node has it all, and not much was sent twice.
    async fn end(self, mut nodes: Vec<Node<Heavy>>, late: Node<Heavy>) {
        until("it is installed", async || late.metrics().snapshots_installed > 0).await;
        assert_eq!(late.read(|heavy| heavy.0).await.unwrap(), 101);
        let sent = self.mesh.snapshot_bytes();
        println!("{sent} bytes sent");
        assert!((BYTES..BYTES + SLACK).contains(&sent), "{sent} bytes were sent");
        nodes.push(late);
        stop_all(nodes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_whose_connection_breaks_goes_on_where_it_was() {
    let (cluster, nodes) = Cluster::new().await;
    cluster.mesh.break_snapshots_at(&[BYTES / 4, BYTES / 2, BYTES * 3 / 4]);
    let late = cluster.start(3).await;
    until("it is installed", async || late.metrics().snapshots_installed > 0).await;
    assert_eq!(cluster.mesh.breaks_left(), 0);
    cluster.end(nodes, late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_goes_on_after_a_restart_of_the_receiver() {
    let (cluster, nodes) = Cluster::new().await;
    for part in [BYTES / 4, BYTES / 2] {
        let late = cluster.start(3).await;
        until("a part is here", async || cluster.mesh.snapshot_bytes() > part).await;
        assert_eq!(late.metrics().snapshots_installed, 0);
        late.stop().await;
    }
    let late = cluster.start(3).await;
    cluster.end(nodes, late).await;
}
