//! The trait of everything that has bytes, and the plain numbers.

use alloc::vec::Vec;

use bytes::Bytes;
use quorate_raft::{
    AttemptId, ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Seq, Term, Time,
};

use crate::error::WireError;
use crate::reader::Reader;

/// A value with one form in bytes.
///
/// The form has no version and no checksum of its own: it is part of something that has. What
/// [`put`](Self::put) wrote, [`take`](Self::take) reads back as an equal value, and what `take`
/// accepts, `put` writes again byte for byte.
pub trait Form: Sized {
    /// Appends the bytes of this value.
    fn put(&self, out: &mut Vec<u8>);

    /// Takes a value off the front of `reader`.
    ///
    /// # Errors
    ///
    /// When there is none; `reader` is then somewhere in the middle.
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError>;

    /// The bytes of this value alone.
    fn to_form(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Reads a value that must take up all of `bytes`.
    ///
    /// # Errors
    ///
    /// When it does not, or is none.
    fn from_form(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let value = Self::take(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

macro_rules! plain {
    ($($number:ty),*) => {
        $(impl Form for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                reader.array().map(Self::from_le_bytes)
            }
        })*
    };
}
plain!(u8, u16, u32, u64);

macro_rules! newtypes {
    ($($name:ident),*) => {
        $(impl Form for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }

            fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                u64::take(reader).map(Self)
            }
        })*
    };
}
newtypes!(Term, Index, NodeId, GroupId, ClusterId, Incarnation, Seq, Time);

/// One byte, 0 or 1.
impl Form for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::take(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Value { what: "yes or no" }),
        }
    }
}

/// One byte, 0 or 1, and behind a 1 the value.
impl<T: Form> Form for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        if bool::take(reader)? { T::take(reader).map(Some) } else { Ok(None) }
    }
}

/// A `u32` length and the bytes.
impl Form for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        out.extend_from_slice(self);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = reader.count(1)?;
        reader.bytes(count)
    }
}

/// Index, then term.
impl Form for LogId {
    fn put(&self, out: &mut Vec<u8>) {
        self.index.put(out);
        self.term.put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { index: Index::take(reader)?, term: Term::take(reader)? })
    }
}

/// Boot nonce, then count.
impl Form for AttemptId {
    fn put(&self, out: &mut Vec<u8>) {
        self.boot.put(out);
        self.count.put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { boot: u64::take(reader)?, count: u64::take(reader)? })
    }
}

/// A count or length as it stands before what it counts.
pub(crate) fn put_count(count: usize, out: &mut Vec<u8>) {
    let count = u32::try_from(count).expect("limits keep every list and payload far below 4 GiB");
    count.put(out);
}
