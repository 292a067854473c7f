//! What must hold whatever the files contain. The fuzz target (`fuzz/`) and the short random runs in
//! `arbitrary.rs` call the same function.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_raft::{
    ClusterId, Entry, GroupId, HardState, Index, LogId, Membership, NodeId, Payload, Persist, Seq,
    SnapshotMeta, Term,
};
use quorate_wal::{Disk as _, MemoryDisk, OpenError, Options, Progress, Wal};

/// What a disk writes as a whole, or not, or in the wrong place.
const BLOCK: usize = 512;
const LIVES: u64 = 3;
/// Indices that each life writes to each group.
const WRITES: u64 = 12;

fn options(random: u64) -> Options {
    Options {
        segment_bytes: 16 << 10,
        first_segment_bytes: 16 << 10,
        ..Options::new(ClusterId(1), NodeId(1), random)
    }
}

/// A log, and what its files held before.
pub(crate) struct SomeLog {
    disk: MemoryDisk,
    /// After each of the steps that made it, the older ones first.
    before: Vec<BTreeMap<String, Vec<u8>>>,
}

/// The entry that stands at an index, in either group.
fn entry(index: u64) -> Entry {
    let len = 600 + index as usize % 7 * 40;
    let command = (0..len).map(|at| (index * 31 + at as u64 * 7) as u8).collect();
    Entry::new(Index(index), Term(1 + index / 5), Payload::Command(command))
}

fn hard_state(index: u64) -> HardState {
    HardState { term: entry(index).term, voted_for: Some(NodeId(index)), ..HardState::default() }
}

/// A log of three lives and two groups, one of them compacted now and then, so that segments are
/// used again. All was synced; the last life was not closed.
pub(crate) fn some_log() -> SomeLog {
    let disk = MemoryDisk::new();
    let mut before = Vec::new();
    let look = || {
        let names = disk.list().expect("names").into_iter();
        names.filter_map(|name| Some((name.clone(), disk.contents(&name)?))).collect()
    };
    for life in 0..LIVES {
        let wal = Wal::open(Arc::new(disk.clone()), &options(life)).expect("a good log").wal;
        for index in life * WRITES + 1..=(life + 1) * WRITES {
            let hard_state = hard_state(index);
            let persist = Persist { seq: Seq(index), hard_state, append: vec![entry(index)] };
            wal.write(&[(GroupId(0), &persist), (GroupId(1), &persist)]).expect("a good write");
            wal.sync().expect("a good sync");
            if index % 8 == 0 {
                let id = LogId::new(Index(index - 2), entry(index - 2).term);
                let membership = Arc::new(Membership::of_voters([NodeId(1)]));
                wal.compact(GroupId(0), &SnapshotMeta { id, membership }).expect("a compaction");
            }
            while wal.prepare(8 << 10).expect("a good preparation") != Progress::Idle {
                wal.sync().expect("a good sync");
            }
            before.push(look());
        }
        if life + 1 < LIVES {
            wal.close().expect("a good close");
        }
    }
    SomeLog { disk, before }
}

/// One change to the files, as six bytes say.
struct Change {
    file: usize,
    at: usize,
    kind: u8,
    a: usize,
    b: usize,
}

impl Change {
    fn of(bytes: &[u8]) -> Self {
        let number = |at: usize| usize::from(bytes[at]);
        let at = number(1) << 8 | number(2);
        Self { file: number(0), at, kind: bytes[3] % 6, a: number(4), b: number(5) }
    }

