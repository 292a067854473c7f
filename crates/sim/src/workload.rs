//! Clients: they write, compare and swap, delete and read a few keys, all at the same time, and
//! record what they see.
//!
//! # An honest history
//!
//! Each attempt is an operation of its own. One that certainly had no effect is recorded as failed,
//! one whose outcome is unknown stays open for ever (or until a late answer arrives), and a retry of
//! either is a new operation, because the first may still take effect behind it. So the history
//! never says more than a client can know, and the judge
//! ([`linearizability`](crate::linearizability)) can be strict. Clients with sessions
//! (`sessions.rs`) do better: for them a command and all its retries are one operation.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_node::{Executed, ProposeFailure, ReadFailure, Reply, Request};
use quorate_raft::{
    MemberRole, NoLease, NodeId, ProposeError, ReadError, ReadMode, RequestId, RoleName, Term, Time,
};

use crate::checkers::{Checkers, Property};
use crate::cluster::{Cluster, Observation, Observed};
use crate::linearizability::{
    ClientId, History, KeyValue, KeyValueAction, KeyValueOp, KeyValueReply, Limits, OpId, Verdict,
    check,
};
use crate::marks::{Mark, Marks};
use crate::options::RunOptions;
use crate::rng::Rng;
use crate::state_machine::{KvCommand, KvQuery, KvReply};

mod sessions;

use sessions::{Known, Numbered, Session};

/// Values of a client start at its number times this, so that no two clients write the same.
const VALUES_PER_CLIENT: u64 = 1_000_000;

/// Most commands in one burst of ballast.
const BURST_MAX: u64 = 12;

/// The clients of a run.
#[derive(Debug)]
pub struct Workload {
    options: RunOptions,
    clients: BTreeMap<u64, Client>,
    history: History<KeyValueOp<u64, u64>, KeyValueReply<u64>>,
    /// Requests that are not answered, or not yet.
    open: BTreeMap<RequestId, Pending>,
    marks: Marks,
    executed: u64,
    read: u64,
    stopped: bool,
}

#[derive(Debug)]
struct Client {
    rng: Rng,
    next_value: u64,
    /// Who leads, as far as the client has heard.
    leader: Option<NodeId>,
    /// What it saw last of each key.
    seen: BTreeMap<u64, Option<u64>>,
    /// What it waits for.
    waits_for: Option<RequestId>,
    /// What to try again.
    retry: Option<Asked>,
    /// Its session, if it is one that has them.
    session: Option<Session>,
    /// Counts its timers; only the last one set is good.
    timer: u64,
}

/// What a client wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Command { command: KvCommand, bound: bool },
    Numbered(Numbered),
    Session,
    Read { key: u64, mode: ReadMode },
}

#[derive(Debug)]
struct Pending {
    client: u64,
    node: NodeId,
    asked: Asked,
    /// The term that the command is bound to.
    in_term: Option<Term>,
    /// The operation that this is an attempt of, and the only one. A session remembers its own.
    operation: Option<OpId>,
}

impl Workload {
    /// Clients, of which only those in `only` take part; all, if it is `None`. What one does not
    /// do changes nothing about what the others want.
    #[must_use]
    pub fn new(seed: u64, options: &RunOptions, only: Option<&[u64]>) -> Self {
        let takes_part = |client: &u64| only.is_none_or(|only| only.contains(client));
        let clients = (1..=options.clients).filter(takes_part).map(|client| {
            let mut rng = Rng::new(seed.wrapping_mul(0x1000_0000_01b3) ^ client);
            let session = rng.chance(ppm(options.sessions_ppm)).then(Session::default);
            let state = Client {
                rng,
                session,
                next_value: client * VALUES_PER_CLIENT,
                leader: None,
                seen: BTreeMap::new(),
                waits_for: None,
                retry: None,
                timer: 0,
            };
            (client, state)
        });
        Self {
            clients: clients.collect(),
            options: options.clone(),
            history: History::new(),
            open: BTreeMap::new(),
            marks: Marks::default(),
            executed: 0,
            read: 0,
            stopped: false,
        }
    }

