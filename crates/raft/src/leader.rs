//! The leader: takes commands, replicates the log, decides what is committed (§5.3, §5.4).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::common::Common;
use crate::entry::{Entry, Payload};
use crate::error::{StepDownReason, TransferError};
use crate::message::{CommitNotice, Heartbeat, InstallSnapshot, Message};
use crate::role::Next;
use crate::status::PeerStatus;
use crate::types::{Index, LogId, NodeId, RequestId, Time};

use changes::PendingChange;
use progress::{Offer, Progress, State};
use reads::Reads;
use replication::replicate;
use rounds::Rounds;
use transfer::Transfer;

mod changes;
mod drift;
mod inflights;
mod lease;
mod progress;
mod proposals;
mod reads;
mod replication;
mod rounds;
mod transfer;

/// State of a leader (Figure 2, "volatile state on leaders", and what its duties need).
#[derive(Debug)]
pub(crate) struct Leader {
    /// All other members, and those that were removed and do not know it yet.
    progress: BTreeMap<NodeId, Progress>,
    /// The first entry of this leader's term. Before it has committed, the leader does not know
    /// what is (§8).
    term_start: Index,
    rounds: Rounds,
    heartbeat_deadline: Time,
    /// When to tell of a higher commit index, if no entries have carried the news by then.
    notice_deadline: Option<Time>,
    /// Appended and not committed, oldest first.
    proposals: VecDeque<(LogId, RequestId)>,
    reads: Reads,
    pending_change: Option<PendingChange>,
    /// The latest configuration that this leader appended and that may change quorums.
    last_change: Option<Index>,
    /// Members may have been heard from that the configuration has not bound.
    bind_wanted: bool,
    transfer: Option<Transfer>,
    /// `TimeoutNow` was sent in this term: the lease is gone for good.
    sent_timeout_now: bool,
}

impl Leader {
    /// Figure 2, leaders, upon election: one entry of the new term, sent to all at once. It asserts
    /// leadership, and what is before it can be committed with it (§5.4.2, §8).
    pub(crate) fn new(common: &mut Common) -> Self {
        let noop = Entry::new(common.log.last_index().next(), common.term(), Payload::Noop);
        let term_start = noop.index;
        let mut leader = Self {
            progress: BTreeMap::new(),
            term_start,
            rounds: Rounds::new(common.now),
            heartbeat_deadline: common.now.after(common.config.heartbeat_interval_us),
            notice_deadline: None,
            proposals: VecDeque::new(),
            reads: Reads::default(),
            pending_change: None,
            last_change: None,
            bind_wanted: true,
            transfer: None,
            sent_timeout_now: false,
        };
        // Before the no-op is appended: §5.3, next_index starts just behind the leader's log.
        leader.follow_membership(common);
        common.append(noop);
        leader
    }

    /// Whether an entry of this leader's term has committed.
    fn is_ready(&self, common: &Common) -> bool {
        common.commit_index >= self.term_start
    }

    /// Whether a quorum followed this leader a shortest election timeout ago, or later.
    pub(crate) fn hears_from_quorum(&self, common: &Common) -> bool {
        common.config.leader_stickiness
            && common.now.since(self.quorum_contact(common)) < common.election_timeout_min_us()
    }

    /// The latest time since which a quorum is known to follow this leader.
    fn quorum_contact(&self, common: &Common) -> Time {
        let node = common.node();
        let contact = common.membership().quorum_value(|voter| {
            if voter == node {
                return common.now;
            }
            self.progress.get(&voter).map_or(Time(0), |progress| progress.acked_at)
        });
        contact.unwrap_or(common.now)
    }

    /// Evidence that `from` follows this leader: it answered something that was sent in `round` or
    /// later. All that rests on contact goes by what is noted here.
    fn contact(&mut self, common: &mut Common, from: NodeId, round: u64) {
        let sent_at = self.rounds.sent_at(round);
        let lease_since = common.configurations.lease_since();
        let Some(progress) = self.progress.get_mut(&from) else { return };
        if round > progress.acked_round && round <= self.rounds.latest() {
            progress.acked_round = round;
            if let Some(sent_at) = sent_at {
                progress.acked_at = progress.acked_at.max(sent_at);
                if progress.match_index >= lease_since {
                    progress.lease_acked_at = Some(progress.acked_at);
                }
            }
            self.confirm_reads(common);
        }
    }

    /// Begins a round: every peer is asked whether it still follows. Reads begin rounds as well;
    /// those do not put off the next heartbeat.
    fn begin_round(&mut self, common: &mut Common) -> u64 {
        let round = self.rounds.begin(common.now);
        let leader_commit = common.commit_index;
        for (peer, progress) in &mut self.progress {
            progress.commit_sent =
                progress.commit_sent.max(leader_commit.min(progress.match_index));
            common.send(*peer, Message::Heartbeat(Heartbeat { leader_commit, round }));
        }
        round
    }

    /// A round by the clock. Its answers also show whether anything that was sent before got lost.
    fn send_heartbeats(&mut self, common: &mut Common) {
        let round = self.begin_round(common);
        self.heartbeat_deadline = common.now.after(common.config.heartbeat_interval_us);
        for progress in self.progress.values_mut() {
            // An answer may take longer than the next heartbeat; the first question stands.
            progress.heartbeat.get_or_insert((round, progress.next_index));
        }
    }

