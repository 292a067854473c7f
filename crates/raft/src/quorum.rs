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
