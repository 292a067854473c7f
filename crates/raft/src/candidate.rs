//! The candidate: asks for votes in a term of its own (§5.2).

use crate::common::Common;
use crate::message::{ElectionCause, Message, RequestVote, RequestVoteReply};
use crate::role::Next;
use crate::tally::Tally;
use crate::types::{NodeId, Time};

/// State of a candidate.
#[derive(Debug)]
pub(crate) struct Candidate {
    tally: Tally,
    /// When to give this election up and begin another (§5.2, split votes).
    pub(crate) deadline: Time,
}

impl Candidate {
    /// Figure 2, candidates: increment the term, vote for oneself, reset the timer, ask all.
    ///
    /// The requests wait until term and vote are on this node's own disk, as any promise does: a
    /// candidate that crashed and forgot could otherwise lead the same term twice.
    pub(crate) fn new(common: &mut Common, cause: ElectionCause) -> Self {
        let term = common.term().next();
        common.set_term(term);
        common.vote_for(common.node());
        let deadline = common.random_attempt_deadline();
        let last_log = common.log.last();
        for voter in common.other_voters() {
            common.send(voter, Message::RequestVote(RequestVote { last_log, cause }));
        }
        Self { tally: Tally::default(), deadline }
    }

    /// The disk has confirmed something; the candidate's own vote counts once it is durable.
    pub(crate) fn on_persisted(&mut self, common: &Common) -> Next {
        if common.durability.hard_state_is_durable() {
            self.tally.grant(common.node());
        }
        self.verdict(common)
    }

    fn verdict(&self, common: &Common) -> Next {
        // Nobody leads a term that its own disk does not hold.
        if common.durability.hard_state_is_durable() && self.tally.is_won(common.membership()) {
            return Next::Lead;
        }
        Next::Stay
    }

    pub(crate) fn on_reply(&mut self, common: &Common, from: NodeId, m: RequestVoteReply) -> Next {
        if !m.granted {
            return Next::Stay;
        }
        self.tally.grant(from);
        self.verdict(common)
    }

    pub(crate) fn on_time(&mut self, common: &mut Common) -> Next {
        if !common.has_run_out(&mut self.deadline) {
            return Next::Stay;
        }
        if !common.may_campaign() {
            return Next::Follow;
        }
        // Perhaps the election failed because nobody can win: ask first.
        if common.config.pre_vote {
            return Next::PreCampaign;
        }
        Next::Campaign(ElectionCause::Timeout)
    }
}

impl Common {
    /// All voters but this node, of both configurations while joint.
    pub(crate) fn other_voters(&self) -> alloc::vec::Vec<NodeId> {
        let membership = self.membership();
        let all = membership.members().map(|(node, _)| node);
        all.filter(|node| *node != self.node() && membership.is_voter(*node)).collect()
    }
}
