//! What the log needs of a disk.
//!
//! The log knows files by name in one flat directory, and nothing else. Everything it asks for is
//! here, so that the same code runs on a real directory ([`RealDisk`](crate::RealDisk)), in memory
//! ([`MemoryDisk`](crate::MemoryDisk)) and on the lying disk of a simulator.
//!
//! The promises that the log relies on, and no others:
//!
//! * What was written to a file before a [`DiskFile::sync_data`] that succeeded survives a power
//!   cut. What was not may survive in any part and in any order.
//! * A name made, changed or removed before a [`Disk::sync_dir`] that succeeded stays so. Before
//!   that it may come or go, but a [`Disk::rename`] onto an existing name leaves one of the two
//!   files there, whole.
//! * Writing to one sector does not change what other sectors hold.

use std::fmt;
use std::io;
use std::sync::Arc;

/// One directory of files.
pub trait Disk: Send + Sync {
    /// A name for messages: where this directory is.
    fn describe(&self) -> String;

    /// The names of all files.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file, empty; one of that name that exists is emptied.
    ///
    /// # Errors
    ///
    /// When that is not possible; [`io::ErrorKind::StorageFull`] or
    /// [`io::ErrorKind::QuotaExceeded`] if for want of space.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file that exists, to read and write.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if there is none, or whatever the system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives the file `from` the name `to`, in place of a file that has it. Durable with the next
    /// [`sync_dir`](Self::sync_dir). Open files stay open.
    ///
    /// # Errors
    ///
    /// When there is no such file, or the system refuses.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Those who have it open can still read it.
    ///
    /// # Errors
    ///
    /// When there is no such file, or the system refuses.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names durable.
    ///
    /// # Errors
    ///
    /// When the system could not. What is durable is then unknown.
    fn sync_dir(&self) -> io::Result<()>;

    /// Locks the directory against other processes, until the guard is dropped or this process
    /// ends in whatever way.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] if another one has it.
    fn lock(&self) -> Result<Box<dyn DiskLock>, LockError>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// How long it is.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether it is empty.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` with what stands at `offset`, or as much of it as there is, and says how
    /// much that was.
    ///
    /// # Errors
    ///
    /// Whatever the system says; nothing in `buffer` counts then.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; the file grows as needed.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::StorageFull`] or [`io::ErrorKind::QuotaExceeded`] for want of space, or
    /// whatever the system says. Any part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes contents and length durable.
    ///
    /// # Errors
    ///
    /// When the system could not. What is durable is then unknown, and asking again proves
    /// nothing: the system may have given up on what it could not write.
    fn sync_data(&self) -> io::Result<()>;
}

/// A held lock; dropping it releases the directory.
pub trait DiskLock: Send + Sync {}

/// Why a directory could not be locked. Nothing was changed in it.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else has it.
    Held {
        /// Who, as far as known: the process id that the holder left behind.
        holder: String,
    },
    /// The system did not let us try.
    Io(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { holder } => write!(f, "in use by process {holder}"),
            Self::Io(error) => write!(f, "cannot be locked: {error}"),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Held { .. } => None,
            Self::Io(error) => Some(error),
        }
    }
}

/// Whether an error says that there is no room, which can pass, and not that the disk is broken.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
