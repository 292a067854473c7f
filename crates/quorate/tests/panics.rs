//! Whatever panics ends the node with a reason, and nobody waits in vain.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate::transport::{
    BoxFuture, FetchError, Handler, Identity, Lane, Metrics, Peer, PeerStatus, Sent,
    SnapshotRequest, SnapshotStream, Transport,
};
use quorate::{
    AskError, ChangeError, ChangeStep, InProcess, Node, NodeId, ProposeError, ReadError, Snapshot,
    StartError, StateMachine, StopReason,
};
use quorate_wal::MemoryDisk;
use support::disk::{Hook, Hooked, Operation};
use support::{DEADLINE, Scratch, hears};

/// Panics where it is told to.
#[derive(Default)]
struct Fragile(u64);

const IN_APPLY: u64 = 1_000;
const IN_SNAPSHOT: u64 = 2_000;

impl StateMachine for Fragile {
    type Command = u64;
    type Reply = u64;

    fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
        let add = |command| {
            assert!(command != IN_APPLY, "no such command");
            self.0 += command;
            self.0
        };
        commands.into_iter().map(add).collect()
    }

    fn snapshot(&self) -> Snapshot {
        let sum = self.0;
        Snapshot::new(move |out| {
            assert!(sum < IN_SNAPSHOT, "the sum is too large");
            out.write_all(&sum.to_le_bytes())
        })
    }

    fn restore(&mut self, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

/// A network to nobody, which panics once it is told to.
#[derive(Default)]
struct Mine(AtomicBool);

impl Transport for Mine {
    fn start(&self, _: Arc<dyn Handler>) -> Result<(), quorate::transport::StartError> {
        Ok(())
    }

    fn send(&self, _: NodeId, _: Lane, _: Bytes) -> Sent {
        assert!(!self.0.load(Ordering::Relaxed), "a mine in send");
        Sent::Queued
    }

    fn set_peers(&self, _: &[Peer]) {}

    fn fetch(
        &self,
        _: NodeId,
        _: SnapshotRequest,
    ) -> BoxFuture<'static, Result<SnapshotStream, FetchError>> {
        Box::pin(async { Err(FetchError::Unknown) })
    }

    fn peers(&self) -> Vec<PeerStatus> {
        Vec::new()
    }

    fn metrics(&self) -> Metrics {
        Metrics::default()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        assert!(!self.0.load(Ordering::Relaxed), "a mine in shutdown");
        Box::pin(std::future::ready(()))
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("nobody waits in vain")
}

/// The network is called by the node's own task, so its panic is one of that task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_own_task() {
    let mine = Arc::new(Mine::default());
    let transport = Arc::clone(&mine);
    let scratch = Scratch::new();
    let start = |transport: Arc<Mine>| {
        Node::builder(1, Fragile::default())
            .data_dir(scratch.of(1))
            .members([(1, "here"), (2, "there")])
            .transport(move |_: Identity| transport)
            .start()
    };
    let node = start(transport).await.unwrap();
    let mut events = node.events();
    // All of them wait, since nobody can lead.
    let handle = node.handle();
    let proposal = tokio::spawn(async move { handle.propose(1).await });
    let handle = node.handle();
    let read = tokio::spawn(async move { handle.read(|fragile| fragile.0).await });
    let handle = node.handle();
    let asked = tokio::spawn(async move { handle.ask(NodeId(2), b"?", DEADLINE * 2).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    mine.0.store(true, Ordering::Relaxed);
    let why = in_time(node.stopped()).await;
    let StopReason::Internal { message } = &why else { panic!("{why}") };
    assert!(message.contains("the node's own task panicked: a mine in send"), "{message}");
    let stopped = ProposeError::Stopped(why.clone());
    let outcome = in_time(proposal).await.unwrap().unwrap_err();
    let unknown = matches!(outcome, ProposeError::OutcomeUnknown { .. });
    assert!(outcome == stopped || unknown, "{outcome}");
    assert_eq!(in_time(read).await.unwrap(), Err(ReadError::Stopped(why.clone())));
    assert_eq!(in_time(asked).await.unwrap(), Err(AskError::Stopped(why.clone())));
    assert!(hears(&mut events, "stopped").await.contains("a mine in send"));
    // And all that comes later.
    assert_eq!(in_time(node.propose(1)).await, Err(stopped));
    assert_eq!(in_time(node.status()).await.unwrap_err(), why);
    assert_eq!(in_time(node.wait_for_leader()).await, Err(why.clone()));
    assert!(in_time(node.snapshot()).await.is_err());
    let step = ChangeStep::Remove { node: NodeId(2) };
    assert_eq!(in_time(node.change(step.into())).await, Err(ChangeError::Stopped(why)));
    // The directory is free.
    mine.0.store(false, Ordering::Relaxed);
    start(mine).await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_in_the_task_and_on_its_thread() {
    for apply in [quorate::Apply::Inline, quorate::Apply::Thread] {
        let node = Node::builder(1, Fragile::default())
            .in_memory()
            .members([(1, "")])
            .in_process(&InProcess::new())
            .apply(apply)
            .start()
            .await
            .unwrap();
        assert_eq!(in_time(node.propose(1)).await, Ok(1));
        let outcome = in_time(node.propose(IN_APPLY)).await.unwrap_err();
        assert!(!outcome.never_happened(), "{outcome}");
        let why = in_time(node.stopped()).await;
        let message = "no such command".to_owned();
        assert_eq!(why, StopReason::Panicked { operation: "apply", message });
        assert_eq!(in_time(node.propose(1)).await, Err(ProposeError::Stopped(why)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_a_snapshot() {
    let scratch = Scratch::new();
    let node = Node::builder(1, Fragile::default())
        .data_dir(scratch.of(1))
        .members([(1, "")])
        .in_process(&InProcess::new())
        .start()
        .await
        .unwrap();
    in_time(node.propose(IN_SNAPSHOT)).await.unwrap();
    let failed = in_time(node.snapshot()).await.unwrap_err();
    assert!(failed.to_string().contains("the sum is too large"), "{failed}");
    assert!(matches!(in_time(node.stopped()).await, StopReason::Panicked { .. }));
}

/// The disk is called by the log's thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_logs_thread() {
    let scratch = Scratch::new();
    let left = Arc::new(AtomicUsize::new(usize::MAX));
    let count = Arc::clone(&left);
    let hook: Hook = Arc::new(move |operation| {
        let last = operation == Operation::Sync && count.fetch_sub(1, Ordering::Relaxed) == 1;
        assert!(!last, "a mine in sync");
    });
    let node = Node::builder(1, Fragile::default())
        .data_dir(scratch.of(1))
        .log_disk(Arc::new(Hooked { disk: MemoryDisk::new(), hook }))
        .members([(1, "")])
        .in_process(&InProcess::new())
        .start()
        .await
        .unwrap();
    in_time(node.propose(1)).await.unwrap();
    left.store(1, Ordering::Relaxed);
    let outcome = in_time(node.propose(1)).await.unwrap_err();
    assert!(!outcome.never_happened(), "{outcome}");
    let why = in_time(node.stopped()).await;
    let StopReason::Internal { message } = &why else { panic!("{why}") };
    assert!(message.contains("writes the log panicked: a mine in sync"), "{message}");
}

/// The runtime in which a node was started ends, and somebody else has a handle to it.
#[test]
fn the_runtime_ends() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let scratch = Scratch::new();
    let members = || Node::builder(1, Fragile::default()).members([(1, "")]);
    let start = || members().data_dir(scratch.of(1)).in_process(&InProcess::new()).start();
    let its = runtime();
    let node = its.block_on(start()).unwrap();
    let other = runtime();
    assert_eq!(other.block_on(node.propose(1)), Ok(1));
    drop(its);
    let stopped = other.block_on(async { in_time(node.stopped()).await });
    assert_eq!(stopped, StopReason::RuntimeEnded);
    let refused = other.block_on(async { in_time(node.propose(1)).await });
    assert_eq!(refused, Err(ProposeError::Stopped(stopped)));
}

/// A start that fails leaves nothing behind that keeps the directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_can_be_repeated() {
    let scratch = Scratch::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let start = || {
        let builder = Node::builder(1, Fragile::default()).data_dir(scratch.of(1));
        builder.members([(1, address.clone())]).start()
    };
    let failed = start().await.unwrap_err();
    assert!(matches!(failed, StartError::Transport(_)), "{failed}");
    drop(taken);
    start().await.unwrap().stop().await;
}
