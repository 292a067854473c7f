//! Everything that a replica knows, under one lock: readers share it for moments, whoever applies has it for a batch.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::disk::{DiskError, DiskView};
use crate::index::Index;
use crate::meta::{self, Meta};
use crate::record::Place;
use crate::tail::Tails;
use crate::{
    AlarmMember, Changes, Event, KeyValue, LeaseId, Leases, LogPlace, RequestError, Revision,
};

/// What is done with each revision as it comes into being, before anybody can read it.
pub trait Sink {
    /// A revision has been applied.
    fn changed(&mut self, changes: &Changes);
    /// Revisions below this one cannot be read any more.
    fn compacted(&mut self, revision: Revision);
    /// Whether [`Event::prev`] is wanted, though it may have to be read from the disk. Asked once for each batch.
    fn wants_prev(&self) -> bool;
}

/// Nobody wants to know.
impl Sink for () {
    fn changed(&mut self, _: &Changes) {}
    fn compacted(&mut self, _: Revision) {}
    fn wants_prev(&self) -> bool {
        false
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) leases: Leases,
    pub(crate) alarms: BTreeSet<AlarmMember>,
    pub(crate) revision: i64,
    /// Below this, nothing is read; -1 if there was no compaction.
    pub(crate) compacted: i64,
    pub(crate) compaction: Compaction,
    pub(crate) applied: LogPlace,
    /// What of it the database holds.
    pub(crate) flushed: LogPlace,
    /// A flush is under way.
    pub(crate) flushing: bool,
    pub(crate) tails: Tails,
    /// What the database holds: everything but the tails.
    pub(crate) saved: DiskView,
    /// Rows of meta that differ from those of the database.
    pub(crate) meta_changed: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Changes of the revision that is being made.
    pub(crate) pending: Vec<Event>,
    pub(crate) wants_prev: bool,
}

/// What is to be forgotten, bit by bit.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// Nothing below this can be read any more, by those who have pinned it either.
    pub(crate) floor: i64,
    /// The pruning up to `floor` goes on.
    pub(crate) pruning: bool,
    /// The key after which it goes on.
    pub(crate) cursor: Option<Box<[u8]>>,
    /// Records that are forgotten and still in the database, but for those that a flush has.
    pub(crate) removable: Vec<Place>,
    /// Up to here everything is done, the database included.
    pub(crate) finished: i64,
    /// Records that were removed since the store was opened.
    pub(crate) removed: u64,
}

/// Where a pair is.
pub(crate) enum Found {
    Pair(KeyValue),
    /// In the database that the state holds.
    Saved(Place),
}

impl State {
    /// The revision that a change made now belongs to.
    pub(crate) const fn next_revision(&self) -> i64 {
        self.revision + 1
    }

    /// The revision that the transaction under way sees as the current one.
    pub(crate) fn seen_revision(&self) -> i64 {
        self.revision + i64::from(!self.pending.is_empty())
    }

    fn next_place(&self) -> Place {
        let sub = u32::try_from(self.pending.len()).expect("a command has fewer operations");
        Place { revision: self.next_revision(), sub }
    }

    /// The pair that was written at a place that is known to the index.
    pub(crate) fn find(&self, place: Place) -> Found {
        let pending = || {
            (place.revision == self.next_revision())
                .then(|| self.pending.get(place.sub as usize))
                .flatten()
        };
        match self.tails.find(place).or_else(pending) {
            Some(event) => Found::Pair(event.kv.clone()),
            None => Found::Saved(place),
        }
    }

    pub(crate) fn read(&self, found: Found) -> Result<KeyValue, DiskError> {
        read(&self.saved, found)
    }

    /// Puts a key, in the revision that is being made.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        lease: Option<LeaseId>,
        prev: Option<KeyValue>,
    ) {
        let place = self.next_place();
        let (kv, former_lease) = self.index.put(key, value, lease, place);
        match lease {
            Some(lease) if former_lease != Some(lease) => {
                let owned = Bytes::copy_from_slice(key);
                self.leases.attach(&owned, lease).expect("it was looked up before");
            }
            None if former_lease.is_some() => drop(self.leases.detach(key)),
            _ => {}
        }
        self.pending.push(Event::put(kv, prev));
    }

    /// Deletes a key that exists, in the revision that is being made.
    pub(crate) fn delete(&mut self, key: Bytes, prev: Option<KeyValue>) {
        let place = self.next_place();
        if self.index.delete(&key, place).is_some() {
            self.leases.detach(&key);
        }
        self.pending.push(Event::delete(key, Revision(place.revision), prev));
    }

    /// The pair before a change, if the request or whoever watches wants it.
    pub(crate) fn prev(&self, key: &[u8], wanted: bool) -> Result<Option<KeyValue>, DiskError> {
        if !wanted && !self.wants_prev {
            return Ok(None);
        }
        let Some(entry) = self.index.live(key) else { return Ok(None) };
        match self.index.now(key, entry) {
            None => self.read(self.find(entry.last().place())).map(Some),
            pair => Ok(pair),
        }
    }

    /// The command is done: if it has changed something, there is a new revision.
    pub(crate) fn finish_revision(&mut self, sink: &mut dyn Sink) {
        if self.pending.is_empty() {
            return;
        }
        // Of a key that changes twice, what was before the revision.
        if self.pending.len() > 1 {
            settle_prevs(&mut self.pending);
        }
        self.revision += 1;
        let events = self.pending.drain(..).collect();
        let changes =
            Changes { revision: Revision(self.revision), events, has_prev: self.wants_prev };
        sink.changed(&changes);
        self.tails.open.push(changes);
        self.index.keep_within_budget();
    }

    pub(crate) fn set_meta(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.meta_changed.insert(key, value);
    }

    /// Takes a compaction as logged: nothing below is read from now on.
    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), RequestError> {
        if revision > self.revision {
            return Err(RequestError::FutureRevision);
        }
        if revision <= self.compacted {
            return Err(RequestError::Compacted);
        }
        self.compacted = revision;
        self.set_meta(Meta::Compacted.key(), Some(meta::number(revision)));
        Ok(())
    }
}

pub(crate) fn read(saved: &DiskView, found: Found) -> Result<KeyValue, DiskError> {
    match found {
        Found::Pair(pair) => Ok(pair),
        Found::Saved(place) => {
            let pair = saved.get(place, |record| record.to_kv(place.revision))?;
            pair.flatten().ok_or_else(|| DiskError::Content {
                what: format!("no pair at {}/{}, which a key needs", place.revision, place.sub),
            })
        }
    }
}

/// A later change of the same key in the same revision has the former pair of the first.
fn settle_prevs(events: &mut [Event]) {
    let mut first: BTreeMap<Bytes, usize> = BTreeMap::new();
    for at in 0..events.len() {
        match first.get(&events[at].kv.key) {
            Some(_) if events[at].is_create() => events[at].prev = None,
            Some(&first) => events[at].prev = events[first].prev.clone(),
            None => {
                first.insert(events[at].kv.key.clone(), at);
            }
        }
    }
}
