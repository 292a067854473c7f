//! Clients at work while things happen to their servers, and a judgement of all that they saw.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate_sim::linearizability::{
    ClientId, History, KeyValue, KeyValueAction, KeyValueOp, KeyValueReply, Limits, check,
};
use tokio::task::JoinHandle;

use super::client::{Client, Event, Pair, Query, WatchQuery};

/// Few, so that clients meet.
const KEYS: u64 = 5;

#[derive(Default)]
struct Seen {
    history: History<KeyValueOp<String, String>, KeyValueReply<String>>,
    /// What was acknowledged, by revision.
    writes: BTreeMap<i64, (String, String)>,
    acknowledged: u64,
    unknown: u64,
    reads: u64,
}

/// Clients, each at a server of its own; a failed one goes on at the next server.
pub struct Load {
    begun: Instant,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    /// Nothing is written any more.
    written: Arc<AtomicBool>,
    values: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
    watchers: Vec<JoinHandle<Vec<Event>>>,
}

impl Load {
    /// Of so many clients that write and read.
    pub fn start<C: Client>(urls: &[String], clients: u64) -> Self {
        let mut load = Self {
            begun: Instant::now(),
            seen: Arc::default(),
            stop: Arc::default(),
            written: Arc::default(),
            values: Arc::default(),
            tasks: Vec::new(),
            watchers: Vec::new(),
        };
        for number in 0..clients {
            load.add_client::<C>(number, urls.to_vec());
        }
        load
    }

