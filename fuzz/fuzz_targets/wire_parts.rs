//! Any bytes as an entry, hard state, snapshot or membership.
#![no_main]

#[path = "../../crates/wire/tests/support/checks.rs"]
#[allow(dead_code)]
mod checks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    checks::entry(bytes);
    checks::parts(bytes);
});
