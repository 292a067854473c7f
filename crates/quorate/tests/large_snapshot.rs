//! A large snapshot through a narrow link: heartbeats and commands do not notice.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::io::{self, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::{Node, Snapshot, StateMachine};

const BYTES: usize = 64 << 20;
const BYTES_PER_SECOND: u64 = 32 << 20;

/// Much ballast, and a sum.
#[derive(Default)]
struct Heavy {
    ballast: Arc<Vec<u8>>,
    sum: u64,
}

impl StateMachine for Heavy {
    /// Zero loads the ballast.
    type Command = u64;
    type Reply = u64;

    fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
        let carry_out = |command| {
            if command == 0 {
                let byte =
                    |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7];
                self.ballast = Arc::new((0..BYTES).map(byte).collect());
            }
            self.sum += command;
            self.sum
        };
        commands.into_iter().map(carry_out).collect()
    }

    fn snapshot(&self) -> Snapshot {
        let (ballast, sum) = (Arc::clone(&self.ballast), self.sum);
        Snapshot::new(move |out| {
            out.write_all(&sum.to_le_bytes())?;
            out.write_all(&ballast)
        })
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        let mut sum = [0; 8];
        snapshot.read_exact(&mut sum)?;
        let mut ballast = Vec::new();
        snapshot.read_to_end(&mut ballast)?;
        *self = Self { ballast: Arc::new(ballast), sum: u64::from_le_bytes(sum) };
        Ok(())
    }
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_snapshot_disturbs_nobody() {
    let name = format!("quorate-large-{}", std::process::id());
    let scratch = Scratch(std::env::temp_dir().join(name));
    let _ = std::fs::remove_dir_all(&scratch.0);
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
    let members: Vec<(u64, String)> = (1..).zip(listeners.iter().map(address)).collect();
    drop(listeners);
    let start = async |id: u64| {
        Node::builder(id, Heavy::default())
            .data_dir(scratch.0.join(id.to_string()))
            .members(members.clone())
            .tcp(|settings| settings.snapshot_bytes_per_second = BYTES_PER_SECOND)
            .tune(|tuning| {
                tuning.snapshot_entries = 100;
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
    for _ in 0..220 {
        nodes[0].propose(1).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    for node in &nodes {
        while node.status().await.unwrap().compacted.index.0 < 10 {
            assert!(Instant::now() < deadline, "the log is never cut");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let term = nodes[0].leader().1;

    // The third one comes, and needs it all.
    let begun = Instant::now();
    let late = start(3).await;
    let mut slowest = Duration::ZERO;
    while late.metrics().snapshots_installed == 0 {
        let since = Instant::now();
        nodes[0].propose(1).await.unwrap();
        slowest = slowest.max(since.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(90), "it is never installed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(1), "{took:?}: the link is narrow");
    assert_eq!(nodes[0].leader().1, term, "nobody missed a heartbeat");
    assert!(slowest < Duration::from_millis(900), "a command took {slowest:?}");
    let expected = nodes[0].read(|heavy| heavy.sum).await.unwrap();
    let (sum, length) = late.read(|heavy| (heavy.sum, heavy.ballast.len())).await.unwrap();
    assert_eq!((sum, length), (expected, BYTES));
    for node in nodes.into_iter().chain([late]) {
        node.stop().await;
    }
}
