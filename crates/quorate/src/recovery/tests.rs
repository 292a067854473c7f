//! A crash at every step of putting a snapshot into place, and what the next start makes of it.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use quorate_raft::{ClusterId, NodeId, Term};
use quorate_wal::{Fate, MemoryDisk};

use super::*;
use crate::durable::{
    Applied, Batch, DurableStateMachine, Flush, Opened as DurableOpened, Restore,
};
use crate::machine::{Snapshot, StateMachine};
use crate::replica::{Durable, Replica, View};
use crate::snapshot_file::Head;

const CLUSTER: ClusterId = ClusterId(1);

#[derive(Default)]
struct Sum(u64);

impl StateMachine for Sum {
    type Command = u64;
    type Reply = ();

    fn apply(&mut self, commands: Vec<u64>) -> Vec<()> {
        commands.into_iter().map(|command| self.0 += command).collect()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::from_bytes(self.0.to_le_bytes())
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        let mut bytes = [0; 8];
        snapshot.read_exact(&mut bytes)?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }
}

/// What a durable machine has on its disk.
#[derive(Clone, Default)]
struct Database(Arc<Mutex<(u64, DurableOpened)>>);

impl Database {
    fn new(sum: u64, applied: LogId) -> Self {
        let opened = DurableOpened { applied, ..DurableOpened::default() };
        Self(Arc::new(Mutex::new((sum, opened))))
    }

    fn get(&self) -> (u64, DurableOpened) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, sum: u64, opened: DurableOpened) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (sum, opened);
    }
}

impl DurableStateMachine for Database {
    type Command = u64;
    type Reply = ();

    fn open(&mut self) -> io::Result<DurableOpened> {
        Ok(self.get().1)
    }

    fn apply(&mut self, mut batch: Batch<'_, u64, ()>) -> io::Result<Applied> {
        let (mut sum, mut opened) = self.get();
        for command in batch.take_commands() {
            sum += command;
            batch.reply(());
        }
        let applied = batch.finish();
        opened.applied = applied.at();
        self.set(sum, opened);
        Ok(applied)
    }

    fn flush(&mut self) -> io::Result<Flush> {
        Ok(Flush::Done(self.get().1.applied.index))
    }

    fn snapshot(&self) -> io::Result<Snapshot> {
        Ok(Snapshot::from_bytes(self.get().0.to_le_bytes()))
    }

    fn restore(&mut self, restore: Restore<'_>) -> io::Result<()> {
        let mut bytes = [0; 8];
        restore.reader.read_exact(&mut bytes)?;
        let opened = DurableOpened { applied: restore.at, library: restore.library };
        self.set(u64::from_le_bytes(bytes), opened);
        Ok(())
    }
}

fn at(index: u64, term: u64) -> LogId {
    LogId::new(Index(index), Term(term))
}

fn meta(id: LogId) -> SnapshotMeta {
    SnapshotMeta { id, membership: Arc::new(Membership::of_voters([NodeId(1), NodeId(2)])) }
}

