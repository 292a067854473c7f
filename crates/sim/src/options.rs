//! What one run is made of: drawn from its seed, and every part of it can be overridden.
//!
//! *Swarm testing* (Groce et al., 2012): runs in which all faults happen all the time look alike, and
//! hide what only shows when some of them are absent. So each seed switches a random part of the
//! faults off, and draws how intense the others are, how large the cluster is and how its nodes are
//! tuned.

use std::fmt;

use quorate_node::{Settings, SnapshotPolicy};
use quorate_raft::{ClusterId, Config, Incarnation, NodeId, ReadMode};

use crate::cluster;
use crate::disk_log::DiskOptions;
use crate::network::{Delay, LinkOptions};
use crate::rng::Rng;

macro_rules! run_options {
    ($($(#[$doc:meta])* $name:ident: $default:expr,)*) => {
        /// The options of a run. Switches are 0 or 1, times are in microseconds, `_ppm` are parts
        /// per million, and weights say how likely a fault is compared with the others (0: never).
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct RunOptions { $($(#[$doc])* pub $name: u64,)* }

        impl Default for RunOptions {
            /// Three nodes, our defaults, no faults.
            fn default() -> Self { Self { $($name: $default,)* } }
        }

        impl RunOptions {
            /// Names of all options.
            pub const NAMES: &[&str] = &[$(stringify!($name),)*];

            /// The option called `name`.
            #[must_use]
            pub fn value(&self, name: &str) -> Option<u64> {
                match name { $(stringify!($name) => Some(self.$name),)* _ => None }
            }

            fn value_mut(&mut self, name: &str) -> Option<&mut u64> {
                match name { $(stringify!($name) => Some(&mut self.$name),)* _ => None }
            }
        }
    };
}

run_options! {
    /// Voters at the start.
    voters: 3,
    /// Learners at the start.
    learners: 0,
    /// Whether the first configuration knows its members' incarnations.
    bound: 1,
    /// Lease at the start; 0: off.
    lease_us: 0,

    /// `Config::election_timeout_min_us`.
    election_min_us: 1_000_000,
    /// `Config::election_timeout_max_us`.
    election_max_us: 2_000_000,
    /// `Config::heartbeat_interval_us`.
    heartbeat_us: 100_000,
    /// `Config::pre_vote`.
    pre_vote: 1,
    /// `Config::check_quorum`.
    check_quorum: 1,
    /// `Config::leader_stickiness`.
    stickiness: 1,
    /// `Config::peer_closed_delay_us`.
    peer_closed_delay_us: 50_000,
    /// `Config::clock_drift_max_ppm`.
    drift_bound_ppm: 10_000,
    /// `Config::disk_stall_timeout_us`.
    disk_stall_us: 2_000_000,
    /// `Config::commit_notice_delay_us`.
    commit_notice_us: 1_000,
    /// `Config::entry_bytes_max`.
    entry_bytes: 16 << 20,
    /// `Config::append_bytes_max`.
    append_bytes: 1 << 20,
    /// `Config::inflight_messages_max`.
    inflight_messages: 256,
    /// `Config::inflight_bytes_max`.
    inflight_bytes: 8 << 20,
    /// `Config::unapplied_bytes_max`.
    unapplied_bytes: 64 << 20,
    /// `Config::tail_bytes_max`.
    tail_bytes: 16 << 20,
    /// `Config::apply_bytes_max`.
    apply_bytes: 4 << 20,
    /// `Config::reads_max`.
    reads: 65_536,
    /// `Config::promote_lag_max`.
    promote_lag: 1_000,

    /// `Settings::forward`.
    forward: 1,
    /// `Settings::outcome_wait_us`.
    outcome_wait_us: 0,
    /// `Settings::read_wait_us`, and `forward_timeout_us`.
    wait_us: 5_000_000,
    /// `Settings::compact_entries`.
    compact_entries: 100_000,
    /// `Settings::keep_entries`.
    keep_entries: 10_000,
    /// `Settings::keep_for_transfer`.
    keep_for_transfer: 1_000_000,
    /// `Settings::keep_for_followers`.
    keep_for_followers: 0,
    /// `Settings::snapshots`: entries after which one is taken; 0: the state machine has a disk.
    snapshot_entries: 0,

    /// Shortest one-way delay of a message.
    delay_min_us: 100,
    /// Longest, apart from outliers.
    delay_max_us: 500,
    /// How often a message is an outlier.
    delay_outlier_ppm: 0,
    /// The slowest outlier.
    delay_outlier_us: 50_000,
    /// Messages lost.
    loss_ppm: 0,
    /// Messages delivered twice.
    duplicate_ppm: 0,
    /// Whether messages overtake each other.
    reorder: 0,
    /// A node whose messages, to it and from it, take `slow_factor` times as long; 0: none.
    slow_peer: 0,
    /// How much longer.
    slow_factor: 8,

    /// Shortest time of a sync.
    sync_min_us: 100,
    /// Longest, apart from outliers.
    sync_max_us: 1_000,
    /// How often a sync is an outlier.
    sync_outlier_ppm: 0,
    /// The slowest outlier.
    sync_outlier_us: 100_000,
    /// Longest time to apply a batch.
    apply_us: 100,
    /// Longest time to load entries.
    load_us: 500,
    /// Longest time to spool a snapshot.
    spool_us: 5_000,
    /// Longest time to fetch a snapshot.
    fetch_us: 20_000,
    /// Fetches that fail.
    fetch_fails_ppm: 0,
    /// Longest time of a restart.
    recovery_us: 50_000,
    /// Time between flushes of the state machine.
    flush_us: 200_000,
    /// How often a node takes several inputs at once.
    batch_ppm: 0,
    /// For how long it collects them.
    batch_us: 1_000,
    /// Whether chance decides what a crash leaves of unsynced writes.
    random_crash_loss: 1,
    /// `DiskOptions::segment_bytes`; 0: a log in memory.
    segment_bytes: 64 << 10,
    /// `DiskOptions::neighbours_ppm`.
    neighbours_ppm: 0,
    /// `DiskOptions::eager_ppm`.
    eager_ppm: 500_000,
    /// `DiskOptions::interrupted_ppm`.
    interrupted_ppm: 0,
    /// Whether peers hear that a process has ended.
    peer_closed: 1,

    /// Clients.
    clients: 4,
    /// Keys that they work on.
    keys: 4,
    /// Mean pause of a client between operations.
    think_us: 100_000,
    /// How long a client waits for an answer.
    patience_us: 3_000_000,
    /// Operations that are reads.
    reads_ppm: 400_000,
    /// Reads by lease, of all reads.
    lease_reads_ppm: 100_000,
    /// Commands bound to a term, of all commands.
    in_term_ppm: 100_000,
    /// Clients that have sessions, of all clients.
    sessions_ppm: 0,
    /// Sessions that may exist at once.
    sessions_max: 1_000,
    /// Operations that are bursts of ballast: commands that mean nothing, of all sizes.
    ballast_ppm: 20_000,

    /// Mean time between faults; 0: none.
    fault_us: 0,
    /// Longest time that a node stays down or frozen, or that a cut stays.
    outage_us: 5_000_000,
    /// Weight: a process is killed.
    kill: 0,
    /// Weight: a machine loses power.
    power_cut: 0,
    /// Weight: a crash between two actions.
    crash_in_step: 0,
    /// Weight: power is lost everywhere.
    blackout: 0,
    /// Weight: a process is frozen.
    pause: 0,
    /// Weight: the network splits in two or more.
    partition: 0,
    /// Weight: one direction of a link is cut.
    one_way: 0,
    /// Weight: one link is cut.
    one_link: 0,
    /// Weight: one node is cut off.
    isolate: 0,
    /// Weight: a link is clogged.
    clog: 0,
    /// Weight: the network loses and doubles more for a while.
    storm: 0,
    /// Weight: a disk gets slow for a while.
    slow_disk: 0,
    /// Weight: a disk completes nothing for a while.
    stall_disk: 0,
    /// Longest stall.
    stall_us: 10_000_000,
    /// Weight: a sync fails.
    fail_sync: 0,
    /// Weight: reads from a disk fail for a while.
    fail_reads: 0,
    /// Weight: a disk is full for a while.
    full_disk: 0,
    /// Weight: durable bytes of a log change.
    rot: 0,
    /// Weight: a state machine gets slow for a while.
    slow_apply: 0,
    /// Weight: a node loses its data directory.
    wipe: 0,
    /// Weight: a clock runs at another speed.
    drift: 0,
    /// Fastest or slowest clock.
    drift_ppm: 5_000,
    /// Whether clocks may drift by more than the bound that leases rest on. Reads by lease are not
    /// judged then: they promise nothing.
    lying_clocks: 0,
    /// Weight: wrong word that a process has ended.
    wrong_hint: 0,
    /// Weight: part of a log cannot be read for a while.
    unreadable: 0,
    /// Weight: a log is compacted, or a state machine flushed.
    compact: 0,
    /// Weight: a change of the membership.
    change: 0,
    /// Weight: a transfer of leadership.
    transfer: 0,
    /// Weight: a forced election.
    campaign: 0,
}

/// Why text does not name an option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OptionsError {
    /// The part that was not understood.
    pub part: String,
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not of the form option=number, or there is no such option", self.part)
    }
}

impl std::error::Error for OptionsError {}

impl fmt::Display for RunOptions {
    /// `name=value` for all options, separated by commas; [`set`](Self::set) reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in Self::NAMES.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={}", self.value(name).unwrap_or_default())?;
        }
        Ok(())
    }
}

impl std::str::FromStr for RunOptions {
    type Err = OptionsError;

    /// The defaults with the given options instead.
    fn from_str(text: &str) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        options.set(text)?;
        Ok(options)
    }
}

