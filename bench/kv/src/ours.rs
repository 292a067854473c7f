//! The store.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_kv::{
    Command, Compact, LogPlace, Put, Range, Reader, Revision, Store, StoreConfig, restore_file,
};

use crate::bare::FLUSH_S;
use crate::measure::{Puts, Watch, resident_bytes, scattered};
use crate::{Plan, key, thousand, value};

fn path(plan: &Plan) -> PathBuf {
    plan.dir.join("ours")
}

fn create(plan: &Plan, config: StoreConfig) -> Store {
    let _ = std::fs::remove_file(path(plan));
    Store::open_file(&path(plan), config).expect("a new store").0
}

/// Applies batches, and flushes on a second thread.
struct Writer {
    store: Store,
    index: u64,
    flushed: Instant,
    flush: Option<std::thread::JoinHandle<()>>,
    worst_s: f64,
}

impl Writer {
    fn new(store: Store, index: u64) -> Self {
        Self { store, index, flushed: Instant::now(), flush: None, worst_s: 0.0 }
    }

    fn apply(&mut self, commands: &[Command]) {
        let begun = Instant::now();
        let replies = self.store.apply(commands, &mut ()).expect("the disk is healthy");
        assert!(replies.iter().all(Result::is_ok));
        self.index += 1;
        self.store.finish(LogPlace { index: self.index, term: 1 }, []);
        if self.store.must_flush() {
            self.wait();
        }
        if self.flushed.elapsed().as_secs_f64() > FLUSH_S
            && self.flush.as_ref().is_none_or(|flush| flush.is_finished())
        {
            self.wait();
            self.begin();
        }
        self.worst_s = self.worst_s.max(begun.elapsed().as_secs_f64());
    }

    fn begin(&mut self) {
        self.flushed = Instant::now();
        self.flush = self.store.begin_flush().map(|flush| {
            std::thread::spawn(move || {
                flush.write().expect("the disk is healthy");
            })
        });
    }

    fn wait(&mut self) {
        if let Some(flush) = self.flush.take() {
            flush.join().expect("flushes do not panic");
        }
    }

    /// Until everything is durable.
    fn end(&mut self) {
        self.wait();
        self.begin();
        self.wait();
    }
}

fn put(number: u64, of: u64) -> Command {
    Command::Put(Put { key: key(number), value: value(of), ..Put::default() })
}

/// Puts of new keys, in batches.
pub fn puts(plan: &Plan, batch: u64) -> Puts {
    let mut writer = Writer::new(create(plan, StoreConfig::default()), 0);
    let watch = Watch::start();
    let mut count = 0;
    while watch.wall_s() < plan.seconds {
        let commands: Vec<_> = (count..count + batch).map(|n| put(n, n)).collect();
        writer.apply(&commands);
        count += batch;
    }
    writer.end();
    watch.puts(count, writer.worst_s)
}

fn get(reader: &Reader, number: u64, revision: i64) {
    let range = Range { key: key(number), revision: Revision(revision), ..Range::default() };
    let reply = reader.range(&range).expect("the disk is healthy");
    assert_eq!(reply.kvs.len(), 1);
}

fn gets(reader: &Reader, plan: &Plan, name: &str) {
    let watch = Watch::start();
    for n in 0..plan.reads {
        get(reader, scattered(n, plan.keys), 0);
    }
    watch.row(name, plan.reads);
}

fn ranges(reader: &Reader, plan: &Plan, name: &str) {
    let count = plan.reads / 500;
    let watch = Watch::start();
    for n in 0..count {
        let (key, range_end) = thousand(n, plan.keys);
        let range = Range { key, range_end, limit: 1000, ..Range::default() };
        let reply = reader.range(&range).expect("the disk is healthy");
        assert!(!reply.kvs.is_empty());
        drop(std::hint::black_box(reply));
    }
    watch.row(name, count);
}

/// Ten million keys: filling, starting, reading, counting.
pub fn large(plan: &Plan) {
    let mut writer = Writer::new(create(plan, StoreConfig::default()), 0);
    let watch = Watch::start();
    for from in (0..plan.keys).step_by(256) {
        let commands: Vec<_> = (from..(from + 256).min(plan.keys)).map(|n| put(n, n)).collect();
        writer.apply(&commands);
    }
    writer.end();
    watch.row("put, in batches of 256", plan.keys);
    let reader = writer.store.reader();
    gets(&reader, plan, "point get");
    ranges(&reader, plan, "1000-key range");
    counts(&reader, plan);
    drop((reader, writer));
    start(plan, 64 << 20);
}

