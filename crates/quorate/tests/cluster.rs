//! Nodes in one process, on a network in that process.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::future::Future;
use std::io::{self, Read};
use std::time::Duration;

use quorate::{
    Age, AskError, CommittedError, Consistency, EVENTS_MAX, Heard, InProcess, Index, Node,
    NodeEvent, ProposeError, SessionError, Snapshot, StateMachine,
};

#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
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
        Snapshot::of(self.0)
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        self.0 = quorate::read_snapshot(snapshot)?;
        Ok(())
    }
}

async fn three(network: &InProcess) -> Vec<Node<Counter>> {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let builder = Node::builder(id, Counter::default())
            .in_memory()
            .members([(1, ""), (2, ""), (3, "")])
            .in_process(network);
        nodes.push(builder.start().await.unwrap());
    }
    nodes
}

#[tokio::test]
async fn commands_are_replicated_and_read_everywhere() {
    let network = InProcess::new();
    let nodes = three(&network).await;
    for (at, node) in nodes.iter().enumerate() {
        assert_eq!(node.propose(5).await.unwrap(), 5 * (at as u64 + 1));
    }
    for node in &nodes {
        assert_eq!(node.read(|counter| counter.0).await.unwrap(), 15);
    }
    let session = nodes[1].session().await.unwrap();
    assert_eq!(session.propose(5).await.unwrap(), 20);
    let (leader, _) = nodes[0].leader();
    for node in nodes {
        node.shutdown().await;
    }
    assert!(leader.is_some());
}

