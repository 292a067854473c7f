//! Accepting connections and reading what peers send.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::connection::{Connection, End};
use super::handshake::{
    Greeting, Hello, Purpose, choose_version, receive_hello, send_refusal, send_welcome,
};
use super::peers::{Hold, PeerState};
use super::shared::Shared;
use super::snapshots;
use super::stream::Stream;
use crate::admission::{Claim, Known, admit};
use crate::handler::Pause;
use crate::refusal::Refusal;
use crate::tasks::{Either, race};
use crate::transport::Lane;

/// Pause after a failed accept; it fails when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the transport stops.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut stopping = std::pin::pin!(shared.tasks.stopping());
    loop {
        let accepted = match race(stopping.as_mut(), listener.accept()).await {
            Either::First(()) => return,
            Either::Second(accepted) => accepted,
        };
        let Ok((stream, address)) = accepted else {
            race(stopping.as_mut(), tokio::time::sleep(ACCEPT_PAUSE)).await;
            continue;
        };
        shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
        if shared.greeting.load(Ordering::Relaxed) >= shared.settings.handshakes_max {
            shared.counters.over_limit.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let place = Place::take(&shared);
        shared.tasks.spawn(serve(Arc::clone(&shared), stream, address, place));
    }
}

/// A place among the connections that are in their handshake.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Self {
        shared.greeting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.greeting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One accepted connection, from its first byte to its end.
async fn serve(shared: Arc<Shared>, stream: TcpStream, address: SocketAddr, place: Place) {
    let greeting = race(
        shared.tasks.stopping(),
        tokio::time::timeout(shared.settings.dial_timeout, greet(&shared, stream)),
    );
    let (mut stream, hello) = match greeting.await {
        Either::First(()) => return,
        Either::Second(Ok(Ok(done))) => done,
        Either::Second(_) => {
            shared.counters.not_ours.fetch_add(1, Ordering::Relaxed);
            return;
        }
    };
    let address = address.to_string();
    let welcome = async {
        match admitted(&shared, &hello, &address) {
            Ok((purpose, version, hold)) => {
                let claim = Claim::of(&shared.identity, hold.peer.node);
                send_welcome(&mut *stream, version, &claim).await.ok()?;
                Some((purpose, hold))
            }
            Err(refusal) => {
                shared.refused(&hello.claim, &address, &refusal);
                let _ = send_refusal(&mut *stream, &refusal).await;
                None
            }
        }
    };
    let welcome = tokio::time::timeout(shared.settings.dial_timeout, welcome).await;
    drop(place);
    let Ok(Some((purpose, hold))) = welcome else { return };
    let connection = Connection::new(stream, &shared.settings, purpose, false);
    // It is there, so this node need not wait any longer before it dials.
    for nudge in &hold.peer.nudges {
        nudge.notify_one();
    }
    match purpose {
        Purpose::Urgent => stand(&shared, Lane::Urgent, connection, hold, &hello, &address).await,
        Purpose::Bulk => stand(&shared, Lane::Bulk, connection, hold, &hello, &address).await,
        Purpose::Snapshot => snapshots::serve(&shared, connection, hold).await,
    }
}

async fn greet(shared: &Shared, stream: TcpStream) -> Result<(Box<dyn Stream>, Hello), Greeting> {
    stream.set_nodelay(true)?;
    let mut stream = shared.settings.security.accept(stream).await?;
    let hello = receive_hello(&mut *stream).await?;
    Ok((stream, hello))
}

/// Judges an introduction.
fn admitted(
    shared: &Arc<Shared>,
    hello: &Hello,
    address: &str,
) -> Result<(Purpose, u16, Hold), Refusal> {
    let version = choose_version(hello.versions)?;
    let claim = &hello.claim;
    let known = shared.peer(claim.node).map_or(Known::Stranger, |peer| peer.known());
    admit(&shared.identity, claim, known, address, &*shared.handler)?;
    let purpose = hello.purpose.ok_or_else(|| Refusal::malformed("unknown purpose"))?;
    if shared.tasks.is_stopping() {
        return Err(Refusal::shutting_down());
    }
    let peer: Arc<PeerState> =
        shared.peer_or_stranger(claim.node).ok_or_else(|| Refusal::unknown_node(claim.node))?;
    let hold = peer.hold(claim, shared.now_us(), shared.lately())?;
    Ok((purpose, version, hold))
}

