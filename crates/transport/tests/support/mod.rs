//! Hosts that write down what they are told, and a proxy that spoils connections.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "this is for tests")]

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::vec::Drain;

use bytes::Bytes;
use quorate_raft::{ClusterId, Incarnation, NodeId};
use quorate_transport::{
    Handler, Identity, Lane, Note, Pause, Peer, Refusal, RefusalCode, Settings, SnapshotSource,
    Stranger, Tcp, Transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) type Arrival = (NodeId, Lane, Bytes);

pub(crate) struct Host {
    frames: mpsc::UnboundedSender<Arrival>,
    pub(crate) closed: Mutex<Vec<(NodeId, Incarnation)>>,
    pub(crate) notes: Mutex<Vec<Note>>,
    pub(crate) snapshot: Mutex<Option<Snapshot>>,
    pub(crate) admits: AtomicBool,
    /// While true, bulk is paused after each delivery.
    pub(crate) slow: watch::Sender<bool>,
}

#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) name: Vec<u8>,
    pub(crate) bytes: Bytes,
    pub(crate) identity: u64,
}

impl Handler for Host {
    fn received(&self, from: NodeId, lane: Lane, frames: Drain<'_, Bytes>) -> Option<Pause> {
        for frame in frames {
            let _ = self.frames.send((from, lane, frame));
        }
        if !*self.slow.borrow() {
            return None;
        }
        let mut slow = self.slow.subscribe();
        Some(Box::pin(async move {
            let _ = slow.wait_for(|slow| !*slow).await;
        }))
    }

    fn admits(&self, _: &Stranger) -> bool {
        self.admits.load(Ordering::Relaxed)
    }

    fn peer_closed(&self, peer: NodeId, incarnation: Incarnation) {
        self.closed.lock().unwrap().push((peer, incarnation));
    }

    fn open_snapshot(&self, _: NodeId, name: &[u8]) -> io::Result<Option<SnapshotSource>> {
        if let Some(length) = name.strip_prefix(b"pattern ") {
            let length = std::str::from_utf8(length).unwrap().parse().unwrap();
            return Ok(Some(SnapshotSource { length, identity: 3, reader: Box::new(Pattern) }));
        }
        if name == b"broken" {
            return Err(io::Error::other("the disk is on fire"));
        }
        let snapshot = self.snapshot.lock().unwrap().clone();
        Ok(snapshot.filter(|snapshot| snapshot.name == name).map(|snapshot| SnapshotSource {
            length: snapshot.bytes.len() as u64,
            identity: snapshot.identity,
            reader: Box::new(snapshot.bytes),
        }))
    }

    fn note(&self, note: Note) {
        self.notes.lock().unwrap().push(note);
    }
}

/// A snapshot of any length that takes no memory: `pattern <length>`.
struct Pattern;

impl quorate_transport::SnapshotRead for Pattern {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        for (at, byte) in (offset..).zip(&mut *buffer) {
            *byte = pattern(at);
        }
        Ok(buffer.len())
    }
}

/// The byte of a pattern at an offset; it does not repeat at any power of two.
pub(crate) fn pattern(at: u64) -> u8 {
    (at % 251) as u8 ^ (at >> 16) as u8
}

impl Host {
    /// Refusals that this node spoke, and those that it heard.
    pub(crate) fn refusals(&self) -> (Vec<Refusal>, Vec<Refusal>) {
        let (mut spoken, mut heard) = (Vec::new(), Vec::new());
        for note in &*self.notes.lock().unwrap() {
            match note {
                Note::Refused { refusal, .. } => spoken.push(refusal.clone()),
                Note::RefusedBy { refusal, .. } => heard.push(refusal.clone()),
                _ => {}
            }
        }
        (spoken, heard)
    }

    pub(crate) fn has_heard(&self, code: RefusalCode) -> bool {
        self.refusals().1.iter().any(|refusal| refusal.code == code)
    }

    pub(crate) fn has_spoken(&self, code: RefusalCode) -> bool {
        self.refusals().0.iter().any(|refusal| refusal.code == code)
    }
}

pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) transport: Arc<Tcp>,
    pub(crate) host: Arc<Host>,
    pub(crate) frames: mpsc::UnboundedReceiver<Arrival>,
}

pub(crate) fn identity(id: u64) -> Identity {
    Identity {
        cluster: ClusterId(7),
        node: NodeId(id),
        incarnation: Incarnation(100 + id),
        boot: 1000 + id,
        features: id,
        founders: Arc::default(),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "addresses of all kinds, without ado")]
pub(crate) fn peer(id: u64, address: impl ToString) -> Peer {
    Peer { node: NodeId(id), address: address.to_string(), incarnation: None }
}

/// Quick ones, so that tests are.
pub(crate) fn settings() -> Settings {
    Settings {
        seed: 1,
        ping_interval: Duration::from_millis(50),
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(100),
        ..Settings::new("127.0.0.1:0")
    }
}

