//! What the hub knows of every stream and watcher.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::watch::hub::WatchConfig;
use crate::watch::index::{Index, WatchRange};
use crate::watch::progress::Ticks;
use crate::watch::queue::{News, Queue, Signal, StreamId};
use crate::watch::response::{WatchId, WatchResponse};
use crate::watch::variants::{Variants, View};
use crate::{Changes, Event, Revision};

/// Most watchers of a stream, ended ones counted that the client has not cancelled.
pub const WATCHERS_MAX: usize = 1_000_000;

/// Revisions that are kept beside history, so that a watcher which is nearly there need not read it.
const RECENT_REVISIONS_MAX: usize = 1024;
/// Bytes of them, after which the oldest go.
const RECENT_BYTES_MAX: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct State {
    response_bytes_max: usize,
    pub(super) signal: Arc<Signal>,
    pub(super) current: Revision,
    compacted: Revision,
    /// The synced ones.
    pub(super) index: Index<(StreamId, WatchId), Member>,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    /// Streams with watchers that are behind, and room: each once, in the order of their turns.
    pub(super) turns: VecDeque<StreamId>,
    /// The last revisions, without gaps, up to the current one.
    recent: VecDeque<Changes>,
    recent_bytes: usize,
    pub(super) ticks: Ticks,
    last_stream: u64,
    pub(super) last_watcher: u64,
    /// Watchers that want former pairs.
    pub(super) prev_watchers: usize,
    is_shut_down: bool,
    /// For `publish`, so that it need not allocate: slot and event of each match.
    matches: Vec<(u32, u32)>,
    found: Vec<u32>,
}

/// A synced watcher, as the index knows it.
#[derive(Debug)]
pub(super) struct Member {
    queue: Arc<Queue>,
    view: View,
    fragment: bool,
    /// No events before this revision.
    start: Revision,
    /// Nothing was said to it since the last tick.
    quiet: bool,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) queue: Arc<Queue>,
    pub(super) watchers: BTreeMap<WatchId, Watcher>,
    next_id: i64,
    /// Watchers that are behind.
    pub(super) behind: BTreeSet<WatchId>,
    /// Where the next turn begins among them.
    pub(super) next_behind: WatchId,
    /// Whether it has a place in `turns`.
    pub(super) has_turn: bool,
    /// Watchers that were created with a start beyond the newest revision of then.
    pub(super) future: BTreeSet<(Revision, WatchId)>,
    /// Watchers that compaction has ended, and the client has not cancelled.
    pub(super) ended: usize,
    /// Watchers that want to be notified of progress.
    pub(super) notified: BTreeSet<WatchId>,
}

#[derive(Clone, Debug)]
pub(super) struct Watcher {
    /// Different for every watcher of a hub.
    pub(super) serial: u64,
    pub(super) range: WatchRange,
    pub(super) view: View,
    pub(super) fragment: bool,
    /// The start that was asked for, if it was in the future.
    pub(super) future_start: Option<Revision>,
    pub(super) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Synced,
    Behind {
        /// First revision that it has not been told of.
        next: Revision,
        quiet: bool,
    },
    /// Compaction has ended it.
    Ended,
}

impl State {
    pub(super) fn new(
        config: WatchConfig,
        signal: Arc<Signal>,
        current: Revision,
        compacted: Revision,
    ) -> Self {
        Self {
            response_bytes_max: config.response_bytes_max,
            signal,
            current,
            compacted,
            index: Index::new(),
            streams: BTreeMap::new(),
            turns: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            ticks: Ticks::new(config.seed),
            last_stream: 0,
            last_watcher: 0,
            prev_watchers: 0,
            is_shut_down: false,
            matches: Vec::new(),
            found: Vec::new(),
        }
    }

    pub(super) fn current(&self) -> Revision {
        self.current
    }

    pub(super) fn compacted(&self) -> Revision {
        self.compacted
    }

    pub(super) fn open(&mut self) -> (StreamId, Arc<Queue>) {
        self.last_stream += 1;
        let id = StreamId(self.last_stream);
        let queue = Arc::new(Queue::new(id, Arc::clone(&self.signal), self.response_bytes_max));
        if self.is_shut_down {
            queue.close();
        }
        self.streams.insert(id, Stream::new(Arc::clone(&queue)));
        (id, queue)
    }

