//! The key index: for every key its revisions, and what it is now.
//!
//! It is in memory as a whole: keys in blocks of some dozens, which know how many of their keys exist, blocks in branches,
//! and all branches in one root. Values of what keys are now are kept as long as they fit into a budget; what was dropped is
//! read from the history. Which values are in memory changes nothing that anybody is told.

mod block;
mod key;
mod key_range;
mod loading;
mod names;
mod values;

use crate::index::block::Block;
pub(crate) use crate::index::key::{Key, Step};
pub(crate) use crate::index::key_range::KeyRange;
pub(crate) use crate::index::loading::{Gathering, LOADING_RECORDS_MAX, Loading};
use crate::index::names::Names;
use crate::index::values::{Values, alone};
use crate::record::{Place, PutRef};
use crate::{KeyValue, LeaseId};

/// Blocks, by a name that is not larger than their first key. The first of them also has whatever is lower.
type Branch = Names<Block>;

/// All keys. There are no empty blocks, and no empty branches.
#[derive(Debug)]
pub(crate) struct Index {
    /// Branches in the same way.
    root: Names<Branch>,
    keys: usize,
    values: Values,
    values_bytes_max: usize,
}

/// A count of keys, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Count {
    pub(crate) count: i64,
    /// The key after which it goes on, if it was cut short.
    pub(crate) after: Option<Box<[u8]>>,
}

/// The block that has a key or would have it, unless there is none at all.
fn block_mut<'a>(root: &'a mut Names<Branch>, key: &[u8]) -> Option<&'a mut Block> {
    if root.is_empty() {
        return None;
    }
    let branch = root.get_mut(root.part_of(key));
    Some(branch.get_mut(branch.part_of(key)))
}

impl Index {
    pub(crate) fn new(values_bytes_max: usize) -> Self {
        Self { root: Names::default(), keys: 0, values: Values::default(), values_bytes_max }
    }

    /// Keys, deleted ones that are not forgotten among them.
    pub(crate) const fn len(&self) -> usize {
        self.keys
    }

    pub(crate) const fn values_bytes(&self) -> usize {
        self.values.bytes()
    }

    pub(crate) const fn values_bytes_max(&self) -> usize {
        self.values_bytes_max
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Key> {
        if self.root.is_empty() {
            return None;
        }
        let branch = self.root.get(self.root.part_of(key));
        let block = branch.get(branch.part_of(key));
        block.search(key).ok().map(|at| block.key(at))
    }

    /// The key, if it exists now.
    pub(crate) fn live(&self, key: &[u8]) -> Option<&Key> {
        self.get(key).filter(|key| key.is_live())
    }

    /// The pair as it is now, if its value is in memory.
    pub(crate) fn now(&self, name: &[u8], key: &Key) -> Option<KeyValue> {
        let pair = self.values.get(key.value, key.last().place())?;
        Some(key.pair(pair.slice(..name.len()), pair.slice(name.len()..)))
    }

    /// The blocks that a range may have keys in, each with those that are in it.
    fn blocks<'a>(
        &'a self,
        range: KeyRange<'a>,
    ) -> impl Iterator<Item = (&'a Block, core::ops::Range<usize>)> {
        let branches = if range.is_empty() { 0..0 } else { self.root.parts_of(&range) };
        branches.clone().flat_map(move |branch_at| {
            let branch = self.root.get(branch_at);
            let is_edge = branch_at == branches.start || branch_at + 1 == branches.end;
            let blocks = if is_edge { branch.parts_of(&range) } else { 0..branch.len() };
            blocks.clone().map(move |at| {
                let block = branch.get(at);
                // What is between the first and the last one is in the range as a whole.
                let is_edge = is_edge && (at == blocks.start || at + 1 == blocks.end);
                (block, if is_edge { block.span(&range) } else { 0..block.len() })
            })
        })
    }

