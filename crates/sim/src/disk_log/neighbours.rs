//! Groups that share the log with the one of the cluster: one talks much, one little, and some said
//! one thing long ago, which must not get lost when their segments are freed. Two have nothing but
//! a vote.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_raft::{
    Entry, GroupId, HardState, Index, LogId, Membership, NodeId, Payload, Persist, Seq,
    SnapshotMeta, Term,
};
use quorate_wal::{RecoveredGroup, Wal};

use crate::rng::Rng;

/// How likely each of them joins a write that has company, in parts per million.
const TALK_PPM: [u32; 6] = [700_000, 50_000, 1_000, 0, 1_000, 0];
/// From here on they only vote.
const VOTERS: usize = 4;
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
        let records: Vec<Persist> = (0..TALK_PPM.len()).map(|at| record(at, 1)).collect();
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
        talking.map(|(at, (group, _))| (Self::id(at), record(at, group.written + 1))).collect()
    }

    /// What the chattiest says next.
    pub(super) fn next_of_first(&self) -> Vec<(GroupId, Persist)> {
        vec![(Self::id(0), record(0, self.groups[0].written + 1))]
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
            let last = last_index(at, group.durable).0;
            if last.saturating_sub(group.start) < COMPACT_AT {
                continue;
            }
            let index = last - KEEP;
            group.start_asked = index;
            // The term of an entry is the number of its record.
            let seq = (0..=group.durable).find(|seq| last_index(at, *seq).0 == index).unwrap_or(0);
            let id = LogId::new(Index(index), Term(seq));
            let snapshot = SnapshotMeta { id, membership: Membership::default().into() };
            if wal.compact(Self::id(at), &snapshot).is_ok() {
                group.start = index;
            }
        }
    }

    /// Compares them with what a start has found, and goes on from there.
    pub(super) fn check(&mut self, node: NodeId, found: &BTreeMap<GroupId, RecoveredGroup>) {
        for (at, group) in self.groups.iter_mut().enumerate() {
            let id = Self::id(at);
            let Some(recovered) = found.get(&id) else {
                panic!("n{node}: group {id}, which wrote little, is forgotten");
            };
            let (seq, start) = (recovered.hard_state.term.0, recovered.snapshot.id.index.0);
            let expected = record(at, seq);
            assert!(
                (group.durable..=group.written).contains(&seq)
                    && recovered.hard_state == expected.hard_state
                    && recovered.last_index == last_index(at, seq)
                    && (start == group.start || start == group.start_asked),
                "n{node}: group {id} comes back as record {seq}, log {start}..{}, and was {group:?}",
                recovered.last_index
            );
            *group = Neighbour { written: seq, durable: seq, start, start_asked: start };
        }
    }
}

/// What the group at that place says as number `seq`: its term is the number; with two of three
/// comes an entry, unless it only votes.
fn record(at: usize, seq: u64) -> Persist {
    let voted_for = (at >= VOTERS).then_some(NodeId(seq));
    let hard_state = HardState { term: Term(seq), voted_for, ..HardState::default() };
    let append = if at >= VOTERS || seq.is_multiple_of(3) {
        Vec::new()
    } else {
        let payload = Payload::Command(Bytes::from(vec![seq as u8; 40]));
        vec![Entry::new(last_index(at, seq), Term(seq), payload)]
    };
    Persist { seq: Seq(seq), hard_state, append }
}

/// The last index behind that record.
const fn last_index(at: usize, seq: u64) -> Index {
    if at >= VOTERS { Index::ZERO } else { Index(seq - seq / 3) }
}
