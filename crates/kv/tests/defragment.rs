//! The database is written anew while it is used; a crash at any step leaves the old one or the new one, whole.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod crash_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, fs, io, thread};

use bytes::Bytes;
use crash_support::{CONFIG, Contents, Progress, check, check_at, contents, expected, run};
use quorate_kv::testing::{Fault, FaultyDisk};
use quorate_kv::{
    Command, Compact, Defragment, DefragmentError, DeleteRange, LogPlace, Put, Range, Store,
    StoreConfig,
};

const LAST: u64 = 40;

/// Two disks, one of which is the store's.
#[derive(Clone, Default)]
struct Disks {
    old: FaultyDisk,
    new: FaultyDisk,
    is_swapped: Arc<AtomicBool>,
}

impl Disks {
    fn current(&self) -> &FaultyDisk {
        if self.is_swapped.load(Ordering::Relaxed) { &self.new } else { &self.old }
    }

    fn defragment(&self, store: &Store) -> Defragment {
        let is_swapped = Arc::clone(&self.is_swapped);
        let swap = move || {
            is_swapped.store(true, Ordering::Relaxed);
            Ok(())
        };
        store.defragment_into(self.new.backend(), swap).with_step_bytes(4000)
    }

    /// Writes, begins a defragmentation, and goes on with both in turns, until the end or a fault.
    fn run(&self, progress: &mut Progress) -> Result<(), String> {
        let text = |why: quorate_kv::DiskError| why.to_string();
        let (mut store, opened) = Store::open(self.old.backend(), CONFIG).map_err(text)?;
        assert_eq!(opened.applied.index, 0);
        run(&mut store, 0, 15, progress, |_| ()).map_err(text)?;
        let mut defragment = self.defragment(&store);
        let mut is_more = true;
        for index in 15..LAST {
            run(&mut store, index, index + 1, progress, |_| ()).map_err(text)?;
            if is_more {
                is_more = defragment.step().map_err(|why| why.to_string())?;
            }
        }
        assert!(!is_more, "there is time for all steps");
        Ok(())
    }

    fn power_on(&self, seed: u64) {
        self.old.power_on(seed);
        self.new.power_on(seed);
    }
}

/// What is there is one of both, whole; and it can be gone on with.
fn recover(disks: &Disks, mut progress: Progress, expected: &[Contents]) {
    let (mut store, opened) = Store::open(disks.current().backend(), CONFIG).unwrap();
    let index = check(&store, &opened, progress, expected);
    run(&mut store, index, LAST, &mut progress, |_| ()).unwrap();
    drop(store);
    let (store, opened) = Store::open(disks.current().backend(), CONFIG).unwrap();
    check(&store, &opened, Progress { durable: LAST, begun: LAST }, expected);
}

#[test]
fn power_cut_at_every_operation_of_a_defragmentation() {
    let expected = expected(LAST);
    let whole = Disks::default();
    whole.run(&mut Progress::default()).unwrap();
    assert!(whole.is_swapped.load(Ordering::Relaxed));
    let (mut swapped, mut not_swapped) = (0, 0);
    for is_new in [false, true] {
        let disk = if is_new { &whole.new } else { &whole.old };
        for operation in 0..disk.operations() {
            for seed in [1, 2 + operation] {
                let disks = Disks::default();
                let disk = if is_new { &disks.new } else { &disks.old };
                disk.plan(operation, Fault::PowerCut);
                let mut progress = Progress::default();
                // Both disks have the same power: whatever fails, the process ends there.
                let ended = disks.run(&mut progress);
                disks.power_on(seed);
                let is_swapped = disks.is_swapped.load(Ordering::Relaxed);
                *(if is_swapped { &mut swapped } else { &mut not_swapped }) += 1;
                assert!(ended.is_err() || is_swapped);
                recover(&disks, progress, &expected);
            }
        }
    }
    assert!(swapped > 10, "{swapped} after the swap");
    assert!(not_swapped > 10, "{not_swapped} before it");
}

/// The old one goes on as if nothing had been; only its making has failed.
#[test]
fn a_new_disk_that_fails_harms_nobody() {
    let expected = expected(LAST);
    let whole = Disks::default();
    whole.run(&mut Progress::default()).unwrap();
    let mut failures = 0;
    for operation in 0..whole.new.operations() {
        let disks = Disks::default();
        let (mut store, _) = Store::open(disks.old.backend(), CONFIG).unwrap();
        let mut progress = Progress::default();
        run(&mut store, 0, 15, &mut progress, |_| ()).unwrap();
        disks.new.plan(operation, Fault::Failure);
        let mut defragment = disks.defragment(&store);
        let mut state = Ok(true);
        let mut wrote = Ok(());
        for index in 15..LAST {
            wrote = wrote.and_then(|()| run(&mut store, index, index + 1, &mut progress, |_| ()));
            if matches!(state, Ok(true)) {
                state = defragment.step();
            }
        }
        if wrote.is_err() {
            // By then it was not the new one any more.
            assert!(disks.is_swapped.load(Ordering::Relaxed));
            continue;
        }
        match state {
            Ok(is_more) => assert!(!is_more),
            Err(why) => {
                assert!(why.is_harmless(), "{why}");
                assert!(!disks.is_swapped.load(Ordering::Relaxed));
                failures += 1;
            }
        }
        assert!(contents(&store.reader()) == expected[LAST as usize]);
        drop((defragment, store));
        disks.new.power_on(0);
        let (store, opened) = Store::open(disks.current().backend(), CONFIG).unwrap();
        check_at(&store, &opened, &expected);
        assert_eq!(opened.applied.index, LAST);
    }
    assert!(failures > 10, "only {failures} failures");
}

