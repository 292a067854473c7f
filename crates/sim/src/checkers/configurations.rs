//! Configuration safety: changes of the membership cannot make two majorities that do not meet.

use std::sync::Arc;

use quorate_raft::{Entry, Index, Membership, NodeId, Payload, Term};

use super::shadow::ShadowLog;
use super::violation::Property;
use super::{Found, found};

/// Voters beyond which quorums are not enumerated; simulated clusters stay far below.
const VOTERS_MAX: usize = 16;

/// Whether a step from one to the other changes who decides.
pub(super) fn alters_quorums(old: &Membership, new: &Membership) -> bool {
    (old.voters(), old.outgoing()) != (new.voters(), new.outgoing())
}

/// Whether each quorum of `a` shares a server with each quorum of `b`, by trying all sets of
/// servers: no cleverness that could share an error with the code under test.
pub(super) fn quorums_overlap(a: &Membership, b: &Membership) -> bool {
    let mut voters: Vec<NodeId> =
        [a, b].into_iter().flat_map(|m| m.voters().iter().chain(m.outgoing())).copied().collect();
    voters.sort_unstable();
    voters.dedup();
    if voters.len() > VOTERS_MAX {
        return true;
    }
    let member = |set: u32, node: NodeId| {
        voters.binary_search(&node).is_ok_and(|position| set & (1 << position) != 0)
    };
    (0..1u32 << voters.len()).all(|set| {
        !(a.has_quorum(|node| member(set, node)) && b.has_quorum(|node| !member(set, node)))
    })
}

/// The leader of `term`, whose log was `log` and whose commit index is `commit`, appends `entry`.
pub(super) fn appended_by_leader(
    node: NodeId,
    term: Term,
    log: &ShadowLog,
    commit: Index,
    entry: &Entry,
) -> Found {
    let Payload::Membership(new) = &entry.payload else { return Ok(()) };
    let old = log.config();
    if entry.term != term || !alters_quorums(old, new) {
        return Ok(());
    }
    let broken = |what: String| found(Property::ConfigurationSafety, [node], || what);
    // The correction of 2015 to single-server changes.
    if log.term_at(commit) != Some(term) {
        return broken(format!(
            "the leader appends configuration [{new}] at {} before it has committed an entry of \
             its own term (commit index {commit})",
            entry.log_id()
        ));
    }
    let under_way = log
        .config_pairs()
        .find(|(before, index, after)| *index > commit && alters_quorums(before, after));
    if let Some((_, index, after)) = under_way {
        return broken(format!(
            "the leader appends configuration [{new}] at {} while [{after}] at index {index} has \
             not committed (commit index {commit})",
            entry.log_id()
        ));
    }
    if !quorums_overlap(old, new) {
        return broken(format!(
            "quorums of configuration [{new}] at {} need not share a server with those of [{old}] \
             before it",
            entry.log_id()
        ));
    }
    Ok(())
}

/// `membership` is in force at a node whose log is `log`.
pub(super) fn in_force(node: NodeId, membership: &Arc<Membership>, log: &ShadowLog) -> Found {
    if Arc::ptr_eq(membership, log.config()) || membership == log.config() {
        return Ok(());
    }
    found(Property::ConfigurationInForce, [node], || {
        format!(
            "[{membership}] is in force, but the latest in the log is [{}] at index {}",
            log.config(),
            log.config_index()
        )
    })
}

#[cfg(test)]
mod tests {
    use quorate_raft::{Change, ChangeStep};

    use super::*;

    fn voters(ids: impl IntoIterator<Item = u64>) -> Membership {
        Membership::of_voters(ids.into_iter().map(NodeId))
    }

    #[test]
    fn single_changes_overlap_and_double_ones_do_not() {
        assert!(quorums_overlap(&voters(1..=3), &voters(1..=4)));
        assert!(quorums_overlap(&voters(1..=4), &voters(1..=3)));
        assert!(!quorums_overlap(&voters(1..=3), &voters(1..=5)));
        assert!(!quorums_overlap(&voters([1]), &voters([2])));
    }

    #[test]
    fn a_joint_configuration_overlaps_with_both_sides() {
        let old = voters(1..=3);
        let change: Change =
            [1, 2].map(|id| ChangeStep::Demote { node: NodeId(id) }).into_iter().collect();
        let joint = old.changed(&change).unwrap();
        assert!(joint.is_joint());
        assert!(quorums_overlap(&old, &joint));
        assert!(quorums_overlap(&joint, &joint.leave()));
        assert!(!quorums_overlap(&old, &joint.leave()));
    }
}
