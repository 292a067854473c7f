//! What was asked of a log until it crashed, and what may be found afterwards.

use std::collections::BTreeMap;

use quorate_raft::{GroupId, HardState, Index, Install, Persist, Seq, SnapshotMeta};
use quorate_wal::{ChoreError, Fate, MemoryDisk, Opened, Pending, Wal, WriteError};

use super::{
    Model, ModelGroup, Rng, assert_reads, difference, open, options, random_persist, same, says,
    snapshot,
};

/// One thing that was asked.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(GroupId, Persist),
    Compact(GroupId, SnapshotMeta),
    Install(GroupId, Install),
}

/// Everything that was asked, in order.
#[derive(Clone, Default)]
pub(crate) struct History {
    steps: Vec<Step>,
    /// So many of the writes were said to be durable.
    durable_writes: usize,
    /// The last step had not returned.
    in_flight: bool,
    /// A write was refused for want of space and done later. It may have got its place before
    /// others that were not: groups are then compared one by one.
    refused: bool,
}

impl History {
    fn writes(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Write(..))).count()
    }

    /// The state after the first `writes` writes, and every other step that returned; with `all`,
    /// also the one that had not.
    fn state(&self, writes: usize, all: bool) -> Model {
        let mut model = Model::new();
        let mut seen = 0;
        for (at, step) in self.steps.iter().enumerate() {
            let pending = self.in_flight && at + 1 == self.steps.len();
            match step {
                Step::Write(group, persist) => {
                    seen += 1;
                    if seen <= writes {
                        model.entry(*group).or_default().write(persist);
                    }
                }
                Step::Compact(..) | Step::Install(..) if pending && !all => {}
                Step::Compact(group, start) => model.entry(*group).or_default().compact(start),
                Step::Install(group, install) => {
                    model.entry(*group).or_default().install(install);
                }
            }
        }
        model
    }

    /// The state that was found: that after some of the writes, at least all durable ones.
    pub(crate) fn found(&self, opened: &Opened) -> Option<Model> {
        for writes in (self.durable_writes..=self.writes()).rev() {
            for all in [false, true] {
                let model = self.state(writes, all);
                if same(&model, opened) {
                    return Some(model);
                }
            }
        }
        if self.refused { self.found_by_group(opened) } else { None }
    }

    fn found_by_group(&self, opened: &Opened) -> Option<Model> {
        let states: Vec<Model> =
            (self.durable_writes..=self.writes()).map(|writes| self.state(writes, true)).collect();
        let mut found = Model::new();
        for id in states.last()?.keys() {
            let of_group = |model: &Model| model.get(id).cloned().unwrap_or_default();
            let is_found = |group: &ModelGroup| says(group, opened.groups.get(id));
            found.insert(*id, states.iter().rev().map(of_group).find(is_found)?);
        }
        Some(found)
    }
}

/// What stops a player.
pub(crate) type Stop = Box<dyn std::error::Error>;

/// A log on which random steps are done until the disk stops.
pub(crate) struct Player {
    pub(crate) rng: Rng,
    pub(crate) wal: Wal,
    pub(crate) history: History,
    /// What the log says now.
    model: Model,
    seq: u64,
    /// What found no space, and has to be written before anything else of its group.
    waiting: BTreeMap<GroupId, Persist>,
    /// How often there was no space.
    pub(crate) refused: u64,
}

impl Player {
    pub(crate) fn new(wal: Wal, seed: u64) -> Self {
        let (history, model) = (History::default(), Model::new());
        let waiting = BTreeMap::new();
        Self { rng: Rng(seed), wal, history, model, seq: 0, waiting, refused: 0 }
    }

    /// Does a random step. An error is what stops the player; want of space does not.
    pub(crate) fn step(&mut self) -> Result<(), Stop> {
        match self.rng.below(20) {
            0..9 => self.write(),
            9..13 => self.sync(),
            13 => match self.wal.mark() {
                Err(WriteError::NoSpace(_)) => self.refused(),
                result => {
                    result?;
                    self.history.durable_writes = self.history.writes();
                    Ok(())
                }
            },
            14..18 => match self.wal.prepare(8 << 10) {
                Err(ChoreError::Io(why)) if why.is_no_space() => self.refused(),
                result => Ok(result.map(|_| ())?),
            },
            18 => self.compact(),
            _ => self.install(),
        }
    }

    fn refused(&mut self) -> Result<(), Stop> {
        self.refused += 1;
        Ok(())
    }

    pub(crate) fn write(&mut self) -> Result<(), Stop> {
        let group = GroupId(self.rng.below(3));
        self.write_to(group)
    }

    /// Writes what waits for space.
    pub(crate) fn write_waiting(&mut self) -> Result<(), Stop> {
        while let Some(group) = self.waiting.keys().next() {
            self.write_to(*group)?;
        }
        Ok(())
    }

