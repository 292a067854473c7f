//! Disks that fail, fill up and forget.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::io;
use std::sync::Arc;

use quorate_raft::{GroupId, Index, Seq};
use quorate_wal::{
    ChoreError, Disk as _, Fate, MemoryDisk, OpenError, Progress, ReadError, Stopped, Wal,
    WriteError,
};
use support::{commands, open, options, persist, snapshot};

const GROUP: GroupId = GroupId(1);

/// After a failed sync nothing succeeds any more, and everybody is told.
#[test]
fn a_failed_sync_is_final() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GROUP, &persist(1, 1, commands(1..=3, 1, 50)))]).unwrap();
    wal.sync().unwrap();
    let position = wal.write(&[(GROUP, &persist(2, 1, commands(4..=5, 1, 50)))]).unwrap();
    disk.fail_syncs(true);
    let Err(Stopped::Poisoned(why)) = wal.sync() else { panic!("the sync must fail") };
    assert_eq!((why.operation, why.file.as_str()), ("sync", "0000000000000001.log"));

    // The disk works again, and would say that all is well: the pages are marked clean.
    disk.fail_syncs(false);
    let stopped = Stopped::Poisoned(why);
    assert_eq!(wal.sync().unwrap_err(), stopped);
    assert_eq!(wal.sync_to(position).unwrap_err(), stopped);
    assert!(matches!(wal.begin_sync(), Err(error) if error == stopped));
    let write = wal.write(&[(GROUP, &persist(3, 1, commands(6..=6, 1, 50)))]);
    assert_eq!(write.unwrap_err(), WriteError::Stopped(stopped.clone()));
    assert_eq!(wal.mark().unwrap_err(), WriteError::Stopped(stopped.clone()));
    assert_eq!(wal.prepare(1 << 20).unwrap_err(), ChoreError::Stopped(stopped.clone()));
    assert_eq!(
        wal.compact(GROUP, &snapshot(1, 1)).unwrap_err(),
        ChoreError::Stopped(stopped.clone())
    );
    let read = wal.read(GROUP, Index(1), Index(1), 100);
    assert_eq!(read.unwrap_err(), ReadError::Stopped(stopped.clone()));
    assert_eq!(wal.close().unwrap_err(), WriteError::Stopped(stopped));
    drop(wal);

    // The next start sees the records in the page cache. It trusts only what it has written anew.
    let opened = open(&disk, 2);
    assert_eq!(opened.groups[&GROUP].last_index, Index(5));
    let cut = disk.after_power_cut(|_, _| Fate::Dropped);
    assert_eq!(open(&cut, 3).groups[&GROUP].last_index, Index(5));
}

/// The same for everybody who waits for the sync of another one.
#[test]
fn waiters_are_told_of_a_failed_sync() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    let position = wal.write(&[(GROUP, &persist(1, 1, commands(1..=3, 1, 50)))]).unwrap();
    let job = wal.begin_sync().unwrap().unwrap();
    let waiting = std::thread::spawn({
        let wal = wal.clone();
        move || wal.sync_to(position)
    });
    disk.fail_syncs(true);
    assert!(matches!(job.run(), Err(Stopped::Poisoned(_))));
    assert!(matches!(waiting.join().unwrap(), Err(Stopped::Poisoned(_))));
}

#[test]
fn a_failed_write_is_final() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    disk.fail_writes(Some(io::ErrorKind::Other));
    let error = wal.write(&[(GROUP, &persist(1, 1, commands(1..=3, 1, 50)))]).unwrap_err();
    let WriteError::Stopped(Stopped::Poisoned(why)) = &error else { panic!("{error}") };
    assert_eq!((why.operation, why.offset), ("write", Some(8192)));
    assert!(format!("{error}").contains("write of `0000000000000001.log` at offset 8192"));
    disk.fail_writes(None);
    assert_eq!(wal.write(&[(GROUP, &persist(1, 1, vec![]))]).unwrap_err(), error);
}

