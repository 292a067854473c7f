//! Replicate your own state machine.

mod builder;
mod clock;
mod codec;
mod control;
mod disk_log;
mod driver;
mod durable;
mod error;
mod events;
mod handle;
mod inbox;
mod machine;
mod machinist;
mod members;
mod memory_log;
mod metrics;
mod network;
mod recovery;
mod remote;
mod replica;
mod replies;
mod session;
mod shared;
mod snapshot_file;
mod snapshots;
pub mod testing;

pub use builder::{Apply, Builder, Tuning};
pub use codec::{Codec, CodecError, Raw};
pub use durable::{Applied, Batch, DurableStateMachine, LibraryRow, Opened, Restore};
pub use error::{ProposeError, ReadError, SessionError, StartError, StopReason};
pub use events::{EVENTS_MAX, Events, Heard, NodeEvent};
pub use handle::{Age, Consistency, Handle, Node, Pending};
#[cfg(feature = "postcard")]
pub use machine::read_snapshot;
pub use machine::{Snapshot, StateMachine};
pub use members::{CatchUp, ChangeError, FaultTolerance, TransferError};
pub use metrics::Metrics;
pub use network::InProcess;
pub use quorate_node::Settings;
pub use quorate_node::sessions::SessionId;
pub use quorate_raft::{
    Change, ChangeStep, Config, Index, LogId, Member, MemberRole, Membership, NodeId, PeerStatus,
    RoleName, Status, Term,
};
pub use replica::{Durable, Machine};
pub use session::Session;
