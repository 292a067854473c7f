//! Threads, the window of time in which is counted, and the loop of a client.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use super::connection::{CallError, Link};
use super::histogram::Histogram;
use super::process;
use super::work::{Kind, Work};
use crate::client::{Common, Failure, duration};
use crate::style::Bar;

/// What a client does after an error, so that an outage is no race.
pub(crate) const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// How often the bar of a terminal is looked after; a measurement is hardly disturbed by that.
const BAR_INTERVAL: Duration = Duration::from_millis(250);

/// Clients per connection, if nothing else is said.
const CLIENTS_PER_CONNECTION: usize = 16;

/// How hard, and how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Clients, each of which waits for an answer before its next call
    #[arg(long, default_value_t = 64)]
    pub(crate) clients: usize,
    /// Connections that they share, spread over the endpoints; by default one for 16 clients, and at least one for each
    /// endpoint
    #[arg(long)]
    pub(crate) connections: Option<usize>,
    /// Threads of the generator; connections and clients are dealt out to them
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// How long is counted
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long it goes on before anything is counted
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) warm_up: Duration,
    /// Calls a second by all clients together, instead of as many as can be; what waits for a client counts from when it was
    /// due
    #[arg(long)]
    pub(crate) rate: Option<u64>,
    /// Process ids of servers on this machine, whose CPU time and memory are to be told
    #[arg(long = "pid", value_delimiter = ',')]
    pub(crate) pids: Vec<u32>,
    /// Decides which keys and values are used
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// A future of one thread.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// What one thread has to do.
pub(crate) struct Tasks {
    /// These end by themselves once the time is over.
    pub(crate) clients: Vec<Task>,
    /// These are ended then.
    pub(crate) listeners: Vec<Task>,
}

/// What a thread sets up before it says that it is ready.
pub(crate) trait Load: Send + Sync {
    /// The names of the kinds of outcomes.
    fn kinds(&self) -> Vec<&'static str>;

    /// How many of these, from the first on, are the operations that CPU time is divided by.
    fn operations(&self) -> usize {
        1
    }

    /// Connects, prepares, and gives the tasks to be run. They begin when the window is known.
    fn tasks(
        self: Arc<Self>,
        thread: Rc<Thread>,
    ) -> Pin<Box<dyn Future<Output = Result<Tasks, Failure>>>>;
}

/// From when to when is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    begin: Instant,
    end: Instant,
}

/// One thread of the generator. Nothing in it is shared with another one, but the time of the last success.
pub(crate) struct Thread {
    number: usize,
    pub(crate) settings: Settings,
    links: Vec<Rc<Link>>,
    window: OnceCell<Window>,
    tally: RefCell<Tally>,
    epoch: Instant,
    last_success_ns: Arc<AtomicU64>,
}

/// What was counted.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    pub(crate) kinds: Vec<Histogram>,
    /// By code: how many, and the words of the first.
    pub(crate) errors: BTreeMap<String, (u64, String)>,
    /// The longest time without any success.
    pub(crate) gap: Duration,
    /// Calls that had no answer when the patience after the end was over.
    pub(crate) unanswered: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (mine, theirs) in self.kinds.iter_mut().zip(&other.kinds) {
            mine.add(theirs);
        }
        for (code, (count, words)) in other.errors {
            self.errors.entry(code).or_insert((0, words)).0 += count;
        }
        self.gap = self.gap.max(other.gap);
        self.unanswered += other.unanswered;
    }
}

/// What a run has shown.
pub(crate) struct Outcome {
    pub(crate) kinds: Vec<&'static str>,
    /// The operations, of all kinds that are such.
    pub(crate) operations: u64,
    pub(crate) tally: Tally,
    pub(crate) connections: usize,
    /// CPU time of this process in the window, where it can be known.
    pub(crate) own_cpu: Option<Duration>,
    /// CPU time of the servers in the window, and their memory at its end.
    pub(crate) servers: Option<(Duration, Vec<u64>)>,
}

impl Settings {
    /// Refuses what cannot be.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        for (name, count) in [("clients", self.clients), ("threads", self.threads)] {
            if count == 0 {
                return Err(Failure::Input(format!("--{name} must be at least 1")));
            }
        }
        if self.duration.is_zero() {
            return Err(Failure::Input("--duration must not be 0".to_owned()));
        }
        if self.rate == Some(0) {
            return Err(Failure::Input(
                "--rate must be at least 1; without it, there is no limit".to_owned(),
            ));
        }
        if self.connections.is_some_and(|count| count < self.threads) {
            return Err(Failure::Input(
                "--connections must be at least as many as --threads".to_owned(),
            ));
        }
        Ok(())
    }

    fn connections(&self, endpoints: usize) -> usize {
        self.connections.unwrap_or_else(|| {
            self.clients.div_ceil(CLIENTS_PER_CONNECTION).max(endpoints).max(self.threads)
        })
    }
}

