//! What can go wrong, and what is true then.
//!
//! What an error prints is complete, its cause included; [`source`](std::error::Error::source) goes on
//! behind that, so whoever prints the whole chain reads nothing twice.

use std::fmt;
use std::io;

use quorate_node::{ProposeFailure, ReadFailure};
use quorate_raft::{Index, LogId, NodeId, ReadError as CoreReadError};

use crate::codec::CodecError;

/// Why a node does not run any more. The data directory is as a crash would leave it: start again
/// once the cause is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// [`shutdown`](crate::Node::shutdown) was called, or the last [`Node`](crate::Node) dropped.
    Requested,
    /// The state machine panicked. Its data in memory are lost, what is on disk is not.
    Panicked {
        /// In which call.
        operation: &'static str,
        /// What the panic said.
        message: String,
    },
    /// The state machine reported an error of its own, such as a database that failed.
    Machine {
        /// In which call.
        operation: &'static str,
        /// What it said.
        message: String,
    },
    /// A committed command cannot be decoded: another version of the program has proposed it. Going on
    /// without it would make this member differ from the others. If that version is newer, upgrade this
    /// node. If it is older, the commands' form was changed in a way that their encoding does not allow
    /// (see [`Codec`](crate::Codec)): go back to the program that wrote them, or read both forms.
    Undecodable {
        /// The entry.
        index: Index,
        /// What is wrong.
        message: String,
    },
    /// The disk failed. What was not acknowledged as durable may be lost; nothing else is.
    Disk {
        /// What failed.
        message: String,
    },
    /// A part of the library itself panicked; please report it. If the network or the disk is yours,
    /// the panic may be, too.
    Internal {
        /// Which part, and what the panic said.
        message: String,
    },
    /// The tokio runtime in which the node was started does not run any more. Next time, stop the node
    /// first.
    RuntimeEnded,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("the node was shut down"),
            Self::Panicked { operation, message } => {
                write!(f, "the state machine panicked in {operation}: {message}")
            }
            Self::Machine { operation, message } => {
                write!(f, "the state machine failed in {operation}: {message}")
            }
            Self::Undecodable { index, message } => {
                write!(
                    f,
                    "the command at index {index} {message}; another version of the program wrote it: \
                     upgrade this node if that one is newer, and if it is older, make this one read what \
                     it wrote"
                )
            }
            Self::Disk { message } => write!(f, "the disk failed: {message}"),
            Self::Internal { message } => write!(f, "internal error: {message}"),
            Self::RuntimeEnded => f.write_str("the runtime of the node has ended"),
        }
    }
}

impl std::error::Error for StopReason {}

/// Why a proposal has no reply. Each variant says whether the command takes effect.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProposeError {
    /// It did not happen: nobody leads, or the leader changed before the command was in its log.
    /// Retry.
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// It did not happen: too much is under way. Retry later, or propose less.
    Busy,
    /// It did not happen: the disk is full. Retry when there is room.
    NoSpace,
    /// It did not happen: the command is too large. Retrying cannot help.
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// It did not happen: another entry was committed in its place. Retry.
    Overwritten {
        /// Its place.
        at: LogId,
    },
    /// It may have happened, may happen later, or never. A retry may execute it twice: propose in a
    /// [`Session`](crate::Session) to retry safely.
    OutcomeUnknown {
        /// Where it was appended, if known.
        at: Option<LogId>,
    },
    /// It did not happen: this node does not run.
    Stopped(StopReason),
    /// It did happen, but the reply cannot be decoded: the leader's software is another version.
    Reply {
        /// Its place.
        at: LogId,
        /// What is wrong.
        why: CodecError,
    },
}

impl ProposeError {
    /// Whether it is certain that the command never takes effect.
    #[must_use]
    pub const fn never_happened(&self) -> bool {
        !matches!(self, Self::OutcomeUnknown { .. } | Self::Reply { .. })
    }

    /// Whether the same proposal may succeed later, and cannot take effect twice.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotLeader { .. } | Self::Busy | Self::NoSpace | Self::Overwritten { .. }
        )
    }

    pub(crate) fn of(failure: ProposeFailure) -> Self {
        use quorate_raft::ProposeError as Core;
        match failure {
            ProposeFailure::Refused(refused) => match refused {
                Core::NotLeader { leader } => Self::NotLeader { leader },
                Core::Transferring { to } => Self::NotLeader { leader: Some(to) },
                Core::TooLarge { bytes, bytes_max } => Self::TooLarge { bytes, bytes_max },
                Core::Busy { .. } => Self::Busy,
                Core::OutcomeUnknown { at } => Self::OutcomeUnknown { at: Some(at) },
                // The command was damaged on its way, or bound to a term that is over.
                _ => Self::NotLeader { leader: None },
            },
            ProposeFailure::Overwritten { at } => Self::Overwritten { at },
            ProposeFailure::Busy { .. } => Self::Busy,
            ProposeFailure::OutcomeUnknown { at } => Self::OutcomeUnknown { at },
            _ => Self::OutcomeUnknown { at: None },
        }
    }
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader) } => {
                write!(f, "not done: node {leader} leads, not this one; retry")
            }
            Self::NotLeader { leader: None } => f.write_str("not done: no leader is known; retry"),
            Self::Busy => f.write_str("not done: too much is under way; retry later"),
            Self::NoSpace => f.write_str("not done: the disk is full"),
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "not done: {bytes} bytes exceed the limit of {bytes_max}")
            }
            Self::Overwritten { at } => {
                write!(f, "not done: another entry was committed in place of {at}; retry")
            }
            Self::OutcomeUnknown { at: Some(at) } => {
                write!(f, "outcome unknown: the command was appended at {at}")
            }
            Self::OutcomeUnknown { at: None } => f.write_str("outcome unknown"),
            Self::Stopped(why) => write!(f, "not done: {why}"),
            Self::Reply { at, why } => write!(f, "done at {at}, but the reply {why}"),
        }
    }
}

