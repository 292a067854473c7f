//! Real processes on a real directory: killed while they write, two at once, a full file system.
//!
//! `QUORATE_LONG=1` kills five hundred times instead of four.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use quorate_raft::{ClusterId, GroupId, Index, NodeId};
use quorate_wal::{
    ChoreError, Disk, MemoryDisk, OpenError, Opened, Options, RealDisk, Wal, WriteError,
};
use support::{Rng, TempDir, command, persist, snapshot};

const DIRECTORY: &str = "QUORATE_WAL_TEST_DIRECTORY";
const WRITERS: u64 = 3;

fn open(path: &std::path::Path) -> Result<Opened, OpenError> {
    Wal::open(Arc::new(RealDisk::new(path).unwrap()), &options())
}

fn options() -> Options {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let random = since.as_nanos() as u64 ^ u64::from(std::process::id()) << 32;
    Options {
        segment_bytes: 512 << 10,
        first_segment_bytes: 64 << 10,
        ..Options::new(ClusterId(1), NodeId(1), random)
    }
}

/// Starts one of the tests below that are not tests but other processes.
fn start(test: &str, directory: &TempDir) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The entry that every life of the writer writes at an index.
fn entry(index: u64) -> quorate_raft::Entry {
    command(index, 1 + index / 100, 20 + (index % 7 * 150) as usize)
}

/// Not a test but the process that is killed: writes as fast as it can, and says what is durable.
#[test]
#[ignore = "started by `killed_while_writing`"]
fn child_writes() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let opened = open(directory.as_ref()).unwrap();
    assert_eq!(opened.damage, []);
    let wal = opened.wal;
    let stop = Arc::new(AtomicBool::new(false));
    let writers = (0..WRITERS).map(|group| {
        let (wal, stop) = (wal.clone(), Arc::clone(&stop));
        let known = opened.groups.get(&GroupId(group));
        let mut last = known.map_or(0, |known| known.last_index.0);
        let mut rng = Rng(last << 8 | group);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let count = 1 + rng.below(5);
                let entries: Vec<_> = (last + 1..=last + count).map(entry).collect();
                let term = entries.last().unwrap().term.0;
                let position =
                    wal.write(&[(GroupId(group), &persist(last, term, entries))]).unwrap();
                wal.sync_to(position).unwrap();
                last += count;
                if rng.chance(50) {
                    wal.compact(GroupId(group), &snapshot(last - 1, entry(last - 1).term.0))
                        .unwrap();
                }
                // One write, so that lines of several threads do not mix.
                std::io::stdout()
                    .write_all(format!("durable {group} {last}\n").as_bytes())
                    .unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        wal.prepare(64 << 10).unwrap();
        std::thread::sleep(Duration::from_micros(300));
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn killed_while_writing() {
    let directory = TempDir::new();
    let mut rng = Rng(u64::from(std::process::id()));
    let mut durable: BTreeMap<u64, u64> = BTreeMap::new();
    let mut rewritten = 0;
    for round in 0..support::rounds(4, 500) {
        let mut child = start("child_writes", &directory);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 20 + rng.below(400);
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            // The test harness of the other process writes lines, too.
            let Some((_, words)) = line.split_once("durable ") else { continue };
            let (group, last) = words.split_once(' ').unwrap();
            durable.insert(group.parse().unwrap(), last.parse().unwrap());
            seen += 1;
            if seen == wanted {
                // What it says until it is dead is read, too, and counts.
                child.kill().unwrap();
            }
        }
        assert!(seen >= wanted, "the writer stopped by itself in round {round}");
        child.wait().unwrap();
        let opened = open(directory.path()).unwrap();
        assert_eq!(opened.damage, [], "round {round}");
        rewritten += opened.notes.len();
        for (group, last) in &durable {
            let found = &opened.groups[&GroupId(*group)];
            assert!(found.last_index.0 >= *last, "round {round}: {last} of group {group} is lost");
            let start = found.snapshot.id.index.0;
            let mut next = start + 1;
            while next <= found.last_index.0 {
                let read = opened
                    .wal
                    .read(GroupId(*group), Index(next), found.last_index, 1 << 20)
                    .unwrap();
                for found in read {
                    assert_eq!(found, entry(next));
                    next += 1;
                }
            }
        }
        if rng.chance(2) {
            opened.wal.close().unwrap();
        }
    }
    assert!(rewritten > 0, "no kill ever left anything to be rewritten");
}

/// Not a test but the second process.
#[test]
#[ignore = "started by `two_processes`"]
fn child_opens() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let answer = open(directory.as_ref()).map_or_else(|error| error.to_string(), |_| "open".into());
    println!("answer {answer}");
}

