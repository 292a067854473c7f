//! The events of one revision (or of several), as watchers of different wishes see them.

use std::sync::Arc;

use crate::watch::response::{Carried, events_bytes};
use crate::{Event, EventKind};

/// What a watcher leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct View {
    pub(super) no_put: bool,
    pub(super) no_delete: bool,
    pub(super) prev_kv: bool,
}

/// How many views there are.
const VIEWS: usize = 8;

impl View {
    fn number(self) -> usize {
        usize::from(self.no_put) + 2 * usize::from(self.no_delete) + 4 * usize::from(self.prev_kv)
    }

    pub(super) fn shows(self, event: &Event) -> bool {
        match event.kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }

    pub(super) fn of(self, event: &Event) -> Event {
        let prev = if self.prev_kv { event.prev.clone() } else { None };
        Event { kind: event.kind, kv: event.kv.clone(), prev }
    }
}

/// Events that a response carries, with their size.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) events: Arc<Carried>,
    pub(super) bytes: usize,
}

impl Shared {
    pub(super) fn new(events: Arc<[Event]>) -> Self {
        let bytes = events_bytes(&events);
        Self { events: Arc::new(events.into()), bytes }
    }
}

/// Every view of some events, made when somebody first wants it, and shared by all who do.
#[derive(Debug)]
pub(super) struct Variants {
    events: Arc<[Event]>,
    made: [Option<Option<Shared>>; VIEWS],
}

impl Variants {
    pub(super) fn new(events: Arc<[Event]>) -> Self {
        Self { events, made: Default::default() }
    }

    /// What a view shows; `None` if that is nothing.
    pub(super) fn view(&mut self, view: View) -> Option<&Shared> {
        let events = &self.events;
        let made = self.made[view.number()].get_or_insert_with(|| {
            let all = events
                .iter()
                .all(|event| view.shows(event) && (view.prev_kv || event.prev.is_none()));
            let shown = if all {
                Arc::clone(events)
            } else {
                events
                    .iter()
                    .filter(|event| view.shows(event))
                    .map(|event| view.of(event))
                    .collect()
            };
            (!shown.is_empty()).then(|| Shared::new(shown))
        });
        made.as_ref()
    }
}
