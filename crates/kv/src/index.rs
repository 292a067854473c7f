//! The key index: for every key its revisions, and what it is now.
//!
//! It is in memory as a whole: an ordered map of [blocks](block::Block) of some dozens of keys each, which know how many of
//! their keys exist. Values of what keys are now are kept as long as they fit into a budget; beyond it, the hand of a clock
//! goes round the blocks and drops values that nobody has looked at since it came by last. What was dropped is read from
//! the history. Which values are in memory changes nothing that anybody is told.

mod block;
mod key;
mod key_range;
mod values;

use core::ops::Bound;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::index::block::{BLOCK_KEYS_MAX, BLOCK_KEYS_MIN, Block};
pub(crate) use crate::index::key::{Key, Step};
pub(crate) use crate::index::key_range::KeyRange;
use crate::index::values::Values;
use crate::record::{Place, PutRef, RecordRef};
use crate::{KeyValue, LeaseId};

/// All keys.
#[derive(Debug)]
pub(crate) struct Index {
    /// By a name that is at most their first key, and larger than the last one of the block before. There is always one
    /// with the empty name.
    blocks: BTreeMap<Box<[u8]>, Block>,
    keys: usize,
    values: Values,
    values_bytes_max: usize,
    /// The block that the clock's hand has seen last.
    hand: Box<[u8]>,
}

/// A count of keys, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Count {
    pub(crate) count: i64,
    /// The key after which it goes on, if it was cut short.
    pub(crate) after: Option<Box<[u8]>>,
}

/// A key with its value, one behind the other in the same bytes.
pub(crate) fn pair_bytes(key: &[u8], value: &[u8]) -> Bytes {
    let mut pair = Vec::with_capacity(key.len() + value.len());
    pair.extend_from_slice(key);
    pair.extend_from_slice(value);
    Bytes::from(pair)
}

const FIRST: &str = "the first block takes whatever is lower than the others";

fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

/// The block that has a key, or would have it.
fn block_mut<'a>(blocks: &'a mut BTreeMap<Box<[u8]>, Block>, key: &[u8]) -> &'a mut Block {
    blocks.range_mut::<[u8], _>(up_to(key)).next_back().expect(FIRST).1
}

impl Index {
    pub(crate) fn new(values_bytes_max: usize) -> Self {
        let blocks = BTreeMap::from([(Box::default(), Block::default())]);
        let values = Values::default();
        Self { blocks, keys: 0, values, values_bytes_max, hand: Box::default() }
    }

    /// Keys, deleted ones that are not forgotten among them.
    pub(crate) const fn len(&self) -> usize {
        self.keys
    }

    pub(crate) const fn values_bytes(&self) -> usize {
        self.values.bytes()
    }

    /// The block that has a key, or would have it.
    fn block_of(&self, key: &[u8]) -> &Block {
        self.blocks.range::<[u8], _>(up_to(key)).next_back().expect(FIRST).1
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Key> {
        let block = self.block_of(key);
        block.search(key).ok().map(|at| block.key(at))
    }

    /// The key, if it exists now.
    pub(crate) fn live(&self, key: &[u8]) -> Option<&Key> {
        self.get(key).filter(|key| key.is_live())
    }

    /// The pair as it is now, if its value is in memory.
    pub(crate) fn now(&self, name: &[u8], key: &Key) -> Option<KeyValue> {
        let pair = self.values.get(key.value)?;
        Some(key.pair(pair.slice(..name.len()), pair.slice(name.len()..)))
    }

    fn overlapping<'a>(&'a self, range: KeyRange<'a>) -> impl Iterator<Item = &'a Block> {
        let blocks = (!range.is_empty()).then(|| {
            let first = match range.start {
                Bound::Included(start) | Bound::Excluded(start) => {
                    let (name, _) =
                        self.blocks.range::<[u8], _>(up_to(start)).next_back().expect(FIRST);
                    Bound::Included(&**name)
                }
                Bound::Unbounded => Bound::Unbounded,
            };
            self.blocks.range::<[u8], _>((first, range.end))
        });
        blocks.into_iter().flatten().map(|(_, block)| block)
    }

    /// Keys in order, deleted ones too.
    pub(crate) fn range<'a>(
        &'a self,
        range: KeyRange<'a>,
    ) -> impl Iterator<Item = (&'a [u8], &'a Key)> {
        self.overlapping(range).flat_map(move |block| block.slice(block.span(&range)))
    }

    /// Counts the keys of a range that existed at a revision. Looks at about `keys_max` of them, blocks that need no look
    /// counting as one.
    pub(crate) fn count(&self, range: KeyRange<'_>, revision: i64, keys_max: usize) -> Count {
        let mut count = 0;
        let mut looked = 0;
        for block in self.overlapping(range) {
            let span = block.span(&range);
            let Some(last) = span.clone().last() else { continue };
            let live = if span.len() == block.len() && block.newest() <= revision {
                looked += 1;
                block.live()
            } else {
                looked += span.len();
                block.slice(span).filter(|(_, key)| key.live_at(revision).is_some()).count()
            };
            count += i64::try_from(live).unwrap_or(i64::MAX);
            if looked >= keys_max {
                return Count { count, after: Some(block.name(last).into()) };
            }
        }
        Count { count, after: None }
    }

