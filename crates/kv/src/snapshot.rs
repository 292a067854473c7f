//! A whole store as a stream of bytes, and back.
//!
//! A snapshot is what the database holds at one moment: all that was flushed, with the place in the log where it stands.
//! Writing it takes nothing from those who apply and read; but pages of the database that it still needs are not used again,
//! so it should go to a file at the speed of the disk, and from there to whoever wants it.
//!
//! ```text
//! stream: magic "QKVSNAP" | version u8 = 1 | blocks
//! block:  length u32, 1 to 65536 | crc32c u32 | that many bytes        the last one: length 0 | crc32c
//! rows, which the blocks' bytes make together:
//!   1 | key length u32 | value length u32 | key | value                a row of meta, in order of the keys
//!   2 | revision i64 | sub u32 | length u32 | record                   a record of the history, in order of their places
//!   3 | rows of meta u64 | records u64                                 the end
//! ```
//!
//! Numbers are little-endian. A block's checksum covers everything before it, from the first byte of the stream, so that no
//! block can be missing, moved or from another stream. What is read is checked block by block before it is believed, and
//! memory is bounded by the largest row.

use core::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;

use crate::disk::{Disk, DiskError, DiskView, WriteBatch};
use crate::meta::{self, Meta};
use crate::record::{Place, RecordRef};
use crate::{LogPlace, Reader, StoreConfig};

const MAGIC: &[u8; 7] = b"QKVSNAP";
const VERSION: u8 = 1;
/// Bytes under one checksum.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// Bytes of rows after which a restoring transaction ends.
const BATCH_BYTES: usize = 8 << 20;
/// Largest key, value or record. A command is smaller, and so should be the host's rows.
const PART_BYTES_MAX: u32 = 256 << 20;

const META: u8 = 1;
const RECORD: u8 = 2;
const END: u8 = 3;

/// What was durable at one moment. It holds on to pages of the database: write it, then drop it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    view: DiskView,
    place: LogPlace,
}

impl Reader {
    /// What is durable now. Whoever needs more flushes first.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.shared.read();
        Snapshot { view: state.saved.clone(), place: state.flushed }
    }
}

/// Why a snapshot was not written to its end. What was written is of no use.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The database failed: this replica must not go on.
    Disk(DiskError),
    /// Whoever takes the bytes failed.
    Write(io::Error),
    /// A row of the host's is larger than 256 MiB.
    TooLarge,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(why) => why.fmt(f),
            Self::Write(why) => write!(f, "the snapshot cannot be written: {why}"),
            Self::TooLarge => f.write_str("a row is too large for a snapshot"),
        }
    }
}

impl core::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Disk(why) => Some(why),
            Self::Write(why) => Some(why),
            Self::TooLarge => None,
        }
    }
}

impl Snapshot {
    /// The place in the log after which it stands.
    #[must_use]
    pub const fn place(&self) -> LogPlace {
        self.place
    }

    /// Writes it, and gives back the number of bytes. Nothing is synced: that is the caller's part.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]: the stream is not whole, and [`restore`] will say so.
    pub fn write_to(&self, out: &mut dyn Write) -> Result<u64, SnapshotError> {
        let mut blocks = BlockWriter::begin(out).map_err(SnapshotError::Write)?;
        let (mut meta_rows, mut records) = (0_u64, 0_u64);
        let mut failed = None;
        self.view
            .meta(|key, value| {
                if failed.is_none() {
                    meta_rows += 1;
                    failed = blocks.meta(key, value).err();
                }
                Ok(())
            })
            .map_err(SnapshotError::Disk)?;
        self.view
            .scan_bytes(None, |place, record| {
                if failed.is_none() {
                    records += 1;
                    failed = blocks.record(place, record).err();
                }
                failed.is_none()
            })
            .map_err(SnapshotError::Disk)?;
        if let Some(why) = failed {
            return Err(why);
        }
        let end = [&[END][..], &meta_rows.to_le_bytes(), &records.to_le_bytes()].concat();
        blocks.push(&end).and_then(|()| blocks.end()).map_err(SnapshotError::Write)
    }
}

