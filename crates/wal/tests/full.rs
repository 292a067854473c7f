//! Disks that are full at the worst moment, and leave of a write that fails whatever they like.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quorate_raft::{GroupId, HardState, Index, Install, Seq, Term};
use quorate_wal::{Fate, MemoryDisk, Opened, Progress, Wal, WriteError};
use support::history::{Player, assert_survives, random_fate};
use support::hooked::{Act, Hooked};
use support::{Rng, commands, open, persist, snapshot};

const GROUP: GroupId = GroupId(1);

fn open_hooked(disk: &Hooked) -> Opened {
    Wal::open(Arc::new(disk.clone()), &support::options(1)).unwrap()
}

/// A segment is full, and of the header of the next one half is written. A smaller record that
/// would still fit must not go where that header says that nothing is any more.
#[test]
fn half_a_switch_ends_the_segment() {
    let disk = MemoryDisk::new();
    let full = Arc::new(AtomicBool::new(false));
    let hooked = Hooked::new(&disk, {
        let full = Arc::clone(&full);
        move |act| match act {
            Act::Write(..) if full.load(Ordering::Relaxed) => Some(4096),
            _ => None,
        }
    });
    let wal = open_hooked(&hooked).wal;
    while wal.prepare(16 << 10).unwrap() == Progress::More {}
    wal.write(&[(GROUP, &persist(1, 1, commands(1..=1, 1, 6_000)))]).unwrap();
    wal.sync().unwrap();
    full.store(true, Ordering::Relaxed);
    let large = persist(2, 1, commands(2..=2, 1, 6_000));
    assert!(matches!(wal.write(&[(GROUP, &large)]), Err(WriteError::NoSpace(_))));
    full.store(false, Ordering::Relaxed);
    wal.write(&[(GroupId(2), &persist(1, 7, commands(1..=2, 7, 20)))]).unwrap();
    wal.sync().unwrap();
    for disk in [disk.after_kill(), disk.after_power_cut(|_, _| Fate::Dropped)] {
        let found = open(&disk, 2).groups;
        assert_eq!(found[&GroupId(2)].last_index, Index(2));
        assert_eq!(found[&GroupId(2)].hard_state.term, Term(7));
    }
}

/// A write fails after all of it was written. A snapshot that is installed then is not undone by
/// what the next start finds behind the end of the log.
#[test]
fn what_a_failed_write_leaves_does_not_outlive_a_snapshot() {
    let disk = MemoryDisk::new();
    let full = Arc::new(AtomicBool::new(false));
    let hooked = Hooked::new(&disk, {
        let full = Arc::clone(&full);
        move |act| match act {
            Act::Write(..) if full.load(Ordering::Relaxed) => Some(usize::MAX),
            _ => None,
        }
    });
    let wal = open_hooked(&hooked).wal;
    wal.write(&[(GROUP, &persist(1, 1, commands(1..=3, 1, 50)))]).unwrap();
    full.store(true, Ordering::Relaxed);
    let lost = persist(2, 2, commands(4..=40, 2, 50));
    assert!(matches!(wal.write(&[(GROUP, &lost)]), Err(WriteError::NoSpace(_))));
    full.store(false, Ordering::Relaxed);
    let hard_state = HardState { term: Term(9), ..HardState::default() };
    let install = Install { seq: Seq(3), snapshot: snapshot(20, 8), hard_state };
    wal.install(GROUP, &install).unwrap();
    for disk in [disk.after_kill(), disk.after_power_cut(|_, _| Fate::Kept)] {
        let found = &open(&disk, 2).groups[&GROUP];
        assert_eq!((found.last_index, found.hard_state.term), (Index(20), Term(9)));
    }
}

