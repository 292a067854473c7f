//! Leases under leaders that come, go, sleep and wake: whatever happens, no lease ends before what its owner was promised,
//! none lives on without its owner, and nobody renews what is over.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod watch_support;

use std::collections::BTreeMap;

use quorate_kv::{
    Command, Decision, GrantedLease, LEASE_CHECKPOINT_ROUND_MAX, LEASE_EXPIRE_BATCH_MAX,
    LEASE_EXPIRE_ROUND_MAX, LEASE_ROUND_US, LEASE_WAITING_MAX, LeaderTerm, LeaseGrant, LeaseId,
    Leases, Lessor, LessorConfig, Renewal, Ticket,
};
use watch_support::Random;

const SECOND_US: u64 = 1_000_000;
const NODES: usize = 3;
const TTLS_S: [i64; 4] = [2, 5, 9, 30];

/// One log, agreed on by magic: what is left is what lessors make of it.
struct World {
    random: Random,
    now_us: u64,
    log: Vec<Command>,
    nodes: Vec<Node>,
    leader: Option<(usize, LeaderTerm)>,
    last_term: u64,
    /// Decisions between the lessor and the log.
    under_way: Vec<(usize, Decision)>,
    /// Keepalives whose round is running, with the length of the log at its start.
    rounds: Vec<(usize, Ticket, usize)>,
    leases: BTreeMap<LeaseId, Owner>,
    next_lease: i64,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    renewed: usize,
    waited: usize,
    expired: usize,
    refused: usize,
    checkpoints: usize,
}

struct Node {
    /// Clocks agree on nothing but the length of a second.
    offset_us: u64,
    applied: usize,
    leases: Leases,
    lessor: Lessor,
    /// Where in the log its leadership begins, until that is applied.
    elected: Option<(LeaderTerm, usize)>,
    /// With the length of the log when the round began.
    waiting: BTreeMap<Ticket, usize>,
}

