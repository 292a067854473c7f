//! Records: what the log is made of.
//!
//! A record is a header under one checksum, and behind it the payloads of its entries, each under
//! its own. Everything that identifies is in the header: so a payload that went bad costs neither
//! the vote beside it nor the knowledge of which entry it was.
//!
//! ```text
//! 0    "Qrec"
//! 4    CRC32C        u32   of the offset of this record in its file (u64) and bytes 8.. of the header
//! 8    chain         u32   the CRC32C of the record before this one
//! 12   header length u32
//! 16   payload length u32  of all payloads together
//! 20   kind          u8    1 append, 2 rewrite, 3 mark;  then three zeros
//! 24   tag           u64   of the segment
//! 32   number        u64   one more than that of the record before
//! 40   mark          u64   all records up to that number were durable when this one was written
//!
//! append, rewrite:                              mark:
//! 48   group         u64                        48   oldest   u64   segments below that
//! 56   sequence      u64   of the Persist                           number are free
//! 64   start         u64   index behind which the group's log starts
//! 72   hard state          as in wire-format.md
//!      count         u32
//!      entry heads         as in wire-format.md
//! ```
//!
//! The record is filled up with zeros to a multiple of eight bytes.

use quorate_raft::{Entry, GroupId, HardState, Index, Seq};
use quorate_wire::{EntryHead, Form, Reader};

use crate::crc;

pub(crate) const MAGIC: [u8; 4] = *b"Qrec";
/// Records begin at multiples of this, so that reading can find the next one behind damage.
pub(crate) const ALIGN: usize = 8;
/// What every header has.
const FIXED_BYTES: usize = 48;
/// Where the start of the group's log stands.
const START_AT: usize = 64;
/// The highest number that a record gets. Nothing overflows on the way there.
pub(crate) const NUMBER_MAX: u64 = u64::MAX >> 1;
/// The largest record. Offsets within a segment are kept in 32 bits.
pub(crate) const BYTES_MAX: u64 = 1 << 31;

/// What a record is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// New hard state and entries of a group; drops entries at and behind the first one.
    Append = 1,
    /// Entries that stood in an older segment, and the hard state as it is. Drops nothing.
    Rewrite = 2,
    /// Only says what is durable and which segments are free.
    Mark = 3,
}

/// What is only known once the place of a record is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seal {
    pub(crate) offset: u64,
    pub(crate) chain: u32,
    pub(crate) tag: u64,
    pub(crate) number: u64,
    pub(crate) mark: u64,
}

/// Appends a record for a group to `out`, complete but for its [`seal`] and the start of the log.
/// Returns the first entry whose payload is not what its checksum says: such a record must not be
/// written, since the next start would take it for damage.
pub(crate) fn put_group_record(
    out: &mut Vec<u8>,
    kind: Kind,
    group: GroupId,
    seq: Seq,
    hard_state: &HardState,
    entries: &[Entry],
) -> Option<Index> {
    let begin = out.len();
    // A good guess of the size, so that a large record grows the buffer once.
    let payloads: usize = entries.iter().map(Entry::size).sum();
    out.reserve(FIXED_BYTES + START_AT + payloads);
    out.extend_from_slice(&[0; FIXED_BYTES]);
    group.put(out);
    seq.put(out);
    0u64.put(out);
    hard_state.put(out);
    let count = u32::try_from(entries.len()).expect("a record holds far fewer than 2^32 entries");
    count.put(out);
    // The heads are filled in while the payloads are copied, so that entries are walked once.
    let heads_at = out.len();
    out.resize(heads_at + entries.len() * EntryHead::BYTES, 0);
    let payloads_at = out.len();
    let mut corrupt = None;
    for (at, entry) in entries.iter().enumerate() {
        let (head, payload) = EntryHead::borrowing(entry);
        let at = heads_at + at * EntryHead::BYTES;
        out[at..at + EntryHead::BYTES].copy_from_slice(&head.to_array());
        if crc::of(&payload) != head.checksum {
            corrupt = corrupt.or(Some(entry.index));
        }
        out.extend_from_slice(&payload);
    }
    finish(out, begin, payloads_at, kind);
    corrupt
}

/// Appends a mark to `out`, complete but for its [`seal`].
pub(crate) fn put_mark(out: &mut Vec<u8>, oldest: u64) {
    let begin = out.len();
    out.extend_from_slice(&[0; FIXED_BYTES]);
    oldest.put(out);
    let payloads_at = out.len();
    finish(out, begin, payloads_at, Kind::Mark);
}

