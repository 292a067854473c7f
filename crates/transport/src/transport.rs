//! The interface between a host and whatever carries its frames.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use quorate_raft::{ClusterId, Incarnation, NodeId};

use crate::handler::Handler;
use crate::snapshot::{FetchError, SnapshotRequest, SnapshotStream};
use crate::status::{Metrics, PeerStatus};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries frames between the nodes of a cluster.
///
/// [`Tcp`](crate::Tcp) is the one for production and [`InProcess`](crate::InProcess) the one for
/// tests; implement it to bring your own. What a host may count on, and an implementation must
/// therefore give:
///
/// * **Frames may be lost, and nobody is told.** Raft repeats what matters. A frame that arrives
///   arrives whole and unchanged.
/// * **Order holds within a lane** as long as a connection lasts. Nothing is promised between
///   lanes, or across a reconnection.
/// * **[`Lane::Urgent`] never waits behind [`Lane::Bulk`]**, nor either behind a snapshot.
/// * **Nothing blocks and nothing grows without bound.** [`send`](Self::send) returns at once.
/// * **A frame comes from whom it seems to come from**: the identity that the other side proved
///   (as far as the transport proves anything) when it connected, in the same cluster, founded with
///   the same members as far as both know, with the incarnation that [`set_peers`](Self::set_peers)
///   names.
pub trait Transport: Send + Sync + 'static {
    /// Begins to listen, dial and deliver. Called once, from within a tokio runtime whose timers
    /// and sockets are enabled (`enable_all`).
    ///
    /// # Errors
    ///
    /// See [`StartError`]; nothing was started then.
    fn start(&self, handler: Arc<dyn Handler>) -> Result<(), StartError>;

    /// Hands a frame over for delivery. Never blocks.
    ///
    /// The answer says what happened *here*, so that a host can count it; a frame that was queued
    /// may still be lost.
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Sent;

    /// The nodes to keep connections to, and whose connections are accepted. Replaces what was
    /// set before; this node's own id is passed over.
    ///
    /// A peer whose address changed is dialled at the new one at once. One that is missing now is
    /// no longer dialled, and its connections are closed unless [`Handler::admits`] wants them.
    fn set_peers(&self, peers: &[Peer]);

    /// Asks a peer for one of its snapshots, from a given offset on. The future ends as soon as
    /// the peer has said how long the snapshot is; its bytes come through the stream.
    fn fetch(
        &self,
        from: NodeId,
        request: SnapshotRequest,
    ) -> BoxFuture<'static, Result<SnapshotStream, FetchError>>;

    /// How it stands with each peer, ascending by id.
    fn peers(&self) -> Vec<PeerStatus>;

    /// What is counted for this node as a whole.
    fn metrics(&self) -> Metrics;

    /// Closes every connection, tells the peers that this process ends, and waits until no task
    /// of this transport is left. Afterwards the handler is not called any more (an
    /// [`open_snapshot`](Handler::open_snapshot) that has begun may still be running). Calling it
    /// twice is harmless.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// Which of the two queues to a peer a frame belongs into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Heartbeats, votes, acknowledgements and other small control: late is as good as lost.
    Urgent,
    /// Entries, and whatever else is large.
    Bulk,
}

impl Lane {
    /// Both lanes.
    pub const ALL: [Self; 2] = [Self::Urgent, Self::Bulk];

    /// A place in an array of two.
    pub(crate) const fn slot(self) -> usize {
        match self {
            Self::Urgent => 0,
            Self::Bulk => 1,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Urgent => "urgent",
            Self::Bulk => "bulk",
        })
    }
}

/// What became of a frame in [`Transport::send`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sent {
    /// It is on its way; it may still be lost.
    Queued,
    /// Dropped: the queue is full. The peer, or the way to it, is slower than this host.
    Full,
    /// Dropped: there is no connection and the last attempt to make one has failed.
    Down,
    /// Dropped: no such peer was set.
    Unknown,
    /// Dropped: longer than the transport carries. Repeating it cannot help.
    TooLarge,
    /// Dropped: the transport was not started yet, or is shut down.
    Stopped,
}

/// Who this node is. The other side of every connection hears it first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster. Nodes of another one are refused.
    pub cluster: ClusterId,
    /// This node, never zero.
    pub node: NodeId,
    /// The random number made together with its data directory.
    pub incarnation: Incarnation,
    /// A random number drawn anew each time the process starts.
    pub boot: u64,
    /// What this software can do beyond what its protocol version says, one bit each. The other
    /// side's are in [`PeerStatus::features`]; the transport does nothing with them.
    pub features: u64,
    /// The voters that the cluster was founded with, ascending, as this node was told; empty if it does
    /// not know. Two that were told otherwise would decide apart, so they refuse each other. At most
    /// [`FOUNDERS_MAX`] are said.
    pub founders: Arc<[NodeId]>,
}

/// The most [`Identity::founders`] that are told to the other side; if there are more, none is.
pub const FOUNDERS_MAX: usize = 100;

/// A node that this one shall be connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its id.
    pub node: NodeId,
    /// Where to reach it; what that looks like is the transport's choice. For
    /// [`Tcp`](crate::Tcp): `host:port`, or several of them separated by commas, tried in turn.
    pub address: String,
    /// Its data directory, once the cluster has bound one to the id. Another one is refused.
    pub incarnation: Option<Incarnation>,
}

/// Why a transport could not start. Nothing was started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// It was started before, or is shut down already.
    AlreadyStarted,
    /// It was not called from within a tokio runtime.
    NoRuntime,
    /// The address to listen at is not to be had.
    Listen {
        /// The address.
        address: String,
        /// What the operating system says.
        source: std::io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyStarted => f.write_str("the transport was started before"),
            Self::NoRuntime => f.write_str("the transport must be started within a tokio runtime"),
            Self::Listen { address, source } => write!(f, "cannot listen at {address}: {source}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // What it prints includes what the system says.
            Self::Listen { source, .. } => source.source(),
            _ => None,
        }
    }
}
