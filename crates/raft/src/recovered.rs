//! What a restart needs.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::config::Config;
use crate::effect::HardState;
use crate::error::StartError;
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

    /// Whether what was recovered makes sense, and is enough to take part again.
    pub(crate) fn validate(&self, config: &Config) -> Result<(), StartError> {
        let inconsistent = |what| Err(StartError::Inconsistent { what });
        let compacted = self.snapshot.id.index;
        if !self.damaged.is_empty() {
            return Err(StartError::Damaged { ranges: self.damaged.clone() });
        }
        if self.last_index < compacted {
            return Err(StartError::LogLost { expected: compacted, last_index: self.last_index });
        }
        let expected = self.applied.max(self.hard_state.commit);
        if expected > self.last_index {
            return Err(StartError::LogLost { expected, last_index: self.last_index });
        }
        if self.applied < compacted {
            return Err(StartError::StateMachineBehind { applied: self.applied, compacted });
        }
        let first = self.terms.first().map(|(index, _)| *index);
        if first != (self.last_index > compacted).then(|| compacted.next()) {
            return inconsistent("the runs of terms do not start where the log does");
        }
        let runs_ascend =
            self.terms.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let behind_snapshot =
            self.terms.first().is_none_or(|(_, term)| *term >= self.snapshot.id.term);
        if !runs_ascend || !behind_snapshot {
            return inconsistent("terms decrease");
        }
        if self.terms.last().is_some_and(|(index, _)| *index > self.last_index) {
            return inconsistent("a run of terms starts behind the log's end");
        }
        let last_term = self.terms.last().map_or(self.snapshot.id.term, |(_, term)| *term);
        if last_term > self.hard_state.term {
            return inconsistent("the log has an entry of a later term than the hard state");
        }
        let memberships_ascend = self.memberships.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let inside = |(index, _): &(Index, _)| *index > compacted && *index <= self.last_index;
        if !memberships_ascend || !self.memberships.iter().all(inside) {
            return inconsistent("a configuration entry is not in the log");
        }
        let latest =
            self.memberships.last().map_or(&self.snapshot.membership, |(_, latest)| latest);
        if latest.feature_level() > config.feature_level {
            let (level, supported) = (latest.feature_level(), config.feature_level);
            return Err(StartError::FeatureLevel { level, supported });
        }
        let own = latest.member(config.node).and_then(|member| member.incarnation);
        match own {
            Some(known) if known != config.incarnation => {
                Err(StartError::WrongIncarnation { known })
            }
            _ => Ok(()),
        }
    }
}
