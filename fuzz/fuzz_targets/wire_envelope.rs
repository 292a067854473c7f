//! Any bytes as a message; also with a checksum made to fit, so that what is behind it gets its
//! turn.
#![no_main]

#[path = "../../crates/wire/tests/support/checks.rs"]
#[allow(dead_code)]
mod checks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    checks::envelope(bytes);
    let mut fitted = bytes.to_vec();
    checks::fit_checksum(&mut fitted);
    checks::envelope(&fitted);
});
