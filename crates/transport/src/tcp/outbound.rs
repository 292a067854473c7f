//! Dialling a peer and writing what is queued for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::connection::{Connection, End};
use super::frame::{HEAD_BYTES, Kind};
use super::handshake::{Greeting, Purpose, Reply, introduce};
use super::peers::{Hold, PeerState};
use super::shared::Shared;
use crate::admission::{Claim, Known};
use crate::handler::Note;
use crate::refusal::Refusal;
use crate::tasks::{Either, race};
use crate::transport::{Lane, Peer};

/// Bytes that leave the queue for one write.
const WRITE_BYTES: usize = 256 * 1024;

/// A connection that stood this long was a good one; after it dialling begins with short pauses.
const GOOD: Duration = Duration::from_secs(1);

/// How long a shutdown waits for what is queued.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Why no connection came about.
pub(super) enum DialError {
    /// The network, or nobody there.
    Failed {
        /// Where it was tried.
        address: String,
        why: String,
    },
    /// The other side does not want this node, or this one the other.
    Refused(Refusal),
}

/// Keeps a lane to a peer connected until the peer is not dialled any more.
pub(super) async fn keep_connected(
    shared: Arc<Shared>,
    peer: Arc<PeerState>,
    lane: Lane,
    number: u64,
) {
    let seed = shared.settings.seed ^ (peer.node.0 << 1) ^ lane.slot() as u64;
    let mut backoff = Backoff::new(shared.settings.backoff_min, shared.settings.backoff_max, seed);
    let mut changes = peer.changes();
    let state = peer.lane(lane);
    let mut attempts = 0usize;
    state.queue.open();
    loop {
        changes.mark_unchanged();
        let setting = peer.setting().filter(|_| peer.is_dialling(number));
        let Some(setting) = setting else { break };
        if shared.tasks.is_stopping() {
            break;
        }
        let purpose = match lane {
            Lane::Urgent => Purpose::Urgent,
            Lane::Bulk => Purpose::Bulk,
        };
        let dialled = race(
            dial(&shared, &peer, &setting, purpose, attempts),
            race(shared.tasks.stopping(), otherwise(&peer, number, &setting, &mut changes)),
        );
        match dialled.await {
            // The setting has changed, or this process stops.
            Either::Second(_) => continue,
            Either::First(Ok((connection, hold))) => {
                let begin = Instant::now();
                stand(&shared, &peer, lane, number, connection, hold, &setting).await;
                if begin.elapsed() >= GOOD {
                    backoff.reset();
                    continue;
                }
            }
            Either::First(Err(why)) => {
                attempts = attempts.wrapping_add(1);
                state.connect_failures.fetch_add(1, Ordering::Relaxed);
                match why {
                    DialError::Failed { address, why } => {
                        peer.failed(&format!("{address}: {why}"));
                        let peer = peer.node;
                        shared.handler.note(Note::Unreachable { peer, address, why });
                    }
                    DialError::Refused(refusal) => peer.failed(&refusal.text),
                }
            }
        }
        state.queue.close();
        let pause = tokio::time::sleep(backoff.pause());
        let changed = otherwise(&peer, number, &setting, &mut changes);
        let early = race(changed, peer.nudges[lane.slot()].notified());
        race(pause, race(shared.tasks.stopping(), early)).await;
    }
    if !shared.tasks.is_stopping() && !peer.is_dialling(number) && peer.setting().is_some() {
        // Tasks with a later number have taken over.
        return;
    }
    state.queue.close();
}

