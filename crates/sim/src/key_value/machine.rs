//! A replica of the key-value store on a simulated host, with its watches and its lessor.

use std::any::Any;

use bytes::Bytes;
use quorate_kv::testing::{Fault, FaultyDisk};
use quorate_kv::{
    Changes, Command, Hub, LeaseId, Lessor, LessorConfig, LogPlace, Reader, RequestError, Revision,
    Sink, Store, StoreConfig, WatchConfig, restore,
};
use quorate_raft::{Entry, Index, LogId, Payload, Term, crc32c};

use crate::state_machine::{StateMachine, mix};

/// What a replica did, for the oracles.
#[derive(Clone, Debug)]
pub(super) enum Done {
    Changed(Changes),
    /// A lease ended, because its time was up or because its owner wanted that.
    Ended {
        id: LeaseId,
        expired: bool,
    },
}

/// A replica. Store and lessor are what the host of a server has; the rest of the host is simulated.
#[derive(Debug)]
pub struct KeyValueMachine {
    disk: FaultyDisk,
    pub(super) store: Store,
    pub(super) hub: Hub,
    pub(super) lessor: Lessor,
    /// Counts the processes that served it: streams of an earlier one are gone.
    pub(super) life: u64,
    /// Counts flushes.
    flushes: u64,
    pub(super) done: Vec<Done>,
}

/// Values that fit into memory are few, so that some come from the history.
const CONFIG: StoreConfig = StoreConfig {
    values_bytes_max: 200,
    cache_bytes: 1 << 20,
    tail_bytes_max: 64 << 20,
    unsynced: false,
};
/// Operations of a flush after which the power may go.
const FLUSH_OPERATIONS: u64 = 30;

/// Times of leases in a run are some seconds, so checkpoints are frequent too.
fn new_lessor() -> Lessor {
    Lessor::new(LessorConfig { extension_us: 200_000, checkpoint_interval_us: Some(1_500_000) })
}

fn new_hub(reader: &Reader) -> Hub {
    let config = WatchConfig { progress_interval_us: 500_000, ..WatchConfig::default() };
    Hub::new(config, reader.revision(), reader.compacted())
}

fn open(disk: &FaultyDisk) -> Store {
    Store::open(disk.backend(), CONFIG).expect("a disk that loses power keeps what was synced").0
}

const fn log_id(place: LogPlace) -> LogId {
    LogId::new(Index(place.index), Term(place.term))
}

/// Tells watches and oracles.
struct Told<'a> {
    hub: &'a Hub,
    done: &'a mut Vec<Done>,
}

impl Sink for Told<'_> {
    fn changed(&mut self, changes: &Changes) {
        // Oracles want former pairs always, watchers must do without those that they have not asked for.
        if self.hub.wants_prev() {
            self.hub.publish(changes);
        } else {
            self.hub.publish(&changes.clone().without_prev());
        }
        self.done.push(Done::Changed(changes.clone()));
    }

    fn compacted(&mut self, revision: Revision) {
        self.hub.compact(revision);
    }

    fn wants_prev(&self) -> bool {
        true
    }
}

impl Default for KeyValueMachine {
    fn default() -> Self {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let hub = new_hub(&store.reader());
        Self { disk, store, hub, lessor: new_lessor(), life: 1, flushes: 0, done: Vec::new() }
    }
}

impl KeyValueMachine {
    /// For whoever reads.
    pub(super) fn reader(&self) -> Reader {
        self.store.reader()
    }

    fn execute(&mut self, command: &Command) -> Result<Revision, RequestError> {
        let (ids, expired) = match command {
            Command::LeaseExpire(leases) => (leases.iter().map(|lease| lease.id).collect(), true),
            Command::LeaseRevoke(id) => (vec![*id], false),
            _ => (Vec::new(), false),
        };
        let reader = self.reader();
        let known: Vec<LeaseId> =
            ids.into_iter().filter(|id| reader.lease_keys(*id).is_some()).collect();
        let mut told = Told { hub: &self.hub, done: &mut self.done };
        let replies = self.store.apply(std::slice::from_ref(command), &mut told);
        let mut replies = replies.expect("the disk works while a process runs");
        replies.pop().expect("one reply to one command")?;
        let ended = |id: &LeaseId| reader.lease_keys(*id).is_none();
        self.done.extend(known.into_iter().filter(ended).map(|id| Done::Ended { id, expired }));
        Ok(reader.revision())
    }

