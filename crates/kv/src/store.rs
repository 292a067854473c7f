//! The store, for whoever applies commands to it.

use core::fmt;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc,
};

use redb::StorageBackend;

use crate::defragment::Target;
use crate::disk::{Disk, DiskError, DiskView};
use crate::flush::Flush;
use crate::index::{Gathering, Index, LOADING_RECORDS_MAX, Loading};
use crate::meta::{self, Meta};
use crate::range::Failure;
use crate::reader::Reader;
use crate::record::Place;
use crate::state::{Compaction, Sink, State};
use crate::tail::Tails;
use crate::{
    Alarm, AlarmKind, AlarmMember, Command, LeaseId, Leases, Lessor, Reply, RequestError, Revision,
};

/// A place in the replicated log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPlace {
    /// Index of the entry; 0 if there is none.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// A row that the host keeps in the store, in the same transactions as the data. `None` as value deletes it.
pub type HostRow = (Vec<u8>, Option<Vec<u8>>);

/// Settings of one replica. Replicas need not have the same: nobody is told anything else for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Bytes of current values that are kept in memory, 64 MiB by default. Less: reads go to the database more often.
    pub values_bytes_max: usize,
    /// Bytes that the database keeps in memory, 64 MiB by default.
    pub cache_bytes: usize,
    /// Bytes of changes that may wait in memory for a flush, 256 MiB by default. Beyond that, the store says that it
    /// [must flush](Store::must_flush).
    pub tail_bytes_max: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { values_bytes_max: 64 << 20, cache_bytes: 64 << 20, tail_bytes_max: 256 << 20 }
    }
}

/// What an opened store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The place of the log after which its data stand.
    pub applied: LogPlace,
    /// The host's rows, in order of their keys.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How many keys a step of a compaction looks at.
const PRUNE_KEYS: usize = 1000;
/// How many forgotten records may wait to be removed from the database, before a compaction pauses. The more there are, the
/// closer to each other are those that one flush removes.
const REMOVABLE_MAX: usize = 1 << 20;

/// What the store, its readers and its flushes share.
pub(crate) struct Shared {
    state: RwLock<State>,
    disk: Mutex<Arc<Disk>>,
    /// The database that is to take its place, while it is being made. Whoever flushes has it to itself for that time.
    pub(crate) target: Mutex<Option<Arc<Target>>>,
    /// Revisions that are being read, and how often.
    pub(crate) pins: Mutex<BTreeMap<i64, usize>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

const BROKEN: &str = "whoever panics while it changes the state has broken this replica";

impl Shared {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect(BROKEN)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect(BROKEN)
    }

    pub(crate) fn disk(&self) -> Arc<Disk> {
        Arc::clone(&self.disk.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_disk(&self, disk: Arc<Disk>) {
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner) = disk;
    }

    pub(crate) fn pins(&self) -> MutexGuard<'_, BTreeMap<i64, usize>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keys and values with all their history, leases and alarms: one replica's copy.
///
/// One owner applies commands in the order of the log; any number of [`Reader`]s look on. What was applied is durable once
/// a [flush](Self::begin_flush) says so, and the log must be kept until then.
#[derive(Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: StoreConfig,
    /// Its file, if it has one of its own.
    pub(crate) path: Option<PathBuf>,
}

impl Store {
    /// Opens the store in a file, which is made if it does not exist.
    ///
    /// # Errors
    ///
    /// [`DiskError`]: the file cannot be read, or is none of ours.
    pub fn open_file(path: &Path, config: StoreConfig) -> Result<(Self, Opened), DiskError> {
        let (store, opened) = Self::load(Disk::open_file(path, config.cache_bytes)?, config)?;
        Ok((Self { path: Some(path.to_owned()), ..store }, opened))
    }

    /// Opens the store in whatever the host hands in.
    ///
    /// # Errors
    ///
    /// As [`open_file`](Self::open_file).
    pub fn open(
        backend: impl StorageBackend,
        config: StoreConfig,
    ) -> Result<(Self, Opened), DiskError> {
        Self::load(Disk::open(backend, config.cache_bytes)?, config)
    }

    /// A store without a file, for tests.
    #[must_use]
    pub fn in_memory(config: StoreConfig) -> Self {
        let backend = redb::backends::InMemoryBackend::new();
        Self::open(backend, config).expect("memory does not fail").0
    }

