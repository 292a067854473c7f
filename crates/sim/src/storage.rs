//! The log of a simulated host: what it keeps, and what a crash leaves of it.
//!
//! Seeded runs have the real log on a simulated disk, [`DiskLog`](crate::disk_log::DiskLog). Scripts,
//! which judge the core, have [`MemoryStorage`]: it makes each write durable by itself, in any number,
//! as they are told to.

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use quorate_raft::{
    Entry, HardState, Index, Install, LoadError, LogId, Membership, Payload, Persist, Recovered,
    Seq, SnapshotMeta, Term,
};

use crate::rng::Rng;

/// How a host dies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Crash {
    /// The process ends. What it wrote is still in the page cache: a restart reads it, and must
    /// make it durable before it counts as that.
    Kill,
    /// The machine loses power. What was not made durable is gone.
    PowerCut,
}

/// One write to the log. Writes take effect in order, each of them all or nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// A record.
    Persist(Persist),
    /// A snapshot in the place of the log.
    Install(Install),
    /// The log starts behind this snapshot from now on.
    Compact(SnapshotMeta),
}

impl Write {
    /// The number to report when it is durable; a compaction has none.
    #[must_use]
    pub const fn seq(&self) -> Option<Seq> {
        match self {
            Self::Persist(persist) => Some(persist.seq),
            Self::Install(install) => Some(install.seq),
            Self::Compact(_) => None,
        }
    }
}

/// What a log holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogImage {
    /// Term, vote, commit index.
    pub hard_state: HardState,
    /// What the log starts behind.
    pub start: SnapshotMeta,
    /// The entries behind it, contiguous.
    pub entries: VecDeque<Entry>,
}

impl LogImage {
    /// The log of a new server with that first configuration.
    #[must_use]
    pub fn new(membership: Arc<Membership>) -> Self {
        let start = SnapshotMeta { id: LogId::ZERO, membership };
        Self { start, ..Self::default() }
    }

    /// The last entry, or what the log starts behind.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.entries.back().map_or(self.start.id, Entry::log_id)
    }

    /// The entry at `index`, if the log holds it.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.start.id.index.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The term at `index`, if the log holds it or starts right behind it.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.id.index {
            return Some(self.start.id.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Carries out one write.
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Persist(persist) => {
                self.hard_state.clone_from(&persist.hard_state);
                if let Some(first) = persist.append.first() {
                    let keep = first.index.0.saturating_sub(self.start.id.index.0 + 1);
                    self.entries.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
                    assert_eq!(self.last().index.next(), first.index, "a gap in the log");
                    self.entries.extend(persist.append.iter().cloned());
                }
            }
            Write::Install(install) => {
                self.hard_state.clone_from(&install.hard_state);
                self.start = install.snapshot.clone();
                self.entries.clear();
            }
            Write::Compact(start) => {
                while self.entries.front().is_some_and(|entry| entry.index <= start.id.index) {
                    self.entries.pop_front();
                }
                self.start = start.clone();
            }
        }
    }

    /// What a core needs in order to start from this log.
    #[must_use]
    pub fn recovered(&self, applied: Index, boot_nonce: u64) -> Recovered {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        let mut memberships = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|(_, term)| *term != entry.term) {
                terms.push((entry.index, entry.term));
            }
            if let Payload::Membership(membership) = &entry.payload {
                memberships.push((entry.index, Arc::clone(membership)));
            }
        }
        Recovered {
            hard_state: self.hard_state.clone(),
            snapshot: self.start.clone(),
            memberships,
            terms,
            last_index: self.last().index,
            applied,
            damaged: Vec::new(),
            boot_nonce,
        }
    }
}

/// The log of one host. Calls are made in virtual time: `write` when the host hands something to
/// the operating system, `sync` at the moment at which the disk has it.
pub trait Storage: fmt::Debug {
    /// Puts down the first configuration of a new log, durably.
    fn bootstrap(&mut self, membership: Arc<Membership>);

