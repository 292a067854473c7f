//! Stories about leases: `scripts/lease`. The README there has the language.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod watch_support;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use quorate_kv::{
    Command, Decision, LeaderTerm, LeaseCheckpoint, LeaseId, Leases, Lessor, LessorConfig, Renewal,
    Ticket, lease_ttl_s,
};

#[test]
fn scripts() {
    watch_support::run_scripts("lease", Cluster::new, Cluster::run);
}

struct Node {
    leases: Leases,
    lessor: Lessor,
}

struct Cluster {
    now_us: u64,
    nodes: BTreeMap<String, Node>,
    tickets: BTreeMap<String, (String, Ticket)>,
    decisions: Vec<(String, Decision)>,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            now_us: 0,
            nodes: BTreeMap::new(),
            tickets: BTreeMap::new(),
            decisions: Vec::new(),
        };
        for name in ["n1", "n2"] {
            cluster.nodes.insert(name.to_owned(), Node::new());
        }
        cluster
    }

    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let id = |at: usize| LeaseId(words[at].parse().expect("a lease"));
        let number = |at: usize| words[at].parse::<i64>().expect("a number");
        let mut out = String::new();
        match words[0] {
            "advance" => self.now_us += micros(words[1]),
            "ttl_of_request" => {
                let granted = lease_ttl_s(number(1), micros(words[2]));
                writeln!(out, "granted {granted} s").unwrap();
            }
            "grant" => self.each(|leases| match leases.grant(id(1), number(2)) {
                Ok(ttl_s) => out = format!("granted {ttl_s} s\n"),
                Err(error) => out = format!("{error}\n"),
            }),
            "revoke" => self.each(|leases| out = revoke(leases, id(1))),
            "attach" => self.each(|leases| {
                if let Err(error) = leases.attach(&key(words[1]), id(2)) {
                    out = format!("{error}\n");
                }
            }),
            "detach" => self.each(|leases| {
                leases.detach(words[1].as_bytes());
            }),
            "keys" => {
                let leases = &self.nodes["n1"].leases;
                writeln!(out, "keys [{}]", names(leases.keys_of(id(1)))).unwrap();
            }
            "leases" => {
                let node = &self.nodes[words[1]];
                let ids = node.lessor.by_expiry();
                let ids =
                    ids.unwrap_or_else(|| node.leases.iter().map(quorate_kv::Lease::id).collect());
                let ids: Vec<String> = ids.iter().map(|id| id.0.to_string()).collect();
                writeln!(out, "leases {}", ids.join(" ")).unwrap();
            }
            "promote" => {
                let term = LeaderTerm(words[2].parse().expect("a term"));
                let (now_us, node) = self.node(words[1]);
                if !node.lessor.promote(now_us, term, &mut node.leases) {
                    writeln!(out, "nothing new").unwrap();
                }
            }
            "demote" => {
                let (_, node) = self.node(words[1]);
                node.lessor.demote(&mut node.leases);
            }
            "arrive" => {
                let (now_us, node) = self.node(words[1]);
                match node.lessor.arrived(now_us, id(2)) {
                    Ok(ticket) => {
                        let node = words[1].to_owned();
                        self.tickets.insert(words[3].to_owned(), (node, ticket));
                    }
                    Err(error) => writeln!(out, "{error}").unwrap(),
                }
            }
            "confirm" => {
                let (node, ticket) = self.tickets[words[1]].clone();
                let (now_us, node) = self.node(&node);
                let renewal = node.lessor.confirmed(now_us, ticket);
                writeln!(out, "{}", renewal_text(words[1], renewal)).unwrap();
            }
            "keepalive" => {
                let (now_us, node) = self.node(words[1]);
                match node.lessor.arrived(now_us, id(2)) {
                    Ok(ticket) => {
                        let renewal = node.lessor.confirmed(now_us, ticket);
                        writeln!(out, "{}", renewal_text(words[2], renewal)).unwrap();
                        let name = words.get(3).copied().unwrap_or(words[2]);
                        self.tickets.insert(name.to_owned(), (words[1].to_owned(), ticket));
                    }
                    Err(error) => writeln!(out, "{error}").unwrap(),
                }
            }
            "ttl" => {
                let (now_us, node) = self.node(words[1]);
                let ticket = node.lessor.arrived(now_us, id(2));
                let left = ticket.and_then(|ticket| node.lessor.time_to_live(now_us, ticket));
                out = match left {
                    Ok(Some(left)) => format!("{} of {} s\n", left.remaining_s, left.granted_s),
                    Ok(None) => "no such lease\n".to_owned(),
                    Err(error) => format!("{error}\n"),
                };
            }
            "ttl_of" => {
                let (node, ticket) = self.tickets[words[1]].clone();
                let (now_us, node) = self.node(&node);
                match node.lessor.time_to_live(now_us, ticket) {
                    Ok(left) => writeln!(out, "{left:?}").unwrap(),
                    Err(error) => writeln!(out, "{error}").unwrap(),
                }
            }
            "decide" => {
                let (now_us, node) = self.node(words[1]);
                for decision in node.lessor.decide(now_us) {
                    let name = format!("d{}", self.decisions.len() + 1);
                    let term = decision.term.0;
                    writeln!(out, "{name} term={term} {}", command_text(&decision.command))
                        .unwrap();
                    self.decisions.push((words[1].to_owned(), decision));
                }
            }
            "wake" => match self.nodes[words[1]].lessor.wake_us() {
                Some(at_us) => {
                    let seconds = at_us as f64 / 1e6;
                    writeln!(out, "at {seconds} s, now is {} s", self.now_us as f64 / 1e6).unwrap();
                }
                None => writeln!(out, "never").unwrap(),
            },
            "apply" => {
                let command = self.decision(words[1]).1.command.clone();
                self.each(|leases| out = apply(leases, &command));
            }
            "refuse" => {
                let (node, decision) = self.decision(words[1]).clone();
                let (now_us, node) = self.node(&node);
                node.lessor.refused(now_us, &decision);
            }
            // A restart of everything: the tables come back from their records.
            "restart" => {
                for node in self.nodes.values_mut() {
                    let mut leases = Leases::new();
                    leases.restore_grants(node.leases.grants());
                    for (id, record) in node.leases.records() {
                        leases.restore(id, &record).unwrap();
                    }
                    *node = Node { leases, ..Node::new() };
                }
            }
            other => panic!("unknown command {other}"),
        }
        for (name, node) in &mut self.nodes {
            for (ticket, renewal) in node.lessor.take_outcomes() {
                let asked = self.tickets.iter().find(|(_, (n, t))| n == name && *t == ticket);
                let asked = asked.map_or("?", |(ticket, _)| ticket);
                writeln!(out, "{} (waited)", renewal_text(asked, renewal)).unwrap();
            }
        }
        out
    }

    fn node(&mut self, name: &str) -> (u64, &mut Node) {
        (self.now_us, self.nodes.get_mut(name).expect("a node"))
    }

    fn decision(&self, name: &str) -> &(String, Decision) {
        let number: usize = name.trim_start_matches('d').parse().expect("a decision");
        &self.decisions[number - 1]
    }

    /// Something is applied on every node.
    fn each(&mut self, mut change: impl FnMut(&mut Leases)) {
        for node in self.nodes.values_mut() {
            change(&mut node.leases);
            node.lessor.follow(self.now_us, &mut node.leases);
        }
    }
}