    pub(super) fn close(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        stream.queue.close();
        for (watch_id, watcher) in &stream.watchers {
            self.prev_watchers -= usize::from(watcher.view.prev_kv);
            if watcher.place == Place::Synced {
                self.index.remove(&watcher.range, &(id, *watch_id));
            }
        }
        self.ticks.remove(id);
    }

    pub(super) fn shutdown(&mut self) {
        self.is_shut_down = true;
        self.streams.values().for_each(|stream| stream.queue.close());
    }

    pub(super) fn streams(&self) -> (usize, usize) {
        let waiting = self.streams.values().map(|stream| stream.queue.events());
        (self.streams.len(), waiting.sum())
    }

    pub(super) fn watchers(&self) -> (usize, usize) {
        self.streams.values().fold((0, 0), |(synced, behind), stream| {
            let all = stream.watchers.len() - stream.ended;
            (synced + all - stream.behind.len(), behind + stream.behind.len())
        })
    }

    // The apply path.

    pub(super) fn publish(&mut self, changes: &Changes) {
        let revision = changes.revision;
        if revision <= self.current {
            return;
        }
        if revision.0 != self.current.0 + 1 {
            self.reset(revision, self.compacted);
            self.signal.work();
            return;
        }
        self.current = revision;
        self.remember(changes);
        let mut matches = core::mem::take(&mut self.matches);
        for (at, event) in (0..).zip(&changes.events[..]) {
            self.index.containing(&event.kv.key, &mut self.found);
            matches.extend(self.found.drain(..).map(|slot| (slot, at)));
        }
        // Stable: the events of each watcher stay in order.
        matches.sort_by_key(|(slot, _)| *slot);
        let has_prev = changes.has_prev;
        let mut whole = Variants::new(Arc::clone(&changes.events));
        let (mut refused, mut lacking) = (Vec::new(), Vec::new());
        for run in matches.chunk_by(|(slot, _), (next, _)| slot == next) {
            let (slot, _) = run[0];
            let members = &mut self.index.slot_mut(slot).members;
            if !has_prev && self.prev_watchers > 0 {
                let lack = members.iter().filter(|(_, member)| member.view.prev_kv);
                lacking.extend(lack.map(|(id, member)| (*id, member.start)));
            }
            if run.len() == changes.events.len() {
                tell(revision, has_prev, members, &mut whole, &mut refused);
            } else {
                let events = run.iter().map(|(_, at)| changes.events[*at as usize].clone());
                let mut part = Variants::new(events.collect());
                tell(revision, has_prev, members, &mut part, &mut refused);
            }
        }
        matches.clear();
        self.matches = matches;
        for (stream, id) in refused {
            self.fall_behind(stream, id, revision);
        }
        // They came while nobody had asked for former pairs, and read them from history.
        for ((stream, id), start) in lacking {
            self.fall_behind(stream, id, start.max(revision));
            self.give_turn(stream);
            self.signal.work();
        }
    }

