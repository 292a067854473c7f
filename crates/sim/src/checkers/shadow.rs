//! What the checkers believe a node holds: its log as the core has it, and what of it is on disk.
//!
//! A shadow is built from effects alone. Terms are kept run by run, so that following a log costs
//! by the record, and looking into one by the number of terms.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_raft::{
    Entry, HardState, Incarnation, Index, Install, LogId, Membership, NodeId, Payload, Persist,
    Recovered, RoleName, Seq, SnapshotMeta, Term,
};

use super::violation::Property;
use super::{Found, found};
use crate::cluster::Brief;

/// The terms and configurations of a log.
#[derive(Clone, Debug, Default)]
pub(super) struct ShadowLog {
    /// The entry before the first one known.
    pub(super) base: LogId,
    /// First index of each run of equal terms behind the base.
    runs: Vec<(Index, Term)>,
    pub(super) last: Index,
    /// Configurations and where they come from; the first is the one at the base.
    configs: Vec<(Index, Arc<Membership>)>,
}

impl ShadowLog {
    fn from_snapshot(snapshot: &SnapshotMeta) -> Self {
        Self {
            base: snapshot.id,
            runs: Vec::new(),
            last: snapshot.id.index,
            configs: vec![(snapshot.id.index, Arc::clone(&snapshot.membership))],
        }
    }

    fn from_recovered(recovered: &Recovered) -> Self {
        let mut log = Self::from_snapshot(&recovered.snapshot);
        log.runs.clone_from(&recovered.terms);
        log.configs.extend(recovered.memberships.iter().cloned());
        log.last = recovered.last_index;
        log
    }

    /// The term at `index`; `None` behind the end and before the base.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index <= self.base.index || index > self.last {
            return (index == self.base.index).then_some(self.base.term);
        }
        let behind = self.runs.partition_point(|(first, _)| *first <= index);
        Some(behind.checked_sub(1).map_or(self.base.term, |run| self.runs[run].1))
    }

    pub(super) fn last_log(&self) -> LogId {
        LogId::new(self.last, self.term_at(self.last).unwrap_or_default())
    }

    /// The last index below the entries of `term`, which are at the end if there are any.
    pub(super) fn end_before(&self, term: Term) -> Index {
        match self.runs.last() {
            Some((first, last_term)) if *last_term == term => first.prev(),
            _ => self.last,
        }
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> &Arc<Membership> {
        &self.configs.last().expect("a log has a configuration at its base").1
    }

    /// Where the configuration in force comes from.
    pub(super) fn config_index(&self) -> Index {
        self.configs.last().map_or(Index::ZERO, |(index, _)| *index)
    }

    /// The configurations and where they come from, ascending; the first is the one at the base.
    pub(super) fn configs(&self) -> &[(Index, Arc<Membership>)] {
        &self.configs
    }

    /// Neighbouring configurations, the second of each pair with its index.
    pub(super) fn config_pairs(&self) -> impl Iterator<Item = (&Membership, Index, &Membership)> {
        self.configs.windows(2).map(|pair| (&*pair[0].1, pair[1].0, &*pair[1].1))
    }

    pub(super) fn truncate(&mut self, last: Index) {
        self.runs.truncate(self.runs.partition_point(|(first, _)| *first <= last));
        while self.configs.len() > 1 && self.config_index() > last {
            self.configs.pop();
        }
        self.last = self.last.min(last).max(self.base.index);
    }

    fn append_runs(&mut self, runs: &[(Index, Term)], last: Index) {
        for (first, term) in runs {
            if self.last_log().term != *term {
                self.runs.push((*first, *term));
            }
            self.last = *first;
        }
        self.last = last;
    }

    pub(super) fn append(&mut self, entry: &Entry) {
        if self.last_log().term != entry.term {
            self.runs.push((entry.index, entry.term));
        }
        self.last = entry.index;
        if let Payload::Membership(membership) = &entry.payload {
            self.configs.push((entry.index, Arc::clone(membership)));
        }
    }

    pub(super) fn install(&mut self, snapshot: &SnapshotMeta) {
        *self = Self::from_snapshot(snapshot);
    }
}

