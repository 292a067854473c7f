//! The bytes of version 1, fixed for ever: `golden/v1.txt` holds the files of a small log as
//! released software has left them. A change of that file is a new version of the format, not a
//! test to be updated. (`QUORATE_GOLDEN=write` makes the file of a new version.)
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::fmt::Write as _;
use std::sync::Arc;

use quorate_raft::{Entry, GroupId, Index, Membership, NodeId, Payload, Term};
use quorate_wal::{Disk as _, MemoryDisk, Opened, Wal};
use support::{commands, open, options, persist, snapshot};

/// A log with everything in it that a log can have: two lives, two groups, a conflict, every kind
/// of payload and record, a snapshot.
fn written() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    let membership = Membership::of_voters([NodeId(1), NodeId(2)]);
    let entries = vec![
        Entry::new(Index(1), Term(1), Payload::Noop),
        Entry::new(Index(2), Term(1), Payload::Membership(Arc::new(membership))),
        Entry::new(Index(3), Term(1), Payload::Command("put k v".into())),
    ];
    wal.write(&[(GroupId(1), &persist(1, 1, entries))]).unwrap();
    wal.write(&[(GroupId(7), &persist(1, 4, commands(1..=2, 4, 9)))]).unwrap();
    wal.sync().unwrap();
    let mut conflict = persist(2, 2, commands(3..=4, 2, 5));
    conflict.hard_state.voted_for = Some(NodeId(2));
    conflict.hard_state.seen = vec![(NodeId(2), quorate_raft::Incarnation(0xef))];
    wal.write(&[(GroupId(1), &conflict)]).unwrap();
    wal.close().unwrap();
    drop(wal);
    let wal = open(&disk, 2).wal;
    wal.compact(GroupId(1), &snapshot(2, 1)).unwrap();
    wal.write(&[(GroupId(1), &persist(3, 2, commands(5..=5, 2, 5)))]).unwrap();
    wal.close().unwrap();
    disk
}

/// All files as text. Zeros at the end of a file are left out.
fn text(disk: &MemoryDisk) -> String {
    let mut text = String::new();
    for name in disk.list().unwrap() {
        let bytes = disk.contents(&name).unwrap();
        writeln!(text, "{name} {}", bytes.len()).unwrap();
        for (line, chunk) in bytes.chunks(32).enumerate() {
            if chunk.iter().all(|byte| *byte == 0) {
                continue;
            }
            write!(text, "{:6x} ", line * 32).unwrap();
            chunk.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
    }
    text
}

/// The disk that such a text describes.
fn disk(text: &str) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let mut file: Option<(String, Vec<u8>)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix(' ') {
            let (offset, digits) = rest.trim_start().split_once(' ').unwrap();
            let offset = usize::from_str_radix(offset, 16).unwrap();
            let bytes = &mut file.as_mut().unwrap().1;
            for at in 0..digits.len() / 2 {
                let digits = &digits[at * 2..at * 2 + 2];
                bytes[offset + at] = u8::from_str_radix(digits, 16).unwrap();
            }
        } else if let Some((offset, digits)) = line.split_once(' ') {
            // The name of the next file, and its length.
            if let Some((name, bytes)) = file.replace((offset.to_owned(), Vec::new())) {
                disk.put(&name, bytes);
            }
            file.as_mut().unwrap().1 = vec![0; digits.parse().unwrap()];
        }
    }
    let (name, bytes) = file.unwrap();
    disk.put(&name, bytes);
    disk
}

fn check(opened: &Opened) {
    assert_eq!(opened.damage, []);
    let first = &opened.groups[&GroupId(1)];
    assert_eq!(first.snapshot, snapshot(2, 1));
    assert_eq!((first.last_index, first.hard_state.term), (Index(5), Term(2)));
    assert_eq!(first.terms, [(Index(3), Term(2))]);
    let read = opened.wal.read(GroupId(1), Index(3), Index(5), 1000).unwrap();
    assert_eq!(read, commands(3..=5, 2, 5));
    let second = &opened.groups[&GroupId(7)];
    assert_eq!((second.last_index, second.hard_state.term), (Index(2), Term(4)));
}

#[test]
fn version_1() {
    let text = text(&written());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1.txt");
    if std::env::var_os("QUORATE_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert_eq!(text, golden, "the bytes of version 1 have changed");
    let opened = Wal::open(Arc::new(disk(&golden)), &options(3)).unwrap();
    check(&opened);
}
