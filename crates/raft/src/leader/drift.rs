//! Watching for clocks that run faster or slower than leases can bear (thesis 6.4.1).
//!
//! A peer tells its clock with each heartbeat reply. Between two replies, the leader's own clock
//! bounds how much time can have passed: at most from sending the first round to receiving the
//! second answer, and at least from receiving the first to sending the second.

use crate::types::Time;

/// What is known of one peer's clock.
#[derive(Debug, Default)]
pub(crate) struct DriftCheck {
    anchor: Option<Anchor>,
    /// The last comparison found the clocks apart by more than the bound.
    exceeded: bool,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    clock: Time,
    sent: Time,
    received: Time,
}

impl DriftCheck {
    /// Whether the peer's answers must not count for a lease.
    pub(crate) const fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// Takes in the peer's `clock`, read between `sent` and `received` on the leader's own.
    /// Comparisons begin anew every `window_us`.
    pub(crate) fn observe(
        &mut self,
        clock: Time,
        sent: Time,
        received: Time,
        drift_max_ppm: u32,
        window_us: u64,
    ) {
        let now = Anchor { clock, sent, received };
        let Some(anchor) = self.anchor else {
            self.anchor = Some(now);
            return;
        };
        if clock < anchor.clock {
            // The peer restarted, with another origin of time.
            self.anchor = Some(now);
            return;
        }
        let theirs = u128::from(clock.since(anchor.clock));
        let ours_max = u128::from(received.since(anchor.sent));
        let ours_min = u128::from(sent.since(anchor.received));
        // Either clock may be off by the bound: the fast one by 1 + d, the slow one by 1 - d.
        let fast = 1_000_000 + u128::from(drift_max_ppm);
        let slow = 1_000_000 - u128::from(drift_max_ppm);
        let apart = theirs * slow > ours_max * fast || theirs * fast < ours_min * slow;
        if apart {
            self.exceeded = true;
            self.anchor = Some(now);
        } else if received.since(anchor.received) >= window_us {
            self.exceeded = false;
            self.anchor = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW_US: u64 = 10_000_000;

    fn run(rate_ppm: u64, seconds: u64) -> DriftCheck {
        let mut check = DriftCheck::default();
        for tenth in 0..seconds * 10 {
            let sent = Time(tenth * 100_000);
            let clock = Time(5_000 + (sent.0 + 500) * rate_ppm / 1_000_000);
            check.observe(clock, sent, sent.after(1_000), 10_000, WINDOW_US);
        }
        check
    }

    #[test]
    fn honest_clocks_pass() {
        assert!(!run(1_000_000, 60).is_exceeded());
        assert!(!run(1_009_000, 60).is_exceeded());
        assert!(!run(991_000, 60).is_exceeded());
    }

    #[test]
    fn fast_and_slow_clocks_are_found() {
        assert!(run(1_050_000, 5).is_exceeded());
        assert!(run(950_000, 5).is_exceeded());
    }

    #[test]
    fn a_restarted_peer_begins_anew() {
        let mut check = DriftCheck::default();
        check.observe(Time(9_000_000), Time(0), Time(1), 10_000, WINDOW_US);
        check.observe(Time(5), Time(100), Time(101), 10_000, WINDOW_US);
        assert!(!check.is_exceeded());
    }
}
