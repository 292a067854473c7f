//! A disk that is spoiled at a moment of the test's choice.

use std::io;
use std::sync::Arc;

use quorate_wal::{Disk, DiskFile, DiskLock, LockError};

/// What is about to be done to a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    /// Names or contents change.
    Change,
    /// They are made durable.
    Sync,
}

/// Called before everything that changes the disk; it may wait, or not come back at all.
pub(crate) type Hook = Arc<dyn Fn(Operation) + Send + Sync>;

/// A disk with a hook.
pub(crate) struct Hooked<D> {
    pub(crate) disk: D,
    pub(crate) hook: Hook,
}

struct HookedFile {
    file: Arc<dyn DiskFile>,
    hook: Hook,
}

impl<D> Hooked<D> {
    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(HookedFile { file, hook: Arc::clone(&self.hook) })
    }
}

impl<D: Disk> Disk for Hooked<D> {
    fn describe(&self) -> String {
        self.disk.describe()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        (self.hook)(Operation::Change);
        self.disk.create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        (self.hook)(Operation::Change);
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        (self.hook)(Operation::Change);
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        (self.hook)(Operation::Sync);
        self.disk.sync_dir()
    }

    fn lock(&self) -> Result<Box<dyn DiskLock>, LockError> {
        self.disk.lock()
    }
}

impl DiskFile for HookedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (self.hook)(Operation::Change);
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.hook)(Operation::Sync);
        self.file.sync_data()
    }
}
