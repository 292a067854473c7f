//! Reading, beside whoever applies.
//!
//! A read fixes its revision when it begins, and *pins* it, so that no compaction forgets what it needs. Then it goes through
//! the keys in slices, and holds the lock only for one slice at a time; what has to come from the database is read after the
//! lock is given back. A value in memory is used only if it is the one of the pinned revision.

use core::fmt;
use std::sync::Arc;

use crate::disk::DiskError;
use crate::index::KeyRange;
use crate::range::{self, Failure, Need, Pairs};
use crate::state::{Found, State, read};
use crate::store::{LogPlace, Shared};
use crate::{
    AlarmMember, KeyValue, LeaseId, Op, OpReply, Range, RangeReply, RequestError, Revision, Txn,
    TxnReply, txn,
};

/// How many keys are looked at under one lock.
const SLICE_KEYS: usize = 256;

/// Why a read was not answered.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The request is to blame.
    Request(RequestError),
    /// The database failed: this replica must not go on.
    Disk(DiskError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(why) => why.fmt(f),
            Self::Disk(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Request(why) => Some(why),
            Self::Disk(why) => Some(why),
        }
    }
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Request(why) => Self::Request(why),
            Failure::Disk(why) => Self::Disk(why),
        }
    }
}

impl From<RequestError> for ReadError {
    fn from(why: RequestError) -> Self {
        Self::Request(why)
    }
}

impl From<DiskError> for ReadError {
    fn from(why: DiskError) -> Self {
        Self::Disk(why)
    }
}

/// Reads a [`Store`](crate::Store). Clones read the same one.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Carries out a range by itself.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: the revision is compacted or in the future, or the database failed.
    pub fn range(&self, range: &Range) -> Result<RangeReply, ReadError> {
        let pinned = self.pin(range.revision)?;
        Ok(range::range(&pinned, range, pinned.revision, pinned.header)?)
    }

    /// The same in parts.
    ///
    /// # Errors
    ///
    /// As [`range`](Self::range).
    pub fn range_stream(&self, range: Range) -> Result<RangeStream, ReadError> {
        let pinned = self.pin(range.revision)?;
        Ok(RangeStream { pinned, range, last: None, given: 0, count: 0, more: false, ended: false })
    }

    /// Carries out a transaction that only reads.
    ///
    /// # Errors
    ///
    /// As [`range`](Self::range). [`RequestError::KeyNotFound`] if it has other operations: then it belongs into the log.
    pub fn txn(&self, txn: &Txn) -> Result<TxnReply, ReadError> {
        if !txn.only_reads() {
            return Err(RequestError::KeyNotFound.into());
        }
        let pinned = self.pin(Revision(0))?;
        let path = txn::judge(&pinned, txn, pinned.revision)?;
        let compacted = self.shared.read().compacted;
        let ops = || txn::taken(txn, &path).map(|(op, _)| op);
        let ranges =
            || ops().filter_map(|op| if let Op::Range(range) = op { Some(range) } else { None });
        for range in ranges() {
            txn::check_range(range, pinned.revision, compacted)?;
        }
        let read = |range: &Range| {
            let asked = range.revision.0;
            let header = pinned.revision;
            // One of its own may be older than what is pinned, and so needs a pin of its own.
            let own = (asked > 0).then(|| self.pin(range.revision)).transpose()?;
            let from = own.as_ref().unwrap_or(&pinned);
            let reply = range::range(from, range, from.revision, header)?;
            Ok::<_, ReadError>(OpReply::Range(reply))
        };
        let responses = ranges().map(read).collect::<Result<_, _>>()?;
        let revision = Revision(pinned.revision);
        Ok(TxnReply { revision, succeeded: path.succeeded(), responses })
    }

    /// The current revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.shared.read().revision)
    }

    /// The compact revision; -1 if there was no compaction.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        Revision(self.shared.read().compacted)
    }

    /// Up to where nothing that was compacted is left, in memory or in the database.
    #[must_use]
    pub fn compaction_finished(&self) -> Revision {
        Revision(self.shared.read().compaction.finished)
    }

    /// The place in the log of the last batch that was applied.
    #[must_use]
    pub fn applied(&self) -> LogPlace {
        self.shared.read().applied
    }

    /// Up to where everything is durable.
    #[must_use]
    pub fn durable(&self) -> LogPlace {
        self.shared.read().flushed
    }

    /// Alarms that are active.
    #[must_use]
    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.shared.read().alarms.iter().copied().collect()
    }

    /// All leases with their granted seconds, by id.
    #[must_use]
    pub fn leases(&self) -> Vec<(LeaseId, i64)> {
        self.shared.read().leases.iter().map(|lease| (lease.id(), lease.ttl_s())).collect()
    }

    /// The keys of a lease, in order; `None` if there is no such lease.
    #[must_use]
    pub fn lease_keys(&self, id: LeaseId) -> Option<Vec<bytes::Bytes>> {
        self.shared.read().leases.get(id).map(|lease| lease.keys().cloned().collect())
    }

    /// Keys in memory, deleted ones that are not forgotten among them.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.shared.read().index.len()
    }

    /// Bytes of values in memory, and bytes of changes that wait for a flush.
    #[must_use]
    pub fn memory_bytes(&self) -> (usize, usize) {
        let state = self.shared.read();
        (state.index.values_bytes(), state.tails.bytes())
    }

    /// Bytes of the database that are in use.
    ///
    /// # Errors
    ///
    /// [`DiskError`]: the database failed.
    pub fn disk_bytes_in_use(&self) -> Result<u64, DiskError> {
        self.shared.disk.bytes_in_use()
    }

    /// Fixes the revision of a read: the asked one, or the current one for 0 and below.
    pub(crate) fn pin(&self, asked: Revision) -> Result<Pinned, RequestError> {
        let state = self.shared.read();
        let revision = if asked.0 > 0 { asked.0 } else { state.revision };
        if revision > state.revision {
            return Err(RequestError::FutureRevision);
        }
        if revision < state.compacted {
            return Err(RequestError::Compacted);
        }
        // Under the lock, so that no compaction begins in between.
        *self.shared.pins().entry(revision).or_default() += 1;
        Ok(Pinned { shared: Arc::clone(&self.shared), revision, header: state.revision })
    }
}

