//! The key-value store under faults: writers, watchers and owners of leases, on replicas that crash, freeze and get
//! snapshots.
//!
//! A [`Trial`] is a run like those of [`run`](crate::run), with another state machine and other clients, and judged by the
//! same checkers of the Raft paper's properties; among them, that replicas which applied the same entries are equal. On
//! top of that an oracle demands:
//!
//! * all replicas have one history, and nobody is told of a revision, then asks and is told of an older one;
//! * each watch hears each event once, in order, whole revisions at a time, whatever node it is at, and a notice of
//!   progress comes behind everything that it covers;
//! * no lease ends before the time that its owner was promised, none is renewed that had ended when it was asked for, and
//!   all end once nobody cares for them;
//! * a leader always learns what became of the ends of leases that it proposed, as long as it leads.
//!
//! Store, watches and leases are those of production, on disks that lose their power in the middle of a flush.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_kv::{
    Command, Compact, Compare, CompareResult, CompareTarget, Decision, DeleteRange, LeaderTerm,
    LeaseId, Op, Put, Revision, Ticket, Txn,
};
use quorate_node::Reply;
use quorate_raft::{NodeId, ReadMode, RequestId, RoleName, Time};

use crate::checkers::Checkers;
use crate::cluster::{Cluster, MachineKind, Observation, Observed, Options};
use crate::nemesis::Nemesis;
use crate::network::Delay;
use crate::options::RunOptions;
use crate::rng::Rng;

mod machine;
mod oracle;
mod owners;
mod watchers;

pub use machine::KeyValueMachine;

use oracle::Oracle;
use owners::Owner;
use watchers::Watcher;

/// Keys that are written.
const KEYS: u64 = 6;
/// Between two looks at watches and at whoever is behind.
const TICK_US: u64 = 20_000;
/// After the faults, until all leases must be gone and all watches complete.
const SETTLE_US: u64 = 90_000_000;

/// Timers: of the tick, of writers, of owners.
const TICK: u64 = 1 << 40;
const WRITER: u64 = 2 << 40;
const OWNER: u64 = 3 << 40;
const DECISION: u64 = 4 << 40;

/// How long a decision of a lessor may lie about before the node gets it: threads are slow, sometimes.
const DECISION_DELAY_MAX_US: u64 = 5_000_000;

/// What a trial was like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Commands that clients know to be executed.
    pub executed: u64,
    /// Linearizable reads served.
    pub read: u64,
    /// Events heard by watches, notices of progress, changes of node, ends by compaction.
    pub heard: u64,
    /// Notices of progress.
    pub progress: u64,
    /// Watches that went on elsewhere.
    pub resumed: u64,
    /// Watches ended by compaction.
    pub compacted: u64,
    /// Leases granted.
    pub granted: u64,
    /// Renewals.
    pub renewed: u64,
    /// Keepalives that waited for the outcome of a command.
    pub waited: u64,
    /// Leases that a leader decided to end.
    pub expired: u64,
    /// Times that a lessor began to lead.
    pub promoted: u64,
}

impl Counts {
    /// Adds those of another trial.
    pub fn add(&mut self, other: &Self) {
        self.executed += other.executed;
        self.read += other.read;
        self.heard += other.heard;
        self.progress += other.progress;
        self.resumed += other.resumed;
        self.compacted += other.compacted;
        self.granted += other.granted;
        self.renewed += other.renewed;
        self.waited += other.waited;
        self.expired += other.expired;
        self.promoted += other.promoted;
    }
}

/// What a request was about.
#[derive(Debug)]
enum Open {
    /// A write or read, which began when this revision had been told.
    Seen {
        writer: u64,
        floor: Revision,
        read: bool,
    },
    Grant {
        owner: u64,
        id: LeaseId,
        ttl_s: i64,
        asked: Time,
    },
    Revoke {
        owner: u64,
    },
    /// A keepalive whose leadership is being confirmed.
    Confirm {
        owner: u64,
        node: NodeId,
        life: u64,
        ticket: Ticket,
        over: bool,
    },
    Decision {
        node: NodeId,
        life: u64,
        decision: Decision,
    },
}

