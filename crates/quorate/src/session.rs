//! Exactly-once proposals.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use quorate_node::sessions::{Command, REPLIES_MAX, Response, SessionId};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::codec::{Codec, CodecError};
use crate::error::{ProposeError, SessionError};
use crate::handle::Handle;
use crate::replica::Machine;

/// A client's session with the cluster: what is proposed in it takes effect once, however often it
/// has to be retried (thesis 6.3). Made by [`Handle::session`].
///
/// Clones are the same session, and may propose at the same time: up to
/// [`REPLIES_MAX`](quorate_node::sessions::REPLIES_MAX) commands are under way, and more wait. A
/// session belongs to the cluster and not to a node: [`via`](Self::via) goes on with it at another
/// one.
///
/// The cluster keeps a bounded number of sessions. If there are too many, the one that was not used
/// for longest ends, and its next proposal fails with [`SessionError::Expired`]. A new one is never
/// opened silently, because then a retry could execute a command twice.
pub struct Session<M: Machine> {
    handle: Handle<M>,
    state: Arc<State>,
}

struct State {
    id: SessionId,
    numbers: Mutex<Numbers>,
    under_way: Semaphore,
}

#[derive(Default)]
struct Numbers {
    last: u64,
    /// Given out, and without a reply that has arrived here.
    open: BTreeSet<u64>,
}

impl<M: Machine> Clone for Session<M> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), state: Arc::clone(&self.state) }
    }
}

impl<M: Machine> std::fmt::Debug for Session<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl<M: Machine> Handle<M> {
    /// Opens a session. If it must be tried more than once, a session may be left behind that
    /// nobody uses; it ends when there are too many.
    /// Waits for a leader that can take it, for up to [`Tuning::session_wait`](crate::Tuning::session_wait).
    ///
    /// # Errors
    ///
    /// See [`SessionError`]; there is no session then.
    pub async fn session(&self) -> Result<Session<M>, SessionError> {
        let open = Command::Open { sessions_max: self.limits.sessions_max }.to_bytes();
        let done = self.persist_with(open).await?;
        match done.response {
            Response::Opened => {
                let state = State {
                    id: SessionId(done.index),
                    numbers: Mutex::default(),
                    under_way: Semaphore::new(REPLIES_MAX / 2),
                };
                Ok(Session { handle: self.clone(), state: Arc::new(state) })
            }
            _ => Err(unexpected()),
        }
    }

    /// Proposes until the outcome is known, for commands that may be in the log more than once.
    async fn persist_with(&self, command: Bytes) -> Result<Done, SessionError> {
        let deadline = Instant::now() + self.limits.session_wait;
        let mut tried = false;
        loop {
            let changed = self.leader_changed();
            match self.submit(command.clone()).await {
                Ok(executed) => {
                    let response = Response::from_bytes(&executed.response)
                        .map_err(|why| SessionError::Reply { why: CodecError::new(why) })?;
                    return Ok(Done { response, index: executed.at.index.0, tried });
                }
                Err(why @ ProposeError::TooLarge { .. }) => {
                    return Err(SessionError::Refused(why));
                }
                Err(ProposeError::Stopped(why)) => {
                    return Err(if tried {
                        SessionError::Stopped(why)
                    } else {
                        SessionError::Refused(ProposeError::Stopped(why))
                    });
                }
                Err(why) => {
                    tried |= !why.never_happened();
                    if Instant::now() >= deadline {
                        return Err(if tried {
                            SessionError::TimedOut
                        } else {
                            SessionError::Refused(why)
                        });
                    }
                    self.pause(changed, deadline).await;
                }
            }
        }
    }
}

/// What came of a command that was tried until its outcome was known.
struct Done {
    response: Response,
    index: u64,
    /// An earlier attempt may have been executed.
    tried: bool,
}

fn unexpected() -> SessionError {
    SessionError::Reply { why: CodecError::new("is not one to this command") }
}

impl<M: Machine> Session<M> {
    /// The session's name in the cluster.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.state.id
    }

    /// The same session, used through another node: for when this one is about to stop.
    #[must_use]
    pub fn via(&self, handle: &Handle<M>) -> Self {
        Self { handle: handle.clone(), state: Arc::clone(&self.state) }
    }

    /// Proposes a command, and retries until its outcome is known: through changes of the leader,
    /// and for up to [`Tuning::session_wait`](crate::Tuning). It takes effect once or, if this
    /// fails, at most once.
    ///
    /// If the future is dropped, the command may take effect all the same, once.
    ///
    /// # Errors
    ///
    /// See [`SessionError`].
    pub async fn propose(&self, command: M::Command) -> Result<M::Reply, SessionError> {
        let permit = self.state.under_way.acquire().await;
        let _permit = permit.expect("nobody closes it");
        // Whatever becomes of it, nobody asks for its reply once this returns. Copies that are still
        // on their way when a later command says so are not executed.
        let open = Open::new(&self.state);
        let number = open.number;
        let acknowledged = self.state.acknowledged();
        let numbered = Command::Numbered {
            session: self.state.id,
            number,
            acknowledged,
            command: Bytes::new(),
        };
        let mut bytes = Vec::new();
        numbered.put_head(&mut bytes);
        command.encode(&mut bytes);
        let done = self.handle.persist_with(bytes.into()).await?;
        match done.response {
            Response::Executed(reply) => {
                M::Reply::decode(&reply).map_err(|why| SessionError::Reply { why })
            }
            Response::Expired => Err(SessionError::Expired { maybe_executed: done.tried }),
            Response::TooMany => Err(SessionError::Refused(ProposeError::Busy)),
            Response::Opened | Response::Closed | Response::Acknowledged => Err(unexpected()),
        }
    }

    /// Ends the session, so that the cluster forgets it at once.
    ///
    /// # Errors
    ///
    /// See [`SessionError`]. A session that is not closed ends when there are too many.
    pub async fn close(self) -> Result<(), SessionError> {
        let close = Command::Close { session: self.state.id }.to_bytes();
        match self.handle.persist_with(close).await?.response {
            Response::Closed => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().expect("nobody panics while holding the numbers")
    }

    /// All lower numbers have their replies.
    fn acknowledged(&self) -> u64 {
        let numbers = self.lock();
        numbers.open.first().copied().unwrap_or(numbers.last + 1)
    }
}

/// A number that was given out.
struct Open<'a> {
    state: &'a State,
    number: u64,
}

impl<'a> Open<'a> {
    fn new(state: &'a State) -> Self {
        let mut numbers = state.lock();
        numbers.last += 1;
        let number = numbers.last;
        numbers.open.insert(number);
        Self { state, number }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.state.lock().open.remove(&self.number);
    }
}
