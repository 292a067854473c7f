//! Disks that are full, and disks that fail.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::{InProcess, Node, ProposeError, Snapshot, StateMachine, StopReason};
use quorate_wal::MemoryDisk;
use support::Scratch;

#[derive(Default)]
struct Sum(u64);

impl StateMachine for Sum {
    type Command = Vec<u8>;
    type Reply = u64;

    fn apply(&mut self, commands: Vec<Vec<u8>>) -> Vec<u64> {
        let add = |command: Vec<u8>| {
            self.0 += command.len() as u64;
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

async fn start(disk: &MemoryDisk) -> (Scratch, Node<Sum>) {
    let scratch = Scratch::new();
    let node = Node::builder(1, Sum::default())
        .data_dir(scratch.of(1))
        .log_disk(Arc::new(disk.clone()))
        .members([(1, "")])
        .in_process(&InProcess::new())
        .tune(|tuning| {
            tuning.segment_bytes = 256 << 10;
            tuning.core.disk_stall_timeout_us = 60_000_000;
            tuning.leader_wait = Duration::from_millis(200);
        })
        .start()
        .await
        .unwrap();
    (scratch, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_recovers() {
    let disk = MemoryDisk::new();
    let (_scratch, node) = start(&disk).await;
    while node.propose(vec![0]).await.is_err() {}
    let before = node.read(|sum| sum.0).await.unwrap();
    disk.set_space(Some(0));
    // What is appended when the space runs out waits; what comes then is refused.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut waiting = Vec::new();
    let refused = loop {
        let handle = node.handle();
        let mut proposal = tokio::spawn(async move { handle.try_propose(vec![0; 4000]).await });
        match tokio::time::timeout(Duration::from_millis(300), &mut proposal).await {
            Ok(result) => match result.unwrap() {
                Ok(_) => {}
                Err(why) => break why,
            },
            Err(_) => waiting.push(proposal),
        }
        assert!(Instant::now() < deadline, "the disk never fills");
    };
    assert_eq!(refused, ProposeError::NoSpace);
    assert!(refused.never_happened());
    assert_eq!(node.metrics().disk_full, 1);
    disk.set_space(None);
    for proposal in waiting {
        proposal.await.unwrap().unwrap();
    }
    let mut last = node.propose(vec![0]).await;
    while last == Err(ProposeError::NoSpace) {
        last = node.propose(vec![0]).await;
    }
    assert!(last.unwrap() > before);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_node_and_says_why() {
    let disk = MemoryDisk::new();
    let (_scratch, node) = start(&disk).await;
    while node.propose(vec![0]).await.is_err() {}
    disk.fail_syncs(true);
    let outcome = node.propose(vec![1]).await.unwrap_err();
    assert!(!outcome.never_happened(), "{outcome}");
    let why = node.stopped().await;
    assert!(matches!(&why, StopReason::Disk { message } if message.contains("sync")), "{why}");
    assert!(matches!(node.propose(vec![1]).await, Err(ProposeError::Stopped(_))));
}
