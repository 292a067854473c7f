//! What nodes say to each other: the core's messages, and proposals on their way to the leader.

use std::fmt;

use bytes::Bytes;
use quorate_raft::{AttemptId, ClusterId, Envelope, GroupId, NodeId, Term};

use crate::action::{Executed, ProposeFailure};

/// A message between the nodes of two hosts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NodeMessage {
    /// Between the cores.
    Raft(Envelope),
    /// A follower hands a client's command to the leader.
    Forward(Forward),
    /// The leader answers.
    ForwardReply(ForwardReply),
}

/// A command for the leader of a term.
///
/// It is bound to that term: the receiver executes it only while it leads just that one, and tells
/// copies apart by `attempt`, so that a message which the network doubles is executed once. A
/// leader that has lost its memory no longer leads the term.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forward {
    /// The cluster that both ends belong to.
    pub cluster: ClusterId,
    /// The group that both ends belong to.
    pub group: GroupId,
    /// Who forwards.
    pub from: NodeId,
    /// Who leads.
    pub to: NodeId,
    /// The term that `to` leads.
    pub term: Term,
    /// Names this command among those that the sender has forwarded.
    pub attempt: AttemptId,
    /// The command.
    pub command: Bytes,
    /// CRC32C of `command`.
    pub checksum: u32,
}

/// What became of a [`Forward`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardReply {
    /// The cluster that both ends belong to.
    pub cluster: ClusterId,
    /// The group that both ends belong to.
    pub group: GroupId,
    /// Who executed the command, or not.
    pub from: NodeId,
    /// Who forwarded it.
    pub to: NodeId,
    /// The command's name.
    pub attempt: AttemptId,
    /// What became of it.
    pub result: Result<Executed, ProposeFailure>,
}

impl NodeMessage {
    /// Who sends it.
    #[must_use]
    pub const fn from(&self) -> NodeId {
        match self {
            Self::Raft(envelope) => envelope.from,
            Self::Forward(forward) => forward.from,
            Self::ForwardReply(reply) => reply.from,
        }
    }

    /// Who shall receive it.
    #[must_use]
    pub const fn to(&self) -> NodeId {
        match self {
            Self::Raft(envelope) => envelope.to,
            Self::Forward(forward) => forward.to,
            Self::ForwardReply(reply) => reply.to,
        }
    }

    /// The name of the message: that of the RPC, or `Forward`, or `ForwardReply`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Raft(envelope) => envelope.message.name(),
            Self::Forward(_) => "Forward",
            Self::ForwardReply(_) => "ForwardReply",
        }
    }
}

impl fmt::Display for NodeMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raft(envelope) => envelope.fmt(f),
            Self::Forward(m) => {
                write!(f, "n{} -> n{} Forward term={} {}", m.from, m.to, m.term, m.attempt)?;
                match std::str::from_utf8(&m.command) {
                    Ok(text) if text.len() <= 24 => write!(f, " {text}"),
                    _ => write!(f, " {}B", m.command.len()),
                }
            }
            Self::ForwardReply(m) => {
                write!(f, "n{} -> n{} ForwardReply {}", m.from, m.to, m.attempt)?;
                match &m.result {
                    Ok(executed) => write!(f, " executed at {}", executed.at),
                    Err(failure) => write!(f, " failed: {failure}"),
                }
            }
        }
    }
}
