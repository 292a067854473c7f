//! Servers as processes of their own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::client::{Client, Query};

/// How long anything may take that is not expected to fail.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A program, and its first arguments: `SERVER`, or else what the caller has built.
fn program(built: &str) -> Vec<String> {
    let said = std::env::var("SERVER").unwrap_or_else(|_| format!("{built} serve"));
    said.split_whitespace().map(str::to_owned).collect()
}

/// A folder that is removed in the end.
pub struct Folder(pub PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("quorate-stories-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An address that was free a moment ago.
pub fn free_url() -> String {
    // Kept apart by asking for it while the last ones are taken is not possible: the server itself must bind it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub struct Server {
    pub name: String,
    pub client_url: String,
    pub peer_url: String,
    pub data: PathBuf,
    process: Option<Child>,
}

/// A file system of its own that is soon full, in a namespace that one process keeps open.
pub struct SmallDisk {
    keeper: Child,
    at: PathBuf,
}

impl SmallDisk {
    /// Over the folder `at`; `None` where the system does not let us.
    fn new(at: &Path, megabytes: u32) -> Option<Self> {
        let mount = format!("mount -t tmpfs -o size={megabytes}m tmpfs '{}'", at.display());
        let keeper = Command::new("unshare")
            .args(["-Urm", "sh", "-c", &format!("{mount} && echo mounted && exec sleep 600")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut disk = Self { keeper: keeper.ok()?, at: at.to_owned() };
        let mut said = String::new();
        let mut output = std::io::BufReader::new(disk.keeper.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut said).ok()?;
        (said.trim() == "mounted").then_some(disk)
    }

    /// What runs a program where the disk can be seen.
    fn inside(&self) -> Vec<String> {
        let keeper = self.keeper.id().to_string();
        let command = ["nsenter", "-t", &keeper, "-U", "-m", "--preserve-credentials"];
        command.into_iter().map(str::to_owned).collect()
    }

    /// From now on there is more room.
    pub fn grow(&self, megabytes: u32) {
        let inside = self.inside();
        let options = format!("remount,size={megabytes}m");
        let mut command = Command::new(&inside[0]);
        let status =
            command.args(&inside[1..]).args(["mount", "-o", &options]).arg(&self.at).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Some servers that belong together. All are killed in the end.
pub struct Cluster {
    /// The program, what runs it in front of it and its first arguments behind it.
    program: Vec<String>,
    flags: Vec<String>,
    pub folder: Folder,
    pub servers: Vec<Server>,
}

impl Cluster {
    /// Starts so many, each with `flags` besides what it needs, and waits until they work.
    pub async fn start<C: Client>(built: &str, count: usize, flags: &[&str]) -> Self {
        let folder = Folder::new();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut cluster = Self { program: program(built), flags, folder, servers: Vec::new() };
        for _ in 0..count {
            cluster.describe();
        }
        let members = cluster.initial_cluster();
        for at in 0..count {
            cluster.launch(at, &members, "new");
        }
        cluster.ready::<C>().await;
        cluster
    }

    /// Starts one whose data are on a disk of that size. `None` where there can be no such disk.
    pub async fn on_small_disk<C: Client>(
        built: &str,
        megabytes: u32,
    ) -> Option<(Self, SmallDisk)> {
        let folder = Folder::new();
        let data = folder.0.join("s1");
        std::fs::create_dir(&data).unwrap();
        let disk = SmallDisk::new(&data, megabytes)?;
        let mut command = disk.inside();
        command.extend(program(built));
        let mut cluster = Self { program: command, flags: Vec::new(), folder, servers: Vec::new() };
        cluster.describe();
        // A folder in it, which belongs to the server alone.
        cluster.servers[0].data = data.join("data");
        let members = cluster.initial_cluster();
        cluster.launch(0, &members, "new");
        cluster.ready::<C>().await;
        Some((cluster, disk))
    }

    /// A further server, not started. Its number.
    pub fn describe(&mut self) -> usize {
        let name = format!("s{}", self.servers.len() + 1);
        let data = self.folder.0.join(&name);
        let (client_url, peer_url) = (free_url(), free_url());
        self.servers.push(Server { name, client_url, peer_url, data, process: None });
        self.servers.len() - 1
    }

    pub fn initial_cluster(&self) -> String {
        let member = |server: &Server| format!("{}={}", server.name, server.peer_url);
        self.servers.iter().map(member).collect::<Vec<_>>().join(",")
    }

    pub fn launch(&mut self, at: usize, members: &str, state: &str) {
        let server = &mut self.servers[at];
        let path = self.folder.0.join(format!("{}.log", server.name));
        let log = std::fs::File::options().append(true).create(true).open(path).unwrap();
        let child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .args(["--name", &server.name])
            .args(["--data-dir", server.data.to_str().unwrap()])
            .args(["--listen-client-urls", &server.client_url])
            .args(["--advertise-client-urls", &server.client_url])
            .args(["--listen-peer-urls", &server.peer_url])
            .args(["--initial-advertise-peer-urls", &server.peer_url])
            .args(["--initial-cluster", members])
            .args(["--initial-cluster-state", state])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program[0]));
        server.process = Some(child);
    }

    /// Starts again what was killed.
    pub fn restart(&mut self, at: usize) {
        let members = self.initial_cluster();
        self.launch(at, &members, "existing");
    }

    /// `kill -9`.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.servers[at].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn signal(&self, at: usize, signal: &str) {
        let process = self.servers[at].process.as_ref().unwrap();
        let status = Command::new("kill").args([signal, &process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// It stands still when this returns: a signal alone says only that it will.
    pub fn freeze(&self, at: usize) {
        self.signal(at, "-STOP");
        let process = self.servers[at].process.as_ref().unwrap().id();
        let stopped = || {
            let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
            threads.flatten().all(|thread| {
                let stat = std::fs::read_to_string(thread.path().join("stat"));
                stat.is_ok_and(|stat| stat.rsplit(')').next().unwrap().starts_with(" T"))
            })
        };
        while !stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn thaw(&self, at: usize) {
        self.signal(at, "-CONT");
    }

    /// Asks it to stop, and waits for it. Its exit code.
    pub fn terminate(&mut self, at: usize) -> Option<i32> {
        self.signal(at, "-TERM");
        let mut process = self.servers[at].process.take().unwrap();
        process.wait().unwrap().code()
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self, at: usize) -> Option<i32> {
        let mut process = self.servers[at].process.take().unwrap();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = process.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = process.kill();
        let _ = process.wait();
        panic!("{} goes on:\n{}", self.servers[at].name, self.log(at));
    }

    pub fn is_running(&mut self, at: usize) -> bool {
        let process = self.servers[at].process.as_mut();
        process.is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    pub fn log(&self, at: usize) -> String {
        let path = self.folder.0.join(format!("{}.log", self.servers[at].name));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    pub fn data(&self, at: usize) -> &Path {
        &self.servers[at].data
    }

    pub async fn client<C: Client>(&self, at: usize) -> C {
        let url = &self.servers[at].client_url;
        let begun = Instant::now();
        loop {
            match C::connect(url).await {
                Ok(client) => return client,
                Err(why) if begun.elapsed() > PATIENCE => {
                    panic!("{url}: {why}\n{}", self.log(at));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Waits until every server that runs answers a linearizable read.
    pub async fn ready<C: Client>(&mut self) {
        for at in 0..self.servers.len() {
            if self.servers[at].process.is_none() {
                continue;
            }
            let begun = Instant::now();
            loop {
                assert!(
                    self.is_running(at),
                    "{} has ended:\n{}",
                    self.servers[at].name,
                    self.log(at)
                );
                let client = self.client::<C>(at).await;
                let read = client.get(Query::key("ready?"));
                match tokio::time::timeout(Duration::from_secs(2), read).await {
                    Ok(Ok(_)) => break,
                    last if begun.elapsed() > PATIENCE => panic!("{last:?}\n{}", self.log(at)),
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        }
    }

    /// The number of the server that leads.
    pub async fn leader<C: Client>(&mut self) -> usize {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            for at in 0..self.servers.len() {
                if !self.is_running(at) {
                    continue;
                }
                let Ok(client) = C::connect(&self.servers[at].client_url).await else { continue };
                let status = tokio::time::timeout(Duration::from_secs(1), client.status()).await;
                if let Ok(Ok(status)) = status
                    && status.leader == status.member
                {
                    return at;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody leads");
    }

    /// Some server that runs and is not this one.
    pub fn other(&mut self, than: usize) -> usize {
        (0..self.servers.len()).find(|at| *at != than && self.is_running(*at)).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.servers.len() {
            if std::thread::panicking() {
                let log = self.log(at);
                let end: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("---- {} ----", self.servers[at].name);
                end.iter().rev().for_each(|line| eprintln!("{line}"));
            }
            self.kill(at);
        }
    }
}

/// Waits until it is so.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
