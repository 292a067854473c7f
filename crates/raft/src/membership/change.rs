//! Changes of the configuration, as a caller asks for them.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use super::{Member, MemberRole, Membership};
use crate::types::NodeId;

/// A change of the configuration: any number of steps that take effect together.
///
/// If the set of voters changes by more than one, the cluster passes through a joint
/// configuration (§6) and leaves it by itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// The steps, in any order; each member may be named once.
    pub steps: Vec<ChangeStep>,
}

/// One part of a [`Change`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChangeStep {
    /// Adds a member that receives the log and has no vote.
    AddLearner {
        /// The new member; an id that was never used before.
        node: NodeId,
        /// Opaque description, see [`Member::context`].
        context: Bytes,
    },
    /// Adds a member that is to vote. It enters as a learner and becomes a voter once it has
    /// caught up, so that a member that is not running yet cannot stall the cluster. The change
    /// is complete, and answered, when the learner's entry has committed.
    AddVoter {
        /// The new member; an id that was never used before.
        node: NodeId,
        /// Opaque description, see [`Member::context`].
        context: Bytes,
        /// The member that leaves in the same step in which the new one becomes a voter.
        replaces: Option<NodeId>,
    },
    /// Makes a learner a voter; refused while its log lags.
    Promote {
        /// The learner.
        node: NodeId,
    },
    /// Makes a voter a learner.
    Demote {
        /// The voter.
        node: NodeId,
    },
    /// Removes a member. Its id must not be used again.
    Remove {
        /// The member.
        node: NodeId,
    },
    /// Replaces the opaque description of a member.
    SetContext {
        /// The member.
        node: NodeId,
        /// The new description.
        context: Bytes,
    },
    /// Raises the feature level; refused unless all members are known to support it.
    SetFeatureLevel {
        /// The new level, not below the current one.
        level: u32,
    },
    /// Turns lease reads on (with that duration in microseconds) or off.
    SetLease {
        /// See [`Membership::lease_us`].
        lease_us: Option<u64>,
    },
}

impl ChangeStep {
    /// The member that the step is about, if it is about one.
    #[must_use]
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Self::AddLearner { node, .. }
            | Self::AddVoter { node, .. }
            | Self::Promote { node }
            | Self::Demote { node }
            | Self::Remove { node }
            | Self::SetContext { node, .. } => Some(*node),
            Self::SetFeatureLevel { .. } | Self::SetLease { .. } => None,
        }
    }
}

impl From<ChangeStep> for Change {
    fn from(step: ChangeStep) -> Self {
        Self { steps: Vec::from([step]) }
    }
}

impl FromIterator<ChangeStep> for Change {
    fn from_iter<I: IntoIterator<Item = ChangeStep>>(steps: I) -> Self {
        Self { steps: steps.into_iter().collect() }
    }
}

/// Why steps make no sense for a configuration. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum InvalidChange {
    /// The change has no steps.
    NoSteps,
    /// Two steps are about the same member; say what it shall be in one.
    NamedTwice {
        /// That member.
        node: NodeId,
    },
    /// The id is taken. Updating a description is `SetContext`; a wiped server needs a new id.
    AlreadyMember {
        /// That member.
        node: NodeId,
    },
    /// There is no such member.
    NotMember {
        /// The id that was given.
        node: NodeId,
    },
    /// Only a learner can be promoted.
    NotLearner {
        /// The member that was to be promoted.
        node: NodeId,
    },
    /// Only a voter can be demoted.
    NotVoter {
        /// The member that was to be demoted.
        node: NodeId,
    },
    /// Node ids are not zero.
    ZeroId,
    /// No voter would remain, so nothing could ever be decided again.
    NoVoterLeft,
    /// The feature level never goes down: data of the higher level may be in the log already.
    FeatureLevelLowered {
        /// The level in force.
        from: u32,
    },
}

impl fmt::Display for InvalidChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSteps => f.write_str("the change has no steps"),
            Self::NamedTwice { node } => write!(f, "node {node} is named by two steps"),
            Self::AlreadyMember { node } => write!(f, "node {node} is a member already"),
            Self::NotMember { node } => write!(f, "node {node} is not a member"),
            Self::NotLearner { node } => write!(f, "node {node} is not a learner"),
            Self::NotVoter { node } => write!(f, "node {node} is not a voter"),
            Self::ZeroId => f.write_str("node ids are not zero"),
            Self::NoVoterLeft => f.write_str("no voter would be left"),
            Self::FeatureLevelLowered { from } => {
                write!(f, "the feature level never goes down from {from}")
            }
        }
    }
}

