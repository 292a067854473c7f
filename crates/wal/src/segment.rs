//! Segments: the files that hold the log, one after another.
//!
//! A segment begins with two pages that hold the same header, so that damage to one page does not
//! hide what the rest is. Records follow from [`RECORDS_AT`] on. The whole file has been written
//! before it is used, with zeros or, if it was used before, with old records: so writing into it
//! changes no metadata, and making that durable costs one write of the disk and no journal commit.
//!
//! Old records cannot come back, because each segment has a random *tag* that all of its records
//! carry. Every header says which segment comes before it and where that one ends, so the log is
//! a chain of segments read from its end; a file that no header leads to is not part of it.

use std::sync::Arc;

use quorate_raft::{ClusterId, Incarnation, NodeId};
use quorate_wire::{Form, Reader};

use crate::crc;
use crate::disk::DiskFile;
use crate::record;
use crate::small_file::Identity;

/// The version that is written, and the highest that is read.
pub(crate) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"QUORsegm";
/// The highest number that a segment gets: at one a second, after 68 years. Nothing overflows on
/// the way there.
pub(crate) const NUMBER_MAX: u64 = 1 << 31;
/// Each copy of the header has a page to itself.
pub(crate) const PAGE: u64 = 4096;
/// Where records begin.
pub(crate) const RECORDS_AT: u64 = 2 * PAGE;
const HEADER_BYTES: usize = 124;
const SEGMENT_FILE: &str = ".log";
const SPARE_FILE: &str = ".spare";

/// Where something ends: behind a record, or where records begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Place {
    /// Number of the segment; zero for none.
    pub(crate) segment: u64,
    /// Offset in its file.
    pub(crate) offset: u64,
    /// Checksum of the last record before it, on which the next one builds.
    pub(crate) chain: u32,
}

/// What a segment says about itself.
///
/// ```text
/// 0    "QUORsegm"
/// 8    version       u32 = 1
/// 12   CRC32C        u32   of bytes 0..12 and 16..124
/// 16   number        u64   the file's name; never used twice
/// 24   tag           u64   random; in every record of this segment
/// 32   cluster, node, incarnation    u64 each
/// 56   size          u64   of the file
/// 64   first         u64   number of the first record
/// 72   mark          u64   all records up to that number are durable
/// 80   oldest        u64   segments below that number are not part of the log any more
/// 88   previous      u64   the segment before, 0 for none
/// 96   its end       u64   where its last record ends; what is behind it is void
/// 104  its chain     u32   checksum of that record
/// 108  zero, up to 124
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) tag: u64,
    pub(crate) identity: Identity,
    pub(crate) size: u64,
    pub(crate) first: u64,
    pub(crate) mark: u64,
    pub(crate) oldest: u64,
    pub(crate) previous: Place,
}

/// What a page that should hold a header holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderPage {
    /// A header.
    Good(SegmentHeader),
    /// One of a newer version.
    Newer(u32),
    /// Nothing but zeros: never used.
    Zero,
    /// Anything else.
    Bad,
}

impl SegmentHeader {
    /// Both pages, ready to be written at the start of the file.
    pub(crate) fn to_pages(self) -> Vec<u8> {
        let mut page = MAGIC.to_vec();
        VERSION.put(&mut page);
        0u32.put(&mut page);
        self.number.put(&mut page);
        self.tag.put(&mut page);
        self.identity.cluster.put(&mut page);
        self.identity.node.put(&mut page);
        self.identity.incarnation.put(&mut page);
        self.size.put(&mut page);
        self.first.put(&mut page);
        self.mark.put(&mut page);
        self.oldest.put(&mut page);
        self.previous.segment.put(&mut page);
        self.previous.offset.put(&mut page);
        self.previous.chain.put(&mut page);
        page.resize(HEADER_BYTES, 0);
        let sum = header_checksum(&page);
        page[12..16].copy_from_slice(&sum.to_le_bytes());
        page.resize(PAGE as usize, 0);
        let copy = page.clone();
        page.extend_from_slice(&copy);
        page
    }