/// The length of a part.
fn part(bytes: &[u8]) -> Result<[u8; 4], SnapshotError> {
    match u32::try_from(bytes.len()) {
        Ok(length) if length <= PART_BYTES_MAX => Ok(length.to_le_bytes()),
        _ => Err(SnapshotError::TooLarge),
    }
}

/// Cuts bytes into blocks.
struct BlockWriter<'a> {
    out: &'a mut dyn Write,
    block: Vec<u8>,
    crc: u32,
    written: u64,
}

impl<'a> BlockWriter<'a> {
    fn begin(out: &'a mut dyn Write) -> io::Result<Self> {
        let head = head();
        out.write_all(&head)?;
        let block = Vec::with_capacity(BLOCK_BYTES_MAX);
        Ok(Self { out, block, crc: crc32c::crc32c(&head), written: head.len() as u64 })
    }

    fn meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
        let head = [&[META][..], &part(key)?, &part(value)?].concat();
        [&head, key, value]
            .into_iter()
            .try_for_each(|bytes| self.push(bytes))
            .map_err(SnapshotError::Write)
    }

    fn record(&mut self, place: Place, record: &[u8]) -> Result<(), SnapshotError> {
        let mut head = [RECORD; 17];
        head[1..9].copy_from_slice(&place.revision.to_le_bytes());
        head[9..13].copy_from_slice(&place.sub.to_le_bytes());
        head[13..].copy_from_slice(&part(record)?);
        [&head, record]
            .into_iter()
            .try_for_each(|bytes| self.push(bytes))
            .map_err(SnapshotError::Write)
    }

    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES_MAX - self.block.len()));
            self.block.extend_from_slice(now);
            if self.block.len() == BLOCK_BYTES_MAX {
                self.write_block()?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn write_block(&mut self) -> io::Result<()> {
        let length = (self.block.len() as u32).to_le_bytes();
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, &length), &self.block);
        self.out.write_all(&length)?;
        self.out.write_all(&self.crc.to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.written += 8 + self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    fn end(&mut self) -> io::Result<u64> {
        if !self.block.is_empty() {
            self.write_block()?;
        }
        self.write_block()?;
        self.out.flush()?;
        Ok(self.written)
    }
}

fn head() -> Vec<u8> {
    [&MAGIC[..], &[VERSION]].concat()
}

/// Why a snapshot was not restored. What was there before is there still, if it was restored to a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreError {
    /// The bytes are no snapshot, or a damaged or unfinished one. Fetch it again.
    Damaged {
        /// What is wrong with them.
        what: String,
    },
    /// A newer build wrote it.
    Version(u8),
    /// Whoever gives the bytes failed.
    Read(io::Error),
    /// The new database failed.
    Disk(DiskError),
    /// A file could not be removed, synced or renamed.
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { what } => write!(f, "the snapshot is damaged: {what}"),
            Self::Version(version) => write!(f, "the snapshot has the unknown version {version}"),
            Self::Read(why) => write!(f, "the snapshot cannot be read: {why}"),
            Self::Disk(why) => why.fmt(f),
            Self::File { path, why } => write!(f, "{}: {why}", path.display()),
        }
    }
}

impl core::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Read(why) | Self::File { why, .. } => Some(why),
            Self::Disk(why) => Some(why),
            Self::Damaged { .. } | Self::Version(_) => None,
        }
    }
}

fn damaged<T>(what: impl Into<String>) -> Result<T, RestoreError> {
    Err(RestoreError::Damaged { what: what.into() })
}

/// Restores a snapshot into an empty backend, and gives back its place in the log. Nothing is read beyond its end.
///
/// After a crash before its end, the backend is empty or cannot be opened as a store.
///
/// # Errors
///
/// [`RestoreError`]: the backend holds nothing of use.
pub fn restore(
    from: &mut dyn Read,
    backend: impl StorageBackend,
    cache_bytes: usize,
) -> Result<LogPlace, RestoreError> {
    let disk = Disk::open(backend, cache_bytes).map_err(RestoreError::Disk)?;
    restore_into(from, &Arc::new(disk))
}

