//! A host's own clock.

use quorate_raft::Time;

/// Million, the whole of which drift is a part.
const MILLION: i128 = 1_000_000;

/// A clock that drifts: it counts more or fewer microseconds than pass, and never jumps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Clock {
    /// A moment in global time ...
    global: Time,
    /// ... and what the clock showed then.
    local: Time,
    ppm: i32,
}

impl Clock {
    /// A true clock that shows `local` at the beginning of the run.
    pub(super) const fn new(local: Time) -> Self {
        Self { global: Time(0), local, ppm: 0 }
    }

    /// What it shows at a moment.
    pub(super) fn local(&self, global: Time) -> Time {
        let passed = i128::from(global.since(self.global));
        let counted = passed * (MILLION + i128::from(self.ppm)) / MILLION;
        self.local.after(u64::try_from(counted).unwrap_or(u64::MAX))
    }

    /// The first moment at which it shows at least `local`.
    pub(super) fn global(&self, local: Time) -> Time {
        let counted = i128::from(local.since(self.local));
        let rate = MILLION + i128::from(self.ppm);
        let passed = (counted * MILLION + rate - 1) / rate;
        self.global.after(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// Changes the drift from `now` on.
    pub(super) fn set_drift(&mut self, now: Time, ppm: i32) {
        *self = Self { global: now, local: self.local(now), ppm };
    }

    /// Parts per million by which it runs fast.
    pub(super) const fn drift_ppm(&self) -> i32 {
        self.ppm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_comes_when_the_clock_shows_it_and_not_before() {
        let mut clock = Clock::new(Time(5000));
        for (at, ppm) in [(0, 0), (10_000, 9_999), (777_777, -33_333), (1_000_000, 250_000)] {
            clock.set_drift(Time(at), ppm);
            let shown = clock.local(Time(at));
            for ahead in [0, 1, 2, 3, 999, 1000, 123_457] {
                let due = clock.global(shown.after(ahead));
                assert!(clock.local(due) >= shown.after(ahead));
                assert!(due == Time(at) || clock.local(Time(due.0 - 1)) < shown.after(ahead));
            }
        }
    }
}
