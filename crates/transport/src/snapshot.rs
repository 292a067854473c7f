//! Snapshots on their way: what a sender reads from, and what a receiver gets.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::refusal::Refusal;

/// The longest name of a snapshot, in bytes.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 255;

/// Chunks that wait for the receiver's host at most; beyond that nothing more is read.
const CHUNKS_WAITING_MAX: usize = 2;

/// Bytes that can be read at any offset and never change.
pub trait SnapshotRead: Send + 'static {
    /// Fills `buffer` from `offset` on and says how much of it; zero only at the end. May block.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

impl SnapshotRead for File {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.seek(SeekFrom::Start(offset))?;
        self.read(buffer)
    }
}

impl SnapshotRead for Bytes {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest =
            usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or(&[]);
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// A snapshot that a peer may read: an immutable, spooled file.
pub struct SnapshotSource {
    /// Its length in bytes.
    pub length: u64,
    /// Tells this very file from another of the same name: a checksum of it, or a random number
    /// made with it. A transfer is resumed only in the file in which it began.
    pub identity: u64,
    /// Its bytes.
    pub reader: Box<dyn SnapshotRead>,
}

impl fmt::Debug for SnapshotSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotSource")
            .field("length", &self.length)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Which bytes of which snapshot a receiver wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRequest {
    /// What the sender's host calls the snapshot; at most [`SNAPSHOT_NAME_BYTES_MAX`].
    pub name: Bytes,
    /// The first byte wanted; those before it are here already.
    pub offset: u64,
    /// The file in which the transfer began, if it is resumed.
    pub identity: Option<u64>,
}

impl SnapshotRequest {
    /// All of a snapshot.
    #[must_use]
    pub const fn from_start(name: Bytes) -> Self {
        Self { name, offset: 0, identity: None }
    }
}

/// Some bytes of a snapshot. Their checksum was right when they arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotChunk {
    /// Where in the snapshot they belong.
    pub offset: u64,
    /// The bytes, at least one.
    pub bytes: Bytes,
}

/// The chunks of one snapshot, in order and without gaps. Dropping it ends the transfer.
#[derive(Debug)]
pub struct SnapshotStream {
    length: u64,
    identity: u64,
    position: u64,
    failed: bool,
    chunks: mpsc::Receiver<Result<SnapshotChunk, FetchError>>,
}

/// Where a transport puts the chunks of a [`SnapshotStream`].
#[derive(Clone, Debug)]
pub struct SnapshotSink {
    chunks: mpsc::Sender<Result<SnapshotChunk, FetchError>>,
}

impl SnapshotStream {
    /// A stream that begins at `offset` of a snapshot, and what feeds it.
    #[must_use]
    pub fn new(length: u64, identity: u64, offset: u64) -> (SnapshotSink, Self) {
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING_MAX);
        let stream = Self { length, identity, position: offset, failed: false, chunks };
        (SnapshotSink { chunks: sender }, stream)
    }

    /// Length of the whole snapshot, in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The sender's [`SnapshotSource::identity`], for a [`SnapshotRequest`] that resumes.
    #[must_use]
    pub const fn identity(&self) -> u64 {
        self.identity
    }

    /// How much of the snapshot was handed out, those before the first offset included: where to
    /// resume if the transfer breaks.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The next chunk; `None` when, and only when, the snapshot is complete.
    ///
    /// # Errors
    ///
    /// Once, when the transfer breaks; after that there is nothing more.
    pub async fn next(&mut self) -> Option<Result<SnapshotChunk, FetchError>> {
        if self.failed || self.position == self.length {
            return None;
        }
        let next = self.chunks.recv().await.unwrap_or_else(|| {
            Err(FetchError::Broken { why: "the transfer ended early".to_owned() })
        });
        let chunk = next.and_then(|chunk| {
            let len = chunk.bytes.len() as u64;
            let fits = len > 0 && len <= self.length - self.position;
            if chunk.offset == self.position && fits { Ok(chunk) } else { Err(FetchError::Damaged) }
        });
        match &chunk {
            Ok(chunk) => self.position += chunk.bytes.len() as u64,
            Err(_) => self.failed = true,
        }
        Some(chunk)
    }
}

impl SnapshotSink {
    /// Hands a chunk, or the end, to the receiver; waits while it is busy with those before.
    /// `false` if the receiver wants no more.
    pub async fn put(&self, chunk: Result<SnapshotChunk, FetchError>) -> bool {
        self.chunks.send(chunk).await.is_ok()
    }
}

/// Why a snapshot, or the rest of it, did not come. What came before is good.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FetchError {
    /// No connection could be made. Try again later.
    Unreachable {
        /// For people.
        why: String,
    },
    /// The peer refused the connection. An operator has to act.
    Refused(Refusal),
    /// The peer sends as many snapshots as it may. Try again after the given time.
    Busy {
        /// When a try makes sense, in milliseconds from now.
        retry_after_ms: u32,
    },
    /// The peer has no such snapshot (any more).
    Missing,
    /// The peer's snapshot of that name is not the one in which the transfer began, or is shorter
    /// than the offset. Begin from the start.
    Changed,
    /// The peer cannot read its own snapshot.
    Unreadable {
        /// What it says.
        why: String,
    },
    /// The connection broke. Resume at [`SnapshotStream::position`].
    Broken {
        /// For people.
        why: String,
    },
    /// What came is not what was sent. Resume at [`SnapshotStream::position`].
    Damaged,
    /// The name is longer than [`SNAPSHOT_NAME_BYTES_MAX`].
    NameTooLong,
    /// No such peer was set.
    Unknown,
    /// The transport was not started yet, or is shut down.
    Stopped,
}

impl FetchError {
    /// Whether the same request, or one that resumes, may work a little later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Busy { .. } | Self::Broken { .. } | Self::Damaged
        )
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { why } => write!(f, "no connection: {why}"),
            Self::Refused(refusal) => write!(f, "the peer refused: {refusal}"),
            Self::Busy { retry_after_ms } => {
                write!(
                    f,
                    "the peer sends as many snapshots as it may; again in {retry_after_ms} ms"
                )
            }
            Self::Missing => f.write_str("the peer has no such snapshot"),
            Self::Changed => f.write_str("the peer's snapshot is not the one that was begun"),
            Self::Unreadable { why } => write!(f, "the peer cannot read its snapshot: {why}"),
            Self::Broken { why } => write!(f, "the connection broke: {why}"),
            Self::Damaged => f.write_str("bytes of the snapshot were damaged on their way"),
            Self::NameTooLong => {
                write!(f, "names of snapshots have at most {SNAPSHOT_NAME_BYTES_MAX} bytes")
            }
            Self::Unknown => f.write_str("no such peer was set"),
            Self::Stopped => f.write_str("the transport does not run"),
        }
    }
}

impl std::error::Error for FetchError {}
