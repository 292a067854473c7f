//! The log of this project.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_raft::{
    ClusterId, Entry, GroupId, HardState, Index, LogId, Membership, NodeId, Payload, Persist, Seq,
    SnapshotMeta, Term,
};
use quorate_wal::{Options, Progress, RealDisk, Wal};

use crate::measure::{Log, payload};

/// Slices in which the next segment is prepared.
const PREPARE_BYTES: usize = 128 << 10;
const PREPARE_BYTES_MAX: usize = 1 << 20;
/// Entries that a group keeps when its log is compacted.
const KEEP_BYTES: u64 = 16 << 20;

pub(crate) struct Quorate {
    wal: Wal,
    seq: AtomicU64,
    /// The entries, made before: their checksums are not the log's work.
    entries: Vec<Entry>,
    /// Compact all the time, so that segments come back.
    compacts: bool,
    /// The last index of each writer.
    last: Vec<AtomicU64>,
    helper: Mutex<Option<std::thread::Thread>>,
}

impl Quorate {
    pub(crate) fn new(dir: &Path, writers: usize, compacts: bool) -> Self {
        let disk = Arc::new(RealDisk::new(dir).expect("a directory"));
        let mut options = Options::new(ClusterId(1), NodeId(1), std::process::id().into());
        // The segment in use has its full size, and as the bare loop's file it is filled before
        // the time is taken; the next one is filled while the writers write.
        options.first_segment_bytes = options.segment_bytes;
        let wal = Wal::open(disk, &options).expect("a log").wal;
        let entry = |index: u64| {
            let command = Payload::Command(Bytes::from(payload(index)));
            Entry::new(Index(index), Term(1), command)
        };
        let entries = (0..1024).map(entry).collect();
        let last = (0..writers).map(|_| AtomicU64::new(0)).collect();
        let helper = Mutex::new(None);
        let log = Self { wal, seq: AtomicU64::new(1), entries, compacts, last, helper };
        if compacts {
            log.warm_up();
        }
        log
    }

    /// Brings the log where it is after the first minutes of a node's life: segments that were
    /// written and compacted are there to be used again.
    fn warm_up(&self) {
        let group = GroupId(u64::MAX);
        let mut index = 1;
        while self.wal.metrics().segment_switches < 4 {
            let append = (index..index + 256).map(|index| self.entry(index)).collect();
            index += 256;
            let persist = Persist { seq: Seq(0), hard_state: HardState::default(), append };
            self.wal.write(&[(group, &persist)]).expect("a write");
            while self.wal.preparation_due() > 0 {
                self.wal.prepare(PREPARE_BYTES_MAX).expect("a preparation");
            }
        }
        self.wal.sync().expect("a sync");
        let snapshot = SnapshotMeta {
            id: LogId::new(Index(index - 1), Term(1)),
            membership: Arc::new(Membership::default()),
        };
        self.wal.compact(group, &snapshot).expect("a compaction");
        while self.wal.prepare(PREPARE_BYTES_MAX).expect("a preparation") != Progress::Idle {
            self.wal.sync().expect("a sync");
        }
    }

    fn entry(&self, index: u64) -> Entry {
        let made = &self.entries[index as usize % self.entries.len()];
        Entry { index: Index(index), ..made.clone() }
    }

    fn compact(&self) {
        let index = |last: &AtomicU64| last.load(Ordering::Relaxed);
        for (writer, last) in self.last.iter().enumerate() {
            let keep = KEEP_BYTES / 300 / self.last.len() as u64;
            let start = Index(index(last).saturating_sub(keep));
            if start > Index::ZERO {
                let membership = Arc::new(Membership::default());
                let snapshot = SnapshotMeta { id: LogId::new(start, Term(1)), membership };
                self.wal.compact(GroupId(writer as u64), &snapshot).expect("a compaction");
            }
        }
    }
}

impl Log for Quorate {
    fn append(&self, writer: usize, first_index: u64, count: usize) {
        let indices = first_index..first_index + count as u64;
        let append = indices.map(|index| self.entry(index)).collect();
        let seq = Seq(self.seq.fetch_add(1, Ordering::Relaxed));
        let persist = Persist {
            seq,
            hard_state: HardState { term: Term(1), ..HardState::default() },
            append,
        };
        let group = GroupId(writer as u64);
        let position = self.wal.write(&[(group, &persist)]).expect("a write");
        self.wal.sync_to(position).expect("a sync");
        self.last[writer].store(first_index + count as u64 - 1, Ordering::Relaxed);
        if self.wal.preparation_due() >= PREPARE_BYTES
            && let Some(helper) = &*self.helper.lock().expect("the helper")
        {
            helper.unpark();
        }
    }

    fn written_bytes(&self) -> u64 {
        let metrics = self.wal.metrics();
        metrics.written_bytes + metrics.filled_bytes
    }

    fn report(&self) -> String {
        let m = self.wal.metrics();
        format!(
            "write {:.1} us, sync {:.1} us, {:.1} records a sync, {} switches ({} unprepared, {} recycled)",
            m.write_us.sum as f64 / m.write_us.count.max(1) as f64,
            m.sync_us.sum as f64 / m.sync_us.count.max(1) as f64,
            m.sync_records.sum as f64 / m.sync_records.count.max(1) as f64,
            m.segment_switches,
            m.segments_unprepared,
            m.segments_recycled,
        )
    }

    fn background(&self, stop: &AtomicBool) {
        *self.helper.lock().expect("the helper") = Some(std::thread::current());
        let mut switches = 0;
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(100));
            let now = self.wal.metrics().segment_switches;
            if self.compacts && now != switches {
                self.compact();
                switches = now;
            }
            loop {
                let due = self.wal.preparation_due();
                if due < PREPARE_BYTES {
                    break;
                }
                let progress = self.wal.prepare(due.min(PREPARE_BYTES_MAX));
                if progress.expect("a preparation") == Progress::AfterSync {
                    // The writers sync all the time.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}
