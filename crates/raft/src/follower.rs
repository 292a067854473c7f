//! The follower: answers leaders and candidates (§5.2, §5.3).

use crate::common::Common;
use crate::forwarded_reads::ForwardedReads;
use crate::message::{
    AppendEntries, AppendEntriesReply, AppendOutcome, CommitNotice, Heartbeat, HeartbeatReply,
    Message, ReadIndexReply,
};
use crate::role::Next;
use crate::types::{Incarnation, Index, LogId, NodeId, Time};

/// How many attempts follow each other quickly once the leader's process is known to have ended.
const HURRIED_ATTEMPTS: u32 = 5;

/// State of a follower.
#[derive(Debug)]
pub(crate) struct Follower {
    /// The leader of this term, once it was heard from.
    pub(crate) leader: Option<NodeId>,
    /// When to campaign.
    pub(crate) deadline: Time,
    /// Up to here the log is known to equal that of this term's leader, durable or not. What is
    /// committed equals that of any leader (Leader Completeness, Figure 3).
    verified: Index,
    pub(crate) reads: ForwardedReads,
}

impl Follower {
    /// A follower that campaigns at `deadline` unless it hears from a leader or grants a vote.
    pub(crate) fn new(common: &Common, leader: Option<NodeId>, deadline: Time) -> Self {
        Self { leader, deadline, verified: common.commit_index, reads: ForwardedReads::default() }
    }

    pub(crate) const fn verified(&self) -> Index {
        self.verified
    }

    /// The leader was heard from: no election for now (§5.2).
    fn contact(&mut self, common: &mut Common) {
        common.leader_contact = Some(common.now);
        common.hurried_attempts = 0;
        self.deadline = common.random_election_deadline();
    }

    /// The log equals the leader's up to `index`; learns what of it is committed.
    fn verify(&mut self, common: &mut Common, index: Index, leader_commit: Index) {
        self.verified = self.verified.max(index).max(common.commit_index);
        // Figure 2, AppendEntries 5. The leader's word is only good for entries that are known to
        // be the leader's: a heartbeat alone commits nothing.
        common.commit(leader_commit.min(self.verified));
    }

    /// Figure 2, AppendEntries, receiver implementation. The message was found to be sound.
    pub(crate) fn on_append_entries(
        &mut self,
        common: &mut Common,
        from: NodeId,
        m: AppendEntries,
    ) {
        self.contact(common);
        let AppendEntries { prev_log, entries, leader_commit, round, .. } = m;
        let base = common.log.base().index;
        // What was compacted away was committed, so it is the same in the leader's log.
        if prev_log.index >= base && !common.log.has(prev_log) {
            assert!(
                prev_log.index > common.commit_index,
                "Leader Completeness (Figure 3): the leader lacks a committed entry"
            );
            let conflict = common.log.conflict_at(prev_log.index);
            let outcome = AppendOutcome::Refused { prev_index: prev_log.index, conflict };
            reply(common, from, outcome, round);
            return;
        }
        let last = entries.last().map_or(prev_log.index, |entry| entry.index);
        for entry in entries {
            if entry.index < base || common.log.has(entry.log_id()) {
                // Already here. Nothing behind it is removed: the message may be an old one.
                continue;
            }
            if entry.index <= common.log.last_index() {
                common.truncate(entry.index);
                self.verified = self.verified.min(entry.index.prev());
            }
            common.append(entry);
        }
        self.verify(common, last, leader_commit);
        // Everything that is verified and durable is acknowledged; what the message brought must
        // become so first.
        let match_index = last.max(self.verified.min(common.durability.index()));
        let outcome = AppendOutcome::Accepted { match_index };
        reply(common, from, outcome, round);
    }

    pub(crate) fn on_heartbeat(&mut self, common: &mut Common, from: NodeId, m: Heartbeat) {
        self.contact(common);
        self.verify(common, Index::ZERO, m.leader_commit);
        let reply = HeartbeatReply {
            round: m.round,
            verified: self.verified,
            feature_level: common.config.feature_level,
            clock: common.now,
        };
        common.send(from, Message::HeartbeatReply(reply));
    }

    pub(crate) fn on_commit_notice(&mut self, common: &mut Common, m: CommitNotice) {
        self.contact(common);
        self.verify(common, Index::ZERO, m.leader_commit);
    }

    pub(crate) fn on_read_index_reply(&mut self, common: &mut Common, m: ReadIndexReply) {
        if let Some(index) = m.index {
            // The leader has committed that much: no need to wait for the next heartbeat.
            self.verify(common, Index::ZERO, index);
        }
        self.reads.on_reply(common, m);
    }

    /// A snapshot was offered, or is here (§7).
    pub(crate) fn on_snapshot_matched(&mut self, common: &mut Common, id: LogId) {
        self.verify(common, id.index, id.index);
    }

    pub(crate) fn on_snapshot_contact(&mut self, common: &mut Common) {
        self.contact(common);
    }

    /// The leader's process has ended: no reason to wait for the timeout. The hint may be wrong,
    /// so it leads to nothing but a question to the others.
    pub(crate) fn on_peer_closed(
        &mut self,
        common: &mut Common,
        peer: NodeId,
        incarnation: Incarnation,
    ) {
        let known = common.known_incarnation(peer);
        let lease = common.configurations.longest_lease_us();
        if self.leader != Some(peer)
            || known.is_some_and(|known| known != incarnation)
            || lease.is_some()
            || !common.config.pre_vote
        {
            return;
        }
        common.leader_contact = None;
        common.hurried_attempts = HURRIED_ATTEMPTS;
        let delay = common.rng.between(0, common.config.peer_closed_delay_us);
        self.deadline = self.deadline.min(common.now.after(delay));
    }

    pub(crate) fn on_time(&mut self, common: &mut Common) -> Next {
        self.reads.on_time(common, self.leader);
        if !common.has_run_out(&mut self.deadline) {
            return Next::Stay;
        }
        if !common.may_campaign() {
            self.deadline = common.random_election_deadline();
            return Next::Stay;
        }
        // §5.2: no word from a leader for an election timeout.
        if common.config.pre_vote {
            return Next::PreCampaign;
        }
        Next::Campaign(crate::message::ElectionCause::Timeout)
    }

    pub(crate) fn on_deadline(&self, common: &Common) -> Option<Time> {
        let campaign = common.may_campaign().then_some(self.deadline);
        campaign.into_iter().chain(self.reads.deadline(common)).min()
    }
}

fn reply(common: &mut Common, to: NodeId, outcome: AppendOutcome, round: u64) {
    let message = Message::AppendEntriesReply(AppendEntriesReply {
        outcome,
        round,
        extension: bytes::Bytes::new(),
    });
    match outcome {
        AppendOutcome::Accepted { match_index } => {
            common.send_when_durable(to, message, match_index);
        }
        AppendOutcome::Refused { .. } => common.send(to, message),
    }
}
