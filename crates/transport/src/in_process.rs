//! A network inside one process: for tests, examples and measurements without sockets.

mod link;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use quorate_raft::NodeId;

use crate::admission::{Claim, Known, admit};
use crate::handler::{Handler, Note};
use crate::refusal::Refusal;
use crate::snapshot::{
    FetchError, SNAPSHOT_NAME_BYTES_MAX, SnapshotChunk, SnapshotRequest, SnapshotSink,
    SnapshotSource, SnapshotStream,
};
use crate::status::{LaneStatus, Metrics, PeerStatus};
use crate::tasks::{Tasks, race};
use crate::transport::{BoxFuture, Identity, Lane, Peer, Sent, StartError, Transport};

use link::Link;

/// Bytes of a snapshot that are handed over at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// A network of nodes that live in one process.
///
/// Frames are handed to the receiver's [`Handler`] on the thread that sends them: no task, no
/// copy, no delay. Links can be [cut](Self::cut) and [slowed down](Self::delay), each direction on
/// its own, and nodes can be [killed](Self::kill). The rules of who may connect are those of
/// [`Tcp`](crate::Tcp), word for word.
///
/// The addresses of peers mean nothing here; a node is found by its id.
#[derive(Clone, Default)]
pub struct InProcess {
    network: Arc<Network>,
}

#[derive(Default)]
struct Network {
    nodes: RwLock<BTreeMap<NodeId, Arc<Node>>>,
    links: RwLock<BTreeMap<(NodeId, NodeId), Weather>>,
    /// Grows whenever something changes that routes were made from.
    epoch: AtomicU64,
}

/// What a test has done to one direction of a link.
#[derive(Clone, Copy, Default)]
struct Weather {
    cut: bool,
    delay: Duration,
}

/// One node of an [`InProcess`] network; made by [`InProcess::join`].
pub struct InProcessTransport {
    node: Arc<Node>,
}

struct Node {
    network: Arc<Network>,
    identity: Identity,
    running: OnceLock<Running>,
    links: RwLock<BTreeMap<NodeId, Arc<Link>>>,
    metrics: Mutex<Metrics>,
}

struct Running {
    handler: Arc<dyn Handler>,
    tasks: Tasks,
}

impl InProcess {
    /// A network without nodes, in which all is well.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A transport for a node. When it starts, one that runs under the same id is
    /// [killed](Self::kill), as by a restart.
    #[must_use]
    pub fn join(&self, identity: Identity) -> Arc<InProcessTransport> {
        let node = Arc::new(Node {
            network: Arc::clone(&self.network),
            identity,
            running: OnceLock::new(),
            links: RwLock::default(),
            metrics: Mutex::default(),
        });
        Arc::new(InProcessTransport { node })
    }

    /// Loses everything that is sent from one node to another from now on, and what is under way.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.change(from, to, |weather| weather.cut = true);
    }

    /// Cuts both directions between a node and all others that have joined.
    pub fn isolate(&self, node: NodeId) {
        for other in self.network.ids() {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Delivers everything that is sent from one node to another so much later. Zero again is
    /// immediate. At most 4096 frames or 64 MiB are under way in each lane; more are dropped.
    pub fn delay(&self, from: NodeId, to: NodeId, by: Duration) {
        self.change(from, to, |weather| weather.delay = by);
    }

    /// Undoes [`cut`](Self::cut) and [`delay`](Self::delay) of one direction.
    pub fn heal(&self, from: NodeId, to: NodeId) {
        self.change(from, to, |weather| *weather = Weather::default());
    }

    /// Undoes every [`cut`](Self::cut) and [`delay`](Self::delay).
    pub fn heal_all(&self) {
        self.network.links.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.network.changed();
    }

    /// Ends a node as the death of its process would: it sends and hears nothing any more, and
    /// whoever was connected to it learns of it, unless the way is cut.
    pub fn kill(&self, node: NodeId) {
        if let Some(node) = self.network.node(node) {
            node.leave();
        }
    }

    fn change(&self, from: NodeId, to: NodeId, how: impl FnOnce(&mut Weather)) {
        let mut links = self.network.links.write().unwrap_or_else(PoisonError::into_inner);
        how(links.entry((from, to)).or_default());
        drop(links);
        self.network.changed();
    }
}

impl Network {
    fn changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn ids(&self) -> Vec<NodeId> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn weather(&self, from: NodeId, to: NodeId) -> Weather {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&(from, to)).copied().unwrap_or_default()
    }
}

