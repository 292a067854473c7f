//! Power cuts and kills at every step, with every part of the unsynced writes on the disk or not.
//! With `QUORATE_LONG=1`, many times over: some minutes.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use support::history::{Player, assert_survives, random_fate};
use support::{Rng, open};

use quorate_wal::{Fate, MemoryDisk, Pending, Wal};

/// Plays until the disk stops or there is nothing more to do.
fn play(disk: &MemoryDisk, seed: u64, steps: usize) -> Option<Player> {
    let opened = Wal::open(std::sync::Arc::new(disk.clone()), &support::options(seed)).ok()?;
    let mut player = Player::new(opened.wal, seed);
    for _ in 0..steps {
        if player.step().is_err() {
            break;
        }
    }
    Some(player)
}

/// Every step of the disk is the last one, once; then the power is cut, or the process killed.
#[test]
fn a_crash_at_every_step() {
    for seed in 0..support::rounds(3, 200) {
        let disk = MemoryDisk::new();
        disk.stop_after(Some(u64::MAX));
        play(&disk, seed, 60).unwrap();
        let steps = u64::MAX - disk.steps_left().unwrap();
        assert!(steps > 50, "only {steps} steps");
        for stop in 0..steps {
            let disk = MemoryDisk::new();
            disk.stop_after(Some(stop));
            let history = play(&disk, seed, 60).map(|player| player.history).unwrap_or_default();
            let mut rng = Rng(seed << 32 | stop);
            let what = format!("seed {seed} stop {stop}");
            let dropped = disk.after_power_cut(|_, _| Fate::Dropped);
            assert_survives(&history, &dropped, &mut rng, &what);
            assert_survives(&history, &disk.after_kill(), &mut rng, &what);
            for _ in 0..2 {
                let left = disk.after_power_cut(|_, change| random_fate(&mut rng.clone(), change));
                rng.next();
                assert_survives(&history, &left, &mut rng, &what);
            }
        }
    }
}

/// A log with some synced records and then so many writes that are not.
fn unsynced(seed: u64, writes: usize) -> (MemoryDisk, Player) {
    let disk = MemoryDisk::new();
    let mut player = play(&disk, seed, 12).unwrap();
    player.sync().unwrap();
    for _ in 0..writes {
        player.write().unwrap();
    }
    (disk, player)
}

#[test]
fn every_subset_of_eight_unsynced_writes() {
    for seed in 0..support::rounds(6, 200) {
        let (disk, player) = unsynced(seed, 6);
        let changes = disk.pending().len();
        assert!((6..=10).contains(&changes), "{changes}");
        let mut rng = Rng(seed);
        for kept in 0u32..1 << changes {
            let fate = |at, _: &Pending| {
                if kept >> at & 1 == 1 { Fate::Kept } else { Fate::Dropped }
            };
            let what = format!("seed {seed} kept {kept:b}");
            assert_survives(&player.history, &disk.after_power_cut(fate), &mut rng, &what);
        }
    }
}

#[test]
fn a_write_torn_at_every_byte() {
    let (disk, player) = unsynced(7, 3);
    let mut rng = Rng(7);
    for (torn, change) in disk.pending().iter().enumerate() {
        let Pending::Write { len, .. } = change else { continue };
        for bytes in 0..*len {
            let fate = |at, _: &Pending| if at == torn { Fate::Torn(bytes) } else { Fate::Kept };
            let what = format!("write {torn} torn at {bytes}");
            assert_survives(&player.history, &disk.after_power_cut(fate), &mut rng, &what);
        }
    }
}

#[test]
fn samples_of_many_unsynced_writes() {
    let mut rng = Rng(8);
    for sample in 0..support::rounds(2_000, 200_000) {
        let (disk, player) =
            unsynced(sample % support::rounds(40, 20_000), 8 + sample as usize % 30);
        let left = disk.after_power_cut(|_, change| random_fate(&mut rng, change));
        assert_survives(&player.history, &left, &mut rng, &format!("sample {sample}"));
    }
}

/// What is found after a kill is only in the page cache. It is written again before it is told to
/// be durable, and so survives the power cut that follows.
#[test]
fn a_kill_and_then_a_power_cut() {
    let (disk, player) = unsynced(9, 5);
    let killed = disk.after_kill();
    let opened = open(&killed, 3);
    let found = player.history.found(&opened).unwrap();
    assert!(opened.notes.iter().any(|note| format!("{note}").contains("written again")));
    let cut = killed.after_power_cut(|_, _| Fate::Dropped);
    assert!(support::same(&found, &open(&cut, 4)));
}

/// A start that is killed at any step, and the next one, which loses its power at any step, leave
/// a log that opens: also when what the first one renamed is in the page cache only.
#[test]
fn a_start_interrupted_twice() {
    // A log with a segment that is prepared and not used, which the first start gives up.
    let disk = MemoryDisk::new();
    let mut player = play(&disk, 11, 12).unwrap();
    player.sync().unwrap();
    while player.wal.prepare(64 << 10).unwrap() == quorate_wal::Progress::More {}
    let begun = disk.after_power_cut(|_, _| Fate::Dropped);
    let mut rng = Rng(12);
    let start = |disk: &MemoryDisk, stop: u64| {
        disk.stop_after(Some(stop));
        let opened = Wal::open(std::sync::Arc::new(disk.clone()), &support::options(stop));
        disk.stop_after(None);
        opened.is_ok()
    };
    for first in 0.. {
        let disk = begun.after_kill();
        let done = start(&disk, first);
        for second in 0.. {
            let disk = disk.after_kill();
            let done = start(&disk, second);
            let changes = disk.pending().len();
            for lost in 0..changes {
                // Each change alone is lost, or alone survives; and some at random.
                for keep in [true, false] {
                    let fate = |at, _: &Pending| {
                        if (at == lost) == keep { Fate::Kept } else { Fate::Dropped }
                    };
                    let what = format!("stops {first} and {second}, change {lost} kept: {keep}");
                    let left = disk.after_power_cut(fate);
                    assert_survives(&player.history, &left, &mut rng, &what);
                }
                let left = disk.after_power_cut(|_, change| random_fate(&mut rng, change));
                let what = format!("stops {first} and {second}");
                assert_survives(&player.history, &left, &mut rng.clone(), &what);
            }
            if done {
                break;
            }
            assert!(second < 200, "a start does not come to its end after {first}");
        }
        if done {
            break;
        }
        assert!(first < 200, "a start does not come to its end");
    }
}
