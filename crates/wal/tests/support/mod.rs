//! A naive log to compare with, and things to write into both.
#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, reason = "this is for tests")]

pub(crate) mod checks;
pub(crate) mod history;
pub(crate) mod hooked;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quorate_raft::*;
use quorate_wal::{MemoryDisk, Opened, Options, RecoveredGroup, Wal};

/// How many rounds a random test goes: many with `QUORATE_LONG=1`.
pub(crate) fn rounds(normal: u64, long: u64) -> u64 {
    if std::env::var_os("QUORATE_LONG").is_some() { long } else { normal }
}

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// A directory that is gone when the test is over.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("quorate-wal-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn options(random: u64) -> Options {
    Options {
        segment_bytes: 64 << 10,
        first_segment_bytes: 16 << 10,
        ..Options::new(ClusterId(1), NodeId(1), random)
    }
}

pub(crate) fn open(disk: &MemoryDisk, random: u64) -> Opened {
    let opened = Wal::open(Arc::new(disk.clone()), &options(random)).unwrap();
    assert_eq!(opened.damage, [], "a crash is not damage");
    opened
}

pub(crate) fn command(index: u64, term: u64, len: usize) -> Entry {
    let bytes: Bytes = (0..len).map(|at| (index * 31 + term * 7 + at as u64) as u8).collect();
    Entry::new(Index(index), Term(term), Payload::Command(bytes))
}

pub(crate) fn commands(
    indices: std::ops::RangeInclusive<u64>,
    term: u64,
    len: usize,
) -> Vec<Entry> {
    indices.map(|index| command(index, term, len)).collect()
}

pub(crate) fn persist(seq: u64, term: u64, append: Vec<Entry>) -> Persist {
    let commit = Index(append.first().map_or(0, |entry| entry.index.0 - 1));
    let hard_state = HardState { term: Term(term), commit, ..HardState::default() };
    Persist { seq: Seq(seq), hard_state, append }
}

pub(crate) fn snapshot(index: u64, term: u64) -> SnapshotMeta {
    let membership = Membership::of_voters([NodeId(1), NodeId(2), NodeId(index + 3)]);
    SnapshotMeta { id: LogId::new(Index(index), Term(term)), membership: Arc::new(membership) }
}

/// One group in the naive log.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct ModelGroup {
    pub(crate) hard_state: HardState,
    pub(crate) start: SnapshotMeta,
    /// Behind the start.
    pub(crate) entries: Vec<Entry>,
}

impl ModelGroup {
    pub(crate) fn last(&self) -> u64 {
        self.start.id.index.0 + self.entries.len() as u64
    }

    pub(crate) fn term_at(&self, index: u64) -> Term {
        let start = self.start.id;
        match index.checked_sub(start.index.0 + 1) {
            Some(at) => self.entries[at as usize].term,
            None => start.term,
        }
    }

    pub(crate) fn write(&mut self, persist: &Persist) {
        self.hard_state = persist.hard_state.clone();
        if let Some(first) = persist.append.first() {
            let keep = first.index.0 - 1 - self.start.id.index.0;
            self.entries.truncate(keep as usize);
            self.entries.extend(persist.append.iter().cloned());
        }
    }

    pub(crate) fn compact(&mut self, start: &SnapshotMeta) {
        let gone = start.id.index.0 - self.start.id.index.0;
        self.entries.drain(..gone as usize);
        self.start = start.clone();
    }

    pub(crate) fn install(&mut self, install: &Install) {
        self.hard_state = install.hard_state.clone();
        self.start = install.snapshot.clone();
        self.entries.clear();
    }

    fn recovered(&self) -> RecoveredGroup {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        let mut memberships = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|(_, term)| *term != entry.term) {
                terms.push((entry.index, entry.term));
            }
            if let Payload::Membership(membership) = &entry.payload {
                memberships.push((entry.index, Arc::clone(membership)));
            }
        }
        RecoveredGroup {
            hard_state: self.hard_state.clone(),
            snapshot: self.start.clone(),
            memberships,
            terms,
            last_index: Index(self.last()),
            damaged: Vec::new(),
        }
    }
}

/// All groups.
pub(crate) type Model = BTreeMap<GroupId, ModelGroup>;

/// Whether a log that was opened says what the model says, by its summary.
pub(crate) fn same(model: &Model, opened: &Opened) -> bool {
    difference(model, opened).is_none()
}

/// Whether what was found of one group is what the model says.
pub(crate) fn says(group: &ModelGroup, found: Option<&RecoveredGroup>) -> bool {
    group.recovered() == found.cloned().unwrap_or_default()
}

/// The first group of which model and log do not say the same.
pub(crate) fn difference(model: &Model, opened: &Opened) -> Option<String> {
    let blank = RecoveredGroup::default();
    let ids = model.keys().chain(opened.groups.keys());
    ids.into_iter().find_map(|id| {
        let expected = model.get(id).map_or(blank.clone(), ModelGroup::recovered);
        let found = opened.groups.get(id).unwrap_or(&blank);
        let differs = expected != *found;
        differs.then(|| format!("group {id}\nexpected {expected:?}\nfound {found:?}"))
    })
}

/// Reads everything back and compares.
pub(crate) fn assert_reads(model: &Model, wal: &Wal) {
    for (id, group) in model {
        let mut next = group.start.id.index.next();
        let mut rest = group.entries.as_slice();
        while !rest.is_empty() {
            let read = wal.read(*id, next, Index(group.last()), 2000).unwrap();
            assert!(!read.is_empty());
            assert_eq!(read, rest[..read.len()], "group {id}");
            next = Index(next.0 + read.len() as u64);
            rest = &rest[read.len()..];
        }
    }
}

/// Random entries behind or over what a group has.
pub(crate) fn random_persist(rng: &mut Rng, group: &ModelGroup, seq: u64, len_max: u64) -> Persist {
    let start = group.start.id.index.0;
    let last = group.last();
    // Most go on at the end, some take the place of the last few.
    let first =
        if rng.chance(5) { last + 1 - rng.below((last - start).min(6) + 1) } else { last + 1 };
    let term = group.hard_state.term.0.max(1) + rng.below(2) + u64::from(first <= last);
    let count = if rng.chance(6) { 0 } else { rng.below(6) };
    let append = (0..count).map(|at| {
        let payload = match rng.below(8) {
            0 => Payload::Noop,
            1 => {
                let voters = (1..=1 + rng.below(4)).map(NodeId);
                Payload::Membership(Arc::new(Membership::of_voters(voters)))
            }
            _ => {
                let len = rng.below(len_max + 1);
                Payload::Command((0..len).map(|_| rng.next() as u8).collect())
            }
        };
        Entry::new(Index(first + at), Term(term), payload)
    });
    let append: Vec<Entry> = append.collect();
    let seen = rng.chance(4).then(|| (NodeId(2), Incarnation(rng.next())));
    let hard_state = HardState {
        term: Term(term),
        voted_for: rng.chance(2).then(|| NodeId(1 + rng.below(3))),
        commit: Index(start + rng.below(last - start + 1)),
        seen: seen.into_iter().collect(),
    };
    Persist { seq: Seq(seq), hard_state, append }
}
