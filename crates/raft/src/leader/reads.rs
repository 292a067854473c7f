//! Linearizable reads (thesis 6.4): a leader asks a quorum, after a read has arrived, whether it
//! still leads; then everything committed by then serves the read.

use alloc::vec::Vec;

use super::Leader;
use crate::common::Common;
use crate::effect::Answer;
use crate::error::ReadError;
use crate::input::ReadMode;
use crate::message::{Message, ReadIndex, ReadIndexReply};
use crate::types::{AttemptId, Index, NodeId, RequestId};

/// Reads that wait for a confirmation.
///
/// One round of confirmation is under way at a time, and all reads that arrive meanwhile share the
/// next one. So the more reads there are, the fewer messages each of them costs.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Arrived after the round under way was sent.
    waiting: Vec<Origin>,
    confirming: Option<Confirming>,
}

/// Who wants to read.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Host(RequestId),
    Peer(NodeId, AttemptId),
}

#[derive(Debug)]
struct Confirming {
    /// The round that was begun for these reads. Any later one confirms them as well.
    round: u64,
    /// What was committed when it began.
    index: Index,
    reads: Vec<Origin>,
}

impl Leader {
    pub(crate) fn read(&mut self, common: &mut Common, id: RequestId, mode: ReadMode) {
        match mode {
            ReadMode::ReadIndex => self.wait_to_read(common, Origin::Host(id)),
            ReadMode::Lease => {
                let result = self.lease(common).map(|()| common.commit_index);
                let result = result.map_err(ReadError::NoLease);
                common.answer(Answer::Read { id, result });
            }
        }
    }

    pub(crate) fn on_read_index(&mut self, common: &mut Common, from: NodeId, m: ReadIndex) {
        self.wait_to_read(common, Origin::Peer(from, m.attempt));
    }

    fn wait_to_read(&mut self, common: &mut Common, read: Origin) {
        let confirming = self.reads.confirming.as_ref().map_or(0, |round| round.reads.len());
        let reads_max = common.config.reads_max;
        if self.reads.waiting.len() + confirming >= reads_max {
            answer(common, read, Err(ReadError::Busy { reads_max }));
            return;
        }
        self.reads.waiting.push(read);
    }

    /// Begins a round for the reads that wait, if none is under way.
    pub(crate) fn flush_reads(&mut self, common: &mut Common) {
        // §8: a new leader does not know what is committed until an entry of its own term is.
        if !self.is_ready(common)
            || self.reads.confirming.is_some()
            || self.reads.waiting.is_empty()
        {
            return;
        }
        let reads = core::mem::take(&mut self.reads.waiting);
        let index = common.commit_index;
        let round = self.begin_round(common);
        self.reads.confirming = Some(Confirming { round, index, reads });
        self.confirm_reads(common);
    }

    /// Answers the reads whose round a quorum has answered.
    pub(crate) fn confirm_reads(&mut self, common: &mut Common) {
        let Some(Confirming { round, index, .. }) = self.reads.confirming else { return };
        let node = common.node();
        let progress = &self.progress;
        let confirmed = common.membership().has_quorum(|voter| {
            voter == node
                || progress.get(&voter).is_some_and(|progress| progress.acked_round >= round)
        });
        if !confirmed {
            return;
        }
        let reads = self.reads.confirming.take().map_or_else(Vec::new, |round| round.reads);
        for read in reads {
            answer(common, read, Ok(index));
        }
    }

    /// Leadership is lost: nothing that waits can be confirmed any more.
    pub(crate) fn abandon_reads(&mut self, common: &mut Common) {
        let Reads { waiting, confirming } = core::mem::take(&mut self.reads);
        let confirming = confirming.map_or_else(Vec::new, |round| round.reads);
        for read in confirming.into_iter().chain(waiting) {
            answer(common, read, Err(ReadError::LeaderChanged));
        }
    }
}

fn answer(common: &mut Common, read: Origin, result: Result<Index, ReadError>) {
    match read {
        Origin::Host(id) => common.answer(Answer::Read { id, result }),
        Origin::Peer(node, attempt) => {
            let index = result.ok();
            let reply = Message::ReadIndexReply(ReadIndexReply { attempt, index });
            common.send(node, reply);
        }
    }
}
