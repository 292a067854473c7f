//! When streams are due to notify their watchers of progress.

use std::collections::{BTreeMap, BTreeSet};

use crate::watch::hub::WatchConfig;
use crate::watch::intervals::mixed;
use crate::watch::queue::StreamId;

/// Least time between two notices.
const INTERVAL_MIN_US: u64 = 100_000;

#[derive(Debug)]
pub(super) struct Ticks {
    random: u64,
    /// Streams that wait for the time to be known.
    new: BTreeSet<StreamId>,
    by_time: BTreeSet<(u64, StreamId)>,
    by_stream: BTreeMap<StreamId, u64>,
}

impl Ticks {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: seed,
            new: BTreeSet::new(),
            by_time: BTreeSet::new(),
            by_stream: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, stream: StreamId) {
        if !self.by_stream.contains_key(&stream) {
            self.new.insert(stream);
        }
    }

    pub(super) fn remove(&mut self, stream: StreamId) {
        self.new.remove(&stream);
        if let Some(at_us) = self.by_stream.remove(&stream) {
            self.by_time.remove(&(at_us, stream));
        }
    }

    /// The streams whose time has come, with their next time planned.
    pub(super) fn due(&mut self, config: WatchConfig, now_us: u64) -> Vec<StreamId> {
        let mut due = Vec::new();
        while let Some((at_us, stream)) = self.by_time.first().copied()
            && at_us <= now_us
        {
            self.by_time.pop_first();
            due.push(stream);
        }
        let new = core::mem::take(&mut self.new);
        for stream in due.iter().copied().chain(new) {
            self.random = self.random.wrapping_add(1);
            let interval_us = config.progress_interval_us.max(INTERVAL_MIN_US);
            let jitter_us = mixed(self.random) % (interval_us / 10 + 1);
            let at_us = now_us.saturating_add(interval_us).saturating_add(jitter_us);
            self.by_stream.insert(stream, at_us);
            self.by_time.insert((at_us, stream));
        }
        due
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.by_time.first().map(|(at_us, _)| *at_us)
    }
}
