//! Spans of time, counted by size.

use std::time::Duration;

/// Each power of two is cut into so many buckets, so what is read back is at most 1.6 % too large.
const PARTS_BITS: u32 = 6;
const PARTS: usize = 1 << PARTS_BITS;
const BUCKETS: usize = (64 - PARTS_BITS as usize + 1) * PARTS;

/// How often each span was seen. Recording touches one counter, and allocates nothing.
#[derive(Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum_ns: u128,
    min_ns: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, sum_ns: 0, min_ns: u64::MAX, max_ns: 0 }
    }
}

impl Histogram {
    /// Counts a span.
    pub(crate) fn record(&mut self, span: Duration) {
        let ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds what another one has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many spans were counted.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The shortest, in microseconds.
    pub(crate) fn min_us(&self) -> f64 {
        if self.count == 0 { 0.0 } else { microseconds(self.min_ns) }
    }

    /// The longest, in microseconds.
    pub(crate) fn max_us(&self) -> f64 {
        microseconds(self.max_ns)
    }

    /// The mean, in microseconds.
    #[allow(clippy::cast_precision_loss, reason = "more digits than the clock has remain")]
    pub(crate) fn mean_us(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum_ns as f64 / self.count as f64 / 1000.0 }
    }

    /// What `share` of all spans did not exceed, in microseconds.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the share is between 0 and 1, and counts are far below 2^52"
    )]
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= rank {
                return microseconds(upper(bucket).min(self.max_ns));
            }
        }
        0.0
    }
}

/// Where a span is counted.
fn bucket(ns: u64) -> usize {
    // The first two powers of `PARTS` are counted one by one.
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(PARTS_BITS + 1);
    shift as usize * PARTS + usize::try_from(ns >> shift).unwrap_or(usize::MAX)
}

/// The longest span of a bucket.
fn upper(bucket: usize) -> u64 {
    let shift = (bucket / PARTS).saturating_sub(1);
    let first = (bucket - shift * PARTS) as u64;
    (((u128::from(first) + 1) << shift) - 1).try_into().unwrap_or(u64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "a span of more than 2^52 ns is 52 days")]
fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_is_in_a_bucket_that_is_hardly_wider() {
        for power in 0..64 {
            for offset in [0_u64, 1, 7] {
                let ns = (1_u64 << power).saturating_add((1_u64 << power) / 8 * offset);
                let upper = upper(bucket(ns));
                assert!(upper >= ns, "{ns} is counted as at most {upper}");
                assert!(upper - ns <= ns / 64, "{ns} is counted as {upper}");
            }
        }
        assert_eq!(upper(bucket(u64::MAX)), u64::MAX);
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_those_of_what_was_seen() {
        let mut low = Histogram::default();
        let mut high = Histogram::default();
        for us in 1..=500 {
            low.record(Duration::from_micros(us));
            high.record(Duration::from_micros(us + 500));
        }
        low.add(&high);
        assert_eq!(low.count(), 1000);
        for (share, us) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1000.0)] {
            let seen = low.quantile_us(share);
            assert!((us..us * 1.02).contains(&seen), "{share}: {seen} instead of {us}");
        }
        assert!((low.mean_us() - 500.5).abs() < 0.001);
        assert!((low.min_us() - 1.0).abs() < 0.001);
        assert!((low.max_us() - 1000.0).abs() < 0.001);
    }

    #[test]
    fn nothing_seen_is_zero() {
        let none = Histogram::default();
        assert!(none.quantile_us(0.99).abs() < f64::EPSILON);
        assert!(none.mean_us().abs() < f64::EPSILON && none.min_us().abs() < f64::EPSILON);
    }
}