/// A run of the key-value store.
#[derive(Debug)]
pub struct Trial {
    options: RunOptions,
    cluster: Cluster,
    checkers: Checkers,
    nemesis: Nemesis,
    oracle: Oracle,
    rng: Rng,
    writers: BTreeMap<u64, Rng>,
    owners: BTreeMap<u64, Owner>,
    watchers: Vec<Watcher>,
    open: BTreeMap<RequestId, Open>,
    /// Keepalives that wait for an outcome: whose, and whether the lease had ended when they came.
    waiting: BTreeMap<(NodeId, u64, Ticket), (u64, bool)>,
    /// Decisions on their way from a lessor to its node.
    decided: BTreeMap<u64, (NodeId, u64, Decision)>,
    last_decision: u64,
    next_lease: i64,
    compacted: Revision,
    stopped: bool,
    think_us: u64,
    counts: Counts,
}

/// Carries out what a seed stands for, with faults for so many events.
///
/// # Errors
///
/// The first thing that was wrong, in words.
pub fn run(seed: u64, steps: u64) -> Result<Counts, String> {
    let mut options = RunOptions::from_seed(seed);
    // Members stay as they are, and keep what is theirs: their coming and going is the business of other runs. Limits that
    // commands of some hundred bytes cannot meet are not.
    let kept =
        "change=0,wipe=0,rot=0,unreadable=0,lying_clocks=0,entry_bytes=1048576,append_bytes=65536";
    options.set(kept).map_err(|error| error.to_string())?;
    options.voters = options.voters.max(3);
    if seed.is_multiple_of(3) {
        // Leaders that do not notice for long that they are none any more.
        let blind = "check_quorum=0,lease_us=0,isolate=30,outage_us=10000000";
        options.set(blind).map_err(|error| error.to_string())?;
    }
    if seed % 3 == 1 {
        // Leaders that are elected while they still apply what others have logged.
        options.set("slow_apply=40,transfer=40").map_err(|error| error.to_string())?;
    }
    Trial::new(seed, &options).run(steps).map_err(|why| format!("seed {seed}: {why}"))
}

impl Trial {
    fn new(seed: u64, options: &RunOptions) -> Self {
        let mut rng = Rng::new(seed ^ 0x4b65_7956_616c_7565);
        let settings = Options { machine: MachineKind::KeyValue, ..options.cluster(seed) };
        Self {
            options: options.clone(),
            cluster: Cluster::new(settings),
            checkers: Checkers::new(),
            nemesis: Nemesis::drawing(seed, options),
            oracle: Oracle::default(),
            writers: (0..3).map(|number| (number, rng.fork())).collect(),
            owners: (0..4).map(|number| (number, Owner::new(rng.fork()))).collect(),
            watchers: (0..4).map(|_| Watcher::new(rng.fork(), KEYS)).collect(),
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            decided: BTreeMap::new(),
            last_decision: 0,
            next_lease: 1,
            compacted: Revision(-1),
            stopped: false,
            think_us: 20_000 + options.election_max_us / 10,
            counts: Counts::default(),
            rng,
        }
    }

    fn run(mut self, steps: u64) -> Result<Counts, String> {
        self.settle()?;
        self.nemesis.start(&mut self.cluster);
        let now = self.cluster.now();
        self.cluster.schedule(now, TICK);
        for writer in self.writers.keys() {
            self.cluster.schedule(now, WRITER | writer);
        }
        for owner in self.owners.keys() {
            self.cluster.schedule(now, OWNER | owner);
        }
        while self.cluster.steps() < steps && self.cluster.step() {
            self.settle()?;
        }
        self.recover()
    }

