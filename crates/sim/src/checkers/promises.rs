//! What each data directory has ever promised: votes given, and entries that were on its disk.
//!
//! Promises outlive crashes and even the disk itself, because others may have acted on them: a
//! leader may count an acknowledgement that has been on its way for long.

use std::collections::BTreeMap;

use quorate_raft::{Incarnation, Index, Membership, NodeId, Term};

use super::violation::Property;
use super::{Found, found};

/// The promises of one data directory.
#[derive(Debug, Default)]
struct Promises {
    votes: BTreeMap<Term, NodeId>,
    /// For each term the last index with an entry of that term that was ever durable. By Log
    /// Matching it includes the entries of the term before it.
    durable: BTreeMap<Term, Index>,
}

impl Promises {
    fn has_stored(&self, term: Term, index: Index) -> bool {
        self.durable.get(&term).is_some_and(|last| *last >= index)
    }
}

/// The promises of all data directories.
#[derive(Debug, Default)]
pub(super) struct AllPromises {
    of: BTreeMap<(NodeId, Incarnation), Promises>,
}

impl AllPromises {
    /// The vote of `node` is on its disk.
    pub(super) fn vote(
        &mut self,
        (node, incarnation): (NodeId, Incarnation),
        term: Term,
        candidate: NodeId,
    ) -> Found {
        let given =
            self.of.entry((node, incarnation)).or_default().votes.entry(term).or_insert(candidate);
        if *given == candidate {
            return Ok(());
        }
        let first = *given;
        found(Property::OneVotePerTerm, [node, first, candidate], || {
            format!("n{node} votes for n{candidate} in term {term}, and voted for n{first} before")
        })
    }

    /// Who got the vote.
    pub(super) fn vote_of(&self, whose: (NodeId, Incarnation), term: Term) -> Option<NodeId> {
        self.of.get(&whose)?.votes.get(&term).copied()
    }

    /// Entries of `term` up to `last` are on the disk.
    pub(super) fn durable(&mut self, whose: (NodeId, Incarnation), term: Term, last: Index) {
        let known = self.of.entry(whose).or_default().durable.entry(term).or_default();
        *known = last.max(*known);
    }

    /// Whether a quorum of `membership` gave its votes to `candidate`.
    pub(super) fn elected(&self, membership: &Membership, term: Term, candidate: NodeId) -> bool {
        self.quorum(membership, |promises| promises.votes.get(&term) == Some(&candidate))
    }

    /// Whether a quorum of `membership` had the entry of `term` at `index` on disk.
    pub(super) fn stored(&self, membership: &Membership, term: Term, index: Index) -> bool {
        self.quorum(membership, |promises| promises.has_stored(term, index))
    }

    /// Whether the disk of `node` has held the entry of `term` at `index`.
    pub(super) fn has_stored(&self, node: NodeId, term: Term, index: Index) -> bool {
        self.lives(node).any(|promises| promises.has_stored(term, index))
    }

    /// All data directories that went by the name of `node`.
    fn lives(&self, node: NodeId) -> impl Iterator<Item = &Promises> {
        let all = (node, Incarnation(0))..=(node, Incarnation(u64::MAX));
        self.of.range(all).map(|(_, promises)| promises)
    }

    fn quorum(&self, membership: &Membership, holds: impl Fn(&Promises) -> bool) -> bool {
        membership.has_quorum(|node| {
            let bound = membership.member(node).and_then(|member| member.incarnation);
            match bound {
                Some(incarnation) => self.of.get(&(node, incarnation)).is_some_and(&holds),
                None => self.lives(node).any(&holds),
            }
        })
    }
}