    /// Sets the clients to work.
    pub fn start(&mut self, cluster: &mut Cluster) {
        for (number, client) in &mut self.clients {
            let pause = client.rng.below(self.options.think_us + 1);
            client.wake(cluster, *number, pause);
        }
    }

    /// The clients ask for nothing new.
    pub const fn stop(&mut self) {
        self.stopped = true;
    }

    /// The rare states seen by clients.
    #[must_use]
    pub const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// How many commands were executed, and how many reads were served, as far as clients know.
    #[must_use]
    pub const fn done(&self) -> (u64, u64) {
        (self.executed, self.read)
    }

    /// What clients saw.
    #[must_use]
    pub const fn history(&self) -> &History<KeyValueOp<u64, u64>, KeyValueReply<u64>> {
        &self.history
    }

    /// Judges what clients saw.
    #[must_use]
    pub fn verdict(&self, limits: Limits) -> Verdict<KeyValue<u64, u64>> {
        check(&KeyValue::new(), &self.history, limits)
    }

    /// A timer of a client, set with [`Cluster::schedule`], has come.
    pub fn timer(&mut self, cluster: &mut Cluster, checkers: &mut Checkers, token: u64) {
        let (number, timer) = (token >> 32, token & 0xffff_ffff);
        let Some(client) = self.clients.get_mut(&number) else { return };
        if self.stopped || client.timer != timer {
            return;
        }
        if let Some(request) = client.waits_for.take() {
            // Out of patience. The answer may still come, and is recorded then.
            if let Some(pending) = self.open.get(&request)
                && pending.operation.is_some()
                && client.rng.chance(500_000)
            {
                client.retry = Some(pending.asked);
            }
        }
        self.ask(cluster, checkers, number);
    }

    fn ask(&mut self, cluster: &mut Cluster, checkers: &mut Checkers, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let options = &self.options;
        let node = client.target(cluster);
        let retried = client.retry.take();
        if retried.is_none() && client.rng.chance(ppm(options.ballast_ppm)) {
            client.burst(cluster, options, node);
            let pause = client.pause(options);
            return client.wake(cluster, number, pause);
        }
        let mut asked = retried.unwrap_or_else(|| client.wish(options));
        if retried.is_some() {
            self.marks.hit(match asked {
                Asked::Read { .. } => Mark::ReadRetried,
                _ => Mark::ProposeRetried,
            });
        }
        let now = cluster.now();
        let history = &mut self.history;
        let mut invoke = |(key, action): (u64, KeyValueAction<u64>)| {
            history.invoke(ClientId(number), KeyValueOp { key, action }, now.0)
        };
        if let (Some(session), Asked::Command { command, .. }) = (&mut client.session, asked) {
            let invoke = || invoke(operation(command));
            let numbered = session.ask(command, invoke, &mut self.marks);
            asked = numbered.map_or(Asked::Session, Asked::Numbered);
        }
        let operation = match asked {
            Asked::Command { command, .. } => Some(invoke(operation(command))),
            Asked::Read { key, .. } => Some(invoke((key, KeyValueAction::Get))),
            Asked::Numbered(_) | Asked::Session => None,
        };
        let mut in_term = None;
        let request = match asked {
            Asked::Command { command, bound } => {
                in_term = bound.then(|| client.term(cluster, node)).flatten();
                let command = command.to_bytes();
                cluster.request(node, Request::Propose { command, in_term })
            }
            Asked::Numbered(numbered) => cluster.propose(node, numbered.to_bytes()),
            Asked::Session => cluster.propose(node, Session::open(options.sessions_max)),
            Asked::Read { key, mode } => cluster.read(node, mode, KvQuery { key }.to_bytes()),
        };
        let Some(request) = request else {
            // Nobody is there: the next one is asked soon.
            if let Some(operation) = operation {
                self.history.fail(operation);
            }
            client.leader = None;
            let pause = client.rng.between(1, options.think_us / 2 + 1);
            return client.wake(cluster, number, pause);
        };
        if let Asked::Read { mode, .. } = asked
            && options.judges(mode)
        {
            checkers.read_began(node, request);
        }
        client.waits_for = Some(request);
        client.wake(cluster, number, options.patience_us);
        self.open.insert(request, Pending { client: number, node, asked, in_term, operation });
    }

