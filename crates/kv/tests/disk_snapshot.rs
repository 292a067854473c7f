//! Snapshots: what is written is restored; damage is found; a file is replaced whole or not at all.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod crash_support;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crash_support::{CONFIG, Progress, check_at, commands, contents, expected, place, run};
use quorate_kv::{
    Command, LogPlace, Put, RestoreError, SnapshotError, Store, restore, restore_file,
};
use redb::backends::InMemoryBackend;

const LAST: u64 = 60;

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quorate-kv-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn store(last: u64) -> Store {
    let mut store = Store::in_memory(CONFIG);
    run(&mut store, 0, last, &mut Progress::default(), |_| ()).unwrap();
    store
}

fn snapshot(store: &Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = store.reader().snapshot().write_to(&mut bytes).unwrap();
    assert_eq!(written, bytes.len() as u64);
    bytes
}

fn restore_in_memory(mut bytes: &[u8]) -> Result<LogPlace, RestoreError> {
    restore(&mut bytes, InMemoryBackend::new(), CONFIG.cache_bytes)
}

#[test]
fn what_is_written_is_restored() {
    let expected = expected(LAST);
    let folder = Folder::new("restored");
    let path = folder.0.join("store");
    for last in [3, 30, LAST] {
        let bytes = snapshot(&store(last));
        let restored = restore_file(&mut &bytes[..], &path, CONFIG.cache_bytes).unwrap();
        assert_eq!(restored, place(last));
        let (mut store, opened) = Store::open_file(&path, CONFIG).unwrap();
        assert_eq!(opened.applied, restored);
        check_at(&store, &opened, &expected);
        // The same store gives the same bytes, wherever it lies.
        assert!(snapshot(&store) == bytes);
        // And it goes on.
        run(&mut store, last, LAST, &mut Progress::default(), |_| ()).unwrap();
        assert!(contents(&store.reader()) == expected[LAST as usize]);
    }
    assert_eq!(folder.files(), ["store"]);
}

#[test]
fn a_snapshot_does_not_move_while_writes_go_on() {
    let mut store = store(30);
    let before = snapshot(&store);
    let taken = store.reader().snapshot();
    assert_eq!(taken.place(), place(30));
    // What is not flushed is not in it, what is flushed later neither.
    store.apply(&commands(31), &mut ()).unwrap();
    store.finish(place(31), []);
    assert!(snapshot(&store) == before);
    let flush = store.begin_flush().unwrap();
    flush.write().unwrap();
    run(&mut store, 31, LAST, &mut Progress::default(), |_| ()).unwrap();
    let mut bytes = Vec::new();
    taken.write_to(&mut bytes).unwrap();
    assert!(bytes == before);
}

#[test]
fn a_store_without_anything_is_restored() {
    let bytes = snapshot(&Store::in_memory(CONFIG));
    assert_eq!(restore_in_memory(&bytes).unwrap(), LogPlace::default());
}

#[test]
fn many_blocks_and_transactions() {
    let mut store = Store::in_memory(CONFIG);
    for index in 1..=24 {
        let put = Put {
            key: Bytes::from(format!("{index}")),
            value: Bytes::from(vec![index as u8; 1 << 20]),
            ..Put::default()
        };
        store.apply(&[Command::Put(put)], &mut ()).unwrap();
        store.finish(place(index), []);
    }
    store.begin_flush().unwrap().write().unwrap();
    let bytes = snapshot(&store);
    assert!(bytes.len() > 24 << 20);
    let folder = Folder::new("blocks");
    let path = folder.0.join("store");
    restore_file(&mut &bytes[..], &path, CONFIG.cache_bytes).unwrap();
    let (restored, _) = Store::open_file(&path, CONFIG).unwrap();
    assert!(contents(&restored.reader()) == contents(&store.reader()));
}

#[test]
fn any_damage_is_found() {
    let mut bytes = snapshot(&store(3));
    let length = bytes.len();
    // Any flipped bit of heads and first bytes, some of the rest.
    let step = (length / 300).max(1);
    for at in (0..40).chain((40..length).step_by(step)).chain(length - 40..length) {
        for bit in [0, 7] {
            bytes[at] ^= 1 << bit;
            let why = restore_in_memory(&bytes).unwrap_err();
            assert!(
                matches!(why, RestoreError::Damaged { .. } | RestoreError::Version(_)),
                "byte {at}: {why}"
            );
            bytes[at] ^= 1 << bit;
        }
    }
    for cut in (0..40).chain((40..length).step_by(step)).chain(length - 40..length) {
        let why = restore_in_memory(&bytes[..cut]).unwrap_err();
        assert!(matches!(why, RestoreError::Damaged { .. }), "cut at {cut}: {why}");
    }
    restore_in_memory(&bytes).unwrap();
}

