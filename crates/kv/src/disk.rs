//! The database file: history and meta, written by one transaction at a time.
//!
//! [redb](https://docs.rs/redb) keeps both tables in one file (or whatever a [`StorageBackend`] is). Every transaction is
//! durable when it ends, and all or nothing: after a crash the file holds what some flush has written, whole. A database
//! that has failed once is not trusted again.

use core::fmt;
use core::ops::{Bound, RangeInclusive};
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use redb::backends::FileBackend;
use redb::{
    AccessGuard, Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, StorageBackend, TableDefinition,
};

use crate::record::{self, Place, RecordError, RecordRef};
use crate::snapshot;
use crate::store::StoreConfig;
use crate::tail::Tail;
use crate::unsynced::Unsynced;

const HISTORY: TableDefinition<'static, (u64, u32), &'static [u8]> =
    TableDefinition::new("history");
const META: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("meta");

/// Why the database cannot be used (any more). This member must not go on: what was not reported durable may be lost.
#[derive(Debug)]
#[non_exhaustive]
pub enum DiskError {
    /// The database said so. A member with a damaged database is replaced.
    Database(Box<redb::Error>),
    /// Something in it makes no sense, or was written by a newer build.
    Content {
        /// What.
        what: String,
    },
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(why) => write!(f, "the database failed: {why}"),
            Self::Content { what } => write!(f, "the database holds what it should not: {what}"),
        }
    }
}

impl core::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Database(why) => Some(why),
            Self::Content { .. } => None,
        }
    }
}

/// Anything that the database says.
pub(crate) fn failed(why: impl Into<redb::Error>) -> DiskError {
    DiskError::Database(Box::new(why.into()))
}

fn bad_record(place: Place, why: RecordError) -> DiskError {
    DiskError::Content { what: format!("at {}/{} a {why}", place.revision, place.sub) }
}

/// What one transaction writes.
#[derive(Debug, Default)]
pub(crate) struct WriteBatch {
    /// Changes, whose records are made as they are written.
    pub(crate) tail: Arc<Tail>,
    /// Records, in order of their places.
    pub(crate) records: Vec<(Place, Vec<u8>)>,
    pub(crate) removed: Vec<Place>,
    /// Rows of meta; `None` deletes.
    pub(crate) meta: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// The database.
pub(crate) struct Disk {
    database: Database,
    used_bytes: AtomicU64,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

impl Disk {
    pub(crate) fn open(
        backend: impl StorageBackend,
        cache_bytes: usize,
    ) -> Result<Self, DiskError> {
        forget_unfinished(&backend).map_err(redb::StorageError::Io).map_err(failed)?;
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes);
        Self::ready(builder.create_with_backend(backend).map_err(failed)?)
    }

    /// Opens a file, or makes it. It gets its name when it is whole: a database whose making was interrupted is refused by
    /// redb, so it must never be found.
    pub(crate) fn open_file(path: &Path, config: &StoreConfig) -> Result<Self, DiskError> {
        let io_failed = |why| failed(redb::StorageError::Io(why));
        snapshot::remove_unfinished(path).map_err(io_failed)?;
        if !path.try_exists().map_err(io_failed)? {
            drop(Self::create_file(&snapshot::unfinished(path), config)?);
            snapshot::put_in_place(path).map_err(io_failed)?;
        }
        Self::create_file(path, config)
    }

    /// Opens a file or makes it, under the name that is given.
    pub(crate) fn create_file(path: &Path, config: &StoreConfig) -> Result<Self, DiskError> {
        let mut builder = Database::builder();
        builder.set_cache_size(config.cache_bytes);
        let database = if config.unsynced {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false);
            let file = options.open(path).map_err(redb::StorageError::Io).map_err(failed)?;
            let backend = FileBackend::new(file).map_err(failed)?;
            builder.create_with_backend(Unsynced(backend))
        } else {
            builder.create(path)
        };
        Self::ready(database.map_err(failed)?)
    }

    fn ready(database: Database) -> Result<Self, DiskError> {
        let disk = Self { database, used_bytes: AtomicU64::new(0) };
        // From here on both tables are there.
        disk.write(&WriteBatch::default())?;
        Ok(disk)
    }

    /// Writes everything in one transaction, which is durable when this returns.
    pub(crate) fn write(&self, batch: &WriteBatch) -> Result<(), DiskError> {
        self.write_with(batch, Durability::Immediate)
    }

    /// Writes everything in one transaction, which is durable together with the next one that is.
    pub(crate) fn write_later(&self, batch: &WriteBatch) -> Result<(), DiskError> {
        self.write_with(batch, Durability::None)
    }

