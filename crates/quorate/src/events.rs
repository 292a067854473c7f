//! What happens in a node, as a stream for whoever wants to know.

use std::fmt;
use std::sync::Arc;

use quorate_raft::{Index, LogId, Membership, NodeId, Notice, RoleName, StepDownReason, Term};
use quorate_transport::Note;
use tokio::sync::broadcast;

use crate::error::StopReason;

/// Something that happened in a node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NodeEvent {
    /// This node plays another role.
    Role {
        /// The role.
        role: RoleName,
        /// In which term.
        term: Term,
    },
    /// Another node leads, or none that is known.
    Leader {
        /// Who.
        leader: Option<NodeId>,
        /// In which term.
        term: Term,
    },
    /// This node gave up leadership.
    SteppedDown {
        /// The term that it led.
        term: Term,
        /// Why, a stalled disk among the reasons.
        why: StepDownReason,
    },
    /// Another configuration is in force. It may still be rolled back until it is committed.
    Membership {
        /// The configuration.
        membership: Arc<Membership>,
        /// Where it stands in the log.
        at: Index,
    },
    /// This node's state was written into a snapshot.
    SnapshotTaken {
        /// Up to where.
        at: LogId,
        /// How large it is.
        bytes: u64,
    },
    /// No snapshot could be written; the log grows until one can.
    SnapshotFailed {
        /// Why.
        why: String,
    },
    /// A snapshot of another node has replaced this node's state.
    SnapshotInstalled {
        /// Up to where.
        at: LogId,
    },
    /// A snapshot of another node begins to be fetched.
    SnapshotFetching {
        /// From whom.
        from: NodeId,
        /// Which one.
        snapshot: LogId,
    },
    /// That has ended.
    SnapshotFetched {
        /// From whom.
        from: NodeId,
        /// Which one.
        snapshot: LogId,
        /// Whether all of it is here. If not, it broke off, or is not wanted any more.
        complete: bool,
    },
    /// A peer begins to fetch a snapshot of this node, or goes on after a break.
    SnapshotSending {
        /// Who.
        to: NodeId,
        /// Which one.
        snapshot: LogId,
    },
    /// That has ended.
    SnapshotSent {
        /// Who.
        to: NodeId,
        /// Which one.
        snapshot: LogId,
        /// Whether it was read to its end.
        complete: bool,
    },
    /// A snapshot of another node could not be fetched. What has arrived is kept, and it is asked for
    /// again as long as it is needed.
    FetchFailed {
        /// From whom.
        from: NodeId,
        /// Which one.
        snapshot: LogId,
        /// Why.
        why: String,
    },
    /// A message of a peer could not be read, or named another sender; it is dropped. Told once per
    /// peer; [`Metrics::messages_bad`](crate::Metrics::messages_bad) counts all.
    BadMessage {
        /// Who sent it.
        peer: NodeId,
        /// What is wrong with it.
        why: String,
    },
    /// The oldest write has been under way for long. The core gives up leadership if it takes longer
    /// than `disk_stall_timeout`.
    DiskStalled {
        /// Since how many microseconds.
        micros: u64,
    },
    /// The disk is full, or there is room again.
    NoSpace {
        /// Whether it is full.
        full: bool,
    },
    /// A peer has not been heard from for an election timeout, as this leader sees it.
    PeerSilent {
        /// Who.
        peer: NodeId,
    },
    /// A silent peer answers again.
    PeerBack {
        /// Who.
        peer: NodeId,
    },
    /// News of the transport: connections made and lost, refusals, peers that cannot be reached.
    Transport(Note),
    /// A peer of which it was told that it cannot be reached is connected.
    Reached {
        /// Who.
        peer: NodeId,
    },
    /// The cluster has committed a configuration without this node, which was a member: nobody listens
    /// to it any more. Stop it, and delete its directory; its id is never used again.
    Removed {
        /// Where that configuration stands in the log.
        at: Index,
    },
    /// Something happens again and again that was told before: a peer that is refused at each attempt,
    /// say, or that cannot be reached. Such things are told at once, again after ten seconds, and then
    /// after twice as long each time, up to an hour.
    Repeated {
        /// What has happened, as it was the last time.
        event: Box<NodeEvent>,
        /// How often since it was told last.
        times: u64,
    },
    /// Something that an operator should see, as the core says it.
    Notice(Notice),
    /// The node has stopped. Nothing follows.
    Stopped(StopReason),
}

