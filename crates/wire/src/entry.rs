//! Entries: a head of fixed size that identifies and describes, and a payload.
//!
//! The two are kept apart wherever entries are stored or sent. The heads of all entries of a
//! message or record stand together under one checksum; the payloads follow, each under the
//! checksum in its head. So damage to a payload never hides which entry it was.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use bytes::Bytes;
use quorate_raft::{Entry, Index, LogId, Payload, Term};

use crate::envelope::VERSION;
use crate::error::WireError;
use crate::form::Form;
use crate::reader::Reader;
use crate::state::membership_of;

/// What kind of payload an entry has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PayloadKind {
    /// [`Payload::Noop`].
    Noop = 0,
    /// [`Payload::Command`].
    Command = 1,
    /// [`Payload::Membership`].
    Membership = 2,
}

/// Everything about an entry but its payload.
///
/// ```text
/// index u64 | term u64 | kind u8 | payload length u32 | payload CRC32C u32
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHead {
    /// Position and term.
    pub id: LogId,
    /// What the payload is.
    pub kind: PayloadKind,
    /// How many bytes it has.
    pub payload_len: u32,
    /// Their CRC32C.
    pub checksum: u32,
}

impl EntryHead {
    /// Bytes that every head takes.
    pub const BYTES: usize = 25;

    /// The head of `entry`, and the bytes of its payload, shared with it.
    #[must_use]
    pub fn of(entry: &Entry) -> (Self, Bytes) {
        let (kind, payload) = match &entry.payload {
            Payload::Noop => (PayloadKind::Noop, Bytes::new()),
            Payload::Command(command) => (PayloadKind::Command, command.clone()),
            Payload::Membership(membership) => (PayloadKind::Membership, membership.to_bytes()),
        };
        (Self::new(entry, kind, payload.len()), payload)
    }

    /// The same with the payload borrowed, for those who copy it at once.
    #[must_use]
    pub fn borrowing(entry: &Entry) -> (Self, Cow<'_, [u8]>) {
        let (kind, payload) = match &entry.payload {
            Payload::Noop => (PayloadKind::Noop, Cow::Borrowed(&[][..])),
            Payload::Command(command) => (PayloadKind::Command, Cow::Borrowed(&command[..])),
            Payload::Membership(membership) => {
                (PayloadKind::Membership, Cow::Owned(membership.to_bytes().into()))
            }
        };
        (Self::new(entry, kind, payload.len()), payload)
    }

    fn new(entry: &Entry, kind: PayloadKind, payload_len: usize) -> Self {
        let payload_len =
            u32::try_from(payload_len).expect("limits keep every payload far below 4 GiB");
        Self { id: entry.log_id(), kind, payload_len, checksum: entry.checksum }
    }

    /// The entry that has this head and this payload. Whether the payload is intact is not
    /// looked at: compare its checksum.
    ///
    /// # Errors
    ///
    /// When the payload is not of that length, or no payload of that kind.
    pub fn entry(&self, payload: Bytes) -> Result<Entry, WireError> {
        if payload.len() != self.payload_len as usize {
            return Err(WireError::Truncated);
        }
        let payload = match self.kind {
            PayloadKind::Noop if payload.is_empty() => Payload::Noop,
            PayloadKind::Noop => return Err(WireError::Value { what: "empty payload" }),
            PayloadKind::Command => Payload::Command(payload),
            PayloadKind::Membership => Payload::Membership(membership_of(&payload)?),
        };
        let LogId { index, term } = self.id;
        Ok(Entry { index, term, payload, checksum: self.checksum })
    }

    /// The bytes of this head.
    #[must_use]
    pub fn to_array(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&self.id.index.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.term.0.to_le_bytes());
        bytes[16] = self.kind as u8;
        bytes[17..21].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[21..25].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }
}

impl Form for EntryHead {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_array());
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = LogId { index: Index::take(reader)?, term: Term::take(reader)? };
        let kind = match u8::take(reader)? {
            0 => PayloadKind::Noop,
            1 => PayloadKind::Command,
            2 => PayloadKind::Membership,
            _ => return Err(WireError::Value { what: "kind of payload" }),
        };
        let payload_len = u32::take(reader)?;
        if kind == PayloadKind::Noop && payload_len != 0 {
            return Err(WireError::Value { what: "empty payload" });
        }
        Ok(Self { id, kind, payload_len, checksum: u32::take(reader)? })
    }
}

/// Appends `entry` in the form that stands alone: version, head, payload.
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    let (head, payload) = EntryHead::borrowing(entry);
    out.push(VERSION);
    head.put(out);
    out.extend_from_slice(&payload);
}

/// Reads what [`encode_entry`] wrote; the command, if it is one, shares the memory of `bytes`.
/// The head has no checksum of its own, and that of the payload is not checked: see
/// [`Entry::checksum_holds`].
///
/// # Errors
///
/// When the bytes are not exactly one entry.
pub fn decode_entry(bytes: &Bytes) -> Result<Entry, WireError> {
    let mut reader = Reader::shared(bytes);
    match u8::take(&mut reader)? {
        VERSION => {}
        found => return Err(WireError::Version { found, supported: VERSION }),
    }
    let head = EntryHead::take(&mut reader)?;
    let payload = reader.bytes(head.payload_len as usize)?;
    reader.finish()?;
    head.entry(payload)
}
