//! Peers behind a transport: messages as frames, snapshots as streams.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use std::vec::Drain;

use bytes::Bytes;
use quorate_node::{Event, NodeMessage};
use quorate_raft::{Incarnation, Index, LogId, Message, NodeId, SnapshotMeta, Term};
use quorate_transport::{
    FetchError, Handler, Lane, Note, Pause, Peer, PeerStatus, Sent, SnapshotRead, SnapshotRequest,
    SnapshotSource, Stranger, Transport,
};
use tokio::sync::watch;

use crate::builder::AddressOf;
use crate::error::StopReason;
use crate::events::NodeEvent;
use crate::inbox::{Inbox, Report};
use crate::metrics::Counters;
use crate::network::{BoxFuture, Endpoint, Network};
use crate::peers::Peers;
use crate::shared::{Matter, Shared};
use crate::snapshots::{Incoming, Source};

/// Messages that are larger go by the bulk lane, whatever they say.
const URGENT_BYTES_MAX: usize = 4 << 10;
/// How often a fetch is tried again in which nothing at all arrives.
const FETCH_TRIES_MAX: u32 = 20;
const FETCH_PAUSE: Duration = Duration::from_millis(200);

/// A [`Network`] over a [`Transport`].
pub(crate) struct Remote {
    transport: Arc<dyn Transport>,
    endpoint: Endpoint,
    /// Whom a node that waits to be added answers, until it knows the members.
    contacts: Vec<Peer>,
    address_of: AddressOf,
    /// Counts the fetches; a later one ends those before it.
    fetches: watch::Sender<u64>,
}

impl Remote {
    pub(crate) fn start(
        transport: Arc<dyn Transport>,
        endpoint: Endpoint,
        shared: Arc<Shared>,
        contacts: Vec<Peer>,
        address_of: AddressOf,
    ) -> Result<Self, quorate_transport::StartError> {
        transport.set_peers(&contacts);
        let bad = Mutex::default();
        let ears = Ears { endpoint: endpoint.clone(), shared, bad };
        transport.start(Arc::new(ears))?;
        Ok(Self { transport, endpoint, contacts, address_of, fetches: watch::channel(0).0 })
    }
}

impl Network for Remote {
    fn send(&self, to: NodeId, message: NodeMessage) {
        let entries = match &message {
            NodeMessage::Raft(envelope) => match &envelope.message {
                Message::AppendEntries(append) => !append.entries.is_empty(),
                _ => false,
            },
            NodeMessage::Forward(_) => true,
            NodeMessage::ForwardReply(_) => false,
        };
        let frame = message.to_bytes();
        let lane =
            if entries || frame.len() > URGENT_BYTES_MAX { Lane::Bulk } else { Lane::Urgent };
        // What is lost is repeated; the transport counts it.
        let _ = self.transport.send(to, lane, frame);
    }

    fn carry(&self, to: NodeId, frame: Bytes) -> bool {
        self.transport.send(to, Lane::Bulk, frame) == Sent::Queued
    }

    fn set_peers(&self, peers: &Peers) {
        if peers.is_empty() {
            return self.transport.set_peers(&self.contacts);
        }
        let peer = |(node, member): (NodeId, &quorate_raft::Member)| Peer {
            node,
            address: (self.address_of)(&member.context),
            incarnation: member.incarnation,
        };
        let peers: Vec<Peer> = peers.all().map(peer).collect();
        self.transport.set_peers(&peers);
    }

    fn peers(&self) -> Vec<PeerStatus> {
        self.transport.peers()
    }

    fn fetch(&self, from: NodeId, snapshot: SnapshotMeta) {
        self.fetches.send_modify(|serial| *serial += 1);
        let mut wanted = Wanted(self.fetches.subscribe());
        let (transport, endpoint) = (Arc::clone(&self.transport), self.endpoint.clone());
        let runtime = tokio::runtime::Handle::current();
        // The bytes go to the disk, so this runs where waiting for it harms nobody.
        tokio::task::spawn_blocking(move || {
            endpoint.receive(from, &snapshot, |incoming| {
                runtime.block_on(pull(&*transport, from, snapshot.id, incoming, &mut wanted))
            });
        });
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.fetches.send_modify(|serial| *serial += 1);
        self.transport.shutdown()
    }
}

/// Whether a fetch is still wanted: only the latest is.
struct Wanted(watch::Receiver<u64>);

impl Wanted {
    /// Waits, as long as it is wanted.
    async fn or_give_up<T>(&mut self, work: impl Future<Output = T>) -> io::Result<T> {
        let mut unwanted = pin!(self.0.changed());
        let mut work = pin!(work);
        poll_fn(|context| {
            if unwanted.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::Interrupted.into()));
            }
            work.as_mut().poll(context).map(Ok)
        })
        .await
    }
}

