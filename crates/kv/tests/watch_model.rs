//! Random watches against a replay of the whole history for each of them.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod watch_support;

use std::cell::RefCell;

use bytes::Bytes;
use quorate_kv::{
    History, HistoryError, Hub, Past, PastRequest, Revision, WATCH_BYTES_MAX, WATCH_RESPONSES_MAX,
    WatchConfig, WatchCreate, WatchId, WatchRequest, WatchStream,
};
use watch_support::Random;
use watch_support::store::{Store, Write};
use watch_support::witness::{Counts, Witness};

struct World {
    random: Random,
    store: Store,
    hub: Hub,
    streams: Vec<(WatchStream, Witness)>,
    now_us: u64,
    counts: Counts,
}

impl World {
    fn new(seed: u64) -> Self {
        let store = Store::default();
        let config = WatchConfig { response_bytes_max: 300, progress_interval_us: 100_000, seed };
        let hub = Hub::new(config, store.current(), store.compacted());
        let counts = Counts::default();
        Self { random: Random(seed), store, hub, streams: Vec::new(), now_us: 0, counts }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..3 => self.open(),
            3 => self.close(),
            4..14 => self.create(),
            14..17 => self.cancel(),
            17..20 => self.request(WatchRequest::Progress),
            20..50 => self.write(true),
            50..53 => (0..self.random.below(300)).for_each(|_| self.write(true)),
            // A snapshot is installed.
            53 => {
                (0..self.random.below(5)).for_each(|_| self.write(false));
                self.compact(false);
                self.hub.reset(self.store.current(), self.store.compacted());
            }
            54 => self.compact(true),
            55 => self.compact(false),
            56..60 => {
                self.now_us += self.random.below(80_000);
                self.hub.tick(self.now_us);
            }
            60..80 => {
                let most = self.random.below(40);
                self.read(most);
            }
            80 => self.read(1000),
            81..90 => {
                self.hub.catch_up(&self.store).unwrap();
            }
            _ => {
                let hub = self.hub.clone();
                hub.catch_up(&Meddling(RefCell::new(self))).unwrap();
            }
        }
    }

    /// Anything that may happen while somebody else reads history.
    fn meddle(&mut self) {
        for _ in 0..self.random.below(4) {
            match self.random.below(5) {
                0 => self.cancel(),
                1 => self.create(),
                2 => self.write(true),
                3 => self.replace(),
                _ => {
                    self.hub.catch_up(&self.store).unwrap();
                }
            }
        }
    }

    /// A watcher goes, and another takes its id.
    fn replace(&mut self) {
        let Some(at) = self.any_stream() else { return };
        let current = self.store.current().0 as u64;
        let key = self.key();
        let start_revision = Revision(self.random.below(current + 1) as i64);
        let (stream, witness) = &mut self.streams[at];
        let live: Vec<WatchId> = witness.live().collect();
        for watch_id in live {
            let create = WatchCreate {
                key: key.clone(),
                watch_id,
                start_revision,
                ..WatchCreate::default()
            };
            drop(stream.request(WatchRequest::Cancel(watch_id)));
            if stream.request(WatchRequest::Create(create.clone())).is_ok() {
                witness.asks(create);
            }
        }
    }

    fn open(&mut self) {
        if self.streams.len() < 4 {
            self.streams.push((self.hub.open(), Witness::default()));
        }
    }

    fn close(&mut self) {
        if let Some(at) = self.any_stream().filter(|_| self.random.one_in(3)) {
            let (_, witness) = self.streams.swap_remove(at);
            self.count(&witness);
        }
    }

    fn any_stream(&mut self) -> Option<usize> {
        let streams = self.streams.len() as u64;
        (streams > 0).then(|| self.random.below(streams) as usize)
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!("k{}", self.random.below(8)))
    }

    fn create(&mut self) {
        let Some(at) = self.any_stream() else { return };
        let current = self.store.current().0 as u64;
        let (key, end) = (self.key(), self.key());
        let create = WatchCreate {
            key,
            range_end: match self.random.below(4) {
                0 | 1 => Bytes::new(),
                2 => Bytes::from_static(b"\0"),
                _ => end,
            },
            start_revision: match self.random.below(3) {
                0 => Revision(0),
                1 => Revision(current as i64 + self.random.below(6) as i64 - 3),
                _ => Revision(self.random.below(current + 10) as i64),
            },
            watch_id: WatchId(self.random.below(3) as i64 * self.random.below(30) as i64),
            no_put: self.random.one_in(6),
            no_delete: self.random.one_in(6),
            prev_kv: self.random.one_in(2),
            progress_notify: self.random.one_in(3),
            fragment: self.random.one_in(2),
        };
        let (stream, witness) = &mut self.streams[at];
        if stream.request(WatchRequest::Create(create.clone())).is_ok() {
            witness.asks(create);
        }
    }

    fn cancel(&mut self) {
        let Some(at) = self.any_stream() else { return };
        let live: Vec<WatchId> = self.streams[at].1.live().collect();
        if live.is_empty() {
            return;
        }
        let id = live[self.random.below(live.len() as u64) as usize];
        drop(self.streams[at].0.request(WatchRequest::Cancel(id)));
    }

    fn request(&mut self, request: WatchRequest) {
        if let Some(at) = self.any_stream() {
            drop(self.streams[at].0.request(request));
        }
    }

    fn write(&mut self, publish: bool) {
        let writes: Vec<Write> = (0..=self.random.below(3))
            .map(|_| {
                let value = (!self.random.one_in(3)).then(|| Bytes::from(vec![b'v'; 40]));
                (self.key(), value)
            })
            .collect();
        if let Some(changes) = self.store.write(&writes).filter(|_| publish) {
            // Nobody has asked for former pairs; or somebody has just now.
            let lacks = !self.hub.wants_prev() || self.random.one_in(8);
            self.hub.publish(&if lacks { changes.without_prev() } else { changes });
        }
    }

    fn compact(&mut self, heard: bool) {
        let back = self.random.below(40) as i64;
        let revision = Revision(self.store.current().0 - back);
        if revision > self.store.compacted() {
            self.store.compact(revision);
            if heard {
                self.hub.compact(revision);
            }
        }
    }

    fn read(&mut self, most: u64) {
        let Some(at) = self.any_stream() else { return };
        let (stream, witness) = &mut self.streams[at];
        for _ in 0..most {
            let Some(response) = stream.try_next() else { break };
            witness.hears(&response, &self.store);
        }
    }

    /// Everybody reads, and everything is caught up with.
    fn settle(&mut self) {
        loop {
            let more = self.hub.catch_up(&self.store).unwrap();
            let mut read = 0;
            for (stream, witness) in &mut self.streams {
                while let Some(response) = stream.try_next() {
                    witness.hears(&response, &self.store);
                    read += 1;
                }
            }
            if !more && read == 0 {
                break;
            }
        }
        assert_eq!(self.hub.watchers().1, 0, "somebody is left behind");
        let live: usize = self.streams.iter().map(|(_, witness)| witness.live().count()).sum();
        assert_eq!(self.hub.watchers().0, live);
        for (_, witness) in core::mem::take(&mut self.streams) {
            witness.is_complete(&self.store);
            self.count(&witness);
        }
        assert_eq!(self.hub.watchers(), (0, 0));
    }

    fn count(&mut self, witness: &Witness) {
        let Counts { events, progress, compacted, caught_up, fragments, prev } = witness.counts;
        self.counts.events += events;
        self.counts.progress += progress;
        self.counts.compacted += compacted;
        self.counts.caught_up += caught_up;
        self.counts.fragments += fragments;
        self.counts.prev += prev;
    }
}

