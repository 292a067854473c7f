//! The one committed log, as the checkers learn it from the first leader that commits each entry;
//! every other node must agree with it (State Machine Safety).

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_raft::{Entry, Index, Membership, NodeId, SnapshotMeta, Term};

use super::elections::Elections;
use super::identities::Identities;
use super::promises::AllPromises;
use super::shadow::{Shadow, ShadowLog};
use super::violation::Property;
use super::{Found, Held, found, position};
use crate::storage::LogImage;

/// What is committed.
#[derive(Debug)]
pub(super) struct Commits {
    /// The term of each committed entry; that of index 0 is 0.
    terms: Vec<Term>,
    /// How far the leader of each term has committed.
    by_term: BTreeMap<Term, Index>,
    /// The committed configurations, ascending, the first one included.
    configs: Vec<(Index, Arc<Membership>)>,
    /// What state machines contained at each index, and who said so first.
    digests: Vec<Option<(u64, NodeId)>>,
}

impl Default for Commits {
    fn default() -> Self {
        Self {
            terms: vec![Term(0)],
            by_term: BTreeMap::new(),
            configs: Vec::new(),
            digests: Vec::new(),
        }
    }
}

/// A leader before and after a step in which its commit index grew.
pub(super) struct Advance<'a> {
    pub(super) node: NodeId,
    /// The term in which it led, if it did before the step or does after it.
    pub(super) leads: Option<Term>,
    pub(super) log: &'a ShadowLog,
    pub(super) to: Index,
    /// The configurations in force before and after the step.
    pub(super) configs: [&'a Membership; 2],
}

impl Commits {
    /// A log was made by hand, and its hard state says how much of it is committed.
    pub(super) fn made_by_hand(&mut self, log: &LogImage) {
        while self.last() < log.hard_state.commit
            && let Some(term) = log.term_at(self.last().next())
        {
            self.terms.push(term);
        }
    }

    /// The last committed index.
    pub(super) fn last(&self) -> Index {
        Index(self.terms.len() as u64 - 1)
    }

