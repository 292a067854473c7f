//! Entries of the log.

use core::fmt;

use alloc::sync::Arc;
use bytes::Bytes;

use crate::checksum::crc32c;
use crate::membership::Membership;
use crate::types::{Index, LogId, Term};

/// One entry of the replicated log (§5.3): a command for the state machine, or something that
/// Raft itself needs to agree on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Position in the log.
    pub index: Index,
    /// Term of the leader that created the entry.
    pub term: Term,
    /// What the entry says.
    pub payload: Payload,
    /// CRC32C of [`Payload::plain_bytes`]. It is made once, where the payload is made, and travels
    /// with the entry to the disk, over the network and to the state machine.
    pub checksum: u32,
}

/// What an entry says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Nothing. A leader starts its term with one, so that it learns what is committed (§8).
    Noop,
    /// A command for the state machine; opaque to Raft.
    Command(Bytes),
    /// A configuration of the cluster. It is in force as soon as it is appended (§6).
    Membership(Arc<Membership>),
}

impl Payload {
    /// The bytes that the checksum is about: those of the command, the canonical bytes of the
    /// membership, or none for a no-op.
    #[must_use]
    pub fn plain_bytes(&self) -> Bytes {
        match self {
            Self::Noop => Bytes::new(),
            Self::Command(command) => command.clone(),
            Self::Membership(membership) => membership.to_bytes(),
        }
    }

    /// CRC32C of [`plain_bytes`](Self::plain_bytes).
    #[must_use]
    pub fn checksum(&self) -> u32 {
        match self {
            Self::Noop => crc32c(&[]),
            Self::Command(command) => crc32c(command),
            Self::Membership(membership) => crc32c(&membership.to_bytes()),
        }
    }
}

impl Entry {
    /// Bytes that every entry is counted with beyond its payload, in all limits given in bytes:
    /// about what it costs in memory and in a record of the log.
    pub const OVERHEAD_BYTES: usize = 64;

    /// An entry with the checksum of its payload.
    #[must_use]
    pub fn new(index: Index, term: Term, payload: Payload) -> Self {
        let checksum = payload.checksum();
        Self { index, term, payload, checksum }
    }

    /// Index and term.
    #[must_use]
    pub const fn log_id(&self) -> LogId {
        LogId { index: self.index, term: self.term }
    }

    /// What this entry counts for in all limits given in bytes: its payload and
    /// [`OVERHEAD_BYTES`](Self::OVERHEAD_BYTES).
    #[must_use]
    pub fn size(&self) -> usize {
        let payload = match &self.payload {
            Payload::Noop => 0,
            Payload::Command(command) => command.len(),
            Payload::Membership(membership) => membership.size(),
        };
        payload + Self::OVERHEAD_BYTES
    }

    /// Whether the payload is what the checksum was made from.
    #[must_use]
    pub fn checksum_holds(&self) -> bool {
        self.payload.checksum() == self.checksum
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.log_id())?;
        match &self.payload {
            Payload::Noop => f.write_str("noop"),
            Payload::Membership(membership) => write!(f, "[{membership}]"),
            Payload::Command(command) => match core::str::from_utf8(command) {
                Ok(text) if !text.is_empty() && text.len() <= 24 && text.chars().all(graphic) => {
                    f.write_str(text)
                }
                _ => write!(f, "{}B", command.len()),
            },
        }
    }
}

fn graphic(c: char) -> bool {
    c.is_ascii_graphic() || c == ' '
}
