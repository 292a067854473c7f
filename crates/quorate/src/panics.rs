//! Threads and tasks whose panics are values, so that each ends the node with a reason instead of leaving
//! somebody waiting.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::error::StopReason;
use crate::inbox::{Inbox, Report};

/// What a panic said.
pub(crate) fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

fn internal(part: &str, panic: &(dyn Any + Send)) -> StopReason {
    StopReason::Internal { message: format!("{part} panicked: {}", message_of(panic)) }
}

/// Does some work of the library; a panic in it becomes a reason to stop that names the part.
pub(crate) fn caught<T>(part: &str, work: impl FnOnce() -> T) -> Result<T, StopReason> {
    // What a panic leaves behind is not looked at any more: the node stops.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| internal(part, &*panic))
}

/// The same for work that waits.
pub(crate) async fn caught_async<T>(
    part: &str,
    work: impl Future<Output = T>,
) -> Result<T, StopReason> {
    let mut work = pin!(work);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Err(panic) => Poll::Ready(Err(internal(part, &*panic))),
    })
    .await
}

/// Work for a thread whose panic stops the node.
pub(crate) fn reporting<W: FnOnce()>(
    part: &'static str,
    inbox: &Arc<Inbox>,
    work: W,
) -> impl FnOnce() + use<W> {
    let inbox = Arc::clone(inbox);
    move || {
        if let Err(why) = caught(part, work) {
            inbox.report(Report::Stop(why));
        }
    }
}

/// A thread could not be had.
#[allow(clippy::needless_pass_by_value, reason = "it is what an error is mapped with")]
pub(crate) fn unstarted(error: std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("a thread could not be started: {error}"))
}
