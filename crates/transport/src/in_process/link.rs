//! One direction between two nodes of an in-process network.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorate_raft::{Incarnation, NodeId};
use tokio::time::Instant;

use super::{LaneStatus, Node, PeerStatus, race};
use crate::handler::{Handler, Note, Pause};
use crate::transport::{Lane, Peer, Sent};

/// Frames that a lane holds while it is delayed or the receiver pauses.
const QUEUE_FRAMES_MAX: usize = 4096;
/// Their bytes.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a failed attempt to find a way counts.
const RETRY_AFTER: Duration = Duration::from_millis(20);

pub(super) struct Link {
    peer: Mutex<Peer>,
    lanes: [Mutex<LaneState>; 2],
    snapshot_bytes_sent: AtomicU64,
    snapshot_bytes_received: AtomicU64,
}

#[derive(Default)]
struct LaneState {
    /// What `route` was made from; zero before the first.
    epoch: u64,
    route: Option<Route>,
    /// When there was no way to the peer, for the last time.
    failed_at: Option<Instant>,
    queue: VecDeque<(Instant, Bytes)>,
    queue_bytes: usize,
    /// A task delivers what is in the queue, so that nothing may overtake it.
    draining: bool,
    /// Holds the one frame that is handed over, so that nothing is allocated for it.
    frames: Vec<Bytes>,
    status: LaneStatus,
    last_error: String,
}

/// Where the frames of a lane go.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) incarnation: Incarnation,
    pub(super) features: u64,
    pub(super) cut: bool,
    pub(super) delay: Duration,
}

