//! Recognises rare states in what the checkers observe, and counts them.

use std::collections::BTreeMap;

use quorate_node::{Action, NodeMessage, ProposeFailure, ReadFailure, Reply};
use quorate_raft::{
    AppendOutcome, CampaignError, ChangeError, ElectionCause, Entry, Envelope, LoadError,
    MemberRole, Membership, Message, NodeId, Notice, Payload, ProposeError, ReadError, Refusal,
    RoleName, StepDownReason, Term, Time, TransferError,
};

use super::Step;
use super::commits::Commits;
use super::elections::Elections;
use super::shadow::Shadow;
use crate::cluster::{Brief, Fate, Observation, Observed, Told};
use crate::marks::{Mark, Marks};
use crate::storage::{Crash, DiskNews};

/// A pre-vote this soon after word that the leader's process has ended is counted as caused by it.
const SOON_US: u64 = 100_000;

/// What has to be remembered in order to recognise rare states.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    marks: Marks,
    now: Time,
    /// Who asked for votes in each term.
    candidates: BTreeMap<Term, Vec<NodeId>>,
    /// Who leads which term, as far as they know.
    leading: BTreeMap<NodeId, Term>,
    /// When nodes were told that a process has ended.
    told_closed: BTreeMap<NodeId, Time>,
    /// The last message delivered.
    delivered: Option<(NodeId, Message)>,
}

impl Sightings {
    pub(super) const fn marks(&self) -> &Marks {
        &self.marks
    }

    pub(super) const fn at(&mut self, now: Time) {
        self.now = now;
    }

    fn hit_if(&mut self, mark: Mark, condition: bool) {
        if condition {
            self.marks.hit(mark);
        }
    }

    /// Something that is not a step.
    pub(super) fn happened(&mut self, observation: &Observation, shadow: Option<&Shadow>) {
        let node = observation.node;
        self.now = observation.at;
        match &observation.what {
            Observed::Message { message: NodeMessage::Raft(envelope), fate: Fate::Delivered } => {
                // Only votes are asked about later.
                if let Message::PreVote(_) | Message::RequestVote(_) = envelope.message {
                    self.delivered = Some((node, envelope.message.clone()));
                }
            }
            Observed::Crashed { crash, unsynced, lost, within_step, installing } => {
                self.leading.remove(&node);
                let Some(shadow) = shadow else { return };
                self.hit_if(Mark::CrashWhileRecovering, !shadow.is_up);
                self.hit_if(Mark::LeaderCrashed, shadow.is_up && shadow.leads());
                self.hit_if(Mark::InstallCrashed, *installing);
                self.hit_if(Mark::CrashInStep, *within_step);
                let kept = unsynced > lost && *crash == Crash::Kill;
                self.hit_if(Mark::KillKeepsWrites, kept);
                self.hit_if(Mark::CrashLosesWrites, *lost > 0);
            }
            Observed::StartFailed(_) => self.marks.hit(Mark::StartRefused),
            Observed::Disk(news) => self.marks.hit(match news {
                DiskNews::Full => Mark::DiskFull,
                DiskNews::SyncFailed => Mark::SyncFailed,
                DiskNews::HalfWay => Mark::DiedHalfWay,
                DiskNews::Interrupted => Mark::StartInterrupted,
                DiskNews::TornTail => Mark::TornTail,
                DiskNews::Rewritten => Mark::RewrittenAboveMark,
                DiskNews::Damaged => Mark::DamageRefused,
                DiskNews::Recycled => Mark::SegmentRecycled,
                DiskNews::Forwarded => Mark::RecordsForwarded,
                DiskNews::Unprepared => Mark::SegmentUnprepared,
                DiskNews::InstallFinished => Mark::RestartFinishesInstall,
            }),
            Observed::Told(Told::PeerClosed { .. }) => {
                self.told_closed.insert(node, self.now);
            }
            Observed::Told(Told::Fetched { complete }) => self.marks.hit(match complete {
                true => Mark::SnapshotFetched,
                false => Mark::SnapshotFetchFailed,
            }),
            Observed::Told(Told::Loaded { error }) => self.marks.hit(match error {
                None => Mark::LoadedFromDisk,
                Some(LoadError::Compacted) => Mark::LoadCompacted,
                Some(LoadError::Unreadable) => Mark::LoadUnreadable,
            }),
            _ => {}
        }
    }

    /// A process starts again.
    pub(super) fn recovered(&mut self, shadow: &Shadow, brief: &Brief, commits: &Commits) {
        self.hit_if(Mark::RestartRedoesEntries, brief.applied < shadow.given);
        let is_old = commits.config().is_some_and(|(_, latest)| *latest != brief.membership);
        self.hit_if(Mark::RestartWithOldMembership, is_old);
    }

