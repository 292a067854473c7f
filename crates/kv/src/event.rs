//! What a revision changed, and where changes of the past come from.

use core::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::{KeyValue, Revision};

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A key was put.
    Put,
    /// A key was deleted.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The pair after a put. After a delete only `key` and `mod_revision` mean something; the rest is 0, empty or `None`.
    pub kv: KeyValue,
    /// The pair just before, as of the revision before; `None` if there was none, if that revision is compacted, or if
    /// nobody asked.
    pub prev: Option<KeyValue>,
}

impl Event {
    /// A put.
    #[must_use]
    pub fn put(kv: KeyValue, prev: Option<KeyValue>) -> Self {
        Self { kind: EventKind::Put, kv, prev }
    }

    /// The deletion of a key in a revision.
    #[must_use]
    pub fn delete(key: Bytes, mod_revision: Revision, prev: Option<KeyValue>) -> Self {
        let kv = KeyValue {
            key,
            create_revision: Revision(0),
            mod_revision,
            version: 0,
            value: Bytes::new(),
            lease: None,
        };
        Self { kind: EventKind::Delete, kv, prev }
    }

    /// Whether the key was deleted.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        self.kind == EventKind::Delete
    }

    /// Whether it is a put of the revision that created the key. Such an event has no former pair, whatever else happened to
    /// the key in that revision.
    #[must_use]
    pub fn is_create(&self) -> bool {
        !self.is_delete() && self.kv.create_revision == self.kv.mod_revision
    }

    /// The revision that it belongs to.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.kv.mod_revision
    }
}

/// All changes of one revision, in the order in which they were made. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The revision.
    pub revision: Revision,
    /// At least one.
    pub events: Arc<[Event]>,
    /// Whether [`Event::prev`] was looked up. If not, it may be missing.
    pub has_prev: bool,
}

impl Changes {
    /// The same, as if nobody had asked for former pairs.
    #[must_use]
    pub fn without_prev(mut self) -> Self {
        if self.events.iter().any(|event| event.prev.is_some()) {
            let without = self.events.iter().map(|event| Event { prev: None, ..event.clone() });
            self.events = without.collect();
        }
        self.has_prev = false;
        self
    }
}

/// What part of the past is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastRequest {
    /// First revision.
    pub from: Revision,
    /// Last revision; what is later is left out, even if it is there.
    pub to: Revision,
    /// Whether [`Event::prev`] is wanted.
    pub prev_kv: bool,
    /// Most revisions.
    pub revisions_max: usize,
    /// Bytes of keys and values after which nothing is added. A revision is never split, and one is always given.
    pub bytes_max: usize,
}

/// A part of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The changes, by revision.
    pub changes: Vec<Changes>,
    /// All changes from the first wanted revision up to this one are there. At least the first wanted one.
    pub through: Revision,
}

/// Why the past cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryError {
    /// The first wanted revision is below the compact revision, which is given.
    Compacted(Revision),
    /// The storage failed: this member must not go on.
    Failed(String),
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted(revision) => write!(f, "compacted up to revision {}", revision.0),
            Self::Failed(why) => write!(f, "the history cannot be read: {why}"),
        }
    }
}

impl core::error::Error for HistoryError {}

/// Changes of the past. Reading never blocks those who write.
pub trait History {
    /// The changes of revisions `from..=to`, or the first of them. A revision that has been applied can be read.
    fn past(&self, request: PastRequest) -> Result<Past, HistoryError>;
}
