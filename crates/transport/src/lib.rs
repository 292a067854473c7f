//! How the nodes of a cluster reach each other.
//!
//! A [`Transport`] carries opaque frames between nodes. It knows connections, back-off and who may
//! connect; it has never heard of leaders, logs or what a frame means. A host gives it a
//! [`Handler`] to call, names the [`Peer`]s, and sends:
//!
//! ```
//! use std::sync::Arc;
//! use std::vec::Drain;
//!
//! use bytes::Bytes;
//! use quorate_raft::{ClusterId, Incarnation, NodeId};
//! use quorate_transport::{
//!     Handler, Identity, InProcess, Lane, Pause, Peer, SnapshotSource, Transport,
//! };
//! use tokio::sync::mpsc;
//!
//! struct Inbox(mpsc::Sender<(NodeId, Bytes)>);
//!
//! impl Handler for Inbox {
//!     fn received(&self, from: NodeId, _: Lane, frames: Drain<'_, Bytes>) -> Option<Pause> {
//!         for frame in frames {
//!             // Full: dropped. Raft sends again what matters.
//!             let _ = self.0.try_send((from, frame));
//!         }
//!         None
//!     }
//!     fn peer_closed(&self, _: NodeId, _: Incarnation) {}
//!     fn open_snapshot(&self, _: NodeId, _: &[u8]) -> std::io::Result<Option<SnapshotSource>> {
//!         Ok(None)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let network = InProcess::new();
//! let mut inboxes = Vec::new();
//! let mut transports = Vec::new();
//! for id in [1, 2] {
//!     let transport = network.join(Identity {
//!         cluster: ClusterId(7),
//!         node: NodeId(id),
//!         incarnation: Incarnation(100 + id),
//!         boot: id,
//!         features: 0,
//!         founders: Arc::default(),
//!     });
//!     let (sender, inbox) = mpsc::channel(16);
//!     transport.start(Arc::new(Inbox(sender))).unwrap();
//!     let peer = |id| Peer { node: NodeId(id), address: String::new(), incarnation: None };
//!     transport.set_peers(&[peer(1), peer(2)]);
//!     inboxes.push(inbox);
//!     transports.push(transport);
//! }
//! transports[0].send(NodeId(2), Lane::Urgent, Bytes::from_static(b"heartbeat"));
//! let (from, frame) = inboxes[1].recv().await.unwrap();
//! assert_eq!((from, &frame[..]), (NodeId(1), &b"heartbeat"[..]));
//! # }
//! ```
//!
//! # What a host may count on
//!
//! A transport for Raft can promise little, and should promise exactly that. Raft repeats whatever
//! matters, so a frame that cannot be delivered *soon* is dropped: it would be out of date before
//! it arrived. What the host gets instead is that nothing ever blocks and nothing grows:
//! [`Transport::send`] puts the frame into a queue with a bound on frames and on bytes and says
//! what became of it ([`Sent`]). The order holds within a lane, while a connection lasts.
//!
//! There are two lanes. A heartbeat that waits behind 64 MiB of entries is a heartbeat lost, and
//! the election that follows makes everything worse; so [`Lane::Urgent`] and [`Lane::Bulk`] have
//! connections of their own, as do snapshots.
//!
//! A host that cannot keep up says so by returning a [`Pause`] from [`Handler::received`]: the
//! connection is not read until the pause is over, TCP tells the sender, the sender's queue fills,
//! and its host sees [`Sent::Full`]. That holds for bulk only. The urgent lane is always read; a
//! host that does not know how it stands with its leader is no use to anybody.
//!
//! # Two networks
//!
//! * [`Tcp`] is the real one. `docs/transport-format.md` has its bytes.
//! * [`InProcess`] joins nodes of one process, for tests: links are cut, slowed down and healed,
//!   nodes are killed, and the rules of who may connect are the same.
//!
//! Bring your own by implementing [`Transport`]; its documentation says what is expected, and
//! [`suite::check`] whether you have met it.
//!
//! # Who may connect
//!
//! A connection begins with an introduction: cluster, node, incarnation (a random number made with
//! the data directory), boot (a random number drawn at each start), and whom the dialling side
//! means to reach. From these follow the refusals, which travel to the other side as a
//! [`Refusal`] that says in words what to do, and to both hosts as a [`Note`]:
//!
//! | found | refused as |
//! |---|---|
//! | protocol versions that do not meet | [`RefusalCode::Version`] |
//! | a node of another cluster | [`RefusalCode::WrongCluster`] |
//! | not the node that was dialled | [`RefusalCode::WrongNode`] |
//! | founded with other members ([`Identity::founders`]) | [`RefusalCode::OtherFounders`] |
//! | a disk that was wiped, under its old id | [`RefusalCode::WrongIncarnation`] |
//! | a second living process with the same id | [`RefusalCode::DuplicateNode`] |
//! | a node that is not a member, unless [`Handler::admits`] lets it in | [`RefusalCode::UnknownNode`] |
//!
//! Whatever does not even speak the protocol is hung up on without a word, and counted.
//!
//! # Death and silence
//!
//! They are different news. When a process dies, its kernel closes or resets its connections
//! within microseconds; the host hears [`Handler::peer_closed`], and an election can begin long
//! before any time-out. When a cable is cut, nothing is said at all, and nothing may be concluded:
//! after a few unanswered pings the connection is given up and made anew, and the host hears only
//! that frames do not get through.
//!
//! # Snapshots
//!
//! The receiver pulls ([`Transport::fetch`]); chunks are checksummed; a transfer that broke is
//! resumed at its offset, in the very same file. The sender bounds bytes per second and transfers
//! at once, so that they disturb nobody:
//!
//! ```
//! use quorate_raft::NodeId;
//! use quorate_transport::{FetchError, SnapshotRequest, Transport};
//!
//! /// Fetches a snapshot into memory, resuming as often as the connection breaks.
//! async fn fetch(
//!     transport: &dyn Transport,
//!     from: NodeId,
//!     mut request: SnapshotRequest,
//! ) -> Result<Vec<u8>, FetchError> {
//!     let mut bytes = Vec::new();
//!     loop {
//!         let error = match transport.fetch(from, request.clone()).await {
//!             Ok(mut stream) => {
//!                 request.identity = Some(stream.identity());
//!                 loop {
//!                     match stream.next().await {
//!                         None => return Ok(bytes),
//!                         Some(Ok(chunk)) => bytes.extend_from_slice(&chunk.bytes),
//!                         Some(Err(error)) => break error,
//!                     }
//!                 }
//!             }
//!             Err(error) => error,
//!         };
//!         if !error.is_transient() {
//!             return Err(error);
//!         }
//!         request.offset = bytes.len() as u64;
//!         let pause = match error {
//!             FetchError::Busy { retry_after_ms } => u64::from(retry_after_ms),
//!             _ => 100,
//!         };
//!         tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
//!     }
//! }
//! # let _ = fetch;
//! ```
//!
//! # What is not here
//!
//! * **Encryption and authentication.** A node is who it says it is. The place for TLS is
//!   [`Security`], around each connection before its handshake; until then keep strangers out by
//!   other means.
//! * **Acknowledgements, retries, exactly-once.** That is Raft's work.
//! * **The meaning of frames.** That a message inside a frame names the sender that the connection
//!   proved is for the host to check: it knows where to look.
#![doc(test(attr(deny(warnings))))]

mod admission;
mod handler;
mod in_process;
mod refusal;
mod snapshot;
mod status;
pub mod suite;
mod tasks;
mod tcp;
mod transport;

pub use handler::{Handler, Note, Pause, Stranger};
pub use in_process::{InProcess, InProcessTransport};
pub use refusal::{Refusal, RefusalCode};
pub use snapshot::{
    FetchError, SNAPSHOT_NAME_BYTES_MAX, SnapshotChunk, SnapshotRead, SnapshotRequest,
    SnapshotSink, SnapshotSource, SnapshotStream,
};
pub use status::{LaneStatus, Metrics, PeerStatus};
pub use tcp::{Plain, Security, Settings, Stream, Tcp};
pub use transport::{BoxFuture, FOUNDERS_MAX, Identity, Lane, Peer, Sent, StartError, Transport};