    fn write_to(&mut self, group: GroupId) -> Result<(), Stop> {
        let persist = self.waiting.remove(&group).unwrap_or_else(|| {
            self.seq += 1;
            let known = self.model.entry(group).or_default();
            random_persist(&mut self.rng, known, self.seq, 900)
        });
        self.begin(Step::Write(group, persist.clone()));
        match self.wal.write(&[(group, &persist)]) {
            Err(WriteError::NoSpace(_)) => {
                self.history.steps.pop();
                self.history.refused = true;
                self.end();
                self.waiting.insert(group, persist);
                return self.refused();
            }
            result => result?,
        };
        self.model.entry(group).or_default().write(&persist);
        self.end();
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), Stop> {
        self.wal.sync()?;
        self.history.durable_writes = self.history.writes();
        Ok(())
    }

    fn compact(&mut self) -> Result<(), Stop> {
        self.sync()?;
        let group = GroupId(self.rng.below(3));
        if self.waiting.contains_key(&group) {
            return self.write_to(group);
        }
        let Some(known) = self.model.get_mut(&group) else { return Ok(()) };
        let index = known.start.id.index.0 + self.rng.below(known.entries.len() as u64 + 1);
        if index == known.start.id.index.0 {
            return Ok(());
        }
        let start = snapshot(index, known.term_at(index).0);
        self.begin(Step::Compact(group, start.clone()));
        let result = self.wal.compact(group, &start);
        if self.done(result)? {
            self.model.entry(group).or_default().compact(&start);
        }
        Ok(())
    }

    fn install(&mut self) -> Result<(), Stop> {
        self.sync()?;
        let group = GroupId(self.rng.below(3));
        if self.waiting.contains_key(&group) {
            return self.write_to(group);
        }
        let known = self.model.entry(group).or_default();
        self.seq += 1;
        let index = known.start.id.index.0 + 1 + self.rng.below(12);
        let term = known.hard_state.term.next();
        let install = Install {
            seq: Seq(self.seq),
            snapshot: snapshot(index, term.0),
            hard_state: HardState { term, commit: Index(index), ..HardState::default() },
        };
        self.begin(Step::Install(group, install.clone()));
        let result = self.wal.install(group, &install);
        if self.done(result)? {
            self.model.entry(group).or_default().install(&install);
        }
        Ok(())
    }

    /// Whether the step that was begun was done; it was not if there was no space.
    fn done(&mut self, result: Result<(), ChoreError>) -> Result<bool, Stop> {
        if matches!(&result, Err(ChoreError::Io(why)) if why.is_no_space()) {
            self.history.steps.pop();
            self.end();
            self.refused += 1;
            return Ok(false);
        }
        result?;
        self.end();
        Ok(true)
    }

    fn begin(&mut self, step: Step) {
        self.history.steps.push(step);
        self.history.in_flight = true;
    }

    fn end(&mut self) {
        self.history.in_flight = false;
    }
}

/// A random choice of what a power cut leaves.
pub(crate) fn random_fate(rng: &mut Rng, change: &Pending) -> Fate {
    match (rng.below(4), change) {
        (0, _) => Fate::Dropped,
        (1, Pending::Write { len, .. }) => Fate::Torn(rng.below(*len as u64 + 1) as usize),
        (2, Pending::Write { .. }) => {
            let bits = rng.next();
            Fate::Sectors((0..64).map(|bit| bits >> bit & 1 == 1).collect())
        }
        _ => Fate::Kept,
    }
}

/// Opens what a crash has left, checks that it is one of the states that may be found, and that
/// it is durable and can be gone on with.
pub(crate) fn assert_survives(history: &History, disk: &MemoryDisk, rng: &mut Rng, what: &str) {
    // The first start may itself be interrupted, and what it has done be lost again in part.
    let mut disk = disk.clone();
    if rng.chance(2) {
        disk.stop_after(Some(rng.below(24)));
        let interrupted = Wal::open(std::sync::Arc::new(disk.clone()), &options(rng.next()));
        drop(interrupted);
        disk = disk.after_power_cut(|_, change| random_fate(rng, change));
    }
    let opened = open(&disk, rng.next());
    let Some(model) = history.found(&opened) else {
        let most = history.state(history.writes(), true);
        panic!(
            "{what}: at least {} of {} writes, of all of which this is not the state: {}",
            history.durable_writes,
            history.writes(),
            difference(&most, &opened).unwrap_or_default()
        );
    };
    assert_reads(&model, &opened.wal);
    let rest = disk.after_power_cut(|_, _| Fate::Dropped);
    assert!(same(&model, &open(&rest, 1)), "{what}: reported and not durable");

    // The log goes on, whatever lies about behind its end.
    let mut model = model;
    for seq in 0..6 {
        let group = GroupId(rng.below(3));
        let known = model.entry(group).or_default();
        let persist = random_persist(rng, known, 1000 + seq, 300);
        known.write(&persist);
        opened.wal.write(&[(group, &persist)]).unwrap();
    }
    opened.wal.sync().unwrap();
    let rest = disk.after_power_cut(|_, change| random_fate(rng, change));
    let lost = difference(&model, &open(&rest, 2));
    assert_eq!(lost, None, "{what}: lost what was synced later");
}
