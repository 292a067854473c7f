//! The rows of the decision table: what a start makes of what it finds.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::sync::Arc;

use quorate_raft::{ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Term};
use quorate_wal::{
    DamageKind, Fate, MemoryDisk, Note, OpenError, Opened, Options, ReadError, Stopped, Wal,
    WriteError,
};
use support::{commands, open, options, persist, snapshot};

const GROUP: GroupId = GroupId(1);
const FIRST: &str = "0000000000000001.log";
const SECOND: &str = "0000000000000002.log";
/// Where records begin in a segment.
const RECORDS_AT: usize = 8192;

/// Opens without insisting that all is well.
fn open_any(disk: &MemoryDisk) -> Result<Opened, OpenError> {
    Wal::open(Arc::new(disk.clone()), &options(99))
}

/// Every file of a disk.
fn files(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    use quorate_wal::Disk as _;
    let names = disk.list().unwrap();
    names.into_iter().map(|name| (name.clone(), disk.contents(&name).unwrap())).collect()
}

fn change(disk: &MemoryDisk, name: &str, act: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.contents(name).unwrap();
    act(&mut bytes);
    disk.put(name, bytes);
}

/// A log of five records in one segment, each synced before the next, and then closed. The
/// offsets of the records are given too.
fn closed() -> (MemoryDisk, Vec<usize>) {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    let mut offsets = Vec::new();
    let mut at = RECORDS_AT;
    for next in 0..5 {
        let batch = commands(next * 2 + 1..=next * 2 + 2, 3, 40);
        wal.write(&[(GROUP, &persist(next, 3, batch))]).unwrap();
        wal.sync().unwrap();
        offsets.push(at);
        let bytes = disk.contents(FIRST).unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        at += (word(at + 12) + word(at + 16)).next_multiple_of(8);
    }
    offsets.push(at);
    wal.close().unwrap();
    (disk, offsets)
}

/// The same, but the last two records were written and not synced when the process was killed.
fn killed() -> (MemoryDisk, Vec<usize>) {
    let (_, offsets) = closed();
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    for next in 0..5 {
        let batch = commands(next * 2 + 1..=next * 2 + 2, 3, 40);
        wal.write(&[(GROUP, &persist(next, 3, batch))]).unwrap();
        if next < 3 {
            wal.sync().unwrap();
        }
    }
    (disk.after_kill(), offsets)
}

/// What damage there is, after checking that nothing was changed and nothing can be written.
fn damage(disk: &MemoryDisk) -> Opened {
    let before = files(disk);
    let opened = open_any(disk).unwrap();
    assert!(!opened.damage.is_empty());
    assert_eq!(files(disk), before, "files must stay as they are");
    let write = opened.wal.write(&[(GROUP, &persist(9, 9, vec![]))]);
    assert_eq!(write.unwrap_err(), WriteError::Stopped(Stopped::Damaged));
    opened
}

#[test]
fn clean_end() {
    let (disk, _) = closed();
    let opened = open(&disk, 2);
    assert_eq!(opened.notes, []);
    assert_eq!(opened.groups[&GROUP].last_index, Index(10));
}

#[test]
fn damaged_payload_below_the_mark() {
    let (disk, offsets) = closed();
    // The last byte of the second payload of the third record.
    change(&disk, FIRST, |bytes| bytes[offsets[3] - 8] ^= 1);
    let opened = damage(&disk);
    let [found] = opened.damage.as_slice() else { panic!("{:?}", opened.damage) };
    assert_eq!((found.kind, found.file.as_str()), (DamageKind::Payload, FIRST));
    assert!((offsets[2]..offsets[3]).contains(&(found.offset as usize)));
    assert_eq!(found.entries, [LogId::new(Index(6), Term(3))]);
    assert_eq!((found.group, found.records.clone()), (Some(GROUP), Some(3..=3)));
    let group = &opened.groups[&GROUP];
    assert_eq!(group.damaged, [Index(6)..=Index(6)]);
    assert_eq!((group.last_index, group.hard_state.term), (Index(10), Term(3)));
    // What is whole can be read, and what is not is named.
    let read = |from: u64| opened.wal.read(GROUP, Index(from), Index(from), 1000);
    assert_eq!(read(5).unwrap(), commands(5..=5, 3, 40));
    assert_eq!(read(7).unwrap(), commands(7..=7, 3, 40));
    let Err(ReadError::Damaged { file, index, .. }) = read(6) else { panic!("it is damaged") };
    assert_eq!((file.as_str(), index), (FIRST, Index(6)));
    let text = format!("{found}");
    assert!(text.contains(FIRST) && text.contains("6@3"), "{text}");
}

