//! What happens again and again is told at growing intervals.

use std::collections::HashMap;
use std::hash::Hash;

use quorate_raft::Time;

/// After this time it is told again if it still happens, then after twice the time, and so on.
const FIRST_US: u64 = 10_000_000;
/// Up to this.
const LONGEST_US: u64 = 3_600_000_000;
/// What has not happened for so long is over, and begins anew.
const OVER_US: u64 = 60_000_000;
/// Matters that are remembered; then the one is forgotten that happened longest ago.
const KEPT_MAX: usize = 256;

/// Remembers what was told, by matter.
pub(crate) struct Repeats<M> {
    kept: HashMap<M, Repeat>,
}

struct Repeat {
    /// When it happened last.
    seen: Time,
    /// When it is to be told next.
    tell: Time,
    pause_us: u64,
    /// How often it has happened since it was told.
    untold: u64,
    told: bool,
}

/// Whether something is to be told now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tell {
    Not,
    First,
    /// Again, after it has happened so often.
    Again(u64),
}

impl<M> Default for Repeats<M> {
    fn default() -> Self {
        Self { kept: HashMap::new() }
    }
}

impl<M: Eq + Hash + Clone> Repeats<M> {
    /// It has happened. The first time it waits for `patience_us`, in case it passes.
    pub(crate) fn again(&mut self, matter: &M, patience_us: u64, now: Time) -> Tell {
        if self.kept.len() >= KEPT_MAX && !self.kept.contains_key(matter) {
            let oldest = self.kept.iter().min_by_key(|(_, repeat)| repeat.seen);
            if let Some(oldest) = oldest.map(|(matter, _)| matter.clone()) {
                self.kept.remove(&oldest);
            }
        }
        let begin = || Repeat {
            seen: now,
            tell: now.after(patience_us),
            pause_us: FIRST_US,
            untold: 0,
            told: false,
        };
        let repeat = self.kept.entry(matter.clone()).or_insert_with(begin);
        if now.since(repeat.seen) > OVER_US {
            *repeat = begin();
        }
        repeat.seen = now;
        repeat.untold += 1;
        if now < repeat.tell {
            return Tell::Not;
        }
        repeat.tell = now.after(repeat.pause_us);
        repeat.pause_us = repeat.pause_us.saturating_mul(2).min(LONGEST_US);
        let times = std::mem::take(&mut repeat.untold);
        if std::mem::replace(&mut repeat.told, true) { Tell::Again(times) } else { Tell::First }
    }

    /// It is over. Whether it was told.
    pub(crate) fn over(&mut self, matter: &M) -> bool {
        self.kept.remove(matter).is_some_and(|repeat| repeat.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn once_then_at_growing_intervals() {
        let mut repeats = Repeats::default();
        let mut told = Vec::new();
        for second in 0..200 {
            match repeats.again(&"cut", 0, Time(second * SECOND)) {
                Tell::Not => {}
                tell => told.push((second, tell)),
            }
        }
        let again = |second, times| (second, Tell::Again(times));
        let expected =
            [(0, Tell::First), again(10, 10), again(30, 20), again(70, 40), again(150, 80)];
        assert_eq!(told, expected);
        // Another matter has its own intervals.
        assert_eq!(repeats.again(&"torn", 0, Time(200 * SECOND)), Tell::First);
        // And what was over begins anew.
        assert_eq!(repeats.again(&"cut", 0, Time(270 * SECOND)), Tell::First);
        assert!(repeats.over(&"cut"));
        assert!(!repeats.over(&"cut"));
        assert_eq!(repeats.again(&"cut", 0, Time(271 * SECOND)), Tell::First);
    }

    #[test]
    fn patience() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.again(&1, SECOND, Time(0)), Tell::Not);
        assert!(!repeats.over(&1), "it passed before it was told");
        assert_eq!(repeats.again(&1, SECOND, Time(5 * SECOND)), Tell::Not);
        assert_eq!(repeats.again(&1, SECOND, Time(6 * SECOND)), Tell::First);
    }

    #[test]
    fn memory_is_bounded() {
        let mut repeats = Repeats::default();
        for matter in 0..10 * KEPT_MAX {
            assert_eq!(repeats.again(&matter, 0, Time(matter as u64)), Tell::First);
        }
        assert_eq!(repeats.kept.len(), KEPT_MAX);
        let last = 10 * KEPT_MAX - 1;
        assert_eq!(repeats.again(&last, 0, Time(last as u64 + 1)), Tell::Not);
    }
}