/// A few keys of all, and how many there are.
fn counts(reader: &Reader, plan: &Plan) {
    let count = (plan.reads / 1000).max(10);
    let (key, range_end) = (Bytes::from_static(b"/"), Bytes::from_static(b"\0"));
    let range = Range { key, range_end, limit: 10, ..Range::default() };
    let watch = Watch::start();
    for _ in 0..count {
        assert_eq!(reader.range(&range).expect("the disk is healthy").count as u64, plan.keys);
    }
    watch.row("10 keys of all, and the count of all", count);
}

/// In a process of its own: that is the one whose memory counts.
fn start(plan: &Plan, values_bytes_max: usize) {
    let values = values_bytes_max.to_string();
    let this = std::env::current_exe().expect("it runs");
    let status = std::process::Command::new(this)
        .args(["--open".as_ref(), path(plan).as_os_str(), values.as_ref()])
        .status();
    assert!(status.expect("it can be run").success());
}

/// Everything that needs a filled store.
pub fn filled(plan: &Plan) {
    println!();
    // All values in memory.
    let roomy = StoreConfig { values_bytes_max: 1 << 30, ..StoreConfig::default() };
    let mut writer = Writer::new(create(plan, roomy), 0);
    for from in (0..plan.keys).step_by(256) {
        let commands: Vec<_> = (from..(from + 256).min(plan.keys)).map(|n| put(n, n)).collect();
        writer.apply(&commands);
    }
    writer.end();
    let reader = writer.store.reader();
    gets(&reader, plan, "point get, values in memory");
    ranges(&reader, plan, "1000-key range, values in memory");
    counts(&reader, plan);

    // Half of all keys get a second revision; then the first of these is forgotten.
    let first = reader.revision().0;
    for from in (0..plan.keys / 2).step_by(256) {
        let commands: Vec<_> = (from..from + 256).map(|n| put(n * 2 % plan.keys, n + 7)).collect();
        writer.apply(&commands);
    }
    writer.end();
    let watch = Watch::start();
    for n in 0..plan.reads / 4 {
        get(&reader, scattered(n, plan.keys / 2) * 2, first);
    }
    watch.row("historical point get", plan.reads / 4);
    compaction(&mut writer);
    defragmentation(plan, &mut writer);
    drop(reader);
    drop(writer);

    for (name, values_bytes_max) in
        [("64 MiB of values in memory", 64 << 20), ("1 MiB of values in memory", 1 << 20)]
    {
        start(plan, values_bytes_max);
        let config = StoreConfig { values_bytes_max, ..StoreConfig::default() };
        let (store, _) = Store::open_file(&path(plan), config).expect("it is ours");
        let reader = store.reader();
        gets(&reader, plan, &format!("point get, {name}"));
        ranges(&reader, plan, &format!("1000-key range, {name}"));
    }

    // Beside a writer, which fills the history.
    let (store, opened) = Store::open_file(&path(plan), roomy).expect("it is ours");
    let mut writer = Writer::new(store, opened.applied.index);
    let reader = writer.store.reader();
    beside_writer(plan, &mut writer, &reader);
    snapshot(plan, &mut writer, &reader);
}

/// Opens a filled store, and says what that takes.
pub fn open(path: &std::path::Path, values: &str) {
    let before = resident_bytes();
    let watch = Watch::start();
    let values_bytes_max = values.parse().expect("the caller gives a number");
    let config = StoreConfig { values_bytes_max, ..StoreConfig::default() };
    let (store, _) = Store::open_file(path, config).expect("it is ours");
    let keys = store.reader().keys();
    let (values, _) = store.reader().memory_bytes();
    println!(
        "start with {keys} keys: {:.2} s, {:.2} s cpu; {:.1} MB resident, {:.1} MB of them values, {:.0} bytes a key",
        watch.wall_s(),
        watch.cpu_s(),
        resident_bytes() as f64 / 1e6,
        values as f64 / 1e6,
        resident_bytes().saturating_sub(before + values as u64) as f64 / keys as f64,
    );
}

fn beside_writer(plan: &Plan, writer: &mut Writer, reader: &Reader) {
    let done = AtomicBool::new(false);
    writer.worst_s = 0.0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            gets(reader, plan, "point get beside a writer of batches of 16");
            done.store(true, Ordering::Relaxed);
        });
        let mut n = 0;
        while !done.load(Ordering::Relaxed) {
            let commands: Vec<_> = (n..n + 16).map(|n| put(n % plan.keys, n)).collect();
            writer.apply(&commands);
            n += 16;
        }
    });
    writer.end();
    println!("  the writer's worst pause: {:.1} ms", writer.worst_s * 1e3);
}

