//! The cluster by itself: it makes progress, it is the same twice, and its faults do what they say.

use bytes::Bytes;
use quorate_raft::{ChangeStep, Index, LogId, NodeId, RoleName, Time};

use super::*;
use crate::checkers::Checkers;
use crate::network::{Delay, LinkOptions};
use crate::storage::Crash;
use crate::trace;

const SECOND: u64 = 1_000_000;

/// A cluster whose observations are judged as they come.
struct Watched {
    cluster: Cluster,
    checkers: Checkers,
    trace: Vec<String>,
}

impl Watched {
    fn new(options: Options) -> Self {
        let mut watched =
            Self { cluster: Cluster::new(options), checkers: Checkers::new(), trace: Vec::new() };
        watched.judge();
        watched
    }

    fn judge(&mut self) -> Vec<Observation> {
        let observations = self.cluster.take_observations();
        for observation in &observations {
            if let Some(line) = trace::line(observation) {
                self.trace.push(format!("{} {line}", observation.at));
            }
        }
        let judged = self.checkers.observe(self.cluster.steps(), &observations);
        if let Err(violation) = judged {
            let from = self.trace.len().saturating_sub(200);
            panic!("{violation}\n{}", self.trace[from..].join("\n"));
        }
        observations
    }

    fn run(&mut self, us: u64) -> Vec<Observation> {
        let until = self.cluster.now().after(us);
        let mut all = Vec::new();
        while self.cluster.next_event_at().is_some_and(|at| at <= until) {
            self.cluster.step();
            all.extend(self.judge());
        }
        self.cluster.run_until(until);
        all
    }
}

fn put(key: u64, value: u64) -> Bytes {
    crate::state_machine::KvCommand::Put { key, value }.to_bytes()
}

#[test]
fn a_calm_cluster_elects_a_leader_and_executes() {
    let mut watched = Watched::new(Options::new(1, 3));
    watched.run(5 * SECOND);
    let leader = watched.cluster.leader().expect("a leader");
    let follower = NodeId(leader.0 % 3 + 1);
    let at_leader = watched.cluster.propose(leader, put(1, 10)).unwrap();
    let forwarded = watched.cluster.propose(follower, put(1, 11)).unwrap();
    let observations = watched.run(SECOND);
    for id in [at_leader, forwarded] {
        let answered = observations.iter().any(|observation| {
            matches!(&observation.what, Observed::Answered { id: answered, reply, .. }
                if *answered == id && matches!(reply, quorate_node::Reply::Proposed(Ok(_))))
        });
        assert!(answered, "{id} was executed");
    }
    let digests: Vec<u64> =
        watched.cluster.hosts().map(|host| host.state_machine().digest()).collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}