    /// A key is put. Gives back the pair as it is now, and the lease that the key had before.
    pub(crate) fn put(
        &mut self,
        name: &[u8],
        value: &[u8],
        lease: Option<LeaseId>,
        place: Place,
    ) -> (KeyValue, Option<LeaseId>) {
        // Copied, so that it holds no more memory than its own.
        let pair = pair_bytes(name, value);
        let put = |create_revision, version| PutRef { create_revision, version, lease, value };
        let block = block_mut(&mut self.blocks, name);
        let values = &mut self.values;
        match block.search(name) {
            Ok(at) => block.change(at, |key| {
                let former = key.lease();
                let put = if key.is_live() {
                    put(key.create_revision(), key.version() + 1)
                } else {
                    put(place.revision, 1)
                };
                key.put_again(&put, place);
                key.value = values.hold(key.value, pair.clone());
                (key.pair(pair.slice(..name.len()), pair.slice(name.len()..)), former)
            }),
            Err(at) => {
                let mut key = Key::put(&put(place.revision, 1), place);
                key.value = values.hold(key.value, pair.clone());
                let kv = key.pair(pair.slice(..name.len()), pair.slice(name.len()..));
                self.insert(at, name, key);
                (kv, None)
            }
        }
    }

    /// A key is deleted; it is known. Gives back the lease that it had.
    pub(crate) fn delete(&mut self, name: &[u8], place: Place) -> Option<LeaseId> {
        let block = block_mut(&mut self.blocks, name);
        let at = block.search(name).ok()?;
        let values = &mut self.values;
        block.change(at, |key| {
            let former = key.lease();
            key.delete(place);
            values.drop(core::mem::take(&mut key.value));
            former
        })
    }

    /// Puts a new key into its block, where it belongs.
    fn insert(&mut self, at: usize, name: &[u8], key: Key) {
        self.keys += 1;
        let block = block_mut(&mut self.blocks, name);
        if !block.is_full() {
            return block.insert(at, name, key);
        }
        if at == block.len() {
            // Keys often come in their order: so that blocks are full then, and not half full.
            let mut next = Block::default();
            next.insert(0, name, key);
            self.blocks.insert(name.into(), next);
            return;
        }
        let middle = block.len() / 2;
        let mut second = block.split(middle);
        match at.checked_sub(middle) {
            Some(at @ 1..) => second.insert(at, name, key),
            _ => block.insert(at, name, key),
        }
        self.blocks.insert(second.name(0).into(), second);
    }

    /// Takes in a record of the history, from the newest to the oldest; [`loaded`](Self::loaded) ends that. Values are kept
    /// until the budget is used up: those that were put last.
    pub(crate) fn load(&mut self, place: Place, record: &RecordRef<'_>) {
        let name = record.key;
        let block = block_mut(&mut self.blocks, name);
        match (block.search(name), &record.put) {
            (Ok(at), put) => {
                let step = Step::new(place, put.is_none());
                block.change(at, |key| key.push_earlier(step));
            }
            (Err(at), None) => self.insert(at, name, Key::deleted(place)),
            (Err(at), Some(put)) => {
                let mut key = Key::put(put, place);
                let size = Values::size(record.pair.len());
                if self.values.bytes() + size <= self.values_bytes_max {
                    key.value = self.values.hold(key.value, Bytes::copy_from_slice(record.pair));
                }
                self.insert(at, name, key);
            }
        }
    }

    /// The history was taken in.
    pub(crate) fn loaded(&mut self) {
        self.blocks.values_mut().flat_map(Block::keys_mut).for_each(Key::turn_round);
    }

    /// Drops values until they fit into the budget.
    pub(crate) fn keep_within_budget(&mut self) {
        let mut rounds = 0;
        while self.values.bytes() > self.values_bytes_max {
            let bounds = (Bound::Excluded(&*self.hand), Bound::Unbounded);
            let mut next = self.blocks.range_mut::<[u8], _>(bounds);
            let (name, block) = match next.next() {
                Some(next) => next,
                None => {
                    rounds += 1;
                    // Whatever was touched was passed once, so the second time round there is something.
                    debug_assert!(rounds < 4, "values that are counted and cannot be found");
                    if rounds >= 4 {
                        return;
                    }
                    self.blocks.iter_mut().next().expect("there is always a first block")
                }
            };
            for key in block.keys_mut() {
                if !self.values.pass(key.value) {
                    self.values.drop(core::mem::take(&mut key.value));
                }
                if self.values.bytes() <= self.values_bytes_max {
                    break;
                }
            }
            self.hand.clone_from(name);
        }
    }

    /// Forgets what a compaction up to `revision` does not keep, of about so many keys behind `after`. Gives back the key
    /// after which it goes on, if there may be more.
    pub(crate) fn prune(
        &mut self,
        revision: i64,
        mut after: Option<Box<[u8]>>,
        keys_max: usize,
        forgotten: &mut Vec<Place>,
    ) -> Option<Box<[u8]>> {
        let mut looked = 0;
        while looked < keys_max {
            // It may be a block that was joined with another one since.
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let (name, block) =
                self.blocks.range_mut::<[u8], _>((from, Bound::Unbounded)).next()?;
            let before = block.len();
            looked += before + 1;
            block.retain(|key| !key.prune(revision, forgotten));
            self.keys -= before - block.len();
            let name = name.clone();
            if block.len() < BLOCK_KEYS_MIN && !name.is_empty() {
                self.join(&name);
            }
            after = Some(name);
        }
        after
    }

    /// Joins a block that has become small with the one before it, if that leaves room.
    fn join(&mut self, name: &[u8]) {
        let lower = (Bound::Unbounded, Bound::Excluded(name));
        let (_, before) = self.blocks.range::<[u8], _>(lower).next_back().expect(FIRST);
        if before.len() + self.blocks[name].len() > BLOCK_KEYS_MAX * 3 / 4 {
            return;
        }
        let Some(block) = self.blocks.remove(name) else { return };
        if let Some((_, before)) = self.blocks.range_mut::<[u8], _>(lower).next_back()
            && !block.is_empty()
        {
            before.join(block);
        }
    }
}

#[cfg(test)]
mod tests;
