//! A guided tour: five servers through an election, a crash, a partition and a change of the
//! membership, with a trace that explains itself and a verdict at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use quorate_node::{ProposeFailure, Reply};
use quorate_raft::{Change, ChangeStep, NodeId, ReadMode, RequestId, RoleName, Time};

use crate::checkers::{Checkers, Violation};
use crate::cluster::{Cluster, Observation, Observed};
use crate::linearizability::{
    ClientId, History, KeyValue, KeyValueAction, KeyValueOp, KeyValueReply, Limits, OpId, check,
};
use crate::options::RunOptions;
use crate::state_machine::{KvCommand, KvQuery, KvReply};
use crate::storage::Crash;
use crate::trace;

/// What the tour is made of: the election time-outs of the paper, a local network, a good disk, and
/// no word from the kernel when a process ends, so that elections are seen as the paper tells them.
const OPTIONS: &str = "voters=5,election_min_us=150000,election_max_us=300000,heartbeat_us=50000,\
                       delay_min_us=500,delay_max_us=1500,sync_min_us=1000,sync_max_us=2000,\
                       apply_us=100,peer_closed=0,forward=0,random_crash_loss=0,recovery_us=20000";
const SEED: u64 = 16;

/// Longest wait for anything, in virtual time.
const PATIENCE_US: u64 = 5_000_000;

/// Gives the tour. Returns whether everything went as it must.
///
/// # Errors
///
/// When `out` cannot be written to.
pub fn run(out: &mut dyn Write) -> io::Result<bool> {
    let options: RunOptions = OPTIONS.parse().expect("the tour's options exist");
    let mut tour = Tour {
        out,
        cluster: Cluster::new(options.cluster(SEED)),
        checkers: Checkers::new(),
        history: History::new(),
        open: BTreeMap::new(),
        broken: None,
        error: None,
        steps_shown: 0,
    };
    tour.take();
    tour.election();
    tour.replication();
    let old = tour.crash();
    tour.restart(old);
    tour.partition();
    tour.membership();
    tour.verdict()
}

struct Tour<'a> {
    out: &'a mut dyn Write,
    cluster: Cluster,
    checkers: Checkers,
    history: History<KeyValueOp<u64, u64>, KeyValueReply<u64>>,
    open: BTreeMap<RequestId, (OpId, String)>,
    broken: Option<Violation>,
    /// Why nothing can be written any more.
    error: Option<io::Error>,
    steps_shown: u64,
}

/// The people at the keyboard.
#[derive(Clone, Copy)]
enum Client {
    Ann,
    Ben,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ann => "Ann",
            Self::Ben => "Ben",
        })
    }
}

