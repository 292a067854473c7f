//! What waits for the driver: one queue that many fill and one task empties, all at once.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard};
use std::task::{Poll, Waker};

use quorate_node::{Event, NodeMessage, Request};
use quorate_raft::{Index, LogId};

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
    Spooled(Option<(LogId, u64)>),
    /// The state machine's data, to be written into a snapshot.
    View(View),
    /// A durable state machine has made its data durable up to here.
    Flushed(Index),
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
    messages_max: usize,
    requests_max: usize,
    request_bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    arrivals: Arrivals,
    /// Bytes of the commands among the requests.
    request_bytes: usize,
    waker: Option<Waker>,
    closed: bool,
}

/// Why a request was not taken.
pub(crate) enum Refused {
    Full,
    Closed,
}

impl Inbox {
    pub(crate) fn new(messages_max: usize, requests_max: usize, request_bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), messages_max, requests_max, request_bytes_max }
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
        if inner.arrivals.requests.len() >= self.requests_max
            || inner.request_bytes >= self.request_bytes_max
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

    /// A peer's message. False if there is no room: it is lost, as on a network.
    pub(crate) fn message(&self, message: NodeMessage) -> bool {
        let mut inner = self.lock();
        if inner.closed || inner.arrivals.messages.len() >= self.messages_max {
            return false;
        }
        inner.arrivals.messages.push(message);
        Self::wake(inner);
        true
    }

    /// Messages of one read of a connection, all of them. True if there is no room for more: then
    /// nothing more is to be read until there [is](Self::has_room).
    pub(crate) fn messages(&self, messages: impl Iterator<Item = NodeMessage>) -> bool {
        // Decoded outside the lock.
        let mut messages: Vec<NodeMessage> = messages.collect();
        let mut inner = self.lock();
        if inner.closed {
            return false;
        }
        inner.arrivals.messages.append(&mut messages);
        let full = inner.arrivals.messages.len() >= self.messages_max;
        Self::wake(inner);
        full
    }

    pub(crate) fn has_room(&self) -> bool {
        let inner = self.lock();
        inner.closed || inner.arrivals.messages.len() < self.messages_max
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

    /// Something that a handle wants to know or to have done.
    pub(crate) fn control(&self, control: Control) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        if inner.arrivals.controls.len() >= self.requests_max {
            return Err(Refused::Full);
        }
        inner.arrivals.controls.push(control);
        Self::wake(inner);
        Ok(())
    }

    /// Takes out everything; `arrivals` must be empty, and its memory is used again.
    pub(crate) fn take(&self, arrivals: &mut Arrivals) {
        let mut inner = self.lock();
        inner.request_bytes = 0;
        std::mem::swap(&mut inner.arrivals, arrivals);
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
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

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
        let inbox = Inbox::new(1, 10, 1000);
        assert_eq!(taken(&inbox, 1), 10);
        let mut arrivals = Arrivals::default();
        inbox.take(&mut arrivals);
        assert_eq!(taken(&inbox, 300), 4, "the last one may go beyond");
        inbox.take(&mut Arrivals::default());
        assert_eq!(taken(&inbox, 300), 4);
        inbox.close();
        assert_eq!(taken(&inbox, 0), 0);
    }
}