    /// The term of a committed entry.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        self.terms.get(position(index)).copied()
    }

    /// How far leaders of terms before `term` have committed.
    pub(super) fn last_before_term(&self, term: Term) -> Index {
        self.by_term.range(..term).map(|(_, index)| *index).max().unwrap_or_default()
    }

    /// The latest committed configuration.
    pub(super) fn config(&self) -> Option<&(Index, Arc<Membership>)> {
        self.configs.last()
    }

    /// How many configurations are committed.
    pub(super) fn configs(&self) -> usize {
        self.configs.len()
    }

    /// Whether `log` holds what is committed at `index`, and so, by Log Matching, up to it.
    pub(super) fn agrees(&self, log: &ShadowLog, index: Index) -> bool {
        index <= log.base.index || log.term_at(index) == self.term_at(index)
    }

    /// The commit index of a node has grown.
    pub(super) fn advanced(
        &mut self,
        advance: &Advance<'_>,
        promises: &AllPromises,
        elections: &Elections,
    ) -> Found {
        let Advance { node, leads, log, to, .. } = *advance;
        if to > log.last {
            return found(Property::StateMachineSafety, [node], || {
                format!("n{node} has commit index {to}, and its log ends at {}", log.last_log())
            });
        }
        let common = to.min(self.last());
        if !self.agrees(log, common) {
            return found(Property::StateMachineSafety, [node], || {
                format!(
                    "n{node} takes {} as committed at index {common}, where {} was committed",
                    Held(log.term_at(common)),
                    Held(self.term_at(common))
                )
            });
        }
        match leads {
            Some(term) => self.counted(advance, term, promises)?,
            None if to > self.last() => {
                return found(Property::CommitQuorum, [node], || {
                    format!("n{node} does not lead, and has commit index {to} before any leader")
                });
            }
            None => {}
        }
        for index in self.last().next().0..=to.0 {
            self.terms.push(log.term_at(Index(index)).unwrap_or_default());
        }
        self.take_configs(log, to);
        match leads {
            Some(term) => {
                let known = self.by_term.entry(term).or_default();
                *known = to.max(*known);
                elections.committed(term, to, self)
            }
            None => Ok(()),
        }
    }

    /// The leader of `term` has advanced its commit index by counting (§5.3, §5.4.2).
    fn counted(&self, advance: &Advance<'_>, term: Term, promises: &AllPromises) -> Found {
        let Advance { node, log, to, configs, .. } = advance;
        let found_term = log.term_at(*to);
        if found_term != Some(term) {
            return found(Property::CommitQuorum, [*node], || {
                format!(
                    "the leader of term {term} commits index {to}, {}, by counting",
                    Held(found_term)
                )
            });
        }
        if configs.iter().any(|config| promises.stored(config, term, *to)) {
            return Ok(());
        }
        found(Property::CommitQuorum, [*node], || {
            format!(
                "the leader of term {term} commits index {to}, which is not on the disks of a \
                 quorum of [{}]",
                configs[0]
            )
        })
    }

    /// Learns the configurations of a log that is committed up to `last`. Behind that, it may hold
    /// one that never will be, even where another log is committed further.
    fn take_configs(&mut self, log: &ShadowLog, last: Index) {
        let known = self.config().map(|(index, _)| *index);
        let is_new = |index: Index| known.is_none_or(|known| index > known) && index <= last;
        self.configs.extend(log.configs().iter().filter(|(index, _)| is_new(*index)).cloned());
    }

    /// `snapshot` is taken, offered or installed by `node`.
    pub(super) fn snapshot(&self, node: NodeId, snapshot: &SnapshotMeta) -> Found {
        let id = snapshot.id;
        if id.index > self.last() || self.term_at(id.index) != Some(id.term) {
            return found(Property::SnapshotIsCommitted, [node], || {
                format!(
                    "n{node} has a snapshot of {id}; {} is committed there, and the last index committed is {}",
                    Held(self.term_at(id.index)),
                    self.last()
                )
            });
        }
        let in_force = self.configs.iter().rev().find(|(index, _)| *index <= id.index);
        match in_force {
            Some((index, config))
                if !Arc::ptr_eq(config, &snapshot.membership) && *config != snapshot.membership =>
            {
                found(Property::SnapshotIsCommitted, [node], || {
                    format!(
                        "n{node} has a snapshot of {id} with configuration [{}]; committed at \
                         index {index} is [{config}]",
                        snapshot.membership
                    )
                })
            }
            _ => Ok(()),
        }
    }

    /// `node` gives entries to its state machine.
    pub(super) fn given(
        &self,
        node: NodeId,
        shadow: &Shadow,
        commit_index: Index,
        entries: &[Entry],
        identities: &Identities,
    ) -> Found {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let broken = |what: String| found(Property::AppliedIsDurable, [node], || what);
        if first.index != shadow.given.next() {
            return broken(format!(
                "n{node} applies from index {} on; the last one applied was {}",
                first.index, shadow.given
            ));
        }
        if last.index > commit_index {
            return broken(format!(
                "n{node} applies up to index {}, beyond its commit index {commit_index}",
                last.index
            ));
        }
        if shadow.disk.log.term_at(last.index) != Some(last.term) {
            return broken(format!(
                "n{node} applies up to {}, and its disk holds the log only up to {}",
                last.log_id(),
                shadow.disk.log.last_log()
            ));
        }
        let mut expected = first.index;
        for entry in entries {
            let is_same = self.term_at(entry.index) == Some(entry.term)
                && entry.index == expected
                && identities.is_known(entry);
            if !is_same {
                return found(Property::StateMachineSafety, [node], || {
                    format!(
                        "n{node} applies {entry} as index {expected}; {} is committed there",
                        Held(self.term_at(expected))
                    )
                });
            }
            expected = expected.next();
        }
        Ok(())
    }

    /// The state machine of `node` has applied `index` and now has this digest.
    pub(super) fn applied(&mut self, node: NodeId, index: Index, digest: u64) -> Found {
        let at = position(index);
        if self.digests.len() <= at {
            self.digests.resize(at + 1, None);
        }
        match self.digests[at] {
            None => {
                self.digests[at] = Some((digest, node));
                Ok(())
            }
            Some((known, _)) if known == digest => Ok(()),
            Some((_, other)) => found(Property::StateMachineSafety, [node, other], || {
                format!("the state machines of n{node} and n{other} differ after index {index}")
            }),
        }
    }
}
