//! What a restart needs.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::effect::HardState;
use crate::membership::Membership;
use crate::message::SnapshotMeta;
use crate::types::{Index, LogId, Term};

/// What a host found on its disk. A new server starts from [`Recovered::new`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// Term, vote and a lower bound of the commit index.
    pub hard_state: HardState,
    /// Where the log starts: the last entry that was compacted away, and the configuration there.
    /// `0@0` and the first configuration (or none, for a server that waits to be added) for a log
    /// that has everything.
    pub snapshot: SnapshotMeta,
    /// Every configuration entry of the log behind the snapshot, ascending. All of them, not just
    /// the last: a truncation must have something to roll back to.
    pub memberships: Vec<(Index, Arc<Membership>)>,
    /// The terms of the log behind the snapshot, run by run: the first index of each run and its
    /// term, ascending.
    pub terms: Vec<(Index, Term)>,
    /// The last index of the log; the snapshot's if nothing is behind it.
    pub last_index: Index,
    /// What the state machine has durably applied.
    pub applied: Index,
    /// Damaged parts of the log, if any.
    pub damaged: Vec<RangeInclusive<Index>>,
    /// A random number that no earlier life of this server has used.
    pub boot_nonce: u64,
}

impl Recovered {
    /// A server without a history. `membership` is the cluster's first configuration, the same
    /// on each of its first servers, or an empty one for a server that waits to be added.
    #[must_use]
    pub fn new(membership: Arc<Membership>, boot_nonce: u64) -> Self {
        let snapshot = SnapshotMeta { id: LogId::ZERO, membership };
        Self { snapshot, boot_nonce, ..Self::default() }
    }
}
