//! Where each group's entries are.
//!
//! The index has one [`Location`] of 20 bytes per *record*, not per entry: a record's header says
//! what is in it. Locations are sorted by first index, and an entry is in the last one that does
//! not begin behind it. So when new entries take the place of old ones, what is left of an older
//! record needs no note: it ends where the next one begins.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_raft::{GroupId, HardState, Incarnation, Index};

use crate::record::ALIGN;
use crate::segment::Segment;
use crate::small_file::GroupStart;

/// Where a record with entries is. Kept at 20 bytes: there are as many as records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Location {
    /// Low and high half of the first index that counts here.
    first: [u32; 2],
    segment: u32,
    /// Both in units of [`ALIGN`].
    offset: u32,
    len: u32,
}

impl Location {
    pub(crate) fn new(first: Index, segment: u64, offset: u64, len: usize) -> Self {
        let units = |bytes: u64| {
            u32::try_from(bytes / ALIGN as u64).expect("segments are limited to 32 GiB")
        };
        Self {
            first: [first.0 as u32, (first.0 >> 32) as u32],
            segment: u32::try_from(segment).expect("2^32 segments are never made"),
            offset: units(offset),
            len: units(len as u64),
        }
    }

    pub(crate) fn first(&self) -> Index {
        Index(u64::from(self.first[0]) | u64::from(self.first[1]) << 32)
    }

    pub(crate) fn segment(&self) -> u64 {
        u64::from(self.segment)
    }

    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.offset) * ALIGN as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize * ALIGN
    }
}

/// One group's part of the log.
#[derive(Debug)]
pub(crate) struct GroupIndex {
    /// Where the log starts, as the file of the group says.
    pub(crate) start: GroupStart,
    /// The newest, written or not yet durable.
    pub(crate) hard_state: HardState,
    /// The segment with the newest record of the group, which has that hard state; `None` if it is
    /// in the file of the group, or there is none.
    pub(crate) state_segment: Option<u64>,
    /// The last entry; the start if there is none.
    pub(crate) last: Index,
    pub(crate) locations: VecDeque<Location>,
}

impl GroupIndex {
    pub(crate) fn new(start: GroupStart) -> Self {
        let (hard_state, last) = (start.hard_state.clone(), start.snapshot.id.index);
        let locations = VecDeque::new();
        Self { start, hard_state, state_segment: None, last, locations }
    }

    pub(crate) fn start_index(&self) -> Index {
        self.start.snapshot.id.index
    }

    /// The position in `locations` of the record that has `index`, or the first one behind it if
    /// there is a hole.
    pub(crate) fn position(&self, index: Index) -> usize {
        self.locations.partition_point(|location| location.first() <= index).saturating_sub(1)
    }

    /// Puts a record with the entries `first..=last` behind those before `first`, dropping the
    /// rest. Tells `dropped` of each record that has no entry that counts any more.
    pub(crate) fn append(
        &mut self,
        location: Location,
        last: Index,
        mut dropped: impl FnMut(Location),
    ) {
        // Of a record before it, what counts may have been only what is now dropped.
        let keeps_some = location.first().prev() > self.start_index();
        while let Some(back) = self.locations.back()
            && (back.first() >= location.first() || !keeps_some)
        {
            dropped(*back);
            self.locations.pop_back();
        }
        self.locations.push_back(location);
        self.last = last;
    }

    /// Puts a record that holds again what the log already has (or had, in a segment that is gone)
    /// in its place.
    pub(crate) fn replace(
        &mut self,
        location: Location,
        last: Index,
        mut dropped: impl FnMut(Location),
    ) {
        let at = self.locations.partition_point(|other| other.first() < location.first());
        match self.locations.get_mut(at) {
            Some(other) if other.first() == location.first() => {
                dropped(*other);
                *other = location;
            }
            _ => self.locations.insert(at, location),
        }
        self.last = self.last.max(last);
    }

