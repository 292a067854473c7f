//! The task that owns the node: takes what has arrived, lets the node decide, and has it done.
//!
//! One turn takes *everything* that has arrived, gives all of it to the node, and only then asks
//! what is to be done: so the more arrives, the larger the batches are, in the log, on the network
//! and in the state machine, without anybody having to wait for them to fill.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use quorate_node::sessions::{Command, Together};
use quorate_node::{Action, Event, Executed, Node, NodeMessage, Request};
use quorate_raft::{
    Entry, Index, Load, LoadError, LogId, Membership, Message, NodeId, Notice, RoleName, Seq, Term,
    Time,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::clock;
use crate::control::Control;
use crate::disk_log::DiskLog;
use crate::error::StopReason;
use crate::events::NodeEvent;
use crate::inbox::{Arrivals, Report};
use crate::machinist::{Machinist, Work};
use crate::memory_log::MemoryLog;
use crate::metrics::Counters;
use crate::network::Network;
use crate::panics::{caught_async, message_of, reporting};
use crate::peers::Peers;
use crate::replica::View;
use crate::replies::{Refusal, Replies, ReplyTo};
use crate::shared::{Freshness, Matter, Shared};
use crate::snapshot_file::Head;
use crate::snapshots::Snapshots;

/// Where entries are kept.
#[derive(Clone)]
pub(crate) enum Log {
    Memory(Arc<MemoryLog>),
    Disk(DiskLog),
}

impl Log {
    /// Waits for the disk, if there is one.
    pub(crate) fn read(
        &self,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LoadError> {
        match self {
            Self::Memory(log) => log.read(first, last, bytes_max),
            Self::Disk(log) => log.read(first, last, bytes_max),
        }
    }

    /// What it has done, if it is on disk.
    pub(crate) fn metrics(&self) -> Option<quorate_wal::Metrics> {
        match self {
            Self::Memory(_) => None,
            Self::Disk(log) => Some(log.metrics()),
        }
    }
}

/// Goes to the end of the worker's queue. Unlike tokio's own, this does not look for input and
/// timers first, which costs more than a turn.
async fn give_way() {
    let mut gave_way = false;
    poll_fn(|context| {
        if std::mem::replace(&mut gave_way, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Commands up to this size share an entry with others: larger ones gain nothing, and would be
/// copied.
const TOGETHER_EACH_MAX: usize = 4 << 10;
/// Most bytes of commands in one entry.
const TOGETHER_BYTES_MAX: usize = 256 << 10;
/// How often a durable state machine is asked to make its data durable.
const FLUSH_INTERVAL_US: u64 = 200_000;
/// How often the leader looks whether its disk stalls and whether its peers answer.
const LOOK_INTERVAL_US: u64 = 100_000;

pub(crate) struct Driver {
    pub(crate) node: Node,
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Log,
    pub(crate) machinist: Machinist,
    /// The thread that applies; without it, this task does.
    pub(crate) apply_thread: Option<(mpsc::Sender<Work>, JoinHandle<()>)>,
    pub(crate) log_thread: Option<JoinHandle<()>>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) state: State,
    /// The last field, so that the others are gone when it says that the node is.
    pub(crate) ending: Ending,
}

/// What the driver itself has to remember.
#[derive(Default)]
pub(crate) struct State {
    replies: Replies,
    arrivals: Arrivals,
    /// Small commands of this turn, and who waits for them.
    first: Option<(Bytes, oneshot::Sender<Result<Executed, Refusal>>)>,
    together: Together,
    together_to: Vec<oneshot::Sender<Result<Executed, Refusal>>>,
    /// Memory for actions, used again.
    actions: Vec<Action>,
    seen: Seen,
    peers: Peers,
    stop: Option<StopReason>,
    /// How the disk has failed, while the node hears of it.
    failed: Option<StopReason>,
    no_space: bool,
    /// Who waits for the snapshot that is being made.
    spool_waiting: Vec<oneshot::Sender<Result<(), String>>>,
    flush_at: Option<Time>,
    flushing: bool,
    look_at: Time,
    stall_seen: Option<Time>,
    silent: Vec<NodeId>,
    installing: Option<(Seq, LogId)>,
    /// What the leader had committed, and when it said so, until it is applied here.
    told: Option<(Index, Time)>,
}

/// What was told to listeners.
#[derive(Default)]
struct Seen {
    role: Option<RoleName>,
    term: Term,
    leader: (Option<NodeId>, Term),
    membership: Option<Arc<Membership>>,
    /// The configuration from which this node is missing that was a member, until it has committed.
    leaves_at: Option<Index>,
    applied: Index,
}

impl Driver {
    /// Runs until told to stop, or until going on is impossible.
    pub(crate) async fn run(mut self) {
        if let Err(why) = caught_async("the node's own task", self.work()).await {
            self.stop(why);
        }
        self.end().await;
    }

    async fn work(&mut self) {
        let inbox = Arc::clone(&self.shared.inbox);
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        // When the timer goes off, if it has not. One that goes off too early does no harm, and
        // moving it costs more, so it is only ever moved forward.
        let mut armed = None;
        self.turn(clock::now());
        while self.state.stop.is_none() {
            let waiting = self.state.replies.waiting();
            inbox.take(&mut self.state.arrivals, waiting);
            if !self.state.arrivals.is_empty() {
                self.turn(clock::now());
                if !inbox.is_empty() {
                    // Let those run who are to make the next batch.
                    give_way().await;
                }
                continue;
            }
            let deadline = self.deadline();
            if armed.is_none_or(|armed| deadline < armed) {
                // Timers have limits, and an hour is long.
                let rest = deadline.since(clock::now()).min(3_600_000_000);
                sleep.as_mut().reset(Instant::now() + Duration::from_micros(rest));
                armed = Some(deadline);
            }
            let mut arrived = pin!(inbox.wait());
            let woken = poll_fn(|context| {
                if arrived.as_mut().poll(context).is_ready() {
                    return Poll::Ready(false);
                }
                sleep.as_mut().poll(context).map(|()| true)
            });
            if woken.await {
                armed = None;
                let now = clock::now();
                if deadline <= now {
                    self.turn(now);
                }
            }
        }
    }

    fn deadline(&self) -> Time {
        let node = self.node.deadline().unwrap_or(Time(u64::MAX));
        let flush = self.state.flush_at.unwrap_or(Time(u64::MAX));
        node.min(flush).min(self.look_at())
    }

    fn look_at(&self) -> Time {
        if self.node.raft().role() == RoleName::Leader {
            self.state.look_at
        } else {
            Time(u64::MAX)
        }
    }

    /// One turn: everything that has arrived, then everything that follows from it.
    fn turn(&mut self, now: Time) {
        Counters::add(&self.shared.counters.turns, 1);
        let mut arrivals = std::mem::take(&mut self.state.arrivals);
        // What the disk and the state machine report may answer what waits, so it comes first.
        for report in arrivals.reports.drain(..) {
            self.report(now, report);
        }
        let messages = arrivals.messages.len();
        if messages > 0 {
            Counters::add(&self.shared.counters.messages_received, messages);
            for message in arrivals.messages.drain(..) {
                self.receive(now, message);
            }
        }
        for (request, reply) in arrivals.requests.drain(..) {
            self.request(now, request, reply);
        }
        self.propose_together(now);
        for control in arrivals.controls.drain(..) {
            self.control(now, control);
        }
        self.state.arrivals = arrivals;
        if self.node.deadline().is_some_and(|deadline| deadline <= now) {
            self.node.step(now, Event::Wake);
        }
        self.carry_out(now);
        self.tell(now);
        if self.state.flush_at.is_some_and(|at| at <= now) {
            self.state.flush_at = None;
            self.state.flushing = true;
            self.give(Work::Flush);
        }
        if self.look_at() <= now {
            self.look(now);
        }
    }

    // ---- what has arrived ----

    fn report(&mut self, now: Time, report: Report) {
        match report {
            Report::Event(event) => {
                match &event {
                    Event::Applied { up_to, .. } => self.applied(now, *up_to),
                    Event::Stored(seq) => self.stored(*seq),
                    _ => {}
                }
                self.node.step(now, event);
            }
            Report::View(view) => self.spool(view),
            Report::Spooled(result) => self.spooled(now, result),
            Report::Flushed(index) => {
                self.state.flushing = false;
                if index < self.node.raft().applied() {
                    self.state.flush_at = Some(now.after(FLUSH_INTERVAL_US));
                }
                self.node.step(now, Event::StateDurable(index));
            }
            Report::Fetching { from, snapshot } => {
                self.shared.tell(NodeEvent::SnapshotFetching { from, snapshot });
            }
            Report::FetchEnded { from, snapshot, complete } => {
                self.shared.tell(NodeEvent::SnapshotFetched { from, snapshot, complete });
            }
            Report::FetchFailed { from, snapshot, why } => {
                Counters::add(&self.shared.counters.fetches_failed, 1);
                let failed = NodeEvent::FetchFailed { from, snapshot, why };
                self.shared.tell_again(&Matter::FetchFailed(from), failed);
            }
            Report::NoSpace(full) => {
                self.state.no_space = full;
                Counters::add(&self.shared.counters.disk_full, usize::from(full));
                self.shared.tell(NodeEvent::NoSpace { full });
            }
            // The node decides what that means, as it does in the simulator.
            Report::Stop(why @ StopReason::Disk { .. }) => {
                self.state.failed = Some(why);
                self.node.step(now, Event::DiskFailed);
            }
            Report::Stop(why) => self.stop(why),
        }
    }

    fn receive(&mut self, now: Time, message: NodeMessage) {
        if let NodeMessage::Raft(envelope) = &message
            && self.node.raft().role() != RoleName::Leader
        {
            let committed = match &envelope.message {
                Message::AppendEntries(append) => Some(append.leader_commit),
                Message::Heartbeat(heartbeat) => Some(heartbeat.leader_commit),
                Message::CommitNotice(notice) => Some(notice.leader_commit),
                _ => None,
            };
            if let Some(committed) = committed
                && envelope.term >= self.node.raft().term()
            {
                // The older promise is the one that is fulfilled first.
                if self.node.raft().applied() >= committed {
                    self.shared.freshness.set(Freshness::At(now));
                } else if self.state.told.is_none() {
                    self.state.told = Some((committed, now));
                }
            }
        }
        self.node.step(now, Event::Receive(message));
    }

    fn request(&mut self, now: Time, request: Request, reply: ReplyTo) {
        let (request, reply) = match (request, reply) {
            (Request::Propose { command, in_term: None }, ReplyTo::Propose(to))
                if command.len() <= TOGETHER_EACH_MAX
                    && Command::may_share(&command)
                    && !self.state.no_space =>
            {
                return self.gather(now, command, to);
            }
            other => other,
        };
        let mut request = request;
        let starts = matches!(reply, ReplyTo::Start(..));
        match &mut request {
            Request::Propose { in_term, .. } => {
                Counters::add(&self.shared.counters.proposals, 1);
                if self.state.no_space {
                    // Dropped: whoever waits asks why.
                    return reply.refuse_no_space();
                }
                if starts {
                    in_term.get_or_insert(self.node.raft().term());
                }
            }
            Request::Read { .. } | Request::LocalRead => {
                Counters::add(&self.shared.counters.reads, 1);
            }
            Request::Change(_) | Request::Transfer { .. } | Request::Campaign => {}
        }
        let id = self.state.replies.insert(reply);
        if starts {
            self.node.announce(id);
        }
        self.node.step(now, Event::Request { id, request });
    }

    /// Small commands that arrive together go into one entry.
    fn gather(
        &mut self,
        now: Time,
        command: Bytes,
        to: oneshot::Sender<Result<Executed, Refusal>>,
    ) {
        let bytes_max = TOGETHER_BYTES_MAX.min(self.node.raft().config().entry_bytes_max);
        let state = &mut self.state;
        // Beside the command: its length, and the kind of the entry.
        if state.together.size() + command.len() + 5 > bytes_max {
            self.propose_together(now);
        }
        let state = &mut self.state;
        // The first one waits until there is a second, and needs no copy if there is none.
        match state.first.take() {
            None if state.together.is_empty() => {
                state.first = Some((command, to));
                return;
            }
            None => {}
            Some((first, first_to)) => {
                state.together.push(&first);
                state.together_to.push(first_to);
            }
        }
        state.together.push(&command);
        state.together_to.push(to);
    }

    fn propose_together(&mut self, now: Time) {
        let state = &mut self.state;
        let (command, reply, count) = match state.first.take() {
            Some((command, to)) => (command, ReplyTo::Propose(to), 1),
            None if state.together.is_empty() => return,
            None => {
                let to = std::mem::take(&mut state.together_to);
                let count = to.len();
                (state.together.take(), ReplyTo::Together(to), count)
            }
        };
        Counters::add(&self.shared.counters.proposals, count);
        let id = state.replies.insert(reply);
        let request = Request::Propose { command, in_term: None };
        self.node.step(now, Event::Request { id, request });
    }

    fn control(&mut self, now: Time, control: Control) {
        match control {
            Control::Status(to) => {
                let _ = to.send(self.node.raft().status());
            }
            Control::Snapshot(to) => {
                self.state.spool_waiting.push(to);
                self.node.step(now, Event::TakeSnapshot);
            }
            Control::Stop => self.stop(StopReason::Requested),
        }
    }

    fn stop(&mut self, why: StopReason) {
        self.state.stop.get_or_insert(why);
    }

    // ---- what is to be done ----

    fn carry_out(&mut self, now: Time) {
        loop {
            let mut actions = std::mem::take(&mut self.state.actions);
            self.node.take_actions_into(&mut actions);
            for (id, at) in self.node.take_places() {
                self.state.replies.appended(id, at);
            }
            let idle = actions.is_empty();
            for action in actions.drain(..) {
                if self.state.stop.is_none() {
                    self.act(now, action);
                }
            }
            self.state.actions = actions;
            if idle {
                return;
            }
        }
    }

    fn act(&mut self, now: Time, action: Action) {
        match action {
            Action::Reply { id, reply } => self.state.replies.answer(id, reply),
            Action::Send { to, message } => {
                Counters::add(&self.shared.counters.messages_sent, 1);
                self.network.send(to, message);
            }
            Action::Persist(persist) => {
                Counters::add(&self.shared.counters.records_written, 1);
                match &self.log {
                    Log::Memory(log) => {
                        let seq = persist.seq;
                        log.append(persist);
                        self.node.step(now, Event::Stored(seq));
                    }
                    Log::Disk(log) => log.persist(persist),
                }
            }
            Action::Apply(entries) => self.apply(now, entries),
            Action::Load(load) => self.load(load),
            Action::Compact(start) => match &self.log {
                Log::Memory(log) => log.compact(&start),
                Log::Disk(log) => log.compact(start),
            },
            Action::Spool => self.give(Work::View),
            Action::Fetch { from, snapshot } => self.network.fetch(from, snapshot),
            Action::Install(install) => {
                let (done, restored) = mpsc::channel();
                self.state.installing = Some((install.seq, install.snapshot.id));
                match &self.log {
                    Log::Memory(log) => {
                        log.install(&install.snapshot);
                        let (seq, inbox) = (install.seq, Arc::clone(&self.shared.inbox));
                        tokio::task::spawn_blocking(move || {
                            if restored.recv().is_ok() {
                                inbox.event(Event::Stored(seq));
                            }
                        });
                    }
                    Log::Disk(log) => log.install(install.clone(), restored),
                }
                self.give_aside(Work::Install(install, done));
            }
            Action::Notice(notice) => self.notice(notice),
            Action::Stop => {
                let why = self.state.failed.take();
                self.stop(why.expect("a node stops because it was told that its disk has failed"));
            }
        }
    }

    fn apply(&mut self, now: Time, entries: Vec<Entry>) {
        self.count(&entries);
        if let Some((thread, _)) = &self.apply_thread {
            // It has ended only if it failed, and has said so.
            let _ = thread.send(Work::Apply(entries));
            return;
        }
        let up_to = entries.last().map_or(Index::ZERO, |entry| entry.index);
        match self.machinist.replica.apply(&entries) {
            Ok(responses) => {
                self.applied(now, up_to);
                self.node.step(now, Event::Applied { up_to, responses });
            }
            Err(why) => self.stop(why),
        }
    }

    fn count(&self, entries: &[Entry]) {
        let counters = &self.shared.counters;
        Counters::add(&counters.entries_applied, entries.len());
        Counters::add(&counters.batches_applied, 1);
    }

    fn applied(&mut self, now: Time, up_to: Index) {
        if let Some((committed, at)) = self.state.told
            && up_to >= committed
        {
            self.state.told = None;
            self.shared.freshness.set(Freshness::At(at));
        }
        if self.machinist.replica.is_durable() {
            if self.state.flush_at.is_none() && !self.state.flushing {
                self.state.flush_at = Some(now.after(FLUSH_INTERVAL_US));
            }
        } else if matches!(self.log, Log::Memory(_)) {
            // Log and state live and die together.
            self.node.step(now, Event::StateDurable(up_to));
        }
    }

    /// Something for the state machine, in order with what it was given before.
    fn give(&mut self, work: Work) {
        match &self.apply_thread {
            Some((thread, _)) => {
                let _ = thread.send(work);
            }
            None => {
                if let Err(why) = self.machinist.work(work) {
                    self.stop(why);
                }
            }
        }
    }

    /// The same for something that takes long; nothing is given to the state machine until it is
    /// done.
    fn give_aside(&mut self, work: Work) {
        if self.apply_thread.is_some() {
            return self.give(work);
        }
        let machinist = self.machinist.share();
        let work = move || {
            if let Err(why) = machinist.work(work) {
                machinist.inbox.report(Report::Stop(why));
            }
        };
        tokio::task::spawn_blocking(reporting("an installation", &self.shared.inbox, work));
    }

    fn load(&self, load: Load) {
        let (log, inbox) = (self.log.clone(), Arc::clone(&self.shared.inbox));
        let read = move || {
            let result = log.read(load.first, load.last, load.bytes_max);
            inbox.event(Event::Loaded { id: load.id, result });
        };
        match &self.log {
            Log::Memory(_) => read(),
            Log::Disk(_) => {
                let read = reporting("a read of the log", &self.shared.inbox, read);
                drop(tokio::task::spawn_blocking(read));
            }
        }
    }

    // ---- snapshots ----

    fn spool(&mut self, view: View) {
        let meta = self.node.raft().snapshot_meta(view.at.index);
        let Some(meta) = meta.filter(|meta| meta.id == view.at && meta.id != LogId::ZERO) else {
            let why = "there is nothing new to be written".to_owned();
            return self.shared.inbox.report(Report::Spooled(Err(why)));
        };
        let cluster = self.node.raft().config().cluster;
        let sessions = view.sessions.clone().into();
        let (snapshots, inbox) = (Arc::clone(&self.snapshots), Arc::clone(&self.shared.inbox));
        tokio::task::spawn_blocking(move || {
            let id = meta.id;
            let head = Head { cluster, meta, sessions };
            let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                snapshots.write(&head, view)
            }));
            inbox.report(match written {
                Ok(written) => Report::Spooled(match written {
                    Ok(bytes) => Ok((id, bytes)),
                    Err(error) => Err(error.to_string()),
                }),
                Err(panic) => Report::Stop(StopReason::Panicked {
                    operation: "writing a snapshot",
                    message: message_of(&*panic),
                }),
            });
        });
    }

    fn spooled(&mut self, now: Time, result: Result<(LogId, u64), String>) {
        for waiting in self.state.spool_waiting.drain(..) {
            let _ = waiting.send(result.clone().map(|_| ()));
        }
        let taken = result.as_ref().ok().map(|(at, _)| *at);
        match result {
            Ok((at, bytes)) => {
                Counters::add(&self.shared.counters.snapshots_taken, 1);
                self.shared.over(&Matter::SnapshotFailed);
                self.shared.tell(NodeEvent::SnapshotTaken { at, bytes });
            }
            Err(why) => {
                Counters::add(&self.shared.counters.snapshots_failed, 1);
                let failed = NodeEvent::SnapshotFailed { why };
                self.shared.tell_again(&Matter::SnapshotFailed, failed);
            }
        }
        self.node.step(now, Event::Spooled(taken));
    }

    fn stored(&mut self, seq: Seq) {
        if let Some((_, at)) = self.state.installing.take_if(|(install, _)| *install <= seq) {
            Counters::add(&self.shared.counters.snapshots_installed, 1);
            self.shared.tell(NodeEvent::SnapshotInstalled { at });
        }
    }

    // ---- what others want to know ----

    fn notice(&self, notice: Notice) {
        match (Matter::of_notice(&notice), notice) {
            (Some(matter), notice) => self.shared.tell_again(&matter, NodeEvent::Notice(notice)),
            (None, Notice::SteppedDown { term, why }) => {
                self.shared.tell(NodeEvent::SteppedDown { term, why });
            }
            (None, notice) => self.shared.tell(NodeEvent::Notice(notice)),
        }
    }

    fn tell(&mut self, now: Time) {
        let Self { node, shared, state, .. } = self;
        let (raft, seen) = (node.raft(), &mut state.seen);
        let (role, term, leader) = (raft.role(), raft.term(), raft.leader());
        let applied = raft.applied();
        if seen.applied != applied {
            seen.applied = applied;
            Counters::set(&shared.counters.applied_index, applied.0);
            shared.applied.send_replace(applied);
        }
        if seen.term != term || seen.role != Some(role) {
            Counters::set(&shared.counters.term, term.0);
            if seen.role != Some(role) {
                shared.tell(NodeEvent::Role { role, term });
                state.look_at = Time(0);
                state.silent.clear();
                if role == RoleName::Leader {
                    shared.freshness.set(Freshness::Leads);
                } else if seen.role == Some(RoleName::Leader) {
                    shared.freshness.set(Freshness::At(clock::now()));
                }
            }
            seen.role = Some(role);
            if seen.term != term {
                state.told = None;
            }
            seen.term = term;
        }
        // Another term, another leader, even if it is the same node.
        let known = (leader, term);
        if seen.leader != known && (leader.is_some() || seen.leader.0.is_some()) {
            seen.leader = known;
            shared.leader.send_replace((leader, term));
            shared.tell(NodeEvent::Leader { leader, term });
        }
        let membership = raft.membership();
        if state.peers.follow(membership, now, 2 * raft.config().election_timeout_max_us) {
            self.network.set_peers(&state.peers);
        }
        if !seen.membership.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, membership)) {
            let before = seen.membership.replace(Arc::clone(membership));
            let (membership, at) = (Arc::clone(membership), raft.status().membership_index);
            if membership.contains(shared.id) {
                seen.leaves_at = None;
            } else if before.is_some_and(|before| before.contains(shared.id)) {
                seen.leaves_at = Some(at);
            }
            shared.membership.send_replace(Arc::clone(&membership));
            shared.tell(NodeEvent::Membership { membership, at });
        }
        if let Some(at) = seen.leaves_at.take_if(|at| *at <= raft.commit_index()) {
            let _ = shared.removed.set(at);
            shared.tell(NodeEvent::Removed { at });
        }
    }

    /// The leader looks after its disk and its peers.
    fn look(&mut self, now: Time) {
        self.state.look_at = now.after(LOOK_INTERVAL_US);
        let status = self.node.raft().status();
        let timeout = self.node.raft().config().election_timeout_min_us;
        match status.writing_since {
            Some(since) if now.since(since) >= timeout => {
                if self.state.stall_seen != Some(since) {
                    self.state.stall_seen = Some(since);
                    Counters::add(&self.shared.counters.disk_stalls, 1);
                    self.shared.tell(NodeEvent::DiskStalled { micros: now.since(since) });
                }
            }
            _ => self.state.stall_seen = None,
        }
        let silent = |peer: &&quorate_raft::PeerStatus| now.since(peer.last_contact) > timeout;
        let silent: Vec<NodeId> =
            status.peers.iter().filter(silent).map(|peer| peer.node).collect();
        for peer in silent.iter().filter(|peer| !self.state.silent.contains(peer)) {
            self.shared.tell(NodeEvent::PeerSilent { peer: *peer });
        }
        for peer in self.state.silent.iter().filter(|peer| !silent.contains(peer)) {
            self.shared.tell(NodeEvent::PeerBack { peer: *peer });
        }
        self.state.silent = silent;
    }

    // ---- the end ----

    async fn end(self) {
        let Self { shared, apply_thread, log, log_thread, network, machinist, state, .. } = self;
        let mut ending = self.ending;
        let why = state.stop.unwrap_or(StopReason::Requested);
        ending.stop(why.clone());
        // A network that panics is closed as far as it can be.
        let _ = caught_async("the network", network.close()).await;
        shared.asks.close();
        shared.inbox.close();
        // Whoever waits is told that nobody answers, and asks why.
        drop(state.replies);
        let durable = machinist.replica.is_durable() && why == StopReason::Requested;
        let threads = tokio::task::spawn_blocking(move || {
            if let Some((sender, thread)) = apply_thread {
                drop(sender);
                let _ = thread.join();
            }
            machinist.end(durable);
            drop(machinist);
            if let Log::Disk(log) = &log {
                log.stop();
            }
            if let Some(thread) = log_thread {
                let _ = thread.join();
            }
            drop(log);
        });
        let _ = threads.await;
        drop(ending);
    }
}

/// However the driver ends, by a panic or with its runtime too, nobody waits for it in vain, and the
/// log's thread ends.
pub(crate) struct Ending {
    shared: Arc<Shared>,
    log: Option<Log>,
    why: StopReason,
}

impl Ending {
    pub(crate) fn new(shared: Arc<Shared>, log: Log) -> Self {
        Self { shared, log: Some(log), why: StopReason::RuntimeEnded }
    }

    /// From now on the node has stopped; its log is let go of.
    fn stop(&mut self, why: StopReason) {
        self.shared.set_stopped(why.clone());
        self.shared.forget_log();
        self.why = why;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.stop(self.why.clone());
        self.shared.asks.close();
        self.shared.inbox.close();
        if let Some(Log::Disk(log)) = self.log.take() {
            log.stop();
        }
        self.shared.tell(NodeEvent::Stopped(self.why.clone()));
        self.shared.ended.send_replace(true);
    }
}
