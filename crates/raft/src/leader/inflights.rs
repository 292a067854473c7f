//! What was sent to a peer and not yet acknowledged: the window of pipelining.

use alloc::collections::VecDeque;

use crate::types::Index;

/// The messages with entries that are on their way, oldest first, bounded by count and bytes.
#[derive(Debug, Default)]
pub(crate) struct Inflights {
    /// The last index and the bytes of each message.
    sent: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Inflights {
    pub(crate) fn count(&self) -> usize {
        self.sent.len()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_full(&self, messages_max: usize, bytes_max: usize) -> bool {
        self.sent.len() >= messages_max || self.bytes >= bytes_max
    }

    pub(crate) fn push(&mut self, last: Index, bytes: usize) {
        self.sent.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// Everything up to `match_index` has arrived.
    pub(crate) fn free_to(&mut self, match_index: Index) {
        while self.sent.front().is_some_and(|(last, _)| *last <= match_index) {
            self.bytes -= self.sent.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.sent.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_by_count_or_bytes_and_freed_in_order() {
        let mut window = Inflights::default();
        window.push(Index(3), 100);
        window.push(Index(5), 50);
        assert!(window.is_full(2, 1000) && window.is_full(3, 150) && !window.is_full(3, 151));
        window.free_to(Index(4));
        assert_eq!((window.count(), window.bytes()), (1, 50));
        window.free_to(Index(9));
        assert_eq!((window.count(), window.bytes()), (0, 0));
    }
}
