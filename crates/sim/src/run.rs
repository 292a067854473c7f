//! One run: a cluster, its clients, its nemesis, its judges.
//!
//! A [`Plan`] decides everything. [`run`] carries it out event by event, has every event judged, ends
//! with the [`liveness`] phase and the verdict on what clients saw, and gives an [`Outcome`].

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_raft::{NodeId, Time};

use crate::checkers::{Checkers, Property, Violation};
use crate::cluster::{Cluster, Observation, Observed};
use crate::linearizability::{Limits, Verdict};
use crate::marks::Marks;
use crate::nemesis::Nemesis;
use crate::network::LinkOptions;
use crate::workload::Workload;

pub mod liveness;
mod panics;
mod plan;

pub use plan::{Plan, PlanError, STEPS};

/// Work that the judge of histories may do for one key. More than any correct history needs.
const LIMITS: Limits =
    Limits { configurations_max: 300_000, shrinking_configurations_max: 100_000 };

/// What a run was like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Scheduled events carried out.
    pub steps: u64,
    /// Virtual time that passed, in microseconds.
    pub virtual_us: u64,
    /// Virtual time from the end of the faults until the cluster had recovered and converged.
    pub recovery_us: u64,
    /// Leaders elected.
    pub elections: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Snapshots installed.
    pub snapshots: u64,
    /// Configurations committed.
    pub memberships: u64,
    /// Entries committed.
    pub committed: u64,
    /// Clients' commands known to be executed.
    pub executed: u64,
    /// Clients' reads served.
    pub read: u64,
    /// Faults inflicted, repairs included.
    pub faults: u64,
    /// Histories that were too hard to judge.
    pub undecided: u64,
}

impl Stats {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.virtual_us += other.virtual_us;
        self.recovery_us = self.recovery_us.max(other.recovery_us);
        self.elections += other.elections;
        self.crashes += other.crashes;
        self.snapshots += other.snapshots;
        self.memberships += other.memberships;
        self.committed += other.committed;
        self.executed += other.executed;
        self.read += other.read;
        self.faults += other.faults;
        self.undecided += other.undecided;
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {:.1} s simulated, {} elections, {} crashes, {} snapshots installed, {} \
             configurations and {} entries committed, {} commands executed, {} reads served, {} \
             faults",
            self.steps,
            self.virtual_us as f64 / 1e6,
            self.elections,
            self.crashes,
            self.snapshots,
            self.memberships,
            self.committed,
            self.executed,
            self.read,
            self.faults
        )
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The plan, with all faults that were inflicted written out.
    pub plan: Plan,
    /// What went wrong, if anything did.
    pub violation: Option<Violation>,
    /// What the run was like.
    pub stats: Stats,
    /// The rare states that it reached.
    pub marks: Marks,
    /// Equal for equal runs; see [`Cluster::digest`].
    pub digest: u64,
}

/// Whoever wants to see what happens: the number of an event, and all that it caused.
pub type Watch<'a> = &'a mut dyn FnMut(u64, &[Observation]);

/// Carries out a plan.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    run_watched(plan, &mut |_, _| {})
}

/// Carries out a plan and shows it to `watch`.
pub fn run_watched(plan: &Plan, watch: Watch<'_>) -> Outcome {
    // A failed assertion is an answer, not an accident.
    let panic = |step, time| {
        let (property, nodes, seen) = (Property::NoPanic, Vec::new(), panics::last());
        Violation { property, nodes, seen, step, time }
    };
    let begin = || Cluster::new(plan.options.cluster(plan.seed));
    let Ok(cluster) = panics::quietly(|| catch_unwind(begin)) else {
        let violation = Some(panic(0, Time(0)));
        let (stats, marks) = (Stats::default(), Marks::default());
        return Outcome { plan: plan.clone(), violation, stats, marks, digest: 0 };
    };
    let mut simulation = Simulation::new(plan, cluster, watch);
    let judged = panics::quietly(|| catch_unwind(AssertUnwindSafe(|| simulation.run())));
    let violation = match judged {
        Ok(judged) => judged.err(),
        Err(_) => Some(panic(simulation.cluster.steps(), simulation.cluster.now())),
    };
    simulation.outcome(violation)
}