/// A revision that is being read.
#[derive(Debug)]
pub(crate) struct Pinned {
    shared: Arc<Shared>,
    pub(crate) revision: i64,
    /// What was current when the read began.
    pub(crate) header: i64,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pins = self.shared.pins();
        if let Some(count) = pins.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.revision);
            }
        }
    }
}

/// What one slice has found.
struct Slice {
    found: Vec<Found>,
    count: i64,
    /// The last key looked at, if there are more.
    last: Option<Box<[u8]>>,
    saved: crate::disk::DiskView,
}

impl Pinned {
    /// Looks at some keys of a range, and finds at most so many pairs.
    fn slice(
        &self,
        keys: KeyRange<'_>,
        need: Need,
        pairs_max: usize,
    ) -> Result<Slice, RequestError> {
        let state = self.shared.read();
        self.slice_of(&state, keys, need, pairs_max)
    }

    fn slice_of(
        &self,
        state: &State,
        keys: KeyRange<'_>,
        need: Need,
        pairs_max: usize,
    ) -> Result<Slice, RequestError> {
        if self.revision < state.compaction.floor {
            return Err(RequestError::Compacted);
        }
        let (mut found, mut count, mut last, mut looked) = (Vec::new(), 0, None, 0);
        for (key, entry) in state.index.range(keys) {
            looked += 1;
            if need == Need::Nothing || found.len() >= pairs_max {
                count += i64::from(entry.live_at(self.revision).is_some());
            } else if let Some(pair) = state.pair_at(key, entry, self.revision, need) {
                found.push(pair);
                count += 1;
            }
            if looked == SLICE_KEYS {
                last = Some(key.into());
                break;
            }
        }
        Ok(Slice { found, count, last, saved: state.saved.clone() })
    }
}

