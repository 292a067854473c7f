//! What waits for the driver: one queue that many fill and one task empties, all at once.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Poll, Waker};

use quorate_node::{Event, NodeMessage, Request};
use quorate_raft::{Entry, Index, LogId, Message, NodeId};
use tokio::sync::Notify;

use crate::control::Control;
use crate::error::StopReason;
use crate::replica::View;
use crate::replies::ReplyTo;

/// What arrives, by kind: requests of clients and messages of peers have bounds, and what the
/// node's own threads report needs none, since each report answers something the driver has asked.
#[derive(Default)]
pub(crate) struct Arrivals {
    pub(crate) messages: Vec<NodeMessage>,
    pub(crate) requests: Vec<(Request, ReplyTo)>,
    pub(crate) reports: Vec<Report>,
    pub(crate) controls: Vec<Control>,
}

/// What the node's own threads report, and what must not be lost.
pub(crate) enum Report {
    Event(Event),
    /// A view was written into a snapshot that is finished and durable, or not.
    Spooled(Result<(LogId, u64), String>),
    /// The state machine's data, to be written into a snapshot.
    View(View),
    /// A durable state machine has made its data durable up to here.
    Flushed(Index),
    /// A peer's snapshot begins to be received.
    Fetching {
        from: NodeId,
        snapshot: LogId,
    },
    /// It was received, or not.
    FetchEnded {
        from: NodeId,
        snapshot: LogId,
        complete: bool,
    },
    /// A peer's snapshot was not received. It is asked for again as long as it is needed.
    FetchFailed {
        from: NodeId,
        snapshot: LogId,
        why: String,
    },
    /// There is no room on the disk, or there is again.
    NoSpace(bool),
    Stop(StopReason),
}

impl Arrivals {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.requests.is_empty()
            && self.reports.is_empty()
            && self.controls.is_empty()
    }
}

pub(crate) struct Inbox {
    inner: Mutex<Inner>,
    /// For those who wait until there is room for messages.
    emptied: Notify,
    limits: InboxLimits,
}

/// What may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InboxLimits {
    /// Most messages of peers, and as many again of those that carry nothing.
    pub(crate) messages_max: usize,
    /// Most requests that are not answered, whether the driver has looked at them or not.
    pub(crate) requests_max: usize,
    /// Most bytes, of the commands among the requests and of what messages carry, each. The last one
    /// that is let in may go beyond.
    pub(crate) bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    arrivals: Arrivals,
    /// Bytes of the commands among the requests.
    request_bytes: usize,
    /// Requests that were taken out and are not answered.
    under_way: usize,
    /// Bytes of what the messages carry.
    message_bytes: usize,
    waker: Option<Waker>,
    closed: bool,
}

/// Why a request was not taken.
pub(crate) enum Refused {
    Full,
    Closed,
}

impl Inbox {
    pub(crate) fn new(limits: InboxLimits) -> Self {
        Self { inner: Mutex::default(), emptied: Notify::new(), limits }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding the inbox")
    }

    fn wake(mut inner: MutexGuard<'_, Inner>) {
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A client's request.
    pub(crate) fn request(&self, request: Request, reply: ReplyTo) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        if inner.under_way + inner.arrivals.requests.len() >= self.limits.requests_max
            || inner.request_bytes >= self.limits.bytes_max
        {
            return Err(Refused::Full);
        }
        if let Request::Propose { command, .. } = &request {
            inner.request_bytes += command.len();
        }
        inner.arrivals.requests.push((request, reply));
        Self::wake(inner);
        Ok(())
    }

    /// A peer's message. False if there is no room: it is lost, as on a network. Those that carry
    /// nothing, heartbeats and votes among them, find room where others do not any more.
    pub(crate) fn message(&self, message: NodeMessage) -> bool {
        let bytes = bytes_of(&message);
        let mut inner = self.lock();
        let full = if bytes == 0 {
            inner.arrivals.messages.len() >= 2 * self.limits.messages_max
        } else {
            self.is_full(&inner)
        };
        if inner.closed || full {
            return false;
        }
        inner.message_bytes += bytes;
        inner.arrivals.messages.push(message);
        Self::wake(inner);
        true
    }

    /// Messages of one read of a connection, all of them. True if there is no room for more: then
    /// nothing more is to be read until there [is](Self::room).
    pub(crate) fn messages(&self, messages: impl Iterator<Item = NodeMessage>) -> bool {
        // Decoded outside the lock.
        let mut messages: Vec<NodeMessage> = messages.collect();
        let bytes: usize = messages.iter().map(bytes_of).sum();
        let mut inner = self.lock();
        if inner.closed {
            return false;
        }
        inner.arrivals.messages.append(&mut messages);
        inner.message_bytes += bytes;
        let full = self.is_full(&inner);
        Self::wake(inner);
        full
    }

    /// Waits until there is room for messages.
    pub(crate) async fn room(&self) {
        loop {
            // Listening before looking, so that nothing is missed in between.
            let mut emptied = pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.has_room() {
                return;
            }
            emptied.await;
        }
    }

    fn has_room(&self) -> bool {
        let inner = self.lock();
        inner.closed || !self.is_full(&inner)
    }