/// Waits until a peer is set to be dialled otherwise, or not at all, or by other tasks.
async fn otherwise(
    peer: &PeerState,
    number: u64,
    setting: &Peer,
    changes: &mut watch::Receiver<u64>,
) {
    while peer.is_dialling(number) && peer.setting().is_some_and(|now| now == *setting) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Makes one connection.
pub(super) async fn dial(
    shared: &Arc<Shared>,
    peer: &Arc<PeerState>,
    setting: &Peer,
    purpose: Purpose,
    attempt: usize,
) -> Result<(Connection, Hold), DialError> {
    let addresses: Vec<&str> = setting.address.split(',').map(str::trim).collect();
    let address = addresses[attempt % addresses.len()];
    let dialled = tokio::time::timeout(shared.settings.dial_timeout, async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let mut stream = shared.settings.security.connect(stream, peer.node, host).await?;
        let claim = Claim::of(&shared.identity, peer.node);
        let reply = introduce(&mut *stream, purpose, claim).await?;
        Ok::<_, Greeting>((stream, reply))
    });
    let failed = |why: &str| DialError::Failed { address: address.to_owned(), why: why.to_owned() };
    let (stream, reply) = match dialled.await {
        Ok(Ok(done)) => done,
        Ok(Err(Greeting::Failed(why))) => return Err(failed(&why.to_string())),
        Ok(Err(Greeting::NotOurs)) => {
            return Err(failed("what answers there is not a node of Quorate"));
        }
        Err(_) => return Err(failed("no answer in time")),
    };
    let claim = match reply {
        Reply::Welcome(claim) => claim,
        Reply::Refused(refusal) => {
            shared.counters.refused_by_others.fetch_add(1, Ordering::Relaxed);
            shared.handler.note(Note::RefusedBy {
                peer: peer.node,
                address: address.to_owned(),
                refusal: refusal.clone(),
            });
            return Err(DialError::Refused(refusal));
        }
    };
    let connection = Connection::new(stream, &shared.settings, purpose, true);
    let hold = check(shared, peer, &claim)
        .and_then(|()| peer.hold(&claim, shared.now_us(), shared.lately()));
    match hold {
        Ok(hold) => Ok((connection, hold)),
        Err(refusal) => {
            shared.refused(&claim, address, &refusal);
            connection.close(&End::Refuse(refusal.clone())).await;
            Err(DialError::Refused(refusal))
        }
    }
}

/// Whether who answered is who was meant.
fn check(shared: &Shared, peer: &PeerState, claim: &Claim) -> Result<(), Refusal> {
    if claim.cluster != shared.identity.cluster {
        return Err(Refusal::wrong_cluster(shared.identity.cluster, claim.cluster));
    }
    if claim.node != peer.node || claim.wanted != shared.identity.node {
        return Err(Refusal::wrong_node(claim.node, peer.node));
    }
    claim.check_founders(&shared.identity)?;
    match peer.known() {
        Known::Peer(Some(bound)) if bound != claim.incarnation => {
            Err(Refusal::wrong_incarnation(peer.node, bound, claim.incarnation))
        }
        _ => Ok(()),
    }
}

/// A lane's connection, from its handshake to its end.
async fn stand(
    shared: &Arc<Shared>,
    peer: &Arc<PeerState>,
    lane: Lane,
    number: u64,
    mut connection: Connection,
    hold: Hold,
    setting: &Peer,
) {
    let state = peer.lane(lane);
    state.connects.fetch_add(1, Ordering::Relaxed);
    let since = shared.now_us() + 1;
    state.connected_since_us.store(since, Ordering::Relaxed);
    state.queue.open();
    peer.failed("");
    shared.handler.note(Note::Connected { peer: peer.node, lane });
    let mut changes = peer.changes();
    let mut writer = Writer { taken: VecDeque::new(), frames: 0 };
    let mut stopping = std::pin::pin!(shared.tasks.stopping());
    let end = loop {
        let work = poll_fn(|cx| writer.poll(cx, shared, &hold, lane, &mut connection));
        match race(work, race(stopping.as_mut(), changes.changed())).await {
            Either::First(end) => break end,
            Either::Second(Either::First(())) => {
                // What the host said last, it may have said in order to leave well.
                let rest = poll_fn(|cx| {
                    let work = writer.poll(cx, shared, &hold, lane, &mut connection);
                    let done = writer.frames == 0 && connection.out.is_empty();
                    if done && work.is_pending() { Poll::Ready(None) } else { work.map(Some) }
                });
                let rest = race(rest, tokio::time::sleep(LAST_WORDS)).await;
                break match rest {
                    Either::First(Some(end)) => end,
                    _ => End::ShuttingDown,
                };
            }
            Either::Second(Either::Second(_)) => {
                let now = peer.setting().filter(|_| peer.is_dialling(number));
                match now {
                    _ if hold.is_replaced() => {
                        break End::NotNeeded("another process took its place");
                    }
                    None => break End::NotNeeded("it is not a peer any more"),
                    Some(now) if now.address != setting.address => {
                        break End::NotNeeded("its address has changed");
                    }
                    Some(now) => {
                        let life = hold.life.incarnation;
                        if let Some(bound) = now.incarnation
                            && bound != life
                        {
                            break End::Refuse(Refusal::wrong_incarnation(peer.node, bound, life));
                        }
                    }
                }
            }
        }
    };
    // Unless later tasks have made a connection of their own.
    let _ =
        state.connected_since_us.compare_exchange(since, 0, Ordering::Relaxed, Ordering::Relaxed);
    state.queue.count_lost(writer.frames + writer.taken.len());
    shared.over(&hold, &end, connection.is_confirmed());
    let why = end.to_string();
    peer.failed(&why);
    drop(hold);
    connection.close(&end).await;
    shared.handler.note(Note::Disconnected { peer: peer.node, lane, why });
}

