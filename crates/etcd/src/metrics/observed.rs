//! Metrics of a member: what it is, what it applies, and what its node tells.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use quorate::{Heard, NodeEvent, NodeId, transport::Note};
use quorate_kv::{AlarmKind, Command, Op, OpReply, Reply, RequestError, Txn, TxnReply};
use tokio::sync::watch;

use super::{Metrics, PeerVitals, Vitals};
use crate::http::Probe;
use crate::member::Member;

/// Connections to peers: how many lanes there are, and how often one was lost.
#[derive(Default)]
pub(crate) struct Connections(std::sync::Mutex<BTreeMap<u64, (u32, u64)>>);

impl Connections {
    fn change(&self, peer: NodeId, change: impl FnOnce(&mut (u32, u64))) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(peer.0).or_default());
    }

    /// Lanes to a peer, and lanes lost.
    fn of(&self, peer: u64) -> (u32, u64) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&peer).copied().unwrap_or_default()
    }
}

impl Metrics {
    /// Counts a command that was carried out.
    pub(crate) fn carried_out(&self, command: &Command, reply: &Result<Reply, RequestError>) {
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
                self.lease_ttls.observe(std::time::Duration::from_secs(ttl_s));
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
        let mut events = self.0.node.events();
        let metrics = self.metrics();
        loop {
            let heard = tokio::select! {
                heard = events.next() => heard,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            match heard {
                Some(Heard::Event(NodeEvent::Leader { leader: Some(_), .. })) => {
                    metrics.leader_changes.increment();
                }
                Some(Heard::Event(NodeEvent::Transport(Note::Connected { peer, .. }))) => {
                    metrics.connections.change(peer, |(lanes, _)| *lanes += 1);
                }
                Some(Heard::Event(NodeEvent::Transport(Note::Disconnected { peer, .. }))) => {
                    metrics.connections.change(peer, |(lanes, lost)| {
                        *lanes = lanes.saturating_sub(1);
                        *lost += 1;
                    });
                }
                Some(_) => {}
                None => return,
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
            used_bytes: reader.disk_bytes_in_use().unwrap_or(0),
            revision: reader.revision().0,
            compact_revision: reader.compacted().0,
            keys: reader.keys() as u64,
            watchers: (synced + behind) as u64,
            slow_watchers: behind as u64,
            alarms: alarms.collect(),
            features: self.config().features.clone(),
            peers: peers
                .map(|(id, _)| {
                    let (lanes, lost) = connections.of(id.0);
                    PeerVitals { id: id.0, active: lanes > 0, lost }
                })
                .collect(),
            log: self.0.node.log_metrics().unwrap_or_default(),
            ..Vitals::default()
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