/// A disk with a log of five entries of term 1, and a directory for snapshots.
struct Place {
    disk: MemoryDisk,
    directory: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("quorate-recovery-{}-{count}", std::process::id());
        let place = Self { disk: MemoryDisk::new(), directory: std::env::temp_dir().join(name) };
        let _ = std::fs::remove_dir_all(&place.directory);
        let wal = place.wal();
        wal.compact(GROUP, &meta(LogId::ZERO)).unwrap();
        let entry = |index| {
            let mut command = vec![0];
            crate::codec::Codec::encode(&1u64, &mut command);
            Entry::new(Index(index), Term(1), Payload::Command(command.into()))
        };
        let hard_state = HardState { term: Term(2), commit: Index(3), ..HardState::default() };
        let persist = Persist { seq: Seq(1), hard_state, append: (1..=5).map(entry).collect() };
        wal.write(&[(GROUP, &persist)]).unwrap();
        wal.close().unwrap();
        place
    }

    fn options(&self) -> Options {
        Options { segment_bytes: 64 << 10, ..Options::new(CLUSTER, NodeId(1), 7) }
    }

    fn wal(&self) -> Wal {
        Wal::open(Arc::new(self.disk.clone()), &self.options()).unwrap().wal
    }

    fn snapshots(&self) -> Snapshots {
        Snapshots::in_directory(self.directory.clone()).unwrap()
    }

    /// Step 1 is done: the snapshot of a machine whose sum is 100 has its name.
    fn fetched(&self, id: LogId) {
        let head = Head {
            cluster: CLUSTER,
            meta: meta(id),
            sessions: quorate_wire::Form::to_form(&quorate_node::sessions::Sessions::new()).into(),
        };
        let machine = Snapshot::from_bytes(100u64.to_le_bytes());
        self.snapshots().write(&head, View { at: id, sessions: Vec::new(), machine }).unwrap();
    }

    /// Step 3 is done.
    fn installed(&self, id: LogId) {
        let hard_state = HardState { term: Term(2), commit: id.index, ..HardState::default() };
        let install = Install { seq: Seq(0), snapshot: meta(id), hard_state };
        let wal = self.wal();
        wal.install(GROUP, &install).unwrap();
        wal.close().unwrap();
    }

    fn open(&self, replica: &dyn Replicated) -> Result<Opened, StartError> {
        let disk = Arc::new(self.disk.clone());
        let first = Arc::new(Membership::of_voters([NodeId(1)]));
        let opened = open(disk, &self.options(), &first, replica, &self.snapshots(), 1, None)?;
        opened.wal.close().unwrap();
        Ok(opened)
    }

    /// Opens with a plain machine; gives back its sum, too.
    fn plain(&self) -> Result<(Recovered, u64), StartError> {
        let replica = Replica::open(Sum::default()).unwrap();
        let opened = self.open(&replica)?;
        Ok((opened.recovered, replica.read(|sum: &Sum| sum.0).unwrap()))
    }

    fn durable(&self, database: &Database) -> Result<Recovered, StartError> {
        let replica = Replica::open(Durable(database.clone())).unwrap();
        Ok(self.open(&replica)?.recovered)
    }
}

#[track_caller]
fn is_behind(recovered: &Recovered, id: LogId) {
    assert_eq!(recovered.snapshot, meta(id));
    assert_eq!(recovered.last_index, id.index);
    assert_eq!(recovered.applied, id.index);
    assert!(recovered.terms.is_empty());
    assert!(recovered.hard_state.term >= id.term);
    assert!(recovered.hard_state.commit == id.index);
}

#[test]
fn without_a_snapshot_the_log_is_all_there_is() {
    let place = Place::new();
    let (recovered, sum) = place.plain().unwrap();
    assert_eq!((recovered.last_index, recovered.applied, sum), (Index(5), Index(0), 0));
}

#[test]
fn a_snapshot_that_is_still_arriving_changes_nothing() {
    let place = Place::new();
    place.fetched(at(10, 2));
    let finished = place.directory.join("000000000000000a-0000000000000002.snapshot");
    let arriving = place.directory.join("000000000000000a-0000000000000002.incoming");
    std::fs::rename(finished, &arriving).unwrap();
    let (recovered, _) = place.plain().unwrap();
    assert_eq!((recovered.last_index, recovered.applied), (Index(5), Index(0)));
    assert!(arriving.exists(), "it can be resumed");
}

#[test]
fn a_plain_machine_goes_on_after_every_step() {
    for steps in [1, 3] {
        let place = Place::new();
        place.fetched(at(10, 2));
        if steps == 3 {
            place.installed(at(10, 2));
        }
        for _ in 0..2 {
            let (recovered, sum) = place.plain().unwrap();
            is_behind(&recovered, at(10, 2));
            assert_eq!(sum, 100);
        }
    }
}

#[test]
fn a_durable_machine_goes_on_after_every_step() {
    for steps in [1, 2, 3] {
        let place = Place::new();
        let id = at(10, 2);
        place.fetched(id);
        let database = match steps {
            1 => Database::new(4, at(4, 1)),
            _ => Database::new(100, id),
        };
        if steps == 3 {
            place.installed(id);
        }
        for _ in 0..2 {
            let recovered = place.durable(&database).unwrap();
            is_behind(&recovered, id);
            assert_eq!(database.get().0, 100);
            assert_eq!(database.get().1.applied, id);
        }
    }
}

