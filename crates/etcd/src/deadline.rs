//! Deadlines that clients send along (`grpc-timeout`).
//!
//! When one has passed, whoever works on the call is dropped, and the client gets the status that it has most likely given
//! itself already. What has gone into the log by then may still happen.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

use crate::status;

/// Longer ones are none: nothing waits for years, and clocks cannot count so far.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a call is to end, if it says so.
pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let malformed = || Status::internal(format!("malformed grpc-timeout: {value:?}"));
    let text = value.to_str().map_err(|_| malformed())?;
    let timeout = parse(text).ok_or_else(malformed)?;
    Ok((timeout <= LONGEST).then(|| Instant::now() + timeout))
}

/// At most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    const DIGITS_MAX: usize = 8;
    let (last, _) = text.char_indices().next_back()?;
    let (digits, unit) = text.split_at(last);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || digits.len() > DIGITS_MAX {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Lets a call work until its deadline; what it then still sends as a stream ends there, too.
pub(crate) async fn keep<E>(
    deadline: Instant,
    is_stream: bool,
    work: impl Future<Output = Result<Response<Body>, E>>,
) -> Result<Response<Body>, E> {
    match tokio::time::timeout_at(deadline, work).await {
        Err(_) => Ok(status::deadline_exceeded().into_http()),
        Ok(Ok(response)) if is_stream && !response.headers().contains_key("grpc-status") => {
            Ok(response.map(|inner| {
                Body::new(Ending { inner, ends: Some(Box::pin(sleep_until(deadline))) })
            }))
        }
        Ok(answer) => answer,
    }
}

/// A stream that ends at a deadline.
struct Ending {
    inner: Body,
    /// `None` once it has ended.
    ends: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(ends) = &mut self.ends else { return Poll::Ready(None) };
        if ends.as_mut().poll(cx).is_pending() {
            return Pin::new(&mut self.inner).poll_frame(cx);
        }
        self.ends = None;
        // Whoever fed the stream is done with it now, not when the client has read the end.
        self.inner = Body::empty();
        let (headers, _) = status::deadline_exceeded().into_http::<Body>().into_parts();
        let mut trailers = headers.headers;
        trailers.remove(http::header::CONTENT_TYPE);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ends.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_up_to_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("30S", Some(Duration::from_secs(30))),
            ("100m", Some(Duration::from_millis(100))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("0S", Some(Duration::ZERO)),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("1.5S", None),
            ("1s", None),
            ("5\u{e4}", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
