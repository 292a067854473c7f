//! Errors as values: one small enum per operation. Each variant says what is now true and what
//! the caller can do. What an error prints includes its cause, so it is not its
//! [`source`](std::error::Error::source) as well.

use std::fmt;
use std::io;

use quorate_raft::{ClusterId, GroupId, Incarnation, Index, NodeId};

/// An operation on a file that failed. It can be given to many waiters, so it is a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IoFailure {
    /// What was tried, as in "write" or "sync".
    pub operation: &'static str,
    /// The file, or the directory.
    pub file: String,
    /// Where in the file, if that means anything.
    pub offset: Option<u64>,
    /// The kind of error.
    pub kind: io::ErrorKind,
    /// What the system said.
    pub text: String,
}

impl IoFailure {
    pub(crate) fn new(operation: &'static str, file: &str, error: &io::Error) -> Self {
        let (kind, text) = (error.kind(), error.to_string());
        Self { operation, file: file.to_owned(), offset: None, kind, text }
    }

    pub(crate) const fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Whether there was no room.
    #[must_use]
    pub const fn is_no_space(&self) -> bool {
        matches!(self.kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl fmt::Display for IoFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of `{}`", self.operation, self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, " failed: {}", self.text)
    }
}

impl std::error::Error for IoFailure {}

/// Why a log takes nothing any more.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Stopped {
    /// A write or a sync failed. What of the unsynced records is on the disk is unknown and cannot
    /// be found out by trying again. Stop the node; the next start finds out what is there.
    Poisoned(IoFailure),
    /// The log was damaged when it was opened. It can be read where it is whole.
    Damaged,
    /// [`Wal::close`](crate::Wal::close) was called.
    Closed,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisoned(why) => write!(f, "the log has failed for good: {why}"),
            Self::Damaged => f.write_str("the log is damaged and only to be read"),
            Self::Closed => f.write_str("the log is closed"),
        }
    }
}

impl std::error::Error for Stopped {}

/// Why records were not written. None of those given together was, in any of these cases, and the
/// log is as it was before.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WriteError {
    /// The disk is full. Reading goes on; write again when there is room.
    NoSpace(IoFailure),
    /// They do not fit in any segment. Trying again cannot help.
    TooLarge {
        /// Their size.
        bytes: u64,
        /// What fits.
        bytes_max: u64,
    },
    /// An entry is not what its checksum says: it was changed in memory since it was made.
    Corrupt {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
    },
    /// The entries do not follow on what the group's log has. The caller has lost its place.
    Gap {
        /// The group.
        group: GroupId,
        /// The last index of its log, or the one where it starts.
        last: Index,
        /// The index that cannot follow.
        found: Index,
    },
    /// The log takes nothing any more.
    Stopped(Stopped),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace(why) => write!(f, "no space: {why}"),
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "records of {bytes} bytes exceed {bytes_max}")
            }
            Self::Corrupt { group, index } => {
                write!(f, "entry {index} of group {group} does not match its checksum")
            }
            Self::Gap { group, last, found } => {
                write!(f, "entry {found} of group {group} cannot follow on entry {last}")
            }
            Self::Stopped(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for WriteError {}

/// Why the start of a group's log was not moved, or the log not prepared for what comes. The log
/// is as it was before.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChoreError {
    /// A file could not be made, most likely because the disk is full. Try again later.
    Io(IoFailure),
    /// The group's log does not reach that far; only an installed snapshot may start beyond it.
    Beyond {
        /// The last index of the log.
        last: Index,
    },
    /// A record that has to be moved is damaged, so its segment cannot be freed.
    Unreadable(Box<ReadError>),
    /// The log takes nothing any more.
    Stopped(Stopped),
}

impl fmt::Display for ChoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(why) => why.fmt(f),
            Self::Beyond { last } => write!(f, "the group's log ends at {last}"),
            Self::Unreadable(why) => write!(f, "cannot be moved: {why}"),
            Self::Stopped(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for ChoreError {}

/// Why entries could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The group's log starts later by now.
    Compacted {
        /// The last index that is gone.
        start: Index,
    },
    /// The group's log ends before.
    Beyond {
        /// Its last index.
        last: Index,
    },
    /// What is on the disk is not what was written.
    Damaged {
        /// The file.
        file: String,
        /// Where the record or payload begins.
        offset: u64,
        /// The first entry that cannot be read because of it.
        index: Index,
    },
    /// The disk could not read.
    Io(IoFailure),
    /// The log takes nothing any more, and gives nothing either.
    Stopped(Stopped),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted { start } => write!(f, "compacted up to {start}"),
            Self::Beyond { last } => write!(f, "the log ends at {last}"),
            Self::Damaged { file, offset, index } => {
                write!(f, "entry {index} is damaged: `{file}` at offset {offset}")
            }
            Self::Io(why) => why.fmt(f),
            Self::Stopped(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why a directory could not be opened. Nothing in it was changed, except that an operation that
/// failed half-way (`Io`) may have left a file behind that the next start removes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    Locked {
        /// The directory.
        directory: String,
        /// The id of that process.
        holder: String,
    },
    /// There is no log in it, and none was to be made.
    Empty {
        /// The directory.
        directory: String,
    },
    /// It is the log of another cluster.
    OtherCluster {
        /// Whose it is.
        found: ClusterId,
        /// Whose it should be.
        expected: ClusterId,
    },
    /// It is the log of another node.
    OtherNode {
        /// Whose it is.
        found: NodeId,
        /// Whose it should be.
        expected: NodeId,
    },
    /// It was written by newer software. Upgrade.
    Newer {
        /// The file.
        file: String,
        /// Its format version.
        found: u32,
        /// The highest that this software reads.
        supported: u32,
    },
    /// It holds a segment or record of another data directory: files were copied.
    Foreign {
        /// The file.
        file: String,
        /// The data directory that the file is from.
        found: Incarnation,
    },
    /// The file that says whose log this is cannot be read, so nothing else can be believed.
    /// Restore the file, or remove the node and add it under a new id.
    Identity {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file has the name of a segment with a number that none gets. Take it away.
    Name {
        /// The file.
        file: String,
    },
    /// The disk failed.
    Io(IoFailure),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { directory, holder } => {
                write!(f, "`{directory}` is in use by process {holder}")
            }
            Self::Empty { directory } => write!(f, "`{directory}` holds no log"),
            Self::OtherCluster { found, expected } => {
                write!(f, "the log belongs to cluster {found}, not {expected}")
            }
            Self::OtherNode { found, expected } => {
                write!(f, "the log belongs to node {found}, not {expected}")
            }
            Self::Newer { file, found, supported } => write!(
                f,
                "`{file}` has format version {found}; this software reads up to {supported}"
            ),
            Self::Foreign { file, found } => {
                write!(f, "`{file}` is from another data directory (incarnation {:x})", found.0)
            }
            Self::Identity { file, why } => write!(f, "`{file}` {why}"),
            Self::Name { file } => write!(f, "no segment is ever called `{file}`"),
            Self::Io(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<IoFailure> for OpenError {
    fn from(why: IoFailure) -> Self {
        Self::Io(why)
    }
}

macro_rules! stopped {
    ($($name:ident),*) => {
        $(impl From<Stopped> for $name {
            fn from(why: Stopped) -> Self {
                Self::Stopped(why)
            }
        })*
    };
}
stopped!(WriteError, ChoreError, ReadError);