    /// Puts a write behind the earlier ones. It is visible to reads at once, and not durable.
    fn write(&mut self, write: Write);

    /// A sync of the oldest `count` writes begins. Returns how many of them it covers, at least one;
    /// a snapshot goes into place alone.
    ///
    /// # Errors
    ///
    /// When the disk is full, or has failed. Nothing has begun then.
    fn begin_sync(&mut self, count: usize) -> Result<usize, DiskError>;

    /// The oldest `count` writes that are not durable yet are made so: all that the sync covers which
    /// was begun, or, if none was, at once.
    ///
    /// # Errors
    ///
    /// When the disk is full (the writes are as they were), or has failed.
    fn sync(&mut self, count: usize) -> Result<(), DiskError>;

    /// How many writes are not durable yet.
    fn unsynced(&self) -> usize;

    /// Reads entries from `range`: as many as stay below `bytes_max`, and at least one.
    ///
    /// # Errors
    ///
    /// When the first entry is not there any more, or cannot be read.
    fn read(
        &mut self,
        range: RangeInclusive<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LoadError>;

    /// The host dies. `rng` decides what is left of writes that are not durable, within what the
    /// kind of crash allows; without it, a kill leaves all of them and a power cut none.
    fn crash(&mut self, crash: Crash, rng: Option<&mut Rng>);

    /// Reads back what the crash has left, makes it durable, and says what a core needs to start
    /// from it beside a state machine that has `applied` so much.
    ///
    /// # Errors
    ///
    /// When the disk does not let it, or what was durable is damaged.
    fn recover(&mut self, applied: Index, boot_nonce: u64) -> Result<Recovered, RecoverError>;

    /// What the running process sees, durable or not. For checkers; nodes never look here.
    fn written(&self) -> &LogImage;

    /// What would survive a power cut. For checkers.
    fn durable(&self) -> &LogImage;

    /// Entries in this range can no longer be read; `None` repairs them.
    fn set_unreadable(&mut self, range: Option<RangeInclusive<Index>>);

    /// Something happens to the disk. False if that was not possible.
    fn inflict(&mut self, fault: DiskFault) -> bool;

    /// What happened to disk and log since the last call.
    fn take_news(&mut self) -> Vec<DiskNews>;
}

/// Why nothing was made durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskError {
    /// There is no room. It can be tried again.
    Full,
    /// The log has failed for good, and says why.
    Failed(String),
}

/// Why a log could not be read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecoverError {
    /// The disk did not let it. It can be tried again.
    Disk(String),
    /// What was durable is damaged, and the log says what.
    Damaged(String),
}

/// Something that happens to a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFault {
    /// The next sync fails, and what it should have written never gets to the disk, though it is
    /// still seen.
    FailSync,
    /// Reads fail from now on, or no more.
    FailReads(bool),
    /// There is so much room left, in bytes.
    Full {
        /// How many.
        left: u64,
    },
    /// Bytes change that were durable, and known to be: a flipped bit, a sector of zeros, a sector
    /// that was meant for another place.
    Rot,
    /// The end of all that, but for what has rotted.
    Mend,
}

/// What happened to a disk and the log on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskNews {
    /// A write was refused for want of space.
    Full,
    /// A sync failed.
    SyncFailed,
    /// The process died in the middle of an operation.
    HalfWay,
    /// A start was interrupted.
    Interrupted,
    /// A start cut the log before something that was never durable.
    TornTail,
    /// A start wrote records again that were whole, and not known to be durable.
    Rewritten,
    /// A start refused a damaged log.
    Damaged,
    /// A segment was used again.
    Recycled,
    /// What counted in an old segment was written again, so that it could be freed.
    Forwarded,
    /// A segment was needed that was not prepared.
    Unprepared,
    /// A start found a snapshot in the log's place that the state machine had not taken yet.
    InstallFinished,
}

