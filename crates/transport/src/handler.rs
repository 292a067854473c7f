//! What a transport tells its host, and asks it.

use std::io;
use std::vec::Drain;

use bytes::Bytes;
use quorate_raft::{Incarnation, NodeId};

use crate::refusal::Refusal;
use crate::snapshot::SnapshotSource;
use crate::transport::{BoxFuture, Lane};

/// The host's side of a [`Transport`](crate::Transport).
///
/// The methods are called from the transport's tasks (or, with
/// [`InProcess`](crate::InProcess), from within the sender's [`send`](crate::Transport::send)), so
/// they must not block, and must not call the transport back: put what came into a queue and
/// return.
pub trait Handler: Send + Sync + 'static {
    /// Frames arrived, at least one, in the order in which they were sent in this lane. Those that
    /// are not taken from `frames` are dropped.
    ///
    /// A host whose queue is full returns a future that ends when there is room again. Until then
    /// nothing more is read of *that connection*, if it is of [`Lane::Bulk`]; the sender's queue
    /// fills, and then drops. [`Lane::Urgent`] is read always, so that a slow host still hears
    /// heartbeats; a host bounds what it keeps of it by dropping the excess. What is beyond the
    /// host's mark is thus at most one read (64 KiB, or one larger frame) per connection.
    fn received(&self, from: NodeId, lane: Lane, frames: Drain<'_, Bytes>) -> Option<Pause>;

    /// Whether to accept a connection from a node that [`set_peers`] did not name. It is of the
    /// right cluster and wants this node. A node that is about to join knows nobody yet and has to
    /// let the leader in, which it does here.
    ///
    /// [`set_peers`]: crate::Transport::set_peers
    fn admits(&self, stranger: &Stranger) -> bool {
        let _ = stranger;
        false
    }

    /// The process of a peer has ended: the kernel at the other end closed or reset a connection
    /// whose handshake was complete, or the peer said that it shuts down.
    ///
    /// Never called for a time-out, an unreachable network, or a connection that this side or a
    /// living peer closed on purpose. Called once for each life of a peer, unless a connection to
    /// that same life was made again (something between the two had cut the connection).
    fn peer_closed(&self, peer: NodeId, incarnation: Incarnation);

    /// A peer wants a snapshot. `None` if there is no such one (any more). Called on a thread that
    /// may block.
    ///
    /// # Errors
    ///
    /// What the disk says; the peer is told that the snapshot cannot be read.
    fn open_snapshot(&self, to: NodeId, name: &[u8]) -> io::Result<Option<SnapshotSource>>;

    /// A task of the transport panicked, in code of its own, of this handler or of its
    /// [`Security`](crate::Security). What it did is done no more: peers may not be dialled or heard,
    /// so a host that is told this stops.
    fn panicked(&self, message: &str) {
        let _ = message;
    }

    /// Something that an operator may want to know.
    fn note(&self, note: Note) {
        let _ = note;
    }
}

/// Ends when the host has room for more frames.
pub type Pause = BoxFuture<'static, ()>;

/// A node that is not among the peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stranger {
    /// Who it says it is.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// Where it comes from; not where it listens.
    pub address: String,
}

/// News for an operator. Repeated attempts of a peer repeat their notes, as often as the peer's
/// back-off lets them.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Note {
    /// Frames of a lane can be sent to a peer now.
    Connected {
        /// The peer.
        peer: NodeId,
        /// The lane.
        lane: Lane,
    },
    /// A connection to a peer could not be made; dialling goes on.
    Unreachable {
        /// The peer.
        peer: NodeId,
        /// Where it was tried.
        address: String,
        /// Why, for people.
        why: String,
    },
    /// They cannot any more; dialling goes on.
    Disconnected {
        /// The peer.
        peer: NodeId,
        /// The lane.
        lane: Lane,
        /// Why, for people.
        why: String,
    },
    /// This node refused a connection, or what it found at a peer's address.
    Refused {
        /// Who the other side says it is.
        node: NodeId,
        /// Its data directory.
        incarnation: Incarnation,
        /// Where it is.
        address: String,
        /// Why, as the other side was told.
        refusal: Refusal,
    },
    /// A peer refused this node.
    RefusedBy {
        /// Whom this node meant to reach.
        peer: NodeId,
        /// Where.
        address: String,
        /// Why, in the words of the other side.
        refusal: Refusal,
    },
}