#[test]
fn damaged_header_below_the_mark() {
    let (disk, offsets) = closed();
    change(&disk, FIRST, |bytes| bytes[offsets[2] + 60] ^= 0x40);
    let opened = damage(&disk);
    let [found] = opened.damage.as_slice() else { panic!("{:?}", opened.damage) };
    assert_eq!((found.kind, found.offset as usize), (DamageKind::Records, offsets[2]));
    assert_eq!(found.len as usize, offsets[3] - offsets[2]);
    assert_eq!(found.records, Some(3..=3));
    assert_eq!(opened.groups[&GROUP].damaged, [Index(5)..=Index(6)]);
}

#[test]
fn zero_pages_in_the_middle() {
    let (disk, offsets) = closed();
    change(&disk, FIRST, |bytes| bytes[offsets[1]..offsets[3] - 8].fill(0));
    let opened = damage(&disk);
    assert_eq!(opened.damage[0].records, Some(2..=3));
    assert_eq!(opened.groups[&GROUP].damaged, [Index(3)..=Index(6)]);
}

/// The mark of the closing record says that there must be a fifth one.
#[test]
fn lost_end_below_the_mark() {
    let (disk, offsets) = closed();
    let (from, to) = (offsets[4], offsets[5]);
    change(&disk, FIRST, |bytes| bytes[from..to].fill(0));
    let opened = damage(&disk);
    assert_eq!(opened.damage[0].records, Some(5..=5));
}

/// What a start has moved to a segment of its own is marked by the header of that segment.
#[test]
fn moved_records_are_marked() {
    let (disk, _) = killed();
    drop(open(&disk, 2));
    assert_eq!(open(&disk.after_kill(), 3).groups[&GROUP].last_index, Index(10));
    change(&disk, SECOND, |bytes| bytes[RECORDS_AT..].fill(0));
    let opened = damage(&disk);
    assert_eq!(opened.damage[0].records, Some(4..=4));
    assert_eq!(opened.damage[0].kind, DamageKind::Records);
}

/// The header of the segment that was being written is lost: it is zeros again, and so is what was
/// first behind it, or it is that of an earlier use. The file does not pass for one that was only
/// prepared.
#[test]
fn the_header_of_a_used_segment_lost() {
    let (disk, _) = closed();
    let newest = disk.contents("newest").unwrap();
    let older = disk.contents(FIRST).unwrap()[..RECORDS_AT].to_vec();
    let wal = open(&disk, 2).wal;
    // One record, and a mark that says that it is durable.
    wal.write(&[(GROUP, &persist(11, 3, commands(11..=11, 3, 40)))]).unwrap();
    wal.close().unwrap();
    drop(wal);
    type Damage = fn(&mut Vec<u8>, &[u8]);
    let zeros: Damage = |bytes, _| bytes[..RECORDS_AT].fill(0);
    let more_zeros: Damage = |bytes, _| bytes[..RECORDS_AT + 300].fill(0);
    let back: Damage = |bytes, older| bytes[..RECORDS_AT].copy_from_slice(older);
    for (act, with_newest) in
        [(zeros, true), (zeros, false), (more_zeros, true), (back, true), (back, false)]
    {
        let disk = disk.after_kill();
        change(&disk, SECOND, |bytes| act(bytes, &older));
        if !with_newest {
            // The file is rewritten late, and may name the segment before.
            disk.put("newest", newest.clone());
        }
        let opened = damage(&disk);
        let found = opened.damage.iter().find(|found| found.kind == DamageKind::SegmentHeader);
        assert_eq!(found.unwrap().file, SECOND);
    }
}

