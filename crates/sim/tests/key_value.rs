//! The key-value store in the simulator: revisions, watches and leases under faults.

use quorate_sim::key_value::{Counts, run};

/// Events with faults, of each seed.
const STEPS: u64 = 20_000;

/// Seeds that have found something: an expiry that was not bound to its term; a compaction that kept one change of two
/// which a key had in the very revision; a leader that bound a member while its target was campaigning.
const TELLING: [u64; 3] = [108, 57, 598];

#[test]
fn revisions_watches_and_leases_survive_faults() {
    let seeds = if std::env::var_os("QUORATE_LONG").is_some() { 1000 } else { 30 };
    let mut counts = Counts::default();
    for seed in (1..=seeds).chain(TELLING) {
        match run(seed, STEPS) {
            Ok(more) => counts.add(&more),
            Err(why) => panic!("{why}"),
        }
    }
    let Counts { executed, read, heard, progress, resumed, compacted, .. } = counts;
    let Counts { granted, renewed, waited, expired, promoted, .. } = counts;
    let often = [executed, read, heard, progress, resumed, granted, renewed, expired, promoted];
    assert!(often.iter().all(|count| *count > 200), "too little happens: {counts:?}");
    assert!(compacted.min(waited) > 5, "too little happens: {counts:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(run(7, 5_000), run(7, 5_000));
}
