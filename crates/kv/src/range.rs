//! Reading ranges: which pairs, in which order, and what is said about them.

use bytes::Bytes;

use crate::disk::DiskError;
use crate::index::{Key, KeyRange};
use crate::record::Place;
use crate::state::{Found, State};
use crate::{KeyValue, Range, RangeReply, RequestError, Revision, SortOrder, SortTarget};

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request is to blame; every replica says the same.
    Request(RequestError),
    /// This replica must not go on.
    Disk(DiskError),
}

impl From<RequestError> for Failure {
    fn from(why: RequestError) -> Self {
        Self::Request(why)
    }
}

impl From<DiskError> for Failure {
    fn from(why: DiskError) -> Self {
        Self::Disk(why)
    }
}

/// What of the pairs is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// All but the values, which may be missing.
    Keys,
    Everything,
}

/// Where pairs come from, as of a revision.
pub(crate) trait Pairs {
    /// The first `pairs_max` pairs of a range in order of their keys.
    fn pairs(
        &self,
        keys: KeyRange<'_>,
        revision: i64,
        need: Need,
        pairs_max: usize,
    ) -> Result<Vec<KeyValue>, Failure>;

    /// How many pairs there are in a range.
    fn count(&self, keys: KeyRange<'_>, revision: i64) -> Result<i64, Failure>;
}

impl State {
    /// The pair that a key had at a revision, if it had one.
    pub(crate) fn pair_at(
        &self,
        key: &[u8],
        entry: &Key,
        revision: i64,
        need: Need,
    ) -> Option<Found> {
        let place = entry.live_at(revision)?;
        Some(self.pair_of(key, entry, place, need))
    }

    fn pair_of(&self, key: &[u8], entry: &Key, place: Place, need: Need) -> Found {
        if place == entry.last().place() {
            if need == Need::Keys {
                return Found::Pair(entry.pair(Bytes::copy_from_slice(key), Bytes::new()));
            }
            if let Some(pair) = self.index.now(key, entry) {
                return Found::Pair(pair);
            }
        }
        self.find(place)
    }
}

/// Whoever applies has the state to itself.
impl Pairs for State {
    fn pairs(
        &self,
        keys: KeyRange<'_>,
        revision: i64,
        need: Need,
        pairs_max: usize,
    ) -> Result<Vec<KeyValue>, Failure> {
        let found = self
            .index
            .range(keys)
            .filter_map(|(key, entry)| self.pair_at(key, entry, revision, need));
        Ok(found.take(pairs_max).map(|found| self.read(found)).collect::<Result<_, _>>()?)
    }

    fn count(&self, keys: KeyRange<'_>, revision: i64) -> Result<i64, Failure> {
        Ok(self.index.count(keys, revision, usize::MAX).count)
    }
}

/// Carries out a range at a revision that can be read; `header` is the revision to answer with.
pub(crate) fn range(
    from: &impl Pairs,
    range: &Range,
    revision: i64,
    header: i64,
) -> Result<RangeReply, Failure> {
    let keys = KeyRange::new(&range.key, &range.range_end);
    if range.count_only {
        let count = from.count(keys, revision)?;
        return Ok(finish(range, header, Vec::new(), count));
    }
    let pairs_max = pairs_max(range);
    let kvs = from.pairs(keys, revision, need_of(range), pairs_max)?;
    let mut count = i64::try_from(kvs.len()).unwrap_or(i64::MAX);
    if kvs.len() == pairs_max
        && let Some(last) = kvs.last()
    {
        count += from.count(keys.after(&last.key), revision)?;
    }
    Ok(finish(range, header, kvs, count))
}

/// What is needed of a range that does not only count.
pub(crate) fn need_of(range: &Range) -> Need {
    if range.keys_only && range.sort_target != SortTarget::Value {
        Need::Keys
    } else {
        Need::Everything
    }
}

/// Whether pairs come in the order of their keys, without anything having been asked for.
pub(crate) fn is_plain(range: &Range) -> bool {
    range.sort_target == SortTarget::Key && range.sort_order != SortOrder::Descend
}

pub(crate) fn has_filter(range: &Range) -> bool {
    [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ]
    .iter()
    .any(|revision| revision.0 != 0)
}

/// How many pairs must be read. One more than are wanted says whether there are more. An order that was not asked for by
/// name, of a field that is not the key, is one of the first pairs only: clients know it so.
fn pairs_max(range: &Range) -> usize {
    let needs_all = has_filter(range) || !(is_plain(range) || range.sort_order == SortOrder::None);
    match usize::try_from(range.limit) {
        Ok(limit) if limit > 0 && !needs_all => limit.saturating_add(1),
        _ => usize::MAX,
    }
}

pub(crate) fn finish(range: &Range, header: i64, mut kvs: Vec<KeyValue>, count: i64) -> RangeReply {
    if has_filter(range) {
        let within = |revision: Revision, min: Revision, max: Revision| {
            (min.0 == 0 || revision >= min) && (max.0 == 0 || revision <= max)
        };
        kvs.retain(|kv| {
            within(kv.mod_revision, range.min_mod_revision, range.max_mod_revision)
                && within(kv.create_revision, range.min_create_revision, range.max_create_revision)
        });
    }
    match range.sort_target {
        SortTarget::Key => {}
        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
        SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => kvs.sort_by(|one, other| one.value.cmp(&other.value)),
    }
    if range.sort_order == SortOrder::Descend {
        kvs.reverse();
    }
    let mut more = false;
    if let Ok(limit) = usize::try_from(range.limit)
        && limit > 0
        && kvs.len() > limit
    {
        kvs.truncate(limit);
        more = true;
    }
    if range.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
            if range.sort_target != SortTarget::Value {
                // As if the answer came from the index.
                kv.lease = None;
            }
        }
    }
    RangeReply { revision: Revision(header), kvs, more, count }
}