    /// Reads one page. The rest of a page is zero; anything else there is damage.
    pub(crate) fn from_page(page: &[u8]) -> HeaderPage {
        if page.iter().all(|byte| *byte == 0) {
            return HeaderPage::Zero;
        }
        let Some((header, rest)) = page.split_at_checked(HEADER_BYTES) else {
            return HeaderPage::Bad;
        };
        let whole = header[..8] == MAGIC
            && header[12..16] == header_checksum(header).to_le_bytes()
            && rest.iter().all(|byte| *byte == 0);
        if !whole {
            return HeaderPage::Bad;
        }
        let mut reader = Reader::new(&header[8..]);
        match Self::take(&mut reader) {
            Ok(Ok(header)) if header.is_sound() => HeaderPage::Good(header),
            Ok(Err(version)) => HeaderPage::Newer(version),
            Ok(Ok(_)) | Err(_) => HeaderPage::Bad,
        }
    }

    /// Whether this is a header that we write, and not one made by somebody who can count a
    /// checksum.
    fn is_sound(&self) -> bool {
        (1..=NUMBER_MAX).contains(&self.number)
            && self.previous.segment < self.number
            && self.oldest <= self.number
            && (1..=record::NUMBER_MAX).contains(&self.first)
            && self.mark <= record::NUMBER_MAX
    }

    fn take(reader: &mut Reader<'_>) -> Result<Result<Self, u32>, quorate_wire::WireError> {
        let version = u32::take(reader)?;
        if version != VERSION {
            return Ok(Err(version));
        }
        let _checksum = u32::take(reader)?;
        Ok(Ok(Self {
            number: u64::take(reader)?,
            tag: u64::take(reader)?,
            identity: Identity {
                cluster: ClusterId::take(reader)?,
                node: NodeId::take(reader)?,
                incarnation: Incarnation::take(reader)?,
            },
            size: u64::take(reader)?,
            first: u64::take(reader)?,
            mark: u64::take(reader)?,
            oldest: u64::take(reader)?,
            previous: Place {
                segment: u64::take(reader)?,
                offset: u64::take(reader)?,
                chain: u32::take(reader)?,
            },
        }))
    }
}

fn header_checksum(page: &[u8]) -> u32 {
    crc::append(crc::of(&page[..12]), &page[16..HEADER_BYTES])
}

/// An open segment file.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Length of the file, all of it written before.
    pub(crate) size: u64,
}

/// The name of the segment of that number.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:016x}{SEGMENT_FILE}")
}

/// The name of the file of that segment when it is not part of the log any more.
pub(crate) fn spare_name(number: u64) -> String {
    format!("{number:016x}{SPARE_FILE}")
}

/// Whether that is such a name.
pub(crate) fn is_spare(name: &str) -> bool {
    name.ends_with(SPARE_FILE)
}

/// The number of the segment whose file is called that.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(SEGMENT_FILE)?, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let (cluster, node) = (ClusterId(1), NodeId(2));
        SegmentHeader {
            number: 5,
            tag: 0x1234,
            identity: Identity { cluster, node, incarnation: Incarnation(3) },
            size: 1 << 20,
            first: 100,
            mark: 90,
            oldest: 2,
            previous: Place { segment: 4, offset: 8192, chain: 77 },
        }
    }

    #[test]
    fn both_pages_hold_the_header() {
        let pages = header().to_pages();
        assert_eq!(pages.len() as u64, RECORDS_AT);
        for page in pages.chunks(PAGE as usize) {
            assert_eq!(SegmentHeader::from_page(page), HeaderPage::Good(header()));
        }
        assert_eq!(SegmentHeader::from_page(&[0; 4096]), HeaderPage::Zero);
    }

    #[test]
    fn every_flip_is_noticed() {
        let pages = header().to_pages();
        for bit in 0..PAGE as usize * 8 {
            let mut page = pages[..PAGE as usize].to_vec();
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::from_page(&page), HeaderPage::Bad, "bit {bit}");
        }
    }

    #[test]
    fn newer_versions_are_recognised() {
        let mut page = header().to_pages();
        page[8] = 2;
        let sum = header_checksum(&page);
        page[12..16].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(SegmentHeader::from_page(&page[..PAGE as usize]), HeaderPage::Newer(2));
    }
}
