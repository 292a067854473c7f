//! Looking at a log without opening it: nothing is locked and nothing is changed.
//!
//! Of a log that is in use, what is seen is what was on the disk at that moment; its end may look
//! torn.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use quorate_raft::GroupId;
use quorate_wire::EntryHead;

use crate::crc;
use crate::disk::Disk;
use crate::error::{IoFailure, OpenError};
use crate::record::{Body, GroupBody, Header};
use crate::recovery::inventory::{Inventory, SegmentFile};
use crate::recovery::scan::{Scanner, Step};
use crate::recovery::{self, Damage, Examined, Note, RecoveredGroup};
use crate::segment::RECORDS_AT;
use crate::small_file::Identity;

/// What a directory holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    /// Whose log it is.
    pub identity: Identity,
    /// The files with names of segments, by number.
    pub segments: Vec<SegmentSurvey>,
    /// Every group that the log knows of.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// What a start would do.
    pub notes: Vec<Note>,
}

/// One segment file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentSurvey {
    /// Its name.
    pub file: String,
    /// Its length.
    pub size: u64,
    /// Where its records end that count; `None` if it is not part of the log.
    pub end: Option<u64>,
    /// The number of the first record, according to its header.
    pub first_record: Option<u64>,
}

/// Reads everything, as a start would, and reports it. `None` if the directory has no log.
///
/// # Errors
///
/// See [`OpenError`].
pub fn survey(disk: &dyn Disk) -> Result<Option<Survey>, OpenError> {
    let Some(examined) = recovery::examine(disk)? else { return Ok(None) };
    let Examined { inventory, replay, segments, damage, notes, above, .. } = examined;
    let end_of = |file: &SegmentFile| {
        let number = file.segment.number;
        let kept = segments.iter().find(|(segment, _)| segment.number == number);
        // Records above the mark count, until a start has moved them.
        let above = above.iter().filter(|above| above.segment.number == number);
        let above = above.map(|above| above.offset + above.header.record_len() as u64).max();
        above.max(kept.map(|(_, end)| *end))
    };
    let segment = |file: &SegmentFile| SegmentSurvey {
        file: file.segment.name.clone(),
        size: file.segment.size,
        end: end_of(file),
        first_record: file.header().map(|header| header.first),
    };
    Ok(Some(Survey {
        identity: inventory.identity,
        segments: inventory.segments.values().map(segment).collect(),
        groups: replay.recovered(),
        damage,
        notes,
    }))
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { cluster, node, incarnation } = self.identity;
        writeln!(f, "cluster {cluster}, node {node}, incarnation {:x}", incarnation.0)?;
        for SegmentSurvey { file, size, end, first_record } in &self.segments {
            match end {
                Some(end) => {
                    let first = first_record.map_or("?".to_owned(), |first| first.to_string());
                    writeln!(f, "{file}  records from {first} up to offset {end} of {size}")?;
                }
                None => writeln!(f, "{file}  not in use, {size} bytes")?,
            }
        }
        for (id, group) in &self.groups {
            let start = group.snapshot.id;
            let (first, last) = (start.index.next(), group.last_index);
            write!(f, "group {id}  {} start={start} entries={first}..={last}", group.hard_state)?;
            for range in &group.damaged {
                write!(f, " damaged={}..={}", range.start(), range.end())?;
            }
            writeln!(f)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        self.damage.iter().try_for_each(|damage| writeln!(f, "DAMAGE: {damage}"))
    }
}

/// Whether a directory holds a log, whatever its state.
///
/// # Errors
///
/// See [`OpenError`].
pub fn is_log(disk: &dyn Disk) -> Result<bool, OpenError> {
    Ok(Inventory::take(disk)?.is_some())
}

/// Writes one line for each record of each segment file, and for what is between them. Payloads
/// are not shown.
///
/// # Errors
///
/// See [`OpenError`]. Damage is no error but lines of the dump.
pub fn dump(disk: &dyn Disk, out: &mut impl Write) -> Result<(), OpenError> {
    dump_entries(disk, out, &mut |_| None)
}

/// An entry in a record.
#[derive(Clone, Copy, Debug)]
pub struct SeenEntry<'a> {
    /// The file in which it is.
    pub file: &'a str,
    /// Number of the record in which it is.
    pub record: u64,
    /// Whose entry it is.
    pub group: GroupId,
    /// Position, term, kind and size.
    pub head: EntryHead,
    /// Its payload, unless that is damaged.
    pub payload: Option<&'a [u8]>,
}

