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

/// How many records are on their way at the most, gathered or being gathered.
pub(crate) const LOADING_RECORDS_MAX: usize = 2 * GATHERED_MAX;

/// An index that takes in records, from the newest to the oldest.
#[derive(Debug)]
pub(crate) struct Loading {
    index: Index,
}

/// Records that are gathered. Two of them are enough for one thread to gather while another takes in.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    records: Vec<Gathered>,
    bytes: Vec<u8>,
    /// The index has room for more values.
    has_room: bool,
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

impl Gathering {
    /// The next older record. Whether there is room for another.
    pub(crate) fn push(&mut self, place: Place, record: &RecordRef<'_>) -> bool {
        // Values are gathered as long as there is room for them.
        let pair = if self.has_room { record.pair } else { record.key };
        let put = record.put.as_ref().map(|put| (put.create_revision, put.version, put.lease));
        self.records.push(Gathered {
            head: 0,
            from: self.bytes.len(),
            key_bytes: record.key.len(),
            pair_bytes: pair.len(),
            has_value: self.has_room,
            place,
            put,
        });
        self.bytes.extend_from_slice(pair);
        self.records.len() < GATHERED_MAX && self.bytes.len() < GATHERED_BYTES_MAX
    }

    /// Brings the records into the order of their keys; those of one key stay in theirs.
    pub(crate) fn sort(&mut self) {
        let bytes = &self.bytes;
        let Some(first) = self.records.first() else { return };
        let first = first.key(bytes);
        let shared = self
            .records
            .iter()
            .fold(first.len(), |shared, record| in_common(&first[..shared], record.key(bytes)));
        for record in &mut self.records {
            record.head = head(record.key(bytes), shared);
        }
        self.records.sort_by(|one, other| {
            one.head.cmp(&other.head).then_with(|| one.key(bytes).cmp(other.key(bytes)))
        });
    }
}

impl Loading {
    pub(crate) fn new(values_bytes_max: usize) -> Self {
        Self { index: Index::new(values_bytes_max) }
    }

    /// Room for the first records.
    pub(crate) fn gathering(&self) -> Gathering {
        Gathering { has_room: self.index.values_bytes_max > 0, ..Gathering::default() }
    }

    /// Takes in records that are sorted, and makes room for others in their place.
    pub(crate) fn take_in(&mut self, gathering: &mut Gathering) {
        let Gathering { records, bytes, has_room } = gathering;
        for record in records.drain(..) {
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
        bytes.clear();
        *has_room = self.index.values.bytes() < self.index.values_bytes_max;
    }

    /// The index, with all that was taken in.
    pub(crate) fn finish(self) -> Index {
        let mut index = self.index;
        index.loaded();
        index
    }
}
