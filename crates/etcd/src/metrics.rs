//! What a server has done and what it is, as Prometheus reads it.
//!
//! The families have etcd's names, so that its dashboards and alerts go on working. What is counted
//! is counted where it happens, in atomics; what *is* ([`Vitals`]) is asked for when somebody
//! wants a page.

mod calls;
mod histogram;
mod methods;
mod observed;
pub(crate) mod process;
mod text;

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub(crate) use calls::Counted;
use histogram::Histogram;
use quorate::wal;
use text::{Kind, Page};

/// Something that is only counted.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Something of which some are under way.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// So many more, for good.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// One more, until what this gives back is dropped.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        self.0.fetch_add(1, Relaxed);
        UnderWay(self)
    }

    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One of those under way.
#[must_use = "it ends when this is dropped"]
pub(crate) struct UnderWay<'a>(&'a Gauge);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

macro_rules! metrics {
    (
        gauges { $($gauge:ident $gauge_name:literal $gauge_help:literal;)* }
        counters { $($counter:ident $counter_name:literal $counter_help:literal;)* }
        histograms { $($histogram:ident $histogram_name:literal $start:literal $count:literal $histogram_help:literal;)* }
    ) => {
        /// What a server has done.
        pub(crate) struct Metrics {
            /// Calls of clients.
            calls: calls::Calls,
            /// What is told of in the log.
            slow: Slow,
            /// Connections to peers.
            connections: observed::Connections,
            /// Health checks: of what, by which name, whether it is well, how often well and not.
            checks: std::sync::Mutex<Vec<Check>>,
            /// Versions of the cluster that were shown.
            cluster_versions: std::sync::Mutex<std::collections::BTreeSet<String>>,
            /// Pages of metrics that were written.
            pages_written: Counter,
            /// What was applied, by its kind.
            applies: observed::Applies,
            /// Streams of clients that broke off, by what they were for.
            streams_failed: [Counter; 2],
            /// Learners that were not made voters, by the reason.
            promotions_failed: std::sync::Mutex<std::collections::BTreeMap<String, u64>>,
            $(#[doc = $gauge_help] pub(crate) $gauge: Gauge,)*
            $(#[doc = $counter_help] pub(crate) $counter: Counter,)*
            $(#[doc = $histogram_help] pub(crate) $histogram: Timed,)*
        }

        impl std::fmt::Debug for Metrics {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("Metrics").finish_non_exhaustive()
            }
        }

        impl Metrics {
            /// Nothing has been done yet. With `extensive`, the durations of all calls are kept.
            pub(crate) fn new(extensive: bool, slow: Slow) -> Self {
                Self {
                    slow,
                    calls: calls::Calls::new(extensive),
                    connections: observed::Connections::default(),
                    checks: std::sync::Mutex::default(),
                    cluster_versions: std::sync::Mutex::default(),
                    pages_written: Counter::default(),
                    applies: observed::Applies::default(),
                    streams_failed: Default::default(),
                    promotions_failed: std::sync::Mutex::default(),
                    $($gauge: Gauge::default(),)*
                    $($counter: Counter::default(),)*
                    $($histogram: Timed(Histogram::named(
                        $histogram_name,
                        Duration::from_micros($start),
                        $count,
                    )),)*
                }
            }

            fn write(&self, page: &mut Page) {
                $(page.single($gauge_name, Kind::Gauge, $gauge_help, self.$gauge.value());)*
                $(page.single($counter_name, Kind::Counter, $counter_help, self.$counter.value());)*
                $(
                    page.family($histogram_name, Kind::Histogram, $histogram_help);
                    self.$histogram.0.write(page, $histogram_name, &[]);
                )*
            }
        }
    };
}

/// From how long on something is told of in the log; zero is never.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Slow {
    /// A call that is no stream.
    pub(crate) call: Duration,
    /// Applying a batch.
    pub(crate) apply: Duration,
}

impl Slow {
    fn is_reached(limit: Duration, took: Duration) -> bool {
        !limit.is_zero() && took > limit
    }
}

/// Durations of something.
pub(crate) struct Timed(Histogram);

impl Timed {
    /// Counts one.
    pub(crate) fn observe(&self, duration: Duration) {
        self.0.observe(duration);
    }
}

metrics! {
    gauges {
        pending "etcd_server_proposals_pending" "Proposals without an outcome.";
        put_bytes "etcd_debugging_mvcc_total_put_size_in_bytes" "Bytes of keys and values put.";
        defragmenting "etcd_disk_defrag_inflight" "Whether free space is being given back.";
        restoring "etcd_server_snapshot_apply_in_progress_total" "Whether a snapshot of another member is being put in place.";
        pages "promhttp_metric_handler_requests_in_flight" "Pages like this one that are being written.";
    }
    counters {
        leader_changes "etcd_server_leader_changes_seen_total" "Leaders that were seen to begin.";
        proposals_failed "etcd_server_proposals_failed_total" "Proposals that failed.";
        reads_failed "etcd_server_read_indexes_failed_total" "Linearizable reads that failed.";
        reads_slow "etcd_server_slow_read_indexes_total" "Linearizable reads that took long.";
        applies_slow "etcd_server_slow_apply_total" "Commands that took long to apply.";
        heartbeats_failed "etcd_server_heartbeat_send_failures_total" "Always zero: heartbeats wait for nothing but the node's turn.";
        health_good "etcd_server_health_success" "Health checks that succeeded.";
        health_bad "etcd_server_health_failures" "Health checks that failed.";
        promotions "etcd_server_learner_promote_successes" "Learners made voters through this member.";
        leases_expired "etcd_debugging_server_lease_expired_total" "Leases that have expired.";
        leases_granted "etcd_debugging_lease_granted_total" "Leases granted.";
        leases_renewed "etcd_debugging_lease_renewed_total" "Leases renewed through this member as leader.";
        leases_revoked "etcd_debugging_lease_revoked_total" "Leases revoked.";
        puts "etcd_mvcc_put_total" "Puts applied, those in transactions among them.";
        deletes "etcd_mvcc_delete_total" "Deletions applied, those in transactions among them.";
        ranges "etcd_mvcc_range_total" "Ranges read, those in transactions among them.";
        transactions "etcd_mvcc_txn_total" "Transactions of more than one operation applied.";
        events "etcd_debugging_mvcc_events_total" "Events sent to watchers.";
        expires "etcd_debugging_store_expires_total" "Always zero: of the API v2.";
        store_watches "etcd_debugging_store_watch_requests_total" "Always zero: of the API v2.";
        proxy_events "etcd_grpc_proxy_events_coalescing_total" "Always zero: of a proxy.";
    }
    histograms {
        commits "etcd_disk_backend_commit_duration_seconds" 1_000 14 "Seconds that a durable commit of the data took.";
        commit_rebalances "etcd_debugging_disk_backend_commit_rebalance_duration_seconds" 1_000 14 "Always zero: of another storage.";
        commit_spills "etcd_debugging_disk_backend_commit_spill_duration_seconds" 1_000 14 "Always zero: of another storage.";
        commit_writes "etcd_debugging_disk_backend_commit_write_duration_seconds" 1_000 14 "Always zero: of another storage.";
        compactions "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds" 100_000 14 "Milliseconds from a compaction to the removal of the last it has forgotten.";
        compaction_pauses "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds" 1_000 13 "Milliseconds for which a step of a compaction kept others from applying.";
        index_pauses "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds" 500 14 "Milliseconds for which a step of a compaction kept others from the index.";
        defragments "etcd_disk_backend_defrag_duration_seconds" 100_000 13 "Seconds that giving back free space took.";
        snapshots "etcd_disk_backend_snapshot_duration_seconds" 10_000 17 "Seconds that sending a snapshot of the data took.";
        hashes "etcd_mvcc_hash_duration_seconds" 10_000 15 "Seconds that hashing all data took.";
        revision_hashes "etcd_mvcc_hash_rev_duration_seconds" 10_000 15 "Seconds that hashing the data at a revision took.";
        lease_ttls "etcd_debugging_lease_ttl_total" 1_000_000 24 "Seconds that leases were granted for.";
        save_marshals "etcd_debugging_snap_save_marshalling_duration_seconds" 1_000 14 "Always zero: of another form of snapshots.";
        saves "etcd_debugging_snap_save_total_duration_seconds" 1_000 14 "Always zero: of another form of snapshots.";
        snapshot_syncs "etcd_snap_fsync_duration_seconds" 1_000 14 "Always zero: of another form of snapshots.";
        snapshot_db_syncs "etcd_snap_db_fsync_duration_seconds" 1_000 14 "Always zero: of another form of snapshots.";
        snapshot_db_saves "etcd_snap_db_save_total_duration_seconds" 100_000 10 "Always zero: of another form of snapshots.";
        watch_controls "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds" 1_000 14 "Seconds that answers to requests for watches took to send.";
        watch_progress "etcd_debugging_server_watch_send_loop_progress_duration_seconds" 1_000 14 "Seconds that progress notifications took to send.";
        watch_events "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds" 1_000 14 "Seconds that events took to send.";
        watch_per_event "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds" 1_000 14 "Seconds that one event took to send.";
    }
}

/// Families that are here because dashboards ask for them, and that have nothing to count.
const ALWAYS_ZERO: &[(&str, Kind)] = &[
    ("etcd_debugging_store_watchers", Kind::Gauge),
    ("etcd_grpc_proxy_cache_hits_total", Kind::Gauge),
    ("etcd_grpc_proxy_cache_keys_total", Kind::Gauge),
    ("etcd_grpc_proxy_cache_misses_total", Kind::Gauge),
    ("etcd_grpc_proxy_watchers_coalescing_total", Kind::Gauge),
];

/// Streams that clients send on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Api {
    Watch,
    KeepAlive,
}

