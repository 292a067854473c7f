//! The handle: writing, syncing, marking, closing.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use quorate_raft::{Entry, GroupId, Index, Persist, Seq};

use crate::completions::Completions;
use crate::disk::{Disk, DiskLock};
use crate::error::{ChoreError, IoFailure, ReadError, Stopped, WriteError};
use crate::log::{Draft, Log, Room, SyncContents};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::prepare::{Chores, Progress};
use crate::small_file::Identity;

/// A place in the log: that of one record, and everything before it. Later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position(pub u64);

/// An open log. Clones are the same log; it may be used from any number of threads at once.
///
/// The calls that wait for the disk are [`sync`](Self::sync) and [`sync_to`](Self::sync_to), which
/// run while others write and read; [`prepare`](Self::prepare), [`compact`](Self::compact) and
/// [`install`](Self::install), which delay neither; and [`close`](Self::close). Dropping the last
/// clone without `close` is safe, as a crash is.
#[derive(Clone)]
pub struct Wal {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    /// Locked inside `chores` or `starts`, never the other way round.
    pub(crate) log: Mutex<Log>,
    /// Told when a sync has ended.
    pub(crate) sync_ended: Condvar,
    /// Held by whoever makes, frees or forwards segments.
    pub(crate) chores: Mutex<Chores>,
    /// How many writes wait for `chores`, because they need a segment now.
    pub(crate) urgent: AtomicUsize,
    /// Told when one of them has its segment.
    pub(crate) urgent_done: Condvar,
    /// Held by whoever writes the file of a group.
    pub(crate) starts: Mutex<()>,
    /// Memory for encoding, used again.
    pub(crate) drafts: Mutex<Vec<Draft>>,
    pub(crate) _lock: Box<dyn DiskLock>,
}

/// Drafts kept for use again, and how large they may be.
const DRAFTS_MAX: usize = 8;
const DRAFT_BYTES_MAX: usize = 4 << 20;

impl Wal {
    /// Writes one record for each of `records`, in order, all or none. Nothing of it is durable
    /// until a sync that begins afterwards has succeeded.
    ///
    /// Entries must follow on what the group has, or take the place of what it has from the first
    /// one on. The `Persist`s of one group must be given in their order, by whichever threads.
    ///
    /// # Errors
    ///
    /// See [`WriteError`]; in every case the log is as it was.
    pub fn write(&self, records: &[(GroupId, &Persist)]) -> Result<Position, WriteError> {
        let begun = Instant::now();
        let mut draft = self.shared.take_draft();
        for (group, persist) in records {
            draft.push_append(*group, persist);
        }
        let result = self.write_draft(&mut draft, begun);
        self.shared.give_draft(draft);
        result
    }

    pub(crate) fn write_draft(
        &self,
        draft: &mut Draft,
        begun: Instant,
    ) -> Result<Position, WriteError> {
        loop {
            let mut log = self.shared.log();
            log.check()?;
            if draft.is_empty() {
                return Ok(Position(log.written));
            }
            log.check_draft(draft)?;
            match log.make_room(draft.bytes.len())? {
                Room::Here => {
                    log.place(draft)?;
                    log.metrics.write_us.add(micros_since(begun));
                    return Ok(Position(log.written));
                }
                Room::NeedsNext => {
                    drop(log);
                    self.shared.make_next_now()?;
                }
                Room::BeingFilled => {
                    drop(log);
                    self.shared.wait_for_filling();
                }
            }
        }
    }

    /// Makes everything durable that was written before, and says what that completes: for each
    /// group, the highest [`Seq`], as [`Input::Persisted`](quorate_raft::Input::Persisted) wants
    /// it. It includes what other syncs have completed and nobody has been told yet.
    ///
    /// While one sync runs, others wait; what is written meanwhile is made durable by the next one,
    /// all at once. So one thread that calls this in a loop while there is something to sync
    /// serves any number of groups and writers.
    ///
    /// # Errors
    ///
    /// If it fails, the log has failed for good: nothing that was not durable before may be
    /// believed to be.
    pub fn sync(&self) -> Result<Vec<(GroupId, Seq)>, Stopped> {
        let mut log = self.shared.log();
        while log.syncing {
            log.check()?;
            log = self.shared.wait(log);
        }
        log.check()?;
        if log.written == log.durable {
            return Ok(log.take_completed());
        }
        let contents = log.begin_sync();
        drop(log);
        Ok(self.shared.sync_contents(contents)?.take_completed())
    }

