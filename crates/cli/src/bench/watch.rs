//! One key that many watch: how soon they hear of a change, and how many can be told.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use clap::Args;
use prost::Message;
use quorate_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_etcd::proto::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};

use super::connection::{CallError, Link, Procedure, Stream, frame};
use super::run::{ERROR_PAUSE, Load, Pace, Settings, Task, Tasks, Thread};
use super::work::undecoded;
use crate::client::Failure;

const EVENT: usize = 0;
const PUT: usize = 1;

/// Bytes of a value that say when it was sent.
const STAMP_BYTES: usize = 8;

/// `watch`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Watchers, all of the same key
    #[arg(long, default_value_t = 1000)]
    pub(crate) watchers: usize,
    /// Streams that they share
    #[arg(long, default_value_t = 10)]
    pub(crate) streams: usize,
    /// The key
    #[arg(long, default_value = "bench/watched")]
    pub(crate) key: String,
    /// Bytes of a value, of which some say when it was sent
    #[arg(long, default_value_t = 256)]
    pub(crate) value_size: usize,
}

impl Watch {
    /// Refuses what cannot be.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.value_size < STAMP_BYTES {
            return Err(Failure::Input(format!("--value-size must be at least {STAMP_BYTES}")));
        }
        if self.streams == 0 || self.streams > self.watchers {
            return Err(Failure::Input("--streams must be from 1 to --watchers".to_owned()));
        }
        if self.key.is_empty() {
            return Err(Failure::Input("--key must not be empty".to_owned()));
        }
        Ok(())
    }

    fn create(&self) -> Bytes {
        let create =
            WatchCreateRequest { key: self.key.clone().into(), ..WatchCreateRequest::default() };
        frame(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })
    }

    async fn prepared(self: Arc<Self>, thread: Rc<Thread>) -> Result<Tasks, Failure> {
        let mut listeners: Vec<Task> = Vec::new();
        for number in thread.share(self.streams) {
            // The watchers are dealt out to the streams.
            let watchers = (number..self.watchers).step_by(self.streams).count();
            let stream = self.watched(&thread.link(number), watchers).await?;
            listeners.push(Box::pin(listen(Rc::clone(&thread), stream)));
        }
        let mut clients: Vec<Task> = Vec::new();
        let count = self.settings.clients;
        for number in thread.share(count) {
            let pace = self.settings.rate.map(|rate| Pace::new(rate, number, count));
            let (watch, link) = (Arc::clone(&self), thread.link(number));
            clients.push(Box::pin(put(Rc::clone(&thread), link, watch, pace)));
        }
        Ok(Tasks { clients, listeners })
    }

    /// A stream with so many watchers, of which every one is known to watch.
    async fn watched(&self, link: &Link, watchers: usize) -> Result<Stream, CallError> {
        let create = self.create();
        let mut stream = link.stream(Procedure::Watch, create.clone()).await?;
        for _ in 1..watchers {
            stream.send(create.clone())?;
        }
        let mut created = 0;
        while created < watchers {
            let answer = WatchResponse::decode(stream.next().await?).map_err(undecoded)?;
            if answer.canceled {
                return Err(CallError::strange(format!(
                    "a watch was refused: {}",
                    answer.cancel_reason
                )));
            }
            created += usize::from(answer.created);
        }
        Ok(stream)
    }
}

impl Load for Watch {
    fn kinds(&self) -> Vec<&'static str> {
        vec!["event", "put"]
    }

    fn tasks(
        self: Arc<Self>,
        thread: Rc<Thread>,
    ) -> Pin<Box<dyn Future<Output = Result<Tasks, Failure>>>> {
        Box::pin(self.prepared(thread))
    }
}

/// Counts events, each with the time since its value was sent. A stream that ends is an error, and counts no more.
async fn listen(thread: Rc<Thread>, mut stream: Stream) {
    loop {
        let answer = match stream.next().await {
            Ok(message) => WatchResponse::decode(message).map_err(undecoded),
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) if answer.canceled => {
                let why = format!("a watch was canceled: {}", answer.cancel_reason);
                return thread.failed(CallError::strange(why));
            }
            Ok(answer) => {
                let now = Instant::now();
                for pair in answer.events.iter().filter_map(|event| event.kv.as_ref()) {
                    if let Some(stamp) = pair.value.first_chunk::<STAMP_BYTES>() {
                        let sent = Duration::from_nanos(u64::from_be_bytes(*stamp));
                        thread.succeeded(EVENT, thread.at(sent), now);
                    }
                }
            }
            Err(error) => return thread.failed(error),
        }
    }
}

/// Writes the key again and again, with the time in its value.
async fn put(thread: Rc<Thread>, link: Rc<Link>, watch: Arc<Watch>, pace: Option<Pace>) {
    let key = Bytes::from(watch.key.clone());
    let mut clock = thread.clock(pace);
    while let Some(began) = clock.next_call().await {
        let sent = thread.since_epoch(Instant::now());
        let mut value = BytesMut::with_capacity(watch.value_size);
        value.put_u64(u64::try_from(sent.as_nanos()).unwrap_or(u64::MAX));
        value.resize(watch.value_size, b'.');
        let request =
            PutRequest { key: key.clone(), value: value.freeze(), ..PutRequest::default() };
        match link.call(Procedure::Put, frame(&request)).await {
            Ok(_) => thread.succeeded(PUT, began, Instant::now()),
            Err(error) => {
                thread.failed(error);
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}
