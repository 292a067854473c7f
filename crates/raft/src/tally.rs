//! Counting votes.

use alloc::collections::BTreeSet;

use crate::membership::Membership;
use crate::types::NodeId;

/// Who has granted a vote. Each counts once, and only if the configuration gives it a vote.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    granted: BTreeSet<NodeId>,
}

impl Tally {
    pub(crate) fn grant(&mut self, node: NodeId) {
        self.granted.insert(node);
    }

    /// Whether a majority has granted, while joint one of the old voters as well (§6).
    pub(crate) fn is_won(&self, membership: &Membership) -> bool {
        membership.has_quorum(|node| self.granted.contains(&node))
    }
}
