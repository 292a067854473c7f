//! Some keys that follow each other.
//!
//! Looking for a key among a million is mostly waiting for memory. A block keeps the bytes of its keys together, and of each
//! key the eight bytes behind what all of them have in common as a number: a search runs through these numbers, and seldom
//! has to look at a key to know that it is not the right one.

use core::cmp::Ordering;
use core::ops::{Bound, Range};

use super::key::Key;
use super::key_range::KeyRange;

/// Most keys of a block.
pub(super) const BLOCK_KEYS_MAX: usize = 128;
/// A block of fewer is joined with the one before it, if that leaves room in it.
pub(super) const BLOCK_KEYS_MIN: usize = 32;
/// Bytes of keys beyond which a block of more than one key is split, too.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// A block grows by so many keys at a time: its memory is close to what it holds.
const GROWTH_KEYS: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Block {
    /// The bytes of the keys, in no order.
    bytes: Vec<u8>,
    /// All keys begin with the same bytes, at least so many.
    shared: usize,
    /// Of each key the eight bytes behind that; with zeros if it ends before.
    heads: Vec<u64>,
    entries: Vec<Entry>,
    /// How many of them exist now.
    live: usize,
    /// No key has changed since this revision.
    newest: i64,
}

#[derive(Debug)]
struct Entry {
    from: u32,
    length: u32,
    key: Key,
}

fn head(key: &[u8], shared: usize) -> u64 {
    let mut head = [0; 8];
    let rest = &key[shared..];
    let length = rest.len().min(8);
    head[..length].copy_from_slice(&rest[..length]);
    u64::from_be_bytes(head)
}

fn in_common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

impl Block {
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys that exist now.
    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// No key has changed after this revision.
    pub(super) const fn newest(&self) -> i64 {
        self.newest
    }

    pub(super) fn name(&self, at: usize) -> &[u8] {
        let Entry { from, length, .. } = self.entries[at];
        &self.bytes[from as usize..][..length as usize]
    }

    pub(super) fn key(&self, at: usize) -> &Key {
        &self.entries[at].key
    }

    pub(super) fn slice(&self, span: Range<usize>) -> impl Iterator<Item = (&[u8], &Key)> {
        span.map(|at| (self.name(at), self.key(at)))
    }

    /// All keys, to change what does not decide whether they exist.
    pub(super) fn keys_mut(&mut self) -> impl Iterator<Item = &mut Key> {
        self.entries.iter_mut().map(|entry| &mut entry.key)
    }