/// Term and vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ballot {
    pub(super) term: Term,
    pub(super) voted_for: Option<NodeId>,
}

impl From<&HardState> for Ballot {
    fn from(hard: &HardState) -> Self {
        Self { term: hard.term, voted_for: hard.voted_for }
    }
}

/// A write that is on its way to the disk.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) seq: Seq,
    pub(super) ballot: Ballot,
    change: RecordChange,
}

#[derive(Clone, Debug)]
enum RecordChange {
    Nothing,
    Append { runs: Vec<(Index, Term)>, configs: Vec<(Index, Arc<Membership>)>, last: Index },
    Install(SnapshotMeta),
}

impl Record {
    pub(super) fn persist(persist: &Persist) -> Self {
        let ballot = Ballot::from(&persist.hard_state);
        let Some(last) = persist.append.last() else {
            return Self { seq: persist.seq, ballot, change: RecordChange::Nothing };
        };
        let mut runs: Vec<(Index, Term)> = Vec::new();
        let mut configs = Vec::new();
        for entry in &persist.append {
            if runs.last().is_none_or(|(_, term)| *term != entry.term) {
                runs.push((entry.index, entry.term));
            }
            if let Payload::Membership(membership) = &entry.payload {
                configs.push((entry.index, Arc::clone(membership)));
            }
        }
        let change = RecordChange::Append { runs, configs, last: last.index };
        Self { seq: persist.seq, ballot, change }
    }

    pub(super) fn install(install: &Install) -> Self {
        let ballot = Ballot::from(&install.hard_state);
        Self { seq: install.seq, ballot, change: RecordChange::Install(install.snapshot.clone()) }
    }
}

/// What is on a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct ShadowDisk {
    pub(super) log: ShadowLog,
    pub(super) ballot: Ballot,
}

impl ShadowDisk {
    /// Whether a process found on this disk just what is there.
    pub(super) fn is_what(&self, recovered: &Recovered) -> bool {
        self.ballot == Ballot::from(&recovered.hard_state)
            && self.log.last == recovered.last_index
            && recovered.terms.iter().all(|(first, term)| self.log.term_at(*first) == Some(*term))
    }

    /// Carries out a write. Gives the runs of terms that are durable by it, with their last
    /// indexes, to `durable`.
    pub(super) fn write(&mut self, record: &Record, mut durable: impl FnMut(Term, Index)) {
        self.ballot = record.ballot;
        match &record.change {
            RecordChange::Nothing => {}
            RecordChange::Append { runs, configs, last } => {
                if let Some((first, _)) = runs.first() {
                    self.log.truncate(first.prev());
                }
                self.log.append_runs(runs, *last);
                self.log.configs.extend(configs.iter().cloned());
                for (at, (_, term)) in runs.iter().enumerate() {
                    let end = runs.get(at + 1).map_or(*last, |(next, _)| next.prev());
                    durable(*term, end);
                }
            }
            RecordChange::Install(snapshot) => {
                self.log.install(snapshot);
                durable(snapshot.id.term, snapshot.id.index);
            }
        }
    }
}

/// A node at the end of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) role: RoleName,
    pub(super) term: Term,
    pub(super) commit_index: Index,
}

/// One node in one life of its process, and its disk.
#[derive(Clone, Debug)]
pub(super) struct Shadow {
    pub(super) incarnation: Incarnation,
    /// Counts the starts of the process.
    pub(super) life: u32,
    pub(super) is_up: bool,
    pub(super) seen: Seen,
    pub(super) log: ShadowLog,
    pub(super) ballot: Ballot,
    pub(super) disk: ShadowDisk,
    pub(super) pending: VecDeque<Record>,
    /// The last index given to the state machine in this life.
    pub(super) given: Index,
    /// The end of the log with which this life began.
    pub(super) recovered_last: Index,
}