#[test]
fn a_snapshot_of_another_history_replaces_the_log() {
    // The log has an entry 3, but of another term: what it has is not committed there.
    let place = Place::new();
    place.fetched(at(3, 2));
    let (recovered, sum) = place.plain().unwrap();
    is_behind(&recovered, at(3, 2));
    assert_eq!(sum, 100);
}

#[test]
fn a_snapshot_that_the_log_covers_keeps_the_log() {
    let place = Place::new();
    place.fetched(at(3, 1));
    let (recovered, sum) = place.plain().unwrap();
    assert_eq!((recovered.last_index, recovered.applied, sum), (Index(5), Index(3), 100));
    // A durable machine has its own data, which are newer.
    let place = Place::new();
    place.fetched(at(3, 1));
    let database = Database::new(4, at(4, 1));
    let recovered = place.durable(&database).unwrap();
    assert_eq!((recovered.last_index, recovered.applied), (Index(5), Index(4)));
    assert_eq!(database.get().0, 4);
}

#[test]
fn a_term_that_was_not_written_down_is_learned_from_the_snapshot() {
    let place = Place::new();
    place.fetched(at(10, 9));
    let (recovered, _) = place.plain().unwrap();
    assert_eq!(recovered.hard_state.term, Term(9));
    assert_eq!(recovered.hard_state.voted_for, None);
}

