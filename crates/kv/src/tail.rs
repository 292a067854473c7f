//! Changes that are not in the database yet.
//!
//! The log of the cluster is the journal, so a change need not be on this disk when it is applied. It stays in memory until a
//! flush writes many of them in one transaction: first in the open part, and while the flush runs in the frozen one.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::record::Place;
use crate::{Changes, Event};

/// What an event takes in memory besides its bytes.
const EVENT_OVERHEAD_BYTES: usize = 160;

/// Changes of revisions that follow each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    changes: VecDeque<Changes>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn push(&mut self, changes: Changes) {
        debug_assert!(
            self.changes.back().is_none_or(|last| last.revision.0 + 1 == changes.revision.0),
            "revisions follow each other"
        );
        self.bytes += changes.events.iter().map(size_of_event).sum::<usize>();
        self.changes.push_back(changes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn first_revision(&self) -> Option<i64> {
        self.changes.front().map(|changes| changes.revision.0)
    }

    pub(crate) fn of_revision(&self, revision: i64) -> Option<&Changes> {
        let at = revision.checked_sub(self.first_revision()?)?;
        self.changes.get(usize::try_from(at).ok()?)
    }

    pub(crate) fn find(&self, place: Place) -> Option<&Event> {
        self.of_revision(place.revision)?.events.get(place.sub as usize)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Changes> {
        self.changes.iter()
    }
}

fn size_of_event(event: &Event) -> usize {
    let prev = event.prev.as_ref().map_or(0, |prev| prev.value.len());
    EVENT_OVERHEAD_BYTES + event.kv.key.len() + event.kv.value.len() + prev
}

/// The open part and the frozen one.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    pub(crate) open: Tail,
    /// Being written; empty if nothing is.
    pub(crate) frozen: Arc<Tail>,
}

impl Tails {
    pub(crate) fn find(&self, place: Place) -> Option<&Event> {
        self.open.find(place).or_else(|| self.frozen.find(place))
    }

    pub(crate) fn of_revision(&self, revision: i64) -> Option<&Changes> {
        self.open.of_revision(revision).or_else(|| self.frozen.of_revision(revision))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.open.bytes() + self.frozen.bytes()
    }

    /// The first revision that may not be in the database.
    pub(crate) fn first_revision(&self) -> Option<i64> {
        self.frozen.first_revision().or_else(|| self.open.first_revision())
    }

    /// Begins a flush.
    pub(crate) fn freeze(&mut self) -> Arc<Tail> {
        debug_assert!(self.frozen.is_empty(), "one flush at a time");
        self.frozen = Arc::new(std::mem::take(&mut self.open));
        Arc::clone(&self.frozen)
    }
}
