//! A whole cluster in virtual time.
//!
//! One scheduler holds everything that is going to happen: messages that arrive, writes that become
//! durable, entries that are applied, nodes that wake, hosts that come back. [`Cluster::step`] takes
//! the next of them, and [`Cluster::take_observations`] tells what it caused, in order. The same
//! options and the same calls give the same run.
//!
//! In *automatic* mode everything happens by itself in its time. In *manual* mode, that of scripts,
//! messages wait until they are asked for, nodes wake when told to, and time moves only on demand.
//!
//! Each host runs a [`Node`], as production does, and around it what production has: a log
//! ([`Storage`]), a state machine ([`StateMachine`]), a clock that may drift, and files with
//! snapshots. A process that is killed or frozen, a machine that loses power, a disk that stalls are
//! things that happen to a host; the node inside knows nothing of the simulation.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_node::{Event, Node, NodeMessage};
use quorate_raft::{ClusterId, Incarnation, Member, MemberRole, Membership, NodeId, Time};

use crate::disk_log::DiskLog;
use crate::key_value::KeyValueMachine;
use crate::network::Network;
use crate::rng::Rng;
use crate::state_machine::{KvMachine, StateMachine};
use crate::storage::{DiskNews, MemoryStorage, RecoverError, Storage};

mod clients;
mod clock;
mod faults;
mod host;
mod manual;
mod observation;
mod options;
mod process;
mod schedule;

pub use host::Host;
pub use manual::InFlight;
pub use observation::{Brief, Fate, Observation, Observed, StartFailure, Told};
pub use options::{HostOptions, MachineKind, Mode, Options};

use schedule::{Schedule, Task};

#[cfg(test)]
mod tests;

/// The cluster that all hosts belong to.
const CLUSTER: ClusterId = ClusterId(0xc1);

/// A cluster. See the [module](self).
#[derive(Debug)]
pub struct Cluster {
    /// The network; change it at will.
    pub network: Network,
    options: Options,
    now: Time,
    steps: u64,
    rng: Rng,
    hosts: BTreeMap<NodeId, Host>,
    schedule: Schedule,
    /// Messages that wait for a command, in manual mode.
    in_flight: Vec<InFlight>,
    messages_sent: u64,
    /// Messages of the step under way that the network loses.
    lost: Vec<NodeMessage>,
    last_request: u64,
    observations: Vec<Observation>,
    digest: u64,
}