impl Tour<'_> {
    // ---- the chapters ----

    fn election(&mut self) {
        self.title("1. Election");
        self.say(
            "Five servers start. All are followers in term 0 and wait for a leader, each for a \
             random time between 150 and 300 ms (§5.2). The first whose patience ends asks \
             whether it could win (a pre-vote, thesis 9.6), then takes the next term, writes its \
             vote for itself to disk, and asks for the others' votes. Three of five elect it. Its \
             first act is an entry of its own term: only by committing that does it learn what is \
             committed (§5.4.2, §8).",
        );
        self.until("a leader that has committed its first entry", |tour| {
            tour.leader().is_some() && tour.all_have_committed(1)
        });
    }

    fn replication(&mut self) {
        self.title("2. Commands");
        let Some(leader) = self.leader() else { return };
        self.say(
            "Ann writes to the leader. The entry goes to the leader's disk and to the followers \
             at the same time; each acknowledges once it is on its own disk. With three disks the \
             entry is committed: no leader without it can be elected any more (§5.3, §5.4). Ann \
             has her answer one round trip and one disk write after she asked.",
        );
        self.put(Client::Ann, leader, 1, 10);
        self.until("Ann's answer everywhere", |tour| tour.open.is_empty() && tour.is_even());
        self.say(
            "Ben reads at a follower. It asks the leader for the commit index; the leader makes \
             sure with a round of heartbeats that nobody has deposed it, and only then answers \
             (thesis 6.4). So the read is not stale, although the leader's data was not asked.",
        );
        let Some(follower) = self.some_follower() else { return };
        self.read(Client::Ben, follower, 1);
        self.until("Ben's answer", |tour| tour.open.is_empty());
    }

    fn crash(&mut self) -> NodeId {
        self.title("3. The leader loses power");
        let Some(old) = self.leader() else { return NodeId(0) };
        self.say(
            "Ben asks for a write, and the leader dies before anybody else has the entry. Nobody \
             can tell Ben what became of it: he has to treat the outcome as unknown.",
        );
        self.put(Client::Ben, old, 2, 20);
        self.cluster.network.partition(&self.cluster.nodes(), &[vec![old]]);
        self.until("the entry on the old leader's disk", |tour| {
            tour.durable(old) > tour.checkers.committed().0
        });
        self.cluster.crash(old, Crash::PowerCut);
        self.cluster.network.heal();
        self.take();
        self.say("The others hear no more heartbeats, and elect another.");
        self.until("a new leader", |tour| {
            tour.leader().is_some_and(|leader| leader != old) && tour.is_even()
        });
        if let Some(leader) = self.leader() {
            self.put(Client::Ann, leader, 2, 21);
        }
        self.until("Ann's answer", |tour| tour.open.is_empty() && tour.is_even());
        old
    }

    fn restart(&mut self, old: NodeId) {
        self.say(&format!(
            "n{old} comes back. Its disk still holds Ben's entry, which was never committed. The \
             new leader's entries do not fit behind it; it says where its log leaves the \
             leader's, and replaces what conflicts (§5.3). Ben's write will never take effect.",
        ));
        self.cluster.restart(old);
        self.take();
        self.until("equal logs", |tour| tour.role(old).is_some() && tour.is_even());
    }

    fn partition(&mut self) {
        self.title("4. The network splits, with clients on both sides");
        let Some(old) = self.leader() else { return };
        let nodes = self.cluster.nodes();
        let companion = nodes.iter().copied().find(|node| *node != old).unwrap_or(old);
        let (few, many): (Vec<NodeId>, Vec<NodeId>) =
            nodes.iter().partition(|node| **node == old || **node == companion);
        self.say(&format!(
            "n{old}, the leader, and n{companion} are cut off from the other three. Ann is on \
             their side: she writes, and reads. The leader appends her command, but two disks of \
             five commit nothing. It cannot confirm that it still leads, so it does not answer \
             her read either: a lie would be easy here. After an election time-out without a \
             quorum it steps down (thesis 6.2).",
        ));
        self.cluster.network.partition(&nodes, &[few, many]);
        self.put(Client::Ann, old, 1, 11);
        self.read(Client::Ann, old, 1);
        self.say("Ben is on the other side, where three of five elect a new leader and go on.");
        self.until("a leader of the many", |tour| {
            tour.leader().is_some_and(|leader| leader != old && leader != companion)
                && tour.role(old) != Some(RoleName::Leader)
        });
        if let Some(leader) = self.leader() {
            self.put(Client::Ben, leader, 1, 12);
        }
        self.until("Ben's answer", |tour| tour.committed_is(1, 12));
        self.say(
            "The network heals. The two learn of the higher term, drop Ann's entry, which was \
             never committed, and take over what they have missed. Ann reads again and sees \
             Ben's value.",
        );
        self.cluster.network.heal();
        self.until("equal logs", Self::is_even);
        self.read(Client::Ann, old, 1);
        self.until("Ann's answer", |tour| tour.open.is_empty());
    }

    fn membership(&mut self) {
        self.title("5. A server comes, another goes");
        let Some(leader) = self.leader() else { return };
        let new = NodeId(6);
        self.say(
            "n6 is started, knows nothing and belongs to nothing. The leader is asked to make it \
             a voter. It enters as a learner (^6): it receives the log, but does not count, so a \
             server that is slow or absent cannot stall the cluster (thesis 4.2.1). When it has \
             caught up, the leader makes it a voter in a second entry. A configuration is in \
             force as soon as it is appended (§6).",
        );
        self.cluster.add_host(new);
        self.take();
        let add = ChangeStep::AddVoter { node: new, context: bytes::Bytes::new(), replaces: None };
        self.change(leader, add);
        self.until("n6 as a voter", |tour| tour.is_voter(new) && tour.is_even());
        self.say(&format!(
            "n{leader}, the leader, is removed. It leads until the entry that removes it has \
             committed by a majority of the others, without counting itself, and then steps \
             down (thesis 4.2.2). It hands over as it goes, so nobody has to wait for a \
             time-out.",
        ));
        self.change(leader, ChangeStep::Remove { node: leader });
        self.until("a leader that is a member", |tour| {
            !tour.is_member(leader)
                && tour.leader().is_some_and(|next| next != leader)
                && tour.is_even()
        });
        if let Some(leader) = self.leader() {
            self.read(Client::Ben, leader, 2);
        }
        self.until("Ben's answer", |tour| tour.open.is_empty());
    }

    fn verdict(mut self) -> io::Result<bool> {
        self.title("6. The verdict");
        let verdict = check(&KeyValue::new(), &self.history, Limits::default());
        let recorded = self.history.operations().len();
        self.say(&format!(
            "After each of {} events the checkers compared all logs, disks, votes and commit \
             indexes with the properties of the paper's Figure 3 and with what they rest on. {} \
             leaders were elected, {} entries and {} configurations committed.",
            self.cluster.steps(),
            self.checkers.elections(),
            self.checkers.committed(),
            self.checkers.memberships(),
        ));
        let safe = match &self.broken {
            None => "safety:          all properties hold".to_owned(),
            Some(violation) => format!("safety:          {violation}"),
        };
        self.line(&safe);
        self.line(&format!("linearizability: {recorded} operations, {verdict}"));
        let is_good = self.broken.is_none() && verdict.is_linearizable();
        self.line("");
        self.line("Now for the unfriendly version: quorate-sim run");
        self.error.map_or(Ok(is_good), Err)
    }

    // ---- what people do ----

    fn put(&mut self, client: Client, node: NodeId, key: u64, value: u64) {
        let action = KeyValueAction::Put(value);
        let op = self.history.invoke(id(client), KeyValueOp { key, action }, self.now());
        let what = format!("{client}: put {key} = {value}");
        self.line(&format!("{:>9}  {what}   (at n{node})", ""));
        let command = KvCommand::Put { key, value }.to_bytes();
        if let Some(request) = self.cluster.propose(node, command) {
            self.open.insert(request, (op, what));
        }
        self.take();
    }

    fn read(&mut self, client: Client, node: NodeId, key: u64) {
        let action = KeyValueAction::Get;
        let op = self.history.invoke(id(client), KeyValueOp { key, action }, self.now());
        let what = format!("{client}: get {key}");
        self.line(&format!("{:>9}  {what}   (at n{node})", ""));
        let query = KvQuery { key }.to_bytes();
        if let Some(request) = self.cluster.read(node, ReadMode::ReadIndex, query) {
            self.checkers.read_began(node, request);
            self.open.insert(request, (op, what));
        }
        self.take();
    }

    fn change(&mut self, node: NodeId, step: ChangeStep) {
        self.cluster.change(node, Change::from(step));
        self.take();
    }

    // ---- time ----

    /// Lets things happen until `holds`.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = self.cluster.now().after(PATIENCE_US);
        while !holds(self) {
            if self.broken.is_some() || self.cluster.now() > end || !self.cluster.step() {
                self.line(&format!("  (waited in vain for {what})"));
                return;
            }
            self.take();
        }
    }

    fn now(&self) -> u64 {
        self.cluster.now().0
    }

    /// Shows and judges what has just happened.
    fn take(&mut self) {
        let observations = self.cluster.take_observations();
        let leader = self.cluster.leader();
        for line in story(&observations, leader) {
            let Time(us) = self.cluster.now();
            self.steps_shown += 1;
            self.line(&format!("{:>6}.{} ms  {line}", us / 1000, us / 100 % 10));
        }
        if let Err(violation) = self.checkers.observe(self.cluster.steps(), &observations) {
            self.broken.get_or_insert(violation);
        }
        for observation in &observations {
            self.answered(observation);
        }
    }

    fn answered(&mut self, observation: &Observation) {
        let (request, answer) = match &observation.what {
            Observed::Answered { id, reply, value } => (id, Some((reply, value))),
            Observed::Abandoned { id } => (id, None),
            _ => return,
        };
        let Some((op, what)) = self.open.remove(request) else { return };
        let now = self.now();
        let text = match answer {
            None => "no answer, outcome unknown".to_owned(),
            Some((Reply::Proposed(Ok(executed)), _)) => {
                let reply = KvReply::from_bytes(&executed.response);
                if let Some(KvReply::Value(before)) = reply {
                    self.history.complete(op, KeyValueReply::Value(before), now);
                }
                format!("done, at index {}", executed.at.index)
            }
            Some((Reply::Proposed(Err(failure)), _)) => {
                if failure.never_happened() {
                    self.history.fail(op);
                }
                match failure {
                    ProposeFailure::OutcomeUnknown { .. } => "outcome unknown".to_owned(),
                    other => other.to_string(),
                }
            }
            Some((Reply::Read(Ok(_)), Some(value))) => match KvReply::from_bytes(value) {
                Some(KvReply::Value(value)) => {
                    self.history.complete(op, KeyValueReply::Value(value), now);
                    value.map_or("nothing there".to_owned(), |value| format!("it is {value}"))
                }
                _ => "an answer that makes no sense".to_owned(),
            },
            Some((Reply::Read(Err(failure)), _)) => {
                self.history.fail(op);
                format!("no answer ({failure})")
            }
            Some((other, _)) => other.to_string(),
        };
        self.line(&format!("{:>9}  {what}: {text}", ""));
    }

    // ---- looking ----

    fn leader(&self) -> Option<NodeId> {
        self.cluster.leader()
    }

    fn role(&self, node: NodeId) -> Option<RoleName> {
        self.cluster.host(node)?.brief().map(|brief| brief.role)
    }

    fn some_follower(&self) -> Option<NodeId> {
        let followers = self.cluster.nodes().into_iter().filter(|node| {
            self.role(*node) == Some(RoleName::Follower) && Some(*node) != self.leader()
        });
        followers.last()
    }

    fn durable(&self, node: NodeId) -> u64 {
        self.cluster.host(node).map_or(0, |host| host.storage().durable().last().index.0)
    }

    fn is_voter(&self, node: NodeId) -> bool {
        self.checkers.committed_membership().is_some_and(|(_, m)| m.is_voter(node))
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.checkers.committed_membership().is_none_or(|(_, m)| m.contains(node))
    }

    fn all_have_committed(&self, index: u64) -> bool {
        let mut briefs = self.cluster.hosts().filter_map(|host| host.brief());
        briefs.all(|brief| brief.commit_index.0 >= index)
    }

    fn committed_is(&self, key: u64, value: u64) -> bool {
        let done = |op: &crate::linearizability::Operation<KeyValueOp<u64, u64>, _>| {
            op.op.key == key
                && op.op.action == KeyValueAction::Put(value)
                && op.returned().is_some()
        };
        self.history.operations().iter().any(done)
    }

    /// Whether all running members have the same log, and have committed and applied all of it.
    fn is_even(&self) -> bool {
        let Some(leader) = self.leader().and_then(|leader| self.cluster.host(leader)) else {
            return false;
        };
        let Some(want) = leader.brief() else { return false };
        let members = want.membership.members().map(|(node, _)| node);
        let hosts = members.filter_map(|node| self.cluster.host(node));
        let mut running = hosts.filter(|host| host.is_up());
        running.all(|host| {
            host.brief().is_some_and(|has| {
                has.last_log == want.last_log
                    && has.commit_index == want.last_log.index
                    && has.applied == want.last_log.index
            })
        })
    }

    // ---- telling ----

    fn title(&mut self, title: &str) {
        self.line(&format!("\n== {title} =="));
    }

    /// A paragraph, wrapped.
    fn say(&mut self, text: &str) {
        let mut line = String::new();
        self.line("");
        for word in text.split_whitespace() {
            if line.chars().count() + word.chars().count() >= 90 {
                self.line(&line.clone());
                line.clear();
            }
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
        self.line(&line);
        self.line("");
    }

    fn line(&mut self, line: &str) {
        if self.error.is_none()
            && let Err(error) = writeln!(self.out, "{line}")
        {
            self.error = Some(error);
        }
    }
}

