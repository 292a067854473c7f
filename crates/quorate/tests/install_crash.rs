//! A process that ends itself at every step of putting a snapshot into place. Whatever it leaves
//! behind, the next start makes the same of it.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate::{Builder, Node, Snapshot, StateMachine};
use quorate_wal::{Disk, RealDisk};
use support::disk::{Hook, Hooked};
use support::store::{Put, Store};
use support::{DEADLINE, Scratch, addresses, stop_all, until};

const DYING: &str = "QUORATE_TEST_DYING";
/// What a process ends with that has come to the end of the installation.
const INSTALLED: i32 = 77;

/// Where a process ends itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// When the snapshot begins to arrive.
    Arriving,
    /// When it has its name.
    Arrived,
    /// When half of it is restored.
    Restoring,
    /// When the log is about to do its so many-th operation after all is restored.
    Log(u64),
}

impl Step {
    fn from_text(text: &str) -> Self {
        match text {
            "arriving" => Self::Arriving,
            "arrived" => Self::Arrived,
            "restoring" => Self::Restoring,
            number => Self::Log(number.parse().unwrap()),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Arriving => "arriving".to_owned(),
            Self::Arrived => "arrived".to_owned(),
            Self::Restoring => "restoring".to_owned(),
            Self::Log(number) => number.to_string(),
        }
    }
}

// ---- in the process that dies ----

fn die() -> ! {
    // As by `kill -9`: nothing is written, closed or said.
    std::process::abort();
}

/// A store that dies while it is restored.
struct Dying {
    store: Store,
    step: Step,
    /// Before, it is restored from what it has, and lives.
    running: Arc<AtomicBool>,
    restored: Arc<AtomicBool>,
}

impl StateMachine for Dying {
    type Command = Put;
    type Reply = Option<u64>;

    fn apply(&mut self, commands: Vec<Put>) -> Vec<Option<u64>> {
        self.store.apply(commands)
    }

    fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        if !self.running.load(Ordering::SeqCst) {
            return self.store.restore(snapshot);
        }
        if self.step == Step::Arrived {
            die();
        }
        if self.step == Step::Restoring {
            let _ = snapshot.read(&mut [0; 100])?;
            die();
        }
        self.store.restore(snapshot)?;
        self.restored.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// The disk of the log, on which the process dies at one of the operations after `restored`.
fn last_disk(log: &Path, step: Step, restored: Arc<AtomicBool>) -> Arc<dyn Disk> {
    let left = AtomicU64::new(match step {
        Step::Log(number) => number,
        _ => u64::MAX,
    });
    let hook: Hook = Arc::new(move |_| {
        if restored.load(Ordering::SeqCst) && left.fetch_sub(1, Ordering::SeqCst) == 0 {
            die();
        }
    });
    Arc::new(Hooked { disk: RealDisk::new(log).unwrap(), hook })
}

/// Dies as soon as a snapshot begins to arrive.
fn watch(directory: &Path) {
    loop {
        let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
        if names.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("incoming")) {
            die();
        }
        std::thread::yield_now();
    }
}

/// Not a test but what the process runs that dies: this file again, as the third node.
#[test]
fn node_process() {
    let Ok(arguments) = std::env::var(DYING) else { return };
    let mut arguments = arguments.split(' ');
    let step = Step::from_text(arguments.next().unwrap());
    let directory = Path::new(arguments.next().unwrap()).to_owned();
    let members: Vec<(u64, String)> = (1..).zip(arguments.map(str::to_owned)).collect();
    if step == Step::Arriving {
        let snapshots = directory.join("snapshots");
        std::thread::spawn(move || watch(&snapshots));
    }
    let restored = Arc::new(AtomicBool::new(false));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let disk = last_disk(&directory.join("log"), step, Arc::clone(&restored));
        let running = Arc::new(AtomicBool::new(false));
        let store = Store::default();
        let machine = Dying { store, step, running: Arc::clone(&running), restored };
        let builder = Node::builder(3, machine).data_dir(&directory).members(members);
        let node = tuned(builder.log_disk(disk)).start().await.unwrap();
        running.store(true, Ordering::SeqCst);
        until("a snapshot is installed", async || node.metrics().snapshots_installed > 0).await;
    });
    std::process::exit(INSTALLED);
}

// ---- in the test's process ----

fn tuned<M: quorate::Machine>(builder: Builder<M>) -> Builder<M> {
    builder.tune(|tuning| {
        // A snapshot is offered again after this time.
        tuning.core.election_timeout_min_us = 300_000;
        tuning.core.election_timeout_max_us = 600_000;
        tuning.segment_bytes = 256 << 10;
        tuning.snapshot_entries = 50;
        tuning.node.compact_entries = 20;
        tuning.node.keep_entries = 5;
        tuning.node.keep_for_followers = 0;
        // It dies in the middle of them.
        tuning.node.keep_for_transfer = 0;
    })
}

/// A process; killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(step: Step, directory: &Path, members: &[(u64, String)]) -> Self {
        let addresses: Vec<&str> = members.iter().map(|(_, address)| &**address).collect();
        let arguments = format!("{} {} {}", step.text(), directory.display(), addresses.join(" "));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node_process", "--nocapture", "--test-threads=1"])
            .env(DYING, arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Whether it came to the end of the installation before it ended.
    async fn installed(mut self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code() == Some(INSTALLED);
            }
            assert!(Instant::now() < deadline, "it neither dies nor installs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_step_of_an_installation_is_made_good() {
    let (scratch, members) = (Scratch::new(), addresses(3));
    let start = async |id: u64| {
        let builder = Node::builder(id, Store::default()).data_dir(scratch.of(id));
        tuned(builder.members(members.clone())).start().await.unwrap()
    };
    let nodes = [start(1).await, start(2).await];
    let session = nodes[0].session().await.unwrap();
    let mut value = 0;
    let first = [Step::Arriving, Step::Arrived, Step::Restoring];
    let mut died = 0;
    for step in first.into_iter().chain((0..).map(Step::Log)) {
        // Ahead of what the third one has, by more than the logs go back.
        let before = nodes[0].applied();
        for node in &nodes {
            until("the log is cut", async || {
                for _ in 0..20 {
                    value += 1;
                    session.propose(Put { key: value % 4, value }).await.unwrap();
                }
                node.status().await.unwrap().compacted.index > before
            })
            .await;
        }
        let installed = Process::start(step, &scratch.of(3), &members).installed().await;
        let third = start(3).await;
        let expected = nodes[0].read(|store| store.executed().clone()).await.unwrap();
        let executed = third.read(|store| store.executed().clone()).await.unwrap();
        assert!(executed == expected, "after a crash at {step:?}");
        third.stop().await;
        if installed && matches!(step, Step::Log(_)) {
            break;
        }
        died += u64::from(!installed);
        assert!(died < 100, "an installation has an end");
    }
    println!("died {died} times");
    assert!(died > 5, "it died {died} times only");
    stop_all(nodes).await;
}
