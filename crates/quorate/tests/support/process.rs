//! Nodes in processes of their own, told through their standard input what to do.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate::{ChangeStep, Consistency, Handle, Heard, Node, Session, SessionError};
use quorate_sim::linearizability::OpId;

use super::store::{Put, Recorder, Store, now};
use super::{DEADLINE, Scratch, addresses};

const NODE: &str = "QUORATE_TEST_NODE";
/// Commands that a process works at; more wait in the pipe.
const WORKING_MAX: usize = 1024;

// ---- in the node's process ----

/// What the processes of a test run, as a test of the name `node_process`; in the test itself it does
/// nothing.
pub(crate) fn run() {
    let Ok(arguments) = std::env::var(NODE) else { return };
    let mut arguments = arguments.split(' ');
    let id: u64 = arguments.next().unwrap().parse().unwrap();
    let cluster = arguments.next().unwrap().to_owned();
    let directory = arguments.next().unwrap().to_owned();
    let listen = arguments.next().unwrap().to_owned();
    let members: Vec<(u64, String)> = (1..).zip(arguments.map(str::to_owned)).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let node = Node::builder(id, Store::default())
            .cluster(cluster)
            .data_dir(directory)
            .listen(listen)
            .members(members)
            .tune(|tuning| {
                tuning.core.election_timeout_min_us = 500_000;
                tuning.core.election_timeout_max_us = 1_000_000;
                tuning.segment_bytes = 1 << 20;
                tuning.snapshot_entries = 300;
                tuning.leader_wait = Duration::from_secs(3);
            })
            .start()
            .await
            .unwrap();
        let mut events = node.events();
        tokio::spawn(async move {
            while let Some(heard) = events.next().await {
                if let Heard::Event(event) = heard {
                    say(&format!("event {event}"));
                }
            }
        });
        say("started");
        serve(&node).await;
        node.shutdown().await;
        say("stopped");
    });
}

/// Does what it is told until it is told to stop; what it has taken on by then, it finishes.
async fn serve(node: &Handle<Store>) {
    let (sender, mut lines) = tokio::sync::mpsc::channel(WORKING_MAX);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    let working = Arc::new(tokio::sync::Semaphore::new(WORKING_MAX));
    let mut session = None;
    while let Some(line) = lines.recv().await {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "stop" => break,
            "leader" => say(&format!("leader {}", node.leader().0.map_or(0, |leader| leader.0))),
            "bound" => {
                super::until("all members are bound", async || {
                    let membership = node.membership();
                    membership.members().all(|(_, member)| member.incarnation.is_some())
                })
                .await;
                say("bound");
            }
            "applied" => say(&format!("applied {}", node.applied())),
            "session" => {
                session = Some(node.session().await.unwrap());
                say("session");
            }
            "lease" => {
                let step = ChangeStep::SetLease { lease_us: Some(number(1)) };
                match node.change(step.into()).await {
                    Ok(_) => say("lease on"),
                    Err(why) => say(&format!("lease {why}")),
                }
            }
            "spin" => {
                let (node, runtime, key) =
                    (node.clone(), tokio::runtime::Handle::current(), number(1));
                std::thread::spawn(move || runtime.block_on(spin(&node, key)));
            }
            "executed" => {
                let executed = node.read(|store| store.executed().clone()).await.unwrap();
                let executed: Vec<String> =
                    executed.iter().map(|(value, count)| format!("{value}:{count}")).collect();
                say(&format!("executed {}", executed.join(" ")));
            }
            kind => {
                let (kind, op, key) = (kind.to_owned(), number(1), number(2));
                let value = words.get(3).map_or(0, |value| value.parse().unwrap());
                let (node, session) = (node.clone(), session.clone());
                let permit = Arc::clone(&working).acquire_owned().await.unwrap();
                tokio::spawn(async move {
                    let answer = carry_out(&kind, &node, session, Put { key, value }).await;
                    say(&format!("{op} {answer}"));
                    drop(permit);
                });
            }
        }
    }
    let all = u32::try_from(WORKING_MAX).unwrap();
    let _ = working.acquire_many(all).await.unwrap();
}

