//! Reading one segment from its first record to its end, whatever is in it.

use crate::error::IoFailure;
use crate::record::{self, ALIGN, Header};
use crate::segment::{RECORDS_AT, Segment};

/// How much is read from the file at once. Small enough to stay in the processor's cache while it
/// is being checked.
const WINDOW_BYTES: usize = 256 << 10;
/// Fewest bytes that tell whether a record may begin.
const PEEK_BYTES: usize = 48;

/// What comes next in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A record whose header is whole. Its bytes are [`Scanner::bytes`].
    Record { offset: u64, header: Header },
    /// Bytes that are no record, up to the next one or to the end.
    Gap { from: u64, to: u64, looks: Looks },
    /// The end, or as far as records may go.
    End,
}

/// What bytes look like in which there is no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Looks {
    /// Zeros, as before anything was written.
    Zero,
    /// A record of this segment that is not whole.
    Torn,
    /// Something else: damage, part of a torn write, or what an earlier use of the file left.
    Other,
}

/// Reads one segment.
pub(crate) struct Scanner<'a> {
    segment: &'a Segment,
    /// The tag of its records; if not known, that of the first one found.
    pub(crate) tag: Option<u64>,
    /// Where records end.
    limit: u64,
    position: u64,
    /// What was read from the file, and where it begins there.
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Scanner<'a> {
    /// A scanner of `segment`, whose records end before `limit`. `window` is memory to be used.
    pub(crate) fn new(
        segment: &'a Segment,
        tag: Option<u64>,
        limit: u64,
        mut window: Vec<u8>,
    ) -> Self {
        window.clear();
        let limit = limit.min(segment.size);
        Self { segment, tag, limit, position: RECORDS_AT, window, window_at: RECORDS_AT }
    }

    /// Gives the memory back.
    pub(crate) fn into_window(self) -> Vec<u8> {
        self.window
    }

    /// Where the next step begins.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// The header of the first record, if it is where the first one should be.
    pub(crate) fn first(&mut self) -> Result<Option<Header>, IoFailure> {
        if self.limit <= RECORDS_AT { Ok(None) } else { self.record_at(RECORDS_AT) }
    }

    /// Goes one step on.
    pub(crate) fn step(&mut self) -> Result<Step, IoFailure> {
        if self.position >= self.limit {
            return Ok(Step::End);
        }
        let from = self.position;
        if let Some(header) = self.record_at(from)? {
            self.position = from + header.record_len() as u64;
            return Ok(Step::Record { offset: from, header });
        }
        let looks = self.looks(from)?;
        let mut at = from;
        while let Some(candidate) = self.next_beginning(at + ALIGN as u64)? {
            if self.record_at(candidate)?.is_some() {
                self.position = candidate;
                return Ok(Step::Gap { from, to: candidate, looks });
            }
            at = candidate;
        }
        self.position = self.limit;
        Ok(Step::Gap { from, to: self.limit, looks })
    }

    /// The bytes of the record that the last step found.
    pub(crate) fn bytes(&self, offset: u64, header: &Header) -> &[u8] {
        let at = (offset - self.window_at) as usize;
        &self.window[at..at + header.record_len()]
    }

    /// The header of a record at `offset`, if a whole one is there; the payloads may be damaged.
    fn record_at(&mut self, offset: u64) -> Result<Option<Header>, IoFailure> {
        let peek = self.read(offset, PEEK_BYTES)?;
        if !record::begins(peek) {
            return Ok(None);
        }
        let tag = record::claimed_tag(peek);
        let header_len = record::claimed_header_len(peek);
        if self.tag.is_some_and(|known| known != tag) || header_len as u64 > self.limit - offset {
            return Ok(None);
        }
        let Some(header) = Header::read(self.read(offset, header_len)?, offset) else {
            return Ok(None);
        };
        if header.record_len() as u64 > self.limit - offset {
            return Ok(None);
        }
        if self.read(offset, header.record_len())?.len() < header.record_len() {
            return Ok(None);
        }
        self.tag = Some(tag);
        Ok(Some(header))
    }

    fn looks(&mut self, offset: u64) -> Result<Looks, IoFailure> {
        let tag = self.tag;
        let peek = self.read(offset, PEEK_BYTES)?;
        Ok(if peek.iter().all(|byte| *byte == 0) {
            Looks::Zero
        } else if record::begins(peek) && tag.is_none_or(|tag| tag == record::claimed_tag(peek)) {
            Looks::Torn
        } else {
            Looks::Other
        })
    }

    /// The next offset from `offset` on at which a record may begin.
    fn next_beginning(&mut self, mut offset: u64) -> Result<Option<u64>, IoFailure> {
        while offset + PEEK_BYTES as u64 <= self.limit {
            let bytes = self.read(offset, PEEK_BYTES)?;
            if bytes.len() < PEEK_BYTES {
                return Ok(None);
            }
            let window = &self.window[(offset - self.window_at) as usize..];
            let starts = window.len() - PEEK_BYTES + 1;
            let found = window[..starts + 3]
                .chunks(ALIGN)
                .position(|chunk| chunk.starts_with(record::MAGIC.as_slice()));
            match found {
                Some(at) => return Ok(Some(offset + (at * ALIGN) as u64)),
                None => offset += starts.next_multiple_of(ALIGN) as u64,
            }
        }
        Ok(None)
    }

    /// At least `len` bytes at `offset`, or as many as there are before the limit.
    fn read(&mut self, offset: u64, len: usize) -> Result<&[u8], IoFailure> {
        let len = len.min(usize::try_from(self.limit - offset).unwrap_or(usize::MAX));
        let end = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + len as u64 > end {
            self.fill(offset, len)?;
        }
        let from = (offset - self.window_at) as usize;
        Ok(&self.window[from..self.window.len().min(from + len)])
    }

    /// Moves the window so that it begins at `offset` and has `len` bytes and some more.
    fn fill(&mut self, offset: u64, len: usize) -> Result<(), IoFailure> {
        let rest = usize::try_from(self.limit - offset).unwrap_or(usize::MAX);
        let wanted = len.max(WINDOW_BYTES).min(rest);
        let end = self.window_at + self.window.len() as u64;
        let kept = if (self.window_at..end).contains(&offset) {
            let from = (offset - self.window_at) as usize;
            self.window.copy_within(from.., 0);
            self.window.len() - from
        } else {
            0
        };
        let before = self.window.len();
        self.window.resize(before.max(wanted), 0);
        let read_at = offset + kept as u64;
        let buffer = &mut self.window[kept..wanted.max(kept)];
        let failure = |error| IoFailure::new("read", &self.segment.name, &error).at(read_at);
        let count = self.segment.file.read_at(buffer, read_at).map_err(failure)?;
        self.window.truncate(kept + count);
        self.window_at = offset;
        Ok(())
    }
}
