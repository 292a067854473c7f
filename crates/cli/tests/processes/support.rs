//! Real processes, and what they say.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The program, without what the environment would tell it.
pub fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    for (name, _) in std::env::vars() {
        if name.starts_with("ETCD") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    quorate().args(arguments).output().unwrap()
}

/// What the program printed.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What the program complained about.
pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Ports that were free a moment ago.
pub fn ports<const COUNT: usize>() -> [u16; COUNT] {
    let held: [TcpListener; COUNT] =
        std::array::from_fn(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// A process that goes when this goes.
pub struct Process {
    pub child: Child,
    lines: Receiver<String>,
    /// All lines so far.
    pub seen: Vec<String>,
}

impl Process {
    /// Starts it, listening to what it writes to the standard error output, or to the other one.
    pub fn start(mut command: Command, errors: bool) -> Self {
        if errors {
            command.stderr(Stdio::piped()).stdout(Stdio::null());
        } else {
            command.stdout(Stdio::piped()).stderr(Stdio::null());
        }
        let mut child = command.spawn().unwrap();
        let output: Box<dyn Read + Send> = if errors {
            Box::new(child.stderr.take().unwrap())
        } else {
            Box::new(child.stdout.take().unwrap())
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that contains `text`, and gives it back.
    pub fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(why) => {
                    let seen = self.seen.join("\n");
                    let what = match why {
                        RecvTimeoutError::Timeout => "did not come",
                        RecvTimeoutError::Disconnected => "had not come when the process ended",
                    };
                    panic!("{text:?} {what}; there was\n{seen}");
                }
            }
        }
    }

    /// Takes the lines that are there.
    pub fn poll(&mut self) {
        self.seen.extend(self.lines.try_iter());
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(200)) {
                    self.seen.push(line);
                }
                return status;
            }
            assert!(Instant::now() < end, "it does not end; there was\n{}", self.seen.join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server.
pub struct Server {
    pub process: Process,
    pub client_port: u16,
}

impl Server {
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Waits until it serves.
    pub fn ready(&mut self) {
        self.process.wait_for("ready to serve client requests");
    }
}

/// A cluster whose members can be started one by one.
pub struct Cluster {
    pub directory: TempDir,
    client_ports: Vec<u16>,
    peer_ports: Vec<u16>,
}

impl Cluster {
    pub fn new<const MEMBERS: usize>() -> Self {
        // One call, so that no port is given twice.
        let ports: Vec<u16> = ports::<16>().into_iter().take(2 * MEMBERS).collect();
        Self {
            directory: tempfile::tempdir().unwrap(),
            client_ports: ports[..MEMBERS].to_vec(),
            peer_ports: ports[MEMBERS..].to_vec(),
        }
    }

    pub fn data_dir(&self, member: usize) -> PathBuf {
        self.directory.path().join(format!("n{member}"))
    }

    pub fn peer_url(&self, member: usize) -> String {
        format!("http://127.0.0.1:{}", self.peer_ports[member])
    }

    pub fn client_url(&self, member: usize) -> String {
        format!("http://127.0.0.1:{}", self.client_ports[member])
    }

    /// The command that starts a member.
    pub fn command(&self, member: usize) -> Command {
        let cluster: Vec<String> = (0..self.peer_ports.len())
            .map(|member| format!("n{member}={}", self.peer_url(member)))
            .collect();
        let mut command = quorate();
        command
            .arg("serve")
            .args(["--name", &format!("n{member}")])
            .arg("--data-dir")
            .arg(self.data_dir(member))
            .args(["--listen-client-urls", &self.client_url(member)])
            .args(["--advertise-client-urls", &self.client_url(member)])
            .args(["--listen-peer-urls", &self.peer_url(member)])
            .args(["--initial-advertise-peer-urls", &self.peer_url(member)])
            .args(["--initial-cluster", &cluster.join(",")]);
        command
    }

    pub fn start_with(&self, member: usize, command: Command) -> Server {
        Server { process: Process::start(command, true), client_port: self.client_ports[member] }
    }

    pub fn start(&self, member: usize) -> Server {
        self.start_with(member, self.command(member))
    }

    /// Starts all members and waits until they serve.
    pub fn start_all(&self) -> Vec<Server> {
        let mut servers: Vec<Server> =
            (0..self.client_ports.len()).map(|member| self.start(member)).collect();
        servers.iter_mut().for_each(Server::ready);
        servers
    }

    /// All endpoints, for clients.
    pub fn endpoints(&self) -> String {
        self.client_ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect::<Vec<_>>()
            .join(",")
    }

    /// Runs a command against the cluster, which must succeed.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output =
            quorate().args(arguments).env("ETCDCTL_ENDPOINTS", self.endpoints()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// The same, as JSON.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.ctl(&[arguments, &["-w", "json"]].concat());
        serde_json::from_str(&text).unwrap()
    }
}

/// Asks over HTTP: the status and the body.
pub fn http(port: u16, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// The line of a page of metrics that begins with this name, without the name.
pub fn metric(port: u16, name: &str) -> Option<String> {
    let (_, page) = http(port, "GET /metrics");
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
}

/// Waits until something is so.
pub fn eventually(mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "it does not come to be so");
        std::thread::sleep(Duration::from_millis(20));
    }
}
