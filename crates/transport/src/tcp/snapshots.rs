//! Snapshots: pulled by the receiver through a connection of their own, one for each transfer.
//!
//! ```text
//! receiver                          sender
//!    Fetch name, offset, identity ─►
//!                                 ◄─ Begin length, identity      or  Denied code, when to retry
//!                                 ◄─ Chunk offset, bytes
//!                                 ◄─ ...
//!    Goodbye ─►
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quorate_raft::NodeId;
use quorate_wire::{Form, Reader, WireError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connection::{Connection, End, TEXT_BYTES_MAX};
use super::frame::{FrameError, Kind};
use super::handshake::Purpose;
use super::outbound::{DialError, dial};
use super::peers::Hold;
use super::shared::Shared;
use crate::snapshot::{
    FetchError, SNAPSHOT_NAME_BYTES_MAX, SnapshotChunk, SnapshotRequest, SnapshotSink,
    SnapshotSource, SnapshotStream,
};
use crate::tasks::{Either, race};

/// When a receiver that was put off should try again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

const BUSY: u16 = 1;
const MISSING: u16 = 2;
const CHANGED: u16 = 3;
const UNREADABLE: u16 = 4;

/// A place among the snapshots that are being sent.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let max = shared.settings.snapshot_streams_max;
        let more = |count: usize| (count < max).then_some(count + 1);
        shared
            .sending
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, more)
            .ok()
            .map(|_| Self(Arc::clone(shared)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The sender's side of a connection.
pub(super) async fn serve(shared: &Arc<Shared>, mut connection: Connection, hold: Hold) {
    let work = send(shared, &mut connection, &hold);
    let end = match race(work, shared.tasks.stopping()).await {
        Either::First(end) => end,
        Either::Second(()) => End::ShuttingDown,
    };
    shared.over(&hold, &end, connection.is_confirmed());
    drop(hold);
    connection.close(&end).await;
}

async fn send(shared: &Arc<Shared>, connection: &mut Connection, hold: &Hold) -> End {
    match try_send(shared, connection, hold).await {
        Ok(()) => loop {
            // The receiver hangs up; whoever did so first might cut off the last bytes.
            connection.transfer.clear();
            connection.data.clear();
            if let Err(end) = connection.arrive().await {
                break end;
            }
        },
        Err(end) => end,
    }
}

async fn try_send(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    hold: &Hold,
) -> Result<(), End> {
    connection.arrive().await?;
    let request = match connection.transfer.pop() {
        Some((Kind::Fetch, payload)) => take_request(&payload).ok(),
        _ => None,
    };
    let Some(request) = request else {
        return Err(End::Bad(FrameError::Payload { kind: Kind::Fetch }));
    };
    let Some(_place) = Place::take(shared) else {
        shared.counters.snapshots_busy.fetch_add(1, Ordering::Relaxed);
        return deny(connection, BUSY, "").await;
    };
    let SnapshotRequest { name, mut offset, identity } = request;
    let (handler, to) = (Arc::clone(&shared.handler), hold.peer.node);
    let open = tokio::task::spawn_blocking(move || handler.open_snapshot(to, &name));
    let source = match connection.meanwhile(open).await? {
        Ok(Ok(Some(source))) => source,
        Ok(Ok(None)) => return deny(connection, MISSING, "").await,
        Ok(Err(why)) => return deny(connection, UNREADABLE, &why.to_string()).await,
        Err(_) => return deny(connection, UNREADABLE, "opening it panicked").await,
    };
    let SnapshotSource { length, identity: found, mut reader } = source;
    if offset > length || identity.is_some_and(|wanted| wanted != found) {
        return deny(connection, CHANGED, "").await;
    }
    let mut begin = Vec::new();
    length.put(&mut begin);
    found.put(&mut begin);
    connection.out.push_copy(Kind::Begin, &begin);
    connection.flush().await?;

    let chunk_bytes = shared.settings.chunk_bytes();
    while offset < length {
        let wanted = (length - offset).min(chunk_bytes as u64) as usize;
        let turn = shared.throttle.turn(wanted, Instant::now());
        connection.wait_until(turn).await?;
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = Vec::with_capacity(OFFSET_BYTES + wanted);
            offset.put(&mut chunk);
            chunk.resize(OFFSET_BYTES + wanted, 0);
            let result = reader.read_at(offset, &mut chunk[OFFSET_BYTES..]);
            (reader, chunk, result)
        });
        let Ok((back, mut chunk, result)) = connection.meanwhile(read).await? else {
            return deny(connection, UNREADABLE, "reading it panicked").await;
        };
        reader = back;
        let count = match result {
            Ok(0) => return deny(connection, UNREADABLE, "the file is too short").await,
            Ok(count) => count.min(wanted),
            Err(why) => return deny(connection, UNREADABLE, &why.to_string()).await,
        };
        chunk.truncate(OFFSET_BYTES + count);
        connection.out.push(Kind::Chunk, Bytes::from(chunk));
        connection.flush().await?;
        offset += count as u64;
        hold.peer.snapshot_bytes_sent.fetch_add(count as u64, Ordering::Relaxed);
        hold.heard(shared.now_us());
    }
    Ok(())
}

