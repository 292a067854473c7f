//! Many threads on one log.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use quorate_raft::{GroupId, Index, Seq};
use quorate_wal::{Disk, DiskFile, DiskLock, Fate, LockError, MemoryDisk, Options, ReadError, Wal};
use support::{commands, open, persist, snapshot};

const WRITERS: u64 = 4;
const ROUNDS: u64 = 400;

/// Writers that wait for themselves, one that compacts and prepares, and readers, all at once.
#[test]
fn everything_at_once() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    let done = AtomicBool::new(false);
    let lasts: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|group| {
                let (wal, last) = (&wal, &lasts[group as usize]);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let first = round * 3 + 1;
                        let record = persist(round, 1, commands(first..=first + 2, 1, 120));
                        let position = wal.write(&[(GroupId(group), &record)]).unwrap();
                        wal.sync_to(position).unwrap();
                        assert!(wal.durable() >= position);
                        last.store(first + 2, Ordering::Release);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for (group, last) in lasts.iter().enumerate() {
                    let last = last.load(Ordering::Acquire);
                    if last > 60 {
                        wal.compact(GroupId(group as u64), &snapshot(last - 60, 1)).unwrap();
                    }
                }
                wal.prepare(32 << 10).unwrap();
                wal.mark().unwrap();
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for (group, last) in lasts.iter().enumerate() {
                    let last = last.load(Ordering::Acquire);
                    if last == 0 {
                        continue;
                    }
                    let from = last.saturating_sub(40).max(1);
                    match wal.read(GroupId(group as u64), Index(from), Index(last), 3_000) {
                        Ok(read) => {
                            let to = from + read.len() as u64 - 1;
                            assert_eq!(read, commands(from..=to, 1, 120));
                        }
                        Err(error) => {
                            assert!(matches!(error, ReadError::Compacted { .. }), "{error}");
                        }
                    }
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    let metrics = wal.metrics();
    assert_eq!(metrics.records, WRITERS * ROUNDS);
    assert_eq!(metrics.entries, WRITERS * ROUNDS * 3);
    assert!(metrics.sync_us.count <= metrics.records + metrics.segment_switches + ROUNDS);
    let opened = open(&disk.after_power_cut(|_, _| Fate::Dropped), 2);
    for group in 0..WRITERS {
        assert_eq!(opened.groups[&GroupId(group)].last_index, Index(ROUNDS * 3));
    }
}

/// One thread syncs in a loop for all who write: every sequence is reported, in order, and one
/// sync serves many.
#[test]
fn one_thread_syncs_for_all() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 1).wal;
    let mut reported = vec![0; WRITERS as usize];
    std::thread::scope(|scope| {
        for group in 0..WRITERS {
            let wal = &wal;
            scope.spawn(move || {
                for seq in 1..=ROUNDS {
                    wal.write(&[(GroupId(group), &persist(seq, 1, vec![]))]).unwrap();
                }
            });
        }
        while reported.iter().any(|seq| *seq < ROUNDS) {
            for (group, Seq(seq)) in wal.sync().unwrap() {
                assert!(seq > reported[group.0 as usize]);
                reported[group.0 as usize] = seq;
            }
        }
    });
    assert_eq!(reported, vec![ROUNDS; WRITERS as usize]);
}

/// Where somebody waits until it is opened, for a while.
#[derive(Default)]
struct Gate {
    /// One has come who reads: those who come later pass.
    taken: AtomicBool,
    /// Whether it is closed, and whether somebody waits.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self, patience: Duration) {
        let mut state = self.state.lock().unwrap();
        state.1 = true;
        self.changed.notify_all();
        let state = self.changed.wait_timeout_while(state, patience, |(closed, _)| *closed);
        state.unwrap().0.1 = false;
    }

    fn await_somebody(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |(_, waits)| !*waits).unwrap());
    }

    fn set(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }
}

/// A disk on which what is chosen waits at the gate before it is done.
struct SlowDisk {
    inner: MemoryDisk,
    gate: Arc<Gate>,
    slow: Slow,
}

struct SlowFile {
    inner: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
    slow: Slow,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slow {
    /// Writes of nothing but zeros.
    Zeros,
    Reads,
}

impl SlowDisk {
    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(SlowFile { inner, gate: Arc::clone(&self.gate), slow: self.slow })
    }
}

impl Disk for SlowDisk {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.inner.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.inner.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn lock(&self) -> Result<Box<dyn DiskLock>, LockError> {
        self.inner.lock()
    }
}

impl DiskFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.slow == Slow::Reads && !self.gate.taken.swap(true, Ordering::AcqRel) {
            self.gate.pass(Duration::from_secs(60));
        }
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.slow == Slow::Zeros && bytes.iter().all(|byte| *byte == 0) {
            // Those who write wait for it, as they should.
            self.gate.pass(Duration::from_millis(100));
        }
        self.inner.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }
}

/// Writers that catch up with a slice of zeros that is being written wait for it: it must not be
/// written over their records.
#[test]
fn zeros_never_cover_records() {
    let disk = MemoryDisk::new();
    let gate = Arc::new(Gate::default());
    let slow = SlowDisk { inner: disk.clone(), gate: Arc::clone(&gate), slow: Slow::Zeros };
    let wal = Wal::open(Arc::new(slow), &support::options(1)).unwrap().wal;
    // The next segment is made, and filled by half.
    wal.prepare(16 << 10).unwrap();
    wal.prepare(16 << 10).unwrap();
    gate.set(true);
    let entries = 100;
    std::thread::scope(|scope| {
        scope.spawn(|| wal.prepare(1 << 20).unwrap());
        scope.spawn(|| {
            gate.await_somebody();
            // In the first segment there is room for some; then the zeros are in the way.
            for next in 1..=entries {
                let record = persist(next, 1, commands(next..=next, 1, 300));
                wal.write(&[(GroupId(0), &record)]).unwrap();
            }
            gate.set(false);
        });
    });
    wal.sync().unwrap();
    assert!(wal.metrics().segment_switches > 0);
    let read = wal.read(GroupId(0), Index(1), Index(entries), usize::MAX).unwrap();
    assert_eq!(read, commands(1..=entries, 1, 300));
}

/// A segment that somebody reads is not written over, although nothing in it counts any more.
#[test]
fn readers_keep_their_segment() {
    let gate = Arc::new(Gate::default());
    let slow = SlowDisk { inner: MemoryDisk::new(), gate: Arc::clone(&gate), slow: Slow::Reads };
    // Segments that are freed are of the size that is used again.
    let options = Options { first_segment_bytes: 64 << 10, ..support::options(1) };
    let wal = Wal::open(Arc::new(slow), &options).unwrap().wal;
    let write = |next: u64| {
        wal.write(&[(GroupId(0), &persist(next, 1, commands(next..=next, 1, 900)))]).unwrap();
    };
    (1..=10).for_each(write);
    wal.sync().unwrap();
    gate.taken.store(false, Ordering::Release);
    gate.set(true);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| wal.read(GroupId(0), Index(3), Index(3), 1).unwrap());
        gate.await_somebody();
        for next in 11..=600 {
            write(next);
            wal.sync().unwrap();
            wal.prepare(64 << 10).unwrap();
            if next % 20 == 0 {
                wal.compact(GroupId(0), &snapshot(next - 1, 1)).unwrap();
            }
        }
        assert!(wal.metrics().segments_recycled > 0);
        gate.set(false);
        assert_eq!(read.join().unwrap(), commands(3..=3, 1, 900));
    });
}
