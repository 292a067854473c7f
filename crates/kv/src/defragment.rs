//! Writing the database anew, while it is used.
//!
//! A database file does not become smaller when something is removed from it. So now and then all that it holds is copied
//! into a new one, which then takes its place:
//!
//! ```text
//! begin     the rows of meta, with one that says "not whole"          one moment between two flushes
//! copy      the records of the history, piece by piece                flushes go on, into both databases;
//!                                                                     compactions forget, but remove nothing
//! finish    the row goes; the new one is durable; it gets the name;   one moment between two flushes
//!           everybody uses it
//! ```
//!
//! Until the name has changed, the old one is whole and has everything that was reported durable; from then on, the new one.
//! So a crash at any moment leaves one of them. What fails in the new one ends its making, and harms nobody.

use core::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use redb::StorageBackend;

use crate::Store;
use crate::disk::{Disk, DiskError, DiskView, WriteBatch};
use crate::meta;
use crate::record::Place;
use crate::snapshot;
use crate::store::Shared;

/// Bytes of records that one step copies, unless it is said otherwise.
const STEP_BYTES: usize = 1 << 20;
/// How many steps are made durable together. A database that has nothing durable for long takes more room.
const DURABLE_STEPS: u32 = 8;

/// Why a defragmentation has ended before its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum DefragmentError {
    /// Another one is under way. Nothing was begun.
    UnderWay,
    /// The new database failed, for lack of room perhaps. The old one is in use as before.
    New(DiskError),
    /// The old one failed: this replica must not go on.
    Old(DiskError),
    /// Nobody knows which of the two has the name: this replica must not go on.
    Swap(io::Error),
}

impl DefragmentError {
    /// Whether the replica can go on as if nothing had been.
    #[must_use]
    pub const fn is_harmless(&self) -> bool {
        matches!(self, Self::UnderWay | Self::New(_))
    }
}

impl fmt::Display for DefragmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnderWay => f.write_str("a defragmentation is under way already"),
            Self::New(why) => write!(f, "the defragmentation was given up: {why}"),
            Self::Old(why) => why.fmt(f),
            Self::Swap(why) => write!(f, "the new database cannot take the old one's place: {why}"),
        }
    }
}

impl core::error::Error for DefragmentError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::New(why) | Self::Old(why) => Some(why),
            Self::Swap(why) => Some(why),
            Self::UnderWay => None,
        }
    }
}

/// The database that is being made, as flushes see it.
#[derive(Debug)]
pub(crate) struct Target {
    disk: Arc<Disk>,
    failed: Mutex<Option<DiskError>>,
}

impl Target {
    /// A flush writes here, too. That it is durable here matters only in the end.
    pub(crate) fn write(&self, batch: &WriteBatch) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_none() {
            *failed = self.disk.write_later(batch).err();
        }
    }

    fn check(&self) -> Result<(), DefragmentError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), |why| Err(DefragmentError::New(why)))
    }
}

type Open = Box<dyn FnOnce() -> Result<Disk, DiskError> + Send>;
type Swap = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A rewriting of the database into a new one, to be done step by step on a thread of its own, while commands are applied and
/// flushed. Dropped before its end, it leaves everything as it was.
#[must_use = "it does nothing by itself"]
pub struct Defragment {
    shared: Arc<Shared>,
    open: Option<Open>,
    swap: Option<Swap>,
    /// What is removed if it ends early.
    file: Option<PathBuf>,
    copying: Option<Copying>,
    step_bytes: usize,
}

struct Copying {
    target: Arc<Target>,
    from: DiskView,
    after: Option<Place>,
    steps: u32,
}

impl fmt::Debug for Defragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Defragment").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Store {
    /// Writes the database's file anew, beside everything else. The length of the new one is that of the old one or less;
    /// it goes by powers of two, and what is not used of it takes no room on the disk. `None` if the store [is not in a file](Self::open): then the
    /// host says [where to](Self::defragment_into).
    pub fn defragment(&self) -> Option<Defragment> {
        let path = self.path.clone()?;
        let new = snapshot::unfinished(&path);
        let (file, config) = (new.clone(), self.config);
        let open = move || {
            snapshot::remove_unfinished(&path).map_err(io_failed)?;
            Disk::create_file(&new, &config)
        };
        let path = self.path.clone()?;
        let swap = move || snapshot::put_in_place(&path);
        Some(self.new_defragment(Box::new(open), Box::new(swap), Some(file)))
    }

    /// The same into an empty backend. `swap` is called when everything there is durable: from then on, whoever opens the
    /// store must be given that backend, also after a crash.
    pub fn defragment_into(
        &self,
        backend: impl StorageBackend,
        swap: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Defragment {
        let cache_bytes = self.config.cache_bytes;
        let open = move || Disk::open(backend, cache_bytes);
        self.new_defragment(Box::new(open), Box::new(swap), None)
    }

    fn new_defragment(&self, open: Open, swap: Swap, file: Option<PathBuf>) -> Defragment {
        let shared = Arc::clone(&self.shared);
        Defragment {
            shared,
            open: Some(open),
            swap: Some(swap),
            file,
            copying: None,
            step_bytes: STEP_BYTES,
        }
    }
}