#[test]
fn blocks_of_other_places_are_refused() {
    let mut store = store(3);
    let value = Bytes::from(vec![7; 200_000]);
    let put = Put { key: Bytes::from_static(b"large"), value, ..Put::default() };
    store.apply(&[Command::Put(put)], &mut ()).unwrap();
    store.finish(place(4), []);
    store.begin_flush().unwrap().write().unwrap();
    let bytes = snapshot(&store);
    restore_in_memory(&bytes).unwrap();
    // Two blocks of full length, with their heads.
    let block = 8 + (64 << 10);
    assert!(bytes.len() > 8 + 2 * block, "{} bytes", bytes.len());
    let (first, second) = (&bytes[8..8 + block], &bytes[8 + block..8 + 2 * block]);
    let rest = &bytes[8 + 2 * block..];
    for blocks in [&[second, first, rest][..], &[second, rest], &[first, first, second, rest]] {
        let why = restore_in_memory(&[&bytes[..8], &blocks.concat()].concat()).unwrap_err();
        assert!(why.to_string().contains("checksum"), "{why}");
    }
}

#[test]
fn a_failed_restore_leaves_the_old_file() {
    let expected = expected(LAST);
    let folder = Folder::new("failed");
    let path = folder.0.join("store");
    let bytes = snapshot(&store(30));
    restore_file(&mut &bytes[..], &path, CONFIG.cache_bytes).unwrap();
    let longer = snapshot(&store(LAST));
    for cut in [0, 7, 100, longer.len() / 2, longer.len() - 1] {
        restore_file(&mut &longer[..cut], &path, CONFIG.cache_bytes).unwrap_err();
        assert_eq!(folder.files(), ["store"]);
        let (store, opened) = Store::open_file(&path, CONFIG).unwrap();
        assert_eq!(opened.applied, place(30));
        check_at(&store, &opened, &expected);
    }
}

#[test]
fn leftovers_are_removed() {
    let folder = Folder::new("leftovers");
    let path = folder.0.join("store");
    let leftover = folder.0.join("store.restoring");
    fs::write(&leftover, b"a part").unwrap();
    restore_file(&mut &snapshot(&store(3))[..], &path, CONFIG.cache_bytes).unwrap();
    assert_eq!(folder.files(), ["store"]);
    fs::write(&leftover, b"a part").unwrap();
    drop(Store::open_file(&path, CONFIG).unwrap());
    assert_eq!(folder.files(), ["store"]);
}

#[test]
fn over_another_store_is_refused() {
    let folder = Folder::new("over");
    let path = folder.0.join("store");
    let bytes = snapshot(&store(3));
    restore_file(&mut &bytes[..], &path, CONFIG.cache_bytes).unwrap();
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let backend = redb::backends::FileBackend::new(file).unwrap();
    let why = restore(&mut &bytes[..], backend, CONFIG.cache_bytes).unwrap_err();
    assert!(why.to_string().contains("over another store"), "{why}");
    let (_, opened) = Store::open_file(Path::new(&path), CONFIG).unwrap();
    assert_eq!(opened.applied, place(3));
}

/// Fails after some bytes.
struct Failing(usize);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = bytes.len().min(self.0);
        self.0 -= now;
        if now == 0 { Err(io::Error::other("no more")) } else { Ok(now) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("no more"))
    }
}

#[test]
fn failures_of_the_other_end_are_told() {
    let store = store(LAST);
    let length = snapshot(&store).len();
    for room in [0, 7, 8, 100, length / 2, length - 1] {
        let why = store.reader().snapshot().write_to(&mut Failing(room)).unwrap_err();
        assert!(matches!(why, SnapshotError::Write(_)), "{why}");
    }
    store.reader().snapshot().write_to(&mut Failing(length)).unwrap();
    let why = restore(&mut Failing(0), InMemoryBackend::new(), CONFIG.cache_bytes).unwrap_err();
    assert!(matches!(why, RestoreError::Read(_)), "{why}");
}
