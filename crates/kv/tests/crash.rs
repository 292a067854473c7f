//! Power cuts and failures at every operation of the disk: what is found is what one flush has written, whole, and never
//! less than what was reported durable.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod crash_support;

use crash_support::{CONFIG, Contents, Progress, Random, check, contents, expected, run};
use quorate_kv::testing::{Fault, FaultyDisk};
use quorate_kv::{RestoreError, Store, restore};

const LAST: u64 = 40;

/// Begins with an empty disk and runs until the end or the fault.
fn run_until_fault(disk: &FaultyDisk) -> (Progress, bool) {
    let mut progress = Progress::default();
    let whole = Store::open(disk.backend(), CONFIG)
        .and_then(|(mut store, _)| run(&mut store, 0, LAST, &mut progress, |_| ()));
    (progress, whole.is_ok())
}

/// Opens what is there, and goes on to the end.
fn recover(disk: &FaultyDisk, mut progress: Progress, expected: &[Contents]) {
    let (mut store, opened) = Store::open(disk.backend(), CONFIG).unwrap();
    let index = check(&store, &opened, progress, expected);
    run(&mut store, index, LAST, &mut progress, |_| ()).unwrap();
    drop(store);
    let (store, opened) = Store::open(disk.backend(), CONFIG).unwrap();
    let end = Progress { durable: LAST, begun: LAST };
    check(&store, &opened, end, expected);
}

fn operations() -> u64 {
    let disk = FaultyDisk::new();
    assert!(run_until_fault(&disk).1);
    disk.operations()
}

#[test]
fn power_cut_at_every_operation() {
    let expected = expected(LAST);
    let operations = operations();
    assert!(operations > 100, "{operations} operations are no test");
    let (mut rolled_back, mut kept) = (0, 0);
    for operation in 0..operations {
        for seed in [0, 1, 2 + operation, 1000 + operation] {
            let disk = FaultyDisk::new();
            disk.plan(operation, Fault::PowerCut);
            let (progress, _) = run_until_fault(&disk);
            disk.power_on(seed);
            if seed >= 1000 {
                // The power goes once more, while the database is opened.
                disk.plan(disk.operations() + Random::new(seed).below(8), Fault::PowerCut);
                let again = Store::open(disk.backend(), CONFIG);
                drop(again);
                disk.power_on(seed + 1);
            }
            let (store, opened) = Store::open(disk.backend(), CONFIG).unwrap();
            check(&store, &opened, progress, &expected);
            if progress.begun > progress.durable {
                let found = opened.applied.index;
                *(if found == progress.begun { &mut kept } else { &mut rolled_back }) += 1;
            }
            drop(store);
            recover(&disk, Progress { durable: opened.applied.index, ..progress }, &expected);
        }
    }
    // Both outcomes of a flush that was cut off have been seen.
    assert!(rolled_back > 0);
    assert!(kept > 0);
}

#[test]
fn failure_at_every_operation() {
    let expected = expected(LAST);
    let mut stopped = 0;
    for operation in 0..operations() {
        for seed in [1, 2 + operation] {
            let disk = FaultyDisk::new();
            disk.plan(operation, Fault::Failure);
            let (progress, was_whole) = run_until_fault(&disk);
            stopped += u64::from(!was_whole);
            disk.power_on(seed);
            recover(&disk, progress, &expected);
        }
    }
    assert!(stopped > 100, "only {stopped} failures were noticed");
}

#[test]
fn after_a_failed_flush_there_is_no_other() {
    let disk = FaultyDisk::new();
    let (mut store, _) = Store::open(disk.backend(), CONFIG).unwrap();
    let mut progress = Progress::default();
    run(&mut store, 0, 10, &mut progress, |_| ()).unwrap();
    disk.plan(disk.operations(), Fault::Failure);
    run(&mut store, 10, 13, &mut progress, |_| ()).unwrap_err();
    store.apply(&crash_support::commands(14), &mut ()).unwrap();
    store.finish(crash_support::place(14), []);
    assert!(store.begin_flush().is_none());
    assert_eq!(store.reader().durable().index, progress.durable);
}

#[test]
fn a_full_disk_stops_it_and_room_lets_it_go_on() {
    let expected = expected(LAST);
    let fresh = FaultyDisk::new();
    drop(Store::open(fresh.backend(), CONFIG).unwrap());
    eprintln!("a new database has {} bytes", fresh.size());
    let (mut filled, mut whole) = (0, 0);
    for step in 0..16 {
        let disk = FaultyDisk::new();
        disk.limit(Some(fresh.size() * step / 8));
        let (progress, was_whole) = run_until_fault(&disk);
        *(if was_whole { &mut whole } else { &mut filled }) += 1;
        disk.limit(None);
        recover(&disk, progress, &expected);
    }
    assert!(filled > 1);
    assert!(whole > 0);
}

/// A whole store as a stream.
fn snapshot() -> Vec<u8> {
    let mut store = Store::in_memory(CONFIG);
    run(&mut store, 0, LAST, &mut Progress::default(), |_| ()).unwrap();
    let mut bytes = Vec::new();
    store.reader().snapshot().write_to(&mut bytes).unwrap();
    bytes
}

#[test]
fn power_cut_at_every_operation_of_a_restore() {
    let expected = expected(LAST);
    let snapshot = snapshot();
    let disk = FaultyDisk::new();
    restore(&mut &snapshot[..], disk.backend(), CONFIG.cache_bytes).unwrap();
    let operations = disk.operations();
    let (mut empty, mut refused, mut whole) = (0, 0, 0);
    for operation in 0..operations {
        for seed in 0..4 {
            let disk = FaultyDisk::new();
            disk.plan(operation, Fault::PowerCut);
            let restored = restore(&mut &snapshot[..], disk.backend(), CONFIG.cache_bytes);
            disk.power_on(if seed < 2 { seed } else { seed + operation });
            match Store::open(disk.backend(), CONFIG) {
                Ok((store, opened)) if opened.applied.index == LAST => {
                    whole += 1;
                    assert!(contents(&store.reader()) == expected[LAST as usize]);
                }
                Ok((store, opened)) => {
                    empty += 1;
                    assert!(restored.is_err());
                    assert_eq!(opened, quorate_kv::Opened::default());
                    assert!(contents(&store.reader()) == expected[0]);
                }
                Err(why) => {
                    refused += 1;
                    assert!(restored.is_err());
                    assert!(why.to_string().contains("part of a snapshot"), "{why}");
                }
            }
        }
    }
    assert!(empty > 0);
    assert!(refused > 0);
    assert!(whole > 0);
}

#[test]
fn a_restore_that_fails_says_so() {
    let snapshot = snapshot();
    let disk = FaultyDisk::new();
    disk.plan(disk.operations() + 20, Fault::Failure);
    let why = restore(&mut &snapshot[..], disk.backend(), CONFIG.cache_bytes).unwrap_err();
    assert!(matches!(why, RestoreError::Disk(_)), "{why}");
}
