//! What a member knows, shared by whoever applies and whoever serves.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use quorate_kv::{
    AlarmKind, DefragmentError, Flush, Hub, LeaderTerm, Lessor, LogPlace, Reader, Renewal, Store,
    StoreConfig, Ticket,
};
use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::machine::disk_error;
use crate::metrics::Metrics;
use crate::proto::host;

/// What the cluster keeps beside keys and leases.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attributes {
    /// What members say of themselves.
    pub(crate) members: BTreeMap<u64, host::Attributes>,
    pub(crate) cluster_version: Option<String>,
    /// The version that the cluster is being taken back to.
    pub(crate) downgrade: Option<String>,
}

/// The lessor, with the keepalives that wait for an outcome by the numbers of their tickets.
pub(crate) struct LeaseBook {
    pub(crate) lessor: Lessor,
    pub(crate) waiting: HashMap<u64, oneshot::Sender<Renewal>>,
}

impl LeaseBook {
    /// Answers whoever waited for what is known now.
    pub(crate) fn deliver(&mut self) {
        for (ticket, renewal) in self.lessor.take_outcomes() {
            if let Some(waiting) = self.waiting.remove(&ticket.number) {
                let _ = waiting.send(renewal);
            }
        }
    }

    /// A place to hear what becomes of a ticket.
    pub(crate) fn wait(&mut self, ticket: Ticket) -> oneshot::Receiver<Renewal> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(ticket.number, sender);
        receiver
    }
}

/// See the module. Whoever takes several of its locks takes the store's first.
pub(crate) struct Data {
    pub(crate) metrics: Arc<Metrics>,
    store: Mutex<Store>,
    reader: RwLock<Reader>,
    pub(crate) hub: Hub,
    leases: Mutex<LeaseBook>,
    attributes: RwLock<Arc<Attributes>>,
    applied_term: AtomicU64,
    applied_index: AtomicU64,
    /// A member is out of space.
    no_space: AtomicBool,
    path: PathBuf,
    /// What the database took on the disk when that was looked at last.
    file_bytes: AtomicU64,
    /// What was applied and is not in the file yet.
    unflushed_bytes: AtomicU64,
    quota_bytes: Option<u64>,
    /// A write was applied that the quota has no room for, and nobody has raised the alarm yet.
    over_quota: AtomicBool,
    /// Whether a flush is being written; begun under the store's lock.
    flushing: Mutex<bool>,
    flushed: Condvar,
    /// When the last one ended.
    flushed_at: Mutex<Instant>,
    /// Held while the database is written anew, or replaced.
    rewriting: Mutex<()>,
    /// Whoever writes it anew is to give up.
    rewriting_ends: AtomicBool,
    /// A flush has failed, or nobody knows any more which database is the right one.
    failed: OnceLock<String>,
    /// The table of leases has changed, or a first entry of a term was applied.
    pub(crate) lease_news: Notify,
    /// There is something to forget.
    pub(crate) compaction_news: Notify,
}