struct Simulation<'a> {
    plan: &'a Plan,
    watch: Watch<'a>,
    cluster: Cluster,
    checkers: Checkers,
    workload: Workload,
    nemesis: Nemesis,
    liveness: liveness::Probes,
    stats: Stats,
}

impl<'a> Simulation<'a> {
    fn new(plan: &'a Plan, cluster: Cluster, watch: Watch<'a>) -> Self {
        let options = &plan.options;
        let nemesis = match &plan.faults {
            Some(faults) => Nemesis::following(options, faults),
            None => Nemesis::drawing(plan.seed, options),
        };
        Self {
            plan,
            watch,
            cluster,
            checkers: Checkers::new(),
            workload: Workload::new(plan.seed, options, plan.clients.as_deref()),
            nemesis,
            liveness: liveness::Probes::default(),
            stats: Stats::default(),
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        self.settle()?;
        self.slow_down(self.plan.options.link());
        self.workload.start(&mut self.cluster);
        self.nemesis.start(&mut self.cluster);
        while self.cluster.steps() < self.plan.steps && self.cluster.step() {
            self.settle()?;
        }
        self.recover()?;
        match self.workload.verdict(LIMITS) {
            Verdict::Linearizable => Ok(()),
            Verdict::Undecided { .. } => {
                self.stats.undecided += 1;
                Ok(())
            }
            Verdict::NotLinearizable(counterexample) => {
                Err(self.violation(Property::Linearizability, counterexample.to_string()))
            }
        }
    }

    /// Gives one node links that are slower than `link`, if the options say so.
    fn slow_down(&mut self, mut link: LinkOptions) {
        let options = &self.plan.options;
        let slow = NodeId(options.slow_peer);
        link.delay.min_us *= options.slow_factor;
        link.delay.max_us *= options.slow_factor;
        for other in self.cluster.nodes() {
            if options.slow_peer > 0 && other != slow {
                self.cluster.network.set_link(slow, other, Some(link));
                self.cluster.network.set_link(other, slow, Some(link));
            }
        }
    }

    /// Judges what happened, and lets clients and nemesis react, until nothing happens any more at
    /// this instant.
    fn settle(&mut self) -> Result<(), Violation> {
        loop {
            let observations = self.cluster.take_observations();
            if observations.is_empty() {
                return Ok(());
            }
            let step = self.cluster.steps();
            (self.watch)(step, &observations);
            self.checkers.observe(step, &observations)?;
            for observation in &observations {
                self.react(observation)?;
            }
        }
    }

    fn react(&mut self, observation: &Observation) -> Result<(), Violation> {
        match &observation.what {
            Observed::Timer(token) if Nemesis::owns(*token) => {
                self.nemesis.timer(&mut self.cluster, &self.checkers);
            }
            Observed::Timer(token) => {
                self.workload.timer(&mut self.cluster, &mut self.checkers, *token);
            }
            Observed::Answered { .. } | Observed::Abandoned { .. } => {
                self.liveness.observe(observation);
                self.nemesis.observe(observation);
                let judged = self.workload.observe(&mut self.cluster, observation);
                judged.map_err(|(property, seen)| self.violation(property, seen))?;
            }
            Observed::Crashed { .. } => self.stats.crashes += 1,
            Observed::Installed { .. } => self.stats.snapshots += 1,
            _ => {}
        }
        Ok(())
    }

    fn violation(&self, property: Property, seen: String) -> Violation {
        let (step, time) = (self.cluster.steps(), self.cluster.now());
        Violation { property, nodes: Vec::new(), seen, step, time }
    }

    fn outcome(self, violation: Option<Violation>) -> Outcome {
        let mut stats = self.stats;
        (stats.executed, stats.read) = self.workload.done();
        stats.steps = self.cluster.steps();
        stats.virtual_us = self.cluster.now().since(Time(0));
        stats.elections = self.checkers.elections() as u64;
        stats.memberships = self.checkers.memberships() as u64;
        stats.committed = self.checkers.committed().0;
        stats.faults = self.nemesis.counts().faults;
        let mut marks = self.checkers.marks().clone();
        marks.add(self.workload.marks());
        marks.add(self.nemesis.marks());
        let plan = Plan { faults: Some(self.nemesis.done().to_vec()), ..self.plan.clone() };
        Outcome { plan, violation, stats, marks, digest: self.cluster.digest() }
    }
}