    fn remember(&mut self, changes: &Changes) {
        self.recent_bytes += bytes_of(&changes.events);
        self.recent.push_back(changes.clone());
        while self.recent.len() > RECENT_REVISIONS_MAX || self.recent_bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= bytes_of(&oldest.events);
        }
    }

    /// The changes from a revision on, if they are all remembered. Some may lack former pairs.
    pub(super) fn recent_from(&self, from: Revision) -> Option<impl Iterator<Item = &Changes>> {
        let first = self.recent.front()?.revision;
        let skip = usize::try_from(from.0.checked_sub(first.0)?).ok()?;
        (skip <= self.recent.len()).then(|| self.recent.range(skip..))
    }

    pub(super) fn compact(&mut self, compacted: Revision) {
        self.compacted = self.compacted.max(compacted);
    }

    pub(super) fn reset(&mut self, current: Revision, compacted: Revision) {
        let next = Revision(self.current.0 + 1);
        self.current = current;
        self.compacted = compacted;
        self.recent.clear();
        self.recent_bytes = 0;
        let index = &mut self.index;
        for (stream_id, stream) in &mut self.streams {
            for (id, watcher) in &mut stream.watchers {
                if watcher.place != Place::Synced {
                    continue;
                }
                let member = index.remove(&watcher.range, &(*stream_id, *id));
                let (start, quiet) = member.map_or((next, true), |m| (m.start, m.quiet));
                watcher.place = Place::Behind { next: start.max(next), quiet };
                stream.behind.insert(*id);
            }
        }
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.give_turn(stream));
    }

    // Watchers that change places.

    /// A watcher that has been told of everything before `start`, which is after the current revision.
    pub(super) fn synced(
        &mut self,
        stream_id: StreamId,
        id: WatchId,
        start: Revision,
        quiet: bool,
    ) {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        let Some(watcher) = stream.watchers.get_mut(&id) else { return };
        debug_assert!(start > self.current, "a synced watcher is owed nothing");
        watcher.place = Place::Synced;
        stream.behind.remove(&id);
        let (view, fragment) = (watcher.view, watcher.fragment);
        let member = Member { queue: Arc::clone(&stream.queue), view, fragment, start, quiet };
        self.index.insert(&watcher.range, (stream_id, id), member);
    }

    fn fall_behind(&mut self, stream_id: StreamId, id: WatchId, next: Revision) {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        let Some(watcher) = stream.watchers.get_mut(&id) else { return };
        let member = self.index.remove(&watcher.range, &(stream_id, id));
        let quiet = member.is_none_or(|member| member.quiet);
        watcher.place = Place::Behind { next, quiet };
        // Its turn comes when the stream has room again.
        stream.behind.insert(id);
    }

    /// Tells a watcher that what it is owed is gone. Whether there was room for that.
    pub(super) fn end(&mut self, stream_id: StreamId, id: WatchId) -> bool {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return true };
        let Some(watcher) = stream.watchers.get_mut(&id) else { return true };
        let told = stream.queue.notice(WatchResponse {
            watch_id: id,
            canceled: true,
            compact_revision: Some(self.compacted),
            ..WatchResponse::default()
        });
        if told {
            watcher.place = Place::Ended;
            let watcher = watcher.clone();
            stream.forget(id, &watcher);
            stream.ended += 1;
        }
        told
    }

    /// A watcher that is behind, if it is still the one that was looked at, and owed the same.
    pub(super) fn still_behind(
        &self,
        stream: StreamId,
        id: WatchId,
        serial: u64,
        next: Revision,
    ) -> bool {
        let watcher = self.streams.get(&stream).and_then(|stream| stream.watchers.get(&id));
        watcher.is_some_and(|watcher| {
            let owed = matches!(watcher.place, Place::Behind { next: owed, .. } if owed == next);
            watcher.serial == serial && owed
        })
    }

    /// News for watchers of a stream that are behind. Whether there was room.
    pub(super) fn tell_behind(&mut self, stream: StreamId, news: News) -> bool {
        let Some(stream) = self.streams.get_mut(&stream) else { return false };
        for id in &news.watchers {
            let place = stream.watchers.get_mut(id).map(|watcher| &mut watcher.place);
            if let Some(Place::Behind { quiet, .. }) = place {
                *quiet = false;
            }
        }
        stream.queue.news(news).is_ok()
    }

    /// A watcher that is behind has been told of everything before a revision.
    pub(super) fn told_before(&mut self, stream_id: StreamId, id: WatchId, revision: Revision) {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        let Some(watcher) = stream.watchers.get_mut(&id) else { return };
        let Place::Behind { next, quiet } = &mut watcher.place else { return };
        debug_assert!(*next <= revision, "a watcher never goes back");
        *next = revision;
        if revision > self.current {
            let quiet = *quiet;
            self.synced(stream_id, id, revision, quiet);
        }
    }

    /// Lets a stream have its turn at catching up, if it needs one and has room.
    pub(super) fn give_turn(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.behind.is_empty() && !stream.has_turn && stream.queue.room_or_signal() {
            stream.has_turn = true;
            self.turns.push_back(id);
        }
    }

    // Progress by interval.

    pub(super) fn tick(&mut self, config: WatchConfig, now_us: u64) -> Option<u64> {
        for stream in self.ticks.due(config, now_us) {
            self.notify(stream);
        }
        self.ticks.next()
    }

    fn notify(&mut self, stream_id: StreamId) {
        let current = self.current;
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        if stream.notified.is_empty() {
            self.ticks.remove(stream_id);
            return;
        }
        for id in &stream.notified {
            let Some(watcher) = stream.watchers.get_mut(id) else { continue };
            match &mut watcher.place {
                Place::Behind { quiet, .. } => *quiet = true,
                Place::Ended => {}
                Place::Synced => {
                    let member = self.index.get_mut(&watcher.range, &(stream_id, *id));
                    let Some(member) = member else { continue };
                    let waits = watcher.future_start.is_some_and(|start| start > current);
                    if core::mem::replace(&mut member.quiet, true) && !waits {
                        stream.queue.notice(WatchResponse {
                            watch_id: *id,
                            revision: current,
                            ..WatchResponse::default()
                        });
                    }
                }
            }
        }
    }
}

