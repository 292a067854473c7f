//! One crash of a leader, and the election after it.
//!
//! It needs no [`Cluster`](crate::cluster::Cluster): the leader's last words are one heartbeat to
//! each survivor, and all that counts is the four cores, their disks and the network between them.

use std::collections::BinaryHeap;
use std::sync::Arc;

use quorate_raft::{
    ClusterId, Config, Effect, Envelope, GroupId, HardState, Heartbeat, Incarnation, Index, Input,
    LogId, Member, MemberRole, Membership, Message, NodeId, Raft, Recovered, RoleName,
    SnapshotMeta, Term, Time,
};

use crate::rng::Rng;

/// A trial is given up after this much virtual time.
pub(super) const LIMIT_US: u64 = 100_000_000;

/// How long things take, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delays {
    /// Shortest one-way delay of a message.
    pub network_min_us: u64,
    /// Longest one-way delay; any between are equally likely.
    pub network_max_us: u64,
    /// A durable write of term and vote.
    pub disk_us: u64,
}

impl Delays {
    /// One way 1.5 ms +- 30 %, and 2.5 ms for a durable write: the same for every curve.
    pub const PAPER: Self = Self { network_min_us: 1_050, network_max_us: 1_950, disk_us: 2_500 };
}

/// How the product finds out that the leader has crashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Product {
    /// By silence: the machine is gone, nobody closes its connections.
    Silent,
    /// The kernel closes the dead process's connections, and hosts pass the hint on.
    ProcessEnded,
}

/// How the survivors of a crash behave.
#[derive(Clone, Debug)]
pub struct Survivors {
    settings: Config,
    delays: Delays,
    hint: bool,
}

impl Survivors {
    /// As in the paper: no pre-vote, no stickiness, heartbeats at half the shortest timeout.
    #[must_use]
    pub fn paper(timeout_min_us: u64, timeout_max_us: u64) -> Self {
        let mut settings = Config::new(ClusterId(16), NodeId(1), Incarnation(1));
        settings.election_timeout_min_us = timeout_min_us;
        settings.election_timeout_max_us = timeout_max_us;
        settings.heartbeat_interval_us = timeout_min_us / 2;
        settings.pre_vote = false;
        settings.leader_stickiness = false;
        Self { settings, delays: Delays::PAPER, hint: false }
    }

    /// The defaults of the product.
    #[must_use]
    pub fn product(product: Product) -> Self {
        let settings = Config::new(ClusterId(16), NodeId(1), Incarnation(1));
        Self { settings, delays: Delays::PAPER, hint: product == Product::ProcessEnded }
    }
}

const LEADER: NodeId = NodeId(1);
const SERVERS: u64 = 5;

/// Crashes a leader once. The time from the crash to the next leader, in microseconds; `None` if
/// there was none within the limit.
#[must_use]
pub fn run_trial(survivors: &Survivors, seed: u64) -> Option<u64> {
    Trial::new(survivors, seed).run()
}

struct Trial<'a> {
    survivors: &'a Survivors,
    rng: Rng,
    now: u64,
    sequence: u64,
    events: BinaryHeap<Event>,
    cores: Vec<Raft>,
    /// Until when each disk is busy.
    disks: Vec<u64>,
    crashed_at: u64,
}

