//! Random commands, held against the plainest store that can be: for every revision a map of all that there is. With flushes
//! that take their time, compactions in steps, values that do not fit into memory, and power cuts.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "store_model/naive.rs"]
mod naive;
#[path = "store_model/random.rs"]
mod random;

use std::io;
use std::sync::{Arc, Mutex};

use naive::{Heard, Naive};
use quorate_kv::{
    Changes, Command, Flush, History, HistoryError, LogPlace, PastRequest, ReadError, Reader,
    Revision, Sink, Store, StoreConfig,
};
use random::Random;
use redb::StorageBackend;

/// A file in memory that loses what was not synced.
#[derive(Clone, Debug, Default)]
struct File(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    now: Vec<u8>,
    synced: Vec<u8>,
}

impl File {
    fn after_power_cut(&self) -> Self {
        let synced = self.0.lock().unwrap().synced.clone();
        Self(Arc::new(Mutex::new(Contents { now: synced.clone(), synced })))
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let contents = self.0.lock().unwrap();
        let offset = offset as usize;
        let bytes = contents.now.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().now.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut contents = self.0.lock().unwrap();
        contents.synced = contents.now.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = offset as usize;
        self.0.lock().unwrap().now[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// Hears of every revision.
#[derive(Default)]
struct Ear {
    changes: Vec<Changes>,
    compacted: Vec<Revision>,
    wants_prev: bool,
}

impl Sink for Ear {
    fn changed(&mut self, changes: &Changes) {
        self.changes.push(changes.clone());
    }

    fn compacted(&mut self, revision: Revision) {
        self.compacted.push(revision);
    }

    fn wants_prev(&self) -> bool {
        self.wants_prev
    }
}

fn heard(changes: &Changes) -> Vec<Heard> {
    let of = |event: &quorate_kv::Event| Heard {
        key: event.kv.key.clone(),
        pair: (!event.is_delete()).then(|| event.kv.clone()),
        prev: event.prev.clone(),
    };
    changes.events.iter().map(of).collect()
}

struct Trial {
    random: Random,
    file: File,
    config: StoreConfig,
    store: Store,
    naive: Naive,
    /// Commands since the beginning, and the model as it was after each.
    log: Vec<Command>,
    models: Vec<Naive>,
    flush: Option<Flush>,
    durable: u64,
    reached: Reached,
}

/// What a test must have seen.
#[derive(Debug, Default)]
struct Reached {
    power_cuts: u32,
    lost: usize,
    pruned: u32,
    past: usize,
    failed: usize,
    done: usize,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let file = File::default();
        let config = StoreConfig {
            values_bytes_max: [0, 200, 1 << 20][random.below(3)],
            cache_bytes: 1 << 20,
            ..StoreConfig::default()
        };
        let (store, opened) = Store::open(file.clone(), config).unwrap();
        assert_eq!(opened, quorate_kv::Opened::default());
        let naive = Naive::new();
        Self {
            random,
            file,
            config,
            store,
            models: vec![naive.clone()],
            naive,
            log: Vec::new(),
            flush: None,
            durable: 0,
            reached: Reached::default(),
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=9 => self.apply(),
            10..=13 => self.look(),
            14 => self.look_at_the_past(),
            15 | 16 => {
                self.flush = self.flush.take().or_else(|| self.store.begin_flush());
            }
            17 => self.end_flush(),
            18 => {
                let force = self.random.below(2) == 0;
                if self.store.compact_step(force) {
                    self.reached.pruned += 1;
                }
            }
            _ => match self.random.below(6) {
                0 => self.cut_power(),
                1 => self.hash(),
                _ => {}
            },
        }
    }

    fn apply(&mut self) {
        let count = 1 + self.random.below(4);
        let commands: Vec<Command> = (0..count).map(|_| self.random.command(&self.naive)).collect();
        let mut ear = Ear { wants_prev: true, ..Ear::default() };
        let before = self.naive.revision();
        let replies = self.store.apply(&commands, &mut ear).unwrap();
        let mut compacted = Vec::new();
        for (command, reply) in commands.into_iter().zip(replies) {
            let expected = self.naive.apply(&command);
            assert_eq!(reply, expected, "{command:?}");
            match (&command, &expected) {
                (Command::Compact(compact), Ok(_)) => compacted.push(compact.revision),
                (_, Ok(_)) => self.reached.done += 1,
                (_, Err(_)) => self.reached.failed += 1,
            }
            self.log.push(command);
            self.models.push(self.naive.clone());
        }
        assert_eq!(ear.compacted, compacted);
        let told: Vec<_> = ear.changes.iter().map(heard).collect();
        assert_eq!(told, self.naive.heard[before as usize..], "events, with former pairs");
        let index = self.log.len() as u64;
        let row = (b"row".to_vec(), Some(index.to_be_bytes().to_vec()));
        self.store.finish(LogPlace { index, term: 1 }, [row]);
    }

    fn reader(&self) -> Reader {
        self.store.reader()
    }

    fn look(&mut self) {
        let reader = self.reader();
        for _ in 0..3 {
            let range = self.random.range(self.naive.revision());
            let expected = self.naive.range(&range);
            match reader.range(&range) {
                Ok(reply) => assert_eq!(Ok(reply), expected, "{range:?}"),
                Err(ReadError::Request(why)) => assert_eq!(Err(why), expected, "{range:?}"),
                Err(why) => panic!("{why}"),
            }
        }
        let mut range = self.random.range(self.naive.revision());
        range.sort_order = quorate_kv::SortOrder::None;
        range.sort_target = quorate_kv::SortTarget::Key;
        (range.min_mod_revision, range.max_mod_revision) = (Revision(0), Revision(0));
        (range.min_create_revision, range.max_create_revision) = (Revision(0), Revision(0));
        let expected = self.naive.range(&range);
        let Ok(mut stream) = reader.range_stream(range.clone()) else {
            assert!(expected.is_err());
            return;
        };
        let (mut kvs, mut end) = (Vec::new(), None);
        while let Some(part) = stream.next(1 + self.random.below(3)).unwrap() {
            assert!(end.is_none(), "nothing follows the end");
            kvs.extend(part.kvs);
            end = part.end;
        }
        let (expected, end) = (expected.unwrap(), end.unwrap());
        assert_eq!(kvs, expected.kvs, "{range:?}");
        let of = (expected.revision, expected.more, expected.count);
        assert_eq!((end.revision, end.more, end.count), of, "{range:?}");
        assert_eq!(reader.alarms(), self.naive.alarms.iter().copied().collect::<Vec<_>>());
        assert_eq!(reader.leases(), self.naive.leases.clone().into_iter().collect::<Vec<_>>());
    }

    fn look_at_the_past(&mut self) {
        let (current, reader) = (self.naive.revision(), self.reader());
        let from = 1 + self.random.below(current as usize) as i64;
        let to = from + self.random.below(20) as i64;
        let prev_kv = self.random.below(2) == 0;
        let request = PastRequest {
            from: Revision(from),
            to: Revision(to),
            prev_kv,
            revisions_max: 1 + self.random.below(8),
            bytes_max: [1, 30, 10_000][self.random.below(3)],
        };
        let past = match reader.past(request) {
            Ok(past) => past,
            Err(HistoryError::Compacted(at)) => {
                assert_eq!(at.0, self.naive.compacted);
                assert!(from < at.0);
                return;
            }
            Err(why) => panic!("{why}"),
        };
        assert!(from >= self.naive.compacted);
        assert!(past.through.0 >= from && past.through.0 <= to.min(current).max(from));
        let mut expected = Vec::new();
        for revision in from..=past.through.0 {
            let mut events = self.naive.heard[revision as usize - 1].clone();
            for event in &mut events {
                if !prev_kv || revision - 1 < self.naive.compacted {
                    event.prev = None;
                }
            }
            if !events.is_empty() {
                expected.push((revision, events));
            }
        }
        let told: Vec<_> =
            past.changes.iter().map(|changes| (changes.revision.0, heard(changes))).collect();
        assert_eq!(told, expected, "{request:?}");
        self.reached.past += told.len();
    }

    fn end_flush(&mut self) {
        if let Some(flush) = self.flush.take() {
            let durable = flush.write().unwrap();
            assert_eq!(self.reader().durable(), durable);
            assert!(durable.index >= self.durable);
            self.durable = durable.index;
        }
    }

    /// What was flushed is there, whole; the rest comes from the log once more.
    fn cut_power(&mut self) {
        self.reached.power_cuts += 1;
        self.file = self.file.after_power_cut();
        self.flush = None;
        let (store, opened) = Store::open(self.file.clone(), self.config).unwrap();
        self.store = store;
        assert_eq!(opened.applied.index, self.durable);
        let rows: Vec<_> = (self.durable > 0)
            .then(|| (b"row".to_vec(), self.durable.to_be_bytes().to_vec()))
            .into_iter()
            .collect();
        assert_eq!(opened.rows, rows);
        let replayed = self.log.split_off(self.durable as usize);
        self.models.truncate(self.durable as usize + 1);
        self.naive = self.models.last().unwrap().clone();
        self.reached.lost += replayed.len();
        self.look();
        for command in replayed {
            let reply = self.store.apply(std::slice::from_ref(&command), &mut ()).unwrap();
            assert_eq!(reply[0], self.naive.apply(&command), "{command:?}");
            self.log.push(command);
            self.models.push(self.naive.clone());
        }
        let index = self.log.len() as u64;
        let row = (b"row".to_vec(), Some(index.to_be_bytes().to_vec()));
        self.store.finish(LogPlace { index, term: 1 }, [row]);
    }

    /// A replica that has never flushed, compacted or lost anything has the same hash.
    fn hash(&mut self) {
        let mut other = Store::in_memory(StoreConfig::default());
        other.apply(&self.log, &mut ()).unwrap();
        let revision = Revision(1 + self.random.below(self.naive.revision() as usize) as i64);
        let hash = |reader: &Reader| match reader.hash_kv(revision) {
            Ok(hash) => Ok(hash),
            Err(ReadError::Request(why)) => Err(why),
            Err(why) => panic!("{why}"),
        };
        assert_eq!(hash(&self.reader()), hash(&other.reader()));
    }
}

fn run(seeds: std::ops::Range<u64>, steps: u32) {
    let mut reached = Reached::default();
    for seed in seeds {
        println!("seed {seed}");
        let mut trial = Trial::new(seed);
        for _ in 0..steps {
            trial.step();
        }
        trial.cut_power();
        trial.hash();
        reached.power_cuts += trial.reached.power_cuts;
        reached.lost += trial.reached.lost;
        reached.pruned += trial.reached.pruned;
        reached.past += trial.reached.past;
        reached.failed += trial.reached.failed;
        reached.done += trial.reached.done;
    }
    println!("{reached:?}");
    assert!(reached.power_cuts > 5 && reached.lost > 10 && reached.past > 10, "{reached:?}");
    assert!(reached.failed > 10 && reached.done > 10 * reached.failed / 8, "{reached:?}");
}

#[test]
fn every_answer_is_that_of_the_model() {
    run(0..60, 200);
}

#[test]
fn also_in_long_histories() {
    run(1000..1003, 1500);
}
