//! What all tasks of a transport share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quorate_raft::NodeId;
use tokio::time::Instant;

use super::connection::End;
use super::frame::Reason;
use super::outbound::keep_connected;
use super::peers::{Hold, PeerState};
use super::settings::Settings;
use super::throttle::Throttle;
use crate::admission::Claim;
use crate::handler::{Handler, Note};
use crate::refusal::Refusal;
use crate::status::Metrics;
use crate::tasks::Tasks;
use crate::transport::{Identity, Lane, Peer};

/// Nodes that are not peers, but have connections because the host admitted them.
const STRANGERS_MAX: usize = 64;

pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) settings: Settings,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) tasks: Tasks,
    pub(super) counters: Counters,
    pub(super) throttle: Throttle,
    /// Snapshots that are being sent.
    pub(super) sending: AtomicUsize,
    /// Accepted connections that have not introduced themselves.
    pub(super) greeting: AtomicUsize,
    peers: RwLock<BTreeMap<NodeId, Arc<PeerState>>>,
    born: Instant,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) not_ours: AtomicU64,
    pub(super) over_limit: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) refused_by_others: AtomicU64,
    pub(super) bad_frames: AtomicU64,
    pub(super) silent: AtomicU64,
    pub(super) peers_closed: AtomicU64,
    pub(super) dropped_unknown: AtomicU64,
    pub(super) dropped_too_large: AtomicU64,
    pub(super) snapshots_busy: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        identity: Identity,
        settings: Settings,
        handler: Arc<dyn Handler>,
        tasks: Tasks,
    ) -> Self {
        Self {
            throttle: Throttle::new(settings.snapshot_bytes_per_second),
            identity,
            settings,
            handler,
            tasks,
            counters: Counters::default(),
            sending: AtomicUsize::new(0),
            greeting: AtomicUsize::new(0),
            peers: RwLock::default(),
            born: Instant::now(),
        }
    }

    /// Microseconds of this transport's life.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Within this time a living peer is heard.
    pub(super) fn lately(&self) -> Duration {
        self.settings.ping_interval.saturating_mul(5) / 2
    }

    pub(super) fn peer(&self, node: NodeId) -> Option<Arc<PeerState>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    pub(super) fn with_peer<T>(&self, node: NodeId, f: impl FnOnce(&PeerState) -> T) -> Option<T> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&node).map(|peer| f(peer))
    }

    pub(super) fn all_peers(&self) -> Vec<Arc<PeerState>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A place for a node that the host has admitted; `None` if there are too many of those.
    pub(super) fn peer_or_stranger(&self, node: NodeId) -> Option<Arc<PeerState>> {
        if let Some(peer) = self.peer(node) {
            return Some(peer);
        }
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let strangers = peers.values().filter(|peer| peer.setting().is_none()).count();
        if strangers >= STRANGERS_MAX {
            peers.retain(|_, peer| !peer.is_idle_stranger());
            if peers.values().filter(|peer| peer.setting().is_none()).count() >= STRANGERS_MAX {
                return None;
            }
        }
        let new = || Arc::new(PeerState::new(node, &self.settings));
        Some(Arc::clone(peers.entry(node).or_insert_with(new)))
    }

    pub(super) fn set_peers(self: &Arc<Self>, wanted: &[Peer]) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let set = |node: NodeId| wanted.iter().any(|peer| peer.node == node);
        for (node, peer) in &*peers {
            if !set(*node) {
                peer.set(None);
            }
        }
        peers.retain(|_, peer| set(peer.node) || !peer.is_idle_stranger());
        for setting in wanted.iter().filter(|peer| peer.node != self.identity.node) {
            let peer = peers
                .entry(setting.node)
                .or_insert_with(|| Arc::new(PeerState::new(setting.node, &self.settings)));
            if let Some(number) = peer.set(Some(setting.clone())) {
                for lane in Lane::ALL {
                    let (shared, peer) = (Arc::clone(self), Arc::clone(peer));
                    self.tasks.spawn(keep_connected(shared, peer, lane, number));
                }
            }
        }
    }

    /// This node refuses another.
    pub(super) fn refused(&self, claim: &Claim, address: &str, refusal: &Refusal) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        self.handler.note(Note::Refused {
            node: claim.node,
            incarnation: claim.incarnation,
            address: address.to_owned(),
            refusal: refusal.clone(),
        });
    }

    /// A connection is over: counts it, and tells the host of the end of a process. An end before
    /// both sides knew that the handshake was complete may only be that of an attempt.
    pub(super) fn over(&self, hold: &Hold, end: &End, confirmed: bool) {
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match end {
            End::Closed(_) | End::Goodbye(Reason::ShuttingDown) => {
                if confirmed && !hold.is_replaced() && !self.tasks.is_stopping() && hold.ended() {
                    count(&self.counters.peers_closed);
                    self.handler.peer_closed(hold.peer.node, hold.life.incarnation);
                }
            }
            End::Silent => count(&self.counters.silent),
            End::Bad(_) => count(&self.counters.bad_frames),
            End::Refused(refusal) => {
                count(&self.counters.refused_by_others);
                self.handler.note(Note::RefusedBy {
                    peer: hold.peer.node,
                    address: hold.peer.setting().map(|peer| peer.address).unwrap_or_default(),
                    refusal: refusal.clone(),
                });
            }
            End::Refuse(_) => count(&self.counters.refused),
            End::Goodbye(_) | End::Failed(_) | End::NotNeeded(_) | End::ShuttingDown => {}
        }
    }

    pub(super) fn metrics(&self) -> Metrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Metrics {
            accepted: get(&counters.accepted),
            not_ours: get(&counters.not_ours),
            over_limit: get(&counters.over_limit),
            refused: get(&counters.refused),
            refused_by_others: get(&counters.refused_by_others),
            bad_frames: get(&counters.bad_frames),
            silent: get(&counters.silent),
            peers_closed: get(&counters.peers_closed),
            dropped_unknown: get(&counters.dropped_unknown),
            dropped_too_large: get(&counters.dropped_too_large),
            snapshots_sending: self.sending.load(Ordering::Relaxed) as u64,
            snapshots_busy: get(&counters.snapshots_busy),
        }
    }
}
