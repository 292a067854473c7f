//! Reading entries back.
//!
//! Where they are is looked up under the lock; reading and checking goes on without it, while
//! others write. A segment that is being read cannot be used again meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use quorate_raft::{Entry, GroupId, Index};
use quorate_wire::EntryHead;

use crate::crc;
use crate::error::{IoFailure, ReadError, Stopped};
use crate::index::{GroupIndex, Location};
use crate::record::{Body, Header};
use crate::segment::Segment;
use crate::wal::Shared;

/// Records up to this size are read in one go, and of larger ones the first part with that many
/// bytes, which usually has the header.
const FIRST_READ_BYTES: usize = 64 << 10;

/// Entries to be read from one record.
pub(crate) struct Piece {
    pub(crate) segment: Arc<Segment>,
    pub(crate) location: Location,
    pub(crate) first: Index,
    pub(crate) last: Index,
}

impl GroupIndex {
    /// First and last index that count in the record at `position`.
    pub(crate) fn range_at(&self, position: usize) -> (Index, Index) {
        let first = self.locations[position].first().max(self.start_index().next());
        let last = self.locations.get(position + 1).map_or(self.last, |next| next.first().prev());
        (first, last)
    }
}

impl Shared {
    pub(crate) fn read(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        let mut room = bytes_max;
        for piece in self.pieces(group, first, last, bytes_max)? {
            let wanted = usize::try_from(piece.last.0 - piece.first.0 + 1).unwrap_or(usize::MAX);
            let before = entries.len();
            room = read_piece(&piece, room, &mut entries)?;
            if entries.len() - before < wanted {
                break;
            }
        }
        Ok(entries)
    }

    /// The records that have the entries, as far as `bytes_max` can reach.
    fn pieces(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Vec<Piece>, ReadError> {
        let log = self.log();
        if let Some(stopped @ (Stopped::Poisoned(_) | Stopped::Closed)) = &log.stopped {
            return Err(ReadError::Stopped(stopped.clone()));
        }
        let Some(index) = log.groups.by_id.get(&group) else {
            return Err(ReadError::Beyond { last: Index::ZERO });
        };
        if first <= index.start_index() {
            return Err(ReadError::Compacted { start: index.start_index() });
        }
        if first > index.last {
            return Err(ReadError::Beyond { last: index.last });
        }
        let last = last.min(index.last).max(first);
        let mut pieces = Vec::new();
        let mut bytes = 0;
        for position in index.position(first)..index.locations.len() {
            let location = index.locations[position];
            let (piece_first, piece_last) = index.range_at(position);
            if piece_first > last || bytes > bytes_max {
                break;
            }
            let segment = log.segments.get(location.segment()).ok_or_else(|| {
                let file = crate::segment::file_name(location.segment());
                ReadError::Damaged { file, offset: location.offset(), index: first }
            })?;
            // Of the first one, an unknown part is not wanted.
            bytes += if piece_first < first { 0 } else { location.len() };
            pieces.push(Piece {
                segment: Arc::clone(segment),
                location,
                first: piece_first.max(first),
                last: piece_last.min(last),
            });
        }
        Ok(pieces)
    }
}

/// Reads the entries of `piece` until their sizes come to more than `room`, but at least one if
/// `entries` has none. Returns the room that is left.
pub(crate) fn read_piece(
    piece: &Piece,
    mut room: usize,
    entries: &mut Vec<Entry>,
) -> Result<usize, ReadError> {
    let Piece { segment, location, first, last } = piece;
    let (begin, len) = (location.offset(), location.len());
    let damaged = |offset, index| {
        let file = segment.name.clone();
        ReadError::Damaged { file, offset, index }
    };
    let mut record = read_exactly(segment, begin, len.min(FIRST_READ_BYTES))?
        .ok_or_else(|| damaged(begin, *first))?;
    if Header::read(&record, begin).is_none() && record.len() < len {
        // The header itself is longer than the first part.
        record = read_exactly(segment, begin, len)?.ok_or_else(|| damaged(begin, *first))?;
    }
    let header = Header::read(&record, begin).filter(|header| header.record_len() == len);
    let header = header.ok_or_else(|| damaged(begin, *first))?;
    let Some(Body::Group(body)) = header.body(&record) else { return Err(damaged(begin, *first)) };

    // The heads of those wanted, and where their payloads begin and end in the record.
    let mut heads: Vec<EntryHead> = Vec::new();
    let mut from = header.header_len;
    let mut to = from;
    for head in body.heads() {
        let payload_len = head.payload_len as usize;
        if head.id.index < *first {
            from += payload_len;
            to = from;
            continue;
        }
        let size = payload_len + Entry::OVERHEAD_BYTES;
        let none_yet = heads.is_empty() && entries.is_empty();
        if head.id.index > *last || (size > room && !none_yet) {
            break;
        }
        room = room.saturating_sub(size);
        to += payload_len;
        heads.push(head);
    }
    let payloads = if to <= record.len() {
        Bytes::from(record).slice(from..to)
    } else {
        let read = read_exactly(segment, begin + from as u64, to - from)?;
        Bytes::from(read.ok_or_else(|| damaged(begin, *first))?)
    };
    if heads.is_empty() && entries.is_empty() {
        return Err(damaged(begin, *first));
    }
    let mut at = 0;
    for head in heads {
        let offset = begin + (from + at) as u64;
        let payload = payloads.slice(at..at + head.payload_len as usize);
        at += payload.len();
        if crc::of(&payload) != head.checksum {
            return Err(damaged(offset, head.id.index));
        }
        entries.push(head.entry(payload).map_err(|_| damaged(offset, head.id.index))?);
    }
    Ok(room)
}

/// So many bytes at that offset; `None` if the file ends before.
fn read_exactly(segment: &Segment, offset: u64, len: usize) -> Result<Option<Vec<u8>>, ReadError> {
    let mut bytes = vec![0; len];
    let count = segment
        .file
        .read_at(&mut bytes, offset)
        .map_err(|error| ReadError::Io(IoFailure::new("read", &segment.name, &error).at(offset)))?;
    Ok((count == len).then_some(bytes))
}