    /// Where a key is, or where it belongs.
    pub(super) fn search(&self, name: &[u8]) -> Result<usize, usize> {
        if self.is_empty() {
            return Err(0);
        }
        let shared = &self.name(0)[..self.shared];
        match name[..name.len().min(self.shared)].cmp(shared) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.len()),
            Ordering::Equal => {}
        }
        let head = head(name, self.shared);
        let from = self.heads.partition_point(|other| *other < head);
        let count = self.heads[from..].partition_point(|other| *other == head);
        let (mut low, mut high) = (from, from + count);
        while low < high {
            let middle = low.midpoint(high);
            match self.name(middle).cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Which of its keys are in a range.
    pub(super) fn span(&self, range: &KeyRange<'_>) -> Range<usize> {
        let Some(last) = self.len().checked_sub(1) else { return 0..0 };
        let from = match range.start {
            Bound::Included(start) if start > self.name(0) => {
                self.search(start).unwrap_or_else(|at| at)
            }
            Bound::Excluded(start) if start >= self.name(0) => {
                self.search(start).map_or_else(|at| at, |at| at + 1)
            }
            _ => 0,
        };
        let to = match range.end {
            Bound::Included(end) if end < self.name(last) => {
                self.search(end).map_or_else(|at| at, |at| at + 1)
            }
            Bound::Excluded(end) if end <= self.name(last) => {
                self.search(end).unwrap_or_else(|at| at)
            }
            _ => self.len(),
        };
        from..to.max(from)
    }

    /// Whether one key more makes it too large.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= BLOCK_KEYS_MAX || (self.len() > 1 && self.bytes.len() > BLOCK_BYTES_MAX)
    }

    /// Puts a key where it belongs. There is room for it.
    pub(super) fn insert(&mut self, at: usize, name: &[u8], key: Key) {
        if self.is_empty() {
            self.shared = name.len();
        } else {
            let shared = in_common(&self.name(0)[..self.shared], name);
            if shared < self.shared {
                self.share(shared);
            }
        }
        if self.bytes.capacity() - self.bytes.len() < name.len() {
            self.bytes.reserve_exact(name.len().max(self.bytes.len() / 8));
        }
        if self.entries.len() == self.entries.capacity() {
            self.heads.reserve_exact(GROWTH_KEYS);
            self.entries.reserve_exact(GROWTH_KEYS);
        }
        let number = |length| u32::try_from(length).expect("keys of a block are far below 4 GiB");
        let entry = Entry { from: number(self.bytes.len()), length: number(name.len()), key };
        self.live += usize::from(entry.key.is_live());
        self.newest = self.newest.max(entry.key.last().place().revision);
        self.bytes.extend_from_slice(name);
        self.heads.insert(at, head(name, self.shared));
        self.entries.insert(at, entry);
    }

    fn share(&mut self, shared: usize) {
        self.shared = shared;
        self.heads = (0..self.len()).map(|at| head(self.name(at), shared)).collect();
    }

    /// Changes a key, and takes note of what that means for the whole.
    pub(super) fn change<T>(&mut self, at: usize, change: impl FnOnce(&mut Key) -> T) -> T {
        let key = &mut self.entries[at].key;
        let was_live = key.is_live();
        let changed = change(key);
        self.live = self.live + usize::from(key.is_live()) - usize::from(was_live);
        self.newest = self.newest.max(key.last().place().revision);
        changed
    }

    /// Gives the keys from a place on to a new block.
    pub(super) fn split(&mut self, at: usize) -> Self {
        let bytes = core::mem::take(&mut self.bytes);
        let mut first = core::mem::take(&mut self.entries);
        let second = first.split_off(at);
        *self = Self::of(first, &bytes, self.newest);
        Self::of(second, &bytes, self.newest)
    }

    /// Takes the keys of the block that follows.
    pub(super) fn join(&mut self, next: Self) {
        self.bytes.reserve_exact(next.bytes.len());
        let offset = u32::try_from(self.bytes.len()).expect("keys of a block are far below 4 GiB");
        let moved = next.entries.into_iter();
        self.bytes.extend_from_slice(&next.bytes);
        self.entries.extend(moved.map(|entry| Entry { from: entry.from + offset, ..entry }));
        let bytes = core::mem::take(&mut self.bytes);
        let entries = core::mem::take(&mut self.entries);
        *self = Self::of(entries, &bytes, self.newest.max(next.newest));
    }

    /// Keeps the keys that are wanted.
    pub(super) fn retain(&mut self, mut is_wanted: impl FnMut(&mut Key) -> bool) {
        let before = self.len();
        self.entries.retain_mut(|entry| is_wanted(&mut entry.key));
        if self.len() < before {
            let bytes = core::mem::take(&mut self.bytes);
            let entries = core::mem::take(&mut self.entries);
            *self = Self::of(entries, &bytes, self.newest);
        }
    }

    fn of(mut entries: Vec<Entry>, old: &[u8], newest: i64) -> Self {
        entries.shrink_to_fit();
        let mut bytes = Vec::with_capacity(entries.iter().map(|entry| entry.length as usize).sum());
        for entry in &mut entries {
            let from = entry.from as usize;
            entry.from = bytes.len() as u32;
            bytes.extend_from_slice(&old[from..][..entry.length as usize]);
        }
        let live = entries.iter().filter(|entry| entry.key.is_live()).count();
        let mut block = Self { bytes, shared: 0, heads: Vec::new(), entries, live, newest };
        if let Some(last) = block.len().checked_sub(1) {
            // They are in order, so what the first and the last have in common, all have.
            block.share(in_common(block.name(0), block.name(last)));
        }
        block
    }
}
