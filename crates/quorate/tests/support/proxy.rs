//! A network of proxies: every connection between two nodes goes through one, which knows whose it
//! is from its first bytes, and can be cut.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::addresses;

/// A connection begins with so many bytes that say who makes it, and what for; see
/// `docs/transport-format.md`.
const INTRODUCTION_BYTES: usize = 40;
const PURPOSE_AT: usize = 20;
const NODE_AT: usize = 32;
const SNAPSHOT: u8 = 3;

/// Connects nodes 1 and so on.
pub(crate) struct Mesh {
    members: Vec<(u64, String)>,
    listen: Vec<(u64, String)>,
    state: Arc<State>,
}

struct State {
    /// Ways on which nothing moves. Nothing is lost either, as TCP sends again what was not
    /// acknowledged.
    cut: watch::Sender<BTreeSet<(u64, u64)>>,
    /// Bytes of snapshots, by whatever connection.
    snapshot_bytes: AtomicU64,
    /// Connections with snapshots break once so many bytes have passed, in all.
    snapshots_break: Mutex<Vec<u64>>,
}

impl Mesh {
    pub(crate) async fn new(count: usize) -> Self {
        let state = Arc::new(State {
            cut: watch::Sender::default(),
            snapshot_bytes: AtomicU64::new(0),
            snapshots_break: Mutex::default(),
        });
        let listen = addresses(count);
        let mut members = Vec::new();
        for (id, target) in listen.clone() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            members.push((id, listener.local_addr().unwrap().to_string()));
            tokio::spawn(accept(listener, id, target, Arc::clone(&state)));
        }
        Self { members, listen, state }
    }

    /// Where others reach the nodes.
    pub(crate) fn members(&self) -> Vec<(u64, String)> {
        self.members.clone()
    }

    /// Where a node listens.
    pub(crate) fn listen(&self, id: u64) -> String {
        self.listen.iter().find(|(node, _)| *node == id).unwrap().1.clone()
    }

    /// From now on nothing gets from `from` to `to`.
    pub(crate) fn cut(&self, from: u64, to: u64) {
        self.state.cut.send_modify(|cut| {
            cut.insert((from, to));
        });
    }

    /// Cuts all ways between these nodes and the others.
    pub(crate) fn partition(&self, some: &[u64]) {
        let ids = || self.members.iter().map(|(id, _)| *id);
        for a in ids().filter(|id| some.contains(id)) {
            for b in ids().filter(|id| !some.contains(id)) {
                self.cut(a, b);
                self.cut(b, a);
            }
        }
    }

    /// Everything moves again.
    pub(crate) fn heal(&self) {
        self.state.cut.send_modify(BTreeSet::clear);
    }

    /// Once so many bytes of snapshots have passed, in all, the connection breaks that carries them.
    pub(crate) fn break_snapshots_at(&self, bytes: &[u64]) {
        *self.state.snapshots_break.lock().unwrap() = bytes.to_vec();
    }

    /// Breaks that are still to come.
    pub(crate) fn breaks_left(&self) -> usize {
        self.state.snapshots_break.lock().unwrap().len()
    }

    pub(crate) fn snapshot_bytes(&self) -> u64 {
        self.state.snapshot_bytes.load(Ordering::Relaxed)
    }
}

impl State {
    /// Waits until the way is open.
    async fn open(&self, from: u64, to: u64) {
        let mut cut = self.cut.subscribe();
        let _ = cut.wait_for(|cut| !cut.contains(&(from, to))).await;
    }

    /// Counts bytes of a snapshot; fails where the connection is to break.
    fn count(&self, bytes: usize) -> io::Result<()> {
        let passed = self.snapshot_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let mut breaks = self.snapshots_break.lock().unwrap();
        match breaks.first() {
            Some(at) if passed >= *at => {
                breaks.remove(0);
                Err(io::ErrorKind::ConnectionReset.into())
            }
            _ => Ok(()),
        }
    }
}

async fn accept(listener: TcpListener, id: u64, target: String, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (target, state) = (target.clone(), Arc::clone(&state));
        // That a connection has ended is for its two ends to see.
        tokio::spawn(async move { carry(stream, id, &target, &state).await });
    }
}

async fn carry(mut dialler: TcpStream, to: u64, target: &str, state: &State) -> io::Result<()> {
    let mut introduction = [0; INTRODUCTION_BYTES];
    dialler.read_exact(&mut introduction).await?;
    let from = u64::from_le_bytes(introduction[NODE_AT..][..8].try_into().unwrap());
    let is_snapshot = introduction[PURPOSE_AT] == SNAPSHOT;
    state.open(from, to).await;
    let mut listener = TcpStream::connect(target).await?;
    for stream in [&dialler, &listener] {
        stream.set_nodelay(true)?;
    }
    listener.write_all(&introduction).await?;
    let (mut dialler_in, mut dialler_out) = dialler.split();
    let (mut listener_in, mut listener_out) = listener.split();
    let forth = pump(state, (from, to), &mut dialler_in, &mut listener_out, false);
    let back = pump(state, (to, from), &mut listener_in, &mut dialler_out, is_snapshot);
    tokio::try_join!(forth, back).map(|_| ())
}

async fn pump(
    state: &State,
    (from, to): (u64, u64),
    input: &mut (impl AsyncReadExt + Unpin),
    output: &mut (impl AsyncWriteExt + Unpin),
    counts: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = input.read(&mut buffer).await?;
        state.open(from, to).await;
        if count == 0 {
            return output.shutdown().await;
        }
        if counts {
            state.count(count)?;
        }
        output.write_all(&buffer[..count]).await?;
    }
}
