//! Things that wait for an answer, each until a deadline of its own.

use std::collections::{BTreeMap, BTreeSet};

use quorate_raft::Time;

/// A map whose entries run out. It has no bound of its own: who inserts asks for [`len`](Self::len)
/// first, or has another reason why it stays small.
#[derive(Clone, Debug)]
pub(crate) struct Waiting<K, V> {
    values: BTreeMap<K, (V, Option<Time>)>,
    deadlines: BTreeSet<(Time, K)>,
}

impl<K: Ord + Copy, V> Waiting<K, V> {
    pub(crate) const fn new() -> Self {
        Self { values: BTreeMap::new(), deadlines: BTreeSet::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        self.values.get(&key).map(|(value, _)| value)
    }

    /// Waits under `key`, for ever if there is no deadline. What waited under it before is gone.
    pub(crate) fn insert(&mut self, key: K, value: V, deadline: Option<Time>) {
        self.remove(key);
        self.values.insert(key, (value, deadline));
        self.deadlines.extend(deadline.map(|deadline| (deadline, key)));
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let (value, deadline) = self.values.remove(&key)?;
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, key));
        }
        Some(value)
    }

    /// Takes out the first entry if its key is at most `last`.
    pub(crate) fn pop_up_to(&mut self, last: K) -> Option<(K, V)> {
        let key = *self.values.first_key_value()?.0;
        if key > last {
            return None;
        }
        Some((key, self.remove(key)?))
    }

    /// Takes out everything for which `which` is true.
    pub(crate) fn take(&mut self, mut which: impl FnMut(K, &V) -> bool) -> Vec<(K, V)> {
        let keys: Vec<K> = self
            .values
            .iter()
            .filter(|(key, (value, _))| which(**key, value))
            .map(|(key, _)| *key)
            .collect();
        keys.into_iter().filter_map(|key| Some((key, self.remove(key)?))).collect()
    }

    /// When the first entry runs out.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out one entry that has run out.
    pub(crate) fn pop_expired(&mut self, now: Time) -> Option<(K, V)> {
        let (deadline, key) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        Some((key, self.remove(key)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_run_out_in_the_order_of_their_deadlines() {
        let mut waiting = Waiting::new();
        waiting.insert(1, 'a', Some(Time(30)));
        waiting.insert(2, 'b', Some(Time(10)));
        waiting.insert(3, 'c', None);
        assert_eq!(waiting.deadline(), Some(Time(10)));
        assert_eq!(waiting.pop_expired(Time(9)), None);
        assert_eq!(waiting.pop_expired(Time(40)), Some((2, 'b')));
        assert_eq!(waiting.pop_expired(Time(40)), Some((1, 'a')));
        assert_eq!(waiting.pop_expired(Time(40)), None);
        assert_eq!(waiting.get(3), Some(&'c'));
    }

    #[test]
    fn a_removed_entry_does_not_run_out() {
        let mut waiting = Waiting::new();
        waiting.insert(1, 'a', Some(Time(30)));
        waiting.insert(1, 'b', Some(Time(50)));
        assert_eq!(waiting.deadline(), Some(Time(50)));
        assert_eq!(waiting.remove(1), Some('b'));
        assert_eq!(waiting.deadline(), None);
        assert_eq!(waiting.len(), 0);
    }
}