/// Bytes before those of the snapshot in a chunk.
const OFFSET_BYTES: usize = 8;

async fn deny(connection: &mut Connection, code: u16, text: &str) -> Result<(), End> {
    let mut payload = Vec::new();
    code.put(&mut payload);
    (RETRY_AFTER.as_millis() as u32).put(&mut payload);
    payload.extend_from_slice(&text.as_bytes()[..text.len().min(TEXT_BYTES_MAX)]);
    connection.out.push_copy(Kind::Denied, &payload);
    connection.flush().await
}

fn take_request(payload: &Bytes) -> Result<SnapshotRequest, WireError> {
    let mut reader = Reader::shared(payload);
    let offset = u64::take(&mut reader)?;
    let identity = <Option<u64> as Form>::take(&mut reader)?;
    let name = Bytes::take(&mut reader)?;
    reader.finish()?;
    if name.len() > SNAPSHOT_NAME_BYTES_MAX {
        return Err(WireError::Value { what: "name" });
    }
    Ok(SnapshotRequest { name, offset, identity })
}

/// The receiver's side. It runs in a task of its own, so that a host that loses interest does not
/// leave a connection without a farewell.
pub(super) async fn fetch(
    shared: Arc<Shared>,
    from: NodeId,
    request: SnapshotRequest,
) -> Result<SnapshotStream, FetchError> {
    if request.name.len() > SNAPSHOT_NAME_BYTES_MAX {
        return Err(FetchError::NameTooLong);
    }
    if shared.tasks.is_stopping() {
        return Err(FetchError::Stopped);
    }
    let (answer, answered) = oneshot::channel();
    let tasks = shared.tasks.clone();
    tasks.spawn(receive(shared, from, request, answer));
    answered.await.unwrap_or(Err(FetchError::Stopped))
}

async fn receive(
    shared: Arc<Shared>,
    from: NodeId,
    request: SnapshotRequest,
    answer: oneshot::Sender<Result<SnapshotStream, FetchError>>,
) {
    let connected = match race(connect(&shared, from), shared.tasks.stopping()).await {
        Either::First(connected) => connected,
        Either::Second(()) => return,
    };
    let (mut connection, hold) = match connected {
        Ok(connected) => connected,
        Err(why) => {
            let _ = answer.send(Err(why));
            return;
        }
    };
    let work = transfer(&mut connection, &hold, &request, answer);
    let end = match race(work, shared.tasks.stopping()).await {
        Either::First(end) => end,
        Either::Second(()) => End::ShuttingDown,
    };
    shared.over(&hold, &end, connection.is_confirmed());
    drop(hold);
    connection.close(&end).await;
}

/// Tries the addresses of a peer in turn.
async fn connect(shared: &Arc<Shared>, from: NodeId) -> Result<(Connection, Hold), FetchError> {
    let peer = shared.peer(from).ok_or(FetchError::Unknown)?;
    let setting = peer.setting().ok_or(FetchError::Unknown)?;
    let addresses = setting.address.split(',').count();
    let mut attempt = 0;
    loop {
        match dial(shared, &peer, &setting, Purpose::Snapshot, attempt).await {
            Err(DialError::Failed { .. }) if attempt + 1 < addresses => attempt += 1,
            result => return result.map_err(FetchError::from),
        }
    }
}

