//! Bytes of what nodes say to each other.
//!
//! The core's messages have theirs in `quorate-wire`. The two that carry commands to the leader are
//! here; the second byte tells them from the core's:
//!
//! ```text
//! 0  version u8 = 1 | 1 kind u8: 64 forward, 65 answer | 2 zero u16
//! 4  CRC32C u32, of everything but itself and the command of a forward
//! 8  cluster | 16 group | 24 from | 32 to | 40 boot | 48 count            (u64 each)
//! 56 forward: term u64, CRC32C of the command u32, length u32, command
//!    answer:  result, see `put_result`
//! ```

use bytes::Bytes;
use quorate_raft::{AttemptId, ClusterId, GroupId, LogId, NodeId, ProposeError, Term, crc32c};
use quorate_wire::{Form, Reader, WireError, decode_envelope, encode_envelope};

use crate::action::{Executed, ProposeFailure};
use crate::message::{Forward, ForwardReply, NodeMessage};

const VERSION: u8 = 1;
const FORWARD: u8 = 64;
const FORWARD_REPLY: u8 = 65;
const CHECKSUM_AT: usize = 4;
const BODY_AT: usize = 8;

impl NodeMessage {
    /// Appends the bytes of this message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raft(envelope) => encode_envelope(envelope, out),
            Self::Forward(m) => {
                let start = begin(FORWARD, m.cluster, m.group, m.from, m.to, m.attempt, out);
                m.term.put(out);
                m.checksum.put(out);
                let length = u32::try_from(m.command.len());
                length.expect("limits keep every command far below 4 GiB").put(out);
                finish(&mut out[start..]);
                out.extend_from_slice(&m.command);
            }
            Self::ForwardReply(m) => {
                let start = begin(FORWARD_REPLY, m.cluster, m.group, m.from, m.to, m.attempt, out);
                put_result(&m.result, out);
                finish(&mut out[start..]);
            }
        }
    }

    /// The bytes of this message.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(128);
        self.encode(&mut out);
        out.into()
    }

    /// Reads a message that takes up all of `bytes`. Commands share their memory. Checksums are
    /// checked, but for those of commands: the core does that when it takes them in.
    ///
    /// # Errors
    ///
    /// When the bytes are not exactly one message.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, WireError> {
        match bytes.get(1) {
            Some(&(FORWARD | FORWARD_REPLY)) => {}
            _ => return decode_envelope(bytes).map(Self::Raft),
        }
        if bytes[0] != VERSION {
            return Err(WireError::Version { found: bytes[0], supported: VERSION });
        }
        let mut reader = Reader::shared(bytes);
        let head: [u8; 4] = reader.array()?;
        if head[2..] != [0; 2] {
            return Err(WireError::Value { what: "reserved field" });
        }
        let checksum = u32::take(&mut reader)?;
        let cluster = ClusterId::take(&mut reader)?;
        let group = GroupId::take(&mut reader)?;
        let from = NodeId::take(&mut reader)?;
        let to = NodeId::take(&mut reader)?;
        let boot = u64::take(&mut reader)?;
        let attempt = AttemptId { boot, count: u64::take(&mut reader)? };
        if head[1] == FORWARD {
            let term = Term::take(&mut reader)?;
            let command_checksum = u32::take(&mut reader)?;
            let length = u32::take(&mut reader)? as usize;
            let head_len = bytes.len() - reader.remaining();
            if checksum_of(&bytes[..head_len]) != checksum {
                return Err(WireError::Checksum);
            }
            let command = reader.bytes(length)?;
            reader.finish()?;
            let checksum = command_checksum;
            let forward = Forward { cluster, group, from, to, term, attempt, command, checksum };
            return Ok(Self::Forward(forward));
        }
        if checksum_of(bytes) != checksum {
            return Err(WireError::Checksum);
        }
        let result = take_result(&mut reader)?;
        reader.finish()?;
        Ok(Self::ForwardReply(ForwardReply { cluster, group, from, to, attempt, result }))
    }
}

fn begin(
    kind: u8,
    cluster: ClusterId,
    group: GroupId,
    from: NodeId,
    to: NodeId,
    attempt: AttemptId,
    out: &mut Vec<u8>,
) -> usize {
    let start = out.len();
    out.extend_from_slice(&[VERSION, kind, 0, 0, 0, 0, 0, 0]);
    cluster.put(out);
    group.put(out);
    from.put(out);
    to.put(out);
    attempt.boot.put(out);
    attempt.count.put(out);
    start
}

