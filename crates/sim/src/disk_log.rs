//! The real log on a simulated disk.
//!
//! [`DiskLog`] is [`quorate_wal`] as production runs it, on a disk in memory that does what disks do
//! when power fails, processes die, space runs out or a sync fails. The disk decides nothing by
//! itself: every fault is drawn from the generator given at the start, or inflicted by name
//! ([`DiskFault`]).
//!
//! It is its own first judge. What a start finds must be what was written, up to some write that is
//! not older than the last one that was reported durable; a healthy log must not be called damaged;
//! and groups that share the log with the cluster's, some chatty and some silent for ever, must not
//! lose anything either. What fails here is a bug of the log, whatever the cluster makes of it.

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use quorate_raft::{
    ClusterId, Entry, GroupId, Incarnation, Index, LoadError, LogId, Membership, NodeId, Persist,
    Recovered, Seq, SnapshotMeta,
};
use quorate_wal::{
    ChoreError, Disk as _, Fate, MemoryDisk, Note, OpenError, Opened, ReadError, RecoveredGroup,
    Stopped, SyncJob, Wal, WriteError,
};

use crate::rng::Rng;
use crate::storage::{
    Crash, DiskError, DiskFault, DiskNews, LogImage, RecoverError, Storage, Write,
};

mod neighbours;
mod rot;

use neighbours::Neighbours;

/// What a simulated disk and the log on it are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskOptions {
    /// Size of a segment. Small ones are changed, used again and freed often.
    pub segment_bytes: u64,
    /// How often a write is accompanied by records of other groups, in parts per million.
    pub neighbours_ppm: u32,
    /// How often a write reaches the page cache before the sync that covers it begins, in parts per
    /// million. The others die with the process.
    pub eager_ppm: u32,
    /// How often a start is interrupted by another crash, in parts per million.
    pub interrupted_ppm: u32,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 10,
            neighbours_ppm: 100_000,
            eager_ppm: 500_000,
            interrupted_ppm: 0,
        }
    }
}

/// The group that the cluster runs.
const GROUP: GroupId = GroupId(0);
/// Steps of an operation after which a process may die in the middle of it.
const STEPS_MAX: u64 = 12;

/// The log of a simulated host.
pub struct DiskLog {
    cluster: ClusterId,
    node: NodeId,
    options: DiskOptions,
    rng: Rng,
    disk: MemoryDisk,
    /// `None` while no process has it open.
    wal: Option<Wal>,
    job: Option<Job>,
    /// What the process believes, and what was reported durable.
    written: LogImage,
    durable: LogImage,
    /// In `written` and not in `durable`, in order. `None` for a compaction that is settled.
    unsynced: VecDeque<Option<Write>>,
    /// How many of `unsynced` the log has been given.
    handed: usize,
    /// The highest number that the log has reported.
    reported: Seq,
    /// A compaction that has not succeeded yet, or whose success was not seen.
    compaction: Option<SnapshotMeta>,
    /// A snapshot is going into place.
    installing: bool,
    neighbours: Neighbours,
    unreadable: Option<RangeInclusive<Index>>,
    space: Option<u64>,
    fail_reads: bool,
    fail_sync: bool,
    /// Durable bytes were changed: the log may say so, and must not hide it.
    rotten: bool,
    news: Vec<DiskNews>,
}

/// A sync under way.
struct Job {
    sync: Option<SyncJob>,
    /// The number that it must report.
    seq: Option<Seq>,
    neighbours: Neighbours,
}

impl fmt::Debug for DiskLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskLog")
            .field("node", &self.node)
            .field("written", &self.written.last())
            .field("durable", &self.durable.last())
            .field("unsynced", &self.unsynced.len())
            .finish_non_exhaustive()
    }
}

impl DiskLog {
    /// A new data directory, and the name that it was given.
    #[must_use]
    pub fn create(
        cluster: ClusterId,
        node: NodeId,
        options: DiskOptions,
        seed: u64,
    ) -> (Self, Incarnation) {
        let mut log = Self {
            cluster,
            node,
            options,
            rng: Rng::new(seed),
            disk: MemoryDisk::new(),
            wal: None,
            job: None,
            written: LogImage::default(),
            durable: LogImage::default(),
            unsynced: VecDeque::new(),
            handed: 0,
            reported: Seq(0),
            compaction: None,
            installing: false,
            neighbours: Neighbours::default(),
            unreadable: None,
            space: None,
            fail_reads: false,
            fail_sync: false,
            rotten: false,
            news: Vec::new(),
        };
        let opened = log.open().expect("an empty disk takes a log");
        let incarnation = opened.wal.identity().incarnation;
        log.neighbours.write_first(&opened.wal);
        log.wal = Some(opened.wal);
        (log, incarnation)
    }

