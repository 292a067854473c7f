//! A leader whose disk stalls or is full makes way for another one, and comes back.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use quorate::{InProcess, Node, ProposeError};
use quorate_wal::{Disk, MemoryDisk};
use support::disk::{Hook, Hooked, Operation};
use support::store::{KEYS, Put, Recorder, Store};
use support::{Scratch, hears, leader, stop_all, until};

/// Ends the trouble when a test fails in the middle of it, so that the test can end.
struct AtLast<'a>(&'a [Stalling]);

impl Drop for AtLast<'_> {
    fn drop(&mut self) {
        for disk in self.0 {
            disk.gate.open();
            disk.disk.set_space(None);
        }
    }
}

/// A disk in memory, whose syncs can be held up.
#[derive(Clone, Default)]
struct Stalling {
    disk: MemoryDisk,
    gate: Arc<Gate>,
}

impl Stalling {
    fn hooked(&self) -> Arc<dyn Disk> {
        let gate = Arc::clone(&self.gate);
        let hook: Hook = Arc::new(move |operation| match operation {
            Operation::Sync => gate.pass(),
            Operation::Change => {}
        });
        Arc::new(Hooked { disk: self.disk.clone(), hook })
    }
}

#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().unwrap();
        drop(self.opened.wait_while(closed, |closed| *closed).unwrap());
    }
}

