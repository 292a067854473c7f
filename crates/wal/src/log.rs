//! The state behind the one lock: where the next record goes, and what is where.
//!
//! Records get their place, number and checksum under the lock and are given to the disk in the
//! same order, so the log on disk is always a prefix of what was written plus whatever the disk
//! made of the rest. Syncing happens outside the lock; writes go on meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_raft::{Entry, GroupId, HardState, Index, Persist, Seq};

use crate::completions::Completions;
use crate::disk::{DiskFile, is_no_space};
use crate::error::{IoFailure, Stopped, WriteError};
use crate::index::{GroupIndex, Groups, Location, Segments};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::record::{self, Kind, Seal};
use crate::segment::{Place, RECORDS_AT, Segment, SegmentHeader};
use crate::small_file::Identity;

/// How much larger each segment is than the one before it, until they have their full size.
const GROWTH: u64 = 2;

/// Encoded records that have no place yet.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) bytes: Vec<u8>,
    parts: Vec<Part>,
}

/// One record of a [`Draft`]. Its bytes begin where those of the part before end.
struct Part {
    end: usize,
    /// `None` for a mark.
    group: Option<GroupPart>,
}

struct GroupPart {
    kind: Kind,
    group: GroupId,
    seq: Seq,
    hard_state: HardState,
    entries: usize,
    payload_bytes: u64,
    /// First and last index.
    range: Option<(Index, Index)>,
    /// Whether the indices follow each other.
    contiguous: bool,
    /// The first entry whose payload is not what its checksum says.
    corrupt: Option<Index>,
}

impl Draft {
    /// Adds what one `Persist` says.
    pub(crate) fn push_append(&mut self, group: GroupId, persist: &Persist) {
        let Persist { seq, hard_state, append } = persist;
        self.push(Kind::Append, group, *seq, hard_state, append);
    }

    /// Adds entries that stand elsewhere in the log, and the hard state as it is.
    pub(crate) fn push_rewrite(&mut self, group: GroupId, state: &HardState, entries: &[Entry]) {
        self.push(Kind::Rewrite, group, Seq(0), state, entries);
    }

    /// Adds a mark that frees segments below `oldest`.
    pub(crate) fn push_mark(&mut self, oldest: u64) {
        record::put_mark(&mut self.bytes, oldest);
        self.parts.push(Part { end: self.bytes.len(), group: None });
    }

    fn push(&mut self, kind: Kind, group: GroupId, seq: Seq, state: &HardState, entries: &[Entry]) {
        let begin = self.bytes.len();
        let corrupt = record::put_group_record(&mut self.bytes, kind, group, seq, state, entries);
        let range = entries.first().zip(entries.last());
        let follows = |pair: &[Entry]| pair[1].index.0 == pair[0].index.0.wrapping_add(1);
        let contiguous = entries.windows(2).all(follows)
            && range.is_none_or(|(_, last)| last.index <= Index::MAX);
        let part = GroupPart {
            kind,
            group,
            seq,
            hard_state: state.clone(),
            entries: entries.len(),
            payload_bytes: record::payload_len(&self.bytes[begin..]),
            range: range.map(|(first, last)| (first.index, last.index)),
            contiguous,
            corrupt,
        };
        self.parts.push(Part { end: self.bytes.len(), group: Some(part) });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Forgets everything but the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.parts.clear();
    }
}

/// The segment being written, and where in it.
pub(crate) struct Tail {
    pub(crate) segment: Arc<Segment>,
    pub(crate) tag: u64,
    pub(crate) place: Place,
    /// The segment's header is durable as soon as the record of this number is.
    pub(crate) first: u64,
}

/// A segment file that is not part of the log, and will be or was.
pub(crate) struct Prepared {
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    /// How long it may get.
    pub(crate) size: u64,
    /// How much of it has been written before.
    pub(crate) filled: u64,
    /// Whether it was part of the log before.
    pub(crate) recycled: bool,
}

/// Zeros are being written into a segment, from there on.
pub(crate) struct Filling {
    pub(crate) segment: u64,
    pub(crate) from: u64,
}

/// Whether there is room for a draft.
pub(crate) enum Room {
    /// In the tail.
    Here,
    /// Not before there is a file for the next segment.
    NeedsNext,
    /// In the tail, but zeros are just being written there.
    BeingFilled,
}