/// Some of everything, decided by the seed.
fn turmoil(seed: u64) -> Watched {
    let mut options = Options::new(seed, 3);
    options.link = LinkOptions {
        delay: Delay { min_us: 200, max_us: 5_000, outlier_ppm: 10_000, outlier_us: 2 * SECOND },
        loss_ppm: 20_000,
        duplicate_ppm: 20_000,
        reorder: seed.is_multiple_of(2),
    };
    options.config.election_timeout_min_us = 150_000;
    options.config.election_timeout_max_us = 300_000;
    options.config.heartbeat_interval_us = 50_000;
    options.config.tail_bytes_max = 2_000;
    options.bound = !seed.is_multiple_of(3);
    options.settings.compact_entries = 60;
    options.settings.keep_entries = 10;
    options.settings.outcome_wait_us = 500_000 * (seed % 2);
    options.host.fetch_fails_ppm = 200_000;
    let mut watched = Watched::new(options);
    let mut rng = Rng::new(seed);
    let mut next_host = 4;
    for round in 0..150 {
        let nodes = watched.cluster.nodes();
        let node = *rng.pick(&nodes).unwrap();
        let other = *rng.pick(&nodes).unwrap();
        let cluster = &mut watched.cluster;
        match rng.below(24) {
            0 => cluster.crash(node, Crash::Kill),
            1 => cluster.crash(node, Crash::PowerCut),
            2 => cluster.crash_in_step(node, rng.below(5) as usize, Crash::PowerCut),
            3 => cluster.crash_in_step(node, rng.below(5) as usize, Crash::Kill),
            4..=8 => cluster.restart(node),
            9 => cluster.pause(node),
            10..=12 => cluster.resume(node),
            13 => cluster.network.cut(node, other),
            14 | 15 => cluster.network.heal(),
            16 => cluster.stall_disk(node, cluster.now().after(rng.below(5 * SECOND))),
            17 => cluster.set_drift(node, rng.between(0, 20_000) as i32 - 10_000),
            18 => cluster.compact(node, Index(u64::MAX)),
            19 => cluster.peer_closed(node, other),
            20 if next_host < 8 => {
                let new = NodeId(next_host);
                cluster.add_host(new);
                next_host += 1;
                if let Some(leader) = cluster.leader() {
                    let context = Bytes::new();
                    let step = ChangeStep::AddVoter { node: new, context, replaces: None };
                    cluster.change(leader, step.into());
                }
            }
            21 => {
                if let Some(leader) = cluster.leader() {
                    cluster.transfer(leader, other);
                }
            }
            22 => {
                if let Some(leader) = cluster.leader() {
                    cluster.change(leader, ChangeStep::Remove { node: other }.into());
                }
            }
            _ => {}
        }
        watched.judge();
        for value in 0..rng.below(6) {
            watched.cluster.propose(node, put(rng.below(4), 10 * round + value));
        }
        watched.run(rng.below(300_000));
    }
    watched.cluster.calm(&[]);
    watched.cluster.network.set_defaults(Options::new(0, 3).link);
    watched.judge();
    watched.run(20 * SECOND);
    watched
}

#[test]
fn a_cluster_recovers_from_turmoil() {
    for seed in 0..20 {
        let watched = turmoil(seed);
        let leader = watched.cluster.leader();
        let leader = leader.unwrap_or_else(|| panic!("seed {seed}: a leader after the faults"));
        let host = watched.cluster.host(leader).unwrap();
        let membership = &host.brief().unwrap().membership;
        let applied: Vec<(NodeId, LogId, u64)> = watched
            .cluster
            .hosts()
            .filter(|host| membership.contains(host.id()))
            .map(|host| {
                let machine = host.state_machine();
                (host.id(), machine.applied(), machine.digest())
            })
            .collect();
        let first = (applied[0].1, applied[0].2);
        let agree = applied.iter().all(|(_, applied, digest)| (*applied, *digest) == first);
        let from = watched.trace.len().saturating_sub(100);
        assert!(agree, "seed {seed}: {applied:?}\n{}", watched.trace[from..].join("\n"));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (a, b) = (turmoil(5), turmoil(5));
    assert_eq!(a.cluster.digest(), b.cluster.digest());
    assert!(a.trace == b.trace, "the traces are equal line by line");
    assert_ne!(a.cluster.digest(), turmoil(6).cluster.digest());
}

#[test]
fn what_was_not_durable_is_lost_with_the_power_only() {
    for (crash, term) in [(Crash::Kill, 1), (Crash::PowerCut, 0)] {
        let mut cluster = Cluster::new(Options { voters: 1, ..Options::manual(1) });
        cluster.hold_disk(NodeId(1), true);
        assert!(cluster.wake(NodeId(1)));
        assert_eq!(cluster.host(NodeId(1)).unwrap().brief().unwrap().role, RoleName::Candidate);
        cluster.crash(NodeId(1), crash);
        cluster.restart(NodeId(1));
        cluster.run_due();
        let brief = cluster.host(NodeId(1)).unwrap().brief().unwrap();
        assert_eq!(brief.term.0, term, "{crash:?}");
    }
}

#[test]
fn time_stands_still_until_it_is_moved() {
    let mut cluster = Cluster::new(Options::manual(3));
    assert!(!cluster.step());
    cluster.advance(10 * SECOND, &[]);
    assert_eq!(cluster.now(), Time(10 * SECOND));
    assert_eq!(cluster.leader(), None);
}