impl fmt::Display for DiskNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::SyncFailed => "a sync failed",
            Self::HalfWay => "the process died half-way",
            Self::Interrupted => "the start was interrupted",
            Self::TornTail => "a torn tail was cut",
            Self::Rewritten => "records above the mark were written again",
            Self::Damaged => "the log is damaged",
            Self::Recycled => "a segment was used again",
            Self::Forwarded => "old records were written again",
            Self::Unprepared => "a segment was not prepared in time",
            Self::InstallFinished => "the snapshot that the log starts behind was restored",
        })
    }
}

/// A log in memory that knows which of its writes are durable.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    written: LogImage,
    durable: LogImage,
    /// In `written` and not in `durable`, in order.
    unsynced: VecDeque<Write>,
    unreadable: Option<RangeInclusive<Index>>,
}

impl MemoryStorage {
    /// A log that holds `image`, durably.
    #[must_use]
    pub fn new(image: LogImage) -> Self {
        Self { written: image.clone(), durable: image, ..Self::default() }
    }
}

impl Storage for MemoryStorage {
    fn bootstrap(&mut self, membership: Arc<Membership>) {
        *self = Self::new(LogImage::new(membership));
    }

    fn write(&mut self, write: Write) {
        self.written.apply(&write);
        self.unsynced.push_back(write);
    }

    fn begin_sync(&mut self, count: usize) -> Result<usize, DiskError> {
        Ok(count)
    }

    fn sync(&mut self, count: usize) -> Result<(), DiskError> {
        for write in self.unsynced.drain(..count.min(self.unsynced.len())) {
            self.durable.apply(&write);
        }
        Ok(())
    }

    fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    fn read(
        &mut self,
        range: RangeInclusive<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LoadError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for index in range.start().0..=range.end().0 {
            let index = Index(index);
            if self.unreadable.as_ref().is_some_and(|bad| bad.contains(&index)) {
                break;
            }
            let Some(entry) = self.written.entry(index) else { break };
            bytes += entry.size();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        if !entries.is_empty() {
            Ok(entries)
        } else if *range.start() <= self.written.start.id.index {
            Err(LoadError::Compacted)
        } else {
            Err(LoadError::Unreadable)
        }
    }

    fn crash(&mut self, crash: Crash, rng: Option<&mut Rng>) {
        let count = self.unsynced.len() as u64;
        let kept = match (crash, rng) {
            (Crash::Kill, None) => count,
            (Crash::PowerCut, None) => 0,
            // What the process had not handed over yet dies with it.
            (Crash::Kill, Some(rng)) => rng.between(0, count),
            // The disk may have got further than it has said.
            (Crash::PowerCut, Some(rng)) => {
                if rng.chance(500_000) {
                    0
                } else {
                    rng.between(0, count)
                }
            }
        };
        self.unsynced.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        // The swap of a snapshot is redone or undone as a whole; one that had not completed is
        // undone, and so is everything that was written on top of it.
        let install = self.unsynced.iter().position(|write| matches!(write, Write::Install(_)));
        if let Some(at) = install {
            self.unsynced.truncate(at);
        }
        self.written = self.durable.clone();
        for write in &self.unsynced {
            self.written.apply(write);
        }
    }

    fn recover(&mut self, applied: Index, boot_nonce: u64) -> Result<Recovered, RecoverError> {
        for write in std::mem::take(&mut self.unsynced) {
            self.durable.apply(&write);
        }
        let mut recovered = self.durable.recovered(applied, boot_nonce);
        recovered.damaged.extend(self.unreadable.clone());
        Ok(recovered)
    }

    fn written(&self) -> &LogImage {
        &self.written
    }

    fn durable(&self) -> &LogImage {
        &self.durable
    }

    fn set_unreadable(&mut self, range: Option<RangeInclusive<Index>>) {
        self.unreadable = range;
    }

    fn inflict(&mut self, _fault: DiskFault) -> bool {
        false
    }

    fn take_news(&mut self) -> Vec<DiskNews> {
        Vec::new()
    }
}