/// Everything behind the lock.
pub(crate) struct Log {
    pub(crate) identity: Identity,
    pub(crate) groups: Groups,
    pub(crate) segments: Segments,
    /// `None` in a damaged log, which takes no records.
    pub(crate) tail: Option<Tail>,
    pub(crate) next: Option<Prepared>,
    /// A slice of the next segment, or of what was the next segment, that is being filled.
    pub(crate) filling: Option<Filling>,
    /// Segment files of full size that nobody uses.
    pub(crate) spares: Vec<Prepared>,
    /// The number that the next segment file gets.
    pub(crate) next_segment: u64,
    pub(crate) random: Random,

    /// Number of the last record written.
    pub(crate) written: u64,
    /// Number up to which all records are durable.
    pub(crate) durable: u64,
    /// The highest mark that a written record has, and the number of the first one that has it.
    pub(crate) marked: (u64, u64),
    /// Number of the last record written that is not a mark.
    pub(crate) written_for_groups: u64,
    /// The last mark that freed segments: its number, and the lowest segment that it left.
    pub(crate) freed: (u64, u64),

    /// A write into the tail failed for want of space and may have left whole records behind the
    /// end, which a start would find.
    pub(crate) leftover: bool,
    /// The header of the next segment, which says that the tail ends here, may have been written
    /// although the switch failed for want of space: nothing more may be written into the tail.
    pub(crate) tail_ended: bool,
    /// A snapshot takes the place of that group's log just now.
    pub(crate) installing: Option<GroupId>,

    pub(crate) syncing: bool,
    /// Segments left behind with records that were not synced.
    pub(crate) unsynced: Vec<Arc<Segment>>,
    /// Bytes written since the last sync began.
    pub(crate) unsynced_bytes: u64,
    /// What the records since then complete.
    pub(crate) pending: Completions,
    /// Durable, and not yet told to anybody.
    pub(crate) completed: Completions,

    pub(crate) stopped: Option<Stopped>,
    pub(crate) metrics: Metrics,
}

