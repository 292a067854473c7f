//! Nodes in one process, on a network in that process.

use std::io::{self, Read};
use std::time::Duration;

use quorate::{Consistency, InProcess, Node, Snapshot, StateMachine};

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