/// Moves frames from the queue to the connection.
struct Writer {
    /// Taken from the queue, not yet in the connection's output; empty but for moments.
    taken: VecDeque<Bytes>,
    /// In the connection's output.
    frames: usize,
}

impl Writer {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Shared,
        hold: &Hold,
        lane: Lane,
        connection: &mut Connection,
    ) -> Poll<End> {
        match self.poll_end(cx, shared, hold, lane, connection) {
            Poll::Ready(Err(end)) => Poll::Ready(end),
            // There is always more to do.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Shared,
        hold: &Hold,
        lane: Lane,
        connection: &mut Connection,
    ) -> Poll<Result<(), End>> {
        let state = hold.peer.lane(lane);
        loop {
            while let Poll::Ready(read) = connection.poll_read(cx) {
                read?;
                // Nothing but control comes this way.
                connection.data.clear();
                connection.transfer.clear();
                if let Some(round_trip) = connection.round_trip.take()
                    && lane == Lane::Urgent
                {
                    let us = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX).max(1);
                    hold.peer.round_trip_us.store(us, Ordering::Relaxed);
                    hold.peer.round_trips.fetch_add(1, Ordering::Relaxed);
                }
            }
            while let Poll::Ready(heard) = connection.poll_tick(cx) {
                if heard? {
                    hold.heard(shared.now_us());
                }
            }
            let mut bytes = connection.out.bytes();
            if self.frames == 0
                && state.queue.poll_take(cx, WRITE_BYTES, &mut self.taken).is_ready()
            {
                self.frames = self.taken.len();
                for frame in self.taken.drain(..) {
                    bytes += HEAD_BYTES + frame.len();
                    connection.out.push(Kind::Data, frame);
                }
            }
            if connection.out.is_empty() {
                return Poll::Pending;
            }
            let result = connection.poll_flush(cx);
            let writes = std::mem::take(&mut connection.writes);
            state.writes.fetch_add(writes, Ordering::Relaxed);
            let left = connection.out.bytes();
            state.bytes_sent.fetch_add(bytes.saturating_sub(left) as u64, Ordering::Relaxed);
            match result {
                Poll::Ready(Ok(())) => {
                    state.frames_sent.fetch_add(self.frames as u64, Ordering::Relaxed);
                    self.frames = 0;
                }
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// A refusal or a failure, for a snapshot's receiver.
impl From<DialError> for crate::snapshot::FetchError {
    fn from(why: DialError) -> Self {
        match why {
            DialError::Failed { address, why } => {
                Self::Unreachable { why: format!("{address}: {why}") }
            }
            DialError::Refused(refusal) => Self::Refused(refusal),
        }
    }
}