/// While a snapshot is installed, whoever frees segments does not write older records of the group
/// again: they would stand behind what the snapshot makes void.
#[test]
fn nothing_is_rewritten_while_a_snapshot_is_installed() {
    let disk = MemoryDisk::new();
    let wal_of_hook: Arc<std::sync::OnceLock<Wal>> = Arc::default();
    let hooked = Hooked::new(&disk, {
        let wal = Arc::clone(&wal_of_hook);
        move |act| {
            // The file of the group is written and not yet durable: another thread has its turn.
            if let (Act::Sync("0000000000000001.group.tmp"), Some(wal)) = (act, wal.get()) {
                for _ in 0..50 {
                    wal.prepare(1 << 20).unwrap();
                    wal.sync().unwrap();
                }
            }
            None
        }
    });
    let wal = open_hooked(&hooked).wal;
    wal.write(&[(GROUP, &persist(1, 3, commands(1..=30, 3, 50)))]).unwrap();
    for next in 1..=600 {
        wal.write(&[(GroupId(0), &persist(next, 1, commands(next..=next, 1, 900)))]).unwrap();
        wal.sync().unwrap();
    }
    wal.compact(GroupId(0), &snapshot(599, 1)).unwrap();
    wal_of_hook.set(wal.clone()).unwrap_or_else(|_| panic!("it is set once"));
    let hard_state = HardState { term: Term(9), ..HardState::default() };
    let install = Install { seq: Seq(2), snapshot: snapshot(20, 8), hard_state };
    wal.install(GROUP, &install).unwrap();
    for disk in [disk.after_kill(), disk.after_power_cut(|_, _| Fate::Dropped)] {
        let found = &open(&disk, 2).groups[&GROUP];
        assert_eq!((found.last_index, found.hard_state.term), (Index(20), Term(9)));
        assert_eq!(found.terms, []);
    }
    // It was worth freeing the segments, and when the snapshot is there, they are freed.
    let before = wal.usage().segments;
    for _ in 0..50 {
        wal.prepare(1 << 20).unwrap();
        wal.sync().unwrap();
    }
    assert!(wal.usage().segments < before, "{before} segments before");
}

/// Want of space at every write and every creation of a file, once, for a while, with any part of
/// the writes done; and then a crash. Nothing that was acknowledged is lost, and nothing is found
/// that was refused and given up.
#[test]
fn no_space_at_every_step() {
    for seed in 0..support::rounds(3, 200) {
        let steps = play(seed, u64::MAX / 4).1;
        assert!(steps > 50, "only {steps} steps");
        let mut refused = 0;
        for from in 0..steps {
            refused += play(seed, from).0;
        }
        assert!(refused > steps, "{refused} times in {steps} runs");
    }
}

/// Plays with a disk that is full for some steps, from step `from` on, and checks what is left
/// after a crash. Returns how often there was no space, and how many steps there were.
fn play(seed: u64, from: u64) -> (u64, u64) {
    let mut rng = Rng(seed << 32 ^ from);
    let disk = MemoryDisk::new();
    // Not while it is opened.
    let count = Arc::new(AtomicU64::new(u64::MAX / 2));
    let until = from + 1 + rng.below(6);
    let hooked = Hooked::new(&disk, {
        let count = Arc::clone(&count);
        move |act| {
            if matches!(act, Act::Sync(_)) {
                return None;
            }
            let at = count.fetch_add(1, Ordering::Relaxed);
            let mut rng = Rng(seed ^ at);
            let len = if let Act::Write(_, bytes) = act { bytes.len() as u64 } else { 0 };
            let part = match rng.below(4) {
                0 => 0,
                1 => len,
                2 => 4096,
                _ => rng.below(len + 1),
            };
            (from..until).contains(&at).then_some(part as usize)
        }
    });
    let mut player = Player::new(open_hooked(&hooked).wal, seed);
    count.store(0, Ordering::Relaxed);
    for _ in 0..80 {
        player.step().unwrap();
    }
    player.write_waiting().unwrap();
    let what = format!("seed {seed} full from {from}");
    for fate in 0..3 {
        let left = disk.after_power_cut(|_, change| match fate {
            0 => Fate::Dropped,
            1 => Fate::Kept,
            _ => random_fate(&mut rng, change),
        });
        assert_survives(&player.history, &left, &mut rng.clone(), &what);
    }
    assert_survives(&player.history, &disk.after_kill(), &mut rng, &what);
    (player.refused, count.load(Ordering::Relaxed))
}
