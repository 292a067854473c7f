//! The key index: for every key its revisions, and what it is now.
//!
//! It is in memory as a whole. Values of what keys are now are kept as long as they fit into a budget; beyond it, the hand of
//! a clock goes round the keys and drops values that nobody has looked at since it came by last. What was dropped is read
//! from the history. Which values are in memory changes nothing that anybody is told.

use core::ops::Bound;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::record::{Place, PutRef};
use crate::{KeyValue, LeaseId, Revision};

/// Which keys a request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange<'a> {
    start: Bound<&'a [u8]>,
    end: Bound<&'a [u8]>,
}

impl<'a> KeyRange<'a> {
    /// `end` empty: the one key; one zero byte: all from `key` on; else up to `end`, which is left out.
    pub(crate) fn new(key: &'a [u8], end: &'a [u8]) -> Self {
        let end = match end {
            [] => Bound::Included(key),
            [0] => Bound::Unbounded,
            end => Bound::Excluded(end),
        };
        Self { start: Bound::Included(key), end }
    }

    /// What of it comes after a key.
    pub(crate) const fn after(self, key: &'a [u8]) -> Self {
        Self { start: Bound::Excluded(key), end: self.end }
    }

    /// All keys.
    pub(crate) const fn all() -> Self {
        Self { start: Bound::Unbounded, end: Bound::Unbounded }
    }

    /// Whether no key can be in it; a map would not take such bounds.
    fn is_empty(&self) -> bool {
        match (self.start, self.end) {
            (Bound::Included(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => end <= start,
            (Bound::Included(start), Bound::Included(end)) => end < start,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        }
    }
}

/// One revision of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    revision: i64,
    /// The lowest bit says whether the key was deleted.
    sub: u32,
}

impl Step {
    fn new(place: Place, deleted: bool) -> Self {
        Self { revision: place.revision, sub: place.sub << 1 | u32::from(deleted) }
    }

    pub(crate) const fn place(self) -> Place {
        Place { revision: self.revision, sub: self.sub >> 1 }
    }

    pub(crate) const fn is_delete(self) -> bool {
        self.sub & 1 == 1
    }
}

/// Most keys have one revision, and need no list.
#[derive(Debug)]
enum Steps {
    One(Step),
    Many(Vec<Step>),
}

/// A key: its revisions, at least one, and what it is now.
#[derive(Debug)]
pub(crate) struct Key {
    steps: Steps,
    create_revision: i64,
    /// 0 if it is deleted.
    version: i64,
    lease: Option<LeaseId>,
    value: Option<Bytes>,
    /// Somebody has looked at the value since the clock's hand came by.
    touched: AtomicBool,
}

impl Key {
    pub(crate) fn steps(&self) -> &[Step] {
        match &self.steps {
            Steps::One(step) => core::slice::from_ref(step),
            Steps::Many(steps) => steps,
        }
    }

    pub(crate) fn last(&self) -> Step {
        *self.steps().last().expect("a key has at least one revision")
    }

    fn push(&mut self, step: Step) {
        match &mut self.steps {
            Steps::One(first) => self.steps = Steps::Many(vec![*first, step]),
            Steps::Many(steps) => steps.push(step),
        }
    }

    /// The last change at or before a revision.
    pub(crate) fn at(&self, revision: i64) -> Option<Step> {
        let steps = self.steps();
        if let Some(last) = steps.last().filter(|last| last.revision <= revision) {
            return Some(*last);
        }
        let count = steps.partition_point(|step| step.revision <= revision);
        steps[..count].last().copied()
    }

    /// Where the pair was written that the key had at a revision, if it had one.
    pub(crate) fn live_at(&self, revision: i64) -> Option<Place> {
        self.at(revision).filter(|step| !step.is_delete()).map(Step::place)
    }

    pub(crate) fn is_live(&self) -> bool {
        self.version > 0
    }

    pub(crate) fn create_revision(&self) -> i64 {
        self.create_revision
    }

    pub(crate) fn version(&self) -> i64 {
        self.version
    }

    pub(crate) fn lease(&self) -> Option<LeaseId> {
        self.lease
    }

    /// The pair as it is now, if its value is in memory.
    pub(crate) fn now(&self, key: &[u8]) -> Option<KeyValue> {
        let value = self.value.clone()?;
        if !self.touched.load(Relaxed) {
            self.touched.store(true, Relaxed);
        }
        Some(self.pair(Bytes::copy_from_slice(key), value))
    }

