//! Driving a log with some writers for some time.

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::ENTRY_BYTES;

/// A log that several writers append to, each in its own group.
pub(crate) trait Log: Sync {
    /// Appends `count` entries to the group of `writer`, behind those appended before, and returns
    /// when they are durable.
    fn append(&self, writer: usize, first_index: u64, count: usize);

    /// Bytes written to files so far, as far as the log can tell.
    fn written_bytes(&self) -> u64 {
        0
    }

    /// What else there is to say.
    fn report(&self) -> String {
        String::new()
    }

    /// Work beside the writers; called by a thread of its own until `stop`.
    fn background(&self, _stop: &AtomicBool) {}
}

/// What came out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) entries_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) cpu_us_per_entry: f64,
    /// Bytes written per byte appended.
    pub(crate) amplification: f64,
}

/// Runs `writers` writers with batches of `batch` entries.
pub(crate) fn run(log: &dyn Log, writers: usize, batch: usize, duration: Duration) -> Outcome {
    let stop = AtomicBool::new(false);
    let barrier = Barrier::new(writers + 1);
    let mut latencies: Vec<u64> = Vec::new();
    let written_before = log.written_bytes();
    let mut elapsed = 0.0;
    let mut cpu = 0.0;
    std::thread::scope(|scope| {
        let background = scope.spawn(|| log.background(&stop));
        let spawn = |writer: usize| {
            let (stop, barrier) = (&stop, &barrier);
            scope.spawn(move || {
                pin(writer);
                let mut latencies = Vec::with_capacity(1 << 16);
                let mut index = 1;
                // The first few make files and fill caches.
                for _ in 0..20 {
                    log.append(writer, index, batch);
                    index += batch as u64;
                }
                barrier.wait();
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    log.append(writer, index, batch);
                    latencies.push(begun.elapsed().as_nanos() as u64);
                    index += batch as u64;
                }
                latencies
            })
        };
        let threads: Vec<_> = (0..writers).map(spawn).collect();
        barrier.wait();
        let (begun, cpu_begun) = (Instant::now(), cpu_seconds());
        std::thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            latencies.extend(thread.join().expect("a writer"));
        }
        elapsed = begun.elapsed().as_secs_f64();
        cpu = cpu_seconds() - cpu_begun;
        background.join().expect("the background work");
    });
    latencies.sort_unstable();
    let entries = (latencies.len() * batch) as f64;
    let warm_up = (20 * writers * batch) as f64;
    let percentile = |part: f64| {
        let at = ((latencies.len() as f64 * part) as usize).min(latencies.len() - 1);
        latencies[at] as f64 / 1000.0
    };
    let appended = (entries + warm_up) * ENTRY_BYTES as f64;
    Outcome {
        entries_per_second: entries / elapsed,
        p50_us: percentile(0.5),
        p99_us: percentile(0.99),
        p999_us: percentile(0.999),
        max_us: percentile(1.0),
        cpu_us_per_entry: cpu * 1e6 / entries,
        amplification: (log.written_bytes() - written_before) as f64 / appended,
    }
}

/// Keeps a writer on one processor: on a virtual machine it matters a lot whether that is the one
/// that the disk interrupts, and this should be the same for all that are compared.
fn pin(writer: usize) {
    let mut set = CpuSet::new();
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    set.set((writer + 1) % processors);
    let _ = sched_setaffinity(None, &set);
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Removes what a run has left, and lets the disk come to rest.
pub(crate) fn clear(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).expect("a directory to write in");
    let _ = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
}

/// The payload of an entry: its index and something that looks like data.
pub(crate) fn payload(index: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENTRY_BYTES);
    bytes.extend_from_slice(&index.to_le_bytes());
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < ENTRY_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(ENTRY_BYTES);
    bytes
}
