//! What must hold of one server at any time, and across any step (Figure 2, Figure 3). What must
//! hold of the whole cluster is checked by the simulator.
//!
//! Checked in builds with debug assertions; the checks take constant time.

use crate::common::Common;
use crate::role::Role;
use crate::types::{Index, LogId, NodeId, Term};

/// What a step must not undo.
#[derive(Debug)]
pub(crate) struct Before {
    term: Term,
    voted_for: Option<NodeId>,
    commit_index: Index,
    applied: Index,
    given: Index,
    base: Index,
    last: LogId,
    leads: bool,
}

impl Before {
    pub(crate) fn of(common: &Common, role: &Role) -> Self {
        Self {
            term: common.term(),
            voted_for: common.hard_state.voted_for,
            commit_index: common.commit_index,
            applied: common.applying.applied(),
            given: common.applying.given(),
            base: common.log.base().index,
            last: common.log.last(),
            leads: matches!(role, Role::Leader(_)),
        }
    }

    /// Compares with what is true after the step.
    pub(crate) fn check(&self, common: &Common, role: &Role) {
        if !cfg!(debug_assertions) {
            return;
        }
        let same_term = common.term() == self.term;
        assert!(common.term() >= self.term, "the term never goes back (Figure 2)");
        assert!(
            !same_term || self.voted_for.is_none() || common.hard_state.voted_for == self.voted_for,
            "Election Safety (Figure 3): one vote per term"
        );
        assert!(common.commit_index >= self.commit_index, "the commit index never goes back");
        assert!(common.applying.applied() >= self.applied, "what is applied stays applied");
        assert!(common.applying.given() >= self.given, "nothing is given twice");
        assert!(common.log.base().index >= self.base, "the log's start never goes back");
        if self.leads && same_term && matches!(role, Role::Leader(_)) {
            assert!(
                common.log.last_index() >= self.last.index && common.log.has(self.last)
                    || self.last.index < common.log.base().index,
                "Leader Append-Only (Figure 3)"
            );
        }
        check(common, role);
    }
}

/// What must hold of a server at any time.
pub(crate) fn check(common: &Common, role: &Role) {
    if !cfg!(debug_assertions) {
        return;
    }
    let last = common.log.last();
    let base = common.log.base();
    let durable = common.durability.index();
    let (applied, given) = (common.applying.applied(), common.applying.given());
    assert!(base.index <= last.index && base.term <= last.term, "the log ends behind its start");
    assert!(last.term <= common.term(), "no entry is of a term to come");
    assert!(durable <= last.index, "only what is in the log is durable");
    assert!(common.commit_index <= last.index, "only what is in the log is committed");
    assert!(applied <= given, "only what was given is applied");
    assert!(
        given <= common.commit_index.min(durable),
        "State Machine Safety (Figure 3): applied beyond what is committed and durable"
    );
    if common.installing.is_none() {
        assert!(base.index <= applied, "only what is applied is compacted");
        assert!(base.index <= durable, "what is compacted is durable elsewhere");
    }
    let membership_index = common.configurations.latest().0;
    assert!(membership_index <= last.index, "the configuration in force is in the log");
    match role {
        Role::Leader(leader) => {
            assert!(
                common.hard_state.voted_for == Some(common.node()),
                "Election Safety (Figure 3): a leader has its own vote"
            );
            assert!(leader.highest_match() <= last.index, "nobody holds more than the leader");
            assert!(
                leader.highest_next() <= last.index.next(),
                "nothing is sent that the leader does not have"
            );
            assert!(common.installing.is_none(), "a leader installs nothing");
        }
        Role::Candidate(_) => assert!(
            common.hard_state.voted_for == Some(common.node()),
            "a candidate votes for itself (Figure 2)"
        ),
        Role::Follower(follower) => {
            assert!(follower.verified() <= last.index, "only what is in the log is verified");
        }
        Role::PreCandidate(_) => {}
    }
}