/// Gets all bytes that are not here yet, resuming as often as something arrives between failures.
async fn pull(
    transport: &dyn Transport,
    from: NodeId,
    id: LogId,
    incoming: &mut Incoming<'_>,
    wanted: &mut Wanted,
) -> io::Result<()> {
    let mut tries = 0;
    loop {
        if incoming.identity().is_none() {
            incoming.restart()?;
        }
        let (offset, identity) = (incoming.offset(), incoming.identity());
        let request = SnapshotRequest { name: name_of(id), offset, identity };
        let failure = match wanted.or_give_up(transport.fetch(from, request)).await? {
            Ok(mut stream) => {
                incoming.of_file(stream.identity())?;
                loop {
                    match wanted.or_give_up(stream.next()).await? {
                        None => return Ok(()),
                        Some(Ok(chunk)) => {
                            incoming.push(&chunk.bytes)?;
                            tries = 0;
                        }
                        Some(Err(failure)) => break failure,
                    }
                }
            }
            // Another file: what is here is of no use.
            Err(FetchError::Changed) if identity.is_some() => {
                incoming.restart()?;
                continue;
            }
            Err(failure) => failure,
        };
        tries += 1;
        if !failure.is_transient() || tries > FETCH_TRIES_MAX {
            return Err(io::Error::other(failure));
        }
        let pause = match failure {
            FetchError::Busy { retry_after_ms } => Duration::from_millis(u64::from(retry_after_ms)),
            _ => FETCH_PAUSE,
        };
        wanted.or_give_up(tokio::time::sleep(pause)).await?;
    }
}

fn name_of(id: LogId) -> Bytes {
    let mut name = id.index.0.to_le_bytes().to_vec();
    name.extend_from_slice(&id.term.0.to_le_bytes());
    name.into()
}

fn id_of(name: &[u8]) -> Option<LogId> {
    let (index, term) = name.split_first_chunk::<8>()?;
    let term: [u8; 8] = term.try_into().ok()?;
    let (index, term) = (u64::from_le_bytes(*index), u64::from_le_bytes(term));
    Some(LogId::new(Index(index), Term(term)))
}

struct Ears {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    /// Peers of whose bad messages an event has told. Bounded by the nodes that the transport lets
    /// in.
    bad: Mutex<BTreeSet<NodeId>>,
}

impl Ears {
    /// The message of a frame. A peer speaks for itself only.
    fn message(&self, from: NodeId, frame: &Bytes) -> Option<NodeMessage> {
        let why = match NodeMessage::from_bytes(frame) {
            Ok(message) if message.from() == from => return Some(message),
            Ok(message) => format!("it names node {} as its sender", message.from()),
            Err(why) => why.to_string(),
        };
        Counters::add(&self.shared.counters.messages_bad, 1);
        if self.bad.lock().unwrap_or_else(PoisonError::into_inner).insert(from) {
            self.shared.tell(NodeEvent::BadMessage { peer: from, why });
        }
        None
    }
}

impl Handler for Ears {
    fn received(&self, from: NodeId, lane: Lane, frames: Drain<'_, Bytes>) -> Option<Pause> {
        let inbox = &self.endpoint.inbox;
        let messages = frames.filter_map(|frame| {
            if self.endpoint.asks.received(from, &frame) {
                return None;
            }
            self.message(from, &frame)
        });
        match lane {
            Lane::Urgent => {
                for message in messages {
                    if !inbox.message(message) {
                        Counters::add(&self.shared.counters.messages_lost, 1);
                    }
                }
                None
            }
            Lane::Bulk => inbox.messages(messages).then(|| {
                let inbox: Arc<Inbox> = Arc::clone(inbox);
                let pause: Pause = Box::pin(async move { inbox.room().await });
                pause
            }),
        }
    }

    fn admits(&self, _: &Stranger) -> bool {
        // A node that waits to be added knows nobody.
        !self.shared.membership.borrow().contains(self.endpoint.node)
    }

    fn peer_closed(&self, peer: NodeId, incarnation: Incarnation) {
        self.endpoint.inbox.event(Event::PeerClosed { peer, incarnation });
    }

    fn open_snapshot(&self, to: NodeId, name: &[u8]) -> io::Result<Option<SnapshotSource>> {
        let Some(id) = id_of(name) else { return Ok(None) };
        let (mut source, length) = match self.endpoint.snapshots.open(id) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // The last word is a checksum of all checksums.
        let mut end = [0; 4];
        source.seek_to(length.saturating_sub(4))?;
        source.read_exact(&mut end)?;
        let identity = u64::from(u32::from_le_bytes(end)) << 32 | (length & 0xffff_ffff);
        self.shared.tell(NodeEvent::SnapshotSending { to, snapshot: id });
        let sending = Sending { shared: Arc::clone(&self.shared), to, id, complete: false };
        let reader = Box::new(Spooled { source, at: length, length, sending });
        Ok(Some(SnapshotSource { length, identity, reader }))
    }

    fn panicked(&self, message: &str) {
        let message = format!("a task of the transport panicked: {message}");
        self.endpoint.inbox.report(Report::Stop(StopReason::Internal { message }));
    }

    fn note(&self, note: Note) {
        if let Note::Connected { peer, .. } = note
            && self.shared.over(&Matter::Unreachable(peer))
        {
            self.shared.tell(NodeEvent::Reached { peer });
        }
        match Matter::of_note(&note) {
            Some(matter) => self.shared.tell_again(&matter, NodeEvent::Transport(note)),
            None => self.shared.tell(NodeEvent::Transport(note)),
        }
    }
}

struct Spooled {
    source: Box<dyn Source>,
    at: u64,
    length: u64,
    sending: Sending,
}

/// A snapshot on its way out: tells of the end, however that comes.
struct Sending {
    shared: Arc<Shared>,
    to: NodeId,
    id: LogId,
    complete: bool,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let Self { to, id: snapshot, complete, .. } = *self;
        self.shared.tell(NodeEvent::SnapshotSent { to, snapshot, complete });
    }
}

impl SnapshotRead for Spooled {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at != offset {
            self.source.seek_to(offset)?;
            self.at = offset;
        }
        let count = self.source.read(buffer)?;
        self.at += count as u64;
        self.sending.complete |= self.at == self.length;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
