//! The clock: monotonic, and counting the time that the machine is suspended, so that a leader
//! which wakes up knows that its lease has run out.

use quorate_raft::Time;
use rustix::time::{ClockId, clock_gettime};

#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
/// On Apple's systems and the BSDs the monotonic clock is the best that all of them have.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Now, in microseconds since the machine was started.
pub(crate) fn now() -> Time {
    let now = clock_gettime(CLOCK);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let micros = u64::try_from(now.tv_nsec).unwrap_or(0) / 1000;
    Time(seconds * 1_000_000 + micros)
}
