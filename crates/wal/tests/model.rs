//! Random operations, compared with a naive log after every step and every restart.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use quorate_raft::{GroupId, HardState, Index, Install, Seq};
use quorate_wal::{Fate, MemoryDisk, Opened, Progress, Wal};
use support::{Model, Rng, open, random_persist, same, snapshot};

struct Run {
    rng: Rng,
    disk: MemoryDisk,
    wal: Wal,
    /// What has been written, and what of it is durable at least.
    model: Model,
    durable: Model,
    seq: u64,
    restarts: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let disk = MemoryDisk::new();
        let wal = open(&disk, seed).wal;
        let (model, durable) = (Model::new(), Model::new());
        Self { rng: Rng(seed), disk, wal, model, durable, seq: 0, restarts: 0 }
    }

    fn step(&mut self) {
        match self.rng.below(40) {
            0..16 => self.write(),
            16..26 => self.sync(),
            26..31 => {
                let _ = self.wal.prepare(4 << 10).unwrap();
            }
            31..34 => self.compact(),
            34 => self.install(),
            35 | 36 => {
                self.wal.mark().unwrap();
                self.durable = self.model.clone();
            }
            37 => support::assert_reads(&self.model, &self.wal),
            38 => self.close_and_open(),
            _ => self.crash(),
        }
    }

    fn group(&mut self) -> GroupId {
        GroupId(self.rng.below(5))
    }

    fn write(&mut self) {
        let mut records = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let group = self.group();
            self.seq += 1;
            let known = self.model.entry(group).or_default();
            let persist = random_persist(&mut self.rng, known, self.seq, 700);
            known.write(&persist);
            records.push((group, persist));
        }
        let records: Vec<_> = records.iter().map(|(group, persist)| (*group, persist)).collect();
        self.wal.write(&records).unwrap();
    }

    fn sync(&mut self) {
        let completed = self.wal.sync().unwrap();
        assert!(completed.iter().all(|(_, seq)| *seq <= Seq(self.seq)));
        self.durable = self.model.clone();
    }

    fn compact(&mut self) {
        // Only what is durable is ever applied, and only that is compacted.
        self.sync();
        let group = self.group();
        let Some(known) = self.model.get_mut(&group) else { return };
        let index = known.start.id.index.0 + self.rng.below(known.entries.len() as u64 + 1);
        let start = snapshot(index, known.term_at(index).0);
        if index == known.start.id.index.0 && index > 0 {
            return;
        }
        self.wal.compact(group, &start).unwrap();
        known.compact(&start);
        self.durable = self.model.clone();
    }

    fn install(&mut self) {
        let group = self.group();
        let known = self.model.entry(group).or_default();
        self.seq += 1;
        let start = known.start.id.index.0 + 1 + self.rng.below(20);
        let term = known.hard_state.term.next();
        let install = Install {
            seq: Seq(self.seq),
            snapshot: snapshot(start, term.0),
            hard_state: HardState { term, commit: Index(start), ..HardState::default() },
        };
        known.install(&install);
        self.wal.install(group, &install).unwrap();
        self.durable = self.model.clone();
    }

    fn close_and_open(&mut self) {
        self.wal.close().unwrap();
        let disk = self.disk.clone();
        self.disk = MemoryDisk::new();
        self.reopen(disk);
        assert!(same(&self.model, &self.reopened(0)));
    }

    fn crash(&mut self) {
        let kill = self.rng.chance(2);
        let disk = if kill {
            self.disk.after_kill()
        } else {
            let keep = self.rng.chance(2);
            self.disk.after_power_cut(|_, _| if keep { Fate::Kept } else { Fate::Dropped })
        };
        // With nothing or everything kept, it is known exactly what must be there.
        if !kill && !same(&self.model, &open(&disk.after_kill(), 1)) {
            self.model = self.durable.clone();
        }
        self.reopen(disk);
    }

    fn reopen(&mut self, disk: MemoryDisk) {
        self.restarts += 1;
        self.disk = disk;
        self.wal = open(&MemoryDisk::new(), 0).wal;
        let opened = open(&self.disk, self.restarts ^ self.rng.next());
        assert!(same(&self.model, &opened), "{:#?}\n{:#?}", self.model, opened.groups);
        support::assert_reads(&self.model, &opened.wal);
        self.durable = self.model.clone();
        self.wal = opened.wal;
        // What a start reports is durable: nothing else may be left to the page cache.
        assert!(same(&self.model, &self.reopened(2)));
    }

    /// The log as it would be found after a power cut now.
    fn reopened(&self, random: u64) -> Opened {
        open(&self.disk.after_power_cut(|_, _| Fate::Dropped), random)
    }
}

#[test]
fn random_operations() {
    for seed in 0..support::rounds(60, 10_000) {
        let mut run = Run::new(seed);
        for _ in 0..250 {
            run.step();
        }
        support::assert_reads(&run.model, &run.wal);
        assert!(run.restarts > 0);
    }
}

/// Preparing to the end, then writing, never makes a segment on the spot.
#[test]
fn prepared_segments_are_used() {
    let mut run = Run::new(7);
    for _ in 0..2000 {
        run.write();
        run.sync();
        while run.wal.prepare(16 << 10).unwrap() == Progress::More {}
    }
    let metrics = run.wal.metrics();
    assert!(metrics.segment_switches > 10);
    assert_eq!(metrics.segments_unprepared, 0);
    let last = run.model[&GroupId(0)].last();
    assert!(run.wal.read(GroupId(0), Index(last), Index(last), 1).unwrap().len() == 1);
}