/// Without the closing record, nothing says so any more: the stated limit.
#[test]
fn lost_end_above_the_mark() {
    let (disk, offsets) = closed();
    change(&disk, FIRST, |bytes| bytes[offsets[4]..].fill(0));
    let opened = open(&disk, 2);
    assert_eq!(opened.groups[&GROUP].last_index, Index(8));
}

#[test]
fn torn_tail_is_cut() {
    let (disk, offsets) = killed();
    change(&disk, FIRST, |bytes| bytes[offsets[4] + 70..].fill(0));
    let opened = open(&disk, 2);
    assert_eq!(opened.groups[&GROUP].last_index, Index(8));
    let offset = offsets[4] as u64;
    let file = FIRST.to_owned();
    assert_eq!(opened.notes[0], Note::TornTail { file, offset, record: 5, begun: true });
    assert!(matches!(opened.notes[1], Note::Rewritten { records: 1, .. }));
}

/// Unsynced writes reach the disk in any order: a hole above the mark ends the log, whatever is
/// behind it.
#[test]
fn hole_above_the_mark_ends_the_log() {
    let (disk, offsets) = killed();
    change(&disk, FIRST, |bytes| bytes[offsets[3]..offsets[4]].fill(0));
    assert_eq!(open(&disk, 2).groups[&GROUP].last_index, Index(6));
    // It stays so, although the record behind the hole is still there.
    assert_eq!(open(&disk.after_kill(), 3).groups[&GROUP].last_index, Index(6));
}

/// The third record is known to be durable by the marks of those behind it, although they are
/// themselves above every mark.
#[test]
fn a_mark_above_the_mark_counts() {
    let (disk, offsets) = killed();
    change(&disk, FIRST, |bytes| bytes[offsets[2] + 60] ^= 1);
    let opened = damage(&disk);
    assert_eq!(opened.damage[0].records, Some(3..=3));
}

#[test]
fn damaged_payload_above_the_mark_is_torn() {
    let (disk, offsets) = killed();
    change(&disk, FIRST, |bytes| bytes[offsets[4] - 8] ^= 1);
    assert_eq!(open(&disk, 2).groups[&GROUP].last_index, Index(6));
}

/// A whole record of this segment in the wrong place is none: the offset is in its checksum.
#[test]
fn misdirected_write() {
    let (disk, offsets) = closed();
    change(&disk, FIRST, |bytes| {
        let third = bytes[offsets[2]..offsets[3]].to_vec();
        bytes[offsets[1]..offsets[1] + third.len()].copy_from_slice(&third);
    });
    assert_eq!(damage(&disk).damage[0].records, Some(2..=2));
}

/// A record from an earlier time at its own place: whole, but the next one does not build on it.
#[test]
fn stale_record_breaks_the_chain() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GROUP, &persist(1, 1, commands(1..=1, 1, 40)))]).unwrap();
    wal.sync().unwrap();
    let before = disk.contents(FIRST).unwrap();
    drop(wal);
    // The same start with other records: as if the disk had not taken the second writing.
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    wal.write(&[(GROUP, &persist(1, 2, commands(1..=1, 2, 40)))]).unwrap();
    wal.write(&[(GROUP, &persist(2, 2, commands(2..=2, 2, 40)))]).unwrap();
    wal.sync().unwrap();
    wal.close().unwrap();
    drop(wal);
    change(&disk, FIRST, |bytes| {
        let record = RECORDS_AT..RECORDS_AT + 176;
        bytes[record.clone()].copy_from_slice(&before[record]);
    });
    let opened = damage(&disk);
    assert_eq!(opened.damage[0].kind, DamageKind::Chain);
}

