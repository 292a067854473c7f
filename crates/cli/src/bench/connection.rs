//! Calls over HTTP/2 with as little between them and the socket as can be.
//!
//! A generator mostly shares the machine with the servers that it measures, and what it needs itself they do not get. So
//! there are no layers here: a call is a prepared head, one frame, and the frames of the answer.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use prost::Message;
use tokio::net::TcpStream;
use tonic::Code;

use crate::client::{Failure, cause, url_of};

/// How much a server may send before it hears that more is welcome.
const WINDOW_BYTES: u32 = 16 << 20;

/// How long whoever wants a connection waits before looking again, while another one makes it.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// What is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Procedure {
    Range,
    Put,
    Txn,
    LeaseGrant,
    LeaseRevoke,
    LeaseKeepAlive,
    Watch,
}

impl Procedure {
    const PATHS: [&str; 7] = [
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/Put",
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.Lease/LeaseGrant",
        "/etcdserverpb.Lease/LeaseRevoke",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/etcdserverpb.Watch/Watch",
    ];
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub(crate) struct CallError {
    /// The server's code; `Unavailable` if the connection is gone.
    pub(crate) code: Code,
    /// The server's words, or what happened to the connection.
    pub(crate) message: String,
    /// The connection is of no more use.
    lost: bool,
}

impl CallError {
    fn lost(why: impl fmt::Display) -> Self {
        Self { code: Code::Unavailable, message: why.to_string(), lost: true }
    }

    /// An answer that makes no sense.
    pub(crate) fn strange(message: impl Into<String>) -> Self {
        Self { code: Code::Internal, message: message.into(), lost: false }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        if error.lost {
            Self::Connection(error.message)
        } else {
            Self::Status(tonic::Status::new(error.code, error.message))
        }
    }
}

impl From<h2::Error> for CallError {
    fn from(error: h2::Error) -> Self {
        // A reset ends one call, anything else all of the connection.
        let lost = !error.is_reset();
        Self { code: Code::Unavailable, message: error.to_string(), lost }
    }
}

/// A message as gRPC sends it: uncompressed, with its length in front.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut frame);
    frame.freeze()
}

/// A connection to one member that is made again when it is lost. It belongs to one thread.
pub(crate) struct Link {
    authority: Authority,
    heads: Vec<Request<()>>,
    dial_timeout: Duration,
    /// With a number, so that who finds it broken does not throw away the next one.
    sender: RefCell<Option<(u64, SendRequest<Bytes>)>>,
    next_number: Cell<u64>,
    connecting: Cell<bool>,
}