fn io_failed(why: io::Error) -> DiskError {
    crate::disk::failed(redb::StorageError::Io(why))
}

impl Defragment {
    /// So many bytes of records are copied in one step, 1 MiB if nothing is said. A flush may have to wait for a step, and
    /// each has a transaction of its own.
    pub fn with_step_bytes(mut self, step_bytes: usize) -> Self {
        self.step_bytes = step_bytes;
        self
    }

    /// Does all of it.
    ///
    /// # Errors
    ///
    /// [`DefragmentError`].
    pub fn run(mut self) -> Result<(), DefragmentError> {
        while self.step()? {}
        Ok(())
    }

    /// Does a bit of it, and says whether there is more to do. After the last step, the new database is in use.
    ///
    /// # Errors
    ///
    /// [`DefragmentError`]; then there is nothing more to do.
    pub fn step(&mut self) -> Result<bool, DefragmentError> {
        let done = match &mut self.copying {
            None => self.begin().map(|()| true),
            Some(copying) => match copying.step(self.step_bytes) {
                Ok(true) => Ok(true),
                Ok(false) => self.finish().map(|()| false),
                Err(why) => Err(why),
            },
        };
        if !matches!(done, Ok(true)) {
            self.end(done.is_ok());
        }
        done
    }

    fn begin(&mut self) -> Result<(), DefragmentError> {
        let open = self.open.take().ok_or(DefragmentError::UnderWay)?;
        // Between two flushes; whichever comes next writes into both.
        let mut place = self.shared.target.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            self.file = None;
            return Err(DefragmentError::UnderWay);
        }
        let disk = Arc::new(open().map_err(DefragmentError::New)?);
        let target = Arc::new(Target { disk, failed: Mutex::new(None) });
        let from = self.shared.read().saved.clone();
        let mut batch = WriteBatch::default();
        batch.meta.push((meta::RESTORING.to_vec(), Some(Vec::new())));
        from.meta(|key, value| {
            batch.meta.push((key.to_vec(), Some(value.to_vec())));
            Ok(())
        })
        .map_err(DefragmentError::Old)?;
        target.disk.write(&batch).map_err(DefragmentError::New)?;
        *place = Some(Arc::clone(&target));
        self.copying = Some(Copying { target, from, after: None, steps: 0 });
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DefragmentError> {
        let Some(Copying { target, .. }) = &self.copying else { return Ok(()) };
        let mut place = self.shared.target.lock().unwrap_or_else(PoisonError::into_inner);
        target.check()?;
        let mut batch = WriteBatch::default();
        batch.meta.push((meta::RESTORING.to_vec(), None));
        target.disk.write(&batch).map_err(DefragmentError::New)?;
        let saved = target.disk.view().map_err(DefragmentError::New)?;
        if let Some(swap) = self.swap.take() {
            swap().map_err(DefragmentError::Swap)?;
        }
        self.shared.set_disk(Arc::clone(&target.disk));
        self.shared.write().saved = saved;
        *place = None;
        Ok(())
    }

    /// It goes on no more.
    fn end(&mut self, is_done: bool) {
        self.open = None;
        if let Some(Copying { target, .. }) = self.copying.take() {
            let mut place = self.shared.target.lock().unwrap_or_else(PoisonError::into_inner);
            if place.as_ref().is_some_and(|there| Arc::ptr_eq(there, &target)) {
                *place = None;
            }
        }
        // If it cannot be removed now, it will be when the store is opened. Once the swap was tried, it is left alone.
        if let Some(file) = self.file.take()
            && !is_done
            && self.swap.is_some()
        {
            remove(&file);
        }
    }
}

fn remove(file: &Path) {
    let _ = fs::remove_file(file);
}

impl Drop for Defragment {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Copying {
    /// Copies some records. Whether there may be more.
    fn step(&mut self, step_bytes: usize) -> Result<bool, DefragmentError> {
        self.target.check()?;
        let mut batch = WriteBatch::default();
        let mut bytes = 0;
        let copied = self.from.scan_bytes(self.after, |place, record| {
            batch.records.push((place, record.to_vec()));
            bytes += record.len();
            bytes < step_bytes
        });
        copied.map_err(DefragmentError::Old)?;
        let Some((last, _)) = batch.records.last() else { return Ok(false) };
        self.after = Some(*last);
        self.steps += 1;
        let disk = &self.target.disk;
        let written = if self.steps.is_multiple_of(DURABLE_STEPS) {
            disk.write(&batch)
        } else {
            disk.write_later(&batch)
        };
        written.map_err(DefragmentError::New)?;
        Ok(true)
    }
}
