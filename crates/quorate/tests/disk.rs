//! Nodes with logs on disk, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use quorate::{
    Heard, Node, NodeEvent, ProposeError, Snapshot, StartError, StateMachine, StopReason,
};
use support::{Scratch, addresses, hears, stop_all, until};

/// Counts how often each number was given to it.
#[derive(Default, Clone)]
struct Tally(BTreeMap<u64, u64>);

/// This number makes it panic.
const POISON: u64 = 666;

impl StateMachine for Tally {
    type Command = u64;
    type Reply = u64;

    fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
        let count = |command| {
            assert_ne!(command, POISON, "poison");
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

struct Cluster {
    scratch: Scratch,
    members: Vec<(u64, String)>,
}

impl Cluster {
    fn new(count: usize) -> Self {
        Self { scratch: Scratch::new(), members: addresses(count) }
    }

    async fn try_start(&self, id: u64, directory: &Path) -> Result<Node<Tally>, StartError> {
        Node::builder(id, Tally::default())
            .data_dir(directory)
            .members(self.members.clone())
            .tune(|tuning| {
                tuning.core.election_timeout_min_us = 300_000;
                tuning.core.election_timeout_max_us = 600_000;
                tuning.core.heartbeat_interval_us = 50_000;
                tuning.segment_bytes = 1 << 20;
                tuning.snapshot_entries = 500;
                tuning.node.compact_entries = 400;
                tuning.node.keep_entries = 100;
            })
            .start()
            .await
    }

    async fn start(&self, id: u64) -> Node<Tally> {
        self.try_start(id, &self.scratch.of(id)).await.unwrap()
    }

    async fn start_all(&self) -> Vec<Node<Tally>> {
        let mut nodes = Vec::new();
        for (id, _) in &self.members {
            nodes.push(self.start(*id).await);
        }
        nodes
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_survives_a_restart_of_all() {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all().await;
    for number in 0..100 {
        assert_eq!(nodes[number as usize % 3].propose(number).await.unwrap(), 1);
    }
    stop_all(nodes).await;
    let nodes = cluster.start_all().await;
    for node in &nodes {
        let tally = node.read(|tally| tally.0.clone()).await.unwrap();
        assert_eq!(tally, (0..100).map(|number| (number, 1)).collect());
    }
    assert_eq!(nodes[1].propose(5).await.unwrap(), 2);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_alone_leads_without_waiting() {
    let (scratch, members) = (Scratch::new(), addresses(1));
    for _ in 0..2 {
        let builder = Node::builder(1, Tally::default())
            .data_dir(scratch.of(1))
            .members(members.clone())
            // An election timeout that nobody would live to see.
            .tune(|tuning| {
                tuning.core.election_timeout_min_us = 3_600_000_000;
                tuning.core.election_timeout_max_us = 7_200_000_000;
            });
        let node = builder.start().await.unwrap();
        node.propose(1).await.unwrap();
        stop_all([node]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_restarts_from_snapshot_and_log() {
    let cluster = Cluster::new(1);
    let node = cluster.start(1).await;
    for number in 0..1_300 {
        node.propose(number % 10).await.unwrap();
    }
    let metrics = node.metrics();
    assert!(metrics.snapshots_taken >= 1, "{metrics:?}");
    until("the log is compacted", async || node.status().await.unwrap().compacted.index.0 > 0)
        .await;
    let session = node.session().await.unwrap();
    session.propose(77).await.unwrap();
    let session_id = session.id();
    node.snapshot().await.unwrap();
    node.stop().await;

    let node = cluster.start(1).await;
    let tally = node.read(|tally| tally.0.clone()).await.unwrap();
    assert_eq!(tally[&3], 130);
    // The session is in the snapshot, too.
    let session = session.via(&node.handle());
    assert_eq!(session.id(), session_id);
    assert_eq!(session.propose(77).await.unwrap(), 2);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_behind_the_log_is_caught_up_by_snapshot() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    // It may be the one that leads.
    let session = nodes[0].session().await.unwrap();
    session.propose(1).await.unwrap();
    nodes.pop().unwrap().stop().await;
    // In a session: on a busy machine leadership may change meanwhile.
    let session = nodes[0].session().await.unwrap();
    for number in 0..2_000 {
        session.propose(number % 7).await.unwrap();
    }
    for node in &nodes {
        until("the log is compacted", async || node.status().await.unwrap().compacted.index.0 > 10)
            .await;
    }
    let applied = nodes[0].applied();
    let late = cluster.start(3).await;
    until("it has caught up", async || late.applied() >= applied).await;
    assert!(late.metrics().snapshots_installed >= 1);
    let expected = nodes[0].read(|tally| tally.0.clone()).await.unwrap();
    assert_eq!(late.read(|tally| tally.0.clone()).await.unwrap(), expected);
    // What was installed is what it starts from.
    late.stop().await;
    let late = cluster.start(3).await;
    assert_eq!(late.read(|tally| tally.0.clone()).await.unwrap(), expected);
    nodes.push(late);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_come_and_go_and_sessions_execute_once() {
    let cluster = Cluster::new(3);
    let mut nodes: BTreeMap<u64, Node<Tally>> = BTreeMap::new();
    for (id, _) in &cluster.members {
        nodes.insert(*id, cluster.start(*id).await);
    }
    let mut session = nodes[&1].session().await.unwrap();
    let mut number = 1_000;
    for round in 0..3 {
        let load = {
            let session = session.clone();
            tokio::spawn(async move {
                for number in number..number + 60 {
                    assert_eq!(session.propose(number).await.unwrap(), 1, "once");
                }
            })
        };
        number += 60;
        // Not the one that the client is connected to.
        let leader = nodes[&1].wait_for_leader().await.unwrap().0;
        if leader != 1 {
            let gone = nodes.remove(&leader).unwrap();
            if round % 2 == 0 {
                gone.stop().await;
            } else {
                gone.shutdown().await;
            }
            load.await.unwrap();
            nodes.insert(leader, cluster.start(leader).await);
        } else {
            let other = 2 + round % 2;
            until("leadership moves", async || nodes[&1].transfer(other).await.is_ok()).await;
            load.await.unwrap();
        }
        session = session.via(&nodes[&1].handle());
    }
    let tally = nodes[&1].read(|tally| tally.0.clone()).await.unwrap();
    assert_eq!(tally, (1_000..number).map(|number| (number, 1)).collect());
    stop_all(nodes.into_values()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_membership_may_say_more_than_an_address_and_members_ask_each_other() {
    let scratch = Scratch::new();
    let said =
        addresses(2).into_iter().map(|(id, address)| (id, format!("node-{id} at {address}")));
    let members: Vec<(u64, String)> = said.collect();
    let mut nodes = Vec::new();
    for (id, _) in &members {
        let builder = Node::builder(*id, Tally::default())
            .data_dir(scratch.of(*id))
            .members(members.clone())
            .address_of(|said| {
                let said = String::from_utf8_lossy(said);
                said.rsplit(' ').next().unwrap_or_default().to_owned()
            });
        nodes.push(builder.start().await.unwrap());
    }
    nodes[0].propose(1).await.unwrap();
    let id = nodes[1].id();
    nodes[1].answer_with(|from, question| async move {
        [from.to_string().as_bytes(), b" asked ", &question[..]].concat().into()
    });
    let limit = Duration::from_secs(5);
    assert_eq!(nodes[0].ask(id, b"the way", limit).await.unwrap(), "1 asked the way");
    let long = vec![b'x'; 1 << 20];
    assert_eq!(nodes[0].ask(id, &long, limit).await.unwrap().len(), long.len() + 8);
    let back = nodes[1].ask(nodes[0].id(), b"?", limit).await;
    assert_eq!(back, Err(quorate::AskError::Declined));
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    let all = addresses(3);
    let scratch = Scratch::new();
    let first = Node::builder(1, Tally::default())
        .data_dir(scratch.of(1))
        .members([all[0].clone()])
        .start()
        .await
        .unwrap();
    first.propose(1).await.unwrap();
    let mut nodes = vec![first];
    for (id, address) in &all[1..] {
        let node = Node::builder(*id, Tally::default())
            .data_dir(scratch.of(*id))
            .listen(address)
            .join([all[0].clone()])
            .start()
            .await
            .unwrap();
        nodes[0].add_voter(*id, address).await.unwrap();
        let id = quorate::NodeId(*id);
        until("it votes", async || nodes[0].membership().is_voter(id)).await;
        assert_eq!(node.read(|tally| tally.0[&1]).await.unwrap(), 1);
        nodes.push(node);
    }
    // With two of three gone, nothing is committed.
    let refused = nodes[0].remove(9).await.unwrap_err();
    assert!(refused.to_string().contains('9'), "{refused}");
    nodes[0].remove(3).await.unwrap();
    assert_eq!(nodes[0].membership().voters().len(), 2);
    assert_eq!(nodes[1].propose(1).await.unwrap(), 2);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_stops_the_node_and_leaves_the_directory_usable() {
    let cluster = Cluster::new(1);
    let node = cluster.start(1).await;
    let mut events = node.events();
    node.propose(1).await.unwrap();
    let outcome = node.propose(POISON).await.unwrap_err();
    assert!(matches!(outcome, ProposeError::OutcomeUnknown { .. }), "{outcome:?}");
    let why = node.stopped().await;
    assert_eq!(why, StopReason::Panicked { operation: "apply", message: message() });
    assert!(matches!(node.propose(1).await, Err(ProposeError::Stopped(_))));
    assert!(node.read(|tally| tally.0.len()).await.is_err());
    let mut last = None;
    while let Some(Heard::Event(event)) = events.next().await {
        let stops = matches!(event, NodeEvent::Stopped(_));
        last = Some(event);
        if stops {
            break;
        }
    }
    assert_eq!(last, Some(NodeEvent::Stopped(why)));
    drop(node);
    // It is in the log, so a machine that does not like it stops again; the directory is whole.
    let node = cluster.start(1).await;
    assert!(matches!(node.stopped().await, StopReason::Panicked { .. }));
}

fn message() -> String {
    "assertion `left != right` failed: poison\n  left: 666\n right: 666".to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_belongs_to_one_process_and_one_node() {
    let cluster = Cluster::new(2);
    let node = cluster.start(1).await;
    let again = cluster.try_start(1, &cluster.scratch.of(1)).await.unwrap_err();
    assert!(again.to_string().contains("in use"), "{again}");
    node.stop().await;
    let other = cluster.try_start(2, &cluster.scratch.of(1)).await.unwrap_err();
    assert!(other.to_string().contains("belongs to node 1"), "{other}");
}

#[tokio::test]
async fn settings_that_are_missing_are_named() {
    let scratch = Scratch::new();
    let start =
        async |builder: quorate::Builder<Tally>| builder.start().await.unwrap_err().to_string();
    let error = start(Node::builder(1, Tally::default())).await;
    assert!(error.contains("data_dir"), "{error}");
    let error = start(Node::builder(1, Tally::default()).in_memory()).await;
    assert!(error.contains("members"), "{error}");
    let error = start(Node::builder(0, Tally::default()).in_memory()).await;
    assert!(error.contains("zero"), "{error}");
    let error = start(Node::builder(1, Tally::default()).in_memory().members([(2, "x:1")])).await;
    assert!(error.contains("not among"), "{error}");
    let twice = Node::builder(1, Tally::default()).in_memory().members([(1, "a:1"), (1, "b:1")]);
    let error = start(twice).await;
    assert!(error.contains("twice"), "{error}");
    let join = Node::builder(1, Tally::default()).data_dir(scratch.of(1)).join([(2, "b:1")]);
    let error = start(join).await;
    assert!(error.contains("listen"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused() {
    let cluster = Cluster::new(2);
    let node = cluster.start(1).await;
    let mut events = node.events();
    let stranger = Node::builder(2, Tally::default())
        .data_dir(cluster.scratch.of(2))
        .members(cluster.members.clone())
        .cluster("another")
        .start()
        .await
        .unwrap();
    hears(&mut events, "cluster").await;
    assert!(node.read(|_| ()).await.is_err(), "alone it has no majority");
    stop_all(vec![node, stranger]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_cannot_vote_as_its_old_self() {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all().await;
    nodes[0].propose(1).await.unwrap();
    until("all are bound", async || {
        let membership = nodes[0].membership();
        nodes.iter().all(|node| {
            let same = node.membership() == membership;
            same && membership.members().all(|(_, member)| member.incarnation.is_some())
        })
    })
    .await;
    stop_all(nodes).await;
    std::fs::remove_dir_all(cluster.scratch.of(3)).unwrap();

    // All at once, one of them wiped.
    let nodes = cluster.start_all().await;
    let mut events = nodes[0].events();
    assert_eq!(nodes[0].propose(1).await.unwrap(), 2, "the other two are a majority");
    hears(&mut events, "data directory").await;
    assert_eq!(nodes[2].applied(), quorate::Index(0), "it takes no part");
    let (leader, _) = nodes[0].leader();
    assert_ne!(leader, Some(quorate::NodeId(3)));

    // What the error says helps: remove it, and add it under a new id.
    let mut nodes = nodes;
    nodes.pop().unwrap().stop().await;
    let address = addresses(1).remove(0).1;
    let mut replaced = Err(());
    for node in &nodes {
        if Some(node.id()) == node.leader().0 {
            replaced = node.replace(3, 4, &address).await.map(|_| ()).map_err(|_| ());
        }
    }
    replaced.unwrap();
    let new = Node::builder(4, Tally::default())
        .data_dir(cluster.scratch.of(4))
        .listen(address)
        .join(cluster.members[..2].to_vec())
        .start()
        .await
        .unwrap();
    until("it is replaced", async || {
        let membership = nodes[0].membership();
        membership.is_voter(quorate::NodeId(4)) && !membership.contains(quorate::NodeId(3))
    })
    .await;
    assert_eq!(new.read(|tally| tally.0[&1]).await.unwrap(), 2);
    nodes.push(new);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_with_one_id_are_noticed() {
    let cluster = Cluster::new(2);
    let nodes = cluster.start_all().await;
    nodes[0].propose(1).await.unwrap();
    let mut events = nodes[0].events();
    let double = Node::builder(2, Tally::default())
        .data_dir(cluster.scratch.of(22))
        .members(cluster.members.clone())
        .listen("127.0.0.1:0")
        .start()
        .await
        .unwrap();
    hears(&mut events, "efused").await;
    assert_eq!(nodes[0].propose(1).await.unwrap(), 2);
    assert_eq!(double.applied(), quorate::Index(0));
    stop_all(vec![double]).await;
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_kept_until_a_snapshot_covers_it() {
    let cluster = Cluster::new(1);
    let node = cluster.start(1).await;
    // More than `compact_entries`, fewer than `snapshot_entries`.
    for number in 0..450 {
        node.propose(number).await.unwrap();
    }
    assert_eq!(node.metrics().snapshots_taken, 0);
    node.stop().await;
    let node = cluster.start(1).await;
    assert_eq!(node.read(|tally| tally.0.len()).await.unwrap(), 450);
    node.stop().await;
}
