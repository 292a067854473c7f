//! Groups that share the log with the one of the cluster: one talks much, one little, and some said
//! one thing long ago, which must not get lost when their segments are freed.

use quorate_raft::{GroupId, Index, LogId, Membership, NodeId, Persist, SnapshotMeta, Term};
use quorate_wal::Wal;

use super::{Groups, last_index_of, persist_of};
use crate::rng::Rng;

/// How likely each of them joins a write that has company, in parts per million.
const TALK_PPM: [u32; 4] = [700_000, 50_000, 1_000, 0];
/// Entries that a chatty group keeps when it is compacted, and at how many it is.
const KEEP: u64 = 4;
const COMPACT_AT: u64 = 24;

/// What was written for each of them, as numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbours {
    groups: [Neighbour; TALK_PPM.len()],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Neighbour {
    /// The last record that was given to the log, and the last that was reported durable.
    written: u64,
    durable: u64,
    /// Where its log starts; the second if a compaction did not end.
    start: u64,
    start_asked: u64,
}

impl Neighbours {
    fn id(at: usize) -> GroupId {
        GroupId(at as u64 + 1)
    }

    /// Each of them says one thing when the log is new.
    pub(super) fn write_first(&mut self, wal: &Wal) {
        let records: Vec<Persist> = TALK_PPM.iter().map(|_| persist_of(1)).collect();
        let records: Vec<(GroupId, &Persist)> =
            records.iter().enumerate().map(|(at, persist)| (Self::id(at), persist)).collect();
        wal.write(&records).expect("an empty disk takes records");
        wal.sync().expect("an empty disk takes records");
        for group in &mut self.groups {
            (group.written, group.durable) = (1, 1);
        }
    }

    /// What they say next, if anything.
    pub(super) fn next(&self, rng: &mut Rng) -> Vec<(GroupId, Persist)> {
        let talking = self.groups.iter().zip(TALK_PPM).enumerate();
        let talking = talking.filter(|(_, (_, talk_ppm))| rng.chance(*talk_ppm));
        talking.map(|(at, (group, _))| (Self::id(at), persist_of(group.written + 1))).collect()
    }

    /// What the chattiest says next.
    pub(super) fn next_of_first(&self) -> Vec<(GroupId, Persist)> {
        vec![(Self::id(0), persist_of(self.groups[0].written + 1))]
    }

    /// The log has taken them.
    pub(super) fn written(&mut self, records: &[(GroupId, Persist)]) {
        for (group, persist) in records {
            self.groups[group.0 as usize - 1].written = persist.seq.0;
        }
    }

    /// A sync that began when they were so has ended.
    pub(super) fn synced(&mut self, then: &Self) {
        for (group, then) in self.groups.iter_mut().zip(&then.groups) {
            group.durable = group.durable.max(then.written);
        }
    }

    /// Compacts those that have grown, so that their segments can be freed.
    pub(super) fn compact(&mut self, wal: &Wal) {
        for (at, group) in self.groups.iter_mut().enumerate() {
            let last = last_index_of(group.durable).0;
            if last.saturating_sub(group.start) < COMPACT_AT {
                continue;
            }
            let index = last - KEEP;
            group.start_asked = index;
            // The term of an entry is the number of its record.
            let seq = (0..=group.durable).find(|seq| last_index_of(*seq).0 == index).unwrap_or(0);
            let id = LogId::new(Index(index), Term(seq));
            let snapshot = SnapshotMeta { id, membership: Membership::default().into() };
            if wal.compact(Self::id(at), &snapshot).is_ok() {
                group.start = index;
            }
        }
    }

    /// Compares them with what a start has found, and goes on from there.
    pub(super) fn check(&mut self, node: NodeId, found: &Groups) {
        for (at, group) in self.groups.iter_mut().enumerate() {
            let id = Self::id(at);
            let Some(recovered) = found.get(&id) else {
                panic!("n{node}: group {id}, which wrote little, is forgotten");
            };
            let (seq, start) = (recovered.hard_state.term.0, recovered.snapshot.id.index.0);
            assert!(
                (group.durable..=group.written).contains(&seq)
                    && recovered.last_index == last_index_of(seq)
                    && (start == group.start || start == group.start_asked),
                "n{node}: group {id} comes back as record {seq}, log {start}..{}, and was {group:?}",
                recovered.last_index
            );
            *group = Neighbour { written: seq, durable: seq, start, start_asked: start };
        }
    }
}