    /// Waits until everything up to `position` is durable, syncing if nobody else does. For hosts
    /// whose writers wait themselves. Whatever it completes is left for [`sync`](Self::sync) to
    /// tell.
    ///
    /// # Errors
    ///
    /// As [`sync`](Self::sync).
    pub fn sync_to(&self, position: Position) -> Result<(), Stopped> {
        let mut log = self.shared.log();
        let up_to = position.0.min(log.written);
        loop {
            log.check()?;
            if log.durable >= up_to {
                return Ok(());
            }
            if log.syncing {
                log = self.shared.wait(log);
                continue;
            }
            let contents = log.begin_sync();
            drop(log);
            log = self.shared.sync_contents(contents)?;
        }
    }

    /// Begins a sync without waiting for the disk: a simulator runs the [`SyncJob`] when its time
    /// has come. `None` if there is nothing to sync, or another sync has not ended.
    ///
    /// # Errors
    ///
    /// If the log has failed.
    pub fn begin_sync(&self) -> Result<Option<SyncJob>, Stopped> {
        let mut log = self.shared.log();
        log.check()?;
        if log.syncing || log.written == log.durable {
            return Ok(None);
        }
        let contents = log.begin_sync();
        Ok(Some(SyncJob { wal: self.clone(), contents: Some(contents) }))
    }

    /// Puts down that everything synced so far is durable, durably. Damage to a record that is
    /// marked so is found to be damage; otherwise it may pass for the end of the log. Every record
    /// marks those before it, so this is for a log that has come to rest: call it some 100 ms after
    /// the last sync. It does nothing where all is marked. If there was something to sync, it says
    /// what that completed, as [`sync`](Self::sync) does.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write). Nothing is lost if it fails for want of space.
    pub fn mark(&self) -> Result<Vec<(GroupId, Seq)>, WriteError> {
        let mut completed = Completions::default();
        let up_to = self.shared.log().written_for_groups;
        loop {
            let mut log = self.shared.log();
            log.check()?;
            let (mark, said_by) = log.marked;
            if mark >= up_to && log.durable >= said_by {
                completed.extend(log.take_completed());
                return Ok(completed.take());
            }
            if mark >= up_to || log.durable < up_to {
                drop(log);
                completed.extend(self.sync()?);
                continue;
            }
            let mut draft = Draft::default();
            draft.push_mark(log.freed.1);
            match log.make_room(draft.bytes.len())? {
                Room::Here => {
                    log.place(&mut draft)?;
                    drop(log);
                    completed.extend(self.sync()?);
                }
                Room::NeedsNext => {
                    drop(log);
                    self.shared.make_next_now()?;
                }
                Room::BeingFilled => {
                    drop(log);
                    self.shared.wait_for_filling();
                }
            }
        }
    }

    /// Syncs, marks, and takes nothing any more, so that the next start finds a log without any
    /// doubt about its end.
    ///
    /// # Errors
    ///
    /// As [`mark`](Self::mark). The log is closed all the same.
    pub fn close(&self) -> Result<(), WriteError> {
        let result = self.mark().map(|_| ());
        let mut log = self.shared.log();
        log.stopped.get_or_insert(Stopped::Closed);
        drop(log);
        self.shared.sync_ended.notify_all();
        result
    }

    /// Does about `bytes` of the work that later writes will need done: frees segments, prepares
    /// the next one, and rewrites what little still counts in the oldest. Call it beside the
    /// writes, a few hundred KiB at a time, until it says [`Progress::Idle`]; and again when a
    /// segment was switched or a log compacted. It never delays a write by more than the writing
    /// of the records that it forwards.
    ///
    /// # Errors
    ///
    /// See [`ChoreError`]. For want of space it may be called again later.
    pub fn prepare(&self, bytes: usize) -> Result<Progress, ChoreError> {
        self.shared.prepare(bytes)
    }