    fn load(disk: Disk, config: StoreConfig) -> Result<(Self, Opened), DiskError> {
        let disk = Arc::new(disk);
        let (state, opened) = load(&disk.view()?, config)?;
        let shared = Shared {
            state: RwLock::new(state),
            disk: Mutex::new(disk),
            target: Mutex::default(),
            pins: Mutex::default(),
        };
        Ok((Self { shared: Arc::new(shared), config, path: None }, opened))
    }

    /// For whoever reads; any number, on any thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// Carries out commands, one after another. A command that fails changes nothing, and every replica answers the same.
    ///
    /// `sink` sees every revision before any reader can. [`finish`](Self::finish) must follow before anything else.
    ///
    /// # Errors
    ///
    /// [`DiskError`]: the database failed, and this replica must not go on.
    pub fn apply(
        &mut self,
        commands: &[Command],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Result<Reply, RequestError>>, DiskError> {
        let mut state = self.shared.write();
        state.wants_prev = sink.wants_prev();
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            replies.push(match state.carry_out(command, sink) {
                Ok(reply) => Ok(reply),
                Err(Failure::Request(why)) => Err(why),
                Err(Failure::Disk(why)) => return Err(why),
            });
        }
        Ok(replies)
    }

    /// A batch ends: this is its place in the log, and these rows of the host belong into the same transaction.
    pub fn finish(&mut self, at: LogPlace, rows: impl IntoIterator<Item = HostRow>) {
        let mut state = self.shared.write();
        state.applied = at;
        for (key, value) in rows {
            state.set_meta(Meta::Host(key).key(), value);
        }
    }

    /// The lessor of this replica starts to lead; see [`Lessor::promote`].
    pub fn promote(&mut self, lessor: &mut Lessor, now_us: u64, term: crate::LeaderTerm) -> bool {
        lessor.promote(now_us, term, &mut self.shared.write().leases)
    }

    /// It does not lead any more; see [`Lessor::demote`].
    pub fn demote(&mut self, lessor: &mut Lessor) {
        lessor.demote(&mut self.shared.write().leases);
    }

    /// It takes notice of what was applied; see [`Lessor::follow`].
    pub fn follow(&mut self, lessor: &mut Lessor, now_us: u64) {
        lessor.follow(now_us, &mut self.shared.write().leases);
    }

    /// Begins to make everything that was applied durable: what is to be written stands still, and
    /// [`Flush::write`] may run on any thread while commands are applied. `None` if there is nothing to write, or another
    /// flush has not ended.
    pub fn begin_flush(&mut self) -> Option<Flush> {
        Flush::begin(&self.shared)
    }

    /// Whether so much waits for a flush that nothing more should be applied before one has ended.
    #[must_use]
    pub fn must_flush(&self) -> bool {
        self.shared.read().tails.bytes() >= self.config.tail_bytes_max
    }

    /// Goes on with a compaction: looks at some keys, and forgets of them what cannot be read any more. Whether there is
    /// more to do at once.
    ///
    /// Waits for whoever reads at a revision that is to be forgotten, unless `force`: then such a read ends with
    /// [`RequestError::Compacted`].
    pub fn compact_step(&mut self, force: bool) -> bool {
        let mut state = self.shared.write();
        let state = &mut *state;
        if !state.compaction.pruning {
            let target = state.compacted;
            if state.compaction.floor >= target {
                return false;
            }
            let lowest = self.shared.pins().first_key_value().map(|(revision, _)| *revision);
            if !force && lowest.is_some_and(|lowest| lowest < target) {
                return false;
            }
            state.compaction.floor = target;
            state.compaction.pruning = true;
            state.compaction.cursor = None;
        }
        if state.compaction.removable.len() >= REMOVABLE_MAX {
            // A flush removes them.
            return false;
        }
        let Compaction { floor, pruning, cursor, removable, .. } = &mut state.compaction;
        *cursor = state.index.prune(*floor, cursor.take(), PRUNE_KEYS, removable);
        *pruning = cursor.is_some();
        *pruning || state.compaction.floor < state.compacted
    }
}

impl State {
    fn carry_out(&mut self, command: &Command, sink: &mut dyn Sink) -> Result<Reply, Failure> {
        self.refuse_if_alarmed(command)?;
        let reply = match command {
            Command::Put(put) => Reply::Put(self.put_alone(put)?),
            Command::DeleteRange(delete) => Reply::DeleteRange(self.execute_delete(delete)?),
            Command::Txn(txn) => Reply::Txn(self.txn(txn)?),
            Command::Compact(compact) => {
                self.compact(compact.revision.0)?;
                sink.compacted(compact.revision);
                self.done()
            }
            Command::LeaseGrant(grant) => {
                let ttl_s = self.leases.grant(grant.id, grant.ttl_s)?;
                Reply::LeaseGrant { revision: Revision(self.revision), id: grant.id, ttl_s }
            }
            Command::LeaseRevoke(id) => {
                self.revoke(*id)?;
                self.done()
            }
            Command::LeaseExpire(leases) => {
                for lease in leases {
                    // A client may have revoked it meanwhile, and granted another one under its id.
                    if self.leases.has(*lease) {
                        self.revoke(lease.id)?;
                        self.finish_revision(sink);
                    }
                }
                self.done()
            }
            Command::LeaseCheckpoint(checkpoints) => {
                for checkpoint in checkpoints {
                    self.leases.checkpoint(*checkpoint);
                }
                self.done()
            }
            Command::Alarm(alarm) => self.alarm(*alarm),
        };
        self.finish_revision(sink);
        Ok(reply)
    }

