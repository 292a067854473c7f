//! Changes of the membership, of every kind, up to seven voters.

use bytes::Bytes;
use quorate_raft::{Change, ChangeStep, MemberRole, Membership, NodeId};

use super::Nemesis;
use crate::cluster::Cluster;
use crate::options::RunOptions;
use crate::rng::Rng;

/// Most voters of a cluster.
const VOTERS_MAX: usize = 7;
/// Most members.
const MEMBERS_MAX: usize = 9;
/// Most hosts that are ever made in a run.
const HOSTS_MAX: usize = 14;

impl Nemesis {
    /// Draws a change of `membership`.
    pub(super) fn draw_change(&mut self, cluster: &Cluster, membership: &Membership) -> Change {
        // A wiped node is to be removed and replaced; sooner or later somebody does that.
        let wiped = self.wiped.iter().find(|node| membership.contains(**node)).copied();
        if let Some(old) = wiped
            && self.rng.chance(600_000)
        {
            return match self.new_member(cluster, membership) {
                Some(node) if self.rng.chance(500_000) => add_voter(node, Some(old)).into(),
                _ => ChangeStep::Remove { node: old }.into(),
            };
        }
        if self.rng.chance(250_000) {
            let count = self.rng.between(2, 4);
            let mut steps: Vec<ChangeStep> = Vec::new();
            for _ in 0..count {
                if let Some(step) = self.draw_step(cluster, membership)
                    && (step.node().is_none()
                        || steps.iter().all(|other| other.node() != step.node()))
                {
                    steps.push(step);
                }
            }
            return steps.into_iter().collect();
        }
        self.draw_step(cluster, membership).into_iter().collect()
    }

    fn draw_step(&mut self, cluster: &Cluster, membership: &Membership) -> Option<ChangeStep> {
        let voters = membership.voters().to_vec();
        let learners: Vec<NodeId> = membership
            .members()
            .filter(|(_, member)| matches!(member.role, MemberRole::Learner { .. }))
            .map(|(node, _)| node)
            .collect();
        let members: Vec<NodeId> = membership.members().map(|(node, _)| node).collect();
        let any = |rng: &mut Rng, nodes: &[NodeId]| rng.pick(nodes).copied();
        match self.rng.below(16) {
            0 | 1 => {
                let node = self.new_member(cluster, membership)?;
                Some(ChangeStep::AddLearner { node, context: Bytes::new() })
            }
            2..=4 if voters.len() < VOTERS_MAX => {
                let node = self.new_member(cluster, membership)?;
                Some(add_voter(node, None))
            }
            2..=5 => {
                let node = self.new_member(cluster, membership)?;
                let old = any(&mut self.rng, &members)?;
                Some(add_voter(node, Some(old)))
            }
            6 | 7 => Some(ChangeStep::Promote { node: any(&mut self.rng, &learners)? }),
            8 if voters.len() > 1 => {
                Some(ChangeStep::Demote { node: any(&mut self.rng, &voters)? })
            }
            9..=11 if voters.len() > 1 => {
                Some(ChangeStep::Remove { node: any(&mut self.rng, &members)? })
            }
            12 => {
                let node = any(&mut self.rng, &members)?;
                let context = Bytes::from(format!("at{}", self.rng.below(100)));
                Some(ChangeStep::SetContext { node, context })
            }
            13 => {
                let level = if self.rng.chance(200_000) { 2 } else { 1 };
                Some(ChangeStep::SetFeatureLevel { level })
            }
            14 => draw_lease(&mut self.rng, &self.options),
            // Nonsense.
            15 => Some(match self.rng.below(3) {
                0 => ChangeStep::Remove { node: NodeId(99) },
                1 => ChangeStep::AddLearner { node: *voters.first()?, context: Bytes::new() },
                _ => ChangeStep::Demote { node: *learners.first()? },
            }),
            _ => None,
        }
    }

    /// A host to add: one that waits already, or the name of a new one.
    fn new_member(&mut self, cluster: &Cluster, membership: &Membership) -> Option<NodeId> {
        if membership.members().count() >= MEMBERS_MAX {
            return None;
        }
        let waits = |node: &NodeId| {
            cluster.host(*node).is_some_and(|host| {
                let image = host.storage().written();
                image.start.membership.is_empty() && image.entries.is_empty()
            }) && !self.wiped.contains(node)
                && !self.retired.contains(node)
        };
        let waiting = cluster.nodes().into_iter().find(waits);
        if waiting.is_some() || cluster.nodes().len() >= HOSTS_MAX {
            return waiting;
        }
        self.last_node += 1;
        Some(NodeId(self.last_node))
    }
}

fn add_voter(node: NodeId, replaces: Option<NodeId>) -> ChangeStep {
    ChangeStep::AddVoter { node, context: Bytes::new(), replaces }
}

/// Leases are only turned on where the clocks keep the bound that they rest on, and where voters
/// keep their promise not to listen to candidates.
fn draw_lease(rng: &mut Rng, options: &RunOptions) -> Option<ChangeStep> {
    if !options.may_have_lease() {
        return None;
    }
    let lease_us = match rng.below(4) {
        0 => None,
        1 => Some(10 * options.election_max_us),
        _ => Some(options.election_min_us * rng.between(3, 9) / 10),
    };
    Some(ChangeStep::SetLease { lease_us })
}
