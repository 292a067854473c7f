//! What users hold: the node, and handles to it.

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_node::sessions::Response;
use quorate_node::{Executed, Request};
use quorate_raft::{Index, LogId, Membership, NodeId, ReadMode, Status, Term, Time};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::builder::{AddressOf, Builder, Tuning};
use crate::clock;
use crate::codec::{Codec, CodecError};
use crate::control::Control;
use crate::error::{ProposeError, ReadError, StopReason};
use crate::events::Events;
use crate::inbox::Refused;
use crate::metrics::Metrics;
use crate::replica::{Machine, Replica};
use crate::replies::{Refusal, ReplyTo};
use crate::shared::{Freshness, Shared};

/// A running node. Everything can be asked of it that can be asked of a [`Handle`].
///
/// Dropping it stops the node without ceremony, which is as safe as a crash;
/// [`shutdown`](Self::shutdown) is kinder to the cluster.
pub struct Node<M: Machine> {
    handle: Handle<M>,
}

impl<M: Machine> Node<M> {
    /// Begins to describe node `id`, which replicates `machine`. The id is unique in the cluster for
    /// all time, and never zero.
    pub fn builder(id: u64, machine: M) -> Builder<M> {
        Builder::new(NodeId(id), machine)
    }

    pub(crate) const fn new(handle: Handle<M>) -> Self {
        Self { handle }
    }

    /// A handle to this node, to be cloned and kept wherever it is needed.
    #[must_use]
    pub fn handle(&self) -> Handle<M> {
        self.handle.clone()
    }

    /// Stops the node. A leader hands leadership over first, so that the cluster goes on without
    /// waiting for an election timeout. Returns when all threads have ended and the log is closed.
    pub async fn shutdown(self) {
        self.handle.hand_over().await;
        self.handle.stop().await;
    }

    /// Stops the node as it is, without handing leadership over, and waits until all threads have
    /// ended and the log is closed.
    pub async fn stop(self) {
        self.handle.stop().await;
    }
}

impl<M: Machine> Deref for Node<M> {
    type Target = Handle<M>;

    fn deref(&self) -> &Handle<M> {
        &self.handle
    }
}

impl<M: Machine> Drop for Node<M> {
    fn drop(&mut self) {
        let _ = self.handle.shared.inbox.control(Control::Stop);
    }
}

impl<M: Machine> fmt::Debug for Node<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.handle.id()).finish_non_exhaustive()
    }
}

/// A handle to a node: proposes, reads, changes the membership, looks. Clones are the same node.
pub struct Handle<M: Machine> {
    pub(crate) shared: Arc<Shared>,
    replica: Arc<Replica<M>>,
    pub(crate) limits: Limits,
}

/// What of the tuning a handle needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) leader_wait: Duration,
    pub(crate) session_wait: Duration,
    pub(crate) sessions_max: u32,
    pub(crate) read_wait: Duration,
    pub(crate) election_timeout: Duration,
    /// Finds addresses that TCP is to dial.
    pub(crate) dialled: Option<AddressOf>,
}

impl<M: Machine> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            replica: Arc::clone(&self.replica),
            limits: self.limits,
        }
    }
}

impl<M: Machine> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// How sure a read is to see the latest data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Consistency {
    /// Sees everything that was acknowledged before the read began, on any node. Costs the leader a
    /// round of messages, which many reads share.
    Linearizable,
    /// The same, as long as no clock runs wrong by more than `clock_drift_max_ppm`; costs no
    /// message. Only at a leader, and only if leases are on in the membership.
    Lease,
    /// What this node has: fast, always possible, and possibly old. The read is told how old.
    Local,
    /// At least as new as that index: read your own writes by the place of your proposal.
    AtLeast(Index),
}

/// How old the data are that a read has seen, at most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Age {
    /// They were the latest at some moment during the read.
    Latest,
    /// They were the latest so long ago. Counted from when a leader's word arrived, so what it took
    /// on its way is not included.
    AtMost(Duration),
    /// Nothing was heard from a leader since this node was started.
    Unknown,
}

/// A proposal that is in the log, with an outcome that is not known yet.
pub struct Pending<M: Machine> {
    at: LogId,
    outcome: oneshot::Receiver<Result<Executed, Refusal>>,
    machine: std::marker::PhantomData<fn() -> M>,
}

