//! A history that is so long that two threads take it in.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use bytes::Bytes;
use quorate_kv::testing::FaultyDisk;
use quorate_kv::{
    Command, DeleteRange, HashKv, LogPlace, Put, Range, RangeReply, Revision, Store, StoreConfig,
};

const BATCH: u64 = 1000;
const BATCHES: u64 = 150;
const KEYS: u64 = 20_000;

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key/{:05}", number.wrapping_mul(7919) % KEYS))
}

/// Mostly puts, some of them of keys that were deleted before.
fn command(number: u64) -> Command {
    if number % 13 == 5 {
        return Command::DeleteRange(DeleteRange {
            key: key(number * 3),
            ..DeleteRange::default()
        });
    }
    let value = Bytes::from(format!("value {number}"));
    Command::Put(Put { key: key(number), value, ..Put::default() })
}

fn all(store: &Store, revision: i64) -> RangeReply {
    let all = Bytes::from_static(b"\0");
    let range = Range {
        key: all.clone(),
        range_end: all,
        revision: Revision(revision),
        ..Range::default()
    };
    store.reader().range(&range).unwrap()
}

#[test]
fn it_is_the_same_after_a_start() {
    let disk = FaultyDisk::new();
    // Not all values find room.
    let config = StoreConfig { values_bytes_max: 300_000, ..StoreConfig::default() };
    let (mut store, _) = Store::open(disk.backend(), config).unwrap();
    for batch in 0..BATCHES {
        let commands: Vec<Command> = (batch * BATCH..(batch + 1) * BATCH).map(command).collect();
        for reply in store.apply(&commands, &mut ()).unwrap() {
            reply.unwrap();
        }
        store.finish(LogPlace { index: batch + 1, term: 1 }, []);
        if let Some(flush) = store.begin_flush() {
            flush.write().unwrap();
        }
    }
    let revision = store.reader().revision().0;
    assert!(revision > 2 * 65_536, "so long a history is taken in by one thread");
    let revisions = [0, 2, 1000, revision / 2, revision - 70_000, revision - 1];
    let state = |store: &Store| -> (Vec<RangeReply>, HashKv) {
        let ranges = revisions.iter().map(|revision| all(store, *revision)).collect();
        (ranges, store.reader().hash_kv(Revision(0)).unwrap())
    };
    let before = state(&store);
    let used_bytes = store.reader().disk_bytes_in_use();
    assert!(used_bytes > 50 * BATCH * BATCHES, "{used_bytes} bytes");
    drop(store);
    let mut held = Vec::new();
    for _ in 0..3 {
        let (store, opened) = Store::open(disk.backend(), config).unwrap();
        assert_eq!(opened.applied.index, BATCHES);
        assert_eq!(store.reader().disk_bytes_in_use(), used_bytes, "counted and added up");
        held.push(store.reader().memory_bytes());
        assert!(state(&store) == before, "the store is not what it was");
    }
    assert_eq!(held[0], held[1], "chance decides what is held in memory");
    assert_eq!(held[0], held[2], "chance decides what is held in memory");
    assert!(held[0].0 > 250_000 && held[0].0 <= 300_000, "the budget is used: {held:?}");
}
