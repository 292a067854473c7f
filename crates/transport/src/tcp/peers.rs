//! What is known about each node: how it was set, its queues, and which life of it is there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_raft::{Incarnation, NodeId};
use tokio::sync::{Notify, watch};

use super::queue::Queue;
use super::settings::Settings;
use crate::admission::{Claim, Known};
use crate::refusal::Refusal;
use crate::status::{LaneStatus, PeerStatus};
use crate::transport::{Lane, Peer};

/// Connections to and from one peer. Four stand, and one for each snapshot; the rest is for those
/// that are ending while their successors begin.
const CONNECTIONS_MAX: usize = 64;

/// One node that this one has to do with.
pub(super) struct PeerState {
    pub(super) node: NodeId,
    /// As it was set; `None` for a stranger that the host has admitted.
    setting: Mutex<Option<Peer>>,
    /// Grows whenever the tasks of this peer should look around: the setting has changed, or a
    /// life of the peer was replaced by another.
    changes: watch::Sender<u64>,
    /// Numbers the pairs of tasks that dial. The latest counts.
    dialling: AtomicU64,
    /// The peer is there; dial it now.
    pub(super) nudges: [Notify; 2],
    pub(super) lanes: [LaneState; 2],
    life: Mutex<Current>,
    pub(super) round_trip_us: AtomicU64,
    pub(super) round_trips: AtomicU64,
    last_error: Mutex<String>,
    pub(super) snapshot_bytes_sent: AtomicU64,
    pub(super) snapshot_bytes_received: AtomicU64,
}

pub(super) struct LaneState {
    pub(super) queue: Queue,
    /// In microseconds of the transport's life, plus one; zero if it does not stand.
    pub(super) connected_since_us: AtomicU64,
    pub(super) connects: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) frames_sent: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) frames_received: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    pub(super) pauses: AtomicU64,
    /// Numbers the connections that the peer has made. The latest counts.
    pub(super) accepted: AtomicU64,
}

/// The process that is at the other end.
#[derive(Default)]
struct Current {
    life: Option<Arc<Life>>,
    connections: usize,
}

/// One life of a peer's process.
pub(super) struct Life {
    pub(super) incarnation: Incarnation,
    pub(super) boot: u64,
    features: u64,
    heard_us: AtomicU64,
    /// Its end was told to the host.
    told: AtomicBool,
    /// Another life has taken its place.
    replaced: AtomicBool,
}

/// A connection to, or from, a life of a peer.
pub(super) struct Hold {
    pub(super) peer: Arc<PeerState>,
    pub(super) life: Arc<Life>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut current = self.peer.current();
        let same = |life: &Arc<Life>| Arc::ptr_eq(life, &self.life);
        if current.life.as_ref().is_some_and(same) {
            current.connections -= 1;
        }
    }
}

impl Hold {
    /// Something was heard through this connection.
    pub(super) fn heard(&self, now_us: u64) {
        self.life.heard_us.store(now_us, Ordering::Relaxed);
    }

    /// Whether another life has taken the place of this one.
    pub(super) fn is_replaced(&self) -> bool {
        self.life.replaced.load(Ordering::Acquire)
    }

    /// The process at the other end has ended. Whether that is news.
    pub(super) fn ended(&self) -> bool {
        !self.life.told.swap(true, Ordering::AcqRel)
    }
}

impl PeerState {
    pub(super) fn new(node: NodeId, settings: &Settings) -> Self {
        let lane = || LaneState {
            queue: Queue::new(settings.queue_frames_max, settings.queue_bytes_max),
            connected_since_us: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
            frames_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            frames_received: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            pauses: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        };
        Self {
            node,
            setting: Mutex::new(None),
            changes: watch::Sender::new(0),
            dialling: AtomicU64::new(0),
            nudges: [Notify::new(), Notify::new()],
            lanes: [lane(), lane()],
            life: Mutex::default(),
            round_trip_us: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
            last_error: Mutex::default(),
            snapshot_bytes_sent: AtomicU64::new(0),
            snapshot_bytes_received: AtomicU64::new(0),
        }
    }

    pub(super) fn lane(&self, lane: Lane) -> &LaneState {
        &self.lanes[lane.slot()]
    }

