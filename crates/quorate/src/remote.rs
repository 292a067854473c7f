//! Peers behind a transport: messages as frames, snapshots as streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::vec::Drain;

use bytes::Bytes;
use quorate_node::{Event, NodeMessage};
use quorate_raft::{Incarnation, Index, LogId, Membership, Message, NodeId, SnapshotMeta, Term};
use quorate_transport::{
    FetchError, Handler, Lane, Note, Pause, Peer, SnapshotRead, SnapshotRequest, SnapshotSource,
    Stranger, Transport,
};

use crate::events::NodeEvent;
use crate::inbox::Inbox;
use crate::network::{BoxFuture, Endpoint, Network};
use crate::shared::Shared;
use crate::snapshots::Source;

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
    /// Counts the fetches; a later one ends those before it.
    fetches: Arc<AtomicU64>,
}

impl Remote {
    pub(crate) fn start(
        transport: Arc<dyn Transport>,
        endpoint: Endpoint,
        shared: Arc<Shared>,
        contacts: Vec<Peer>,
    ) -> Result<Self, quorate_transport::StartError> {
        transport.set_peers(&contacts);
        let ears = Ears { endpoint: endpoint.clone(), shared };
        transport.start(Arc::new(ears))?;
        Ok(Self { transport, endpoint, contacts, fetches: Arc::default() })
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

    fn set_peers(&self, membership: &Membership) {
        if membership.is_empty() {
            return self.transport.set_peers(&self.contacts);
        }
        let peer = |(node, member): (NodeId, &quorate_raft::Member)| Peer {
            node,
            address: String::from_utf8_lossy(&member.context).into_owned(),
            incarnation: member.incarnation,
        };
        let peers: Vec<Peer> = membership.members().map(peer).collect();
        self.transport.set_peers(&peers);
    }

    fn fetch(&self, from: NodeId, snapshot: SnapshotMeta) {
        let serial = self.fetches.fetch_add(1, Ordering::Relaxed) + 1;
        let fetches = Arc::clone(&self.fetches);
        let current = move || fetches.load(Ordering::Relaxed) == serial;
        let (transport, endpoint) = (Arc::clone(&self.transport), self.endpoint.clone());
        let runtime = tokio::runtime::Handle::current();
        // The bytes go to the disk, so this runs where waiting for it harms nobody.
        tokio::task::spawn_blocking(move || {
            endpoint.receive(&snapshot, |offset, push| {
                runtime.block_on(pull(&*transport, from, snapshot.id, offset, &current, push))
            });
        });
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        self.transport.shutdown()
    }
}

/// Gets all bytes from `offset` on, resuming as often as something arrives between failures.
async fn pull(
    transport: &dyn Transport,
    from: NodeId,
    id: LogId,
    mut offset: u64,
    current: &(dyn Fn() -> bool + Sync),
    push: &mut (dyn FnMut(&[u8]) -> std::io::Result<()> + Send),
) -> std::io::Result<()> {
    let mut identity = None;
    let mut tries = 0;
    loop {
        if !current() {
            return Err(std::io::Error::other("another snapshot is wanted"));
        }
        let request = SnapshotRequest { name: name_of(id), offset, identity };
        let failure = match transport.fetch(from, request).await {
            Ok(mut stream) => {
                identity = Some(stream.identity());
                loop {
                    match stream.next().await {
                        None => return Ok(()),
                        Some(Ok(chunk)) => {
                            push(&chunk.bytes)?;
                            offset = stream.position();
                            tries = 0;
                            if !current() {
                                return Err(std::io::Error::other("another snapshot is wanted"));
                            }
                        }
                        Some(Err(failure)) => break failure,
                    }
                }
            }
            Err(failure) => failure,
        };
        tries += 1;
        if !failure.is_transient() || tries > FETCH_TRIES_MAX {
            return Err(std::io::Error::other(failure));
        }
        let pause = match failure {
            FetchError::Busy { retry_after_ms } => Duration::from_millis(u64::from(retry_after_ms)),
            _ => FETCH_PAUSE,
        };
        tokio::time::sleep(pause).await;
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
}

impl Handler for Ears {
    fn received(&self, from: NodeId, lane: Lane, frames: Drain<'_, Bytes>) -> Option<Pause> {
        let inbox = &self.endpoint.inbox;
        let messages = frames.filter_map(|frame| {
            // A peer speaks for itself only.
            NodeMessage::from_bytes(&frame).ok().filter(|message| message.from() == from)
        });
        match lane {
            Lane::Urgent => {
                for message in messages {
                    inbox.message(message);
                }
                None
            }
            Lane::Bulk => inbox.messages(messages).then(|| {
                let inbox: Arc<Inbox> = Arc::clone(inbox);
                let pause: Pause = Box::pin(async move {
                    while !inbox.has_room() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                });
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

    fn open_snapshot(&self, _: NodeId, name: &[u8]) -> std::io::Result<Option<SnapshotSource>> {
        let Some(id) = id_of(name) else { return Ok(None) };
        let (mut source, length) = match self.endpoint.snapshots.open(id) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // The last word is a checksum of all checksums.
        let mut end = [0; 4];
        source.seek_to(length.saturating_sub(4))?;
        source.read_exact(&mut end)?;
        let identity = u64::from(u32::from_le_bytes(end)) << 32 | (length & 0xffff_ffff);
        let reader = Box::new(Spooled { source, at: length });
        Ok(Some(SnapshotSource { length, identity, reader }))
    }

    fn note(&self, note: Note) {
        self.shared.tell(NodeEvent::Transport(note));
    }
}

struct Spooled {
    source: Box<dyn Source>,
    at: u64,
}

impl SnapshotRead for Spooled {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at != offset {
            self.source.seek_to(offset)?;
            self.at = offset;
        }
        let count = self.source.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}