/// A health check and how it went.
struct Check {
    kind: &'static str,
    name: &'static str,
    good: bool,
    goods: u64,
    bads: u64,
}

/// What a server is at the moment of a page.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Vitals {
    /// The member's id.
    pub member_id: u64,
    /// Version of the API that is reported.
    pub server_version: String,
    /// Version of the cluster, major and minor; empty before it is known.
    pub cluster_version: String,
    /// Whether a leader is known.
    pub has_leader: bool,
    /// Whether this member leads.
    pub is_leader: bool,
    /// Whether this member is a learner.
    pub is_learner: bool,
    /// Highest index known to be committed.
    pub committed: u64,
    /// Highest index applied.
    pub applied: u64,
    /// Bytes of data that raise an alarm; 0: none do.
    pub quota_bytes: u64,
    /// Bytes that the data take on disk.
    pub size_bytes: u64,
    /// Bytes of them that are not free.
    pub used_bytes: u64,
    /// The revision.
    pub revision: i64,
    /// Up to which revision history is gone.
    pub compact_revision: i64,
    /// Keys that exist.
    pub keys: u64,
    /// Versions of keys that compactions have removed.
    pub compacted_keys: u64,
    /// Reads that a compaction waits for.
    pub open_reads: u64,
    /// Watchers.
    pub watchers: u64,
    /// Those of them that are behind.
    pub slow_watchers: u64,
    /// Streams of watchers.
    pub watch_streams: u64,
    /// Events that wait to be sent.
    pub pending_events: u64,
    /// Alarms: the member and the name.
    pub alarms: Vec<(u64, String)>,
    /// Features, their stage and whether they are on.
    pub features: Vec<(String, String, bool)>,
    /// The other members.
    pub peers: Vec<PeerVitals>,
    /// What the log on disk has done.
    pub log: wal::Metrics,
}

