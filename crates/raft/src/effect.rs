//! What the core wants done.
//!
//! Effects are plain data. The host carries out each kind in the order given, and has no other
//! ordering rule to remember; [`Effect::Persist`] and [`Effect::Install`] are one kind (storage),
//! and an `Install` also keeps its place among the [`Effect::Apply`]s.

use alloc::vec::Vec;
use core::fmt;

use crate::entry::Entry;
use crate::error::{
    CampaignError, ChangeError, PeerError, ProposeError, ReadError, StepDownReason, TransferError,
};
use crate::message::{Envelope, Refusal, SnapshotMeta, write_entries};
use crate::types::{Incarnation, Index, LogId, NodeId, RequestId, Seq, Term};

/// One thing for the host to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Make one record durable, then say [`Input::Persisted`](crate::Input::Persisted).
    Persist(Persist),
    /// Send a message. It may be lost, doubled or overtaken.
    Send(Envelope),
    /// Give committed entries to the state machine, then say
    /// [`Input::Applied`](crate::Input::Applied). They are contiguous with those given before.
    Apply(Vec<Entry>),
    /// Read entries back from the log, then say [`Input::Loaded`](crate::Input::Loaded).
    Load(Load),
    /// Hold a snapshot ready for a peer to fetch, then say
    /// [`Input::SnapshotPrepared`](crate::Input::SnapshotPrepared).
    PrepareSnapshot {
        /// The peer that needs it.
        to: NodeId,
        /// It must include this index, and should be as new as is cheap.
        min_index: Index,
    },
    /// Fetch the bytes of a snapshot, check them and make them durable, then say
    /// [`Input::SnapshotFetched`](crate::Input::SnapshotFetched). A later fetch replaces this one.
    FetchSnapshot {
        /// The node whose host has it ready.
        from: NodeId,
        /// The snapshot.
        snapshot: SnapshotMeta,
    },
    /// Put the fetched snapshot in the place of the state machine's contents and of the log, all
    /// or nothing across a crash, then say [`Input::Persisted`](crate::Input::Persisted). Entries
    /// that it includes are never given as [`Effect::Apply`]: a proposal that was appended at one
    /// of their places has an unknown outcome.
    Install(Install),
    /// Answer a request of the host.
    Answer(Answer),
    /// Something that an operator should be able to see.
    Notice(Notice),
}

/// One atomic record for the log: term, vote and entries are never written apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Persist {
    /// Its number among the storage effects.
    pub seq: Seq,
    /// Replaces the hard state before it.
    pub hard_state: HardState,
    /// Entries to append. If the log has an entry at the first one's index, that entry and all
    /// behind it are dropped first.
    pub append: Vec<Entry>,
}

/// What a server must not forget, besides its log (Figure 2, "persistent state").
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    /// Latest term the server has seen.
    pub term: Term,
    /// Who got its vote in that term.
    pub voted_for: Option<NodeId>,
    /// A lower bound of the commit index. It rides along and never causes a write of its own.
    pub commit: Index,
    /// The first incarnation seen of each member that the configuration has not bound yet, by id.
    pub seen: Vec<(NodeId, Incarnation)>,
}

/// Names a [`Load`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LoadId(pub u64);

/// Entries to read back from the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Given back in the answer.
    pub id: LoadId,
    /// The first entry wanted.
    pub first: Index,
    /// The last entry wanted.
    pub last: Index,
    /// Stop before the [`Entry::size`]s exceed this many bytes, but give at least one entry.
    pub bytes_max: usize,
}

/// A snapshot to install.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Install {
    /// Its number among the storage effects.
    pub seq: Seq,
    /// The snapshot, fetched before.
    pub snapshot: SnapshotMeta,
    /// The hard state that goes with it.
    pub hard_state: HardState,
}

/// The answer to one request of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The command is in this leader's log. If an entry with exactly this id is applied, the
    /// command has taken effect, once; if another entry is applied at its index, it never will.
    Appended {
        /// The proposal.
        id: RequestId,
        /// Its place.
        at: LogId,
    },
    /// The command was refused, or (after `Appended`) its fate is out of this node's hands.
    ProposeFailed {
        /// The proposal.
        id: RequestId,
        /// What is now true.
        error: ProposeError,
    },
    /// The read may be served by a state machine that has applied the index.
    Read {
        /// The read.
        id: RequestId,
        /// Apply at least this much first.
        result: Result<Index, ReadError>,
    },
    /// The change has committed at that place, or not.
    Change {
        /// The change.
        id: RequestId,
        /// Where its last entry is.
        result: Result<LogId, ChangeError>,
    },
    /// The target leads, or not.
    Transfer {
        /// The transfer.
        id: RequestId,
        /// The term that the target leads.
        result: Result<Term, TransferError>,
    },
    /// The campaign has begun, or not.
    Campaign {
        /// The request.
        id: RequestId,
        /// The term that the node campaigns in.
        result: Result<Term, CampaignError>,
    },
}

