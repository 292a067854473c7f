//! Rounds of heartbeats: how a leader knows since when it has been heard.
//!
//! An answer to a round proves that the peer followed this leader after the round was *sent*. All
//! that rests on time (check-quorum, leases) therefore counts from the sending, never from the
//! arrival of the answer: an answer can be old.

use alloc::collections::VecDeque;

use crate::types::Time;

/// The number of the latest round, and when recent ones were sent.
#[derive(Debug)]
pub(crate) struct Rounds {
    latest: u64,
    /// When the rounds up to `latest` were sent, ascending.
    sent_at: VecDeque<Time>,
}

/// As many rounds are remembered at most; an answer to an older one proves nothing about time.
const REMEMBERED_MAX: usize = 4096;

impl Rounds {
    /// The first round begins with the term.
    pub(crate) fn new(now: Time) -> Self {
        Self { latest: 1, sent_at: VecDeque::from([now]) }
    }

    pub(crate) const fn latest(&self) -> u64 {
        self.latest
    }

    /// Begins a new round.
    pub(crate) fn begin(&mut self, now: Time) -> u64 {
        if self.sent_at.len() >= REMEMBERED_MAX {
            self.sent_at.pop_front();
        }
        self.sent_at.push_back(now);
        self.latest += 1;
        self.latest
    }

    /// When `round` was sent, if it is remembered.
    pub(crate) fn sent_at(&self, round: u64) -> Option<Time> {
        let oldest = self.latest + 1 - self.sent_at.len() as u64;
        let place = round.checked_sub(oldest)?;
        self.sent_at.get(usize::try_from(place).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_when_rounds_were_sent() {
        let mut rounds = Rounds::new(Time(10));
        for round in 2..10_000 {
            assert_eq!(rounds.begin(Time(round * 10)), round);
        }
        assert_eq!(rounds.sent_at(9_999), Some(Time(99_990)));
        assert_eq!(rounds.sent_at(10_000), None);
        assert_eq!(rounds.sent_at(1), None);
    }
}
