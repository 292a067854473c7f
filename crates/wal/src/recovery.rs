//! Finding out what the log says after a start, without changing anything.
//!
//! The files are looked at ([`inventory`]), the records read in order ([`walk`], [`scan`]) and what
//! they say about each group taken down ([`replay`]); where the log breaks, the decision table
//! ([`verdict`]) says what that means. Only when nothing is damaged is anything written
//! ([`fresh`]).

mod damage;
pub(crate) mod fresh;
pub(crate) mod inventory;
mod replay;
pub(crate) mod scan;
mod verdict;
mod walk;

use std::collections::VecDeque;
use std::sync::Arc;

pub use damage::{Damage, DamageKind, Note};
pub use replay::RecoveredGroup;

use crate::disk::Disk;
use crate::error::{IoFailure, OpenError};
use crate::segment::{self, Place, Segment};
use crate::small_file::{GroupStart, NEWEST_FILE};
use inventory::{Inventory, Link};
use replay::Replay;
use scan::Looks;
use verdict::{Found, Verdict, judge};
use walk::{Above, Break, Until, Walk};

/// What a directory holds.
pub(crate) struct Examined {
    pub(crate) inventory: Inventory,
    pub(crate) replay: Replay,
    /// The segments of the log with where their records end, oldest first. Without damage, up to
    /// the anchor.
    pub(crate) segments: Vec<(Arc<Segment>, u64)>,
    /// The numbers of all segments that the chain led to, also behind the anchor.
    pub(crate) chained: Vec<u64>,
    /// Where the last record ends that is known to be durable, and its number.
    pub(crate) anchor: (Place, u64),
    /// Whole records behind it.
    pub(crate) above: VecDeque<Above>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) notes: Vec<Note>,
    /// Number of the last record that counts.
    pub(crate) written: u64,
}

/// Looks at everything. `None` if the directory has no log.
pub(crate) fn examine(disk: &dyn Disk) -> Result<Option<Examined>, OpenError> {
    let Some(inventory) = Inventory::take(disk)? else { return Ok(None) };
    let mut look = Look::at(&inventory, Until::FirstBreak, None)?;
    if !look.damage.is_empty() {
        // Once more, past the damage: for what else is damaged, and what of the groups is left.
        let Walk { mark, oldest_claimed, .. } = look.walk;
        look = Look::at(&inventory, Until::BreakAbove(mark), Some(oldest_claimed))?;
    }
    let Look { walk, segments, chained, damage, notes } = look;
    let Walk { replay, anchor, mut above, written, .. } = walk;
    // Marks at the end have nothing to say that the next segment's header does not.
    above.truncate(walk::without_marks(&above));
    Ok(Some(Examined {
        inventory,
        replay,
        segments,
        chained,
        anchor,
        above,
        damage,
        notes,
        written,
    }))
}

/// One reading of the log.
struct Look {
    walk: Walk,
    segments: Vec<(Arc<Segment>, u64)>,
    chained: Vec<u64>,
    damage: Vec<Damage>,
    notes: Vec<Note>,
}

impl Look {
    /// Reads everything. A missing segment that should be there, because it is not older than
    /// `oldest`, is passed over if that is given.
    fn at(inventory: &Inventory, until: Until, oldest: Option<u64>) -> Result<Self, OpenError> {
        let replay = Replay::new(inventory.identity.incarnation, &inventory.starts);
        // An installed snapshot was put down when records up to its number were durable.
        let reset = inventory.starts.values().map(|start| start.reset).max().unwrap_or(0);
        let mut walk = Walk::new(replay, until, reset);
        let (links, missing) = inventory.chain(oldest);
        walk.run(&links)?;
        let mut look = Self {
            walk,
            segments: Vec::new(),
            chained: links.iter().map(|link| link.file.segment.number).collect(),
            damage: inventory.damage.clone(),
            notes: Vec::new(),
        };
        look.judge_files(inventory, missing);
        look.judge_unused(inventory, &links)?;
        look.judge_breaks();
        look.judge_groups();
        look.keep_segments(&links);
        Ok(look)
    }

    /// Which files should be there.
    fn judge_files(&mut self, inventory: &Inventory, missing: Option<u64>) {
        let there = |number: u64| inventory.segments.contains_key(&number);
        let mut lost = missing.filter(|number| *number >= self.walk.oldest);
        match inventory.newest {
            Some(newest) => {
                let highest = inventory.segments.keys().next_back().copied().unwrap_or(0);
                if highest < newest.segment {
                    lost = lost.or(Some(newest.segment));
                }
                if newest.tail >= self.walk.oldest.max(1) && !there(newest.tail) {
                    lost = lost.or(Some(newest.tail));
                }
            }
            // Only starts that never came to their end leave segments without that file.
            None if self.walk.last_seen() > 0 => {
                self.damage.push(Damage::of_file(NEWEST_FILE, DamageKind::NewestFile));
            }
            None => {}
        }
        if let Some(number) = lost
            && judge(Found::SegmentMissing, self.walk.last_seen(), self.walk.mark) == Verdict::Rot
        {
            let name = segment::file_name(number);
            self.damage.push(Damage::of_file(&name, DamageKind::SegmentMissing));
        }
    }