/// Something that an operator should be able to see.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// A message was refused, and nothing of it was used.
    Refused {
        /// Who is said to have sent it.
        from: NodeId,
        /// What is wrong with it.
        why: PeerError,
    },
    /// A peer refuses our messages.
    RefusedBy {
        /// The peer.
        peer: NodeId,
        /// Why, and what to do.
        why: Refusal,
    },
    /// This node gave up leadership of `term`.
    SteppedDown {
        /// The term that it led.
        term: Term,
        /// Why.
        why: StepDownReason,
    },
    /// Entries of the log cannot be read. The node does not lead, and applies nothing behind them,
    /// until they can be read again; it keeps trying.
    Unreadable {
        /// The first of them.
        first: Index,
    },
    /// The configuration demands more than this software supports. The node takes no part any
    /// more until it is upgraded.
    FeatureLevel {
        /// What the cluster has agreed on.
        level: u32,
        /// What this software supports.
        supported: u32,
    },
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Persist(persist) => persist.fmt(f),
            Self::Send(envelope) => envelope.fmt(f),
            Self::Apply(entries) => {
                f.write_str("apply")?;
                write_entries(f, entries)
            }
            Self::Load(load) => {
                write!(f, "load #{} {}..={}", load.id.0, load.first, load.last)
            }
            Self::PrepareSnapshot { to, min_index } => {
                write!(f, "prepare snapshot for n{to}, index >= {min_index}")
            }
            Self::FetchSnapshot { from, snapshot } => {
                write!(f, "fetch snapshot {} from n{from}", snapshot.id)
            }
            Self::Install(install) => write!(
                f,
                "install #{} snapshot={} [{}]",
                install.seq, install.snapshot.id, install.snapshot.membership
            ),
            Self::Answer(answer) => answer.fmt(f),
            Self::Notice(notice) => notice.fmt(f),
        }
    }
}

impl fmt::Display for Persist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "persist #{} {}", self.seq, self.hard_state)?;
        write_entries(f, &self.append)
    }
}

impl fmt::Display for HardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term={}", self.term)?;
        if let Some(node) = self.voted_for {
            write!(f, " voted_for=n{node}")?;
        }
        write!(f, " commit={}", self.commit)?;
        for (node, incarnation) in &self.seen {
            write!(f, " seen=n{node}/{:x}", incarnation.0)?;
        }
        Ok(())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appended { id, at } => write!(f, "{id} appended at {at}"),
            Self::ProposeFailed { id, error } => write!(f, "{id} failed: {error}"),
            Self::Read { id, result: Ok(index) } => write!(f, "{id} read at {index}"),
            Self::Read { id, result: Err(error) } => write!(f, "{id} read failed: {error}"),
            Self::Change { id, result: Ok(at) } => write!(f, "{id} changed at {at}"),
            Self::Change { id, result: Err(error) } => write!(f, "{id} change failed: {error}"),
            Self::Transfer { id, result: Ok(term) } => {
                write!(f, "{id} transferred in term {term}")
            }
            Self::Transfer { id, result: Err(error) } => {
                write!(f, "{id} transfer failed: {error}")
            }
            Self::Campaign { id, result: Ok(term) } => write!(f, "{id} campaigns in term {term}"),
            Self::Campaign { id, result: Err(error) } => {
                write!(f, "{id} campaign failed: {error}")
            }
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { from, why } => write!(f, "refused message from n{from}: {why}"),
            Self::RefusedBy { peer, why } => write!(f, "refused by n{peer}: {why}"),
            Self::SteppedDown { term, why } => write!(f, "stepped down from term {term}: {why}"),
            Self::Unreadable { first } => write!(f, "log unreadable from index {first} on"),
            Self::FeatureLevel { level, supported } => write!(
                f,
                "the cluster requires feature level {level}, this software supports {supported}; \
                 upgrade it"
            ),
        }
    }
}
