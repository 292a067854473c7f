//! Counts calls as they pass: a layer around the services.
//!
//! What a call is can be read off its path, what becomes of it off the trailers of its answer, and
//! how many messages there are off the five bytes before each. Nothing is decoded and nothing copied.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::Slow;
use super::histogram::Histogram;
use super::methods::{CODES, METHODS, Method, Shape};
use super::text::{Kind, Page};

/// How many versions of clients are told apart.
const VERSIONS_MAX: usize = 32;

/// The number of the code `Canceled`.
const CANCELED: usize = 1;

/// What has been called.
pub(crate) struct Calls {
    by_path: HashMap<String, usize>,
    methods: Box<[Counters]>,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    /// By type and version of the client.
    versions: Mutex<Vec<(&'static str, String, u64)>>,
    /// How long reads took: those that succeeded, and those that failed.
    ranges: [Histogram; 2],
    /// Whether the durations of all calls are kept.
    extensive: bool,
}

struct Counters {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; CODES.len()],
    /// From the start of the call to its end.
    durations: Histogram,
    /// As etcd counts them: those that succeeded, and those that failed.
    requests: [Histogram; 2],
}

impl Calls {
    pub(crate) fn new(extensive: bool) -> Self {
        let path = |method: &Method| format!("/{}/{}", method.service, method.name);
        let counters = |_: &Method| Counters {
            started: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            handled: std::array::from_fn(|_| AtomicU64::new(0)),
            durations: Histogram::new(Duration::from_millis(1), 14),
            requests: std::array::from_fn(|_| Histogram::new(Duration::from_millis(1), 14)),
        };
        Self {
            by_path: METHODS.iter().enumerate().map(|(at, method)| (path(method), at)).collect(),
            methods: METHODS.iter().map(counters).collect(),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            versions: Mutex::new(Vec::new()),
            ranges: std::array::from_fn(|_| Histogram::new(Duration::from_micros(100), 20)),
            extensive,
        }
    }

    pub(crate) fn is_extensive(&self) -> bool {
        self.extensive
    }

    fn started(&self, method: usize, headers: &HeaderMap) {
        self.methods[method].started.fetch_add(1, Relaxed);
        let shape = if METHODS[method].shape == Shape::Unary { "unary" } else { "stream" };
        let version = headers
            .get("client-api-version")
            .and_then(|version| version.to_str().ok())
            .filter(|version| !version.is_empty() && version.len() <= 32)
            .unwrap_or("unknown");
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = versions.len();
        match versions.iter_mut().find(|(known, name, _)| *known == shape && name == version) {
            Some((.., count)) => *count += 1,
            None if known < VERSIONS_MAX => versions.push((shape, version.to_owned(), 1)),
            // Whoever invents versions is not counted by them.
            None => {}
        }
    }

    fn ended(&self, method: usize, code: usize, took: Duration) {
        let counters = &self.methods[method];
        counters.handled[code].fetch_add(1, Relaxed);
        if METHODS[method].request.is_some() {
            counters.requests[usize::from(code != 0)].observe(took);
        }
        if METHODS[method].request == Some("Range") {
            self.ranges[usize::from(code != 0)].observe(took);
        }
        if self.extensive {
            counters.durations.observe(took);
        }
    }

    /// Writes what has been called.
    pub(crate) fn write(&self, page: &mut Page) {
        page.single(
            "etcd_network_client_grpc_received_bytes_total",
            Kind::Counter,
            "Bytes of messages from clients.",
            self.bytes_received.load(Relaxed),
        );
        page.single(
            "etcd_network_client_grpc_sent_bytes_total",
            Kind::Counter,
            "Bytes of messages to clients.",
            self.bytes_sent.load(Relaxed),
        );
        page.family(
            "etcd_server_client_requests_total",
            Kind::Counter,
            "Calls, by the version of the client.",
        );
        {
            let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
            for (shape, version, count) in &*versions {
                let labels = [("type", *shape), ("client_api_version", version)];
                page.sample("etcd_server_client_requests_total", &labels, count);
            }
        }
        self.write_requests(page);
        let ranges = "etcd_server_range_duration_seconds";
        page.family(ranges, Kind::Histogram, "Seconds that reads took.");
        for (histogram, success) in self.ranges.iter().zip(["true", "false"]) {
            if !histogram.is_empty() {
                histogram.write(page, ranges, &[("success", success)]);
            }
        }
        self.write_grpc(page);
    }

