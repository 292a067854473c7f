//! How long it takes to open a log of 1 GiB that is in the page cache.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quorate_raft::{
    ClusterId, Entry, GroupId, HardState, Index, NodeId, Payload, Persist, Seq, Term,
};
use quorate_wal::{Options, RealDisk, Wal};

use crate::measure;

const LOG_BYTES: u64 = 1 << 30;

pub(crate) fn run(dir: &Path) {
    for batch in [1, 16, 256] {
        let dir = dir.join("recovery");
        measure::clear(&dir);
        let disk = Arc::new(RealDisk::new(&dir).expect("a directory"));
        let options = Options::new(ClusterId(1), NodeId(1), 7);
        let wal = Wal::open(disk.clone(), &options).expect("a log").wal;
        let mut index = 1;
        while wal.metrics().written_bytes < LOG_BYTES {
            while wal.preparation_due() > 0 {
                wal.prepare(8 << 20).expect("a preparation");
            }
            for _ in 0..100 {
                let entry = |index| {
                    let command = Payload::Command(Bytes::from(measure::payload(index)));
                    Entry::new(Index(index), Term(1), command)
                };
                let append: Vec<Entry> = (index..index + batch).map(entry).collect();
                index += batch;
                let hard_state = HardState { term: Term(1), ..HardState::default() };
                let persist = Persist { seq: Seq(index), hard_state, append };
                wal.write(&[(GroupId(0), &persist)]).expect("a write");
            }
            wal.sync().expect("a sync");
        }
        let bytes = wal.metrics().written_bytes as f64;
        let index_bytes = wal.usage().index_bytes;
        wal.close().expect("a close");
        drop(wal);
        for _ in 0..3 {
            let begun = Instant::now();
            let opened = Wal::open(disk.clone(), &options).expect("a log");
            let seconds = begun.elapsed().as_secs_f64();
            assert!(opened.damage.is_empty());
            assert_eq!(opened.groups[&GroupId(0)].last_index, Index(index - 1));
            println!(
                "opening {:.2} GiB, batch {batch}: {:.0} ms, {:.2} GiB/s; index {:.2} bytes per entry",
                bytes / LOG_BYTES as f64,
                seconds * 1e3,
                bytes / LOG_BYTES as f64 / seconds,
                index_bytes as f64 / index as f64,
            );
            opened.wal.close().expect("a close");
        }
        measure::clear(&dir);
    }
}
