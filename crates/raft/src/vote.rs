//! Giving votes (§5.2, §5.4.1; thesis 4.2.3 and 9.6). The rules are the same in every role.

use crate::common::Common;
use crate::message::{
    ElectionCause, Message, PreVote, PreVoteReply, RequestVote, RequestVoteReply,
};
use crate::types::{LogId, NodeId, Term, Time};

/// Whether a vote may be given at all, apart from term and log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Electorate {
    /// This node hears from a leader, or leads with a quorum behind it (thesis 4.2.3).
    pub(crate) hears_from_leader: bool,
    /// A leader may be counting on a lease (thesis 6.4.1).
    pub(crate) keeps_lease: bool,
}

impl Electorate {
    /// Whether this node is deaf to a candidate with that cause. It then ignores even the term:
    /// a server that was removed, or cannot hear, must not disturb the others.
    const fn is_deaf_to(self, cause: ElectionCause) -> bool {
        match cause {
            ElectionCause::Timeout => self.hears_from_leader || self.keeps_lease,
            ElectionCause::Forced => self.keeps_lease,
            // The leader itself asked for it, and has given up its lease.
            ElectionCause::Transfer => false,
        }
    }
}

impl Common {
    /// Until when a leader that this node has answered may count on a lease.
    pub(crate) fn lease_kept_until(&self) -> Option<Time> {
        let lease_us = self.configurations.longest_lease_us()?;
        let contact = self.leader_contact.map(|contact| contact.after(lease_us));
        Some(contact.unwrap_or(self.no_vote_before).max(self.no_vote_before))
    }

    /// Whether an election timer that was set for `deadline` has run out. While a lease may be kept
    /// it is put off: a node's own vote is a vote like any other, so it does not even campaign
    /// before; and its timer may have been set before the lease was agreed on.
    pub(crate) fn has_run_out(&self, deadline: &mut Time) -> bool {
        if self.now < *deadline {
            return false;
        }
        match self.lease_kept_until().filter(|until| self.now < *until) {
            Some(until) => {
                *deadline = until;
                false
            }
            None => true,
        }
    }

    /// Whether a follower is inside the time in which it does not listen to candidates.
    pub(crate) fn is_sticky(&self) -> bool {
        let until = |contact: Time| contact.after(self.election_timeout_min_us());
        self.config.leader_stickiness
            && self.leader_contact.is_some_and(|contact| self.now < until(contact))
    }

    /// §5.4.1: the voter's log must not be more up to date than the candidate's. The length of the
    /// log only decides between equal last terms.
    fn is_up_to_date(&self, last_log: LogId) -> bool {
        last_log >= self.log.last()
    }

    /// Answers whether it would vote. Promises nothing and changes nothing, but a pre-candidate in
    /// a lower term learns of this one from the envelope.
    pub(crate) fn on_pre_vote(&mut self, electorate: Electorate, from: NodeId, m: PreVote) {
        let granted = !electorate.is_deaf_to(ElectionCause::Timeout)
            && m.next_term > self.term()
            && self.is_up_to_date(m.last_log);
        self.send(from, Message::PreVoteReply(PreVoteReply { attempt: m.attempt, granted }));
    }

    /// Gives the vote of this term, or not. `true`: given.
    pub(crate) fn on_request_vote(&mut self, from: NodeId, term: Term, m: RequestVote) -> bool {
        // Figure 2, RequestVote, receiver implementation. First come, first served.
        let voted_for = self.hard_state.voted_for;
        let granted = term == self.term()
            && voted_for.is_none_or(|voted_for| voted_for == from)
            && self.is_up_to_date(m.last_log);
        if granted {
            self.vote_for(from);
        }
        self.send(from, Message::RequestVoteReply(RequestVoteReply { granted }));
        granted
    }
}

/// Whether a `RequestVote` or `PreVote` is to be ignored, term and all.
pub(crate) fn ignores(electorate: Electorate, message: &Message) -> bool {
    match message {
        Message::RequestVote(m) => electorate.is_deaf_to(m.cause),
        Message::PreVote(_) => electorate.is_deaf_to(ElectionCause::Timeout),
        _ => false,
    }
}
