//! A limit on bytes per second, shared by all who send snapshots.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time that is made up for when a turn was taken late: timers count in milliseconds, and a sender
/// that lost one at each turn would stay far below a high limit.
const SLACK: Duration = Duration::from_millis(20);

/// Gives out turns, first come, first served. Idle time beyond [`SLACK`] is not saved up, so there
/// are no bursts to speak of.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: u64,
    free_at: Mutex<Option<Instant>>,
}

impl Throttle {
    /// Zero is no limit.
    pub(super) const fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, free_at: Mutex::new(None) }
    }

    /// When the caller may send so many bytes. The turn is taken by asking.
    pub(super) fn turn(&self, bytes: usize, now: Instant) -> Instant {
        if self.bytes_per_second == 0 {
            return now;
        }
        let takes_us = (bytes as u128 * 1_000_000) / u128::from(self.bytes_per_second);
        let takes = Duration::from_micros(u64::try_from(takes_us).unwrap_or(u64::MAX));
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = free_at.unwrap_or(now).max(now.checked_sub(SLACK).unwrap_or(now));
        *free_at = turn.checked_add(takes).or(Some(turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_each_other_at_the_rate() {
        let throttle = Throttle::new(1_000_000);
        let now = Instant::now();
        let ms = Duration::from_millis(1);
        assert_eq!(throttle.turn(10_000, now), now);
        assert_eq!(throttle.turn(20_000, now), now + 10 * ms);
        assert_eq!(throttle.turn(1, now), now + 30 * ms);
        // A late turn is made up for; longer idle time is lost.
        assert_eq!(throttle.turn(5_000, now + 500 * ms), now + 480 * ms);
        assert_eq!(throttle.turn(30_000, now + 500 * ms), now + 485 * ms);
        assert_eq!(throttle.turn(1, now + 500 * ms), now + 515 * ms);
        assert_eq!(Throttle::new(0).turn(usize::MAX, now), now);
    }
}