impl Log {
    /// Refuses if the log takes nothing any more.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        self.stopped.clone().map_or(Ok(()), Err)
    }

    /// Takes nothing any more because of `failure`.
    pub(crate) fn poison(&mut self, failure: IoFailure) -> Stopped {
        self.stopped.get_or_insert(Stopped::Poisoned(failure)).clone()
    }

    /// Whether the entries of `draft` are intact and follow on what the groups have.
    pub(crate) fn check_draft(&self, draft: &Draft) -> Result<(), WriteError> {
        let mut ends: BTreeMap<GroupId, Index> = BTreeMap::new();
        let several = draft.parts.len() > 1;
        for part in draft.parts.iter().filter_map(|part| part.group.as_ref()) {
            let Some((first, last)) = part.range else { continue };
            if let Some(index) = part.corrupt {
                return Err(WriteError::Corrupt { group: part.group, index });
            }
            let known = self.groups.by_id.get(&part.group);
            let start = known.map_or(Index::ZERO, GroupIndex::start_index);
            let end = known.map_or(Index::ZERO, |group| group.last);
            let end = ends.get(&part.group).copied().unwrap_or(end);
            if first <= start || first > end.next() || !part.contiguous {
                return Err(WriteError::Gap { group: part.group, last: end, found: first });
            }
            if several {
                ends.insert(part.group, last);
            }
        }
        Ok(())
    }

    /// Makes room for `bytes` more, if that needs no new file.
    pub(crate) fn make_room(&mut self, bytes: usize) -> Result<Room, WriteError> {
        let bytes = bytes as u64;
        if bytes > record::BYTES_MAX {
            return Err(WriteError::TooLarge { bytes, bytes_max: record::BYTES_MAX });
        }
        let tail = self.tail.as_ref().ok_or(Stopped::Damaged)?;
        if self.tail_ended || tail.place.offset + bytes > tail.segment.size {
            let Some(mut next) = self.next.take() else { return Ok(Room::NeedsNext) };
            next.size = next.size.max(RECORDS_AT + bytes);
            if self.is_being_filled(next.number, RECORDS_AT) {
                self.next = Some(next);
                return Ok(Room::BeingFilled);
            }
            self.enter(next)?;
        }
        let tail = self.tail.as_ref().ok_or(Stopped::Damaged)?;
        let being_filled = self.is_being_filled(tail.segment.number, tail.place.offset + bytes);
        Ok(if being_filled { Room::BeingFilled } else { Room::Here })
    }

    /// Whether zeros are being written into that segment somewhere before `end`.
    fn is_being_filled(&self, segment: u64, end: u64) -> bool {
        self.filling
            .as_ref()
            .is_some_and(|filling| filling.segment == segment && filling.from < end)
    }

    /// Leaves the tail behind and goes on in `next`.
    fn enter(&mut self, next: Prepared) -> Result<(), WriteError> {
        let tag = self.random.tag(next.number);
        let previous = self.tail.as_ref().ok_or(Stopped::Damaged)?.place;
        let header = SegmentHeader {
            number: next.number,
            tag,
            identity: self.identity,
            size: next.size,
            first: self.written + 1,
            mark: self.durable,
            oldest: self.freed.1,
            previous,
        };
        let pages = header.to_pages();
        if let Err(error) = next.file.write_at(&pages, 0) {
            let failure = IoFailure::new("write", &next.name, &error).at(0);
            return Err(if is_no_space(&error) {
                self.next = Some(next);
                self.tail_ended = true;
                WriteError::NoSpace(failure)
            } else {
                self.poison(failure).into()
            });
        }
        let Prepared { number, name, file, size, recycled, .. } = next;
        let segment = Arc::new(Segment { number, name, file, size });
        self.segments.insert(Arc::clone(&segment), RECORDS_AT);
        let place = Place { segment: number, offset: RECORDS_AT, chain: previous.chain };
        let old = self.tail.replace(Tail { segment, tag, place, first: header.first });
        self.tail_ended = false;
        self.leftover = false;
        // One without records may have been entered and then found too small: its header counts all
        // the same, since the chain leads through it.
        if self.written > self.durable || previous.offset == RECORDS_AT {
            self.unsynced.extend(old.map(|tail| tail.segment));
        }
        self.unsynced_bytes += RECORDS_AT;
        self.metrics.written_bytes += RECORDS_AT;
        self.metrics.segment_switches += 1;
        self.metrics.segments_recycled += u64::from(recycled);
        Ok(())
    }

    /// Gives the records of `draft` their places, for which there is room, and writes them.
    pub(crate) fn place(&mut self, draft: &mut Draft) -> Result<(), WriteError> {
        let tail = self.tail.as_ref().ok_or(Stopped::Damaged)?;
        let (segment, begin) = (Arc::clone(&tail.segment), tail.place.offset);
        let mut chain = tail.place.chain;
        let mut number = self.written;
        let mut at = 0;
        for part in &draft.parts {
            let record = &mut draft.bytes[at..part.end];
            if let Some(group) = &part.group {
                let known = self.groups.by_id.get(&group.group);
                record::set_start(record, known.map_or(Index::ZERO, GroupIndex::start_index));
            }
            number += 1;
            let offset = begin + at as u64;
            let (tag, mark) = (tail.tag, self.durable);
            chain = record::seal(record, &Seal { offset, chain, tag, number, mark });
            at = part.end;
        }
        if let Err(error) = segment.file.write_at(&draft.bytes, begin) {
            let failure = IoFailure::new("write", &segment.name, &error).at(begin);
            // What was written of it is void: it lies behind the end, and the next records take
            // its place.
            return Err(if is_no_space(&error) {
                self.leftover = true;
                WriteError::NoSpace(failure)
            } else {
                self.poison(failure).into()
            });
        }
        self.leftover = false;
        if self.durable > self.marked.0 {
            self.marked = (self.durable, self.written + 1);
        }
        self.note_placed(draft, &segment, begin);
        let bytes = draft.bytes.len() as u64;
        let end = begin + bytes;
        if let Some(tail) = &mut self.tail {
            tail.place = Place { segment: segment.number, offset: end, chain };
        }
        if let Some(entry) = self.segments.by_number.get_mut(&segment.number) {
            entry.end = end;
        }
        self.written = number;
        self.unsynced_bytes += bytes;
        self.metrics.written_bytes += bytes;
        Ok(())
    }

    /// Takes down what the records of `draft` say, now that they stand in the log.
    fn note_placed(&mut self, draft: &mut Draft, segment: &Segment, begin: u64) {
        let mut at = 0;
        for (count, part) in draft.parts.drain(..).enumerate() {
            let (record_begin, len) = (begin + at as u64, part.end - at);
            at = part.end;
            let Some(part) = part.group else { continue };
            let Self { groups, segments, metrics, .. } = self;
            let group = groups.of(part.group, self.identity.incarnation);
            if let Some((first, last)) = part.range {
                let location = Location::new(first, segment.number, record_begin, len);
                segments.add(location);
                let dropped = |gone| segments.release(gone);
                if part.kind == Kind::Append {
                    group.append(location, last, dropped);
                } else {
                    group.replace(location, last, dropped);
                    group.compact(group.start_index(), |gone| segments.release(gone));
                }
            }
            segments.move_state(group.state_segment, Some(segment.number));
            group.state_segment = Some(segment.number);
            group.hard_state = part.hard_state;
            self.written_for_groups = self.written + 1 + count as u64;
            if part.kind == Kind::Append {
                metrics.records += 1;
                metrics.entries += part.entries as u64;
                metrics.payload_bytes += part.payload_bytes;
                self.pending.push(part.group, part.seq);
            } else {
                metrics.forwarded_bytes += len as u64;
            }
        }
    }

    /// The size that the next segment should have.
    pub(crate) fn next_size(&self, options: &Options) -> u64 {
        let tail = self.tail.as_ref().map_or(0, |tail| tail.segment.size);
        (tail * GROWTH).clamp(options.first_segment_bytes, options.segment_bytes)
    }

    pub(crate) fn is_tail_half_full(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.place.offset * 2 > tail.segment.size)
    }

    /// Bytes of the next segment that should have been filled by now and are not.
    pub(crate) fn preparation_due(&self, options: &Options) -> usize {
        let Some(tail) = &self.tail else { return 0 };
        let used = tail.place.offset as f64 / tail.segment.size as f64;
        let next = self.next.as_ref().map(|next| (next.size, next.filled));
        let (size, filled) = next.unwrap_or_else(|| (self.next_size(options), 0));
        let target = (size as f64 * (used * 8.0 / 7.0).min(1.0)) as u64;
        usize::try_from(target.saturating_sub(filled)).unwrap_or(usize::MAX)
    }

    /// Takes everything that is written so far as the contents of a sync that now begins: the
    /// files to sync, the number of the last record, and bytes and completions.
    pub(crate) fn begin_sync(&mut self) -> SyncContents {
        self.syncing = true;
        let mut files = std::mem::take(&mut self.unsynced);
        files.extend(self.tail.as_ref().map(|tail| Arc::clone(&tail.segment)));
        SyncContents {
            files,
            up_to: self.written,
            bytes: std::mem::take(&mut self.unsynced_bytes),
            completions: self.pending.take(),
        }
    }

    /// Everything in `contents` is durable.
    pub(crate) fn finish_sync(&mut self, contents: SyncContents) {
        self.syncing = false;
        self.metrics.sync_records.add(contents.up_to - self.durable);
        self.metrics.sync_bytes.add(contents.bytes);
        self.durable = contents.up_to;
        self.completed.extend(contents.completions);
    }

    /// A sync that was begun and never tried: its contents wait for the next one.
    pub(crate) fn cancel_sync(&mut self, mut contents: SyncContents) {
        self.syncing = false;
        contents.files.pop();
        contents.files.append(&mut self.unsynced);
        self.unsynced = contents.files;
        self.unsynced_bytes += contents.bytes;
        self.pending.extend(contents.completions);
    }

    /// What has become durable since the last time, per group the highest.
    pub(crate) fn take_completed(&mut self) -> Vec<(GroupId, Seq)> {
        self.completed.take()
    }
}

/// What one sync makes durable.
pub(crate) struct SyncContents {
    pub(crate) files: Vec<Arc<Segment>>,
    pub(crate) up_to: u64,
    bytes: u64,
    completions: Vec<(GroupId, Seq)>,
}

/// SplitMix64. Tags need only differ from each other; nobody is kept from guessing them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The tag of a segment. Numbers are never used twice, so tags differ even if a host gives the
    /// same random number to every start.
    pub(crate) fn tag(&mut self, segment: u64) -> u64 {
        Self(self.draw() ^ segment).draw()
    }
}