/// Reads by lease without a pause, until this process was frozen; then says what the reads saw that
/// came first after it woke.
async fn spin(node: &Handle<Store>, key: u64) {
    const FROZEN_US: u64 = 300_000;
    const READS: u32 = 200;
    let (mut last, mut rest) = (now(), None);
    while rest != Some(0) {
        let begun = now();
        let seen = node.read_with(Consistency::Lease, |store| store.get(key)).await;
        let ended = now();
        if ended - last > FROZEN_US {
            rest.get_or_insert(READS);
            say("woke");
        }
        last = ended;
        if let Some(rest) = &mut rest {
            *rest -= 1;
            if let Ok((value, _)) = seen {
                say(&format!("spun {begun} {ended} {}", value.unwrap_or(0)));
            }
        }
    }
    say("spun enough");
}

async fn carry_out(
    kind: &str,
    node: &Handle<Store>,
    session: Option<Session<Store>>,
    put: Put,
) -> String {
    let shown = |value: Option<u64>| value.map_or("ok -".to_owned(), |value| format!("ok {value}"));
    let look = |store: &Store| store.get(put.key);
    match kind {
        "propose" => match node.propose(put).await {
            Ok(before) => shown(before),
            Err(why) if why.never_happened() => format!("no {why}"),
            Err(why) => format!("unknown {why}"),
        },
        "in-session" => match session.unwrap().propose(put).await {
            Ok(before) => shown(before),
            Err(why @ SessionError::Refused(_)) => format!("no {why}"),
            Err(why) => format!("unknown {why}"),
        },
        "read" => match node.read(look).await {
            Ok(value) => shown(value),
            Err(why) => format!("no {why}"),
        },
        "lease-read" => match node.read_with(Consistency::Lease, look).await {
            Ok((value, _)) => shown(value),
            Err(why) => format!("no {why}"),
        },
        other => panic!("what is `{other}`?"),
    }
}

fn say(line: &str) {
    // The test harness prints things of its own. Whoever listened may be gone.
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "\n@{line}");
    let _ = out.flush();
}

// ---- in the test's process ----

/// Addresses and directories for some processes, and what their clients saw.
pub(crate) struct Cluster {
    pub(crate) scratch: Scratch,
    pub(crate) addresses: Vec<(u64, String)>,
    pub(crate) recorder: Arc<Recorder>,
}

impl Cluster {
    pub(crate) fn new(count: usize) -> Self {
        let recorder = Arc::new(Recorder::new());
        Self { scratch: Scratch::new(), addresses: addresses(count), recorder }
    }

    /// Starts a node, and waits until it has started.
    pub(crate) fn start(&self, id: u64) -> Process {
        let listen = &self.addresses[id as usize - 1].1;
        self.start_as(id, "quorate", &self.scratch.of(id).display().to_string(), listen)
    }

    pub(crate) fn start_as(&self, id: u64, name: &str, place: &str, listen: &str) -> Process {
        let members: Vec<&str> = self.addresses.iter().map(|(_, address)| &**address).collect();
        let arguments = format!("{id} {name} {place} {listen} {}", members.join(" "));
        let process = Process::start(&arguments, Arc::clone(&self.recorder));
        process.hear("started");
        process
    }

    /// Starts all, each with a session.
    pub(crate) fn start_all(&self) -> Vec<Process> {
        let processes: Vec<Process> =
            self.addresses.iter().map(|(id, _)| self.start(*id)).collect();
        for process in &processes {
            process.open_session();
        }
        processes
    }
}

/// A node's process; killed when it is dropped.
pub(crate) struct Process {
    child: Mutex<Child>,
    pid: u32,
    input: Mutex<ChildStdin>,
    lines: Mutex<Receiver<String>>,
    asked: Arc<Asked>,
}

/// Whoever waits for an answer: its sender is dropped if none comes.
struct Waits {
    op: OpId,
    to: SyncSender<Answer>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Returned(Option<u64>),
    No(String),
    Unknown(String),
}

struct Asked {
    waiting: Mutex<Option<BTreeMap<u64, Waits>>>,
    recorder: Arc<Recorder>,
}

impl Asked {
    /// An answer goes into the history as soon as it is there.
    fn answered(&self, number: u64, answer: &str) {
        let waits = self.waiting.lock().unwrap().as_mut().and_then(|all| all.remove(&number));
        let Waits { op, to } = waits.unwrap();
        let (kind, rest) = answer.split_once(' ').unwrap();
        let answer = match kind {
            "ok" => {
                let value = rest.parse().ok();
                self.recorder.returned(op, value);
                Answer::Returned(value)
            }
            "no" => {
                self.recorder.failed(op);
                Answer::No(rest.to_owned())
            }
            "unknown" => {
                self.recorder.unknown();
                Answer::Unknown(rest.to_owned())
            }
            other => panic!("what is `{other}`?"),
        };
        let _ = to.try_send(answer);
    }
}

