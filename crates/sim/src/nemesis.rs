//! What goes wrong in a run, and when.
//!
//! The nemesis either *draws* faults as the seed and the options say, or *follows* a list of them. It
//! writes down what it does, so that a run can be repeated from the list, and reduced by leaving
//! parts of the list out ([`shrink`](crate::shrink)).
//!
//! Whatever it does, the cluster can recover: no quorum loses its data for good. All nodes may be
//! down at once, but only a minority of any configuration loses its disk, and only when everyone who
//! could be elected knows that disk by its incarnation (`recoverable.rs` says why).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_node::Reply;
use quorate_raft::{NodeId, RequestId, Time};

use crate::checkers::Checkers;
use crate::cluster::{Cluster, Host, Observation, Observed};
use crate::marks::{Mark, Marks};
use crate::network::Delay;
use crate::options::RunOptions;
use crate::rng::Rng;
use crate::storage::{Crash, DiskFault};

mod changes;
mod draw;
mod fault;
mod recoverable;

pub use fault::{Fault, FaultError};
pub use recoverable::{is_outside, is_recoverable_without, is_to_be_promoted};

/// The timers of the nemesis, see [`Cluster::schedule`]: above those of any client.
const TOKEN: u64 = 1 << 63;

/// The nemesis of a run.
#[derive(Debug)]
pub struct Nemesis {
    options: RunOptions,
    rng: Rng,
    /// What is going to happen: what follows from earlier faults, or all of a list.
    agenda: BTreeMap<(Time, u64), Fault>,
    added: u64,
    /// When the next fault is drawn; `None` if it follows a list.
    next_draw: Option<Time>,
    done: Vec<(Time, Fault)>,
    /// Nodes that lost their data directory, or part of it, and are still in some configuration
    /// perhaps.
    wiped: BTreeSet<NodeId>,
    /// Those of them whose log has rotted: they go on as long as their process does, and are not
    /// started again.
    rotten: BTreeSet<NodeId>,
    /// Nodes that are down for ever.
    retired: BTreeSet<NodeId>,
    /// Nodes part of whose log cannot be read.
    unreadable: BTreeSet<NodeId>,
    /// Changes that are not answered.
    changes: BTreeSet<RequestId>,
    last_node: u64,
    counts: Counts,
    marks: Marks,
    stopped: bool,
}

/// What a nemesis has done, for summaries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Faults of all kinds.
    pub faults: u64,
    /// Changes of the membership that were asked for ...
    pub changes_asked: u64,
    /// ... and those that committed.
    pub changes_committed: u64,
}

impl Nemesis {
    /// A nemesis that draws its faults.
    #[must_use]
    pub fn drawing(seed: u64, options: &RunOptions) -> Self {
        let mut rng = Rng::new(seed ^ 0x4e45_4d45_5349_5321);
        let next_draw = (options.fault_us > 0).then(|| Time(rng.below(2 * options.fault_us)));
        Self::new(options, rng, next_draw)
    }

    /// A nemesis that does just this.
    #[must_use]
    pub fn following(options: &RunOptions, faults: &[(Time, Fault)]) -> Self {
        let mut nemesis = Self::new(options, Rng::new(0), None);
        for (at, fault) in faults {
            nemesis.added += 1;
            nemesis.agenda.insert((*at, nemesis.added), fault.clone());
        }
        nemesis
    }

    fn new(options: &RunOptions, rng: Rng, next_draw: Option<Time>) -> Self {
        Self {
            options: options.clone(),
            rng,
            agenda: BTreeMap::new(),
            added: 0,
            next_draw,
            done: Vec::new(),
            wiped: BTreeSet::new(),
            rotten: BTreeSet::new(),
            retired: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            changes: BTreeSet::new(),
            last_node: options.voters + options.learners,
            counts: Counts::default(),
            marks: Marks::default(),
            stopped: false,
        }
    }

    /// Whether a timer is one of the nemesis.
    #[must_use]
    pub const fn owns(token: u64) -> bool {
        token & TOKEN != 0
    }

