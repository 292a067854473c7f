use std::io;
use std::sync::Mutex;
use std::vec::Drain;

use quorate_raft::{ClusterId, Incarnation};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::handler::Pause;

const DEADLINE: Duration = Duration::from_secs(20);

/// A host that writes down what it is told.
struct Host {
    frames: mpsc::UnboundedSender<(NodeId, Lane, Bytes)>,
    closed: Mutex<Vec<(NodeId, Incarnation)>>,
    notes: Mutex<Vec<Note>>,
    snapshot: Bytes,
    pause: Mutex<Option<Pause>>,
}

impl Handler for Host {
    fn received(&self, from: NodeId, lane: Lane, frames: Drain<'_, Bytes>) -> Option<Pause> {
        for frame in frames {
            self.frames.send((from, lane, frame)).unwrap();
        }
        self.pause.lock().unwrap().take()
    }

    fn peer_closed(&self, peer: NodeId, incarnation: Incarnation) {
        self.closed.lock().unwrap().push((peer, incarnation));
    }

    fn open_snapshot(&self, _: NodeId, name: &[u8]) -> io::Result<Option<SnapshotSource>> {
        let bytes = self.snapshot.clone();
        let length = bytes.len() as u64;
        Ok((name == b"it").then(|| SnapshotSource { length, identity: 5, reader: Box::new(bytes) }))
    }

    fn note(&self, note: Note) {
        self.notes.lock().unwrap().push(note);
    }
}

struct Place {
    transport: Arc<InProcessTransport>,
    host: Arc<Host>,
    frames: mpsc::UnboundedReceiver<(NodeId, Lane, Bytes)>,
}

impl Place {
    async fn next(&mut self) -> (NodeId, Lane, Bytes) {
        tokio::time::timeout(DEADLINE, self.frames.recv()).await.unwrap().unwrap()
    }
}

fn identity(id: u64) -> Identity {
    Identity {
        cluster: ClusterId(1),
        node: NodeId(id),
        incarnation: Incarnation(10 + id),
        boot: id,
        features: 0,
        founders: Arc::default(),
    }
}

fn peer(id: u64) -> Peer {
    Peer { node: NodeId(id), address: String::new(), incarnation: Some(Incarnation(10 + id)) }
}

fn place(network: &InProcess, identity: Identity) -> Place {
    let (sender, frames) = mpsc::unbounded_channel();
    let snapshot = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    let host = Arc::new(Host {
        frames: sender,
        closed: Mutex::default(),
        notes: Mutex::default(),
        snapshot,
        pause: Mutex::default(),
    });
    let transport = network.join(identity);
    transport.start(Arc::clone(&host) as Arc<dyn Handler>).unwrap();
    transport.set_peers(&[peer(1), peer(2), peer(3)]);
    Place { transport, host, frames }
}