#[test]
fn missing_segment() {
    use quorate_wal::Disk as _;
    let disk = MemoryDisk::new();
    for life in 0..4 {
        let wal = open(&disk, life).wal;
        wal.write(&[(GROUP, &persist(life, 1, commands(life + 1..=life + 1, 1, 40)))]).unwrap();
        wal.close().unwrap();
    }
    for number in 1..=4 {
        let disk = disk.after_kill();
        let name = format!("{number:016x}.log");
        disk.remove(&name).unwrap();
        let opened = damage(&disk);
        let missing = |found: &quorate_wal::Damage| {
            found.kind == DamageKind::SegmentMissing && found.file == name
        };
        assert!(opened.damage.iter().any(missing), "{number}: {:?}", opened.damage);
        if number < 4 {
            assert_eq!(opened.groups[&GROUP].damaged, [Index(number)..=Index(number)]);
        }
    }
    assert_eq!(open(&disk, 9).groups[&GROUP].last_index, Index(4));
}

/// One copy of a segment's header is damaged: nothing is lost, and it is told.
#[test]
fn one_header_copy_damaged() {
    for page in 0..2 {
        let (disk, _) = closed();
        change(&disk, FIRST, |bytes| bytes[page * 4096 + 20] ^= 1);
        let opened = damage(&disk);
        let [found] = opened.damage.as_slice() else { panic!("{:?}", opened.damage) };
        assert_eq!((found.kind, found.offset), (DamageKind::HeaderCopy, page as u64 * 4096));
        assert_eq!(opened.groups[&GROUP].last_index, Index(10));
        assert_eq!(opened.groups[&GROUP].damaged, []);
    }
}

/// Both copies: the records are found all the same, and so it is known that they count.
#[test]
fn both_header_copies_damaged() {
    for zero in [false, true] {
        let (disk, _) = closed();
        change(&disk, FIRST, |bytes| {
            if zero {
                bytes[..RECORDS_AT].fill(0);
            } else {
                bytes[20] ^= 1;
                bytes[4096 + 20] ^= 1;
            }
        });
        let opened = damage(&disk);
        assert_eq!(opened.damage[0].kind, DamageKind::SegmentHeader);
    }
    // In the middle of the log, what is in it is still told.
    let (disk, _) = closed();
    open(&disk, 2).wal.close().unwrap();
    change(&disk, FIRST, |bytes| bytes[..RECORDS_AT].fill(0));
    let opened = damage(&disk);
    assert_eq!(opened.damage[0].kind, DamageKind::SegmentHeader);
    assert_eq!(opened.groups[&GROUP].last_index, Index(10));
}

#[test]
fn small_files_damaged() {
    let (disk, _) = closed();
    open(&disk, 2).wal.compact(GROUP, &snapshot(4, 3)).unwrap();
    let cases =
        [("0000000000000001.group", DamageKind::GroupFile), ("newest", DamageKind::NewestFile)];
    for (name, kind) in cases {
        let disk = disk.after_kill();
        change(&disk, name, |bytes| bytes[25] ^= 1);
        let opened = damage(&disk);
        assert!(opened.damage.iter().any(|found| found.kind == kind && found.file == name));
    }
    let identity = disk.after_kill();
    change(&identity, "identity", |bytes| bytes[25] ^= 1);
    assert!(
        matches!(open_any(&identity), Err(OpenError::Identity { file, .. }) if file == "identity")
    );
}

#[test]
fn small_files_missing() {
    use quorate_wal::Disk as _;
    let (disk, _) = closed();
    let wal = open(&disk, 2).wal;
    wal.compact(GROUP, &snapshot(4, 3)).unwrap();
    wal.write(&[(GROUP, &persist(20, 3, commands(11..=11, 3, 40)))]).unwrap();
    wal.close().unwrap();
    drop(wal);
    let without = |name: &str| {
        let disk = disk.after_kill();
        disk.remove(name).unwrap();
        disk
    };
    // A record knows where the log of its group started.
    let group = damage(&without("0000000000000001.group"));
    assert!(group.damage.iter().any(|found| found.kind == DamageKind::GroupFileMissing));
    let newest = damage(&without("newest"));
    assert!(newest.damage.iter().any(|found| found.kind == DamageKind::NewestFile));
    let identity = open_any(&without("identity"));
    assert!(matches!(identity, Err(OpenError::Identity { why, .. }) if why.contains("missing")));
}

