//! What a cluster makes of disks that fail, fill up, forget and rot.

use bytes::Bytes;
use quorate_node::{Executed, Reply};
use quorate_raft::{LogId, NodeId, Time};
use quorate_sim::cluster::{Cluster, Host, Observed, Options, StartFailure};
use quorate_sim::disk_log::DiskOptions;
use quorate_sim::storage::{Crash, DiskFault, DiskNews};

/// A cluster on simulated disks, and what it has acknowledged.
struct Story {
    cluster: Cluster,
    acknowledged: Vec<LogId>,
    news: Vec<(NodeId, DiskNews)>,
    /// Nodes that were leaders, in the order in which they began.
    stopped: Vec<NodeId>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let disk = Some(DiskOptions { segment_bytes: 16 << 10, ..DiskOptions::default() });
        let cluster = Cluster::new(Options { disk, ..Options::new(seed, 3) });
        let mut story =
            Self { cluster, acknowledged: Vec::new(), news: Vec::new(), stopped: Vec::new() };
        story.run(3_000_000);
        story
    }

    /// Lets time pass.
    fn run(&mut self, us: u64) {
        let until = self.cluster.now().after(us);
        while self.cluster.next_event_at().is_some_and(|at| at <= until) {
            self.cluster.step();
            for observation in self.cluster.take_observations() {
                match observation.what {
                    Observed::Answered {
                        reply: Reply::Proposed(Ok(Executed { at, .. })), ..
                    } => {
                        self.acknowledged.push(at);
                    }
                    Observed::Disk(news) => self.news.push((observation.node, news)),
                    Observed::Crashed { .. } => self.stopped.push(observation.node),
                    _ => {}
                }
            }
        }
        self.cluster.run_until(until);
    }

    /// Asks for a command to be executed, whoever leads. Returns whether it was.
    fn propose(&mut self) -> bool {
        let before = self.acknowledged.len();
        if let Some(leader) = self.cluster.leader() {
            self.cluster.propose(leader, Bytes::from(format!("put {} {before}", before % 7)));
        }
        self.run(20_000);
        self.acknowledged.len() > before
    }

    /// Has so many commands executed. There is a leader, or will be soon.
    fn execute(&mut self, count: usize) {
        let tries = 20 * 50;
        let executed = (0..tries).filter(|_| self.propose()).take(count).count();
        assert_eq!(executed, count, "20 seconds were not enough");
    }

    fn leader(&self) -> NodeId {
        self.cluster.leader().expect("a leader")
    }

    fn has_news(&self, node: NodeId, news: DiskNews) -> bool {
        self.news.contains(&(node, news))
    }

    fn is_damaged(&self, node: NodeId) -> bool {
        let host = self.cluster.host(node);
        host.and_then(Host::start_error)
            .is_some_and(|error| matches!(error, StartFailure::Damaged(_)))
    }

    /// Everything that was acknowledged is in the log or the snapshot of every running node.
    fn nothing_is_lost(&self) {
        let running = self.cluster.hosts().filter(|host| host.is_up());
        for host in running {
            let log = host.storage().durable();
            for at in &self.acknowledged {
                let has = at.index <= log.start.id.index || log.term_at(at.index) == Some(at.term);
                assert!(has, "n{} does not have {at}", host.id());
            }
        }
    }
}

#[test]
fn everything_loses_power_at_once() {
    for seed in 0..20 {
        let mut story = Story::new(seed);
        story.execute(40);
        for _ in 0..3 {
            for node in story.cluster.nodes() {
                story.cluster.crash(node, Crash::PowerCut);
                story.cluster.restart(node);
            }
            story.execute(20);
        }
        story.run(1_000_000);
        story.nothing_is_lost();
    }
}

#[test]
fn a_leader_whose_sync_fails_stops_and_another_takes_over() {
    let mut story = Story::new(1);
    let leader = story.leader();
    story.cluster.inflict_on_disk(leader, DiskFault::FailSync);
    story.propose();
    assert_eq!(story.stopped, [leader]);
    assert!(story.has_news(leader, DiskNews::SyncFailed));
    story.run(3_000_000);
    assert_ne!(story.leader(), leader);
    story.execute(10);
    // What the failed sync left in the page cache, and only there, must not be believed.
    story.cluster.restart(leader);
    story.run(1_000_000);
    story.cluster.crash(leader, Crash::PowerCut);
    story.cluster.restart(leader);
    story.run(3_000_000);
    story.nothing_is_lost();
}

