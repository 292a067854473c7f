//! What a host tells its node.

use bytes::Bytes;
use quorate_raft::{
    Change, Entry, Incarnation, Index, LoadError, LoadId, LogId, NodeId, ReadMode, RequestId, Seq,
    Term,
};

use crate::message::NodeMessage;

/// One piece of news for [`Node::step`](crate::Node::step).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The [`deadline`](crate::Node::deadline) has come. Harmless at any other time.
    Wake,
    /// A message arrived from a peer.
    Receive(NodeMessage),
    /// A client wants something.
    Request {
        /// Given back in [`Action::Reply`](crate::Action::Reply); unique among the requests that
        /// are not answered yet.
        id: RequestId,
        /// What it wants.
        request: Request,
    },
    /// Every storage action up to this number is durable.
    Stored(Seq),
    /// A write or a sync has failed for good. Nothing that was not reported by
    /// [`Stored`](Self::Stored) may be believed to be durable, and nothing more is written: the node
    /// answers whoever waits, wants to be stopped, and takes nothing in any more. A disk that is
    /// merely slow or full is no failure; the host tries again, and says `Stored` when it is done.
    DiskFailed,
    /// The state machine has carried out one [`Action::Apply`](crate::Action::Apply), the oldest
    /// not yet reported.
    Applied {
        /// Its last entry.
        up_to: Index,
        /// What the state machine says to each *command* among the entries, in their order.
        responses: Vec<Bytes>,
    },
    /// What the state machine has applied up to this index would survive a crash. The log is
    /// compacted only up to here.
    StateDurable(Index),
    /// An operator wants the log shorter, whatever the settings say: up to this index, or as far as
    /// nothing is lost.
    Compact {
        /// The last index to drop.
        up_to: Index,
    },
    /// An operator wants a snapshot now. Answered by [`Action::Spool`](crate::Action::Spool), unless
    /// one is being spooled already.
    TakeSnapshot,
    /// Answer to [`Action::Load`](crate::Action::Load).
    Loaded {
        /// The load that is answered.
        id: LoadId,
        /// The entries, or why there are none.
        result: Result<Vec<Entry>, LoadError>,
    },
    /// Answer to [`Action::Spool`](crate::Action::Spool): a snapshot is finished, or, if `None`,
    /// could not be made. If [`Settings::snapshots`](crate::Settings::snapshots) are on, what it
    /// contains is durable.
    Spooled(Option<LogId>),
    /// Answer to [`Action::Fetch`](crate::Action::Fetch).
    Fetched {
        /// The snapshot.
        snapshot: LogId,
        /// Whether all its bytes are here, checked and durable.
        complete: bool,
    },
    /// The process of a peer has ended: the kernel reset or closed its connection. Never to be
    /// said on a mere time-out.
    PeerClosed {
        /// The peer.
        peer: NodeId,
        /// The data directory that was on the other end.
        incarnation: Incarnation,
    },
}

/// What a client can ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Replicate and execute a command.
    Propose {
        /// Opaque to Raft.
        command: Bytes,
        /// If given, the command is good only while this node leads that term, and is never
        /// forwarded.
        in_term: Option<Term>,
    },
    /// Read the state machine, linearizably.
    Read {
        /// How the leader makes sure that it leads.
        mode: ReadMode,
    },
    /// Read the state machine as it is here: possibly stale, but never older than what this node
    /// knew to be committed when it was last running.
    LocalRead,
    /// Change the configuration; only at the leader.
    Change(Change),
    /// Make another node lead; only at the leader.
    Transfer {
        /// Who shall lead.
        to: NodeId,
    },
    /// Campaign at once, by order of an operator.
    Campaign,
}
