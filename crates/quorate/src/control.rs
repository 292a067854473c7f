//! What a handle wants of the driver besides requests to the node.

use quorate_raft::Status;
use tokio::sync::oneshot;

pub(crate) enum Control {
    Status(oneshot::Sender<Status>),
    /// Take a snapshot now; said when it is durable, or why it is not.
    Snapshot(oneshot::Sender<Result<(), String>>),
    /// Stop, without handing leadership over.
    Stop,
}
