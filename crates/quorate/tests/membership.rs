//! A cluster that grows and shrinks while clients write, over real sockets, with logs on disk.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate::{Builder, Change, ChangeStep, Handle, Node, NodeId};
use support::store::{KEYS, Recorder, Store};
use support::{Scratch, addresses, hears, leader, stop_all, until};
use tokio::sync::RwLock;
use tokio::task::JoinHandle;

/// What a client does between its requests.
const PAUSE: Duration = Duration::from_millis(1);

fn tuned(builder: Builder<Store>) -> Builder<Store> {
    builder.tune(|tuning| {
        tuning.core.election_timeout_min_us = 500_000;
        tuning.core.election_timeout_max_us = 1_000_000;
        tuning.segment_bytes = 1 << 20;
        tuning.snapshot_entries = 300;
        tuning.node.compact_entries = 200;
        tuning.node.keep_entries = 50;
        tuning.leader_wait = Duration::from_secs(1);
        tuning.node.forward_timeout_us = 1_000_000;
    })
}

/// Clients, each with a session that it uses through all nodes that are to stay.
struct Clients {
    nodes: Arc<RwLock<Vec<Handle<Store>>>>,
    recorder: Arc<Recorder>,
    done: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(nodes: Vec<Handle<Store>>, count: u64) -> Self {
        let (nodes, recorder) = (Arc::new(RwLock::new(nodes)), Arc::new(Recorder::new()));
        let done = Arc::new(AtomicBool::new(false));
        let client = |id: u64| {
            let (nodes, recorder, done) =
                (Arc::clone(&nodes), Arc::clone(&recorder), Arc::clone(&done));
            tokio::spawn(async move {
                let session = nodes.read().await[0].session().await.unwrap();
                let mut turn = id;
                while !done.load(Ordering::Relaxed) {
                    turn += 1;
                    tokio::time::sleep(PAUSE).await;
                    let nodes = nodes.read().await;
                    let node = &nodes[turn as usize % nodes.len()];
                    recorder.propose_in(id, &session.via(node), turn % KEYS).await.unwrap();
                    let _ = recorder.read(id, node, turn % KEYS).await;
                }
            })
        };
        let tasks = (1..=count).map(client).collect();
        Self { nodes, recorder, done, tasks }
    }

    /// From now on they use these, and nothing is under way at others.
    async fn move_to<'a>(&self, nodes: impl IntoIterator<Item = &'a Node<Store>>) {
        *self.nodes.write().await = nodes.into_iter().map(Node::handle).collect();
    }

    async fn more(&self, count: u64) {
        let goal = self.recorder.acknowledged() + count;
        until("the cluster goes on", async || self.recorder.acknowledged() >= goal).await;
    }
}

/// Has the leader change the membership, until it is so on all nodes that are to be members.
async fn change(nodes: &BTreeMap<u64, Node<Store>>, steps: &[ChangeStep], voters: &[u64]) {
    let voters: Vec<NodeId> = voters.iter().copied().map(NodeId).collect();
    let members: Vec<&Node<Store>> =
        nodes.values().filter(|node| voters.contains(&node.id())).collect();
    let is_so = |node: &&Node<Store>| {
        let membership = node.membership();
        membership.voters() == voters && !membership.is_joint()
    };
    until("the membership is changed", async || {
        for node in nodes.values() {
            if node.leader().0 == Some(node.id()) && !members.iter().any(is_so) {
                // Leadership may move, and then somebody else is asked; whoever is in already, is in.
                let steps: Vec<ChangeStep> = steps
                    .iter()
                    .filter(|step| match step {
                        ChangeStep::Remove { .. } => true,
                        step => !node.membership().contains(step.node().unwrap()),
                    })
                    .cloned()
                    .collect();
                if !steps.is_empty() {
                    let _ = node.change(Change { steps }).await;
                }
            }
        }
        members.iter().all(is_so)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_one_to_three_to_five_to_three_under_load() {
    let (scratch, all) = (Scratch::new(), addresses(5));
    let mut nodes = BTreeMap::new();
    let first = tuned(Node::builder(1, Store::default()))
        .data_dir(scratch.of(1))
        .members([all[0].clone()])
        .start()
        .await
        .unwrap();
    let mut clients = Clients::start(vec![first.handle()], 4);
    nodes.insert(1, first);
    clients.more(500).await;

    // Each is behind what the log goes back to. The first two come one by one, the others at once.
    for joining in [&[2][..], &[3], &[4, 5]] {
        let mut steps = Vec::new();
        for id in joining {
            let address = &all[*id as usize - 1].1;
            let node = tuned(Node::builder(*id, Store::default()))
                .data_dir(scratch.of(*id))
                .listen(address)
                .join([all[0].clone()])
                .start()
                .await
                .unwrap();
            nodes.insert(*id, node);
            let context = address.clone().into();
            steps.push(ChangeStep::AddVoter { node: NodeId(*id), context, replaces: None });
        }
        let voters: Vec<u64> = nodes.keys().copied().collect();
        change(&nodes, &steps, &voters).await;
        for id in joining {
            assert!(nodes[id].metrics().snapshots_installed > 0, "node {id} came by a snapshot");
        }
        clients.move_to(nodes.values()).await;
        clients.more(300).await;
    }

    // Two leave at once, the leader among them.
    let everybody: Vec<_> = nodes.values().collect();
    let old = leader(&everybody).await.id().0;
    let gone = [old, old % 5 + 1];
    let stay: Vec<u64> = nodes.keys().copied().filter(|id| !gone.contains(id)).collect();
    clients.move_to(stay.iter().map(|id| &nodes[id])).await;
    let mut events: Vec<_> = gone.iter().map(|id| nodes[id].events()).collect();
    let steps = gone.map(|id| ChangeStep::Remove { node: NodeId(id) });
    change(&nodes, &steps, &stay).await;
    let said = hears(&mut events[0], "gave up leading").await;
    assert!(said.contains("removed from the cluster"), "{said}");
    for events in &mut events {
        hears(events, "not a member of this cluster").await;
    }
    clients.more(100).await;
    let rest: Vec<_> = stay.iter().map(|id| &nodes[id]).collect();
    let term = leader(&rest).await.leader().1;
    for id in &gone {
        let (write, read) = tokio::join!(
            clients.recorder.propose(100, &nodes[id], 0),
            clients.recorder.read(101, &nodes[id], 0),
        );
        assert!(write.is_err());
        assert!(read.is_err());
    }
    clients.more(300).await;
    assert_eq!(leader(&rest).await.leader().1, term, "those who left disturb nobody");

    clients.done.store(true, Ordering::Relaxed);
    for task in std::mem::take(&mut clients.tasks) {
        task.await.unwrap();
    }
    let executed = nodes[&stay[0]].read(|store| store.executed().clone()).await.unwrap();
    for node in &rest {
        assert_eq!(node.read(|store| store.executed().clone()).await.unwrap(), executed);
    }
    clients.recorder.judge(&executed);
    assert_eq!(executed.len() as u64, clients.recorder.acknowledged());
    stop_all(nodes.into_values()).await;
}
