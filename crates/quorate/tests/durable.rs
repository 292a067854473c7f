//! State machines that keep their data on disk.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use quorate::{
    Applied, Batch, Durable, DurableStateMachine, Flush, InProcess, Index, Node, Opened, Restore,
    Snapshot, StopReason,
};
use support::{Scratch, until};

/// What a transaction has written.
#[derive(Clone, Default)]
struct Contents {
    tally: BTreeMap<u64, u64>,
    applied: quorate::LogId,
    library: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A database whose transactions are durable only after a flush.
#[derive(Clone, Default)]
struct Database {
    live: Arc<Mutex<Contents>>,
    durable: Arc<Mutex<Contents>>,
    /// Held while the disk is busy.
    disk: Arc<Mutex<()>>,
}

impl Database {
    fn live(&self) -> Contents {
        self.live.lock().unwrap().clone()
    }

    /// A power cut: what was not flushed is gone.
    fn crash(&self) -> Self {
        let durable = self.durable.lock().unwrap().clone();
        let live = Arc::new(Mutex::new(durable.clone()));
        Self { live, durable: Arc::new(Mutex::new(durable)), disk: Arc::default() }
    }
}

impl DurableStateMachine for Database {
    type Command = u64;
    type Reply = u64;

    fn open(&mut self) -> io::Result<Opened> {
        let Contents { applied, library, .. } = self.live();
        let library = library
            .into_iter()
            .map(|(key, value)| quorate::LibraryRow { key, value: Some(value) })
            .collect();
        Ok(Opened { applied, library })
    }

    fn apply(&mut self, mut batch: Batch<'_, u64, u64>) -> io::Result<Applied> {
        let mut contents = self.live();
        for number in batch.take_commands() {
            let count = contents.tally.entry(number).or_default();
            *count += 1;
            batch.reply(*count);
        }
        let applied = batch.finish();
        contents.applied = applied.at();
        for row in applied.library() {
            match &row.value {
                Some(value) => contents.library.insert(row.key.clone(), value.clone()),
                None => contents.library.remove(&row.key),
            };
        }
        *self.live.lock().unwrap() = contents;
        Ok(applied)
    }

    fn flush(&mut self) -> io::Result<Flush> {
        let (live, durable) = (self.live(), Arc::clone(&self.durable));
        let disk = Arc::clone(&self.disk);
        Ok(Flush::job(move || {
            let _turn = disk.lock().unwrap();
            let applied = live.applied.index;
            *durable.lock().unwrap() = live;
            Ok(applied)
        }))
    }

    fn snapshot(&self) -> io::Result<Snapshot> {
        Ok(Snapshot::of(self.live().tally))
    }

