//! The segment that a start makes before anything else is written.
//!
//! A start never goes on where the last life stopped. What is behind the last record known to be
//! durable may be in the page cache only, on a disk that has already failed to take it, so whole
//! records there are written again, into a segment of their own, and synced, before anybody is told
//! that they are durable. The segment is made aside and gets its name when it is complete: until
//! then the log is as it was found, and a crash on the way changes nothing. Its header says where
//! the log before it ends, which makes everything behind that place void for ever.

use std::io;
use std::sync::Arc;

use super::{Examined, Note};
use crate::disk::{Disk, DiskFile};
use crate::error::{IoFailure, OpenError};
use crate::index::Location;
use crate::log::{Prepared, Random, Tail};
use crate::options::Options;
use crate::record::{self, Header, Seal};
use crate::segment::{self, PAGE, Place, RECORDS_AT, Segment, SegmentHeader};
use crate::small_file::{self, Fault, Identity, NEWEST_FILE, Newest, SmallFile};

/// The segment while it is being made.
const FRESH_FILE: &str = "fresh.tmp";
/// Zeros written at once.
const FILL_BYTES: usize = 1 << 20;

/// Where the log goes on.
pub(crate) struct Fresh {
    pub(crate) tail: Tail,
    /// Number of the last record in it.
    pub(crate) written: u64,
}

/// Makes the segment with that number, from an unused file if one is large enough, and tells the
/// replay where the records now are.
pub(crate) fn make(
    disk: &dyn Disk,
    options: &Options,
    identity: Identity,
    random: &mut Random,
    number: u64,
    mut examined: Option<&mut Examined>,
    unused: &mut Vec<Prepared>,
) -> Result<Fresh, OpenError> {
    let anchor = examined.as_ref().map_or((Place::default(), 0), |examined| examined.anchor);
    let (previous, durable) = anchor;
    let tag = random.tag(number);
    let bytes = vec![0; RECORDS_AT as usize];
    let mut maker = Maker { segment: number, tag, chain: previous.chain, written: durable, bytes };
    if let Some(examined) = &mut examined {
        maker.move_records(examined)?;
    }
    let Maker { chain, written, mut bytes, .. } = maker;
    let (file, size) = file_for(disk, options, bytes.len() as u64 + PAGE, unused)?;
    let oldest = examined.as_ref().and_then(|examined| examined.segments.first());
    let header = SegmentHeader {
        number,
        tag,
        identity,
        size,
        first: durable + 1,
        mark: written,
        oldest: oldest.map_or(number, |(segment, _)| segment.number),
        previous,
    };
    bytes[..RECORDS_AT as usize].copy_from_slice(&header.to_pages());
    let failure = |operation, error| IoFailure::new(operation, FRESH_FILE, &error);
    file.write_at(&bytes, 0).map_err(|error| failure("write", error))?;
    file.sync_data().map_err(|error| failure("sync", error))?;
    let name = segment::file_name(number);
    disk.rename(FRESH_FILE, &name).map_err(|error| failure("rename", error))?;
    small_file::sync_dir(disk).map_err(open_error)?;
    let newest = Newest { incarnation: identity.incarnation, segment: number, tail: number };
    small_file::replace(disk, NEWEST_FILE, &newest.to_file()).map_err(open_error)?;

    let segment = Arc::new(Segment { number, name, file, size });
    let place = Place { segment: number, offset: bytes.len() as u64, chain };
    Ok(Fresh { tail: Tail { segment, tag, place, first: 0 }, written })
}

struct Maker {
    segment: u64,
    tag: u64,
    chain: u32,
    written: u64,
    bytes: Vec<u8>,
}

impl Maker {
    /// Copies the records above the mark, each with its number, on top of the last one below it.
    fn move_records(&mut self, examined: &mut Examined) -> Result<(), OpenError> {
        let (mut records, begun) = (0, self.bytes.len());
        let mark = self.written;
        for above in &examined.above {
            let at = self.bytes.len();
            let offset = at as u64;
            let len = above.header.record_len();
            self.bytes.resize(at + len, 0);
            let record = &mut self.bytes[at..];
            let failure =
                |error| IoFailure::new("read", &above.segment.name, &error).at(above.offset);
            above.segment.file.read_at(record, above.offset).map_err(failure)?;
            if Header::read(record, above.offset) != Some(above.header) {
                return Err(failure(io::Error::other("the file changes while it is read")).into());
            }
            let (tag, number) = (self.tag, above.header.number);
            let chain = self.chain;
            self.chain = record::seal(record, &Seal { offset, chain, tag, number, mark });
            self.written = number;
            records += 1;
            let Some((group, location)) = &above.group else { continue };
            if let Some(from) = location {
                let to = Location::new(from.first(), self.segment, offset, len);
                examined.replay.relocate(*group, from, to);
            }
            examined.replay.move_state(*group, self.segment);
        }
        if records > 0 {
            let bytes = (self.bytes.len() - begun) as u64;
            examined.notes.push(Note::Rewritten { records, bytes });
        }
        Ok(())
    }
}

/// A file of at least `needed` bytes, all written before, under the name of the unfinished.
fn file_for(
    disk: &dyn Disk,
    options: &Options,
    needed: u64,
    unused: &mut Vec<Prepared>,
) -> Result<(Arc<dyn DiskFile>, u64), OpenError> {
    if let Some(at) = unused.iter().position(|file| file.size >= needed) {
        let Prepared { name, file, size, .. } = unused.swap_remove(at);
        let failure = |error| IoFailure::new("rename", &name, &error);
        disk.rename(&name, FRESH_FILE).map_err(failure)?;
        return Ok((file, size));
    }
    let failure = |operation, error| IoFailure::new(operation, FRESH_FILE, &error);
    let file = disk.create(FRESH_FILE).map_err(|error| failure("creation", error))?;
    let size = options.first_segment_bytes.max(needed).next_multiple_of(PAGE);
    let zeros = vec![0; FILL_BYTES];
    let mut filled = 0;
    while filled < size {
        let count = (size - filled).min(FILL_BYTES as u64);
        let slice = &zeros[..count as usize];
        file.write_at(slice, filled).map_err(|error| failure("write", error).at(filled))?;
        filled += count;
    }
    Ok((file, size))
}

pub(crate) fn open_error(fault: Fault) -> OpenError {
    let (Fault::Passing(failure) | Fault::Final(failure)) = fault;
    failure.into()
}
