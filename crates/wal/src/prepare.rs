//! Work done ahead, so that no write has to wait for it: freeing segments and making new ones.
//!
//! The next segment's file gets its number, durably, before anything else: so switching to it
//! needs neither a rename nor a sync of the directory. Then it is filled with zeros, a slice at a
//! time, each synced, so that never much of it waits to be written when a writer wants to sync. If
//! the writers come to the end of the tail too early they go on in a segment that is not filled to
//! its end: syncs take longer there, because the file system has to note where the file grows, but
//! nobody waits.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use crate::disk::{DiskFile, is_no_space};
use crate::error::{ChoreError, IoFailure, WriteError};
use crate::index::SegmentUse;
use crate::log::{Draft, Filling, Prepared, Room};
use crate::segment::{self, PAGE, Segment};
use crate::small_file::{self, Fault, NEWEST_FILE, Newest, SmallFile};
use crate::wal::Shared;

const CHORES: &str = "no thread panics while it does the chores";
/// Most zeros written at once.
const SLICE_BYTES: usize = 1 << 20;

/// How far the preparations are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Nothing is to be done.
    Idle,
    /// There is more to do at once.
    More,
    /// There is more to do after the next sync.
    AfterSync,
}

/// What the preparations have to remember from call to call.
#[derive(Default)]
pub(crate) struct Chores {
    /// The file that tells the newest segment is to be written anew.
    newest_due: bool,
    pub(crate) forwarding: Option<crate::forward::Forwarding>,
}

impl Shared {
    pub(crate) fn prepare(&self, bytes: usize) -> Result<Progress, ChoreError> {
        let mut chores = self.chores();
        // Mutexes are not fair: whoever calls this in a loop must not keep a write waiting.
        while self.urgent.load(Ordering::Acquire) > 0 {
            chores = self.urgent_done.wait(chores).expect(CHORES);
        }
        self.log().check()?;
        self.note_newest(&mut chores)?;
        let freed = self.free_segments(&mut chores)?;
        let log = self.log();
        if log.next.is_none() {
            if freed == Progress::AfterSync && log.spares.is_empty() && !log.is_tail_half_full() {
                // Better to use a segment again than to fill one.
                return Ok(freed);
            }
            drop(log);
            self.make_next(&mut chores)?;
            return Ok(Progress::More);
        }
        drop(log);
        // What is freed need not be filled.
        if self.forward(&mut chores, bytes)? == Progress::More {
            return Ok(Progress::More);
        }
        let filled = self.fill_next(bytes)?;
        Ok(if filled == Progress::Idle { freed } else { filled })
    }