/// What the owner of a lease knows.
struct Owner {
    ttl_s: i64,
    promised_us: u64,
    /// Where in the log it ended.
    ended: Option<usize>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let config = LessorConfig {
            extension_us: SECOND_US,
            checkpoint_interval_us: Some(SECOND_US * (1 + random.below(4))),
        };
        let nodes = (0..NODES).map(|_| Node {
            offset_us: random.below(1 << 40),
            applied: 0,
            leases: Leases::new(),
            lessor: Lessor::new(config),
            elected: None,
            waiting: BTreeMap::new(),
        });
        let nodes = nodes.collect();
        Self {
            random,
            now_us: 0,
            log: Vec::new(),
            nodes,
            leader: None,
            last_term: 0,
            under_way: Vec::new(),
            rounds: Vec::new(),
            leases: BTreeMap::new(),
            next_lease: 1,
            counts: Counts::default(),
        }
    }

    fn step(&mut self) {
        self.now_us += self.random.below(SECOND_US / 4);
        let node = self.random.below(NODES as u64) as usize;
        match self.random.below(100) {
            0 => self.elect(node),
            1 => self.leader = None,
            2..10 => self.demote_if_deposed(node),
            10..14 => self.grant(),
            14 => self.revoke(),
            15..35 => self.keepalive(node),
            35..50 => self.finish_round(),
            50..70 => self.apply(node),
            70..85 => self.decide(node),
            _ => self.propose_one(),
        }
    }

    fn elect(&mut self, node: usize) {
        self.last_term += 1;
        let term = LeaderTerm(self.last_term);
        self.leader = Some((node, term));
        self.nodes[node].elected = Some((term, self.log.len()));
        self.promote_if_ready(node);
    }

    /// A leader that still applies what others have logged knows nothing of its leases yet.
    fn promote_if_ready(&mut self, node: usize) {
        let now_us = self.local(node);
        let Node { lessor, leases, elected, applied, .. } = &mut self.nodes[node];
        let Some((term, _)) = elected.take_if(|(_, first)| *applied >= *first) else { return };
        assert!(lessor.promote(now_us, term, leases));
        self.outcomes(node);
    }

    /// Whoever does not lead may not know it for long.
    fn demote_if_deposed(&mut self, node: usize) {
        if self.leader.map(|(leader, _)| leader) != Some(node) {
            let Node { lessor, leases, .. } = &mut self.nodes[node];
            lessor.demote(leases);
            self.nodes[node].elected = None;
            self.under_way.retain(|(by, _)| *by != node);
            self.outcomes(node);
        }
    }

    fn grant(&mut self) {
        if self.leader.is_some() {
            let id = LeaseId(self.next_lease);
            self.next_lease += 1;
            let ttl_s = TTLS_S[self.random.below(4) as usize];
            self.log.push(Command::LeaseGrant(LeaseGrant { id, ttl_s }));
            self.leases.insert(id, Owner { ttl_s, promised_us: 0, ended: None });
        }
    }

    fn revoke(&mut self) {
        let id = self.any_lease();
        let Some(owner) = self.leases.get_mut(&id) else { return };
        if self.leader.is_some() && owner.ended.is_none() {
            owner.ended = Some(self.log.len());
            self.log.push(Command::LeaseRevoke(id));
        }
    }

    fn any_lease(&mut self) -> LeaseId {
        let next = self.next_lease as u64;
        LeaseId((next - 1 - self.random.below(next.min(12))) as i64)
    }

    fn keepalive(&mut self, node: usize) {
        let (now_us, id) = (self.local(node), self.any_lease());
        if let Ok(ticket) = self.nodes[node].lessor.arrived(now_us, id) {
            self.rounds.push((node, ticket, self.log.len()));
        }
    }

    /// A round ends: it confirms only who leads that very term, and only once its state is as new as the round.
    fn finish_round(&mut self) {
        if self.rounds.is_empty() {
            return;
        }
        let at = self.random.below(self.rounds.len() as u64) as usize;
        let (node, ticket, commit) = self.rounds.swap_remove(at);
        if self.leader != Some((node, ticket.term)) {
            return;
        }
        while self.nodes[node].applied < commit {
            self.apply(node);
        }
        let now_us = self.local(node);
        let renewal = self.nodes[node].lessor.confirmed(now_us, ticket);
        if renewal == Renewal::Waiting {
            self.nodes[node].waiting.insert(ticket, commit);
            self.counts.waited += 1;
        } else {
            self.answered(ticket, commit, renewal);
        }
        self.outcomes(node);
    }

    fn outcomes(&mut self, node: usize) {
        for (ticket, renewal) in self.nodes[node].lessor.take_outcomes() {
            let commit = self.nodes[node].waiting.remove(&ticket).expect("somebody waits");
            if renewal == Renewal::Again {
                self.rounds.push((node, ticket, self.log.len().max(commit)));
            } else {
                self.answered(ticket, commit, renewal);
            }
        }
    }

    fn answered(&mut self, ticket: Ticket, commit: usize, renewal: Renewal) {
        let owner = self.leases.get_mut(&ticket.id);
        match (renewal, owner) {
            (Renewal::Renewed(ttl_s), Some(owner)) => {
                assert_eq!(ttl_s, owner.ttl_s);
                let over = owner.ended.is_some_and(|ended| ended < commit);
                assert!(!over, "{ticket:?} renews what was over when it came");
                owner.promised_us = self.now_us + ttl_s as u64 * SECOND_US;
                self.counts.renewed += 1;
            }
            (Renewal::Renewed(_), None) => panic!("{ticket:?} renews what never was"),
            (Renewal::NotFound, Some(owner)) => {
                assert!(owner.ended.is_some(), "{ticket:?} is not found");
            }
            (Renewal::NotFound | Renewal::NotPrimary, _) => {}
            (Renewal::Waiting | Renewal::Again | Renewal::Busy, _) => {
                panic!("{renewal:?} is no outcome")
            }
        }
    }

    fn decide(&mut self, node: usize) {
        let now_us = self.local(node);
        for decision in self.nodes[node].lessor.decide(now_us) {
            self.under_way.push((node, decision));
        }
    }

    /// A decision gets to the log. It is refused unless its node leads its term.
    fn propose_one(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let at = self.random.below(self.under_way.len() as u64) as usize;
        let (node, decision) = self.under_way.swap_remove(at);
        if self.leader != Some((node, decision.term)) || self.random.one_in(8) {
            self.counts.refused += 1;
            let now_us = self.local(node);
            self.nodes[node].lessor.refused(now_us, &decision);
            self.outcomes(node);
            return;
        }
        match &decision.command {
            Command::LeaseExpire(ids) => {
                for lease in ids {
                    let id = lease.id;
                    let owner = self.leases.get_mut(&id).expect("only what was granted expires");
                    if owner.ended.is_none() {
                        assert!(
                            owner.promised_us <= self.now_us,
                            "lease {} ends {} us early",
                            id.0,
                            owner.promised_us - self.now_us
                        );
                        owner.ended = Some(self.log.len());
                        self.counts.expired += 1;
                    }
                }
            }
            Command::LeaseCheckpoint(_) => self.counts.checkpoints += 1,
            other => panic!("{other:?} is not for a lessor to decide"),
        }
        self.log.push(decision.command);
    }

    fn apply(&mut self, node: usize) {
        let now_us = self.local(node);
        let at = &mut self.nodes[node];
        let Some(command) = self.log.get(at.applied) else { return };
        at.applied += 1;
        match command {
            Command::LeaseGrant(grant) => {
                at.leases.grant(grant.id, grant.ttl_s).expect("each is granted once");
            }
            Command::LeaseRevoke(id) => drop(at.leases.revoke(*id)),
            Command::LeaseExpire(leases) => {
                for lease in
                    leases.iter().filter(|lease| at.leases.has(**lease)).collect::<Vec<_>>()
                {
                    drop(at.leases.revoke(lease.id));
                }
            }
            Command::LeaseCheckpoint(checkpoints) => {
                for checkpoint in checkpoints {
                    at.leases.checkpoint(*checkpoint);
                }
            }
            other => panic!("unexpected {other:?}"),
        }
        at.lessor.follow(now_us, &mut at.leases);
        self.outcomes(node);
        self.promote_if_ready(node);
    }

    fn local(&self, node: usize) -> u64 {
        self.now_us + self.nodes[node].offset_us
    }

    /// One leader, and everything arrives: all leases end in time, and nobody waits any more.
    fn settle(&mut self) {
        self.elect(0);
        while self.nodes[0].applied < self.log.len() {
            self.apply(0);
        }
        for node in 1..NODES {
            self.demote_if_deposed(node);
        }
        let longest_us = TTLS_S[3] as u64 * SECOND_US;
        let end_us = self.now_us + longest_us + SECOND_US + 4 * LEASE_ROUND_US;
        while self.now_us < end_us {
            self.now_us += SECOND_US / 10;
            self.decide(0);
            while !self.under_way.is_empty() {
                self.propose_one();
            }
            while self.nodes[0].applied < self.log.len() {
                self.apply(0);
            }
        }
        assert!(self.nodes[0].leases.is_empty(), "{:?} live on", self.nodes[0].leases);
        assert_eq!(self.nodes[0].lessor.wake_us(), None);
        for node in &self.nodes {
            assert!(node.waiting.is_empty(), "{:?} wait for ever", node.waiting);
        }
    }
}