    fn write_requests(&self, page: &mut Page) {
        let requests = "etcd_server_request_duration_seconds";
        page.family(requests, Kind::Histogram, "Seconds that requests took, by their type.");
        for (method, counters) in METHODS.iter().zip(&self.methods) {
            let Some(request) = method.request else { continue };
            for (histogram, success) in counters.requests.iter().zip(["true", "false"]) {
                if !histogram.is_empty() {
                    let labels = [("type", request), ("success", success)];
                    histogram.write(page, requests, &labels);
                }
            }
        }
    }

    fn write_grpc(&self, page: &mut Page) {
        for (name, help, value) in [
            (
                "grpc_server_started_total",
                "Calls that were begun.",
                (|counters| &counters.started) as fn(&Counters) -> &AtomicU64,
            ),
            ("grpc_server_msg_received_total", "Messages received.", |counters| &counters.received),
            ("grpc_server_msg_sent_total", "Messages sent.", |counters| &counters.sent),
        ] {
            page.family(name, Kind::Counter, help);
            for (method, counters) in METHODS.iter().zip(&self.methods) {
                page.sample(name, &labels(method), value(counters).load(Relaxed));
            }
        }
        let handled = "grpc_server_handled_total";
        page.family(handled, Kind::Counter, "Calls that were ended, by their code.");
        for (method, counters) in METHODS.iter().zip(&self.methods) {
            for (code, count) in CODES.iter().zip(&counters.handled) {
                let [name, service, shape] = labels(method);
                let labels = [("grpc_code", *code), name, service, shape];
                page.sample(handled, &labels, count.load(Relaxed));
            }
        }
        if self.extensive {
            let handling = "grpc_server_handling_seconds";
            page.family(handling, Kind::Histogram, "Seconds that calls took.");
            for (method, counters) in METHODS.iter().zip(&self.methods) {
                counters.durations.write(page, handling, &labels(method));
            }
        }
    }
}

fn labels(method: &Method) -> [(&'static str, &'static str); 3] {
    [
        ("grpc_method", method.name),
        ("grpc_service", method.service),
        ("grpc_type", method.shape.name()),
    ]
}

/// Services whose calls are counted.
#[derive(Clone)]
pub(crate) struct Counted<S> {
    inner: S,
    calls: Arc<super::Metrics>,
}

impl<S> Counted<S> {
    /// Counts the calls of `inner`.
    pub(crate) fn new(inner: S, calls: Arc<super::Metrics>) -> Self {
        Self { inner, calls }
    }
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<CountedBody<B>>, Response = Response<R>>,
{
    type Response = Response<CountedBody<R>>;
    type Error = S::Error;
    type Future = CallFuture<S::Future>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let calls = &self.calls.calls;
        let call = calls.by_path.get(request.uri().path()).map(|&method| {
            calls.started(method, request.headers());
            Call {
                metrics: Arc::clone(&self.calls),
                method,
                began: Instant::now(),
                bytes_sent: 0,
                ended: false,
            }
        });
        let side = call
            .as_ref()
            .map(|call| Side::Request { metrics: Arc::clone(&self.calls), method: call.method });
        let request =
            request.map(|inner| CountedBody { inner, side, messages: Messages::default() });
        CallFuture { inner: self.inner.call(request), call }
    }
}

/// A call that has not ended. If nobody says how it ended, its client has gone.
struct Call {
    metrics: Arc<super::Metrics>,
    method: usize,
    began: Instant,
    bytes_sent: usize,
    ended: bool,
}

