//! The past, for watchers that are behind.

use core::ops::RangeInclusive;

use crate::disk::DiskError;
use crate::reader::Reader;
use crate::record::Place;
use crate::state::{Found, State, read};
use crate::{Changes, Event, History, HistoryError, KeyValue, Past, PastRequest, Revision};

/// How many former pairs are looked up under one lock.
const SLICE_EVENTS: usize = 256;

impl History for Reader {
    fn past(&self, request: PastRequest) -> Result<Past, HistoryError> {
        let mut part = Part::new(request);
        let (saved, in_memory) = {
            let state = self.shared.read();
            if request.from.0 < state.compacted {
                return Err(HistoryError::Compacted(Revision(state.compacted)));
            }
            part.to = part.to.min(state.revision);
            // Cheap: a pointer for each revision, and no more of them than are wanted.
            let first = state.tails.first_revision().unwrap_or(i64::MAX).max(request.from.0);
            let in_memory: Vec<Changes> = (first..=part.to)
                .take(request.revisions_max)
                .map_while(|revision| state.tails.of_revision(revision).cloned())
                .collect();
            (state.saved.clone(), in_memory)
        };
        let on_disk_to =
            in_memory.first().map_or(part.to, |changes| changes.revision.0 - 1).min(part.to);
        if request.from.0 <= on_disk_to {
            let mut made: Vec<Event> = Vec::new();
            let scanned = saved.scan(request.from.0..=on_disk_to, |place, record| {
                let of_next =
                    made.first().is_some_and(|first| first.kv.mod_revision.0 != place.revision);
                if of_next && !part.push_events(std::mem::take(&mut made)) {
                    return false;
                }
                made.push(record.to_event(place.revision));
                true
            });
            scanned.map_err(|why| failed(&why))?;
            if !part.full && !made.is_empty() {
                part.push_events(made);
            }
        }
        for changes in in_memory {
            if part.full || !part.push(changes) {
                break;
            }
        }
        let (mut changes, through) = (part.changes, part.through);
        let through = through.unwrap_or(part.to.max(request.from.0));
        if request.prev_kv {
            self.add_former(&mut changes)?;
        } else {
            forget_former(&mut changes);
        }
        Ok(Past { changes, through: Revision(through) })
    }
}

fn failed(why: &DiskError) -> HistoryError {
    HistoryError::Failed(why.to_string())
}

/// What is gathered, within the limits.
struct Part {
    request: PastRequest,
    to: i64,
    changes: Vec<Changes>,
    bytes: usize,
    full: bool,
    /// If it is full: the last revision that is whole.
    through: Option<i64>,
}

impl Part {
    fn new(request: PastRequest) -> Self {
        let (changes, to) = (Vec::new(), request.to.0);
        Self { request, to, changes, bytes: 0, full: false, through: None }
    }

    /// False if there is no room for more.
    fn push(&mut self, changes: Changes) -> bool {
        let bytes: usize =
            changes.events.iter().map(|event| event.kv.key.len() + event.kv.value.len()).sum();
        let revision = changes.revision.0;
        self.bytes += bytes;
        self.changes.push(changes);
        if self.bytes >= self.request.bytes_max || self.changes.len() >= self.request.revisions_max
        {
            self.full = true;
            self.through = Some(revision);
        }
        !self.full
    }

    fn push_events(&mut self, events: Vec<Event>) -> bool {
        let Some(first) = events.first() else { return true };
        let revision = first.kv.mod_revision;
        self.push(Changes { revision, events: events.into(), has_prev: self.request.prev_kv })
    }
}

fn forget_former(changes: &mut [Changes]) {
    for changes in changes {
        let has_prev = changes.has_prev;
        *changes = changes.clone().without_prev();
        // What cannot be read was looked up all the same.
        changes.has_prev = has_prev;
    }
}

/// What a former pair takes to find.
struct Wanted {
    change: usize,
    event: usize,
}

impl Reader {
    /// Adds the pairs before the changes, as far as they can still be read.
    fn add_former(&self, changes: &mut [Changes]) -> Result<(), HistoryError> {
        let mut wanted = Vec::new();
        for (at, change) in changes.iter().enumerate() {
            for (event_at, event) in change.events.iter().enumerate() {
                if event.prev.is_none() && !event.is_create() {
                    wanted.push(Wanted { change: at, event: event_at });
                }
            }
        }
        for slice in wanted.chunks(SLICE_EVENTS) {
            let (found, saved) = {
                let state = self.shared.read();
                let look = |wanted: &Wanted| {
                    let event = &changes[wanted.change].events[wanted.event];
                    state.former(&event.kv.key, event.kv.mod_revision.0)
                };
                let found: Vec<Option<Found>> = slice.iter().map(look).collect();
                (found, state.saved.clone())
            };
            for (wanted, found) in slice.iter().zip(found) {
                let Some(found) = found else { continue };
                let pair = read(&saved, found).map_err(|why| failed(&why))?;
                set_former(&mut changes[wanted.change], wanted.event, pair);
            }
        }
        let compacted = self.shared.read().compacted;
        let hidden: RangeInclusive<i64> = i64::MIN..=compacted;
        for changes in changes {
            // The revision before it cannot be read any more.
            if hidden.contains(&changes.revision.0) {
                forget_former(std::slice::from_mut(changes));
            }
        }
        Ok(())
    }
}

fn set_former(changes: &mut Changes, at: usize, pair: KeyValue) {
    let mut events = changes.events.to_vec();
    events[at].prev = Some(pair);
    changes.events = events.into();
}

impl State {
    /// The pair that a key had before a revision, if that can still be read.
    fn former(&self, key: &[u8], revision: i64) -> Option<Found> {
        let before = revision - 1;
        if before < self.compacted.max(self.compaction.floor) {
            return None;
        }
        let entry = self.index.get(key)?;
        let place: Place = entry.live_at(before)?;
        Some(self.find(place))
    }
}