impl Node {
    pub(crate) fn new(id: u64) -> Self {
        Self::with(identity(id), settings())
    }

    pub(crate) fn with(identity: Identity, settings: Settings) -> Self {
        let (sender, frames) = mpsc::unbounded_channel();
        let host = Arc::new(Host {
            frames: sender,
            closed: Mutex::default(),
            notes: Mutex::default(),
            snapshot: Mutex::default(),
            admits: AtomicBool::new(false),
            slow: watch::Sender::new(false),
        });
        let id = identity.node.0;
        let transport = Arc::new(Tcp::bind(identity, settings).unwrap());
        transport.start(Arc::clone(&host) as Arc<dyn Handler>).unwrap();
        Self { id, transport, host, frames }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.transport.local_address()
    }

    pub(crate) fn knows(&self, others: &[&Self]) {
        let peers: Vec<Peer> = others.iter().map(|o| peer(o.id, o.address())).collect();
        self.transport.set_peers(&peers);
    }

    pub(crate) async fn next(&mut self) -> Arrival {
        tokio::time::timeout(DEADLINE, self.frames.recv()).await.expect("a frame").unwrap()
    }

    pub(crate) fn connected(&self, to: u64) -> bool {
        self.transport.peers().iter().any(|peer| {
            peer.node == NodeId(to) && peer.lanes.iter().all(|l| l.connected_since_us.is_some())
        })
    }

    /// Waits until both lanes to a peer stand.
    pub(crate) async fn reaches(&self, to: u64) {
        until("connected", || self.connected(to)).await;
    }

    pub(crate) fn last_error(&self, of: u64) -> String {
        let peers = self.transport.peers();
        peers.into_iter().find(|p| p.node == NodeId(of)).map(|p| p.last_error).unwrap_or_default()
    }
}

/// Waits for something to become true.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Two nodes that reach each other.
pub(crate) async fn pair() -> (Node, Node) {
    let (a, b) = (Node::new(1), Node::new(2));
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.reaches(2).await;
    b.reaches(1).await;
    (a, b)
}

/// What a proxy does with the connections that go through it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Forward,
    /// Holds on to connections and forwards nothing.
    Stall,
    /// Closes what there is and what comes.
    Close,
}

/// Forwards connections to one address.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Bytes per second and connection; zero is no limit.
    pub(crate) rate: Arc<AtomicU64>,
    /// The same for what comes back.
    pub(crate) rate_back: Arc<AtomicU64>,
    /// Bytes forwarded from the target to whoever dialled.
    pub(crate) backwards: Arc<AtomicU64>,
    /// Closes the connections once so many bytes have come back; zero: never.
    pub(crate) close_after_backwards: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = watch::Sender::new(Mode::Forward);
        let rate = Arc::new(AtomicU64::new(0));
        let rate_back = Arc::new(AtomicU64::new(0));
        let backwards = Arc::new(AtomicU64::new(0));
        let close_after_backwards = Arc::new(AtomicU64::new(0));
        let proxy = Self { address, mode, rate, rate_back, backwards, close_after_backwards };
        let (modes, rate) = (proxy.mode.subscribe(), Arc::clone(&proxy.rate));
        let rate_back = Arc::clone(&proxy.rate_back);
        let backwards = Arc::clone(&proxy.backwards);
        let limit = Arc::clone(&proxy.close_after_backwards);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *modes.borrow() == Mode::Close {
                    continue;
                }
                let (modes, rate) = (modes.clone(), Arc::clone(&rate));
                let rate_back = Arc::clone(&rate_back);
                let (backwards, limit) = (Arc::clone(&backwards), Arc::clone(&limit));
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    let there = pump(
                        near_read,
                        far_write,
                        modes.clone(),
                        rate,
                        Arc::default(),
                        Arc::default(),
                    );
                    let back = pump(far_read, near_write, modes, rate_back, backwards, limit);
                    tokio::select! { () = there => {}, () = back => {} }
                });
            }
        });
        proxy
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut modes: watch::Receiver<Mode>,
    rate: Arc<AtomicU64>,
    count: Arc<AtomicU64>,
    limit: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Forward => {}
            Mode::Close => return,
            Mode::Stall => {
                if modes.changed().await.is_err() {
                    return;
                }
                continue;
            }
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = modes.changed() => continue,
        };
        let Ok(read @ 1..) = read else { return };
        let per_second = rate.load(Ordering::Relaxed);
        if per_second > 0 {
            tokio::time::sleep(Duration::from_secs_f64(read as f64 / per_second as f64)).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        let total = count.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
        let limit = limit.load(Ordering::Relaxed);
        if limit > 0 && total >= limit {
            return;
        }
    }
}

/// Bytes that look like nothing else.
pub(crate) fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}
