//! A clock that never goes back and counts while the machine sleeps.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds from an origin of its own.
pub(crate) fn now_us() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let now = clock_gettime(clock);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}
