//! Reads by lease: what they cost, who serves them, and that they end in time.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::time::{Duration, Instant};

use quorate::{Age, ChangeStep, Consistency, Handle, InProcess, Node, NodeId, ReadError, RoleName};
use quorate_raft::{NoLease, ReadError as CoreReadError};
use support::store::{Put, Recorder, Store, now};
use support::{DEADLINE, leader, stop_all, until};

const LEASE_US: u64 = 400_000;

/// Three nodes, the first of which leads, and does not soon believe that it leads no more.
async fn start(network: &InProcess) -> Vec<Node<Store>> {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let node = Node::builder(id, Store::default())
            .in_memory()
            .members([(1, ""), (2, ""), (3, "")])
            .in_process(network)
            .tune(|tuning| {
                tuning.core.election_timeout_min_us = 500_000;
                tuning.core.election_timeout_max_us = if id == 1 { 30_000_000 } else { 1_000_000 };
                tuning.leader_wait = Duration::from_secs(5);
            })
            .start()
            .await
            .unwrap();
        nodes.push(node);
    }
    let all: Vec<_> = nodes.iter().collect();
    until("the first one leads", async || {
        let old = leader(&all).await;
        old.id() == NodeId(1) || old.transfer(1).await.is_ok()
    })
    .await;
    assert_eq!(leader(&all).await.id(), NodeId(1));
    nodes
}

async fn read_by_lease(node: &Handle<Store>) -> Result<Option<u64>, ReadError> {
    let (value, age) = node.read_with(Consistency::Lease, |store| store.get(0)).await?;
    assert_eq!(age, Age::Latest);
    Ok(value)
}

fn refused(why: NoLease) -> Result<Option<u64>, ReadError> {
    Err(ReadError::NoLease { why: CoreReadError::NoLease(why) })
}

async fn turn_on(nodes: &[Node<Store>]) {
    let step = |lease_us| ChangeStep::SetLease { lease_us: Some(lease_us) }.into();
    let error = nodes[0].change(step(500_001)).await.unwrap_err();
    assert_eq!(error.to_string(), "a lease may last 500000 us at most");
    nodes[0].change(step(LEASE_US)).await.unwrap();
    until("there is a lease", async || read_by_lease(&nodes[0]).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_by_lease_costs_no_message_and_only_the_leader_serves_it() {
    let network = InProcess::new();
    let nodes = start(&network).await;
    nodes[0].propose(Put { key: 0, value: 7 }).await.unwrap();
    assert_eq!(read_by_lease(&nodes[0]).await, refused(NoLease::Off));
    turn_on(&nodes).await;
    assert_eq!(read_by_lease(&nodes[0]).await, Ok(Some(7)));
    for node in &nodes[1..] {
        let why = CoreReadError::NotLeader { leader: Some(NodeId(1)) };
        assert_eq!(read_by_lease(node).await, Err(ReadError::NoLease { why }));
    }

    const READS: u64 = 500;
    let sent = || nodes[0].metrics().messages_sent;
    let before = sent();
    for _ in 0..READS {
        nodes[0].read(|_| ()).await.unwrap();
    }
    let rounds = sent() - before;
    assert!(rounds >= 2 * READS, "a read asks both followers: {rounds}");
    let (before, begun) = (sent(), Instant::now());
    for _ in 0..READS {
        read_by_lease(&nodes[0]).await.unwrap();
    }
    // Heartbeats, and nothing else.
    let heartbeats = 2 * (begun.elapsed().as_millis() / 100 + 2);
    let messages = u128::from(sent() - before);
    assert!(messages <= heartbeats, "{messages} messages, {heartbeats} heartbeats");

    // Turned off, there are none.
    nodes[0].change(ChangeStep::SetLease { lease_us: None }.into()).await.unwrap();
    assert_eq!(read_by_lease(&nodes[0]).await, refused(NoLease::Off));
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_ends_before_another_leads() {
    let network = InProcess::new();
    let nodes = start(&network).await;
    let recorder = Recorder::new();
    recorder.propose(1, &nodes[0], 0).await.unwrap();
    turn_on(&nodes).await;

    network.isolate(NodeId(1));
    let cut = Instant::now();
    // It serves for a while yet, though it cannot ask anybody; then it refuses, though it still
    // believes to lead.
    let mut served = 0;
    let reads = async {
        let mut expired = 0;
        while expired < 20 {
            let begun = now();
            match read_by_lease(&nodes[0]).await {
                Ok(value) => {
                    recorder.got(2, 0, (begun, now()), value);
                    served += 1;
                }
                Err(why) => {
                    assert_eq!(refused(NoLease::Expired), Err(why));
                    // Until the others have gone ahead, and a little longer.
                    expired += usize::from(recorder.acknowledged() > 20);
                }
            }
            assert!(cut.elapsed() < DEADLINE, "the others do not go on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let writes = async {
        while recorder.acknowledged() <= 20 {
            let _ = recorder.propose(3, &nodes[1], 0).await;
        }
    };
    tokio::join!(reads, writes);
    assert!(served > 0, "nothing was served from the lease");
    assert_eq!(nodes[0].status().await.unwrap().role, RoleName::Leader);
    // A read that may ask is not served either: nobody answers.
    let asked = tokio::time::timeout(Duration::from_millis(200), nodes[0].read(|_| ())).await;
    assert!(asked.is_err() || asked.unwrap().is_err());

    network.heal();
    until("it follows", async || nodes[0].read(|_| ()).await.is_ok()).await;
    let executed = nodes[0].read(|store| store.executed().clone()).await.unwrap();
    recorder.judge(&executed);
    stop_all(nodes).await;
}
