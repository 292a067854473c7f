//! How the nodes of a cluster reach each other.
//!
//! A [`Transport`] carries opaque frames between nodes and knows nothing of what they mean. The
//! host gives it a [`Handler`], tells it the peers, and sends:
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
#![doc(test(attr(deny(warnings))))]

mod admission;
mod handler;
mod in_process;
mod refusal;
mod snapshot;
mod status;
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
pub use transport::{BoxFuture, Identity, Lane, Peer, Sent, StartError, Transport};
