//! Hashes that are equal on all replicas which hold the same, whatever each of them has on its disk.

use crc32c::crc32c_append;

use crate::reader::{ReadError, Reader};
use crate::record::{self, Place, RecordRef};
use crate::{Event, RequestError, Revision};

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

impl Reader {
    /// The hash of the history up to a revision, 0 and below for the current one.
    ///
    /// Reads all of it: for tests, and for checks that are made rarely.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: the revision is compacted or in the future, or the database failed.
    pub fn hash_kv(&self, revision: Revision) -> Result<HashKv, ReadError> {
        // What it reads is kept for it, but for what an earlier compaction hides.
        let pinned = self.pin(revision)?;
        let (compacted, saved, tails) = {
            let state = self.shared.read();
            let tails: Vec<_> =
                state.tails.frozen.iter().chain(state.tails.open.iter()).cloned().collect();
            (state.compacted, state.saved.clone(), tails)
        };
        if pinned.revision < compacted {
            return Err(RequestError::Compacted.into());
        }
        let mut hash =
            Hashing { reader: self, compacted, hash: crc32c_append(0, b"key"), old: Vec::new() };
        let mut bytes = Vec::new();
        let mut judged = Ok(());
        saved.scan(0..=pinned.revision, |place, record| {
            judged = hash.add(place, record, &mut bytes);
            judged.is_ok()
        })?;
        judged?;
        for changes in tails.iter().filter(|changes| changes.revision.0 <= pinned.revision) {
            for (sub, event) in (0..).zip(changes.events.iter()) {
                let place = Place { revision: changes.revision.0, sub };
                let mut encoded = Vec::new();
                record::encode(event, &mut encoded);
                let record = RecordRef::decode(&encoded).expect("it was encoded just now");
                hash.add(place, record, &mut bytes)?;
            }
        }
        hash.settle()?;
        Ok(HashKv {
            hash: hash.hash,
            compact_revision: Revision(compacted),
            hash_revision: Revision(pinned.revision),
            revision: Revision(pinned.header),
        })
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