    /// Sets the nemesis to work.
    pub fn start(&mut self, cluster: &mut Cluster) {
        let times = self.agenda.keys().map(|(at, _)| *at).chain(self.next_draw);
        for at in times.collect::<BTreeSet<_>>() {
            cluster.schedule(at, TOKEN);
        }
    }

    /// Nothing goes wrong any more. What is broken stays so.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.agenda.clear();
    }

    /// All that was done, with its time.
    #[must_use]
    pub fn done(&self) -> &[(Time, Fault)] {
        &self.done
    }

    /// Nodes that are down for ever.
    #[must_use]
    pub const fn retired(&self) -> &BTreeSet<NodeId> {
        &self.retired
    }

    /// Nodes whose log has rotted. They may be running.
    #[must_use]
    pub const fn rotten(&self) -> &BTreeSet<NodeId> {
        &self.rotten
    }

    /// Nodes that lost their data directory, or part of it.
    #[must_use]
    pub const fn wiped(&self) -> &BTreeSet<NodeId> {
        &self.wiped
    }

    /// Nodes part of whose log cannot be read.
    #[must_use]
    pub const fn unreadable(&self) -> &BTreeSet<NodeId> {
        &self.unreadable
    }

    /// What it has done, in numbers.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The rare states that only the nemesis knows of.
    #[must_use]
    pub const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// A timer of the nemesis has come.
    pub fn timer(&mut self, cluster: &mut Cluster, checkers: &Checkers) {
        if self.stopped {
            return;
        }
        let now = cluster.now();
        let mut due: VecDeque<Fault> = VecDeque::new();
        while let Some(first) = self.agenda.first_entry()
            && first.key().0 <= now
        {
            due.push_back(first.remove());
        }
        for fault in due {
            self.inflict(cluster, checkers, fault);
        }
        if self.next_draw.is_some_and(|at| at <= now) {
            self.draw(cluster, checkers);
            let pause = self.rng.below(2 * self.options.fault_us) + 1;
            self.next_draw = Some(now.after(pause));
            cluster.schedule(now.after(pause), TOKEN);
        }
    }

    /// Plans a fault for later.
    fn later(&mut self, cluster: &mut Cluster, after_us: u64, fault: Fault) {
        let at = cluster.now().after(after_us);
        self.added += 1;
        self.agenda.insert((at, self.added), fault);
        cluster.schedule(at, TOKEN);
    }

    /// Learns what became of changes.
    pub fn observe(&mut self, observation: &Observation) {
        match &observation.what {
            Observed::Answered { id, reply: Reply::Changed(result), .. } => {
                let is_ours = self.changes.remove(id);
                self.counts.changes_committed += u64::from(is_ours && result.is_ok());
            }
            Observed::Abandoned { id } => {
                self.changes.remove(id);
            }
            _ => {}
        }
    }

    /// Does it, unless it would make recovery impossible, and writes it down.
    fn inflict(&mut self, cluster: &mut Cluster, checkers: &Checkers, fault: Fault) {
        match &fault {
            Fault::Wipe(node) if !self.may_wipe(cluster, checkers, *node) => return,
            Fault::Rot(node) if !self.may_rot(cluster, checkers, *node) => return,
            Fault::Retire(node) if !is_outside(cluster, checkers, *node) => return,
            Fault::Change(node, change) if !self.may_change(cluster, *node, change) => return,
            _ => {}
        }
        self.counts.faults += 1;
        self.carry_out(cluster, &fault);
        self.done.push((cluster.now(), fault));
    }

    fn carry_out(&mut self, cluster: &mut Cluster, fault: &Fault) {
        let now = cluster.now();
        match fault {
            Fault::Crash(node, crash) => cluster.crash(*node, *crash),
            Fault::CrashInStep(node, actions, crash) => {
                cluster.crash_in_step(*node, *actions, *crash);
            }
            Fault::Restart(node) => {
                if !self.retired.contains(node) {
                    cluster.restart(*node);
                }
            }
            Fault::Pause(node) => cluster.pause(*node),
            Fault::Resume(node) => cluster.resume(*node),
            Fault::Partition(groups) => {
                let nodes = cluster.nodes();
                cluster.network.partition(&nodes, groups);
            }
            Fault::Cut(from, to) => cluster.network.cut(*from, *to),
            Fault::Restore(from, to) => cluster.network.restore(*from, *to),
            Fault::Heal => cluster.network.heal(),
            Fault::Clog(from, to, us) => cluster.network.clog(*from, *to, now.after(*us)),
            Fault::Storm(loss_ppm, duplicate_ppm) => {
                let mut link = self.options.link();
                (link.loss_ppm, link.duplicate_ppm) = (*loss_ppm, *duplicate_ppm);
                cluster.network.set_defaults(link);
            }
            Fault::EndStorm => cluster.network.set_defaults(self.options.link()),
            Fault::SlowDisk(node, us) => {
                let usual = self.options.host().sync;
                let sync = if *us == 0 { usual } else { Delay::between(us / 4, *us) };
                self.set_speed(cluster, *node, |host| host.sync = sync);
            }
            Fault::SlowApply(node, us) => {
                let usual = self.options.host().apply;
                let apply = if *us == 0 { usual } else { Delay::between(us / 4, *us) };
                self.set_speed(cluster, *node, |host| host.apply = apply);
            }
            Fault::StallDisk(node, us) => cluster.stall_disk(*node, now.after(*us)),
            Fault::Wipe(node) => {
                cluster.wipe(*node);
                self.wiped.insert(*node);
                self.unreadable.remove(node);
            }
            Fault::AddHost(node) => {
                cluster.add_host(*node);
                self.last_node = self.last_node.max(node.0);
            }
            Fault::Retire(node) => {
                cluster.crash(*node, Crash::PowerCut);
                self.retired.insert(*node);
            }
            Fault::Drift(node, ppm) => cluster.set_drift(*node, *ppm),
            Fault::Hint(at, peer) => {
                let is_wrong = cluster.host(*peer).is_some_and(Host::is_up);
                if is_wrong {
                    self.marks.hit(Mark::PeerClosedWrongly);
                }
                cluster.peer_closed(*at, *peer);
            }
            Fault::Unreadable(node, first, last) => {
                cluster.set_unreadable(*node, Some(*first..=*last));
                self.unreadable.insert(*node);
            }
            Fault::FailSync(node) => {
                cluster.inflict_on_disk(*node, DiskFault::FailSync);
            }
            Fault::FailReads(node) => {
                cluster.inflict_on_disk(*node, DiskFault::FailReads(true));
            }
            Fault::FullDisk(node, left) => {
                cluster.inflict_on_disk(*node, DiskFault::Full { left: *left });
            }
            Fault::MendDisk(node) => {
                cluster.inflict_on_disk(*node, DiskFault::Mend);
            }
            Fault::Rot(node) => {
                if cluster.inflict_on_disk(*node, DiskFault::Rot) {
                    self.wiped.insert(*node);
                    self.rotten.insert(*node);
                    self.marks.hit(Mark::LogRotted);
                }
            }
            Fault::Repair(node) => self.repair(cluster, *node),
            Fault::Compact(node, up_to) => cluster.compact(*node, *up_to),
            Fault::Flush(node) => cluster.flush(*node),
            Fault::Change(node, change) => {
                if let Some(id) = cluster.change(*node, change.clone()) {
                    self.changes.insert(id);
                    self.counts.changes_asked += 1;
                }
            }
            Fault::Transfer(node, to) => {
                cluster.transfer(*node, *to);
            }
            Fault::Campaign(node) => {
                cluster.campaign(*node);
            }
        }
    }

    /// Repairs a log and starts the process anew, as an operator would.
    pub fn repair(&mut self, cluster: &mut Cluster, node: NodeId) {
        cluster.set_unreadable(node, None);
        self.unreadable.remove(&node);
        if !self.retired.contains(&node) {
            cluster.crash(node, Crash::Kill);
            cluster.restart(node);
        }
    }

    fn set_speed(
        &self,
        cluster: &mut Cluster,
        node: NodeId,
        set: impl FnOnce(&mut crate::cluster::HostOptions),
    ) {
        let known = cluster.host(node).map(|host| *host.options());
        let mut host = known.unwrap_or_else(|| self.options.host());
        set(&mut host);
        cluster.set_host_options(node, host);
    }
}