/// A history that takes its time.
struct Meddling<'a>(RefCell<&'a mut World>);

impl History for Meddling<'_> {
    fn past(&self, request: PastRequest) -> Result<Past, HistoryError> {
        let mut world = self.0.borrow_mut();
        let past = world.store.past(request);
        world.meddle();
        past
    }
}

#[test]
fn every_watcher_hears_what_a_replay_would_tell() {
    let mut total = [0; 6];
    for seed in 0..500 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.settle();
        let Counts { events, progress, compacted, caught_up, fragments, prev } = world.counts;
        for (total, count) in
            total.iter_mut().zip([events, progress, compacted, caught_up, fragments, prev])
        {
            *total += count;
        }
    }
    assert!(total.iter().all(|count| *count > 300), "too little happens: {total:?}");
}

/// Ten thousand watchers on one stream, and a hundred streams: each event reaches whom it concerns, and nobody falls behind.
#[test]
fn ten_thousand_watchers_are_ordinary() {
    for streams in [1, 100] {
        let store = Store::default();
        let hub = Hub::new(WatchConfig::default(), store.current(), store.compacted());
        let streams: Vec<WatchStream> = (0..streams).map(|_| hub.open()).collect();
        for n in 0..10_000 {
            let stream = &streams[n % streams.len()];
            // Every tenth watches the same key, the others one each, or a hundred keys.
            let (key, range_end) = match n % 10 {
                0 => ("all".to_owned(), String::new()),
                1 => (format!("k{:03}00", n / 100), format!("k{:03}99", n / 100)),
                _ => (format!("k{n:05}"), String::new()),
            };
            let (key, range_end) = (Bytes::from(key), Bytes::from(range_end));
            let create = WatchCreate { key, range_end, ..WatchCreate::default() };
            stream.request(WatchRequest::Create(create)).unwrap();
            assert!(stream.try_next().is_some_and(|response| response.created));
        }
        for _ in 0..WATCH_RESPONSES_MAX {
            hub.publish(&store.write(&[(Bytes::from_static(b"all"), Some(Bytes::new()))]).unwrap());
        }
        assert_eq!(hub.watchers(), (10_000, 0));
        let mut heard = 0;
        for stream in &streams {
            while let Some(response) = stream.try_next() {
                assert_eq!(response.events.len(), 1);
                heard += 1;
            }
        }
        assert_eq!(heard, 1000 * WATCH_RESPONSES_MAX);
        let write = (Bytes::from_static(b"k04217"), Some(Bytes::new()));
        hub.publish(&store.write(&[write]).unwrap());
        let heard = streams.iter().filter_map(WatchStream::try_next).count();
        let more = streams.iter().filter_map(WatchStream::try_next).count();
        assert!((1..=11).contains(&(heard + more)), "{heard}, then {more}");
    }
}