/// A full disk fails a write and nothing else, and the write works when there is room again.
#[test]
fn no_space() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GROUP, &persist(1, 1, commands(1..=3, 1, 50)))]).unwrap();
    wal.sync().unwrap();
    let used: u64 = 24 << 10;
    disk.set_space(Some(used));

    let mut next = 4;
    let error = loop {
        let record = persist(next, 1, commands(next..=next, 1, 1000));
        match wal.write(&[(GROUP, &record)]) {
            Ok(_) => next += 1,
            Err(error) => break error,
        }
        assert!(next < 100, "the disk never gets full");
    };
    assert!(matches!(error, WriteError::NoSpace(_)), "{error}");
    // What was written before can be synced, and everything be read.
    assert_eq!(wal.sync().unwrap(), [(GROUP, Seq(next - 1))]);
    assert_eq!(wal.read(GROUP, Index(1), Index(next), 1 << 20).unwrap().len() as u64, next - 1);
    let again = wal.write(&[(GROUP, &persist(next, 1, commands(next..=next, 1, 1000)))]);
    assert!(matches!(again, Err(WriteError::NoSpace(_))));
    assert!(matches!(wal.prepare(1 << 20), Err(ChoreError::Io(why)) if why.is_no_space()));

    disk.set_space(None);
    wal.write(&[(GROUP, &persist(next, 1, commands(next..=next, 1, 1000)))]).unwrap();
    wal.sync().unwrap();
    while wal.prepare(1 << 20).unwrap() == Progress::More {}
    let cut = disk.after_power_cut(|_, _| Fate::Dropped);
    assert_eq!(open(&cut, 2).groups[&GROUP].last_index, Index(next));
}

/// A write that fails for want of space after part of it was written leaves nothing that comes
/// back: the next records take its place.
#[test]
fn no_space_in_the_middle_of_a_segment() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GROUP, &persist(1, 1, commands(1..=1, 1, 50)))]).unwrap();
    // A copy-on-write file system has no room although the file is filled.
    disk.fail_writes(Some(io::ErrorKind::StorageFull));
    let failed = wal.write(&[(GROUP, &persist(2, 1, commands(2..=4, 1, 50)))]);
    assert!(matches!(failed, Err(WriteError::NoSpace(_))));
    disk.fail_writes(None);
    wal.write(&[(GROUP, &persist(2, 2, commands(2..=2, 2, 50)))]).unwrap();
    wal.sync().unwrap();
    let cut = disk.after_power_cut(|_, _| Fate::Dropped);
    let opened = open(&cut, 2);
    assert_eq!(opened.groups[&GROUP].last_index, Index(2));
    assert_eq!(opened.groups[&GROUP].hard_state.term.0, 2);
}

#[test]
fn a_full_disk_does_not_move_the_start_of_a_log() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GROUP, &persist(1, 1, commands(1..=9, 1, 50)))]).unwrap();
    wal.sync().unwrap();
    disk.set_space(Some(0));
    let error = wal.compact(GROUP, &snapshot(5, 1)).unwrap_err();
    assert!(matches!(&error, ChoreError::Io(why) if why.is_no_space()), "{error}");
    assert_eq!(wal.read(GROUP, Index(1), Index(9), 1 << 20).unwrap().len(), 9);
    disk.set_space(None);
    wal.compact(GROUP, &snapshot(5, 1)).unwrap();
    let read = wal.read(GROUP, Index(5), Index(9), 1 << 20);
    assert_eq!(read.unwrap_err(), ReadError::Compacted { start: Index(5) });
}

#[test]
fn a_read_that_fails_says_so_and_poisons_nothing() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GROUP, &persist(1, 1, commands(1..=9, 1, 50)))]).unwrap();
    disk.fail_reads(true);
    assert!(matches!(wal.read(GROUP, Index(2), Index(9), 1 << 20), Err(ReadError::Io(_))));
    disk.fail_reads(false);
    assert_eq!(wal.read(GROUP, Index(2), Index(9), 1 << 20).unwrap().len(), 8);
    wal.sync().unwrap();
}

#[test]
fn a_start_on_a_failing_disk_is_an_error_and_can_be_tried_again() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GROUP, &persist(1, 1, commands(1..=9, 1, 50)))]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let start = || Wal::open(Arc::new(disk.clone()), &options(2)).map(|opened| opened.groups);
    disk.fail_reads(true);
    assert!(matches!(start(), Err(OpenError::Io(_))));
    disk.fail_reads(false);
    disk.fail_writes(Some(io::ErrorKind::StorageFull));
    assert!(matches!(start(), Err(OpenError::Io(why)) if why.is_no_space()));
    disk.fail_writes(None);
    assert_eq!(start().unwrap()[&GROUP].last_index, Index(9));
}

