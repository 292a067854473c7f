//! Taking in a history.
//!
//! Its records come in the order of their revisions, and so in none of their keys. Looking for the place of each by itself
//! would wait for memory again and again; so a few thousand are gathered, brought into the order of their keys, and then
//! taken in, where most find the place of the one before at hand.

use super::Index;
use super::names::{head, in_common};
use crate::LeaseId;
use crate::record::{Place, PutRef, RecordRef};

/// How many records are gathered.
const GATHERED_MAX: usize = 65_536;
/// Bytes of keys and values after which no more are.
const GATHERED_BYTES_MAX: usize = 8 << 20;

/// An index that takes in records, from the newest to the oldest.
#[derive(Debug)]
pub(crate) struct Loading {
    index: Index,
    gathered: Vec<Gathered>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Gathered {
    head: u64,
    from: usize,
    key_bytes: usize,
    /// As many as the key, if the value was left out.
    pair_bytes: usize,
    has_value: bool,
    place: Place,
    put: Option<(i64, i64, Option<LeaseId>)>,
}

impl Gathered {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.from..][..self.key_bytes]
    }
}

impl Loading {
    pub(crate) fn new(values_bytes_max: usize) -> Self {
        Self { index: Index::new(values_bytes_max), gathered: Vec::new(), bytes: Vec::new() }
    }

    /// The next older record.
    pub(crate) fn push(&mut self, place: Place, record: &RecordRef<'_>) {
        // Values are taken in as long as there is room for them.
        let has_room = self.index.values.bytes() < self.index.values_bytes_max;
        let pair = if has_room { record.pair } else { record.key };
        let put = record.put.as_ref().map(|put| (put.create_revision, put.version, put.lease));
        self.gathered.push(Gathered {
            head: 0,
            from: self.bytes.len(),
            key_bytes: record.key.len(),
            pair_bytes: pair.len(),
            has_value: has_room,
            place,
            put,
        });
        self.bytes.extend_from_slice(pair);
        if self.gathered.len() >= GATHERED_MAX || self.bytes.len() >= GATHERED_BYTES_MAX {
            self.take_in();
        }
    }

    fn take_in(&mut self) {
        let bytes = &self.bytes;
        let Some(first) = self.gathered.first() else { return };
        let first = first.key(bytes);
        let shared = self
            .gathered
            .iter()
            .fold(first.len(), |shared, record| in_common(&first[..shared], record.key(bytes)));
        for record in &mut self.gathered {
            record.head = head(record.key(bytes), shared);
        }
        // Those of one key stay in their order.
        self.gathered.sort_by(|one, other| {
            one.head.cmp(&other.head).then_with(|| one.key(bytes).cmp(other.key(bytes)))
        });
        for record in &self.gathered {
            let pair = &bytes[record.from..][..record.pair_bytes];
            let (key, value) = pair.split_at(record.key_bytes);
            let put = record.put.map(|(create_revision, version, lease)| PutRef {
                create_revision,
                version,
                lease,
                value,
            });
            self.index.load(record.place, key, put.as_ref(), record.has_value.then_some(pair));
        }
        self.gathered.clear();
        self.bytes.clear();
    }

    /// The index, with all that was taken in.
    pub(crate) fn finish(mut self) -> Index {
        self.take_in();
        let mut index = self.index;
        index.loaded();
        index
    }
}
