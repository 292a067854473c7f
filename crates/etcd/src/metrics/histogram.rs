//! Durations, counted by their size.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::text::{Labels, Page};

/// Buckets whose bounds grow by the factor two.
pub(crate) struct Histogram {
    start_nanos: u64,
    /// One for each bound, and one for what is larger than all.
    buckets: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
    /// What the page counts in, in nanoseconds.
    unit_nanos: f64,
}

impl Histogram {
    /// `count` bounds: `start`, twice as much, and so on.
    pub(crate) fn new(start: Duration, count: usize) -> Self {
        Self {
            start_nanos: u64::try_from(start.as_nanos()).unwrap_or(u64::MAX).max(1),
            buckets: (0..=count).map(|_| AtomicU64::new(0)).collect(),
            sum_nanos: AtomicU64::new(0),
            unit_nanos: 1e9,
        }
    }

    /// The same for a family of that name, which says the unit.
    pub(crate) fn named(name: &str, start: Duration, count: usize) -> Self {
        let unit_nanos = if name.ends_with("_milliseconds") { 1e6 } else { 1e9 };
        Self { unit_nanos, ..Self::new(start, count) }
    }

    /// Counts one duration.
    pub(crate) fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let ratio = nanos.div_ceil(self.start_nanos).max(1);
        // The first bound that is not smaller: its index is the logarithm, rounded up.
        let index = ratio.next_power_of_two().trailing_zeros() as usize;
        self.buckets[index.min(self.buckets.len() - 1)].fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }

    /// Whether nothing was counted yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.load(Relaxed) == 0)
    }

    /// Writes its samples.
    pub(crate) fn write(&self, page: &mut Page, name: &str, labels: Labels<'_>) {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let bounds = (0..counts.len() - 1)
            .map(|power| self.units(self.start_nanos.saturating_mul(1 << power)));
        page.histogram(name, labels, bounds, &counts, self.units(self.sum_nanos.load(Relaxed)));
    }

    fn units(&self, nanos: u64) -> f64 {
        nanos as f64 / self.unit_nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_at_the_first_bound_that_is_not_smaller() {
        let histogram = Histogram::new(Duration::from_millis(1), 14);
        for micros in [0, 1_000, 1_001, 2_000, 8_192_000, 8_192_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = histogram.buckets.iter().map(|count| count.load(Relaxed)).collect();
        assert_eq!(counts[..3], [2, 2, 0]);
        assert_eq!(counts[12..], [0, 1, 1]);
        let mut page = Page::default();
        histogram.write(&mut page, "h", &[]);
        let text = page.finish();
        assert!(text.starts_with("h_bucket{le=\"0.001\"} 2\nh_bucket{le=\"0.002\"} 4\n"), "{text}");
        let millis = Histogram::named("h_milliseconds", Duration::from_millis(100), 2);
        millis.observe(Duration::from_millis(150));
        let mut page = Page::default();
        millis.write(&mut page, "h_milliseconds", &[]);
        let page = page.finish();
        assert!(page.contains("h_milliseconds_bucket{le=\"100\"} 0\n"), "{page}");
        assert!(page.contains("h_milliseconds_sum 150\n"), "{page}");
        assert!(text.contains("h_bucket{le=\"8.192\"} 5\nh_bucket{le=\"+Inf\"} 6\n"), "{text}");
    }
}