    pub(super) fn setting(&self) -> Option<Peer> {
        self.setting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn known(&self) -> Known {
        let setting = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        setting.as_ref().map_or(Known::Stranger, |peer| Known::Peer(peer.incarnation))
    }

    /// Sets it, or makes a stranger of it. Returns a number for new tasks that dial, if it needs
    /// some.
    pub(super) fn set(&self, peer: Option<Peer>) -> Option<u64> {
        let mut setting = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        if *setting == peer {
            return None;
        }
        let begins = setting.is_none();
        let ends = peer.is_none();
        *setting = peer;
        let dialling = (begins || ends).then(|| self.dialling.fetch_add(1, Ordering::AcqRel) + 1);
        drop(setting);
        self.changed();
        dialling.filter(|_| begins)
    }

    /// Whether the tasks with that number shall dial.
    pub(super) fn is_dialling(&self, number: u64) -> bool {
        self.dialling.load(Ordering::Acquire) == number
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handshake with a process that claims to be this peer. Refused if another process with the
    /// same id is alive: one whose connections stand and that was heard lately.
    pub(super) fn hold(
        self: &Arc<Self>,
        claim: &Claim,
        now_us: u64,
        lately: Duration,
    ) -> Result<Hold, Refusal> {
        let mut current = self.current();
        let mut replaced = false;
        if current.connections >= CONNECTIONS_MAX {
            return Err(Refusal::too_many(current.connections));
        }
        let life = match &current.life {
            Some(life) if (life.incarnation, life.boot) == (claim.incarnation, claim.boot) => {
                life.told.store(false, Ordering::Release);
                Arc::clone(life)
            }
            other => {
                if let Some(other) = other {
                    let silence = now_us.saturating_sub(other.heard_us.load(Ordering::Relaxed));
                    let alive = current.connections > 0
                        && !other.told.load(Ordering::Acquire)
                        && u128::from(silence) <= lately.as_micros();
                    if alive {
                        let which = format!(
                            "data directory {:016x}, started as {:016x}, heard {} ms ago; yours \
                             are {:016x} and {:016x}",
                            other.incarnation.0,
                            other.boot,
                            silence / 1000,
                            claim.incarnation.0,
                            claim.boot
                        );
                        return Err(Refusal::duplicate(self.node, &which));
                    }
                    other.replaced.store(true, Ordering::Release);
                    replaced = true;
                }
                let life = Arc::new(Life {
                    incarnation: claim.incarnation,
                    boot: claim.boot,
                    features: claim.features,
                    heard_us: AtomicU64::new(now_us),
                    told: AtomicBool::new(false),
                    replaced: AtomicBool::new(false),
                });
                current.life = Some(Arc::clone(&life));
                current.connections = 0;
                life
            }
        };
        current.connections += 1;
        life.heard_us.store(now_us, Ordering::Relaxed);
        drop(current);
        if replaced {
            self.changed();
        }
        Ok(Hold { peer: Arc::clone(self), life })
    }

    /// Whether nothing is connected and nobody has set it.
    pub(super) fn is_idle_stranger(&self) -> bool {
        self.current().connections == 0 && self.known() == Known::Stranger
    }

    pub(super) fn failed(&self, why: &str) {
        why.clone_into(&mut self.last_error.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn status(&self) -> PeerStatus {
        let lane = |lane: &LaneState| {
            let queue = lane.queue.status();
            let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            LaneStatus {
                connected_since_us: get(&lane.connected_since_us).checked_sub(1),
                connects: get(&lane.connects),
                connect_failures: get(&lane.connect_failures),
                queued_frames: queue.frames,
                queued_bytes: queue.bytes,
                frames_sent: get(&lane.frames_sent),
                bytes_sent: get(&lane.bytes_sent),
                writes: get(&lane.writes),
                dropped_full: queue.dropped_full,
                dropped_down: queue.dropped_down,
                frames_received: get(&lane.frames_received),
                bytes_received: get(&lane.bytes_received),
                pauses: get(&lane.pauses),
            }
        };
        let life = self.current().life.clone();
        let round_trip_us = self.round_trip_us.load(Ordering::Relaxed);
        PeerStatus {
            node: self.node,
            address: self.setting().map(|peer| peer.address).unwrap_or_default(),
            incarnation: life.as_ref().map(|life| life.incarnation),
            features: life.as_ref().map_or(0, |life| life.features),
            lanes: [lane(&self.lanes[0]), lane(&self.lanes[1])],
            round_trip_us: (round_trip_us > 0).then_some(round_trip_us),
            round_trips: self.round_trips.load(Ordering::Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            snapshot_bytes_sent: self.snapshot_bytes_sent.load(Ordering::Relaxed),
            snapshot_bytes_received: self.snapshot_bytes_received.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::ClusterId;

    fn claim(boot: u64) -> Claim {
        Claim {
            cluster: ClusterId(1),
            node: NodeId(2),
            incarnation: Incarnation(3),
            boot,
            wanted: NodeId(1),
            features: 0,
            founders: Arc::default(),
        }
    }

    fn peer() -> Arc<PeerState> {
        Arc::new(PeerState::new(NodeId(2), &Settings::new("127.0.0.1:0")))
    }

    const LATELY: Duration = Duration::from_millis(10);

    #[test]
    fn of_two_living_processes_the_second_is_refused() {
        let peer = peer();
        let first = peer.hold(&claim(7), 0, LATELY).unwrap();
        let again = peer.hold(&claim(7), 1, LATELY).unwrap();
        assert!(peer.hold(&claim(8), 2_000, LATELY).is_err());
        // Heard of again, it stays.
        again.heard(15_000);
        assert!(peer.hold(&claim(8), 20_000, LATELY).is_err());
        // Silent for longer, it is a ghost.
        let second = peer.hold(&claim(8), 40_000, LATELY).unwrap();
        assert!(first.is_replaced() && !second.is_replaced());
        drop((first, again));
        assert!(peer.hold(&claim(9), 40_000, LATELY).is_err());
        drop(second);
        assert!(peer.hold(&claim(9), 40_000, LATELY).is_ok());
    }

    #[test]
    fn connections_are_bounded() {
        let peer = peer();
        let holds: Vec<Hold> =
            (0..CONNECTIONS_MAX).map(|_| peer.hold(&claim(7), 0, LATELY).unwrap()).collect();
        assert!(peer.hold(&claim(7), 0, LATELY).is_err());
        drop(holds);
        assert!(peer.hold(&claim(7), 0, LATELY).is_ok());
    }

    #[test]
    fn an_end_is_news_once_and_makes_way() {
        let peer = peer();
        let first = peer.hold(&claim(7), 0, LATELY).unwrap();
        let again = peer.hold(&claim(7), 0, LATELY).unwrap();
        assert!(first.ended());
        assert!(!again.ended());
        // It was not its end after all.
        let back = peer.hold(&claim(7), 1, LATELY).unwrap();
        assert!(peer.hold(&claim(8), 2, LATELY).is_err());
        assert!(back.ended());
        assert!(peer.hold(&claim(8), 2, LATELY).is_ok());
    }
}
