//! Logs with random changes: never a panic, and never a loss that is not told.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use support::{Rng, checks};

#[test]
fn random_changes() {
    let log = checks::some_log();
    let mut rng = Rng(21);
    let mut good = 0u64;
    let rounds = support::rounds(4_000, 500_000);
    for round in 0..rounds {
        let changes = 1 + round % 4;
        let bytes: Vec<u8> = (0..changes * 6).map(|_| rng.next() as u8).collect();
        good += u64::from(checks::changed_log(&log, &bytes));
    }
    // Most of a segment is empty, so many changes do no harm.
    let few = rounds / 20..rounds * 39 / 40;
    assert!(few.contains(&good), "{good} of {rounds} were good");
}
