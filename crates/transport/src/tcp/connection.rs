//! One connection after its handshake: frames both ways, and knowing whether the other end lives.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use quorate_wire::{Form, Reader};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::frame::{FrameError, Input, Kind, Reason};
use super::handshake::Purpose;
use super::output::{Output, PIECES_MAX};
use super::settings::{CHUNK_BYTES_MAX, Settings};
use super::stream::Stream;
use crate::refusal::{Refusal, RefusalCode};
use crate::tasks::race;

/// Every frame but those of the host and of snapshots is shorter.
const CONTROL_BYTES_MAX: usize = 1024;

/// No ping is added to more than this that waits to be written: it would say nothing.
const PING_BEHIND_BYTES_MAX: usize = 1024;

/// How long a farewell may take before the connection is closed without.
const GOODBYE: Duration = Duration::from_millis(200);

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum End {
    /// The kernel at the other end closed or reset it: the process is gone.
    Closed(String),
    /// The other end said so.
    Goodbye(Reason),
    /// The other end does not want this node.
    Refused(Refusal),
    /// Nothing was heard for too long.
    Silent,
    /// What came is not what this protocol allows.
    Bad(FrameError),
    /// The network failed.
    Failed(io::Error),
    /// This end does not want it any more.
    NotNeeded(&'static str),
    /// This end does not want the other one.
    Refuse(Refusal),
    /// This process ends.
    ShuttingDown,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed(why) => write!(f, "the other process has ended ({why})"),
            Self::Goodbye(Reason::ShuttingDown) => f.write_str("the other process shuts down"),
            Self::Goodbye(_) => f.write_str("the other side needs it no more"),
            Self::Refused(refusal) | Self::Refuse(refusal) => write!(f, "{refusal}"),
            Self::Silent => f.write_str("nothing was heard for too long"),
            Self::Bad(why) => write!(f, "{why}"),
            Self::Failed(why) => write!(f, "{why}"),
            Self::NotNeeded(why) => f.write_str(why),
            Self::ShuttingDown => f.write_str("this process shuts down"),
        }
    }
}

impl From<io::Error> for End {
    /// Tells the death of a process from the failure of a network. A kernel that closes or resets
    /// is alive, and says that nobody holds the connection any more; time-outs and unreachable
    /// hosts say nothing about the process.
    fn from(why: io::Error) -> Self {
        match why.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Closed(why.to_string()),
            _ => Self::Failed(why),
        }
    }
}

pub(super) struct Connection {
    stream: Box<dyn Stream>,
    input: Input,
    pub(super) out: Output,
    /// Frames for the host that have arrived.
    pub(super) data: Vec<Bytes>,
    /// Frames of a snapshot transfer that have arrived.
    pub(super) transfer: Vec<(Kind, Bytes)>,
    /// The connection is over, once what came before is dealt with.
    end: Option<End>,
    tick: Interval,
    born: Instant,
    /// Whether this end reads; if not, silence means nothing.
    pub(super) reading: bool,
    heard: bool,
    /// Both ends know that the handshake is complete.
    confirmed: bool,
    silent: u32,
    silent_max: u32,
    dialled: bool,
    /// Round trip of the last ping, once.
    pub(super) round_trip: Option<Duration>,
    pub(super) bytes_received: u64,
    pub(super) writes: u64,
}

impl Connection {
    /// `dialled`: this end made the connection; the other end answers its pings.
    pub(super) fn new(
        stream: Box<dyn Stream>,
        settings: &Settings,
        purpose: Purpose,
        dialled: bool,
    ) -> Self {
        let frame_bytes_max = match purpose {
            Purpose::Urgent | Purpose::Bulk => settings.frame_bytes_max.max(CONTROL_BYTES_MAX),
            Purpose::Snapshot => CHUNK_BYTES_MAX + CONTROL_BYTES_MAX,
        };
        let mut tick = tokio::time::interval(settings.ping_interval.max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            stream,
            input: Input::new(frame_bytes_max),
            out: Output::default(),
            data: Vec::new(),
            transfer: Vec::new(),
            end: None,
            tick,
            born: Instant::now(),
            reading: true,
            heard: true,
            confirmed: dialled,
            silent: 0,
            silent_max: settings.silent_pings_max.max(1),
            dialled,
            round_trip: None,
            bytes_received: 0,
            writes: 0,
        }
    }

