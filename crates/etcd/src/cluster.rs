//! The service of members. Changes are made by the leader; any member takes them to it.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quorate::core::{ChangeError as Core, InvalidChange};
use quorate::{ChangeError, ChangeStep, Consistency, Index, MemberRole, Membership, NodeId};
use tonic::{Request, Response, Status};

use crate::asks::Unanswered;
use crate::clock;
use crate::member::Member;
use crate::members;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::host::{Changed, answer, question};
use crate::status;

/// See the module.
pub(crate) struct ClusterService(pub(crate) Member);

const fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Voters as they count for what may be changed.
struct Voters {
    count: usize,
    started: usize,
    connected: usize,
}

impl Member {
    pub(crate) fn members(&self) -> Vec<pb::Member> {
        members::list(&self.0.node.membership(), &self.attributes())
    }

    /// Has a change made by the leader, and waits until this member knows it.
    async fn have_changed(&self, question: question::Question) -> Result<Changed, Status> {
        match self.ask_leader(question).await? {
            answer::Answer::Changed(changed) => {
                let reached = self.0.node.reach(Consistency::AtLeast(Index(changed.index))).await;
                reached.map_err(status::wait)?;
                Ok(changed)
            }
            _ => Err(status::confused()),
        }
    }

    async fn change(&self, step: ChangeStep, member: u64) -> Result<Changed, Unanswered> {
        match self.0.node.change(step.into()).await {
            Ok(at) => Ok(Changed { index: at.index.0, member }),
            Err(why) => Err(change_failed(why)),
        }
    }

    /// Those that will vote with the rest, members that are still catching up included.
    async fn voters(
        &self,
        membership: &Membership,
    ) -> Result<(Vec<NodeId>, Voters, Vec<NodeId>), Unanswered> {
        let attributes = self.attributes();
        let nodes: Vec<NodeId> = membership
            .members()
            .filter(|(_, member)| !matches!(member.role, MemberRole::LEARNER | MemberRole::Leaving))
            .map(|(node, _)| node)
            .collect();
        let node_status = self.0.node.status().await.map_err(|_| status::stopped())?;
        let limit =
            u64::try_from(2 * self.0.config.election_timeout.as_micros()).unwrap_or(u64::MAX);
        let now = clock::now_us();
        let is_connected = |node: &NodeId| {
            node.0 == self.0.member_id
                || node_status.peers.iter().any(|peer| {
                    peer.node == *node && now.saturating_sub(peer.last_contact.0) < limit
                })
        };
        let connected: Vec<NodeId> =
            nodes.iter().copied().filter(|node| is_connected(node)).collect();
        let started = nodes
            .iter()
            .filter(|node| members::is_started(membership, &attributes, **node))
            .count();
        let voters = Voters { count: nodes.len(), started, connected: connected.len() };
        Ok((nodes, voters, connected))
    }

