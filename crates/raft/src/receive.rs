//! Taking in a message: first what is true of every message (addresses, incarnations, terms, §5.1),
//! then what the role makes of it.

use crate::effect::Notice;
use crate::error::{PeerError, StepDownReason};
use crate::message::{
    AppendEntriesReply, AppendOutcome, Conflict, ElectionCause, Envelope, HeartbeatReply, Message,
    ReadIndexReply, Refusal,
};
use crate::raft::Raft;
use crate::role::{Next, Role};
use crate::types::{Incarnation, Index, NodeId};
use crate::validate::{check_envelope, feature_level_of};
use crate::vote::{Electorate, ignores};

impl Raft {
    /// A message arrived. First what is true of every message, then what the role makes of it.
    pub(crate) fn receive(&mut self, envelope: Envelope) -> Next {
        if let Err(why) = self.check_address(&envelope).and_then(|()| check_envelope(&envelope)) {
            self.refuse(&envelope, why);
            return Next::Stay;
        }
        if let Message::Refused(why) = envelope.message {
            self.common.notice(Notice::RefusedBy { peer: envelope.from, why });
            return Next::Stay;
        }
        let Some(envelope) = self.check_incarnation(envelope) else { return Next::Stay };
        let level = feature_level_of(&envelope.message);
        if level > self.common.config.feature_level {
            let supported = self.common.config.feature_level;
            self.common.notice(Notice::FeatureLevel { level, supported });
            return Next::Stay;
        }
        let electorate = self.electorate();
        if ignores(electorate, &envelope.message) {
            // Thesis 4.2.3: not even the term is taken over. A pre-vote is refused politely.
            if let Message::PreVote(m) = envelope.message {
                self.common.on_pre_vote(electorate, envelope.from, m);
            }
            return Next::Stay;
        }
        if envelope.term > self.common.term() {
            if self.is_reply_of_stranger(&envelope) {
                return Next::Stay;
            }
            // §5.1: whoever sees a higher term takes it over and follows.
            self.follow_higher_term(&envelope);
        } else if envelope.term < self.common.term() {
            self.answer_stale(&envelope);
            return Next::Stay;
        }
        self.receive_current(envelope)
    }

    fn check_address(&self, envelope: &Envelope) -> Result<(), PeerError> {
        let config = &self.common.config;
        if envelope.cluster != config.cluster {
            return Err(PeerError::WrongCluster { found: envelope.cluster });
        }
        if envelope.group != config.group {
            return Err(PeerError::WrongGroup { found: envelope.group });
        }
        if envelope.to != config.node || envelope.from == config.node {
            return Err(PeerError::WrongAddress { to: envelope.to });
        }
        if envelope.from == NodeId(0) || envelope.incarnation == Incarnation(0) {
            return Err(PeerError::Impossible);
        }
        Ok(())
    }

    fn refuse(&mut self, envelope: &Envelope, why: PeerError) {
        let from = envelope.from;
        let told = !matches!(envelope.message, Message::Refused(_)) && from != NodeId(0);
        let refusal = match why {
            PeerError::WrongCluster { .. } => {
                Some(Refusal::WrongCluster { cluster: self.common.config.cluster })
            }
            PeerError::WrongIncarnation { known, .. } => Some(Refusal::WrongIncarnation { known }),
            _ => None,
        };
        if let Some(refusal) = refusal.filter(|_| told) {
            self.common.send_now(from, Message::Refused(refusal));
        }
        self.common.notice(Notice::Refused { from, why });
    }

    /// Lets through what comes from a stranger, or from the data directory that counts as the
    /// member. The first message of a member that was never heard from waits until the disk holds
    /// which directory that was.
    fn check_incarnation(&mut self, envelope: Envelope) -> Option<Envelope> {
        let Envelope { from, incarnation: found, .. } = envelope;
        let common = &mut self.common;
        let Some(member) = common.membership().member(from) else { return Some(envelope) };
        let bound = member.incarnation.is_some();
        match common.known_incarnation(from) {
            Some(known) if known != found => {
                self.refuse(&envelope, PeerError::WrongIncarnation { known, found });
                None
            }
            Some(_) if bound || common.seen_is_durable() => Some(envelope),
            _ => {
                common.see_incarnation(from, found);
                common.defer(envelope);
                None
            }
        }
    }

    fn electorate(&self) -> Electorate {
        let common = &self.common;
        let hears_from_leader = match &self.role {
            Role::Leader(leader) => leader.hears_from_quorum(common),
            _ => common.is_sticky(),
        };
        let keeps_lease = common.lease_kept_until().is_some_and(|until| common.now < until)
            || (matches!(self.role, Role::Leader(_))
                && common.configurations.longest_lease_us().is_some()
                && hears_from_leader);
        Electorate { hears_from_leader, keeps_lease }
    }

    /// The answer of a server outside the configuration counts for nothing, not even its term: a
    /// removed server must not depose a leader.
    fn is_reply_of_stranger(&self, envelope: &Envelope) -> bool {
        let reply = matches!(
            envelope.message,
            Message::PreVoteReply(_)
                | Message::RequestVoteReply(_)
                | Message::AppendEntriesReply(_)
                | Message::HeartbeatReply(_)
                | Message::InstallSnapshotReply(_)
                | Message::ReadIndexReply(_)
        );
        reply && !self.common.membership().contains(envelope.from)
    }

