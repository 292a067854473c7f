//! A log in memory, for tests and for those who keep nothing.

use std::collections::VecDeque;
use std::sync::Mutex;

use quorate_raft::{Entry, Index, LoadError, Persist, SnapshotMeta};

/// The entries behind a start. Bounded by compaction.
#[derive(Default)]
pub(crate) struct MemoryLog {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    start: Index,
    entries: VecDeque<Entry>,
}

impl Inner {
    fn place(&self, index: Index) -> Option<usize> {
        usize::try_from(index.0.checked_sub(self.start.0 + 1)?).ok()
    }
}

const UNPOISONED: &str = "nobody panics while holding the log";

impl MemoryLog {
    pub(crate) fn append(&self, persist: Persist) {
        let Some(first) = persist.append.first() else { return };
        let mut inner = self.inner.lock().expect(UNPOISONED);
        if let Some(place) = inner.place(first.index) {
            inner.entries.truncate(place);
        }
        inner.entries.extend(persist.append);
    }

    pub(crate) fn compact(&self, start: &SnapshotMeta) {
        let mut inner = self.inner.lock().expect(UNPOISONED);
        while inner.entries.front().is_some_and(|entry| entry.index <= start.id.index) {
            inner.entries.pop_front();
        }
        inner.start = inner.start.max(start.id.index);
    }

    pub(crate) fn install(&self, start: &SnapshotMeta) {
        let mut inner = self.inner.lock().expect(UNPOISONED);
        inner.entries.clear();
        inner.start = start.id.index;
    }

    /// Entries from `first` to `last`, as many as stay below `bytes_max`, and at least one.
    pub(crate) fn read(
        &self,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LoadError> {
        let inner = self.inner.lock().expect(UNPOISONED);
        let place = inner.place(first).ok_or(LoadError::Compacted)?;
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in inner.entries.iter().skip(place).take_while(|entry| entry.index <= last) {
            bytes += entry.size();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        if found.is_empty() { Err(LoadError::Unreadable) } else { Ok(found) }
    }
}
