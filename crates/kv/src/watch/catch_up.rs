//! Watchers that are behind are brought forward.
//!
//! A round picks some of them, reads a window of the past that some need, finds without any lock what each is to be told,
//! and hands that over under the lock, a few at a time. While it reads, new revisions appear; the last few of them are
//! remembered by the hub and handed over under the same lock, so that a watcher gets up to date however fast the store
//! changes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::watch::index::{Index, WatchRange};
use crate::watch::queue::{News, Signal, StreamId, lock};
use crate::watch::response::WatchId;
use crate::watch::state::{Place, State};
use crate::watch::variants::{Shared, View};
use crate::{Changes, Event, History, HistoryError, Past, PastRequest, Revision};

/// Most watchers of one round.
pub const WATCH_ROUND_MAX: usize = 512;
/// Most revisions that one response covers.
pub const WATCH_WINDOW_REVISIONS_MAX: usize = 1000;
/// Bytes of events after which a window ends.
pub const WATCH_WINDOW_BYTES_MAX: usize = 4 << 20;

/// Most windows of one round: watchers that are behind by very different amounts need one each.
const WINDOWS_MAX: usize = 8;
/// Watchers that a stream has picked in its turn, however many streams there are.
const TURN_MIN: usize = 64;
/// Batches that are handed over under one lock.
const LOCKED_MAX: usize = 64;
/// Revisions that are looked through under the lock.
const CLOSING_MAX: i64 = 256;

/// A watcher that was behind when the round began.
#[derive(Clone, Debug)]
struct Pick {
    stream: StreamId,
    id: WatchId,
    serial: u64,
    wish: Wish,
}

/// What makes watchers get the same events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    next: Revision,
    range: WatchRange,
    view: View,
    fragment: bool,
}

/// What some watchers of one stream are told.
#[derive(Debug)]
struct Batch {
    stream: StreamId,
    picks: Vec<Pick>,
    events: Option<Shared>,
}

/// One round. Whether another should follow at once.
pub(super) fn round(
    state: &Mutex<State>,
    signal: &Signal,
    history: &impl History,
) -> Result<bool, HistoryError> {
    let drained = signal.take_drained();
    let mut guard = lock(state);
    drained.into_iter().for_each(|stream| guard.give_turn(stream));
    let (streams, picks) = pick(&mut guard);
    let target = guard.current();
    drop(guard);
    let outcome = windows(state, history, target, picks);
    let mut guard = lock(state);
    for id in streams {
        if let Some(stream) = guard.streams.get_mut(&id) {
            stream.has_turn = false;
        }
        guard.give_turn(id);
    }
    let more = !guard.turns.is_empty();
    drop(guard);
    if more {
        signal.work();
    }
    outcome.map(|()| more)
}

/// Takes turns, and watchers from each. Those that are owed what is compacted end here.
fn pick(state: &mut State) -> (Vec<StreamId>, Vec<Pick>) {
    let (mut streams, mut picks) = (Vec::new(), Vec::new());
    let turn_max = TURN_MIN.max(WATCH_ROUND_MAX / state.turns.len().max(1));
    while picks.len() < WATCH_ROUND_MAX {
        let Some(stream_id) = state.turns.pop_front() else { break };
        streams.push(stream_id);
        let Some(stream) = state.streams.get_mut(&stream_id) else { continue };
        let ids_max = turn_max.min(WATCH_ROUND_MAX - picks.len());
        let (first, start) = (WatchId(i64::MIN), stream.next_behind);
        let in_turn = stream.behind.range(start..).chain(stream.behind.range(first..start));
        let ids: Vec<WatchId> = in_turn.take(ids_max).copied().collect();
        if let Some(WatchId(last)) = ids.last() {
            stream.next_behind = WatchId(last.wrapping_add(1));
        }
        for id in ids {
            let (current, compacted) = (state.current(), state.compacted());
            let watcher = state.streams.get(&stream_id).and_then(|stream| stream.watcher(id));
            let Some(watcher) = watcher else { continue };
            let Place::Behind { next, .. } = watcher.place else { continue };
            let (range, view, fragment) = (watcher.range.clone(), watcher.view, watcher.fragment);
            let wish = Wish { next, range, view, fragment };
            let serial = watcher.serial;
            if next < compacted {
                state.end(stream_id, id);
            } else if next > current {
                state.told_before(stream_id, id, next);
            } else {
                picks.push(Pick { stream: stream_id, id, serial, wish });
            }
        }
    }
    (streams, picks)
}

