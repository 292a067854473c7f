//! A good log with any changes.
#![no_main]

#[path = "../../crates/wal/tests/support/checks.rs"]
#[allow(dead_code)]
mod checks;

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;

thread_local! {
    static LOG: LazyCell<checks::SomeLog> = LazyCell::new(checks::some_log);
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.len() <= 120 {
        LOG.with(|log| checks::changed_log(log, bytes));
    }
});