    fn add_client<C: Client>(&mut self, number: u64, urls: Vec<String>) {
        let (seen, stop, begun) = (Arc::clone(&self.seen), Arc::clone(&self.stop), self.begun);
        let values = Arc::clone(&self.values);
        let now = move || u64::try_from(begun.elapsed().as_micros()).unwrap();
        self.tasks.push(tokio::spawn(async move {
            let mut at = number as usize % urls.len();
            let mut step = number;
            let mut client: Option<C> = None;
            while !stop.load(Ordering::Relaxed) {
                let limit = Duration::from_secs(3);
                let Some(connected) = &client else {
                    match tokio::time::timeout(limit, C::connect(&urls[at])).await {
                        Ok(Ok(connected)) => client = Some(connected),
                        _ => {
                            at = (at + 1) % urls.len();
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                    continue;
                };
                step += 1;
                let key = format!("load/{}", (step * 7 + number) % KEYS);
                let value = values.fetch_add(1, Ordering::Relaxed).to_string();
                let invoke = |action| {
                    let op = KeyValueOp { key: key.clone(), action };
                    seen.lock().unwrap().history.invoke(ClientId(number), op, now())
                };
                let worked = if step.is_multiple_of(3) {
                    let op = invoke(KeyValueAction::Get);
                    match tokio::time::timeout(limit, connected.get(Query::key(&key))).await {
                        Ok(Ok(got)) => {
                            let value = got.value().map(str::to_owned);
                            let mut seen = seen.lock().unwrap();
                            seen.history.complete(op, KeyValueReply::Value(value), now());
                            seen.reads += 1;
                            true
                        }
                        _ => {
                            seen.lock().unwrap().history.fail(op);
                            false
                        }
                    }
                } else {
                    let op = invoke(KeyValueAction::Put(value.clone()));
                    let put = connected.put_full(&key, &value, 0, true);
                    match tokio::time::timeout(limit, put).await {
                        Ok(Ok((revision, previous))) => {
                            let before = previous.map(|pair: Pair| pair.value);
                            let mut seen = seen.lock().unwrap();
                            seen.history.complete(op, KeyValueReply::Value(before), now());
                            let twice = seen.writes.insert(revision, (key.clone(), value));
                            assert_eq!(twice, None, "two writes have revision {revision}");
                            seen.acknowledged += 1;
                            true
                        }
                        _ => {
                            seen.lock().unwrap().unknown += 1;
                            false
                        }
                    }
                };
                if !worked {
                    client = None;
                    at = (at + 1) % urls.len();
                }
            }
        }));
    }

    /// Somebody who watches all keys from revision `from` on, resuming elsewhere when a stream breaks off, until the
    /// load has ended and everything was heard.
    pub fn watch<C: Client>(&mut self, urls: &[String], first: usize, from: i64) {
        let (urls, stop) = (urls.to_vec(), Arc::clone(&self.written));
        let seen = Arc::clone(&self.seen);
        self.watchers.push(tokio::spawn(async move {
            let mut events: Vec<Event> = Vec::new();
            let mut at = first;
            loop {
                let next = events.last().map_or(from, |event| event.pair.modified + 1);
                let done = |events: &[Event]| {
                    let last = events.last().map_or(0, |event| event.pair.modified);
                    let seen = seen.lock().unwrap();
                    let written = seen.writes.last_key_value().map_or(0, |(revision, _)| *revision);
                    stop.load(Ordering::Relaxed) && last >= written
                };
                let query = WatchQuery {
                    key: "load/".to_owned(),
                    end: "load0".to_owned(),
                    from: next,
                    ..WatchQuery::default()
                };
                let url = &urls[at % urls.len()];
                let opened = async { C::connect(url).await?.watch(query).await };
                at += 1;
                let Ok(Ok(mut stream)) = tokio::time::timeout(Duration::from_secs(2), opened).await
                else {
                    if done(&events) {
                        return events;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                loop {
                    if done(&events) {
                        return events;
                    }
                    match tokio::time::timeout(Duration::from_millis(500), stream.recv()).await {
                        Ok(Some(Ok(heard))) if !heard.canceled => events.extend(heard.events),
                        // Whoever hears nothing while there is something to hear goes elsewhere.
                        Err(_) if !stop.load(Ordering::Relaxed) => {}
                        _ => break,
                    }
                }
            }
        }));
    }

    /// Writes that were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.seen.lock().unwrap().acknowledged
    }

    /// Waits until so many more were acknowledged.
    pub async fn more(&self, count: u64) {
        let wanted = self.acknowledged() + count;
        super::cluster::until("writes go on", async || self.acknowledged() >= wanted).await;
    }

    /// The load ends. What clients saw is linearizable; every watcher heard every acknowledged write exactly once, in
    /// the order of revisions; and `client` finds the last ones.
    pub async fn end<C: Client>(self, client: &C) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.written.store(true, Ordering::Relaxed);
        let mut heard = Vec::new();
        for watcher in self.watchers {
            heard.push(
                tokio::time::timeout(super::cluster::PATIENCE, watcher).await.unwrap().unwrap(),
            );
        }
        let last = judge(&self.seen.lock().unwrap(), &heard);
        assert!(client.get(Query::key("load/0")).await.unwrap().revision >= last);
    }
}

/// What they saw, and what each watcher heard. The last revision that was acknowledged.
fn judge(seen: &Seen, heard: &[Vec<Event>]) -> i64 {
    let verdict = check(&KeyValue::new(), &seen.history, Limits::default());
    assert!(verdict.is_linearizable(), "{verdict}");
    let last = seen.writes.last_key_value().map_or(0, |(revision, _)| *revision);
    for events in heard {
        let revisions: Vec<i64> = events.iter().map(|event| event.pair.modified).collect();
        assert!(revisions.is_sorted_by(|one, next| one < next), "{revisions:?}");
        let by_revision: BTreeMap<i64, &Event> =
            events.iter().map(|event| (event.pair.modified, event)).collect();
        for (revision, (key, value)) in &seen.writes {
            let event = by_revision.get(revision);
            let event = event.unwrap_or_else(|| panic!("nobody heard of revision {revision}"));
            assert_eq!((&event.pair.key, &event.pair.value), (key, value));
        }
        // Nothing was heard that nobody wrote: each value is written once.
        let mut values: Vec<&str> = events.iter().map(|event| &*event.pair.value).collect();
        values.sort_unstable();
        let count = values.len();
        values.dedup();
        assert_eq!(values.len(), count, "a write was heard twice");
    }
    let (acknowledged, unknown, reads) = (seen.acknowledged, seen.unknown, seen.reads);
    println!("{acknowledged} writes acknowledged, {unknown} of unknown outcome, {reads} reads");
    assert!(acknowledged > 0 && reads > 0);
    last
}