fn finish(head: &mut [u8]) {
    let checksum = checksum_of(head);
    head[CHECKSUM_AT..BODY_AT].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum_of(head: &[u8]) -> u32 {
    let mut start = [0; BODY_AT];
    start[..CHECKSUM_AT].copy_from_slice(&head[..CHECKSUM_AT]);
    start[CHECKSUM_AT..].copy_from_slice(&crc32c(&head[BODY_AT..]).to_le_bytes());
    crc32c(&start)
}

mod code {
    pub(super) const EXECUTED: u8 = 0;
    pub(super) const NOT_LEADER: u8 = 1;
    pub(super) const WRONG_TERM: u8 = 2;
    pub(super) const TOO_LARGE: u8 = 3;
    pub(super) const UNAPPLIED: u8 = 4;
    pub(super) const TRANSFERRING: u8 = 5;
    pub(super) const CORRUPT: u8 = 6;
    pub(super) const OVERWRITTEN: u8 = 7;
    pub(super) const BUSY: u8 = 8;
    pub(super) const UNKNOWN: u8 = 9;
    pub(super) const UNKNOWN_AT: u8 = 10;
}

/// ```text
/// 0 executed: index u64, term u64, length u32, response
/// 1 not leader: leader u64 or 0     2 wrong term: term u64        3 too large: bytes u64, most u64
/// 4 unapplied: bytes u64, most u64  5 transferring: node u64      6 corrupt
/// 7 overwritten: index, term        8 busy: most u64
/// 9 unknown                         10 unknown, appended at: index, term
/// ```
fn put_result(result: &Result<Executed, ProposeFailure>, out: &mut Vec<u8>) {
    let refused = match result {
        Ok(Executed { at, response }) => {
            out.push(code::EXECUTED);
            at.put(out);
            return response.put(out);
        }
        Err(ProposeFailure::Refused(why)) => why,
        Err(ProposeFailure::Overwritten { at }) => {
            out.push(code::OVERWRITTEN);
            return at.put(out);
        }
        Err(ProposeFailure::Busy { forwarded_max }) => {
            out.push(code::BUSY);
            return (*forwarded_max as u64).put(out);
        }
        Err(ProposeFailure::OutcomeUnknown { at: None }) => return out.push(code::UNKNOWN),
        Err(ProposeFailure::OutcomeUnknown { at: Some(at) }) => {
            out.push(code::UNKNOWN_AT);
            return at.put(out);
        }
    };
    match refused {
        ProposeError::NotLeader { leader } => {
            out.push(code::NOT_LEADER);
            leader.unwrap_or(NodeId(0)).put(out);
        }
        ProposeError::WrongTerm { term } => {
            out.push(code::WRONG_TERM);
            term.put(out);
        }
        ProposeError::TooLarge { bytes, bytes_max } => {
            out.push(code::TOO_LARGE);
            (*bytes as u64).put(out);
            (*bytes_max as u64).put(out);
        }
        ProposeError::Busy { bytes, bytes_max } => {
            out.push(code::UNAPPLIED);
            (*bytes as u64).put(out);
            (*bytes_max as u64).put(out);
        }
        ProposeError::Transferring { to } => {
            out.push(code::TRANSFERRING);
            to.put(out);
        }
        ProposeError::Corrupt => out.push(code::CORRUPT),
        ProposeError::OutcomeUnknown { at } => {
            out.push(code::UNKNOWN_AT);
            at.put(out);
        }
        // What this format has no word for is said in the one way that promises nothing.
        _ => out.push(code::UNKNOWN),
    }
}

fn take_result(reader: &mut Reader<'_>) -> Result<Result<Executed, ProposeFailure>, WireError> {
    let size = |reader: &mut Reader<'_>| {
        let value = u64::take(reader)?;
        usize::try_from(value).map_err(|_| WireError::Value { what: "size" })
    };
    let refused = match u8::take(reader)? {
        code::EXECUTED => {
            let at = LogId::take(reader)?;
            return Ok(Ok(Executed { at, response: Bytes::take(reader)? }));
        }
        code::NOT_LEADER => {
            let leader = Some(NodeId::take(reader)?).filter(|leader| *leader != NodeId(0));
            ProposeError::NotLeader { leader }
        }
        code::WRONG_TERM => ProposeError::WrongTerm { term: Term::take(reader)? },
        code::TOO_LARGE => {
            ProposeError::TooLarge { bytes: size(reader)?, bytes_max: size(reader)? }
        }
        code::UNAPPLIED => ProposeError::Busy { bytes: size(reader)?, bytes_max: size(reader)? },
        code::TRANSFERRING => ProposeError::Transferring { to: NodeId::take(reader)? },
        code::CORRUPT => ProposeError::Corrupt,
        code::OVERWRITTEN => {
            return Ok(Err(ProposeFailure::Overwritten { at: LogId::take(reader)? }));
        }
        code::BUSY => return Ok(Err(ProposeFailure::Busy { forwarded_max: size(reader)? })),
        code::UNKNOWN => return Ok(Err(ProposeFailure::OutcomeUnknown { at: None })),
        code::UNKNOWN_AT => {
            let at = Some(LogId::take(reader)?);
            return Ok(Err(ProposeFailure::OutcomeUnknown { at }));
        }
        _ => return Err(WireError::Value { what: "result of a forwarded command" }),
    };
    Ok(Err(ProposeFailure::Refused(refused)))
}