    /// A step, before its actions change the shadow.
    pub(super) fn stepped(
        &mut self,
        step: &Step<'_>,
        shadow: &Shadow,
        elections: &Elections,
        commits: &Commits,
    ) {
        if (step.before.role, step.before.term) != (step.after.role, step.after.term) {
            self.role_changed(step, elections, commits);
        }
        if step.leads_throughout() && step.after.commit_index > step.before.commit_index {
            let own_disk = step.after.durable_index;
            self.hit_if(Mark::CommitBeforeOwnDisk, step.after.commit_index > own_disk);
            self.hit_if(Mark::LateCommit, elections.latest() > step.after.term);
        }
        for action in step.actions() {
            self.acted(step, shadow, commits, action);
        }
        self.delivered = None;
    }

    fn role_changed(&mut self, step: &Step<'_>, elections: &Elections, commits: &Commits) {
        let Step { node, before, after, .. } = *step;
        match (before.role, after.role) {
            (RoleName::Candidate, RoleName::Follower) if before.term == after.term => {
                self.marks.hit(Mark::CandidateMeetsLeader);
            }
            (RoleName::Candidate, RoleName::Follower) => {
                self.marks.hit(Mark::CandidateMeetsHigherTerm);
            }
            (RoleName::PreCandidate, RoleName::Follower) => self.marks.hit(Mark::PreVoteLost),
            _ => {}
        }
        if after.role != RoleName::Leader {
            self.leading.remove(&node);
            return;
        }
        let deposed = self.leading.values().any(|term| *term < after.term);
        self.hit_if(Mark::TwoLeadersAtOnce, deposed);
        self.leading.insert(node, after.term);
        let split = self.candidates.range(..after.term).next_back();
        let split = split.is_some_and(|(term, candidates)| {
            candidates.len() > 1 && elections.leader(*term).is_none()
        });
        self.hit_if(Mark::SplitVote, split);
        let is_single = after.membership.voters().len() == 1 && !after.membership.is_joint();
        self.hit_if(Mark::LeaderOfOne, is_single);
        self.hit_if(Mark::ElectionInJoint, after.membership.is_joint());
        let inherits = before.last_log.index > commits.last();
        self.hit_if(Mark::LeaderInheritsUncommitted, inherits);
    }

    fn acted(&mut self, step: &Step<'_>, shadow: &Shadow, commits: &Commits, action: &Action) {
        match action {
            Action::Send { message: NodeMessage::Raft(envelope), .. } => {
                self.sent(step, commits, envelope);
            }
            Action::Persist(persist) => {
                if let Some(first) = persist.append.first()
                    && first.index <= shadow.log.last
                {
                    self.marks.hit(Mark::LogTruncated);
                    let drops_config = shadow.log.config_index() >= first.index;
                    self.hit_if(Mark::MembershipTruncated, drops_config);
                    let was_on_disk = first.index <= shadow.recovered_last;
                    self.hit_if(Mark::TruncatedAfterRestart, was_on_disk);
                }
                let own = |entry: &&Entry| {
                    step.after.role == RoleName::Leader && entry.term == step.after.term
                };
                let mut old = shadow.log.config();
                for entry in persist.append.iter().filter(own) {
                    if let Payload::Membership(new) = &entry.payload {
                        self.reconfigured(step.node, old, new);
                        let entered_in = shadow.log.term_at(shadow.log.config_index());
                        let inherited = entered_in.is_some_and(|term| term < step.after.term);
                        let leaves = old.is_joint() && !new.is_joint();
                        self.hit_if(Mark::JointLeftBySuccessor, leaves && inherited);
                        old = new;
                    }
                }
            }
            Action::Install(install) => {
                self.marks.hit(Mark::SnapshotInstalled);
                let has_entries = shadow.log.last > step.before.compacted.index;
                self.hit_if(Mark::SnapshotOverLog, has_entries);
                let config = shadow.log.config();
                let is_other = install.snapshot.membership != *config;
                self.hit_if(Mark::SnapshotChangesMembership, is_other);
            }
            Action::Fetch { snapshot, .. } => {
                let other = step.before.fetching.is_some_and(|first| first != snapshot.id);
                self.hit_if(Mark::SnapshotDuringSnapshot, other);
            }
            Action::Compact(_) => self.marks.hit(Mark::LogCompacted),
            Action::Reply { reply, .. } => self.replied(step, reply),
            Action::Notice(notice) => self.noticed(notice),
            _ => {}
        }
    }