impl Node {
    fn link(&self, to: NodeId) -> Option<Arc<Link>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).get(&to).cloned()
    }

    fn known(&self, node: NodeId) -> Known {
        self.link(node).map_or(Known::Stranger, |link| Known::Peer(link.peer().incarnation))
    }

    /// Running, and not yet shut down or killed.
    fn live(&self) -> Option<&Running> {
        self.running.get().filter(|running| !running.tasks.is_stopping())
    }

    /// What a handshake from `self` to the node of that id would come to.
    fn connect(&self, to: NodeId) -> Result<(Arc<Self>, Weather), String> {
        let running = self.live().ok_or("this node does not run")?;
        let other = self.network.node(to).ok_or("no such node has joined")?;
        let Some(theirs) = other.live() else { return Err("that node does not run".to_owned()) };
        let refused_there = |refusal: Refusal| {
            other.count(|metrics| metrics.refused += 1);
            self.count(|metrics| metrics.refused_by_others += 1);
            theirs.handler.note(Note::Refused {
                node: self.identity.node,
                incarnation: self.identity.incarnation,
                address: "in-process".to_owned(),
                refusal: refusal.clone(),
            });
            let why = refusal.text.clone();
            let address = "in-process".to_owned();
            running.handler.note(Note::RefusedBy { peer: to, address, refusal });
            why
        };
        let claim = Claim::of(&self.identity, to);
        let known = other.known(self.identity.node);
        admit(&other.identity, &claim, known, "in-process", &*theirs.handler)
            .map_err(refused_there)?;
        if let Known::Peer(Some(bound)) = self.known(to)
            && bound != other.identity.incarnation
        {
            let claimed = other.identity.incarnation;
            let refusal = Refusal::wrong_incarnation(to, bound, claimed);
            self.count(|metrics| metrics.refused += 1);
            let why = refusal.text.clone();
            running.handler.note(Note::Refused {
                node: to,
                incarnation: claimed,
                address: "in-process".to_owned(),
                refusal,
            });
            return Err(why);
        }
        let weather = self.network.weather(self.identity.node, to);
        Ok((other, weather))
    }

    fn count(&self, how: impl FnOnce(&mut Metrics)) {
        how(&mut self.metrics.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes the node out of the network, and tells those who can hear it.
    fn leave(self: &Arc<Self>) {
        let id = self.identity.node;
        if let Some(running) = self.running.get() {
            running.tasks.begin_stop();
        }
        let mut nodes = self.network.nodes.write().unwrap_or_else(PoisonError::into_inner);
        if !nodes.get(&id).is_some_and(|there| Arc::ptr_eq(there, self)) {
            return;
        }
        nodes.remove(&id);
        let others: Vec<Arc<Self>> = nodes.values().cloned().collect();
        drop(nodes);
        self.network.changed();
        for other in others {
            let to = other.identity.node;
            let connected = |link: Option<Arc<Link>>| link.is_some_and(|link| link.was_connected());
            let met = connected(self.link(to)) || connected(other.link(id));
            if !met || self.network.weather(id, to).cut {
                continue;
            }
            if let Some(theirs) = other.live() {
                other.count(|metrics| metrics.peers_closed += 1);
                theirs.handler.peer_closed(id, self.identity.incarnation);
            }
        }
    }

    /// Reads a snapshot of this node for another one.
    async fn feed(
        self: Arc<Self>,
        to: Arc<Self>,
        source: SnapshotSource,
        mut offset: u64,
        sink: SnapshotSink,
    ) {
        let (from, receiver) = (self.identity.node, to.identity.node);
        let SnapshotSource { length, mut reader, .. } = source;
        while offset < length {
            let read = tokio::task::spawn_blocking(move || {
                let wanted = (length - offset).min(CHUNK_BYTES as u64) as usize;
                let mut buffer = vec![0; wanted];
                let result = reader.read_at(offset, &mut buffer);
                (reader, buffer, result)
            });
            let Ok((back, mut buffer, result)) = read.await else { return };
            reader = back;
            let weather = self.network.weather(from, receiver);
            tokio::time::sleep(weather.delay).await;
            let chunk = match result {
                _ if weather.cut || self.live().is_none() => {
                    Err(FetchError::Broken { why: "the link was cut".to_owned() })
                }
                Ok(0) => Err(FetchError::Unreadable { why: "the file is too short".to_owned() }),
                Ok(count) => {
                    buffer.truncate(count);
                    Ok(SnapshotChunk { offset, bytes: Bytes::from(buffer) })
                }
                Err(why) => Err(FetchError::Unreadable { why: why.to_string() }),
            };
            if let Ok(chunk) = &chunk {
                offset += chunk.bytes.len() as u64;
                let count = chunk.bytes.len() as u64;
                if let Some(link) = self.link(receiver) {
                    link.snapshot_sent(count);
                }
                if let Some(link) = to.link(from) {
                    link.snapshot_received(count);
                }
            }
            let failed = chunk.is_err();
            if !sink.put(chunk).await || failed {
                return;
            }
        }
    }
}

impl Transport for InProcessTransport {
    fn start(&self, handler: Arc<dyn Handler>) -> Result<(), StartError> {
        let tasks = Tasks::new(Arc::clone(&handler)).ok_or(StartError::NoRuntime)?;
        let running = Running { handler, tasks };
        self.node.running.set(running).map_err(|_| StartError::AlreadyStarted)?;
        let network = &self.node.network;
        let id = self.node.identity.node;
        if let Some(before) = network.node(id) {
            before.leave();
        }
        let mut nodes = network.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(id, Arc::clone(&self.node));
        drop(nodes);
        network.changed();
        Ok(())
    }

    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Sent {
        if self.node.live().is_none() {
            return Sent::Stopped;
        }
        // Not held while it is used: finding the way to a peer looks at the links again.
        let Some(link) = self.node.link(to) else {
            self.node.count(|metrics| metrics.dropped_unknown += 1);
            return Sent::Unknown;
        };
        let epoch = self.node.network.epoch.load(Ordering::Acquire);
        link.send(&self.node, lane, frame, epoch)
    }

    fn set_peers(&self, peers: &[Peer]) {
        let mut links = self.node.links.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *links);
        for peer in peers.iter().filter(|peer| peer.node != self.node.identity.node) {
            let link = match before.remove(&peer.node) {
                Some(link) => {
                    link.set_peer(peer.clone());
                    link
                }
                None => Arc::new(Link::new(peer.clone())),
            };
            links.insert(peer.node, link);
        }
        drop(links);
        self.node.network.changed();
    }

    fn fetch(
        &self,
        from: NodeId,
        request: SnapshotRequest,
    ) -> BoxFuture<'static, Result<SnapshotStream, FetchError>> {
        let node = Arc::clone(&self.node);
        Box::pin(async move {
            let SnapshotRequest { name, offset, identity } = request;
            if name.len() > SNAPSHOT_NAME_BYTES_MAX {
                return Err(FetchError::NameTooLong);
            }
            if node.live().is_none() {
                return Err(FetchError::Stopped);
            }
            if node.link(from).is_none() {
                return Err(FetchError::Unknown);
            }
            let id = node.identity.node;
            let (other, weather) =
                node.connect(from).map_err(|why| FetchError::Unreachable { why })?;
            if weather.cut || node.network.weather(from, id).cut {
                return Err(FetchError::Unreachable { why: "the link is cut".to_owned() });
            }
            let Some(theirs) = other.live() else {
                return Err(FetchError::Unreachable { why: "that node does not run".to_owned() });
            };
            let handler = Arc::clone(&theirs.handler);
            let opened = tokio::task::spawn_blocking(move || handler.open_snapshot(id, &name));
            let source = match opened.await {
                Ok(Ok(Some(source))) => source,
                Ok(Ok(None)) => return Err(FetchError::Missing),
                Ok(Err(why)) => return Err(FetchError::Unreadable { why: why.to_string() }),
                Err(_) => return Err(FetchError::Unreadable { why: "it panicked".to_owned() }),
            };
            if offset > source.length || identity.is_some_and(|known| known != source.identity) {
                return Err(FetchError::Changed);
            }
            let (sink, stream) = SnapshotStream::new(source.length, source.identity, offset);
            theirs.tasks.spawn(Arc::clone(&other).feed(node, source, offset, sink));
            Ok(stream)
        })
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let links = self.node.links.read().unwrap_or_else(PoisonError::into_inner);
        links.values().map(|link| link.status()).collect()
    }

    fn metrics(&self) -> Metrics {
        *self.node.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.node.leave();
            if let Some(running) = self.node.running.get() {
                running.tasks.stop().await;
            }
        })
    }
}

impl Drop for InProcessTransport {
    fn drop(&mut self) {
        self.node.leave();
    }
}

#[cfg(test)]
mod tests;
