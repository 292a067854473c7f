//! One simulated host: a disk and a state machine that outlive the process, and the process.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_node::{Event, Node};
use quorate_raft::{
    Config, Entry, Incarnation, LogId, NodeId, RequestId, Seq, SnapshotMeta, Status, Time,
};

use super::clock::Clock;
use super::observation::{Brief, StartFailure};
use super::options::HostOptions;
use crate::state_machine::StateMachine;
use crate::storage::{Crash, Storage};

/// One host, as an omniscient observer sees it.
#[derive(Debug)]
pub struct Host {
    pub(super) id: NodeId,
    pub(super) config: Config,
    pub(super) options: HostOptions,
    pub(super) clock: Clock,
    pub(super) storage: Box<dyn Storage>,
    pub(super) machine: Box<dyn StateMachine>,
    /// The snapshot that was fetched last, in a file. It is there before the log is reset for it,
    /// so a crash between that and the state machine's taking it can be made good.
    pub(super) received: Option<(LogId, Bytes)>,
    /// How often this data directory was started.
    pub(super) life: u64,
    /// Grows with every crash and start. What was scheduled for an earlier epoch is void.
    pub(super) epoch: u64,
    pub(super) process: Option<Process>,
    pub(super) recovering: bool,
    pub(super) start_error: Option<StartFailure>,
    pub(super) paused: bool,
    /// The disk completes nothing until then.
    pub(super) stalled_until: Time,
    /// The disk completes nothing until it is told to.
    pub(super) disk_held: bool,
    /// The state machine does nothing until it is told to.
    pub(super) machine_held: bool,
    /// Fetches end only when told to.
    pub(super) fetch_held: bool,
    /// Dies after so many actions of its next step that has any.
    pub(super) doomed: Option<(usize, Crash)>,
}

/// What a crash takes away.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) node: Node,
    pub(super) brief: Brief,
    /// Events that wait: the process is frozen, or works in batches.
    pub(super) inbox: VecDeque<Event>,
    /// When the node wants to be woken, in global time.
    pub(super) wake_at: Option<Time>,
    /// Writes that are not durable yet, in order.
    pub(super) writes: VecDeque<PendingWrite>,
    /// How many of them the sync under way makes durable; zero: none is under way.
    pub(super) syncing: usize,
    /// Counts the moments at which the end of a sync was set; only the last one counts.
    pub(super) syncs: u64,
    /// The disk is full, and it will be tried again.
    pub(super) disk_waits: bool,
    /// Work for the state machine, in order.
    pub(super) work: VecDeque<Work>,
    pub(super) working: bool,
    pub(super) flush_scheduled: bool,
    pub(super) fetch: Option<Fetch>,
    pub(super) fetches: u64,
    /// The finished snapshot for others.
    pub(super) spooled: Option<(LogId, Bytes)>,
    /// The snapshot that is being written.
    pub(super) spooling: Option<(LogId, Bytes)>,
    /// Requests without an answer yet; reads with their query.
    pub(super) requests: BTreeMap<RequestId, Option<Bytes>>,
}

/// A write that is not durable yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PendingWrite {
    /// What to report; a compaction has nothing.
    pub(super) seq: Option<Seq>,
    /// The snapshot that it puts into place.
    pub(super) install: Option<LogId>,
}

/// Work for the state machine.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Work {
    Apply(Vec<Entry>),
    Spool,
    /// Waits for the disk to put the snapshot into place.
    Install,
}

/// A fetch under way.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Fetch {
    pub(super) serial: u64,
    pub(super) from: NodeId,
    pub(super) snapshot: SnapshotMeta,
}

impl Process {
    pub(super) fn new(node: Node) -> Self {
        let brief = Brief::of(&node);
        Self {
            node,
            brief,
            inbox: VecDeque::new(),
            wake_at: None,
            writes: VecDeque::new(),
            syncing: 0,
            syncs: 0,
            disk_waits: false,
            work: VecDeque::new(),
            working: false,
            flush_scheduled: false,
            fetch: None,
            fetches: 0,
            spooled: None,
            spooling: None,
            requests: BTreeMap::new(),
        }
    }
}

impl Host {
    /// The node's name.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// Its data directory.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.config.incarnation
    }

    /// How often this data directory was started.
    #[must_use]
    pub const fn life(&self) -> u64 {
        self.life
    }

    /// The node, if its process runs, frozen or not.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.process.as_ref().map(|process| &process.node)
    }

    /// Whether the process runs, frozen or not.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it is on its way up.
    #[must_use]
    pub const fn is_recovering(&self) -> bool {
        self.recovering
    }

    /// Whether the process is frozen.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Why it could not start, if that is why it is down.
    #[must_use]
    pub const fn start_error(&self) -> Option<&StartFailure> {
        self.start_error.as_ref()
    }

    /// The log: `written()` is what the process sees, `durable()` what survives anything.
    #[must_use]
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// The state machine. It stays visible while the host is down.
    #[must_use]
    pub fn state_machine(&self) -> &dyn StateMachine {
        &*self.machine
    }

    /// The finished snapshot that it holds for others.
    #[must_use]
    pub fn spooled(&self) -> Option<LogId> {
        self.process.as_ref()?.spooled.as_ref().map(|(id, _)| *id)
    }

    /// The snapshot that it is fetching, and from where.
    #[must_use]
    pub fn fetching(&self) -> Option<(NodeId, LogId)> {
        self.process.as_ref()?.fetch.as_ref().map(|fetch| (fetch.from, fetch.snapshot.id))
    }

    /// Requests that it has not answered.
    #[must_use]
    pub fn open_requests(&self) -> usize {
        self.process.as_ref().map_or(0, |process| process.requests.len())
    }

    /// The status of the node, if it runs.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.node().map(|node| node.raft().status())
    }

    /// How the node looks, if it runs. Costs nothing.
    #[must_use]
    pub fn brief(&self) -> Option<&Brief> {
        self.process.as_ref().map(|process| &process.brief)
    }

    /// How fast it is.
    #[must_use]
    pub const fn options(&self) -> &HostOptions {
        &self.options
    }

    /// Core settings, used from the next start on.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How much faster than true its clock runs, in parts per million.
    #[must_use]
    pub const fn drift_ppm(&self) -> i32 {
        self.clock.drift_ppm()
    }

    /// Until when its disk completes nothing.
    #[must_use]
    pub const fn stalled_until(&self) -> Time {
        self.stalled_until
    }
}
