//! The log on disk, and the thread that writes it.
//!
//! The driver hands over what is to be written; the thread takes all that is there, writes it, and
//! makes it durable with one sync. What arrives meanwhile is the next batch.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quorate_node::Event;
use quorate_raft::{Entry, GroupId, Index, Install, LoadError, Persist, Seq, SnapshotMeta};
use quorate_wal::{ChoreError, Progress, ReadError, Stopped, Wal, WriteError};

use crate::error::StopReason;
use crate::inbox::{Inbox, Report};
use crate::panics::{reporting, unstarted};

/// How long after the last sync the log is marked as whole.
const MARK_AFTER: Duration = Duration::from_millis(100);
/// How often a write is tried again while there is no room.
const NO_SPACE_RETRY: Duration = Duration::from_millis(200);
/// Bytes of preparation at a time, between writes.
const PREPARE_BYTES: usize = 256 << 10;

/// Something for the thread to do, in order. The core bounds it: what is written is not applied yet.
enum Job {
    Persist(Persist),
    Compact(SnapshotMeta),
    /// Once the state machine says that it has the snapshot's contents.
    Install(Install, mpsc::Receiver<()>),
}

#[derive(Clone)]
pub(crate) struct DiskLog {
    wal: Wal,
    group: GroupId,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    inner: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    stop: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().expect("nobody panics while holding the queue")
    }
}

impl DiskLog {
    pub(crate) fn new(wal: Wal, group: GroupId) -> Self {
        Self { wal, group, queue: Arc::default() }
    }

    /// Starts the thread.
    pub(crate) fn run(&self, name: &str, inbox: &Arc<Inbox>) -> std::io::Result<JoinHandle<()>> {
        let log = self.clone();
        let writing = Arc::clone(inbox);
        let work = move || {
            let mut writer = Writer { log, inbox: writing, dirty: None, idle: false };
            if let Err(why) = writer.run() {
                writer.inbox.report(Report::Stop(StopReason::Disk { message: why }));
            }
        };
        let thread = std::thread::Builder::new().name(format!("{name}-log"));
        let thread = thread.spawn(reporting("the thread that writes the log", inbox, work));
        thread.map_err(unstarted)
    }

    fn push(&self, job: Job) {
        self.queue.lock().jobs.push_back(job);
        self.queue.changed.notify_one();
    }

    pub(crate) fn persist(&self, persist: Persist) {
        self.push(Job::Persist(persist));
    }

    pub(crate) fn compact(&self, start: SnapshotMeta) {
        self.push(Job::Compact(start));
    }

    pub(crate) fn install(&self, install: Install, restored: mpsc::Receiver<()>) {
        self.push(Job::Install(install, restored));
    }

    /// Ends the thread once it has done what it was given.
    pub(crate) fn stop(&self) {
        self.queue.lock().stop = true;
        self.queue.changed.notify_one();
    }

    pub(crate) fn metrics(&self) -> quorate_wal::Metrics {
        self.wal.metrics()
    }

    /// Entries from `first` to `last`, as many as stay below `bytes_max`, and at least one. Waits
    /// for the disk.
    pub(crate) fn read(
        &self,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LoadError> {
        self.wal.read(self.group, first, last, bytes_max).map_err(|error| match error {
            ReadError::Compacted { .. } => LoadError::Compacted,
            _ => LoadError::Unreadable,
        })
    }
}

struct Writer {
    log: DiskLog,
    inbox: Arc<Inbox>,
    /// When the last sync ended whose records are not marked yet.
    dirty: Option<Instant>,
    /// Nothing is to be prepared until the next write.
    idle: bool,
}

impl Writer {
    /// Ends when told to, or when the disk has failed.
    fn run(&mut self) -> Result<(), String> {
        while let Some(mut jobs) = self.wait()? {
            while let Some(job) = jobs.pop_front() {
                match job {
                    Job::Persist(first) => {
                        let mut batch = vec![first];
                        while let Some(Job::Persist(_)) = jobs.front() {
                            if let Some(Job::Persist(next)) = jobs.pop_front() {
                                batch.push(next);
                            }
                        }
                        self.write(&batch)?;
                    }
                    Job::Compact(start) => self.compact(&start)?,
                    Job::Install(install, restored) => self.install(&install, &restored)?,
                }
            }
        }
        self.log.wal.close().map_err(|error| error.to_string())
    }

