//! The end of a run: faults stop, except on a minority, and the cluster must recover.
//!
//! Safety is judged all the time; that something *happens* can only be demanded when the network and
//! most nodes are well again (no algorithm can do better, see FLP). So the last phase of each run
//! repairs everything except a minority of voters, which is down or cut off, and then demands, within
//! [`bound_us`] of virtual time (and [`catch_up_us`] for long logs on slow links):
//!
//! 1. a leader is elected,
//! 2. new commands are executed,
//! 3. the logs, commit indexes and state machines of all live members become equal.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_node::Reply;
use quorate_raft::{NodeId, RequestId, RoleName, Time};

use super::Simulation;
use crate::checkers::{Property, Violation};
use crate::cluster::{Host, Observation, Observed};
use crate::nemesis::{is_outside, is_recoverable_without, is_to_be_promoted};
use crate::network::Delay;
use crate::options::RunOptions;
use crate::rng::Rng;
use crate::storage::Crash;

/// Commands that must be executed after the faults.
const PROBES: u64 = 3;

/// Within how much virtual time a cluster recovers.
///
/// An election takes a few election time-outs when votes are split; then followers may be a snapshot
/// behind, learners may be promoted and joint configurations left. Forty of the longest election
/// time-outs and five seconds are generous: what takes longer is stuck.
#[must_use]
pub const fn bound_us(options: &RunOptions) -> u64 {
    40 * options.election_max_us + 10 * options.recovery_us + 5_000_000
}

/// Within how much more time a node catches up that lacks so many entries, if each of them takes a
/// round trip of its own and a sync: where messages are that small, and one at a time.
#[must_use]
pub const fn catch_up_us(options: &RunOptions, entries: u64) -> u64 {
    let slowest = if options.slow_peer > 0 { options.slow_factor } else { 1 };
    entries * (2 * options.delay_max_us * slowest + options.sync_max_us + options.load_us)
}

/// Commands that prove progress.
#[derive(Debug, Default)]
pub(super) struct Probes {
    open: BTreeSet<RequestId>,
    executed: u64,
}

impl Probes {
    pub(super) fn observe(&mut self, observation: &Observation) {
        match &observation.what {
            Observed::Answered { id, reply: Reply::Proposed(result), .. } => {
                let is_probe = self.open.remove(id);
                self.executed += u64::from(is_probe && result.is_ok());
            }
            Observed::Abandoned { id } => {
                self.open.remove(id);
            }
            _ => {}
        }
    }
}

