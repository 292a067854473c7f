//! Changing the configuration (§6; thesis 4.1 to 4.3).

use alloc::sync::Arc;

use super::Leader;
use super::progress::{Progress, State};
use crate::common::Common;
use crate::effect::Answer;
use crate::entry::{Entry, Payload};
use crate::error::{ChangeError, StepDownReason, TransferError};
use crate::membership::{Change, ChangeStep, MemberRole, Membership};
use crate::message::{CommitNotice, Message};
use crate::quorum::majority;
use crate::role::Next;
use crate::types::{Index, LogId, NodeId, RequestId};

/// A change that was asked for and has not been answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingChange {
    id: RequestId,
    at: LogId,
}

impl Leader {
    pub(crate) fn change(&mut self, common: &mut Common, id: RequestId, change: &Change) {
        match self.check_change(common, change) {
            Err(error) => common.answer(Answer::Change { id, result: Err(error) }),
            Ok(next) => {
                let at = self.append_change(common, next);
                self.pending_change = Some(PendingChange { id, at });
            }
        }
    }

    fn check_change(&self, common: &Common, change: &Change) -> Result<Membership, ChangeError> {
        if let Some(transfer) = self.transfer {
            return Err(ChangeError::Transferring { to: transfer.to });
        }
        // The correction of 2015: two leaders that each change one server, one after the other,
        // may use majorities that do not meet, unless the second has first committed something.
        if !self.is_ready(common) {
            return Err(ChangeError::NotReady);
        }
        if let Some(at) = self.change_in_flight(common) {
            return Err(ChangeError::InFlight { at });
        }
        let membership = common.membership();
        let next = membership.changed(change).map_err(ChangeError::Invalid)?;
        for step in &change.steps {
            self.check_step(common, step)?;
        }
        let bytes_max = common.config.entry_bytes_max;
        if next.size() > bytes_max {
            return Err(ChangeError::TooLarge { bytes_max });
        }
        if next.voters() != membership.voters() {
            self.check_alive(common, &next)?;
        }
        Ok(next)
    }

    /// The change that must commit before there can be another.
    fn change_in_flight(&self, common: &Common) -> Option<Index> {
        let (index, membership) = common.configurations.latest();
        if membership.is_joint() {
            return Some(index);
        }
        self.last_change.filter(|index| *index > common.commit_index)
    }

    fn check_step(&self, common: &Common, step: &ChangeStep) -> Result<(), ChangeError> {
        match step {
            ChangeStep::Promote { node } if !self.has_caught_up(common, *node) => {
                Err(ChangeError::Lagging {
                    node: *node,
                    match_index: self.progress.get(node).map_or(Index::ZERO, |p| p.match_index),
                    commit_index: common.commit_index,
                })
            }
            ChangeStep::SetFeatureLevel { level } => {
                for (node, _) in common.membership().members() {
                    let supported = if node == common.node() {
                        Some(common.config.feature_level)
                    } else {
                        self.progress.get(&node).and_then(|progress| progress.feature_level)
                    };
                    if supported.is_none_or(|supported| supported < *level) {
                        return Err(ChangeError::FeatureUnsupported { node, supported });
                    }
                }
                Ok(())
            }
            ChangeStep::SetLease { lease_us: Some(lease_us) }
                if *lease_us > common.config.election_timeout_min_us =>
            {
                let lease_us_max = common.config.election_timeout_min_us;
                Err(ChangeError::LeaseTooLong { lease_us_max })
            }
            _ => Ok(()),
        }
    }

    /// Thesis 4.2.1: a learner becomes a voter only when its log is nearly the leader's, lest
    /// nothing commit until it is.
    fn has_caught_up(&self, common: &Common, node: NodeId) -> bool {
        let added_at = common.configurations.latest().0;
        self.progress.get(&node).is_some_and(|progress| {
            // Behind what has committed: what is merely on its way is on its way to all.
            let lag = common.commit_index.0.saturating_sub(progress.match_index.0);
            matches!(progress.state, State::Replicate)
                && progress.match_index >= added_at.min(common.commit_index)
                && lag <= common.config.promote_lag_max
                && self.is_alive(common, node)
        })
    }

    /// Whether `node` has answered in this term, within an election timeout.
    fn is_alive(&self, common: &Common, node: NodeId) -> bool {
        node == common.node()
            || self.progress.get(&node).is_some_and(|progress| {
                progress.acked_round > 0
                    && common.now.since(progress.acked_at) < common.config.election_timeout_max_us
            })
    }

    fn check_alive(&self, common: &Common, next: &Membership) -> Result<(), ChangeError> {
        let voters = next.voters();
        let alive = voters.iter().filter(|node| self.is_alive(common, **node)).count();
        if alive < majority(voters.len()) {
            return Err(ChangeError::NoQuorum { voters: voters.len(), alive });
        }
        Ok(())
    }

    /// Appends a configuration that may change quorums; it is in force at once (§6).
    fn append_change(&mut self, common: &mut Common, next: Membership) -> LogId {
        let at = self.append_membership(common, next);
        self.last_change = Some(at.index);
        at
    }