impl Link {
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            peer: Mutex::new(peer),
            lanes: Default::default(),
            snapshot_bytes_sent: AtomicU64::new(0),
            snapshot_bytes_received: AtomicU64::new(0),
        }
    }

    pub(super) fn peer(&self) -> MutexGuard<'_, Peer> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_peer(&self, peer: Peer) {
        *self.peer() = peer;
    }

    pub(super) fn snapshot_sent(&self, bytes: u64) {
        self.snapshot_bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn snapshot_received(&self, bytes: u64) {
        self.snapshot_bytes_received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether frames have ever found their way.
    pub(super) fn was_connected(&self) -> bool {
        Lane::ALL.iter().any(|lane| self.lane(*lane).status.connects > 0)
    }

    fn lane(&self, lane: Lane) -> MutexGuard<'_, LaneState> {
        self.lanes[lane.slot()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(
        self: &Arc<Self>,
        from: &Arc<Node>,
        lane: Lane,
        frame: Bytes,
        epoch: u64,
    ) -> Sent {
        let mut state = self.lane(lane);
        // A host may admit tomorrow whom it refuses today, so a failure is not for ever.
        let stale = |at: Instant| at.elapsed() >= RETRY_AFTER;
        if state.epoch != epoch || state.failed_at.is_some_and(stale) {
            self.resolve(&mut state, from, lane, epoch);
        }
        let Some(route) = &state.route else {
            state.status.dropped_down += 1;
            return Sent::Down;
        };
        let (cut, delay) = (route.cut, route.delay);
        if cut {
            // As on a real network, the sender does not learn of it.
            state.status.dropped_down += 1;
            return Sent::Queued;
        }
        if !state.draining && delay.is_zero() {
            if let Some(pause) = state.deliver(from.identity.node, lane, frame) {
                self.drain(&mut state, from, lane, Some(pause));
            }
            return Sent::Queued;
        }
        if state.queue.len() >= QUEUE_FRAMES_MAX || state.queue_bytes >= QUEUE_BYTES_MAX {
            state.status.dropped_full += 1;
            return Sent::Full;
        }
        state.queue_bytes += frame.len();
        state.queue.push_back((Instant::now() + delay, frame));
        if !state.draining {
            self.drain(&mut state, from, lane, None);
        }
        Sent::Queued
    }

    /// Finds the way to the peer anew.
    fn resolve(&self, state: &mut LaneState, from: &Arc<Node>, lane: Lane, epoch: u64) {
        state.epoch = epoch;
        let peer = self.peer().node;
        let was = state.route.is_some();
        let result = from.connect(peer).and_then(|(other, weather)| {
            let running = other.live().ok_or("that node does not run")?;
            Ok(Route {
                handler: Arc::clone(&running.handler),
                incarnation: other.identity.incarnation,
                features: other.identity.features,
                cut: weather.cut,
                delay: weather.delay,
            })
        });
        let note = match result {
            Ok(route) => {
                state.route = Some(route);
                state.failed_at = None;
                state.last_error.clear();
                (!was).then(|| {
                    state.status.connects += 1;
                    state.status.connected_since_us = Some(0);
                    Note::Connected { peer, lane }
                })
            }
            Err(why) => {
                state.route = None;
                state.failed_at = Some(Instant::now());
                state.status.connected_since_us = None;
                state.status.connect_failures += 1;
                state.last_error.clone_from(&why);
                was.then_some(Note::Disconnected { peer, lane, why })
            }
        };
        if let (Some(note), Some(running)) = (note, from.live()) {
            running.handler.note(note);
        }
    }

    /// Starts the task that delivers what cannot be delivered at once.
    fn drain(
        self: &Arc<Self>,
        state: &mut LaneState,
        from: &Arc<Node>,
        lane: Lane,
        pause: Option<Pause>,
    ) {
        let Some(running) = from.live() else { return };
        state.draining = true;
        state.status.pauses += u64::from(pause.is_some());
        let tasks = running.tasks.clone();
        let link = Arc::clone(self);
        let from = Arc::clone(from);
        running.tasks.spawn(async move {
            race(link.deliver_queue(&from, lane, pause), tasks.stopping()).await;
        });
    }

    async fn deliver_queue(self: &Arc<Self>, from: &Arc<Node>, lane: Lane, pause: Option<Pause>) {
        let mut pause = pause;
        loop {
            if let Some(pause) = pause.take() {
                pause.await;
            }
            let due = {
                let mut state = self.lane(lane);
                let Some((due, _)) = state.queue.front() else {
                    state.draining = false;
                    return;
                };
                *due
            };
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            let mut state = self.lane(lane);
            let epoch = from.network.epoch.load(Ordering::Acquire);
            if state.epoch != epoch {
                self.resolve(&mut state, from, lane, epoch);
            }
            let Some((_, frame)) = state.queue.pop_front() else { continue };
            state.queue_bytes -= frame.len();
            if state.route.as_ref().is_none_or(|route| route.cut) {
                state.status.dropped_down += 1;
                continue;
            }
            pause = state.deliver(from.identity.node, lane, frame);
            state.status.pauses += u64::from(pause.is_some());
        }
    }

    pub(super) fn status(&self) -> PeerStatus {
        let [urgent, bulk] = [self.lane(Lane::Urgent), self.lane(Lane::Bulk)];
        let lane = |state: &LaneState| LaneStatus {
            queued_frames: state.queue.len() as u64,
            queued_bytes: state.queue_bytes as u64,
            ..state.status
        };
        let route = urgent.route.as_ref().or(bulk.route.as_ref());
        let peer = self.peer();
        PeerStatus {
            node: peer.node,
            address: peer.address.clone(),
            incarnation: route.map(|route| route.incarnation),
            features: route.map_or(0, |route| route.features),
            lanes: [lane(&urgent), lane(&bulk)],
            round_trip_us: None,
            round_trips: 0,
            last_error: urgent.last_error.clone(),
            snapshot_bytes_sent: self.snapshot_bytes_sent.load(Ordering::Relaxed),
            snapshot_bytes_received: self.snapshot_bytes_received.load(Ordering::Relaxed),
        }
    }
}

impl LaneState {
    /// Gives one frame to the receiver. What it returns counts only for the bulk lane.
    fn deliver(&mut self, from: NodeId, lane: Lane, frame: Bytes) -> Option<Pause> {
        let route = self.route.as_ref().expect("the callers have just looked");
        self.status.frames_sent += 1;
        self.status.bytes_sent += frame.len() as u64;
        self.frames.push(frame);
        let pause = route.handler.received(from, lane, self.frames.drain(..));
        pause.filter(|_| lane == Lane::Bulk)
    }
}