    fn wal(&self) -> Wal {
        self.wal.clone().expect("a process has the log open")
    }

    fn open(&mut self) -> Result<Opened, OpenError> {
        let options = quorate_wal::Options {
            segment_bytes: self.options.segment_bytes,
            first_segment_bytes: self.options.segment_bytes / 2,
            ..quorate_wal::Options::new(self.cluster, self.node, self.rng.next_u64())
        };
        Wal::open(Arc::new(self.disk.clone()), &options)
    }

    // ---- writing ----

    /// Gives the log writes that it does not have yet, until it has the first `count`. Stops early
    /// when the disk is full.
    fn hand_over(&mut self, count: usize) -> Result<(), DiskError> {
        let wal = self.wal();
        while self.handed < count {
            let done = match &self.unsynced[self.handed] {
                Some(Write::Persist(_)) => self.hand_over_records(&wal, count)?,
                Some(Write::Compact(_)) => {
                    let Some(Write::Compact(start)) = self.unsynced[self.handed].take() else {
                        unreachable!("it was looked at just now")
                    };
                    self.compaction = Some(start);
                    self.compact(&wal)?;
                    1
                }
                Some(Write::Install(_)) => unreachable!("a snapshot goes into place alone"),
                None => 1,
            };
            if done == 0 {
                return Ok(());
            }
            self.handed += done;
        }
        Ok(())
    }

    /// Gives the log the next records, as many as there are in a row.
    fn hand_over_records(&mut self, wal: &Wal, count: usize) -> Result<usize, DiskError> {
        let persists: Vec<&Persist> = self
            .unsynced
            .range(self.handed..count)
            .map_while(|write| match write {
                Some(Write::Persist(persist)) => Some(persist),
                _ => None,
            })
            .collect();
        let with_neighbours = self.rng.chance(self.options.neighbours_ppm);
        let extra = if with_neighbours { self.neighbours.next(&mut self.rng) } else { Vec::new() };
        let mut records: Vec<(GroupId, &Persist)> =
            persists.iter().map(|persist| (GROUP, *persist)).collect();
        for (group, persist) in &extra {
            // Anywhere in between.
            let at = self.rng.below(records.len() as u64 + 1) as usize;
            records.insert(at, (*group, persist));
        }
        match wal.write(&records) {
            Ok(_) => {
                let count = persists.len();
                self.neighbours.written(&extra);
                Ok(count)
            }
            Err(WriteError::NoSpace(_)) => {
                self.news.push(DiskNews::Full);
                Ok(0)
            }
            Err(WriteError::Stopped(why)) => Err(failed(&why)),
            Err(why) => panic!("n{}: a good write is refused: {why}", self.node),
        }
    }

    /// Carries out the compaction that is due. If there is no room for it now, there may be later.
    fn compact(&mut self, wal: &Wal) -> Result<(), DiskError> {
        let Some(start) = self.compaction.clone() else { return Ok(()) };
        match wal.compact(GROUP, &start) {
            Ok(()) => {
                self.durable.apply(&Write::Compact(start));
                self.compaction = None;
                Ok(())
            }
            Err(ChoreError::Io(_)) => Ok(()),
            Err(ChoreError::Stopped(why)) => Err(failed(&why)),
            Err(why) => panic!("n{}: a good compaction is refused: {why}", self.node),
        }
    }

    fn install(&mut self, wal: &Wal) -> Result<(), DiskError> {
        let Some(Some(Write::Install(install))) = self.unsynced.front() else {
            unreachable!("a snapshot was going into place")
        };
        match wal.install(GROUP, install) {
            Ok(()) => Ok(()),
            Err(ChoreError::Io(_)) => {
                self.news.push(DiskNews::Full);
                Err(DiskError::Full)
            }
            Err(ChoreError::Stopped(why)) => Err(failed(&why)),
            Err(why) => panic!("n{}: a snapshot is refused: {why}", self.node),
        }
    }

    fn note_reported(&mut self, completed: &[(GroupId, Seq)]) {
        for (group, seq) in completed {
            if *group == GROUP {
                self.reported = self.reported.max(*seq);
            }
        }
    }

