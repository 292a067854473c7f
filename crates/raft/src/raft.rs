//! The consensus state machine itself: takes inputs, dispatches them, changes roles.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::candidate::Candidate;
use crate::common::Common;
use crate::config::Config;
use crate::effect::{Answer, Effect, HardState, Notice};
use crate::error::{
    CampaignError, ChangeError, ProposeError, ReadError, StartError, StepDownReason, TransferError,
};
use crate::follower::Follower;
use crate::input::{Input, ReadMode};
use crate::invariants;
use crate::leader::Leader;
use crate::membership::Membership;
use crate::message::{ElectionCause, SnapshotMeta};
use crate::pre_candidate::PreCandidate;
use crate::recovered::Recovered;
use crate::role::{Next, Role};
use crate::status::{RoleName, Status};
use crate::types::{Index, NodeId, RequestId, Term, Time};

/// One server of one Raft group.
///
/// It is a value: it has no clock, disk, network or thread. A host gives it [`Input`]s and carries
/// out the [`Effect`]s; see the crate's documentation for the loop.
#[derive(Debug)]
pub struct Raft {
    pub(crate) common: Common,
    pub(crate) role: Role,
}

impl Raft {
    /// Starts a server at `now`, as a follower, from what its disk holds. `seed` decides all its
    /// randomness: the same seed and inputs give the same effects.
    ///
    /// # Errors
    ///
    /// When the settings make no sense, or what was recovered is not enough to take part without
    /// breaking a promise made earlier; see [`StartError`].
    pub fn new(
        config: Config,
        now: Time,
        seed: u64,
        recovered: Recovered,
    ) -> Result<Self, StartError> {
        let mut common = Common::new(config, now, seed, recovered)?;
        let deadline = common.random_election_deadline();
        let role = Role::Follower(Follower::new(&common, None, deadline));
        Ok(Self { common, role })
    }

    /// Takes in one piece of news at time `now`, sampled after the news was taken from its queue.
    /// A `now` before that of an earlier step counts as that one.
    ///
    /// Effects accumulate until [`take_effects`](Self::take_effects). Several steps before it are
    /// batched: into one record for storage and as few messages as can be.
    pub fn step(&mut self, now: Time, input: Input) {
        let before = invariants::Before::of(&self.common, &self.role);
        self.common.now = self.common.now.max(now);
        let next = self.dispatch(input);
        self.enter(next);
        while let Some(envelope) = self.common.next_deferred() {
            let next = self.receive(envelope);
            self.enter(next);
        }
        self.common.expire_handed_over();
        let next = self.on_time();
        self.enter(next);
        before.check(&self.common, &self.role);
    }

    /// What is to be done, in order. Leaves nothing behind.
    #[must_use]
    pub fn take_effects(&mut self) -> Vec<Effect> {
        let Self { common, role } = self;
        common.flush_storage();
        match role {
            Role::Leader(leader) => leader.flush(common),
            Role::Follower(follower) => follower.reads.flush(common, follower.leader),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
        common.flush_apply();
        invariants::check(common, role);
        common.take_effects()
    }

    /// When to step with [`Input::Wake`] unless there is news before. Ask after
    /// [`take_effects`](Self::take_effects). `None`: never, only news can change anything.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let common = &self.common;
        let role = match &self.role {
            Role::Follower(follower) => follower.on_deadline(common),
            Role::PreCandidate(pre_candidate) => Some(pre_candidate.deadline),
            Role::Candidate(candidate) => Some(candidate.deadline),
            Role::Leader(leader) => leader.deadline(common),
        };
        let handed_over = common.handed_over.map(|handed_over| handed_over.deadline);
        let retry = common.unreadable_deadline();
        role.into_iter().chain(handed_over).chain(retry).min()
    }

