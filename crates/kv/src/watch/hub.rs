//! The hub and its streams, as others hold them.

use core::fmt;
use core::task::{Poll, Waker};
use std::sync::{Arc, Mutex};

use crate::watch::queue::{Queue, Signal, StreamId, lock};
use crate::watch::response::{WatchRequest, WatchResponse};
use crate::watch::state::State;
use crate::{Changes, History, HistoryError, Revision};

/// Settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    /// Size on the wire from which a response is split, for watchers that want it. Small values make many responses; a
    /// single event is never split.
    pub response_bytes_max: usize,
    /// Time between two notices of progress to a watcher that hears nothing else, at least 100 ms; up to a tenth is added
    /// at random. Short intervals cost a response each.
    pub progress_interval_us: u64,
    /// Seed of that randomness.
    pub seed: u64,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self { response_bytes_max: (1_536 + 512) << 10, progress_interval_us: 600_000_000, seed: 0 }
    }
}

/// All watches of a replica. Clones are the same hub.
#[derive(Clone, Debug)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: WatchConfig,
    signal: Arc<Signal>,
    state: Mutex<State>,
}

impl Hub {
    /// A hub for a store that is at a revision, compacted up to another (-1 if never).
    #[must_use]
    pub fn new(config: WatchConfig, current: Revision, compacted: Revision) -> Self {
        let signal = Arc::new(Signal::default());
        let state = State::new(config, Arc::clone(&signal), current, compacted);
        Self { inner: Arc::new(Inner { config, signal, state: Mutex::new(state) }) }
    }

    /// A revision has been applied: history has it, and its events are these, with former pairs if they
    /// were [wanted](Self::wants_prev).
    ///
    /// To be called for each revision in order, and before anybody is told that it exists. What was published before is
    /// ignored; what was left out makes all watchers fall behind, so that they read it from history.
    pub fn publish(&self, changes: &Changes) {
        lock(&self.inner.state).publish(changes);
    }

    /// Whether anybody wants former pairs. Changes that are published without them are told to those who do out of history,
    /// so the answer may be out of date.
    #[must_use]
    pub fn wants_prev(&self) -> bool {
        lock(&self.inner.state).prev_watchers > 0
    }

    /// The store is compacted up to a revision. Watchers that are owed earlier events will be ended.
    pub fn compact(&self, compacted: Revision) {
        lock(&self.inner.state).compact(compacted);
    }

    /// The store has been replaced by a snapshot. Watchers go on from the revision that they are owed, out of the new
    /// history, or are ended if that does not go back so far.
    pub fn reset(&self, current: Revision, compacted: Revision) {
        lock(&self.inner.state).reset(current, compacted);
        self.inner.signal.work();
    }

    /// The last revision that was published.
    #[must_use]
    pub fn current(&self) -> Revision {
        lock(&self.inner.state).current()
    }

    /// A new stream without watchers. Dropping it ends it.
    #[must_use]
    pub fn open(&self) -> WatchStream {
        let (id, queue) = lock(&self.inner.state).open();
        WatchStream { hub: self.clone(), id, queue }
    }

    /// Ends all streams: what waits in them can be read, then they are at their end.
    pub fn shutdown(&self) {
        lock(&self.inner.state).shutdown();
    }

    /// Brings some watchers that are behind forward, or up to date. Whether there is more to do at once: then call it
    /// again. Else call it after [`poll_behind`](Self::poll_behind), or every 100 ms.
    ///
    /// May read a lot, so not to be called by whoever applies. At the same time by several is possible, but gains little.
    pub fn catch_up(&self, history: &impl History) -> Result<bool, HistoryError> {
        super::catch_up::round(&self.inner.state, &self.inner.signal, history)
    }

    /// Whether there is something to catch up with; if not, the waker is called when there is. It has one place.
    pub fn poll_behind(&self, waker: &Waker) -> Poll<()> {
        self.inner.signal.poll(waker)
    }

    /// Notifies of progress whoever is due. Gives back when to call again, at the latest, if something is planned; to be
    /// called as well whenever convenient, at least every 100 ms, since new watchers are planned by this call.
    pub fn tick(&self, now_us: u64) -> Option<u64> {
        lock(&self.inner.state).tick(self.inner.config, now_us)
    }

    /// Streams that are open, and events that wait in them to be read.
    #[must_use]
    pub fn streams(&self) -> (usize, usize) {
        lock(&self.inner.state).streams()
    }

    /// Watchers that are up to date, and watchers that are behind.
    #[must_use]
    pub fn watchers(&self) -> (usize, usize) {
        lock(&self.inner.state).watchers()
    }
}

/// Too many answers wait to be read: the request comes back and nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full(pub WatchRequest);

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many answers of the watch stream wait to be read")
    }
}

impl core::error::Error for Full {}

/// One client's stream of watches. One task may make requests while another reads.
#[derive(Debug)]
pub struct WatchStream {
    hub: Hub,
    id: StreamId,
    queue: Arc<Queue>,
}

impl WatchStream {
    /// Makes a request. Its answer, if it has one, comes like everything else.
    pub fn request(&self, request: WatchRequest) -> Result<(), Full> {
        if !self.queue.takes_requests() {
            return Err(Full(request));
        }
        lock(&self.hub.inner.state).request(self.id, request);
        Ok(())
    }

    /// Whether a request would be taken; if not, the waker is called when it would. It has one place.
    pub fn poll_ready(&self, waker: &Waker) -> Poll<()> {
        self.queue.poll_ready(waker)
    }

    /// The next response, or `None` at the end. If there is none yet, the waker is called when there is. It has one place.
    pub fn poll_next(&self, waker: &Waker) -> Poll<Option<WatchResponse>> {
        self.queue.poll_next(waker)
    }

    /// The next response, if there is one.
    #[must_use]
    pub fn try_next(&self) -> Option<WatchResponse> {
        self.queue.next()
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        lock(&self.hub.inner.state).close(self.id);
    }
}