impl Pairs for Pinned {
    fn pairs(
        &self,
        keys: KeyRange<'_>,
        revision: i64,
        need: Need,
        pairs_max: usize,
    ) -> Result<(Vec<KeyValue>, i64), Failure> {
        debug_assert_eq!(revision, self.revision, "a pin is for one revision");
        let (mut pairs, mut count): (Vec<KeyValue>, i64) = (Vec::new(), 0);
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let rest = after.as_deref().map_or(keys, |after| keys.after(after));
            let slice = self.slice(rest, need, pairs_max - pairs.len())?;
            for found in slice.found {
                pairs.push(read(&slice.saved, found)?);
            }
            count += slice.count;
            if slice.last.is_none() {
                return Ok((pairs, count));
            }
            after = slice.last;
        }
    }
}

/// A range in parts, all of one revision. Compactions wait for it.
#[derive(Debug)]
pub struct RangeStream {
    pinned: Pinned,
    range: Range,
    last: Option<Box<[u8]>>,
    given: usize,
    count: i64,
    more: bool,
    ended: bool,
}

/// A part of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangePart {
    /// Pairs that follow on those before, in order of their keys.
    pub kvs: Vec<KeyValue>,
    /// In the last part: what the reply as a whole says.
    pub end: Option<RangeEnd>,
}

/// What is said of a range as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeEnd {
    /// Revision of the header.
    pub revision: Revision,
    /// Whether the limit cut something off.
    pub more: bool,
    /// Keys in the range, whatever the limit said.
    pub count: i64,
}

impl RangeStream {
    /// The next part, of at most so many pairs; `None` behind the last one.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: a compaction did not wait any more, or the database failed.
    pub fn next(&mut self, pairs_max: usize) -> Result<Option<RangePart>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let limit = usize::try_from(self.range.limit).ok().filter(|limit| *limit > 0);
        let need = match (self.range.count_only, self.range.keys_only) {
            (true, _) => Need::Nothing,
            (false, true) => Need::Keys,
            (false, false) => Need::Everything,
        };
        let mut part = RangePart::default();
        loop {
            let keys = KeyRange::new(&self.range.key, &self.range.range_end);
            let rest = self.last.as_deref().map_or(keys, |last| keys.after(last));
            let left = limit.map_or(usize::MAX, |limit| limit - self.given);
            let wanted = left.min(pairs_max.max(1) - part.kvs.len());
            let slice = self.pinned.slice_of_wanted(rest, need, wanted)?;
            let found = slice.found.len();
            for pair in slice.found {
                let mut kv = read(&slice.saved, pair).map_err(ReadError::Disk)?;
                if self.range.keys_only {
                    (kv.value, kv.lease) = (bytes::Bytes::new(), None);
                }
                part.kvs.push(kv);
            }
            self.given += found;
            self.count += slice.count;
            self.more |= !self.range.count_only && slice.count > found as i64;
            let is_last = slice.last.is_none();
            self.last = slice.last.or_else(|| self.last.take());
            if is_last {
                self.ended = true;
                let (revision, more, count) = (Revision(self.pinned.header), self.more, self.count);
                part.end = Some(RangeEnd { revision, more, count });
                return Ok(Some(part));
            }
            // What is behind the limit is counted, and goes with the last part.
            if part.kvs.len() >= pairs_max && limit.is_none_or(|limit| self.given < limit) {
                return Ok(Some(part));
            }
        }
    }
}

impl Pinned {
    /// As [`slice`](Self::slice), but ends with the last pair that is wanted, unless none is.
    fn slice_of_wanted(
        &self,
        keys: KeyRange<'_>,
        need: Need,
        wanted: usize,
    ) -> Result<Slice, RequestError> {
        let state = self.shared.read();
        if need == Need::Nothing || wanted == 0 {
            return self.slice_of(&state, keys, need, wanted);
        }
        if self.revision < state.compaction.floor {
            return Err(RequestError::Compacted);
        }
        let (mut found, mut last, mut looked) = (Vec::new(), None, 0);
        for (key, entry) in state.index.range(keys) {
            looked += 1;
            found.extend(state.pair_at(key, entry, self.revision, need));
            if looked == SLICE_KEYS || found.len() == wanted {
                last = Some(key.into());
                break;
            }
        }
        let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
        Ok(Slice { found, count, last, saved: state.saved.clone() })
    }
}
