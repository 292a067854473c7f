//! Bytes of a command: version, kind, fields in the order of the types.
//!
//! Numbers are LEB128 (signed ones as zigzag), bytes and lists have their length in front, flags and kinds are one byte.
//! A command has exactly one form: overlong numbers, flags above 1 and bytes left over are errors. No length is believed
//! before it is checked, and lists grow as they are read.

use core::fmt;

use bytes::Bytes;

use crate::{
    Alarm, AlarmKind, Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange,
    GrantedLease, LeaseCheckpoint, LeaseGrant, LeaseId, MemberId, Op, Put, Range, Revision,
    SortOrder, SortTarget, Txn,
};

/// First byte of every command.
pub const FORMAT_VERSION: u8 = 1;
/// Most bytes of a command, written or read: far above what a server accepts from a client.
pub const COMMAND_BYTES_MAX: usize = 64 << 20;
/// How deep transactions may nest, the outermost counted: as deep as 128 operations can go.
pub const TXN_DEPTH_MAX: usize = 128;

/// Why a command has no bytes. It was not written at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// More than [`COMMAND_BYTES_MAX`].
    TooLarge,
    /// Nested deeper than [`TXN_DEPTH_MAX`].
    TooDeep,
    /// A lease of number 0, which means "none".
    NoLease,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the command is too large",
            Self::TooDeep => "transactions nest too deep",
            Self::NoLease => "a lease has the number 0",
        })
    }
}

impl core::error::Error for EncodeError {}

/// Why bytes are not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// More than [`COMMAND_BYTES_MAX`].
    TooLarge,
    /// A version that this build does not know: a newer one wrote it.
    Version(u8),
    /// The bytes end within a command.
    Truncated,
    /// Bytes after the command.
    Trailing,
    /// A number that is too large or longer than it need be.
    Number,
    /// A flag or kind that is not known.
    Kind(u8),
    /// A lease of number 0.
    NoLease,
    /// Nested deeper than [`TXN_DEPTH_MAX`].
    TooDeep,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the command is too large"),
            Self::Version(version) => write!(f, "unknown command version {version}"),
            Self::Truncated => f.write_str("the command is cut short"),
            Self::Trailing => f.write_str("bytes after the command"),
            Self::Number => f.write_str("a number is not in its shortest form"),
            Self::Kind(kind) => write!(f, "unknown flag or kind {kind}"),
            Self::NoLease => f.write_str("a lease has the number 0"),
            Self::TooDeep => f.write_str("transactions nest too deep"),
        }
    }
}

impl core::error::Error for DecodeError {}

impl Command {
    /// The bytes of this command.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut w = Writer { out: vec![FORMAT_VERSION] };
        match self {
            Self::Put(put) => w.kind(1)?.put(put)?,
            Self::DeleteRange(delete) => w.kind(2)?.delete_range(delete)?,
            Self::Txn(txn) => w.kind(3)?.txn(txn, 1)?,
            Self::Compact(compact) => {
                w.kind(4)?.signed(compact.revision.0)?;
                w.flag(compact.physical)?;
            }
            Self::LeaseGrant(grant) => {
                w.kind(5)?.lease(grant.id)?;
                w.signed(grant.ttl_s)?;
            }
            Self::LeaseRevoke(id) => w.kind(6)?.lease(*id)?,
            Self::LeaseExpire(ids) => {
                w.kind(7)?.unsigned(ids.len() as u64)?;
                ids.iter().try_for_each(|lease| w.granted(*lease))?;
            }
            Self::LeaseCheckpoint(checkpoints) => {
                w.kind(8)?.unsigned(checkpoints.len() as u64)?;
                for checkpoint in checkpoints {
                    w.granted(checkpoint.lease)?;
                    w.signed(checkpoint.remaining_s)?;
                }
            }
            Self::Alarm(alarm) => w.kind(9)?.alarm(*alarm)?,
        }
        Ok(Bytes::from(w.out))
    }

    /// The command of these bytes; keys and values share them.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(DecodeError::TooLarge);
        }
        let mut r = Reader { bytes, at: 0 };
        let version = r.byte()?;
        if version != FORMAT_VERSION {
            return Err(DecodeError::Version(version));
        }
        let command =
            match r.byte()? {
                1 => Self::Put(r.put()?),
                2 => Self::DeleteRange(r.delete_range()?),
                3 => Self::Txn(r.txn(1)?),
                4 => Self::Compact(Compact { revision: r.revision()?, physical: r.flag()? }),
                5 => Self::LeaseGrant(LeaseGrant { id: r.lease()?, ttl_s: r.signed()? }),
                6 => Self::LeaseRevoke(r.lease()?),
                7 => Self::LeaseExpire(r.list(Reader::granted)?),
                8 => Self::LeaseCheckpoint(r.list(|r| {
                    Ok(LeaseCheckpoint { lease: r.granted()?, remaining_s: r.signed()? })
                })?),
                9 => Self::Alarm(r.alarm()?),
                kind => return Err(DecodeError::Kind(kind)),
            };
        if r.at < bytes.len() {
            return Err(DecodeError::Trailing);
        }
        Ok(command)
    }
}