impl Data {
    pub(crate) fn new(
        store: Store,
        hub: Hub,
        lessor: Lessor,
        attributes: Attributes,
        metrics: Arc<Metrics>,
        path: PathBuf,
        quota_bytes: Option<u64>,
    ) -> Self {
        let reader = store.reader();
        let data = Self {
            metrics,
            applied_term: AtomicU64::new(reader.applied().term),
            applied_index: AtomicU64::new(reader.applied().index),
            no_space: AtomicBool::new(false),
            path,
            file_bytes: AtomicU64::new(0),
            unflushed_bytes: AtomicU64::new(0),
            quota_bytes,
            over_quota: AtomicBool::new(false),
            flushing: Mutex::new(false),
            flushed: Condvar::new(),
            flushed_at: Mutex::new(Instant::now()),
            rewriting: Mutex::new(()),
            rewriting_ends: AtomicBool::new(false),
            failed: OnceLock::new(),
            store: Mutex::new(store),
            reader: RwLock::new(reader),
            hub,
            leases: Mutex::new(LeaseBook { lessor, waiting: HashMap::new() }),
            attributes: RwLock::new(Arc::new(attributes)),
            lease_news: Notify::new(),
            compaction_news: Notify::new(),
        };
        data.look_at_alarms();
        data.measure();
        data
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For one request: a snapshot of a leader may replace it.
    pub(crate) fn reader(&self) -> Reader {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn leases(&self) -> MutexGuard<'_, LeaseBook> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attributes(&self) -> Arc<Attributes> {
        Arc::clone(&self.attributes.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change_attributes(&self, change: impl FnOnce(&mut Attributes)) {
        let mut all = self.attributes.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut all));
    }

    pub(crate) fn is_out_of_space(&self) -> bool {
        self.no_space.load(Ordering::Relaxed)
    }

    // ---- the quota ----

    /// What the database takes on the disk, as of the last flush.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    /// Looks at what the database takes on the disk. Its length goes in large steps, and much of it may not be there.
    pub(crate) fn measure(&self) -> u64 {
        if let Ok(found) = std::fs::metadata(&self.path) {
            const BLOCK: u64 = 512;
            #[cfg(unix)]
            let taken = std::os::unix::fs::MetadataExt::blocks(&found).saturating_mul(BLOCK);
            #[cfg(not(unix))]
            let taken = found.len();
            self.file_bytes.store(taken.min(found.len()), Ordering::Relaxed);
        }
        self.file_bytes()
    }

    /// Whether the quota has no room for a write that costs so much. What waits to be written counts as if it were in the
    /// file, so that the quota does not lag behind flushes.
    pub(crate) fn exceeds_quota(&self, cost: u64) -> bool {
        let taken = self.file_bytes() + self.unflushed_bytes.load(Ordering::Relaxed);
        self.quota_bytes.is_some_and(|quota| taken.saturating_add(cost) >= quota)
    }

    /// A write was applied that the quota had no room for: the alarm is to be raised.
    pub(crate) fn went_over_quota(&self) {
        self.over_quota.store(true, Ordering::Relaxed);
        self.lease_news.notify_one();
    }

    /// Whether that has happened since it was asked last.
    pub(crate) fn take_over_quota(&self) -> bool {
        self.over_quota.load(Ordering::Relaxed) && self.over_quota.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn applied_term(&self) -> u64 {
        self.applied_term.load(Ordering::Acquire)
    }

    pub(crate) fn applied_index(&self) -> u64 {
        self.applied_index.load(Ordering::Acquire)
    }

    fn look_at_alarms(&self) {
        let alarms = self.reader().alarms();
        let no_space = alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace);
        self.no_space.store(no_space, Ordering::Relaxed);
    }

    // ---- making it durable ----

    fn flushing(&self) -> MutexGuard<'_, bool> {
        self.flushing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait_for_flush(&self) {
        drop(self.flushed.wait_while(self.flushing(), |flushing| *flushing));
    }

    /// Whether what waits is worth a flush. Each one makes the log's syncs wait, on the same disk, so a member with little to
    /// do makes few: what was not flushed is in the log, and carried out again after a restart.
    pub(crate) fn is_flush_due(&self) -> bool {
        const ENOUGH_BYTES: u64 = 1 << 20;
        const LONG: Duration = Duration::from_secs(1);
        let reader = self.reader();
        let since = *self.flushed_at.lock().unwrap_or_else(PoisonError::into_inner);
        reader.unflushed_bytes() >= ENOUGH_BYTES
            || since.elapsed() >= LONG
            // A compaction ends with a flush, and somebody may wait for that.
            || reader.compaction_finished() < reader.compacted()
    }

    /// What is to be written, or up to where everything is durable if there is nothing, or somebody is at it.
    pub(crate) fn begin_flush(&self) -> Result<Flush, LogPlace> {
        let mut store = self.store();
        match store.begin_flush() {
            Some(flush) => {
                *self.flushing() = true;
                Ok(flush)
            }
            None => Err(store.reader().durable()),
        }
    }

    pub(crate) fn end_flush(&self, flush: Flush) -> io::Result<LogPlace> {
        let began = Instant::now();
        let written = flush.write().map_err(disk_error);
        if let Err(why) = &written {
            // What was to be written is lost to this process; the log still has it.
            let _ = self.failed.set(why.to_string());
        }
        self.metrics.commits.observe(began.elapsed());
        self.measure();
        self.unflushed_bytes.store(self.reader().unflushed_bytes(), Ordering::Relaxed);
        *self.flushed_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        *self.flushing() = false;
        self.flushed.notify_all();
        written
    }

    /// Why this member must not go on, if it must not.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.failed.get().map_or(Ok(()), |why| Err(io::Error::other(why.clone())))
    }