    /// Learns from an answer, if it is one to a client.
    ///
    /// # Errors
    ///
    /// When an answer breaks a promise by itself.
    pub fn observe(
        &mut self,
        cluster: &mut Cluster,
        observation: &Observation,
    ) -> Result<(), (Property, String)> {
        let (id, answer) = match &observation.what {
            Observed::Answered { id, reply, value } => (*id, Some((reply, value.as_ref()))),
            Observed::Abandoned { id } => (*id, None),
            _ => return Ok(()),
        };
        let Some(pending) = self.open.remove(&id) else { return Ok(()) };
        let mut retry_at_once = None;
        match answer {
            // The process died: a read has no effect, a command may have one.
            None => {
                if let (Asked::Read { .. }, Some(operation)) = (pending.asked, pending.operation) {
                    self.history.fail(operation);
                }
            }
            Some((Reply::Proposed(result), _)) => {
                if let (Ok(executed), Some(term)) = (result, pending.in_term)
                    && executed.at.term != term
                {
                    let what = format!(
                        "n{} executed a command bound to term {term} at {}",
                        pending.node, executed.at
                    );
                    return Err((Property::BoundToTerm, what));
                }
                if let (Ok(executed), Asked::Session | Asked::Numbered(_)) = (result, pending.asked)
                {
                    let told = self.executed_in_session(&pending, observation.at, executed);
                    told.map_err(|seen| (Property::ExactlyOnce, seen))?;
                } else {
                    let reply = result.as_ref().map(|executed| &executed.response);
                    retry_at_once = self.proposed(&pending, observation.at, reply);
                }
            }
            Some((Reply::Read(result), value)) => {
                retry_at_once = self.was_read(cluster, &pending, observation.at, result, value);
            }
            Some(_) => {}
        }
        let Some(client) = self.clients.get_mut(&pending.client) else { return Ok(()) };
        if client.waits_for == Some(id) {
            client.waits_for = None;
            client.retry = retry_at_once.filter(|_| client.rng.chance(600_000));
            let pause = match client.retry {
                Some(_) => client.rng.between(0, self.options.election_min_us / 2),
                None => client.pause(&self.options),
            };
            client.wake(cluster, pending.client, pause);
        }
        Ok(())
    }

