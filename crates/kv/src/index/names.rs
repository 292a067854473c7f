//! Sorted names, each with something.
//!
//! Looking for a key among a million is mostly waiting for memory. Here the bytes of the names are together, and of each name
//! the eight bytes behind what all of them have in common are a number: a search runs through these numbers, and seldom has
//! to look at a name to know that it is not the right one.

use core::cmp::Ordering;
use core::ops::{Bound, Range};

use super::key_range::KeyRange;

/// Most names that are together. Few in unit tests, so that they see what is seen among millions of keys.
pub(super) const NAMES_MAX: usize = if cfg!(test) { 8 } else { 96 };
/// Bytes of names beyond which more than one are split, too.
const BYTES_MAX: usize = 1 << 20;
/// Room is made for so many names at a time: the memory is close to what it holds.
const GROWTH: usize = 8;

#[derive(Debug)]
pub(super) struct Names<T> {
    /// The bytes of the names, in no order.
    bytes: Vec<u8>,
    /// All names begin with the same bytes, at least so many.
    shared: usize,
    /// Of each name the eight bytes behind that; with zeros if it ends before.
    heads: Vec<u64>,
    entries: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    from: u32,
    length: u32,
    of: T,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), shared: 0, heads: Vec::new(), entries: Vec::new() }
    }
}

pub(super) fn head(key: &[u8], shared: usize) -> u64 {
    let mut head = [0; 8];
    let rest = &key[shared..];
    let length = rest.len().min(8);
    head[..length].copy_from_slice(&rest[..length]);
    u64::from_be_bytes(head)
}

pub(super) fn in_common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

impl<T> Names<T> {
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn name(&self, at: usize) -> &[u8] {
        let Entry { from, length, .. } = self.entries[at];
        &self.bytes[from as usize..][..length as usize]
    }

    /// The lowest and the highest name. There are names.
    pub(super) fn ends(&self) -> (&[u8], &[u8]) {
        (self.name(0), self.name(self.len() - 1))
    }

    pub(super) fn get(&self, at: usize) -> &T {
        &self.entries[at].of
    }

    pub(super) fn get_mut(&mut self, at: usize) -> &mut T {
        &mut self.entries[at].of
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|entry| &entry.of)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|entry| &mut entry.of)
    }

    /// Where a name is, or where it belongs.
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

    /// Which of the names are in a range.
    pub(super) fn span(&self, range: &KeyRange<'_>) -> Range<usize> {
        if self.is_empty() {
            return 0..0;
        }
        let (first, last) = self.ends();
        let from = match range.start {
            Bound::Included(start) if start > first => self.search(start).unwrap_or_else(|at| at),
            Bound::Excluded(start) if start >= first => {
                self.search(start).map_or_else(|at| at, |at| at + 1)
            }
            _ => 0,
        };
        let to = match range.end {
            Bound::Included(end) if end < last => {
                self.search(end).map_or_else(|at| at, |at| at + 1)
            }
            Bound::Excluded(end) if end <= last => self.search(end).unwrap_or_else(|at| at),
            _ => self.len(),
        };
        from..to.max(from)
    }

    /// If each name stands for all that is not lower than it, and the first one also for what is lower: which one a name
    /// belongs to.
    pub(super) fn part_of(&self, name: &[u8]) -> usize {
        self.search(name).unwrap_or_else(|at| at.saturating_sub(1))
    }

    /// In the same sense, those that a range overlaps.
    pub(super) fn parts_of(&self, range: &KeyRange<'_>) -> Range<usize> {
        if self.is_empty() {
            return 0..0;
        }
        let from = match range.start {
            Bound::Included(start) | Bound::Excluded(start) => self.part_of(start),
            Bound::Unbounded => 0,
        };
        let to = match range.end {
            Bound::Included(end) => self.search(end).map_or_else(|at| at, |at| at + 1),
            Bound::Excluded(end) => self.search(end).unwrap_or_else(|at| at),
            Bound::Unbounded => self.len(),
        };
        from..to.max(from + 1)
    }

    /// Whether one name more makes it too large.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= NAMES_MAX || (self.len() > 1 && self.bytes.len() > BYTES_MAX)
    }

    /// Puts a name where it belongs.
    pub(super) fn insert(&mut self, at: usize, name: &[u8], of: T) {
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
            self.heads.reserve_exact(GROWTH);
            self.entries.reserve_exact(GROWTH);
        }
        let number = |length| u32::try_from(length).expect("names are far below 4 GiB");
        let entry = Entry { from: number(self.bytes.len()), length: number(name.len()), of };
        self.bytes.extend_from_slice(name);
        self.heads.insert(at, head(name, self.shared));
        self.entries.insert(at, entry);
    }

    fn share(&mut self, shared: usize) {
        self.shared = shared;
        self.heads = (0..self.len()).map(|at| head(self.name(at), shared)).collect();
    }

    /// Gives away the names from a place on.
    pub(super) fn split(&mut self, at: usize) -> Self {
        let bytes = core::mem::take(&mut self.bytes);
        let mut first = core::mem::take(&mut self.entries);
        let second = first.split_off(at);
        *self = Self::of(first, &bytes);
        Self::of(second, &bytes)
    }

    /// Takes names that follow.
    pub(super) fn join(&mut self, next: Self) {
        let offset = u32::try_from(self.bytes.len()).expect("names are far below 4 GiB");
        let moved = next.entries.into_iter();
        self.bytes.extend_from_slice(&next.bytes);
        self.entries.extend(moved.map(|entry| Entry { from: entry.from + offset, ..entry }));
        let bytes = core::mem::take(&mut self.bytes);
        let entries = core::mem::take(&mut self.entries);
        *self = Self::of(entries, &bytes);
    }

    /// Keeps what is wanted.
    pub(super) fn retain(&mut self, mut is_wanted: impl FnMut(&mut T) -> bool) {
        let before = self.len();
        self.entries.retain_mut(|entry| is_wanted(&mut entry.of));
        if self.len() < before {
            let bytes = core::mem::take(&mut self.bytes);
            let entries = core::mem::take(&mut self.entries);
            *self = Self::of(entries, &bytes);
        }
    }

    /// Gives another name to one. It is between its neighbours.
    pub(super) fn rename(&mut self, at: usize, name: &[u8]) {
        let mut bytes = core::mem::take(&mut self.bytes);
        let mut entries = core::mem::take(&mut self.entries);
        let number = |length| u32::try_from(length).expect("names are far below 4 GiB");
        (entries[at].from, entries[at].length) = (number(bytes.len()), number(name.len()));
        bytes.extend_from_slice(name);
        *self = Self::of(entries, &bytes);
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, at: usize) -> T {
        let bytes = core::mem::take(&mut self.bytes);
        let mut entries = core::mem::take(&mut self.entries);
        let removed = entries.remove(at);
        *self = Self::of(entries, &bytes);
        removed.of
    }

    fn of(mut entries: Vec<Entry<T>>, old: &[u8]) -> Self {
        entries.shrink_to_fit();
        let mut bytes = Vec::with_capacity(entries.iter().map(|entry| entry.length as usize).sum());
        for entry in &mut entries {
            let from = entry.from as usize;
            entry.from = bytes.len() as u32;
            bytes.extend_from_slice(&old[from..][..entry.length as usize]);
        }
        let mut names = Self { bytes, shared: 0, heads: Vec::new(), entries };
        if !names.is_empty() {
            // They are in order, so what the first and the last have in common, all have.
            let (first, last) = names.ends();
            names.share(in_common(first, last));
        }
        names
    }
}
