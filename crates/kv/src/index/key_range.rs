//! Which keys a request means.

use core::ops::Bound;

/// A range of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange<'a> {
    pub(super) start: Bound<&'a [u8]>,
    pub(super) end: Bound<&'a [u8]>,
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

    /// The one key that it means, if that is all.
    pub(crate) fn one(&self) -> Option<&'a [u8]> {
        match (self.start, self.end) {
            (Bound::Included(start), Bound::Included(end)) if start == end => Some(start),
            _ => None,
        }
    }

    /// Whether no key can be in it; a map would not take such bounds.
    pub(super) fn is_empty(&self) -> bool {
        match (self.start, self.end) {
            (Bound::Included(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => end <= start,
            (Bound::Included(start), Bound::Included(end)) => end < start,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        }
    }
}
