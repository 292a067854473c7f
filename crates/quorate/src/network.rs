//! How nodes reach each other.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_node::{Event, NodeMessage};
use quorate_raft::{Incarnation, NodeId, SnapshotMeta};
use quorate_transport::PeerStatus;

use crate::asks::Asks;
use crate::error::StartError;
use crate::inbox::{Inbox, Report};
use crate::panics::caught;
use crate::peers::Peers;
use crate::snapshot_file::Head;
use crate::snapshots::{Incoming, Snapshots};

/// What a node offers to its peers, and where messages for it go.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) node: NodeId,
    pub(crate) cluster: quorate_raft::ClusterId,
    pub(crate) incarnation: Incarnation,
    /// The voters that the cluster was founded with; none if this node does not know.
    pub(crate) founders: Arc<[NodeId]>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) asks: Arc<Asks>,
    /// Held while a snapshot is received: two at once would write into one file.
    pub(crate) receiving: Arc<Mutex<()>>,
}

impl Endpoint {
    /// Nodes that were told of other founding members than this one would decide apart from it.
    fn check_founders(&self, joining: &Self) -> Result<(), StartError> {
        let known = !self.founders.is_empty() && !joining.founders.is_empty();
        if !known || self.cluster != joining.cluster || self.founders == joining.founders {
            return Ok(());
        }
        let list = |nodes: &[NodeId]| {
            let ids: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            ids.join(" ")
        };
        let why = format!(
            "node {} was given the members {}, node {} the members {}; the list must be the same at \
             all of them",
            joining.node,
            list(&joining.founders),
            self.node,
            list(&self.founders)
        );
        Err(StartError::Setting { why })
    }

    /// Receives a snapshot from whoever puts its bytes into it, and reports it. Waits for the disk,
    /// and for the snapshot that is being received. [`Interrupted`](std::io::ErrorKind::Interrupted)
    /// means that it is not wanted any more.
    pub(crate) fn receive(
        &self,
        from: NodeId,
        meta: &SnapshotMeta,
        copy: impl FnOnce(&mut Incoming<'_>) -> std::io::Result<()>,
    ) {
        let alone = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        self.inbox.report(Report::Fetching { from, snapshot: meta.id });
        let receive = || {
            self.snapshots.receive(meta.id).and_then(|mut incoming| {
                copy(&mut incoming)?;
                let (cluster, meta) = (self.cluster, meta.clone());
                incoming.finish(&Head { cluster, meta, sessions: Bytes::new() })
            })
        };
        let result = caught("receiving a snapshot", receive);
        drop(alone);
        let result = match result {
            Ok(result) => result,
            Err(why) => return self.inbox.report(Report::Stop(why)),
        };
        if let Err(error) = &result
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            let (snapshot, why) = (meta.id, error.to_string());
            self.inbox.report(Report::FetchFailed { from, snapshot, why });
        }
        let (snapshot, complete) = (meta.id, result.is_ok());
        self.inbox.report(Report::FetchEnded { from, snapshot, complete });
        self.inbox.event(Event::Fetched { snapshot, complete });
    }
}

pub(crate) use quorate_transport::BoxFuture;

/// What the driver needs of a network.
pub(crate) trait Network: Send + Sync {
    /// Sends, or loses it. Never waits.
    fn send(&self, to: NodeId, message: NodeMessage);
    /// Sends a frame that is not the node's. False if it is lost here.
    fn carry(&self, to: NodeId, frame: Bytes) -> bool;
    /// Who is there, with what the membership says of them.
    fn set_peers(&self, peers: &Peers);
    /// Fetches a snapshot from a peer, and reports [`Event::Fetched`].
    fn fetch(&self, from: NodeId, snapshot: SnapshotMeta);
    /// How it stands with the peers; empty where there is nothing to be said of them.
    fn peers(&self) -> Vec<PeerStatus> {
        Vec::new()
    }
    /// Takes and gives nothing any more.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A network inside one process, for tests, examples and simulations of your own: messages are
/// handed over as values.
#[derive(Clone, Default)]
pub struct InProcess {
    hub: Arc<Mutex<Hub>>,
}

#[derive(Default)]
struct Hub {
    nodes: BTreeMap<NodeId, Endpoint>,
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl InProcess {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().expect("nobody panics while holding the hub")
    }

    /// From now on, messages from `from` to `to` are lost.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.lock().cut.insert((from, to));
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&self, node: NodeId) {
        let mut hub = self.lock();
        let others: Vec<NodeId> =
            hub.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            hub.cut.insert((node, other));
            hub.cut.insert((other, node));
        }
    }

    /// Mends every cut.
    pub fn heal(&self) {
        self.lock().cut.clear();
    }

    pub(crate) fn join(&self, endpoint: Endpoint) -> Result<Arc<dyn Network>, StartError> {
        let mut hub = self.lock();
        for other in hub.nodes.values().filter(|other| other.node != endpoint.node) {
            other.check_founders(&endpoint)?;
        }
        hub.nodes.insert(endpoint.node, endpoint.clone());
        drop(hub);
        Ok(Arc::new(Local { network: self.clone(), endpoint }))
    }

    fn target(&self, from: NodeId, to: NodeId) -> Option<Endpoint> {
        let hub = self.lock();
        if hub.cut.contains(&(from, to)) {
            return None;
        }
        hub.nodes.get(&to).cloned()
    }
}

struct Local {
    network: InProcess,
    endpoint: Endpoint,
}

impl Network for Local {
    fn send(&self, to: NodeId, message: NodeMessage) {
        let inbox = {
            let hub = self.network.lock();
            if !hub.cut.is_empty() && hub.cut.contains(&(self.endpoint.node, to)) {
                return;
            }
            let Some(target) = hub.nodes.get(&to) else { return };
            Arc::clone(&target.inbox)
        };
        inbox.message(message);
    }

    fn carry(&self, to: NodeId, frame: Bytes) -> bool {
        let target = self.network.target(self.endpoint.node, to);
        target.is_some_and(|target| target.asks.received(self.endpoint.node, &frame))
    }

    fn set_peers(&self, _: &Peers) {}

    fn fetch(&self, from: NodeId, snapshot: SnapshotMeta) {
        let endpoint = self.endpoint.clone();
        let source = self.network.target(endpoint.node, from);
        tokio::task::spawn_blocking(move || {
            endpoint.receive(from, &snapshot, |incoming| {
                let source = source.ok_or(std::io::ErrorKind::NotConnected)?;
                let (mut bytes, _) = source.snapshots.open(snapshot.id)?;
                incoming.restart()?;
                let mut chunk = vec![0; 1 << 18];
                loop {
                    match bytes.read(&mut chunk)? {
                        0 => return Ok(()),
                        count => incoming.push(&chunk[..count])?,
                    }
                }
            });
        });
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let node = self.endpoint.node;
        let mut hub = self.network.lock();
        let own = |found: &Endpoint| Arc::ptr_eq(&found.inbox, &self.endpoint.inbox);
        if hub.nodes.get(&node).is_some_and(own) {
            hub.nodes.remove(&node);
        }
        let closed = Event::PeerClosed { peer: node, incarnation: self.endpoint.incarnation };
        let reached: Vec<Endpoint> = hub.nodes.values().cloned().collect();
        let cut = hub.cut.clone();
        drop(hub);
        for other in reached.iter().filter(|other| !cut.contains(&(node, other.node))) {
            other.inbox.event(closed.clone());
        }
        Box::pin(std::future::ready(()))
    }
}