#[test]
fn a_swap_that_fails_is_fatal() {
    let (mut store, _) = Store::open(FaultyDisk::new().backend(), CONFIG).unwrap();
    run(&mut store, 0, 9, &mut Progress::default(), |_| ()).unwrap();
    let swap = || Err(io::Error::other("no such name"));
    let why = store.defragment_into(FaultyDisk::new().backend(), swap).run().unwrap_err();
    assert!(matches!(why, DefragmentError::Swap(_)), "{why}");
    assert!(!why.is_harmless());
}

#[test]
fn one_at_a_time_and_dropped_at_any_time() {
    let (mut store, _) = Store::open(FaultyDisk::new().backend(), CONFIG).unwrap();
    run(&mut store, 0, 9, &mut Progress::default(), |_| ()).unwrap();
    let into = |store: &Store| store.defragment_into(FaultyDisk::new().backend(), || Ok(()));
    let mut first = into(&store);
    assert!(first.step().unwrap());
    let why = into(&store).run().unwrap_err();
    assert!(matches!(why, DefragmentError::UnderWay), "{why}");
    drop(first);
    into(&store).run().unwrap();
    run(&mut store, 9, 20, &mut Progress::default(), |_| ()).unwrap();
    assert!(contents(&store.reader()) == expected(20)[20]);
    assert!(store.defragment().is_none(), "it has no file of its own");
}

struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Readers, a stream, a snapshot and writes, while a file is written anew; the file is smaller then.
#[test]
fn writes_go_on_beside_a_defragmentation() {
    let name = format!("quorate-kv-defragment-{}", std::process::id());
    let folder = Folder(env::temp_dir().join(name));
    let _ = fs::remove_dir_all(&folder.0);
    fs::create_dir_all(&folder.0).unwrap();
    let path = folder.0.join("store");
    let config = StoreConfig { values_bytes_max: 0, ..StoreConfig::default() };
    let (mut store, _) = Store::open_file(&path, config).unwrap();
    let mut same = Store::in_memory(StoreConfig::default());
    let mut index = 0;
    let mut apply = |store: &mut Store, command: Command| {
        let commands = [command];
        index += 1;
        for store in [store, &mut same] {
            store.apply(&commands, &mut ()).unwrap()[0].as_ref().unwrap();
            store.finish(LogPlace { index, term: 1 }, []);
        }
    };
    let flush = |store: &mut Store| {
        while let Some(flush) = store.begin_flush() {
            flush.write().unwrap();
        }
    };
    let put = |number: u64| {
        let value = Bytes::from(vec![number as u8; 2000]);
        Command::Put(Put {
            key: Bytes::from(format!("{:05}", number % 3000)),
            value,
            ..Put::default()
        })
    };
    for number in 0..9000 {
        apply(&mut store, put(number));
    }
    flush(&mut store);
    let revision = store.reader().revision();
    let from = Bytes::from_static(b"01000");
    let delete = DeleteRange { key: from, range_end: Bytes::from_static(b"\0"), prev_kv: false };
    apply(&mut store, Command::DeleteRange(delete));
    apply(&mut store, Command::Compact(Compact { revision, physical: false }));
    while store.compact_step(false) {}
    flush(&mut store);
    let before = fs::metadata(&path).unwrap().len();

    let reader = store.reader();
    let all = Range {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Range::default()
    };
    let mut stream = reader.range_stream(Range { revision, ..all.clone() }).unwrap();
    let mut read = stream.next(10).unwrap().unwrap().kvs.len();
    let snapshot = reader.snapshot();
    let defragment = store.defragment().unwrap().with_step_bytes(100_000);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            defragment.run().unwrap();
            done.store(true, Ordering::Relaxed);
        });
        let mut number = 0;
        while !done.load(Ordering::Relaxed) {
            apply(&mut store, put(number * 7));
            number += 1;
            if number == 20 {
                let revision = store.reader().revision();
                apply(&mut store, Command::Compact(Compact { revision, physical: false }));
            }
            store.compact_step(false);
            if let Some(flush) = store.begin_flush() {
                flush.write().unwrap();
            }
            assert_eq!(reader.range(&Range { count_only: true, ..all.clone() }).unwrap().kvs, []);
        }
    });
    // What was begun before goes on, from what it began with.
    while let Some(part) = stream.next(500).unwrap() {
        read += part.kvs.len();
    }
    assert_eq!(read, 3000);
    let mut bytes = Vec::new();
    snapshot.write_to(&mut bytes).unwrap();
    drop((stream, snapshot));
    while store.compact_step(false) {}
    flush(&mut store);
    assert_eq!(reader.compaction_finished(), reader.compacted());
    assert_eq!(reader.hash().unwrap(), same.reader().hash().unwrap());
    let after = fs::metadata(&path).unwrap().len();
    assert!(after < before / 2, "{before} bytes before, {after} after");
    drop((reader, store));
    let (store, opened) = Store::open_file(&path, config).unwrap();
    assert_eq!(opened.applied.index, index);
    assert_eq!(store.reader().hash().unwrap(), same.reader().hash().unwrap());
}