/// Ordered so that the heap gives the earliest first.
struct Event {
    at: u64,
    sequence: u64,
    to: usize,
    input: Input,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<'a> Trial<'a> {
    fn new(survivors: &'a Survivors, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let interval_us = survivors.settings.heartbeat_interval_us;
        // The last heartbeats leave at zero, the crash is somewhere in the interval behind it.
        let crashed_at = rng.below(interval_us);
        let bound = |node: u64| {
            let mut member = Member::new(MemberRole::Voter);
            member.incarnation = Some(Incarnation(node));
            (NodeId(node), member)
        };
        let membership = Arc::new(Membership::bootstrap((1..=SERVERS).map(bound)));
        let cores: Vec<Raft> = (2..=SERVERS)
            .map(|node| survivor(survivors, node, &membership, rng.next_u64()))
            .collect();
        let disks = vec![0; cores.len()];
        Self {
            survivors,
            rng,
            now: 0,
            sequence: 0,
            events: BinaryHeap::new(),
            cores,
            disks,
            crashed_at,
        }
    }

    fn run(mut self) -> Option<u64> {
        for to in 0..self.cores.len() {
            let heartbeat = Envelope {
                cluster: self.survivors.settings.cluster,
                group: GroupId(0),
                from: LEADER,
                incarnation: Incarnation(1),
                to: NodeId(to as u64 + 2),
                term: Term(1),
                message: Message::Heartbeat(Heartbeat { leader_commit: Index(1), round: 1 }),
            };
            let delay_us = self.network_us();
            self.schedule(delay_us, to, Input::Receive(heartbeat));
            if self.survivors.hint {
                let closed = Input::PeerClosed { peer: LEADER, incarnation: Incarnation(1) };
                let delay_us = self.crashed_at + self.network_us();
                self.schedule(delay_us, to, closed);
            }
        }
        while self.now < LIMIT_US {
            let wakes = self.cores.iter().enumerate();
            let wake = wakes.filter_map(|(at, core)| Some((core.deadline()?.0, at))).min();
            let event_at = self.events.peek().map_or(u64::MAX, |event| event.at);
            let (at, input) = match wake {
                Some((time, at)) if time < event_at => {
                    self.now = self.now.max(time);
                    (at, Input::Wake)
                }
                _ => {
                    let event = self.events.pop()?;
                    self.now = event.at;
                    (event.to, event.input)
                }
            };
            self.cores[at].step(Time(self.now), input);
            self.carry_out(at);
            if self.cores[at].role() == RoleName::Leader {
                return Some(self.now.saturating_sub(self.crashed_at));
            }
        }
        None
    }

    fn network_us(&mut self) -> u64 {
        let Delays { network_min_us, network_max_us, .. } = self.survivors.delays;
        self.rng.between(network_min_us, network_max_us)
    }

    fn schedule(&mut self, delay_us: u64, to: usize, input: Input) {
        self.sequence += 1;
        let event = Event { at: self.now + delay_us, sequence: self.sequence, to, input };
        self.events.push(event);
    }

    fn carry_out(&mut self, at: usize) {
        for effect in self.cores[at].take_effects() {
            match effect {
                Effect::Persist(persist) => {
                    // One write at a time.
                    let start = self.disks[at].max(self.now);
                    self.disks[at] = start + self.survivors.delays.disk_us;
                    let delay_us = self.disks[at] - self.now;
                    self.schedule(delay_us, at, Input::Persisted(persist.seq));
                }
                // The crashed leader hears nothing.
                Effect::Send(envelope) if envelope.to != LEADER => {
                    let to = envelope.to.0 as usize - 2;
                    let delay_us = self.network_us();
                    self.schedule(delay_us, to, Input::Receive(envelope));
                }
                _ => {}
            }
        }
    }
}

/// A server that has followed the leader in term 1. Nodes 2 and 3 have its whole log.
fn survivor(survivors: &Survivors, node: u64, membership: &Arc<Membership>, seed: u64) -> Raft {
    let mut settings = survivors.settings.clone();
    settings.node = NodeId(node);
    settings.incarnation = Incarnation(node);
    let last_index = if node <= 3 { Index(2) } else { Index(1) };
    let recovered = Recovered {
        hard_state: HardState { term: Term(1), commit: Index(1), ..HardState::default() },
        snapshot: SnapshotMeta { id: LogId::ZERO, membership: membership.clone() },
        terms: vec![(Index(1), Term(1))],
        last_index,
        applied: Index(1),
        boot_nonce: seed,
        ..Recovered::default()
    };
    Raft::new(settings, Time(0), seed, recovered).expect("the settings of the experiment are sound")
}
