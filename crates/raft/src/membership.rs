//! Who takes part in the cluster (§6; thesis chapter 4).
//!
//! A [`Membership`] is the whole configuration at one point of the log. It is a value: a change
//! makes a new one, which travels as an entry and is in force from the moment it is appended.
//!
//! A change of at most one voter goes in one step, because any two majorities of neighbouring
//! configurations share a server (thesis 4.1). Any other change passes through a *joint*
//! configuration, in which every decision needs a majority of the old voters *and* one of the new
//! (§6). The leader leaves the joint configuration by itself once it has committed.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::quorum;
use crate::types::{Incarnation, NodeId};

pub(crate) mod bytes_form;
mod change;

pub use bytes_form::MembershipBytesError;
pub use change::{Change, ChangeStep, InvalidChange};

/// The configuration of a cluster: its members, whose majority decides, and what they agreed on
/// about themselves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    members: BTreeMap<NodeId, Member>,
    /// Members whose role is `Voter`, ascending; kept beside `members` because every
    /// acknowledgement asks for it.
    voters: Vec<NodeId>,
    /// The voters of the old configuration, ascending; empty unless joint.
    outgoing: Vec<NodeId>,
    feature_level: u32,
    lease_us: Option<u64>,
}

/// What the cluster knows of one member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its part in the (new) configuration.
    pub role: MemberRole,
    /// The data directory that is this member. `None` until a leader has heard from it and bound
    /// it; from then on another incarnation under the same id is a stranger.
    pub incarnation: Option<Incarnation>,
    /// Whatever the host wants to keep about the member (addresses, a name); opaque to Raft.
    pub context: Bytes,
}

/// The part that a member plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberRole {
    /// Counts in elections and for commitment.
    Voter,
    /// Receives the log and counts for nothing (thesis 4.2.1).
    Learner {
        /// Whichever node leads makes it a voter as soon as its log has caught up.
        promote_when_caught_up: bool,
        /// The member that leaves in the same step as this one is promoted.
        replaces: Option<NodeId>,
    },
    /// Voted in the old configuration of a joint change and has no part in the new one.
    Leaving,
}

impl MemberRole {
    /// A learner that stays one until somebody promotes it.
    pub const LEARNER: Self = Self::Learner { promote_when_caught_up: false, replaces: None };
}

impl Member {
    /// A member with that role, unbound and without context.
    #[must_use]
    pub const fn new(role: MemberRole) -> Self {
        Self { role, incarnation: None, context: Bytes::new() }
    }
}

impl Membership {
    /// The first configuration of a cluster, in which all of `nodes` are voters. Every one of
    /// them must start from exactly the same value.
    #[must_use]
    pub fn bootstrap(nodes: impl IntoIterator<Item = (NodeId, Member)>) -> Self {
        Self::assemble(nodes.into_iter().collect(), Vec::new(), 0, None)
    }

