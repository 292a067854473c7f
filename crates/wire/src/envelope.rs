//! Messages with their addresses, as they go over the network.
//!
//! ```text
//! 0  version u8 | 1 kind u8 | 2 zero u16 | 4 CRC32C u32 | 8 head length u32
//! 12 cluster | 20 group | 28 from | 36 incarnation | 44 to | 52 term      (u64 each)
//! 60 body, by kind; of AppendEntries it ends with the heads of the entries
//!    payloads of the entries, in order
//! ```
//!
//! The head is everything before the payloads. Its checksum is over all of the head but the four
//! bytes of the checksum.

use alloc::vec::Vec;

use bytes::Bytes;
use quorate_raft::{
    ClusterId, Entry, Envelope, GroupId, Incarnation, Message, NodeId, Term, crc32c,
};

use crate::entry::EntryHead;
use crate::error::WireError;
use crate::form::Form;
use crate::message::{put_body, take_body};
use crate::reader::Reader;

/// The version that this software writes, and the highest that it reads.
pub const VERSION: u8 = 1;

/// The smallest head: one of a message without a body.
pub const HEAD_BYTES_MIN: usize = 60;

/// Where the checksum stands.
const CHECKSUM_AT: usize = 4;
/// Where the length of the head stands, and what the checksum goes on with.
const LENGTH_AT: usize = 8;

/// Appends the bytes of `envelope`, payloads included.
pub fn encode_envelope(envelope: &Envelope, out: &mut Vec<u8>) {
    encode_envelope_head(envelope, out);
    for payload in payloads(envelope) {
        out.extend_from_slice(&payload);
    }
}

/// Appends the head of `envelope` only. Followed by all of [`payloads`] it is what
/// [`encode_envelope`] writes; a transport that writes several buffers at once need not copy them.
pub fn encode_envelope_head(envelope: &Envelope, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(VERSION);
    let kind_at = out.len();
    out.extend_from_slice(&[0; 3 + 4 + 4]);
    envelope.cluster.put(out);
    envelope.group.put(out);
    envelope.from.put(out);
    envelope.incarnation.put(out);
    envelope.to.put(out);
    envelope.term.put(out);
    debug_assert_eq!(out.len() - start, HEAD_BYTES_MIN);
    out[kind_at] = put_body(&envelope.message, out);

    let head = &mut out[start..];
    let length = u32::try_from(head.len()).expect("limits keep every head far below 4 GiB");
    head[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
    let checksum = head_checksum(head);
    head[CHECKSUM_AT..LENGTH_AT].copy_from_slice(&checksum.to_le_bytes());
}

/// The payloads that follow the head of `envelope`, in order; commands are shared, not copied.
pub fn payloads(envelope: &Envelope) -> impl Iterator<Item = Bytes> {
    let entries: &[Entry] = match &envelope.message {
        Message::AppendEntries(append) => &append.entries,
        _ => &[],
    };
    entries.iter().map(|entry| EntryHead::of(entry).1).filter(|payload| !payload.is_empty())
}

/// Reads one envelope that takes up all of `bytes`. Commands and extensions share their memory.
///
/// The head's checksum is checked. Those of the entries are not; the core does that when it takes
/// the entries in.
///
/// # Errors
///
/// When the bytes are not exactly one envelope; see [`WireError`].
pub fn decode_envelope(bytes: &Bytes) -> Result<Envelope, WireError> {
    let version = *bytes.first().ok_or(WireError::Truncated)?;
    if version != VERSION {
        return Err(WireError::Version { found: version, supported: VERSION });
    }
    let mut start = Reader::new(bytes);
    let _version_and_kind: [u8; 4] = start.array()?;
    let checksum = u32::take(&mut start)?;
    let head_len = u32::take(&mut start)? as usize;
    let head = bytes.get(..head_len).ok_or(WireError::Truncated)?;
    if head_len < HEAD_BYTES_MIN {
        return Err(WireError::Value { what: "head length" });
    }
    if head_checksum(head) != checksum {
        return Err(WireError::Checksum);
    }
    let [_, kind, reserved @ ..] = [head[0], head[1], head[2], head[3]];
    if reserved != [0; 2] {
        return Err(WireError::Value { what: "reserved field" });
    }

    let head = bytes.slice(12..head_len);
    let payloads = bytes.slice(head_len..);
    let mut reader = Reader::shared(&head);
    let mut payloads = Reader::shared(&payloads);
    let envelope = Envelope {
        cluster: ClusterId::take(&mut reader)?,
        group: GroupId::take(&mut reader)?,
        from: NodeId::take(&mut reader)?,
        incarnation: Incarnation::take(&mut reader)?,
        to: NodeId::take(&mut reader)?,
        term: Term::take(&mut reader)?,
        message: take_body(kind, &mut reader, &mut payloads)?,
    };
    reader.finish()?;
    payloads.finish()?;
    Ok(envelope)
}

/// CRC32C of a whole head but for the checksum itself, which counts as zero.
fn head_checksum(head: &[u8]) -> u32 {
    // Two sums, one of them over four bytes, are cheaper than a copy of the head without four.
    let mut start = [0; 8];
    start[..CHECKSUM_AT].copy_from_slice(&head[..CHECKSUM_AT]);
    start[CHECKSUM_AT..].copy_from_slice(&crc32c(&head[LENGTH_AT..]).to_le_bytes());
    crc32c(&start)
}