impl<M: Machine> fmt::Debug for Pending<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("at", &self.at).finish_non_exhaustive()
    }
}

impl<M: Machine> Pending<M> {
    /// Where it is in the log: its index, and the term of the leader that appended it.
    #[must_use]
    pub const fn at(&self) -> LogId {
        self.at
    }

    /// Waits for the reply.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]; the command is in the log, so most likely
    /// [`OutcomeUnknown`](ProposeError::OutcomeUnknown).
    pub async fn reply(self) -> Result<M::Reply, ProposeError> {
        let unknown = ProposeError::OutcomeUnknown { at: Some(self.at) };
        let result = self.outcome.await.map_err(|_| unknown)?;
        decode_reply(result.map_err(ProposeError::of_refusal)?)
    }
}

/// The bytes of a command outside a session.
pub(crate) fn plain_bytes(command: &impl Codec) -> Bytes {
    // A command without content needs no memory.
    const EMPTY: &[u8] = &[0];
    thread_local! {
        // One buffer for all, so that what is kept has the right size from the start.
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    // Nothing larger is kept by threads that may never propose again.
    const KEPT_BYTES_MAX: usize = 64 << 10;
    BUFFER.with(|buffer| {
        let Ok(mut buffer) = buffer.try_borrow_mut() else {
            // The command's own encoding proposes. Strange, and no reason to fail.
            let mut bytes = EMPTY.to_vec();
            command.encode(&mut bytes);
            return bytes.into();
        };
        buffer.clear();
        buffer.extend_from_slice(EMPTY);
        command.encode(&mut buffer);
        let bytes = match buffer.len() {
            1 => Bytes::from_static(EMPTY),
            _ => Bytes::copy_from_slice(&buffer),
        };
        buffer.shrink_to(KEPT_BYTES_MAX);
        bytes
    })
}

fn decode_reply<R: Codec>(executed: Executed) -> Result<R, ProposeError> {
    let Executed { at, response } = executed;
    let decoded = match Response::from_bytes(&response) {
        Ok(Response::Executed(reply)) => R::decode(&reply),
        Ok(_) => Err(CodecError::new("is not one to a plain command")),
        Err(why) => Err(CodecError::new(why)),
    };
    decoded.map_err(|why| ProposeError::Reply { at, why })
}

impl ProposeError {
    pub(crate) fn of_refusal(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Node(failure) => Self::of(failure),
            Refusal::NoSpace => Self::NoSpace,
        }
    }
}

