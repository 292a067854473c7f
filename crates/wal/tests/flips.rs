//! Every single bit of a small, closed log, flipped.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::sync::Arc;

use quorate_raft::{GroupId, Index};
use quorate_wal::{Disk as _, MemoryDisk, Note, Opened, Options, Wal};
use support::{commands, open, persist, snapshot};

fn small() -> Options {
    Options { first_segment_bytes: 16 << 10, segment_bytes: 16 << 10, ..support::options(1) }
}

/// A closed log with two groups, two segments and a snapshot.
fn closed() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let wal = Wal::open(Arc::new(disk.clone()), &small()).unwrap().wal;
    wal.write(&[(GroupId(1), &persist(1, 2, commands(1..=3, 2, 20)))]).unwrap();
    wal.write(&[(GroupId(2), &persist(1, 4, commands(1..=1, 4, 9)))]).unwrap();
    wal.close().unwrap();
    drop(wal);
    let wal = Wal::open(Arc::new(disk.clone()), &small()).unwrap().wal;
    wal.compact(GroupId(1), &snapshot(2, 2)).unwrap();
    wal.write(&[(GroupId(2), &persist(2, 5, commands(2..=3, 5, 33)))]).unwrap();
    wal.close().unwrap();
    disk
}

fn files(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().unwrap();
    names.into_iter().map(|name| (name.clone(), disk.contents(&name).unwrap())).collect()
}

/// Where the last record of a file ends, and where it begins.
fn last_record(bytes: &[u8]) -> (usize, usize) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut begin, mut end) = (8192, 8192);
    while bytes.get(end..end + 4) == Some(b"Qrec".as_slice()) {
        begin = end;
        end += (word(end + 12) + word(end + 16)).next_multiple_of(8);
    }
    (begin, end)
}

#[test]
fn every_bit_of_a_closed_log() {
    let disk = closed();
    let expected = open(&disk.after_kill(), 9).groups;
    let before = files(&disk);
    assert_eq!(before.iter().filter(|(name, _)| name.ends_with(".log")).count(), 2);
    let mut reported = 0;
    for (name, bytes) in &before {
        let is_segment = name.ends_with(".log");
        let (last, end) = if is_segment { last_record(bytes) } else { (0, bytes.len()) };
        let is_tail = name == "0000000000000002.log";
        // Behind the last record nothing means anything, and in the first segment not even that:
        // it is the closing mark, and the second start went on before it.
        let end = if is_segment && !is_tail { last } else { end };
        for bit in 0..end * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let disk = MemoryDisk::new();
            for (other, bytes) in &before {
                disk.put(other, if other == name { flipped.clone() } else { bytes.clone() });
            }
            let opened = Wal::open(Arc::new(disk.clone()), &small());
            let Ok(Opened { groups, damage, notes, wal }) = opened else {
                // The identity cannot be trusted any more, or seems to be another one.
                assert!(name == "identity", "{name} bit {bit}");
                continue;
            };
            if is_tail && bit / 8 >= last {
                // The closing mark itself is above every mark: it is cut, and that is told.
                assert_eq!((groups, damage), (expected.clone(), vec![]));
                assert!(matches!(&notes[0], Note::TornTail { file, .. } if file == name));
                continue;
            }
            let found = damage.iter().find(|found| found.file == *name);
            let found = found.unwrap_or_else(|| panic!("{name} bit {bit}: {damage:?}"));
            assert!(found.offset as usize <= bit / 8, "{name} bit {bit}: {found}");
            assert!(
                !is_segment || (bit / 8) < found.offset as usize + found.len as usize,
                "{name} bit {bit}: {found}"
            );
            drop(wal);
            for (other, bytes) in &before {
                let same = if other == name { &flipped } else { bytes };
                assert_eq!(disk.contents(other).as_ref(), Some(same), "files stay as they are");
            }
            reported += 1;
        }
    }
    assert!(reported > 100_000, "{reported}");
}

/// Bits of the records above the mark: the log is cut there, and what is before it is as it was.
#[test]
fn every_bit_above_the_mark() {
    let disk = MemoryDisk::new();
    let wal = Wal::open(Arc::new(disk.clone()), &small()).unwrap().wal;
    wal.write(&[(GroupId(1), &persist(1, 2, commands(1..=3, 2, 20)))]).unwrap();
    wal.sync().unwrap();
    wal.write(&[(GroupId(1), &persist(2, 2, commands(4..=6, 2, 20)))]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let name = "0000000000000001.log";
    let bytes = disk.contents(name).unwrap();
    let (last, end) = last_record(&bytes);
    for bit in last * 8..end * 8 {
        let disk = disk.after_kill();
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        disk.put(name, flipped);
        let opened = open(&disk, 5);
        assert_eq!(opened.groups[&GroupId(1)].last_index, Index(3), "bit {bit}");
        assert!(matches!(&opened.notes[0], Note::TornTail { file, offset, .. }
            if file == name && *offset == last as u64));
    }
}