impl core::error::Error for InvalidChange {}

impl Membership {
    /// The configuration that `change` makes out of this one: joint if more than one voter comes
    /// or goes.
    ///
    /// # Errors
    ///
    /// When the steps make no sense; see [`InvalidChange`].
    pub fn changed(&self, change: &Change) -> Result<Self, InvalidChange> {
        debug_assert!(!self.is_joint(), "no change is made out of a joint configuration");
        if change.steps.is_empty() {
            return Err(InvalidChange::NoSteps);
        }
        let mut next = self.clone();
        for (at, step) in change.steps.iter().enumerate() {
            if let Some(node) = step.node()
                && change.steps[..at].iter().any(|earlier| earlier.node() == Some(node))
            {
                return Err(InvalidChange::NamedTwice { node });
            }
            next.apply(step)?;
        }
        next.joined(self)
    }

    fn apply(&mut self, step: &ChangeStep) -> Result<(), InvalidChange> {
        match step {
            ChangeStep::AddLearner { node, context } => {
                self.insert(*node, MemberRole::LEARNER, context)
            }
            ChangeStep::AddVoter { node, context, replaces } => {
                if let Some(old) = *replaces
                    && !self.contains(old)
                {
                    return Err(InvalidChange::NotMember { node: old });
                }
                let role =
                    MemberRole::Learner { promote_when_caught_up: true, replaces: *replaces };
                self.insert(*node, role, context)
            }
            ChangeStep::Promote { node } => {
                let member = self.member_mut(*node)?;
                let MemberRole::Learner { replaces, .. } = member.role else {
                    return Err(InvalidChange::NotLearner { node: *node });
                };
                member.role = MemberRole::Voter;
                // Gone already is as good as replaced.
                if let Some(old) = replaces {
                    self.members.remove(&old);
                }
                Ok(())
            }
            ChangeStep::Demote { node } => {
                let member = self.member_mut(*node)?;
                if member.role != MemberRole::Voter {
                    return Err(InvalidChange::NotVoter { node: *node });
                }
                member.role = MemberRole::LEARNER;
                Ok(())
            }
            ChangeStep::Remove { node } => {
                self.member_mut(*node)?;
                self.members.remove(node);
                Ok(())
            }
            ChangeStep::SetContext { node, context } => {
                self.member_mut(*node)?.context = context.clone();
                Ok(())
            }
            ChangeStep::SetFeatureLevel { level } => {
                if *level < self.feature_level {
                    return Err(InvalidChange::FeatureLevelLowered { from: self.feature_level });
                }
                self.feature_level = *level;
                Ok(())
            }
            ChangeStep::SetLease { lease_us } => {
                self.lease_us = lease_us.filter(|us| *us > 0);
                Ok(())
            }
        }
    }

    fn insert(
        &mut self,
        node: NodeId,
        role: MemberRole,
        context: &Bytes,
    ) -> Result<(), InvalidChange> {
        if node == NodeId(0) {
            return Err(InvalidChange::ZeroId);
        }
        if self.contains(node) {
            return Err(InvalidChange::AlreadyMember { node });
        }
        let member = Member { role, incarnation: None, context: context.clone() };
        self.members.insert(node, member);
        Ok(())
    }

    fn member_mut(&mut self, node: NodeId) -> Result<&mut Member, InvalidChange> {
        self.members.get_mut(&node).ok_or(InvalidChange::NotMember { node })
    }

    /// Makes `self`, whose steps were applied, what may follow `old` in the log.
    fn joined(self, old: &Self) -> Result<Self, InvalidChange> {
        let next = Self::assemble(self.members, Vec::new(), self.feature_level, self.lease_us);
        if next.voters.is_empty() {
            return Err(InvalidChange::NoVoterLeft);
        }
        let come = next.voters.iter().filter(|node| old.voters.binary_search(node).is_err());
        let gone = old.voters.iter().filter(|node| next.voters.binary_search(node).is_err());
        if come.count() + gone.count() <= 1 {
            return Ok(next);
        }
        // Those that only voted in the old configuration must still receive the log, since their
        // votes are needed until the joint configuration is left.
        let mut members = next.members;
        for node in &old.voters {
            if !members.contains_key(node) {
                let mut leaving = old.members[node].clone();
                leaving.role = MemberRole::Leaving;
                members.insert(*node, leaving);
            }
        }
        Ok(Self::assemble(members, old.voters.clone(), next.feature_level, next.lease_us))
    }
}