    fn write_with(&self, batch: &WriteBatch, durability: Durability) -> Result<(), DiskError> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_durability(durability).map_err(failed)?;
        transaction.set_quick_repair(matches!(durability, Durability::Immediate));
        let (mut added, mut gone) = (0, 0);
        {
            let mut history = transaction.open_table(HISTORY).map_err(failed)?;
            let mut bytes = Vec::new();
            let mut count = |former: Option<AccessGuard<'_, &[u8]>>, new: Option<usize>| {
                added += new.map_or(0, size_of_record);
                gone += former.map_or(0, |former| size_of_record(former.value().len()));
            };
            for changes in batch.tail.iter() {
                for (sub, event) in (0..).zip(changes.events.iter()) {
                    record::encode(event, &mut bytes);
                    let place = Place { revision: changes.revision.0, sub };
                    let former = history.insert(key_of(place), bytes.as_slice());
                    count(former.map_err(failed)?, Some(bytes.len()));
                }
            }
            for (place, record) in &batch.records {
                let former = history.insert(key_of(*place), record.as_slice()).map_err(failed)?;
                count(former, Some(record.len()));
            }
            // Afterwards: what a compaction forgets may be among those that are new.
            for place in &batch.removed {
                count(history.remove(key_of(*place)).map_err(failed)?, None);
            }
            let mut meta = transaction.open_table(META).map_err(failed)?;
            for (key, value) in &batch.meta {
                match value {
                    Some(value) => drop(meta.insert(&key[..], &value[..]).map_err(failed)?),
                    None => drop(meta.remove(&key[..]).map_err(failed)?),
                }
            }
        }
        transaction.commit().map_err(failed)?;
        self.used_bytes.fetch_add(added, Relaxed);
        self.used_bytes.fetch_sub(gone, Relaxed);
        Ok(())
    }

    /// Everything as it is now, unmoved by later writes. Its pages stay in use as long as it lives.
    pub(crate) fn view(self: &Arc<Self>) -> Result<DiskView, DiskError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let history = transaction.open_table(HISTORY).map_err(failed)?;
        let meta = transaction.open_table(META).map_err(failed)?;
        let disk = Arc::clone(self);
        Ok(DiskView { inner: Arc::new(Tables { history, meta, disk }) })
    }

    /// Bytes of the history, with what it takes to find them; once somebody has [counted](DiskView::scan_back) them.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Relaxed)
    }
}

/// What a record takes: its place, where it is, and its bytes.
const fn size_of_record(bytes: usize) -> u64 {
    (size_of::<u64>() + 2 * size_of::<u32>() + bytes) as u64
}

/// A new database is at most this large when it gets its magic number, the last thing in its making.
const NEW_BYTES_MAX: u64 = 4 << 20;

/// Empties a backend in which the making of a database was interrupted.
///
/// It is known by zeros where the magic number belongs. A larger one was in use once: if zeros are there, then because the
/// disk has lost something, and redb refuses it.
fn forget_unfinished(backend: &impl StorageBackend) -> std::io::Result<()> {
    let length = backend.len()?;
    if length == 0 || length > NEW_BYTES_MAX {
        return Ok(());
    }
    let mut start = [0; 9];
    let there = length.min(9) as usize;
    backend.read(0, &mut start[..there])?;
    if start == [0; 9] { backend.set_len(0) } else { Ok(()) }
}

const fn key_of(place: Place) -> (u64, u32) {
    (place.revision.cast_unsigned(), place.sub)
}

const fn place_of((revision, sub): (u64, u32)) -> Place {
    Place { revision: revision.cast_signed(), sub }
}

/// A consistent view of the database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DiskView {
    inner: Arc<Tables>,
}

struct Tables {
    history: ReadOnlyTable<(u64, u32), &'static [u8]>,
    meta: ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// A database that is dropped closes its file.
    disk: Arc<Disk>,
}

impl fmt::Debug for DiskView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskView").finish_non_exhaustive()
    }
}

impl DiskView {
    /// Lets `look` see one record, if it is there.
    pub(crate) fn get<T>(
        &self,
        place: Place,
        look: impl FnOnce(RecordRef<'_>) -> T,
    ) -> Result<Option<T>, DiskError> {
        let found = self.inner.history.get(key_of(place)).map_err(failed)?;
        let look = |bytes: &[u8]| RecordRef::decode(bytes).map(look);
        let seen = found.map(|found| look(found.value())).transpose();
        seen.map_err(|why| bad_record(place, why))
    }

    /// Shows the records of revisions in order, until `show` has seen enough.
    pub(crate) fn scan(
        &self,
        revisions: RangeInclusive<i64>,
        mut show: impl FnMut(Place, RecordRef<'_>) -> bool,
    ) -> Result<(), DiskError> {
        let first = key_of(Place { revision: *revisions.start(), sub: 0 });
        let last = key_of(Place { revision: *revisions.end(), sub: u32::MAX });
        for entry in self.inner.history.range(first..=last).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let place = place_of(key.value());
            let record = RecordRef::decode(value.value()).map_err(|why| bad_record(place, why))?;
            if !show(place, record) {
                break;
            }
        }
        Ok(())
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> Result<u64, DiskError> {
        self.inner.history.len().map_err(failed)
    }

    /// Shows all records, the newest first, until `show` has seen enough. If it sees all, their bytes are known from then
    /// on.
    pub(crate) fn scan_back(
        &self,
        mut show: impl FnMut(Place, RecordRef<'_>) -> bool,
    ) -> Result<(), DiskError> {
        let mut used = 0;
        for entry in self.inner.history.iter().map_err(failed)?.rev() {
            let (key, value) = entry.map_err(failed)?;
            let place = place_of(key.value());
            used += size_of_record(value.value().len());
            let record = RecordRef::decode(value.value()).map_err(|why| bad_record(place, why))?;
            if !show(place, record) {
                return Ok(());
            }
        }
        self.inner.disk.used_bytes.store(used, Relaxed);
        Ok(())
    }

    /// Shows the records behind a place, or all, as they lie there, in order, until `show` has seen enough.
    pub(crate) fn scan_bytes(
        &self,
        after: Option<Place>,
        mut show: impl FnMut(Place, &[u8]) -> bool,
    ) -> Result<(), DiskError> {
        let start = after.map_or(Bound::Unbounded, |place| Bound::Excluded(key_of(place)));
        let rest = self.inner.history.range::<(u64, u32)>((start, Bound::Unbounded));
        for entry in rest.map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            if !show(place_of(key.value()), value.value()) {
                break;
            }
        }
        Ok(())
    }

    /// Shows the rows of meta in order of their keys.
    pub(crate) fn meta(
        &self,
        mut show: impl FnMut(&[u8], &[u8]) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        for entry in self.inner.meta.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            show(key.value(), value.value())?;
        }
        Ok(())
    }
}