    fn follow_higher_term(&mut self, envelope: &Envelope) {
        let Envelope { from, term, .. } = *envelope;
        let leader = is_of_leader(&envelope.message).then_some(from);
        self.leave_role(StepDownReason::HigherTerm { term, from });
        self.common.set_term(term);
        self.become_follower(leader);
    }

    /// A message of an older term: whoever still believes in that term is told (§5.1).
    fn answer_stale(&mut self, envelope: &Envelope) {
        let common = &mut self.common;
        let from = envelope.from;
        match &envelope.message {
            Message::PreVote(m) => {
                let deaf = Electorate { hears_from_leader: true, keeps_lease: false };
                common.on_pre_vote(deaf, from, *m);
            }
            Message::RequestVote(m) => {
                common.on_request_vote(from, envelope.term, *m);
            }
            Message::AppendEntries(m) => {
                // Figure 2, AppendEntries 1. Only the envelope's term matters.
                let prev_index = m.prev_log.index;
                let conflict = Conflict { term: None, first_index: prev_index };
                let outcome = AppendOutcome::Refused { prev_index, conflict };
                let extension = bytes::Bytes::new();
                let reply = AppendEntriesReply { outcome, round: 0, extension };
                common.send(from, Message::AppendEntriesReply(reply));
            }
            Message::Heartbeat(_) | Message::CommitNotice(_) | Message::InstallSnapshot(_) => {
                let reply = HeartbeatReply {
                    round: 0,
                    verified: Index::ZERO,
                    feature_level: common.config.feature_level,
                    clock: common.now,
                };
                common.send(from, Message::HeartbeatReply(reply));
            }
            Message::ReadIndex(m) => {
                let reply = ReadIndexReply { attempt: m.attempt, index: None };
                common.send(from, Message::ReadIndexReply(reply));
            }
            _ => {}
        }
    }

    /// A message of the current term.
    fn receive_current(&mut self, envelope: Envelope) -> Next {
        let Envelope { from, term, message, .. } = envelope;
        if is_of_leader(&message) && !self.accept_leader(from) {
            return Next::Stay;
        }
        let electorate = self.electorate();
        let Self { common, role } = self;
        match (role, message) {
            // Rules of every role.
            (_, Message::PreVote(m)) => {
                common.on_pre_vote(electorate, from, m);
                Next::Stay
            }
            (_, Message::RequestVote(m)) => {
                let granted = common.on_request_vote(from, term, m);
                // §5.2: whoever grants a vote gives the candidate time to win.
                if granted { Next::Voted } else { Next::Stay }
            }

            (Role::Follower(follower), Message::AppendEntries(m)) => {
                follower.on_append_entries(common, from, m);
                Next::Stay
            }
            (Role::Follower(follower), Message::Heartbeat(m)) => {
                follower.on_heartbeat(common, from, m);
                Next::Stay
            }
            (Role::Follower(follower), Message::CommitNotice(m)) => {
                follower.on_commit_notice(common, m);
                Next::Stay
            }
            (Role::Follower(follower), Message::InstallSnapshot(m)) => {
                follower.on_install_snapshot(common, from, m.snapshot);
                Next::Stay
            }
            (Role::Follower(follower), Message::ReadIndexReply(m)) => {
                if follower.leader == Some(from) {
                    follower.on_read_index_reply(common, m);
                }
                Next::Stay
            }
            (Role::Follower(follower), Message::TimeoutNow) => {
                if follower.leader == Some(from) && common.may_campaign() {
                    return Next::Campaign(ElectionCause::Transfer);
                }
                Next::Stay
            }

            (Role::PreCandidate(pre_candidate), Message::PreVoteReply(m)) => {
                pre_candidate.on_reply(common, from, m)
            }
            (Role::Candidate(candidate), Message::RequestVoteReply(m)) => {
                candidate.on_reply(common, from, m)
            }

            (Role::Leader(leader), Message::AppendEntriesReply(m)) => {
                leader.on_append_entries_reply(common, from, &m)
            }
            (Role::Leader(leader), Message::HeartbeatReply(m)) => {
                leader.on_heartbeat_reply(common, from, m)
            }
            (Role::Leader(leader), Message::InstallSnapshotReply(m)) => {
                leader.on_install_snapshot_reply(common, from, m)
            }
            (Role::Leader(leader), Message::ReadIndex(m)) => {
                leader.on_read_index(common, from, m);
                Next::Stay
            }
            (_, Message::ReadIndex(m)) => {
                let reply = ReadIndexReply { attempt: m.attempt, index: None };
                common.send(from, Message::ReadIndexReply(reply));
                Next::Stay
            }
            // Answers to questions of a role that is over.
            _ => Next::Stay,
        }
    }

    /// Whether `from` may lead the current term; if so, it is followed (§5.2).
    fn accept_leader(&mut self, from: NodeId) -> bool {
        let leader = match &mut self.role {
            Role::Leader(_) => Some(self.common.node()),
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        };
        match leader {
            Some(leader) if leader == from => true,
            Some(leader) => {
                self.common
                    .notice(Notice::Refused { from, why: PeerError::SecondLeader { leader } });
                false
            }
            None => {
                self.become_follower(Some(from));
                true
            }
        }
    }
}

/// Whether only the leader of the envelope's term can have sent the message.
const fn is_of_leader(message: &Message) -> bool {
    matches!(
        message,
        Message::AppendEntries(_)
            | Message::Heartbeat(_)
            | Message::CommitNotice(_)
            | Message::InstallSnapshot(_)
            | Message::TimeoutNow
    )
}