    /// The faults end, and everything must come to rest.
    fn recover(mut self) -> Result<Counts, String> {
        self.nemesis.stop();
        self.stopped = true;
        // Calmer than at the end of other runs: whenever the leader changes, leases begin anew.
        let mut link = self.options.link();
        link.delay.outlier_ppm = 0;
        link.loss_ppm = 0;
        self.cluster.network.set_defaults(link);
        let mut host = self.options.host();
        host.sync.outlier_ppm = 0;
        host.fetch_fails_ppm = 0;
        let short = self.options.election_min_us / 10;
        host.apply = Delay::between(0, self.options.apply_us.min(short));
        host.spool = Delay::between(0, self.options.spool_us.min(short));
        host.fetch = Delay::between(0, self.options.fetch_us.min(short));
        for node in self.cluster.nodes() {
            self.cluster.set_host_options(node, host);
        }
        let gone: Vec<NodeId> = self.nemesis.retired().iter().copied().collect();
        self.cluster.calm(&gone);
        let until = self.cluster.now().after(SETTLE_US);
        while self.cluster.now() < until && self.cluster.step() {
            self.settle()?;
        }
        let later = self.cluster.now().after(SETTLE_US);
        while self.cluster.leader().is_none() && self.cluster.now() < later && self.cluster.step() {
            self.settle()?;
        }
        let leader = self.cluster.leader().ok_or("nobody leads in the end")?;
        let machine = self.cluster.machine_mut::<KeyValueMachine>(leader).ok_or("no machine")?;
        let leases: Vec<i64> = machine.reader().leases().iter().map(|(id, _)| id.0).collect();
        if !leases.is_empty() {
            return Err(format!("leases {leases:?} live on without their owners"));
        }
        let current = machine.reader().revision();
        for (node, life, ticket) in self.waiting.keys() {
            // Those of an earlier life have lost their connection.
            let machine = self.cluster.machine_mut::<KeyValueMachine>(*node);
            if machine.is_some_and(|machine| machine.life == *life) {
                return Err(format!("n{node} never answers {ticket:?}"));
            }
        }
        for watcher in &self.watchers {
            watcher.is_complete(&self.oracle, current)?;
            self.counts.heard += watcher.heard;
            self.counts.progress += watcher.progress;
            self.counts.resumed += watcher.resumed;
            self.counts.compacted += watcher.compacted;
        }
        Ok(self.counts)
    }

