//! What a cluster is made of.

use quorate_node::Settings;
use quorate_raft::{ClusterId, Config, Incarnation, NodeId};

use crate::disk_log::DiskOptions;
use crate::network::{Delay, LinkOptions};

/// What a cluster is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Voters at the start, called 1, 2, 3 ...
    pub voters: u64,
    /// Learners at the start, called on from there.
    pub learners: u64,
    /// Whether the first configuration knows the incarnations of its members already.
    pub bound: bool,
    /// Lease in the first configuration, in microseconds; `None`: off.
    pub lease_us: Option<u64>,
    /// Feature level of the first configuration.
    pub feature_level: u32,
    /// Settings of every core; cluster, node and incarnation are filled in per host.
    pub config: Config,
    /// Settings of every node.
    pub settings: Settings,
    /// How links behave.
    pub link: LinkOptions,
    /// What happens by itself.
    pub mode: Mode,
    /// How fast hosts are.
    pub host: HostOptions,
    /// The simulated disk with the real log on it; `None` for a log in memory, as scripts have it.
    pub disk: Option<DiskOptions>,
    /// What hosts apply entries to.
    pub machine: MachineKind,
}

/// What hosts apply entries to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MachineKind {
    /// A map of numbers: [`KvMachine`](crate::state_machine::KvMachine).
    #[default]
    Numbers,
    /// Keys with revisions, leases and watches: [`KeyValueMachine`](crate::key_value::KeyValueMachine).
    KeyValue,
}

/// What happens by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Everything: seeded runs.
    Automatic,
    /// Messages and time wait for commands; disks and state machines work at once, unless they are
    /// held: scripts.
    Manual,
}

/// How fast a host is, and how it fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostOptions {
    /// From the start of a sync until all that was written before it is durable.
    pub sync: Delay,
    /// For the state machine to apply a batch of entries.
    pub apply: Delay,
    /// To read entries back from the log.
    pub load: Delay,
    /// To spool a snapshot.
    pub spool: Delay,
    /// To fetch a snapshot from a peer.
    pub fetch: Delay,
    /// Fetches that fail, in parts per million.
    pub fetch_fails_ppm: u32,
    /// From the order to restart until the node runs.
    pub recovery: Delay,
    /// Time from the first entry applied until the state machine's contents are made durable;
    /// `None`: only on demand.
    pub flush_interval_us: Option<u64>,
    /// How often a node does not work on an input at once but together with those that arrive in
    /// the next moments, in parts per million.
    pub batch_ppm: u32,
    /// The longest such moment.
    pub batch_us: u64,
    /// Whether it is left to chance which unsynced writes a crash leaves, within what its kind
    /// allows. Off: a kill leaves all, a power cut none.
    pub random_crash_loss: bool,
    /// After how long peers hear that a process was killed, if at all.
    pub peer_closed: Option<Delay>,
}

impl HostOptions {
    /// Everything at once, nothing by itself: for scripts.
    pub const INSTANT: Self = Self {
        sync: Delay::NONE,
        apply: Delay::NONE,
        load: Delay::NONE,
        spool: Delay::NONE,
        fetch: Delay::NONE,
        fetch_fails_ppm: 0,
        recovery: Delay::NONE,
        flush_interval_us: None,
        batch_ppm: 0,
        batch_us: 0,
        random_crash_loss: false,
        peer_closed: None,
    };
}

impl Default for HostOptions {
    /// A server with a good solid-state disk.
    fn default() -> Self {
        Self {
            sync: Delay { min_us: 100, max_us: 2_000, outlier_ppm: 1_000, outlier_us: 100_000 },
            apply: Delay::between(10, 500),
            load: Delay::between(50, 2_000),
            spool: Delay::between(1_000, 50_000),
            fetch: Delay::between(2_000, 200_000),
            fetch_fails_ppm: 0,
            recovery: Delay::between(1_000, 100_000),
            flush_interval_us: Some(100_000),
            batch_ppm: 200_000,
            batch_us: 300,
            random_crash_loss: true,
            peer_closed: Some(Delay::between(100, 2_000)),
        }
    }
}

impl Options {
    /// A calm cluster in automatic mode with the product's default settings: one-way delays of 200
    /// to 1000 microseconds, no losses.
    #[must_use]
    pub fn new(seed: u64, voters: u64) -> Self {
        Self {
            seed,
            voters,
            learners: 0,
            bound: true,
            lease_us: None,
            feature_level: 0,
            config: Config::new(ClusterId(1), NodeId(1), Incarnation(1)),
            settings: Settings::default(),
            link: LinkOptions {
                delay: Delay::between(200, 1_000),
                reorder: true,
                ..LinkOptions::default()
            },
            mode: Mode::Automatic,
            host: HostOptions::default(),
            disk: None,
            machine: MachineKind::Numbers,
        }
    }

    /// The same in manual mode, with hosts that take no time.
    #[must_use]
    pub fn manual(voters: u64) -> Self {
        Self { mode: Mode::Manual, host: HostOptions::INSTANT, ..Self::new(1, voters) }
    }
}