#[test]
fn a_full_disk_passes() {
    let mut story = Story::new(2);
    let leader = story.leader();
    story.cluster.inflict_on_disk(leader, DiskFault::Full { left: 0 });
    // It can still use what it has prepared; then it cannot write, and gives up leadership.
    for _ in 0..200 {
        story.propose();
    }
    story.run(5_000_000);
    assert!(story.has_news(leader, DiskNews::Full));
    assert_eq!(story.stopped, [], "no space is no reason to stop");
    assert_ne!(story.leader(), leader);
    story.execute(10);
    story.cluster.inflict_on_disk(leader, DiskFault::Mend);
    story.run(3_000_000);
    story.execute(10);
    story.run(1_000_000);
    story.nothing_is_lost();
}

#[test]
fn a_stalled_disk_passes() {
    let mut story = Story::new(3);
    let leader = story.leader();
    let until = story.cluster.now().after(180_000_000);
    story.cluster.stall_disk(leader, until);
    story.propose();
    story.run(5_000_000);
    assert_ne!(story.leader(), leader, "it leads nobody whose disk does nothing");
    story.execute(10);
    story.run(200_000_000);
    story.execute(10);
    story.run(1_000_000);
    story.nothing_is_lost();
}

/// One log of three rots, in many ways: its node refuses to start, if it is affected at all, and the
/// others have everything.
#[test]
fn rot_on_one_of_three() {
    let mut refused = 0;
    for seed in 0..60 {
        let mut story = Story::new(seed);
        story.execute(30);
        let victim = NodeId(seed % 3 + 1);
        assert!(story.cluster.inflict_on_disk(victim, DiskFault::Rot), "seed {seed}");
        story.cluster.crash(victim, Crash::PowerCut);
        story.cluster.restart(victim);
        story.run(5_000_000);
        refused += u32::from(story.is_damaged(victim));
        story.execute(10);
        story.run(1_000_000);
        story.nothing_is_lost();
    }
    assert!(refused > 20, "only {refused} of 60 were noticed");
}

/// All copies rot. Nobody may start who is affected, and without two of three nobody leads: what is
/// lost stays missed, and nothing else is told instead.
#[test]
fn rot_on_all_copies() {
    let mut quorums_lost = 0;
    for seed in 0..40 {
        let mut story = Story::new(seed);
        story.execute(30);
        for node in story.cluster.nodes() {
            for _ in 0..4 {
                story.cluster.inflict_on_disk(node, DiskFault::Rot);
            }
        }
        for node in story.cluster.nodes() {
            story.cluster.crash(node, Crash::PowerCut);
            story.cluster.restart(node);
        }
        story.run(10_000_000);
        let damaged = story.cluster.nodes().into_iter().filter(|node| story.is_damaged(*node));
        if damaged.count() >= 2 {
            quorums_lost += 1;
            assert_eq!(story.cluster.leader(), None, "seed {seed}");
            assert!(!story.propose());
        }
        story.nothing_is_lost();
    }
    assert!(quorums_lost > 20, "only {quorums_lost} of 40");
}

/// A start reads a disk that cannot be read, and is tried again until it can.
#[test]
fn reads_that_fail_are_waited_out() {
    let mut story = Story::new(4);
    story.execute(10);
    let victim = story.leader();
    story.cluster.inflict_on_disk(victim, DiskFault::FailReads(true));
    story.cluster.crash(victim, Crash::Kill);
    story.cluster.restart(victim);
    story.run(5_000_000);
    assert!(story.cluster.host(victim).is_some_and(|host| !host.is_up() && host.is_recovering()));
    story.cluster.inflict_on_disk(victim, DiskFault::Mend);
    story.run(5_000_000);
    assert!(story.cluster.host(victim).is_some_and(Host::is_up));
    story.execute(10);
    story.run(1_000_000);
    story.nothing_is_lost();
    assert!(story.cluster.now() > Time(0));
}