impl std::error::Error for ProposeError {}

/// Why a command of a session has no reply.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// The cluster does not know the session (any more): it was the least recently used of too
    /// many, or closed. Open a new one. The command was not executed by the attempt that found this
    /// out.
    Expired {
        /// An earlier attempt may have been executed.
        maybe_executed: bool,
    },
    /// No attempt succeeded in the time given. The command may have been executed, or may be yet;
    /// it is never executed twice.
    TimedOut,
    /// The command was not executed and will not be: at once for a reason that retrying does not change,
    /// and at the end of [`Tuning::session_wait`](crate::Tuning::session_wait) for one that lasted, no
    /// leader for example.
    Refused(ProposeError),
    /// This node does not run any more. The command may have been executed; if it certainly was not,
    /// this is `Refused`, with the same reason.
    Stopped(StopReason),
    /// It was executed, but the reply cannot be decoded.
    Reply {
        /// What is wrong.
        why: CodecError,
    },
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { maybe_executed: false } => {
                f.write_str("not done: the session has expired")
            }
            Self::Expired { maybe_executed: true } => {
                f.write_str("outcome unknown: the session has expired")
            }
            Self::TimedOut => f.write_str("outcome unknown: no answer in time"),
            Self::Refused(why) => why.fmt(f),
            Self::Stopped(why) => write!(f, "outcome unknown: {why}"),
            Self::Reply { why } => write!(f, "done, but the reply {why}"),
        }
    }
}

impl std::error::Error for SessionError {}

/// Why a read was not served. Nothing was changed; any of them may be retried.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// No leader could be asked, or leadership changed meanwhile.
    NoLeader,
    /// A lease read at a node that holds no lease: see the reason.
    NoLease {
        /// Why.
        why: CoreReadError,
    },
    /// Too many reads are under way.
    Busy,
    /// The state machine here did not get as far as the read needs in time.
    TimedOut {
        /// How far it should be.
        index: Index,
    },
    /// This node does not run.
    Stopped(StopReason),
}

impl ReadError {
    pub(crate) fn of(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Refused(CoreReadError::Busy { .. }) | ReadFailure::Busy { .. } => {
                Self::Busy
            }
            ReadFailure::Refused(
                why @ (CoreReadError::NoLease(_) | CoreReadError::NotLeader { .. }),
            ) => Self::NoLease { why },
            ReadFailure::TimedOut { index } => Self::TimedOut { index },
            _ => Self::NoLeader,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLeader => f.write_str("no leader"),
            Self::NoLease { why } => why.fmt(f),
            Self::Busy => f.write_str("too many reads are under way"),
            Self::TimedOut { index } => write!(f, "index {index} was not applied in time"),
            Self::Stopped(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why a node did not start. Nothing was changed on disk, but for what a failed write may leave.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is missing or makes no sense.
    Setting {
        /// Which, and what it should be.
        why: String,
    },
    /// The log cannot be opened.
    Log {
        /// Where it is.
        directory: String,
        /// What is wrong; files are named as they are called there.
        why: quorate_wal::OpenError,
    },
    /// The log is damaged. Replace this node: remove it, and add it under a new id.
    Damaged {
        /// Where it is.
        directory: String,
        /// What is damaged, as the log tells it.
        damage: Vec<String>,
    },
    /// What is on disk does not fit together, or not with the settings.
    Recovered(quorate_raft::StartError),
    /// The latest snapshot cannot be read, and the log does not go back far enough to do without.
    Snapshot {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The state machine could not be opened or restored.
    Machine(StopReason),
    /// The log could not be written.
    Disk {
        /// Where it is.
        directory: String,
        /// What failed.
        why: String,
    },
    /// The transport could not start: most likely the address is in use.
    Transport(quorate_transport::StartError),
    /// Something of the system could not be had: a directory, a file, a thread. What it prints names
    /// it.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { why } => f.write_str(why),
            Self::Log { directory, why } => write!(f, "the log in `{directory}`: {why}"),
            Self::Damaged { directory, damage } => {
                write!(f, "the log in `{directory}` is damaged: {}", damage.join("; "))
            }
            Self::Recovered(why) => why.fmt(f),
            Self::Snapshot { file, why } => write!(f, "snapshot `{file}`: {why}"),
            Self::Machine(why) => why.fmt(f),
            Self::Disk { directory, why } => {
                write!(f, "the log in `{directory}` cannot be written: {why}")
            }
            Self::Transport(why) => why.fmt(f),
            Self::Io(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Transport(why) => why.source(),
            Self::Io(why) => why.source(),
            _ => None,
        }
    }
}

impl From<io::Error> for StartError {
    fn from(why: io::Error) -> Self {
        Self::Io(why)
    }
}
