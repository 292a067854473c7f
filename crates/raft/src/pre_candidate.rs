//! The pre-candidate: asks whether an election could be won before it disturbs anybody with a
//! higher term (thesis 9.6).

use crate::common::Common;
use crate::message::{ElectionCause, Message, PreVote, PreVoteReply};
use crate::role::Next;
use crate::tally::Tally;
use crate::types::{AttemptId, NodeId, Time};

/// State of a pre-candidate.
#[derive(Debug)]
pub(crate) struct PreCandidate {
    /// Answers to earlier attempts do not count.
    attempt: AttemptId,
    tally: Tally,
    /// When to ask again.
    pub(crate) deadline: Time,
}

impl PreCandidate {
    /// Asks all voters.
    pub(crate) fn new(common: &mut Common) -> Self {
        let attempt = common.next_attempt();
        let deadline = common.random_attempt_deadline();
        let mut tally = Tally::default();
        tally.grant(common.node());
        let message = Message::PreVote(PreVote {
            next_term: common.term().next(),
            last_log: common.log.last(),
            attempt,
        });
        for voter in common.other_voters() {
            common.send(voter, message.clone());
        }
        Self { attempt, tally, deadline }
    }

    /// Whether the node's own answer was enough: it is the only voter.
    pub(crate) fn verdict(&self, common: &Common) -> Next {
        if self.tally.is_won(common.membership()) {
            return Next::Campaign(ElectionCause::Timeout);
        }
        Next::Stay
    }

    pub(crate) fn on_reply(&mut self, common: &Common, from: NodeId, m: PreVoteReply) -> Next {
        if m.attempt != self.attempt || !m.granted {
            return Next::Stay;
        }
        self.tally.grant(from);
        self.verdict(common)
    }

    pub(crate) fn on_time(&mut self, common: &mut Common) -> Next {
        if !common.has_run_out(&mut self.deadline) {
            return Next::Stay;
        }
        if common.may_campaign() { Next::PreCampaign } else { Next::Follow }
    }
}