/// Runs a load, and counts what comes of it.
#[expect(clippy::needless_pass_by_value, reason = "each run has a share of it")]
pub(crate) fn run(
    load: Arc<dyn Load>,
    settings: &Settings,
    common: &Common,
) -> Result<Outcome, Failure> {
    settings.check()?;
    let endpoints: Vec<String> = common.endpoints().into_iter().map(str::to_owned).collect();
    if endpoints.is_empty() {
        return Err(Failure::Input("no endpoint is given".to_owned()));
    }
    let connections = settings.connections(endpoints.len());
    let epoch = Instant::now();
    let last_success_ns = Arc::new(AtomicU64::new(0));
    let (ready, mut all_ready) = mpsc::unbounded_channel();
    let mut gates = Vec::new();
    let mut threads = Vec::new();
    for number in 0..settings.threads {
        // Connections and endpoints are dealt out in turn.
        let own: Vec<String> = (number..connections)
            .step_by(settings.threads)
            .map(|connection| endpoints[connection % endpoints.len()].clone())
            .collect();
        let (gate, begin) = oneshot::channel();
        gates.push(gate);
        let (load, ready) = (Arc::clone(&load), ready.clone());
        let (settings, common) = (settings.clone(), common.clone());
        let last_success_ns = Arc::clone(&last_success_ns);
        threads.push(std::thread::spawn(move || -> Result<Tally, Failure> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|why| Failure::File(format!("the runtime cannot be started: {why}")))?;
            let links = async {
                let mut links = Vec::new();
                for endpoint in &own {
                    links.push(Rc::new(Link::open(endpoint, common.dial_timeout).await?));
                }
                Ok::<_, Failure>(links)
            };
            let kinds = vec![Histogram::default(); load.kinds().len()];
            LocalSet::new().block_on(&runtime, async {
                let thread = Rc::new(Thread {
                    number,
                    settings,
                    links: links.await?,
                    window: OnceCell::new(),
                    tally: RefCell::new(Tally { kinds, ..Tally::default() }),
                    epoch,
                    last_success_ns,
                });
                let tasks = load.tasks(Rc::clone(&thread)).await?;
                let _ = ready.send(());
                drop(ready);
                // Who sets the window has gone away if another thread has failed.
                let Ok(window) = begin.await else { return Ok(Tally::default()) };
                thread.run(tasks, window, common.command_timeout).await;
                Ok(thread.tally.take())
            })
        }));
    }
    drop(ready);
    let mut prepared = 0;
    while all_ready.blocking_recv().is_some() {
        prepared += 1;
    }
    let begin = Instant::now() + settings.warm_up;
    let window = Window { begin, end: begin + settings.duration };
    // A thread that has failed will say why; the others are told to give up.
    let failed = prepared < settings.threads;
    if failed {
        gates.clear();
    }
    for gate in gates {
        let _ = gate.send(window);
    }
    let mut used = None;
    if !failed {
        sleep_until(window.begin);
        let before = Usage::now(&settings.pids)?;
        let total = u64::try_from(settings.duration.as_millis()).unwrap_or(u64::MAX);
        let mut bar =
            Bar::new("measuring", Some(total), |ms| format!("{}.{} s", ms / 1000, ms / 100 % 10));
        while Instant::now() < window.end {
            let done = window.begin.elapsed().as_millis();
            bar.set(u64::try_from(done).unwrap_or(u64::MAX));
            sleep_until(window.end.min(Instant::now() + BAR_INTERVAL));
        }
        drop(bar);
        used = Some((before, Usage::now(&settings.pids)?));
    }
    let memory: Result<Vec<u64>, Failure> =
        settings.pids.iter().map(|pid| process::resident_bytes(*pid)).collect();
    let kinds = load.kinds();
    let mut tally = Tally { kinds: vec![Histogram::default(); kinds.len()], ..Tally::default() };
    for thread in threads {
        let panicked = |_| Failure::Unhealthy("a thread of the generator panicked".to_owned());
        tally.add(thread.join().map_err(panicked)??);
    }
    let (before, after) = used.unwrap_or_default();
    let own_cpu = after.own.zip(before.own).map(|(after, before)| after.saturating_sub(before));
    let servers = match settings.pids.is_empty() {
        true => None,
        false => Some((after.servers.saturating_sub(before.servers), memory?)),
    };
    let operations = tally.kinds.iter().take(load.operations()).map(Histogram::count).sum();
    Ok(Outcome { kinds, operations, tally, connections, own_cpu, servers })
}

/// CPU time so far.
#[derive(Default)]
struct Usage {
    own: Option<Duration>,
    servers: Duration,
}

impl Usage {
    fn now(pids: &[u32]) -> Result<Self, Failure> {
        let servers: Result<Duration, Failure> =
            pids.iter().map(|pid| process::cpu_time(*pid)).sum();
        Ok(Self { own: process::cpu_time(std::process::id()).ok(), servers: servers? })
    }
}

