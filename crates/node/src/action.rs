//! What a node wants its host to do.

use std::fmt;

use bytes::Bytes;
use quorate_raft::{
    CampaignError, ChangeError, Effect, Entry, Index, Install, Load, LogId, NodeId, Notice,
    Persist, ProposeError, ReadError, RequestId, SnapshotMeta, Term, TransferError,
};

use crate::message::NodeMessage;

/// One thing for the host to do. Actions are carried out in the order given, each kind on its own:
/// storage (`Persist`, `Install`, `Compact`) and the state machine (`Apply`, `Install`, `Spool`)
/// are two queues, in which `Install` has its place in both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Make one record durable, then say [`Event::Stored`](crate::Event::Stored).
    Persist(Persist),
    /// Put the fetched snapshot in the place of log and state machine, all or nothing across a
    /// crash, then say [`Event::Stored`](crate::Event::Stored).
    Install(Install),
    /// Drop the log up to this snapshot's index, and remember the snapshot as what the log starts
    /// behind. Nothing is said when it is done.
    Compact(SnapshotMeta),
    /// Send a message. It may be lost, doubled or overtaken.
    Send {
        /// The peer.
        to: NodeId,
        /// The message.
        message: NodeMessage,
    },
    /// Give committed entries to the state machine, then say
    /// [`Event::Applied`](crate::Event::Applied).
    Apply(Vec<Entry>),
    /// Read entries from the log, then say [`Event::Loaded`](crate::Event::Loaded).
    Load(Load),
    /// Write the state machine's contents, as they are behind all that was given to it so far,
    /// into a file that does not change any more, then say
    /// [`Event::Spooled`](crate::Event::Spooled). It takes the place of the one before it.
    Spool,
    /// Fetch a snapshot from a peer's host, check it and make it durable, then say
    /// [`Event::Fetched`](crate::Event::Fetched). A later fetch replaces this one.
    Fetch {
        /// Whose host has it.
        from: NodeId,
        /// The snapshot.
        snapshot: SnapshotMeta,
    },
    /// Answer a client.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Something that an operator should be able to see.
    Notice(Notice),
    /// End the process, or at least this node: its disk has failed. The next start finds out what
    /// is there.
    Stop,
}

/// The answer to a client's [`Request`](crate::Request).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// To `Propose`.
    Proposed(Result<Executed, ProposeFailure>),
    /// To `Read` and `LocalRead`: the state machine may be read now. The index is the least that
    /// it has applied.
    Read(Result<Index, ReadFailure>),
    /// To `Change`: where its last entry is committed.
    Changed(Result<LogId, ChangeError>),
    /// To `Transfer`: the term that the target leads.
    Transferred(Result<Term, TransferError>),
    /// To `Campaign`: the term that this node campaigns in.
    Campaigned(Result<Term, CampaignError>),
    /// To any request: this node's disk has failed before it was answered. What was asked to be
    /// done may have been, or may be done later, or never; a read can be asked elsewhere.
    Stopped,
}

/// A command that was executed, once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executed {
    /// Its place in the log.
    pub at: LogId,
    /// What the state machine said.
    pub response: Bytes,
}

/// Why a command was not executed, or is not known to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProposeFailure {
    /// It was refused before it was appended anywhere, so it never takes effect. The error says
    /// whether and where a retry helps.
    Refused(ProposeError),
    /// Another entry was committed at its place in the log, so it never takes effect. A retry is
    /// safe.
    Overwritten {
        /// Its place.
        at: LogId,
    },
    /// Too many forwarded proposals wait for the leader. Nothing was sent; retry later.
    Busy {
        /// The limit that was reached.
        forwarded_max: usize,
    },
    /// It may have taken effect, or may do so later, or never. A retry may execute it twice.
    OutcomeUnknown {
        /// Where it was appended, if this node knows.
        at: Option<LogId>,
    },
}

impl ProposeFailure {
    /// Whether it is certain that the command never takes effect.
    #[must_use]
    pub const fn never_happened(&self) -> bool {
        !matches!(self, Self::OutcomeUnknown { .. })
    }
}

impl From<ProposeError> for ProposeFailure {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::OutcomeUnknown { at } => Self::OutcomeUnknown { at: Some(at) },
            refused => Self::Refused(refused),
        }
    }
}

/// Why a read was not answered. It may be retried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReadFailure {
    /// No index could be learned that makes the read linearizable.
    Refused(ReadError),
    /// Too many reads wait for the state machine.
    Busy {
        /// The limit that was reached.
        reads_max: usize,
    },
    /// The state machine did not get to the read's index in time.
    TimedOut {
        /// That index.
        index: Index,
    },
}

impl fmt::Display for ProposeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Overwritten { at } => write!(f, "another entry was committed in place of {at}"),
            Self::Busy { forwarded_max } => {
                write!(f, "busy: {forwarded_max} forwarded proposals wait already")
            }
            Self::OutcomeUnknown { at: Some(at) } => {
                write!(f, "outcome unknown, appended at {at}")
            }
            Self::OutcomeUnknown { at: None } => f.write_str("outcome unknown"),
        }
    }
}

impl std::error::Error for ProposeFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for ReadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Busy { reads_max } => write!(f, "busy: {reads_max} reads wait already"),
            Self::TimedOut { index } => write!(f, "index {index} was not applied in time"),
        }
    }
}

impl std::error::Error for ReadFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proposed(Ok(executed)) => {
                write!(f, "executed at {}", executed.at)?;
                match std::str::from_utf8(&executed.response) {
                    Ok("") => Ok(()),
                    Ok(text) => write!(f, ": {text}"),
                    Err(_) => write!(f, ": {} bytes", executed.response.len()),
                }
            }
            Self::Proposed(Err(failure)) => write!(f, "failed: {failure}"),
            Self::Read(Ok(index)) => write!(f, "reads at index {index}"),
            Self::Read(Err(failure)) => write!(f, "read failed: {failure}"),
            Self::Changed(Ok(at)) => write!(f, "changed at {at}"),
            Self::Changed(Err(error)) => write!(f, "change failed: {error}"),
            Self::Transferred(Ok(term)) => write!(f, "transferred in term {term}"),
            Self::Transferred(Err(error)) => write!(f, "transfer failed: {error}"),
            Self::Campaigned(Ok(term)) => write!(f, "campaigns in term {term}"),
            Self::Campaigned(Err(error)) => write!(f, "campaign failed: {error}"),
            Self::Stopped => f.write_str("never answered: the disk has failed"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Persist(persist) => persist.fmt(f),
            Self::Install(install) => Effect::Install(install.clone()).fmt(f),
            Self::Compact(snapshot) => write!(f, "compact to {}", snapshot.id),
            Self::Send { message, .. } => message.fmt(f),
            Self::Apply(entries) => {
                f.write_str("apply")?;
                let separators = std::iter::once(" [").chain(std::iter::repeat(", "));
                for (separator, entry) in separators.zip(entries) {
                    write!(f, "{separator}{entry}")?;
                }
                f.write_str("]")
            }
            Self::Load(load) => write!(f, "load #{} {}..={}", load.id.0, load.first, load.last),
            Self::Spool => f.write_str("spool a snapshot"),
            Self::Fetch { from, snapshot } => {
                write!(f, "fetch snapshot {} from n{from}", snapshot.id)
            }
            Self::Reply { id, reply } => write!(f, "{id} {reply}"),
            Self::Notice(notice) => notice.fmt(f),
            Self::Stop => f.write_str("stop"),
        }
    }
}