#[test]
fn two_processes() {
    let directory = TempDir::new();
    let ask = || {
        let output = start("child_opens", &directory).wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_once("answer ").unwrap().1.lines().next().unwrap().to_owned()
    };
    let opened = open(directory.path()).unwrap();
    let answer = ask();
    let expected = format!("is in use by process {}", std::process::id());
    assert!(answer.ends_with(&expected), "{answer}");
    let again = open(directory.path()).map(|_| ()).unwrap_err();
    assert!(matches!(again, OpenError::Locked { holder, .. }
        if holder == std::process::id().to_string()));
    drop(opened);
    assert_eq!(ask(), "open");
}

/// Not a test but a process with a file system of its own, which ends with it.
#[test]
#[ignore = "started by `a_full_file_system`"]
fn child_fills() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = std::path::Path::new(&directory);
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=3m", "quorate-test"]).arg(directory);
    if !mount.status().is_ok_and(|status| status.success()) {
        return;
    }
    println!("answer mounted");
    let ballast = directory.join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(directory).unwrap());
    let why = fill(&disk, || std::fs::remove_file(&ballast).unwrap());
    assert!(why.contains("No space left on device"), "{why}");
}

/// A real file system that is full: a small one in a mount namespace of its own, which takes no
/// rights on most systems. Where that is refused, a disk in memory with a limit has to do.
#[test]
fn a_full_file_system() {
    let directory = TempDir::new();
    let mut child = Command::new("unshare");
    child.args(["--user", "--map-root-user", "--mount"]).arg(std::env::current_exe().unwrap());
    child.args(["child_fills", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    let output = child.env(DIRECTORY, directory.path()).output();
    let mounted = output
        .as_ref()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("answer mounted"));
    if mounted {
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        return;
    }
    eprintln!("no rights to mount a file system: a disk in memory with a limit is tested instead");
    let disk = MemoryDisk::new();
    disk.set_space(Some(2 << 20));
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    fill(&shared, || disk.set_space(None));
}

/// Writes until the disk is full: that is told before anything is acknowledged, what was written
/// can be read, and writing goes on when there is room. Returns what was told.
fn fill(disk: &Arc<dyn Disk>, make_room: impl FnOnce()) -> String {
    let open = || Wal::open(Arc::clone(disk), &options());
    let write = |wal: &Wal, next| {
        wal.write(&[(GroupId(0), &persist(next, 1, vec![command(next, 1, 1000)]))])
    };
    let wal = open().unwrap().wal;
    let mut next = 1;
    let error = loop {
        match write(&wal, next) {
            Ok(_) => next += 1,
            Err(error) => break error,
        }
        let _full = wal.prepare(64 << 10);
        wal.sync().unwrap();
    };
    let WriteError::NoSpace(why) = error else { panic!("{error}") };
    assert!(next > 500, "only {next} records");
    let mut first = 1;
    let all = |wal: &Wal, first, last| {
        let read = wal.read(GroupId(0), Index(first), Index(last), usize::MAX).unwrap();
        assert_eq!(read.len() as u64, last + 1 - first);
        read.iter().for_each(|entry| assert_eq!(*entry, command(entry.index.0, 1, 1000)));
    };
    // Again, and again: nothing is acknowledged, nothing changes, and reading goes on.
    for _ in 0..10 {
        assert!(matches!(write(&wal, next), Err(WriteError::NoSpace(_))));
        assert_eq!(wal.sync().unwrap(), []);
        all(&wal, first, next - 1);
    }
    // The log does not start elsewhere unless that is on the disk, for which there may be room.
    match wal.compact(GroupId(0), &snapshot(next / 2, 1)) {
        Ok(()) => first = next / 2 + 1,
        Err(ChoreError::Io(why)) => assert!(why.is_no_space(), "{why}"),
        Err(why) => panic!("{why}"),
    }
    drop(wal);
    // A start needs some room, and says so. It loses nothing if it has none.
    let refused = open().map(|opened| opened.damage);
    assert!(matches!(&refused, Err(OpenError::Io(why)) if why.is_no_space()), "{refused:?}");
    make_room();
    let opened = open().unwrap();
    assert_eq!(opened.damage, []);
    assert_eq!(opened.groups[&GroupId(0)].last_index, Index(next - 1));
    let wal = opened.wal;
    for next in next..next + 50 {
        write(&wal, next).unwrap();
    }
    wal.close().unwrap();
    drop(wal);
    let opened = open().unwrap();
    all(&opened.wal, first, next + 49);
    why.to_string()
}
