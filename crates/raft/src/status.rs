//! What a node looks like from outside.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::membership::Membership;
use crate::types::{Index, LogId, NodeId, Term, Time};

/// Which role a node plays (Figure 4; thesis 9.6 for the pre-candidate).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RoleName {
    /// Answers leaders and candidates.
    Follower,
    /// Asks whether it could win an election.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Serves clients and replicates the log.
    Leader,
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}

/// A node at one moment, for operators, traces and checkers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The node.
    pub node: NodeId,
    /// Its role.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// Who got its vote in this term.
    pub voted_for: Option<NodeId>,
    /// The leader of this term, if known.
    pub leader: Option<NodeId>,
    /// The last entry that was compacted away.
    pub compacted: LogId,
    /// The last entry of the log.
    pub last_log: LogId,
    /// The last index that is on this node's disk.
    pub durable_index: Index,
    /// The highest index known to be committed.
    pub commit_index: Index,
    /// The highest index that the state machine has reported.
    pub applied: Index,
    /// The configuration in force.
    pub membership: Arc<Membership>,
    /// Where in the log it comes from.
    pub membership_index: Index,
    /// Bytes appended and not yet applied.
    pub unapplied_bytes: usize,
    /// Bytes of entries held in memory.
    pub tail_bytes: usize,
    /// The first entry that could not be read, if any.
    pub unreadable: Option<Index>,
    /// Since when the oldest write has not completed, if one is under way.
    pub writing_since: Option<Time>,
    /// A snapshot that is being fetched.
    pub fetching: Option<LogId>,
    /// How far the peers are; empty unless this node leads.
    pub peers: Vec<PeerStatus>,
    /// The target of a transfer under way.
    pub transfer_to: Option<NodeId>,
}

/// How far a peer is, as its leader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// How the leader replicates to it.
    pub mode: ReplicationMode,
    /// Last index known to be equal and durable there.
    pub match_index: Index,
    /// Next index to send.
    pub next_index: Index,
    /// Messages with entries sent and not acknowledged.
    pub inflight_messages: usize,
    /// Bytes of entries sent and not acknowledged.
    pub inflight_bytes: usize,
    /// When the leader sent the latest round that the peer has answered.
    pub last_contact: Time,
    /// The snapshot in transfer to it. The host keeps the log behind it, within a limit.
    pub snapshot: Option<Index>,
    /// The feature level that it supports, if it has said so.
    pub feature_level: Option<u32>,
}

/// How a leader replicates to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicationMode {
    /// Looks for the place where the logs meet, one message at a time.
    Probe,
    /// Sends entries ahead of the answers.
    Replicate,
    /// Waits for a snapshot to be installed.
    Snapshot,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{} {}@{}", self.node, self.role, self.term)?;
        match self.leader {
            Some(leader) => write!(f, " leader=n{leader}")?,
            None => f.write_str(" leader=-")?,
        }
        write!(
            f,
            " last={} durable={} commit={} applied={} [{}]",
            self.last_log, self.durable_index, self.commit_index, self.applied, self.membership
        )?;
        if self.compacted.index > Index::ZERO {
            write!(f, " compacted={}", self.compacted)?;
        }
        Ok(())
    }
}