    fn make(&self, log: &SomeLog, disk: &MemoryDisk) {
        let names = disk.list().expect("names");
        let name = &names[self.file % names.len()];
        let mut contents = disk.contents(name).expect("contents");
        if contents.is_empty() {
            return;
        }
        let at = self.at % contents.len();
        let block_at = at - at % BLOCK;
        let block = block_at..contents.len().min(block_at + BLOCK);
        match self.kind {
            0 => contents[at] ^= self.a.max(1) as u8,
            1 => contents[at] = self.a as u8,
            2 => contents.truncate(at),
            // A piece from somewhere else.
            3 => {
                let len = self.b.min(contents.len() - at);
                let from = (at + self.a * 64) % contents.len();
                let len = len.min(contents.len() - from);
                contents.copy_within(from..from + len, at);
            }
            // A lost write: the block is what it was at some time before.
            4 => {
                let before = &log.before[self.a % log.before.len()];
                let older = before.get(name).filter(|_| name.ends_with(".log"));
                for place in block {
                    contents[place] = older.and_then(|old| old.get(place)).copied().unwrap_or(0);
                }
            }
            // A misdirected write: what belongs here has gone to another place of any file, and
            // here is what was here before.
            _ => {
                let other = &names[self.b % names.len()];
                let moved = contents[block.clone()].to_vec();
                if other == name {
                    let to = (block_at + (1 + self.a) * BLOCK) % contents.len();
                    let to = to..contents.len().min(to + moved.len());
                    let len = to.len();
                    contents[to].copy_from_slice(&moved[..len]);
                } else {
                    let mut contents = disk.contents(other).expect("contents");
                    let to = (self.a * BLOCK).min(contents.len() / BLOCK * BLOCK);
                    contents.resize(contents.len().max(to + moved.len()), 0);
                    contents[to..to + moved.len()].copy_from_slice(&moved);
                    disk.put(other, contents);
                }
                if self.a.is_multiple_of(2) {
                    contents[block].fill(0);
                }
            }
        }
        disk.put(name, contents);
    }

    /// Whether it changes no more than one block, so that the log can lose no more than the records
    /// there without noticing.
    const fn is_small(&self) -> bool {
        matches!(self.kind, 0 | 1 | 4)
    }
}

/// Changes a good log as `bytes` say, six bytes for each change, and opens it. That must not
/// panic. Either it is told that something is wrong, or what is found is what was written, but for
/// an end of which nothing is left that says that it was durable; and what a start has once
/// reported, the next one reports again.
pub(crate) fn changed_log(log: &SomeLog, bytes: &[u8]) -> bool {
    let disk = log.disk.after_kill();
    let changes: Vec<Change> = bytes.chunks_exact(6).map(Change::of).collect();
    for change in &changes {
        change.make(log, &disk);
    }
    let opened = match Wal::open(Arc::new(disk.clone()), &options(77)) {
        Ok(opened) => opened,
        Err(OpenError::Io(why)) => panic!("the disk is in order: {why}"),
        Err(_) => return false,
    };
    if !opened.damage.is_empty() {
        return false;
    }
    let most = LIVES * WRITES;
    for (id, group) in &opened.groups {
        let (first, last) = (group.snapshot.id.index.next(), group.last_index);
        assert!(last.0 <= most, "nobody has written {last}");
        assert!((0..=most).any(|index| group.hard_state == hard_state_at(index)));
        if first <= last {
            let read = opened.wal.read(*id, first, last, usize::MAX).expect("undamaged entries");
            assert_eq!(read.len() as u64, last.0 + 1 - first.0);
            assert!(read.iter().all(|found| *found == entry(found.index.0)));
        }
    }
    if let [change] = changes.as_slice()
        && change.is_small()
    {
        // One block touches two records, and the mark of the second is that of the first.
        for group in [GroupId(0), GroupId(1)] {
            let found = opened.groups.get(&group).map_or(0, |group| group.last_index.0);
            assert!(found + 1 >= most, "{found} is the last of group {group}");
        }
    }
    opened.wal.close().expect("a good close");
    let groups = opened.groups.clone();
    drop(opened);
    let again = Wal::open(Arc::new(disk), &options(78)).expect("it was opened before");
    assert!(again.damage.is_empty());
    assert_eq!(again.groups, groups);
    true
}

/// The hard state after the write of that index; before the first one, none.
fn hard_state_at(index: u64) -> HardState {
    if index == 0 { HardState::default() } else { hard_state(index) }
}
