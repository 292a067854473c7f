//! What the records of the log, one after another, say about each group.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use quorate_raft::{GroupId, HardState, Incarnation, Index, LogId, Membership, SnapshotMeta, Term};
use quorate_wire::PayloadKind;

use crate::index::{GroupIndex, Groups, Location, Segments};
use crate::record::{GroupBody, Header};
use crate::small_file::GroupStart;

/// What a start has found of one group: with the state machine's durable index and a boot nonce it
/// is what [`quorate_raft::Recovered`] needs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveredGroup {
    /// Term, vote and a lower bound of the commit index.
    pub hard_state: HardState,
    /// Where the log starts.
    pub snapshot: SnapshotMeta,
    /// Every configuration entry behind it.
    pub memberships: Vec<(Index, Arc<Membership>)>,
    /// The terms behind it, run by run.
    pub terms: Vec<(Index, Term)>,
    /// The last index.
    pub last_index: Index,
    /// Entries that should be there and cannot be read.
    pub damaged: Vec<RangeInclusive<Index>>,
}

impl RecoveredGroup {
    /// What the core needs. `applied` is what the group's state machine has durably applied.
    #[must_use]
    pub fn recovered(&self, applied: Index, boot_nonce: u64) -> quorate_raft::Recovered {
        let Self { hard_state, snapshot, memberships, terms, last_index, damaged } = self.clone();
        quorate_raft::Recovered {
            hard_state,
            snapshot,
            memberships,
            terms,
            last_index,
            applied,
            damaged,
            boot_nonce,
        }
    }
}

/// The groups as far as the log was read.
#[derive(Default)]
pub(crate) struct Replay {
    groups: BTreeMap<GroupId, ReplayGroup>,
    incarnation: Incarnation,
}

struct ReplayGroup {
    index: GroupIndex,
    runs: Runs,
    memberships: BTreeMap<Index, Arc<Membership>>,
    /// The highest start of its log that a record knew of.
    start_seen: Index,
    /// Entries whose payload is damaged, and the record that has them.
    damaged: Vec<(LogId, Location)>,
}

/// A record for a group, and where it stands.
pub(crate) struct Placed<'a> {
    pub(crate) header: Header,
    pub(crate) body: &'a GroupBody<'a>,
    /// The bytes of the record.
    pub(crate) bytes: &'a [u8],
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Entries whose payload is not what its checksum says.
    pub(crate) damaged: &'a [LogId],
}

impl Replay {
    /// The groups that have files, before any record.
    pub(crate) fn new(incarnation: Incarnation, starts: &BTreeMap<GroupId, GroupStart>) -> Self {
        let groups = starts.iter().map(|(id, start)| (*id, ReplayGroup::new(start.clone())));
        Self { groups: groups.collect(), incarnation }
    }

    /// Takes in the next record.
    pub(crate) fn apply(&mut self, record: &Placed<'_>) {
        let Placed { header, body, segment, offset, .. } = *record;
        let incarnation = self.incarnation;
        let start = || ReplayGroup::new(GroupStart::new(incarnation, body.group));
        let group = self.groups.entry(body.group).or_insert_with(start);
        if header.number <= group.index.start.reset {
            return;
        }
        group.start_seen = group.start_seen.max(body.start);
        group.index.hard_state = body.hard_state.clone();
        group.index.state_segment = Some(segment);
        let Some((first, last)) = body.range() else { return };
        let location = Location::new(first, segment, offset, header.record_len());
        if body.rewrite {
            group.index.replace(location, last, |_| ());
        } else {
            group.runs.truncate(first);
            let _dropped = group.memberships.split_off(&first);
            group.index.append(location, last, |_| ());
        }
        group.note_entries(record);
        group.damaged.extend(record.damaged.iter().map(|id| (*id, location)));
    }

    /// Notes that a record was moved: `number_from` says from where.
    pub(crate) fn relocate(&mut self, group: GroupId, from: &Location, to: Location) {
        let Some(group) = self.groups.get_mut(&group) else { return };
        let position = group.index.position(from.first());
        match group.index.locations.get_mut(position) {
            Some(location) if location == from => *location = to,
            _ => {}
        }
    }