impl RunOptions {
    /// Overrides options with a list of `name=value`, separated by commas.
    ///
    /// # Errors
    ///
    /// When a part is not understood. The parts before it are set.
    pub fn set(&mut self, text: &str) -> Result<(), OptionsError> {
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let unknown = || OptionsError { part: part.to_owned() };
            let (name, value) = part.split_once('=').ok_or_else(unknown)?;
            let value = value.trim().replace('_', "").parse().map_err(|_| unknown())?;
            *self.value_mut(name.trim()).ok_or_else(unknown)? = value;
        }
        Ok(())
    }

    /// The options that differ from those of `other`, in the form that [`set`](Self::set) reads.
    #[must_use]
    pub fn difference(&self, other: &Self) -> String {
        let differs = |name: &&&str| self.value(name) != other.value(name);
        let parts = Self::NAMES.iter().filter(differs);
        let parts = parts.map(|name| format!("{name}={}", self.value(name).unwrap_or_default()));
        parts.collect::<Vec<_>>().join(",")
    }

    /// What `seed` stands for.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5357_4152_4d21_2121);
        let mut options = Self::default();
        options.draw_cluster(&mut rng);
        options.draw_limits(&mut rng);
        options.draw_speeds(&mut rng);
        options.draw_clients(&mut rng);
        options.draw_faults(&mut rng);
        options.draw_disk(&mut rng);
        options.draw_sessions(&mut rng);
        options.draw_snapshots(&mut rng);
        options
    }

    fn draw_cluster(&mut self, rng: &mut Rng) {
        self.voters = one_of(rng, &[1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 5, 6, 7, 7]);
        self.learners = one_of(rng, &[0, 0, 0, 0, 1, 2]).min(7 - self.voters);
        self.bound = one_of(rng, &[0, 1]);

        self.election_min_us = one_of(rng, &[50_000, 150_000, 150_000, 300_000, 1_000_000]);
        self.election_max_us = self.election_min_us * one_of(rng, &[13, 15, 20]) / 10;
        // The last is less than a round trip, if the network is slow too.
        self.heartbeat_us = self.election_min_us / one_of(rng, &[2, 2, 3, 5, 5, 10, 30]);
        self.pre_vote = mostly(rng, 800_000);
        self.check_quorum = mostly(rng, 850_000);
        self.stickiness = mostly(rng, 850_000);
        self.peer_closed_delay_us = one_of(rng, &[0, 10_000, 50_000]);
        self.disk_stall_us = one_of(rng, &[self.election_max_us, 2_000_000]);
        self.commit_notice_us = one_of(rng, &[0, 10, 1_000, 5_000]);
        self.drift_bound_ppm = one_of(rng, &[1_000, 10_000, 100_000]);
        if rng.chance(300_000) {
            // A lease is a promise of voters not to listen to candidates.
            self.stickiness = 1;
            self.lease_us = self.election_min_us * one_of(rng, &[5, 7, 9]) / 10;
        }
    }

    fn draw_limits(&mut self, rng: &mut Rng) {
        let mut limit = |value: &mut u64, tight: &[u64]| {
            if rng.chance(400_000) {
                *value = one_of(rng, tight);
            }
        };
        limit(&mut self.entry_bytes, &[2_048]);
        limit(&mut self.append_bytes, &[100, 200, 600, 4_096]);
        limit(&mut self.inflight_messages, &[1, 2, 4]);
        limit(&mut self.inflight_bytes, &[100, 1_000, 5_000]);
        limit(&mut self.unapplied_bytes, &[500, 3_000, 20_000]);
        limit(&mut self.tail_bytes, &[0, 300, 2_000]);
        limit(&mut self.apply_bytes, &[100, 1_000]);
        limit(&mut self.reads, &[1, 4]);
        limit(&mut self.promote_lag, &[0, 3, 30]);
        limit(&mut self.forward, &[0]);
        limit(&mut self.outcome_wait_us, &[100_000, 2_000_000]);
        limit(&mut self.wait_us, &[200_000, 1_000_000]);
        self.compact_entries = one_of(rng, &[0, 5, 20, 20, 100, 100, 1_000]);
        self.keep_entries = one_of(rng, &[0, self.compact_entries / 2, self.compact_entries]);
        self.keep_for_transfer = one_of(rng, &[5, 50, 1_000_000]);
    }

    fn draw_speeds(&mut self, rng: &mut Rng) {
        // Timing requirement (§5.6): broadcast time well below election timeout.
        let broadcast_us = self.election_min_us / one_of(rng, &[10, 30, 100]);
        self.delay_max_us = broadcast_us / 2;
        self.delay_min_us = self.delay_max_us / one_of(rng, &[1, 2, 10]);
        self.delay_outlier_ppm = one_of(rng, &[0, 0, 1_000, 20_000]);
        self.delay_outlier_us = self.election_max_us * one_of(rng, &[1, 3, 10]);
        self.loss_ppm = one_of(rng, &[0, 0, 0, 1_000, 10_000, 50_000]);
        self.duplicate_ppm = one_of(rng, &[0, 0, 1_000, 20_000]);
        self.reorder = one_of(rng, &[0, 1]);
        if rng.chance(200_000) {
            self.slow_peer = rng.between(1, self.voters);
            self.slow_factor = one_of(rng, &[3, 8]);
        }
        self.sync_max_us = broadcast_us / one_of(rng, &[1, 2, 10]);
        self.sync_min_us = self.sync_max_us / one_of(rng, &[1, 2, 10]);
        self.sync_outlier_ppm = one_of(rng, &[0, 0, 1_000, 10_000]);
        self.sync_outlier_us = self.election_max_us * one_of(rng, &[1, 2]);
        self.apply_us = one_of(rng, &[0, 100, broadcast_us / 2]);
        self.load_us = one_of(rng, &[100, broadcast_us]);
        self.spool_us = one_of(rng, &[100, broadcast_us, self.election_max_us]);
        self.fetch_us = one_of(rng, &[1_000, broadcast_us, 3 * self.election_max_us]);
        self.fetch_fails_ppm = one_of(rng, &[0, 0, 100_000, 500_000]);
        self.recovery_us = one_of(rng, &[1_000, self.election_min_us]);
        self.flush_us = one_of(rng, &[10_000, 200_000, 5_000_000]);
        self.batch_ppm = one_of(rng, &[0, 0, 100_000, 500_000]);
        self.batch_us = broadcast_us / 2;
        self.peer_closed = one_of(rng, &[0, 1]);
    }

    fn draw_clients(&mut self, rng: &mut Rng) {
        self.clients = rng.between(1, 6);
        self.keys = rng.between(1, 6);
        // A run of 20,000 steps shall see some hundred operations and some tens of elections.
        let operations = rng.between(200, 600);
        self.think_us = self.clients * self.election_max_us * rng.between(20, 120) / operations;
        self.patience_us = self.election_max_us * one_of(rng, &[1, 3, 10]);
        self.reads_ppm = one_of(rng, &[100_000, 400_000, 700_000, 950_000]);
        self.lease_reads_ppm = match self.lease_us {
            0 => 20_000,
            _ => one_of(rng, &[300_000, 700_000]),
        };
        self.in_term_ppm = one_of(rng, &[0, 50_000, 300_000]);
        self.ballast_ppm = one_of(rng, &[0, 10_000, 50_000]);
    }

    fn draw_sessions(&mut self, rng: &mut Rng) {
        self.sessions_ppm = one_of(rng, &[0, 500_000, 1_000_000]);
        self.sessions_max = one_of(rng, &[1, 2, 4, 1_000]);
    }

    fn draw_snapshots(&mut self, rng: &mut Rng) {
        self.keep_for_followers = one_of(rng, &[0, 0, 20, 1_000_000]);
        self.snapshot_entries = one_of(rng, &[0, 0, 3, 20, 100]);
    }

    fn draw_disk(&mut self, rng: &mut Rng) {
        self.segment_bytes = one_of(rng, &[16 << 10, 16 << 10, 32 << 10, 128 << 10]);
        self.neighbours_ppm = one_of(rng, &[0, 20_000, 200_000]);
        self.eager_ppm = one_of(rng, &[0, 300_000, 1_000_000]);
        self.interrupted_ppm = one_of(rng, &[0, 100_000]);
    }

    fn draw_faults(&mut self, rng: &mut Rng) {
        self.drift_ppm = self.drift_bound_ppm;
        if rng.chance(50_000) {
            return;
        }
        self.fault_us = self.election_max_us * one_of(rng, &[5, 10, 20, 40]) / 10;
        self.outage_us = self.election_max_us * one_of(rng, &[1, 5, 20]);
        self.stall_us = one_of(rng, &[self.election_max_us, 10_000_000, 120_000_000]);
        let may_have_lease = self.stickiness == 1;
        if !may_have_lease {
            // Without leases nothing but the rate of time-outs depends on clocks.
            self.drift_ppm = one_of(rng, &[self.drift_bound_ppm, 200_000]);
        }
        if self.lease_us > 0 && rng.chance(100_000) {
            self.lying_clocks = 1;
            self.drift_ppm = 3 * self.drift_bound_ppm;
        }
        for name in Self::FAULTS {
            let on = rng.chance(450_000);
            let weight = if on { one_of(rng, &[1, 2, 2, 4]) } else { 0 };
            if let Some(value) = self.value_mut(name) {
                *value = weight;
            }
        }
        self.drift += self.lying_clocks;
        // What is interesting at all is interesting together with changes and crashes.
        self.change *= one_of(rng, &[1, 3]);
    }

    /// Names of the options that are weights of faults.
    pub const FAULTS: &[&str] = &[
        "kill",
        "power_cut",
        "crash_in_step",
        "blackout",
        "pause",
        "partition",
        "one_way",
        "one_link",
        "isolate",
        "clog",
        "storm",
        "slow_disk",
        "stall_disk",
        "fail_sync",
        "fail_reads",
        "full_disk",
        "rot",
        "slow_apply",
        "wipe",
        "drift",
        "wrong_hint",
        "unreadable",
        "compact",
        "change",
        "transfer",
        "campaign",
    ];

    /// Whether a read promises to be linearizable.
    #[must_use]
    pub const fn judges(&self, mode: ReadMode) -> bool {
        matches!(mode, ReadMode::ReadIndex) || self.lying_clocks == 0
    }

    /// Whether a lease may be on at some time of the run.
    #[must_use]
    pub const fn may_have_lease(&self) -> bool {
        self.lease_us > 0 || self.stickiness == 1
    }

    /// The cluster that these options describe.
    #[must_use]
    pub fn cluster(&self, seed: u64) -> cluster::Options {
        cluster::Options {
            seed,
            voters: self.voters,
            learners: self.learners,
            bound: self.bound == 1,
            lease_us: Some(self.lease_us).filter(|us| *us > 0),
            feature_level: 0,
            config: self.config(),
            settings: self.settings(),
            link: self.link(),
            mode: cluster::Mode::Automatic,
            host: self.host(),
            disk: self.disk(),
            machine: cluster::MachineKind::Numbers,
        }
    }

    fn disk(&self) -> Option<DiskOptions> {
        (self.segment_bytes > 0).then_some(DiskOptions {
            segment_bytes: self.segment_bytes,
            neighbours_ppm: ppm(self.neighbours_ppm),
            eager_ppm: ppm(self.eager_ppm),
            interrupted_ppm: ppm(self.interrupted_ppm),
        })
    }

    fn config(&self) -> Config {
        // The cluster fills in who is who.
        let mut config = Config::new(ClusterId(1), NodeId(1), Incarnation(1));
        config.feature_level = 1;
        config.election_timeout_min_us = self.election_min_us;
        config.election_timeout_max_us = self.election_max_us;
        config.heartbeat_interval_us = self.heartbeat_us;
        config.pre_vote = self.pre_vote == 1;
        config.check_quorum = self.check_quorum == 1;
        config.leader_stickiness = self.stickiness == 1;
        config.peer_closed_delay_us = self.peer_closed_delay_us;
        config.clock_drift_max_ppm = u32::try_from(self.drift_bound_ppm).unwrap_or(999_999);
        config.disk_stall_timeout_us = self.disk_stall_us;
        config.commit_notice_delay_us = self.commit_notice_us;
        config.entry_bytes_max = size(self.entry_bytes);
        config.append_bytes_max = size(self.append_bytes);
        config.inflight_messages_max = size(self.inflight_messages);
        config.inflight_bytes_max = size(self.inflight_bytes);
        config.unapplied_bytes_max = size(self.unapplied_bytes);
        config.tail_bytes_max = size(self.tail_bytes);
        config.apply_bytes_max = size(self.apply_bytes);
        config.reads_max = size(self.reads);
        config.promote_lag_max = self.promote_lag;
        config
    }

    fn settings(&self) -> Settings {
        Settings {
            forward: self.forward == 1,
            forward_timeout_us: self.wait_us,
            outcome_wait_us: self.outcome_wait_us,
            read_wait_us: self.wait_us,
            compact_entries: self.compact_entries,
            keep_entries: self.keep_entries,
            keep_for_transfer: self.keep_for_transfer,
            keep_for_followers: self.keep_for_followers,
            snapshots: (self.snapshot_entries > 0)
                .then_some(SnapshotPolicy { entries: self.snapshot_entries, bytes: u64::MAX }),
            ..Settings::default()
        }
    }

    /// How links behave when nothing special happens.
    #[must_use]
    pub fn link(&self) -> LinkOptions {
        LinkOptions {
            delay: Delay {
                min_us: self.delay_min_us,
                max_us: self.delay_max_us,
                outlier_ppm: ppm(self.delay_outlier_ppm),
                outlier_us: self.delay_outlier_us,
            },
            loss_ppm: ppm(self.loss_ppm),
            duplicate_ppm: ppm(self.duplicate_ppm),
            reorder: self.reorder == 1,
        }
    }

    /// How hosts behave when nothing special happens.
    #[must_use]
    pub fn host(&self) -> cluster::HostOptions {
        cluster::HostOptions {
            sync: Delay {
                min_us: self.sync_min_us,
                max_us: self.sync_max_us,
                outlier_ppm: ppm(self.sync_outlier_ppm),
                outlier_us: self.sync_outlier_us,
            },
            apply: Delay::between(0, self.apply_us),
            load: Delay::between(0, self.load_us),
            spool: Delay::between(self.spool_us / 10, self.spool_us),
            fetch: Delay::between(self.fetch_us / 10, self.fetch_us),
            fetch_fails_ppm: ppm(self.fetch_fails_ppm),
            recovery: Delay::between(self.recovery_us / 10, self.recovery_us),
            flush_interval_us: Some(self.flush_us).filter(|us| *us > 0),
            batch_ppm: ppm(self.batch_ppm),
            batch_us: self.batch_us,
            random_crash_loss: self.random_crash_loss == 1,
            peer_closed: (self.peer_closed == 1).then_some(Delay::between(0, 2_000)),
        }
    }
}

