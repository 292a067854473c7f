//! Handing leadership over (thesis 3.10): stop taking proposals, bring the target up to date, tell
//! it to campaign at once.

use super::Leader;
use crate::common::{Common, HandedOver};
use crate::effect::Answer;
use crate::error::TransferError;
use crate::message::Message;
use crate::types::{NodeId, RequestId, Time};

/// A transfer under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) id: RequestId,
    pub(crate) to: NodeId,
    /// When to give up and go on leading.
    pub(crate) deadline: Time,
    told: bool,
}

impl Leader {
    pub(crate) fn transfer(&mut self, common: &mut Common, id: RequestId, to: NodeId) {
        let error = if to == common.node() {
            TransferError::AlreadyLeader
        } else if common.membership().voters().binary_search(&to).is_err() {
            TransferError::NotVoter { to }
        } else if let Some(Transfer { to, .. }) = self.transfer {
            TransferError::InProgress { to }
        } else {
            let deadline = common.now.after(common.config.election_timeout_max_us);
            self.transfer = Some(Transfer { id, to, deadline, told: false });
            return;
        };
        common.answer(Answer::Transfer { id, result: Err(error) });
    }

    /// Tells the target as soon as it has the whole log.
    pub(crate) fn flush_transfer(&mut self, common: &mut Common) {
        let Some(transfer) = self.transfer else { return };
        let up_to_date = self
            .progress
            .get(&transfer.to)
            .is_some_and(|progress| progress.match_index == common.log.last_index());
        if !transfer.told && up_to_date {
            self.transfer = Some(Transfer { told: true, ..transfer });
            self.tell_to_campaign(common, transfer.to);
        }
    }

    /// Whether the target was told: an entry appended now would be one that it lacks, and that others may have.
    pub(crate) fn has_told_to_campaign(&self) -> bool {
        self.transfer.is_some_and(|transfer| transfer.told)
    }

    /// From here on the target may be elected while a lease would still run, so there is none for
    /// the rest of the term, even if the transfer comes to nothing.
    pub(crate) fn tell_to_campaign(&mut self, common: &mut Common, to: NodeId) {
        self.sent_timeout_now = true;
        common.send(to, Message::TimeoutNow);
    }

    pub(crate) fn fail_transfer(&mut self, common: &mut Common, error: TransferError) {
        if let Some(Transfer { id, .. }) = self.transfer.take() {
            common.answer(Answer::Transfer { id, result: Err(error) });
        }
    }

    /// Leadership is lost; whether to the target shows when the next leader is known.
    pub(crate) fn hand_over_transfer(&mut self, common: &mut Common) {
        if let Some(Transfer { id, to, deadline, .. }) = self.transfer.take() {
            let patience = common.now.after(common.config.election_timeout_max_us);
            let deadline = deadline.max(patience);
            common.handed_over = Some(HandedOver { id, to, deadline });
        }
    }
}
