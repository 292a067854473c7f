//! What a cluster tells those who watch it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use quorate_node::{Action, Node, NodeMessage, Reply};
use quorate_raft::{
    Incarnation, Index, LoadError, LogId, Membership, NodeId, Recovered, RequestId, RoleName, Seq,
    StartError, Term, Time,
};

use crate::storage::{Crash, DiskNews, LogImage};

/// Something that happened, for checkers, clients and traces.
#[derive(Clone, PartialEq, Debug)]
pub struct Observation {
    /// When, in global time.
    pub at: Time,
    /// Where.
    pub node: NodeId,
    /// What.
    pub what: Observed,
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Observed {
    /// The process started.
    Started {
        /// Its data directory.
        incarnation: Incarnation,
        /// Counts the lives of this data directory, from 1.
        life: u64,
        /// What its disk held; all of it is durable.
        recovered: Recovered,
        /// How it looks.
        brief: Brief,
    },
    /// The process could not start.
    StartFailed(StartFailure),
    /// Something happened to its disk, or to the log on it.
    Disk(DiskNews),
    /// It died.
    Crashed {
        /// How.
        crash: Crash,
        /// Writes that were not durable ...
        unsynced: usize,
        /// ... and how many of them are gone.
        lost: usize,
        /// Whether it died between two actions of one step.
        within_step: bool,
        /// Whether a snapshot was on its way into place.
        installing: bool,
    },
    /// It was frozen, or goes on.
    Paused(bool),
    /// It got a new, empty data directory.
    Wiped(Incarnation),
    /// It got a data directory that was made by hand and holds this log, durably. It is started next.
    HandMade(LogImage),
    /// Something was told to the node, in the step whose `Stepped` follows.
    Told(Told),
    /// The node took a step. The actions that it caused follow at once, each as an `Action`, an
    /// `Answered` behind each reply; and `Crashed`, if it dies in the middle.
    Stepped {
        /// How it looked before: as after its last step in this life.
        before: Brief,
        /// How it looks now.
        after: Brief,
    },
    /// The host carries out an action of the node (hands it to the network, the disk, the state
    /// machine, the client). After a crash in the middle of a step the later ones are missing.
    Action(Action),
    /// All storage actions up to this number became durable. The node does not know it yet.
    Durable(Seq),
    /// The state machine has applied these entries.
    Applied {
        /// Each with the checksum of its payload.
        entries: Vec<(LogId, u32)>,
        /// The state machine's digest behind them.
        digest: u64,
    },
    /// A snapshot has replaced log and state machine.
    Installed {
        /// The snapshot.
        snapshot: LogId,
        /// The state machine's digest.
        digest: u64,
    },
    /// The contents of the state machine up to there are durable.
    Flushed(Index),
    /// A message has arrived at a running host, or was lost. What is lost as it is sent comes behind
    /// the actions of its step.
    Message {
        /// The message; the node of the observation is its receiver.
        message: NodeMessage,
        /// What became of it.
        fate: Fate,
    },
    /// A request of the caller is answered. Comes right behind the `Action::Reply` that says so.
    Answered {
        /// The request.
        id: RequestId,
        /// The answer.
        reply: Reply,
        /// For a read that was granted: what the state machine says to its query.
        value: Option<Bytes>,
    },
    /// The request will never be answered: its node died. For proposals: outcome unknown.
    Abandoned {
        /// The request.
        id: RequestId,
    },
    /// A moment came that [`Cluster::schedule`](super::Cluster::schedule) was asked to call.
    Timer(u64),
}

/// Why a process could not start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartFailure {
    /// The core refuses.
    Core(StartError),
    /// Its log is damaged, and says where.
    Damaged(String),
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(error) => error.fmt(f),
            Self::Damaged(why) => write!(f, "damaged: {why}"),
        }
    }
}

/// Rare news for a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// A peer's process has ended, or so it is said.
    PeerClosed {
        /// The peer.
        peer: NodeId,
    },
    /// A read from the log has ended.
    Loaded {
        /// Why there were no entries, if so.
        error: Option<LoadError>,
    },
    /// The fetch of a snapshot has ended.
    Fetched {
        /// Whether it is here.
        complete: bool,
    },
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was given to the node, or waits for it to go on after a pause.
    Delivered,
    /// The network lost it, or the link is cut.
    Lost,
    /// Nobody was there to receive it.
    Unreachable,
}

/// The cheap part of a node's status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Brief {
    /// Its role.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// Who got its vote in this term.
    pub voted_for: Option<NodeId>,
    /// The leader of this term, if known.
    pub leader: Option<NodeId>,
    /// The last entry that was compacted away.
    pub compacted: LogId,
    /// The last entry of the log.
    pub last_log: LogId,
    /// The last index that is on its disk, as it knows.
    pub durable_index: Index,
    /// The highest index known to be committed.
    pub commit_index: Index,
    /// As the core knows it; the state machine itself may be further.
    pub applied: Index,
    /// The configuration in force.
    pub membership: Arc<Membership>,
    /// Where in the log it comes from.
    pub membership_index: Index,
    /// A snapshot that is being fetched.
    pub fetching: Option<LogId>,
    /// The target of a transfer under way.
    pub transfer_to: Option<NodeId>,
}

impl Brief {
    pub(super) fn of(node: &Node) -> Self {
        let status = node.raft().status();
        Self {
            role: status.role,
            term: status.term,
            voted_for: status.voted_for,
            leader: status.leader,
            compacted: status.compacted,
            last_log: status.last_log,
            durable_index: status.durable_index,
            commit_index: status.commit_index,
            applied: status.applied,
            membership: status.membership,
            membership_index: status.membership_index,
            fetching: status.fetching,
            transfer_to: status.transfer_to,
        }
    }
}
