//! What members ask each other besides what Raft makes them say: questions of the host's own.
//!
//! ```text
//! 0  version u8 = 1 | 1 kind u8: 96 question, 97 answer, 98 declined | 2 zero u16 | 4 zero u32
//! 8  number u64 | 16 content
//! ```
//!
//! The second byte tells these frames from those of the node. The transport checks their bytes.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_raft::NodeId;
use quorate_transport::PeerStatus;
use tokio::sync::{Semaphore, oneshot};

use crate::error::StopReason;
use crate::handle::Handle;
use crate::network::{BoxFuture, Network};
use crate::panics::caught_async;
use crate::replica::Machine;

const VERSION: u8 = 1;
const QUESTION: u8 = 96;
const ANSWER: u8 = 97;
const DECLINED: u8 = 98;
const HEAD_BYTES: usize = 16;

/// Most questions of this node that wait for an answer, and most of its peers that it works on.
const UNDER_WAY_MAX: usize = 16_384;

/// Why a question got no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AskError {
    /// There is no connection to that member now, or too much waits for it; it has not seen the question.
    NotConnected,
    /// No answer came in time. The member may have seen the question.
    TimedOut,
    /// The member answers no questions (yet), or too many at this moment.
    Declined,
    /// Too many questions of this node are under way; retry later.
    Busy,
    /// This node does not run.
    Stopped(StopReason),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => f.write_str("there is no connection to that member"),
            Self::TimedOut => f.write_str("the member did not answer in time"),
            Self::Declined => f.write_str("the member answers no questions now"),
            Self::Busy => f.write_str("too many questions are under way; retry later"),
            Self::Stopped(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for AskError {}

type Answerer = Arc<dyn Fn(NodeId, Bytes) -> BoxFuture<'static, Bytes> + Send + Sync>;

/// Questions under way, and who answers those of others.
pub(crate) struct Asks {
    node: NodeId,
    network: OnceLock<Weak<dyn Network>>,
    runtime: tokio::runtime::Handle,
    answerer: RwLock<Option<Answerer>>,
    waiting: Mutex<Waiting>,
    working: Arc<Semaphore>,
}

struct Waiting {
    /// Begins anywhere, so that an answer to an earlier life of this node is none to this one.
    next: u64,
    answers: HashMap<u64, oneshot::Sender<Option<Bytes>>>,
    closed: bool,
}

impl Asks {
    pub(crate) fn new(node: NodeId, first: u64, runtime: tokio::runtime::Handle) -> Self {
        Self {
            node,
            network: OnceLock::new(),
            runtime,
            answerer: RwLock::default(),
            waiting: Mutex::new(Waiting { next: first, answers: HashMap::new(), closed: false }),
            working: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
        }
    }

    pub(crate) const fn node(&self) -> NodeId {
        self.node
    }

    /// From now on questions can be asked.
    pub(crate) fn connect(&self, network: &Arc<dyn Network>) {
        let _ = self.network.set(Arc::downgrade(network));
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answerer(&self) -> Option<Answerer> {
        self.answerer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn carry(&self, to: NodeId, frame: Bytes) -> bool {
        self.network.get().and_then(Weak::upgrade).is_some_and(|network| network.carry(to, frame))
    }

    /// How it stands with the peers.
    pub(crate) fn peers(&self) -> Vec<PeerStatus> {
        self.network.get().and_then(Weak::upgrade).map_or_else(Vec::new, |network| network.peers())
    }

    /// Takes a frame if it is one of these.
    pub(crate) fn received(self: &Arc<Self>, from: NodeId, frame: &Bytes) -> bool {
        let Some(&kind @ (QUESTION | ANSWER | DECLINED)) = frame.get(1) else { return false };
        let mut content = frame.clone();
        if frame.len() < HEAD_BYTES || frame[0] != VERSION {
            return false;
        }
        content.advance(8);
        let number = content.get_u64_le();
        match kind {
            QUESTION => self.work(from, number, content),
            _ => {
                let answer = self.waiting().answers.remove(&number);
                if let Some(answer) = answer {
                    let _ = answer.send((kind == ANSWER).then_some(content));
                }
            }
        }
        true
    }

    /// Answers a question of a peer.
    fn work(self: &Arc<Self>, from: NodeId, number: u64, question: Bytes) {
        let asks = Arc::clone(self);
        let place = Arc::clone(&self.working).try_acquire_owned();
        let (Some(answerer), Ok(place)) = (self.answerer(), place) else {
            // Not from here: whoever delivers frames must not be made to send some.
            self.runtime.spawn(async move {
                asks.carry(from, frame(DECLINED, number, &[]));
            });
            return;
        };
        self.runtime.spawn(async move {
            // Whoever asked need not wait for an answer that a panic has taken away.
            let answer = caught_async("an answer", async move { answerer(from, question).await });
            asks.carry(
                from,
                match answer.await {
                    Ok(answer) => frame(ANSWER, number, &answer),
                    Err(_) => frame(DECLINED, number, &[]),
                },
            );
            drop(place);
        });
    }

    /// Nothing is asked any more, and whoever waits is told so.
    pub(crate) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let answers = std::mem::take(&mut waiting.answers);
        drop(waiting);
        drop(answers);
        *self.answerer.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn ask(&self, to: NodeId, question: &[u8], limit: Duration) -> Result<Bytes, Failure> {
        if to == self.node {
            let answerer = self.answerer().ok_or(AskError::Declined)?;
            let answer = answerer(to, Bytes::copy_from_slice(question));
            return Ok(tokio::time::timeout(limit, answer)
                .await
                .map_err(|_| AskError::TimedOut)?);
        }
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting();
            if waiting.closed {
                return Err(Failure::Closed);
            }
            if waiting.answers.len() >= UNDER_WAY_MAX {
                return Err(AskError::Busy.into());
            }
            let number = waiting.next;
            waiting.next = number.wrapping_add(1);
            waiting.answers.insert(number, sender);
            number
        };
        // Forgets the question, however this ends.
        let _open = Open { asks: self, number };
        if !self.carry(to, frame(QUESTION, number, question)) {
            return Err(AskError::NotConnected.into());
        }
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(AskError::Declined.into()),
            Ok(Err(_)) => Err(Failure::Closed),
            Err(_) => Err(AskError::TimedOut.into()),
        }
    }
}

enum Failure {
    Closed,
    Error(AskError),
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::Error(error)
    }
}