struct Writer {
    out: Vec<u8>,
}

type Written = Result<(), EncodeError>;

impl Writer {
    fn raw(&mut self, bytes: &[u8]) -> Written {
        if bytes.len() > COMMAND_BYTES_MAX - self.out.len() {
            return Err(EncodeError::TooLarge);
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn kind(&mut self, kind: u8) -> Result<&mut Self, EncodeError> {
        self.raw(&[kind])?;
        Ok(self)
    }

    fn flag(&mut self, flag: bool) -> Written {
        self.raw(&[u8::from(flag)])
    }

    fn unsigned(&mut self, mut number: u64) -> Written {
        while number >= 0x80 {
            self.raw(&[number as u8 | 0x80])?;
            number >>= 7;
        }
        self.raw(&[number as u8])
    }

    fn signed(&mut self, number: i64) -> Written {
        self.unsigned(((number << 1) ^ (number >> 63)) as u64)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Written {
        self.unsigned(bytes.len() as u64)?;
        self.raw(bytes)
    }

    fn granted(&mut self, lease: GrantedLease) -> Written {
        self.lease(lease.id)?;
        self.unsigned(lease.grant)
    }

    fn lease(&mut self, id: LeaseId) -> Written {
        if id.0 == 0 {
            return Err(EncodeError::NoLease);
        }
        self.signed(id.0)
    }

    fn put(&mut self, put: &Put) -> Written {
        self.bytes(&put.key)?;
        self.bytes(&put.value)?;
        match put.lease {
            Some(id) => self.lease(id)?,
            None => self.signed(0)?,
        }
        self.flag(put.prev_kv)?;
        self.flag(put.ignore_value)?;
        self.flag(put.ignore_lease)
    }

    fn delete_range(&mut self, delete: &DeleteRange) -> Written {
        self.bytes(&delete.key)?;
        self.bytes(&delete.range_end)?;
        self.flag(delete.prev_kv)
    }

    fn range(&mut self, range: &Range) -> Written {
        self.bytes(&range.key)?;
        self.bytes(&range.range_end)?;
        self.signed(range.limit)?;
        self.signed(range.revision.0)?;
        self.kind(match range.sort_order {
            SortOrder::None => 0,
            SortOrder::Ascend => 1,
            SortOrder::Descend => 2,
        })?;
        self.kind(match range.sort_target {
            SortTarget::Key => 0,
            SortTarget::Version => 1,
            SortTarget::Create => 2,
            SortTarget::Mod => 3,
            SortTarget::Value => 4,
        })?;
        self.flag(range.serializable)?;
        self.flag(range.keys_only)?;
        self.flag(range.count_only)?;
        self.signed(range.min_mod_revision.0)?;
        self.signed(range.max_mod_revision.0)?;
        self.signed(range.min_create_revision.0)?;
        self.signed(range.max_create_revision.0)
    }

    fn txn(&mut self, txn: &Txn, depth: usize) -> Written {
        if depth > TXN_DEPTH_MAX {
            return Err(EncodeError::TooDeep);
        }
        self.unsigned(txn.compare.len() as u64)?;
        txn.compare.iter().try_for_each(|compare| self.compare(compare))?;
        for branch in [&txn.success, &txn.failure] {
            self.unsigned(branch.len() as u64)?;
            for op in branch {
                match op {
                    Op::Range(range) => self.kind(1)?.range(range)?,
                    Op::Put(put) => self.kind(2)?.put(put)?,
                    Op::DeleteRange(delete) => self.kind(3)?.delete_range(delete)?,
                    Op::Txn(txn) => self.kind(4)?.txn(txn, depth + 1)?,
                }
            }
        }
        Ok(())
    }

    fn compare(&mut self, compare: &Compare) -> Written {
        self.bytes(&compare.key)?;
        self.bytes(&compare.range_end)?;
        self.kind(match compare.result {
            CompareResult::Equal => 0,
            CompareResult::Greater => 1,
            CompareResult::Less => 2,
            CompareResult::NotEqual => 3,
            CompareResult::Unknown => 4,
        })?;
        match &compare.target {
            CompareTarget::Version(version) => self.kind(0)?.signed(*version),
            CompareTarget::Create(revision) => self.kind(1)?.signed(revision.0),
            CompareTarget::Mod(revision) => self.kind(2)?.signed(revision.0),
            CompareTarget::Value(value) => self.kind(3)?.bytes(value),
            CompareTarget::Lease(lease) => self.kind(4)?.signed(*lease),
        }
    }

    fn alarm(&mut self, alarm: Alarm) -> Written {
        let (action, member, kind) = match alarm {
            Alarm::List(kind) => (0, None, kind),
            Alarm::Activate(member, kind) => (1, Some(member), kind),
            Alarm::Deactivate(member, kind) => (2, Some(member), kind),
        };
        self.kind(action)?;
        if let Some(member) = member {
            self.unsigned(member.0)?;
        }
        self.kind(match kind {
            None => 0,
            Some(AlarmKind::NoSpace) => 1,
            Some(AlarmKind::Corrupt) => 2,
        })?;
        Ok(())
    }
}

struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

type Read<T> = Result<T, DecodeError>;

impl Reader<'_> {
    fn byte(&mut self) -> Read<u8> {
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn flag(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Kind(other)),
        }
    }

    fn unsigned(&mut self) -> Read<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if (shift == 63 && byte > 1) || (shift > 0 && byte == 0) {
                return Err(DecodeError::Number);
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Number)
    }

