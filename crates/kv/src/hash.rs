//! Hashes that are equal on all replicas which hold the same, whatever each of them has on its disk.

use crc32c::crc32c_append;

use crate::disk::DiskView;
use crate::meta::Meta;
use crate::reader::{Pinned, ReadError, Reader};
use crate::record::{self, Place, RecordRef};
use crate::state::State;
use crate::{Changes, Event, RequestError, Revision};

/// How many records are judged under one lock.
const SLICE_RECORDS: usize = 256;

/// A hash over the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C over every change up to [`hash_revision`](Self::hash_revision) that a compaction up to
    /// [`compact_revision`](Self::compact_revision) keeps, deletions at that revision apart.
    pub hash: u32,
    /// The compact revision that it holds for; -1 if there was no compaction.
    pub compact_revision: Revision,
    /// The revision that it goes up to.
    pub hash_revision: Revision,
    /// The current revision.
    pub revision: Revision,
}

/// A hash over everything that is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// CRC-32C over the history as in [`HashKv`], the compact revision, leases and alarms.
    pub hash: u32,
    /// The revision that it is of.
    pub revision: Revision,
}

/// The history as it is at one moment.
struct Moment {
    /// What it reads is kept for it, but for what an earlier compaction hides.
    pinned: Pinned,
    compacted: i64,
    saved: DiskView,
    tails: Vec<Changes>,
}

impl Moment {
    fn new(reader: &Reader, state: &State, revision: Revision) -> Result<Self, RequestError> {
        let pinned = reader.pin_in(state, revision)?;
        let (compacted, saved) = (state.compacted, state.saved.clone());
        let tails = state.tails.frozen.iter().chain(state.tails.open.iter()).cloned().collect();
        Ok(Self { pinned, compacted, saved, tails })
    }

    fn hash(&self, reader: &Reader) -> Result<u32, ReadError> {
        let (compacted, old) = (self.compacted, Vec::new());
        let mut hash = Hashing { reader, compacted, hash: crc32c_append(0, b"key"), old };
        let mut bytes = Vec::new();
        let mut judged = Ok(());
        self.saved.scan(0..=self.pinned.revision, |place, record| {
            judged = hash.add(place, record, &mut bytes);
            judged.is_ok()
        })?;
        judged?;
        let in_time = |changes: &&Changes| changes.revision.0 <= self.pinned.revision;
        for changes in self.tails.iter().filter(in_time) {
            for (sub, event) in (0..).zip(changes.events.iter()) {
                let place = Place { revision: changes.revision.0, sub };
                let mut encoded = Vec::new();
                record::encode(event, &mut encoded);
                let record = RecordRef::decode(&encoded).expect("it was encoded just now");
                hash.add(place, record, &mut bytes)?;
            }
        }
        hash.settle()?;
        Ok(hash.hash)
    }
}

impl Reader {
    /// The hash of the history up to a revision, 0 and below for the current one.
    ///
    /// Reads all of it: for tests, and for checks that are made rarely.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: the revision is compacted or in the future, or the database failed.
    pub fn hash_kv(&self, revision: Revision) -> Result<HashKv, ReadError> {
        let moment = Moment::new(self, &self.shared.read(), revision)?;
        let hash = moment.hash(self)?;
        let Moment { pinned, compacted, .. } = moment;
        Ok(HashKv {
            hash,
            compact_revision: Revision(compacted),
            hash_revision: Revision(pinned.revision),
            revision: Revision(pinned.header),
        })
    }

    /// The hash of everything that commands have made of this replica so far. It is equal on replicas that have applied the
    /// same, whatever each of them has on its disk.
    ///
    /// Reads the whole history, as [`hash_kv`](Self::hash_kv).
    ///
    /// # Errors
    ///
    /// [`ReadError`]: the database failed, or a compaction that did not wait has come in between: then it is to be asked for
    /// again.
    pub fn hash(&self) -> Result<Hash, ReadError> {
        let (moment, rest) = {
            let state = self.shared.read();
            let mut rest = state.compacted.to_be_bytes().to_vec();
            rest.extend_from_slice(&state.leases.grants().to_be_bytes());
            for (id, record) in state.leases.records() {
                rest.extend_from_slice(b"lease");
                rest.extend_from_slice(&id.0.to_be_bytes());
                rest.extend_from_slice(&record);
            }
            for alarm in &state.alarms {
                rest.extend_from_slice(b"alarm");
                rest.extend_from_slice(&Meta::Alarm(*alarm).key());
            }
            (Moment::new(self, &state, Revision(0))?, rest)
        };
        let hash = crc32c_append(moment.hash(self)?, &rest);
        Ok(Hash { hash, revision: Revision(moment.pinned.revision) })
    }
}

struct Hashing<'a> {
    reader: &'a Reader,
    compacted: i64,
    hash: u32,
    /// Puts at or below the compact revision, to be judged together.
    old: Vec<(Place, Event)>,
}

impl Hashing<'_> {
    fn add(
        &mut self,
        place: Place,
        record: RecordRef<'_>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        if place.revision <= self.compacted {
            // A deletion at or below it is not told apart from one that is gone.
            if record.put.is_some() {
                self.old.push((place, record.to_event(place.revision)));
            }
            if self.old.len() >= SLICE_RECORDS {
                self.settle()?;
            }
            return Ok(());
        }
        self.settle()?;
        record::encode(&record.to_event(place.revision), bytes);
        self.take(place, bytes);
        Ok(())
    }

    /// Judges what waits, in its order.
    fn settle(&mut self) -> Result<(), ReadError> {
        if self.old.is_empty() {
            return Ok(());
        }
        let old = std::mem::take(&mut self.old);
        let kept: Vec<bool> = {
            let state = self.reader.shared.read();
            if state.compaction.floor > self.compacted {
                // What it is for is being forgotten.
                return Err(RequestError::Compacted.into());
            }
            let is_kept = |(place, event): &(Place, Event)| {
                let entry = state.index.get(&event.kv.key);
                entry.and_then(|entry| entry.live_at(self.compacted)) == Some(*place)
            };
            old.iter().map(is_kept).collect()
        };
        let mut bytes = Vec::new();
        for ((place, event), _) in old.iter().zip(kept).filter(|(_, kept)| *kept) {
            record::encode(event, &mut bytes);
            self.take(*place, &bytes);
        }
        Ok(())
    }

    fn take(&mut self, place: Place, record: &[u8]) {
        self.hash = crc32c_append(self.hash, &place.revision.to_be_bytes());
        self.hash = crc32c_append(self.hash, &place.sub.to_be_bytes());
        self.hash = crc32c_append(self.hash, record);
    }
}
