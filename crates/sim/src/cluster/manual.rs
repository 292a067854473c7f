//! What scripts do by hand and seeded runs leave to the scheduler.

use quorate_node::{Event, NodeMessage};
use quorate_raft::{NodeId, Seq, Time};

use super::Cluster;
use super::observation::{Fate, Observed};
use super::options::Mode;
use super::schedule::Task;
use crate::storage::{Crash, LogImage, MemoryStorage};

/// A message under way in manual mode.
#[derive(Clone, PartialEq, Debug)]
pub struct InFlight {
    /// Names it.
    pub id: u64,
    /// The message.
    pub message: NodeMessage,
}

impl Cluster {
    /// Messages under way, in the order in which they were sent.
    #[must_use]
    pub fn in_flight(&self) -> &[InFlight] {
        &self.in_flight
    }

    /// Delivers a message that is under way. False if there is none of that name.
    pub fn deliver(&mut self, id: u64) -> bool {
        let Some(message) = self.take_in_flight(id) else { return false };
        self.steps += 1;
        self.arrive(message);
        self.run_due();
        true
    }

    /// Loses a message that is under way.
    pub fn lose(&mut self, id: u64) -> bool {
        let Some(message) = self.take_in_flight(id) else { return false };
        self.observe(message.to(), Observed::Message { message, fate: Fate::Lost });
        true
    }

    /// Puts a second copy of a message behind all others.
    pub fn duplicate(&mut self, id: u64) -> bool {
        let original = self.in_flight.iter().find(|in_flight| in_flight.id == id);
        let Some(message) = original.map(|in_flight| in_flight.message.clone()) else {
            return false;
        };
        self.inject(message);
        true
    }

    /// Puts a message behind all others, whoever made it.
    pub fn inject(&mut self, message: NodeMessage) {
        self.messages_sent += 1;
        self.in_flight.push(InFlight { id: self.messages_sent, message });
    }

    /// Puts a message behind all others.
    pub fn postpone(&mut self, id: u64) {
        if let Some(message) = self.take_in_flight(id) {
            self.in_flight.push(InFlight { id, message });
        }
    }

    fn take_in_flight(&mut self, id: u64) -> Option<NodeMessage> {
        let at = self.in_flight.iter().position(|in_flight| in_flight.id == id)?;
        Some(self.in_flight.remove(at).message)
    }

    /// Carries out all that is due now: disks and state machines that are not held.
    pub fn run_due(&mut self) {
        while self.schedule.next_at().is_some_and(|at| at <= self.now) {
            self.step();
        }
    }

    /// Moves time to the node's deadline, if that is later, and wakes it. False if it does not run,
    /// is frozen, or waits for nothing.
    pub fn wake(&mut self, node: NodeId) -> bool {
        let Some(host) = self.hosts.get(&node).filter(|host| !host.paused) else { return false };
        let Some(at) = host.process.as_ref().and_then(|process| process.wake_at) else {
            return false;
        };
        self.steps += 1;
        self.wake_at(at, node);
        self.run_due();
        true
    }

    /// Moves time by `us`, waking only `nodes`, each whenever it wants. Messages stay under way.
    pub fn advance(&mut self, us: u64, nodes: &[NodeId]) {
        let until = self.now.after(us);
        loop {
            let wakes = nodes.iter().filter_map(|node| {
                let host = self.hosts.get(node).filter(|host| !host.paused)?;
                Some((host.process.as_ref()?.wake_at?, *node))
            });
            let Some((at, node)) = wakes.min().filter(|(at, _)| *at <= until) else { break };
            self.steps += 1;
            self.wake_at(at, node);
            self.run_due();
        }
        self.now = self.now.max(until);
        self.run_due();
    }

    /// Lets everything happen by itself for `us`, messages under way included, and returns to
    /// manual mode. Calls `watch` after every step.
    pub fn run_automatically(&mut self, us: u64, mut watch: impl FnMut(&mut Self)) {
        let until = self.now.after(us);
        self.options.mode = Mode::Automatic;
        for in_flight in std::mem::take(&mut self.in_flight) {
            let delay = self.network.defaults().delay.draw(&mut self.rng);
            self.schedule.add(self.now.after(delay), Task::Arrive(in_flight.message));
        }
        while self.next_event_at().is_some_and(|at| at <= until) {
            self.step();
            watch(self);
        }
        self.now = self.now.max(until);
        self.options.mode = Mode::Manual;
        for message in self.schedule.take_messages() {
            self.inject(message);
        }
    }

    /// Whether the disk waits for orders. Written, but not durable: what a crash then does to it is
    /// up to its kind.
    pub fn hold_disk(&mut self, node: NodeId, held: bool) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.disk_held = held;
            if let Some(process) = &mut host.process {
                // What has begun waits, too.
                process.syncing = 0;
                process.syncs += 1;
            }
        }
        self.kick_disk(node);
        self.run_due();
    }

    /// Makes writes of a held disk durable: all, or up to a number. False if there were none.
    pub fn sync_disk(&mut self, node: NodeId, up_to: Option<Seq>) -> bool {
        let Some(process) = self.process(node) else { return false };
        let wanted =
            |seq: Option<Seq>| up_to.is_none_or(|up_to| seq.is_none_or(|seq| seq <= up_to));
        let first_install = process.writes.iter().position(|write| write.install.is_some());
        let count = match first_install {
            Some(0) => 1,
            limit => {
                let writes = process.writes.iter().take(limit.unwrap_or(usize::MAX));
                writes.take_while(|write| wanted(write.seq)).count()
            }
        };
        if count == 0 {
            return false;
        }
        self.complete_writes(node, count);
        self.run_due();
        true
    }

    /// Whether the state machine waits for orders.
    pub fn hold_machine(&mut self, node: NodeId, held: bool) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.machine_held = held;
        }
        self.kick_machine(node);
        self.run_due();
    }

    /// Lets a held state machine do its next piece of work. False if there is none.
    pub fn work_machine(&mut self, node: NodeId) -> bool {
        let Some(process) = self.process(node) else { return false };
        if process.work.is_empty() || process.working {
            return false;
        }
        self.worked(node);
        self.run_due();
        true
    }

    /// Whether fetches of a node end only when told to.
    pub fn hold_fetches(&mut self, node: NodeId, held: bool) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.fetch_held = held;
        }
    }

    /// Ends a held fetch, well if the source still has the snapshot, or badly. False if there is
    /// none.
    pub fn end_fetch(&mut self, node: NodeId, fails: bool) -> bool {
        if self.host(node).is_none_or(|host| host.fetching().is_none()) {
            return false;
        }
        self.complete_fetch(node, None, fails);
        self.run_due();
        true
    }

    /// Gives a host a log made by hand, all of it durable, and starts its process on it.
    pub fn set_log(&mut self, node: NodeId, log: LogImage) {
        self.crash(node, Crash::PowerCut);
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.storage = Box::new(MemoryStorage::new(log.clone()));
        host.machine = super::new_machine(self.options.machine);
        self.observe(node, Observed::HandMade(log));
        self.start(node);
        self.run_due();
    }

    /// Gives an event to a running node, without delay.
    pub fn tell(&mut self, node: NodeId, event: Event) {
        self.input(node, event);
        self.run_due();
    }

    /// Moves time without waking anybody.
    pub fn set_time(&mut self, at: Time) {
        self.now = self.now.max(at);
    }
}
