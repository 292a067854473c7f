//! Reading the records of the whole log, once, in order, and noting where it breaks.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_raft::{GroupId, LogId};

use super::inventory::{Link, SegmentFile};
use super::replay::{Placed, Replay};
use super::scan::{Looks, Scanner, Step};
use super::verdict::Found;
use crate::crc;
use crate::error::IoFailure;
use crate::index::Location;
use crate::record::{Body, GroupBody, Header};
use crate::segment::{Place, RECORDS_AT, Segment};

/// A place where something else was expected.
#[derive(Clone, Debug)]
pub(crate) struct Break {
    pub(crate) found: Found,
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Where the log would end if it were cut here.
    pub(crate) cut_at: u64,
    /// The lowest number of a record that is affected.
    pub(crate) number: u64,
    /// The highest, as far as known.
    pub(crate) to_number: u64,
    pub(crate) group: Option<GroupId>,
    pub(crate) entries: Vec<LogId>,
}

/// A whole record above the mark.
pub(crate) struct Above {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) header: Header,
    /// Its group, and where its entries are, if it has some.
    pub(crate) group: Option<(GroupId, Option<Location>)>,
}

/// How far to take records in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Until {
    /// Up to the first break: the marks are not known yet.
    FirstBreak,
    /// Up to the first break above this mark.
    BreakAbove(u64),
}

/// What reading the log has shown so far.
pub(crate) struct Walk {
    pub(crate) replay: Replay,
    until: Until,
    /// Whether records are still taken in.
    taking: bool,
    pub(crate) breaks: Vec<Break>,
    /// The highest mark seen.
    pub(crate) mark: u64,
    /// Segments below this number may be gone, according to what was taken in.
    pub(crate) oldest: u64,
    /// The same according to anything that was found.
    pub(crate) oldest_claimed: u64,
    /// Whole records above the mark, in order, as far as they were taken in.
    pub(crate) above: VecDeque<Above>,
    /// Where the last record ends that was taken in and is not above the mark, and its number.
    pub(crate) anchor: (Place, u64),
    /// The number that the next record must have; zero if any will do.
    expected: u64,
    /// The checksum that it must build on.
    chain: u32,
    /// Number of the last record that was taken in.
    pub(crate) written: u64,
    /// Whether the last step was over bytes that are no record that counts; the break is noted.
    gap: bool,
    window: Vec<u8>,
    damaged: Vec<LogId>,
}

impl Walk {
    pub(crate) fn new(replay: Replay, until: Until, mark: u64) -> Self {
        let mark = match until {
            Until::FirstBreak => mark,
            Until::BreakAbove(known) => mark.max(known),
        };
        Self {
            replay,
            until,
            taking: true,
            breaks: Vec::new(),
            mark,
            oldest: 0,
            oldest_claimed: 0,
            above: VecDeque::new(),
            anchor: (Place::default(), 0),
            expected: 0,
            chain: 0,
            written: 0,
            gap: false,
            window: Vec::new(),
            damaged: Vec::new(),
        }
    }