fn snapshot(plan: &Plan, writer: &mut Writer, reader: &Reader) {
    let file = plan.dir.join("snapshot");
    let stream = || {
        let watch = Watch::start();
        let mut out = io::BufWriter::with_capacity(1 << 20, std::fs::File::create(&file)?);
        let bytes = reader.snapshot().write_to(&mut out).map_err(io::Error::other)?;
        Ok::<_, io::Error>(bytes as f64 / watch.wall_s() / 1e6)
    };
    let alone = stream().expect("the disk is healthy");
    let done = AtomicBool::new(false);
    writer.worst_s = 0.0;
    let beside = std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let beside = stream();
            done.store(true, Ordering::Relaxed);
            beside
        });
        let mut n = 0;
        while !done.load(Ordering::Relaxed) {
            let commands: Vec<_> = (n..n + 16).map(|n| put(n % plan.keys, n)).collect();
            writer.apply(&commands);
            n += 16;
        }
        beside.join().expect("it does not panic").expect("the disk is healthy")
    });
    writer.end();
    println!(
        "snapshot stream: {alone:.0} MB/s alone, {beside:.0} MB/s beside a writer ({:.2}); the writer's worst pause {:.1} ms",
        beside / alone,
        writer.worst_s * 1e3
    );
    let watch = Watch::start();
    let mut from =
        io::BufReader::with_capacity(1 << 20, std::fs::File::open(&file).expect("just made"));
    restore_file(&mut from, &plan.dir.join("restored"), 64 << 20).expect("it is whole");
    let bytes = std::fs::metadata(&file).expect("just made").len();
    println!("restore: {:.0} MB/s", bytes as f64 / watch.wall_s() / 1e6);
    let _ = std::fs::remove_file(plan.dir.join("restored"));
    let _ = std::fs::remove_file(&file);
}

/// The file is written anew, while somebody writes.
fn defragmentation(plan: &Plan, writer: &mut Writer) {
    // What it takes on the disk, which is less than its length.
    let bytes =
        || std::fs::metadata(path(plan)).expect("it is there").blocks() as f64 * 512.0 / 1e6;
    let before = bytes();
    let defragment = writer.store.defragment().expect("it has a file");
    let done = AtomicBool::new(false);
    writer.worst_s = 0.0;
    let watch = Watch::start();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            defragment.run().expect("the disk is healthy");
            done.store(true, Ordering::Relaxed);
        });
        let mut n = 0;
        while !done.load(Ordering::Relaxed) {
            let commands: Vec<_> = (n..n + 16).map(|n| put(n % plan.keys, n)).collect();
            writer.apply(&commands);
            n += 16;
            // Some thousand puts a second: what is measured is the copying.
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    println!(
        "defragmentation beside a writer: {:.2} s, {before:.0} MB before, {:.0} MB after; the writer's worst pause {:.1} ms",
        watch.wall_s(),
        bytes(),
        writer.worst_s * 1e3,
    );
    writer.end();
}

fn compaction(writer: &mut Writer) {
    let reader = writer.store.reader();
    let revision = reader.revision();
    let forgotten = revision.0 as u64 - 1 - reader.keys() as u64;
    drop(reader);
    writer.worst_s = 0.0;
    let watch = Watch::start();
    writer.apply(&[Command::Compact(Compact { revision, physical: false })]);
    let mut worst_step_s = 0_f64;
    let mut worst_flush_s = 0_f64;
    loop {
        let begun = Instant::now();
        let is_more = writer.store.compact_step(false);
        worst_step_s = worst_step_s.max(begun.elapsed().as_secs_f64());
        if !is_more {
            let begun = Instant::now();
            writer.end();
            worst_flush_s = worst_flush_s.max(begun.elapsed().as_secs_f64());
            if writer.store.reader().compaction_finished() == revision {
                break;
            }
        }
    }
    println!(
        "compaction of {forgotten} scattered revisions: {:.2} s, {:.2} s cpu; worst step {:.1} ms, worst flush {:.0} ms (beside apply)",
        watch.wall_s(),
        watch.cpu_s(),
        worst_step_s * 1e3,
        worst_flush_s * 1e3,
    );
}
