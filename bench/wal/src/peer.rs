//! `raft-engine`, the log of TiKV.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::measure::{Log, payload};

/// An entry as TiKV's are: a protobuf message with its index inside.
#[derive(Clone)]
pub(crate) struct Message;

impl MessageExt for Message {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let (index, _) = entry.value.split_first_chunk().expect("the index in front");
        u64::from_le_bytes(*index)
    }
}

pub(crate) struct Peer {
    engine: Engine,
    written: AtomicU64,
}

impl Peer {
    /// With `prefill`, it has files with zeros in stock: its best case, not its default.
    pub(crate) fn open(dir: &Path, prefill: bool) -> Self {
        let config = Config {
            prefill_for_recycle: prefill,
            prefill_limit: prefill.then_some(ReadableSize::gb(2)),
            dir: dir.display().to_string(),
            // No compression.
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        };
        Self { engine: Engine::open(config).expect("raft-engine"), written: AtomicU64::new(0) }
    }
}

impl Log for Peer {
    fn append(&self, writer: usize, first_index: u64, count: usize) {
        let entry = |index: u64| BytesValue { value: payload(index), ..BytesValue::default() };
        let entries: Vec<_> = (first_index..first_index + count as u64).map(entry).collect();
        let mut batch = LogBatch::with_capacity(1);
        // Regions begin at 1.
        batch.add_entries::<Message>(writer as u64 + 1, &entries).expect("entries");
        let written = self.engine.write(&mut batch, true).expect("a write");
        self.written.fetch_add(written as u64, Ordering::Relaxed);
    }

    fn written_bytes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}
