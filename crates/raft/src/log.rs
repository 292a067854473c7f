//! The log as the core sees it (§5.3): where it starts and ends, the term of every entry, and the
//! most recent entries themselves.
//!
//! Terms change rarely, so the terms of the whole log are a short list of runs. With it, log
//! matching, the election restriction and fast backup need no disk. Of the entries, only a bounded
//! tail is in memory; older ones are an effect away ([`Effect::Load`](crate::Effect::Load)).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::entry::Entry;
use crate::message::Conflict;
use crate::types::{Index, LogId, Term};

/// Bounds, terms and tail of the log.
#[derive(Debug)]
pub(crate) struct Log {
    /// The last entry that was compacted away; `0@0` if nothing was.
    base: LogId,
    last: LogId,
    /// The first index and the term of each run behind `base`, ascending.
    runs: VecDeque<(Index, Term)>,
    /// The last entries, contiguous up to `last`; perhaps none.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
}

impl Log {
    /// The log that a restart found; its entries are on disk.
    pub(crate) fn new(base: LogId, runs: &[(Index, Term)], last_index: Index) -> Self {
        let last_term = runs.last().map_or(base.term, |(_, term)| *term);
        Self {
            base,
            last: LogId::new(last_index, last_term),
            runs: runs.iter().copied().collect(),
            tail: VecDeque::new(),
            tail_bytes: 0,
        }
    }

    pub(crate) const fn base(&self) -> LogId {
        self.base
    }

    pub(crate) const fn last(&self) -> LogId {
        self.last
    }

    pub(crate) const fn last_index(&self) -> Index {
        self.last.index
    }

    pub(crate) const fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// The term of the entry at `index`: known from the compacted entry on.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last.index {
            return None;
        }
        if self.runs.back().is_some_and(|(first, _)| *first <= index) {
            return Some(self.last.term);
        }
        Some(self.runs[self.run_of(index)].1)
    }

    /// The place in `runs` of an index behind `base` and not behind `last`.
    fn run_of(&self, index: Index) -> usize {
        self.runs.partition_point(|(first, _)| *first <= index) - 1
    }

    /// Whether the log has this very entry. Everything up to it is then the same in any log that
    /// has it too (Log Matching, §5.3).
    pub(crate) fn has(&self, id: LogId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// What to tell a leader whose `prev_log` at `index` is not in this log.
    pub(crate) fn conflict_at(&self, index: Index) -> Conflict {
        if index > self.last.index {
            return Conflict { term: None, first_index: self.last.index.next() };
        }
        let (first_index, term) = self.runs[self.run_of(index)];
        Conflict { term: Some(term), first_index }
    }

    /// The last entry of `term`, the compacted one included.
    pub(crate) fn last_index_of(&self, term: Term) -> Option<Index> {
        let at = self.runs.partition_point(|(_, run)| *run < term);
        if self.runs.get(at).is_some_and(|(_, run)| *run == term) {
            return Some(self.runs.get(at + 1).map_or(self.last.index, |(next, _)| next.prev()));
        }
        (self.base.term == term && self.base.index > Index::ZERO).then_some(self.base.index)
    }

    /// The runs of terms, for checkers.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (Index, Term)> {
        self.runs.iter().copied()
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert!(entry.index == self.last.index.next(), "Log Matching (Figure 3): a gap");
        assert!(entry.term >= self.last.term, "Log Matching (Figure 3): terms decrease");
        if self.runs.back().is_none_or(|(_, term)| *term != entry.term) {
            self.runs.push_back((entry.index, entry.term));
        }
        self.last = entry.log_id();
        self.tail_bytes += entry.size();
        self.tail.push_back(entry);
    }

    /// Drops the entry at `first` and all behind it.
    pub(crate) fn truncate(&mut self, first: Index) {
        debug_assert!(first > self.base.index && first <= self.last.index);
        while self.runs.back().is_some_and(|(run, _)| *run >= first) {
            self.runs.pop_back();
        }
        while self.tail.back().is_some_and(|entry| entry.index >= first) {
            self.tail_bytes -= self.tail.pop_back().map_or(0, |entry| entry.size());
        }
        let term = self.runs.back().map_or(self.base.term, |(_, term)| *term);
        self.last = LogId::new(first.prev(), term);
    }

    /// Drops everything up to `up_to`, which is in the log.
    pub(crate) fn compact(&mut self, up_to: LogId) {
        debug_assert!(self.has(up_to));
        while self.runs.get(1).is_some_and(|(next, _)| *next <= up_to.index.next()) {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(_) if up_to == self.last => self.runs.clear(),
            Some((first, _)) => *first = (*first).max(up_to.index.next()),
            None => {}
        }
        while self.tail.front().is_some_and(|entry| entry.index <= up_to.index) {
            self.pop_front();
        }
        self.base = up_to;
    }

    /// Replaces the whole log by a snapshot that ends at `base` (§7).
    pub(crate) fn reset(&mut self, base: LogId) {
        *self = Self::new(base, &[], base.index);
    }

    /// Entries from `first` up to `last` out of memory, stopping before `bytes_max` but with at
    /// least one. `None` if the first of them is not in memory.
    pub(crate) fn recent(
        &self,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> Option<(Vec<Entry>, usize)> {
        let start = self.tail.front()?.index;
        let skip = usize::try_from(first.0.checked_sub(start.0)?).ok()?;
        let mut bytes = 0;
        let mut count = 0;
        for entry in self.tail.range(skip.min(self.tail.len())..) {
            let size = entry.size();
            if entry.index > last || (count > 0 && bytes + size > bytes_max) {
                break;
            }
            bytes += size;
            count += 1;
        }
        (count > 0).then(|| (self.tail.range(skip..skip + count).cloned().collect(), bytes))
    }

    /// Forgets the oldest entries in memory until they take no more than `bytes_max`, but none
    /// behind `durable`: those cannot be read back yet.
    pub(crate) fn evict(&mut self, durable: Index, bytes_max: usize) {
        while self.tail_bytes > bytes_max
            && self.tail.front().is_some_and(|entry| entry.index <= durable)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes -= entry.size();
        }
    }
}

#[cfg(test)]
mod tests;
