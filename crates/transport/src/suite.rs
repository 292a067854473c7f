//! What every [`Transport`] must do, as a check that can be run against your own.
//!
//! ```
//! use std::sync::Arc;
//! use quorate_transport::{InProcess, Transport, suite};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let network = InProcess::new();
//! suite::check(|identity| {
//!     let transport = network.join(identity);
//!     (transport as Arc<dyn Transport>, "no address needed".to_owned())
//! })
//! .await;
//! # }
//! ```

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::vec::Drain;

use bytes::Bytes;
use quorate_raft::{ClusterId, Incarnation, NodeId};

use crate::handler::{Handler, Pause};
use crate::snapshot::{FetchError, SnapshotRequest, SnapshotSource};
use crate::transport::{Identity, Lane, Peer, Sent, Transport};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Frames in each lane for the check of their order. More than a queue need hold, so the check
/// sends them again and again until they get through.
const FRAMES: u64 = 2_000;

/// Checks the promises of [`Transport`] that can be seen from outside, with two nodes.
///
/// `make` makes a transport that is not started, and says how others reach it. It is called
/// several times, also for the same node with a new boot number: then the one before is shut down.
///
/// # Panics
///
/// With a sentence, when a promise is broken or nothing happens for 20 seconds.
pub async fn check(make: impl Fn(Identity) -> (Arc<dyn Transport>, String)) {
    let one = Node::new(&make, 1, 1);
    assert_eq!(one.send(2, Lane::Bulk, &[]), Sent::Stopped, "not started, it sends nothing");
    let two = Node::new(&make, 2, 1);
    for node in [&one, &two] {
        node.start();
        node.transport.set_peers(&[one.peer(), two.peer()]);
    }
    order(&one, &two).await;
    assert_eq!(one.send(9, Lane::Bulk, &[]), Sent::Unknown, "there is no node 9");
    assert_eq!(one.send(1, Lane::Bulk, &[]), Sent::Unknown, "a node is no peer of itself");
    snapshots(&one, &two).await;
    incarnations(&one, &two).await;
    endings(&make, &one, two).await;
    one.transport.shutdown().await;
}

/// Each lane keeps its order, both ways, and frames come whole and from whom they come from.
async fn order(one: &Node, two: &Node) {
    let frame = |lane: Lane, count: u64| {
        let mut frame = count.to_le_bytes().to_vec();
        frame.resize(
            8 + (count as usize * 7) % 5_000,
            (lane.slot() as u8).wrapping_add(count as u8),
        );
        Bytes::from(frame)
    };
    for (from, to) in [(one, two), (two, one)] {
        for lane in Lane::ALL {
            for count in 0..FRAMES {
                from.send_surely(to, lane, &frame(lane, count)).await;
            }
        }
        for lane in Lane::ALL {
            let arrived = || to.host.frames(lane).len() as u64 == FRAMES;
            until("all frames arrive", arrived).await;
            for (count, (sender, got)) in to.host.frames(lane).drain(..).enumerate() {
                assert_eq!(sender, from.identity.node, "a frame names the wrong sender");
                assert!(got == frame(lane, count as u64), "lane {lane}: frame {count} is another");
            }
        }
    }
}

async fn snapshots(one: &Node, two: &Node) {
    let fetch = |request: SnapshotRequest| two.transport.fetch(one.identity.node, request);
    let request = |name: &'static [u8]| SnapshotRequest::from_start(Bytes::from_static(name));
    let missing = fetch(request(b"none")).await;
    assert_eq!(missing.err(), Some(FetchError::Missing), "there is no such snapshot");
    let other = SnapshotRequest { identity: Some(SNAPSHOT_IDENTITY + 1), ..request(SNAPSHOT) };
    assert_eq!(fetch(other).await.err(), Some(FetchError::Changed), "that is another file");
    let whole = snapshot();
    for offset in [0, 1, whole.len() / 2, whole.len()] {
        let from = SnapshotRequest { offset: offset as u64, ..request(SNAPSHOT) };
        let mut stream = fetch(from).await.expect("the snapshot is there");
        assert_eq!(stream.length(), whole.len() as u64, "length of the snapshot");
        assert_eq!(stream.identity(), SNAPSHOT_IDENTITY, "identity of the snapshot");
        let mut got = whole[..offset].to_vec();
        while let Some(chunk) = stream.next().await {
            got.extend_from_slice(&chunk.expect("nothing breaks the transfer").bytes);
        }
        assert!(got == whole, "the snapshot is another, from offset {offset}");
    }
    let nobody = two.transport.fetch(NodeId(9), request(SNAPSHOT)).await;
    assert_eq!(nobody.err(), Some(FetchError::Unknown), "there is no node 9");
}