    /// How many bytes should be given to [`prepare`](Self::prepare) by now, so that the next segment
    /// is ready shortly before the present one is full: preparing a little with each of many
    /// writes disturbs none of them.
    #[must_use]
    pub fn preparation_due(&self) -> usize {
        self.shared.log().preparation_due(&self.shared.options)
    }

    /// Reads the entries of `group` from `first` to `last`, as many as are less than `bytes_max`
    /// in [`Entry::size`], but at least one. They need not be durable yet. Their checksums hold.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub fn read(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        self.shared.read(group, first, last, bytes_max)
    }

    /// Whose log this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.log().identity
    }

    /// The last position that is durable.
    #[must_use]
    pub fn durable(&self) -> Position {
        Position(self.shared.log().durable)
    }

    /// What was done since the log was opened.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.log().metrics.clone()
    }

    /// What the log takes, on disk and in memory.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let log = self.shared.log();
        let segments = log.segments.by_number.values();
        Usage {
            segments: log.segments.by_number.len(),
            segment_bytes: segments.clone().map(|entry| entry.segment.size).sum(),
            live_bytes: segments.map(|entry| entry.live_bytes).sum(),
            index_bytes: log.groups.location_bytes(),
        }
    }
}

/// What a log takes, on disk and in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Segments that are part of the log.
    pub segments: usize,
    /// The length of their files.
    pub segment_bytes: u64,
    /// Bytes of records that have entries that count.
    pub live_bytes: u64,
    /// Memory of the index: 20 bytes for each record with entries, and what is reserved.
    pub index_bytes: usize,
}

/// A sync that has begun. Dropped without [`run`](Self::run), it is as if it had not.
pub struct SyncJob {
    wal: Wal,
    contents: Option<SyncContents>,
}

impl SyncJob {
    /// Waits for the disk; see [`Wal::sync`]. What was written after the job began is not told to
    /// be durable.
    ///
    /// # Errors
    ///
    /// As [`Wal::sync`].
    pub fn run(mut self) -> Result<Vec<(GroupId, Seq)>, Stopped> {
        let contents = self.contents.take().expect("contents are there until the job has run");
        Ok(self.wal.shared.sync_contents(contents)?.take_completed())
    }
}

impl Drop for SyncJob {
    fn drop(&mut self) {
        if let Some(contents) = self.contents.take() {
            self.wal.shared.log().cancel_sync(contents);
            self.wal.shared.sync_ended.notify_all();
        }
    }
}

impl Shared {
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("no thread panics while it holds the log")
    }

    fn wait<'a>(&self, log: MutexGuard<'a, Log>) -> MutexGuard<'a, Log> {
        self.sync_ended.wait(log).expect("no thread panics while it holds the log")
    }

    /// Waits for the disk, and says what that means for the log and all who wait.
    fn sync_contents(&self, contents: SyncContents) -> Result<MutexGuard<'_, Log>, Stopped> {
        let begun = Instant::now();
        let failed = contents.files.iter().find_map(|segment| {
            let error = segment.file.sync_data().err()?;
            Some(IoFailure::new("sync", &segment.name, &error))
        });
        let mut log = self.log();
        let result = match failed {
            Some(failure) => Err(log.poison(failure)),
            // Another thread's write may have failed meanwhile; then nothing succeeds any more.
            None => log.check(),
        };
        match result {
            Ok(()) => {
                log.finish_sync(contents);
                log.metrics.sync_us.add(micros_since(begun));
            }
            Err(_) => log.syncing = false,
        }
        self.sync_ended.notify_all();
        result.map(|()| log)
    }

    fn take_draft(&self) -> Draft {
        let mut drafts = self.drafts.lock().expect("no thread panics while it holds the drafts");
        drafts.pop().unwrap_or_default()
    }

    fn give_draft(&self, mut draft: Draft) {
        draft.clear();
        let mut drafts = self.drafts.lock().expect("no thread panics while it holds the drafts");
        if drafts.len() < DRAFTS_MAX && draft.bytes.capacity() <= DRAFT_BYTES_MAX {
            drafts.push(draft);
        }
    }
}

pub(crate) fn micros_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}
