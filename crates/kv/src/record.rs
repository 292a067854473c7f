//! Bytes of one change in the history on disk.
//!
//! ```text
//! version u8 = 1 | kind u8 | rest
//! kind 1, put:    create_revision i64 | version i64 | lease i64 (0: none) | key length u32 | key | value
//! kind 2, delete: key
//! ```
//!
//! Numbers are little-endian. The place in the history, which is the key in the database, is not repeated.

use core::fmt;

use bytes::Bytes;

use crate::{Event, KeyValue, LeaseId, Revision};

const VERSION: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const HEAD: usize = 2;
const PUT_HEAD: usize = HEAD + 8 + 8 + 8 + 4;

/// Where a change stands: its revision, and which of that revision's changes it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) revision: i64,
    pub(crate) sub: u32,
}

/// A change, with its bytes where they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordRef<'a> {
    pub(crate) key: &'a [u8],
    /// The key, with the value behind it if there is one.
    pub(crate) pair: &'a [u8],
    /// `None`: the key was deleted.
    pub(crate) put: Option<PutRef<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PutRef<'a> {
    pub(crate) create_revision: i64,
    pub(crate) version: i64,
    pub(crate) lease: Option<LeaseId>,
    pub(crate) value: &'a [u8],
}

/// Why bytes are not a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    /// A newer build wrote it.
    Version(u8),
    Kind(u8),
    Truncated,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "record of version {version}, from a newer build"),
            Self::Kind(kind) => write!(f, "record of unknown kind {kind}"),
            Self::Truncated => f.write_str("record that is cut short"),
        }
    }
}

/// The bytes of an event.
pub(crate) fn encode(event: &Event, out: &mut Vec<u8>) {
    out.clear();
    let kv = &event.kv;
    if event.is_delete() {
        out.extend_from_slice(&[VERSION, DELETE]);
        out.extend_from_slice(&kv.key);
        return;
    }
    out.reserve(PUT_HEAD + kv.key.len() + kv.value.len());
    out.extend_from_slice(&[VERSION, PUT]);
    out.extend_from_slice(&kv.create_revision.0.to_le_bytes());
    out.extend_from_slice(&kv.version.to_le_bytes());
    out.extend_from_slice(&kv.lease.map_or(0, |lease| lease.0).to_le_bytes());
    let key_length = u32::try_from(kv.key.len()).expect("a command is far smaller than 4 GiB");
    out.extend_from_slice(&key_length.to_le_bytes());
    out.extend_from_slice(&kv.key);
    out.extend_from_slice(&kv.value);
}

impl<'a> RecordRef<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (&[version, kind], rest) =
            bytes.split_first_chunk::<HEAD>().ok_or(RecordError::Truncated)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        match kind {
            DELETE => Ok(Self { key: rest, pair: rest, put: None }),
            PUT => {
                let (create_revision, rest) = number(rest)?;
                let (version, rest) = number(rest)?;
                let (lease, rest) = number(rest)?;
                let (length, rest) = rest.split_first_chunk::<4>().ok_or(RecordError::Truncated)?;
                let length = u32::from_le_bytes(*length) as usize;
                let pair = rest;
                let (key, value) = pair.split_at_checked(length).ok_or(RecordError::Truncated)?;
                let lease = LeaseId::from_number(lease);
                let put = Some(PutRef { create_revision, version, lease, value });
                Ok(Self { key, pair, put })
            }
            other => Err(RecordError::Kind(other)),
        }
    }

    /// The same as an event, in memory of its own.
    pub(crate) fn to_event(self, revision: i64) -> Event {
        match self.to_kv(revision) {
            Some(kv) => Event::put(kv, None),
            None => Event::delete(Bytes::copy_from_slice(self.key), Revision(revision), None),
        }
    }

    /// The pair after a put, in memory of its own.
    pub(crate) fn to_kv(self, revision: i64) -> Option<KeyValue> {
        let put = self.put?;
        let pair = Bytes::copy_from_slice(self.pair);
        Some(KeyValue {
            key: pair.slice(..self.key.len()),
            create_revision: Revision(put.create_revision),
            mod_revision: Revision(revision),
            version: put.version,
            value: pair.slice(self.key.len()..),
            lease: put.lease,
        })
    }
}

fn number(bytes: &[u8]) -> Result<(i64, &[u8]), RecordError> {
    let (number, rest) = bytes.split_first_chunk::<8>().ok_or(RecordError::Truncated)?;
    Ok((i64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let kv = KeyValue {
            key: Bytes::from_static(b"key"),
            create_revision: Revision(3),
            mod_revision: Revision(7),
            version: 2,
            value: Bytes::from_static(b"value"),
            lease: LeaseId::from_number(-5),
        };
        let delete = Event::delete(Bytes::from_static(b"key"), Revision(7), None);
        let empty = KeyValue { value: Bytes::new(), lease: None, ..kv.clone() };
        for event in [Event::put(kv, None), Event::put(empty, None), delete] {
            let mut bytes = Vec::new();
            encode(&event, &mut bytes);
            assert_eq!(RecordRef::decode(&bytes).unwrap().to_event(7), event);
        }
    }

    #[test]
    fn bytes_that_are_no_record_are_errors() {
        let mut bytes = Vec::new();
        let kv = KeyValue {
            key: Bytes::from_static(b"key"),
            create_revision: Revision(3),
            mod_revision: Revision(7),
            version: 2,
            value: Bytes::new(),
            lease: None,
        };
        encode(&Event::put(kv, None), &mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(RecordRef::decode(&bytes[..length]), Err(RecordError::Truncated));
        }
        assert_eq!(RecordRef::decode(&[2, 1, 0]), Err(RecordError::Version(2)));
        assert_eq!(RecordRef::decode(&[1, 3, 0]), Err(RecordError::Kind(3)));
    }
}
