//! When the leader compacts by itself. Time is a value here, counted from the start of the server.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::AutoCompaction;

const HOUR: Duration = Duration::from_secs(3600);
/// How often it is looked whether enough revisions are there.
const REVISIONS_EVERY: Duration = Duration::from_secs(300);
/// Samples in the time between two compactions by age.
const SAMPLES: u32 = 10;

/// Remembers what was the revision when, and says which one is to be compacted to.
pub(crate) struct Compactor {
    mode: Mode,
    /// What was compacted to last, and when.
    last: Option<(Duration, i64)>,
    samples: VecDeque<(Duration, i64)>,
}

enum Mode {
    /// Revisions older than this are given up.
    Age(Duration),
    /// So many revisions are kept.
    Count(i64),
}

impl Compactor {
    /// `None` if nothing is to be compacted.
    pub(crate) fn new(setting: AutoCompaction) -> Option<Self> {
        let mode = match setting {
            AutoCompaction::Off => return None,
            AutoCompaction::Periodic(period) => Mode::Age(period),
            AutoCompaction::Revision(kept) => Mode::Count(kept),
        };
        Some(Self { mode, last: None, samples: VecDeque::new() })
    }

    /// Time between two compactions by age: the period, but an hour at most.
    fn between(period: Duration) -> Duration {
        period.min(HOUR)
    }

    /// Until when to wait after a sample before asking what is due.
    pub(crate) fn pause(&self) -> Duration {
        match self.mode {
            Mode::Age(period) => Self::between(period) / SAMPLES,
            Mode::Count(_) => REVISIONS_EVERY,
        }
    }

    /// Takes down the revision as it is now.
    pub(crate) fn sample(&mut self, now: Duration, revision: i64) {
        self.samples.push_back((now, revision));
        let kept_for = match self.mode {
            Mode::Age(period) => period,
            Mode::Count(_) => Duration::ZERO,
        };
        // Of those that are old enough only the newest matters.
        while let Some((next, _)) = self.samples.get(1)
            && now.saturating_sub(*next) >= kept_for
        {
            self.samples.pop_front();
        }
    }

    /// The revision to compact to now, if it is time and it is another one than before.
    pub(crate) fn due(&self, now: Duration) -> Option<i64> {
        let revision = match self.mode {
            Mode::Count(kept) => {
                let (_, newest) = self.samples.back()?;
                newest.saturating_sub(kept)
            }
            Mode::Age(period) => {
                let old_enough = |(at, _): &&(Duration, i64)| now.saturating_sub(*at) >= period;
                let (_, revision) = self.samples.iter().rev().find(old_enough)?;
                if self.last.is_some_and(|(at, _)| now.saturating_sub(at) < Self::between(period)) {
                    return None;
                }
                *revision
            }
        };
        (revision > 0 && self.last.is_none_or(|(_, last)| last != revision)).then_some(revision)
    }

    /// What became of it. One that failed is due again with the next sample.
    pub(crate) fn compacted(&mut self, now: Duration, revision: i64, done: bool) {
        if done {
            self.last = Some((now, revision));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// What is compacted when (in minutes) if a hundred revisions are made per minute; `fails` says which attempts fail.
    fn run(
        setting: AutoCompaction,
        minutes: u32,
        revision_at: impl Fn(Duration) -> i64,
        mut fails: impl FnMut(Duration) -> bool,
    ) -> Vec<(u64, i64)> {
        let mut compactor = Compactor::new(setting).unwrap();
        let (mut now, mut done) = (Duration::ZERO, Vec::new());
        while now < minutes * MINUTE {
            compactor.sample(now, revision_at(now));
            now += compactor.pause();
            if let Some(revision) = compactor.due(now) {
                let failed = fails(now);
                compactor.compacted(now, revision, !failed);
                if !failed {
                    done.push((now.as_secs() / 60, revision));
                }
            }
        }
        done
    }

    fn hundred_a_minute(now: Duration) -> i64 {
        i64::try_from(now.as_secs()).unwrap() * 100 / 60 + 1
    }

    #[test]
    fn by_age_it_begins_after_the_period_and_goes_on_each_period() {
        let periodic = AutoCompaction::Periodic(10 * MINUTE);
        let done = run(periodic, 31, hundred_a_minute, |_| false);
        assert_eq!(done, [(10, 1), (20, 1001), (30, 2001)]);
    }

    #[test]
    fn by_age_it_goes_on_each_hour_if_the_period_is_longer() {
        let periodic = AutoCompaction::Periodic(5 * HOUR);
        let done = run(periodic, 8 * 60, hundred_a_minute, |_| false);
        assert_eq!(done, [(300, 1), (360, 6001), (420, 12001), (480, 18001)]);
    }

    #[test]
    fn what_has_not_changed_is_not_compacted_again() {
        let periodic = AutoCompaction::Periodic(10 * MINUTE);
        let still = |now: Duration| if now < 15 * MINUTE { hundred_a_minute(now) } else { 2000 };
        let done = run(periodic, 100, still, |_| false);
        assert_eq!(done, [(10, 1), (20, 1001), (30, 2000)]);
        let done = run(AutoCompaction::Revision(100), 60, |_| 500, |_| false);
        assert_eq!(done, [(5, 400)]);
    }

    #[test]
    fn what_failed_is_tried_again_soon() {
        let periodic = AutoCompaction::Periodic(10 * MINUTE);
        let fails = |now: Duration| now < 12 * MINUTE;
        let done = run(periodic, 24, hundred_a_minute, fails);
        assert_eq!(done, [(12, 201), (22, 1201)]);
    }

    #[test]
    fn by_count_it_looks_every_five_minutes_and_keeps_so_many() {
        let done = run(AutoCompaction::Revision(1000), 25, hundred_a_minute, |_| false);
        assert_eq!(done, [(15, 1), (20, 501), (25, 1001)]);
        assert_eq!(run(AutoCompaction::Revision(10_000), 25, hundred_a_minute, |_| false), []);
        assert!(Compactor::new(AutoCompaction::Off).is_none());
    }
}
