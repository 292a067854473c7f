//! Logs with random changes: never a panic, and never a loss that is not told.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use support::{Rng, checks};

#[test]
fn random_changes() {
    let log = checks::some_log();
    let mut rng = Rng(21);
    let mut good = 0;
    for round in 0..4_000 {
        let changes = 1 + round % 3;
        let bytes: Vec<u8> = (0..changes * 6).map(|_| rng.next() as u8).collect();
        good += u32::from(checks::changed_log(&log, &bytes));
    }
    // Most of a segment is empty, so many changes do no harm.
    assert!((500..3_900).contains(&good), "{good} of 4,000 were good");
}