impl Stream {
    fn new(queue: Arc<Queue>) -> Self {
        Self {
            queue,
            watchers: BTreeMap::new(),
            next_id: 0,
            behind: BTreeSet::new(),
            next_behind: WatchId(i64::MIN),
            has_turn: false,
            future: BTreeSet::new(),
            ended: 0,
            notified: BTreeSet::new(),
        }
    }

    pub(super) fn watcher(&self, id: WatchId) -> Option<&Watcher> {
        self.watchers.get(&id)
    }

    pub(super) fn free_id(&mut self) -> WatchId {
        while self.watchers.contains_key(&WatchId(self.next_id)) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = WatchId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        id
    }

    /// Takes a watcher off every list but the first.
    pub(super) fn forget(&mut self, id: WatchId, watcher: &Watcher) {
        self.behind.remove(&id);
        self.notified.remove(&id);
        if let Some(start) = watcher.future_start {
            self.future.remove(&(start, id));
        }
    }

    /// Whether a watcher has a start that is not there yet. Those whose start has come are forgotten.
    pub(super) fn waits_for_future(&mut self, current: Revision) -> bool {
        while self.future.first().is_some_and(|(start, _)| *start <= current) {
            self.future.pop_first();
        }
        !self.future.is_empty()
    }
}

/// Puts the news of a revision into the queues of all members of a slot; those that have no room are listed. Those that want
/// more than is there are left out.
fn tell(
    revision: Revision,
    has_prev: bool,
    members: &mut BTreeMap<(StreamId, WatchId), Member>,
    events: &mut Variants,
    refused: &mut Vec<(StreamId, WatchId)>,
) {
    // Of the stream at hand: who is told what. As many as there are views at most.
    let mut batches: Vec<(View, bool, Vec<WatchId>)> = Vec::new();
    let mut members = members.iter_mut().peekable();
    while let Some((&(stream, id), member)) = members.next() {
        let is_served = has_prev || !member.view.prev_kv;
        if is_served && member.start <= revision && events.view(member.view).is_some() {
            member.quiet = false;
            let (view, fragment) = (member.view, member.fragment);
            match batches.iter_mut().find(|batch| (batch.0, batch.1) == (view, fragment)) {
                Some(batch) => batch.2.push(id),
                None => batches.push((view, fragment, vec![id])),
            }
        }
        if members.peek().is_some_and(|((next, _), _)| *next == stream) {
            continue;
        }
        for (view, fragment, watchers) in batches.drain(..) {
            let Some(events) = events.view(view).cloned() else { continue };
            if let Err(news) = member.queue.news(News { revision, watchers, events, fragment }) {
                refused.extend(news.watchers.into_iter().map(|id| (stream, id)));
            }
        }
    }
}

/// Bytes that events hold, about.
fn bytes_of(events: &[Event]) -> usize {
    let pair = |kv: &crate::KeyValue| kv.key.len() + kv.value.len();
    let event =
        |event: &Event| size_of::<Event>() + pair(&event.kv) + event.prev.as_ref().map_or(0, pair);
    events.iter().map(event).sum()
}
