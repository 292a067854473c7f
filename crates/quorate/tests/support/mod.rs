//! What several tests need: a store whose clients' histories are judged, and a network that can be
//! cut.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "this is for tests")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate::{Events, Heard, Machine, Node};

pub(crate) mod disk;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod store;

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A directory that goes away with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("quorate-tests-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where node `id` keeps its data.
    pub(crate) fn of(&self, id: u64) -> PathBuf {
        self.0.join(id.to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Addresses that nobody listens at just now, of nodes 1 and so on. They are on a host of their own
/// where all of 127.0.0.0/8 is this machine, so that no outgoing connection takes such a port while
/// its node is restarted.
pub(crate) fn addresses(count: usize) -> Vec<(u64, String)> {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let (process, call) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let host = format!("127.{}.{}.{}:0", 1 + process / 256 % 254, process % 256, call % 256);
    let bind = || TcpListener::bind(&host).or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
    let listeners: Vec<TcpListener> = (0..count).map(|_| bind()).collect();
    let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
    (1..).zip(listeners.iter().map(address)).collect()
}

/// Waits until something holds, with a generous limit.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for an event that says this, and gives back all that it says.
pub(crate) async fn hears(events: &mut Events, words: &str) -> String {
    let heard = async {
        loop {
            match events.next().await {
                Some(Heard::Event(event)) => {
                    let said = event.to_string();
                    if said.contains(words) {
                        return said;
                    }
                }
                Some(Heard::Missed(_)) => {}
                None => panic!("stopped without a word of `{words}`"),
            }
        }
    };
    let heard = tokio::time::timeout(DEADLINE, heard).await;
    heard.unwrap_or_else(|_| panic!("never heard of `{words}`"))
}

/// The node that leads, once one of these does and all of them know it.
pub(crate) async fn leader<'a, M: Machine>(nodes: &[&'a Node<M>]) -> &'a Node<M> {
    let mut found = None;
    until("one of them leads", async || {
        let (leader, term) = nodes[0].leader();
        found = nodes.iter().copied().find(|node| Some(node.id()) == leader);
        nodes.iter().all(|node| node.leader() == (leader, term))
            && match found {
                Some(node) => {
                    node.status().await.is_ok_and(|status| status.role == quorate::RoleName::Leader)
                }
                None => false,
            }
    })
    .await;
    found.unwrap()
}

pub(crate) async fn stop_all<M: Machine>(nodes: impl IntoIterator<Item = Node<M>>) {
    for node in nodes {
        node.stop().await;
    }
}