/// Whoever does not read holds no more than the bounds say, in pieces and in bytes, and answers stop requests.
#[test]
fn an_unread_stream_is_bounded() {
    let store = Store::default();
    let hub = Hub::new(WatchConfig::default(), store.current(), store.compacted());
    let stream = hub.open();
    let create = WatchCreate { key: Bytes::from_static(b"a"), ..WatchCreate::default() };
    stream.request(WatchRequest::Create(create.clone())).unwrap();
    let large = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..40 {
        hub.publish(&store.write(&[(Bytes::from_static(b"a"), Some(large.clone()))]).unwrap());
    }
    assert_eq!(hub.watchers(), (0, 1));
    let waiting = core::iter::from_fn(|| stream.try_next()).count();
    assert_eq!(waiting, 1 + WATCH_BYTES_MAX / large.len());
    while hub.catch_up(&store).unwrap() {}
    assert!(stream.try_next().is_some_and(|response| !response.events.is_empty()));

    let stream = hub.open();
    let mut taken = 0;
    while stream.request(WatchRequest::Create(create.clone())).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, quorate_kv::WATCH_ANSWERS_MAX);
    assert!(stream.poll_ready(core::task::Waker::noop()).is_pending());
    assert!(stream.try_next().is_some());
    assert!(stream.poll_ready(core::task::Waker::noop()).is_ready());
    assert!(stream.request(WatchRequest::Create(create)).is_ok());
}

/// While history is read for a watcher, it is cancelled and another takes its id and is owed the same revisions.
#[test]
fn a_successor_does_not_inherit_what_was_read() {
    struct Replacing<'a>(&'a Store, &'a WatchStream);

    impl History for Replacing<'_> {
        fn past(&self, request: PastRequest) -> Result<Past, HistoryError> {
            self.1.request(WatchRequest::Cancel(WatchId(5))).unwrap();
            self.1.request(WatchRequest::Create(watch(b"b"))).unwrap();
            self.0.past(request)
        }
    }

    fn watch(key: &'static [u8]) -> WatchCreate {
        WatchCreate {
            key: Bytes::from_static(key),
            start_revision: Revision(2),
            watch_id: WatchId(5),
            ..WatchCreate::default()
        }
    }

    let store = Store::default();
    for key in [b"a", b"b"] {
        store.write(&[(Bytes::from_static(key), Some(Bytes::new()))]).unwrap();
    }
    let hub = Hub::new(WatchConfig::default(), store.current(), store.compacted());
    let stream = hub.open();
    stream.request(WatchRequest::Create(watch(b"a"))).unwrap();
    hub.catch_up(&Replacing(&store, &stream)).unwrap();
    while hub.catch_up(&store).unwrap() {}
    let told = core::iter::from_fn(|| stream.try_next()).filter(|said| !said.events.is_empty());
    let keys: Vec<Bytes> = told.flat_map(|said| said.events.to_vec()).map(|e| e.kv.key).collect();
    assert_eq!(keys, [&b"b"[..]]);
}