    fn append_membership(&mut self, common: &mut Common, next: Membership) -> LogId {
        let index = common.log.last_index().next();
        let payload = Payload::Membership(Arc::new(next));
        let entry = Entry::new(index, common.term(), payload);
        let at = entry.log_id();
        common.append(entry);
        self.follow_membership(common);
        at
    }

    /// Makes the list of peers that of the configuration in force.
    pub(crate) fn follow_membership(&mut self, common: &mut Common) {
        let (at, membership) = common.configurations.latest();
        let membership = membership.clone();
        let (node, now, last) = (common.node(), common.now, common.log.last_index());
        for (member, _) in membership.members().filter(|(member, _)| *member != node) {
            let known = self.progress.get(&member);
            // Whoever was removed and comes back begins anew.
            if known.is_none_or(|progress| progress.departing.is_some()) {
                self.progress.insert(member, Progress::new(last.next(), now));
            }
        }
        for (member, progress) in &mut self.progress {
            if !membership.contains(*member) && progress.departing.is_none() {
                progress.departing = Some((at, now));
            }
        }
        if let Some(transfer) = self.transfer
            && !membership.is_voter(transfer.to)
        {
            self.fail_transfer(common, TransferError::NotVoter { to: transfer.to });
        }
    }

    /// Forgets peers that were removed and know it, or had time enough to learn it.
    pub(crate) fn forget_departed(&mut self, common: &Common) {
        let patience_us = common.config.election_timeout_max_us;
        self.progress.retain(|_, progress| {
            progress.departing.is_none_or(|(at, since)| {
                let told = progress.match_index >= at && progress.commit_sent >= at;
                !(common.commit_index >= at && (told || common.now.since(since) > patience_us))
            })
        });
    }

    /// Does what follows from how far the log is committed and the peers are: answers changes,
    /// leaves joint configurations, promotes, binds, and steps down when it was removed.
    pub(crate) fn advance_membership(&mut self, common: &mut Common) -> Next {
        if !self.is_ready(common) {
            return Next::Stay;
        }
        let (index, membership) = common.configurations.latest();
        let membership = membership.clone();
        let committed = index <= common.commit_index;
        if committed && membership.is_joint() && !self.has_told_to_campaign() {
            // §6: once C_old,new has committed, it is safe to make C_new.
            let at = self.append_change(common, membership.leave());
            if let Some(pending) = &mut self.pending_change {
                pending.at = at;
            }
            return Next::Stay;
        }
        if let Some(pending) = self.pending_change
            && pending.at.index <= common.commit_index
            && !membership.is_joint()
        {
            self.pending_change = None;
            common.answer(Answer::Change { id: pending.id, result: Ok(pending.at) });
        }
        if committed && !membership.is_voter(common.node()) {
            self.say_goodbye(common);
            return Next::StepDown(StepDownReason::Removed);
        }
        self.bind_incarnations(common);
        self.promote_caught_up(common);
        Next::Stay
    }

    /// §6: the leader steps down once the configuration without it has committed. Before it goes,
    /// the others learn of the commitment, and the most up-to-date voter is told to campaign.
    fn say_goodbye(&mut self, common: &mut Common) {
        let leader_commit = common.commit_index;
        for peer in self.progress.keys().copied() {
            common.send(peer, Message::CommitNotice(CommitNotice { leader_commit }));
        }
        let voters = common.membership().voters().to_vec();
        let match_index = |node: &NodeId| self.progress.get(node).map(|p| p.match_index);
        if let Some(heir) = voters.iter().max_by_key(|node| match_index(node)) {
            self.tell_to_campaign(common, *heir);
        }
    }

    /// Binds the members that were heard from to the data directories that they spoke from, in an
    /// entry that changes no quorum, so the rule of one change at a time is not about it.
    fn bind_incarnations(&mut self, common: &mut Common) {
        if !self.bind_wanted || self.transfer.is_some() {
            return;
        }
        self.bind_wanted = false;
        let mut seen = common.hard_state.seen.clone();
        seen.push((common.node(), common.config.incarnation));
        if let Some(bound) = common.membership().bind(&seen) {
            self.append_membership(common, bound);
        }
    }

    fn promote_caught_up(&mut self, common: &mut Common) {
        if self.transfer.is_some() || self.change_in_flight(common).is_some() {
            return;
        }
        let waits = |role| matches!(role, MemberRole::Learner { promote_when_caught_up: true, .. });
        let ready = common
            .membership()
            .members()
            .find(|(node, member)| waits(member.role) && self.has_caught_up(common, *node));
        let Some((node, _)) = ready else { return };
        let change = Change::from(ChangeStep::Promote { node });
        if let Ok(next) = self.check_change(common, &change) {
            self.append_change(common, next);
        }
    }

    /// Leadership is lost with the change appended.
    pub(crate) fn abandon_change(&mut self, common: &mut Common) {
        if let Some(PendingChange { id, at }) = self.pending_change.take() {
            let result = Err(ChangeError::OutcomeUnknown { at });
            common.answer(Answer::Change { id, result });
        }
    }
}