#[tokio::test]
async fn a_proposal_in_two_steps() {
    let network = InProcess::new();
    let nodes = three(&network).await;
    let leader = nodes[0].wait_for_leader().await.unwrap();
    for node in &nodes {
        if node.id() == leader {
            let pending = node.start_proposal(3).await.unwrap();
            let at = pending.at();
            assert_eq!(pending.reply().await.unwrap(), 3);
            let (value, _) =
                node.read_with(Consistency::AtLeast(at.index), |counter| counter.0).await.unwrap();
            assert_eq!(value, 3);
        } else {
            assert!(node.start_proposal(3).await.unwrap_err().never_happened());
        }
    }
    tokio::time::timeout(Duration::from_secs(20), async {
        for node in nodes {
            node.shutdown().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn committed_commands_can_be_pulled() {
    let network = InProcess::new();
    let nodes = three(&network).await;
    let session = nodes[0].session().await.unwrap();
    session.propose(1).await.unwrap();
    let mut committed = nodes[2].committed(Index(1));
    let first = committed.next().await.unwrap();
    assert_eq!((first.command, first.session), (1, Some((session.id(), 1))));
    let (a, b) = tokio::join!(nodes[0].propose(2), nodes[0].propose(3));
    assert_eq!(a.unwrap().max(b.unwrap()), 6);
    let mut rest = vec![committed.next().await.unwrap().command];
    rest.push(committed.next().await.unwrap().command);
    rest.sort_unstable();
    assert_eq!(rest, [2, 3]);
    for node in nodes {
        node.stop().await;
    }
    assert!(matches!(committed.next().await, Err(CommittedError::Stopped(_))));
}

#[tokio::test]
async fn overload_is_answered_with_busy_and_memory_stays_bounded() {
    let network = InProcess::new();
    let node = Node::builder(1, Counter::default())
        .in_memory()
        .members([(1, "")])
        .in_process(&network)
        .requests_max(100)
        .start()
        .await
        .unwrap();
    node.propose(1).await.unwrap();
    // The driver gets no turn while these are made.
    let proposals: Vec<_> = (0..1_000)
        .map(|_| {
            let mut proposal = Box::pin(node.try_propose(1));
            let waker = std::task::Waker::noop();
            let now = proposal.as_mut().poll(&mut std::task::Context::from_waker(waker));
            (proposal, now)
        })
        .collect();
    let busy =
        |now: &std::task::Poll<_>| matches!(now, std::task::Poll::Ready(Err(ProposeError::Busy)));
    assert_eq!(proposals.iter().filter(|(_, now)| busy(now)).count(), 900);
    for (proposal, now) in proposals {
        if now.is_pending() {
            proposal.await.unwrap();
        }
    }
    assert_eq!(node.metrics().proposals_busy, 900);
    assert_eq!(node.read(|counter| counter.0).await.unwrap(), 101);
    node.shutdown().await;
}

#[tokio::test]
async fn a_partition_heals_and_a_minority_serves_nothing_new() {
    let network = InProcess::new();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let builder = Node::builder(id, Counter::default())
            .in_memory()
            .members([(1, ""), (2, ""), (3, "")])
            .in_process(&network)
            .tune(|tuning| {
                tuning.core.election_timeout_min_us = 200_000;
                tuning.core.election_timeout_max_us = 400_000;
                tuning.leader_wait = Duration::from_millis(500);
            });
        nodes.push(builder.start().await.unwrap());
    }
    nodes[0].propose(1).await.unwrap();
    let leader = nodes[0].wait_for_leader().await.unwrap();
    network.isolate(leader);
    let old = nodes.iter().find(|node| node.id() == leader).unwrap();
    let other = nodes.iter().find(|node| node.id() != leader).unwrap();
    // It still believes to lead; what it appends is never committed.
    let lost = old.try_propose(10).await.unwrap_err();
    assert!(matches!(lost, ProposeError::OutcomeUnknown { .. }), "{lost:?}");
    assert!(old.read(|counter| counter.0).await.is_err());
    let (value, _) = old.read_with(Consistency::Local, |counter| counter.0).await.unwrap();
    assert_eq!(value, 1);
    // The others go on.
    let mut value = Err(ProposeError::Busy);
    for _ in 0..40 {
        value = other.propose(100).await;
        if value.is_ok() {
            break;
        }
    }
    assert_eq!(value.unwrap(), 101);
    network.heal();
    let mut seen = Err(quorate::ReadError::NoLeader);
    for _ in 0..40 {
        seen = old.read(|counter| counter.0).await;
        if seen.is_ok() {
            break;
        }
    }
    assert_eq!(seen.unwrap(), 101, "and the lost command stays lost");
    let (_, age) = old.read_with(Consistency::Local, |counter| counter.0).await.unwrap();
    assert!(matches!(age, Age::AtMost(age) if age < Duration::from_secs(30)), "{age:?}");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn an_expired_session_is_told_so() {
    let network = InProcess::new();
    let node = Node::builder(1, Counter::default())
        .in_memory()
        .members([(1, "")])
        .in_process(&network)
        .tune(|tuning| tuning.sessions_max = 2)
        .start()
        .await
        .unwrap();
    let first = node.session().await.unwrap();
    let second = node.session().await.unwrap();
    assert_eq!(first.propose(1).await.unwrap(), 1);
    let _third = node.session().await.unwrap();
    let expired = second.propose(1).await.unwrap_err();
    assert_eq!(expired, SessionError::Expired { maybe_executed: false });
    assert_eq!(first.propose(1).await.unwrap(), 2, "it was used later");
    first.clone().close().await.unwrap();
    assert!(first.propose(1).await.is_err());
    node.shutdown().await;
}

#[tokio::test]
async fn a_slow_listener_loses_the_oldest_and_blocks_nobody() {
    let network = InProcess::new();
    let node = Node::builder(1, Counter::default())
        .in_memory()
        .members([(1, "")])
        .in_process(&network)
        .start()
        .await
        .unwrap();
    node.propose(1).await.unwrap();
    let mut events = node.events();
    for _ in 0..EVENTS_MAX + 44 {
        node.propose(1).await.unwrap();
        node.snapshot().await.unwrap();
    }
    let Some(Heard::Missed(missed)) = events.next().await else { panic!("nothing was missed") };
    assert_eq!(missed, 44);
    assert!(matches!(events.next().await, Some(Heard::Event(NodeEvent::SnapshotTaken { .. }))));
    node.shutdown().await;
}

#[tokio::test]
async fn a_leader_hands_over_before_it_stops() {
    let network = InProcess::new();
    let mut nodes = three(&network).await;
    nodes[0].propose(1).await.unwrap();
    let leader = nodes[0].wait_for_leader().await.unwrap();
    let at = nodes.iter().position(|node| node.id() == leader).unwrap();
    let gone = nodes.remove(at);
    let (_, term) = gone.leader();
    gone.shutdown().await;
    let (next, next_term) = nodes[0].leader();
    assert!(next.is_some_and(|next| next != leader), "somebody else leads already");
    assert_eq!(next_term.0, term.0 + 1, "without an election that failed");
    assert_eq!(nodes[0].propose(1).await.unwrap(), 2);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn members_ask_each_other_what_is_no_command() {
    const LIMIT: Duration = Duration::from_secs(5);
    let network = InProcess::new();
    let nodes = three(&network).await;
    nodes[0].wait_for_leader().await.unwrap();
    let (one, two) = (nodes[0].id(), nodes[1].id());
    assert_eq!(nodes[0].ask(two, b"who?", LIMIT).await, Err(AskError::Declined));
    for node in &nodes {
        let handle = node.handle();
        node.answer_with(move |from, question| {
            let handle = handle.clone();
            async move {
                if &question[..] == b"silence" {
                    std::future::pending::<()>().await;
                }
                format!("{} to {from}: {}", handle.id(), question.len()).into()
            }
        });
    }
    assert_eq!(nodes[0].ask(two, b"who?", LIMIT).await.unwrap(), "2 to 1: 4");
    assert_eq!(nodes[0].ask(one, b"", LIMIT).await.unwrap(), "1 to 1: 0");
    let soon = Duration::from_millis(20);
    assert_eq!(nodes[0].ask(two, b"silence", soon).await, Err(AskError::TimedOut));
    network.cut(two, one);
    assert_eq!(nodes[0].ask(two, b"who?", soon).await, Err(AskError::TimedOut));
    assert_eq!(nodes[1].ask(one, b"who?", soon).await, Err(AskError::NotConnected));
    network.heal();
    let handle = nodes[0].handle();
    let waiting = tokio::spawn(async move { handle.ask(two, b"silence", LIMIT).await });
    tokio::time::sleep(soon).await;
    for node in nodes {
        node.stop().await;
    }
    assert!(matches!(waiting.await.unwrap(), Err(AskError::Stopped(_))));
}