    /// The pair as it is now, with another value.
    pub(crate) fn pair(&self, key: Bytes, value: Bytes) -> KeyValue {
        KeyValue {
            key,
            create_revision: Revision(self.create_revision),
            mod_revision: Revision(self.last().revision),
            version: self.version,
            value,
            lease: self.lease,
        }
    }
}

/// All keys.
#[derive(Debug)]
pub(crate) struct Index {
    keys: BTreeMap<Box<[u8]>, Key>,
    values_bytes: usize,
    values_bytes_max: usize,
    /// Where the clock's hand stands.
    hand: Box<[u8]>,
}

/// How many keys the hand passes before it is asked again whether there is room.
const HAND_STEPS: usize = 64;
/// What a value takes in memory besides its bytes.
const VALUE_OVERHEAD_BYTES: usize = 48;

impl Index {
    pub(crate) fn new(values_bytes_max: usize) -> Self {
        Self { keys: BTreeMap::new(), values_bytes: 0, values_bytes_max, hand: Box::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Key> {
        self.keys.get(key)
    }

    /// The key, if it exists now.
    pub(crate) fn live(&self, key: &[u8]) -> Option<&Key> {
        self.keys.get(key).filter(|key| key.is_live())
    }

    /// Keys in order, deleted ones too.
    pub(crate) fn range<'a>(
        &'a self,
        range: KeyRange<'a>,
    ) -> impl Iterator<Item = (&'a [u8], &'a Key)> {
        let bounds = (range.start, range.end);
        let keys = (!range.is_empty()).then(|| self.keys.range::<[u8], _>(bounds));
        keys.into_iter().flatten().map(|(key, entry)| (&**key, entry))
    }

    /// A key was put. The value is copied, so that it holds no more memory than its own.
    pub(crate) fn put(&mut self, kv: &KeyValue, place: Place) {
        let (create_revision, version) = (kv.create_revision.0, kv.version);
        let put = PutRef { create_revision, version, lease: kv.lease, value: &kv.value };
        self.load_put(&kv.key, put, place);
    }

    /// The same from a record, in the order of the history.
    pub(crate) fn load_put(&mut self, key: &[u8], put: PutRef<'_>, place: Place) {
        let step = Step::new(place, false);
        let value = Bytes::copy_from_slice(put.value);
        let size = value.len() + VALUE_OVERHEAD_BYTES;
        self.values_bytes += size;
        if let Some(entry) = self.keys.get_mut(key) {
            entry.push(step);
            (entry.create_revision, entry.version) = (put.create_revision, put.version);
            entry.lease = put.lease;
            if let Some(old) = entry.value.replace(value) {
                self.values_bytes -= old.len() + VALUE_OVERHEAD_BYTES;
            }
            return;
        }
        let entry = Key {
            steps: Steps::One(step),
            create_revision: put.create_revision,
            version: put.version,
            lease: put.lease,
            value: Some(value),
            touched: AtomicBool::new(false),
        };
        self.keys.insert(key.into(), entry);
    }

    /// A key was deleted; it is known.
    pub(crate) fn delete(&mut self, key: &[u8], place: Place) {
        let step = Step::new(place, true);
        let Some(entry) = self.keys.get_mut(key) else { return };
        entry.push(step);
        (entry.create_revision, entry.version, entry.lease) = (0, 0, None);
        if let Some(old) = entry.value.take() {
            self.values_bytes -= old.len() + VALUE_OVERHEAD_BYTES;
        }
    }

    /// A deletion whose puts are gone: a compaction has kept only it.
    pub(crate) fn insert_deleted(&mut self, key: &[u8], place: Place) {
        if self.keys.contains_key(key) {
            return self.delete(key, place);
        }
        let entry = Key {
            steps: Steps::One(Step::new(place, true)),
            create_revision: 0,
            version: 0,
            lease: None,
            value: None,
            touched: AtomicBool::new(false),
        };
        self.keys.insert(key.into(), entry);
    }

    /// Drops values until they fit into the budget.
    pub(crate) fn keep_within_budget(&mut self) {
        let mut rounds = 0;
        while self.values_bytes > self.values_bytes_max {
            let bounds = (Bound::Excluded(&*self.hand), Bound::Unbounded);
            let mut last = None;
            let mut freed = 0;
            for (key, entry) in self.keys.range_mut::<[u8], _>(bounds).take(HAND_STEPS) {
                if !entry.touched.swap(false, Relaxed)
                    && let Some(value) = entry.value.take()
                {
                    freed += value.len() + VALUE_OVERHEAD_BYTES;
                }
                last = Some(key);
            }
            let last = last.cloned();
            self.values_bytes -= freed;
            if last.is_none() {
                rounds += 1;
                // Whatever was touched was passed once, so the second time round there is something.
                debug_assert!(rounds < 4, "values that are counted and cannot be found");
                if rounds >= 4 {
                    return;
                }
            }
            self.hand = last.unwrap_or_default();
        }
    }

    pub(crate) const fn values_bytes(&self) -> usize {
        self.values_bytes
    }

    /// Forgets what a compaction up to `revision` does not keep, of so many keys behind `after`. Gives back the last key
    /// looked at, if there may be more.
    pub(crate) fn prune(
        &mut self,
        revision: i64,
        after: Option<&[u8]>,
        keys_max: usize,
        forgotten: &mut Vec<Place>,
    ) -> Option<Box<[u8]>> {
        let bounds = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut gone = Vec::new();
        let mut last = None;
        let mut count = 0;
        for (key, entry) in self.keys.range_mut::<[u8], _>(bounds).take(keys_max) {
            count += 1;
            let dropped = entry.prune(revision, forgotten);
            if dropped {
                gone.push(key.clone());
            }
            last = Some(key);
        }
        let last = last.filter(|_| count == keys_max).cloned();
        for key in gone {
            self.keys.remove(&key);
        }
        last
    }
}

impl Key {
    /// Forgets what a compaction does not keep. True if nothing is left.
    fn prune(&mut self, revision: i64, forgotten: &mut Vec<Place>) -> bool {
        let at = self.at(revision);
        // Whoever watches from the revision itself hears of everything that happened in it.
        let keeps =
            |step: &Step| step.revision >= revision || (at == Some(*step) && !step.is_delete());
        if self.steps().iter().all(keeps) {
            return false;
        }
        let kept: Vec<Step> = self.steps().iter().copied().filter(keeps).collect();
        forgotten.extend(self.steps().iter().filter(|step| !keeps(step)).map(|step| step.place()));
        match kept[..] {
            [] => return true,
            [one] => self.steps = Steps::One(one),
            _ => self.steps = Steps::Many(kept),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str, revision: i64, version: i64) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            create_revision: Revision(revision - version + 1),
            mod_revision: Revision(revision),
            version,
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease: None,
        }
    }