    /// Notes that the newest hard state of a group is now in `segment`.
    pub(crate) fn move_state(&mut self, group: GroupId, segment: u64) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.index.state_segment = Some(segment);
        }
    }

    /// Drops what is before the starts of the logs. Returns groups whose file is missing or older
    /// than records say, with the start that the records know.
    pub(crate) fn finish(&mut self) -> Vec<(GroupId, Index)> {
        let mut lost = Vec::new();
        for (id, group) in &mut self.groups {
            let start = group.index.start_index();
            group.index.last = group.index.last.max(start);
            group.index.compact(start, |_| ());
            group.memberships = group.memberships.split_off(&start.next());
            group.runs.drop_to(start);
            if group.start_seen > start {
                lost.push((*id, group.start_seen));
            }
        }
        lost
    }

    /// What the hosts want to know.
    pub(crate) fn recovered(&self) -> BTreeMap<GroupId, RecoveredGroup> {
        let recovered = self.groups.iter().map(|(id, group)| (*id, group.recovered()));
        recovered.collect()
    }

    /// The index, and what counts in each of `segments`.
    pub(crate) fn into_groups(self, segments: &mut Segments) -> Groups {
        let mut groups = Groups::default();
        for (id, group) in self.groups {
            for location in &group.index.locations {
                segments.add(*location);
            }
            segments.move_state(None, group.index.state_segment);
            groups.by_id.insert(id, group.index);
        }
        groups
    }
}

impl ReplayGroup {
    fn new(start: GroupStart) -> Self {
        Self {
            index: GroupIndex::new(start),
            runs: Runs::default(),
            memberships: BTreeMap::new(),
            start_seen: Index::ZERO,
            damaged: Vec::new(),
        }
    }

    fn note_entries(&mut self, record: &Placed<'_>) {
        let mut at = record.header.header_len;
        for head in record.body.heads() {
            self.runs.set(head.id);
            let payload = &record.bytes[at..at + head.payload_len as usize];
            at += payload.len();
            if head.kind == PayloadKind::Membership
                && let Ok(membership) = Membership::from_bytes(payload)
            {
                self.memberships.insert(head.id.index, Arc::new(membership));
            }
        }
    }

    fn recovered(&self) -> RecoveredGroup {
        let GroupIndex { start, hard_state, last, .. } = &self.index;
        let mut damaged = self.runs.holes(self.index.start_index(), *last);
        for (id, location) in &self.damaged {
            let position = self.index.position(id.index);
            let counts = id.index > self.index.start_index() && id.index <= *last;
            if counts && self.index.locations.get(position) == Some(location) {
                damaged.push(id.index..=id.index);
            }
        }
        RecoveredGroup {
            hard_state: hard_state.clone(),
            snapshot: start.snapshot.clone(),
            memberships: self.memberships.iter().map(|(i, m)| (*i, Arc::clone(m))).collect(),
            terms: self.runs.terms(),
            last_index: *last,
            damaged: merge_ranges(damaged),
        }
    }
}

