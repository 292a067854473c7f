//! What a host tells the core.
//!
//! What happens here and what arrives from a peer are different types: nobody can send us a
//! timeout or the word that something is on our disk.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::effect::LoadId;
use crate::entry::Entry;
use crate::membership::Change;
use crate::message::{Envelope, SnapshotMeta};
use crate::types::{Incarnation, Index, LogId, NodeId, RequestId, Seq, Term};

/// One piece of news for [`Raft::step`](crate::Raft::step).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The [`deadline`](crate::Raft::deadline) has come. Harmless at any other time.
    Wake,
    /// A message arrived.
    Receive(Envelope),
    /// Somebody wants a command replicated. Answered by
    /// [`Answer::Appended`](crate::Answer::Appended) once it is in the leader's log; what becomes of it then shows in
    /// what is applied at that index, or in
    /// [`Answer::ProposeFailed`](crate::Answer::ProposeFailed).
    Propose(Proposal),
    /// Somebody wants to read. Answered by [`Answer::Read`](crate::Answer::Read).
    Read {
        /// Given back in the answer.
        id: RequestId,
        /// How the leader shall make sure that it still leads.
        mode: ReadMode,
    },
    /// Somebody wants the configuration changed. Answered by
    /// [`Answer::Change`](crate::Answer::Change) when the change has committed; of a joint change,
    /// when it was left.
    Change {
        /// Given back in the answer.
        id: RequestId,
        /// The change.
        change: Change,
    },
    /// Somebody wants another node to lead (thesis 3.10). Answered by
    /// [`Answer::Transfer`](crate::Answer::Transfer).
    Transfer {
        /// Given back in the answer.
        id: RequestId,
        /// Who shall lead; a voter.
        to: NodeId,
    },
    /// An operator wants this node to campaign at once, whether or not a leader is known. Answered
    /// by [`Answer::Campaign`](crate::Answer::Campaign) when the campaign has begun.
    Campaign {
        /// Given back in the answer.
        id: RequestId,
    },
    /// Every storage effect up to this number is durable. Stale and repeated ones are harmless.
    Persisted(Seq),
    /// The state machine has applied everything up to this index.
    Applied(Index),
    /// Answer to [`Effect::Load`](crate::Effect::Load).
    Loaded {
        /// The load that is answered.
        id: LoadId,
        /// The entries from its first index on, at least one, or why there are none.
        result: Result<Vec<Entry>, LoadError>,
    },
    /// Answer to [`Effect::PrepareSnapshot`](crate::Effect::PrepareSnapshot).
    SnapshotPrepared {
        /// The peer that it is for.
        to: NodeId,
        /// The snapshot that is ready to be fetched; `None` if there is none now, and the core
        /// asks again later.
        snapshot: Option<SnapshotMeta>,
    },
    /// Answer to [`Effect::FetchSnapshot`](crate::Effect::FetchSnapshot).
    SnapshotFetched {
        /// The snapshot that was fetched.
        snapshot: LogId,
        /// Whether all its bytes are here, checked and durable.
        complete: bool,
    },
    /// The host needs the log only behind `up_to`: a snapshot, or the state machine's own durable
    /// data, covers the rest. The host drops the entries after this step. Ignored if the log
    /// starts later already.
    Compact {
        /// The last index to drop; one that is applied.
        up_to: Index,
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

/// A command to be replicated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Given back in the answer.
    pub id: RequestId,
    /// Opaque to Raft.
    pub command: Bytes,
    /// CRC32C of `command`, see [`crc32c`](crate::crc32c).
    pub checksum: u32,
    /// If given, the proposal is only good while this node leads that very term: the decision of
    /// one leader, such as the expiry of a lease, must not be carried out by its successor.
    pub in_term: Option<Term>,
}

impl Proposal {
    /// A proposal good in any term, with the checksum of its command.
    #[must_use]
    pub fn new(id: RequestId, command: Bytes) -> Self {
        let checksum = crate::crc32c(&command);
        Self { id, command, checksum, in_term: None }
    }
}

/// How a leader makes sure, for a read, that no other leader has been elected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadMode {
    /// By hearing from a quorum after the read arrived (thesis 6.4). Needs no clock.
    ReadIndex,
    /// By the lease that an earlier round gave it (thesis 6.4.1). Costs no message, and is only
    /// as good as the bound on clock drift. Refused while leases are off in the
    /// [`Membership`](crate::Membership).
    Lease,
}

/// Why entries could not be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// The log starts later by now.
    Compacted,
    /// The disk could not read them, or they are damaged.
    Unreadable,
}
