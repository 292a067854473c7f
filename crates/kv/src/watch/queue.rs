//! What a stream has not been asked for yet: in order, and bounded.
//!
//! News is refused when the queue is full ([`WATCH_RESPONSES_MAX`], [`WATCH_BYTES_MAX`]); whoever is refused falls behind
//! and catches up from history when the queue is half empty again. Answers to requests are never refused; instead requests
//! are, while too many answers wait.

use core::task::{Poll, Waker};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Revision;
use crate::watch::response::{Events, WatchId, WatchResponse, fragment_len};
use crate::watch::variants::Shared;

/// Most pieces of news that wait in a stream. One piece may be for many watchers of the stream.
pub const WATCH_RESPONSES_MAX: usize = 128;
/// Bytes of news after which nothing is added.
pub const WATCH_BYTES_MAX: usize = 16 << 20;
/// Answers after which requests are refused.
pub const WATCH_ANSWERS_MAX: usize = 1024;

/// Bytes that a piece of news holds beside events and ids.
const NEWS_BYTES: usize = 128;

/// Number of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

/// The same events for several watchers of a stream.
#[derive(Debug)]
pub(super) struct News {
    /// Revision of the header.
    pub(super) revision: Revision,
    pub(super) watchers: Vec<WatchId>,
    pub(super) events: Shared,
    pub(super) fragment: bool,
}

impl News {
    fn bytes(&self) -> usize {
        NEWS_BYTES + self.events.bytes + self.watchers.len() * size_of::<WatchId>()
    }
}

#[derive(Debug)]
enum Item {
    Answer(WatchResponse),
    /// News without events: progress, or an end by compaction.
    Notice(WatchResponse),
    News(News),
}

/// The streams that have room again, and who waits to hear of it.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<SignalState>,
}

#[derive(Debug, Default)]
struct SignalState {
    /// Bounded by the number of streams: a stream is listed once for each time that it was full.
    drained: Vec<StreamId>,
    work: bool,
    waker: Option<Waker>,
}

