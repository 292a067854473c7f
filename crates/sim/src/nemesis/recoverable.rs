//! What must not be lost if the cluster is to recover.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_raft::{Change, Index, MemberRole, Membership, NodeId, Payload};

use super::Nemesis;
use crate::checkers::Checkers;
use crate::cluster::{Cluster, Host};
use crate::storage::LogImage;

/// The latest configuration in a log, and where it comes from.
fn latest(log: &LogImage) -> (Index, &Arc<Membership>) {
    let in_entries = log.entries.iter().rev().find_map(|entry| match &entry.payload {
        Payload::Membership(membership) => Some((entry.index, membership)),
        _ => None,
    });
    in_entries.unwrap_or((log.start.id.index, &log.start.membership))
}

/// All configurations that may come to decide: the one that is committed, and later ones at the ends
/// of logs. Whoever still has an earlier one hears of its successor from a quorum of that.
fn in_play(cluster: &Cluster, checkers: &Checkers) -> Vec<Arc<Membership>> {
    let committed = checkers.committed_membership();
    let floor = committed.map_or(Index::ZERO, |(index, _)| index);
    let logs = cluster.hosts().flat_map(|host| {
        let storage = host.storage();
        [latest(storage.written()), latest(storage.durable())]
    });
    logs.filter(|(index, _)| *index >= floor)
        .chain(committed)
        .map(|(_, membership)| Arc::clone(membership))
        .filter(|membership| !membership.is_empty())
        .collect()
}

/// Whether a leader may make the node a voter by itself, believing what it heard of it last.
#[must_use]
pub fn is_to_be_promoted(cluster: &Cluster, checkers: &Checkers, node: NodeId) -> bool {
    in_play(cluster, checkers).iter().any(|membership| {
        let role = membership.member(node).map(|member| member.role);
        matches!(role, Some(MemberRole::Learner { promote_when_caught_up: true, .. }))
    })
}

/// Whether every configuration that may come to decide has a quorum without the nodes `lost`.
#[must_use]
pub fn is_recoverable_without(
    cluster: &Cluster,
    checkers: &Checkers,
    lost: &BTreeSet<NodeId>,
) -> bool {
    let has_quorum =
        |membership: &Arc<Membership>| membership.has_quorum(|node| !lost.contains(&node));
    in_play(cluster, checkers).iter().all(has_quorum)
}

/// Whether a node has no part in any configuration that may come to decide, so that it may be shut
/// down for ever.
#[must_use]
pub fn is_outside(cluster: &Cluster, checkers: &Checkers, node: NodeId) -> bool {
    checkers.committed_membership().is_some()
        && !in_play(cluster, checkers).iter().any(|membership| membership.contains(node))
}

impl Nemesis {
    /// Whether a node may be asked for a change: nobody removes the living while the dead count. (The
    /// leader refuses such a change too, but only when it knows who is dead.)
    pub(super) fn may_change(&self, cluster: &Cluster, node: NodeId, change: &Change) -> bool {
        let Some(brief) = cluster.host(node).and_then(Host::brief) else { return true };
        if self.wiped.is_empty() || brief.membership.is_joint() {
            return self.wiped.is_empty();
        }
        let next = brief.membership.changed(change);
        next.is_ok_and(|next| next.has_quorum(|node| !self.wiped.contains(&node)))
    }

    /// Whether the log of a node may rot. It keeps its promises as long as it runs, and says nothing
    /// any more when it has found out; so all that is asked for is a quorum without it.
    pub(super) fn may_rot(&self, cluster: &Cluster, checkers: &Checkers, node: NodeId) -> bool {
        let lost = self.wiped.iter().chain([&node]).copied().collect();
        !self.wiped.contains(&node)
            && !self.retired.contains(&node)
            && self.changes.is_empty()
            && checkers.committed_membership().is_some()
            && !is_to_be_promoted(cluster, checkers, node)
            && is_recoverable_without(cluster, checkers, &lost)
    }

    /// Whether a node may lose its data directory.
    ///
    /// Its promises are void then. That is harmless as long as nobody counts on what comes back in
    /// its place, so whoever can be elected must know its incarnation; the binding entry must have
    /// reached them all. (A member that is wiped before that is a member that never was bound: the
    /// cluster cannot tell the difference, and a host must not be run that way.) And without it, and
    /// those wiped before it, there must be a quorum.
    pub(super) fn may_wipe(&self, cluster: &Cluster, checkers: &Checkers, node: NodeId) -> bool {
        let Some(host) = cluster.host(node) else { return false };
        if self.wiped.contains(&node) || self.retired.contains(&node) || !self.changes.is_empty() {
            return false;
        }
        let incarnation = host.incarnation();
        let is_bound = |membership: &Membership| {
            membership.member(node).is_none_or(|member| member.incarnation == Some(incarnation))
        };
        let knows = |other: &Host| {
            let (_, membership) = latest(other.storage().durable());
            !membership.is_voter(other.id()) || is_bound(membership)
        };
        let committed = checkers.committed_membership();
        let lost = self.wiped.iter().chain([&node]).copied().collect();
        committed.is_some_and(|(_, membership)| membership.contains(node) && is_bound(membership))
            && cluster.hosts().all(knows)
            && !is_to_be_promoted(cluster, checkers, node)
            && is_recoverable_without(cluster, checkers, &lost)
    }
}
