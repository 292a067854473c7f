//! The rows of the database's second table.
//!
//! ```text
//! a             applied: index u64, term u64
//! c             compacted up to: i64        d   the same, and nothing of it is left in the file
//! f             format version of the whole: u32
//! g             leases granted since the beginning: u64
//! i             a snapshot is being restored: what is here is not whole
//! l + id i64    a lease (see `lease.rs`)
//! m + member u64 + kind u8    an active alarm
//! r             current revision: i64
//! x + key       a row of the host's
//! ```
//!
//! Numbers are big-endian.

use crate::disk::DiskError;
use crate::{AlarmKind, AlarmMember, LeaseId, MemberId};

/// Version of tables and rows as a whole; a file of another one is refused.
pub(crate) const FORMAT: u32 = 1;

/// The row of a database that holds a part of a snapshot only.
pub(crate) const RESTORING: &[u8] = b"i";

/// A row's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meta {
    Applied,
    Compacted,
    Finished,
    Format,
    Grants,
    Lease(LeaseId),
    Alarm(AlarmMember),
    Revision,
    Host(Vec<u8>),
}

impl Meta {
    pub(crate) fn key(&self) -> Vec<u8> {
        match self {
            Self::Applied => b"a".to_vec(),
            Self::Compacted => b"c".to_vec(),
            Self::Finished => b"d".to_vec(),
            Self::Format => b"f".to_vec(),
            Self::Grants => b"g".to_vec(),
            Self::Lease(id) => [b"l", &id.0.to_be_bytes()[..]].concat(),
            Self::Alarm(alarm) => {
                let kind = match alarm.kind {
                    AlarmKind::NoSpace => 1,
                    AlarmKind::Corrupt => 2,
                };
                [b"m", &alarm.member.0.to_be_bytes()[..], &[kind]].concat()
            }
            Self::Revision => b"r".to_vec(),
            Self::Host(key) => [b"x", &key[..]].concat(),
        }
    }

    pub(crate) fn of(key: &[u8]) -> Result<Self, DiskError> {
        if key == RESTORING {
            let what = "a part of a snapshot, which was not restored to its end".to_owned();
            return Err(DiskError::Content { what });
        }
        let parsed = match key {
            b"a" => Some(Self::Applied),
            b"c" => Some(Self::Compacted),
            b"d" => Some(Self::Finished),
            b"f" => Some(Self::Format),
            b"g" => Some(Self::Grants),
            b"r" => Some(Self::Revision),
            [b'l', id @ ..] => {
                id.try_into().ok().map(|id| Self::Lease(LeaseId(i64::from_be_bytes(id))))
            }
            [b'm', member @ .., kind] => alarm(member, *kind).map(Self::Alarm),
            [b'x', key @ ..] => Some(Self::Host(key.to_vec())),
            _ => None,
        };
        parsed.ok_or_else(|| DiskError::Content { what: format!("a meta row named {key:?}") })
    }
}

fn alarm(member: &[u8], kind: u8) -> Option<AlarmMember> {
    let member = MemberId(u64::from_be_bytes(member.try_into().ok()?));
    let kind = match kind {
        1 => AlarmKind::NoSpace,
        2 => AlarmKind::Corrupt,
        _ => return None,
    };
    Some(AlarmMember { member, kind })
}

pub(crate) fn number(number: i64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

pub(crate) fn read_number(bytes: &[u8]) -> Result<i64, DiskError> {
    let bytes = bytes.try_into().map_err(|_| wrong_size("a number", bytes))?;
    Ok(i64::from_be_bytes(bytes))
}

pub(crate) fn pair(first: u64, second: u64) -> Vec<u8> {
    [first.to_be_bytes(), second.to_be_bytes()].concat()
}

pub(crate) fn read_pair(bytes: &[u8]) -> Result<(u64, u64), DiskError> {
    let pair = bytes.split_first_chunk::<8>().and_then(|(first, rest)| {
        Some((u64::from_be_bytes(*first), u64::from_be_bytes(rest.try_into().ok()?)))
    });
    pair.ok_or_else(|| wrong_size("a place in the log", bytes))
}

fn wrong_size(what: &str, bytes: &[u8]) -> DiskError {
    DiskError::Content { what: format!("{what} of {} bytes", bytes.len()) }
}
