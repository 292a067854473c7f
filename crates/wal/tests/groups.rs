//! Many groups in one log: completion, compaction, quiet groups.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::sync::Arc;

use quorate_raft::{
    ClusterId, Entry, GroupId, HardState, Index, Install, NodeId, Payload, Seq, Term,
};
use quorate_wal::{Fate, MemoryDisk, Opened, Options, Progress, RealDisk, Usage, Wal};
use support::{TempDir, commands, open, options, persist, snapshot};

/// Prepares to the end, syncing where that is waited for.
fn prepare_all(wal: &Wal) {
    loop {
        match wal.prepare(16 << 10).unwrap() {
            Progress::More => {}
            Progress::AfterSync => {
                wal.sync().unwrap();
            }
            Progress::Idle => break,
        }
    }
}

#[test]
fn a_sync_completes_the_highest_sequence_of_each_group() {
    let wal = open(&MemoryDisk::new(), 1).wal;
    let record = |seq| persist(seq, 1, vec![]);
    let (a, b, c) = (record(5), record(6), record(7));
    wal.write(&[(GroupId(2), &a), (GroupId(1), &b), (GroupId(2), &c)]).unwrap();
    assert_eq!(wal.sync().unwrap(), [(GroupId(1), Seq(6)), (GroupId(2), Seq(7))]);
    assert_eq!(wal.sync().unwrap(), []);
}

/// What is written while a sync runs is not part of it.
#[test]
fn a_sync_covers_what_was_written_before_it_began() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    let first = wal.write(&[(GroupId(1), &persist(1, 1, vec![]))]).unwrap();
    let job = wal.begin_sync().unwrap().unwrap();
    let second = wal.write(&[(GroupId(1), &persist(2, 1, vec![]))]).unwrap();
    assert!(wal.begin_sync().unwrap().is_none(), "one at a time");
    assert_eq!(job.run().unwrap(), [(GroupId(1), Seq(1))]);
    assert_eq!(wal.durable(), first);
    assert_eq!(wal.sync().unwrap(), [(GroupId(1), Seq(2))]);
    assert_eq!(wal.durable(), second);
    // A job that is dropped has not happened.
    wal.write(&[(GroupId(1), &persist(3, 1, vec![]))]).unwrap();
    drop(wal.begin_sync().unwrap().unwrap());
    assert_eq!(wal.durable(), second);
    assert_eq!(wal.sync().unwrap(), [(GroupId(1), Seq(3))]);
}

/// What `sync_to` completes is kept for whoever distributes completions.
#[test]
fn completions_are_never_lost() {
    let wal = open(&MemoryDisk::new(), 1).wal;
    let position = wal.write(&[(GroupId(1), &persist(1, 1, vec![]))]).unwrap();
    wal.sync_to(position).unwrap();
    wal.write(&[(GroupId(3), &persist(1, 1, vec![]))]).unwrap();
    wal.mark().map(|completed| assert_eq!(completed.len(), 2)).unwrap();
}

/// One group writes a lot beside ten thousand that are idle: the log takes twice what counts and a
/// few segments, every byte is written at most about twice, and the idle groups keep their votes.
/// Here 40 MiB go through segments of 64 KiB: four times as many as 10 GiB need of 64 MiB.
#[test]
fn idle_groups_pin_nothing() {
    let disk = MemoryDisk::new();
    let opened = open(&disk, 1);
    beside_idle_groups(&opened.wal, &options(1), 40 << 20, 500);
    check_idle_groups(&open(&disk.after_power_cut(|_, _| Fate::Dropped), 2));
}

/// The same at full size on a real disk, with `QUORATE_LONG=1`.
#[test]
fn ten_gibibytes_beside_idle_groups() {
    if support::rounds(0, 1) == 0 {
        return;
    }
    let directory = TempDir::new();
    let disk = Arc::new(RealDisk::new(directory.path()).unwrap());
    let options = Options::new(ClusterId(1), NodeId(1), 4711);
    let opened = Wal::open(disk.clone(), &options).unwrap();
    let most = beside_idle_groups(&opened.wal, &options, 10 << 30, 16 << 10);
    let metrics = opened.wal.metrics();
    eprintln!(
        "at most {} segments with {} MiB, {} MiB of them live; {} MiB rewritten of {} MiB written",
        most.segments,
        most.segment_bytes >> 20,
        most.live_bytes >> 20,
        metrics.forwarded_bytes >> 20,
        metrics.written_bytes >> 20,
    );
    drop(opened);
    check_idle_groups(&Wal::open(disk, &options).unwrap());
}

