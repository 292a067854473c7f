//! Rewriting what still counts in old segments, so that they can be freed.
//!
//! Segments are freed from the front of the log only, so a group that writes nothing would pin the
//! segment with its last records, and all behind it. When only a little of the oldest segment
//! counts, or the log takes much more room than what counts in it, what counts in the oldest segment
//! is written again at the end, as records of their own kind: they replace, they drop nothing. A log
//! so never takes more than about twice what counts in it and [`SLACK_SEGMENTS`] segments, and on
//! average each byte is written at most twice.

use quorate_raft::{Entry, GroupId, Index};

use crate::error::{ChoreError, ReadError};
use crate::index::GroupIndex;
use crate::log::{Draft, Log, Room};
use crate::prepare::{Chores, Progress, chore_error};
use crate::read::{Piece, read_piece};
use crate::wal::Shared;

/// The part of a segment, one in so many, that is worth rewriting at once to free the rest.
const LITTLE: u64 = 16;
/// Room that is not worth the work of gaining it.
const SLACK_SEGMENTS: u64 = 4;
/// Most records and groups looked at under the lock at a time: some hundred microseconds.
const LOOKS_MAX: usize = 1 << 16;
/// What a record without entries takes, about.
const STATE_BYTES: u64 = 128;

/// How far the oldest segment has been rewritten.
pub(crate) struct Forwarding {
    segment: u64,
    /// What is before that place is done.
    from: From,
}

/// A group, and an index in its log.
type From = (GroupId, Index);

/// What has to be rewritten for one group.
struct Wanted {
    group: GroupId,
    pieces: Vec<Piece>,
}

impl Shared {
    /// Rewrites about `bytes` of what counts in the oldest segment, if it should be freed.
    pub(crate) fn forward(
        &self,
        chores: &mut Chores,
        bytes: usize,
    ) -> Result<Progress, ChoreError> {
        let log = self.log();
        let Some(segment) = log.segment_to_free(self.options.segment_bytes) else {
            chores.forwarding = None;
            return Ok(Progress::Idle);
        };
        let begin = (GroupId(0), Index::ZERO);
        let from = match &chores.forwarding {
            Some(forwarding) if forwarding.segment == segment => forwarding.from,
            _ => begin,
        };
        let (wanted, next) = log.wanted_of(segment, from, bytes);
        drop(log);
        for wanted in wanted {
            self.rewrite(chores, segment, &wanted)?;
        }
        // After the last group, from the first one again: what changed meanwhile was passed over.
        chores.forwarding = Some(Forwarding { segment, from: next.unwrap_or(begin) });
        Ok(Progress::More)
    }

    fn rewrite(
        &self,
        chores: &mut Chores,
        segment: u64,
        wanted: &Wanted,
    ) -> Result<(), ChoreError> {
        let mut records: Vec<(&Piece, Vec<Entry>)> = Vec::new();
        for piece in &wanted.pieces {
            let mut entries = Vec::new();
            read_piece(piece, usize::MAX, &mut entries).map_err(unreadable)?;
            records.push((piece, entries));
        }
        let mut log = self.log();
        let mut draft = Draft::default();
        loop {
            draft.clear();
            if log.installing == Some(wanted.group) {
                // Whatever it has will be void in a moment, and must not come back behind that.
                return Ok(());
            }
            let Some(group) = log.groups.by_id.get(&wanted.group) else { return Ok(()) };
            for (piece, entries) in &records {
                let position = group.position(piece.first);
                let unchanged = group.locations.get(position) == Some(&piece.location)
                    && group.range_at(position) == (piece.first, piece.last);
                if unchanged {
                    draft.push_rewrite(wanted.group, &group.hard_state, entries);
                }
            }
            if draft.is_empty() && group.state_segment == Some(segment) {
                draft.push_rewrite(wanted.group, &group.hard_state, &[]);
            }
            if draft.is_empty() {
                return Ok(());
            }
            match log.make_room(draft.bytes.len()).map_err(chore_error)? {
                Room::Here => return log.place(&mut draft).map_err(chore_error),
                Room::NeedsNext => {
                    drop(log);
                    self.make_next(chores)?;
                    log = self.log();
                }
                // Whoever fills does the chores, and that is us.
                Room::BeingFilled => unreachable!("nothing is filled while records are moved"),
            }
        }
    }
}

