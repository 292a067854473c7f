//! What can go wrong, and setting it right again. Whatever makes no sense (to kill what is dead, to
//! start what runs) does nothing. Faults of links are those of [`Network`](crate::network::Network).

use std::ops::RangeInclusive;
use std::sync::Arc;

use quorate_node::Event;
use quorate_raft::{Config, Incarnation, Index, Membership, NodeId, Time};

use super::observation::Observed;
use super::options::HostOptions;
use super::schedule::Task;
use super::{Cluster, Directory, new_machine};
use crate::storage::{Crash, DiskFault};

impl Cluster {
    /// The host dies now. It stays down until [`restart`](Self::restart). A host that is on its way
    /// up can die too.
    pub fn crash(&mut self, node: NodeId, crash: Crash) {
        self.die(node, crash, false);
    }

    /// The host dies in its next step that has actions, behind so many of them (or all, if there
    /// are fewer).
    pub fn crash_in_step(&mut self, node: NodeId, actions: usize, crash: Crash) {
        if let Some(host) = self.hosts.get_mut(&node).filter(|host| host.is_up()) {
            host.doomed = Some((actions, crash));
        }
    }

    /// Starts the process again; it runs after the recovery time.
    pub fn restart(&mut self, node: NodeId) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if host.is_up() || host.recovering {
            return;
        }
        host.recovering = true;
        let at = now.after(host.options.recovery.draw(&mut self.rng));
        self.schedule.add(at, Task::Recovered { node, epoch: host.epoch });
    }

    /// Freezes the process: its clock goes on, its inputs wait.
    pub fn pause(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if host.is_up() && !host.paused {
            host.paused = true;
            self.observe(node, Observed::Paused(true));
        }
    }

    /// Lets a frozen process go on: it works on what has waited, one by one, and then finds out how
    /// late it is.
    pub fn resume(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if !std::mem::take(&mut host.paused) {
            return;
        }
        let epoch = host.epoch;
        self.observe(node, Observed::Paused(false));
        // Not before all are done, or what the node is told meanwhile would come first.
        while let Some(host) = self.hosts.get_mut(&node)
            && host.epoch == epoch
            && let Some(process) = &mut host.process
            && let Some(event) = process.inbox.pop_front()
        {
            self.run(node, vec![event]);
        }
    }

    /// The disk completes nothing until then, also not what it has begun. A moment that is over ends
    /// an earlier stall.
    pub fn stall_disk(&mut self, node: NodeId, until: Time) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.stalled_until = until;
        if let Some(process) = &mut host.process
            && process.syncing > 0
        {
            self.schedule_sync(node);
        }
    }

    /// Gives a host its own speeds.
    pub fn set_host_options(&mut self, node: NodeId, options: HostOptions) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.options = options;
        }
    }

    /// The host's clock runs that much faster (or slower) than true from now on, in parts per
    /// million. It never jumps.
    pub fn set_drift(&mut self, node: NodeId, ppm: i32) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.clock.set_drift(now, ppm);
        if let Some(process) = &mut host.process {
            process.wake_at = process.node.deadline().map(|at| host.clock.global(at));
        }
    }

    /// Tells `at` that the process of `peer` has ended, rightly or wrongly.
    pub fn peer_closed(&mut self, at: NodeId, peer: NodeId) {
        if let Some(host) = self.hosts.get(&peer) {
            let incarnation = host.config.incarnation;
            self.incarnation_closed(at, peer, incarnation);
        }
    }

    /// The same, of a process that ran on a certain data directory.
    pub fn incarnation_closed(&mut self, at: NodeId, peer: NodeId, incarnation: Incarnation) {
        self.input(at, Event::PeerClosed { peer, incarnation });
    }

    /// Gives a host a new, empty data directory: a new incarnation that knows no configuration. If
    /// the host runs, it loses power first. It stays down until [`restart`](Self::restart).
    pub fn wipe(&mut self, node: NodeId) {
        self.die(node, Crash::PowerCut, false);
        if !self.hosts.contains_key(&node) {
            return;
        }
        let Directory { incarnation, mut log } = self.new_directory(node);
        log.bootstrap(Arc::new(Membership::default()));
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.config.incarnation = incarnation;
        host.storage = log;
        host.machine = new_machine(self.options.machine);
        host.received = None;
        host.life = 0;
        host.start_error = None;
        self.observe(node, Observed::Wiped(incarnation));
    }

    /// Makes and starts a new host that waits to be added to the cluster. Nothing happens if there
    /// is one of that name.
    pub fn add_host(&mut self, node: NodeId) {
        if self.hosts.contains_key(&node) {
            return;
        }
        let directory = self.new_directory(node);
        self.make_host(node, directory, Arc::new(Membership::default()));
        self.start(node);
    }

    /// Core settings of a host, used from its next start on. Leave cluster, node and incarnation
    /// alone.
    pub fn config_mut(&mut self, node: NodeId) -> Option<&mut Config> {
        self.hosts.get_mut(&node).map(|host| &mut host.config)
    }

    /// Entries in this range cannot be read back any more (`None`: all can).
    pub fn set_unreadable(&mut self, node: NodeId, range: Option<RangeInclusive<Index>>) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.storage.set_unreadable(range);
        }
    }

    /// Something happens to a disk. False if that was not possible.
    pub fn inflict_on_disk(&mut self, node: NodeId, fault: DiskFault) -> bool {
        self.hosts.get_mut(&node).is_some_and(|host| host.storage.inflict(fault))
    }

    /// Has a node compact its log up to `up_to`, or as far as nothing is lost, whatever its settings
    /// say.
    pub fn compact(&mut self, node: NodeId, up_to: Index) {
        self.input(node, Event::Compact { up_to });
    }

    /// Ends all faults: links are whole, disks not stalled, full or failing, processes not frozen, clocks true, every
    /// host up, damaged logs readable. Hosts in `except` stay as they are, and so do loss and
    /// delays of links and the speeds of hosts.
    pub fn calm(&mut self, except: &[NodeId]) {
        self.network.heal();
        for node in self.nodes() {
            if except.contains(&node) {
                continue;
            }
            if let Some(host) = self.hosts.get_mut(&node) {
                host.doomed = None;
                host.storage.set_unreadable(None);
                host.storage.inflict(DiskFault::Mend);
            }
            self.stall_disk(node, Time(0));
            self.set_drift(node, 0);
            self.resume(node);
            self.restart(node);
        }
    }
}
