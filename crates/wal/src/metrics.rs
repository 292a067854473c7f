//! Counters and histograms as plain numbers, for upper layers to export.

/// What a log has done since it was opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    /// Records written for groups.
    pub records: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of the payloads of those entries.
    pub payload_bytes: u64,
    /// Bytes written to segments in all: records of every kind, padding, segment headers.
    pub written_bytes: u64,
    /// Times that a segment was full and the next one taken.
    pub segment_switches: u64,
    /// Of those, how often no prepared segment was there and a small one had to be made at once.
    /// If this grows, [`Wal::prepare`](crate::Wal::prepare) is not called often enough.
    pub segments_unprepared: u64,
    /// Segments that were used again.
    pub segments_recycled: u64,
    /// Segments that were removed because enough were in stock.
    pub segments_removed: u64,
    /// Bytes of zeros written ahead.
    pub filled_bytes: u64,
    /// Bytes of records that were written again so that an old segment could be freed.
    pub forwarded_bytes: u64,
    /// Microseconds that each write took.
    pub write_us: Histogram,
    /// Microseconds that each sync took.
    pub sync_us: Histogram,
    /// Records made durable by each sync.
    pub sync_records: Histogram,
    /// Bytes made durable by each sync.
    pub sync_bytes: Histogram,
}

/// How often a value was in which range: bucket 0 counts zeros, bucket `n` the values of `n` bits,
/// that is from `2^(n-1)` on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    /// The counts.
    pub buckets: [u64; Self::BUCKETS],
    /// How many values there were.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The largest.
    pub max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; Self::BUCKETS], count: 0, sum: 0, max: 0 }
    }
}

impl Histogram {
    /// Values of more bits than that are counted in the last bucket.
    pub const BUCKETS: usize = 40;

    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        self.buckets[bits.min(Self::BUCKETS - 1)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
    }

    /// A value that `percent` of all values do not exceed, to within a factor of two; zero if
    /// there were none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted = (self.count as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (bits, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return ((1u64 << bits) - 1).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_buckets_of_their_bits() {
        let mut histogram = Histogram::default();
        for value in [0, 1, 2, 3, 4, 1000, u64::MAX] {
            histogram.add(value);
        }
        assert_eq!(histogram.buckets[..4], [1, 1, 2, 1]);
        assert_eq!(histogram.buckets[10], 1);
        assert_eq!(histogram.buckets[Histogram::BUCKETS - 1], 1);
        assert_eq!(histogram.max, u64::MAX);
        assert_eq!(histogram.percentile(50.0), 3);
        assert_eq!(Histogram::default().percentile(99.0), 0);
    }
}
