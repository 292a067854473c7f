//! More than a cluster can do: the surplus is refused, and costs no memory.
//!
//! Nothing else runs in this process, so what the allocator gives away is what the nodes hold.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::future::Future;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use peak_alloc::PeakAlloc;
use quorate::{InProcess, Node, ProposeError, Snapshot, StateMachine};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Sums up the lengths of its commands, unless it is held up.
struct Slow {
    total: u64,
    gate: Arc<Mutex<()>>,
}

impl StateMachine for Slow {
    type Command = Vec<u8>;
    type Reply = u64;

    fn apply(&mut self, commands: Vec<Vec<u8>>) -> Vec<u64> {
        let _turn = self.gate.lock().unwrap();
        let add = |command: Vec<u8>| {
            self.total += command.len() as u64;
            self.total
        };
        commands.into_iter().map(add).collect()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.total)
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        self.total = quorate::read_snapshot(snapshot)?;
        Ok(())
    }
}

const NODES: u64 = 3;
const UNAPPLIED_BYTES_MAX: usize = 2 << 20;
const TAIL_BYTES_MAX: usize = 1 << 20;
const REQUESTS_MAX: usize = 4096;
/// What the crate's documentation says of one node: commands that wait to be looked at, those that
/// are in the log and not applied, those that come from peers, the tail of the log, and less than a
/// KiB for each request.
const BOUND: usize = 3 * UNAPPLIED_BYTES_MAX + TAIL_BYTES_MAX + REQUESTS_MAX * 1024;

type Pending = Pin<Box<dyn Future<Output = Result<u64, ProposeError>>>>;

#[tokio::test]
#[allow(clippy::await_holding_lock, reason = "the lock is what holds the machines up")]
async fn what_is_too_much_is_refused_and_costs_no_memory() {
    let name = format!("quorate-overload-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&directory);
    let (network, gate) = (InProcess::new(), Arc::new(Mutex::new(())));
    let mut nodes = Vec::new();
    for id in 1..=NODES {
        let node = Node::builder(id, Slow { total: 0, gate: Arc::clone(&gate) })
            .data_dir(directory.join(id.to_string()))
            .members((1..=NODES).map(|id| (id, "")))
            .in_process(&network)
            .requests_max(REQUESTS_MAX)
            .tune(|tuning| {
                tuning.core.unapplied_bytes_max = UNAPPLIED_BYTES_MAX;
                tuning.core.tail_bytes_max = TAIL_BYTES_MAX;
                tuning.segment_bytes = 4 << 20;
                tuning.node.forward_timeout_us = 60_000_000;
            });
        nodes.push(node.start().await.unwrap());
    }
    nodes[0].propose(vec![1]).await.unwrap();

    let held = gate.lock().unwrap();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let (offered, bytes) = (60_000, 1024);
    let (mut pending, mut busy) = (Vec::<Pending>::new(), 0);
    let mut context = Context::from_waker(Waker::noop());
    for number in 0..offered {
        for node in &nodes {
            let node = node.handle();
            // Without the budget of a task, which so many would use up.
            let mut proposal: Pending = Box::pin(tokio::task::unconstrained(async move {
                node.try_propose(vec![7; bytes]).await
            }));
            match proposal.as_mut().poll(&mut context) {
                Poll::Pending => pending.push(proposal),
                Poll::Ready(Err(ProposeError::Busy)) => busy += 1,
                Poll::Ready(other) => panic!("{other:?}"),
            }
        }
        if number % 256 == 0 {
            // The nodes get their turns.
            tokio::time::sleep(Duration::from_micros(100)).await;
            // What was refused meanwhile is with the clients, and not with the nodes.
            pending.retain_mut(|proposal| match proposal.as_mut().poll(&mut context) {
                Poll::Pending => true,
                Poll::Ready(Err(ProposeError::Busy)) => {
                    busy += 1;
                    false
                }
                Poll::Ready(other) => panic!("{other:?}"),
            });
        }
    }
    let peak = MEMORY.peak_usage() - before;
    let total = offered * NODES as usize * bytes;
    println!("{} KiB offered, {} KiB held at most, {busy} refused", total >> 10, peak >> 10);
    assert!(total > 2 * NODES as usize * BOUND, "so much does not fit");
    assert!(peak < NODES as usize * BOUND, "{peak} bytes were held");
    assert!(pending.len() <= NODES as usize * REQUESTS_MAX);

    // All that were let in are answered, and the cluster works as before.
    drop(held);
    let mut done = 0;
    for proposal in pending {
        match proposal.await {
            Ok(_) => done += 1,
            // Let in here, and refused by the leader.
            Err(ProposeError::Busy) => busy += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(done + busy, offered * NODES as usize);
    assert!(done > 0);
    let total = nodes[2].propose(vec![1]).await.unwrap();
    assert_eq!(total, 2 + (done * bytes) as u64, "what was refused was not done");
    for node in nodes {
        node.shutdown().await;
    }
    let _ = std::fs::remove_dir_all(&directory);
}