#[test]
fn no_lease_ends_early_or_lives_on() {
    let mut total = Counts::default();
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..1500 {
            world.step();
        }
        world.settle();
        total.renewed += world.counts.renewed;
        total.waited += world.counts.waited;
        total.expired += world.counts.expired;
        total.refused += world.counts.refused;
        total.checkpoints += world.counts.checkpoints;
    }
    let Counts { renewed, waited, expired, refused, checkpoints } = total;
    let least = renewed.min(waited).min(expired).min(refused).min(checkpoints);
    assert!(least > 1000, "too little happens: {total:?}");
}

fn leader_of(leases: impl Iterator<Item = (i64, i64)>) -> (Leases, Lessor) {
    let mut table = Leases::new();
    for (id, ttl_s) in leases {
        table.grant(LeaseId(id), ttl_s).unwrap();
    }
    let mut lessor = Lessor::new(LessorConfig::default());
    assert!(lessor.promote(0, LeaderTerm(1), &mut table));
    (table, lessor)
}

#[test]
fn a_round_has_a_limit() {
    let (_leases, mut lessor) = leader_of((1..=1200).map(|id| (id, 10)));
    let mut now_us = 11 * SECOND_US;
    for expected in [LEASE_EXPIRE_ROUND_MAX, LEASE_EXPIRE_ROUND_MAX, 200, 0] {
        let mut decided = 0;
        for decision in lessor.decide(now_us) {
            let Command::LeaseExpire(ids) = decision.command else { panic!("no expiry") };
            assert!(ids.len() <= LEASE_EXPIRE_BATCH_MAX);
            decided += ids.len();
        }
        assert_eq!(decided, expected);
        assert!(lessor.decide(now_us).is_empty());
        now_us += LEASE_ROUND_US;
    }
    let (_leases, mut lessor) = leader_of((1..=1200).map(|id| (id, 1000)));
    let decisions = lessor.decide(300 * SECOND_US);
    let [Decision { command: Command::LeaseCheckpoint(checkpoints), .. }] = &decisions[..] else {
        panic!("not one command: {decisions:?}");
    };
    assert_eq!(checkpoints.len(), LEASE_CHECKPOINT_ROUND_MAX);
}