/// Sorts ranges and joins those that touch.
fn merge_ranges(mut ranges: Vec<RangeInclusive<Index>>) -> Vec<RangeInclusive<Index>> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<Index>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().next() => {
                *last = *last.start()..=(*last.end()).max(*range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// The terms of a log, run by run, with holes where entries are not known.
#[derive(Default)]
struct Runs {
    /// Ascending, not touching if of the same term.
    runs: Vec<Run>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    first: Index,
    last: Index,
    term: Term,
}

impl Runs {
    /// Forgets everything from `first` on.
    fn truncate(&mut self, first: Index) {
        while let Some(run) = self.runs.last_mut()
            && run.last >= first
        {
            if run.first < first {
                run.last = first.prev();
                break;
            }
            self.runs.pop();
        }
    }

    /// Notes the term of one entry, in place of what was known of it.
    fn set(&mut self, id: LogId) {
        let LogId { index, term } = id;
        match self.runs.last_mut() {
            // Nearly always: the entry behind the last one.
            Some(run) if run.last.next() == index && run.term == term => run.last = index,
            Some(run) if run.last >= index => self.insert(id),
            _ => self.runs.push(Run { first: index, last: index, term }),
        }
    }

    /// Notes the term of one entry that is not behind all others.
    fn insert(&mut self, id: LogId) {
        let LogId { index, term } = id;
        let at = self.runs.partition_point(|run| run.last < index);
        let Run { first, last, term: known } = self.runs[at];
        if first <= index && known == term {
            return;
        }
        let one = Run { first: index, last: index, term };
        if first > index {
            let follows = at > 0 && self.runs[at - 1].last.next() == index;
            if follows && self.runs[at - 1].term == term {
                self.runs[at - 1].last = index;
            } else {
                self.runs.insert(at, one);
            }
            return;
        }
        // In the middle of a run of another term.
        let parts = [
            (first < index).then(|| Run { first, last: index.prev(), term: known }),
            Some(one),
            (index < last).then(|| Run { first: index.next(), last, term: known }),
        ];
        self.runs.splice(at..=at, parts.into_iter().flatten());
    }

    /// Forgets everything up to `start`.
    fn drop_to(&mut self, start: Index) {
        self.runs.retain(|run| run.last > start);
        if let Some(run) = self.runs.first_mut() {
            run.first = run.first.max(start.next());
        }
    }

    /// Ranges behind `start` and up to `last` of which nothing is known.
    fn holes(&self, start: Index, last: Index) -> Vec<RangeInclusive<Index>> {
        let mut holes = Vec::new();
        let mut next = start.next();
        for run in &self.runs {
            if run.first > next {
                holes.push(next..=run.first.prev());
            }
            next = run.last.next();
        }
        if next <= last {
            holes.push(next..=last);
        }
        holes
    }

    fn terms(&self) -> Vec<(Index, Term)> {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for run in &self.runs {
            if terms.last().is_none_or(|(_, term)| *term != run.term) {
                terms.push((run.first, run.term));
            }
        }
        terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(indices: impl IntoIterator<Item = u64>, term: u64) -> impl Iterator<Item = LogId> {
        indices.into_iter().map(move |index| LogId::new(Index(index), Term(term)))
    }

    fn terms(runs: &Runs) -> Vec<(u64, u64)> {
        runs.terms().iter().map(|(index, term)| (index.0, term.0)).collect()
    }

    #[test]
    fn runs_of_terms() {
        let mut runs = Runs::default();
        ids(1..=5, 1).chain(ids(6..=9, 2)).for_each(|id| runs.set(id));
        assert_eq!(terms(&runs), [(1, 1), (6, 2)]);
        runs.truncate(Index(4));
        ids(4..=6, 3).for_each(|id| runs.set(id));
        assert_eq!(terms(&runs), [(1, 1), (4, 3)]);
        assert!(runs.holes(Index(0), Index(6)).is_empty());
        runs.drop_to(Index(4));
        assert_eq!(terms(&runs), [(5, 3)]);
    }

    #[test]
    fn what_comes_late_fills_a_hole() {
        let mut runs = Runs::default();
        ids(10..=12, 2).for_each(|id| runs.set(id));
        assert_eq!(runs.holes(Index(3), Index(12)), [Index(4)..=Index(9)]);
        ids(4..=9, 1).for_each(|id| runs.set(id));
        assert_eq!(terms(&runs), [(4, 1), (10, 2)]);
        assert!(runs.holes(Index(3), Index(12)).is_empty());
        // What is known already changes nothing.
        ids(5..=11, 1).take(5).for_each(|id| runs.set(id));
        assert_eq!(terms(&runs), [(4, 1), (10, 2)]);
    }

    #[test]
    fn ranges_are_joined() {
        let range = |from, to| Index(from)..=Index(to);
        let merged = merge_ranges(vec![range(5, 6), range(1, 2), range(3, 3), range(6, 9)]);
        assert_eq!(merged, [range(1, 3), range(5, 9)]);
    }
}
