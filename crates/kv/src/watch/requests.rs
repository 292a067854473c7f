//! What clients ask for, and the answers.

use std::borrow::Cow;

use crate::watch::index::WatchRange;
use crate::watch::queue::StreamId;
use crate::watch::response::{WatchCreate, WatchId, WatchRequest, WatchResponse};
use crate::watch::state::{Place, State, WATCHERS_MAX, Watcher};
use crate::watch::variants::View;
use crate::{RequestError, Revision};

/// Reasons not to create a watcher, byte for byte those of etcd, except the last.
const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const TOO_MANY: &str = "mvcc: too many watchers on the WatchStream";

impl State {
    pub(super) fn request(&mut self, stream: StreamId, request: WatchRequest) {
        match request {
            WatchRequest::Create(create) => self.create(stream, create),
            WatchRequest::Cancel(id) => self.cancel(stream, id),
            WatchRequest::Progress => self.progress(stream),
            WatchRequest::Refuse(reason) => self.refuse(stream, reason),
        }
    }

    fn refuse(&mut self, stream: StreamId, reason: Cow<'static, str>) {
        let Some(stream) = self.streams.get(&stream) else { return };
        stream.queue.answer(WatchResponse {
            watch_id: WatchId::NONE,
            revision: self.current,
            created: true,
            canceled: true,
            cancel_reason: Some(reason),
            ..WatchResponse::default()
        });
    }

    fn create(&mut self, stream_id: StreamId, create: WatchCreate) {
        let current = self.current;
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        let start = create.start_revision;
        let range = WatchRange::new(create.key, create.range_end);
        let reason = if start < Revision(0) {
            Some(RequestError::Compacted.text())
        } else if range.is_none() {
            Some(EMPTY_RANGE)
        } else if stream.watchers.contains_key(&create.watch_id) && create.watch_id.0 != 0 {
            Some(DUPLICATE)
        } else if stream.watchers.len() >= WATCHERS_MAX {
            Some(TOO_MANY)
        } else {
            None
        };
        let range = match (reason, range) {
            (None, Some(range)) => range,
            (reason, _) => {
                return self.refuse(stream_id, Cow::Borrowed(reason.unwrap_or(EMPTY_RANGE)));
            }
        };
        let id = match create.watch_id {
            WatchId(0) => stream.free_id(),
            id => id,
        };
        stream.queue.answer(WatchResponse {
            watch_id: id,
            revision: current,
            created: true,
            ..WatchResponse::default()
        });
        self.last_watcher += 1;
        self.prev_watchers += usize::from(create.prev_kv);
        let is_future = start > current;
        let watcher = Watcher {
            serial: self.last_watcher,
            range,
            view: View {
                no_put: create.no_put,
                no_delete: create.no_delete,
                prev_kv: create.prev_kv,
            },
            fragment: create.fragment,
            future_start: is_future.then_some(start),
            place: Place::Behind { next: start, quiet: true },
        };
        stream.watchers.insert(id, watcher);
        if is_future {
            stream.future.insert((start, id));
        }
        if create.progress_notify {
            stream.notified.insert(id);
            self.ticks.add(stream_id);
        }
        if start == Revision(0) || is_future {
            let start = if is_future { start } else { Revision(current.0 + 1) };
            self.synced(stream_id, id, start, true);
        } else {
            stream.behind.insert(id);
            self.give_turn(stream_id);
            self.signal.work();
        }
    }

    fn cancel(&mut self, stream_id: StreamId, id: WatchId) {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        let Some(watcher) = stream.watchers.remove(&id) else { return };
        stream.forget(id, &watcher);
        self.prev_watchers -= usize::from(watcher.view.prev_kv);
        match watcher.place {
            Place::Synced => drop(self.index.remove(&watcher.range, &(stream_id, id))),
            Place::Behind { .. } => {}
            Place::Ended => stream.ended -= 1,
        }
        stream.queue.answer(WatchResponse {
            watch_id: id,
            revision: self.current,
            canceled: true,
            ..WatchResponse::default()
        });
    }

    fn progress(&mut self, stream_id: StreamId) {
        let current = self.current;
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        let running = stream.watchers.len() - stream.ended;
        if running == 0 || !stream.behind.is_empty() || stream.waits_for_future(current) {
            return;
        }
        stream.queue.notice(WatchResponse {
            watch_id: WatchId::NONE,
            revision: current,
            ..WatchResponse::default()
        });
    }
}