    /// What a host does for its log besides writing.
    fn chores(&mut self, wal: &Wal) -> Result<(), DiskError> {
        if self.compaction.is_some() {
            self.compact(wal)?;
        }
        self.neighbours.compact(wal);
        if self.rng.chance(500_000) {
            let bytes = self.rng.below(self.options.segment_bytes) as usize;
            match wal.prepare(bytes.max(wal.preparation_due())) {
                Ok(_) | Err(ChoreError::Io(_)) => {}
                Err(ChoreError::Stopped(why)) => return Err(failed(&why)),
                Err(why) => self.expect_trouble(&why),
            }
        }
        if self.rng.chance(50_000) {
            match wal.mark() {
                Ok(completed) => self.note_reported(&completed),
                Err(WriteError::NoSpace(_)) => {}
                Err(WriteError::Stopped(why)) => return Err(failed(&why)),
                Err(why) => panic!("n{}: a mark is refused: {why}", self.node),
            }
        }
        Ok(())
    }

    /// Something cannot be read. There must be a reason.
    fn expect_trouble(&self, why: &dyn fmt::Display) {
        assert!(
            self.rotten || self.fail_reads,
            "n{}: a good disk is said to be bad: {why}",
            self.node
        );
    }

    // ---- dying and coming back ----

    /// The process dies in the middle of something.
    fn die_half_way(&mut self, rng: &mut Rng) {
        self.disk.stop_after(Some(rng.below(STEPS_MAX)));
        let wal = self.wal();
        // Whoever waits for a sync that never ends would wait for ever.
        let sync = self.job.take().and_then(|job| job.sync).filter(|_| rng.chance(500_000));
        // Whatever comes of it, nobody hears of it.
        let _unheard = match rng.below(5) {
            _ if self.installing => self.install(&wal),
            0 | 1 => {
                let whole = |write: &&Option<Write>| !matches!(write, Some(Write::Install(_)));
                let count = self.unsynced.iter().take_while(whole).count();
                self.hand_over(count)
            }
            2 => {
                drop(sync.map(SyncJob::run));
                self.compact(&wal)
            }
            3 => {
                drop(sync);
                drop(wal.mark());
                Ok(())
            }
            _ => {
                drop(wal.prepare(self.options.segment_bytes as usize));
                Ok(())
            }
        };
        self.news.push(DiskNews::HalfWay);
    }

    /// What is left on the disk when everything that ran on it is gone.
    fn after(&mut self, crash: Crash, rng: Option<&mut Rng>) {
        let disk = match (crash, rng) {
            (Crash::Kill, _) => self.disk.after_kill(),
            (Crash::PowerCut, None) => self.disk.after_power_cut(|_, _| Fate::Dropped),
            (Crash::PowerCut, Some(rng)) => match rng.below(4) {
                0 => self.disk.after_power_cut(|_, _| Fate::Dropped),
                1 => self.disk.after_power_cut(|_, _| Fate::Kept),
                kind => self.disk.after_power_cut(|_, _| match rng.below(4) {
                    0 => Fate::Kept,
                    1 => Fate::Dropped,
                    _ if kind == 2 => Fate::Torn(rng.below(2_000) as usize),
                    _ => Fate::Sectors((0..7).map(|_| rng.chance(500_000)).collect()),
                }),
            },
        };
        disk.set_space(self.space);
        disk.fail_reads(self.fail_reads);
        self.disk = disk;
    }

    /// Compares what a start has found with what was written. Returns it.
    fn check(&mut self, wal: &Wal, found: &RecoveredGroup) -> LogImage {
        let node = self.node;
        let start = found.snapshot.id.index;
        let mut entries: VecDeque<Entry> = VecDeque::new();
        while start.0 + (entries.len() as u64) < found.last_index.0 {
            let first = Index(start.0 + entries.len() as u64 + 1);
            match wal.read(GROUP, first, found.last_index, 1 << 20) {
                Ok(more) => entries.extend(more),
                Err(why) => panic!("n{node}: an entry just recovered cannot be read: {why}"),
            }
        }
        let (hard_state, start) = (found.hard_state.clone(), found.snapshot.clone());
        let image = LogImage { hard_state, start, entries };
        assert_eq!(
            found.recovered(Index::ZERO, 0),
            image.recovered(Index::ZERO, 0),
            "n{node}: what a start says of the log (left) is not what its entries say (right)"
        );
        let mut expected = self.durable.clone();
        let mut later = self.unsynced.iter();
        loop {
            if self.is_what(&expected, &image) {
                break;
            }
            match later.next() {
                Some(Some(write)) => expected.apply(write),
                Some(None) => {}
                None => panic!(
                    "n{node}: the log comes back with {}, start {}, end {}; reported durable were \
                     {}, start {}, end {}, and {} writes behind it that were not",
                    image.hard_state,
                    image.start.id,
                    image.last(),
                    self.durable.hard_state,
                    self.durable.start.id,
                    self.durable.last(),
                    self.unsynced.len()
                ),
            }
        }
        image
    }

