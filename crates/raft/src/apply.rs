//! Giving committed entries to the state machine, in order (Figure 2, "rules for all servers").
//!
//! Nothing is applied that is not both committed and on this node's own disk: a state machine must
//! not be ahead of the log that it is rebuilt from.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::common::Common;
use crate::effect::{Effect, Load, LoadId, Notice};
use crate::entry::Entry;
use crate::input::LoadError;
use crate::types::{Index, Time};

/// How far the state machine is, and what it has been given.
#[derive(Debug)]
pub(crate) struct Applying {
    /// The highest index that the state machine has reported.
    applied: Index,
    /// The highest index that was given to it.
    given: Index,
    /// The batches given and not reported: last index and bytes of each.
    batches: VecDeque<(Index, usize)>,
    bytes: usize,
    /// Entries that are being read back, to be given next.
    load: Option<LoadId>,
}

/// An entry that could not be read back. It is tried again every longest election timeout: a disk
/// may have a bad moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreadable {
    pub(crate) index: Index,
    /// When to try again.
    pub(crate) retry_at: Time,
    /// The attempt under way.
    load: Option<LoadId>,
}

impl Applying {
    pub(crate) const fn new(applied: Index) -> Self {
        Self { applied, given: applied, batches: VecDeque::new(), bytes: 0, load: None }
    }

    pub(crate) const fn applied(&self) -> Index {
        self.applied
    }

    pub(crate) const fn given(&self) -> Index {
        self.given
    }

    /// A snapshot up to `index` has taken the place of the state machine's contents.
    pub(crate) fn installed(&mut self, index: Index) {
        *self = Self::new(index);
    }

    fn give(&mut self, last: Index, bytes: usize) {
        self.given = last;
        self.bytes += bytes;
        self.batches.push_back((last, bytes));
    }

    fn report(&mut self, index: Index) {
        self.applied = self.applied.max(index.min(self.given));
        while self.batches.front().is_some_and(|(last, _)| *last <= self.applied) {
            self.bytes -= self.batches.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }
}

impl Common {
    /// The state machine has applied everything up to `index`.
    pub(crate) fn applied(&mut self, index: Index) {
        debug_assert!(index <= self.applying.given, "only what was given can be applied");
        self.applying.report(index);
        self.backlog.applied(self.applying.applied);
    }

    /// Gives the state machine what it may have, as far as it has room.
    pub(crate) fn flush_apply(&mut self) {
        if self.installing.is_some() {
            return;
        }
        self.retry_unreadable();
        let limit = self.commit_index.min(self.durability.index());
        let bytes_max = self.config.apply_bytes_max;
        while self.applying.given < limit
            && self.applying.bytes < bytes_max
            && self.applying.load.is_none()
        {
            let first = self.applying.given.next();
            if self.unreadable.is_some_and(|unreadable| unreadable.index <= first) {
                break;
            }
            let room = bytes_max - self.applying.bytes;
            match self.log.recent(first, limit, room) {
                Some((entries, bytes)) => {
                    if self.applying.bytes > 0 && bytes > room {
                        break;
                    }
                    self.give(entries, bytes);
                }
                None => {
                    let id = self.next_load();
                    self.applying.load = Some(id);
                    self.push(Effect::Load(Load { id, first, last: limit, bytes_max: room }));
                }
            }
        }
        self.log.evict(self.durability.index(), self.config.tail_bytes_max);
    }

    fn give(&mut self, entries: Vec<Entry>, bytes: usize) {
        let last = entries.last().map_or(self.applying.given, |entry| entry.index);
        debug_assert!(last <= self.commit_index, "State Machine Safety (Figure 3)");
        debug_assert!(last <= self.durability.index(), "applied ahead of the disk");
        self.applying.give(last, bytes);
        self.push(Effect::Apply(entries));
    }

    /// Whether that load was for the state machine; if so, it is dealt with.
    pub(crate) fn loaded_for_apply(
        &mut self,
        id: LoadId,
        result: &mut Result<Vec<Entry>, LoadError>,
    ) -> bool {
        if self.applying.load != Some(id) {
            return false;
        }
        self.applying.load = None;
        let first = self.applying.given.next();
        let limit = self.commit_index.min(self.durability.index());
        match result {
            // A snapshot took their place meanwhile.
            _ if self.installing.is_some() || first <= self.log.base().index => {}
            Ok(entries) if self.is_log_part(first, entries) => {
                entries.retain(|entry| entry.index <= limit);
                let bytes = entries.iter().map(Entry::size).sum();
                self.give(core::mem::take(entries), bytes);
            }
            Ok(_) | Err(_) => self.mark_unreadable(first),
        }
        true
    }

    /// Whether `entries` are what the log has from `first` on, undamaged.
    pub(crate) fn is_log_part(&self, first: Index, entries: &[Entry]) -> bool {
        !entries.is_empty()
            && entries.iter().zip(first.0..).all(|(entry, index)| {
                entry.index == Index(index)
                    && self.log.has(entry.log_id())
                    && entry.checksum_holds()
            })
    }

    /// The log cannot be read at `first`; the node must not lead, nor apply past it.
    pub(crate) fn mark_unreadable(&mut self, first: Index) {
        if self.unreadable.is_none_or(|unreadable| first < unreadable.index) {
            let retry_at = self.now.after(self.config.election_timeout_max_us);
            self.unreadable = Some(Unreadable { index: first, retry_at, load: None });
            self.notice(Notice::Unreadable { first });
        }
    }

    /// Tries to read what could not be read, when its time has come.
    pub(crate) fn retry_unreadable(&mut self) {
        let Some(unreadable) = self.unreadable else { return };
        let first = unreadable.index;
        if first <= self.log.base().index || first > self.log.last_index() {
            // It was compacted away, or replaced by a leader's entry.
            self.unreadable = None;
        } else if unreadable.load.is_none() && self.now >= unreadable.retry_at {
            let id = self.next_load();
            self.unreadable = Some(Unreadable { load: Some(id), ..unreadable });
            self.push(Effect::Load(Load { id, first, last: first, bytes_max: 0 }));
        }
    }

    pub(crate) fn unreadable_deadline(&self) -> Option<Time> {
        let unreadable = self.unreadable.filter(|unreadable| unreadable.load.is_none())?;
        Some(unreadable.retry_at)
    }

    /// Whether that load was an attempt to read again; if so, it is dealt with.
    pub(crate) fn loaded_for_retry(
        &mut self,
        id: LoadId,
        result: &Result<Vec<Entry>, LoadError>,
    ) -> bool {
        let Some(unreadable) = self.unreadable.filter(|unreadable| unreadable.load == Some(id))
        else {
            return false;
        };
        let readable = matches!(result, Ok(entries) if self.is_log_part(unreadable.index, entries));
        self.unreadable = None;
        if !readable {
            let retry_at = self.now.after(self.config.election_timeout_max_us);
            self.unreadable = Some(Unreadable { retry_at, load: None, ..unreadable });
        }
        true
    }
}