    /// Keys in order, deleted ones too.
    pub(crate) fn range<'a>(
        &'a self,
        range: KeyRange<'a>,
    ) -> impl Iterator<Item = (&'a [u8], &'a Key)> {
        self.blocks(range).flat_map(|(block, span)| block.slice(span))
    }

    /// Counts the keys of a range that existed at a revision. Looks at about `keys_max` of them, blocks that need no look
    /// counting as one.
    pub(crate) fn count(&self, range: KeyRange<'_>, revision: i64, keys_max: usize) -> Count {
        let mut count = 0;
        let mut looked = 0;
        for (block, span) in self.blocks(range) {
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
        let mut key_bytes = self.values.pair(name, value);
        let slot = self.values.hold(key_bytes.clone(), name, place);
        let value_bytes = key_bytes.split_off(name.len());
        let pair = (key_bytes, value_bytes);
        let put = |create_revision, version| PutRef { create_revision, version, lease, value };
        let block = block_mut(&mut self.root, name);
        let found = block.map(|block| (block.search(name), block));
        if let Some((Ok(at), block)) = found {
            let values = &mut self.values;
            return block.change(at, |key| {
                let former = key.lease();
                let put = if key.is_live() {
                    put(key.create_revision(), key.version() + 1)
                } else {
                    put(place.revision, 1)
                };
                values.forget(key.value, key.last().place());
                key.put_again(&put, place);
                key.value = slot;
                (key.pair(pair.0, pair.1), former)
            });
        }
        let mut key = Key::put(&put(place.revision, 1), place);
        key.value = slot;
        let kv = key.pair(pair.0, pair.1);
        self.insert(name, key);
        (kv, None)
    }

    /// A key is deleted; it is known. Gives back the lease that it had.
    pub(crate) fn delete(&mut self, name: &[u8], place: Place) -> Option<LeaseId> {
        let block = block_mut(&mut self.root, name)?;
        let at = block.search(name).ok()?;
        let values = &mut self.values;
        block.change(at, |key| {
            let former = key.lease();
            values.forget(key.value, key.last().place());
            key.delete(place);
            former
        })
    }

    /// Puts a new key where it belongs.
    fn insert(&mut self, name: &[u8], key: Key) {
        self.keys += 1;
        if self.root.is_empty() {
            let mut branch = Branch::default();
            branch.insert(0, name, Block::new(name, key));
            return self.root.insert(0, name, branch);
        }
        let branch_at = self.root.part_of(name);
        let branch = self.root.get_mut(branch_at);
        let block_at = branch.part_of(name);
        let block = branch.get_mut(block_at);
        let at = block.search(name).unwrap_or_else(|at| at);
        if !block.is_full() {
            return block.insert(at, name, key);
        }
        let next = if at == block.len() {
            // Keys often come in their order: so that blocks are full then, and not half full.
            Block::new(name, key)
        } else {
            let middle = block.len() / 2;
            let mut next = block.split(middle);
            match at.checked_sub(middle) {
                Some(at @ 1..) => next.insert(at, name, key),
                _ => block.insert(at, name, key),
            }
            next
        };
        // The first one may hold keys that are lower than its name, and so may the next one now.
        let first = branch.get(block_at).name(0).to_owned();
        if first[..] < *branch.name(block_at) {
            branch.rename(block_at, &first);
        }
        branch.insert(block_at + 1, next.name(0).to_owned().as_slice(), next);
        if branch.is_full() {
            let middle =
                if block_at + 2 == branch.len() { branch.len() - 1 } else { branch.len() / 2 };
            let next = branch.split(middle);
            let (first, name) = (branch.name(0).to_owned(), next.name(0).to_owned());
            if first[..] < *self.root.name(branch_at) {
                self.root.rename(branch_at, &first);
            }
            self.root.insert(branch_at + 1, &name, next);
        }
    }

    /// Takes in a change that is older than all that are known of its key, with the pair if there is one and it may be held.
    fn load(&mut self, place: Place, name: &[u8], put: Option<&PutRef<'_>>, pair: Option<&[u8]>) {
        if let Some(block) = block_mut(&mut self.root, name)
            && let Ok(at) = block.search(name)
        {
            let step = Step::new(place, put.is_none());
            return block.change(at, |key| key.push_earlier(step));
        }
        let mut key = put.map_or_else(|| Key::deleted(place), |put| Key::put(put, place));
        if let Some(pair) = pair.filter(|_| key.is_live()) {
            key.value = self.values.hold_first(pair, name, place, self.values_bytes_max);
        }
        self.insert(name, key);
    }

    /// The history was taken in.
    fn loaded(&mut self) {
        let blocks = self.root.iter_mut().flat_map(Names::iter_mut);
        blocks.flat_map(Block::keys_mut).for_each(Key::turn_round);
    }

    /// Drops values until they fit into the budget.
    pub(crate) fn keep_within_budget(&mut self) {
        while self.values.bytes() > self.values_bytes_max {
            let Some(held) = self.values.take_first() else { continue };
            let (name, value) = held.pair.split_at(held.key_bytes as usize);
            let Some(block) = block_mut(&mut self.root, name) else { continue };
            let Ok(at) = block.search(name) else { continue };
            if block.key(at).last().place() == held.place {
                // It was looked at, and is the value still.
                let pair = alone(name, value);
                let slot = self.values.hold(pair, name, held.place);
                block.change(at, |key| key.value = slot);
            }
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
            let (branch_at, block_at) = self.block_after(after.as_deref())?;
            let branch = self.root.get_mut(branch_at);
            let block = branch.get_mut(block_at);
            let before = block.len();
            looked += before;
            after = Some(block.name(before - 1).into());
            block.retain(|key| !key.prune(revision, forgotten));
            self.keys -= before - block.len();
            if block.is_empty() {
                branch.remove(block_at);
            } else if let Some(before_at) = block_at.checked_sub(1)
                && branch.get(block_at).should_join(branch.get(before_at))
            {
                let block = branch.remove(block_at);
                branch.get_mut(before_at).join(block);
            }
            if branch.is_empty() {
                self.root.remove(branch_at);
            }
        }
        after
    }

    /// Where the block is that has the next key.
    fn block_after(&self, key: Option<&[u8]>) -> Option<(usize, usize)> {
        let Some(key) = key else { return (!self.root.is_empty()).then_some((0, 0)) };
        if self.root.is_empty() {
            return None;
        }
        let branch_at = self.root.part_of(key);
        let branch = self.root.get(branch_at);
        let block_at = branch.part_of(key);
        let block = branch.get(block_at);
        match () {
            () if block.name(block.len() - 1) > key => Some((branch_at, block_at)),
            () if block_at + 1 < branch.len() => Some((branch_at, block_at + 1)),
            () if branch_at + 1 < self.root.len() => Some((branch_at + 1, 0)),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests;