/// Restores a snapshot into a file, in the place of the one that is there. The store in that one must be closed, its readers
/// with it. A crash at any moment leaves the old file or the new one, whole; what else it leaves is removed by the next
/// restore or by opening the store.
///
/// # Errors
///
/// [`RestoreError`]: the old file is as it was, unless it is the folder that could not be synced; then it may be either.
pub fn restore_file(
    from: &mut dyn Read,
    path: &Path,
    cache_bytes: usize,
) -> Result<LogPlace, RestoreError> {
    let new = unfinished(path);
    let file_error = |path: &Path| {
        let path = path.to_owned();
        move |why| RestoreError::File { path, why }
    };
    remove_unfinished(path).map_err(file_error(&new))?;
    let config = StoreConfig { cache_bytes, ..StoreConfig::default() };
    let restored = Disk::create_file(&new, &config)
        .map_err(RestoreError::Disk)
        .and_then(|disk| restore_into(from, &Arc::new(disk)));
    let place = match restored {
        Ok(place) => place,
        Err(why) => {
            // It is also removed later; the reason of the failure is what matters now.
            let _ = fs::remove_file(&new);
            return Err(why);
        }
    };
    put_in_place(path).map_err(file_error(path))?;
    Ok(place)
}

/// What has grown is whole, and gets its name.
pub(crate) fn put_in_place(path: &Path) -> io::Result<()> {
    let new = unfinished(path);
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// Where a file grows that is to get a name, and to replace what has it.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".restoring");
    PathBuf::from(name)
}

/// Removes what an interrupted restore has left.
pub(crate) fn remove_unfinished(path: &Path) -> io::Result<()> {
    match fs::remove_file(unfinished(path)) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

fn restore_into(from: &mut dyn Read, disk: &Arc<Disk>) -> Result<LogPlace, RestoreError> {
    let mut blocks = BlockReader::begin(from)?;
    let mut target = Target { disk, batch: WriteBatch::default(), bytes: 0 };
    target.begin()?;
    let mut place = LogPlace::default();
    let (mut meta_rows, mut records) = (0_u64, 0_u64);
    let (mut last_key, mut last_place) = (None, None);
    loop {
        match blocks.array::<1>()?[0] {
            META => {
                let (key_length, value_length) = (blocks.length()?, blocks.length()?);
                let (key, value) = (blocks.take(key_length)?, blocks.take(value_length)?);
                if last_place.is_some() || last_key.as_ref().is_some_and(|last| *last >= key) {
                    return damaged("a row of meta is out of order");
                }
                let content = |why: DiskError| RestoreError::Damaged { what: why.to_string() };
                if Meta::of(&key).map_err(content)? == Meta::Applied {
                    let (index, term) = meta::read_pair(&value).map_err(content)?;
                    place = LogPlace { index, term };
                }
                last_key = Some(key.clone());
                meta_rows += 1;
                target.meta(key, value)?;
            }
            RECORD => {
                let revision = i64::from_le_bytes(blocks.array()?);
                let at = Place { revision, sub: u32::from_le_bytes(blocks.array()?) };
                let length = blocks.length()?;
                let record = blocks.take(length)?;
                if revision < 0 || last_place.is_some_and(|last| last >= at) {
                    return damaged("a record of the history is out of order");
                }
                if let Err(why) = RecordRef::decode(&record) {
                    return damaged(format!("at {}/{} a {why}", at.revision, at.sub));
                }
                last_place = Some(at);
                records += 1;
                target.record(at, record)?;
            }
            END => {
                let counted = [blocks.array()?, blocks.array()?].map(u64::from_le_bytes);
                if counted != [meta_rows, records] {
                    return damaged("rows are missing");
                }
                break;
            }
            kind => return damaged(format!("a row of the unknown kind {kind}")),
        }
    }
    blocks.end()?;
    target.end()?;
    Ok(place)
}

/// The database that a snapshot goes to.
struct Target<'a> {
    disk: &'a Arc<Disk>,
    batch: WriteBatch,
    bytes: usize,
}