/// Another member, as this one sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct PeerVitals {
    /// Its id.
    pub id: u64,
    /// Whether there is a connection to it.
    pub active: bool,
    /// Connections to it that were lost.
    pub lost: u64,
    /// Bytes sent to it, snapshots included.
    pub sent_bytes: u64,
    /// Bytes received from it, snapshots included.
    pub received_bytes: u64,
    /// Messages to it that were dropped: its connection was down, or too many waited.
    pub sent_failures: u64,
}

impl Metrics {
    /// Notes how a health check went.
    pub(crate) fn checked(&self, kind: &'static str, name: &'static str, good: bool) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = checks.iter().position(|check| check.kind == kind && check.name == name);
        let at = known.unwrap_or_else(|| {
            checks.push(Check { kind, name, good, goods: 0, bads: 0 });
            checks.len() - 1
        });
        let check = &mut checks[at];
        check.good = good;
        if good {
            check.goods += 1;
        } else {
            check.bads += 1;
        }
    }

    /// A batch of so many commands was applied.
    pub(crate) fn applied(&self, commands: usize, took: Duration) {
        if Slow::is_reached(self.slow.apply, took) {
            self.applies_slow.increment();
            tracing::warn!(
                took = ?took,
                "expected-duration" = ?self.slow.apply,
                commands,
                "apply request took too long"
            );
        }
    }

    /// A client has broken off a stream.
    pub(crate) fn stream_failed(&self, api: Api) {
        self.streams_failed[api as usize].increment();
    }

    /// A learner was not made a voter.
    pub(crate) fn not_promoted(&self, why: &str) {
        let mut all = self.promotions_failed.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(why.to_owned()).or_default() += 1;
    }

    /// Whether what costs something for every event is measured, too.
    pub(crate) fn is_extensive(&self) -> bool {
        self.calls.is_extensive()
    }

    /// A page of everything.
    pub(crate) fn page(&self, vitals: &Vitals) -> String {
        let _page = self.pages.begin();
        self.pages_written.increment();
        let mut page = Page::default();
        write_vitals(&mut page, vitals);
        self.write_cluster_version(&mut page, &vitals.cluster_version);
        write_log(&mut page, &vitals.log);
        self.write(&mut page);
        self.applies.write(&mut page);
        self.connections.write(&mut page);
        self.write_failures(&mut page);
        self.write_checks(&mut page);
        for (name, kind) in ALWAYS_ZERO {
            page.single(name, *kind, "Always zero here.", 0);
        }
        self.calls.write(&mut page);
        process::write(&mut page);
        page.finish()
    }

    /// The version that is in force has a one, those before it a zero.
    fn write_cluster_version(&self, page: &mut Page, current: &str) {
        if current.is_empty() {
            return;
        }
        let name = "etcd_cluster_version";
        page.family(name, Kind::Gauge, "Version of the cluster.");
        let mut all = self.cluster_versions.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(current) {
            all.insert(current.to_owned());
        }
        for version in &*all {
            let is_current = u8::from(version == current);
            page.sample(name, &[("cluster_version", version.as_str())], is_current);
        }
    }

    fn write_failures(&self, page: &mut Page) {
        let name = "etcd_network_server_stream_failures_total";
        page.family(name, Kind::Counter, "Streams of clients that have failed.");
        for (api, count) in ["watch", "lease-keepalive"].iter().zip(&self.streams_failed) {
            // Whoever does not read does not fail: what is for him waits, up to a limit.
            for (way, count) in [("receive", count.value()), ("send", 0)] {
                page.sample(name, &[("Type", way), ("API", *api)], count);
            }
        }
        let name = "etcd_server_learner_promote_failures";
        page.family(name, Kind::Counter, "Learners that were not made voters, by the reason.");
        let all = self.promotions_failed.lock().unwrap_or_else(PoisonError::into_inner);
        for (why, count) in &*all {
            page.sample(name, &[("Reason", why.as_str())], count);
        }
        let name = "promhttp_metric_handler_requests_total";
        page.family(name, Kind::Counter, "Pages like this one, by the code of the answer.");
        for (code, count) in [("200", self.pages_written.value()), ("500", 0), ("503", 0)] {
            page.sample(name, &[("code", code)], count);
        }
    }

    fn write_checks(&self, page: &mut Page) {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        page.family("etcd_server_healthcheck", Kind::Gauge, "How a health check went last.");
        for check in &*checks {
            let labels = [("type", check.kind), ("name", check.name)];
            page.sample("etcd_server_healthcheck", &labels, u8::from(check.good));
        }
        page.family("etcd_server_healthchecks_total", Kind::Counter, "Health checks made.");
        for check in &*checks {
            for (status, count) in [("success", check.goods), ("error", check.bads)] {
                let labels = [("type", check.kind), ("name", check.name), ("status", status)];
                page.sample("etcd_server_healthchecks_total", &labels, count);
            }
        }
    }
}