fn finish(out: &mut Vec<u8>, begin: usize, payloads_at: usize, kind: Kind) {
    let lengths = [payloads_at - begin, out.len() - payloads_at];
    out.resize(begin + (out.len() - begin).next_multiple_of(ALIGN), 0);
    let record = &mut out[begin..];
    record[..4].copy_from_slice(&MAGIC);
    for (at, length) in [12, 16].into_iter().zip(lengths) {
        // Larger ones are refused before they get a place (`BYTES_MAX`).
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        record[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    record[20] = kind as u8;
}

/// Bytes of all payloads of a record that is not sealed yet.
pub(crate) fn payload_len(record: &[u8]) -> u64 {
    u64::from(word(record, 16))
}

/// Says where the group's log starts, in a record that is not sealed yet.
pub(crate) fn set_start(record: &mut [u8], start: Index) {
    record[START_AT..START_AT + 8].copy_from_slice(&start.0.to_le_bytes());
}

/// Fills in what depends on the place, and the checksum, which it returns.
pub(crate) fn seal(record: &mut [u8], seal: &Seal) -> u32 {
    record[8..12].copy_from_slice(&seal.chain.to_le_bytes());
    record[24..32].copy_from_slice(&seal.tag.to_le_bytes());
    record[32..40].copy_from_slice(&seal.number.to_le_bytes());
    record[40..48].copy_from_slice(&seal.mark.to_le_bytes());
    let header_len = word(record, 12) as usize;
    let checksum = checksum(&record[..header_len], seal.offset);
    record[4..8].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// The offset is in the sum so that a record written to the wrong place is none.
fn checksum(header: &[u8], offset: u64) -> u32 {
    crc::append(crc::of(&offset.to_le_bytes()), &header[8..])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

/// Whether a header may begin here: worth reading the rest.
pub(crate) fn begins(bytes: &[u8]) -> bool {
    bytes.len() >= FIXED_BYTES && bytes[..4] == MAGIC
}

/// How long the header that begins here claims to be.
pub(crate) fn claimed_header_len(bytes: &[u8]) -> usize {
    word(bytes, 12) as usize
}

/// The tag that the header that begins here claims.
pub(crate) fn claimed_tag(bytes: &[u8]) -> u64 {
    long(bytes, 24)
}

/// A header whose checksum holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) checksum: u32,
    pub(crate) chain: u32,
    pub(crate) tag: u64,
    pub(crate) number: u64,
    pub(crate) mark: u64,
    pub(crate) header_len: usize,
    pub(crate) payload_len: usize,
    kind: u8,
}

/// What the rest of a header says.
#[derive(Clone, Debug)]
pub(crate) enum Body<'a> {
    Group(GroupBody<'a>),
    Mark { oldest: u64 },
}

/// What a record says for a group.
#[derive(Clone, Debug)]
pub(crate) struct GroupBody<'a> {
    pub(crate) rewrite: bool,
    pub(crate) group: GroupId,
    pub(crate) seq: Seq,
    pub(crate) start: Index,
    pub(crate) hard_state: HardState,
    heads: &'a [u8],
}

impl Header {
    /// The header at the front of `bytes`, which stand at `offset` in their file; `None` if there
    /// is none or not all of it.
    pub(crate) fn read(bytes: &[u8], offset: u64) -> Option<Self> {
        if !begins(bytes) {
            return None;
        }
        let header_len = claimed_header_len(bytes);
        if header_len < FIXED_BYTES {
            return None;
        }
        let header = bytes.get(..header_len)?;
        let sum = word(header, 4);
        if sum != checksum(header, offset) {
            return None;
        }
        let header = Self {
            checksum: sum,
            chain: word(header, 8),
            tag: long(header, 24),
            number: long(header, 32),
            mark: long(header, 40),
            header_len,
            payload_len: word(header, 16) as usize,
            kind: header[20],
        };
        // Whoever can count a checksum can also write numbers that we never do.
        (header.number <= NUMBER_MAX && header.mark < header.number).then_some(header)
    }

    /// Bytes up to the next record.
    pub(crate) const fn record_len(&self) -> usize {
        (self.header_len + self.payload_len).next_multiple_of(ALIGN)
    }

    /// What the header says, whose bytes begin `record`. `None` if it makes no sense, although its
    /// checksum holds: then it was not written by software of this version.
    pub(crate) fn body<'a>(&self, record: &'a [u8]) -> Option<Body<'a>> {
        let mut reader = Reader::new(record.get(FIXED_BYTES..self.header_len)?);
        let body = match self.kind {
            kind @ (1 | 2) => {
                let group = GroupId::take(&mut reader).ok()?;
                let seq = Seq::take(&mut reader).ok()?;
                let start = Index::take(&mut reader).ok()?;
                let hard_state = HardState::take(&mut reader).ok()?;
                let count = reader.count(EntryHead::BYTES).ok()?;
                let heads = reader.take(count * EntryHead::BYTES).ok()?;
                let rewrite = kind == Kind::Rewrite as u8;
                let body = GroupBody { rewrite, group, seq, start, hard_state, heads };
                body.is_sound(self.payload_len).then_some(Body::Group(body))?
            }
            3 if self.payload_len == 0 => Body::Mark { oldest: u64::take(&mut reader).ok()? },
            _ => return None,
        };
        reader.finish().ok()?;
        Some(body)
    }
}