    /// Whether both ends know that the handshake is complete. The side that was dialled learns it
    /// from the first ping; before that the other may have given up without knowing the answer.
    pub(super) const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Reads once. Ready when something came: see `data` and `transfer`.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(Err(end));
        }
        self.input.reserve();
        let read = pin!(self.stream.read_buf(&mut self.input.buffer));
        let count = match ready!(read.poll(cx)) {
            Ok(0) => return Poll::Ready(Err(End::Closed("end of stream".to_owned()))),
            Ok(count) => count,
            Err(why) => return Poll::Ready(Err(why.into())),
        };
        self.heard = true;
        self.confirmed = true;
        self.bytes_received += count as u64;
        let Self { input, data, transfer, end, .. } = self;
        let (mut ping, mut pong) = (None, None);
        let result = input.take(|kind, payload| match kind {
            // Behind its last word the other end has nothing to say.
            _ if end.is_some() => {}
            Kind::Data => data.push(payload),
            // Of several pings in one read the last counts.
            Kind::Ping => ping = Some(payload),
            Kind::Pong => pong = Some(payload),
            Kind::Goodbye | Kind::Refusal => {
                *end = Some(farewell(kind, &payload));
            }
            Kind::Fetch | Kind::Begin | Kind::Chunk | Kind::Denied => {
                transfer.push((kind, payload));
            }
        });
        if let Err(why) = result {
            self.end.get_or_insert(End::Bad(why));
        }
        if let Some(pong) = pong {
            self.on_pong(&pong);
        }
        if let Some(ping) = ping
            && !self.dialled
            && ping.len() <= 8
            && self.out.bytes() <= PING_BEHIND_BYTES_MAX
        {
            self.out.push_copy(Kind::Pong, &ping);
        }
        Poll::Ready(Ok(()))
    }

    fn on_pong(&mut self, payload: &[u8]) {
        let sent = u64::from_form(payload).map(Duration::from_micros);
        if let Ok(sent) = sent
            && let Some(round_trip) = self.born.elapsed().checked_sub(sent)
        {
            self.round_trip = Some(round_trip);
        }
    }

    /// Writes what is in `out`. Ready when all is written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let count = self.out.slices(&mut slices);
            let stream = Pin::new(&mut self.stream);
            let result = match ready!(stream.poll_write_vectored(cx, &slices[..count])) {
                Ok(0) => Err(io::ErrorKind::BrokenPipe.into()),
                result => result,
            };
            match result {
                Ok(count) => {
                    self.writes += 1;
                    self.out.advance(count);
                }
                Err(why) => return Poll::Ready(Err(self.judge(cx, why))),
            }
        }
        match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(why) => Poll::Ready(Err(self.judge(cx, why))),
        }
    }

    /// A write failed; the reason may be among what came before.
    fn judge(&mut self, cx: &mut Context<'_>, why: io::Error) -> End {
        while let Poll::Ready(read) = self.poll_read(cx) {
            if let Err(end) = read {
                if matches!(end, End::Goodbye(_) | End::Refused(_)) {
                    return end;
                }
                break;
            }
        }
        why.into()
    }

    /// Looks at the clock: adds a ping when it is time, and gives a silent peer up. Ready when
    /// the time for a ping has come; says whether something was heard since the last time.
    pub(super) fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, End>> {
        ready!(self.tick.poll_tick(cx));
        let heard = std::mem::take(&mut self.heard);
        if heard || !self.reading {
            self.silent = 0;
        } else {
            self.silent += 1;
            if self.silent >= self.silent_max {
                return Poll::Ready(Err(End::Silent));
            }
        }
        if self.out.bytes() <= PING_BEHIND_BYTES_MAX {
            let now = u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.out.push_copy(Kind::Ping, &now.to_le_bytes());
        }
        Poll::Ready(Ok(heard))
    }

    /// Waits until something has arrived in `transfer` or `data`, while pings go both ways.
    pub(super) async fn arrive(&mut self) -> Result<(), End> {
        self.reading = true;
        poll_fn(|cx| {
            loop {
                let _ = self.poll_upkeep(cx)?;
                ready!(self.poll_read(cx))?;
                if !self.transfer.is_empty() || !self.data.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        })
        .await
    }

    /// Waits until all is written, while the other end is watched.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        poll_fn(|cx| {
            if self.reading {
                while let Poll::Ready(read) = self.poll_read(cx) {
                    read?;
                }
            }
            self.poll_upkeep(cx)
        })
        .await
    }

    /// Waits until a moment, while the other end is watched.
    pub(super) async fn wait_until(&mut self, moment: Instant) -> Result<(), End> {
        let mut sleep = pin!(tokio::time::sleep_until(moment));
        poll_fn(|cx| {
            while let Poll::Ready(read) = self.poll_read(cx) {
                read?;
            }
            if let Poll::Ready(Err(end)) = self.poll_upkeep(cx) {
                return Poll::Ready(Err(end));
            }
            sleep.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Does something else, while pings go out. Nothing is read.
    pub(super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        let mut work = pin!(work);
        self.reading = false;
        let result = poll_fn(|cx| {
            if let Poll::Ready(value) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            match self.poll_upkeep(cx) {
                Poll::Ready(Err(end)) => Poll::Ready(Err(end)),
                _ => Poll::Pending,
            }
        })
        .await;
        self.reading = true;
        self.heard = true;
        result
    }

    /// Pings and writes. Ready when there is nothing more to write.
    fn poll_upkeep(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        while let Poll::Ready(tick) = self.poll_tick(cx) {
            tick?;
        }
        self.poll_flush(cx)
    }

    /// Says why, if there is something to say, and closes.
    pub(super) async fn close(mut self, end: &End) {
        let mut payload = Vec::new();
        match end {
            End::ShuttingDown => {
                Reason::ShuttingDown.number().put(&mut payload);
                self.out.push_copy(Kind::Goodbye, &payload);
            }
            End::NotNeeded(_) | End::Bad(_) | End::Silent => {
                Reason::NotNeeded.number().put(&mut payload);
                self.out.push_copy(Kind::Goodbye, &payload);
            }
            End::Refuse(refusal) => {
                refusal.code.number().put(&mut payload);
                payload.extend_from_slice(refusal.text.as_bytes());
                self.out.push_copy(Kind::Refusal, &payload);
            }
            End::Closed(_) | End::Goodbye(_) | End::Refused(_) | End::Failed(_) => return,
        }
        let farewell = async {
            let flushed = poll_fn(|cx| self.poll_flush(cx)).await;
            if flushed.is_err() || self.stream.shutdown().await.is_err() {
                return;
            }
            // A kernel that still has unread bytes when a socket is closed resets it, and the
            // reset may overtake the last words.
            let mut scratch = vec![0; 4096];
            while matches!(self.stream.read(&mut scratch).await, Ok(1..)) {}
        };
        race(farewell, tokio::time::sleep(GOODBYE)).await;
    }
}

/// What the other side says as its last word.
fn farewell(kind: Kind, payload: &[u8]) -> End {
    let mut reader = Reader::new(payload);
    let Ok(number) = u16::take(&mut reader) else { return End::Bad(FrameError::Payload { kind }) };
    if kind == Kind::Goodbye {
        return End::Goodbye(Reason::from_number(number));
    }
    let text = reader.take(reader.remaining()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(TEXT_BYTES_MAX)]).into_owned();
    End::Refused(Refusal { code: RefusalCode::from_number(number), text })
}

/// The longest text of a refusal that is believed, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what a living kernel says about a dead process counts as its death.
    #[test]
    fn death_and_failure() {
        use io::ErrorKind::*;
        for kind in [ConnectionReset, BrokenPipe, UnexpectedEof] {
            assert!(matches!(End::from(io::Error::from(kind)), End::Closed(_)), "{kind}");
        }
        // The last is what a kernel says of a connection that it has given up itself.
        for kind in [TimedOut, HostUnreachable, NetworkUnreachable, NetworkDown, ConnectionAborted]
        {
            assert!(matches!(End::from(io::Error::from(kind)), End::Failed(_)), "{kind}");
        }
    }

    #[test]
    fn last_words() {
        let end = farewell(Kind::Goodbye, &[1, 0]);
        assert!(matches!(end, End::Goodbye(Reason::ShuttingDown)));
        assert!(matches!(farewell(Kind::Goodbye, &[9, 9, 1]), End::Goodbye(Reason::Other)));
        assert!(matches!(farewell(Kind::Goodbye, &[1]), End::Bad(_)));
        let mut long = vec![6, 0];
        long.extend_from_slice(&[b'x'; 2000]);
        let End::Refused(refusal) = farewell(Kind::Refusal, &long) else { panic!("no refusal") };
        assert_eq!(refusal.code, RefusalCode::UnknownNode);
        assert_eq!(refusal.text.len(), TEXT_BYTES_MAX);
    }
}
