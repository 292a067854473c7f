//! The same work on openraft, with a store that costs as little as its own benchmark's does. (Its
//! `openraft-memstore` writes every entry as JSON; that would flatter us.)

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, Cursor};
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{Stream, TryStreamExt};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError};
use openraft::network::RPCOption;
use openraft::network::{RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder,
    RaftStateMachine,
};
use openraft::{Config, EntryPayload, OptionalSend, Raft};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct Request {}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("empty")
    }
}

#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct Response {}

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Request,
        R = Response,
        Node = (),
);

type Entry = openraft::alias::EntryOf<TypeConfig>;
type LogId = LogIdOf<TypeConfig>;
type Snapshot = SnapshotOf<TypeConfig, Cursor<Vec<u8>>>;

#[derive(Default)]
struct LogInner {
    vote: Option<VoteOf<TypeConfig>>,
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<LogInner>>);

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.0.lock().unwrap().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<TypeConfig>>, io::Error> {
        Ok(self.0.lock().unwrap().vote)
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.0.lock().unwrap();
        let last = log.entries.values().next_back().map(|entry| entry.log_id()).or(log.purged);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<TypeConfig>) -> Result<(), io::Error> {
        self.0.lock().unwrap().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| (entry.index(), entry));
        self.0.lock().unwrap().entries.extend(entries);
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let first = last.map_or(0, |last| last.index() + 1);
        self.0.lock().unwrap().entries.split_off(&first);
        Ok(())
    }

    async fn purge(&mut self, up_to: LogId) -> Result<(), io::Error> {
        let mut log = self.0.lock().unwrap();
        log.purged = Some(up_to);
        log.entries = log.entries.split_off(&(up_to.index() + 1));
        Ok(())
    }
}

#[derive(Default)]
struct MachineInner {
    applied: Option<LogId>,
    membership: StoredMembershipOf<TypeConfig>,
}

#[derive(Clone, Default)]
pub struct Machine(Arc<Mutex<MachineInner>>);

impl Machine {
    fn meta(&self) -> SnapshotMetaOf<TypeConfig> {
        let inner = self.0.lock().unwrap();
        SnapshotMetaOf::<TypeConfig> {
            last_log_id: inner.applied,
            last_membership: inner.membership.clone(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { meta: self.meta(), snapshot: Cursor::new(Vec::new()) }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = Cursor<Vec<u8>>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(self.snapshot())
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Cursor<Vec<u8>>;
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, StoredMembershipOf<TypeConfig>), io::Error> {
        let inner = self.0.lock().unwrap();
        Ok((inner.applied, inner.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut inner = self.0.lock().unwrap();
            inner.applied = Some(entry.log_id);
            if let EntryPayload::Membership(ref membership) = entry.payload {
                inner.membership =
                    StoredMembershipOf::<TypeConfig>::new(Some(entry.log_id), membership.clone());
            }
            drop(inner);
            if let Some(responder) = responder {
                responder.send(Response {});
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        _: Cursor<Vec<u8>>,
    ) -> Result<(), io::Error> {
        let mut inner = self.0.lock().unwrap();
        inner.applied = meta.last_log_id;
        inner.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(Some(self.snapshot()))
    }
}

type Node = Raft<TypeConfig, Machine>;

#[derive(Clone, Default)]
struct Router(Arc<Mutex<BTreeMap<u64, Node>>>);

impl RaftNetworkFactory<TypeConfig> for Router {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &()) -> Link {
        Link(self.0.lock().unwrap()[&target].clone())
    }
}

struct Link(Node);

fn unreachable(error: impl std::error::Error + 'static) -> RPCError<TypeConfig> {
    RPCError::Unreachable(openraft::errors::Unreachable::new(&error))
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Cursor<Vec<u8>>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.0.append_entries(rpc).await.map_err(unreachable)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.0.vote(rpc).await.map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let result = self.0.install_full_snapshot(vote, snapshot).await;
        result.map_err(|error| {
            StreamingError::Unreachable(openraft::errors::Unreachable::new(&error))
        })
    }
}

/// The work of `ours::run`, with the settings of openraft's own benchmark.
pub async fn run(clients: usize, commands: usize) -> (Duration, Vec<u64>) {
    let config = Config {
        election_timeout_min: 200,
        election_timeout_max: 2000,
        purge_batch_size: 1024,
        max_payload_entries: 1024,
        ..Config::default()
    };
    let config = Arc::new(config.validate().expect("these are openraft's own settings"));
    let router = Router::default();
    let mut nodes = BTreeMap::new();
    for id in 0..3 {
        let node =
            Node::new(id, config.clone(), router.clone(), Log::default(), Machine::default())
                .await
                .expect("a node in memory starts");
        nodes.insert(id, node);
    }
    *router.0.lock().unwrap() = nodes.clone();
    let leader = nodes[&0].clone();
    leader
        .initialize((0..3).collect::<std::collections::BTreeSet<u64>>())
        .await
        .expect("it starts");
    while leader.client_write(Request {}).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let each = commands / clients;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let leader = leader.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(each / 16 + 1);
                for at in 0..each {
                    let sample = (at % 16 == 0).then(Instant::now);
                    leader.client_write(Request {}).await.expect("nothing fails here");
                    latencies.extend(sample.map(|since| since.elapsed().as_nanos() as u64));
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no client panics"));
    }
    let elapsed = begun.elapsed();
    for node in nodes.values() {
        let _ = node.shutdown().await;
    }
    (elapsed, latencies)
}