    /// The log has answered the client of a session.
    fn executed_in_session(
        &mut self,
        pending: &Pending,
        at: Time,
        executed: &Executed,
    ) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(&pending.client) else { return Ok(()) };
        let Some(session) = &mut client.session else { return Ok(()) };
        let Asked::Numbered(numbered) = pending.asked else {
            session.opened(executed.at.index.0, &mut self.marks);
            return Ok(());
        };
        if let Known::Done(operation, reply) =
            session.answered(numbered, &executed.response, &mut self.marks)?
        {
            self.executed += 1;
            let reply = KvReply::from_bytes(&reply).ok_or("a reply that is none")?;
            client.saw(numbered.command, reply);
            self.history.complete(operation, history_reply(reply), at.0);
        }
        Ok(())
    }

    /// A command was answered. Gives back what to try again.
    fn proposed(
        &mut self,
        pending: &Pending,
        at: Time,
        result: Result<&Bytes, &ProposeFailure>,
    ) -> Option<Asked> {
        let client = self.clients.get_mut(&pending.client)?;
        match result {
            Ok(response) => {
                let (Asked::Command { command, .. }, Some(operation)) =
                    (pending.asked, pending.operation)
                else {
                    return None;
                };
                self.executed += 1;
                if pending.in_term.is_some() {
                    self.marks.hit(Mark::ExecutedInTerm);
                }
                if let Some(reply) = KvReply::from_bytes(response) {
                    client.saw(command, reply);
                    self.history.complete(operation, history_reply(reply), at.0);
                }
                None
            }
            Err(failure) => {
                if let ProposeFailure::Refused(ProposeError::NotLeader { leader }) = failure {
                    client.leader = *leader;
                } else {
                    client.leader = None;
                }
                let operation = pending.operation?;
                if failure.never_happened() {
                    self.history.fail(operation);
                }
                Some(pending.asked)
            }
        }
    }

    /// A read was answered.
    fn was_read(
        &mut self,
        cluster: &Cluster,
        pending: &Pending,
        at: Time,
        result: &Result<quorate_raft::Index, ReadFailure>,
        value: Option<&Bytes>,
    ) -> Option<Asked> {
        let client = self.clients.get_mut(&pending.client)?;
        let (Asked::Read { key, mode }, Some(operation)) = (pending.asked, pending.operation)
        else {
            return None;
        };
        let reply = value.and_then(|bytes| KvReply::from_bytes(bytes));
        if let (Ok(_), Some(KvReply::Value(value))) = (result, reply) {
            self.read += 1;
            client.seen.insert(key, value);
            if self.options.judges(mode) {
                self.history.complete(operation, KeyValueReply::Value(value), at.0);
            } else {
                self.history.fail(operation);
            }
            self.marks.hit(match (mode, place(cluster, pending.node)) {
                (ReadMode::Lease, _) => Mark::LeaseReadServed,
                (ReadMode::ReadIndex, mark) => mark,
            });
            return None;
        }
        self.history.fail(operation);
        client.leader = None;
        match result {
            Err(ReadFailure::Refused(ReadError::NotLeader { leader })) => client.leader = *leader,
            Err(ReadFailure::Refused(ReadError::NoLease(why))) => self.marks.hit(match why {
                NoLease::Off => Mark::LeaseOff,
                NoLease::NotCommitted => Mark::LeaseNotCommitted,
                NoLease::Expired => Mark::LeaseExpired,
                NoLease::Transferred => Mark::LeaseTransferred,
                _ => Mark::LeaseDrift,
            }),
            _ => {}
        }
        Some(Asked::Read { key, mode: ReadMode::ReadIndex })
    }
}

impl Client {
    /// Sets its only timer.
    fn wake(&mut self, cluster: &mut Cluster, number: u64, after_us: u64) {
        self.timer = (self.timer + 1) & 0xffff_ffff;
        cluster.schedule(cluster.now().after(after_us), number << 32 | self.timer);
    }

    /// Short pauses within a burst, long ones between bursts; the mean is about `think_us`.
    fn pause(&mut self, options: &RunOptions) -> u64 {
        match self.rng.chance(700_000) {
            true => self.rng.between(0, options.think_us / 5),
            false => self.rng.between(options.think_us, 5 * options.think_us),
        }
    }

    /// Whom to ask: the leader, whom it heard of or finds out about, or anyone.
    fn target(&mut self, cluster: &Cluster) -> NodeId {
        let guess = match self.rng.below(10) {
            0..=3 => self.leader.or_else(|| cluster.leader()),
            4..=6 => cluster.leader(),
            _ => None,
        };
        let any = |rng: &mut Rng| rng.pick(&cluster.nodes()).copied().unwrap_or(NodeId(1));
        guess.unwrap_or_else(|| any(&mut self.rng))
    }