fn frame(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn cut_delay_heal() {
    let network = InProcess::new();
    let (a, mut b) = (place(&network, identity(1)), place(&network, identity(2)));
    let send = |text| a.transport.send(NodeId(2), Lane::Bulk, frame(text));
    assert_eq!(send("one"), Sent::Queued);
    assert_eq!(b.next().await, (NodeId(1), Lane::Bulk, frame("one")));
    network.cut(NodeId(1), NodeId(2));
    assert_eq!(send("lost"), Sent::Queued);
    network.heal(NodeId(1), NodeId(2));
    let begin = Instant::now();
    network.delay(NodeId(1), NodeId(2), Duration::from_millis(30));
    send("two");
    network.delay(NodeId(1), NodeId(2), Duration::ZERO);
    send("three");
    assert_eq!(b.next().await.2, frame("two"));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    assert_eq!(b.next().await.2, frame("three"));
    assert_eq!(a.transport.send(NodeId(3), Lane::Urgent, frame("x")), Sent::Down);
    assert_eq!(a.transport.send(NodeId(9), Lane::Urgent, frame("x")), Sent::Unknown);
    let status = &a.transport.peers()[0];
    assert_eq!(status.lanes[1].frames_sent, 3);
    assert_eq!(status.lanes[1].dropped_down, 1);
}

#[tokio::test]
async fn a_slow_host_holds_up_bulk_alone_and_in_bounds() {
    let network = InProcess::new();
    let (a, mut b) = (place(&network, identity(1)), place(&network, identity(2)));
    let (release, room) = tokio::sync::oneshot::channel::<()>();
    *b.host.pause.lock().unwrap() = Some(Box::pin(async {
        let _ = room.await;
    }));
    let mut sent = 0u32;
    while a.transport.send(NodeId(2), Lane::Bulk, Bytes::from(sent.to_le_bytes().to_vec()))
        == Sent::Queued
    {
        sent += 1;
    }
    assert!(sent > 100);
    a.transport.send(NodeId(2), Lane::Urgent, frame("beat"));
    assert_eq!(b.next().await.2, Bytes::from(0u32.to_le_bytes().to_vec()));
    assert_eq!(b.next().await, (NodeId(1), Lane::Urgent, frame("beat")));
    release.send(()).unwrap();
    for i in 1..sent {
        assert_eq!(b.next().await.2, Bytes::from(i.to_le_bytes().to_vec()));
    }
}

#[tokio::test]
async fn a_killed_node_is_told_once_and_a_cut_is_not() {
    let network = InProcess::new();
    let (a, b) = (place(&network, identity(1)), place(&network, identity(2)));
    let c = place(&network, identity(3));
    a.transport.send(NodeId(2), Lane::Urgent, frame("x"));
    c.transport.send(NodeId(2), Lane::Urgent, frame("x"));
    network.isolate(NodeId(3));
    network.kill(NodeId(2));
    assert_eq!(b.transport.send(NodeId(1), Lane::Urgent, frame("x")), Sent::Stopped);
    b.transport.shutdown().await;
    assert_eq!(*a.host.closed.lock().unwrap(), [(NodeId(2), Incarnation(12))]);
    assert!(c.host.closed.lock().unwrap().is_empty());
    assert_eq!(a.transport.send(NodeId(2), Lane::Urgent, frame("x")), Sent::Down);

    let mut b = place(&network, identity(2));
    assert_eq!(a.transport.send(NodeId(2), Lane::Urgent, frame("y")), Sent::Queued);
    assert_eq!(b.next().await.2, frame("y"));
    // Its place is taken by the next life.
    let _later = place(&network, identity(2));
    assert_eq!(b.transport.send(NodeId(1), Lane::Urgent, frame("x")), Sent::Stopped);
    assert_eq!(a.host.closed.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_wiped_node_is_refused_both_ways() {
    let network = InProcess::new();
    let a = place(&network, identity(1));
    let b = place(&network, Identity { incarnation: Incarnation(99), ..identity(2) });
    assert_eq!(b.transport.send(NodeId(1), Lane::Urgent, frame("x")), Sent::Down);
    assert_eq!(a.transport.send(NodeId(2), Lane::Urgent, frame("x")), Sent::Down);
    assert!(a.transport.peers()[0].last_error.contains("under a new id"));
    let notes = b.host.notes.lock().unwrap();
    assert!(notes.iter().any(|note| matches!(note, Note::RefusedBy { refusal, .. }
        if refusal.text.contains("remove it and add it under a new id"))));
}

#[tokio::test]
async fn snapshots_come_in_order_and_resume() {
    let network = InProcess::new();
    let (a, b) = (place(&network, identity(1)), place(&network, identity(2)));
    let name = Bytes::from_static(b"it");
    let mut stream =
        b.transport.fetch(NodeId(1), SnapshotRequest::from_start(name.clone())).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    network.cut(NodeId(1), NodeId(2));
    let mut got = first.bytes.to_vec();
    loop {
        match stream.next().await {
            Some(Ok(chunk)) => got.extend_from_slice(&chunk.bytes),
            Some(Err(why)) => break assert!(why.is_transient(), "{why}"),
            // All was handed over before the cut.
            None => break,
        }
    }
    assert_eq!(stream.position(), got.len() as u64);
    network.heal_all();
    let request = SnapshotRequest { name, offset: stream.position(), identity: Some(5) };
    let mut stream = b.transport.fetch(NodeId(1), request.clone()).await.unwrap();
    while let Some(chunk) = stream.next().await {
        got.extend_from_slice(&chunk.unwrap().bytes);
    }
    assert_eq!(got, a.host.snapshot);
    let other = SnapshotRequest { identity: Some(6), ..request };
    assert_eq!(b.transport.fetch(NodeId(1), other).await.unwrap_err(), FetchError::Changed);
    let other = SnapshotRequest::from_start(Bytes::from_static(b"other"));
    assert_eq!(b.transport.fetch(NodeId(1), other).await.unwrap_err(), FetchError::Missing);
}
