//! Snapshots fetched from peers that break off, change and mumble.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_raft::{ClusterId, Message};
use quorate_transport::{BoxFuture, Metrics, PeerStatus, Sent, SnapshotStream, StartError};

use super::*;
use crate::asks::Asks;
use crate::builder::whole;
use crate::driver::Log;
use crate::inbox::{Arrivals, InboxLimits};
use crate::machine::Snapshot;
use crate::memory_log::MemoryLog;
use crate::replica::View;
use crate::snapshot_file::Head;
use crate::snapshots::Snapshots;

const CLUSTER: ClusterId = ClusterId(1);
const ID: LogId = LogId::new(Index(7), Term(2));

struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("quorate-remote-{}-{count}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn snapshots(&self, name: &str) -> Arc<Snapshots> {
        Arc::new(Snapshots::in_directory(self.0.join(name)).unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn meta() -> SnapshotMeta {
    SnapshotMeta { id: ID, ..SnapshotMeta::default() }
}

/// The file that a node makes of its state at [`ID`].
fn file_of(place: &Place, state: u8) -> Vec<u8> {
    let snapshots = place.snapshots(&format!("source-{state}"));
    let machine = Snapshot::from_bytes(vec![state; 500_000]);
    let view = View { at: ID, sessions: Vec::new(), machine };
    let head = Head { cluster: CLUSTER, meta: meta(), sessions: Bytes::new() };
    snapshots.write(&head, view).unwrap();
    read(&snapshots)
}

fn read(snapshots: &Snapshots) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshots.open(ID).unwrap().0.read_to_end(&mut bytes).unwrap();
    bytes
}

/// What a peer serves.
#[derive(Clone)]
struct Served {
    bytes: Bytes,
    identity: u64,
    /// The connection breaks after so many bytes of one fetch.
    breaks_after: usize,
}

/// A transport over which nothing but snapshots come.
struct Fake {
    /// One for each fetch; the last one for all that follow.
    served: Mutex<Vec<Served>>,
    asked: Mutex<Vec<(u64, Option<u64>)>>,
}

impl Fake {
    fn new(served: &[Served]) -> Arc<Self> {
        Arc::new(Self { served: Mutex::new(served.to_vec()), asked: Mutex::default() })
    }
}

impl Transport for Fake {
    fn start(&self, _: Arc<dyn Handler>) -> Result<(), StartError> {
        Ok(())
    }

    fn send(&self, _: NodeId, _: Lane, _: Bytes) -> Sent {
        Sent::Down
    }

    fn set_peers(&self, _: &[Peer]) {}

    fn fetch(
        &self,
        _: NodeId,
        request: SnapshotRequest,
    ) -> BoxFuture<'static, Result<SnapshotStream, FetchError>> {
        self.asked.lock().unwrap().push((request.offset, request.identity));
        let mut served = self.served.lock().unwrap();
        let served = if served.len() > 1 { served.remove(0) } else { served[0].clone() };
        Box::pin(async move {
            if request.identity.is_some_and(|identity| identity != served.identity) {
                return Err(FetchError::Changed);
            }
            let (length, offset) = (served.bytes.len(), request.offset as usize);
            let (sink, stream) =
                SnapshotStream::new(length as u64, served.identity, request.offset);
            tokio::spawn(async move {
                let end = length.min(offset.saturating_add(served.breaks_after));
                for offset in (offset..end).step_by(10_000) {
                    let bytes = served.bytes.slice(offset..end.min(offset + 10_000));
                    let chunk = quorate_transport::SnapshotChunk { offset: offset as u64, bytes };
                    if !sink.put(Ok(chunk)).await {
                        return;
                    }
                }
                if end == offset {
                    // Silent, and still connected.
                    std::future::pending::<()>().await;
                }
            });
            Ok(stream)
        })
    }

    fn peers(&self) -> Vec<PeerStatus> {
        Vec::new()
    }

    fn metrics(&self) -> Metrics {
        Metrics::default()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

fn endpoint(snapshots: &Arc<Snapshots>) -> Endpoint {
    let limits = InboxLimits { messages_max: 10, requests_max: 10, bytes_max: 1000 };
    Endpoint {
        node: NodeId(1),
        cluster: CLUSTER,
        incarnation: Incarnation(1),
        founders: Arc::default(),
        inbox: Arc::new(Inbox::new(limits)),
        snapshots: Arc::clone(snapshots),
        asks: Arc::new(Asks::new(NodeId(1), 0, tokio::runtime::Handle::current())),
        receiving: Arc::default(),
    }
}

fn shared(endpoint: &Endpoint) -> Arc<Shared> {
    let log = Log::Memory(Arc::new(MemoryLog::default()));
    let asks = Arc::clone(&endpoint.asks);
    Arc::new(Shared::new(Arc::clone(&endpoint.inbox), asks, log, Index::ZERO))
}

fn remote(transport: &Arc<Fake>, endpoint: &Endpoint) -> Remote {
    let transport = Arc::clone(transport) as Arc<dyn Transport>;
    Remote::start(transport, endpoint.clone(), shared(endpoint), Vec::new(), whole).unwrap()
}

/// Waits until a fetch has ended; whether all is here, and what was told of it.
async fn ended(endpoint: &Endpoint) -> (bool, Vec<String>) {
    let mut told = Vec::new();
    loop {
        endpoint.inbox.wait().await;
        let mut arrivals = Arrivals::default();
        endpoint.inbox.take(&mut arrivals, 0);
        for report in arrivals.reports {
            match report {
                Report::Fetching { .. } | Report::FetchEnded { .. } => {}
                Report::FetchFailed { why, .. } => told.push(why),
                Report::Event(Event::Fetched { complete, .. }) => {
                    return (complete, told);
                }
                _ => panic!("nothing else happens here"),
            }
        }
    }
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_was() {
    let place = Place::new();
    let bytes = Bytes::from(file_of(&place, 1));
    let served = Served { bytes: bytes.clone(), identity: 5, breaks_after: 200_000 };
    let (snapshots, transport) = (place.snapshots("into"), Fake::new(&[served]));
    let endpoint = endpoint(&snapshots);
    let remote = remote(&transport, &endpoint);
    remote.fetch(NodeId(2), meta());
    assert_eq!(ended(&endpoint).await, (true, vec![]));
    assert!(read(&snapshots) == bytes);
    let asked = transport.asked.lock().unwrap().clone();
    assert_eq!(asked, [(0, None), (200_000, Some(5)), (400_000, Some(5))]);
}

#[tokio::test]
async fn the_next_life_goes_on_with_the_same_file_only() {
    for (identity, expected) in
        [(5, vec![(300_000 - 65_536, Some(5))]), (6, vec![(300_000 - 65_536, Some(5)), (0, None)])]
    {
        let place = Place::new();
        let snapshots = place.snapshots("into");
        {
            // An earlier life ended within a transfer.
            let mut incoming = snapshots.receive(ID).unwrap();
            incoming.of_file(5).unwrap();
            incoming.push(&file_of(&place, 1)[..300_000]).unwrap();
        }
        let bytes = Bytes::from(file_of(&place, if identity == 5 { 1 } else { 2 }));
        let served = Served { bytes: bytes.clone(), identity, breaks_after: usize::MAX };
        let transport = Fake::new(&[served]);
        let endpoint = endpoint(&snapshots);
        let remote = remote(&transport, &endpoint);
        remote.fetch(NodeId(2), meta());
        assert_eq!(ended(&endpoint).await, (true, vec![]));
        assert!(read(&snapshots) == bytes, "not a mixture");
        assert_eq!(*transport.asked.lock().unwrap(), expected);
        let left = std::fs::read_dir(place.0.join("into")).unwrap().count();
        assert_eq!(left, 1, "nothing is left of the way");
    }
}

#[tokio::test]
async fn a_beginning_of_an_unknown_file_is_not_trusted() {
    let place = Place::new();
    let snapshots = place.snapshots("into");
    let mut incoming = snapshots.receive(ID).unwrap();
    incoming.push(&file_of(&place, 1)[..300_000]).unwrap();
    drop(incoming);
    let bytes = Bytes::from(file_of(&place, 2));
    let served = Served { bytes: bytes.clone(), identity: 6, breaks_after: usize::MAX };
    let transport = Fake::new(&[served]);
    let endpoint = endpoint(&snapshots);
    let remote = remote(&transport, &endpoint);
    remote.fetch(NodeId(2), meta());
    assert_eq!(ended(&endpoint).await, (true, vec![]));
    assert!(read(&snapshots) == bytes);
    assert_eq!(*transport.asked.lock().unwrap(), [(0, None)]);
}

#[tokio::test]
async fn a_later_fetch_ends_the_one_before() {
    let place = Place::new();
    let bytes = Bytes::from(file_of(&place, 1));
    let silent = Served { bytes: bytes.clone(), identity: 5, breaks_after: 0 };
    let whole = Served { breaks_after: usize::MAX, ..silent.clone() };
    let (snapshots, transport) = (place.snapshots("into"), Fake::new(&[silent, whole]));
    let endpoint = endpoint(&snapshots);
    let remote = remote(&transport, &endpoint);
    remote.fetch(NodeId(2), meta());
    while transport.asked.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    remote.fetch(NodeId(3), meta());
    assert_eq!(ended(&endpoint).await, (false, vec![]), "nobody need hear of that");
    assert_eq!(ended(&endpoint).await, (true, vec![]));
    assert!(read(&snapshots) == bytes);
}

#[tokio::test]
async fn a_snapshot_that_is_damaged_is_told_and_dropped() {
    let place = Place::new();
    let mut bytes = file_of(&place, 1);
    bytes[100_000] ^= 1;
    let served = Served { bytes: bytes.into(), identity: 5, breaks_after: usize::MAX };
    let (snapshots, transport) = (place.snapshots("into"), Fake::new(&[served]));
    let endpoint = endpoint(&snapshots);
    let remote = remote(&transport, &endpoint);
    remote.fetch(NodeId(2), meta());
    assert_eq!(ended(&endpoint).await, (false, vec!["a chunk is damaged".to_owned()]));
    assert_eq!(snapshots.receive(ID).unwrap().offset(), 0);
}

#[tokio::test]
async fn bad_messages_are_counted_and_told_once_a_peer() {
    let snapshots = Arc::new(Snapshots::in_memory());
    let endpoint = endpoint(&snapshots);
    let shared = shared(&endpoint);
    let ears =
        Ears { endpoint: endpoint.clone(), shared: Arc::clone(&shared), bad: Mutex::default() };
    let mut events = shared.events.subscribe();
    let good = NodeMessage::Raft(quorate_raft::Envelope {
        cluster: CLUSTER,
        group: quorate_raft::GroupId(0),
        from: NodeId(2),
        incarnation: Incarnation(2),
        to: NodeId(1),
        term: Term(1),
        message: Message::TimeoutNow,
    });
    for from in [NodeId(3), NodeId(2), NodeId(3)] {
        let mut frames = vec![good.to_bytes(), Bytes::from_static(b"noise")];
        assert!(ears.received(from, Lane::Urgent, frames.drain(..)).is_none());
    }
    let mut arrivals = Arrivals::default();
    endpoint.inbox.take(&mut arrivals, 0);
    assert_eq!(arrivals.messages, [good]);
    assert_eq!(shared.counters.values().messages_bad, 5);
    let told = |event| match event {
        NodeEvent::BadMessage { peer, why } => (peer.0, why),
        other => panic!("{other}"),
    };
    let first = told(events.try_recv().unwrap());
    assert_eq!(first, (3, "it names node 2 as its sender".to_owned()));
    assert_eq!(told(events.try_recv().unwrap()).0, 2);
    assert!(events.try_recv().is_err());
}
