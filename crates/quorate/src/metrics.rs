//! What a node has done, as numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What a node has done since it was started, for whatever collects metrics.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn values(&self) -> Metrics {
                Metrics { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Proposals taken in, in whatever way they end.
    proposals,
    /// Proposals refused at once because too much was under way.
    proposals_busy,
    /// Reads taken in.
    reads,
    /// Entries given to the state machine.
    entries_applied,
    /// Batches in which they were given.
    batches_applied,
    /// Messages received from peers.
    messages_received,
    /// Messages of peers that could not be read, or that named another sender.
    messages_bad,
    /// Small messages of peers that were dropped because too many waited; they are sent again.
    messages_lost,
    /// Messages sent to peers.
    messages_sent,
    /// Records given to the log.
    records_written,
    /// Times that the driver looked at what had arrived.
    turns,
    /// Snapshots written.
    snapshots_taken,
    /// Snapshots that could not be written.
    snapshots_failed,
    /// Snapshots of other nodes that were installed.
    snapshots_installed,
    /// Snapshots of other nodes that could not be fetched; they are asked for again.
    fetches_failed,
    /// Times that the disk was full.
    disk_full,
    /// Times that a write was found to be under way for longer than an election timeout.
    disk_stalls,
    /// Highest index that the state machine has applied.
    applied_index,
    /// The term.
    term,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }

    pub(crate) fn set(counter: &AtomicU64, value: u64) {
        counter.store(value, Relaxed);
    }
}
