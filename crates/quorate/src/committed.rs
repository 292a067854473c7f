//! Committed commands for those who pull.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quorate_node::sessions::{Command, SessionId};
use quorate_raft::{Index, LoadError, LogId, Payload};

use crate::codec::{Codec, CodecError};
use crate::error::StopReason;
use crate::handle::Handle;
use crate::replica::Machine;
use crate::shared::Shared;

/// Entries are read from the log in pieces of this size.
const READ_BYTES: usize = 1 << 20;

/// The committed commands from an index on, read from the log as fast or slowly as you pull: a
/// slow reader costs the node nothing. Made by [`Handle::committed`].
pub struct Committed<M: Machine> {
    shared: Arc<Shared>,
    next: Index,
    ready: VecDeque<CommittedCommand<M::Command>>,
}

/// A command as it stands in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedCommand<C> {
    /// Its entry. Commands that were proposed at the same time may share one; their order counts.
    pub at: LogId,
    /// The session in which it was proposed, and its number there. A command that was retried may be
    /// in the log more than once; only the first one of a number is executed.
    pub session: Option<(SessionId, u64)>,
    /// The command.
    pub command: C,
}

/// Why there are no more commands.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CommittedError {
    /// The log starts later by now: read the state machine instead, and go on behind
    /// [`Handle::applied`].
    Compacted {
        /// The index that is gone.
        index: Index,
    },
    /// The log cannot be read here. It may work later, and other members have it.
    Unreadable {
        /// The index.
        index: Index,
    },
    /// A command cannot be decoded: another version of the program has proposed it.
    Undecodable {
        /// Where.
        index: Index,
        /// What is wrong.
        why: CodecError,
    },
    /// The node does not run.
    Stopped(StopReason),
}

impl fmt::Display for CommittedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted { index } => write!(f, "index {index} was compacted away"),
            Self::Unreadable { index } => write!(f, "index {index} cannot be read"),
            Self::Undecodable { index, why } => write!(f, "the command at index {index} {why}"),
            Self::Stopped(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for CommittedError {}

impl<M: Machine> Handle<M> {
    /// The committed commands from index `from` on, as the log here has them: those that are there,
    /// and then those to come. Commands come when this node has applied them.
    #[must_use]
    pub fn committed(&self, from: Index) -> Committed<M> {
        let shared = Arc::clone(&self.shared);
        Committed { shared, next: from.max(Index(1)), ready: VecDeque::new() }
    }
}

impl<M: Machine> fmt::Debug for Committed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committed").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<M: Machine> Committed<M> {
    /// Waits for the next command.
    ///
    /// # Errors
    ///
    /// See [`CommittedError`]. Calling again tries again.
    pub async fn next(&mut self) -> Result<CommittedCommand<M::Command>, CommittedError> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(ready);
            }
            let applied = self.applied().await?;
            self.read(applied).await?;
        }
    }

    /// Waits until there is something to read; returns up to where.
    async fn applied(&self) -> Result<Index, CommittedError> {
        // The sender outlives the node, so a stop shows only when it is asked for.
        const LOOK: Duration = Duration::from_millis(100);
        let mut applied = self.shared.applied.subscribe();
        loop {
            let reached = applied.wait_for(|applied| *applied >= self.next);
            if let Ok(Ok(applied)) = tokio::time::timeout(LOOK, reached).await {
                return Ok(*applied);
            }
            if let Some(why) = self.shared.stopped() {
                return Err(CommittedError::Stopped(why));
            }
        }
    }

    async fn read(&mut self, applied: Index) -> Result<(), CommittedError> {
        let next = self.next;
        let stopped = || CommittedError::Stopped(self.shared.stop_reason());
        let log = self.shared.log().ok_or_else(stopped)?;
        let read = move || log.read(next, applied, READ_BYTES);
        let entries = tokio::task::spawn_blocking(read).await;
        let entries = entries.map_err(|_| CommittedError::Unreadable { index: next })?;
        let entries = entries.map_err(|why| match why {
            LoadError::Compacted => CommittedError::Compacted { index: next },
            LoadError::Unreadable => CommittedError::Unreadable { index: next },
        })?;
        for entry in entries {
            let at = entry.log_id();
            let Payload::Command(bytes) = &entry.payload else {
                self.next = at.index.next();
                continue;
            };
            let bad = |why| CommittedError::Undecodable { index: at.index, why };
            let commands = Command::all_from_bytes(bytes);
            let commands = commands.map_err(|why| bad(CodecError::new(why)))?;
            let mut ready = Vec::with_capacity(commands.len());
            for command in commands {
                let (session, command) = match command {
                    Command::Plain(command) => (None, command),
                    Command::Numbered { session, number, command, .. } => {
                        (Some((session, number)), command)
                    }
                    Command::Open { .. } | Command::Close { .. } => continue,
                };
                let command = M::Command::decode(&command).map_err(bad)?;
                ready.push(CommittedCommand { at, session, command });
            }
            // Only now: an entry that fails is tried again as a whole.
            self.next = at.index.next();
            self.ready.extend(ready);
        }
        Ok(())
    }
}
