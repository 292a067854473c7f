//! A store of numbers, clients of it, and the judge of what they saw.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate::{Handle, ProposeError, ReadError, Session, SessionError, Snapshot, StateMachine};
use quorate_sim::linearizability::{
    ClientId, History, KeyValue, KeyValueAction, KeyValueOp, KeyValueReply, Limits, OpId, check,
};
use serde::{Deserialize, Serialize};

/// Values under keys. Nobody writes a value twice, so it also counts how often each write was
/// executed.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Store {
    values: BTreeMap<u64, u64>,
    executed: BTreeMap<u64, u64>,
}

/// Write this value under that key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) key: u64,
    pub(crate) value: u64,
}

impl StateMachine for Store {
    type Command = Put;
    /// The value before.
    type Reply = Option<u64>;

    fn apply(&mut self, commands: Vec<Put>) -> Vec<Option<u64>> {
        let put = |Put { key, value }| {
            *self.executed.entry(value).or_default() += 1;
            self.values.insert(key, value)
        };
        commands.into_iter().map(put).collect()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.clone())
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        *self = quorate::read_snapshot(snapshot)?;
        Ok(())
    }
}

impl Store {
    pub(crate) fn get(&self, key: u64) -> Option<u64> {
        self.values.get(&key).copied()
    }

    /// How often each value was written.
    pub(crate) fn executed(&self) -> &BTreeMap<u64, u64> {
        &self.executed
    }
}

/// Microseconds on a clock that all processes of this machine share.
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// Keys that clients share: few, so that they meet.
pub(crate) const KEYS: u64 = 4;

/// What clients asked for and what they saw, to be judged in the end.
pub(crate) struct Recorder {
    seen: Mutex<Seen>,
    values: AtomicU64,
}

struct Seen {
    history: History<KeyValueOp<u64, u64>, KeyValueReply<u64>>,
    puts: BTreeSet<OpId>,
    acknowledged: u64,
    unknown: u64,
    reads: u64,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let seen = Seen {
            history: History::new(),
            puts: BTreeSet::new(),
            acknowledged: 0,
            unknown: 0,
            reads: 0,
        };
        Self { seen: Mutex::new(seen), values: AtomicU64::new(0) }
    }

    /// A value that nobody has written.
    pub(crate) fn value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn invoke(&self, client: u64, key: u64, action: KeyValueAction<u64>) -> OpId {
        let now = now();
        let op = KeyValueOp { key, action };
        self.seen.lock().unwrap().history.invoke(ClientId(client), op, now)
    }

    pub(crate) fn puts(&self, client: u64, put: Put) -> OpId {
        let op = self.invoke(client, put.key, KeyValueAction::Put(put.value));
        self.seen.lock().unwrap().puts.insert(op);
        op
    }

    pub(crate) fn gets(&self, client: u64, key: u64) -> OpId {
        self.invoke(client, key, KeyValueAction::Get)
    }

    /// A write was acknowledged with the value before, or a read gave a value.
    pub(crate) fn returned(&self, op: OpId, value: Option<u64>) {
        let now = now();
        let mut seen = self.seen.lock().unwrap();
        seen.history.complete(op, KeyValueReply::Value(value), now);
        if seen.puts.contains(&op) {
            seen.acknowledged += 1;
        } else {
            seen.reads += 1;
        }
    }

    /// A read that somebody else has watched.
    pub(crate) fn got(
        &self,
        client: u64,
        key: u64,
        (begun, ended): (u64, u64),
        value: Option<u64>,
    ) {
        let mut seen = self.seen.lock().unwrap();
        let op = KeyValueOp { key, action: KeyValueAction::Get };
        let op = seen.history.invoke(ClientId(client), op, begun);
        seen.history.complete(op, KeyValueReply::Value(value), ended);
        seen.reads += 1;
    }

    /// It certainly has no effect, ever.
    pub(crate) fn failed(&self, op: OpId) {
        self.seen.lock().unwrap().history.fail(op);
    }

    /// Nobody knows what became of it.
    pub(crate) fn unknown(&self) {
        self.seen.lock().unwrap().unknown += 1;
    }

    /// Writes that were acknowledged, so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.seen.lock().unwrap().acknowledged
    }

    /// Reads that were served, so far.
    pub(crate) fn reads(&self) -> u64 {
        self.seen.lock().unwrap().reads
    }

    /// There is an order of all operations that explains what every client saw; and in the end, every
    /// acknowledged write was executed once, every other at most once, and none that failed.
    pub(crate) fn judge(&self, executed: &BTreeMap<u64, u64>) {
        use quorate_sim::linearizability::Outcome;
        let seen = self.seen.lock().unwrap();
        let verdict = check(&KeyValue::new(), &seen.history, Limits::default());
        assert!(verdict.is_linearizable(), "{verdict}");
        for operation in seen.history.operations() {
            let KeyValueAction::Put(value) = operation.op.action else { continue };
            let count = executed.get(&value).copied().unwrap_or(0);
            let right = match operation.outcome {
                Outcome::Returned { .. } => count == 1,
                Outcome::Open => count <= 1,
                Outcome::Failed => count == 0,
            };
            assert!(right, "written {count} times: {} ({:?})", operation.op, operation.outcome);
        }
        println!(
            "{} writes acknowledged, {} of unknown outcome, {} reads",
            seen.acknowledged, seen.unknown, seen.reads
        );
    }

    // ---- clients of nodes in this process ----

    /// Proposes without a session.
    pub(crate) async fn propose(
        &self,
        client: u64,
        node: &Handle<Store>,
        key: u64,
    ) -> Result<Option<u64>, ProposeError> {
        let put = Put { key, value: self.value() };
        let op = self.puts(client, put);
        let result = node.propose(put).await;
        match &result {
            Ok(before) => self.returned(op, *before),
            Err(why) if why.never_happened() => self.failed(op),
            Err(_) => self.unknown(),
        }
        result
    }

    /// Proposes in a session.
    pub(crate) async fn propose_in(
        &self,
        client: u64,
        session: &Session<Store>,
        key: u64,
    ) -> Result<Option<u64>, SessionError> {
        let put = Put { key, value: self.value() };
        let op = self.puts(client, put);
        let result = session.propose(put).await;
        match &result {
            Ok(before) => self.returned(op, *before),
            Err(SessionError::Refused(_) | SessionError::Expired { maybe_executed: false }) => {
                self.failed(op);
            }
            Err(_) => self.unknown(),
        }
        result
    }

    /// Reads linearizably.
    pub(crate) async fn read(
        &self,
        client: u64,
        node: &Handle<Store>,
        key: u64,
    ) -> Result<Option<u64>, ReadError> {
        let op = self.gets(client, key);
        let result = node.read(|store| store.get(key)).await;
        match &result {
            Ok(value) => self.returned(op, *value),
            Err(_) => self.failed(op),
        }
        result
    }
}
