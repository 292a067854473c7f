//! What has become durable and is still to be told, per group.

use quorate_raft::{GroupId, Seq};

/// Beyond so many, completions of the same group are merged, and then whenever there are twice as
/// many as were left: so there are never more than that, or two per group.
const MERGE_AT: usize = 4096;

/// Completions in the order in which they came; of each group only the highest counts.
#[derive(Debug)]
pub(crate) struct Completions {
    all: Vec<(GroupId, Seq)>,
    merge_at: usize,
}

impl Default for Completions {
    fn default() -> Self {
        Self { all: Vec::new(), merge_at: MERGE_AT }
    }
}

impl Completions {
    pub(crate) fn push(&mut self, group: GroupId, seq: Seq) {
        match self.all.last_mut() {
            // A lone writer, nearly always.
            Some((last, highest)) if *last == group => *highest = seq.max(*highest),
            _ => self.all.push((group, seq)),
        }
        if self.all.len() >= self.merge_at {
            self.merge();
            self.merge_at = MERGE_AT.max(2 * self.all.len());
        }
    }

    pub(crate) fn extend(&mut self, completions: impl IntoIterator<Item = (GroupId, Seq)>) {
        completions.into_iter().for_each(|(group, seq)| self.push(group, seq));
    }

    /// Takes out the highest of each group, by group.
    pub(crate) fn take(&mut self) -> Vec<(GroupId, Seq)> {
        self.merge();
        std::mem::take(self).all
    }

    fn merge(&mut self) {
        self.all.sort_unstable_by_key(|(group, seq)| (*group, std::cmp::Reverse(*seq)));
        self.all.dedup_by_key(|(group, _)| *group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_of_each_group_is_told() {
        let mut completions = Completions::default();
        completions.extend([(2, 5), (1, 6), (2, 7), (2, 8)].map(|(g, s)| (GroupId(g), Seq(s))));
        assert_eq!(completions.all.len(), 3);
        assert_eq!(completions.take(), [(GroupId(1), Seq(6)), (GroupId(2), Seq(8))]);
        assert_eq!(completions.take(), []);
    }

    #[test]
    fn there_are_never_many_more_than_groups() {
        for groups in [3, 5_000] {
            let mut completions = Completions::default();
            for seq in 1..=100_000 {
                completions.push(GroupId(seq % groups), Seq(seq));
                assert!(completions.all.len() <= MERGE_AT.max(2 * groups as usize));
            }
            let all = completions.take();
            assert_eq!(all.len() as u64, groups);
            assert!(all.iter().all(|(_, seq)| seq.0 > 100_000 - groups));
        }
    }
}
