//! Metrics of a member: what it is, what it applies, and what its node tells.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use quorate::transport::{LaneStatus, Note, PeerStatus};
use quorate::{Heard, NodeEvent, NodeId};
use quorate_kv::{AlarmKind, Command, Op, OpReply, Reply, RequestError, Txn, TxnReply};
use tokio::sync::watch;

use super::histogram::Histogram;
use super::text::{Kind, Page};
use super::{Metrics, PeerVitals, Vitals};
use crate::http::Probe;
use crate::member::Member;

/// What is known of peers besides what the transport counts.
#[derive(Default)]
pub(crate) struct Connections(std::sync::Mutex<BTreeMap<u64, Seen>>);

/// What was seen of one peer.
struct Seen {
    /// Connections that stand, and how often one was lost.
    lanes: u32,
    lost: u64,
    /// Pings answered when that was looked at last, and how long they took.
    round_trips: u64,
    round_trip: Histogram,
    bad_messages: u64,
    sending: Transfers,
    receiving: Transfers,
}

/// Snapshots one way.
struct Transfers {
    /// When those under way have begun, oldest first.
    begun: VecDeque<Instant>,
    good: u64,
    bad: u64,
    durations: Histogram,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            lanes: 0,
            lost: 0,
            round_trips: 0,
            round_trip: Histogram::new(Duration::from_micros(100), 16),
            bad_messages: 0,
            sending: Transfers::default(),
            receiving: Transfers::default(),
        }
    }
}

impl Default for Transfers {
    fn default() -> Self {
        Self {
            begun: VecDeque::new(),
            good: 0,
            bad: 0,
            durations: Histogram::new(Duration::from_millis(100), 10),
        }
    }
}

/// Transfers from or to one peer at the same time, so that lost events leave no more behind.
const TRANSFERS_MAX: usize = 64;

impl Transfers {
    fn begin(&mut self) {
        self.begun.push_back(Instant::now());
        self.begun.truncate(TRANSFERS_MAX);
    }

    fn end(&mut self, complete: bool) {
        let Some(begun) = self.begun.pop_front() else { return };
        if complete {
            self.good += 1;
            self.durations.observe(begun.elapsed());
        } else {
            self.bad += 1;
        }
    }
}

type Look<T> = fn(&Seen) -> T;
type Durations = for<'a> fn(&'a Seen) -> &'a Histogram;

impl Connections {
    fn change(&self, peer: NodeId, change: impl FnOnce(&mut Seen)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(peer.0).or_default());
    }

    /// Lanes to a peer, and lanes lost.
    fn of(&self, peer: u64) -> (u32, u64) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&peer).map(|seen| (seen.lanes, seen.lost)).unwrap_or_default()
    }

    /// Takes note of the pings that were answered since the last look.
    fn look(&self, peers: &[PeerStatus]) {
        for peer in peers {
            let Some(round_trip_us) = peer.round_trip_us else { continue };
            self.change(peer.node, |seen| {
                if seen.round_trips != peer.round_trips {
                    seen.round_trips = peer.round_trips;
                    seen.round_trip.observe(Duration::from_micros(round_trip_us));
                }
            });
        }
    }

    /// Writes what was seen.
    pub(super) fn write(&self, page: &mut Page) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut numbers = |name: &str, label: &str, kind: Kind, help: &str, look: Look<u64>| {
            page.family(name, kind, help);
            for (peer, seen) in &*all {
                page.sample(name, &[(label, format!("{peer:x}").as_str())], look(seen));
            }
        };
        numbers(
            "etcd_network_peer_received_failures_total",
            "From",
            Kind::Counter,
            "Members that have sent what could not be read.",
            |seen| seen.bad_messages,
        );
        numbers(
            "etcd_network_snapshot_send_inflights_total",
            "To",
            Kind::Gauge,
            "Snapshots that are being sent.",
            |seen| seen.sending.begun.len() as u64,
        );
        numbers(
            "etcd_network_snapshot_send_success",
            "To",
            Kind::Counter,
            "Snapshots sent to their end.",
            |seen| seen.sending.good,
        );
        numbers(
            "etcd_network_snapshot_send_failures",
            "To",
            Kind::Counter,
            "Snapshots whose sending broke off; the next one goes on from there.",
            |seen| seen.sending.bad,
        );
        numbers(
            "etcd_network_snapshot_receive_inflights_total",
            "From",
            Kind::Gauge,
            "Snapshots that are being received.",
            |seen| seen.receiving.begun.len() as u64,
        );
        numbers(
            "etcd_network_snapshot_receive_success",
            "From",
            Kind::Counter,
            "Snapshots received.",
            |seen| seen.receiving.good,
        );
        numbers(
            "etcd_network_snapshot_receive_failures",
            "From",
            Kind::Counter,
            "Snapshots that were not received.",
            |seen| seen.receiving.bad,
        );
        let mut times = |name: &str, label: &str, help: &str, look: Durations| {
            page.family(name, Kind::Histogram, help);
            for (peer, seen) in &*all {
                let histogram = look(seen);
                if !histogram.is_empty() {
                    histogram.write(page, name, &[(label, format!("{peer:x}").as_str())]);
                }
            }
        };
        times(
            "etcd_network_peer_round_trip_time_seconds",
            "To",
            "Seconds until a ping was answered.",
            |seen| &seen.round_trip,
        );
        times(
            "etcd_network_snapshot_send_total_duration_seconds",
            "To",
            "Seconds that sending a snapshot took.",
            |seen| &seen.sending.durations,
        );
        times(
            "etcd_network_snapshot_receive_total_duration_seconds",
            "From",
            "Seconds that receiving a snapshot took.",
            |seen| &seen.receiving.durations,
        );
    }
}