impl Cluster {
    /// Makes a cluster: all hosts run, none leads yet.
    ///
    /// # Panics
    ///
    /// If a core refuses the settings.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut cluster = Self {
            network: Network::new(options.link),
            now: Time(0),
            steps: 0,
            rng: Rng::new(options.seed),
            hosts: BTreeMap::new(),
            schedule: Schedule::default(),
            in_flight: Vec::new(),
            messages_sent: 0,
            lost: Vec::new(),
            last_request: 0,
            observations: Vec::new(),
            digest: 0,
            options,
        };
        let directories: Vec<_> = (1..=cluster.options.voters + cluster.options.learners)
            .map(|node| (NodeId(node), cluster.new_directory(NodeId(node))))
            .collect();
        let incarnations: Vec<_> =
            directories.iter().map(|(node, directory)| (*node, directory.incarnation)).collect();
        let membership = Arc::new(cluster.bootstrap(&incarnations));
        for (node, directory) in directories {
            cluster.make_host(node, directory, Arc::clone(&membership));
            cluster.start(node);
            if let Some(error) = cluster.hosts[&node].start_error() {
                panic!("n{node} cannot start: {error}");
            }
        }
        cluster
    }

    fn bootstrap(&self, incarnations: &[(NodeId, Incarnation)]) -> Membership {
        let Options { voters, bound, lease_us, feature_level, .. } = self.options;
        let member = |&(node, incarnation): &(NodeId, Incarnation)| {
            let role = if node.0 <= voters { MemberRole::Voter } else { MemberRole::LEARNER };
            let incarnation = bound.then_some(incarnation);
            (node, Member { incarnation, ..Member::new(role) })
        };
        Membership::bootstrap(incarnations.iter().map(member))
            .with_lease(lease_us)
            .with_feature_level(feature_level)
    }

    /// A new, empty data directory. It has a number that no other one has; readable in scripts.
    fn new_directory(&mut self, node: NodeId) -> Directory {
        if let Some(disk) = self.options.disk {
            let (log, incarnation) = DiskLog::create(CLUSTER, node, disk, self.rng.next_u64());
            return Directory { incarnation, log: Box::new(log) };
        }
        let incarnation = match self.options.mode {
            Mode::Automatic => Incarnation(self.rng.next_u64() | 1),
            Mode::Manual => {
                let former = self.hosts.get(&node).map_or(0, |host| host.config.incarnation.0);
                Incarnation(former.max(node.0 << 8) + 1)
            }
        };
        Directory { incarnation, log: Box::new(MemoryStorage::default()) }
    }

    fn make_host(&mut self, node: NodeId, mut directory: Directory, membership: Arc<Membership>) {
        directory.log.bootstrap(membership);
        let mut config = self.options.config.clone();
        config.cluster = CLUSTER;
        config.node = node;
        config.incarnation = directory.incarnation;
        // No node may rely on another's origin of time.
        let origin = match self.options.mode {
            Mode::Automatic => Time(self.rng.below(1_000_000_000)),
            Mode::Manual => Time(0),
        };
        let host = Host {
            id: node,
            config,
            options: self.options.host,
            clock: clock::Clock::new(origin),
            storage: directory.log,
            machine: new_machine(self.options.machine),
            received: None,
            life: 0,
            epoch: 0,
            process: None,
            recovering: false,
            start_error: None,
            paused: false,
            stalled_until: Time(0),
            disk_held: false,
            machine_held: false,
            fetch_held: false,
            doomed: None,
        };
        self.hosts.insert(node, host);
    }

    /// Starts a node from what its disk holds.
    fn start(&mut self, node: NodeId) {
        let boot_nonce = match self.options.mode {
            Mode::Automatic => self.rng.next_u64(),
            Mode::Manual => self.hosts.get(&node).map_or(0, |host| (node.0 << 4) + host.life + 1),
        };
        let seed = self.rng.next_u64();
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let applied = host.machine.durable().index;
        let result = host.storage.recover(applied, boot_nonce);
        let news = host.storage.take_news();
        host.epoch += 1;
        host.recovering = false;
        host.paused = false;
        host.doomed = None;
        self.observe_disk(node, news);
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let mut recovered = match result {
            Ok(recovered) => recovered,
            // Whoever looks after the processes starts it again.
            Err(RecoverError::Disk(_)) => return self.restart(node),
            Err(RecoverError::Damaged(why)) => {
                let failure = StartFailure::Damaged(why);
                host.start_error = Some(failure.clone());
                return self.observe(node, Observed::StartFailed(failure));
            }
        };
        host.life += 1;
        // The log was reset for a snapshot, and then the process died before the state machine had
        // it: it is there to be restored, and is now.
        if recovered.snapshot.id.index > applied {
            let received = host.received.as_ref().filter(|(id, _)| *id == recovered.snapshot.id);
            let (_, bytes) = received.expect("a log starts behind what its state machine can have");
            host.machine.restore(bytes);
            recovered.applied = host.machine.durable().index;
            self.observe_disk(node, vec![DiskNews::InstallFinished]);
        }
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let settings = self.options.settings.clone();
        let now = host.clock.local(self.now);
        match Node::new(host.config.clone(), settings, now, seed, recovered.clone()) {
            Ok(started) => {
                let process = host.process.insert(host::Process::new(started));
                let brief = process.brief.clone();
                let (incarnation, life) = (host.config.incarnation, host.life);
                host.start_error = None;
                self.observe(node, Observed::Started { incarnation, life, recovered, brief });
                self.run(node, Vec::new());
            }
            Err(error) => {
                let failure = StartFailure::Core(error);
                host.start_error = Some(failure.clone());
                self.observe(node, Observed::StartFailed(failure));
            }
        }
    }

    /// Tells what has happened to a disk.
    fn observe_disk(&mut self, node: NodeId, news: Vec<DiskNews>) {
        for news in news {
            self.observe(node, Observed::Disk(news));
        }
    }

    fn observe(&mut self, node: NodeId, what: Observed) {
        self.observations.push(Observation { at: self.now, node, what });
    }

    // ---- time ----

    /// Global virtual time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// How many scheduled events have been carried out.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// A number that depends on everything that has happened so far, and when: two runs with equal
    /// digests were the same run.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Carries out the next scheduled event, moving time to it. False if there is none.
    pub fn step(&mut self) -> bool {
        let task = self.schedule.next_at();
        let wake = self.next_wake();
        self.steps += 1;
        match (task, wake) {
            (Some(at), Some((wake_at, node))) if wake_at < at => self.wake_at(wake_at, node),
            (None, Some((wake_at, node))) => self.wake_at(wake_at, node),
            (Some(_), _) => self.run_task(),
            (None, None) => {
                self.steps -= 1;
                return false;
            }
        }
        true
    }

    /// When the next event is due; not before [`now`](Self::now).
    #[must_use]
    pub fn next_event_at(&self) -> Option<Time> {
        let wake = self.next_wake().map(|(at, _)| at);
        [self.schedule.next_at(), wake].into_iter().flatten().min().map(|at| at.max(self.now))
    }

    /// Steps until nothing is due at or before `until`, then moves time there.
    pub fn run_until(&mut self, until: Time) {
        while self.next_event_at().is_some_and(|at| at <= until) {
            self.step();
        }
        self.now = self.now.max(until);
    }

    /// Gives the caller an [`Observed::Timer`] with `token` at a later moment (of node 0).
    pub fn schedule(&mut self, at: Time, token: u64) {
        self.schedule.add(at, Task::Timer(token));
    }

    /// What happened since the last call, in order. Call it after every step and every fault.
    pub fn take_observations(&mut self) -> Vec<Observation> {
        std::mem::take(&mut self.observations)
    }

    /// The running node that wants to be woken first. In manual mode nobody wakes by itself.
    fn next_wake(&self) -> Option<(Time, NodeId)> {
        if self.options.mode == Mode::Manual {
            return None;
        }
        let hosts = self.hosts.values().filter(|host| !host.paused);
        let wakes = hosts.filter_map(|host| Some((host.process.as_ref()?.wake_at?, host.id)));
        wakes.min()
    }

    fn wake_at(&mut self, at: Time, node: NodeId) {
        self.now = self.now.max(at);
        self.count(1, node.0);
        // What waits in a batch goes first.
        let Some(process) = self.process(node) else { return };
        let mut events: Vec<Event> = process.inbox.drain(..).collect();
        events.push(Event::Wake);
        self.run(node, events);
    }

    fn run_task(&mut self) {
        let Some((at, task)) = self.schedule.pop() else { return };
        self.now = self.now.max(at);
        self.carry_out(task);
    }

    /// Adds an event to the digest of the run.
    fn count(&mut self, kind: u64, what: u64) {
        for word in [self.now.0, kind, what] {
            self.digest = (self.digest ^ word)
                .wrapping_mul(0xff51_afd7_ed55_8ccd)
                .rotate_left(29)
                .wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
    }

    // ---- looking ----

    /// All hosts that were ever made, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// Their names.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    /// The host called `node`.
    #[must_use]
    pub fn host(&self, node: NodeId) -> Option<&Host> {
        self.hosts.get(&node)
    }

    /// The running, unfrozen node that leads the highest term, if any.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let running = self.hosts.values().filter(|host| !host.paused);
        let leaders = running.filter_map(|host| {
            let brief = host.brief()?;
            (brief.role == quorate_raft::RoleName::Leader).then_some((brief.term, host.id))
        });
        leaders.max().map(|(_, node)| node)
    }

    /// The state machine of a host, as what it is, for those who bring clients to it; `None` if it is
    /// something else.
    pub fn machine_mut<M: 'static>(&mut self, node: NodeId) -> Option<&mut M> {
        self.hosts.get_mut(&node)?.machine.as_any_mut().downcast_mut()
    }

    /// What the cluster was made of.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    fn process(&mut self, node: NodeId) -> Option<&mut host::Process> {
        self.hosts.get_mut(&node)?.process.as_mut()
    }
}

/// What makes a data directory: its name, and a log.
#[derive(Debug)]
struct Directory {
    incarnation: Incarnation,
    log: Box<dyn Storage>,
}

/// The state machine of a new host.
fn new_machine(kind: MachineKind) -> Box<dyn StateMachine> {
    match kind {
        MachineKind::Numbers => Box::new(KvMachine::default()),
        MachineKind::KeyValue => Box::new(KeyValueMachine::default()),
    }
}