    fn chores(&self) -> MutexGuard<'_, Chores> {
        self.chores.lock().expect(CHORES)
    }

    /// Frees the segments at the front of the log in which nothing counts any more. That a segment
    /// is free must be durable before its file is touched, or the next start would miss it.
    fn free_segments(&self, chores: &mut Chores) -> Result<Progress, ChoreError> {
        let mut log = self.log();
        let tail = log.tail.as_ref().map_or(0, |tail| tail.segment.number);
        let counts = |(number, entry): (&u64, &SegmentUse)| {
            (*number == tail || !entry.is_free()).then_some(*number)
        };
        let oldest = log.segments.by_number.iter().find_map(counts).unwrap_or(tail);
        if oldest > log.freed.1 {
            let mut draft = Draft::default();
            draft.push_mark(oldest);
            match log.make_room(draft.bytes.len()).map_err(chore_error)? {
                Room::Here => log.place(&mut draft).map_err(chore_error)?,
                Room::NeedsNext => {
                    drop(log);
                    self.make_next(chores)?;
                    return Ok(Progress::More);
                }
                Room::BeingFilled => return Ok(Progress::More),
            }
            log.freed = (log.written, oldest);
        }
        let (said, oldest) = log.freed;
        if log.segments.oldest().is_none_or(|entry| entry.segment.number >= oldest) {
            return Ok(Progress::Idle);
        }
        if log.durable < said {
            return Ok(Progress::AfterSync);
        }
        let kept = log.segments.by_number.split_off(&oldest);
        let free = std::mem::replace(&mut log.segments.by_number, kept);
        drop(log);
        // What cannot be done with one file, the next start does; the others are not to wait for it.
        let results: Vec<_> = free.into_values().map(|entry| self.retire(entry)).collect();
        results.into_iter().collect::<Result<(), _>>()?;
        Ok(Progress::Idle)
    }

    /// Keeps the file of a segment that is no longer part of the log, or removes it.
    fn retire(&self, entry: SegmentUse) -> Result<(), ChoreError> {
        let name = entry.segment.name.clone();
        let wanted = self.log().spares.len() < self.options.spare_segments_max;
        // A reader may still have the segment open. It can finish with a file that has no name any
        // more, but not with one that is written over.
        if let Some(segment) = Arc::into_inner(entry.segment).filter(|_| wanted) {
            let Segment { number, file, .. } = segment;
            let filled = file.len().map_err(|error| failed("reading", &name, &error))?;
            // One that was not filled to its end will be.
            if filled > self.options.segment_bytes / 2 {
                let spare = segment::spare_name(number);
                self.disk.rename(&name, &spare).map_err(|error| failed("rename", &name, &error))?;
                let (number, name) = (0, spare);
                let size = filled.max(self.options.segment_bytes);
                let spare = Prepared { number, name, file, size, filled, recycled: true };
                self.log().spares.push(spare);
                return Ok(());
            }
        }
        self.log().metrics.segments_removed += 1;
        match self.disk.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("removal", &name, &error))
            }
            _ => Ok(()),
        }
    }

    /// Makes a file for the next segment at once, because a write needs it.
    pub(crate) fn make_next_now(&self) -> Result<(), WriteError> {
        let result = self.with_chores(|chores| {
            if self.log().next.is_some() {
                return Ok(());
            }
            self.log().metrics.segments_unprepared += 1;
            self.make_next(chores)
        });
        result.map_err(|error| match error {
            ChoreError::Io(failure) if failure.is_no_space() => WriteError::NoSpace(failure),
            ChoreError::Io(failure) => self.log().poison(failure).into(),
            ChoreError::Stopped(stopped) => stopped.into(),
            ChoreError::Beyond { .. } | ChoreError::Unreadable(_) => {
                unreachable!("nothing is cut or moved here: {error}")
            }
        })
    }

    /// Waits until the slice is written that is being filled now.
    pub(crate) fn wait_for_filling(&self) {
        self.with_chores(|_| ());
    }

    /// Does something for a write that waits, before whoever prepares goes on.
    fn with_chores<T>(&self, act: impl FnOnce(&mut Chores) -> T) -> T {
        self.urgent.fetch_add(1, Ordering::AcqRel);
        let mut chores = self.chores();
        let result = act(&mut chores);
        self.urgent.fetch_sub(1, Ordering::AcqRel);
        drop(chores);
        self.urgent_done.notify_all();
        result
    }

    /// Takes a spare file for the next segment, or makes one, and gives it its number.
    pub(crate) fn make_next(&self, chores: &mut Chores) -> Result<(), ChoreError> {
        let mut log = self.log();
        log.check()?;
        let number = log.next_segment;
        log.next_segment += 1;
        let size = log.next_size(&self.options);
        let spare = log.spares.pop();
        drop(log);
        let name = segment::file_name(number);
        let next = match spare {
            Some(spare) => {
                if let Err(error) = self.disk.rename(&spare.name, &name) {
                    let failure = failed("rename", &spare.name, &error);
                    self.log().spares.push(spare);
                    return Err(failure);
                }
                Prepared { number, name, ..spare }
            }
            None => {
                let file = self.disk.create(&name);
                let file = file.map_err(|error| failed("creation", &name, &error))?;
                Prepared { number, name, file, size, filled: 0, recycled: false }
            }
        };
        small_file::sync_dir(&*self.disk).map_err(|fault| self.fault(fault))?;
        chores.newest_due = true;
        self.log().next = Some(next);
        Ok(())
    }

    /// Fills about `bytes` of the next segment. The writers may begin to use it meanwhile: they
    /// keep away from the slice that is being filled.
    fn fill_next(&self, bytes: usize) -> Result<Progress, ChoreError> {
        let mut left = bytes as u64;
        while left > 0 {
            let mut log = self.log();
            let Some(next) = &log.next else { return Ok(Progress::More) };
            let count = next.size.saturating_sub(next.filled).min(SLICE_BYTES as u64);
            let count = count.min(left.next_multiple_of(PAGE));
            if count == 0 {
                return Ok(Progress::Idle);
            }
            let (number, file, from) = (next.number, Arc::clone(&next.file), next.filled);
            let name = next.name.clone();
            log.filling = Some(Filling { segment: number, from });
            drop(log);
            let result = self.fill(&*file, &name, from, count);
            let mut log = self.log();
            log.filling = None;
            result?;
            log.metrics.filled_bytes += count;
            if let Some(next) = log.next.as_mut().filter(|next| next.number == number) {
                next.filled += count;
            }
            left = left.saturating_sub(count);
        }
        Ok(Progress::More)
    }

    fn fill(&self, file: &dyn DiskFile, name: &str, at: u64, count: u64) -> Result<(), ChoreError> {
        let zeros = vec![0; count as usize];
        file.write_at(&zeros, at).map_err(|error| failed("write", name, &error))?;
        match file.sync_data() {
            // Nothing depends on the zeros.
            Err(error) if is_no_space(&error) => Err(failed("sync", name, &error)),
            Err(error) => Err(self.fault(Fault::Final(IoFailure::new("sync", name, &error)))),
            Ok(()) => Ok(()),
        }
    }

    /// Puts down which segments there are, so that they are missed should they get lost. It is late
    /// by one call, since nothing depends on it but the discovery of a loss that no crash causes.
    fn note_newest(&self, chores: &mut Chores) -> Result<(), ChoreError> {
        if !std::mem::take(&mut chores.newest_due) {
            return Ok(());
        }
        let log = self.log();
        let incarnation = log.identity.incarnation;
        let Some(tail) = &log.tail else { return Ok(()) };
        if tail.first > log.durable {
            // Its header may not survive a power cut, and would then be missed.
            chores.newest_due = true;
            return Ok(());
        }
        let tail = tail.segment.number;
        let segment = log.next.as_ref().map_or(tail, |next| next.number.max(tail));
        drop(log);
        let newest = Newest { incarnation, segment, tail };
        match small_file::replace(&*self.disk, NEWEST_FILE, &newest.to_file()) {
            Ok(()) => Ok(()),
            Err(Fault::Passing(_)) => {
                chores.newest_due = true;
                Ok(())
            }
            Err(fault @ Fault::Final(_)) => Err(self.fault(fault)),
        }
    }

    /// What a fault means for a chore: a final one poisons the log.
    pub(crate) fn fault(&self, fault: Fault) -> ChoreError {
        match fault {
            Fault::Passing(failure) => ChoreError::Io(failure),
            Fault::Final(failure) => self.log().poison(failure).into(),
        }
    }
}

fn failed(operation: &'static str, file: &str, error: &io::Error) -> ChoreError {
    ChoreError::Io(IoFailure::new(operation, file, error))
}

/// What a failed write means for a chore that needed it.
pub(crate) fn chore_error(error: WriteError) -> ChoreError {
    match error {
        WriteError::NoSpace(failure) => ChoreError::Io(failure),
        WriteError::Stopped(stopped) => stopped.into(),
        WriteError::TooLarge { .. } | WriteError::Gap { .. } | WriteError::Corrupt { .. } => {
            unreachable!("a chore writes marks and what the log already has: {error}")
        }
    }
}
