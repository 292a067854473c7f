//! Tasks that end when their transport does.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::handler::Handler;

/// How long tasks have to say good-bye before they are dropped where they stand.
const FAREWELL: Duration = Duration::from_millis(500);

/// The tasks of one transport, counted, so that a shutdown can wait for the last of them.
#[derive(Clone)]
pub(crate) struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Handle,
    /// Hears of a task that panicked.
    handler: Arc<dyn Handler>,
    phase: watch::Sender<Phase>,
    live: AtomicUsize,
    ended: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Running,
    /// Tasks end by themselves.
    Stopping,
    /// Tasks are dropped at the point where they wait.
    Stopped,
}

/// Counts a task for as long as it lives, however it ends.
struct Live(Arc<Inner>);

impl Drop for Live {
    fn drop(&mut self) {
        if self.0.live.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

impl Tasks {
    /// `None` outside of a runtime.
    pub(crate) fn new(handler: Arc<dyn Handler>) -> Option<Self> {
        let inner = Inner {
            runtime: Handle::try_current().ok()?,
            handler,
            phase: watch::Sender::new(Phase::Running),
            live: AtomicUsize::new(0),
            ended: Notify::new(),
        };
        Some(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.live.fetch_add(1, Ordering::AcqRel);
        let live = Live(Arc::clone(&self.inner));
        let mut phase = self.inner.phase.subscribe();
        let handler = Arc::clone(&self.inner.handler);
        self.inner.runtime.spawn(async move {
            let _live = live;
            let stopped = async {
                // An error would mean that the sender is gone, and `live` keeps it.
                let _ = phase.wait_for(|phase| *phase == Phase::Stopped).await;
            };
            if let Either::First(Err(panic)) = race(caught(task), stopped).await {
                handler.panicked(&message_of(&*panic));
            }
        });
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.inner.phase.borrow() != Phase::Running
    }

    /// Ends when the tasks shall end.
    pub(crate) async fn stopping(&self) {
        let mut phase = self.inner.phase.subscribe();
        let _ = phase.wait_for(|phase| *phase != Phase::Running).await;
    }

    /// Tells all tasks to end.
    pub(crate) fn begin_stop(&self) {
        self.inner.phase.send_if_modified(|phase| {
            let first = *phase == Phase::Running;
            if first {
                *phase = Phase::Stopping;
            }
            first
        });
    }

    /// Stops all tasks and waits until none is left.
    pub(crate) async fn stop(&self) {
        self.begin_stop();
        let _ = tokio::time::timeout(FAREWELL, self.ended()).await;
        self.inner.phase.send_replace(Phase::Stopped);
        self.ended().await;
    }

    async fn ended(&self) {
        loop {
            let ended = self.inner.ended.notified();
            if self.inner.live.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// Waits for a task, or for its panic.
async fn caught(task: impl Future<Output = ()>) -> Result<(), Box<dyn Any + Send>> {
    let mut task = pin!(task);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// What a panic said.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Which of two futures ended first.
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Waits for the first of two futures, and drops the other. The first is asked first.
pub(crate) async fn race<A: Future, B: Future>(
    first: A,
    second: B,
) -> Either<A::Output, B::Output> {
    let mut first = pin!(first);
    let mut second = pin!(second);
    poll_fn(|cx| {
        if let Poll::Ready(value) = first.as_mut().poll(cx) {
            return Poll::Ready(Either::First(value));
        }
        second.as_mut().poll(cx).map(Either::Second)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io;
    use std::sync::Mutex;
    use std::vec::Drain;

    use bytes::Bytes;
    use quorate_raft::{Incarnation, NodeId};

    use super::*;
    use crate::handler::Pause;
    use crate::snapshot::SnapshotSource;
    use crate::transport::Lane;

    /// Writes down which panics it is told of.
    #[derive(Default)]
    struct Host(Mutex<Vec<String>>);

    impl Handler for Host {
        fn received(&self, _: NodeId, _: Lane, _: Drain<'_, Bytes>) -> Option<Pause> {
            None
        }
        fn peer_closed(&self, _: NodeId, _: Incarnation) {}
        fn open_snapshot(&self, _: NodeId, _: &[u8]) -> io::Result<Option<SnapshotSource>> {
            Ok(None)
        }
        fn panicked(&self, message: &str) {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }

    #[tokio::test]
    async fn a_panic_is_told_and_its_task_has_ended() {
        let host = Arc::new(Host::default());
        let tasks = Tasks::new(Arc::clone(&host) as Arc<dyn Handler>).unwrap();
        tasks.spawn(async {
            tokio::task::yield_now().await;
            panic!("at the {}nd look", 2);
        });
        tasks.ended().await;
        assert_eq!(*host.0.lock().unwrap(), ["at the 2nd look"]);
        tasks.stop().await;
    }

    /// When `stop` returns, whatever tasks held is free: those that end when they are told to, and
    /// those that never would.
    #[tokio::test]
    async fn nothing_is_left_after_a_stop() {
        let tasks = Tasks::new(Arc::new(Host::default())).unwrap();
        let held = Arc::new(());
        for stubborn in [false, true, true] {
            let (tasks_there, held) = (tasks.clone(), Arc::clone(&held));
            tasks.spawn(async move {
                let _held = held;
                if stubborn {
                    pending::<()>().await;
                }
                tasks_there.stopping().await;
            });
        }
        tokio::task::yield_now().await;
        assert!(!tasks.is_stopping());
        assert_eq!(Arc::strong_count(&held), 4);
        tasks.stop().await;
        assert_eq!(Arc::strong_count(&held), 1);
        tasks.stop().await;
        assert!(tasks.is_stopping());
    }

    #[test]
    fn there_are_none_outside_of_a_runtime() {
        assert!(Tasks::new(Arc::new(Host::default())).is_none());
    }
}