/// Three nodes, under load by a client at each of the others than the one that leads; `trouble`
/// comes over the leader's disk and ends, as told by its second argument.
async fn a_leader_in_trouble(trouble: impl Fn(&Stalling, bool), said: &str) -> u64 {
    let (network, scratch) = (InProcess::new(), Scratch::new());
    let disks = [Stalling::default(), Stalling::default(), Stalling::default()];
    let _at_last = AtLast(&disks);
    let mut nodes = Vec::new();
    for (id, disk) in (1..).zip(&disks) {
        let node = Node::builder(id, Store::default())
            .data_dir(scratch.of(id))
            .log_disk(disk.hooked())
            .members([(1, ""), (2, ""), (3, "")])
            .in_process(&network)
            .tune(|tuning| {
                tuning.core.election_timeout_min_us = 500_000;
                tuning.core.election_timeout_max_us = 1_000_000;
                tuning.core.disk_stall_timeout_us = 1_500_000;
                tuning.segment_bytes = 256 << 10;
                tuning.leader_wait = Duration::from_millis(300);
            })
            .start()
            .await
            .unwrap();
        nodes.push(node);
    }
    let all: Vec<_> = nodes.iter().collect();
    let old = leader(&all).await;
    let disk = &disks[old.id().0 as usize - 1];
    let rest: Vec<_> = all.iter().copied().filter(|node| node.id() != old.id()).collect();
    let (recorder, done) = (Arc::new(Recorder::new()), Arc::new(AtomicBool::new(false)));
    let mut clients = Vec::new();
    for node in &rest {
        let (handle, session) = (node.handle(), node.session().await.unwrap());
        let (recorder, done) = (Arc::clone(&recorder), Arc::clone(&done));
        clients.push(tokio::spawn(async move {
            let id = handle.id().0;
            let mut turn = id;
            while !done.load(Ordering::Relaxed) {
                turn += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
                recorder.propose_in(id, &session, turn % KEYS).await.unwrap();
                let _ = recorder.read(id, &handle, turn % KEYS).await;
            }
        }));
    }
    let more = async |count: u64| {
        let goal = recorder.acknowledged() + count;
        until("clients go on", async || recorder.acknowledged() >= goal).await;
    };
    more(50).await;

    let (mut events, mut down) = (old.events(), old.events());
    trouble(disk, true);
    hears(&mut events, said).await;
    let why = hears(&mut down, "gave up leading").await;
    assert!(why.contains("its disk is stalled"), "{why}");
    let new = leader(&rest).await;
    assert_ne!(new.id(), old.id());
    more(50).await;
    // It says nothing that its disk does not know.
    let behind = old.applied();
    until("the others go ahead", async || new.applied().0 > behind.0 + 20).await;
    let (seen, _) = old.read_with(quorate::Consistency::Local, |store| store.get(0)).await.unwrap();
    assert!(seen.is_some());
    let stalls = old.metrics().disk_stalls;

    trouble(disk, false);
    until("it is back", async || old.applied() >= new.applied()).await;
    more(50).await;
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    // It may lead again.
    until("it takes over", async || {
        leader(&all).await.transfer(old.id().0).await.is_ok() || old.leader().0 == Some(old.id())
    })
    .await;
    let executed = old.read(|store| store.executed().clone()).await.unwrap();
    recorder.judge(&executed);
    stop_all(nodes).await;
    stalls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_stalls_gives_up_and_says_so() {
    let trouble = |disk: &Stalling, begins: bool| match begins {
        true => disk.gate.close(),
        false => disk.gate.open(),
    };
    let stalls = a_leader_in_trouble(trouble, "the disk takes").await;
    assert!(stalls > 0, "the metric counts it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_gives_up_and_comes_back_with_room() {
    let trouble = |disk: &Stalling, begins: bool| disk.disk.set_space(begins.then_some(0));
    a_leader_in_trouble(trouble, "the disk is full").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_is_full_stops_nobody() {
    let (network, scratch) = (InProcess::new(), Scratch::new());
    let disks = [Stalling::default(), Stalling::default(), Stalling::default()];
    let mut nodes = Vec::new();
    for (id, disk) in (1..).zip(&disks) {
        let node = Node::builder(id, Store::default())
            .data_dir(scratch.of(id))
            .log_disk(disk.hooked())
            .members([(1, ""), (2, ""), (3, "")])
            .in_process(&network)
            .tune(|tuning| tuning.segment_bytes = 256 << 10)
            .start()
            .await
            .unwrap();
        nodes.push(node);
    }
    let all: Vec<_> = nodes.iter().collect();
    let first = leader(&all).await;
    let full = all.iter().copied().find(|node| node.id() != first.id()).unwrap();
    let disk = &disks[full.id().0 as usize - 1].disk;
    let mut events = full.events();
    disk.set_space(Some(0));
    let session = first.session().await.unwrap();
    let mut value = 0;
    until("the disk is full", async || {
        for _ in 0..500 {
            value += 1;
            session.propose(Put { key: 0, value }).await.unwrap();
        }
        full.metrics().disk_full > 0
    })
    .await;
    hears(&mut events, "the disk is full").await;
    assert!(full.propose(Put { key: 0, value: 0 }).await == Err(ProposeError::NoSpace));
    disk.set_space(None);
    hears(&mut events, "the disk has room again").await;
    assert_eq!(full.read(|store| store.get(0)).await.unwrap(), Some(value));
    stop_all(nodes).await;
}

/// A directory in which nothing can be written, for as long as this lives.
struct Spoiled {
    place: PathBuf,
    aside: PathBuf,
}

impl Spoiled {
    fn new(place: PathBuf) -> Self {
        let aside = place.with_extension("aside");
        std::fs::rename(&place, &aside).unwrap();
        std::fs::write(&place, "not a directory").unwrap();
        Self { place, aside }
    }
}

impl Drop for Spoiled {
    fn drop(&mut self) {
        std::fs::remove_file(&self.place).unwrap();
        std::fs::rename(&self.aside, &self.place).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_that_cannot_be_written_or_fetched_are_told_and_tried_again() {
    let (network, scratch) = (InProcess::new(), Scratch::new());
    let start = async |id: u64| {
        Node::builder(id, Store::default())
            .data_dir(scratch.of(id))
            .members([(1, ""), (2, ""), (3, "")])
            .in_process(&network)
            .tune(|tuning| {
                tuning.core.election_timeout_min_us = 300_000;
                tuning.core.election_timeout_max_us = 600_000;
                tuning.segment_bytes = 256 << 10;
                tuning.snapshot_entries = 50;
                tuning.node.compact_entries = 20;
                tuning.node.keep_entries = 5;
                tuning.node.keep_for_followers = 0;
                // It is to stop at any time.
                tuning.node.keep_for_transfer = 0;
            })
            .start()
            .await
            .unwrap()
    };
    let mut nodes = vec![start(1).await, start(2).await];
    let session = nodes[0].session().await.unwrap();
    let mut value = 0;
    let mut propose = async |count: u64| {
        for _ in 0..count {
            value += 1;
            session.propose(Put { key: 0, value }).await.unwrap();
        }
        value
    };
    let spoiled = Spoiled::new(scratch.of(1).join("snapshots"));
    let mut events = nodes[0].events();
    until("no snapshot can be written", async || {
        propose(10).await;
        nodes[0].metrics().snapshots_failed > 0
    })
    .await;
    hears(&mut events, "no snapshot could be written").await;
    assert_eq!(nodes[0].status().await.unwrap().compacted.index.0, 0, "the log is all there is");
    drop(spoiled);
    for node in &nodes {
        until("the log is cut", async || {
            propose(10).await;
            node.status().await.unwrap().compacted.index.0 > 10
        })
        .await;
    }

    let late = start(3).await;
    until("it has come by a snapshot", async || late.metrics().snapshots_installed > 0).await;
    late.stop().await;
    // It needs another one, and cannot store it.
    let behind = nodes[0].applied();
    for node in &nodes {
        until("the log is cut", async || {
            propose(10).await;
            node.status().await.unwrap().compacted.index > behind
        })
        .await;
    }
    let late = start(3).await;
    let spoiled = Spoiled::new(scratch.of(3).join("snapshots"));
    let mut events = late.events();
    hears(&mut events, "could not be fetched").await;
    assert_eq!(late.metrics().snapshots_installed, 0);
    drop(spoiled);
    hears(&mut events, "installed snapshot").await;
    let last = propose(1).await;
    assert_eq!(late.read(|store| store.get(0)).await.unwrap(), Some(last));
    nodes.push(late);
    stop_all(nodes).await;
}