#[test]
fn another_node_or_cluster() {
    let (disk, _) = closed();
    let open = |cluster, node| {
        let options = Options::new(ClusterId(cluster), NodeId(node), 1);
        Wal::open(Arc::new(disk.clone()), &options).map(|_| ())
    };
    let (found, expected) = (NodeId(1), NodeId(2));
    assert_eq!(open(1, 2).unwrap_err(), OpenError::OtherNode { found, expected });
    let (found, expected) = (ClusterId(1), ClusterId(7));
    assert_eq!(open(7, 1).unwrap_err(), OpenError::OtherCluster { found, expected });
}

#[test]
fn a_segment_of_another_directory() {
    let (disk, _) = closed();
    let other = MemoryDisk::new();
    let wal = open(&other, 777).wal;
    let incarnation = wal.identity().incarnation;
    disk.put(SECOND, other.contents(FIRST).unwrap());
    // Under a number that is not its own it is no segment of this log at all.
    assert!(open_any(&disk).is_ok());
    let (disk, _) = closed();
    disk.put(FIRST, other.contents(FIRST).unwrap());
    let error = open_any(&disk).map(|_| ()).unwrap_err();
    assert_eq!(error, OpenError::Foreign { file: FIRST.to_owned(), found: incarnation });
    assert_ne!(incarnation, Incarnation(0));
}

/// A format that this software does not know is said to be newer, not damaged.
/// Makes the checksum of a small file fit.
fn fix_small(bytes: &mut [u8]) {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
}

/// Makes the checksum of a segment's header fit, in the first page, and copies it to the second.
fn fix_segment(bytes: &mut [u8]) {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..124]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    bytes.copy_within(..4096, 4096);
}

