//! The form of a snapshot, on disk and on its way to a peer.
//!
//! ```text
//! 0   "QUORsnap"
//! 8   version u32 = 1
//! 12  CRC32C u32, of bytes 0..12 and of the head
//! 16  head length u32
//! 20  head: cluster u64, index, term, membership, length u32 and bytes of the table of sessions
//!     chunks: length u32 (1 to 1 MiB), CRC32C u32, bytes
//!     end: length u32 = 0, CRC32C u32 of all CRC32Cs of chunks
//! ```
//!
//! Every chunk is checked before the state machine sees it, and the end is there only if all of it
//! is: what a crash has cut off is never taken for a snapshot.

use std::io::{self, Read, Write};

use bytes::Bytes;
use quorate_node::sessions::Sessions;
use quorate_raft::{ClusterId, SnapshotMeta, crc32c};
use quorate_wire::{Form, Reader};

const MAGIC: &[u8; 8] = b"QUORsnap";
const VERSION: u32 = 1;
const CHUNK_BYTES: usize = 1 << 20;
/// A table of sessions at its limits is far below.
const HEAD_BYTES_MAX: usize = 1 << 30;

/// What a snapshot begins with.
pub(crate) struct Head {
    pub(crate) cluster: ClusterId,
    pub(crate) meta: SnapshotMeta,
    pub(crate) sessions: Bytes,
}

/// Writes chunks; [`finish`](Self::finish) writes the end.
pub(crate) struct SnapshotWriter<W> {
    out: W,
    chunk: Vec<u8>,
    checksums: Vec<u8>,
    written: u64,
}

impl<W: Write> SnapshotWriter<W> {
    pub(crate) fn new(mut out: W, head: &Head) -> io::Result<Self> {
        let mut body = Vec::new();
        head.cluster.put(&mut body);
        head.meta.put(&mut body);
        head.sessions.put(&mut body);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let mut checked = bytes.clone();
        checked.extend_from_slice(&body);
        bytes.extend_from_slice(&crc32c(&checked).to_le_bytes());
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&body);
        out.write_all(&bytes)?;
        let written = bytes.len() as u64;
        Ok(Self { out, chunk: Vec::new(), checksums: Vec::new(), written })
    }

    fn put_chunk(&mut self) -> io::Result<()> {
        let checksum = crc32c(&self.chunk).to_le_bytes();
        let length = u32::try_from(self.chunk.len()).expect("chunks are at most 1 MiB");
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&checksum)?;
        self.out.write_all(&self.chunk)?;
        self.checksums.extend_from_slice(&checksum);
        self.written += 8 + self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }

    /// Ends the snapshot; gives back what it was written to, and its length.
    pub(crate) fn finish(mut self) -> io::Result<(W, u64)> {
        if !self.chunk.is_empty() {
            self.put_chunk()?;
        }
        self.out.write_all(&0u32.to_le_bytes())?;
        self.out.write_all(&crc32c(&self.checksums).to_le_bytes())?;
        self.out.flush()?;
        Ok((self.out, self.written + 8))
    }
}

impl<W: Write> Write for SnapshotWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK_BYTES {
            self.put_chunk()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a snapshot, checking all of it on the way.
pub(crate) struct SnapshotReader<R> {
    input: R,
    chunk: Vec<u8>,
    at: usize,
    checksums: Vec<u8>,
    ended: bool,
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn word(input: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

impl<R: Read> SnapshotReader<R> {
    pub(crate) fn new(mut input: R) -> io::Result<(Head, Self)> {
        let mut start = [0; 12];
        input.read_exact(&mut start)?;
        if start[..8] != *MAGIC {
            return Err(bad("this is no snapshot"));
        }
        if start[8..] != VERSION.to_le_bytes() {
            return Err(bad("written by newer software"));
        }
        let checksum = word(&mut input)?;
        let length = word(&mut input)? as usize;
        if length > HEAD_BYTES_MAX {
            return Err(bad("the head is damaged"));
        }
        let mut checked = start.to_vec();
        // Never more memory than there are bytes, whatever the length says.
        let read = input.by_ref().take(length as u64).read_to_end(&mut checked)?;
        if read != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if crc32c(&checked) != checksum {
            return Err(bad("the head is damaged"));
        }
        let body = Bytes::from(checked).slice(start.len()..);
        let mut reader = Reader::shared(&body);
        let head = (|| {
            let cluster = ClusterId::take(&mut reader)?;
            let meta = SnapshotMeta::take(&mut reader)?;
            let sessions = Bytes::take(&mut reader)?;
            reader.finish().map(|()| Head { cluster, meta, sessions })
        })();
        let head = head.map_err(|why| bad(&why.to_string()))?;
        let checksums = Vec::new();
        Ok((head, Self { input, chunk: Vec::new(), at: 0, checksums, ended: false }))
    }

    /// Reads on to the end. An error if anything is missing or damaged.
    pub(crate) fn check_rest(&mut self) -> io::Result<()> {
        while !self.ended {
            self.next_chunk()?;
        }
        Ok(())
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let length = word(&mut self.input)? as usize;
        let checksum = word(&mut self.input)?;
        self.chunk.clear();
        self.at = 0;
        if length == 0 {
            if checksum != crc32c(&self.checksums) {
                return Err(bad("chunks are missing"));
            }
            self.ended = true;
            return Ok(());
        }
        if length > CHUNK_BYTES {
            return Err(bad("a chunk is damaged"));
        }
        self.chunk.resize(length, 0);
        self.input.read_exact(&mut self.chunk)?;
        if crc32c(&self.chunk) != checksum {
            return Err(bad("a chunk is damaged"));
        }
        self.checksums.extend_from_slice(&checksum.to_le_bytes());
        Ok(())
    }
}

impl<R: Read> Read for SnapshotReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            if self.ended {
                return Ok(0);
            }
            self.next_chunk()?;
        }
        let count = out.len().min(self.chunk.len() - self.at);
        out[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// The table of sessions in a snapshot's head.
pub(crate) fn sessions_of(head: &Head) -> io::Result<Sessions> {
    let mut reader = Reader::shared(&head.sessions);
    let sessions = Sessions::take(&mut reader).and_then(|sessions| {
        reader.finish()?;
        Ok(sessions)
    });
    sessions.map_err(|why| bad(&format!("the table of sessions: {why}")))
}