/// What the log has done. It counts times by their bits, etcd's buckets are round in tens: a bucket
/// here ends at 1.024 times what its name says.
fn write_log(page: &mut Page, log: &wal::Metrics) {
    page.single(
        "etcd_disk_wal_write_bytes_total",
        Kind::Gauge,
        "Bytes written to the log.",
        log.written_bytes,
    );
    for (name, help, times) in [
        (
            "etcd_disk_wal_fsync_duration_seconds",
            "Seconds that a sync of the log took.",
            &log.sync_us,
        ),
        (
            "etcd_disk_wal_write_duration_seconds",
            "Seconds that a write to the log took.",
            &log.write_us,
        ),
    ] {
        // Values of ten bits are those below 1024 microseconds.
        const FIRST_BITS: usize = 10;
        const BOUNDS: usize = 14;
        let mut buckets = vec![times.buckets[..=FIRST_BITS].iter().sum()];
        buckets.extend_from_slice(&times.buckets[FIRST_BITS + 1..FIRST_BITS + BOUNDS]);
        buckets.push(times.buckets[FIRST_BITS + BOUNDS..].iter().sum());
        page.family(name, Kind::Histogram, help);
        let bounds = (0..BOUNDS).map(|power| f64::from(1_u32 << power) / 1000.0);
        page.histogram(name, &[], bounds, &buckets, times.sum as f64 / 1e6);
    }
}