    /// What it wants next.
    fn wish(&mut self, options: &RunOptions) -> Asked {
        let in_doubt = self.session.as_ref().is_some_and(Session::is_in_doubt);
        if in_doubt && self.rng.chance(700_000) {
            // What it is, the session knows.
            return Asked::Command { command: KvCommand::Delete { key: 0 }, bound: false };
        }
        let key = self.rng.below(options.keys.max(1));
        if self.rng.chance(ppm(options.reads_ppm)) {
            let is_lease = self.rng.chance(ppm(options.lease_reads_ppm));
            let mode = if is_lease { ReadMode::Lease } else { ReadMode::ReadIndex };
            return Asked::Read { key, mode };
        }
        self.next_value += 1;
        let value = self.next_value;
        let command = match self.rng.below(10) {
            0 => KvCommand::Delete { key },
            1..=4 => {
                let expected = self.seen.get(&key).copied().flatten();
                let new = Some(value).filter(|_| !self.rng.chance(100_000));
                KvCommand::CompareAndSwap { key, expected, new }
            }
            _ => KvCommand::Put { key, value },
        };
        Asked::Command { command, bound: self.rng.chance(ppm(options.in_term_ppm)) }
    }

    /// The term to bind a command to: usually the one in which the node leads.
    fn term(&mut self, cluster: &Cluster, node: NodeId) -> Option<Term> {
        let brief = cluster.host(node)?.brief()?;
        let off = if self.rng.chance(100_000) { 1 } else { 0 };
        Some(Term(brief.term.0 + off))
    }

    /// Proposes commands that mean nothing, of all sizes and all at once: what fills windows and
    /// queues.
    fn burst(&mut self, cluster: &mut Cluster, options: &RunOptions, node: NodeId) {
        let bytes_max = match self.rng.below(3) {
            0 => 8,
            1 => 300,
            _ => (options.entry_bytes + options.entry_bytes / 10).min(2_500),
        };
        let requests = (0..self.rng.between(1, BURST_MAX)).map(|_| {
            let len = usize::try_from(self.rng.below(bytes_max)).unwrap_or_default();
            Request::Propose { command: Bytes::from(vec![b'#'; len]), in_term: None }
        });
        cluster.requests(node, requests.collect());
    }

    fn saw(&mut self, command: KvCommand, reply: KvReply) {
        let value = match (command, reply) {
            (KvCommand::Put { value, .. }, _) => Some(value),
            (KvCommand::Delete { .. }, _) => None,
            (KvCommand::CompareAndSwap { new, .. }, KvReply::Swapped(true)) => new,
            _ => return,
        };
        self.seen.insert(command.key(), value);
    }
}

/// Where a read was served.
fn place(cluster: &Cluster, node: NodeId) -> Mark {
    let Some(brief) = cluster.host(node).and_then(|host| host.brief()) else {
        return Mark::ReadAtFollower;
    };
    let is_learner = brief
        .membership
        .member(node)
        .is_some_and(|member| matches!(member.role, MemberRole::Learner { .. }));
    match (brief.role, is_learner) {
        (RoleName::Leader, _) => Mark::ReadAtLeader,
        (_, true) => Mark::ReadAtLearner,
        (_, false) => Mark::ReadAtFollower,
    }
}

const fn operation(command: KvCommand) -> (u64, KeyValueAction<u64>) {
    let action = match command {
        KvCommand::Put { value, .. } => KeyValueAction::Put(value),
        KvCommand::Delete { .. } => KeyValueAction::Delete,
        KvCommand::CompareAndSwap { expected, new, .. } => {
            KeyValueAction::CompareAndSwap { expected, new }
        }
    };
    (command.key(), action)
}

const fn history_reply(reply: KvReply) -> KeyValueReply<u64> {
    match reply {
        KvReply::Value(value) => KeyValueReply::Value(value),
        KvReply::Swapped(swapped) => KeyValueReply::Swapped(swapped),
    }
}

fn ppm(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
