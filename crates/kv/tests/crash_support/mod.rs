//! A workload that every crash test runs, and what a store must hold after each of its batches.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]
#![allow(dead_code, reason = "not every test needs all of it")]

use bytes::Bytes;
use quorate_kv::{
    Alarm, AlarmKind, AlarmMember, Command, Compact, DeleteRange, DiskError, KeyValue, LeaseGrant,
    LeaseId, LogPlace, MemberId, Op, Opened, Put, Range, Reader, Revision, Store, StoreConfig, Txn,
};

/// A small cache, so that the database goes to its disk.
pub(crate) const CONFIG: StoreConfig = StoreConfig {
    values_bytes_max: 4 << 10,
    cache_bytes: 64 << 10,
    tail_bytes_max: 1 << 20,
    unsynced: false,
};
const ROW: &[u8] = b"row";

/// xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}

fn key(random: &mut Random) -> Bytes {
    Bytes::from(format!("key-{:02}", random.below(20)))
}

fn put(random: &mut Random, index: u64) -> Put {
    let length = [10, 100, 1000, 3000][random.below(4) as usize];
    let value = Bytes::from(vec![index as u8; length]);
    let lease = (random.below(3) == 0).then(|| LeaseId(random.below(index) as i64 + 1));
    Put { key: key(random), value, lease, ..Put::default() }
}

/// The commands at an index of the log; always the same ones.
pub(crate) fn commands(index: u64) -> Vec<Command> {
    let mut random = Random::new(index);
    let random = &mut random;
    let mut commands = vec![Command::Put(Put {
        key: key(random),
        value: Bytes::from(index.to_string()),
        ..Put::default()
    })];
    let many = random.below(4);
    for _ in 0..many {
        commands.push(match random.below(10) {
            0 => Command::DeleteRange(DeleteRange { key: key(random), ..DeleteRange::default() }),
            1 => Command::LeaseGrant(LeaseGrant { id: LeaseId(index as i64), ttl_s: 60 }),
            2 => Command::LeaseRevoke(LeaseId(random.below(index) as i64 + 1)),
            3 => Command::Txn(Txn {
                success: vec![
                    Op::Put(put(random, index)),
                    Op::DeleteRange(DeleteRange {
                        key: Bytes::from_static(b"key-0"),
                        range_end: Bytes::from_static(b"key-03"),
                        ..DeleteRange::default()
                    }),
                ],
                ..Txn::default()
            }),
            4 => Command::Compact(Compact {
                revision: Revision((index / 2) as i64),
                physical: false,
            }),
            5 => {
                let member = MemberId(random.below(3));
                Command::Alarm(match random.below(2) {
                    0 => Alarm::Activate(member, Some(AlarmKind::NoSpace)),
                    _ => Alarm::Deactivate(member, Some(AlarmKind::NoSpace)),
                })
            }
            _ => Command::Put(put(random, index)),
        });
    }
    for member in 0..3 {
        commands.push(Command::Alarm(Alarm::Deactivate(
            MemberId(member),
            (member != index % 3).then_some(AlarmKind::NoSpace),
        )));
    }
    commands
}

pub(crate) fn place(index: u64) -> LogPlace {
    LogPlace { index, term: index / 7 + 1 }
}

/// All that can be seen of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    revision: Revision,
    compacted: Revision,
    /// All pairs at each revision that is not compacted.
    pairs: Vec<Vec<KeyValue>>,
    leases: Vec<(LeaseId, i64, Vec<Bytes>)>,
    alarms: Vec<AlarmMember>,
}

pub(crate) fn contents(reader: &Reader) -> Contents {
    let (revision, compacted) = (reader.revision(), reader.compacted());
    let all = |revision| {
        let zero = Bytes::from_static(&[0]);
        let range = Range {
            key: zero.clone(),
            range_end: zero,
            revision: Revision(revision),
            ..Range::default()
        };
        reader.range(&range).unwrap().kvs
    };
    let leases = reader.leases().into_iter();
    Contents {
        revision,
        compacted,
        pairs: (compacted.0.max(1)..=revision.0).map(all).collect(),
        leases: leases.map(|(id, ttl_s)| (id, ttl_s, reader.lease_keys(id).unwrap())).collect(),
        alarms: reader.alarms(),
    }
}

/// What a store holds after each index, from 0.
pub(crate) fn expected(last: u64) -> Vec<Contents> {
    let mut store = Store::in_memory(StoreConfig::default());
    let mut expected = vec![contents(&store.reader())];
    for index in 1..=last {
        store.apply(&commands(index), &mut ()).unwrap();
        store.finish(place(index), []);
        while store.compact_step(false) {}
        expected.push(contents(&store.reader()));
    }
    expected
}

/// How far a store has come, as those know that it has told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// It has said that this is durable.
    pub(crate) durable: u64,
    /// It was told to make this durable.
    pub(crate) begun: u64,
}

/// Applies what follows `from`, and flushes after every third batch and the last one.
pub(crate) fn run(
    store: &mut Store,
    from: u64,
    last: u64,
    progress: &mut Progress,
    mut durable: impl FnMut(u64),
) -> Result<(), DiskError> {
    for index in from + 1..=last {
        store.apply(&commands(index), &mut ())?;
        store.finish(place(index), [(ROW.to_vec(), Some(index.to_be_bytes().to_vec()))]);
        while store.compact_step(false) {}
        if index % 3 == 0 || index == last {
            let flush = store.begin_flush().expect("something was applied");
            progress.begun = index;
            assert_eq!(flush.write()?, place(index));
            progress.durable = index;
            durable(index);
        }
    }
    Ok(())
}

/// Of an opened store: place, host's rows and contents belong together, and are those of an index that may be there.
/// Gives it back.
pub(crate) fn check(
    store: &Store,
    opened: &Opened,
    progress: Progress,
    expected: &[Contents],
) -> u64 {
    let index = opened.applied.index;
    assert!(
        index == progress.durable || index == progress.begun,
        "opened at {index} after {progress:?}"
    );
    check_at(store, opened, expected);
    index
}

/// The same for any index.
pub(crate) fn check_at(store: &Store, opened: &Opened, expected: &[Contents]) {
    let index = opened.applied.index;
    if index > 0 {
        assert_eq!(opened.applied, place(index));
        assert_eq!(opened.rows, [(ROW.to_vec(), index.to_be_bytes().to_vec())]);
    }
    let found = contents(&store.reader());
    assert!(found == expected[index as usize], "the contents are not those of {index}");
}