    /// Writes the database anew, or some of it: then the process ends before that has ended.
    fn defragment(&mut self, steps_max: u64) {
        let new = FaultyDisk::new();
        let defragment = self.store.defragment_into(new.backend(), || Ok(()));
        let mut defragment = defragment.with_step_bytes(2000);
        for _ in 0..steps_max {
            if !defragment.step().expect("the disks work while a process runs") {
                self.disk = new;
                return;
            }
        }
    }

    /// The power goes while a flush is under way: nobody has heard of it, but it may have happened.
    fn flush_half(&mut self) {
        let Some(flush) = self.store.begin_flush() else { return };
        let at = self.disk.operations() + mix(self.life, 1) % FLUSH_OPERATIONS;
        self.disk.plan(at, Fault::PowerCut);
        let _unheard = flush.write();
    }
}

/// Now and then the database is written anew.
const DEFRAGMENT_FLUSHES: u64 = 40;

/// What a command is answered: a revision, or the text of an error.
pub(super) fn revision_of(response: &[u8]) -> Option<Revision> {
    let text = std::str::from_utf8(response).ok()?;
    Some(Revision(text.strip_prefix("revision ")?.parse().ok()?))
}

impl StateMachine for KeyValueMachine {
    fn apply(&mut self, entry: &Entry) -> Bytes {
        let next = self.applied().index.next();
        assert_eq!(entry.index, next, "State Machine Safety: entries are applied in order");
        // What proves progress at the end of a run is no command.
        let response = match &entry.payload {
            Payload::Command(command) => match Command::decode(command) {
                Ok(command) => match self.execute(&command) {
                    Ok(revision) => Bytes::from(format!("revision {}", revision.0)),
                    Err(error) => Bytes::from_static(error.text().as_bytes()),
                },
                Err(_) => Bytes::new(),
            },
            Payload::Noop | Payload::Membership(_) => Bytes::new(),
        };
        self.store.finish(LogPlace { index: entry.index.0, term: entry.term.0 }, []);
        // Nobody reads here for long.
        while self.store.compact_step(false) {}
        response
    }

    fn query(&self, _: &[u8]) -> Bytes {
        Bytes::from(format!("revision {}", self.reader().revision().0))
    }

    fn applied(&self) -> LogId {
        log_id(self.reader().applied())
    }

    fn snapshot(&mut self) -> Bytes {
        self.flush();
        let mut bytes = Vec::new();
        let written = self.reader().snapshot().write_to(&mut bytes);
        written.expect("memory does not fail");
        bytes.into()
    }

    fn restore(&mut self, snapshot: &[u8]) {
        self.store.demote(&mut self.lessor);
        let disk = FaultyDisk::new();
        let mut bytes = snapshot;
        restore(&mut bytes, disk.backend(), CONFIG.cache_bytes).expect("a whole snapshot");
        self.store = open(&disk);
        self.disk = disk;
        let reader = self.reader();
        self.hub.reset(reader.revision(), reader.compacted());
    }

    fn flush(&mut self) {
        if let Some(flush) = self.store.begin_flush() {
            flush.write().expect("the disk works while a process runs");
        }
        self.flushes += 1;
        if self.flushes.is_multiple_of(DEFRAGMENT_FLUSHES) {
            self.defragment(u64::MAX);
        }
    }

    fn keep(&mut self, _: &[u8]) {
        // It has a disk of its own, and was flushed when the snapshot was taken.
    }

    fn durable(&self) -> LogId {
        log_id(self.reader().durable())
    }

    fn crash(&mut self) {
        self.hub.shutdown();
        self.store.demote(&mut self.lessor);
        if mix(self.life, 3).is_multiple_of(4) {
            self.defragment(mix(self.life, 4) % 8);
        }
        if mix(self.life, 0).is_multiple_of(2) {
            self.flush_half();
        }
        self.disk.power_on(mix(self.life, 2) % 16);
        self.store = open(&self.disk);
        self.hub = new_hub(&self.reader());
        self.lessor = new_lessor();
        self.life += 1;
    }

    fn digest(&self) -> u64 {
        let reader = self.reader();
        let hash = reader.hash_kv(Revision(0)).expect("the current revision can be read");
        let number = |hash, number: i64| mix(hash, number.cast_unsigned());
        let mut digest = mix(self.applied().index.0, u64::from(hash.hash));
        digest = number(number(digest, hash.compact_revision.0), hash.revision.0);
        for (id, ttl_s) in reader.leases() {
            digest = number(number(digest, id.0), ttl_s);
            for key in reader.lease_keys(id).unwrap_or_default() {
                digest = mix(digest, u64::from(crc32c(&key)));
            }
        }
        digest
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