    fn sent(&mut self, step: &Step<'_>, commits: &Commits, envelope: &Envelope) {
        let Step { node, before, .. } = *step;
        let asked = self.delivered.take_if(|(at, _)| *at == node);
        match &envelope.message {
            Message::RequestVote(request) => {
                self.outsider(commits, node);
                let candidates = self.candidates.entry(envelope.term).or_default();
                if candidates.contains(&node) {
                    return;
                }
                candidates.push(node);
                let is_second = candidates.len() == 2;
                self.hit_if(Mark::TwoCandidates, is_second);
                self.marks.hit(match request.cause {
                    ElectionCause::Timeout => Mark::ElectionByTimeout,
                    ElectionCause::Transfer => Mark::ElectionByTransfer,
                    ElectionCause::Forced => Mark::ElectionForced,
                });
            }
            Message::PreVote(_) => {
                self.outsider(commits, node);
                if let Some(told) = self.told_closed.remove(&node) {
                    self.hit_if(Mark::PeerClosedElection, self.now.since(told) <= SOON_US);
                }
            }
            Message::PreVoteReply(reply) if !reply.granted => {
                let Some((_, Message::PreVote(asked))) = asked else { return };
                let is_good = asked.last_log >= before.last_log && asked.next_term > before.term;
                let sticks = is_good && before.leader.is_some();
                self.hit_if(Mark::PreVoteRefusedBySticky, sticks);
            }
            Message::RequestVoteReply(reply) if !reply.granted => {
                let Some((_, Message::RequestVote(asked))) = asked else { return };
                if asked.last_log < before.last_log {
                    self.marks.hit(Mark::VoteRefusedForLog);
                } else if before.voted_for.is_some_and(|voted_for| voted_for != envelope.to) {
                    self.marks.hit(Mark::VoteRefusedGivenAway);
                }
            }
            Message::AppendEntriesReply(reply) => {
                if let AppendOutcome::Refused { conflict, .. } = reply.outcome {
                    self.marks.hit(match conflict.term {
                        None => Mark::AppendRefusedShort,
                        Some(_) => Mark::AppendRefusedConflict,
                    });
                }
            }
            Message::InstallSnapshot(_) => self.marks.hit(Mark::SnapshotOffered),
            _ => {}
        }
    }

    fn outsider(&mut self, commits: &Commits, node: NodeId) {
        let removed = commits.config().is_some_and(|(_, config)| !config.contains(node));
        self.hit_if(Mark::OutsiderAsks, removed);
    }

    /// The leader `node` appends configuration `new` behind `old`.
    fn reconfigured(&mut self, node: NodeId, old: &Membership, new: &Membership) {
        self.hit_if(Mark::JointEntered, !old.is_joint() && new.is_joint());
        self.hit_if(Mark::JointLeft, old.is_joint() && !new.is_joint());
        self.hit_if(Mark::FeatureLevelRaised, old.feature_level() < new.feature_level());
        self.hit_if(Mark::LeaseChanged, old.lease_us() != new.lease_us());
        let mut has_bound = false;
        for (id, member) in new.members() {
            let before = old.member(id);
            has_bound |=
                before.is_some_and(|old| old.incarnation.is_none()) && member.incarnation.is_some();
            let changes = before.is_some_and(|old| old.context != member.context);
            self.hit_if(Mark::ContextSet, changes);
            let Some(mark) = role_mark(before.map(|old| old.role), member.role) else { continue };
            self.marks.hit(mark);
            if let Some(MemberRole::Learner { replaces: Some(replaced), .. }) =
                before.map(|old| old.role)
            {
                let is_gone = old.contains(replaced) && !votes(new, replaced);
                self.hit_if(Mark::MemberReplaced, is_gone);
            }
        }
        self.hit_if(Mark::MembersBound, has_bound);
        for (id, _) in old.members() {
            let left_before = old.member(id).is_some_and(|old| old.role == MemberRole::Leaving);
            let is_gone = !new.contains(id) || !votes(new, id) && votes(old, id);
            if is_gone && !left_before && new.member(id).is_none_or(is_leaving) {
                self.marks.hit(Mark::MemberRemoved);
                self.hit_if(Mark::LeaderRemoved, id == node);
            }
        }
    }

