//! The arithmetic of majorities (§5.2, §5.3).

use alloc::vec::Vec;

use crate::types::NodeId;

/// How many of `count` voters are a majority.
pub(crate) const fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// Whether `holds` is true of a majority of `voters`. Nobody is a majority of no voters.
pub(crate) fn is_majority(voters: &[NodeId], holds: &mut impl FnMut(NodeId) -> bool) -> bool {
    let count = voters.iter().filter(|node| holds(**node)).count();
    !voters.is_empty() && count >= majority(voters.len())
}

/// The largest value that a majority of `voters` has reached; `None` without voters.
pub(crate) fn majority_value<T: Ord + Copy>(
    voters: &[NodeId],
    value: &mut impl FnMut(NodeId) -> T,
) -> Option<T> {
    /// As many voters as are judged without allocating.
    const FEW: usize = 7;
    let (&first, rest) = voters.split_first()?;
    // Descending, the value at place `majority - 1` is one that `majority` voters have reached.
    let place = majority(voters.len()) - 1;
    if voters.len() <= FEW {
        let mut values = [value(first); FEW];
        for (slot, node) in values[1..].iter_mut().zip(rest) {
            *slot = value(*node);
        }
        let values = &mut values[..voters.len()];
        values.sort_unstable_by(|a, b| b.cmp(a));
        return Some(values[place]);
    }
    let mut values: Vec<T> = voters.iter().map(|node| value(*node)).collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    Some(values[place])
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    use super::*;
    use crate::rng::Rng;

    /// The definition: the largest value that at least a majority has reached.
    fn naive(values: &[u64]) -> u64 {
        let reached = |value: &u64| {
            values.iter().filter(|other| *other >= value).count() >= majority(values.len())
        };
        values.iter().copied().filter(reached).max().unwrap_or(0)
    }

    /// Somebody shipped a commit index computed on an unsorted part of the match indexes.
    #[test]
    fn majority_value_is_what_it_says() {
        let mut rng = Rng::new(1);
        for count in 1..=9u64 {
            let voters: Vec<NodeId> = (1..=count).map(NodeId).collect();
            for _ in 0..2_000 {
                let values: Vec<u64> = voters.iter().map(|_| rng.between(0, 6)).collect();
                let mut value = |node: NodeId| values[node.0 as usize - 1];
                assert_eq!(majority_value(&voters, &mut value), Some(naive(&values)), "{values:?}");
            }
        }
        assert_eq!(majority_value(&[], &mut |_| 0), None);
    }

    #[test]
    fn joint_value_and_quorum_need_both_majorities() {
        use crate::membership::{Change, ChangeStep, Member, MemberRole, Membership};
        let mut rng = Rng::new(2);
        for _ in 0..5_000 {
            let (old_count, new_count) = (rng.between(1, 5), rng.between(1, 4));
            let learners = (10..10 + new_count).map(NodeId);
            let old = (1..=old_count)
                .map(|node| (NodeId(node), Member::new(MemberRole::Voter)))
                .chain(learners.clone().map(|node| (node, Member::new(MemberRole::LEARNER))));
            let kept = rng.between(0, old_count);
            let change: Change = (kept + 1..=old_count)
                .map(|node| ChangeStep::Remove { node: NodeId(node) })
                .chain(learners.map(|node| ChangeStep::Promote { node }))
                .collect();
            let joint = Membership::bootstrap(old).changed(&change).unwrap();
            let values: BTreeMap<NodeId, u64> =
                joint.members().map(|(node, _)| (node, rng.between(0, 6))).collect();
            let of = |voters: &[NodeId]| {
                naive(&voters.iter().map(|node| values[node]).collect::<Vec<_>>())
            };
            let mut expected = of(joint.voters());
            if joint.is_joint() {
                expected = expected.min(of(joint.outgoing()));
            }
            assert_eq!(joint.quorum_value(|node| values[&node]), Some(expected));
            for level in 0..=7 {
                let holds = |node: NodeId| values[&node] >= level;
                assert_eq!(joint.has_quorum(holds), expected >= level);
            }
        }
    }
}