    /// Drops records that have nothing behind `start`.
    pub(crate) fn compact(&mut self, start: Index, mut dropped: impl FnMut(Location)) {
        while let Some(front) = self.locations.front() {
            let end = self.locations.get(1).map_or(self.last, |next| next.first().prev());
            if end > start {
                break;
            }
            dropped(*front);
            self.locations.pop_front();
        }
        if self.locations.len() * 4 < self.locations.capacity() {
            self.locations.shrink_to(self.locations.len() * 2);
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self, dropped: impl FnMut(Location)) {
        self.locations.iter().copied().for_each(dropped);
        self.locations = VecDeque::new();
        self.last = self.start_index();
    }
}

/// One segment of the log, and what in it still counts.
pub(crate) struct SegmentUse {
    pub(crate) segment: Arc<Segment>,
    /// Where its records end; of the last segment, so far.
    pub(crate) end: u64,
    /// Bytes of records with entries that count.
    pub(crate) live_bytes: u64,
    /// How many records those are.
    pub(crate) live_records: u64,
    /// Groups whose newest hard state is here.
    pub(crate) states: u64,
}

impl SegmentUse {
    pub(crate) const fn is_free(&self) -> bool {
        self.live_records == 0 && self.states == 0
    }
}

/// The segments of the log, by number, the one being written last.
#[derive(Default)]
pub(crate) struct Segments {
    pub(crate) by_number: BTreeMap<u64, SegmentUse>,
}

impl Segments {
    pub(crate) fn insert(&mut self, segment: Arc<Segment>, end: u64) {
        let number = segment.number;
        let entry = SegmentUse { segment, end, live_bytes: 0, live_records: 0, states: 0 };
        self.by_number.insert(number, entry);
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Arc<Segment>> {
        self.by_number.get(&number).map(|entry| &entry.segment)
    }

    pub(crate) fn add(&mut self, location: Location) {
        if let Some(entry) = self.by_number.get_mut(&location.segment()) {
            entry.live_bytes += location.len() as u64;
            entry.live_records += 1;
        }
    }

    pub(crate) fn release(&mut self, location: Location) {
        if let Some(entry) = self.by_number.get_mut(&location.segment()) {
            entry.live_bytes -= location.len() as u64;
            entry.live_records -= 1;
        }
    }

    /// The newest hard state of a group is now in `to` instead of `from`.
    pub(crate) fn move_state(&mut self, from: Option<u64>, to: Option<u64>) {
        if from == to {
            return;
        }
        if let Some(entry) = from.and_then(|number| self.by_number.get_mut(&number)) {
            entry.states -= 1;
        }
        if let Some(entry) = to.and_then(|number| self.by_number.get_mut(&number)) {
            entry.states += 1;
        }
    }

    /// The segment with the lowest number.
    pub(crate) fn oldest(&self) -> Option<&SegmentUse> {
        self.by_number.values().next()
    }
}

/// All groups.
#[derive(Default)]
pub(crate) struct Groups {
    pub(crate) by_id: BTreeMap<GroupId, GroupIndex>,
}

impl Groups {
    /// The group of that name; a new one has a log without entries.
    pub(crate) fn of(&mut self, group: GroupId, incarnation: Incarnation) -> &mut GroupIndex {
        self.by_id
            .entry(group)
            .or_insert_with(|| GroupIndex::new(GroupStart::new(incarnation, group)))
    }

    /// Bytes of memory that the locations of all records take.
    pub(crate) fn location_bytes(&self) -> usize {
        let each = self.by_id.values().map(|group| group.locations.capacity());
        each.sum::<usize>() * size_of::<Location>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupIndex {
        GroupIndex::new(GroupStart::new(Incarnation(1), GroupId(0)))
    }

    fn location(first: u64, offset: u64) -> Location {
        Location::new(Index(first), 1, offset, 64)
    }

    fn firsts(group: &GroupIndex) -> Vec<u64> {
        group.locations.iter().map(|location| location.first().0).collect()
    }

    #[test]
    fn a_location_takes_20_bytes() {
        assert_eq!(size_of::<Location>(), 20);
        let location = Location::new(Index(u64::MAX >> 1), 77, 8192, 4096);
        assert_eq!(location.first(), Index(u64::MAX >> 1));
        assert_eq!((location.segment(), location.offset(), location.len()), (77, 8192, 4096));
    }

    #[test]
    fn a_conflict_drops_what_it_covers_and_shortens_the_one_before() {
        let mut group = group();
        let mut dropped = Vec::new();
        for (first, last) in [(1, 10), (11, 20), (21, 30)] {
            group.append(location(first, first * 64), Index(last), |_| ());
        }
        group.append(location(15, 4096), Index(15), |gone| dropped.push(gone.first().0));
        assert_eq!(firsts(&group), [1, 11, 15]);
        assert_eq!(dropped, [21]);
        assert_eq!(group.position(Index(14)), 1);
        assert_eq!(group.position(Index(15)), 2);
    }

    /// Entries 1 to 10 in one record, compacted up to 4: a conflict at 5 leaves nothing of it.
    #[test]
    fn a_conflict_right_behind_the_start_drops_everything() {
        let mut group = group();
        group.append(location(1, 64), Index(10), |_| ());
        group.start.snapshot.id.index = Index(4);
        let mut dropped = Vec::new();
        group.append(location(5, 128), Index(5), |gone| dropped.push(gone.offset()));
        assert_eq!((firsts(&group), dropped), (vec![5], vec![64]));
    }

    #[test]
    fn compaction_keeps_a_record_while_one_entry_counts() {
        let mut group = group();
        group.append(location(1, 64), Index(10), |_| ());
        group.append(location(11, 128), Index(20), |_| ());
        group.compact(Index(9), |_| ());
        assert_eq!(firsts(&group), [1, 11]);
        group.compact(Index(10), |_| ());
        assert_eq!(firsts(&group), [11]);
        group.compact(Index(20), |_| ());
        assert!(group.locations.is_empty());
    }

    #[test]
    fn a_rewritten_record_goes_where_it_was() {
        let mut group = group();
        group.append(location(1, 64), Index(10), |_| ());
        group.append(location(11, 128), Index(20), |_| ());
        let mut dropped = Vec::new();
        group.replace(location(1, 640), Index(10), |gone| dropped.push(gone.offset()));
        assert_eq!((firsts(&group), dropped), (vec![1, 11], vec![64]));
        assert_eq!(group.last, Index(20));
        // Of a record that was partly compacted, the rest goes behind what is left of it.
        group.replace(location(5, 704), Index(10), |_| ());
        assert_eq!(firsts(&group), [1, 5, 11]);
    }
}