const fn id(client: Client) -> ClientId {
    ClientId(match client {
        Client::Ann => 1,
        Client::Ben => 2,
    })
}

/// The lines of a trace that belong to the story: no heartbeats, what is applied only where the
/// client hears of it, and a message to many told once.
fn story(observations: &[Observation], leader: Option<NodeId>) -> Vec<String> {
    const NOISE: [&str; 6] =
        ["Heartbeat", " follows ", "CommitNotice", " reads at ", " executed at ", " load #"];
    let mut lines: Vec<String> = Vec::new();
    let at_leader = observations.first().is_some_and(|first| Some(first.node) == leader);
    for line in trace::lines(observations, |_| trace::Detail::default()) {
        let line = without_incarnations(line);
        let is_noise = NOISE.iter().any(|noise| line.contains(noise))
            || (line.contains(" apply [") && !at_leader)
            || (line.contains(" r") && line.contains("failed"))
            || (line.contains(" persist ") && !line.contains('[') && !line.contains("voted_for"));
        if is_noise {
            continue;
        }
        let merged = lines.last().and_then(|last| merge(last, &line));
        match merged {
            Some(merged) => *lines.last_mut().expect("it was merged with one") = merged,
            None => lines.push(line),
        }
    }
    lines
}

/// Which data directories were seen is another story.
fn without_incarnations(line: String) -> String {
    let Some(at) = line.find(" seen=") else { return line };
    let entries = line[at..].find(" [").map_or("", |behind| &line[at + behind..]);
    format!("{}{entries}", &line[..at])
}

/// `n1 -> n2 Same` and `n1 -> n3 Same` become `n1 -> n2 n3 Same`.
fn merge(one: &str, other: &str) -> Option<String> {
    let (from, to, what) = split(one)?;
    let (other_from, other_to, other_what) = split(other)?;
    let same = from == other_from && what == other_what;
    same.then(|| format!("{from} -> {to} {other_to} {what}"))
}

/// Sender, receivers and message of a line.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let (from, rest) = line.split_once(" -> ")?;
    let end = rest
        .char_indices()
        .zip(rest.chars().skip(1))
        .find_map(|((at, c), next)| (c == ' ' && next.is_ascii_uppercase()).then_some(at))?;
    Some((from, &rest[..end], &rest[end + 1..]))
}