impl fmt::Display for NodeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role { role, term } => write!(f, "{role} in term {term}"),
            Self::Leader { leader: Some(leader), term } => {
                write!(f, "node {leader} leads term {term}")
            }
            Self::Leader { leader: None, term } => write!(f, "no leader is known in term {term}"),
            Self::SteppedDown { term, why } => write!(f, "gave up leading term {term}: {why}"),
            Self::Membership { membership, at } => write!(f, "members: {membership} (index {at})"),
            Self::SnapshotTaken { at, bytes } => write!(f, "snapshot {at} of {bytes} bytes"),
            Self::SnapshotFailed { why } => write!(f, "no snapshot could be written: {why}"),
            Self::SnapshotInstalled { at } => write!(f, "installed snapshot {at}"),
            Self::SnapshotFetching { from, snapshot } => {
                write!(f, "fetches snapshot {snapshot} from node {from}")
            }
            Self::SnapshotFetched { from, snapshot, complete: true } => {
                write!(f, "fetched snapshot {snapshot} from node {from}")
            }
            Self::SnapshotFetched { from, snapshot, complete: false } => {
                write!(f, "stopped fetching snapshot {snapshot} from node {from}")
            }
            Self::SnapshotSending { to, snapshot } => {
                write!(f, "sends snapshot {snapshot} to node {to}")
            }
            Self::SnapshotSent { to, snapshot, complete: true } => {
                write!(f, "sent snapshot {snapshot} to node {to}")
            }
            Self::SnapshotSent { to, snapshot, complete: false } => {
                write!(f, "stopped sending snapshot {snapshot} to node {to}")
            }
            Self::FetchFailed { from, snapshot, why } => {
                write!(f, "snapshot {snapshot} could not be fetched from node {from}: {why}")
            }
            Self::BadMessage { peer, why } => write!(f, "bad message of node {peer}: {why}"),
            Self::DiskStalled { micros } => write!(f, "the disk takes {} ms", micros / 1000),
            Self::NoSpace { full: true } => f.write_str("the disk is full"),
            Self::NoSpace { full: false } => f.write_str("the disk has room again"),
            Self::PeerSilent { peer } => write!(f, "node {peer} is silent"),
            Self::PeerBack { peer } => write!(f, "node {peer} answers again"),
            Self::Transport(note) => write_note(f, note),
            Self::Reached { peer } => write!(f, "node {peer} is reached again"),
            Self::Removed { at } => {
                write!(f, "this node was removed from the cluster at index {at}")
            }
            Self::Repeated { event, times } => write!(f, "{event} ({times} times since last told)"),
            Self::Notice(notice) => notice.fmt(f),
            Self::Stopped(why) => write!(f, "stopped: {why}"),
        }
    }
}

fn write_note(f: &mut fmt::Formatter<'_>, note: &Note) -> fmt::Result {
    match note {
        Note::Connected { peer, lane } => write!(f, "connected to node {peer} ({lane})"),
        Note::Disconnected { peer, lane, why } => {
            write!(f, "disconnected from node {peer} ({lane}): {why}")
        }
        Note::Refused { node, address, refusal, .. } => {
            write!(f, "refused node {node} at {address}: {refusal}")
        }
        Note::RefusedBy { peer, address, refusal } => {
            write!(f, "refused by node {peer} at {address}: {refusal}")
        }
        Note::Unreachable { peer, address, why } => {
            write!(f, "cannot reach node {peer} at {address}: {why}")
        }
        other => write!(f, "{other:?}"),
    }
}

/// A listener to a node's events. The node never waits for it: if it is slow, it loses the oldest.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<NodeEvent>,
}

/// How many events are kept for a slow listener.
pub const EVENTS_MAX: usize = 256;

/// What a listener gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The next event.
    Event(NodeEvent),
    /// The listener was too slow: so many events are lost, and the next one follows on them.
    Missed(u64),
}

impl Events {
    pub(crate) const fn new(receiver: broadcast::Receiver<NodeEvent>) -> Self {
        Self { receiver }
    }

    /// Waits for the next event. `None` when the node has stopped.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.receiver.recv().await {
            Ok(event) => Some(Heard::Event(event)),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Heard::Missed(count)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
