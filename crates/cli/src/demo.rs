//! `quorate demo`: a cluster in one process, to play with.

/// Prints a line. A reader that has seen enough is no error: members are to be stopped, and files to be removed.
macro_rules! say {
    ($($part:tt)*) => {{
        let _ = writeln!(io::stdout(), $($part)*);
    }};
}

mod chaos;
mod traffic;

use std::io::{self, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_etcd::{Config, Member, Server, Url};

use crate::client::duration;
use crate::go;
use crate::log::{Format, Log, Threshold};
use crate::signals::{Request, Signals};

/// How many members the cluster has.
const MEMBERS: u16 = 3;

/// How far the ports of two members are apart.
const PORT_STRIDE: u16 = 10_000;

/// Where the ports of an earlier run are kept, since the members know each other by them.
const PORTS_FILE: &str = "ports";

/// The shortest time from one kill to the next.
const EVERY_MIN: Duration = Duration::from_millis(500);

/// Three members in one process.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Where the members keep their data; without it, a directory that is removed at the end
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Port of the first member; the others are 10000 apart. 0, or a port in use: any that is free
    #[arg(long, default_value_t = 2379)]
    port: u16,
    /// Print the log lines of the members, too
    #[arg(long)]
    verbose: bool,
    /// Kill a member every few seconds, start it again, and show that nothing is lost: a client writes and reads meanwhile
    #[arg(long)]
    chaos: bool,
    /// From one kill to the next
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = duration, requires = "chaos")]
    every: Duration,
    /// Stop by itself after this time
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasts: Option<Duration>,
}