const IDLE: u64 = 10_000;

/// Writes two entries and a vote to each idle group, and then `bytes` to group 0, compacting it
/// now and then. Returns the most that the log took.
fn beside_idle_groups(wal: &Wal, options: &Options, bytes: u64, entry_bytes: usize) -> Usage {
    for group in 1..=IDLE {
        let mut record = persist(1, 3, commands(1..=2, 3, 20));
        record.hard_state.voted_for = Some(NodeId(group));
        wal.write(&[(GroupId(group), &record)]).unwrap();
    }
    wal.sync().unwrap();
    let before = wal.metrics();
    let mut most = Usage::default();
    let mut next = 1;
    let mut written = 0;
    let payload = commands(1..=1, 1, entry_bytes)[0].clone();
    while written < bytes {
        let batch =
            (next..=next + 15).map(|index| Entry { index: Index(index), ..payload.clone() });
        written += 16 * entry_bytes as u64;
        wal.write(&[(GroupId(0), &persist(next, 1, batch.collect()))]).unwrap();
        next += 16;
        wal.sync().unwrap();
        if next % 512 == 1 {
            wal.compact(GroupId(0), &snapshot(next - 100, 1)).unwrap();
            prepare_all(wal);
            let usage = wal.usage();
            most.segments = most.segments.max(usage.segments);
            most.segment_bytes = most.segment_bytes.max(usage.segment_bytes);
            most.live_bytes = most.live_bytes.max(usage.live_bytes);
        }
    }
    let room = 2 * (most.live_bytes + IDLE * 128) + 8 * options.segment_bytes;
    assert!(most.segment_bytes < room, "{most:?}");
    let metrics = wal.metrics();
    let switches = bytes / options.segment_bytes;
    assert!(metrics.forwarded_bytes > 0, "{metrics:?}");
    assert!(metrics.segments_recycled > switches / 2, "{metrics:?}");
    let more = metrics.written_bytes - before.written_bytes;
    assert!(more < 5 * written / 2, "{more} bytes written for {written}");
    most
}

/// The idle groups have what was written to them.
fn check_idle_groups(opened: &Opened) {
    assert_eq!(opened.damage, []);
    assert_eq!(opened.groups.len() as u64, IDLE + 1);
    for group in 1..=IDLE {
        let found = &opened.groups[&GroupId(group)];
        assert_eq!(found.hard_state.voted_for, Some(NodeId(group)));
        assert_eq!((found.last_index, found.hard_state.term), (Index(2), Term(3)));
        let entries = opened.wal.read(GroupId(group), Index(1), Index(2), 1000).unwrap();
        assert_eq!(entries, commands(1..=2, 3, 20));
    }
}

/// A group whose whole log was compacted still has its hard state when its segment is freed.
#[test]
fn the_vote_of_an_empty_log_is_rewritten() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    let mut record = persist(1, 7, commands(1..=3, 7, 100));
    record.hard_state.voted_for = Some(NodeId(3));
    wal.write(&[(GroupId(9), &record)]).unwrap();
    wal.sync().unwrap();
    wal.compact(GroupId(9), &snapshot(3, 7)).unwrap();
    for next in 1..3_000 {
        wal.write(&[(GroupId(0), &persist(next, 1, commands(next..=next, 1, 900)))]).unwrap();
        if next % 50 == 0 {
            wal.sync().unwrap();
            wal.compact(GroupId(0), &snapshot(next - 1, 1)).unwrap();
            prepare_all(&wal);
        }
    }
    wal.sync().unwrap();
    assert!(disk.contents("0000000000000001.log").is_none(), "the first segment is gone");
    let opened = open(&disk.after_power_cut(|_, _| Fate::Dropped), 2).groups;
    let hard_state = &opened[&GroupId(9)].hard_state;
    assert_eq!((hard_state.term, hard_state.voted_for), (Term(7), Some(NodeId(3))));
    assert_eq!(opened[&GroupId(9)].last_index, Index(3));
}