/// How long applying took, by what was applied and whether it succeeded.
pub(crate) struct Applies([[Histogram; 2]; OPS.len()]);

/// What is applied, as etcd calls it.
const OPS: [&str; 8] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
];

/// Its place among them.
const fn op_of(command: &Command) -> usize {
    match command {
        Command::Put(_) => 0,
        Command::DeleteRange(_) => 1,
        Command::Txn(_) => 2,
        Command::Compact(_) => 3,
        Command::LeaseGrant(_) => 4,
        Command::LeaseRevoke(_) | Command::LeaseExpire(_) => 5,
        Command::LeaseCheckpoint(_) => 6,
        Command::Alarm(_) => 7,
    }
}

impl Default for Applies {
    fn default() -> Self {
        let histogram = |_| Histogram::new(Duration::from_micros(100), 20);
        Self(std::array::from_fn(|_| std::array::from_fn(histogram)))
    }
}

impl Applies {
    pub(super) fn write(&self, page: &mut Page) {
        let name = "etcd_server_apply_duration_seconds";
        page.family(name, Kind::Histogram, "Seconds that applying took, by what was applied.");
        for (op, outcomes) in OPS.iter().zip(&self.0) {
            for (histogram, success) in outcomes.iter().zip(["true", "false"]) {
                if !histogram.is_empty() {
                    let labels = [("version", "v3"), ("op", *op), ("success", success)];
                    histogram.write(page, name, &labels);
                }
            }
        }
    }
}

impl Metrics {
    /// Counts a command that was carried out. Commands are applied in batches; `took` is the share of one.
    pub(crate) fn carried_out(
        &self,
        command: &Command,
        reply: &Result<Reply, RequestError>,
        took: Duration,
    ) {
        self.applies.0[op_of(command)][usize::from(reply.is_err())].observe(took);
        match (command, reply) {
            (Command::Put(put), Ok(_)) => {
                self.puts.increment();
                self.put_bytes.add((put.key.len() + put.value.len()) as u64);
            }
            (Command::DeleteRange(_), Ok(_)) => self.deletes.increment(),
            (Command::Txn(txn), Ok(Reply::Txn(reply))) => self.transacted(txn, reply, true),
            (Command::LeaseGrant(_), Ok(Reply::LeaseGrant { ttl_s, .. })) => {
                self.leases_granted.increment();
                let ttl_s = u64::try_from(*ttl_s).unwrap_or(0);
                self.lease_ttls.observe(Duration::from_secs(ttl_s));
            }
            (Command::LeaseRevoke(_), Ok(_)) => self.leases_revoked.increment(),
            (Command::LeaseExpire(leases), Ok(_)) => self.leases_expired.add(leases.len() as u64),
            _ => {}
        }
    }

    fn transacted(&self, txn: &Txn, reply: &TxnReply, outermost: bool) {
        let steps = if reply.succeeded { &txn.success } else { &txn.failure };
        if outermost && steps.len() > 1 {
            self.transactions.increment();
        }
        for (step, reply) in steps.iter().zip(&reply.responses) {
            match (step, reply) {
                (Op::Put(put), _) => {
                    self.puts.increment();
                    self.put_bytes.add((put.key.len() + put.value.len()) as u64);
                }
                (Op::DeleteRange(_), _) => self.deletes.increment(),
                (Op::Range(_), _) => self.ranges.increment(),
                (Op::Txn(txn), OpReply::Txn(reply)) => self.transacted(txn, reply, false),
                (Op::Txn(_), _) => {}
            }
        }
    }
}