/// Makes the checksum of the record at `at` fit.
fn fix_record(bytes: &mut [u8], at: usize) {
    let end = at + u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
    let offset = crc32c::crc32c(&(at as u64).to_le_bytes());
    let sum = crc32c::crc32c_append(offset, &bytes[at + 8..end]);
    bytes[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn newer_formats() {
    let (disk, _) = closed();
    let newer = |name: &str, fix: fn(&mut [u8])| {
        let disk = disk.after_kill();
        change(&disk, name, |bytes| {
            bytes[8] = 2;
            fix(bytes);
        });
        let error = open_any(&disk).map(|_| ()).unwrap_err();
        let file = name.to_owned();
        assert_eq!(error, OpenError::Newer { file, found: 2, supported: 1 });
    };
    newer("identity", fix_small);
    newer("newest", fix_small);
    newer(FIRST, fix_segment);
}

/// Numbers that no log comes to, under checksums that fit: errors or damage, and no panic, no
/// endless loop and no memory without bounds.
#[test]
fn numbers_that_nobody_writes() {
    let (disk, offsets) = closed();
    open(&disk, 2).wal.compact(GROUP, &snapshot(4, 3)).unwrap();
    let put = |bytes: &mut [u8], at: usize, number: u64| {
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    };
    // A segment's own number, its first record, its mark, the oldest segment, the one before.
    for (at, number) in
        [(16, 0), (64, 0), (64, u64::MAX), (72, u64::MAX), (80, 9), (88, 2), (88, 7)]
    {
        let disk = disk.after_kill();
        change(&disk, SECOND, |bytes| {
            put(bytes, at, number);
            fix_segment(bytes);
        });
        damage(&disk);
    }
    // A record's number, its mark, and where the log of its group starts.
    for (at, number) in [(32, 0), (32, u64::MAX), (40, 2), (40, u64::MAX), (64, u64::MAX)] {
        let disk = disk.after_kill();
        change(&disk, FIRST, |bytes| {
            put(bytes, offsets[1] + at, number);
            fix_record(bytes, offsets[1]);
        });
        damage(&disk);
    }
    // The installed snapshot of a group, and the segments there were.
    for (name, at) in [
        ("0000000000000001.group", 36),
        ("0000000000000001.group", 72),
        ("newest", 28),
        ("newest", 36),
    ] {
        let disk = disk.after_kill();
        change(&disk, name, |bytes| {
            put(bytes, at, u64::MAX);
            fix_small(bytes);
        });
        assert_eq!(damage(&disk).damage[0].file, name);
    }
    for name in ["ffffffffffffffff.log", "0000000080000001.log", "0000000000000000.log"] {
        let disk = disk.after_kill();
        disk.put(name, vec![0; 9_000]);
        let error = open_any(&disk).map(|_| ()).unwrap_err();
        assert_eq!(error, OpenError::Name { file: name.to_owned() });
    }
    // Not names that we give.
    disk.put("+000000000000002.log", vec![1; 9_000]);
    disk.put("000000000000000A.log", vec![1; 9_000]);
    assert_eq!(open(&disk, 3).groups[&GROUP].last_index, Index(10));
}

#[test]
fn an_empty_directory_may_be_refused() {
    let disk: Arc<MemoryDisk> = Arc::new(MemoryDisk::new());
    let options = Options { create: false, ..options(1) };
    assert!(matches!(Wal::open(disk, &options), Err(OpenError::Empty { .. })));
}

/// A recycled segment is full of whole records with good checksums. None of them comes back, not
/// even where the new ones end exactly where an old one begins.
#[test]
fn recycled_records_stay_away() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    for next in 1..2_000 {
        // All records have the same size, so old and new ones stand at the same places.
        wal.write(&[(GROUP, &persist(next, 1, commands(next..=next, 1, 400)))]).unwrap();
        wal.sync().unwrap();
        if next % 40 == 0 {
            wal.compact(GROUP, &snapshot(next - 5, 1)).unwrap();
        }
        while wal.prepare(1 << 20).unwrap() == quorate_wal::Progress::More {}
        if next % 97 == 0 {
            let opened = open(&disk.after_power_cut(|_, _| Fate::Dropped), 2);
            assert_eq!(opened.groups[&GROUP].last_index, Index(next));
            assert_eq!(opened.groups[&GROUP].terms.len(), 1);
        }
    }
    assert!(wal.metrics().segments_recycled > 5);
}

/// What the tool shows of a log: everything, and nothing is changed.
#[test]
fn surveyed_and_dumped() {
    let (disk, offsets) = killed();
    change(&disk, FIRST, |bytes| bytes[offsets[4] + 70..].fill(0));
    let before = files(&disk);
    let survey = quorate_wal::inspect::survey(&disk).unwrap().unwrap();
    let mut text = survey.to_string();
    text.push('\n');
    quorate_wal::inspect::dump(&disk, &mut text).unwrap();
    assert_eq!(files(&disk), before);
    // Random numbers are the same for the same start.
    let expected = include_str!("golden/survey.txt");
    if std::env::var_os("QUORATE_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/survey.txt"), &text)
            .unwrap();
    } else {
        assert_eq!(text, expected);
    }
}

/// The file of a group whose log was replaced by a snapshot says what was durable then, and so that
/// the end of the log is lost.
#[test]
fn an_installed_snapshot_is_a_mark() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    for next in 1..=3 {
        wal.write(&[(GROUP, &persist(next, 1, commands(next..=next, 1, 40)))]).unwrap();
    }
    let hard_state = quorate_raft::HardState::default();
    let seq = quorate_raft::Seq(1);
    let install = quorate_raft::Install { seq, snapshot: snapshot(9, 1), hard_state };
    wal.install(GroupId(2), &install).unwrap();
    drop(wal);
    change(&disk, FIRST, |bytes| bytes[RECORDS_AT + 176..].fill(0));
    let opened = damage(&disk);
    assert_eq!(opened.damage[0].kind, DamageKind::Records);
    assert_eq!(opened.damage[0].records, Some(2..=2));
}