    fn place(revision: i64) -> Place {
        Place { revision, sub: 0 }
    }

    #[test]
    fn ranges_are_those_of_requests() {
        let mut index = Index::new(1 << 20);
        for (revision, key) in (2..).zip(["a", "b", "b\0", "c"]) {
            index.put(&pair(key, "x", revision, 1), place(revision));
        }
        let keys = |key: &'static str, end: &'static str| {
            let range = KeyRange::new(key.as_bytes(), end.as_bytes());
            index.range(range).count()
        };
        assert_eq!(keys("b", ""), 1);
        assert_eq!(keys("b", "\0"), 3);
        assert_eq!(keys("b", "c"), 2);
        assert_eq!(keys("b", "b"), 0);
        assert_eq!(keys("c", "a"), 0);
        assert_eq!(keys("\0", "\0"), 4);
        let after = |key: &'static [u8]| KeyRange::new(b"a", b"c").after(key);
        assert_eq!(index.range(after(b"b")).count(), 1);
        assert_eq!(index.range(after(b"c")).count(), 0);
        assert_eq!(index.range(KeyRange::new(b"a", b"").after(b"a")).count(), 0);
    }

    #[test]
    fn values_stay_within_their_budget() {
        let size = 100 + VALUE_OVERHEAD_BYTES;
        let mut index = Index::new(10 * size);
        for revision in 2..102 {
            let key = format!("{revision:04}");
            index.put(&pair(&key, &"v".repeat(100), revision, 1), place(revision));
            index.keep_within_budget();
            assert!(index.values_bytes() <= 10 * size);
        }
        let kept = |index: &Index| {
            let all = index.range(KeyRange::all());
            all.filter(|(_, entry)| entry.value.is_some()).count()
        };
        assert!((1..=10).contains(&kept(&index)));
        index.delete(b"0101", place(102));
        for revision in 103..203 {
            index.put(&pair("0050", "", revision, revision - 101), place(revision));
        }
        index.keep_within_budget();
        let sum: usize = index
            .range(KeyRange::all())
            .filter_map(|(_, entry)| entry.value.as_ref())
            .map(|value| value.len() + VALUE_OVERHEAD_BYTES)
            .sum();
        assert_eq!(sum, index.values_bytes());
    }

    #[test]
    fn a_compaction_keeps_what_can_still_be_read() {
        let mut index = Index::new(1 << 20);
        for (revision, version) in [(2, 1), (3, 2), (5, 3)] {
            index.put(&pair("a", "x", revision, version), place(revision));
        }
        index.put(&pair("b", "x", 4, 1), place(4));
        index.delete(b"b", place(6));
        index.put(&pair("c", "x", 7, 1), place(7));
        let mut forgotten = Vec::new();
        assert_eq!(index.prune(5, None, 2, &mut forgotten).as_deref(), Some(&b"b"[..]));
        assert_eq!(index.prune(5, Some(b"b"), 2, &mut forgotten), None);
        assert_eq!(forgotten, [place(2), place(3)]);
        forgotten.clear();
        assert_eq!(index.prune(6, None, 100, &mut forgotten), None);
        assert_eq!(forgotten, [place(4)], "a deletion at the revision itself stays");
        forgotten.clear();
        index.prune(7, None, 100, &mut forgotten);
        assert_eq!(forgotten, [place(6)], "and then goes");
        assert!(index.get(b"b").is_none());
        assert_eq!(index.len(), 2);
        for sub in 0..2 {
            index.put(&pair("c", "x", 8, 2), Place { revision: 8, sub });
        }
        forgotten.clear();
        index.prune(8, None, 100, &mut forgotten);
        assert_eq!(forgotten, [place(7)], "both changes of one revision can be watched");
    }
}