fn write_vitals(page: &mut Page, vitals: &Vitals) {
    let id = format!("{:x}", vitals.member_id);
    let one = |page: &mut Page, name: &str, label: (&str, &str), help: &str| {
        page.family(name, Kind::Gauge, help);
        page.sample(name, &[label], 1);
    };
    let version = vitals.server_version.as_str();
    one(page, "etcd_server_version", ("server_version", version), "Version of this server.");
    one(page, "etcd_server_id", ("server_id", &id), "Id of this member.");
    one(
        page,
        "etcd_server_go_version",
        ("server_go_version", "none"),
        "What this server is compiled with; not Go.",
    );
    let gauges: [(&str, &str, i128); 17] = [
        ("etcd_server_has_leader", "Whether a leader is known.", vitals.has_leader.into()),
        ("etcd_server_is_leader", "Whether this member leads.", vitals.is_leader.into()),
        ("etcd_server_is_learner", "Whether this member is a learner.", vitals.is_learner.into()),
        (
            "etcd_server_proposals_committed_total",
            "Index up to which entries are committed.",
            vitals.committed.into(),
        ),
        (
            "etcd_server_proposals_applied_total",
            "Index up to which entries are applied.",
            vitals.applied.into(),
        ),
        (
            "etcd_mvcc_db_open_read_transactions",
            "Reads that a compaction waits for.",
            vitals.open_reads.into(),
        ),
        (
            "etcd_server_quota_backend_bytes",
            "Bytes of data that raise an alarm.",
            vitals.quota_bytes.into(),
        ),
        (
            "etcd_mvcc_db_total_size_in_bytes",
            "Bytes that the data take on disk.",
            vitals.size_bytes.into(),
        ),
        (
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes that the data take on disk without what is free.",
            vitals.used_bytes.into(),
        ),
        ("etcd_debugging_mvcc_current_revision", "The revision.", vitals.revision.into()),
        (
            "etcd_debugging_mvcc_compact_revision",
            "Revision of the last compaction.",
            vitals.compact_revision.into(),
        ),
        (
            "etcd_debugging_mvcc_db_compaction_last",
            "Revision of the last compaction.",
            vitals.compact_revision.into(),
        ),
        ("etcd_debugging_mvcc_keys_total", "Keys that exist.", vitals.keys.into()),
        ("etcd_debugging_mvcc_watcher_total", "Watchers.", vitals.watchers.into()),
        (
            "etcd_debugging_mvcc_slow_watcher_total",
            "Watchers that are behind.",
            vitals.slow_watchers.into(),
        ),
        (
            "etcd_debugging_mvcc_watch_stream_total",
            "Streams of watchers.",
            vitals.watch_streams.into(),
        ),
        (
            "etcd_debugging_mvcc_pending_events_total",
            "Events that wait to be sent.",
            vitals.pending_events.into(),
        ),
    ];
    for (name, help, value) in gauges {
        page.single(name, Kind::Gauge, help, value);
    }
    page.single(
        "etcd_debugging_mvcc_db_compaction_keys_total",
        Kind::Counter,
        "Versions of keys removed by compactions.",
        vitals.compacted_keys,
    );
    page.single(
        "etcd_debugging_auth_revision",
        Kind::Gauge,
        "Revision of the users and roles: nobody has ever changed them.",
        1,
    );
    page.family("etcd_debugging_server_alarms", Kind::Gauge, "Alarms that are raised.");
    for (member, alarm) in &vitals.alarms {
        let member = format!("{member:x}");
        let labels = [("server_id", member.as_str()), ("alarm_type", alarm)];
        page.sample("etcd_debugging_server_alarms", &labels, 1);
    }
    page.family("etcd_server_feature_enabled", Kind::Gauge, "Features, and whether they are on.");
    for (name, stage, on) in &vitals.features {
        let labels = [("name", name.as_str()), ("stage", stage)];
        page.sample("etcd_server_feature_enabled", &labels, u8::from(*on));
    }
    type Look = fn(&PeerVitals) -> u64;
    let looks: [(&str, &str, Look); 2] = [
        ("etcd_network_known_peers", "Members that this one knows.", |_| 1),
        ("etcd_network_active_peers", "Members that this one is connected to.", |peer| {
            u64::from(peer.active)
        }),
    ];
    for (name, help, look) in looks {
        page.family(name, Kind::Gauge, help);
        for peer in &vitals.peers {
            let remote = format!("{:x}", peer.id);
            page.sample(name, &[("Local", &id), ("Remote", &remote)], look(peer));
        }
    }
    let lost = "etcd_network_disconnected_peers_total";
    page.family(lost, Kind::Counter, "Connections to members that were lost.");
    for peer in &vitals.peers {
        let remote = format!("{:x}", peer.id);
        page.sample(lost, &[("Local", &id), ("Remote", &remote)], peer.lost);
    }
    let looks: [(&str, &str, &str, Look); 3] = [
        ("etcd_network_peer_sent_bytes_total", "To", "Bytes sent to members.", |peer| {
            peer.sent_bytes
        }),
        ("etcd_network_peer_received_bytes_total", "From", "Bytes received of members.", |peer| {
            peer.received_bytes
        }),
        ("etcd_network_peer_sent_failures_total", "To", "Messages that were not sent.", |peer| {
            peer.sent_failures
        }),
    ];
    for (name, label, help, look) in looks {
        page.family(name, Kind::Counter, help);
        for peer in &vitals.peers {
            let remote = format!("{:x}", peer.id);
            page.sample(name, &[(label, remote.as_str())], look(peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_on_the_page_once() {
        let metrics = Metrics::new(true, Slow::default());
        metrics.puts.add(2);
        metrics.checked("livez", "serializable_read", true);
        let vitals = Vitals {
            server_version: "3.6.0".to_owned(),
            cluster_version: "3.6".to_owned(),
            peers: vec![PeerVitals { id: 10, active: true, ..PeerVitals::default() }],
            ..Vitals::default()
        };
        let older = Vitals { cluster_version: "3.5".to_owned(), ..vitals.clone() };
        metrics.page(&older);
        let page = metrics.page(&vitals);
        let mut families: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let count = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), count, "a family stands there twice");
        for line in [
            "etcd_mvcc_put_total 2",
            "etcd_server_version{server_version=\"3.6.0\"} 1",
            "etcd_cluster_version{cluster_version=\"3.6\"} 1",
            "etcd_cluster_version{cluster_version=\"3.5\"} 0",
            "etcd_server_is_learner 0",
            "etcd_network_active_peers{Local=\"0\",Remote=\"a\"} 1",
            "etcd_server_healthcheck{type=\"livez\",name=\"serializable_read\"} 1",
            "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",\
             grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing");
        }
    }
}
