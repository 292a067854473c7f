//! A disk in memory, which remembers what was not synced, and can be cut off.
//!
//! It is good for logs that need not last, and for tests: [`MemoryDisk::after_power_cut`] gives
//! the disk that a machine would find after its power failed, with any part of the unsynced writes
//! and names on it, and faults can be ordered in advance.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile, DiskLock, LockError};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    locked: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    /// The directory as it is seen.
    names: BTreeMap<String, usize>,
    /// The directory as it is on the platter.
    durable_names: BTreeMap<String, usize>,
    files: Vec<Contents>,
    /// What is not durable yet, in the order in which it was done.
    pending: Vec<Change>,
    space: Option<u64>,
    fail_writes: Option<io::ErrorKind>,
    fail_syncs: bool,
    fail_reads: bool,
    syncs: u64,
    writes: u64,
    /// How many more changes and syncs are let through.
    steps_left: Option<u64>,
}

impl State {
    /// Refuses if the disk has been told to stop by now.
    fn go(&mut self) -> io::Result<()> {
        match &mut self.steps_left {
            Some(0) => Err(io::Error::other("the disk has stopped")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Clone, Default)]
struct Contents {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

/// A change that is not durable yet.
#[derive(Clone)]
enum Change {
    Write { file: usize, name: String, offset: u64, bytes: Vec<u8> },
    Truncate { file: usize, name: String },
    Name { name: String, file: Option<usize> },
    Rename { from: String, to: String, file: usize },
}

/// A change that is not durable yet, as told to whoever decides what becomes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pending {
    /// So many bytes written there. A file that is emptied counts as a write of none.
    Write {
        /// The name that the file had.
        file: String,
        /// Where.
        offset: u64,
        /// How many.
        len: usize,
    },
    /// A name that was made, changed or removed.
    Name {
        /// The name; of a renamed file, the new one.
        file: String,
    },
}

/// What becomes of a change when the power fails.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is on the disk.
    Kept,
    /// It is not.
    Dropped,
    /// Of a write, only the first so many bytes are.
    Torn(usize),
    /// Of a write, only those sectors of 512 bytes are for which this says so, again and again.
    Sectors(Vec<bool>),
}

const SECTOR: u64 = 512;

impl MemoryDisk {
    /// An empty disk without limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a machine finds after its power failed. `fate` is asked for each change that is not
    /// durable, in order. The disk itself is left as it is.
    #[must_use]
    pub fn after_power_cut(&self, mut fate: impl FnMut(usize, &Pending) -> Fate) -> Self {
        let state = self.state();
        let mut files: Vec<Vec<u8>> = state.files.iter().map(|file| file.durable.clone()).collect();
        let mut names = state.durable_names.clone();
        for (at, change) in state.pending.iter().enumerate() {
            let fate = fate(at, &change.told());
            change.apply(&mut files, &mut names, &fate);
        }
        let files = files.into_iter().map(|bytes| Contents { seen: bytes.clone(), durable: bytes });
        let (durable_names, files) = (names.clone(), files.collect());
        let state = State { names, durable_names, files, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), locked: Arc::default() }
    }

    /// What another process finds after this one was killed: everything that was done, as little
    /// of it durable as before. The lock is gone with the process.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let state = self.state();
        let state = State {
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            files: state.files.clone(),
            pending: state.pending.clone(),
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(state)), locked: Arc::default() }
    }

    /// What is not durable yet, in order.
    #[must_use]
    pub fn pending(&self) -> Vec<Pending> {
        self.state().pending.iter().map(Change::told).collect()
    }

    /// Limits the bytes of all files together; `None` for no limit.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.state().space = bytes;
    }

    /// Makes all writes fail in that way, or none.
    pub fn fail_writes(&self, kind: Option<io::ErrorKind>) {
        self.state().fail_writes = kind;
    }

    /// Makes all syncs fail, or none. A sync that fails forgets what it should have made durable:
    /// it is seen by those who read, and nothing will ever write it. So does ext4.
    pub fn fail_syncs(&self, fail: bool) {
        self.state().fail_syncs = fail;
    }

    /// Makes all reads fail, or none.
    pub fn fail_reads(&self, fail: bool) {
        self.state().fail_reads = fail;
    }

    /// Lets so many more changes and syncs through and then refuses all, as if the process had been
    /// stopped in between. `None` for no limit.
    pub fn stop_after(&self, steps: Option<u64>) {
        self.state().steps_left = steps;
    }

    /// How many steps are left before the disk stops.
    #[must_use]
    pub fn steps_left(&self) -> Option<u64> {
        self.state().steps_left
    }

    /// How many writes and syncs there were.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.writes, state.syncs)
    }

    /// The bytes of a file, as they are seen.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.files[*state.names.get(name)?].seen.clone())
    }

    /// Puts bytes under a name, durably, past everything: for tests that damage files.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(Contents { seen: bytes.clone(), durable: bytes });
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
    }

    /// Changes bytes of a file behind everybody's back, seen and durable: those who have it open
    /// read the damage. What lies behind its end is left alone. False if there is no such file.
    pub fn damage(&self, name: &str, offset: u64, change: impl Fn(&mut [u8])) -> bool {
        let state = &mut *self.state();
        let Some(file) = state.names.get(name) else { return false };
        let Contents { seen, durable } = &mut state.files[*file];
        for bytes in [seen, durable] {
            let from = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
            change(&mut bytes[from..]);
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the disk")
    }
}

