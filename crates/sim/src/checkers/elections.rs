//! Election Safety and Leader Completeness: who led which term, and with which log.

use std::collections::BTreeMap;
use std::ops::Bound;

use quorate_raft::{Index, Membership, NodeId, Term};

use super::commits::Commits;
use super::promises::AllPromises;
use super::shadow::{Shadow, ShadowLog};
use super::violation::Property;
use super::{Found, Held, found};

/// One leader of one term.
#[derive(Debug)]
struct Leadership {
    node: NodeId,
    life: u32,
    /// Its log as it was when it was elected. What it holds behind that is all of its own term.
    log: ShadowLog,
}

/// All leaders that ever were.
#[derive(Debug, Default)]
pub(super) struct Elections {
    leaders: BTreeMap<Term, Leadership>,
}

impl Elections {
    /// `node` has become the leader of `term`. `configs` are those in force before and after the
    /// step in which it did.
    pub(super) fn elected(
        &mut self,
        node: NodeId,
        term: Term,
        shadow: &Shadow,
        configs: [&Membership; 2],
        promises: &AllPromises,
        commits: &Commits,
    ) -> Found {
        if let Some(first) = self.leaders.get(&term) {
            let (other, again) = (first.node, first.node == node && first.life != shadow.life);
            return found(Property::ElectionSafety, [node, other], || {
                let how = if again { " in an earlier life" } else { "" };
                format!("n{node} leads term {term}, which n{other} led{how}")
            });
        }
        let ballot = shadow.disk.ballot;
        if (ballot.term, ballot.voted_for) != (term, Some(node)) {
            return found(Property::DurableBeforeSpoken, [node], || {
                format!("n{node} leads term {term}, but its disk holds only term {}", ballot.term)
            });
        }
        if !configs.iter().any(|config| promises.elected(config, term, node)) {
            return found(Property::ElectionQuorum, [node], || {
                format!(
                    "n{node} leads term {term} without the votes of a quorum of [{}]",
                    configs[0]
                )
            });
        }
        let mut log = shadow.log.clone();
        log.truncate(log.end_before(term));
        let committed = commits.last_before_term(term);
        if !commits.agrees(&log, committed) {
            return found(Property::LeaderCompleteness, [node], || {
                format!(
                    "n{node} leads term {term} with a log that ends at {}; index {committed} was \
                     committed in an earlier term, {}",
                    log.last_log(),
                    Held(commits.term_at(committed))
                )
            });
        }
        self.leaders.insert(term, Leadership { node, life: shadow.life, log });
        Ok(())
    }

    /// The leader of `term` has committed `index`, perhaps long after its successors were elected.
    pub(super) fn committed(&self, term: Term, index: Index, commits: &Commits) -> Found {
        let later = (Bound::Excluded(term), Bound::Unbounded);
        for (later, leadership) in self.leaders.range(later) {
            if !commits.agrees(&leadership.log, index) {
                let node = leadership.node;
                return found(Property::LeaderCompleteness, [node], || {
                    format!(
                        "index {index} is committed in term {term}, but n{node} leads term {later} \
                         without it"
                    )
                });
            }
        }
        Ok(())
    }

    /// Who led `term`.
    pub(super) fn leader(&self, term: Term) -> Option<NodeId> {
        self.leaders.get(&term).map(|leadership| leadership.node)
    }

    /// The term that the entry at `index` has in the log of the leader of `term`, if it reaches so
    /// far.
    pub(super) fn leaders_term_at(
        &self,
        term: Term,
        index: Index,
        commits: &Commits,
    ) -> Option<Term> {
        let log = &self.leaders.get(&term)?.log;
        if index > log.last {
            return Some(term);
        }
        log.term_at(index).or_else(|| commits.term_at(index))
    }

    /// The latest term that had a leader.
    pub(super) fn latest(&self) -> Term {
        self.leaders.last_key_value().map_or(Term(0), |(term, _)| *term)
    }

    /// How many there were.
    pub(super) fn count(&self) -> usize {
        self.leaders.len()
    }
}