    fn dispatch(&mut self, input: Input) -> Next {
        match input {
            Input::Wake => Next::Stay,
            Input::Receive(envelope) => self.receive(envelope),
            Input::Propose(proposal) => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.propose(&mut self.common, proposal);
                } else {
                    let error = ProposeError::NotLeader { leader: self.leader() };
                    self.common.answer(Answer::ProposeFailed { id: proposal.id, error });
                }
                Next::Stay
            }
            Input::Read { id, mode } => {
                self.read(id, mode);
                Next::Stay
            }
            Input::Change { id, change } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.change(&mut self.common, id, &change);
                } else {
                    let result = Err(ChangeError::NotLeader { leader: self.leader() });
                    self.common.answer(Answer::Change { id, result });
                }
                Next::Stay
            }
            Input::Transfer { id, to } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.transfer(&mut self.common, id, to);
                } else {
                    let result = Err(TransferError::NotLeader { leader: self.leader() });
                    self.common.answer(Answer::Transfer { id, result });
                }
                Next::Stay
            }
            Input::Campaign { id } => self.campaign(id),
            Input::Persisted(seq) => {
                self.common.persisted(seq);
                match &mut self.role {
                    Role::Candidate(candidate) => candidate.on_persisted(&self.common),
                    Role::Leader(leader) => leader.advance_commit(&mut self.common),
                    Role::Follower(_) | Role::PreCandidate(_) => Next::Stay,
                }
            }
            Input::Applied(index) => {
                self.common.applied(index);
                Next::Stay
            }
            Input::Loaded { id, mut result } => {
                if self.common.loaded_for_retry(id, &result) {
                    return Next::Stay;
                }
                if self.common.loaded_for_apply(id, &mut result) {
                    return self.give_up_if_unreadable();
                }
                match &mut self.role {
                    Role::Leader(leader) => leader.on_loaded(&mut self.common, id, result),
                    _ => Next::Stay,
                }
            }
            Input::SnapshotPrepared { to, snapshot } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.on_snapshot_prepared(&mut self.common, to, snapshot);
                }
                Next::Stay
            }
            Input::SnapshotFetched { snapshot, complete } => {
                let fetched = self.common.fetch.take_if(|fetch| fetch.snapshot.id == snapshot);
                // A candidate has told others how its log ends, so it must not replace it; a
                // leader needs no snapshot. Who leads next offers one again.
                if let (Some(fetch), Role::Follower(follower)) = (fetched, &mut self.role) {
                    follower.on_snapshot_fetched(&mut self.common, &fetch, complete);
                }
                Next::Stay
            }
            Input::Compact { up_to } => {
                self.common.compact(up_to);
                Next::Stay
            }
            Input::PeerClosed { peer, incarnation } => {
                match &mut self.role {
                    Role::Follower(follower) => {
                        follower.on_peer_closed(&mut self.common, peer, incarnation);
                    }
                    Role::Leader(leader) => leader.on_peer_closed(peer),
                    Role::PreCandidate(_) | Role::Candidate(_) => {}
                }
                Next::Stay
            }
        }
    }

    fn read(&mut self, id: RequestId, mode: ReadMode) {
        let Self { common, role } = self;
        let error = match (role, mode) {
            (Role::Leader(leader), mode) => return leader.read(common, id, mode),
            (Role::Follower(follower), ReadMode::ReadIndex) => {
                return follower.reads.add(common, follower.leader, id);
            }
            (_, ReadMode::ReadIndex) => ReadError::NoLeader,
            (_, ReadMode::Lease) => ReadError::NotLeader { leader: self.leader() },
        };
        self.common.answer(Answer::Read { id, result: Err(error) });
    }

    /// An operator wants this node to lead.
    fn campaign(&mut self, id: RequestId) -> Next {
        let common = &mut self.common;
        let lease_wait = common.lease_kept_until().map_or(0, |until| until.since(common.now));
        let error = if matches!(self.role, Role::Leader(_)) {
            CampaignError::AlreadyLeader
        } else if !common.has_vote() {
            CampaignError::NotVoter
        } else if lease_wait > 0 {
            CampaignError::LeaseHeld { wait_us: lease_wait }
        } else if !common.may_campaign() {
            CampaignError::Unfit
        } else {
            let term = common.term().next();
            common.answer(Answer::Campaign { id, result: Ok(term) });
            return Next::Campaign(ElectionCause::Forced);
        };
        common.answer(Answer::Campaign { id, result: Err(error) });
        Next::Stay
    }

    /// The log cannot be read where the state machine must go on: somebody else has to lead.
    fn give_up_if_unreadable(&self) -> Next {
        match (self.common.unreadable, &self.role) {
            (Some(unreadable), Role::Leader(_)) => {
                Next::StepDown(StepDownReason::Unreadable { index: unreadable.index })
            }
            _ => Next::Stay,
        }
    }

    fn on_time(&mut self) -> Next {
        let Self { common, role } = self;
        match role {
            Role::Follower(follower) => follower.on_time(common),
            Role::PreCandidate(pre_candidate) => pre_candidate.on_time(common),
            Role::Candidate(candidate) => candidate.on_time(common),
            Role::Leader(leader) => leader.on_time(common),
        }
    }

    // Roles.

    /// The only way from one role to another by a role's own wish.
    fn enter(&mut self, next: Next) {
        match next {
            Next::Stay => {}
            Next::Follow => self.become_follower(None),
            Next::Voted => {
                self.become_follower(None);
                let deadline = self.common.random_election_deadline();
                if let Role::Follower(follower) = &mut self.role {
                    follower.deadline = deadline;
                }
            }
            Next::PreCampaign => {
                self.abandon_pursuit();
                let pre_candidate = PreCandidate::new(&mut self.common);
                let next = pre_candidate.verdict(&self.common);
                self.role = Role::PreCandidate(pre_candidate);
                self.enter(next);
            }
            Next::Campaign(cause) => {
                self.abandon_pursuit();
                self.role = Role::Candidate(Candidate::new(&mut self.common, cause));
            }
            Next::Lead => {
                assert!(
                    self.common.durability.hard_state_is_durable()
                        && self.common.hard_state.voted_for == Some(self.common.node()),
                    "Election Safety (Figure 3): leading without a durable vote for oneself"
                );
                let leader = Leader::new(&mut self.common);
                self.role = Role::Leader(Box::new(leader));
                self.common.leader_known(self.common.node());
            }
            Next::StepDown(why) => {
                self.leave_role(why);
                self.become_follower(None);
            }
        }
    }

    pub(crate) fn become_follower(&mut self, leader: Option<NodeId>) {
        self.abandon_pursuit();
        // A higher term alone is no reason to wait longer: the candidate that brought it may be one
        // that cannot win. Only a leader's word and a granted vote restart the timer (§5.2).
        let deadline = match &self.role {
            Role::Follower(follower) => follower.deadline,
            Role::PreCandidate(pre_candidate) => pre_candidate.deadline,
            Role::Candidate(candidate) => candidate.deadline,
            Role::Leader(_) => self.common.random_election_deadline(),
        };
        let follower = Follower::new(&self.common, leader, deadline);
        self.role = Role::Follower(follower);
        if let Some(leader) = leader {
            self.common.leader_known(leader);
        }
    }

    /// Ends what only makes sense for the leader that was followed, or for the votes asked for.
    fn abandon_pursuit(&mut self) {
        match &mut self.role {
            Role::Follower(follower) => follower.reads.abandon(&mut self.common),
            Role::PreCandidate(_) | Role::Candidate(_) => {
                self.common.durability.forget_campaign();
            }
            Role::Leader(_) => {}
        }
    }

    /// Answers what waits for this leader's own leadership.
    pub(crate) fn leave_role(&mut self, why: StepDownReason) {
        let Self { common, role } = self;
        if let Role::Leader(leader) = role {
            let term = common.term();
            common.notice(Notice::SteppedDown { term, why });
            leader.abandon(common);
            // A deposed leader has no leader to be loyal to.
            common.leader_contact = None;
        }
    }

    // Views.

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.common.config
    }

    /// The role that the server plays.
    #[must_use]
    pub const fn role(&self) -> RoleName {
        self.role.name()
    }

    /// The current term.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.common.term()
    }

    /// The leader of the current term, if known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.common.node()),
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// The highest index known to be committed.
    #[must_use]
    pub const fn commit_index(&self) -> Index {
        self.common.commit_index
    }

    /// The highest index that the state machine has reported.
    #[must_use]
    pub const fn applied(&self) -> Index {
        self.common.applying.applied()
    }

    /// The configuration in force: the latest in the log, committed or not.
    #[must_use]
    pub fn membership(&self) -> &Arc<Membership> {
        self.common.membership()
    }

    /// The term of the entry at `index`. `None` behind the log's end and before its start, of
    /// which the last compacted entry is still known.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.common.log.term_at(index)
    }

    /// The runs of terms of the log behind its start: first index and term of each, ascending.
    pub fn terms(&self) -> impl Iterator<Item = (Index, Term)> + '_ {
        self.common.log.runs()
    }

    /// What a snapshot of the state machine at `index` stands for. `None` unless `index` is
    /// applied, not before the log's start, and has a configuration.
    #[must_use]
    pub fn snapshot_meta(&self, index: Index) -> Option<SnapshotMeta> {
        let common = &self.common;
        if index > common.applying.applied() || common.installing.is_some() {
            return None;
        }
        let term = common.log.term_at(index)?;
        let membership = common.configurations.at(index).clone();
        let id = crate::types::LogId::new(index, term);
        (!membership.is_empty()).then_some(SnapshotMeta { id, membership })
    }

    /// Term, vote and seen incarnations. The commit index in it is the one last written.
    #[must_use]
    pub const fn hard_state(&self) -> &HardState {
        &self.common.hard_state
    }

    /// Everything worth seeing.
    #[must_use]
    pub fn status(&self) -> Status {
        let common = &self.common;
        let (membership_index, membership) = common.configurations.latest();
        let leader = match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        };
        Status {
            node: common.node(),
            role: self.role(),
            term: common.term(),
            voted_for: common.hard_state.voted_for,
            leader: self.leader(),
            compacted: common.log.base(),
            last_log: common.log.last(),
            durable_index: common.durability.index(),
            commit_index: common.commit_index,
            applied: common.applying.applied(),
            membership: membership.clone(),
            membership_index,
            unapplied_bytes: common.backlog.bytes(),
            tail_bytes: common.log.tail_bytes(),
            unreadable: common.unreadable.map(|unreadable| unreadable.index),
            writing_since: common.durability.writing_since(),
            fetching: common.fetch.as_ref().map(|fetch| fetch.snapshot.id),
            peers: leader.map_or_else(Vec::new, |leader| leader.peers()),
            transfer_to: leader.and_then(|leader| leader.transfer_to()),
        }
    }
}