    /// Judges what happened, and lets everybody react, until nothing happens any more at this instant.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            let observations = self.cluster.take_observations();
            if observations.is_empty() {
                return Ok(());
            }
            let judged = self.checkers.observe(self.cluster.steps(), &observations);
            judged.map_err(|violation| violation.to_string())?;
            self.look_at_replicas()?;
            for observation in &observations {
                self.react(observation)?;
            }
        }
    }

    /// What replicas did goes to the oracle; lessors follow their tables, and their nodes' leadership.
    fn look_at_replicas(&mut self) -> Result<(), String> {
        let now = self.cluster.now();
        for node in self.cluster.nodes() {
            let Some(host) = self.cluster.host(node) else { continue };
            let leads = host.brief().filter(|brief| brief.role == RoleName::Leader);
            let leads = leads.map(|brief| LeaderTerm(brief.term.0));
            let is_awake = host.is_up() && !host.is_paused();
            let Some(machine) = self.cluster.machine_mut::<KeyValueMachine>(node) else { continue };
            for done in machine.done.drain(..) {
                self.oracle.did(node, now, done)?;
            }
            self.compacted = self.compacted.max(machine.reader().compacted());
            machine.store.follow(&mut machine.lessor, now.0);
            if !is_awake {
                continue;
            }
            if machine.lessor.term().is_some() && machine.lessor.term() != leads {
                machine.store.demote(&mut machine.lessor);
            }
            let term = crate::state_machine::StateMachine::applied(machine).term;
            if let Some(leads) = leads.filter(|leads| leads.0 == term.0) {
                let promoted = machine.store.promote(&mut machine.lessor, now.0, leads);
                self.counts.promoted += u64::from(promoted);
            }
            let life = machine.life;
            let outcomes = machine.lessor.take_outcomes();
            let due = machine.lessor.wake_us().is_some_and(|at| at <= now.0);
            let decisions = if due { machine.lessor.decide(now.0) } else { Vec::new() };
            for (ticket, renewal) in outcomes {
                self.outcome(node, life, ticket, renewal)?;
            }
            for decision in decisions {
                self.last_decision += 1;
                let slow = self.rng.chance(300_000);
                let delay_us = if slow { self.rng.below(DECISION_DELAY_MAX_US) } else { 0 };
                self.decided.insert(self.last_decision, (node, life, decision));
                self.later(DECISION | self.last_decision, delay_us);
            }
        }
        Ok(())
    }

    fn react(&mut self, observation: &Observation) -> Result<(), String> {
        match &observation.what {
            Observed::Timer(token) if Nemesis::owns(*token) => {
                self.nemesis.timer(&mut self.cluster, &self.checkers);
            }
            Observed::Timer(token) => {
                let number = token & (TICK - 1);
                match token - number {
                    TICK => self.tick()?,
                    WRITER => self.write(number)?,
                    OWNER => self.care(number)?,
                    DECISION => {
                        if let Some((node, life, decision)) = self.decided.remove(&number) {
                            self.propose_decision(node, life, decision)?;
                        }
                    }
                    _ => {}
                }
            }
            Observed::Answered { id, reply, value } => {
                self.nemesis.observe(observation);
                if let Some(open) = self.open.remove(id) {
                    self.answered(open, reply, value.as_ref())?;
                }
            }
            Observed::Abandoned { id } => {
                self.nemesis.observe(observation);
                match self.open.remove(id) {
                    Some(Open::Seen { writer, .. }) => self.later(WRITER | writer, self.think_us),
                    Some(Open::Grant { owner, .. } | Open::Revoke { owner }) => {
                        self.later(OWNER | owner, self.think_us);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn later(&mut self, token: u64, us: u64) {
        let at = self.cluster.now().after(us);
        self.cluster.schedule(at, token);
    }

    /// A node that is up and not frozen; mostly the leader.
    fn node(&mut self) -> Option<NodeId> {
        let leader = self.cluster.leader();
        if leader.is_some() && self.rng.chance(700_000) {
            return leader;
        }
        let awake = self.cluster.hosts().filter(|host| host.is_up() && !host.is_paused());
        let awake: Vec<NodeId> = awake.map(crate::cluster::Host::id).collect();
        self.rng.pick(&awake).copied()
    }

    // Watches.

    fn tick(&mut self) -> Result<(), String> {
        self.later(TICK, TICK_US);
        let now = self.cluster.now();
        for node in self.cluster.nodes() {
            let host = self.cluster.host(node);
            if !host.is_some_and(|host| host.is_up() && !host.is_paused()) {
                continue;
            }
            let Some(machine) = self.cluster.machine_mut::<KeyValueMachine>(node) else { continue };
            machine.hub.tick(now.0);
            for _ in 0..3 {
                let round = machine.hub.catch_up(&machine.reader());
                if !round.map_err(|error| error.to_string())? {
                    break;
                }
            }
        }
        let mut watchers = core::mem::take(&mut self.watchers);
        for watcher in &mut watchers {
            let node = match watcher.node() {
                Some(node) if !self.rng.chance(5_000) => Some(node),
                _ => self.node(),
            };
            let host = node.and_then(|node| self.cluster.host(node));
            let awake = host.is_some_and(|host| host.is_up() && !host.is_paused());
            // Whoever watches at a node that does not answer goes elsewhere, sooner or later.
            let node = if awake || !self.rng.chance(200_000) { node } else { self.node() };
            let host = node.and_then(|node| self.cluster.host(node));
            if !host.is_some_and(|host| host.is_up() && !host.is_paused()) {
                continue;
            }
            let Some(node) = node else { continue };
            if let Some(machine) = self.cluster.machine_mut::<KeyValueMachine>(node) {
                watcher.attach(node, machine)?;
                watcher.hear(&self.oracle, self.compacted)?;
            }
        }
        self.watchers = watchers;
        Ok(())
    }

    // Writers, who also read.

    fn write(&mut self, writer: u64) -> Result<(), String> {
        if self.stopped {
            return Ok(());
        }
        let Some(node) = self.node() else {
            self.later(WRITER | writer, self.think_us);
            return Ok(());
        };
        let floor = self.oracle.told();
        let lease = self.any_lease();
        let Some(rng) = self.writers.get_mut(&writer) else { return Ok(()) };
        let key = |rng: &mut Rng| Bytes::from(format!("k{}", rng.below(KEYS)));
        let put = |rng: &mut Rng| Put {
            key: key(rng),
            value: Bytes::from(rng.next_u64().to_string()),
            lease: lease.filter(|_| rng.chance(300_000)),
            ..Put::default()
        };
        let command = match rng.below(12) {
            0..5 => Some(Command::Put(put(rng))),
            5 => Some(Command::DeleteRange(DeleteRange {
                key: key(rng),
                range_end: Bytes::from_static(if rng.chance(300_000) { b"k4" } else { b"" }),
                prev_kv: false,
            })),
            6 | 7 => {
                let target = CompareTarget::Mod(Revision(floor.0 - rng.below(3) as i64));
                let compare = Compare {
                    key: key(rng),
                    range_end: Bytes::new(),
                    result: CompareResult::Less,
                    target,
                };
                let delete = DeleteRange { key: key(rng), ..DeleteRange::default() };
                Some(Command::Txn(Txn {
                    compare: vec![compare],
                    success: vec![Op::Put(put(rng)), Op::Put(put(rng))],
                    failure: vec![Op::DeleteRange(delete), Op::Put(put(rng))],
                }))
            }
            8 if rng.chance(300_000) => {
                let revision = Revision(floor.0 - rng.below(4) as i64);
                Some(Command::Compact(Compact { revision, physical: false }))
            }
            _ => None,
        };
        let request = match &command {
            Some(command) => {
                let command = command.encode().map_err(|error| error.to_string())?;
                self.cluster.propose(node, command)
            }
            None => self.cluster.read(node, ReadMode::ReadIndex, Bytes::new()),
        };
        match request {
            Some(request) => {
                let open = Open::Seen { writer, floor, read: command.is_none() };
                self.open.insert(request, open);
            }
            None => self.later(WRITER | writer, self.think_us),
        }
        Ok(())
    }

    fn any_lease(&mut self) -> Option<LeaseId> {
        let held: Vec<LeaseId> =
            self.owners.values().filter_map(|owner| owner.lease.map(|(id, _)| id)).collect();
        self.rng.pick(&held).copied()
    }

    // Answers.

    fn answered(&mut self, open: Open, reply: &Reply, value: Option<&Bytes>) -> Result<(), String> {
        let executed = match reply {
            Reply::Proposed(Ok(executed)) => machine::revision_of(&executed.response),
            _ => None,
        };
        match open {
            Open::Seen { writer, floor, read } => {
                let revision =
                    executed.or_else(|| value.and_then(|value| machine::revision_of(value)));
                if let Some(revision) = revision {
                    self.oracle.tells(floor, revision)?;
                    self.counts.read += u64::from(read);
                    self.counts.executed += u64::from(!read);
                }
                self.later(WRITER | writer, self.think_us);
            }
            Open::Grant { owner: number, id, ttl_s, asked } => {
                let pause_us = match executed {
                    Some(_) => (ttl_s as u64 * 1_000_000) / 4,
                    None => self.think_us,
                };
                if let Some(owner) = self.owners.get_mut(&number).filter(|_| executed.is_some()) {
                    self.counts.granted += 1;
                    owner.lease = Some((id, ttl_s));
                    owner.left = owner.rng.below(12);
                    self.oracle.promised(id, asked.after(ttl_s as u64 * 1_000_000));
                }
                self.later(OWNER | number, pause_us);
            }
            Open::Revoke { owner } => self.later(OWNER | owner, self.think_us),
            Open::Confirm { owner, node, life, ticket, over } => {
                if let Reply::Read(Ok(_)) = reply {
                    self.confirmed(owner, node, life, ticket, over)?;
                }
            }
            Open::Decision { node, life, decision } => self.fate(node, life, &decision, reply)?,
        }
        Ok(())
    }
}
