//! How long to wait before the next attempt.

use std::time::Duration;

/// Doubling pauses with jitter: each is drawn from the upper half of its range, so that nodes
/// that failed together do not try again together.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        let min = min.max(Duration::from_millis(1));
        Self { min, max: max.max(min), next: min, random: seed }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }

    pub(super) fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = self.next.saturating_mul(2).min(self.max);
        let half_us = u64::try_from(whole.as_micros() / 2).unwrap_or(u64::MAX);
        Duration::from_micros(half_us + self.random() % (half_us + 1))
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(seed: u64) -> Vec<Duration> {
        let (min, max) = (Duration::from_millis(10), Duration::from_millis(100));
        let mut backoff = Backoff::new(min, max, seed);
        let mut pauses: Vec<Duration> = (0..6).map(|_| backoff.pause()).collect();
        backoff.reset();
        pauses.push(backoff.pause());
        pauses
    }

    #[test]
    fn doubles_within_bounds_and_resets() {
        for seed in 0..200 {
            let ranges = [(5, 10), (10, 20), (20, 40), (40, 80), (50, 100), (50, 100), (5, 10)];
            for (pause, (low, high)) in pauses(seed).into_iter().zip(ranges) {
                assert!(
                    pause >= Duration::from_millis(low) && pause <= Duration::from_millis(high)
                );
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }
}
