//! A large snapshot through a narrow link: heartbeats and commands do not notice.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use quorate::{Node, Snapshot, StateMachine};
use support::{Scratch, addresses, stop_all, until};

/// How large it is, and how much of it may be sent in a second.
#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    bytes_per_second: u64,
}

/// 2 GiB if `QUORATE_LONG` is set: that takes a minute, and 10 GiB of the temporary directory.
fn size() -> Size {
    match std::env::var_os("QUORATE_LONG") {
        Some(_) => Size { bytes: 2 << 30, bytes_per_second: 64 << 20 },
        None => Size { bytes: 64 << 20, bytes_per_second: 32 << 20 },
    }
}

/// A sum, and much ballast in its snapshots, which costs no memory.
#[derive(Default)]
struct Heavy {
    ballast: u64,
    sum: u64,
}

const BLOCK_BYTES: usize = 1 << 16;

/// Bytes that do not repeat.
fn block(number: u64) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    for at in 0..BLOCK_BYTES as u64 / 8 {
        let word = ((number << 16) + at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        block.extend_from_slice(&word.to_le_bytes());
    }
    block
}

impl StateMachine for Heavy {
    /// Zero loads the ballast.
    type Command = u64;
    type Reply = u64;

    fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
        let carry_out = |command| {
            if command == 0 {
                self.ballast = size().bytes;
            }
            self.sum += command;
            self.sum
        };
        commands.into_iter().map(carry_out).collect()
    }

    fn snapshot(&self) -> Snapshot {
        let (ballast, sum) = (self.ballast, self.sum);
        Snapshot::new(move |out: &mut dyn Write| {
            out.write_all(&sum.to_le_bytes())?;
            (0..ballast / BLOCK_BYTES as u64).try_for_each(|number| out.write_all(&block(number)))
        })
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        let mut sum = [0; 8];
        snapshot.read_exact(&mut sum)?;
        *self = Self { ballast: 0, sum: u64::from_le_bytes(sum) };
        let mut found = Vec::with_capacity(BLOCK_BYTES);
        loop {
            found.clear();
            (&mut *snapshot).take(BLOCK_BYTES as u64).read_to_end(&mut found)?;
            if found.is_empty() {
                return Ok(());
            }
            assert!(found == block(self.ballast / BLOCK_BYTES as u64), "it arrives unchanged");
            self.ballast += found.len() as u64;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_snapshot_disturbs_nobody() {
    let Size { bytes, bytes_per_second } = size();
    let (scratch, members) = (Scratch::new(), addresses(3));
    let start = async |id: u64| {
        Node::builder(id, Heavy::default())
            .data_dir(scratch.of(id))
            .members(members.clone())
            .tcp(move |settings| settings.snapshot_bytes_per_second = bytes_per_second)
            .tune(|tuning| {
                tuning.snapshot_entries = 1_000;
                tuning.node.compact_entries = 50;
                tuning.node.keep_entries = 10;
                tuning.node.keep_for_followers = 0;
            })
            .start()
            .await
            .unwrap()
    };
    let nodes = [start(1).await, start(2).await];
    nodes[0].propose(0).await.unwrap();
    // Twice: the log reaches back to the snapshot before the last one.
    for _ in 0..2 {
        for _ in 0..100 {
            nodes[0].propose(1).await.unwrap();
        }
        let last = nodes[0].applied();
        for node in &nodes {
            until("it has applied all", async || node.applied() >= last).await;
            node.snapshot().await.unwrap();
        }
    }
    for node in &nodes {
        until("the log is cut", async || node.status().await.unwrap().compacted.index.0 > 10).await;
    }
    let term = nodes[0].leader().1;

    // The third one comes, and needs it all. Meanwhile there are not so many commands that another
    // snapshot is taken.
    let begun = Instant::now();
    let late = start(3).await;
    let expected = Duration::from_secs(bytes / bytes_per_second);
    let mut slowest = Duration::ZERO;
    while late.metrics().snapshots_installed == 0 {
        let since = Instant::now();
        nodes[0].propose(1).await.unwrap();
        slowest = slowest.max(since.elapsed());
        assert!(begun.elapsed() < 10 * expected + Duration::from_secs(60), "it is never installed");
        tokio::time::sleep(expected / 400).await;
    }
    let took = begun.elapsed();
    println!("{bytes} bytes took {took:?}, the slowest command {slowest:?}");
    assert!(took > expected / 2, "{took:?}: the link is narrow");
    assert_eq!(nodes[0].leader().1, term, "nobody missed a heartbeat");
    assert!(slowest < Duration::from_millis(900), "a command took {slowest:?}");
    let expected = nodes[0].read(|heavy| heavy.sum).await.unwrap();
    let (sum, ballast) = late.read(|heavy| (heavy.sum, heavy.ballast)).await.unwrap();
    assert_eq!((sum, ballast), (expected, bytes));
    stop_all(nodes.into_iter().chain([late])).await;
}
