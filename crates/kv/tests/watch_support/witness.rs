//! What one stream says, held against what it should have said.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_kv::{Event, EventKind, Revision, WatchCreate, WatchId, WatchResponse};

use crate::watch_support::store::Store;

/// Everything that a client knows of its stream.
#[derive(Default)]
pub(crate) struct Witness {
    /// Create requests that are not answered yet, in order.
    asked: Vec<WatchCreate>,
    watchers: BTreeMap<WatchId, Watcher>,
    pub(crate) counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) events: usize,
    pub(crate) progress: usize,
    pub(crate) compacted: usize,
    pub(crate) caught_up: usize,
    pub(crate) fragments: usize,
    pub(crate) prev: usize,
}

struct Watcher {
    create: WatchCreate,
    /// Everything before this revision has been told.
    next: Revision,
    /// Fragments of a response that is not whole yet.
    part: Vec<Event>,
    ended: bool,
}

impl Witness {
    pub(crate) fn asks(&mut self, create: WatchCreate) {
        self.asked.push(create);
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = WatchId> {
        self.watchers.iter().filter(|(_, watcher)| !watcher.ended).map(|(id, _)| *id)
    }

    pub(crate) fn hears(&mut self, response: &WatchResponse, store: &Store) {
        let id = response.watch_id;
        if response.created {
            let create = self.asked.remove(0);
            if response.canceled {
                assert_eq!(id, WatchId::NONE);
                return;
            }
            let next = match create.start_revision {
                Revision(0) => Revision(response.revision.0 + 1),
                start => start,
            };
            let watcher = Watcher { create, next, part: Vec::new(), ended: false };
            assert!(self.watchers.insert(id, watcher).is_none(), "{id:?} is in use");
            return;
        }
        if id == WatchId::NONE {
            self.counts.progress += 1;
            for watcher in self.watchers.values().filter(|watcher| !watcher.ended) {
                watcher.was_told_up_to(response.revision, store);
            }
            return;
        }
        let watcher = self.watchers.get_mut(&id).expect("news is for a watcher that was created");
        if response.canceled {
            match response.compact_revision {
                Some(compacted) => {
                    assert!(watcher.next < compacted, "{} is not compacted", watcher.next.0);
                    assert!(!watcher.ended && response.revision == Revision(0));
                    watcher.ended = true;
                    self.counts.compacted += 1;
                }
                None => drop(self.watchers.remove(&id)),
            }
            return;
        }
        assert!(!watcher.ended, "news after the end");
        if response.events.is_empty() {
            self.counts.progress += 1;
            watcher.was_told_up_to(response.revision, store);
            return;
        }
        watcher.part.extend(response.events.iter().cloned());
        if response.fragment {
            assert!(watcher.create.fragment);
            self.counts.fragments += 1;
            return;
        }
        let events = core::mem::take(&mut watcher.part);
        let last = events[events.len() - 1].revision();
        assert!(response.revision >= last, "the header is older than what it tells");
        self.counts.caught_up += usize::from(response.revision > last);
        self.counts.events += events.len();
        let expected = watcher.expected(last, store);
        assert_eq!(events.len(), expected.len(), "{events:?}\nfor {expected:?}");
        for (event, expected) in events.iter().zip(&expected) {
            let bare = |event: &Event| Event { prev: None, ..event.clone() };
            assert_eq!(bare(event), bare(expected));
            if !watcher.create.prev_kv {
                assert_eq!(event.prev, None);
            } else if event.prev.is_some() || event.revision().0 > store.compacted().0 {
                self.counts.prev += usize::from(event.prev.is_some());
                assert_eq!(event.prev, expected.prev);
            }
        }
        watcher.next = Revision(last.0 + 1);
    }

    /// Nothing is missing.
    pub(crate) fn is_complete(&self, store: &Store) {
        let current = store.current();
        for watcher in self.watchers.values().filter(|watcher| !watcher.ended) {
            assert!(watcher.part.is_empty());
            watcher.was_told_up_to(current, store);
        }
        assert!(self.asked.is_empty(), "a create request has no answer");
    }
}

impl Watcher {
    /// What it is owed up to a revision.
    fn expected(&self, last: Revision, store: &Store) -> Vec<Event> {
        let changes = store.changes(self.next, last);
        let events = changes.iter().flat_map(|changes| changes.events.iter());
        events.filter(|event| self.wants(event)).cloned().collect()
    }

    fn wants(&self, event: &Event) -> bool {
        let WatchCreate { key, range_end, no_put, no_delete, .. } = &self.create;
        let within = match &range_end[..] {
            b"" => event.kv.key == key,
            b"\0" => event.kv.key >= key,
            end => event.kv.key >= key && event.kv.key < Bytes::copy_from_slice(end),
        };
        let shown = match event.kind {
            EventKind::Put => !no_put,
            EventKind::Delete => !no_delete,
        };
        within && shown
    }

    fn was_told_up_to(&self, revision: Revision, store: &Store) {
        let missing = self.expected(revision, store);
        assert!(missing.is_empty(), "told up to {}, but not of {missing:?}", revision.0);
    }
}
