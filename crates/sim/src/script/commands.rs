//! The commands. `crates/raft/scripts/README.md` describes them for those who write scripts.

use bytes::Bytes;
use quorate_node::{Event, Request};
use quorate_raft::{
    Change, ChangeStep, HardState, Incarnation, Index, LogId, NodeId, Payload, ReadMode, Seq, Term,
};

use super::arguments::{Fault, Words, duration, log_id, node, number};
use super::session::Session;
use super::{inject, pictures, setup};
use crate::cluster::Cluster;
use crate::network::Network;
use crate::state_machine::KvQuery;
use crate::storage::{Crash, LogImage};

impl Session {
    /// Executes one command; gives the lines that it prints.
    pub(super) fn execute(&mut self, command: &Words) -> Result<Vec<String>, Fault> {
        let mut words = command.clone();
        let quiet = words.accept("quiet");
        let name = words.next("a command")?;
        self.command(&name, &mut words)?;
        words.end_of_command()?;
        let output = std::mem::take(&mut self.output);
        Ok(if quiet { Vec::new() } else { output })
    }

    fn command(&mut self, name: &str, words: &mut Words) -> Result<(), Fault> {
        match name {
            "cluster" => {
                let cluster = setup::cluster(words)?;
                self.begin(cluster);
                Ok(())
            }
            "log" => self.log(words),
            "new" => self.each(words, Cluster::add_host),
            "set" => self.set(words),

            "timeout" => self.timeout(words.node()?),
            "wake" => self.wake(words),
            "advance" => {
                let us = duration(&words.next("a duration")?)?;
                let nodes = words.nodes()?;
                self.with_cluster(|cluster| cluster.advance(us, &nodes))
            }
            "run" => self.run_by_itself(words),

            "campaign" => {
                self.timeout(words.node()?)?;
                self.settle()
            }
            "elect" => self.elect(words),
            "force" => {
                let node = words.node()?;
                self.running(node)?;
                self.with_cluster(|cluster| cluster.campaign(node)).map(drop)
            }
            "transfer" => {
                let (node, to) = (words.node()?, words.node()?);
                self.running(node)?;
                self.with_cluster(|cluster| cluster.transfer(node, to)).map(drop)
            }

            "deliver" => self.messages(words, Cluster::deliver),
            "drop" => self.messages(words, Cluster::lose),
            "duplicate" => self.messages(words, Cluster::duplicate),
            "reorder" => self.reorder(words),
            "settle" => self.settle(),
            "messages" => {
                let lines = pictures::messages(self.cluster()?);
                self.output.extend(lines);
                Ok(())
            }
            "inject" => {
                let message = inject::message(self, words)?;
                let cluster = self.cluster()?;
                cluster.inject(message);
                let last = cluster.in_flight().last().map(|message| message.id);
                self.with_cluster(|cluster| last.map(|id| cluster.deliver(id))).map(drop)
            }
            "partition" => self.partition(words),
            "isolate" => {
                let alone = words.nodes()?;
                self.links(|network, nodes| {
                    let pairs = alone.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b)));
                    for (a, b) in pairs.filter(|(a, b)| a != b) {
                        network.cut(a, b);
                        network.cut(b, a);
                    }
                })
            }
            "cut" => self.cut(words, Network::cut),
            "restore" => self.cut(words, Network::restore),
            "heal" => self.links(|network, _| network.heal()),

            "auto" => self.auto(words),
            "hold" => self.hold(words, true),
            "release" => self.hold(words, false),
            "persisted" => self.persisted(words),
            "stored" => {
                let node = words.node()?;
                let word = words.next("the number of a write")?;
                let seq = Seq(number(word.strip_prefix('#').unwrap_or(&word))?);
                self.running(node)?;
                self.with_cluster(|cluster| cluster.tell(node, Event::Stored(seq)))
            }
            "applied" => {
                let node = words.node()?;
                let worked = self.with_cluster(|cluster| cluster.work_machine(node))?;
                if worked { Ok(()) } else { Err(format!("n{node} has nothing to apply")) }
            }
            "fetch" => self.fetch(words),
            "flush" => self.each(words, Cluster::flush),
            "compact" => {
                let node = words.node()?;
                let up_to = Index(words.number("an index")?);
                self.running(node)?;
                self.with_cluster(|cluster| {
                    cluster.flush(node);
                    cluster.compact(node, up_to);
                })
            }
            "corrupt" => self.corrupt(words),
            "repair" => self.each(words, |cluster, node| cluster.set_unreadable(node, None)),

            "propose" => self.propose(words),
            "read" => self.read(words),
            "change" => {
                let node = words.node()?;
                let change = change(words)?;
                self.running(node)?;
                self.with_cluster(|cluster| cluster.change(node, change)).map(drop)
            }

            "kill" => self.each(words, |cluster, node| cluster.crash(node, Crash::Kill)),
            "power-cut" => self.each(words, |cluster, node| cluster.crash(node, Crash::PowerCut)),
            "crash-after" => self.crash_after(words),
            "restart" => self.each(words, |cluster, node| {
                if cluster.host(node).is_some_and(crate::cluster::Host::is_up) {
                    cluster.crash(node, Crash::Kill);
                }
                cluster.restart(node);
            }),
            "pause" => self.each(words, Cluster::pause),
            "resume" => self.each(words, Cluster::resume),
            "wipe" => self.each(words, Cluster::wipe),
            "drift" => {
                let node = words.node()?;
                let ppm = words.next("parts per million")?;
                let ppm = ppm.parse().map_err(|_| format!("`{ppm}` is no number"))?;
                self.with_cluster(|cluster| cluster.set_drift(node, ppm))
            }
            "peer-closed" => {
                let (at, peer) = (words.node()?, words.node()?);
                self.host(peer)?;
                self.running(at)?;
                let incarnation = words.option("incarnation").map(|word| number(&word));
                let incarnation = incarnation.transpose()?.map(Incarnation);
                self.with_cluster(|cluster| match incarnation {
                    Some(incarnation) => cluster.incarnation_closed(at, peer, incarnation),
                    None => cluster.peer_closed(at, peer),
                })
            }

            "status" => {
                let nodes = words.nodes()?;
                let lines = pictures::status(self.cluster()?, &nodes);
                self.output.extend(lines);
                Ok(())
            }
            "logs" => {
                let lines = pictures::logs(self.cluster()?);
                self.output.extend(lines);
                Ok(())
            }
            "check" => {
                let verdict = match &self.violation {
                    Some(violation) => violation.to_string(),
                    None => "ok".to_owned(),
                };
                self.output.extend(verdict.lines().map(str::to_owned));
                Ok(())
            }
            _ => Err(format!("unknown command `{name}`")),
        }
    }

    /// Does something to each of the nodes that follow.
    fn each(
        &mut self,
        words: &mut Words,
        mut work: impl FnMut(&mut Cluster, NodeId),
    ) -> Result<(), Fault> {
        let nodes = words.nodes()?;
        if nodes.is_empty() {
            return Err("a node is missing".to_owned());
        }
        for node in nodes {
            self.with_cluster(|cluster| work(cluster, node))?;
        }
        Ok(())
    }

    // ---- setup ----

    /// `log n1 1 1 4 term=5 vote=n2 commit=2`: a log by terms.
    fn log(&mut self, words: &mut Words) -> Result<(), Fault> {
        let node_id = words.node()?;
        let start = words.option("start").map(|word| log_id(&word)).transpose()?;
        let vote = words.option("vote").map(|word| node(&word)).transpose()?;
        let term = words.option("term").map(|word| number(&word)).transpose()?;
        let commit = words.option("commit").map(|word| number(&word)).transpose()?;
        let mut log = LogImage {
            start: self.host(node_id)?.storage().durable().start.clone(),
            ..LogImage::default()
        };
        log.start.id = start.unwrap_or(LogId::ZERO);
        while !words.is_empty() {
            let term = Term(words.number("a term")?);
            if term < log.last().term {
                return Err("terms in a log never decrease".to_owned());
            }
            let command = Payload::Command(Bytes::from_static(b"x"));
            let entry = quorate_raft::Entry::new(log.last().index.next(), term, command);
            log.entries.push_back(entry);
        }
        log.hard_state = HardState {
            term: term.map_or(log.last().term, Term),
            voted_for: vote,
            commit: Index(commit.unwrap_or(log.start.id.index.0)),
            seen: Vec::new(),
        };
        if log.hard_state.term < log.last().term {
            return Err("a node's term is not below that of its entries".to_owned());
        }
        self.set_log(node_id, log)
    }

    /// `set n1 pre_vote=off`: good from the next start on.
    fn set(&mut self, words: &mut Words) -> Result<(), Fault> {
        let node = words.node()?;
        self.host(node)?;
        for (key, value) in words.options() {
            let Some(config) = self.cluster()?.config_mut(node) else { continue };
            if !setup::config(config, &key, &value)? {
                return Err(format!("unknown setting `{key}`"));
            }
        }
        Ok(())
    }

    // ---- time ----

    fn wake(&mut self, words: &mut Words) -> Result<(), Fault> {
        let nodes = words.nodes()?;
        if nodes.is_empty() {
            return Err("a node is missing".to_owned());
        }
        for node in nodes {
            self.running(node)?;
            if !self.with_cluster(|cluster| cluster.wake(node))? {
                return Err(format!("n{node} waits for nothing"));
            }
        }
        Ok(())
    }

    fn run_by_itself(&mut self, words: &mut Words) -> Result<(), Fault> {
        let us = duration(&words.next("a duration")?)?;
        let mut seen = Vec::new();
        self.with_cluster(|cluster| {
            cluster.run_automatically(us, |cluster| {
                seen.push((cluster.steps(), cluster.take_observations()));
            });
        })?;
        for (step, observations) in seen {
            self.tell(step, &observations);
        }
        Ok(())
    }

    fn elect(&mut self, words: &mut Words) -> Result<(), Fault> {
        let node = words.node()?;
        self.quietly(|session| {
            session.timeout(node)?;
            session.settle()
        })?;
        let brief = self.running(node)?.brief().cloned();
        let brief = brief.ok_or_else(|| format!("n{node} is down"))?;
        self.print(format!("n{node} {}@{}", brief.role, brief.term));
        if brief.role == quorate_raft::RoleName::Leader {
            Ok(())
        } else {
            Err(format!("n{node} was not elected; `campaign n{node}` shows why"))
        }
    }

    // ---- messages ----

    /// Does something to messages: `all`, or `n1 -> n2 [Kind] [first|last]`.
    fn messages(
        &mut self,
        words: &mut Words,
        mut work: impl FnMut(&mut Cluster, u64) -> bool,
    ) -> Result<(), Fault> {
        for id in self.chosen(words)? {
            self.with_cluster(|cluster| work(cluster, id))?;
        }
        Ok(())
    }

    fn chosen(&mut self, words: &mut Words) -> Result<Vec<u64>, Fault> {
        let (from, to) = if words.accept("all") { (None, None) } else { words.link()? };
        let mut kind = None;
        let mut place = None;
        while let Some(word) = words.optional() {
            match word.as_str() {
                "first" | "last" => place = Some(word),
                _ => kind = Some(word),
            }
        }
        let matching = self.cluster()?.in_flight().iter().filter(|in_flight| {
            let message = &in_flight.message;
            from.is_none_or(|from| from == message.from())
                && to.is_none_or(|to| to == message.to())
                && kind.as_ref().is_none_or(|kind| kind == message.name())
        });
        let mut ids: Vec<u64> = matching.map(|in_flight| in_flight.id).collect();
        match place.as_deref() {
            Some("first") => ids.truncate(1),
            Some(_) => ids = ids.pop().into_iter().collect(),
            None => {}
        }
        if ids.is_empty() {
            return Err("no such message is under way; `messages` lists them".to_owned());
        }
        Ok(ids)
    }

    /// Turns the order of messages around.
    fn reorder(&mut self, words: &mut Words) -> Result<(), Fault> {
        let mut ids = self.chosen(words)?;
        ids.reverse();
        for id in ids {
            let cluster = self.cluster()?;
            cluster.postpone(id);
        }
        Ok(())
    }

    fn links(&mut self, work: impl FnOnce(&mut Network, &[NodeId])) -> Result<(), Fault> {
        self.with_cluster(|cluster| {
            let nodes = cluster.nodes();
            work(&mut cluster.network, &nodes);
        })
    }

    fn partition(&mut self, words: &mut Words) -> Result<(), Fault> {
        let mut groups = vec![words.nodes()?];
        while words.accept("|") {
            groups.push(words.nodes()?);
        }
        self.links(|network, nodes| network.partition(nodes, &groups))
    }

    /// `n1 -> n2`, or both ways: `n1 -- n2`.
    fn cut(
        &mut self,
        words: &mut Words,
        work: impl Fn(&mut Network, NodeId, NodeId),
    ) -> Result<(), Fault> {
        let from = words.node()?;
        let both = words.accept("--");
        if !both && !words.accept("->") {
            return Err("`->` or `--` is missing between two nodes".to_owned());
        }
        let to = words.node()?;
        self.links(|network, _| {
            work(network, from, to);
            if both {
                work(network, to, from);
            }
        })
    }

    // ---- disks and state machines ----

    /// `auto persist off`: what happens by itself on all hosts.
    fn auto(&mut self, words: &mut Words) -> Result<(), Fault> {
        let what = words.next("persist, apply or fetch")?;
        let on = super::arguments::on_off(&words.next("on or off")?)?;
        let nodes = self.cluster()?.nodes();
        self.hold_on(&what, &nodes, !on)
    }

    fn hold(&mut self, words: &mut Words, held: bool) -> Result<(), Fault> {
        let what = words.next("disk, apply or fetch")?;
        let nodes = words.nodes()?;
        if nodes.is_empty() {
            return Err("a node is missing".to_owned());
        }
        self.hold_on(&what, &nodes, held)
    }

    fn hold_on(&mut self, what: &str, nodes: &[NodeId], held: bool) -> Result<(), Fault> {
        for node in nodes.iter().copied() {
            self.host(node)?;
            match what {
                "disk" | "persist" => {
                    if held {
                        self.held_disks.insert(node);
                    }
                    self.with_cluster(|cluster| cluster.hold_disk(node, held))?;
                    if !held {
                        self.held_disks.remove(&node);
                    }
                }
                "apply" => {
                    if held {
                        self.held_machines.insert(node);
                    }
                    self.with_cluster(|cluster| cluster.hold_machine(node, held))?;
                    if !held {
                        self.held_machines.remove(&node);
                    }
                }
                "fetch" => self.with_cluster(|cluster| cluster.hold_fetches(node, held))?,
                _ => return Err(format!("`{what}` is none of disk, apply, fetch")),
            }
        }
        Ok(())
    }

    /// `persisted n1 [#3]`.
    fn persisted(&mut self, words: &mut Words) -> Result<(), Fault> {
        let node = words.node()?;
        let up_to = match words.optional() {
            Some(word) => Some(Seq(number(word.strip_prefix('#').unwrap_or(&word))?)),
            None => None,
        };
        if self.with_cluster(|cluster| cluster.sync_disk(node, up_to))? {
            Ok(())
        } else {
            Err(format!("n{node} has nothing to make durable; `hold disk n{node}` holds it back"))
        }
    }

    /// `fetch n3 ok|fail`.
    fn fetch(&mut self, words: &mut Words) -> Result<(), Fault> {
        let node = words.node()?;
        let fails = match words.next("ok or fail")?.as_str() {
            "ok" => false,
            "fail" => true,
            word => return Err(format!("`{word}` is neither ok nor fail")),
        };
        if self.with_cluster(|cluster| cluster.end_fetch(node, fails))? {
            Ok(())
        } else {
            Err(format!("n{node} fetches nothing; `hold fetch n{node}` makes it wait"))
        }
    }

    /// `corrupt n1 3..5`.
    fn corrupt(&mut self, words: &mut Words) -> Result<(), Fault> {
        let node = words.node()?;
        let range = words.next("a range of indexes")?;
        let (first, last) = range.split_once("..").unwrap_or((&range, &range));
        let range = Index(number(first)?)..=Index(number(last)?);
        self.with_cluster(|cluster| cluster.set_unreadable(node, Some(range)))
    }

    /// `crash-after n1 2 kill`: in its next step.
    fn crash_after(&mut self, words: &mut Words) -> Result<(), Fault> {
        let node = words.node()?;
        let actions = words.number("a number of actions")?;
        let crash = match words.optional().as_deref() {
            None | Some("kill") => Crash::Kill,
            Some("power-cut") => Crash::PowerCut,
            Some(word) => return Err(format!("`{word}` is neither kill nor power-cut")),
        };
        let actions = usize::try_from(actions).unwrap_or(usize::MAX);
        self.running(node)?;
        self.with_cluster(|cluster| cluster.crash_in_step(node, actions, crash))
    }

    // ---- clients ----

    /// `propose n1 x "put 1 2" in_term=3`: several are one batch.
    fn propose(&mut self, words: &mut Words) -> Result<(), Fault> {
        let node = words.node()?;
        let in_term = words.option("in_term").map(|word| number(&word)).transpose()?.map(Term);
        let bytes = words.option("bytes").map(|word| number(&word)).transpose()?;
        let mut requests = Vec::new();
        if let Some(bytes) = bytes {
            let length = usize::try_from(bytes).map_err(|_| "too many bytes".to_owned())?;
            let command = Bytes::from(vec![b'.'; length]);
            requests.push(Request::Propose { command, in_term });
        }
        while let Some(text) = words.optional() {
            requests.push(Request::Propose { command: Bytes::from(text), in_term });
        }
        if requests.is_empty() {
            return Err("a command is missing".to_owned());
        }
        self.running(node)?;
        self.with_cluster(|cluster| cluster.requests(node, requests)).map(drop)
    }

    /// `read n1 [lease|local] [key]`.
    fn read(&mut self, words: &mut Words) -> Result<(), Fault> {
        let node = words.node()?;
        let lease = words.accept("lease");
        let local = words.accept("local");
        let query = match words.optional() {
            Some(key) => KvQuery { key: number(&key)? }.to_bytes(),
            None => Bytes::new(),
        };
        self.running(node)?;
        let mode = if lease { ReadMode::Lease } else { ReadMode::ReadIndex };
        self.with_cluster(|cluster| {
            if local { cluster.local_read(node, query) } else { cluster.read(node, mode, query) }
        })
        .map(drop)
    }
}