/// A lane's connection, from its handshake to its end.
async fn stand(
    shared: &Arc<Shared>,
    lane: Lane,
    mut connection: Connection,
    hold: Hold,
    hello: &Hello,
    address: &str,
) {
    let peer = Arc::clone(&hold.peer);
    let mut changes = peer.changes();
    // The peer has made a new connection; what comes through older ones is out of date.
    let number = peer.lane(lane).accepted.fetch_add(1, Ordering::AcqRel) + 1;
    peer.changed();
    let mut stopping = std::pin::pin!(shared.tasks.stopping());
    let mut pause = None;
    let end = loop {
        let work = poll_fn(|cx| poll_reader(cx, shared, &hold, lane, &mut connection, &mut pause));
        match race(work, race(stopping.as_mut(), changes.changed())).await {
            Either::First(Err(end)) => break end,
            Either::First(Ok(())) => {}
            Either::Second(Either::First(())) => break End::ShuttingDown,
            Either::Second(Either::Second(_)) => {
                if hold.is_replaced() {
                    break End::NotNeeded("another process took its place");
                }
                if peer.lane(lane).accepted.load(Ordering::Acquire) != number {
                    break End::NotNeeded("another connection took its place");
                }
                let known = peer.known();
                let handler = &*shared.handler;
                if let Err(refusal) = admit(&shared.identity, &hello.claim, known, address, handler)
                {
                    break End::Refuse(refusal);
                }
            }
        }
    };
    shared.over(&hold, &end, connection.is_confirmed());
    drop(hold);
    connection.close(&end).await;
}

/// Reads, and gives what comes to the host. Never ready with `Ok`.
fn poll_reader(
    cx: &mut Context<'_>,
    shared: &Shared,
    hold: &Hold,
    lane: Lane,
    connection: &mut Connection,
    pause: &mut Option<Pause>,
) -> Poll<Result<(), End>> {
    loop {
        if let Some(waiting) = pause
            && waiting.as_mut().poll(cx).is_ready()
        {
            *pause = None;
            connection.reading = true;
        }
        let mut came = false;
        if pause.is_none()
            && let Poll::Ready(read) = connection.poll_read(cx)
        {
            if let Err(end) = read {
                return Poll::Ready(Err(end));
            }
            came = true;
            *pause = deliver(shared, hold, lane, connection);
            connection.reading = pause.is_none();
        }
        while let Poll::Ready(heard) = connection.poll_tick(cx) {
            match heard {
                Ok(true) => hold.heard(shared.now_us()),
                Ok(false) => {}
                Err(end) => return Poll::Ready(Err(end)),
            }
        }
        if !connection.out.is_empty()
            && let Poll::Ready(Err(end)) = connection.poll_flush(cx)
        {
            return Poll::Ready(Err(end));
        }
        if !came {
            return Poll::Pending;
        }
    }
}

/// Gives the host what has come; what it returns counts only for the bulk lane.
fn deliver(shared: &Shared, hold: &Hold, lane: Lane, connection: &mut Connection) -> Option<Pause> {
    let state = hold.peer.lane(lane);
    let bytes = std::mem::take(&mut connection.bytes_received);
    state.bytes_received.fetch_add(bytes, Ordering::Relaxed);
    connection.transfer.clear();
    if connection.data.is_empty() {
        return None;
    }
    state.frames_received.fetch_add(connection.data.len() as u64, Ordering::Relaxed);
    let pause = shared.handler.received(hold.peer.node, lane, connection.data.drain(..));
    let pause = pause.filter(|_| lane == Lane::Bulk);
    if pause.is_some() {
        state.pauses.fetch_add(1, Ordering::Relaxed);
    }
    pause
}
