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
/// How many keys are counted under one lock; it takes a few nanoseconds for each.
const COUNT_KEYS: usize = 4096;

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
        if let Some(key) = KeyRange::new(&range.key, &range.range_end).one() {
            return self.point(key, range);
        }
        let pinned = self.pin(range.revision)?;
        Ok(range::range(&pinned, range, pinned.revision, pinned.header)?)
    }

    /// One key needs no pin: where its pair is, and the view of the database that has it, come from one moment.
    fn point(&self, key: &[u8], range: &Range) -> Result<RangeReply, ReadError> {
        let (found, saved, header) = {
            let state = self.shared.read();
            let revision = state.readable(range.revision)?;
            let entry = state.index.get(key);
            let found =
                entry.and_then(|entry| state.pair_at(key, entry, revision, range::need_of(range)));
            let saved = matches!(found, Some(Found::Saved(_))).then(|| state.saved.clone());
            (found, saved, state.revision)
        };
        let count = i64::from(found.is_some());
        let kvs = match (found, saved) {
            (Some(_), _) if range.count_only => Vec::new(),
            (Some(Found::Pair(pair)), _) => vec![pair],
            (Some(found), Some(saved)) => vec![read(&saved, found)?],
            _ => Vec::new(),
        };
        Ok(range::finish(range, header, kvs, count))
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
        let (pinned, compacted, own) = self.pin_with(txn)?;
        let path = txn::judge(&pinned, txn, pinned.revision)?;
        let ops = || txn::taken(txn, &path).map(|(op, _)| op);
        let ranges =
            || ops().filter_map(|op| if let Op::Range(range) = op { Some(range) } else { None });
        for range in ranges() {
            txn::check_range(range, pinned.revision, compacted)?;
        }
        let read = |range: &Range| {
            let from = own.iter().find(|own| own.revision == range.revision.0).unwrap_or(&pinned);
            let reply = range::range(from, range, from.revision, pinned.revision)?;
            Ok::<_, ReadError>(OpReply::Range(reply))
        };
        let responses = ranges().map(read).collect::<Result<_, _>>()?;
        let revision = Revision(pinned.revision);
        Ok(TxnReply { revision, succeeded: path.succeeded(), responses })
    }

    /// Fixes the current revision and all others that a transaction may read, at one moment; with the compact revision of
    /// that moment, by which they are judged.
    fn pin_with(&self, txn: &Txn) -> Result<(Pinned, i64, Vec<Pinned>), RequestError> {
        let state = self.shared.read();
        let pinned = self.pin_in(&state, Revision(0))?;
        let mut own: Vec<Pinned> = Vec::new();
        for op in txn.success.iter().chain(&txn.failure) {
            let Op::Range(range) = op else { continue };
            let asked = range.revision;
            if asked.0 > 0 && own.iter().all(|own| own.revision != asked.0) {
                // One that cannot be read matters only if its branch is taken.
                own.extend(self.pin_in(&state, asked));
            }
        }
        Ok((pinned, state.compacted, own))
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

    /// Bytes of changes that wait for a flush, or are being written by one.
    #[must_use]
    pub fn unflushed_bytes(&self) -> u64 {
        self.shared.read().tails.bytes() as u64
    }

    /// How many records compactions have removed from the database since the store was opened.
    #[must_use]
    pub fn compaction_removed(&self) -> u64 {
        self.shared.read().compaction.removed
    }

    /// How many reads have their revision pinned, so that a compaction waits for them.
    #[must_use]
    pub fn open_reads(&self) -> usize {
        self.shared.pins().values().sum()
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

    /// Bytes of the history in the database, as of the last flush. What the file is larger is free, or the database's own.
    #[must_use]
    pub fn disk_bytes_in_use(&self) -> u64 {
        self.shared.disk().used_bytes()
    }

    /// Fixes the revision of a read: the asked one, or the current one for 0 and below.
    pub(crate) fn pin(&self, asked: Revision) -> Result<Pinned, RequestError> {
        self.pin_in(&self.shared.read(), asked)
    }

    /// The same, under the lock, so that no compaction begins in between.
    pub(crate) fn pin_in(&self, state: &State, asked: Revision) -> Result<Pinned, RequestError> {
        let revision = state.readable(asked)?;
        *self.shared.pins().entry(revision).or_default() += 1;
        Ok(Pinned { shared: Arc::clone(&self.shared), revision, header: state.revision })
    }
}

impl State {
    /// The revision that a request means, if it can be read.
    fn readable(&self, asked: Revision) -> Result<i64, RequestError> {
        let revision = if asked.0 > 0 { asked.0 } else { self.revision };
        if revision > self.revision {
            return Err(RequestError::FutureRevision);
        }
        if revision < self.compacted {
            return Err(RequestError::Compacted);
        }
        Ok(revision)
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
    /// The last key looked at, if there may be more.
    last: Option<Box<[u8]>>,
    saved: crate::disk::DiskView,
}

impl Pinned {
    /// What is pinned is there, unless a compaction did not wait.
    fn check(&self, state: &State) -> Result<(), RequestError> {
        if self.revision < state.compaction.floor {
            return Err(RequestError::Compacted);
        }
        Ok(())
    }

    /// Looks at some keys of a range, and finds at most so many pairs.
    fn slice(
        &self,
        keys: KeyRange<'_>,
        need: Need,
        pairs_max: usize,
    ) -> Result<Slice, RequestError> {
        let state = self.shared.read();
        self.check(&state)?;
        let (mut found, mut last) = (Vec::new(), None);
        for (looked, (key, entry)) in (1..).zip(state.index.range(keys)) {
            found.extend(state.pair_at(key, entry, self.revision, need));
            if looked == SLICE_KEYS || found.len() == pairs_max {
                last = Some(key.into());
                break;
            }
        }
        Ok(Slice { found, last, saved: state.saved.clone() })
    }

    fn count_all(&self, keys: KeyRange<'_>) -> Result<i64, RequestError> {
        let (mut count, mut after): (i64, Option<Box<[u8]>>) = (0, None);
        loop {
            let counted = {
                let state = self.shared.read();
                self.check(&state)?;
                let rest = after.as_deref().map_or(keys, |after| keys.after(after));
                state.index.count(rest, self.revision, COUNT_KEYS)
            };
            count += counted.count;
            if counted.after.is_none() {
                return Ok(count);
            }
            after = counted.after;
        }
    }
}

impl Pairs for Pinned {
    fn pairs(
        &self,
        keys: KeyRange<'_>,
        revision: i64,
        need: Need,
        pairs_max: usize,
    ) -> Result<Vec<KeyValue>, Failure> {
        debug_assert_eq!(revision, self.revision, "a pin is for one revision");
        let mut pairs: Vec<KeyValue> = Vec::new();
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let rest = after.as_deref().map_or(keys, |after| keys.after(after));
            let slice = self.slice(rest, need, pairs_max - pairs.len())?;
            for found in slice.found {
                pairs.push(read(&slice.saved, found)?);
            }
            if slice.last.is_none() || pairs.len() == pairs_max {
                return Ok(pairs);
            }
            after = slice.last;
        }
    }

    fn count(&self, keys: KeyRange<'_>, _: i64) -> Result<i64, Failure> {
        Ok(self.count_all(keys)?)
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
        let need = if self.range.keys_only { Need::Keys } else { Need::Everything };
        let mut part = RangePart::default();
        loop {
            let keys = KeyRange::new(&self.range.key, &self.range.range_end);
            let rest = self.last.as_deref().map_or(keys, |last| keys.after(last));
            let left = limit.map_or(usize::MAX, |limit| limit - self.given);
            if self.range.count_only || left == 0 {
                // What is behind the limit is counted, and goes with the last part.
                let count = self.pinned.count_all(rest)?;
                self.count += count;
                self.more = !self.range.count_only && count > 0;
                return Ok(Some(self.end(part)));
            }
            let wanted = left.min(pairs_max.max(1) - part.kvs.len());
            let slice = self.pinned.slice(rest, need, wanted)?;
            self.given += slice.found.len();
            self.count += i64::try_from(slice.found.len()).unwrap_or(i64::MAX);
            for pair in slice.found {
                let mut kv = read(&slice.saved, pair).map_err(ReadError::Disk)?;
                if self.range.keys_only {
                    (kv.value, kv.lease) = (bytes::Bytes::new(), None);
                }
                part.kvs.push(kv);
            }
            if slice.last.is_none() {
                return Ok(Some(self.end(part)));
            }
            self.last = slice.last;
            if part.kvs.len() >= pairs_max && limit.is_none_or(|limit| self.given < limit) {
                return Ok(Some(part));
            }
        }
    }

    fn end(&mut self, part: RangePart) -> RangePart {
        self.ended = true;
        let (revision, more, count) = (Revision(self.pinned.header), self.more, self.count);
        RangePart { end: Some(RangeEnd { revision, more, count }), ..part }
    }
}

#[cfg(test)]
mod tests;
