//! What a Raft host decides, as a pure step function around the core.
//!
//! The core says what must be written, sent and applied. Between it and its clients there are more
//! decisions, none of which is I/O: which entry answers which request, what a follower does with a
//! command, when a read may be served, what to do for a peer that needs a snapshot, how much of the
//! log to keep. They are here, in [`Node`]: [`Event`]s in, [`Action`]s out, without a clock, disk,
//! network or thread. The simulator drives exactly this, and production runs it.
//!
//! ```
//! use std::sync::Arc;
//!
//! use quorate_node::{Action, Event, Node, Settings};
//! use quorate_raft::{ClusterId, Config, Incarnation, Membership, NodeId, Recovered, Time};
//!
//! // A cluster of one, on an empty disk.
//! let config = Config::new(ClusterId(1), NodeId(1), Incarnation(1));
//! let recovered = Recovered::new(Arc::new(Membership::of_voters([NodeId(1)])), 1);
//! let mut node = Node::new(config, Settings::default(), Time(0), 1, recovered)?;
//!
//! // It wants to be woken; then it makes its vote for itself durable, and leads.
//! while let Some(now) = node.deadline() {
//!     node.step(now, Event::Wake);
//!     let actions = node.take_actions();
//!     if let Some(Action::Persist(persist)) = actions.first() {
//!         node.step(now, Event::Stored(persist.seq));
//!         break;
//!     }
//! }
//! assert_eq!(node.raft().leader(), Some(NodeId(1)));
//! # Ok::<(), quorate_raft::StartError>(())
//! ```
//!
//! # Sessions
//!
//! A command that is retried after an unknown outcome may be executed twice. [`sessions`] is the
//! cure: a replicated table that belongs to the state machine's side of the log, so [`Node`] does
//! not know it. The host puts it between the entries and the state machine.
#![forbid(unsafe_code)]

mod action;
mod event;
mod forwarding;
mod message;
mod node;
mod proposals;
pub mod sessions;
mod settings;
mod snapshots;
mod waiting;
mod wire;

pub use action::{Action, Executed, ProposeFailure, ReadFailure, Reply};
pub use event::{Event, Request};
pub use message::{Forward, ForwardReply, NodeMessage};
pub use node::Node;
pub use settings::{Settings, SnapshotPolicy};