impl<M: Machine> Handle<M> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        replica: Arc<Replica<M>>,
        tuning: &Tuning,
        dialled: Option<AddressOf>,
    ) -> Self {
        let limits = Limits {
            leader_wait: tuning.leader_wait,
            session_wait: tuning.session_wait,
            sessions_max: tuning.sessions_max,
            read_wait: Duration::from_micros(tuning.node.read_wait_us),
            election_timeout: Duration::from_micros(tuning.core.election_timeout_max_us),
            dialled,
        };
        Self { shared, replica, limits }
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    // ---- proposals ----

    /// Replicates a command and gives back the state machine's reply, once the command is committed
    /// and applied. On a follower, it goes to the leader. If there is no leader, it waits for one,
    /// up to [`Tuning::leader_wait`].
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]: each variant says whether the command takes effect. After
    /// [`OutcomeUnknown`](ProposeError::OutcomeUnknown) a retry might execute it twice; a
    /// [`Session`](crate::Session) retries for you, and executes it once.
    pub async fn propose(&self, command: M::Command) -> Result<M::Reply, ProposeError> {
        self.propose_placed(command).await.map(|(_, reply)| reply)
    }

    /// The same, with the command's place in the log. The reply may come from the leader before this
    /// node has applied the command; [`Consistency::AtLeast`] with that index waits for it.
    ///
    /// # Errors
    ///
    /// As [`propose`](Self::propose).
    pub async fn propose_placed(
        &self,
        command: M::Command,
    ) -> Result<(LogId, M::Reply), ProposeError> {
        let bytes = plain_bytes(&command);
        drop(command);
        let executed = match self.submit(bytes.clone()).await {
            Err(ProposeError::NotLeader { .. }) => Box::pin(self.submit_patiently(bytes)).await?,
            result => result?,
        };
        let at = executed.at;
        decode_reply(executed).map(|reply| (at, reply))
    }

    /// The same without waiting: a command that no leader can take now fails at once.
    ///
    /// # Errors
    ///
    /// As [`propose`](Self::propose).
    pub async fn try_propose(&self, command: M::Command) -> Result<M::Reply, ProposeError> {
        decode_reply(self.submit(plain_bytes(&command)).await?)
    }

    /// Puts a command into the log, and says where it is, without waiting until it is committed.
    /// Only at the leader. The fate of the command can be learned later: by
    /// [`Pending::reply`], or by comparing [`Pending::at`] with what is committed there.
    ///
    /// # Errors
    ///
    /// As [`propose`](Self::propose); nothing was appended then.
    pub async fn start_proposal(&self, command: M::Command) -> Result<Pending<M>, ProposeError> {
        let (appended, place) = oneshot::channel();
        let (to, outcome) = oneshot::channel();
        self.request(
            Request::Propose { command: plain_bytes(&command), in_term: None },
            ReplyTo::Start(appended, to),
        )?;
        match place.await {
            Ok(at) => Ok(Pending { at, outcome, machine: std::marker::PhantomData }),
            Err(_) => Err(match outcome.await {
                Ok(Err(refusal)) => ProposeError::of_refusal(refusal),
                Ok(Ok(executed)) => ProposeError::OutcomeUnknown { at: Some(executed.at) },
                Err(_) => ProposeError::Stopped(self.shared.why_unanswered().await),
            }),
        }
    }

    /// Proposes only while this node leads `term`: for decisions of a leader that its successor
    /// must not carry out. See [`start_proposal`](Self::start_proposal) and
    /// [`status`](Self::status) for the term.
    ///
    /// # Errors
    ///
    /// As [`propose`](Self::propose).
    pub async fn propose_in_term(
        &self,
        term: Term,
        command: M::Command,
    ) -> Result<M::Reply, ProposeError> {
        let (to, outcome) = oneshot::channel();
        let in_term = Some(term);
        let request = Request::Propose { command: plain_bytes(&command), in_term };
        self.request(request, ReplyTo::Propose(to))?;
        decode_reply(self.outcome(outcome).await?)
    }

    pub(crate) async fn submit(&self, command: Bytes) -> Result<Executed, ProposeError> {
        let (to, outcome) = oneshot::channel();
        self.request(Request::Propose { command, in_term: None }, ReplyTo::Propose(to))?;
        self.outcome(outcome).await
    }

    async fn outcome(
        &self,
        outcome: oneshot::Receiver<Result<Executed, Refusal>>,
    ) -> Result<Executed, ProposeError> {
        match outcome.await {
            Ok(result) => result.map_err(ProposeError::of_refusal),
            // The node stopped while it worked on it.
            Err(_) => Err(ProposeError::OutcomeUnknown { at: None }),
        }
    }

    /// Waits for a leader that can take a command which none could so far.
    async fn submit_patiently(&self, command: Bytes) -> Result<Executed, ProposeError> {
        let deadline = Instant::now() + self.limits.leader_wait;
        loop {
            let changed = self.leader_changed();
            match self.submit(command.clone()).await {
                Err(why @ ProposeError::NotLeader { .. }) => {
                    if Instant::now() >= deadline {
                        return Err(why);
                    }
                    self.pause(changed, deadline).await;
                }
                result => return result,
            }
        }
    }

    /// A watch that has seen what is known of the leader by now.
    pub(crate) fn leader_changed(&self) -> watch::Receiver<(Option<NodeId>, Term)> {
        self.shared.leader.subscribe()
    }

    /// Waits until something is new about the leader, but not for long: it may have become able to
    /// do what it was not without any change that shows.
    pub(crate) async fn pause(
        &self,
        mut changed: watch::Receiver<(Option<NodeId>, Term)>,
        deadline: Instant,
    ) {
        const PAUSE: Duration = Duration::from_millis(10);
        let until = deadline.min(Instant::now() + PAUSE);
        let _ = tokio::time::timeout_at(until, changed.changed()).await;
    }

    fn request(&self, request: Request, reply: ReplyTo) -> Result<(), ProposeError> {
        self.shared.inbox.request(request, reply).map_err(|refused| match refused {
            Refused::Full => {
                let busy = &self.shared.counters.proposals_busy;
                crate::metrics::Counters::add(busy, 1);
                ProposeError::Busy
            }
            Refused::Closed => self.stopped_proposal(),
        })
    }

    fn stopped_proposal(&self) -> ProposeError {
        ProposeError::Stopped(self.shared.stop_reason())
    }

    // ---- reads ----

    /// Lets `look` see the state machine, linearizably: with everything that was acknowledged before
    /// this call, on any node. If there is no leader, it waits for one, up to
    /// [`Tuning::leader_wait`]. `look` runs on the calling task, while nothing is applied, so it must
    /// be short.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub async fn read<T>(&self, look: impl FnOnce(&M::Data) -> T) -> Result<T, ReadError> {
        self.wait_to_read(Consistency::Linearizable).await?;
        self.look(look)
    }

    /// The same with another [`Consistency`], and with the age of what was seen.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub async fn read_with<T>(
        &self,
        consistency: Consistency,
        look: impl FnOnce(&M::Data) -> T,
    ) -> Result<(T, Age), ReadError> {
        self.wait_to_read(consistency).await?;
        // Asked before looking: what is seen can only be newer.
        let age = match consistency {
            Consistency::Linearizable | Consistency::Lease => Age::Latest,
            Consistency::Local | Consistency::AtLeast(_) => self.age().await,
        };
        Ok((self.look(look)?, age))
    }

    /// Waits until a look at the data would be that consistent, and looks at nothing: for machines
    /// whose data are shared in another way. What was applied when this returns is new enough.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub async fn reach(&self, consistency: Consistency) -> Result<(), ReadError> {
        self.wait_to_read(consistency).await
    }

    fn look<T>(&self, look: impl FnOnce(&M::Data) -> T) -> Result<T, ReadError> {
        if let Some(why) = self.shared.stopped() {
            return Err(ReadError::Stopped(why));
        }
        self.replica.read(look).ok_or_else(|| ReadError::Stopped(self.shared.stop_reason()))
    }

    async fn wait_to_read(&self, consistency: Consistency) -> Result<(), ReadError> {
        let request = match consistency {
            Consistency::Linearizable => Request::Read { mode: ReadMode::ReadIndex },
            Consistency::Lease => Request::Read { mode: ReadMode::Lease },
            Consistency::Local => Request::LocalRead,
            Consistency::AtLeast(index) => return self.wait_applied(index).await,
        };
        match self.request_read(request.clone()).await {
            Err(ReadError::NoLeader) => Box::pin(self.read_patiently(request)).await,
            result => result,
        }
    }

    async fn read_patiently(&self, request: Request) -> Result<(), ReadError> {
        let deadline = Instant::now() + self.limits.leader_wait;
        loop {
            let changed = self.leader_changed();
            match self.request_read(request.clone()).await {
                Err(ReadError::NoLeader) if Instant::now() < deadline => {
                    self.pause(changed, deadline).await;
                }
                result => return result,
            }
        }
    }

    async fn request_read(&self, request: Request) -> Result<(), ReadError> {
        let (to, answer) = oneshot::channel();
        self.shared.inbox.request(request, ReplyTo::Read(to)).map_err(|refused| match refused {
            Refused::Full => ReadError::Busy,
            Refused::Closed => ReadError::Stopped(self.shared.stop_reason()),
        })?;
        match answer.await {
            Ok(result) => result.map(|_: Index| ()).map_err(ReadError::of),
            Err(_) => Err(ReadError::Stopped(self.shared.why_unanswered().await)),
        }
    }

    async fn wait_applied(&self, index: Index) -> Result<(), ReadError> {
        let mut applied = self.shared.applied.subscribe();
        let deadline = Instant::now() + self.limits.read_wait;
        // The sender lives as long as the handle, so a stop shows only when it is asked for.
        const LOOK: Duration = Duration::from_millis(100);
        loop {
            let until = deadline.min(Instant::now() + LOOK);
            let reached = applied.wait_for(|applied| *applied >= index);
            if let Ok(Ok(_)) = tokio::time::timeout_at(until, reached).await {
                return Ok(());
            }
            if let Some(why) = self.shared.stopped() {
                return Err(ReadError::Stopped(why));
            }
            if Instant::now() >= deadline {
                return Err(ReadError::TimedOut { index });
            }
        }
    }

    async fn age(&self) -> Age {
        match self.shared.freshness.get() {
            Freshness::Unknown => Age::Unknown,
            Freshness::At(time) => age_since(time),
            // It leads as far as it knows: its data were the latest when a quorum last said so.
            Freshness::Leads => match self.status().await {
                Ok(status) => {
                    let now = clock::now();
                    let heard = |node| {
                        let peer = status.peers.iter().find(|peer| peer.node == node);
                        peer.map_or(if node == status.node { now } else { Time(0) }, |peer| {
                            peer.last_contact
                        })
                    };
                    status.membership.quorum_value(heard).map_or(Age::Unknown, age_since)
                }
                Err(_) => Age::Unknown,
            },
        }
    }

    // ---- looking ----

    /// The node at this moment, as the core sees it: role, term, log, commit index, and at a leader
    /// how far every peer is.
    ///
    /// # Errors
    ///
    /// When the node does not run.
    pub async fn status(&self) -> Result<Status, StopReason> {
        let (to, status) = oneshot::channel();
        self.control(Control::Status(to)).await;
        match status.await {
            Ok(status) => Ok(status),
            Err(_) => Err(self.shared.why_unanswered().await),
        }
    }

    /// Who leads, and in which term, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> (Option<NodeId>, Term) {
        *self.shared.leader.borrow()
    }

    /// Waits until a leader is known.
    ///
    /// # Errors
    ///
    /// When the node does not run.
    pub async fn wait_for_leader(&self) -> Result<NodeId, StopReason> {
        let mut leader = self.shared.leader.subscribe();
        loop {
            if let (Some(leader), _) = *leader.borrow_and_update() {
                return Ok(leader);
            }
            if let Some(why) = self.shared.stopped() {
                return Err(why);
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), leader.changed()).await;
        }
    }

    /// The configuration in force here.
    #[must_use]
    pub fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.shared.membership.borrow())
    }

    /// Where the configuration stands in the log that has removed this node, once it is committed and
    /// known here. A node that was down meanwhile learns it only from the refusals of the others, which
    /// are [events](Self::events).
    #[must_use]
    pub fn removed(&self) -> Option<Index> {
        self.shared.removed.get().copied()
    }

    /// The highest index that the state machine here has applied.
    #[must_use]
    pub fn applied(&self) -> Index {
        *self.shared.applied.borrow()
    }

    /// Counters.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.counters.values()
    }

    /// What the log on disk has done, and how long its writes and syncs took. `None` if the log is in
    /// memory or the node has stopped.
    #[must_use]
    pub fn log_metrics(&self) -> Option<quorate_wal::Metrics> {
        self.shared.log()?.metrics()
    }

    /// How the connections to the other members stand, and what has passed through them. Empty inside one process.
    #[must_use]
    pub fn peers(&self) -> Vec<quorate_transport::PeerStatus> {
        self.shared.asks.peers()
    }

    /// Listens to what happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(self.shared.events.subscribe())
    }

    /// Takes a snapshot of this node's state machine now, and waits until it is durable. The library
    /// does that by itself when the log has grown; this is for before an upgrade, say.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Other`](std::io::ErrorKind::Other) if there is nothing to take, it could not be
    /// written, or the node does not run.
    pub async fn snapshot(&self) -> std::io::Result<()> {
        let (to, done) = oneshot::channel();
        self.control(Control::Snapshot(to)).await;
        match done.await {
            Ok(taken) => taken.map_err(std::io::Error::other),
            Err(_) => Err(std::io::Error::other(self.shared.why_unanswered().await)),
        }
    }

    /// Why the node does not run any more; `None` while it does.
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.shared.stopped()
    }

    /// Waits until the node has stopped and all its threads have ended.
    pub async fn stopped(&self) -> StopReason {
        let mut ended = self.shared.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
        self.shared.stop_reason()
    }

    async fn stop(&self) {
        self.control(Control::Stop).await;
        self.stopped().await;
    }

    /// Asks the driver for something, once there is room for it. A node that has stopped lets go of
    /// whoever waits for an answer.
    async fn control(&self, mut control: Control) {
        const PAUSE: Duration = Duration::from_millis(1);
        while let Err((Refused::Full, refused)) = self.shared.inbox.control(control) {
            tokio::time::sleep(PAUSE).await;
            control = refused;
        }
    }
}

fn age_since(time: Time) -> Age {
    Age::AtMost(Duration::from_micros(clock::now().since(time)))
}