    /// What is to be done next. Meanwhile, prepares what comes, and marks what has come to rest.
    fn wait(&mut self) -> Result<Option<VecDeque<Job>>, String> {
        loop {
            let mut waiting = self.log.queue.lock();
            if !waiting.jobs.is_empty() {
                return Ok(Some(std::mem::take(&mut waiting.jobs)));
            }
            if waiting.stop {
                return Ok(None);
            }
            if !self.idle {
                drop(waiting);
                self.prepare()?;
                continue;
            }
            match self.dirty {
                None => drop(self.log.queue.changed.wait(waiting)),
                Some(since) => {
                    let rest = MARK_AFTER.saturating_sub(since.elapsed());
                    if rest.is_zero() {
                        drop(waiting);
                        self.dirty = None;
                        match self.log.wal.mark() {
                            Ok(done) => self.tell(&done),
                            Err(WriteError::NoSpace(_)) => {}
                            Err(error) => return Err(error.to_string()),
                        }
                        continue;
                    }
                    drop(self.log.queue.changed.wait_timeout(waiting, rest));
                }
            }
        }
    }

    fn prepare(&mut self) -> Result<(), String> {
        match self.log.wal.prepare(PREPARE_BYTES) {
            Ok(Progress::More) => {}
            Ok(Progress::Idle | Progress::AfterSync) => self.idle = true,
            Err(ChoreError::Stopped(why)) => return Err(why.to_string()),
            // Tried again after the next write, which says more if it matters.
            Err(_) => self.idle = true,
        }
        Ok(())
    }

    fn write(&mut self, batch: &[Persist]) -> Result<(), String> {
        let records: Vec<(GroupId, &Persist)> =
            batch.iter().map(|persist| (self.log.group, persist)).collect();
        let mut full = false;
        loop {
            match self.log.wal.write(&records) {
                Ok(_) => break,
                Err(WriteError::NoSpace(_)) => {
                    if !std::mem::replace(&mut full, true) {
                        self.inbox.report(Report::NoSpace(true));
                    }
                    // Compaction is behind us in the queue, and may be what makes room.
                    self.compact_ahead()?;
                    if self.stopping() {
                        return Err("the disk is full".to_owned());
                    }
                    std::thread::sleep(NO_SPACE_RETRY);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        if full {
            self.inbox.report(Report::NoSpace(false));
        }
        let done = self.log.wal.sync().map_err(|why: Stopped| why.to_string())?;
        self.tell(&done);
        self.dirty = Some(Instant::now());
        self.idle = false;
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.log.queue.lock().stop
    }

    fn compact_ahead(&self) -> Result<(), String> {
        let starts: Vec<SnapshotMeta> = {
            let mut waiting = self.log.queue.lock();
            // Behind an installation, a compaction means another log.
            let stop = waiting.jobs.iter().position(|job| matches!(job, Job::Install(..)));
            let jobs = waiting.jobs.iter_mut().take(stop.unwrap_or(usize::MAX));
            jobs.filter_map(|job| match job {
                Job::Compact(start) => Some(start.clone()),
                _ => None,
            })
            .collect()
        };
        starts.iter().try_for_each(|start| self.compact(start))
    }

    fn compact(&self, start: &SnapshotMeta) -> Result<(), String> {
        match self.log.wal.compact(self.log.group, start) {
            Err(ChoreError::Stopped(why)) => Err(why.to_string()),
            // The log then starts where it did, and is compacted the next time.
            Err(_) | Ok(()) => Ok(()),
        }
    }

    fn install(&mut self, install: &Install, restored: &mpsc::Receiver<()>) -> Result<(), String> {
        // If the state machine could not restore, the node stops, and says so itself.
        if restored.recv().is_err() {
            return Ok(());
        }
        loop {
            match self.log.wal.install(self.log.group, install) {
                Ok(()) => break,
                Err(ChoreError::Io(why)) if why.is_no_space() && !self.stopping() => {
                    self.inbox.report(Report::NoSpace(true));
                    std::thread::sleep(NO_SPACE_RETRY);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        self.inbox.event(Event::Stored(install.seq));
        self.idle = false;
        Ok(())
    }

    fn tell(&self, done: &[(GroupId, Seq)]) {
        for (_, seq) in done {
            self.inbox.event(Event::Stored(*seq));
        }
    }
}