impl Member {
    /// Counts what the node tells, until told to stop.
    pub(crate) async fn observe(self, mut stopping: watch::Receiver<bool>) {
        /// Members ping each other once a second.
        const LOOK: Duration = Duration::from_millis(500);
        let mut events = self.0.node.events();
        let metrics = self.metrics();
        let peers = &metrics.connections;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let heard = tokio::select! {
                heard = events.next() => heard,
                _ = look.tick() => {
                    peers.look(&self.0.node.peers());
                    continue;
                }
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            let event = match heard {
                Some(Heard::Event(event)) => event,
                Some(Heard::Missed(_)) => continue,
                None => return,
            };
            match event {
                NodeEvent::Leader { leader: Some(_), .. } => metrics.leader_changes.increment(),
                NodeEvent::Transport(Note::Connected { peer, .. }) => {
                    peers.change(peer, |seen| seen.lanes += 1);
                }
                NodeEvent::Transport(Note::Disconnected { peer, .. }) => {
                    peers.change(peer, |seen| {
                        seen.lanes = seen.lanes.saturating_sub(1);
                        seen.lost += 1;
                    });
                }
                NodeEvent::BadMessage { peer, .. } => {
                    peers.change(peer, |seen| seen.bad_messages += 1);
                }
                NodeEvent::SnapshotSending { to, .. } => {
                    peers.change(to, |seen| seen.sending.begin());
                }
                NodeEvent::SnapshotSent { to, complete, .. } => {
                    peers.change(to, |seen| seen.sending.end(complete));
                }
                NodeEvent::SnapshotFetching { from, .. } => {
                    peers.change(from, |seen| seen.receiving.begin());
                }
                NodeEvent::SnapshotFetched { from, complete, .. } => {
                    peers.change(from, |seen| seen.receiving.end(complete));
                }
                _ => {}
            }
        }
    }
}

impl Probe for Member {
    async fn vitals(&self) -> Vitals {
        let reader = self.reader();
        let (synced, behind) = self.watchers();
        // Without a node there is nothing newer than what was applied.
        let committed = match self.0.node.status().await {
            Ok(status) => status.commit_index.0,
            Err(_) => self.0.node.applied().0,
        };
        let alarms = reader.alarms().into_iter().map(|alarm| {
            let name = match alarm.kind {
                AlarmKind::NoSpace => "NOSPACE",
                AlarmKind::Corrupt => "CORRUPT",
            };
            (alarm.member.0, name.to_owned())
        });
        let membership = self.0.node.membership();
        let peers = membership.members().filter(|(id, _)| id.0 != self.0.member_id);
        let cluster_version = self.cluster_version().unwrap_or_default();
        let connections = &self.metrics().connections;
        let (watch_streams, pending_events) = self.0.data.hub.streams();
        let traffic = self.0.node.peers();
        let traffic_of = |id: NodeId| {
            let Some(peer) = traffic.iter().find(|peer| peer.node == id) else {
                return PeerVitals::default();
            };
            let sum = |of: fn(&LaneStatus) -> u64| peer.lanes.iter().map(of).sum::<u64>();
            PeerVitals {
                sent_bytes: sum(|lane| lane.bytes_sent) + peer.snapshot_bytes_sent,
                received_bytes: sum(|lane| lane.bytes_received) + peer.snapshot_bytes_received,
                sent_failures: sum(|lane| lane.dropped_full + lane.dropped_down),
                ..PeerVitals::default()
            }
        };
        Vitals {
            member_id: self.0.member_id,
            server_version: self.config().api_version.clone(),
            // Of the version, clients see the first two numbers here.
            cluster_version: cluster_version.splitn(3, '.').take(2).collect::<Vec<_>>().join("."),
            has_leader: self.leader().0.is_some(),
            is_leader: self.leads(),
            is_learner: self.is_learner(),
            committed,
            applied: self.0.node.applied().0,
            quota_bytes: self.quota_bytes().unwrap_or(0),
            size_bytes: self.db_bytes(),
            used_bytes: reader.disk_bytes_in_use(),
            revision: reader.revision().0,
            compact_revision: reader.compacted().0,
            keys: reader.keys() as u64,
            watchers: (synced + behind) as u64,
            slow_watchers: behind as u64,
            watch_streams: watch_streams as u64,
            pending_events: pending_events as u64,
            compacted_keys: reader.compaction_removed(),
            open_reads: reader.open_reads() as u64,
            alarms: alarms.collect(),
            features: self.config().features.clone(),
            peers: peers
                .map(|(id, _)| {
                    let (lanes, lost) = connections.of(id.0);
                    PeerVitals { id: id.0, active: lanes > 0, lost, ..traffic_of(id) }
                })
                .collect(),
            log: self.0.node.log_metrics().unwrap_or_default(),
        }
    }

    async fn serializable_read(&self) -> Result<(), String> {
        let range = quorate_kv::Range { key: "health".into(), ..quorate_kv::Range::default() };
        self.reader().range(&range).map(drop).map_err(|why| why.to_string())
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        self.linearizable().await.map_err(|why| why.message().to_owned())?;
        self.serializable_read().await
    }
}