fn sleep_until(time: Instant) {
    std::thread::sleep(time.saturating_duration_since(Instant::now()));
}

impl Thread {
    /// The numbers of the clients of this thread, out of so many.
    pub(crate) fn share(&self, of: usize) -> impl Iterator<Item = usize> + use<> {
        (self.number..of).step_by(self.settings.threads)
    }

    /// The connection of this client.
    pub(crate) fn link(&self, client: usize) -> Rc<Link> {
        let place = client / self.settings.threads;
        Rc::clone(&self.links[place % self.links.len()])
    }

    /// The clock of a client, which starts now.
    pub(crate) fn clock(&self, pace: Option<Pace>) -> Clock {
        let due = pace.map(|pace| (Instant::now() + pace.first, pace.interval));
        Clock { end: self.window().end, due }
    }

    fn window(&self) -> Window {
        *self.window.get().expect("the window is set before tasks are started")
    }

    /// Time since the begin of the run, on all threads the same.
    pub(crate) fn since_epoch(&self, time: Instant) -> Duration {
        time.saturating_duration_since(self.epoch)
    }

    /// The time that is so long after the begin of the run.
    pub(crate) fn at(&self, since_epoch: Duration) -> Instant {
        self.epoch.checked_add(since_epoch).unwrap_or(self.epoch)
    }

    /// Counts a success that took from `began` to `ended`.
    pub(crate) fn succeeded(&self, kind: Kind, began: Instant, ended: Instant) {
        let ns = u64::try_from(self.since_epoch(ended).as_nanos()).unwrap_or(u64::MAX);
        let last = self.last_success_ns.swap(ns, Ordering::Relaxed);
        let window = self.window();
        if ended < window.begin || ended >= window.end {
            return;
        }
        let mut tally = self.tally.borrow_mut();
        tally.gap = tally.gap.max(Duration::from_nanos(ns.saturating_sub(last)));
        tally.kinds[kind].record(ended.saturating_duration_since(began));
    }

    /// Counts an error.
    pub(crate) fn failed(&self, error: CallError) {
        let now = Instant::now();
        let window = self.window();
        if now >= window.begin && now < window.end {
            let mut tally = self.tally.borrow_mut();
            let entry = tally.errors.entry(format!("{:?}", error.code));
            entry.or_insert((0, error.message)).0 += 1;
        }
    }

    async fn run(&self, tasks: Tasks, window: Window, patience: Duration) {
        let _ = self.window.set(window);
        let mut listeners = JoinSet::new();
        for listener in tasks.listeners {
            listeners.spawn_local(listener);
        }
        let mut clients = JoinSet::new();
        for client in tasks.clients {
            clients.spawn_local(client);
        }
        let all = async { while clients.join_next().await.is_some() {} };
        if tokio::time::timeout_at((window.end + patience).into(), all).await.is_err() {
            self.tally.borrow_mut().unanswered += clients.len();
        }
        tokio::time::sleep_until(window.end.into()).await;
        // A gap that lasts to the end is one too.
        let last = Duration::from_nanos(self.last_success_ns.load(Ordering::Relaxed));
        let silent = self.since_epoch(window.end).saturating_sub(last);
        let mut tally = self.tally.borrow_mut();
        tally.gap = tally.gap.max(silent.min(self.settings.duration));
    }
}

/// When the calls of one client are due, if not as soon as can be.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    interval: Duration,
    first: Duration,
}

impl Pace {
    /// The share of the client with this place among `clients`, who make `rate` calls a second together.
    pub(crate) fn new(rate: u64, place: usize, clients: usize) -> Self {
        let share = |part: usize| {
            #[allow(clippy::cast_precision_loss, reason = "both are small")]
            Duration::from_secs_f64(part as f64 / rate as f64)
        };
        Self { interval: share(clients), first: share(place) }
    }
}

/// Says when the next call of a client begins.
pub(crate) struct Clock {
    end: Instant,
    due: Option<(Instant, Duration)>,
}

impl Clock {
    /// Waits until the next call is due, and gives the time from which it counts; nothing once the time is over.
    pub(crate) async fn next_call(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let Some((due, interval)) = &mut self.due else {
            return (now < self.end).then_some(now);
        };
        let this = *due;
        *due += *interval;
        if this >= self.end || now >= self.end {
            return None;
        }
        if this <= now {
            // The call before it took too long, and whoever had wanted this one would have waited.
            return Some(this);
        }
        // To be woken late is the generator's fault, and does not count.
        tokio::time::sleep_until(this.into()).await;
        Some(Instant::now())
    }
}

/// What a client does from the first call to the end of the window.
pub(crate) async fn client(thread: Rc<Thread>, link: Rc<Link>, mut work: Work, pace: Option<Pace>) {
    let mut clock = thread.clock(pace);
    while let Some(began) = clock.next_call().await {
        match work.call(&link).await {
            Ok(kind) => thread.succeeded(kind, began, Instant::now()),
            Err(error) => {
                thread.failed(error);
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}