impl Node {
    fn new() -> Self {
        let lessor = Lessor::new(LessorConfig { extension_us: 1_000_000, ..Default::default() });
        Self { leases: Leases::new(), lessor }
    }
}

fn key(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn micros(text: &str) -> u64 {
    match text.strip_suffix("ms") {
        Some(millis) => millis.parse::<u64>().expect("a time") * 1000,
        None => text.trim_end_matches('s').parse::<u64>().expect("a time") * 1_000_000,
    }
}

fn names<'a>(keys: impl Iterator<Item = &'a Bytes>) -> String {
    let names: Vec<_> = keys.map(|key| String::from_utf8_lossy(key).into_owned()).collect();
    names.join(" ")
}

fn revoke(leases: &mut Leases, id: LeaseId) -> String {
    match leases.revoke(id) {
        Ok(keys) => format!("lease {} ends, deletes [{}]\n", id.0, names(keys.iter())),
        Err(error) => format!("{error}\n"),
    }
}

fn apply(leases: &mut Leases, command: &Command) -> String {
    match command {
        Command::LeaseExpire(ids) => {
            let known: Vec<_> = ids.iter().filter(|lease| leases.has(**lease)).collect();
            known.into_iter().map(|lease| revoke(leases, lease.id)).collect()
        }
        Command::LeaseCheckpoint(checkpoints) => {
            for checkpoint in checkpoints {
                leases.checkpoint(*checkpoint);
            }
            String::new()
        }
        other => panic!("not a decision: {other:?}"),
    }
}

fn command_text(command: &Command) -> String {
    match command {
        Command::LeaseExpire(ids) => {
            let ids: Vec<String> = ids.iter().map(|lease| lease.id.0.to_string()).collect();
            format!("expire {}", ids.join(" "))
        }
        Command::LeaseCheckpoint(checkpoints) => {
            let text = |LeaseCheckpoint { lease, remaining_s }: &LeaseCheckpoint| match remaining_s
            {
                0 => format!("{} cleared", lease.id.0),
                _ => format!("{} has {remaining_s} s", lease.id.0),
            };
            let texts: Vec<String> = checkpoints.iter().map(text).collect();
            format!("checkpoint {}", texts.join(", "))
        }
        other => panic!("not a decision: {other:?}"),
    }
}

fn renewal_text(who: &str, renewal: Renewal) -> String {
    match renewal {
        Renewal::Renewed(ttl_s) => format!("{who}: renewed, {ttl_s} s"),
        Renewal::NotFound => format!("{who}: not found, 0 s"),
        Renewal::NotPrimary => format!("{who}: not a primary lessor"),
        Renewal::Waiting => format!("{who}: waits"),
        Renewal::Again => format!("{who}: to be confirmed again"),
        Renewal::Busy => format!("{who}: busy"),
    }
}