    /// Reads all of `links`.
    pub(crate) fn run(&mut self, links: &[Link<'_>]) -> Result<(), IoFailure> {
        for (at, link) in links.iter().enumerate() {
            self.enter(link, at == 0);
            self.read(link, at + 1 == links.len())?;
        }
        Ok(())
    }

    /// Looks at what the header of the next segment says.
    fn enter(&mut self, link: &Link<'_>, is_first: bool) {
        let name = &link.file.segment.name;
        let behind_gap = std::mem::take(&mut self.gap);
        let Some(header) = link.header else {
            self.note(Found::SegmentHeader, name, 0, RECORDS_AT, self.expected.max(1));
            return;
        };
        self.mark = self.mark.max(header.mark);
        self.note_oldest(header.oldest);
        if is_first {
            // As long as no record of it counts, the log does not need the segment.
            let place = Place { chain: header.previous.chain, ..Place::default() };
            self.anchor = (place, header.first - 1);
            self.written = header.first - 1;
        } else if behind_gap {
            self.gap_reaches(header.first - 1);
        } else if self.expected != header.first || self.chain != header.previous.chain {
            // The segment before has fewer records than this one builds on, or other ones.
            self.note(Found::ChainBroken, name, 0, 0, self.expected.min(header.first).max(1));
            self.gap_reaches(header.first - 1);
        }
        self.expected = header.first;
        self.chain = header.previous.chain;
        if let Some(offset) = link.file.bad_copy() {
            let len = crate::segment::PAGE;
            self.note(Found::HeaderCopy, name, offset, len, header.first);
        }
    }

    fn read(&mut self, link: &Link<'_>, is_last: bool) -> Result<(), IoFailure> {
        let segment = &link.file.segment;
        let tag = link.header.map(|header| header.tag);
        let limit = link.end.unwrap_or(u64::MAX).min(segment.size);
        let window = std::mem::take(&mut self.window);
        let mut scanner = Scanner::new(segment, tag, limit, window);
        let mut end = Found::NoMore(Looks::Zero);
        let mut end_at = RECORDS_AT;
        loop {
            match scanner.step()? {
                Step::Record { offset, header } => {
                    self.record(segment, &scanner, offset, header);
                    end_at = scanner.position();
                }
                Step::Gap { from, looks, .. }
                    if link.end.is_none() && scanner.position() >= limit =>
                {
                    (end, end_at) = (Found::NoMore(looks), from);
                }
                Step::Gap { from, to, .. } => {
                    let number = self.expected.max(1);
                    self.note(Found::Unreadable, &segment.name, from, to - from, number);
                    self.gap = true;
                }
                Step::End => break,
            }
        }
        if is_last {
            self.note(end, &segment.name, end_at, 0, self.expected.max(1));
        }
        self.window = scanner.into_window();
        Ok(())
    }

    fn record(
        &mut self,
        segment: &Arc<Segment>,
        scanner: &Scanner<'_>,
        offset: u64,
        header: Header,
    ) {
        let bytes = scanner.bytes(offset, &header);
        let len = header.record_len() as u64;
        self.mark = self.mark.max(header.mark);
        let behind_gap = std::mem::take(&mut self.gap);
        let Some(body) = header.body(bytes) else {
            self.note(Found::Unreadable, &segment.name, offset, len, self.expected.max(1));
            self.gap = true;
            return;
        };
        let follows = header.number == self.expected && header.chain == self.chain;
        if self.expected != 0 && !behind_gap && !follows {
            self.note(Found::ChainBroken, &segment.name, offset, len, self.expected);
        }
        if header.number < self.expected {
            // What a write that failed for want of space has left behind the end.
            self.gap = true;
            return;
        }
        if self.expected != 0 && !follows {
            self.gap_reaches(header.number - 1);
        }
        self.expected = header.number + 1;
        self.chain = header.checksum;
        self.take_in(segment, offset, header, &body, bytes);
    }

    /// The records that the last break has swallowed go up to that number.
    fn gap_reaches(&mut self, number: u64) {
        if let Some(last) = self.breaks.last_mut() {
            last.to_number = last.number.max(number);
        }
    }

    /// Checks the payloads of a record, and takes it in unless the log has ended before it.
    fn take_in(
        &mut self,
        segment: &Arc<Segment>,
        offset: u64,
        header: Header,
        body: &Body<'_>,
        bytes: &[u8],
    ) {
        let len = header.record_len();
        self.damaged.clear();
        if let Body::Group(body) = body {
            self.check_payloads(segment, offset, header, body, bytes);
        }
        let filled = header.header_len + header.payload_len;
        if bytes[filled..].iter().any(|byte| *byte != 0) {
            let at = offset + filled as u64;
            self.note(Found::Padding, &segment.name, at, (len - filled) as u64, header.number);
            self.cut_at(offset);
        }
        if let Body::Mark { oldest } = body {
            self.note_oldest(*oldest);
        }
        if !self.taking {
            return;
        }
        let group = match body {
            Body::Mark { .. } => None,
            Body::Group(body) => {
                let (segment, damaged) = (segment.number, self.damaged.as_slice());
                self.replay.apply(&Placed { header, body, bytes, segment, offset, damaged });
                let location =
                    body.range().map(|(first, _)| Location::new(first, segment, offset, len));
                Some((body.group, location))
            }
        };
        self.written = header.number;
        self.above.push_back(Above { segment: Arc::clone(segment), offset, header, group });
        while let Some(front) = self.above.front()
            && front.header.number <= self.mark
        {
            let Above { segment, offset, header, .. } = front;
            let offset = offset + header.record_len() as u64;
            let place = Place { segment: segment.number, offset, chain: header.checksum };
            self.anchor = (place, header.number);
            self.above.pop_front();
        }
    }

    fn check_payloads(
        &mut self,
        segment: &Segment,
        offset: u64,
        header: Header,
        body: &GroupBody<'_>,
        bytes: &[u8],
    ) {
        let mut at = header.header_len;
        let mut first_at = None;
        for head in body.heads() {
            let payload = &bytes[at..at + head.payload_len as usize];
            if crc::of(payload) != head.checksum {
                first_at = first_at.or(Some(at));
                self.damaged.push(head.id);
            }
            at += payload.len();
        }
        if let Some(first_at) = first_at {
            let (entries, group) = (self.damaged.clone(), Some(body.group));
            let from = offset + first_at as u64;
            let len = (at - first_at) as u64;
            self.note(Found::Payload, &segment.name, from, len, header.number);
            self.cut_at(offset);
            if let Some(last) = self.breaks.last_mut() {
                (last.entries, last.group) = (entries, group);
            }
        }
    }

    fn note_oldest(&mut self, oldest: u64) {
        self.oldest_claimed = self.oldest_claimed.max(oldest);
        if self.taking {
            self.oldest = self.oldest.max(oldest);
        }
    }

    /// The log would have to be cut there, before what was just noted.
    fn cut_at(&mut self, offset: u64) {
        if let Some(last) = self.breaks.last_mut() {
            last.cut_at = offset;
        }
    }

    /// Number of the last record that was seen, whether or not it counts.
    pub(crate) const fn last_seen(&self) -> u64 {
        self.expected.saturating_sub(1)
    }

    /// Number of the last record that the log goes on behind, should it end here: marks at the end
    /// are given up, and their numbers given away again.
    pub(crate) fn last_kept(&self) -> u64 {
        let kept = without_marks(&self.above).checked_sub(1);
        kept.and_then(|at| self.above.get(at)).map_or(self.anchor.1, |last| last.header.number)
    }

    fn note(&mut self, found: Found, file: &str, offset: u64, len: u64, number: u64) {
        let ends = match self.until {
            Until::FirstBreak => true,
            Until::BreakAbove(mark) => number > mark,
        };
        // A damaged copy of a header says nothing about the records.
        if ends && found != Found::HeaderCopy {
            self.taking = false;
        }
        self.breaks.push(Break {
            found,
            file: file.to_owned(),
            offset,
            len,
            cut_at: offset,
            number,
            to_number: number,
            group: None,
            entries: Vec::new(),
        });
    }
}

/// How many of `above` are left without the marks at their end.
pub(crate) fn without_marks(above: &VecDeque<Above>) -> usize {
    above.iter().rposition(|above| above.group.is_some()).map_or(0, |last| last + 1)
}

/// Whether a file without a header begins with a whole record that has a number above `number`.
pub(crate) fn begins_above(file: &SegmentFile, number: u64) -> Result<bool, IoFailure> {
    let mut scanner = Scanner::new(&file.segment, None, u64::MAX, Vec::new());
    let first = scanner.first()?;
    Ok(first.is_some_and(|header| header.number > number))
}

/// Of the records in a file without a header that have numbers above `number`, the lowest number
/// and the highest mark: a file that was used has some.
pub(crate) fn marks_in(file: &SegmentFile, number: u64) -> Result<Option<(u64, u64)>, IoFailure> {
    let mut scanner = Scanner::new(&file.segment, None, u64::MAX, Vec::new());
    let mut found: Option<(u64, u64)> = None;
    loop {
        match scanner.step()? {
            Step::Record { header, .. } if header.number > number => {
                let (first, mark) = found.unwrap_or((header.number, header.mark));
                found = Some((first.min(header.number), mark.max(header.mark)));
            }
            // Left by an earlier use. The records that count, if any, have another tag.
            Step::Record { .. } => scanner.tag = None,
            Step::Gap { .. } => {}
            Step::End => return Ok(found),
        }
    }
}