impl Simulation<'_> {
    /// Ends the faults and demands recovery.
    pub(super) fn recover(&mut self) -> Result<(), Violation> {
        let mut rng = Rng::new(self.plan.seed ^ 0x4c49_5645);
        self.workload.stop();
        self.nemesis.stop();
        let lost = self.choose_minority(&mut rng);
        self.calm(&lost, &mut rng);
        self.settle()?;

        let began = self.cluster.now();
        let options = &self.plan.options;
        let ends = self.cluster.hosts().map(|host| host.storage().written().last().index.0);
        let bound_us = bound_us(options) + catch_up_us(options, ends.max().unwrap_or(0));
        let until = began.after(bound_us);
        let probe_pause = options.election_max_us / 2;
        let mut probe_at = began;
        let mut missing = String::from("no leader was elected");
        while self.cluster.now() < until {
            let idle = self.liveness.executed >= PROBES && self.live_leader(&lost).is_some();
            if !idle && self.cluster.now() >= probe_at {
                probe_at = self.cluster.now().after(probe_pause);
                self.probe(probe_at);
            }
            for _ in 0..8 {
                self.cluster.step();
                self.settle()?;
            }
            self.start_new_members();
            match self.is_missing(&lost) {
                Some(what) => missing = what,
                None => {
                    self.stats.recovery_us = self.cluster.now().since(began);
                    return Ok(());
                }
            }
        }
        let lost: Vec<String> = lost.iter().map(|node| format!("n{node}")).collect();
        let lost = if lost.is_empty() { "nobody".to_owned() } else { lost.join(", ") };
        let seen = format!(
            "{} ms after the faults have ended (lost: {lost}), {missing}; {}",
            bound_us / 1000,
            self.describe()
        );
        Err(self.violation(Property::Liveness, seen))
    }

    /// Who does not come back: those that cannot, and voters beyond that as long as every
    /// configuration in play keeps a quorum.
    fn choose_minority(&self, rng: &mut Rng) -> BTreeSet<NodeId> {
        let gone = self.nemesis.wiped().union(self.nemesis.retired());
        let mut lost: BTreeSet<NodeId> = gone.copied().collect();
        let mut nodes = self.cluster.nodes();
        rng.shuffle(&mut nodes);
        for node in nodes {
            if rng.chance(500_000)
                && !is_to_be_promoted(&self.cluster, &self.checkers, node)
                && lost.insert(node)
                && !is_recoverable_without(&self.cluster, &self.checkers, &lost)
            {
                lost.remove(&node);
            }
        }
        lost
    }

    fn calm(&mut self, lost: &BTreeSet<NodeId>, rng: &mut Rng) {
        let options = self.plan.options.clone();
        // Messages are still lost as before: what is lost must be sent again.
        let mut link = options.link();
        link.delay.outlier_ppm = 0;
        self.cluster.network.set_defaults(link);
        self.slow_down(link);
        let mut host_options = options.host();
        host_options.sync.outlier_ppm = 0;
        host_options.fetch_fails_ppm = 0;
        let short = options.election_min_us / 10;
        host_options.apply = Delay::between(0, options.apply_us.min(short));
        host_options.spool = Delay::between(0, options.spool_us.min(short));
        host_options.fetch = Delay::between(0, options.fetch_us.min(short));

        let unreadable = self.nemesis.unreadable().clone();
        for node in unreadable.difference(lost) {
            self.nemesis.repair(&mut self.cluster, *node);
        }
        // Servers that were removed can disturb those who do not protect themselves, and are shut
        // down then, as an operator would.
        let protected =
            options.pre_vote == 1 && options.stickiness == 1 && options.check_quorum == 1;
        let mut except: Vec<NodeId> = lost.iter().copied().collect();
        for node in self.cluster.nodes() {
            let removed = is_outside(&self.cluster, &self.checkers, node) && !lost.contains(&node);
            if removed && !protected && self.has_history(node) {
                self.cluster.crash(node, Crash::PowerCut);
                except.push(node);
            }
            self.cluster.set_host_options(node, host_options);
        }
        for node in self.nemesis.rotten().clone() {
            self.cluster.crash(node, Crash::PowerCut);
        }
        self.cluster.calm(&except);
        // Longer than anybody waits for anything here.
        let until = self.cluster.now().after(1_000_000_000_000);
        for node in lost {
            if self.nemesis.wiped().contains(node) || self.nemesis.retired().contains(node) {
                continue;
            }
            match rng.below(7) {
                0 => self.cluster.crash(*node, Crash::Kill),
                1 => self.cluster.crash(*node, Crash::PowerCut),
                2 if self.cluster.host(*node).is_some_and(Host::is_up) => self.cluster.pause(*node),
                2 => self.cluster.crash(*node, Crash::Kill),
                3 => self.cluster.stall_disk(*node, until),
                4 => self.cut_off(*node, [false, true]),
                // The deaf disturb those who do not protect themselves.
                5 if protected => self.cut_off(*node, [true, false]),
                _ => self.cut_off(*node, [true, true]),
            }
        }
    }

    /// Cuts what others say to the node, and what it says.
    fn cut_off(&mut self, node: NodeId, [hears, speaks]: [bool; 2]) {
        for other in self.cluster.nodes() {
            if other != node && hears {
                self.cluster.network.cut(other, node);
            }
            if other != node && speaks {
                self.cluster.network.cut(node, other);
            }
        }
    }

    /// Starts members that were to be started later. Changes that were under way when the faults
    /// ended may still bring some.
    fn start_new_members(&mut self) {
        let Some((_, committed)) = self.checkers.committed_membership() else { return };
        let members: Vec<NodeId> = committed.members().map(|(node, _)| node).collect();
        for node in members {
            if self.cluster.host(node).is_none() {
                self.cluster.add_host(node);
                self.cluster.set_host_options(node, self.plan.options.host());
            }
        }
    }

    /// Whether a node ever was a member.
    fn has_history(&self, node: NodeId) -> bool {
        self.cluster.host(node).is_some_and(|host| {
            let log = host.storage().written();
            !log.start.membership.is_empty() || !log.entries.is_empty()
        })
    }

    /// The live leader of the latest term.
    fn live_leader(&self, lost: &BTreeSet<NodeId>) -> Option<&Host> {
        let live = self.cluster.hosts().filter(|host| !lost.contains(&host.id()));
        let leaders = live.filter(|host| {
            host.brief().is_some_and(|brief| brief.role == RoleName::Leader) && !host.is_paused()
        });
        leaders.max_by_key(|host| host.brief().map(|brief| brief.term))
    }

    /// Asks the leader to execute something. It may be one that cannot: a disk that stalls is only
    /// noticed when there is something to write.
    fn probe(&mut self, next: Time) {
        if let Some(leader) = self.cluster.leader() {
            let request = self.cluster.propose(leader, Bytes::from_static(b"probe"));
            self.liveness.open.extend(request);
        }
        // Time must not stand still when nothing else is going to happen. No client has the
        // number 0, so nobody reacts.
        self.cluster.schedule(next, 0);
    }

    /// What the cluster still lacks.
    fn is_missing(&self, lost: &BTreeSet<NodeId>) -> Option<String> {
        let Some(leader) = self.live_leader(lost) else {
            return Some("no leader was elected".to_owned());
        };
        if self.liveness.executed < PROBES {
            let executed = self.liveness.executed;
            return Some(format!("only {executed} of {PROBES} new commands were executed"));
        }
        let brief = leader.brief()?;
        if !brief.membership.is_voter(leader.id()) {
            return Some(format!("n{} leads without being a voter", leader.id()));
        }
        if brief.membership.is_joint() {
            return Some("the joint configuration is not left".to_owned());
        }
        let want = (brief.last_log, brief.last_log.index, brief.last_log.index);
        let digest = leader.state_machine().digest();
        for (node, _) in brief.membership.members() {
            if lost.contains(&node) {
                continue;
            }
            let host = self.cluster.host(node);
            let state = host.and_then(|host| {
                let brief = host.brief()?;
                Some(((brief.last_log, brief.commit_index, brief.applied), host.state_machine()))
            });
            let Some((has, machine)) = state else { return Some(format!("n{node} is down")) };
            if has != want || machine.applied() != brief.last_log || machine.digest() != digest {
                return Some(format!(
                    "n{node} has not converged: log up to {}, commit index {}, applied {}; the \
                     leader n{} has a log up to {}",
                    has.0,
                    has.1,
                    has.2,
                    leader.id(),
                    brief.last_log
                ));
            }
        }
        None
    }

    /// All nodes, in a few words each.
    fn describe(&self) -> String {
        let hosts = self.cluster.hosts().map(|host| match host.status() {
            Some(status) => status.to_string(),
            None => match host.start_error() {
                Some(error) => format!("n{} does not start: {error}", host.id()),
                None => format!("n{} is down", host.id()),
            },
        });
        hosts.collect::<Vec<_>>().join("; ")
    }
}