/// A group with more records than are looked at in one go, and one behind it: what little counts
/// in the oldest segment is found all the same.
#[test]
fn a_long_log_is_looked_at_in_parts() {
    const RECORDS: u64 = 140_000;
    let wal = open(&MemoryDisk::new(), 1).wal;
    wal.write(&[(GroupId(9), &persist(1, 7, commands(1..=1, 7, 10)))]).unwrap();
    for next in 1..=RECORDS {
        wal.write(&[(GroupId(0), &persist(next, 1, commands(next..=next, 1, 1)))]).unwrap();
        if next % 1_000 == 0 {
            wal.sync().unwrap();
        }
    }
    let before = wal.usage().segments;
    // Of the first segment, only what the other group has counts.
    wal.compact(GroupId(0), &snapshot(80, 1)).unwrap();
    let mut calls = 0;
    while wal.usage().segments == before {
        wal.prepare(16 << 10).unwrap();
        wal.sync().unwrap();
        calls += 1;
        assert!(calls < 100, "the first segment is not freed");
    }
    for (group, from) in [(GroupId(9), 1), (GroupId(0), 81), (GroupId(0), RECORDS)] {
        let read = wal.read(group, Index(from), Index(from), 1).unwrap();
        assert_eq!(read[0].index, Index(from));
    }
}

/// A mark counts when it is durable, whoever has written it.
#[test]
fn a_mark_is_durable() {
    let wal = open(&MemoryDisk::new(), 1).wal;
    for next in 1..=100 {
        wal.write(&[(GroupId(0), &persist(next, 1, commands(next..=next, 1, 500)))]).unwrap();
    }
    wal.sync().unwrap();
    wal.compact(GroupId(0), &snapshot(100, 1)).unwrap();
    // This writes one, to free segments.
    while wal.prepare(1 << 20).unwrap() == Progress::More {}
    assert!(wal.begin_sync().unwrap().is_some());
    wal.mark().unwrap();
    assert!(wal.begin_sync().unwrap().is_none(), "nothing is left to be synced");
}

/// A conflict that cuts into an older record, and what was written over stays away.
#[test]
fn a_conflict_drops_the_suffix() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GroupId(0), &persist(1, 1, commands(1..=10, 1, 50)))]).unwrap();
    wal.write(&[(GroupId(0), &persist(2, 1, commands(11..=20, 1, 50)))]).unwrap();
    wal.write(&[(GroupId(0), &persist(3, 2, commands(7..=8, 2, 50)))]).unwrap();
    let mut expected = commands(1..=6, 1, 50);
    expected.extend(commands(7..=8, 2, 50));
    let read = |wal: &Wal| wal.read(GroupId(0), Index(1), Index(99), 1 << 20).unwrap();
    assert_eq!(read(&wal), expected);
    wal.close().unwrap();
    drop(wal);
    let opened = open(&disk, 2);
    assert_eq!(read(&opened.wal), expected);
    let terms = [(Index(1), Term(1)), (Index(7), Term(2))];
    assert_eq!(opened.groups[&GroupId(0)].terms, terms);
}

#[test]
fn reads_are_bounded_by_bytes() {
    let wal = open(&MemoryDisk::new(), 1).wal;
    for next in 0..10 {
        let batch = commands(next * 10 + 1..=next * 10 + 10, 1, 136);
        wal.write(&[(GroupId(0), &persist(next, 1, batch))]).unwrap();
    }
    let read = |first, last, bytes| wal.read(GroupId(0), Index(first), Index(last), bytes).unwrap();
    // Each entry counts as 136 + 64 bytes.
    assert_eq!(read(1, 100, 1000).len(), 5);
    assert_eq!(read(8, 100, 1100), commands(8..=12, 1, 136));
    assert_eq!(read(8, 9, 1 << 20), commands(8..=9, 1, 136));
    assert_eq!(read(50, 100, 0), commands(50..=50, 1, 136), "at least one");
    assert_eq!(read(1, 100, usize::MAX).len(), 100);
}