    /// Writes the database anew, so that its file becomes as small as what is in it, while everything goes on. `false` if it
    /// was not done to the end, for the database was replaced or closed meanwhile.
    pub(crate) fn defragment(&self) -> Result<bool, DefragmentError> {
        let _alone = match self.rewriting.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(DefragmentError::UnderWay),
        };
        let began = Instant::now();
        let _inflight = self.metrics.defragmenting.begin();
        let Some(mut work) = self.store().defragment() else { return Ok(false) };
        let done = loop {
            if self.rewriting_ends.load(Ordering::Acquire) {
                return Ok(false);
            }
            match work.step() {
                Ok(true) => {}
                Ok(false) => break Ok(true),
                Err(why) => break Err(why),
            }
        };
        if let Err(why) = &done
            && !why.is_harmless()
        {
            let _ = self.failed.set(why.to_string());
        }
        self.metrics.defragments.observe(began.elapsed());
        self.measure();
        done
    }

    /// Nobody writes the database anew as long as this is held.
    pub(crate) fn keep_file(&self) -> MutexGuard<'_, ()> {
        self.rewriting_ends.store(true, Ordering::Release);
        let alone = self.rewriting.lock().unwrap_or_else(PoisonError::into_inner);
        self.rewriting_ends.store(false, Ordering::Release);
        alone
    }

    /// Everything that was applied before this call becomes durable.
    pub(crate) fn flush_now(&self) -> io::Result<()> {
        let applied = self.store().reader().applied();
        loop {
            self.check()?;
            let durable = match self.begin_flush() {
                Ok(flush) => self.end_flush(flush)?,
                Err(durable) => durable,
            };
            if durable >= applied {
                return Ok(());
            }
            self.wait_for_flush();
        }
    }

    /// Lets go of the database, whoever still holds on to the member: another process may have it. Nobody applies any more.
    pub(crate) fn close(&self) {
        let _alone = self.keep_file();
        let closed = Store::in_memory(StoreConfig {
            values_bytes_max: 0,
            cache_bytes: 0,
            ..StoreConfig::default()
        });
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = closed.reader();
        *self.store() = closed;
    }

    /// A batch was applied, and nobody has been answered yet.
    pub(crate) fn applied(&self, store: &mut Store, at: LogPlace, compacted: bool, alarms: bool) {
        let mut leases = self.leases();
        store.follow(&mut leases.lessor, clock::now_us());
        leases.deliver();
        let wakes = leases.lessor.wake_us().is_some();
        drop(leases);
        self.unflushed_bytes.store(store.unflushed_bytes(), Ordering::Relaxed);
        self.applied_index.store(at.index, Ordering::Release);
        let before = self.applied_term.swap(at.term, Ordering::AcqRel);
        if wakes || before != at.term {
            self.lease_news.notify_one();
        }
        if compacted {
            self.compaction_news.notify_one();
        }
        if alarms {
            self.look_at_alarms();
        }
    }

    /// This member leads a term whose first entry is applied here.
    pub(crate) fn promote(&self, term: u64) {
        let mut store = self.store();
        let mut leases = self.leases();
        store.promote(&mut leases.lessor, clock::now_us(), LeaderTerm(term));
        leases.deliver();
    }

    /// This member does not lead (any more).
    pub(crate) fn demote(&self, store: &mut Store) {
        let mut leases = self.leases();
        store.demote(&mut leases.lessor);
        leases.deliver();
    }

    /// A snapshot of another member has replaced everything.
    pub(crate) fn replaced(&self, store: &mut Store, attributes: Attributes) {
        let reader = store.reader();
        self.applied_index.store(reader.applied().index, Ordering::Release);
        self.applied_term.store(reader.applied().term, Ordering::Release);
        let (current, compacted) = (reader.revision(), reader.compacted());
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader;
        self.change_attributes(|all| *all = attributes);
        self.measure();
        self.look_at_alarms();
        self.hub.reset(current, compacted);
        self.compaction_news.notify_one();
    }
}