fn one_of(rng: &mut Rng, values: &[u64]) -> u64 {
    rng.pick(values).copied().unwrap_or_default()
}

fn mostly(rng: &mut Rng, ppm: u32) -> u64 {
    u64::from(rng.chance(ppm))
}

fn ppm(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_read() {
        for seed in 0..50 {
            let options = RunOptions::from_seed(seed);
            assert_eq!(options.to_string().parse(), Ok(options.clone()));
            let difference = options.difference(&RunOptions::default());
            assert_eq!(difference.parse(), Ok(options));
        }
    }

    #[test]
    fn unknown_options_are_refused() {
        let mut options = RunOptions::default();
        assert!(options.set("voters=5, loss_ppm=10_000").is_ok());
        assert_eq!((options.voters, options.loss_ppm), (5, 10_000));
        assert_eq!(options.set("voters=5,volume=11").unwrap_err().part, "volume=11");
        assert!(options.set("voters").is_err());
    }

    #[test]
    fn all_seeds_give_valid_settings_and_honest_leases() {
        for seed in 0..2_000 {
            let options = RunOptions::from_seed(seed);
            options.config().validate().unwrap();
            assert!(options.lease_us <= options.election_min_us);
            if options.may_have_lease() && options.lying_clocks == 0 {
                assert!(options.drift_ppm <= options.drift_bound_ppm, "seed {seed}");
            }
        }
    }

    #[test]
    fn every_fault_is_on_for_some_seeds_and_off_for_others() {
        let all: Vec<_> = (0..200).map(RunOptions::from_seed).collect();
        for name in RunOptions::FAULTS {
            assert!(all.iter().any(|options| options.value(name) == Some(0)), "{name}");
            assert!(all.iter().any(|options| options.value(name) > Some(0)), "{name}");
        }
    }
}