impl Log {
    /// The oldest segment, if it is worth freeing and not the one being written.
    fn segment_to_free(&self, segment_bytes: u64) -> Option<u64> {
        let segments = self.segments.by_number.values();
        let total: u64 = segments.clone().map(|entry| entry.segment.size).sum();
        let live: u64 = segments.map(|entry| entry.live_bytes + entry.states * STATE_BYTES).sum();
        let oldest = self.segments.oldest()?;
        let is_little = (oldest.live_bytes + oldest.states * STATE_BYTES) * LITTLE <= oldest.end;
        let worth_it = is_little || total > 2 * live + SLACK_SEGMENTS * segment_bytes;
        let sealed = self.segments.by_number.len() > 1;
        (worth_it && sealed && !oldest.is_free()).then_some(oldest.segment.number)
    }

    /// What counts in `segment`, from `from` on, as much as `bytes`; and where to go on. It gives up
    /// after [`LOOKS_MAX`], since writers wait meanwhile.
    fn wanted_of(&self, segment: u64, from: From, bytes: usize) -> (Vec<Wanted>, Option<From>) {
        let mut all = Vec::new();
        let mut left = Left { bytes: bytes as u64, looks: LOOKS_MAX };
        let (first, mut index) = from;
        for (id, group) in self.groups.by_id.range(first..) {
            if left.is_nothing() {
                return (all, Some((*id, Index::ZERO)));
            }
            let (pieces, rest) = self.pieces_in(segment, group, index, &mut left);
            index = Index::ZERO;
            let has_state = rest.is_none() && group.state_segment == Some(segment);
            if !pieces.is_empty() || has_state {
                left.bytes = left.bytes.saturating_sub(STATE_BYTES);
                all.push(Wanted { group: *id, pieces });
            }
            if let Some(rest) = rest {
                return (all, Some((*id, rest)));
            }
        }
        (all, None)
    }

    /// What counts in `segment` of one group, from `from` on; and where to go on if that is not
    /// all.
    fn pieces_in(
        &self,
        segment: u64,
        group: &GroupIndex,
        from: Index,
        left: &mut Left,
    ) -> (Vec<Piece>, Option<Index>) {
        let mut pieces = Vec::new();
        left.looks = left.looks.saturating_sub(1);
        let begin = group.position(from);
        for (position, location) in group.locations.iter().enumerate().skip(begin) {
            if left.is_nothing() {
                return (pieces, Some(location.first()));
            }
            left.looks -= 1;
            if location.segment() == segment
                && let Some(file) = self.segments.get(segment)
            {
                left.bytes = left.bytes.saturating_sub(location.len() as u64);
                let (first, last) = group.range_at(position);
                let (segment, location) = (file.clone(), *location);
                pieces.push(Piece { segment, location, first, last });
            }
        }
        (pieces, None)
    }
}

/// How much more may be done at a time.
struct Left {
    /// Bytes to be rewritten.
    bytes: u64,
    /// Records and groups to be looked at.
    looks: usize,
}

impl Left {
    const fn is_nothing(&self) -> bool {
        self.bytes == 0 || self.looks == 0
    }
}

/// A record that cannot be read cannot be moved, and its segment not be freed.
fn unreadable(error: ReadError) -> ChoreError {
    match error {
        ReadError::Stopped(stopped) => stopped.into(),
        ReadError::Io(failure) => ChoreError::Io(failure),
        other => ChoreError::Unreadable(Box::new(other)),
    }
}