impl Call {
    fn end(&mut self, code: usize) {
        if !self.ended {
            self.ended = true;
            let took = self.began.elapsed();
            self.metrics.calls.ended(self.method, code, took);
            let method = &METHODS[self.method];
            if method.shape == Shape::Unary && Slow::is_reached(self.metrics.slow.call, took) {
                tracing::warn!(
                    "time spent" = ?took,
                    "response type" = format!("/{}/{}", method.service, method.name),
                    "response size" = self.bytes_sent,
                    code = CODES[code],
                    "request stats"
                );
            }
            if code == 0 && matches!(METHODS[self.method].name, "Range" | "RangeStream") {
                self.metrics.ranges.increment();
            }
        }
    }

    /// Takes the code from headers or trailers, if it stands there.
    fn look(&mut self, headers: &HeaderMap) {
        let Some(status) = headers.get("grpc-status") else { return };
        let code = status.to_str().ok().and_then(|code| code.parse::<usize>().ok());
        self.end(code.filter(|code| *code < CODES.len()).unwrap_or(2));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CANCELED);
    }
}

pin_project! {
    /// A call whose answer has not begun.
    pub(crate) struct CallFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for CallFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<CountedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = std::task::ready!(this.inner.poll(cx))?;
        let side = this.call.take().map(|mut call| {
            call.look(response.headers());
            Side::Response { call }
        });
        Poll::Ready(Ok(response.map(|inner| CountedBody {
            inner,
            side,
            messages: Messages::default(),
        })))
    }
}

enum Side {
    Request { metrics: Arc<super::Metrics>, method: usize },
    Response { call: Call },
}

pin_project! {
    /// A body whose messages are counted.
    pub(crate) struct CountedBody<B> {
        #[pin]
        inner: B,
        // `None` for what is no call of the API.
        side: Option<Side>,
        messages: Messages,
    }
}

impl<B: Body<Data = Bytes>> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = std::task::ready!(this.inner.poll_frame(cx));
        if let (Some(side), Some(Ok(frame))) = (this.side.as_mut(), &frame) {
            if let Some(data) = frame.data_ref() {
                let messages = this.messages.take(data);
                let (metrics, method, sent) = match side {
                    Side::Request { metrics, method } => (&*metrics, *method, false),
                    Side::Response { call } => {
                        call.bytes_sent += data.len();
                        (&call.metrics, call.method, true)
                    }
                };
                let calls = &metrics.calls;
                let counters = &calls.methods[method];
                let (count, bytes) = if sent {
                    (&counters.sent, &calls.bytes_sent)
                } else {
                    (&counters.received, &calls.bytes_received)
                };
                count.fetch_add(messages, Relaxed);
                bytes.fetch_add(data.len() as u64, Relaxed);
            } else if let (Some(trailers), Side::Response { call }) = (frame.trailers_ref(), side) {
                call.look(trailers);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Finds the messages in a stream of bytes: each begins with a flag and four bytes of its length.
#[derive(Default)]
struct Messages {
    head: [u8; 5],
    head_len: usize,
    /// What of the current message is still to come.
    left: usize,
}

impl Messages {
    /// How many messages begin in these bytes.
    fn take(&mut self, mut data: &[u8]) -> u64 {
        let mut count = 0;
        while !data.is_empty() {
            if self.left > 0 {
                let here = self.left.min(data.len());
                self.left -= here;
                data.advance(here);
                continue;
            }
            let here = (self.head.len() - self.head_len).min(data.len());
            self.head[self.head_len..self.head_len + here].copy_from_slice(&data[..here]);
            self.head_len += here;
            data.advance(here);
            if self.head_len == self.head.len() {
                let [_, length @ ..] = self.head;
                self.left = u32::from_be_bytes(length) as usize;
                self.head_len = 0;
                count += 1;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let stream = [0, 0, 0, 0, 3, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        for size in 1..stream.len() {
            let mut messages = Messages::default();
            let count: u64 = stream.chunks(size).map(|chunk| messages.take(chunk)).sum();
            assert_eq!(count, 3, "in pieces of {size}");
        }
    }
}