    fn is_what(&self, expected: &LogImage, found: &LogImage) -> bool {
        let start = expected.start == found.start
            || self.compaction.as_ref().is_some_and(|start| *start == found.start);
        let same = |entry: &Entry| {
            expected
                .entry(entry.index)
                .is_some_and(|other| (other.term, other.checksum) == (entry.term, entry.checksum))
        };
        start
            && expected.hard_state == found.hard_state
            && expected.last() == found.last()
            && found.entries.iter().all(same)
    }
}

fn failed(why: &Stopped) -> DiskError {
    DiskError::Failed(why.to_string())
}

impl Storage for DiskLog {
    fn bootstrap(&mut self, membership: Arc<Membership>) {
        let start = SnapshotMeta { id: LogId::ZERO, membership };
        self.wal().compact(GROUP, &start).expect("an empty disk takes a first configuration");
        self.written.start = start.clone();
        self.durable.start = start;
    }

    fn write(&mut self, write: Write) {
        self.written.apply(&write);
        let is_plain = !matches!(write, Write::Install(_))
            && !self.unsynced.iter().any(|other| matches!(other, Some(Write::Install(_))));
        self.unsynced.push_back(Some(write));
        if is_plain && self.rng.chance(self.options.eager_ppm) {
            // If that fails, the sync that would cover it does.
            let _comes_out_later = self.hand_over(self.unsynced.len());
        }
    }

    fn begin_sync(&mut self, count: usize) -> Result<usize, DiskError> {
        if matches!(self.unsynced.front(), Some(Some(Write::Install(_)))) {
            self.installing = true;
            return Ok(1);
        }
        self.hand_over(count)?;
        if self.handed == 0 {
            return Err(DiskError::Full);
        }
        let count = count.min(self.handed);
        let seq =
            self.unsynced.range(..count).filter_map(|write| write.as_ref()?.seq()).next_back();
        let sync = self.wal().begin_sync().map_err(|why| failed(&why))?;
        self.job = Some(Job { sync, seq, neighbours: self.neighbours.clone() });
        Ok(count)
    }

    fn sync(&mut self, count: usize) -> Result<(), DiskError> {
        let wal = self.wal();
        let fails = std::mem::take(&mut self.fail_sync);
        self.disk.fail_syncs(fails);
        if self.installing {
            let result = self.install(&wal);
            self.disk.fail_syncs(false);
            result?;
            self.installing = false;
            let install = self.unsynced.pop_front().flatten().expect("it was there just now");
            self.durable.apply(&install);
            return Ok(());
        }
        let job = self.job.take();
        let mut seq = None;
        let mut neighbours = self.neighbours.clone();
        let result = match job {
            Some(job) => {
                (seq, neighbours) = (job.seq, job.neighbours);
                job.sync.map_or(Ok(Vec::new()), SyncJob::run)
            }
            // Nothing was begun: by order of a person.
            None => {
                self.hand_over(count)?;
                wal.sync()
            }
        };
        self.disk.fail_syncs(false);
        let completed = result.map_err(|why| {
            self.news.push(DiskNews::SyncFailed);
            failed(&why)
        })?;
        self.note_reported(&completed);
        assert!(
            seq.is_none_or(|seq| seq <= self.reported),
            "n{}: a sync does not report #{} but #{}",
            self.node,
            seq.unwrap_or_default().0,
            self.reported.0
        );
        self.neighbours.synced(&neighbours);
        for write in self.unsynced.drain(..count).flatten() {
            self.durable.apply(&write);
        }
        self.handed -= count;
        self.chores(&wal)
    }

    fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    fn read(
        &mut self,
        range: RangeInclusive<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LoadError> {
        let (first, mut last) = (*range.start(), *range.end());
        if first <= self.written.start.id.index {
            return Err(LoadError::Compacted);
        }
        if let Some(bad) = &self.unreadable {
            if bad.contains(&first) {
                return Err(LoadError::Unreadable);
            }
            if *bad.start() > first {
                last = last.min(bad.start().prev());
            }
        }
        let waits = |write: &Option<Write>| matches!(write, Some(Write::Install(_)));
        let count = self.unsynced.iter().position(waits).unwrap_or(self.unsynced.len());
        if self.hand_over(count).is_err() {
            return Err(LoadError::Unreadable);
        }
        match self.wal().read(GROUP, first, last, bytes_max) {
            Ok(entries) => Ok(entries),
            Err(ReadError::Compacted { .. }) => Err(LoadError::Compacted),
            // It did not fit on the disk, or there is no such disk any more.
            Err(ReadError::Beyond { .. } | ReadError::Stopped(_)) => Err(LoadError::Unreadable),
            Err(why) => {
                self.expect_trouble(&why);
                Err(LoadError::Unreadable)
            }
        }
    }

    fn crash(&mut self, crash: Crash, mut rng: Option<&mut Rng>) {
        if let Some(rng) = &mut rng
            && self.wal.is_some()
            && (self.installing || rng.chance(300_000))
        {
            self.die_half_way(rng);
        }
        self.job = None;
        let wal = self.wal.take();
        let was_open = wal.is_some();
        if let Some(wal) = wal {
            let metrics = wal.metrics();
            let seen = [
                (DiskNews::Recycled, metrics.segments_recycled),
                (DiskNews::Forwarded, metrics.forwarded_bytes),
                (DiskNews::Unprepared, metrics.segments_unprepared),
            ];
            self.news
                .extend(seen.into_iter().filter(|(_, count)| *count > 0).map(|(news, _)| news));
        }
        self.after(crash, rng);
        // What the log was not given is gone for certain. A machine that dies once more before its
        // log was opened again knows no more than it did the first time.
        if was_open {
            let given = if std::mem::take(&mut self.installing) { 1 } else { self.handed };
            self.unsynced.truncate(given);
        }
    }

    fn recover(&mut self, applied: Index, boot_nonce: u64) -> Result<Recovered, RecoverError> {
        // Whoever has made it has it open.
        self.wal = None;
        let interrupted = self.rng.chance(self.options.interrupted_ppm);
        if interrupted {
            self.disk.stop_after(Some(self.rng.below(STEPS_MAX)));
        }
        let opened = self.open();
        self.disk.stop_after(None);
        let opened = match opened {
            Ok(opened) => opened,
            Err(OpenError::Io(why)) => {
                if interrupted {
                    self.news.push(DiskNews::Interrupted);
                    let mut rng = self.rng.fork();
                    let crash = if rng.chance(500_000) { Crash::Kill } else { Crash::PowerCut };
                    self.after(crash, Some(&mut rng));
                }
                return Err(RecoverError::Disk(why.to_string()));
            }
            Err(why) => {
                self.expect_trouble(&why);
                self.news.push(DiskNews::Damaged);
                return Err(RecoverError::Damaged(why.to_string()));
            }
        };
        if let Some(damage) = opened.damage.first() {
            self.expect_trouble(damage);
            self.news.push(DiskNews::Damaged);
            return Err(RecoverError::Damaged(damage.to_string()));
        }
        self.news.extend(opened.notes.iter().filter_map(|note| match note {
            Note::TornTail { .. } => Some(DiskNews::TornTail),
            Note::Rewritten { .. } => Some(DiskNews::Rewritten),
            _ => None,
        }));
        let none = RecoveredGroup::default();
        let group = opened.groups.get(&GROUP).unwrap_or(&none);
        let image = self.check(&opened.wal, group);
        self.neighbours.check(self.node, &opened.groups);
        self.written = image.clone();
        self.durable = image;
        self.unsynced.clear();
        self.handed = 0;
        self.reported = Seq(0);
        self.compaction = None;
        let mut recovered = group.recovered(applied, boot_nonce);
        recovered.damaged.extend(self.unreadable.clone());
        self.wal = Some(opened.wal);
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

    fn inflict(&mut self, fault: DiskFault) -> bool {
        match fault {
            DiskFault::FailSync => self.fail_sync = true,
            DiskFault::FailReads(fail) => {
                self.fail_reads = fail;
                self.disk.fail_reads(fail);
            }
            DiskFault::Full { left } => {
                let names = self.disk.list().unwrap_or_default();
                let sizes = names.iter().filter_map(|name| self.disk.contents(name));
                let used: usize = sizes.map(|contents| contents.len()).sum();
                self.space = Some(used as u64 + left);
                self.disk.set_space(self.space);
            }
            DiskFault::Rot => return self.rot(),
            DiskFault::Mend => {
                (self.fail_sync, self.fail_reads, self.space) = (false, false, None);
                self.disk.fail_reads(false);
                self.disk.set_space(None);
            }
        }
        true
    }

    fn take_news(&mut self) -> Vec<DiskNews> {
        std::mem::take(&mut self.news)
    }
}
