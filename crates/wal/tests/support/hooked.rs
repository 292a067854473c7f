//! A disk in memory that asks before it does something.

use std::io;
use std::sync::Arc;

use quorate_wal::{Disk, DiskFile, DiskLock, LockError, MemoryDisk};

/// What is about to be done. Files are called what they were called when they were opened.
pub(crate) enum Act<'a> {
    Create(&'a str),
    Write(&'a str, &'a [u8]),
    Sync(&'a str),
}

/// Of an act that is to fail for want of space, how many bytes are written all the same.
pub(crate) type Answer = Option<usize>;

type Hook = Arc<dyn Fn(&Act<'_>) -> Answer + Send + Sync>;

/// A disk in memory with a hook.
#[derive(Clone)]
pub(crate) struct Hooked {
    inner: MemoryDisk,
    hook: Hook,
}

struct HookedFile {
    inner: Arc<dyn DiskFile>,
    name: String,
    hook: Hook,
}

impl Hooked {
    pub(crate) fn new(
        inner: &MemoryDisk,
        hook: impl Fn(&Act<'_>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self { inner: inner.clone(), hook: Arc::new(hook) }
    }

    fn file(&self, name: &str, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(HookedFile { inner, name: name.to_owned(), hook: Arc::clone(&self.hook) })
    }
}

impl Disk for Hooked {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        match (self.hook)(&Act::Create(name)) {
            Some(_) => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(self.file(name, self.inner.create(name)?)),
        }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(name, self.inner.open(name)?))
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

impl DiskFile for HookedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match (self.hook)(&Act::Write(&self.name, bytes)) {
            Some(count) => {
                self.inner.write_at(&bytes[..count.min(bytes.len())], offset)?;
                Err(io::ErrorKind::StorageFull.into())
            }
            None => self.inner.write_at(bytes, offset),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let _ = (self.hook)(&Act::Sync(&self.name));
        self.inner.sync_data()
    }
}