struct Open<'a> {
    asks: &'a Asks,
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.asks.waiting().answers.remove(&self.number);
    }
}

fn frame(kind: u8, number: u64, content: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + content.len());
    frame.put_slice(&[VERSION, kind, 0, 0, 0, 0, 0, 0]);
    frame.put_u64_le(number);
    frame.put_slice(content);
    frame.freeze()
}

impl<M: Machine> Handle<M> {
    /// Asks another member something that is no command, on the connection between the members: what
    /// only the leader can know, for example. The member answers with what it was given to
    /// [`answer_with`](Self::answer_with). Neither question nor answer is repeated if it is lost.
    ///
    /// # Errors
    ///
    /// See [`AskError`]; after `limit` at the latest.
    pub async fn ask(
        &self,
        member: NodeId,
        question: &[u8],
        limit: Duration,
    ) -> Result<Bytes, AskError> {
        match self.shared.asks.ask(member, question, limit).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Closed) => Err(AskError::Stopped(self.shared.why_unanswered().await)),
            Err(Failure::Error(error)) => Err(error),
        }
    }

    /// Who answers the questions of other members, and of this one to itself, from now on. Each runs as
    /// a task of its own; at most 16,384 at a time, more are declined. A question comes from a member
    /// that the transport let in, and contains whatever that member wrote.
    pub fn answer_with<F>(&self, answer: impl Fn(NodeId, Bytes) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Bytes> + Send + 'static,
    {
        let answerer: Answerer = Arc::new(move |from, question| Box::pin(answer(from, question)));
        let asks = &self.shared.asks;
        *asks.answerer.write().unwrap_or_else(PoisonError::into_inner) = Some(answerer);
    }
}
