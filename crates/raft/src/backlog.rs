//! How many bytes are appended here and not yet applied: what back-pressure is measured by.

use alloc::collections::VecDeque;

use crate::types::Index;

/// The sizes of the entries behind the applied index. Four bytes an entry.
#[derive(Debug)]
pub(crate) struct Backlog {
    applied: Index,
    sizes: VecDeque<u32>,
    bytes: usize,
}

impl Backlog {
    /// A log that was recovered up to `last`; what its unapplied entries take is not known, and
    /// counts as nothing.
    pub(crate) fn new(applied: Index, last: Index) -> Self {
        let count = usize::try_from(last.0.saturating_sub(applied.0)).unwrap_or(0);
        Self { applied, sizes: core::iter::repeat_n(0, count).collect(), bytes: 0 }
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn append(&mut self, size: usize) {
        self.sizes.push_back(u32::try_from(size).unwrap_or(u32::MAX));
        self.bytes += size.min(u32::MAX as usize);
    }

    /// Entries from `first` on are gone.
    pub(crate) fn truncate(&mut self, first: Index) {
        let keep = usize::try_from(first.prev().0.saturating_sub(self.applied.0)).unwrap_or(0);
        for size in self.sizes.drain(keep.min(self.sizes.len())..) {
            self.bytes -= size as usize;
        }
    }

    pub(crate) fn applied(&mut self, index: Index) {
        while self.applied < index {
            self.applied = self.applied.next();
            self.bytes -= self.sizes.pop_front().unwrap_or(0) as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_behind_the_applied_index() {
        let mut backlog = Backlog::new(Index(3), Index(5));
        assert_eq!(backlog.bytes(), 0);
        backlog.append(10);
        backlog.append(20);
        assert_eq!(backlog.bytes(), 30);
        backlog.applied(Index(6));
        assert_eq!(backlog.bytes(), 20);
        backlog.truncate(Index(7));
        assert_eq!(backlog.bytes(), 0);
        backlog.append(5);
        backlog.applied(Index(7));
        assert_eq!(backlog.bytes(), 0);
    }
}