    /// Figure 2, leaders: what a majority holds is committed, if it is of the current term.
    pub(crate) fn advance_commit(&mut self, common: &mut Common) -> Next {
        let node = common.node();
        // The leader's own disk counts like any other (thesis 10.2.1).
        let durable = common.durability.index();
        let progress = &self.progress;
        let majority = common.membership().quorum_value(|voter| {
            if voter == node {
                return durable;
            }
            progress.get(&voter).map_or(Index::ZERO, |progress| progress.match_index)
        });
        let majority = majority.unwrap_or(Index::ZERO);
        // §5.4.2: an entry of an older term is never committed by counting replicas.
        if majority <= common.commit_index || common.log.term_at(majority) != Some(common.term()) {
            return Next::Stay;
        }
        common.commit(majority);
        self.forget_committed_proposals(common);
        if self.notice_deadline.is_none() && !self.progress.is_empty() {
            self.notice_deadline = Some(common.now.after(common.config.commit_notice_delay_us));
        }
        self.advance_membership(common)
    }

    /// What the steps since the last call have made possible, sent in as few messages as can be.
    pub(crate) fn flush(&mut self, common: &mut Common) {
        self.flush_reads(common);
        let round = self.rounds.latest();
        for (peer, progress) in &mut self.progress {
            replicate(common, *peer, progress, round);
        }
        self.flush_transfer(common);
        self.flush_commit_notices(common);
    }

    pub(crate) fn on_time(&mut self, common: &mut Common) -> Next {
        if common.disk_stalled() {
            return Next::StepDown(StepDownReason::DiskStalled);
        }
        if self.quorum_deadline(common).is_some_and(|deadline| common.now >= deadline) {
            return Next::StepDown(StepDownReason::NoQuorum);
        }
        if self.transfer.is_some_and(|transfer| common.now >= transfer.deadline) {
            self.fail_transfer(common, TransferError::TimedOut);
        }
        if common.now >= self.heartbeat_deadline {
            self.send_heartbeats(common);
            self.renew_offers(common);
            self.forget_departed(common);
            self.bind_wanted =
                common.membership().members().any(|(_, member)| member.incarnation.is_none());
            return self.advance_membership(common);
        }
        Next::Stay
    }

    /// When to step down unless a quorum answers (thesis 6.2).
    fn quorum_deadline(&self, common: &Common) -> Option<Time> {
        let timeout_us = common.config.election_timeout_max_us;
        common.config.check_quorum.then(|| self.quorum_contact(common).after(timeout_us))
    }

    /// Tells those that no entries have told how far the log is committed, when it is time.
    fn flush_commit_notices(&mut self, common: &mut Common) {
        let Some(deadline) = self.notice_deadline else { return };
        let leader_commit = common.commit_index;
        let mut behind =
            self.progress.iter_mut().filter(|(_, p)| is_behind_on_commit(p, leader_commit));
        if common.now < deadline {
            // With the entries, the news may be out already.
            if behind.next().is_none() {
                self.notice_deadline = None;
            }
            return;
        }
        for (peer, progress) in behind {
            progress.commit_sent = leader_commit.min(progress.next_index.prev());
            common.send(*peer, Message::CommitNotice(CommitNotice { leader_commit }));
        }
        self.notice_deadline = None;
    }

    pub(crate) fn deadline(&self, common: &Common) -> Option<Time> {
        [
            Some(self.heartbeat_deadline),
            self.notice_deadline,
            self.transfer.map(|transfer| transfer.deadline),
            common.disk_stall_deadline(),
            self.quorum_deadline(common),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Leadership is lost. Nothing that somebody waits for is forgotten.
    pub(crate) fn abandon(&mut self, common: &mut Common) {
        self.abandon_proposals(common);
        self.abandon_change(common);
        self.abandon_reads(common);
        self.hand_over_transfer(common);
    }

    pub(crate) fn transfer_to(&self) -> Option<NodeId> {
        self.transfer.map(|transfer| transfer.to)
    }

    pub(crate) fn peers(&self) -> Vec<PeerStatus> {
        let all = self.progress.iter();
        all.map(|(node, progress)| PeerStatus {
            node: *node,
            mode: progress.mode(),
            match_index: progress.match_index,
            next_index: progress.next_index,
            inflight_messages: progress.inflights.count(),
            inflight_bytes: progress.inflights.bytes(),
            last_contact: progress.acked_at,
            snapshot: progress.snapshot_index(),
            feature_level: progress.feature_level,
        })
        .collect()
    }

    /// The highest index that any peer is known to hold, for invariants.
    pub(crate) fn highest_match(&self) -> Index {
        self.progress.values().map(|progress| progress.match_index).max().unwrap_or(Index::ZERO)
    }

    /// The highest index that is to be sent next to any peer, for invariants.
    pub(crate) fn highest_next(&self) -> Index {
        self.progress.values().map(|progress| progress.next_index).max().unwrap_or(Index::ZERO)
    }

    /// Asks again for snapshots that are not ready, and repeats offers that were not answered.
    fn renew_offers(&mut self, common: &mut Common) {
        let (now, patience_us) = (common.now, common.config.election_timeout_min_us);
        for (peer, progress) in &mut self.progress {
            match &mut progress.state {
                State::Snapshot(Offer::Wanted { asked }) => *asked = false,
                State::Snapshot(Offer::Made { snapshot, at }) if now.since(*at) >= patience_us => {
                    *at = now;
                    let snapshot = snapshot.clone();
                    common.send(*peer, Message::InstallSnapshot(InstallSnapshot { snapshot }));
                }
                _ => {}
            }
        }
    }
}

/// Whether a peer that has everything needs to hear how far it may apply.
fn is_behind_on_commit(progress: &Progress, commit_index: Index) -> bool {
    matches!(progress.state, State::Replicate)
        && commit_index.min(progress.next_index.prev()) > progress.commit_sent
}
