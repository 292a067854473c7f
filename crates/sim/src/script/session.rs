//! A cluster in the hands of a script.

use std::collections::{BTreeMap, BTreeSet};

use quorate_raft::{NodeId, RoleName};

use super::arguments::Fault;
use crate::checkers::{Checkers, Violation};
use crate::cluster::{Cluster, Host, Observation, Observed};
use crate::storage::LogImage;
use crate::trace::{self, Detail};

/// Deliveries after which `settle` gives up.
const SETTLE_MAX: usize = 10_000;

/// What a script works on.
#[derive(Debug, Default)]
pub(super) struct Session {
    cluster: Option<Cluster>,
    checkers: Checkers,
    /// What each node began with, until something happens.
    beginnings: Option<BTreeMap<NodeId, Vec<Observation>>>,
    pub(super) violation: Option<Violation>,
    /// Lines that the command under way prints.
    pub(super) output: Vec<String>,
    /// Nodes whose disk waits for orders.
    pub(super) held_disks: BTreeSet<NodeId>,
    /// Nodes whose state machine does.
    pub(super) held_machines: BTreeSet<NodeId>,
}

impl Session {
    pub(super) fn begin(&mut self, cluster: Cluster) {
        let beginnings = Some(BTreeMap::new());
        *self = Self { cluster: Some(cluster), beginnings, ..Self::default() };
        self.drain();
    }

    pub(super) fn cluster(&mut self) -> Result<&mut Cluster, Fault> {
        self.cluster
            .as_mut()
            .ok_or_else(|| "there is no cluster; begin with `cluster 3`".to_owned())
    }

    /// Gives a node a log made by hand. The checkers must take it as its first.
    pub(super) fn set_log(&mut self, node: NodeId, log: LogImage) -> Result<(), Fault> {
        if self.beginnings.is_none() {
            return Err("logs are made before anything happens".to_owned());
        }
        let cluster = self.cluster()?;
        cluster.set_log(node, log);
        let observations = cluster.take_observations();
        let begins = |observation: &Observation| {
            matches!(observation.what, Observed::HandMade(_) | Observed::Started { .. })
        };
        self.checkers = Checkers::new();
        if let Some(beginnings) = &mut self.beginnings {
            beginnings.insert(node, observations.into_iter().filter(begins).collect());
            let all: Vec<Observation> = beginnings.values().flatten().cloned().collect();
            self.violation = self.checkers.observe(0, &all).err();
        }
        let error = self.host(node)?.start_error().map(ToString::to_string);
        self.output.extend(error.map(|error| format!("n{node} cannot start: {error}")));
        Ok(())
    }

    /// The cluster, by itself for a moment.
    pub(super) fn with_cluster<T>(
        &mut self,
        work: impl FnOnce(&mut Cluster) -> T,
    ) -> Result<T, Fault> {
        let result = work(self.cluster()?);
        self.drain();
        Ok(result)
    }

    pub(super) fn host(&mut self, node: NodeId) -> Result<&Host, Fault> {
        self.cluster()?.host(node).ok_or_else(|| format!("there is no n{node}"))
    }

    /// The host, which must be running.
    pub(super) fn running(&mut self, node: NodeId) -> Result<&Host, Fault> {
        let host = self.host(node)?;
        if host.is_up() { Ok(host) } else { Err(format!("n{node} is down")) }
    }

    /// Prints what happened, and has it judged. Returns whether any node did anything.
    pub(super) fn drain(&mut self) -> bool {
        let Some(cluster) = &mut self.cluster else { return false };
        cluster.run_due();
        let observations = cluster.take_observations();
        let step = cluster.steps();
        self.tell(step, &observations)
    }

    pub(super) fn tell(&mut self, step: u64, observations: &[Observation]) -> bool {
        if self.violation.is_none() {
            self.violation = self.checkers.observe(step, observations).err();
        }
        for observation in observations {
            match (&observation.what, &mut self.beginnings) {
                (Observed::Started { .. }, Some(beginnings)) => {
                    beginnings.insert(observation.node, vec![observation.clone()]);
                }
                (Observed::Action(_) | Observed::Crashed { .. }, _) => self.beginnings = None,
                _ => {}
            }
        }
        let (disks, machines) = (&self.held_disks, &self.held_machines);
        let detail =
            |node| Detail { durability: disks.contains(&node), applies: machines.contains(&node) };
        self.output.extend(trace::lines(observations, detail));
        observations.iter().any(|observation| match &observation.what {
            Observed::Action(_) => true,
            Observed::Stepped { before, after } => {
                (before.role, before.term) != (after.role, after.term)
            }
            _ => false,
        })
    }

    /// Lets a node's deadlines come until it does something.
    pub(super) fn timeout(&mut self, node: NodeId) -> Result<(), Fault> {
        let brief = self.running(node)?.brief();
        if brief.is_some_and(|brief| brief.role == RoleName::Leader) {
            return Err(format!("n{node} leads and has no election timeout; use `wake`"));
        }
        for _ in 0..16 {
            if !self.cluster()?.wake(node) {
                break;
            }
            if self.drain() {
                return Ok(());
            }
        }
        Err(format!("n{node} waits for nothing"))
    }

    /// Delivers everything, answers included, until nothing is under way.
    pub(super) fn settle(&mut self) -> Result<(), Fault> {
        for _ in 0..SETTLE_MAX {
            let Some(first) = self.cluster()?.in_flight().first().map(|message| message.id) else {
                return Ok(());
            };
            self.cluster()?.deliver(first);
            self.drain();
        }
        Err(format!("messages do not end after {SETTLE_MAX}"))
    }

    /// Runs `work` and forgets what it prints.
    pub(super) fn quietly(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let printed = self.output.len();
        let result = work(self);
        self.output.truncate(printed);
        result
    }

    pub(super) fn print(&mut self, line: impl Into<String>) {
        self.output.push(line.into());
    }
}
