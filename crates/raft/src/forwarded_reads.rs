//! Reads that a follower or learner asks its leader about (thesis 6.4).
//!
//! All reads that arrive while a question is under way wait for the next one: an answer only
//! serves reads that were there before the question was sent. Each question has a number of its
//! own, never used again, so that a late answer is not taken for one to a later question.

use alloc::vec::Vec;

use crate::common::Common;
use crate::effect::Answer;
use crate::error::ReadError;
use crate::message::{Message, ReadIndex, ReadIndexReply};
use crate::types::{AttemptId, Index, NodeId, RequestId, Time};

/// The reads of a follower.
#[derive(Debug, Default)]
pub(crate) struct ForwardedReads {
    waiting: Vec<Read>,
    asked: Option<Asked>,
}

#[derive(Debug, Clone, Copy)]
struct Read {
    id: RequestId,
    since: Time,
}

/// A question that the leader has not answered.
#[derive(Debug)]
struct Asked {
    attempt: AttemptId,
    at: Time,
    reads: Vec<Read>,
}

impl ForwardedReads {
    pub(crate) fn add(&mut self, common: &mut Common, leader: Option<NodeId>, id: RequestId) {
        let reads_max = common.config.reads_max;
        let error = if leader.is_none() {
            ReadError::NoLeader
        } else if self.count() >= reads_max {
            ReadError::Busy { reads_max }
        } else {
            self.waiting.push(Read { id, since: common.now });
            return;
        };
        common.answer(Answer::Read { id, result: Err(error) });
    }

    fn count(&self) -> usize {
        self.waiting.len() + self.asked.as_ref().map_or(0, |asked| asked.reads.len())
    }

    /// Asks, if reads wait and no question is under way.
    pub(crate) fn flush(&mut self, common: &mut Common, leader: Option<NodeId>) {
        let Some(leader) = leader else { return };
        if self.asked.is_none() && !self.waiting.is_empty() {
            let reads = core::mem::take(&mut self.waiting);
            self.ask(common, leader, reads);
        }
    }

    fn ask(&mut self, common: &mut Common, leader: NodeId, reads: Vec<Read>) {
        let attempt = common.next_attempt();
        common.send(leader, Message::ReadIndex(ReadIndex { attempt }));
        self.asked = Some(Asked { attempt, at: common.now, reads });
    }

    pub(crate) fn on_reply(&mut self, common: &mut Common, m: ReadIndexReply) {
        if self.asked.as_ref().is_none_or(|asked| asked.attempt != m.attempt) {
            return;
        }
        let reads = self.asked.take().map_or_else(Vec::new, |asked| asked.reads);
        let result = m.index.ok_or(ReadError::LeaderChanged);
        answer_all(common, reads, result);
    }

    /// Asks again, under a new number, when an answer is overdue; gives up what is too old.
    pub(crate) fn on_time(&mut self, common: &mut Common, leader: Option<NodeId>) {
        if self.deadline(common).is_none_or(|deadline| common.now < deadline) {
            return;
        }
        let Some(mut asked) = self.asked.take() else { return };
        let (now, patience_us) = (common.now, common.config.election_timeout_max_us);
        let too_old = |read: &Read| now.since(read.since) >= patience_us;
        let given_up = asked.reads.iter().copied().filter(too_old).collect();
        answer_all(common, given_up, Err(ReadError::NoLeader));
        asked.reads.retain(|read| !too_old(read));
        asked.reads.append(&mut self.waiting);
        if let Some(leader) = leader
            && !asked.reads.is_empty()
        {
            self.ask(common, leader, asked.reads);
        }
    }

    pub(crate) fn deadline(&self, common: &Common) -> Option<Time> {
        self.asked
            .as_ref()
            .map(|asked| asked.at.after(common.config.heartbeat_interval_us.saturating_mul(2)))
    }

    /// The leader is gone, or this node stops following.
    pub(crate) fn abandon(&mut self, common: &mut Common) {
        let asked = self.asked.take().map_or_else(Vec::new, |asked| asked.reads);
        let waiting = core::mem::take(&mut self.waiting);
        answer_all(common, asked, Err(ReadError::LeaderChanged));
        answer_all(common, waiting, Err(ReadError::LeaderChanged));
    }
}

fn answer_all(common: &mut Common, reads: Vec<Read>, result: Result<Index, ReadError>) {
    for Read { id, .. } in reads {
        common.answer(Answer::Read { id, result });
    }
}