/// Asks, and hands what comes to the host.
async fn transfer(
    connection: &mut Connection,
    hold: &Hold,
    request: &SnapshotRequest,
    answer: oneshot::Sender<Result<SnapshotStream, FetchError>>,
) -> End {
    let mut payload = Vec::new();
    request.offset.put(&mut payload);
    request.identity.put(&mut payload);
    request.name.put(&mut payload);
    connection.out.push_copy(Kind::Fetch, &payload);
    let began = match connection.flush().await {
        Ok(()) => connection.arrive().await,
        Err(end) => Err(end),
    };
    let broken = |end: &End| FetchError::Broken { why: end.to_string() };
    if let Err(end) = began {
        let _ = answer.send(Err(broken(&end)));
        return end;
    }
    let mut frames = std::mem::take(&mut connection.transfer).into_iter();
    let bad = |kind| End::Bad(FrameError::Payload { kind });
    let (sink, position) = match frames.next() {
        Some((Kind::Begin, payload)) => {
            let mut reader = Reader::new(&payload);
            let (Ok(length), Ok(identity)) = (u64::take(&mut reader), u64::take(&mut reader))
            else {
                let _ = answer.send(Err(FetchError::Damaged));
                return bad(Kind::Begin);
            };
            if request.offset > length {
                let _ = answer.send(Err(FetchError::Changed));
                return bad(Kind::Begin);
            }
            let (sink, stream) = SnapshotStream::new(length, identity, request.offset);
            if answer.send(Ok(stream)).is_err() {
                return End::NotNeeded("the host wants it no more");
            }
            (sink, Position { offset: request.offset, length })
        }
        Some((Kind::Denied, payload)) => {
            let _ = answer.send(Err(denial(&payload)));
            return End::NotNeeded("the snapshot was denied");
        }
        other => {
            let _ = answer.send(Err(FetchError::Damaged));
            return bad(other.map_or(Kind::Begin, |(kind, _)| kind));
        }
    };
    match receive_chunks(connection, hold, frames.collect(), &sink, position).await {
        Ok(()) => End::NotNeeded("the snapshot is complete"),
        Err((end, why)) => {
            let why = why.unwrap_or_else(|| broken(&end));
            // Whether the host still listens makes no difference.
            match connection.meanwhile(sink.put(Err(why))).await {
                Ok(_) => end,
                Err(end) => end,
            }
        }
    }
}

/// How far a transfer is.
struct Position {
    offset: u64,
    length: u64,
}

async fn receive_chunks(
    connection: &mut Connection,
    hold: &Hold,
    mut frames: Vec<(Kind, Bytes)>,
    sink: &SnapshotSink,
    mut position: Position,
) -> Result<(), (End, Option<FetchError>)> {
    loop {
        for (kind, payload) in frames.drain(..) {
            let bytes = match kind {
                Kind::Chunk if payload.len() > OFFSET_BYTES => payload.slice(OFFSET_BYTES..),
                Kind::Denied => {
                    let end = End::NotNeeded("the sender gave up");
                    return Err((end, Some(denial(&payload))));
                }
                _ => {
                    let end = End::Bad(FrameError::Payload { kind });
                    return Err((end, Some(FetchError::Damaged)));
                }
            };
            let count = bytes.len() as u64;
            let offset = u64::take(&mut Reader::new(&payload)).unwrap_or(u64::MAX);
            if offset != position.offset || count > position.length - position.offset {
                let end = End::Bad(FrameError::Payload { kind });
                return Err((end, Some(FetchError::Damaged)));
            }
            position.offset += count;
            hold.peer.snapshot_bytes_received.fetch_add(count, Ordering::Relaxed);
            let put = sink.put(Ok(SnapshotChunk { offset, bytes }));
            match connection.meanwhile(put).await {
                Ok(true) => {}
                Ok(false) => {
                    return Err((End::NotNeeded("the host wants it no more"), None));
                }
                Err(end) => return Err((end, None)),
            }
        }
        if position.offset == position.length {
            return Ok(());
        }
        connection.arrive().await.map_err(|end| (end, None))?;
        connection.data.clear();
        frames = std::mem::take(&mut connection.transfer);
    }
}

/// Why the sender does not send.
fn denial(payload: &Bytes) -> FetchError {
    let mut reader = Reader::new(payload);
    let (Ok(code), Ok(retry_after_ms)) = (u16::take(&mut reader), u32::take(&mut reader)) else {
        return FetchError::Damaged;
    };
    match code {
        BUSY => FetchError::Busy { retry_after_ms },
        MISSING => FetchError::Missing,
        CHANGED => FetchError::Changed,
        _ => {
            let text = reader.take(reader.remaining()).unwrap_or_default();
            let text = &text[..text.len().min(TEXT_BYTES_MAX)];
            FetchError::Unreadable { why: String::from_utf8_lossy(text).into_owned() }
        }
    }
}