/// The same as [`dump`], with a line for each entry of which `describe` knows something to say.
///
/// An entry may be in several records: rewritten from an old segment, or replaced by that of a later leader.
///
/// # Errors
///
/// See [`dump`].
pub fn dump_entries(
    disk: &dyn Disk,
    out: &mut impl Write,
    describe: &mut dyn FnMut(SeenEntry<'_>) -> Option<String>,
) -> Result<(), OpenError> {
    let Some(inventory) = Inventory::take(disk)? else {
        return Err(OpenError::Empty { directory: disk.describe() });
    };
    for file in inventory.segments.values() {
        // Whoever hands out the writer knows why it fails; the disk has not.
        let _ = dump_header(file, out);
        dump_records(file, out, describe)?;
    }
    Ok(())
}

fn dump_header(file: &SegmentFile, out: &mut impl Write) -> fmt::Result {
    let name = &file.segment.name;
    let Some(header) = file.header() else {
        return writeln!(out, "{name}: no header of this number; not in use");
    };
    write!(
        out,
        "{name}: tag {:016x}, {} bytes, first record {}, mark {}, oldest segment {}",
        header.tag, header.size, header.first, header.mark, header.oldest
    )?;
    match header.previous.segment {
        0 => writeln!(out, ", the first segment"),
        number => writeln!(out, ", after segment {number} up to {}", header.previous.offset),
    }
}

fn dump_records(
    file: &SegmentFile,
    out: &mut impl Write,
    describe: &mut dyn FnMut(SeenEntry<'_>) -> Option<String>,
) -> Result<(), IoFailure> {
    let tag = file.header().map(|header| header.tag);
    let mut scanner = Scanner::new(&file.segment, tag, u64::MAX, Vec::new());
    loop {
        match scanner.step()? {
            Step::Record { offset, header } => {
                let bytes = scanner.bytes(offset, &header);
                let _ = dump_record(offset, &header, bytes, out);
                if let Some(Body::Group(body)) = header.body(bytes) {
                    let name = &file.segment.name;
                    let _ = describe_entries(name, &header, &body, bytes, out, describe);
                }
            }
            Step::Gap { from, to, looks } => {
                let _ = writeln!(
                    out,
                    "  {from:>10}  {} bytes that are no record ({looks:?})",
                    to - from
                );
            }
            Step::End => return Ok(()),
        }
    }
}

fn dump_record(offset: u64, header: &Header, bytes: &[u8], out: &mut impl Write) -> fmt::Result {
    debug_assert!(offset >= RECORDS_AT, "records follow the header");
    let Header { number, mark, .. } = header;
    write!(out, "  {offset:>10}  #{number} mark={mark} ")?;
    match header.body(bytes) {
        None => writeln!(out, "unknown to this software"),
        Some(Body::Mark { oldest }) => writeln!(out, "mark oldest={oldest}"),
        Some(Body::Group(body)) => {
            let what = if body.rewrite { "rewrite" } else { "append" };
            write!(out, "{what} group={} seq={} start={}", body.group, body.seq, body.start)?;
            write!(out, " {}", body.hard_state)?;
            let mut heads = body.heads();
            if let Some(first) = heads.next() {
                let last = heads.last().unwrap_or(first);
                write!(out, " entries={}..={}, {} bytes", first.id, last.id, header.payload_len)?;
            }
            writeln!(out)
        }
    }
}

fn describe_entries(
    file: &str,
    header: &Header,
    body: &GroupBody<'_>,
    bytes: &[u8],
    out: &mut impl Write,
    describe: &mut dyn FnMut(SeenEntry<'_>) -> Option<String>,
) -> fmt::Result {
    let mut rest = bytes.get(header.header_len..).unwrap_or_default();
    for head in body.heads() {
        let at = (head.payload_len as usize).min(rest.len());
        let (payload, behind) = rest.split_at(at);
        rest = behind;
        let payload = (crc::of(payload) == head.checksum).then_some(payload);
        let (record, group) = (header.number, body.group);
        if let Some(text) = describe(SeenEntry { file, record, group, head, payload }) {
            writeln!(out, "              {} {text}", head.id)?;
        }
    }
    Ok(())
}
