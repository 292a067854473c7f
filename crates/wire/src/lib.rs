//! The bytes of Raft's values, for the log and for the network.
//!
//! Everything that leaves a process passes through this crate, so its rules are strict:
//!
//! * **One value, one form.** Numbers are little-endian and of fixed width; whatever decodes also
//!   encodes to the very same bytes.
//! * **Bad bytes are an error**, never a panic, and nothing is allocated by a length that was not
//!   first compared with the bytes that are there.
//! * **Payloads are not copied.** An [`Envelope`](quorate_raft::Envelope) decoded from [`Bytes`](bytes::Bytes)
//!   shares their memory, and one to be sent can be written from where its entries lie.
//! * **Old readers recognise new bytes.** Each form that stands alone begins with its version, and
//!   a reader that does not know it says so. `docs/wire-format.md` has the byte maps and the rule
//!   of what may change.
//!
//! Damage is found in two steps. What describes a message (addresses, terms, indices, the table of
//! entries) is under one CRC32C that [`decode_envelope`] checks. The payload of an entry has its
//! own, made where the payload was made, which travels along and is checked by whoever takes the
//! entry in: the core for messages, the log for what it reads back.
//!
//! ```
//! use bytes::Bytes;
//! use quorate_raft::{
//!     ClusterId, CommitNotice, Envelope, GroupId, Incarnation, Index, Message, NodeId, Term,
//! };
//! use quorate_wire::{decode_envelope, encode_envelope};
//!
//! let envelope = Envelope {
//!     cluster: ClusterId(7),
//!     group: GroupId(0),
//!     from: NodeId(1),
//!     incarnation: Incarnation(99),
//!     to: NodeId(2),
//!     term: Term(3),
//!     message: Message::CommitNotice(CommitNotice { leader_commit: Index(41) }),
//! };
//! let mut bytes = Vec::new();
//! encode_envelope(&envelope, &mut bytes);
//! assert_eq!(decode_envelope(&Bytes::from(bytes)).unwrap(), envelope);
//! ```
#![no_std]
#![doc(test(attr(deny(warnings))))]

extern crate alloc;

mod entry;
mod envelope;
mod error;
mod form;
mod message;
mod reader;
mod state;

pub use entry::{EntryHead, PayloadKind, decode_entry, encode_entry};
pub use envelope::{
    HEAD_BYTES_MIN, VERSION, decode_envelope, encode_envelope, encode_envelope_head, payloads,
};
pub use error::WireError;
pub use form::Form;
pub use reader::Reader;