/// What the caller gets wrong is refused before anything is written.
#[test]
fn entries_must_follow() {
    let wal = open(&MemoryDisk::new(), 1).wal;
    wal.write(&[(GROUP, &persist(1, 1, commands(1..=3, 1, 50)))]).unwrap();
    let gap = wal.write(&[(GROUP, &persist(2, 1, commands(5..=5, 1, 50)))]);
    let expected = WriteError::Gap { group: GROUP, last: Index(3), found: Index(5) };
    assert_eq!(gap.unwrap_err(), expected);
    let mut holed = commands(4..=6, 1, 50);
    holed.remove(1);
    assert!(wal.write(&[(GROUP, &persist(2, 1, holed))]).is_err());
    let mut changed = commands(4..=6, 1, 50);
    changed[1].checksum ^= 1;
    let corrupt = wal.write(&[(GROUP, &persist(2, 1, changed))]);
    assert_eq!(corrupt.unwrap_err(), WriteError::Corrupt { group: GROUP, index: Index(5) });
    // Within one call each record follows on the one before it.
    let (a, b) = (persist(2, 1, commands(4..=5, 1, 50)), persist(3, 1, commands(6..=7, 1, 50)));
    wal.write(&[(GROUP, &a), (GROUP, &b)]).unwrap();
    wal.sync().unwrap();
    wal.compact(GROUP, &snapshot(6, 1)).unwrap();
    assert!(wal.write(&[(GROUP, &persist(4, 2, commands(6..=6, 2, 50)))]).is_err());
    assert_eq!(
        wal.compact(GROUP, &snapshot(9, 1)).unwrap_err(),
        ChoreError::Beyond { last: Index(7) }
    );
}

/// A segment can be entered and then turn out to have no room for the record that wanted it. The
/// chain leads through it all the same, so its header must get to the disk with what follows.
#[test]
fn a_segment_left_without_a_record_is_durable() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GROUP, &persist(1, 1, commands(1..=1, 1, 6_000)))]).unwrap();
    wal.sync().unwrap();
    let segments = |disk: &MemoryDisk| {
        disk.list().unwrap().iter().filter(|name| name.ends_with(".log")).count()
    };
    // The next segment is filled as far as its header, and no further.
    while segments(&disk) < 2 {
        wal.prepare(1).unwrap();
    }
    wal.prepare(4096).unwrap();
    wal.prepare(4096).unwrap();
    let names = disk.list().unwrap();
    let used: usize = names.iter().map(|name| disk.contents(name).unwrap().len()).sum();
    disk.set_space(Some(used as u64));
    let failed = wal.write(&[(GROUP, &persist(2, 1, commands(2..=2, 1, 6_000)))]);
    assert!(matches!(failed, Err(WriteError::NoSpace(_))), "{failed:?}");
    disk.set_space(None);
    // This one fits into none of them.
    wal.write(&[(GROUP, &persist(2, 1, commands(2..=2, 1, 40_000)))]).unwrap();
    wal.sync().unwrap();
    assert_eq!(segments(&disk), 3);
    let opened = open(&disk.after_power_cut(|_, _| Fate::Dropped), 2);
    assert_eq!(opened.groups[&GROUP].last_index, Index(2));
}

/// A disk without syncs is asked for none, and has everything as long as the power stays on.
#[test]
fn what_nobody_waits_for_is_there_after_a_kill() {
    let disk = MemoryDisk::new();
    let open = |disk: &MemoryDisk| {
        let unsynced = quorate_wal::Unsynced::new(Arc::new(disk.clone()));
        Wal::open(Arc::new(unsynced), &options(1)).unwrap()
    };
    let wal = open(&disk).wal;
    for index in 1..=20 {
        wal.write(&[(GROUP, &persist(index, 1, commands(index..=index, 1, 100)))]).unwrap();
        wal.sync().unwrap();
    }
    wal.close().unwrap();
    drop(wal);
    assert_eq!(disk.counts().1, 0, "nothing was synced");
    let opened = open(&disk.after_kill());
    assert_eq!(opened.groups[&GROUP].last_index, Index(20));
    let lost = disk.after_power_cut(|_, _| Fate::Dropped);
    assert!(open(&lost).groups.is_empty(), "that was the price");
}