impl Signal {
    fn drained(&self, stream: StreamId) {
        let mut state = lock(&self.state);
        state.drained.push(stream);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// There are watchers behind.
    pub(super) fn work(&self) {
        let mut state = lock(&self.state);
        state.work = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    pub(super) fn take_drained(&self) -> Vec<StreamId> {
        let mut state = lock(&self.state);
        state.work = false;
        core::mem::take(&mut state.drained)
    }

    pub(super) fn poll(&self, waker: &Waker) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.work || !state.drained.is_empty() {
            return Poll::Ready(());
        }
        state.waker = Some(waker.clone());
        Poll::Pending
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    stream: StreamId,
    signal: Arc<Signal>,
    response_bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    answers: usize,
    news: usize,
    bytes: usize,
    /// Of the first item, if it is news: watchers that have it, and events that the next of them has.
    told: usize,
    sent: usize,
    /// Somebody was refused, and waits for room.
    refused: bool,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl State {
    fn is_full(&self) -> bool {
        self.news >= WATCH_RESPONSES_MAX || self.bytes >= WATCH_BYTES_MAX
    }

    fn has_room(&self) -> bool {
        self.news <= WATCH_RESPONSES_MAX / 2 && self.bytes <= WATCH_BYTES_MAX / 2
    }
}

impl Queue {
    pub(super) fn new(stream: StreamId, signal: Arc<Signal>, response_bytes_max: usize) -> Self {
        Self { stream, signal, response_bytes_max, state: Mutex::default() }
    }

    /// Adds an answer. There is always room, since requests are refused before.
    pub(super) fn answer(&self, response: WatchResponse) {
        let mut state = lock(&self.state);
        state.answers += 1;
        Self::add(state, Item::Answer(response));
    }

    /// Adds a notice; whether there was room.
    pub(super) fn notice(&self, response: WatchResponse) -> bool {
        let mut state = lock(&self.state);
        if state.is_full() {
            return false;
        }
        state.news += 1;
        state.bytes += NEWS_BYTES;
        Self::add(state, Item::Notice(response));
        true
    }

    /// Adds news. If there is no room, the watchers get nothing, and the signal says when there is.
    pub(super) fn news(&self, news: News) -> Result<(), News> {
        debug_assert!(!news.watchers.is_empty(), "news is for somebody");
        let mut state = lock(&self.state);
        if state.is_full() {
            state.refused = true;
            return Err(news);
        }
        state.news += 1;
        state.bytes += news.bytes();
        Self::add(state, Item::News(news));
        Ok(())
    }

    /// Whether there is room; if not, the signal will say when.
    pub(super) fn room_or_signal(&self) -> bool {
        let mut state = lock(&self.state);
        state.refused |= state.is_full();
        !state.is_full()
    }

    fn add(mut state: MutexGuard<'_, State>, item: Item) {
        if !state.closed {
            state.items.push_back(item);
        }
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Nothing is added any more; what is there can still be taken.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let (reader, writer) = (state.reader.take(), state.writer.take());
        drop(state);
        reader.into_iter().chain(writer).for_each(Waker::wake);
    }

    /// Whether more requests are taken.
    pub(super) fn takes_requests(&self) -> bool {
        let state = lock(&self.state);
        state.closed || state.answers < WATCH_ANSWERS_MAX
    }

    pub(super) fn poll_ready(&self, waker: &Waker) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.closed || state.answers < WATCH_ANSWERS_MAX {
            return Poll::Ready(());
        }
        state.writer = Some(waker.clone());
        Poll::Pending
    }

    pub(super) fn poll_next(&self, waker: &Waker) -> Poll<Option<WatchResponse>> {
        let mut state = lock(&self.state);
        if state.items.is_empty() && !state.closed {
            state.reader = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(self.take(state))
    }

    /// Events that wait, once for each watcher that is to have them.
    pub(super) fn events(&self) -> usize {
        let state = lock(&self.state);
        let of = |item: &Item| match item {
            Item::News(news) => news.events.events.events.len() * news.watchers.len(),
            Item::Answer(_) | Item::Notice(_) => 0,
        };
        state.items.iter().map(of).sum()
    }

    /// The next response, if there is one.
    pub(super) fn next(&self) -> Option<WatchResponse> {
        self.take(lock(&self.state))
    }

    fn take(&self, mut guard: MutexGuard<'_, State>) -> Option<WatchResponse> {
        let state = &mut *guard;
        let mut writer = None;
        let response = match state.items.front_mut()? {
            Item::Answer(response) => {
                let response = core::mem::take(response);
                state.items.pop_front();
                state.answers -= 1;
                writer = state.writer.take();
                response
            }
            Item::Notice(response) => {
                let response = core::mem::take(response);
                state.items.pop_front();
                state.news -= 1;
                state.bytes -= NEWS_BYTES;
                response
            }
            Item::News(news) => {
                let response =
                    Self::part_of(news, state.told, &mut state.sent, self.response_bytes_max);
                if !response.fragment {
                    state.told += 1;
                    if state.told == news.watchers.len() {
                        state.news -= 1;
                        state.bytes -= news.bytes();
                        state.told = 0;
                        state.items.pop_front();
                    }
                }
                response
            }
        };
        let drained = state.refused && state.has_room();
        if drained {
            state.refused = false;
        }
        drop(guard);
        writer.into_iter().for_each(Waker::wake);
        if drained {
            self.signal.drained(self.stream);
        }
        Some(response)
    }

    /// All of the news for one watcher, or the next fragment of it.
    fn part_of(news: &News, told: usize, sent: &mut usize, bytes_max: usize) -> WatchResponse {
        let carried = &news.events.events;
        let events = &carried.events;
        let len = match news.fragment {
            true => fragment_len(&events[*sent..], bytes_max),
            false => events.len(),
        };
        let part = *sent..*sent + len;
        let fragment = part.end < events.len();
        *sent = if fragment { part.end } else { 0 };
        WatchResponse {
            watch_id: news.watchers[told],
            revision: news.revision,
            fragment,
            events: Events::part(carried, part),
            ..WatchResponse::default()
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with the lock did so between whole steps, or in an assertion that ends the program anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