/// Reads as many windows as a round may, and hands over what is in them.
fn windows(
    state: &Mutex<State>,
    history: &impl History,
    target: Revision,
    mut picks: Vec<Pick>,
) -> Result<(), HistoryError> {
    // Those that get the same events of the same stream are side by side.
    picks.sort_by(|a, b| (&a.wish, a.stream).cmp(&(&b.wish, b.stream)));
    for _ in 0..WINDOWS_MAX {
        let Some(first) = picks.first() else { break };
        let from = first.wish.next;
        let prev_kv = picks.iter().any(|pick| pick.wish.view.prev_kv);
        let past = match read(state, history, from, target, prev_kv) {
            Err(HistoryError::Compacted(compacted)) if compacted > from => {
                let mut state = lock(state);
                state.compact(compacted);
                let over = picks.partition_point(|pick| pick.wish.next < compacted);
                for Pick { stream, id, serial, wish } in picks.drain(..over) {
                    if state.still_behind(stream, id, serial, wish.next) {
                        state.end(stream, id);
                    }
                }
                continue;
            }
            past => past?,
        };
        if past.through < from {
            return Err(HistoryError::Failed(format!("revision {} is missing", from.0)));
        }
        let through = past.through.min(target);
        let within = picks.partition_point(|pick| pick.wish.next <= through);
        let later = picks.split_off(within);
        let batches = batches(core::mem::replace(&mut picks, later), &past.changes, through);
        for some in batches.chunks(LOCKED_MAX) {
            let mut state = lock(state);
            let close = hand_over(&mut state, some, through);
            let current = state.current();
            if close.is_empty() || current.0 - through.0 > CLOSING_MAX {
                continue;
            }
            let Some(recent) = state.recent_from(Revision(through.0 + 1)) else { continue };
            let recent: Vec<Changes> = recent.cloned().collect();
            // Whoever wants former pairs that are not remembered is brought forward in the next round.
            let mut close = close;
            if recent.iter().any(|changes| !changes.has_prev) {
                close.retain(|pick| !pick.wish.view.prev_kv);
            }
            hand_over(&mut state, &self::batches(close, &recent, current), current);
        }
    }
    Ok(())
}

/// A window of the past: what the hub remembers, if that goes back so far.
fn read(
    state: &Mutex<State>,
    history: &impl History,
    from: Revision,
    to: Revision,
    prev_kv: bool,
) -> Result<Past, HistoryError> {
    let guard = lock(state);
    // Of what is compacted, history leaves out the former pairs; memory must not say more.
    if let Some(recent) = guard.recent_from(from).filter(|_| from > guard.compacted()) {
        let changes: Vec<Changes> = recent
            .take_while(|changes| changes.revision <= to && (changes.has_prev || !prev_kv))
            .take(WATCH_WINDOW_REVISIONS_MAX)
            .cloned()
            .collect();
        if let Some(last) = changes.last() {
            return Ok(Past { through: last.revision, changes });
        }
    }
    drop(guard);
    history.past(PastRequest {
        from,
        to,
        prev_kv,
        revisions_max: WATCH_WINDOW_REVISIONS_MAX,
        bytes_max: WATCH_WINDOW_BYTES_MAX,
    })
}

/// What each watcher is to be told of some changes. The picks are in the order of their wishes.
fn batches(picks: Vec<Pick>, changes: &[Changes], through: Revision) -> Vec<Batch> {
    let mut wishes: BTreeMap<Wish, Vec<&Event>> = BTreeMap::new();
    for pick in &picks {
        wishes.entry(pick.wish.clone()).or_default();
    }
    let mut told: Vec<(Wish, Vec<&Event>)> = wishes.into_iter().collect();
    let mut index: Index<usize, ()> = Index::new();
    for (at, (wish, _)) in told.iter().enumerate() {
        index.insert(&wish.range, at, ());
    }
    let mut found = Vec::new();
    for Changes { revision, events, .. } in changes.iter().filter(|c| c.revision <= through) {
        for event in &events[..] {
            index.containing(&event.kv.key, &mut found);
            for slot in found.drain(..) {
                for at in index.slot_mut(slot).members.keys() {
                    let (wish, told) = &mut told[*at];
                    if wish.next <= *revision && wish.view.shows(event) {
                        told.push(event);
                    }
                }
            }
        }
    }
    let shared = told.into_iter().map(|(wish, events)| {
        let events = (!events.is_empty())
            .then(|| Shared::new(events.into_iter().map(|event| wish.view.of(event)).collect()));
        (wish, events)
    });
    let shared: BTreeMap<Wish, Option<Shared>> = shared.collect();
    let mut batches: Vec<Batch> = Vec::new();
    for pick in picks {
        let same = batches
            .last_mut()
            .filter(|batch| batch.stream == pick.stream && batch.picks[0].wish == pick.wish);
        if let Some(batch) = same {
            batch.picks.push(pick);
        } else {
            let events = shared.get(&pick.wish).cloned().flatten();
            batches.push(Batch { stream: pick.stream, picks: vec![pick], events });
        }
    }
    batches
}

/// Puts what is to be told into the queues. Gives back those that are still behind, as they are then.
fn hand_over(state: &mut State, batches: &[Batch], through: Revision) -> Vec<Pick> {
    let next = Revision(through.0 + 1);
    let mut behind = Vec::new();
    for Batch { stream, picks, events } in batches {
        let same = picks.iter().filter(|pick| {
            // Whoever was cancelled meanwhile, or moved on in another round, is left alone.
            state.still_behind(*stream, pick.id, pick.serial, pick.wish.next)
        });
        let picks: Vec<&Pick> = same.collect();
        let (Some(first), revision) = (picks.first(), state.current()) else { continue };
        if let Some(events) = events.clone() {
            let watchers = picks.iter().map(|pick| pick.id).collect();
            let fragment = first.wish.fragment;
            let news = News { revision, watchers, events, fragment };
            if !state.tell_behind(*stream, news) {
                continue;
            }
        }
        for pick in picks {
            state.told_before(*stream, pick.id, next);
            let wish = Wish { next, ..pick.wish.clone() };
            if state.still_behind(*stream, pick.id, pick.serial, next) {
                behind.push(Pick { wish, ..pick.clone() });
            }
        }
    }
    behind
}