impl GroupBody<'_> {
    /// The heads of the entries. They are sound, and their indices follow each other.
    pub(crate) fn heads(&self) -> impl ExactSizeIterator<Item = EntryHead> {
        self.heads.chunks_exact(EntryHead::BYTES).map(|bytes| {
            EntryHead::take(&mut Reader::new(bytes)).expect("heads are checked with the body")
        })
    }

    /// First and last index of the entries.
    pub(crate) fn range(&self) -> Option<(Index, Index)> {
        let mut heads = self.heads();
        let first = heads.next()?.id.index;
        Some((first, Index(first.0 + heads.len() as u64)))
    }

    fn is_sound(&self, payload_len: usize) -> bool {
        if self.start > Index::MAX {
            return false;
        }
        let mut next = None;
        let mut total = 0;
        for bytes in self.heads.chunks_exact(EntryHead::BYTES) {
            let Ok(head) = EntryHead::take(&mut Reader::new(bytes)) else { return false };
            let index = head.id.index;
            if index == Index::ZERO || index > Index::MAX || next.is_some_and(|next| next != index)
            {
                return false;
            }
            next = Some(index.next());
            total += head.payload_len as usize;
        }
        total == payload_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_raft::{NodeId, Payload, Term};

    fn sealed() -> (Vec<u8>, Seal) {
        let entries: Vec<Entry> = (5..8)
            .map(|index| {
                let command = Bytes::from(vec![index as u8; 10]);
                Entry::new(Index(index), Term(2), Payload::Command(command))
            })
            .collect();
        let hard_state =
            HardState { term: Term(2), voted_for: Some(NodeId(1)), ..HardState::default() };
        let mut bytes = Vec::new();
        put_group_record(&mut bytes, Kind::Append, GroupId(9), Seq(4), &hard_state, &entries);
        set_start(&mut bytes, Index(4));
        let place = Seal { offset: 8192, chain: 1, tag: 2, number: 3, mark: 1 };
        seal(&mut bytes, &place);
        (bytes, place)
    }

    #[test]
    fn a_record_says_what_was_put_in() {
        let (bytes, place) = sealed();
        let header = Header::read(&bytes, place.offset).unwrap();
        assert_eq!(header.record_len(), bytes.len());
        assert_eq!((header.chain, header.tag, header.number, header.mark), (1, 2, 3, 1));
        let Some(Body::Group(body)) = header.body(&bytes) else { panic!("another kind") };
        assert_eq!((body.group, body.seq, body.start), (GroupId(9), Seq(4), Index(4)));
        assert_eq!(body.range(), Some((Index(5), Index(7))));
        assert!(!body.rewrite);
        assert_eq!(body.hard_state.voted_for, Some(NodeId(1)));
    }

    #[test]
    fn a_flipped_bit_or_another_place_makes_it_none() {
        let (bytes, place) = sealed();
        let header_len = Header::read(&bytes, place.offset).unwrap().header_len;
        assert!(Header::read(&bytes, place.offset + 8).is_none());
        for bit in 0..header_len * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::read(&flipped, place.offset).is_none(), "bit {bit}");
        }
        for len in 0..header_len {
            assert!(Header::read(&bytes[..len], place.offset).is_none());
        }
    }

    #[test]
    fn marks() {
        let mut bytes = Vec::new();
        put_mark(&mut bytes, 17);
        let place = Seal { offset: 64, chain: 1, tag: 2, number: 3, mark: 2 };
        seal(&mut bytes, &place);
        let header = Header::read(&bytes, 64).unwrap();
        assert!(matches!(header.body(&bytes), Some(Body::Mark { oldest: 17 })));
    }
}