impl Demo {
    /// Runs until it is interrupted.
    pub(crate) fn run(self) -> Result<ExitCode, String> {
        if self.every < EVERY_MIN {
            return Err(format!(
                "--every must be at least {}: a member needs a moment to come back",
                go::write_duration(EVERY_MIN)
            ));
        }
        let threshold = if self.verbose { Threshold::Info } else { Threshold::Error };
        Log::open(threshold, Format::Console, &["stderr"])?.install();
        let directory = Directory::open(self.data_dir.clone())
            .map_err(|why| format!("there is no directory for the data: {why}"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|why| format!("the runtime cannot be started: {why}"))?;
        let ended = runtime.block_on(self.demonstrate(&directory.path));
        runtime.shutdown_background();
        drop(directory);
        Ok(match ended? {
            End::Request(request) => request.end(),
            End::Verdict(true) => ExitCode::SUCCESS,
            End::Verdict(false) => ExitCode::FAILURE,
        })
    }
}

/// Why it ended.
enum End {
    /// Somebody has asked for it.
    Request(Request),
    /// It has shown what it was to show: whether all was well.
    Verdict(bool),
}

impl Demo {
    async fn demonstrate(&self, directory: &Path) -> Result<End, String> {
        let mut signals =
            Signals::listen().map_err(|why| format!("signals are not heard: {why}"))?;
        let ports = Ports::of(directory, self.port)?;
        let configs = configs(directory, &ports);
        let mut servers = Vec::new();
        for config in &configs {
            let name = config.name.clone();
            let server =
                Server::start(config.clone()).await.map_err(|why| format!("{name}: {why}"))?;
            servers.push((name, server));
        }
        for (_, server) in &servers {
            let member = server.handle();
            tokio::select! {
                () = member.ready() => {}
                request = signals.next() => return Ok(stop(servers, request).await),
            }
        }
        welcome(&servers, directory);
        if self.chaos {
            let settings = chaos::Settings { every: self.every, lasts: self.lasts };
            return chaos::run(servers, configs, settings, &mut signals).await.map(End::Verdict);
        }
        let member = servers[0].1.handle();
        let mut shown = member.leader();
        let over = async {
            match self.lasts {
                Some(lasts) => tokio::time::sleep(lasts).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        let request = loop {
            tokio::select! {
                request = signals.next() => break Some(request),
                () = &mut over => break None,
                leader = next_leader(&member, shown) => {
                    shown = leader;
                    match name_of(&servers, leader.0) {
                        Some(name) => say!("{name} leads term {} now.", leader.1),
                        None => say!("There is no leader in term {}.", leader.1),
                    }
                }
            }
        };
        say!("Stopping.");
        let ended = stop(servers, request.unwrap_or(Request::Interrupt)).await;
        Ok(if request.is_some() { ended } else { End::Verdict(true) })
    }
}

/// Where the data are; a temporary directory goes when this goes.
struct Directory {
    path: PathBuf,
    temporary: bool,
}

impl Directory {
    fn open(wanted: Option<PathBuf>) -> io::Result<Self> {
        let temporary = wanted.is_none();
        let path = wanted.unwrap_or_else(|| {
            std::env::temp_dir().join(format!("quorate-demo-{}", std::process::id()))
        });
        if temporary {
            std::fs::create_dir(&path)?;
        } else {
            std::fs::create_dir_all(&path)?;
        }
        Ok(Self { path, temporary })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed is left to whoever cleans temporary files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

async fn stop(servers: Vec<(String, Server)>, request: Request) -> End {
    for (_, server) in servers {
        server.shutdown().await;
    }
    End::Request(request)
}

/// Waits until somebody else leads, or nobody.
async fn next_leader(member: &Member, before: (Option<u64>, u64)) -> (Option<u64>, u64) {
    let mut events = member.node().events();
    while member.leader() == before {
        if events.next().await.is_none() {
            // The node has stopped, and nobody leads it any more.
            std::future::pending::<()>().await;
        }
    }
    member.leader()
}

fn name_of(servers: &[(String, Server)], id: Option<u64>) -> Option<&str> {
    let of = |server: &Server| Some(server.handle().member_id());
    servers.iter().find(|(_, server)| of(server) == id).map(|(name, _)| name.as_str())
}

fn configs(directory: &Path, ports: &Ports) -> Vec<Config> {
    let name = |at: usize| format!("node{}", at + 1);
    let url = |port: &u16| Url::http("127.0.0.1", *port);
    let cluster: Vec<(String, Vec<Url>)> =
        ports.peer.iter().enumerate().map(|(at, port)| (name(at), vec![url(port)])).collect();
    ports
        .client
        .iter()
        .zip(&ports.peer)
        .enumerate()
        .map(|(at, (client, peer))| Config {
            name: name(at),
            listen_client_urls: vec![url(client)],
            advertise_client_urls: vec![url(client)],
            listen_peer_urls: vec![url(peer)],
            initial_advertise_peer_urls: vec![url(peer)],
            initial_cluster: cluster.clone(),
            initial_cluster_token: "demo".to_owned(),
            ..Config::new(directory.join(name(at)))
        })
        .collect()
}

fn welcome(servers: &[(String, Server)], directory: &Path) {
    let (leader, term) = servers[0].1.handle().leader();
    say!("Three members are running in this process:\n");
    let mut endpoints = Vec::new();
    for (name, server) in servers {
        let member = server.handle();
        let role = if leader == Some(member.member_id()) { "leader" } else { "follower" };
        let urls: Vec<String> = server.client_urls().iter().map(ToString::to_string).collect();
        say!("  {name}  {}  id {:x}  {role}", urls.join(","), member.member_id());
        endpoints.extend(server.client_urls().iter().map(|url| url.address().to_owned()));
    }
    let program = std::env::args().next().unwrap_or_else(|| "quorate".to_owned());
    say!("\nThe term is {term}, the data are in {}.\n", directory.display());
    say!("Try in another terminal:\n");
    say!("  export ETCDCTL_ENDPOINTS={}", endpoints.join(","));
    for (command, says) in [
        ("put greeting hello", "any member takes it"),
        ("get greeting", "and any member has it"),
        ("watch greeting", "changes as they happen"),
        ("status", "who leads, and how far each one is"),
        ("member list", "who belongs to the cluster"),
        ("snapshot save backup.db", "everything, in one file"),
    ] {
        say!("  {program} {command:<26} # {says}");
    }
    say!("\nEvery client of etcd v3 works as well, etcdctl among them.");
    say!("Ctrl-C stops the cluster.");
}

/// Where the members listen.
#[derive(PartialEq, Eq, Debug)]
struct Ports {
    client: Vec<u16>,
    peer: Vec<u16>,
}

impl Ports {
    /// The ports of an earlier run in this directory, or new ones.
    fn of(directory: &Path, first: u16) -> Result<Self, String> {
        let path = directory.join(PORTS_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::read(&text).ok_or_else(|| {
                format!("{} does not say the ports of {MEMBERS} members", path.display())
            }),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                let ports = Self::choose(first)
                    .map_err(|why| format!("there are no ports to listen on: {why}"))?;
                std::fs::write(&path, ports.write())
                    .map_err(|why| format!("{}: {why}", path.display()))?;
                Ok(ports)
            }
            Err(why) => Err(format!("{}: {why}", path.display())),
        }
    }

    fn choose(first: u16) -> io::Result<Self> {
        // All are held until all are known, so that none is given twice.
        let mut held = Vec::new();
        let mut hold = |wanted: Option<u16>| {
            let any = || TcpListener::bind(("127.0.0.1", 0));
            let listener = match wanted {
                Some(port) => TcpListener::bind(("127.0.0.1", port)).or_else(|_| any())?,
                None => any()?,
            };
            let port = listener.local_addr()?.port();
            held.push(listener);
            io::Result::Ok(port)
        };
        let mut client = Vec::new();
        let mut peer = Vec::new();
        for member in 0..MEMBERS {
            let wanted =
                (first != 0).then(|| first.checked_add(member.checked_mul(PORT_STRIDE)?)).flatten();
            client.push(hold(wanted)?);
            peer.push(hold(wanted.and_then(|port| port.checked_add(1)))?);
        }
        Ok(Self { client, peer })
    }

    fn write(&self) -> String {
        let pairs = self.client.iter().zip(&self.peer);
        pairs.map(|(client, peer)| format!("{client} {peer}\n")).collect()
    }

    fn read(text: &str) -> Option<Self> {
        let mut ports = Self { client: Vec::new(), peer: Vec::new() };
        for line in text.lines() {
            let (client, peer) = line.split_once(' ')?;
            ports.client.push(client.parse().ok()?);
            ports.peer.push(peer.parse().ok()?);
        }
        (ports.client.len() == usize::from(MEMBERS)).then_some(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_remembered() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let directory = tempfile::tempdir().expect("a directory");
        let ports = Ports::of(directory.path(), port).expect("ports");
        assert!(!ports.client.contains(&port) && !ports.peer.contains(&port));
        let all: std::collections::BTreeSet<_> = ports.client.iter().chain(&ports.peer).collect();
        assert_eq!(all.len(), 6);
        assert_eq!(Ports::of(directory.path(), 0).expect("the same"), ports);
        std::fs::write(directory.path().join(PORTS_FILE), "1 2\n").expect("written");
        assert!(Ports::of(directory.path(), 0).is_err());
    }
}