    fn restore(&mut self, restore: Restore<'_>) -> io::Result<()> {
        let tally = quorate::read_snapshot(restore.reader)?;
        let rows = restore.library.into_iter();
        let library = rows.filter_map(|row| Some((row.key, row.value?))).collect();
        let contents = Contents { tally, applied: restore.at, library };
        *self.live.lock().unwrap() = contents.clone();
        *self.durable.lock().unwrap() = contents;
        Ok(())
    }
}

async fn start(
    id: u64,
    members: u64,
    database: &Database,
    directory: &Path,
    network: &InProcess,
) -> Node<Durable<Database>> {
    Node::builder(id, Durable(database.clone()))
        .data_dir(directory.join(id.to_string()))
        .members((1..=members).map(|id| (id, "")))
        .in_process(network)
        .tune(|tuning| {
            tuning.core.election_timeout_min_us = 300_000;
            tuning.core.election_timeout_max_us = 600_000;
            tuning.node.compact_entries = 200;
            tuning.node.keep_entries = 50;
            tuning.node.keep_for_followers = 100;
        })
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_holds_across_a_crash_of_the_database() {
    let (scratch, network) = (Scratch::new(), InProcess::new());
    let database = Database::default();
    let node = start(1, 1, &database, &scratch.0, &network).await;
    let session = node.session().await.unwrap();
    for number in 0..50 {
        assert_eq!(session.propose(number).await.unwrap(), 1);
    }
    until("some of it is durable", async || {
        database.durable.lock().unwrap().applied.index >= Index(50)
    })
    .await;
    // These are in the log, and not in what survives of the database.
    let survives = database.crash();
    for number in 50..80 {
        assert_eq!(session.propose(number).await.unwrap(), 1);
    }
    node.stop().await;

    let node = start(1, 1, &survives, &scratch.0, &network).await;
    let session = session.via(&node.handle());
    assert_eq!(session.propose(80).await.unwrap(), 1, "the session is known");
    let tally = node.read(|database| database.live().tally).await.unwrap();
    assert_eq!(tally, (0..=80).map(|number| (number, 1)).collect());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::await_holding_lock, reason = "the lock is the disk that is busy")]
async fn a_flush_that_takes_long_delays_no_command() {
    let (scratch, network) = (Scratch::new(), InProcess::new());
    let database = Database::default();
    let node = start(1, 1, &database, &scratch.0, &network).await;
    let busy = database.disk.lock().unwrap();
    let session = node.session().await.unwrap();
    for number in 0..600 {
        assert_eq!(session.propose(number).await.unwrap(), 1);
    }
    let begun = database.durable.lock().unwrap().applied;
    assert_eq!(begun.index, Index(0), "nothing is durable yet");
    let compacted = node.status().await.unwrap().compacted.index;
    assert_eq!(compacted, Index(0), "so the log is not cut");
    drop(busy);
    until("the log is cut", async || node.status().await.unwrap().compacted.index > Index(0)).await;
    node.shutdown().await;
    assert!(database.durable.lock().unwrap().applied.index >= Index(600), "the end waits for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_fails_stops_the_node() {
    let (scratch, network) = (Scratch::new(), InProcess::new());
    let database = Database::default();
    let node = start(1, 1, &database, &scratch.0, &network).await;
    // Whoever panics with the lock held breaks it.
    let disk = Arc::clone(&database.disk);
    let _ = std::thread::spawn(move || {
        let _held = disk.lock().unwrap();
        panic!("on purpose");
    })
    .join();
    let _ = node.propose(1).await;
    match node.stopped().await {
        StopReason::Panicked { operation, .. } => assert_eq!(operation, "flush"),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_cut_behind_what_is_durable_and_a_late_node_gets_a_snapshot() {
    let (scratch, network) = (Scratch::new(), InProcess::new());
    let databases = [Database::default(), Database::default(), Database::default()];
    let mut nodes = Vec::new();
    for (id, database) in (1..).zip(&databases) {
        nodes.push(start(id, 3, database, &scratch.0, &network).await);
    }
    let session = nodes[0].session().await.unwrap();
    session.propose(0).await.unwrap();
    nodes.pop().unwrap().stop().await;
    let after = databases[2].live().applied;
    for number in 0..600 {
        session.propose(number).await.unwrap();
    }
    for (node, database) in nodes.iter().zip(&databases) {
        until("the log is cut", async || {
            node.status().await.unwrap().compacted.index > after.index
        })
        .await;
        let compacted = node.status().await.unwrap().compacted.index;
        assert!(database.durable.lock().unwrap().applied.index >= compacted);
    }
    let late = start(3, 3, &databases[2], &scratch.0, &network).await;
    let tally = late.read(|database| database.live().tally).await.unwrap();
    assert_eq!(tally, nodes[0].read(|database| database.live().tally).await.unwrap());
    assert!(late.metrics().snapshots_installed >= 1);
    assert_eq!(databases[2].live().library, databases[0].live().library, "sessions, too");
    // It starts from what was installed.
    late.stop().await;
    let late = start(3, 3, &databases[2].crash(), &scratch.0, &network).await;
    assert_eq!(late.read(|database| database.live().tally).await.unwrap(), tally);
    assert_eq!(session.propose(1_000).await.unwrap(), 1);
    nodes.push(late);
    for node in nodes {
        node.stop().await;
    }
}
