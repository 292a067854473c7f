//! The plainest store that has a history.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quorate_kv::{
    Changes, Event, EventKind, History, HistoryError, KeyValue, Past, PastRequest, Revision,
};

/// Keys with all of their past. Clones are the same store.
#[derive(Clone, Default)]
pub(crate) struct Store {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    pairs: BTreeMap<Bytes, KeyValue>,
    /// Of revision 2 and later.
    changes: Vec<Changes>,
    compacted: Option<Revision>,
}

/// A write of one key: a new value, or none.
pub(crate) type Write = (Bytes, Option<Bytes>);

#[allow(dead_code, reason = "not every test needs all of it")]
impl Store {
    /// Writes in one revision. Nothing happens if there is nothing but deletes of missing keys.
    pub(crate) fn write(&self, writes: &[Write]) -> Option<Changes> {
        let mut state = self.state.lock().expect("nobody panicked");
        let revision = Revision(state.changes.len() as i64 + 2);
        let mut events = Vec::new();
        for (key, value) in writes {
            let prev = state.pairs.remove(key);
            match value {
                Some(value) => {
                    let kv = KeyValue {
                        key: key.clone(),
                        create_revision: prev
                            .as_ref()
                            .map_or(revision, |prev| prev.create_revision),
                        mod_revision: revision,
                        version: prev.as_ref().map_or(1, |prev| prev.version + 1),
                        value: value.clone(),
                        lease: None,
                    };
                    state.pairs.insert(key.clone(), kv.clone());
                    events.push(Event::put(kv, prev));
                }
                None if prev.is_some() => events.push(Event::delete(key.clone(), revision, prev)),
                None => {}
            }
        }
        if events.is_empty() {
            return None;
        }
        let changes = Changes { revision, events: events.into(), has_prev: true };
        state.changes.push(changes.clone());
        Some(changes)
    }

    pub(crate) fn keys(&self, start: &[u8], end: &[u8]) -> Vec<Bytes> {
        let state = self.state.lock().expect("nobody panicked");
        state.pairs.keys().filter(|key| (start..end).contains(&&key[..])).cloned().collect()
    }

    pub(crate) fn current(&self) -> Revision {
        Revision(self.state.lock().expect("nobody panicked").changes.len() as i64 + 1)
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.state.lock().expect("nobody panicked").compacted.unwrap_or(Revision(-1))
    }

    pub(crate) fn compact(&self, revision: Revision) {
        let mut state = self.state.lock().expect("nobody panicked");
        state.compacted = state.compacted.max(Some(revision));
    }

    /// The changes of some revisions, compacted or not.
    pub(crate) fn changes(&self, from: Revision, to: Revision) -> Vec<Changes> {
        let state = self.state.lock().expect("nobody panicked");
        let first = (from.0 - 2).clamp(0, state.changes.len() as i64);
        let end = (to.0 - 1).clamp(first, state.changes.len() as i64);
        state.changes[first as usize..end as usize].to_vec()
    }
}

impl History for Store {
    fn past(&self, request: PastRequest) -> Result<Past, HistoryError> {
        let state = self.state.lock().expect("nobody panicked");
        let compacted = state.compacted.unwrap_or(Revision(-1));
        if request.from < compacted {
            return Err(HistoryError::Compacted(compacted));
        }
        let (mut changes, mut bytes) = (Vec::new(), 0);
        // A history begins with revision 2, whoever asks for less.
        let mut through = request.from.max(Revision(1)).min(request.to);
        let first = (request.from.0 - 2).clamp(0, state.changes.len() as i64);
        for change in &state.changes[first as usize..] {
            if change.revision > request.to {
                break;
            }
            if changes.len() == request.revisions_max || (bytes > request.bytes_max) {
                break;
            }
            bytes += change.events.iter().map(|e| e.kv.key.len() + e.kv.value.len()).sum::<usize>();
            let kept = |event: &Event| {
                let before = Revision(change.revision.0 - 1);
                let prev =
                    if request.prev_kv && before >= compacted { event.prev.clone() } else { None };
                Event { prev, ..event.clone() }
            };
            let events = change.events.iter().map(kept).collect();
            changes.push(Changes { revision: change.revision, events, has_prev: request.prev_kv });
            through = change.revision;
        }
        Ok(Past { changes, through })
    }
}

#[allow(dead_code, reason = "not every test prints")]
pub(crate) fn event_text(event: &Event) -> String {
    let text = |bytes: &Bytes| match bytes.len() {
        0..=16 => String::from_utf8_lossy(bytes).escape_default().to_string(),
        len => format!("<{len} bytes>"),
    };
    let kv = &event.kv;
    let mut out = match event.kind {
        EventKind::Put => format!(
            "put {}={} {}/{}/{}",
            text(&kv.key),
            text(&kv.value),
            kv.create_revision.0,
            kv.mod_revision.0,
            kv.version
        ),
        EventKind::Delete => format!("delete {} {}", text(&kv.key), kv.mod_revision.0),
    };
    if let Some(prev) = &event.prev {
        out += &format!(" was {}/{}", text(&prev.value), prev.mod_revision.0);
    }
    out
}