impl Process {
    fn start(arguments: &str, recorder: Arc<Recorder>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node_process", "--nocapture", "--test-threads=1"])
            .env(NODE, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        // Nobody has to hear the events: if it is full, what comes then is lost.
        let (sender, lines) = sync_channel(100_000);
        let asked = Arc::new(Asked { waiting: Mutex::new(Some(BTreeMap::new())), recorder });
        let ears = Arc::clone(&asked);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Some(said) = line.strip_prefix('@') else { continue };
                let first = said.split_once(' ').and_then(|(first, rest)| {
                    first.parse::<u64>().ok().map(|number| (number, rest))
                });
                match first {
                    Some((number, rest)) => ears.answered(number, rest),
                    None => drop(sender.try_send(said.to_owned())),
                }
            }
            // It is dead: nobody gets an answer any more.
            ears.waiting.lock().unwrap().take();
        });
        let input = Mutex::new(child.stdin.take().unwrap());
        let pid = child.id();
        Self { child: Mutex::new(child), pid, input, lines: Mutex::new(lines), asked }
    }

    /// Says something; a process that is dead does not hear it.
    pub(crate) fn tell(&self, line: &str) {
        let _ = writeln!(self.input.lock().unwrap(), "{line}");
    }

    /// What follows on these words, once it says them.
    pub(crate) fn hear(&self, words: &str) -> String {
        self.hear_within(words, DEADLINE).unwrap_or_else(|| panic!("never heard `{words}`"))
    }

    pub(crate) fn hear_within(&self, words: &str, time: Duration) -> Option<String> {
        let deadline = Instant::now() + time;
        let lines = self.lines.lock().unwrap();
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(rest) {
                Ok(line) => {
                    if let Some((_, rest)) = line.split_once(words) {
                        return Some(rest.trim().to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => panic!("ended without saying `{words}`"),
            }
        }
    }

    pub(crate) fn open_session(&self) {
        self.tell("session");
        self.hear("session");
    }

    /// The node that it thinks leads, once there is one.
    pub(crate) fn leader(&self) -> u64 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.tell("leader");
            match self.hear("leader ").parse() {
                Ok(0) | Err(_) => std::thread::sleep(Duration::from_millis(10)),
                Ok(leader) => return leader,
            }
            assert!(Instant::now() < deadline, "nobody leads");
        }
    }

    /// How often each value was written.
    pub(crate) fn executed(&self) -> BTreeMap<u64, u64> {
        self.tell("executed");
        let executed = self.hear("executed");
        let pairs = executed.split(' ').filter_map(|pair| pair.split_once(':'));
        pairs.map(|(value, count)| (value.parse().unwrap(), count.parse().unwrap())).collect()
    }

    /// The reads by lease that it served right after it woke up, for that client.
    pub(crate) fn spun(&self, client: u64, key: u64) -> usize {
        let mut count = 0;
        loop {
            let said = self.hear("spun ");
            let numbers: Vec<u64> =
                said.split(' ').filter_map(|number| number.parse().ok()).collect();
            let [begun, ended, value] = numbers[..] else { return count };
            let value = Some(value).filter(|value| *value > 0);
            self.asked.recorder.got(client, key, (begun, ended), value);
            count += 1;
        }
    }

    /// Lets it do something for a client; it goes into the history. `None` if it died over it.
    pub(crate) fn ask(&self, kind: &str, client: u64, key: u64) -> Option<Answer> {
        self.begin(kind, client, key).recv().ok()
    }

    /// The same, without waiting for the answer.
    pub(crate) fn begin(&self, kind: &str, client: u64, key: u64) -> Receiver<Answer> {
        let recorder = &self.asked.recorder;
        let (to, answer) = sync_channel(1);
        // Every operation has a number of its own, and a write writes it.
        let number = recorder.value();
        let writes = matches!(kind, "propose" | "in-session");
        let op = match writes {
            true => recorder.puts(client, Put { key, value: number }),
            false => recorder.gets(client, key),
        };
        if let Some(waiting) = self.asked.waiting.lock().unwrap().as_mut() {
            waiting.insert(number, Waits { op, to });
        }
        match writes {
            true => self.tell(&format!("{kind} {number} {key} {number}")),
            false => self.tell(&format!("{kind} {number} {key}")),
        }
        answer
    }

    /// Sends it a signal, such as `-STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid.to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// As `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops it, kindly.
    pub(crate) fn stop(&self) {
        self.tell("stop");
        assert!(self.child.lock().unwrap().wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}