    fn is_full(&self, inner: &Inner) -> bool {
        inner.arrivals.messages.len() >= self.limits.messages_max
            || inner.message_bytes >= self.limits.bytes_max
    }

    pub(crate) fn report(&self, report: Report) {
        let mut inner = self.lock();
        if !inner.closed {
            inner.arrivals.reports.push(report);
            Self::wake(inner);
        }
    }

    pub(crate) fn event(&self, event: Event) {
        self.report(Report::Event(event));
    }

    /// Something that a handle wants to know or to have done; what is not taken is given back.
    pub(crate) fn control(&self, control: Control) -> Result<(), (Refused, Control)> {
        let mut inner = self.lock();
        if inner.closed {
            return Err((Refused::Closed, control));
        }
        // There is always room for the end.
        let full = inner.arrivals.controls.len() >= self.limits.requests_max;
        if full && !matches!(control, Control::Stop) {
            return Err((Refused::Full, control));
        }
        inner.arrivals.controls.push(control);
        Self::wake(inner);
        Ok(())
    }

    /// Takes out everything; `arrivals` must be empty, and its memory is used again. `waiting` of
    /// those taken out before are not answered.
    pub(crate) fn take(&self, arrivals: &mut Arrivals, waiting: usize) {
        let mut inner = self.lock();
        let full = self.is_full(&inner);
        inner.under_way = waiting + inner.arrivals.requests.len();
        inner.request_bytes = 0;
        inner.message_bytes = 0;
        std::mem::swap(&mut inner.arrivals, arrivals);
        drop(inner);
        if full {
            self.emptied.notify_waiters();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().arrivals.is_empty()
    }

    /// Waits until something is there.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            let mut inner = self.lock();
            if !inner.arrivals.is_empty() {
                return Poll::Ready(());
            }
            match &mut inner.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }

    /// Takes nothing any more, and drops what was not taken out.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let arrivals = std::mem::take(&mut inner.arrivals);
        drop(inner);
        drop(arrivals);
        self.emptied.notify_waiters();
    }
}

/// What a message holds besides its own size: entries and commands, which share nothing with the
/// log yet.
fn bytes_of(message: &NodeMessage) -> usize {
    match message {
        NodeMessage::Raft(envelope) => match &envelope.message {
            Message::AppendEntries(append) => append.entries.iter().map(Entry::size).sum(),
            _ => 0,
        },
        NodeMessage::Forward(forward) => forward.command.len(),
        NodeMessage::ForwardReply(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use bytes::Bytes;

    use super::*;

    fn message() -> NodeMessage {
        let message = Message::TimeoutNow;
        NodeMessage::Raft(quorate_raft::Envelope {
            cluster: quorate_raft::ClusterId(1),
            group: quorate_raft::GroupId(0),
            from: NodeId(1),
            to: NodeId(2),
            incarnation: quorate_raft::Incarnation(1),
            term: quorate_raft::Term(1),
            message,
        })
    }

    #[tokio::test]
    async fn whoever_waits_for_room_is_woken_by_the_driver_and_by_the_end() {
        let inbox = std::sync::Arc::new(Inbox::new(InboxLimits {
            messages_max: 2,
            requests_max: 1,
            bytes_max: 1,
        }));
        inbox.room().await;
        assert!(inbox.messages([message(), message(), message()].into_iter()), "all are taken");
        assert!(inbox.message(message()), "small ones have room of their own");
        assert!(!inbox.message(message()), "and then nothing more");
        let waiting = tokio::spawn({
            let inbox = std::sync::Arc::clone(&inbox);
            async move { inbox.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        inbox.take(&mut Arrivals::default(), 0);
        waiting.await.unwrap();
        inbox.messages([message(), message()].into_iter());
        let mut ended = pin!(inbox.room());
        let waker = Waker::noop();
        assert!(ended.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        inbox.close();
        ended.await;
    }

    #[test]
    fn what_waits_is_bounded_by_count_and_by_bytes() {
        let request = |bytes: usize| {
            let command = Bytes::from(vec![0; bytes]);
            let reply = ReplyTo::Propose(tokio::sync::oneshot::channel().0);
            (Request::Propose { command, in_term: None }, reply)
        };
        let taken = |inbox: &Inbox, bytes| {
            let fits = |_: &usize| {
                let (request, reply) = request(bytes);
                inbox.request(request, reply).is_ok()
            };
            (0..100).take_while(fits).count()
        };
        let limits = InboxLimits { messages_max: 1, requests_max: 10, bytes_max: 1000 };
        let inbox = Inbox::new(limits);
        assert_eq!(taken(&inbox, 1), 10);
        inbox.take(&mut Arrivals::default(), 0);
        assert_eq!(taken(&inbox, 1), 0, "those are not answered yet");
        inbox.take(&mut Arrivals::default(), 8);
        assert_eq!(taken(&inbox, 1), 2);
        inbox.take(&mut Arrivals::default(), 0);
        assert_eq!(taken(&inbox, 300), 4, "the last one may go beyond");
        inbox.take(&mut Arrivals::default(), 0);
        assert_eq!(taken(&inbox, 300), 4);
        inbox.close();
        assert_eq!(taken(&inbox, 0), 0);
    }
}