impl Target<'_> {
    /// A row says that it is not whole, until the last transaction removes it.
    fn begin(&mut self) -> Result<(), RestoreError> {
        let mut is_empty = true;
        let view = self.disk.view().map_err(RestoreError::Disk)?;
        view.meta(|_, _| {
            is_empty = false;
            Ok(())
        })
        .map_err(RestoreError::Disk)?;
        if !is_empty {
            let what = "a snapshot is restored over another store".to_owned();
            return Err(RestoreError::Disk(DiskError::Content { what }));
        }
        self.batch.meta.push((meta::RESTORING.to_vec(), Some(Vec::new())));
        self.write()
    }

    fn meta(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), RestoreError> {
        self.bytes += key.len() + value.len() + 64;
        self.batch.meta.push((key, Some(value)));
        self.write_if_full()
    }

    fn record(&mut self, place: Place, record: Vec<u8>) -> Result<(), RestoreError> {
        self.bytes += record.len() + 64;
        self.batch.records.push((place, record));
        self.write_if_full()
    }

    fn write_if_full(&mut self) -> Result<(), RestoreError> {
        if self.bytes >= BATCH_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), RestoreError> {
        self.bytes = 0;
        self.disk.write(&std::mem::take(&mut self.batch)).map_err(RestoreError::Disk)
    }

    fn end(&mut self) -> Result<(), RestoreError> {
        self.batch.meta.push((meta::RESTORING.to_vec(), None));
        self.write()
    }
}

/// Puts blocks together again, and believes none before its checksum.
struct BlockReader<'a> {
    from: &'a mut dyn Read,
    block: Vec<u8>,
    at: usize,
    crc: u32,
}

impl<'a> BlockReader<'a> {
    fn begin(from: &'a mut dyn Read) -> Result<Self, RestoreError> {
        let mut start = [0; 8];
        fill(from, &mut start)?;
        if start[..7] != *MAGIC {
            return damaged("it does not begin like one");
        }
        if start[7] != VERSION {
            return Err(RestoreError::Version(start[7]));
        }
        Ok(Self { from, block: Vec::new(), at: 0, crc: crc32c::crc32c(&start) })
    }

    /// The next block, whose length is given back: 0 after the last one.
    fn next_block(&mut self) -> Result<usize, RestoreError> {
        let (mut length, mut crc) = ([0; 4], [0; 4]);
        fill(self.from, &mut length)?;
        fill(self.from, &mut crc)?;
        let bytes = u32::from_le_bytes(length) as usize;
        if bytes > BLOCK_BYTES_MAX {
            return damaged("a block has an impossible length");
        }
        self.block.resize(bytes, 0);
        self.at = 0;
        fill(self.from, &mut self.block)?;
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, &length), &self.block);
        if self.crc != u32::from_le_bytes(crc) {
            return damaged("a block does not have its checksum");
        }
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let bytes = self.take(N as u32)?;
        Ok(bytes.try_into().expect("as many as were asked for"))
    }

    fn length(&mut self) -> Result<u32, RestoreError> {
        let length = u32::from_le_bytes(self.array()?);
        if length > PART_BYTES_MAX {
            return damaged("a row has an impossible length");
        }
        Ok(length)
    }

    fn take(&mut self, length: u32) -> Result<Vec<u8>, RestoreError> {
        let length = length as usize;
        // It grows by what is there, not by what a length says.
        let mut taken = Vec::with_capacity(length.min(BLOCK_BYTES_MAX));
        while taken.len() < length {
            if self.at == self.block.len() && self.next_block()? == 0 {
                return damaged("it ends within a row");
            }
            let now = (length - taken.len()).min(self.block.len() - self.at);
            taken.extend_from_slice(&self.block[self.at..self.at + now]);
            self.at += now;
        }
        Ok(taken)
    }

    fn end(mut self) -> Result<(), RestoreError> {
        if self.at != self.block.len() || self.next_block()? != 0 {
            return damaged("there are rows after its end");
        }
        Ok(())
    }
}

fn fill(from: &mut dyn Read, out: &mut [u8]) -> Result<(), RestoreError> {
    from.read_exact(out).map_err(|why| match why.kind() {
        io::ErrorKind::UnexpectedEof => {
            RestoreError::Damaged { what: "it is cut short".to_owned() }
        }
        _ => RestoreError::Read(why),
    })
}

#[cfg(test)]
mod tests;
