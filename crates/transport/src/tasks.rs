//! Tasks that end when their transport does.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

/// How long tasks have to say good-bye before they are dropped where they stand.
const FAREWELL: Duration = Duration::from_millis(500);

/// The tasks of one transport, counted, so that a shutdown can wait for the last of them.
#[derive(Clone)]
pub(crate) struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Handle,
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
    pub(crate) fn new() -> Option<Self> {
        let inner = Inner {
            runtime: Handle::try_current().ok()?,
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
        self.inner.runtime.spawn(async move {
            let _live = live;
            let stopped = async {
                // An error would mean that the sender is gone, and `live` keeps it.
                let _ = phase.wait_for(|phase| *phase == Phase::Stopped).await;
            };
            race(task, stopped).await;
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

    use super::*;

    /// When `stop` returns, whatever tasks held is free: those that end when they are told to, and
    /// those that never would.
    #[tokio::test]
    async fn nothing_is_left_after_a_stop() {
        let tasks = Tasks::new().unwrap();
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
        assert!(Tasks::new().is_none());
    }
}