#[test]
fn a_damaged_snapshot_is_an_error_only_if_it_is_needed() {
    let damage = |place: &Place, name: &str| {
        let path = place.directory.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - 20;
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    // The one before it does, since the log goes back that far.
    let place = Place::new();
    place.fetched(at(2, 1));
    place.fetched(at(4, 1));
    damage(&place, "0000000000000004-0000000000000001.snapshot");
    assert_eq!(place.plain().unwrap().0.applied, Index(2));
    // Nothing else has what it had.
    let place = Place::new();
    place.fetched(at(10, 2));
    place.installed(at(10, 2));
    damage(&place, "000000000000000a-0000000000000002.snapshot");
    let error = place.plain().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("000000000000000a-0000000000000002"), "{error}");
    std::fs::remove_dir_all(&place.directory).unwrap();
    let error = place.plain().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

/// Gives up the others on that disk.
fn abandon(place: &Place, disk: &MemoryDisk) -> Result<Recovered, StartError> {
    let cluster = ClusterId(2);
    let options = Options { former_cluster: Some(CLUSTER), cluster, ..place.options() };
    let first = Arc::new(Membership::of_voters([NodeId(1)]));
    let replica = Replica::open(Durable(Database::new(0, LogId::ZERO))).unwrap();
    let (disk, context) = (Arc::new(disk.clone()), Bytes::from_static(b"here"));
    let snapshots = place.snapshots();
    let opened = open(disk, &options, &first, &replica, &snapshots, 1, Some(&context))?;
    let failed = |why: &dyn std::fmt::Display| StartError::Disk {
        directory: "log".to_owned(),
        why: why.to_string(),
    };
    opened.wal.close().map_err(|why| failed(&why))?;
    Ok(opened.recovered)
}

#[test]
fn others_are_given_up_once_whatever_comes_between() {
    let place = Place::new();
    let mut steps = 0;
    loop {
        let disk = place.disk.after_kill();
        disk.stop_after(Some(steps));
        let done = abandon(&place, &disk).is_ok();
        for fate in [Fate::Kept, Fate::Dropped] {
            let disk = disk.after_power_cut(|_, _| fate.clone());
            let recovered = abandon(&place, &disk).unwrap();
            assert_eq!(recovered.last_index, Index(6), "after {steps} steps");
            let [(at, membership)] = &recovered.memberships[..] else {
                panic!("{:?} after {steps} steps", recovered.memberships)
            };
            assert_eq!((at.0, membership.voters()), (6, &[NodeId(1)][..]));
            assert_eq!(recovered.terms, [(Index(1), Term(1)), (Index(6), Term(3))]);
            let own = membership.member(NodeId(1)).unwrap();
            assert!(own.incarnation.is_some());
            // And again: nothing is left to be done.
            assert_eq!(abandon(&place, &disk).unwrap().last_index, Index(6));
            let back = Wal::open(Arc::new(disk), &place.options()).map(|_| ());
            assert!(back.is_err(), "it is not the former cluster's any more");
        }
        if done {
            break;
        }
        steps += 1;
    }
    assert!(steps > 4);
}

#[test]
fn a_snapshot_on_its_way_in_comes_first() {
    let place = Place::new();
    place.fetched(at(10, 2));
    let recovered = abandon(&place, &place.disk).unwrap();
    assert_eq!((recovered.snapshot.id, recovered.last_index), (at(10, 2), Index(11)));
    assert_eq!(recovered.memberships[0].1.voters(), [NodeId(1)]);
}

/// Runs a node on that disk until it has nothing more to do.
fn run_alone(disk: &MemoryDisk, options: &Options) -> quorate_raft::Status {
    use quorate_raft::{Config, Effect, Input, Raft, RequestId, Time};
    let opened = Wal::open(Arc::new(disk.clone()), options).unwrap();
    let recovered = opened.groups[&GROUP].recovered(Index(0), 3);
    let wal = opened.wal;
    let config = Config::new(options.cluster, NodeId(1), wal.identity().incarnation);
    let now = Time(1_000_000);
    let mut raft = Raft::new(config, now, 7, recovered).unwrap();
    raft.step(now, Input::Campaign { id: RequestId(1) });
    loop {
        let mut inputs = Vec::new();
        for effect in raft.take_effects() {
            match effect {
                Effect::Persist(persist) => {
                    wal.write(&[(GROUP, &persist)]).unwrap();
                    wal.sync().unwrap();
                    inputs.push(Input::Persisted(persist.seq));
                }
                Effect::Apply(entries) => {
                    inputs.push(Input::Applied(entries.last().unwrap().index));
                }
                Effect::Load(load) => {
                    let read = wal.read(GROUP, load.first, load.last, load.bytes_max).unwrap();
                    inputs.push(Input::Loaded { id: load.id, result: Ok(read) });
                }
                _ => {}
            }
        }
        if inputs.is_empty() {
            return raft.status();
        }
        for input in inputs {
            raft.step(now, input);
        }
    }
}

/// Whatever part a member had, and wherever a change of the membership stood: alone it leads, and commits all that it has.
#[test]
fn one_that_is_alone_leads_whatever_it_was_before() {
    let voters = |ids: &[u64]| Membership::of_voters(ids.iter().copied().map(NodeId));
    let removes = |nodes: &[u64]| quorate_raft::Change {
        steps: nodes
            .iter()
            .map(|node| quorate_raft::ChangeStep::Remove { node: NodeId(*node) })
            .collect(),
    };
    let joint = voters(&[1, 2, 3]).changed(&removes(&[1, 2])).unwrap();
    assert!(joint.is_joint());
    let learner = quorate_raft::ChangeStep::AddLearner { node: NodeId(1), context: Bytes::new() };
    let learner = voters(&[2, 3]).changed(&learner.into()).unwrap();
    for latest in [voters(&[1, 2, 3]), voters(&[2, 3]), joint, learner] {
        let place = Place::new();
        let text = latest.to_string();
        let entry = Entry::new(Index(6), Term(2), Payload::Membership(Arc::new(latest)));
        let hard_state = HardState { term: Term(2), commit: Index(3), ..HardState::default() };
        let persist = Persist { seq: Seq(1), hard_state, append: vec![entry] };
        let wal = place.wal();
        wal.write(&[(GROUP, &persist)]).unwrap();
        wal.close().unwrap();
        drop(wal);
        let recovered = abandon(&place, &place.disk).unwrap();
        assert_eq!(recovered.last_index, Index(7), "{text}");
        let options = Options { cluster: ClusterId(2), ..place.options() };
        let status = run_alone(&place.disk, &options);
        assert_eq!(status.role, quorate_raft::RoleName::Leader, "{text}: {status}");
        assert_eq!(status.membership.voters(), [NodeId(1)], "{text}");
        assert!(!status.membership.is_joint(), "{text}");
        // Its own first entry is behind all that was there.
        assert_eq!((status.commit_index, status.applied), (Index(8), Index(8)), "{text}: {status}");
    }
}