    /// A configuration of unbound voters without context; handy in tests.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self::bootstrap(voters.into_iter().map(|node| (node, Member::new(MemberRole::Voter))))
    }

    /// The same configuration with a lease of `lease_us` microseconds; see
    /// [`lease_us`](Self::lease_us).
    #[must_use]
    pub fn with_lease(mut self, lease_us: Option<u64>) -> Self {
        self.lease_us = lease_us.filter(|us| *us > 0);
        self
    }

    /// The same configuration at another feature level.
    #[must_use]
    pub const fn with_feature_level(mut self, feature_level: u32) -> Self {
        self.feature_level = feature_level;
        self
    }

    pub(crate) fn assemble(
        members: BTreeMap<NodeId, Member>,
        outgoing: Vec<NodeId>,
        feature_level: u32,
        lease_us: Option<u64>,
    ) -> Self {
        let voters = members
            .iter()
            .filter(|(_, member)| member.role == MemberRole::Voter)
            .map(|(node, _)| *node)
            .collect();
        Self { members, voters, outgoing, feature_level, lease_us }
    }

    /// All members that receive the log, by id: voters, learners and, while joint, the leaving.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(node, member)| (*node, member))
    }

    /// The member called `node`.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// Whether `node` is a member in any role.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    /// Voters of the (new) configuration, ascending.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// Voters of the old configuration, ascending; empty unless joint.
    #[must_use]
    pub fn outgoing(&self) -> &[NodeId] {
        &self.outgoing
    }

    /// Whether this is a joint configuration (§6).
    #[must_use]
    pub const fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `node` has a vote, in the new configuration or in the old one.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.binary_search(&node).is_ok() || self.outgoing.binary_search(&node).is_ok()
    }

    /// Whether nobody is a member: the configuration of a server that waits to be added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What kinds of entries and snapshots every member is known to understand. A node whose
    /// software supports less refuses to go on.
    #[must_use]
    pub const fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// How long a leader that has heard from a quorum may serve reads without asking again, in
    /// microseconds; `None`: leases are off (the default). It is part of the configuration because
    /// every voter must keep it: it grants no vote for that long after it heard from a leader.
    #[must_use]
    pub const fn lease_us(&self) -> Option<u64> {
        self.lease_us
    }

    /// Bytes that the members' descriptions take, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.values().map(|member| 32 + member.context.len()).sum::<usize>()
            + 8 * self.outgoing.len()
            + 32
    }

    /// Whether those for whom `holds` is true are a quorum: a majority of the voters and, while
    /// joint, also a majority of the old ones.
    pub fn has_quorum(&self, mut holds: impl FnMut(NodeId) -> bool) -> bool {
        quorum::is_majority(&self.voters, &mut holds)
            && (self.outgoing.is_empty() || quorum::is_majority(&self.outgoing, &mut holds))
    }

    /// Whether those for whom `holds` is true make a quorum of the others impossible.
    pub fn is_blocked_by(&self, mut holds: impl FnMut(NodeId) -> bool) -> bool {
        !self.has_quorum(|node| !holds(node))
    }

    /// The largest value that a quorum has reached, where `value` says how far each voter is.
    pub fn quorum_value<T: Ord + Copy>(&self, mut value: impl FnMut(NodeId) -> T) -> Option<T> {
        let new = quorum::majority_value(&self.voters, &mut value)?;
        if self.outgoing.is_empty() {
            return Some(new);
        }
        let old = quorum::majority_value(&self.outgoing, &mut value)?;
        Some(new.min(old))
    }

    /// The configuration that follows a committed joint one: the old voters have no say any more,
    /// and those that only they needed are gone.
    #[must_use]
    pub fn leave(&self) -> Self {
        let mut members = self.members.clone();
        members.retain(|_, member| member.role != MemberRole::Leaving);
        Self::assemble(members, Vec::new(), self.feature_level, self.lease_us)
    }

    /// This configuration with the incarnations of `seen` bound to members that have none yet.
    /// `None` if that changes nothing.
    #[must_use]
    pub fn bind(&self, seen: &[(NodeId, Incarnation)]) -> Option<Self> {
        let mut bound = self.clone();
        let mut changed = false;
        for (node, incarnation) in seen {
            if let Some(member) = bound.members.get_mut(node)
                && member.incarnation.is_none()
            {
                member.incarnation = Some(*incarnation);
                changed = true;
            }
        }
        changed.then_some(bound)
    }
}

impl fmt::Display for Membership {
    /// Voters, then learners behind `+`, those to be promoted behind `^`, a joint configuration as
    /// `new <- old`: `1 2 3`, `1 2 +4`, `2 3 4 <- 1 2 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (node, member) in &self.members {
            let mark = match member.role {
                MemberRole::Voter => "",
                MemberRole::Learner { promote_when_caught_up: true, .. } => "^",
                MemberRole::Learner { .. } => "+",
                MemberRole::Leaving => continue,
            };
            write!(f, "{separator}{mark}{node}")?;
            if let MemberRole::Learner { replaces: Some(old), .. } = member.role {
                write!(f, "/{old}")?;
            }
            separator = " ";
        }
        if self.is_joint() {
            f.write_str(" <-")?;
            for node in &self.outgoing {
                write!(f, " {node}")?;
            }
        }
        if self.feature_level > 0 {
            write!(f, " features={}", self.feature_level)?;
        }
        if let Some(lease_us) = self.lease_us {
            write!(f, " lease={}ms", lease_us / 1000)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
