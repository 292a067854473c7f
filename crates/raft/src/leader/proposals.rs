//! Commands on their way to commitment.

use super::Leader;
use crate::checksum::crc32c;
use crate::common::Common;
use crate::effect::Answer;
use crate::entry::{Entry, Payload};
use crate::error::ProposeError;
use crate::input::Proposal;
use crate::types::LogId;

impl Leader {
    /// Figure 2, leaders: append the command to the own log.
    pub(crate) fn propose(&mut self, common: &mut Common, proposal: Proposal) {
        let id = proposal.id;
        if let Err(error) = self.check_proposal(common, &proposal) {
            common.answer(Answer::ProposeFailed { id, error });
            return;
        }
        let at = LogId::new(common.log.last_index().next(), common.term());
        let Proposal { command, checksum, .. } = proposal;
        let payload = Payload::Command(command);
        common.append(Entry { index: at.index, term: at.term, payload, checksum });
        self.proposals.push_back((at, id));
        common.answer(Answer::Appended { id, at });
    }

    fn check_proposal(&self, common: &Common, proposal: &Proposal) -> Result<(), ProposeError> {
        let term = common.term();
        if proposal.in_term.is_some_and(|in_term| in_term != term) {
            return Err(ProposeError::WrongTerm { term });
        }
        if let Some(transfer) = self.transfer {
            return Err(ProposeError::Transferring { to: transfer.to });
        }
        let (bytes, bytes_max) = (proposal.command.len(), common.config.entry_bytes_max);
        if bytes > bytes_max {
            return Err(ProposeError::TooLarge { bytes, bytes_max });
        }
        // Entries that the leader itself must make are exempt, and so is the first one.
        let (bytes, bytes_max) = (common.backlog.bytes(), common.config.unapplied_bytes_max);
        if bytes >= bytes_max {
            return Err(ProposeError::Busy { bytes, bytes_max });
        }
        if crc32c(&proposal.command) != proposal.checksum {
            return Err(ProposeError::Corrupt);
        }
        Ok(())
    }

    /// What has committed needs no answer of its own: it will be applied.
    pub(crate) fn forget_committed_proposals(&mut self, common: &Common) {
        while self.proposals.front().is_some_and(|(at, _)| at.index <= common.commit_index) {
            self.proposals.pop_front();
        }
    }

    /// Leadership is lost: what has not committed may yet, or never will.
    pub(crate) fn abandon_proposals(&mut self, common: &mut Common) {
        self.forget_committed_proposals(common);
        for (at, id) in self.proposals.drain(..) {
            let error = ProposeError::OutcomeUnknown { at };
            common.answer(Answer::ProposeFailed { id, error });
        }
    }
}