    /// As the leader: adds a member.
    pub(crate) async fn add_member(
        &self,
        request: pb::MemberAddRequest,
    ) -> Result<Changed, Unanswered> {
        let urls = members::peer_urls(&request.peer_ur_ls).ok_or_else(status::member_bad_urls)?;
        if !urls.iter().all(|url| members::is_reachable(url)) {
            let why = "members can be reached by plain TCP only so far: give http URLs";
            return Err(Status::unimplemented(why).into());
        }
        let membership = self.0.node.membership();
        let (_, voters, _) = self.voters(&membership).await?;
        if self.0.config.strict_reconfig_check {
            let alone = voters.count == 1 && voters.started == 1;
            if !request.is_learner && !alone && voters.started < quorum(voters.count + 1) {
                return Err(status::not_enough_started().into());
            }
            if voters.count > 1 && voters.connected < quorum(voters.count + 1) {
                return Err(status::unhealthy().into());
            }
        }
        self.check_free(&membership, &urls, None)?;
        let learners =
            membership.members().filter(|(_, member)| member.role == MemberRole::LEARNER).count();
        if request.is_learner && learners >= self.0.config.max_learners {
            return Err(status::too_many_learners().into());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = members::member_id(&urls, "", Some(now.as_secs()));
        let node = NodeId(id);
        let context = Bytes::from(members::context("", &urls));
        let step = if request.is_learner {
            ChangeStep::AddLearner { node, context }
        } else {
            ChangeStep::AddVoter { node, context, replaces: None }
        };
        self.change(step, id).await
    }

    /// Refuses peer URLs that another member has.
    fn check_free(
        &self,
        membership: &Membership,
        urls: &[String],
        own: Option<u64>,
    ) -> Result<(), Status> {
        let is_taken =
            membership.members().filter(|(node, _)| Some(node.0) != own).any(|(_, member)| {
                let (_, taken) = members::of_context(&member.context);
                taken.iter().any(|url| urls.contains(url))
            });
        if is_taken { Err(status::peer_url_exists()) } else { Ok(()) }
    }

    /// As the leader: removes a member.
    pub(crate) async fn remove_member(&self, id: u64) -> Result<Changed, Unanswered> {
        let node = NodeId(id);
        let membership = self.0.node.membership();
        let member = membership.member(node).ok_or_else(status::member_not_found)?;
        if self.0.config.strict_reconfig_check && member.role != MemberRole::LEARNER {
            let (_, voters, connected) = self.voters(&membership).await?;
            let left = voters.count - 1;
            let is_started = members::is_started(&membership, &self.attributes(), node);
            if voters.started - usize::from(is_started) < quorum(left) {
                return Err(status::not_enough_started().into());
            }
            if connected.contains(&node) && voters.connected - 1 < 1 + left.saturating_sub(1) / 2 {
                return Err(status::unhealthy().into());
            }
        }
        self.change(ChangeStep::Remove { node }, id).await
    }

    /// As the leader: makes a learner a voter.
    pub(crate) async fn promote_member(&self, id: u64) -> Result<Changed, Unanswered> {
        let node = NodeId(id);
        let membership = self.0.node.membership();
        let member = membership.member(node).ok_or_else(status::member_not_found)?;
        if member.role != MemberRole::LEARNER {
            return Err(status::not_a_learner().into());
        }
        if self.0.config.strict_reconfig_check {
            let (_, voters, _) = self.voters(&membership).await?;
            if voters.started + 1 < quorum(voters.count + 1) {
                return Err(status::not_enough_started().into());
            }
        }
        let node_status = self.0.node.status().await.map_err(|_| status::stopped())?;
        let reached = node_status.peers.iter().find(|peer| peer.node == node);
        let reached = reached.map_or(0, |peer| peer.match_index.0);
        // Nine tenths of what the leader has; the core asks for more where the log is long.
        if reached.saturating_mul(10) < node_status.last_log.index.0.saturating_mul(9) {
            return Err(status::learner_not_ready().into());
        }
        self.change(ChangeStep::Promote { node }, id).await
    }

    /// As the leader: gives a member other peer URLs.
    pub(crate) async fn update_member(
        &self,
        request: pb::MemberUpdateRequest,
    ) -> Result<Changed, Unanswered> {
        let node = NodeId(request.id);
        let membership = self.0.node.membership();
        let member = membership.member(node).ok_or_else(status::member_not_found)?;
        self.check_free(&membership, &request.peer_ur_ls, Some(request.id))?;
        let (name, _) = members::of_context(&member.context);
        let context = Bytes::from(members::context(&name, &request.peer_ur_ls));
        self.change(ChangeStep::SetContext { node, context }, request.id).await
    }
}

fn change_failed(why: ChangeError) -> Unanswered {
    let ChangeError::Refused { why, .. } = why else {
        return match why {
            ChangeError::Busy => status::too_many_requests().into(),
            _ => status::stopped().into(),
        };
    };
    Unanswered::Status(match why {
        Core::NotLeader { .. } | Core::Transferring { .. } => return Unanswered::NotLeader,
        Core::Lagging { .. } => status::learner_not_ready(),
        Core::NoQuorum { .. } => status::unhealthy(),
        Core::OutcomeUnknown { .. } => status::timed_out_by_leader(),
        Core::TooLarge { .. } => status::too_large(),
        Core::Invalid(InvalidChange::AlreadyMember { .. }) => status::member_exists(),
        Core::Invalid(InvalidChange::NotMember { .. }) => status::member_not_found(),
        Core::Invalid(InvalidChange::NotLearner { .. }) => status::not_a_learner(),
        Core::Invalid(InvalidChange::NoVoterLeft) => status::not_enough_started(),
        Core::NotReady | Core::InFlight { .. } => status::timed_out(),
        why => Status::failed_precondition(why.to_string()),
    })
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let question = question::Question::MemberAdd(request.into_inner());
        let changed = self.0.have_changed(question).await?;
        let members = self.0.members();
        let member = members.iter().find(|member| member.id == changed.member).cloned();
        Ok(Response::new(pb::MemberAddResponse { header: self.0.header(0), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let id = request.into_inner().id;
        self.0.have_changed(question::Question::MemberRemove(id)).await?;
        let members = self.0.members();
        Ok(Response::new(pb::MemberRemoveResponse { header: self.0.header(0), members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.0.have_changed(question::Question::MemberUpdate(request.into_inner())).await?;
        let members = self.0.members();
        Ok(Response::new(pb::MemberUpdateResponse { header: self.0.header(0), members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.0.linearizable().await?;
        }
        let members = self.0.members();
        Ok(Response::new(pb::MemberListResponse { header: self.0.header(0), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let id = request.into_inner().id;
        let promoted = self.0.have_changed(question::Question::MemberPromote(id)).await;
        match &promoted {
            Ok(_) => self.0.metrics().promotions.increment(),
            Err(why) => self.0.metrics().not_promoted(why.message()),
        }
        promoted?;
        let members = self.0.members();
        Ok(Response::new(pb::MemberPromoteResponse { header: self.0.header(0), members }))
    }
}