/// A payload larger than what is read at once, and a record larger than a segment.
#[test]
fn large_entries() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    let large: Vec<Entry> = commands(1..=4, 1, 100_000);
    assert!(options(1).segment_bytes < 4 * 100_000);
    wal.write(&[(GroupId(0), &persist(1, 1, large.clone()))]).unwrap();
    wal.write(&[(GroupId(0), &persist(2, 1, commands(5..=5, 1, 10)))]).unwrap();
    wal.sync().unwrap();
    assert_eq!(wal.read(GroupId(0), Index(3), Index(3), 1).unwrap(), large[2..3]);
    assert_eq!(wal.read(GroupId(0), Index(1), Index(9), 1 << 30).unwrap().len(), 5);
    let opened = open(&disk.after_power_cut(|_, _| Fate::Dropped), 2);
    assert_eq!(opened.wal.read(GroupId(0), Index(1), Index(4), 1 << 30).unwrap(), large);
    // Many small heads: a header larger than what is read at once.
    let noops = |index| Entry::new(Index(index), Term(1), Payload::Noop);
    let many: Vec<Entry> = (6..=5_000).map(noops).collect();
    opened.wal.write(&[(GroupId(0), &persist(3, 1, many.clone()))]).unwrap();
    let read = opened.wal.read(GroupId(0), Index(4_000), Index(4_001), 1 << 20).unwrap();
    assert_eq!(read, many[3_994..=3_995]);
}

/// An installed snapshot takes the place of the log, at once and for ever.
#[test]
fn an_installed_snapshot_replaces_the_log() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GroupId(0), &persist(1, 2, commands(1..=30, 2, 50)))]).unwrap();
    let hard_state = HardState { term: Term(5), ..HardState::default() };
    let install = Install { seq: Seq(2), snapshot: snapshot(20, 5), hard_state };
    wal.install(GroupId(0), &install).unwrap();
    assert!(wal.read(GroupId(0), Index(21), Index(30), 1 << 20).is_err(), "dropped with the rest");
    let cut = disk.after_power_cut(|_, _| Fate::Dropped);
    let opened = open(&cut, 2);
    let found = &opened.groups[&GroupId(0)];
    assert_eq!((found.last_index, found.hard_state.term), (Index(20), Term(5)));
    assert_eq!(found.snapshot, snapshot(20, 5));
    opened.wal.write(&[(GroupId(0), &persist(3, 5, commands(21..=22, 5, 50)))]).unwrap();
    opened.wal.sync().unwrap();
    let found = open(&cut.after_power_cut(|_, _| Fate::Dropped), 3).groups;
    assert_eq!(found[&GroupId(0)].last_index, Index(22));
    assert_eq!(found[&GroupId(0)].terms, [(Index(21), Term(5))]);
}

/// Compaction after an installed snapshot: what the snapshot has made void stays so, even if all
/// that was written since then is lost.
#[test]
fn a_compaction_keeps_what_a_snapshot_said() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GroupId(0), &persist(1, 2, commands(1..=30, 2, 50)))]).unwrap();
    let hard_state = HardState { term: Term(5), ..HardState::default() };
    let install = Install { seq: Seq(2), snapshot: snapshot(20, 5), hard_state };
    wal.install(GroupId(0), &install).unwrap();
    wal.write(&[(GroupId(0), &persist(3, 5, commands(21..=22, 5, 50)))]).unwrap();
    wal.compact(GroupId(0), &snapshot(22, 5)).unwrap();
    let opened = open(&disk.after_power_cut(|_, _| Fate::Dropped), 2);
    let found = &opened.groups[&GroupId(0)];
    assert_eq!((found.last_index, found.hard_state.term), (Index(22), Term(5)));
}

/// The first configuration of a group is where its log starts.
#[test]
fn the_first_configuration_is_kept() {
    let disk = MemoryDisk::new();
    let first = snapshot(0, 0);
    open(&disk, 1).wal.compact(GroupId(4), &first).unwrap();
    let opened = open(&disk, 2);
    let recovered = opened.groups[&GroupId(4)].recovered(Index(0), 77);
    assert_eq!(recovered.snapshot, first);
    assert_eq!(recovered.boot_nonce, 77);
}

/// What the index takes in memory.
#[test]
fn the_index_takes_twenty_bytes_a_record() {
    let wal = open(&MemoryDisk::new(), 1).wal;
    for next in 0..4_000 {
        let batch = commands(next * 16 + 1..=next * 16 + 16, 1, 10);
        wal.write(&[(GroupId(0), &persist(next, 1, batch))]).unwrap();
    }
    let bytes = wal.usage().index_bytes;
    assert!((4_000 * 20..4_000 * 45).contains(&bytes), "{bytes} for 64,000 entries");
}