/// Nothing goes to, or comes from, a data directory that is not the bound one.
async fn incarnations(one: &Node, two: &Node) {
    let wrong = Peer { incarnation: Some(Incarnation(5)), ..two.peer() };
    one.transport.set_peers(&[wrong]);
    until("the wrong one is left", || {
        let sent = [one.send(2, Lane::Urgent, b"x"), two.send(1, Lane::Urgent, b"x")];
        sent == [Sent::Down; 2]
    })
    .await;
    one.host.frames(Lane::Urgent).clear();
    two.host.frames(Lane::Urgent).clear();
    let right = Peer { incarnation: Some(two.identity.incarnation), ..two.peer() };
    one.transport.set_peers(&[right]);
    meet(one, two).await;
    meet(two, one).await;
    let told = one.host.closed().len() + two.host.closed().len();
    assert_eq!(told, 0, "nobody has died yet");
}

/// The end of a peer is told once, and its next life is reached.
async fn endings(make: &impl Fn(Identity) -> (Arc<dyn Transport>, String), one: &Node, two: Node) {
    two.transport.shutdown().await;
    until("the end is told", || !one.host.closed().is_empty()).await;
    until("there is nobody", || one.send(2, Lane::Urgent, b"x") == Sent::Down).await;
    let ends = [(two.identity.node, two.identity.incarnation)];
    assert_eq!(*one.host.closed(), ends, "each life ends once");
    assert!(two.host.closed().is_empty(), "one's own end is no news");
    assert_ne!(two.send(1, Lane::Bulk, b"x"), Sent::Queued, "a transport that was shut down");
    two.transport.shutdown().await;

    let again = Node::new(make, 2, 2);
    again.start();
    again.transport.set_peers(&[one.peer()]);
    one.transport.set_peers(&[again.peer()]);
    meet(one, &again).await;
    meet(&again, one).await;
    again.transport.shutdown().await;
    until("the second end is told", || one.host.closed().len() == 2).await;
}

/// Sends until something arrives.
async fn meet(from: &Node, to: &Node) {
    until("frames arrive", || {
        from.send(to.identity.node.0, Lane::Urgent, b"hello");
        !to.host.frames(Lane::Urgent).is_empty()
    })
    .await;
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < DEADLINE, "this never comes true: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const SNAPSHOT: &[u8] = b"snapshot";
const SNAPSHOT_IDENTITY: u64 = 77;

fn snapshot() -> Bytes {
    (0..300_000u32).map(|i| (i % 253) as u8).collect()
}

struct Node {
    identity: Identity,
    transport: Arc<dyn Transport>,
    address: String,
    host: Arc<Host>,
}

impl Node {
    fn new(make: &impl Fn(Identity) -> (Arc<dyn Transport>, String), id: u64, boot: u64) -> Self {
        let identity = Identity {
            cluster: ClusterId(1),
            node: NodeId(id),
            incarnation: Incarnation(1000 + id),
            boot,
            features: 0,
            founders: Arc::default(),
        };
        let (transport, address) = make(identity.clone());
        Self { identity, transport, address, host: Arc::default() }
    }

    fn start(&self) {
        let host = Arc::clone(&self.host) as Arc<dyn Handler>;
        self.transport.start(host).expect("it was not started before");
    }

    fn peer(&self) -> Peer {
        Peer { node: self.identity.node, address: self.address.clone(), incarnation: None }
    }

    fn send(&self, to: u64, lane: Lane, frame: &'static [u8]) -> Sent {
        self.transport.send(NodeId(to), lane, Bytes::from_static(frame))
    }

    async fn send_surely(&self, to: &Self, lane: Lane, frame: &Bytes) {
        let begin = Instant::now();
        loop {
            match self.transport.send(to.identity.node, lane, frame.clone()) {
                Sent::Queued => return,
                Sent::Full | Sent::Down => {}
                other => panic!("a frame for a peer is {other:?}"),
            }
            assert!(begin.elapsed() < DEADLINE, "no way to a peer in the {lane} lane");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[derive(Default)]
struct Host {
    frames: [Mutex<Vec<(NodeId, Bytes)>>; 2],
    closed: Mutex<Vec<(NodeId, Incarnation)>>,
}

impl Host {
    fn frames(&self, lane: Lane) -> MutexGuard<'_, Vec<(NodeId, Bytes)>> {
        self.frames[lane.slot()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self) -> MutexGuard<'_, Vec<(NodeId, Incarnation)>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Host {
    fn received(&self, from: NodeId, lane: Lane, frames: Drain<'_, Bytes>) -> Option<Pause> {
        self.frames(lane).extend(frames.map(|frame| (from, frame)));
        None
    }

    fn peer_closed(&self, peer: NodeId, incarnation: Incarnation) {
        self.closed().push((peer, incarnation));
    }

    fn open_snapshot(&self, _: NodeId, name: &[u8]) -> io::Result<Option<SnapshotSource>> {
        let bytes = snapshot();
        Ok((name == SNAPSHOT).then(|| SnapshotSource {
            length: bytes.len() as u64,
            identity: SNAPSHOT_IDENTITY,
            reader: Box::new(bytes),
        }))
    }
}