    /// Files behind the end of the log that are no segments any more, or not yet.
    fn judge_unused(&mut self, inventory: &Inventory, links: &[Link<'_>]) -> Result<(), IoFailure> {
        let last = links.last().map_or(0, |link| link.file.segment.number);
        let tail = inventory.newest.map_or(0, |newest| newest.tail);
        let kept = self.walk.last_kept();
        for (segment, file) in inventory.segments.range(last + 1..) {
            let (may_be_used, was_tail) = (file.may_be_used(), *segment == tail);
            // Two pages of zeros, or of an older header, may also be what is left of a lost write.
            if !may_be_used && !was_tail && !walk::begins_above(file, kept)? {
                continue;
            }
            let found = walk::marks_in(file, kept)?;
            if found.is_none() && !was_tail {
                continue;
            }
            let next = self.walk.last_seen() + 1;
            let (first, mark) = found.unwrap_or((next, 0));
            let (number, mark) = (next.min(first), mark.max(self.walk.mark));
            let name = &file.segment.name;
            if was_tail || judge(Found::SegmentHeader, number, mark) == Verdict::Rot {
                let damage = Damage::of_file(name, DamageKind::SegmentHeader);
                let records = Some(number..=mark).filter(|records| !records.is_empty());
                self.damage.push(Damage { records, ..damage });
            } else if may_be_used {
                self.notes.push(Note::TornTail {
                    file: name.clone(),
                    offset: 0,
                    record: number,
                    begun: true,
                });
            }
        }
        Ok(())
    }

    fn judge_breaks(&mut self) {
        let mark = self.walk.mark;
        let mut ended = false;
        for found in std::mem::take(&mut self.walk.breaks) {
            match judge(found.found, found.number, mark) {
                Verdict::Rot => self.damage.push(found.into_damage()),
                Verdict::TornTail if !ended => {
                    let begun = found.found != Found::NoMore(Looks::Other);
                    let Break { file, cut_at: offset, number: record, .. } = found;
                    self.notes.push(Note::TornTail { file, offset, record, begun });
                    ended = true;
                }
                Verdict::TornTail | Verdict::End | Verdict::Harmless => {}
            }
        }
    }

    fn judge_groups(&mut self) {
        for (group, _start) in self.walk.replay.finish() {
            let name = GroupStart::file_name(group);
            let damage = Damage::of_file(&name, DamageKind::GroupFileMissing);
            self.damage.push(Damage { group: Some(group), ..damage });
        }
        // Holes that no break explains: records that say something else than those before them.
        for (group, recovered) in self.walk.replay.recovered() {
            if !recovered.damaged.is_empty() && self.damage.is_empty() {
                let name = GroupStart::file_name(group);
                let damage = Damage::of_file(&name, DamageKind::Chain);
                self.damage.push(Damage { group: Some(group), ..damage });
            }
        }
    }

    fn keep_segments(&mut self, links: &[Link<'_>]) {
        let (anchor, _) = self.walk.anchor;
        for link in links {
            let segment = Arc::clone(&link.file.segment);
            let end = link.end.unwrap_or(segment.size);
            if !self.damage.is_empty() {
                self.segments.push((segment, end));
            } else if segment.number <= anchor.segment {
                let end = if segment.number == anchor.segment { anchor.offset } else { end };
                self.segments.push((segment, end));
            }
        }
    }
}

impl Break {
    fn into_damage(self) -> Damage {
        let kind = match self.found {
            Found::NoMore(_) | Found::Unreadable => DamageKind::Records,
            Found::ChainBroken => DamageKind::Chain,
            Found::Payload => DamageKind::Payload,
            Found::Padding => DamageKind::Padding,
            Found::HeaderCopy => DamageKind::HeaderCopy,
            Found::SegmentHeader => DamageKind::SegmentHeader,
            Found::SegmentMissing => DamageKind::SegmentMissing,
        };
        let records = match self.found {
            Found::Padding | Found::HeaderCopy => None,
            _ => Some(self.number..=self.to_number),
        };
        let Self { file, offset, len, group, entries, .. } = self;
        Damage { file, offset, len, kind, records, group, entries }
    }
}