/// The steps of a change, in words.
fn change(words: &mut Words) -> Result<Change, Fault> {
    let mut steps = Vec::new();
    while let Some(word) = words.optional() {
        if word == "joint" {
            continue;
        }
        if let Some((key, value)) = word.split_once('=') {
            steps.push(match key {
                "lease" if value == "off" => ChangeStep::SetLease { lease_us: None },
                "lease" => ChangeStep::SetLease { lease_us: Some(duration(value)?) },
                "features" => {
                    let level = u32::try_from(number(value)?)
                        .map_err(|_| format!("`{value}` is too large"))?;
                    ChangeStep::SetFeatureLevel { level }
                }
                _ => return Err(format!("unknown step `{word}`")),
            });
            continue;
        }
        if let Some(added) = word.strip_prefix('+') {
            steps.push(ChangeStep::Promote { node: node(added)? });
            continue;
        }
        if let Some(removed) = word.strip_prefix('-') {
            steps.push(ChangeStep::Remove { node: node(removed)? });
            continue;
        }
        let node = words.node()?;
        let context = Bytes::new();
        steps.push(match word.as_str() {
            "add-voter" => ChangeStep::AddVoter { node, context, replaces: None },
            "add-learner" => ChangeStep::AddLearner { node, context },
            "promote" => ChangeStep::Promote { node },
            "demote" => ChangeStep::Demote { node },
            "remove" => ChangeStep::Remove { node },
            "replace" => {
                let by = words.node()?;
                ChangeStep::AddVoter { node: by, context, replaces: Some(node) }
            }
            "context" => {
                let context = Bytes::from(words.next("the description")?);
                ChangeStep::SetContext { node, context }
            }
            _ => return Err(format!("unknown step `{word}`")),
        });
    }
    Ok(Change { steps })
}