    /// The revision that the command has made, or the current one.
    fn done(&self) -> Reply {
        Reply::Done { revision: Revision(self.seen_revision()) }
    }

    /// All keys of a lease go in one revision, in their order.
    fn revoke(&mut self, id: LeaseId) -> Result<(), Failure> {
        let keys: Vec<_> = self.leases.keys_of(id).cloned().collect();
        // Before anything changes: reading may fail.
        let prevs = keys.iter().map(|key| self.prev(key, false)).collect::<Result<Vec<_>, _>>()?;
        self.leases.revoke(id)?;
        for (key, prev) in keys.into_iter().zip(prevs) {
            self.delete(key, prev);
        }
        Ok(())
    }

    fn refuse_if_alarmed(&self, command: &Command) -> Result<(), RequestError> {
        let active = |kind| self.alarms.iter().any(|alarm| alarm.kind == kind);
        if self.alarms.is_empty() || matches!(command, Command::Alarm(_)) {
            return Ok(());
        }
        if active(AlarmKind::Corrupt) {
            return Err(RequestError::Corrupt);
        }
        if active(AlarmKind::NoSpace) && command.cost_bytes() > 0 {
            return Err(RequestError::NoSpace);
        }
        Ok(())
    }

    fn alarm(&mut self, alarm: Alarm) -> Reply {
        let alarms = match alarm {
            Alarm::List(kind) => {
                let listed = |alarm: &&AlarmMember| kind.is_none_or(|kind| alarm.kind == kind);
                self.alarms.iter().filter(listed).copied().collect()
            }
            Alarm::Activate(_, None) | Alarm::Deactivate(_, None) => Vec::new(),
            Alarm::Activate(member, Some(kind)) => {
                let alarm = AlarmMember { member, kind };
                if self.alarms.insert(alarm) {
                    self.set_meta(Meta::Alarm(alarm).key(), Some(Vec::new()));
                }
                vec![alarm]
            }
            Alarm::Deactivate(member, Some(kind)) => {
                let alarm = AlarmMember { member, kind };
                let was_active = self.alarms.remove(&alarm);
                if was_active {
                    self.set_meta(Meta::Alarm(alarm).key(), None);
                }
                was_active.then_some(alarm).into_iter().collect()
            }
        };
        Reply::Alarms { revision: Revision(self.revision), alarms }
    }
}

/// The state that a database holds.
fn load(view: &DiskView, config: StoreConfig) -> Result<(State, Opened), DiskError> {
    let mut state = State {
        index: Index::new(config.values_bytes_max),
        leases: Leases::new(),
        alarms: Default::default(),
        revision: 1,
        compacted: -1,
        compaction: Compaction::default(),
        applied: LogPlace::default(),
        flushed: LogPlace::default(),
        flushing: false,
        tails: Tails::default(),
        saved: view.clone(),
        meta_changed: BTreeMap::new(),
        pending: Vec::new(),
        wants_prev: false,
    };
    state.compaction.finished = -1;
    let mut opened = Opened::default();
    let mut format = None;
    view.meta(|key, value| {
        match Meta::of(key)? {
            Meta::Applied => {
                let (index, term) = meta::read_pair(value)?;
                state.applied = LogPlace { index, term };
            }
            Meta::Compacted => state.compacted = meta::read_number(value)?,
            Meta::Finished => state.compaction.finished = meta::read_number(value)?,
            Meta::Grants => {
                state.leases.restore_grants(meta::read_number(value)?.cast_unsigned());
            }
            Meta::Format => format = Some(value.to_vec()),
            Meta::Lease(id) => {
                let bad = |why| DiskError::Content { what: format!("lease {}: {why}", id.0) };
                state.leases.restore(id, value).map_err(bad)?;
            }
            Meta::Alarm(alarm) => drop(state.alarms.insert(alarm)),
            Meta::Revision => state.revision = meta::read_number(value)?,
            Meta::Host(key) => opened.rows.push((key, value.to_vec())),
        }
        Ok(())
    })?;
    match format {
        // A new one says so with its first flush.
        None => state.set_meta(Meta::Format.key(), Some(meta::FORMAT.to_be_bytes().to_vec())),
        Some(format) if format == meta::FORMAT.to_be_bytes() => {}
        Some(format) => {
            let what = format!("format {format:?}; this build knows {}", meta::FORMAT);
            return Err(DiskError::Content { what });
        }
    }
    load_history(view, &mut state)?;
    // Those who read below it are gone with the process; what is left of it in the file is forgotten anew.
    state.compaction.floor = state.compaction.finished;
    state.flushed = state.applied;
    opened.applied = state.applied;
    Ok((state, opened))
}

fn load_history(view: &DiskView, state: &mut State) -> Result<(), DiskError> {
    let mut loading = Loading::new(state.index.values_bytes_max());
    let is_long = view.records()? > LOADING_RECORDS_MAX as u64;
    if is_long {
        load_on_two_threads(view, state.revision, &mut loading)?;
    } else {
        let mut gathering = loading.gathering();
        gather(view, state.revision, &mut gathering, |gathering| {
            loading.take_in(gathering);
            true
        })?;
    }
    let index = loading.finish();
    let leased: Vec<_> = index
        .range(crate::index::KeyRange::all())
        .filter_map(|(key, entry)| Some((bytes::Bytes::copy_from_slice(key), entry.lease()?)))
        .collect();
    for (key, lease) in leased {
        let unknown =
            |_| DiskError::Content { what: format!("key {key:?} has no lease {}", lease.0) };
        state.leases.attach(&key, lease).map_err(unknown)?;
    }
    state.index = index;
    Ok(())
}

/// Gathers all records, and hands over what is gathered and sorted, which comes back empty; until that is not wanted.
fn gather(
    view: &DiskView,
    revision: i64,
    gathering: &mut Gathering,
    mut hand_over: impl FnMut(&mut Gathering) -> bool,
) -> Result<(), DiskError> {
    let mut bad = None;
    view.scan_back(|place: Place, record| {
        if place.revision > revision {
            bad = Some(format!("revision {} beyond the current {revision}", place.revision));
            return false;
        }
        gathering.push(place, &record) || {
            gathering.sort();
            hand_over(gathering)
        }
    })?;
    if let Some(what) = bad {
        return Err(DiskError::Content { what });
    }
    gathering.sort();
    hand_over(gathering);
    Ok(())
}

/// One thread reads and sorts, and this one takes in what it has. Which values are taken in is decided by how many there
/// were two hand-overs ago, and so never by chance.
fn load_on_two_threads(
    view: &DiskView,
    revision: i64,
    loading: &mut Loading,
) -> Result<(), DiskError> {
    let (full, filled) = mpsc::channel();
    let (empty, emptied) = mpsc::channel();
    let mut gathering = loading.gathering();
    let _ = empty.send(loading.gathering());
    std::thread::scope(|scope| {
        let reading = move || {
            gather(view, revision, &mut gathering, |gathering| {
                let Ok(next) = emptied.recv() else { return false };
                full.send(std::mem::replace(gathering, next)).is_ok()
            })
        };
        let reader = std::thread::Builder::new().name("quorate-load".to_owned());
        let reader = reader.spawn_scoped(scope, reading);
        let reader = reader.map_err(|why| DiskError::Database(Box::new(redb::Error::Io(why))))?;
        for mut gathering in filled {
            loading.take_in(&mut gathering);
            // It may have all that it needs.
            let _ = empty.send(gathering);
        }
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