impl Shadow {
    /// A data directory is used for the first time.
    pub(super) fn first(incarnation: Incarnation, recovered: &Recovered, brief: &Brief) -> Self {
        let log = ShadowLog::from_recovered(recovered);
        let ballot = Ballot::from(&recovered.hard_state);
        let disk = ShadowDisk { log: log.clone(), ballot };
        let mut shadow = Self {
            incarnation,
            life: 0,
            is_up: true,
            seen: Seen { role: RoleName::Follower, term: ballot.term, commit_index: Index::ZERO },
            log,
            ballot,
            disk,
            pending: VecDeque::new(),
            given: Index::ZERO,
            recovered_last: Index::ZERO,
        };
        shadow.restart(brief);
        shadow
    }

    /// A new life begins from what the disk holds.
    pub(super) fn restart(&mut self, brief: &Brief) {
        self.life += 1;
        self.is_up = true;
        self.log = self.disk.log.clone();
        self.ballot = self.disk.ballot;
        self.given = brief.applied;
        self.recovered_last = self.log.last;
        self.seen = Seen {
            role: RoleName::Follower,
            term: self.ballot.term,
            commit_index: brief.commit_index,
        };
    }

    pub(super) fn leads(&self) -> bool {
        self.seen.role == RoleName::Leader
    }

    /// Term and commit index only grow in one life.
    pub(super) fn never_goes_back(&self, node: NodeId, after: &Brief) -> Found {
        let Seen { term, commit_index, .. } = self.seen;
        if after.term >= term && after.commit_index >= commit_index {
            return Ok(());
        }
        found(Property::NoGoingBack, [node], || {
            format!(
                "n{node} goes from term {term}, commit index {commit_index} back to term {}, \
                 commit index {}",
                after.term, after.commit_index
            )
        })
    }

    /// The core writes another ballot. The vote of a term is not taken back.
    pub(super) fn ballot_changes(&mut self, node: NodeId, next: Ballot) -> Found {
        let old = std::mem::replace(&mut self.ballot, next);
        if next.term < old.term {
            return found(Property::NoGoingBack, [node], || {
                format!("n{node} writes term {} after term {}", next.term, old.term)
            });
        }
        if let Some(given) = old.voted_for
            && next.term == old.term
            && next.voted_for != old.voted_for
        {
            let next =
                next.voted_for.map_or("for nobody".to_owned(), |next| format!("for n{next}"));
            return found(Property::OneVotePerTerm, [node], || {
                format!("n{node} voted for n{given} in term {}, and then {next}", old.term)
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(terms: &[u64]) -> ShadowLog {
        let mut log = ShadowLog::from_snapshot(&SnapshotMeta::default());
        for (at, term) in terms.iter().enumerate() {
            log.append(&Entry::new(Index(at as u64 + 1), Term(*term), Payload::Noop));
        }
        log
    }

    #[test]
    fn a_shadow_knows_the_term_of_every_index() {
        let log = log(&[1, 1, 2, 4, 4]);
        let terms: Vec<_> = (0..7).map(|i| log.term_at(Index(i)).map(|t| t.0)).collect();
        assert_eq!(terms, [Some(0), Some(1), Some(1), Some(2), Some(4), Some(4), None]);
        assert_eq!((log.end_before(Term(4)), log.end_before(Term(5))), (Index(3), Index(5)));
    }

    #[test]
    fn truncation_drops_runs_and_appending_continues_them() {
        let mut log = log(&[1, 1, 2, 4, 4]);
        log.truncate(Index(4));
        assert_eq!(log.last_log(), LogId::new(Index(4), Term(4)));
        log.truncate(Index(2));
        log.append_runs(&[(Index(3), Term(1)), (Index(5), Term(3))], Index(6));
        let terms: Vec<_> = (1..7).filter_map(|i| log.term_at(Index(i)).map(|t| t.0)).collect();
        assert_eq!(terms, [1, 1, 1, 1, 3, 3]);
    }
}
