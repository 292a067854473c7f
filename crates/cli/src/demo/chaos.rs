//! `demo --chaos`: members die and come back while a client writes and reads, and at the end it is known whether anything
//! was lost.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use quorate_etcd::{Config, Server};
use tokio::task::JoinHandle;

use super::traffic::{Ledger, Traffic};
use crate::signals::Signals;
use crate::style::Paint;

/// How long a member may take to come back.
const RETURN: Duration = Duration::from_secs(30);

/// What is done between attempts to start it: whoever was killed may still hold files and ports for a moment.
const PAUSE: Duration = Duration::from_millis(50);

/// How it is made difficult.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// From one kill to the next.
    pub(super) every: Duration,
    /// How long it goes on; until interrupted if `None`.
    pub(super) lasts: Option<Duration>,
}

/// The members, and which of them are dead.
struct Members {
    configs: Vec<Config>,
    servers: Vec<Option<Server>>,
    began: Instant,
    kills: usize,
}

/// A member on its way back.
type Return = (usize, JoinHandle<Result<Server, String>>);

impl Members {
    fn name(&self, member: usize) -> &str {
        &self.configs[member].name
    }

    /// Which member leads, and in which term, as the first that lives knows.
    fn leader(&self) -> (Option<usize>, u64) {
        let Some(handle) = self.servers.iter().flatten().next().map(Server::handle) else {
            return (None, 0);
        };
        let (leader, term) = handle.leader();
        let is_it = |server: &Option<Server>| {
            server.as_ref().is_some_and(|server| Some(server.handle().member_id()) == leader)
        };
        (self.servers.iter().position(is_it), term)
    }

    fn say(&self, text: &str) {
        say!("{:>6.1} s  {text}", self.began.elapsed().as_secs_f64());
    }

    /// Kills a member: nothing is handed over, and no request is finished.
    fn kill(&mut self) -> Option<usize> {
        let (leader, _) = self.leader();
        let any = random() as usize % self.servers.len();
        // Half of them are leaders: those hurt most.
        let victim = leader.filter(|_| random().is_multiple_of(2)).unwrap_or(any);
        let led = if leader == Some(victim) { ", which led," } else { "" };
        let server = self.servers[victim].take()?;
        drop(server);
        self.kills += 1;
        self.say(&format!("{} {}{led} is killed", Paint::Bad.out("x"), self.name(victim)));
        Some(victim)
    }

    /// Begins to start a member that was killed.
    fn revive(&self, member: usize) -> Return {
        let config = self.configs[member].clone();
        (member, tokio::spawn(start(config)))
    }

    fn back(&mut self, member: usize, outcome: Result<Server, String>) -> Result<(), String> {
        self.servers[member] =
            Some(outcome.map_err(|why| format!("{}: {why}", self.name(member)))?);
        self.say(&format!("{} {} is back", Paint::Good.out("+"), self.name(member)));
        Ok(())
    }
}

async fn start(config: Config) -> Result<Server, String> {
    let end = Instant::now() + RETURN;
    loop {
        match Server::start(config.clone()).await {
            Ok(server) => return Ok(server),
            Err(why) if Instant::now() >= end => return Err(why.to_string()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A number that nobody can foresee.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Goes on until it is interrupted or the time is over, and gives the verdict: whether all was well.
pub(super) async fn run(
    servers: Vec<(String, Server)>,
    configs: Vec<Config>,
    settings: Settings,
    signals: &mut Signals,
) -> Result<bool, String> {
    let urls: Vec<String> = servers
        .iter()
        .filter_map(|(_, server)| server.client_urls().first().map(ToString::to_string))
        .collect();
    let servers = servers.into_iter().map(|(_, server)| Some(server)).collect();
    let mut members = Members { configs, servers, began: Instant::now(), kills: 0 };
    let lasts = settings.lasts.map_or("until Ctrl-C".to_owned(), |lasts| format!("for {lasts:?}"));
    say!("A member is killed every {:?}, {lasts}.\n", settings.every);
    let traffic = Traffic::start(&urls)?;
    let ended = disturb(&mut members, &traffic.ledger, settings, signals).await;
    say!("\nNobody is killed any more; what was acknowledged is looked for.");
    let judged = judge(&members, traffic).await;
    for server in members.servers.into_iter().flatten() {
        server.shutdown().await;
    }
    ended?;
    let (good, text) = judged;
    let word = if good { Paint::Good.out("GOOD:") } else { Paint::Bad.out("BAD:") };
    say!("{word} {text}, and {} members were killed.", members.kills);
    Ok(good)
}

/// Kills and revives, and tells every second how it goes. At the end, all members live.
async fn disturb(
    members: &mut Members,
    ledger: &Ledger,
    settings: Settings,
    signals: &mut Signals,
) -> Result<(), String> {
    let end = settings.lasts.map(|lasts| members.began + lasts);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.tick().await;
    let mut next = Instant::now() + settings.every / 2;
    let mut dead: Option<usize> = None;
    let mut returning: Option<Return> = None;
    loop {
        tokio::select! {
            _ = signals.next() => break,
            () = sleep_until(end) => break,
            _ = second.tick() => members.say(&progress(members, ledger)),
            outcome = arrival(&mut returning) => {
                let (member, outcome) = outcome;
                returning = None;
                members.back(member, outcome)?;
                next = Instant::now() + settings.every / 2;
            }
            () = sleep_until(Some(next)), if returning.is_none() => {
                match dead.take() {
                    None => dead = members.kill(),
                    Some(member) => returning = Some(members.revive(member)),
                }
                next = Instant::now() + settings.every / 2;
            }
        }
    }
    if let Some(member) = dead {
        returning = Some(members.revive(member));
    }
    if returning.is_some() {
        let (member, outcome) = arrival(&mut returning).await;
        members.back(member, outcome)?;
    }
    Ok(())
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits for the member that is on its way back, for ever if there is none.
async fn arrival(returning: &mut Option<Return>) -> (usize, Result<Server, String>) {
    match returning {
        Some((member, task)) => {
            let outcome = task.await.unwrap_or_else(|why| Err(format!("its start failed: {why}")));
            (*member, outcome)
        }
        None => std::future::pending().await,
    }
}

fn progress(members: &Members, ledger: &Ledger) -> String {
    let seen = ledger.second();
    let leader = match members.leader() {
        (Some(member), term) => format!("{} leads term {term}", members.name(member)),
        (None, _) => Paint::Odd.out("nobody leads"),
    };
    let failed = match seen.failed {
        0 => String::new(),
        failed => Paint::Odd.out(&format!("  {failed} calls without an answer")),
    };
    format!(
        "{:>5} writes  {:>5} reads  {leader}  longest gap {} ms{failed}",
        seen.writes,
        seen.reads,
        seen.gap.as_millis()
    )
}

/// Looks for everything that was acknowledged, through each member.
async fn judge(members: &Members, traffic: Traffic) -> (bool, String) {
    for server in members.servers.iter().flatten() {
        // One that is not ready answers as well, or that is what will be told.
        let _ = tokio::time::timeout(RETURN, server.handle().ready()).await;
    }
    let (complaints, text) = traffic.finish().await;
    for complaint in &complaints {
        say!("{} {complaint}", Paint::Bad.out("wrong:"));
    }
    (complaints.is_empty(), text)
}