impl Link {
    /// Connects to a member.
    pub(crate) async fn open(endpoint: &str, dial_timeout: Duration) -> Result<Self, Failure> {
        let wrong =
            |why: &dyn fmt::Display| Failure::Input(format!("{endpoint} is no endpoint: {why}"));
        let uri: Uri = url_of(endpoint)?.parse().map_err(|why| wrong(&why))?;
        let authority = uri.authority().cloned().ok_or_else(|| wrong(&"there is no host"))?;
        let head = |path: &'static str| {
            let uri = Uri::builder()
                .scheme(Scheme::HTTP)
                .authority(authority.clone())
                .path_and_query(path)
                .build()?;
            Request::builder()
                .method(Method::POST)
                .version(Version::HTTP_2)
                .uri(uri)
                .header("te", "trailers")
                .header("content-type", "application/grpc")
                .body(())
        };
        let heads: Result<_, http::Error> = Procedure::PATHS.into_iter().map(head).collect();
        let link = Self {
            heads: heads.map_err(|why| wrong(&why))?,
            authority,
            dial_timeout,
            sender: RefCell::default(),
            next_number: Cell::new(0),
            connecting: Cell::new(false),
        };
        link.sender().await.map_err(|error| {
            Failure::Connection(format!("{endpoint} cannot be reached: {}", error.message))
        })?;
        Ok(link)
    }

    /// The connection, made anew if there is none.
    async fn sender(&self) -> Result<(u64, SendRequest<Bytes>), CallError> {
        loop {
            if let Some(sender) = &*self.sender.borrow() {
                return Ok(sender.clone());
            }
            if !self.connecting.replace(true) {
                break;
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
        let connected = tokio::time::timeout(self.dial_timeout, self.connect()).await;
        self.connecting.set(false);
        let sender = connected.unwrap_or_else(|_| Err(CallError::lost("no answer in time")))?;
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        self.sender.replace(Some((number, sender.clone())));
        Ok((number, sender))
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, CallError> {
        let port = self.authority.port_u16().unwrap_or(80);
        let host = self.authority.host().trim_matches(['[', ']']);
        let socket = TcpStream::connect((host, port)).await.map_err(CallError::lost)?;
        socket.set_nodelay(true).map_err(CallError::lost)?;
        let (sender, connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(socket)
            .await
            .map_err(|error| CallError::lost(cause(&error)))?;
        // It ends with the connection, and those who wait for answers hear why.
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn forget(&self, number: u64) {
        let mut sender = self.sender.borrow_mut();
        if sender.as_ref().is_some_and(|(current, _)| *current == number) {
            *sender = None;
        }
    }

    /// Starts a call, and sends `frame`; with `end`, as the only one.
    async fn start(
        &self,
        procedure: Procedure,
        frame: Bytes,
        end: bool,
    ) -> Result<Started, CallError> {
        let (number, mut sender) = self.sender().await?;
        let head = self.heads[procedure as usize].clone();
        let started = async {
            poll_fn(|context| sender.poll_ready(context)).await?;
            let (response, mut requests) = sender.send_request(head, false)?;
            requests.send_data(frame, end)?;
            Ok::<_, h2::Error>(Started { number, response, requests })
        };
        started.await.map_err(|error| {
            // Even if only this stream was refused, the next connection does not know it.
            self.forget(number);
            CallError::lost(error)
        })
    }

    /// Calls a procedure with one request and one answer, which is given without its frame.
    pub(crate) async fn call(
        &self,
        procedure: Procedure,
        frame: Bytes,
    ) -> Result<Bytes, CallError> {
        let started = self.start(procedure, frame, true).await?;
        let answer = async {
            let mut body = opened(started.response.await?)?;
            let mut messages = Messages::default();
            while let Some(chunk) = body.data().await {
                let chunk = chunk?;
                body.flow_control().release_capacity(chunk.len())?;
                messages.add(chunk);
            }
            let trailers = body.trailers().await?;
            verdict(trailers.as_ref())?;
            messages.next()?.ok_or_else(|| CallError::strange("an answer without a message"))
        };
        let answer = answer.await;
        if answer.as_ref().is_err_and(|error| error.lost) {
            self.forget(started.number);
        }
        answer
    }

    /// Calls a procedure with many requests and answers, and sends the first request.
    pub(crate) async fn stream(
        &self,
        procedure: Procedure,
        frame: Bytes,
    ) -> Result<Stream, CallError> {
        let started = self.start(procedure, frame, false).await?;
        let body = opened(started.response.await?)?;
        Ok(Stream { requests: started.requests, body, messages: Messages::default() })
    }
}

/// A call on its way, over the connection of this number.
struct Started {
    number: u64,
    response: ResponseFuture,
    requests: SendStream<Bytes>,
}

/// A call with many requests and answers.
pub(crate) struct Stream {
    requests: SendStream<Bytes>,
    body: RecvStream,
    messages: Messages,
}

impl Stream {
    /// Sends another request.
    pub(crate) fn send(&mut self, frame: Bytes) -> Result<(), CallError> {
        self.requests.send_data(frame, false).map_err(CallError::from)
    }

    /// The next answer.
    pub(crate) async fn next(&mut self) -> Result<Bytes, CallError> {
        loop {
            if let Some(message) = self.messages.next()? {
                return Ok(message);
            }
            match self.body.data().await {
                Some(chunk) => {
                    let chunk = chunk?;
                    self.body.flow_control().release_capacity(chunk.len())?;
                    self.messages.add(chunk);
                }
                None => {
                    let trailers = self.body.trailers().await?;
                    verdict(trailers.as_ref())?;
                    return Err(CallError::lost("the server has ended the stream"));
                }
            }
        }
    }
}

/// The body of an answer that begins well.
fn opened(response: Response<RecvStream>) -> Result<RecvStream, CallError> {
    if response.status() != StatusCode::OK {
        return Err(CallError::strange(format!(
            "HTTP status {}: this is no gRPC server",
            response.status()
        )));
    }
    if response.headers().contains_key("grpc-status") {
        verdict(Some(response.headers()))?;
    }
    Ok(response.into_body())
}

/// What the end of an answer says of it.
fn verdict(trailers: Option<&HeaderMap>) -> Result<(), CallError> {
    let Some(status) = trailers.and_then(|trailers| trailers.get("grpc-status")) else {
        return Err(CallError::strange("an answer without a status"));
    };
    if status.as_bytes() == b"0" {
        return Ok(());
    }
    let message = trailers.and_then(|trailers| trailers.get("grpc-message"));
    let message = message.map(|message| unescaped(message.as_bytes())).unwrap_or_default();
    Err(CallError { code: Code::from_bytes(status.as_bytes()), message, lost: false })
}

/// Text in which `%41` stands for `A`.
fn unescaped(mut bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len());
    while let Some((first, rest)) = bytes.split_first() {
        let escaped = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                text.push(byte);
                bytes = &rest[2..];
            }
            _ => {
                text.push(*first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Cuts what arrives into messages. What arrives whole is not copied.
#[derive(Default)]
struct Messages {
    whole: Bytes,
    /// More than `whole`, if a message came in pieces.
    pieces: BytesMut,
}

impl Messages {
    fn add(&mut self, chunk: Bytes) {
        if self.whole.is_empty() && self.pieces.is_empty() {
            self.whole = chunk;
            return;
        }
        self.pieces.extend_from_slice(&std::mem::take(&mut self.whole));
        self.pieces.extend_from_slice(&chunk);
    }

    fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let arrived: &[u8] = if self.pieces.is_empty() { &self.whole } else { &self.pieces };
        let Some((head, rest)) = arrived.split_first_chunk::<5>() else { return Ok(None) };
        let [compressed, length @ ..] = head;
        if *compressed != 0 {
            return Err(CallError::strange("an answer is compressed, which was not asked for"));
        }
        let length = u32::from_be_bytes(*length) as usize;
        if rest.len() < length {
            return Ok(None);
        }
        if !self.pieces.is_empty() {
            // All that is here leaves the buffer at once, so that each message is a slice of it.
            self.whole = self.pieces.split().freeze();
        }
        self.whole.advance(5);
        Ok(Some(self.whole.split_to(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_wherever_their_pieces_end() {
        let mut sent = Vec::new();
        for text in ["one", "", "three"] {
            sent.push(0);
            sent.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
            sent.extend_from_slice(text.as_bytes());
        }
        for piece in 1..=sent.len() {
            let mut messages = Messages::default();
            let mut received = Vec::new();
            for chunk in sent.chunks(piece) {
                messages.add(Bytes::copy_from_slice(chunk));
                while let Ok(Some(message)) = messages.next() {
                    received.push(message);
                }
            }
            assert_eq!(received, ["one", "", "three"], "in pieces of {piece}");
        }
    }

    #[test]
    fn compressed_messages_are_refused() {
        let mut messages = Messages::default();
        messages.add(Bytes::from_static(&[1, 0, 0, 0, 0]));
        assert!(messages.next().is_err());
    }

    #[test]
    fn words_of_errors_are_unescaped() {
        assert_eq!(unescaped(b"100%25 of a%20key %zz %4"), "100% of a key %zz %4");
    }
}