    fn noticed(&mut self, notice: &Notice) {
        match notice {
            Notice::SteppedDown { why, .. } => {
                let mark = match why {
                    StepDownReason::HigherTerm { .. } => Mark::DownHigherTerm,
                    StepDownReason::NoQuorum => Mark::DownNoQuorum,
                    StepDownReason::Removed => Mark::DownRemoved,
                    StepDownReason::DiskStalled => Mark::DownDiskStalled,
                    StepDownReason::Unreadable { .. } => Mark::DownUnreadable,
                    _ => return,
                };
                self.marks.hit(mark);
            }
            Notice::RefusedBy { why: Refusal::WrongIncarnation { .. }, .. } => {
                self.marks.hit(Mark::WipedRefused);
            }
            _ => {}
        }
    }

    fn replied(&mut self, step: &Step<'_>, reply: &Reply) {
        let mark = match reply {
            // That a sync failed is noted where it did.
            Reply::Stopped => return,
            Reply::Proposed(Ok(_)) => {
                self.hit_if(Mark::ExecutedForwarded, step.before.role != RoleName::Leader);
                Mark::Executed
            }
            Reply::Proposed(Err(failure)) => match failure {
                ProposeFailure::Refused(ProposeError::WrongTerm { .. }) => Mark::ProposeWrongTerm,
                ProposeFailure::Refused(ProposeError::TooLarge { .. }) => Mark::ProposeTooLarge,
                ProposeFailure::Refused(ProposeError::Transferring { .. }) => {
                    Mark::ProposeTransferring
                }
                ProposeFailure::Refused(ProposeError::Busy { .. })
                | ProposeFailure::Busy { .. } => Mark::ProposeBusy,
                ProposeFailure::Refused(_) => Mark::ProposeNotLeader,
                ProposeFailure::Overwritten { .. } => Mark::ProposeOverwritten,
                _ => Mark::ProposeOutcomeUnknown,
            },
            Reply::Read(Err(failure)) => match failure {
                ReadFailure::Refused(ReadError::NoLeader) => Mark::ReadNoLeader,
                ReadFailure::Refused(ReadError::LeaderChanged) => Mark::ReadLeaderChanged,
                ReadFailure::Refused(ReadError::Busy { .. }) | ReadFailure::Busy { .. } => {
                    Mark::ReadBusy
                }
                ReadFailure::TimedOut { .. } => Mark::ReadTimedOut,
                _ => return,
            },
            Reply::Changed(Ok(_)) => Mark::ChangeCommitted,
            Reply::Changed(Err(error)) => match error {
                ChangeError::NotReady => Mark::ChangeNotReady,
                ChangeError::InFlight { .. } => Mark::ChangeInFlight,
                ChangeError::Invalid(_) => Mark::ChangeInvalid,
                ChangeError::Lagging { .. } => Mark::ChangeLagging,
                ChangeError::NoQuorum { .. } => Mark::ChangeNoQuorum,
                ChangeError::FeatureUnsupported { .. } => Mark::ChangeUnsupported,
                ChangeError::LeaseTooLong { .. } => Mark::ChangeLeaseTooLong,
                ChangeError::OutcomeUnknown { .. } => Mark::ChangeOutcomeUnknown,
                _ => return,
            },
            Reply::Transferred(Ok(_)) => Mark::TransferSucceeded,
            Reply::Transferred(Err(error)) => match error {
                TransferError::TimedOut => Mark::TransferTimedOut,
                TransferError::ElectedOther { .. } => Mark::TransferElectedOther,
                _ => Mark::TransferRefused,
            },
            Reply::Campaigned(Ok(_)) => Mark::CampaignBegun,
            Reply::Campaigned(Err(CampaignError::LeaseHeld { .. })) => Mark::CampaignLeaseHeld,
            Reply::Campaigned(Err(_)) => Mark::CampaignRefused,
            Reply::Read(Ok(_)) => return,
        };
        self.marks.hit(mark);
    }
}

fn is_leaving(member: &quorate_raft::Member) -> bool {
    member.role == MemberRole::Leaving
}

/// Whether the node votes in the (new) configuration.
fn votes(membership: &Membership, node: NodeId) -> bool {
    membership.voters().binary_search(&node).is_ok()
}

/// What a member's new role means, compared with the one before.
const fn role_mark(old: Option<MemberRole>, new: MemberRole) -> Option<Mark> {
    use MemberRole::{Learner, Leaving, Voter};
    match (old, new) {
        (None, Learner { promote_when_caught_up: true, .. }) => Some(Mark::VoterAdded),
        (None, Learner { .. }) => Some(Mark::LearnerAdded),
        (Some(Learner { promote_when_caught_up: true, .. }), Voter) => {
            Some(Mark::LearnerAutoPromoted)
        }
        (Some(Learner { .. }), Voter) => Some(Mark::LearnerPromoted),
        (Some(Voter | Leaving), Learner { .. }) => Some(Mark::VoterDemoted),
        _ => None,
    }
}