impl Change {
    fn told(&self) -> Pending {
        match self {
            Self::Write { name, offset, bytes, .. } => {
                Pending::Write { file: name.clone(), offset: *offset, len: bytes.len() }
            }
            Self::Truncate { name, .. } => Pending::Write { file: name.clone(), offset: 0, len: 0 },
            Self::Name { name, .. } | Self::Rename { to: name, .. } => {
                Pending::Name { file: name.clone() }
            }
        }
    }

    /// The file whose contents it changes.
    fn file(&self) -> Option<usize> {
        match self {
            Self::Write { file, .. } | Self::Truncate { file, .. } => Some(*file),
            Self::Name { .. } | Self::Rename { .. } => None,
        }
    }

    fn apply(&self, files: &mut [Vec<u8>], names: &mut BTreeMap<String, usize>, fate: &Fate) {
        if *fate == Fate::Dropped {
            return;
        }
        match self {
            Self::Write { file, offset, bytes, .. } => {
                write_part(&mut files[*file], *offset, bytes, fate);
            }
            Self::Truncate { file, .. } => files[*file].clear(),
            Self::Name { name, file: Some(file) } => {
                names.insert(name.clone(), *file);
            }
            Self::Name { name, file: None } => {
                names.remove(name);
            }
            // A file that never got the first name cannot have exchanged it for the second.
            Self::Rename { from, to, file } => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                    names.insert(to.clone(), *file);
                }
            }
        }
    }
}

fn write_part(file: &mut Vec<u8>, offset: u64, bytes: &[u8], fate: &Fate) {
    match fate {
        Fate::Torn(len) => write(file, offset, &bytes[..bytes.len().min(*len)]),
        Fate::Sectors(kept) if !kept.is_empty() => {
            let mut at = 0;
            while at < bytes.len() {
                let sector = (offset + at as u64) / SECTOR;
                let end = ((sector + 1) * SECTOR - offset).min(bytes.len() as u64) as usize;
                if kept[sector as usize % kept.len()] {
                    write(file, offset + at as u64, &bytes[at..end]);
                }
                at = end;
            }
        }
        _ => write(file, offset, bytes),
    }
}

fn write(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + bytes.len());
    if file.len() < to {
        file.resize(to, 0);
    }
    file[from..to].copy_from_slice(bytes);
}

impl Disk for MemoryDisk {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = &mut *self.state();
        state.go()?;
        let name = name.to_owned();
        let file = if let Some(file) = state.names.get(&name) {
            state.files[*file].seen.clear();
            state.pending.push(Change::Truncate { file: *file, name: name.clone() });
            *file
        } else {
            state.files.push(Contents::default());
            let file = state.files.len() - 1;
            state.names.insert(name.clone(), file);
            state.pending.push(Change::Name { name: name.clone(), file: Some(file) });
            file
        };
        Ok(Arc::new(MemoryFile { disk: self.clone(), file, name }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = *self.state().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), file, name: name.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let state = &mut *self.state();
        state.go()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        let (from, to) = (from.to_owned(), to.to_owned());
        state.pending.push(Change::Rename { from, to, file });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let state = &mut *self.state();
        state.go()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.pending.push(Change::Name { name: name.to_owned(), file: None });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let state = &mut *self.state();
        state.go()?;
        state.syncs += 1;
        let (names, rest) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|change| change.file().is_none());
        state.pending = rest;
        if state.fail_syncs {
            return Err(io::Error::other("ordered to fail"));
        }
        for change in names {
            change.apply(&mut [], &mut state.durable_names, &Fate::Kept);
        }
        Ok(())
    }

    fn lock(&self) -> Result<Box<dyn DiskLock>, LockError> {
        if self.locked.swap(true, Ordering::AcqRel) {
            return Err(LockError::Held { holder: std::process::id().to_string() });
        }
        Ok(Box::new(MemoryLock { locked: Arc::clone(&self.locked) }))
    }
}

struct MemoryLock {
    locked: Arc<AtomicBool>,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.locked.store(false, Ordering::Release);
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
    name: String,
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        if state.fail_reads {
            return Err(io::Error::other("ordered to fail"));
        }
        let bytes = &state.files[self.file].seen;
        let from = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let count = buffer.len().min(bytes.len() - from);
        buffer[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let state = &mut *self.disk.state();
        state.go()?;
        state.writes += 1;
        if let Some(kind) = state.fail_writes {
            return Err(kind.into());
        }
        let end = offset + bytes.len() as u64;
        let grows = end.saturating_sub(state.files[self.file].seen.len() as u64);
        if let Some(space) = state.space {
            let named = state.names.values().map(|file| state.files[*file].seen.len() as u64);
            if grows > 0 && named.sum::<u64>() + grows > space {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        write(&mut state.files[self.file].seen, offset, bytes);
        let (file, name, bytes) = (self.file, self.name.clone(), bytes.to_vec());
        state.pending.push(Change::Write { file, name, offset, bytes });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.disk.state();
        state.go()?;
        state.syncs += 1;
        let (ours, rest) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|change| change.file() == Some(self.file));
        state.pending = rest;
        if state.fail_syncs {
            return Err(io::Error::other("ordered to fail"));
        }
        for change in ours {
            match change {
                Change::Write { offset, bytes, .. } => {
                    write(&mut state.files[self.file].durable, offset, &bytes);
                }
                _ => state.files[self.file].durable.clear(),
            }
        }
        Ok(())
    }
}
