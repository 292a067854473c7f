//! Some keys that follow each other.

use core::ops::Range;

use super::key::Key;
use super::key_range::KeyRange;
use super::names::{NAMES_MAX, Names};

/// A block of fewer keys is joined with the one before it, if that leaves room in it.
const KEYS_MIN: usize = NAMES_MAX / 4;

/// Keys, and what can be said of all of them.
#[derive(Debug, Default)]
pub(super) struct Block {
    keys: Names<Key>,
    live: usize,
    newest: i64,
}

impl Block {
    /// A block of one key.
    pub(super) fn new(name: &[u8], key: Key) -> Self {
        let mut block = Self::default();
        block.insert(0, name, key);
        block
    }

    pub(super) const fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.keys.is_empty()
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
        self.keys.name(at)
    }

    pub(super) fn key(&self, at: usize) -> &Key {
        self.keys.get(at)
    }

    /// Where a key is, or where it belongs.
    pub(super) fn search(&self, name: &[u8]) -> Result<usize, usize> {
        self.keys.search(name)
    }

    /// Which of its keys are in a range.
    pub(super) fn span(&self, range: &KeyRange<'_>) -> Range<usize> {
        self.keys.span(range)
    }

    pub(super) fn slice(&self, span: Range<usize>) -> impl Iterator<Item = (&[u8], &Key)> {
        span.map(|at| (self.name(at), self.key(at)))
    }

    /// All keys, to change what does not decide whether they exist.
    pub(super) fn keys_mut(&mut self) -> impl Iterator<Item = &mut Key> {
        self.keys.iter_mut()
    }

    pub(super) fn is_full(&self) -> bool {
        self.keys.is_full()
    }

    /// Puts a key where it belongs. There is room for it.
    pub(super) fn insert(&mut self, at: usize, name: &[u8], key: Key) {
        self.live += usize::from(key.is_live());
        self.newest = self.newest.max(key.last().place().revision);
        self.keys.insert(at, name, key);
    }

    /// Changes a key, and takes note of what that means for the whole.
    pub(super) fn change<T>(&mut self, at: usize, change: impl FnOnce(&mut Key) -> T) -> T {
        let key = self.keys.get_mut(at);
        let was_live = key.is_live();
        let changed = change(key);
        self.live = self.live + usize::from(key.is_live()) - usize::from(was_live);
        self.newest = self.newest.max(key.last().place().revision);
        changed
    }

    /// Gives the keys from a place on to a new block.
    pub(super) fn split(&mut self, at: usize) -> Self {
        let second = self.keys.split(at);
        let live = second.iter().filter(|key| key.is_live()).count();
        self.live -= live;
        Self { keys: second, live, newest: self.newest }
    }

    /// Whether it has so few keys, and the one before it too, that they should be one.
    pub(super) const fn should_join(&self, before: &Self) -> bool {
        self.len() < KEYS_MIN && before.len() + self.len() <= NAMES_MAX * 3 / 4
    }

    /// Takes the keys of the block that follows.
    pub(super) fn join(&mut self, next: Self) {
        self.live += next.live;
        self.newest = self.newest.max(next.newest);
        self.keys.join(next.keys);
    }

    /// Keeps the keys that are wanted. Those that exist must be.
    pub(super) fn retain(&mut self, is_wanted: impl FnMut(&mut Key) -> bool) {
        self.keys.retain(is_wanted);
    }
}