#[test]
fn waiting_keepalives_have_a_limit() {
    let (mut leases, mut lessor) = leader_of([(1, 10)].into_iter());
    let now_us = 11 * SECOND_US;
    for _ in 0..LEASE_WAITING_MAX {
        let ticket = lessor.arrived(now_us, LeaseId(1)).unwrap();
        assert_eq!(lessor.confirmed(now_us, ticket), Renewal::Waiting);
    }
    let ticket = lessor.arrived(now_us, LeaseId(1)).unwrap();
    assert_eq!(lessor.confirmed(now_us, ticket), Renewal::Busy);
    leases.revoke(LeaseId(1)).unwrap();
    lessor.follow(now_us, &mut leases);
    assert_eq!(lessor.take_outcomes().len(), LEASE_WAITING_MAX);
    assert_eq!(lessor.confirmed(now_us, ticket), Renewal::NotFound);
}

/// A million leases that are renewed cost nothing but their renewals, and a million that are over cost no second look.
#[test]
fn a_million_leases_are_ordinary() {
    let (mut leases, mut lessor) = leader_of((1..=1_000_000).map(|id| (id, 60)));
    let now_us = 59 * SECOND_US;
    for id in 1..=999_999 {
        let ticket = lessor.arrived(now_us, LeaseId(id)).unwrap();
        assert_eq!(lessor.confirmed(now_us, ticket), Renewal::Renewed(60));
    }
    let decisions = lessor.decide(61 * SECOND_US);
    let expected =
        Command::LeaseExpire(vec![GrantedLease { id: LeaseId(1_000_000), grant: 1_000_000 }]);
    assert_eq!(decisions.iter().map(|d| &d.command).collect::<Vec<_>>(), [&expected]);
    assert_eq!(lessor.wake_us(), Some(119 * SECOND_US));
    // Leases that come and go at once leave nothing behind.
    for id in 2_000_000..2_100_000 {
        leases.grant(LeaseId(id), 3600).unwrap();
        leases.revoke(LeaseId(id)).unwrap();
    }
    lessor.follow(now_us, &mut leases);
    assert_eq!(lessor.by_expiry().unwrap().len(), 1_000_000);
}