    fn signed(&mut self) -> Read<i64> {
        let number = self.unsigned()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn revision(&mut self) -> Read<Revision> {
        self.signed().map(Revision)
    }

    fn bytes(&mut self) -> Read<Bytes> {
        let len = usize::try_from(self.unsigned()?).map_err(|_| DecodeError::Truncated)?;
        if len > self.bytes.len() - self.at {
            return Err(DecodeError::Truncated);
        }
        let slice = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(slice)
    }

    fn granted(&mut self) -> Read<GrantedLease> {
        Ok(GrantedLease { id: self.lease()?, grant: self.unsigned()? })
    }

    fn lease(&mut self) -> Read<LeaseId> {
        LeaseId::from_number(self.signed()?).ok_or(DecodeError::NoLease)
    }

    /// Every element takes at least a byte, so a false length ends in `Truncated`.
    fn list<T>(&mut self, mut element: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let len = self.unsigned()?;
        let mut list = Vec::new();
        for _ in 0..len {
            list.push(element(self)?);
        }
        Ok(list)
    }

    fn put(&mut self) -> Read<Put> {
        Ok(Put {
            key: self.bytes()?,
            value: self.bytes()?,
            lease: LeaseId::from_number(self.signed()?),
            prev_kv: self.flag()?,
            ignore_value: self.flag()?,
            ignore_lease: self.flag()?,
        })
    }

    fn delete_range(&mut self) -> Read<DeleteRange> {
        Ok(DeleteRange { key: self.bytes()?, range_end: self.bytes()?, prev_kv: self.flag()? })
    }

    fn range(&mut self) -> Read<Range> {
        Ok(Range {
            key: self.bytes()?,
            range_end: self.bytes()?,
            limit: self.signed()?,
            revision: self.revision()?,
            sort_order: self.number(SortOrder::from_number)?,
            sort_target: self.number(SortTarget::from_number)?,
            serializable: self.flag()?,
            keys_only: self.flag()?,
            count_only: self.flag()?,
            min_mod_revision: self.revision()?,
            max_mod_revision: self.revision()?,
            min_create_revision: self.revision()?,
            max_create_revision: self.revision()?,
        })
    }

    fn number<T, E>(&mut self, from: impl Fn(i32) -> Result<T, E>) -> Read<T> {
        let byte = self.byte()?;
        from(i32::from(byte)).map_err(|_| DecodeError::Kind(byte))
    }

    fn txn(&mut self, depth: usize) -> Read<Txn> {
        if depth > TXN_DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        Ok(Txn {
            compare: self.list(Self::compare)?,
            success: self.list(|r| r.op(depth))?,
            failure: self.list(|r| r.op(depth))?,
        })
    }

    fn op(&mut self, depth: usize) -> Read<Op> {
        Ok(match self.byte()? {
            1 => Op::Range(self.range()?),
            2 => Op::Put(self.put()?),
            3 => Op::DeleteRange(self.delete_range()?),
            4 => Op::Txn(self.txn(depth + 1)?),
            kind => return Err(DecodeError::Kind(kind)),
        })
    }

    fn compare(&mut self) -> Read<Compare> {
        Ok(Compare {
            key: self.bytes()?,
            range_end: self.bytes()?,
            result: match self.byte()? {
                0 => CompareResult::Equal,
                1 => CompareResult::Greater,
                2 => CompareResult::Less,
                3 => CompareResult::NotEqual,
                4 => CompareResult::Unknown,
                kind => return Err(DecodeError::Kind(kind)),
            },
            target: match self.byte()? {
                0 => CompareTarget::Version(self.signed()?),
                1 => CompareTarget::Create(self.revision()?),
                2 => CompareTarget::Mod(self.revision()?),
                3 => CompareTarget::Value(self.bytes()?),
                4 => CompareTarget::Lease(self.signed()?),
                kind => return Err(DecodeError::Kind(kind)),
            },
        })
    }

    fn alarm(&mut self) -> Read<Alarm> {
        Ok(match self.byte()? {
            0 => Alarm::List(self.alarm_kind()?),
            1 => Alarm::Activate(MemberId(self.unsigned()?), self.alarm_kind()?),
            2 => Alarm::Deactivate(MemberId(self.unsigned()?), self.alarm_kind()?),
            kind => return Err(DecodeError::Kind(kind)),
        })
    }

    fn alarm_kind(&mut self) -> Read<Option<AlarmKind>> {
        match self.byte()? {
            0 => Ok(None),
            1 => Ok(Some(AlarmKind::NoSpace)),
            2 => Ok(Some(AlarmKind::Corrupt)),
            kind => Err(DecodeError::Kind(kind)),
        }
    }
}
