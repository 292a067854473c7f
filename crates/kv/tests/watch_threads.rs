//! The hub under real threads: one applies, one catches up, several read and make requests, all at once.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]
#![allow(clippy::disallowed_types, reason = "this is the host, with threads and a deadline")]

mod watch_support;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Poll, Waker};
use std::sync::Arc;
use std::task::Wake;
use std::thread::{self, ScopedJoinHandle, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_kv::{Hub, Revision, WatchConfig, WatchCreate, WatchId, WatchRequest, WatchStream};
use watch_support::Random;
use watch_support::store::{Store, Write};
use watch_support::witness::{Counts, Witness};

const REVISIONS: u64 = 20_000;
const READERS: u64 = 3;
/// Of each reader, made while revisions appear.
const WATCHERS: i64 = 40;

/// Far longer than it takes; a lost waker fails the test instead of hanging it.
const DEADLINE: Duration = Duration::from_secs(60);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits until something is ready.
fn block_on<T>(mut poll: impl FnMut(&Waker) -> Poll<T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Poll::Ready(value) = poll(&waker) {
            return value;
        }
        thread::park_timeout(DEADLINE);
        assert!(Instant::now() < deadline, "nobody wakes whoever waits");
    }
}

fn write(random: &mut Random) -> Vec<Write> {
    let mut write = || {
        let key = Bytes::from(format!("k{}", random.below(6)));
        (key, (!random.one_in(4)).then(|| Bytes::from_static(b"value")))
    };
    (0..2).map(|_| write()).collect()
}

/// Reads until every watcher has been told of the last revision, and makes new ones meanwhile.
fn read(seed: u64, hub: &Hub, store: &Store, ready: &AtomicU64, done: &AtomicBool) -> Counts {
    let mut random = Random(seed);
    let stream: WatchStream = hub.open();
    let mut witness = Witness::default();
    let mut id = 0;
    let deadline = Instant::now() + 2 * DEADLINE;
    loop {
        assert!(
            Instant::now() < deadline,
            "the watchers do not catch up: {:?} at {:?} of {:?}, made {id}",
            hub.watchers(),
            hub.current(),
            store.current()
        );
        let is_done = done.load(Ordering::Acquire);
        if !is_done && id < WATCHERS && hub.current().0 > id * REVISIONS as i64 / WATCHERS / 2 {
            id += 1;
            if id == WATCHERS {
                ready.fetch_add(1, Ordering::Release);
            }
            let back = random.below(3000) as i64;
            let create = WatchCreate {
                key: Bytes::from(format!("k{}", random.below(6))),
                range_end: if random.one_in(3) { Bytes::from_static(b"k9") } else { Bytes::new() },
                start_revision: Revision((hub.current().0 - back).max(1) * (back % 2)),
                watch_id: WatchId(id),
                prev_kv: random.one_in(2),
                ..WatchCreate::default()
            };
            stream.request(WatchRequest::Create(create.clone())).unwrap();
            witness.asks(create);
        }
        if is_done {
            stream.request(WatchRequest::Progress).unwrap();
        }
        let before = witness.counts.progress;
        while let Some(response) = stream.try_next() {
            witness.hears(&response, store);
        }
        // Everything up to the revision of a progress answer was told, which the witness has checked.
        if is_done && witness.counts.progress > before {
            witness.is_complete(store);
            return witness.counts;
        }
        if random.one_in(10) {
            thread::yield_now();
        }
    }
}

#[test]
fn nothing_is_lost_between_threads() {
    let store = Store::default();
    let hub = Hub::new(WatchConfig::default(), store.current(), store.compacted());
    let (done, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let ready = AtomicU64::new(0);
    thread::scope(|threads| {
        threads.spawn(|| {
            let mut random = Random(1);
            let started = Instant::now();
            let mut revisions = 0;
            while revisions < REVISIONS || ready.load(Ordering::Acquire) < READERS {
                assert!(started.elapsed() < DEADLINE, "the readers do not get on");
                revisions += 1;
                // The lock is not fair, and a store has more to do than this. Once there is enough, only as much as it takes
                // for readers to begin in between.
                match revisions < REVISIONS {
                    true => thread::yield_now(),
                    false => thread::park_timeout(Duration::from_millis(1)),
                }
                if let Some(changes) = store.write(&write(&mut random)) {
                    hub.publish(&changes);
                }
            }
            done.store(true, Ordering::Release);
        });
        threads.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                block_on(|waker| match stop.load(Ordering::Acquire) {
                    true => Poll::Ready(()),
                    false => hub.poll_behind(waker),
                });
                while hub.catch_up(&store).unwrap() {}
            }
        });
        let readers: Vec<_> = (0..READERS)
            .map(|seed| {
                threads.spawn({
                    let (hub, store, ready, done) = (&hub, &store, &ready, &done);
                    move || read(seed, hub, store, ready, done)
                })
            })
            .collect();
        let results: Vec<_> = readers.into_iter().map(ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Release);
        // Something to catch up with wakes whoever waits for that.
        let stream = hub.open();
        let create = WatchCreate { start_revision: Revision(1), ..WatchCreate::default() };
        stream.request(WatchRequest::Create(create)).unwrap();
        for result in results {
            let counts = result.unwrap();
            assert!(counts.events > 1000 && counts.caught_up > 3, "too little happens: {counts:?}");
        }
    });
}

#[test]
fn a_reader_that_waits_is_woken() {
    let store = Store::default();
    let hub = Hub::new(WatchConfig::default(), store.current(), store.compacted());
    let stream = hub.open();
    let create = WatchCreate { key: Bytes::from_static(b"a"), ..WatchCreate::default() };
    stream.request(WatchRequest::Create(create)).unwrap();
    assert!(block_on(|waker| stream.poll_next(waker)).is_some_and(|response| response.created));
    thread::scope(|threads| {
        let reader = threads.spawn(|| {
            let first = block_on(|waker| stream.poll_next(waker)).unwrap();
            let end = block_on(|waker| stream.poll_next(waker));
            (first.revision, end)
        });
        hub.publish(&store.write(&[(Bytes::from_static(b"a"), Some(Bytes::new()))]).unwrap());
        // The end is heard of, too.
        hub.shutdown();
        assert_eq!(reader.join().unwrap(), (Revision(2), None));
    });
}

#[derive(Default)]
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Each waker is called once for what it waits for, and for nothing else.
#[test]
fn wakers_are_called_when_there_is_something() {
    let store = Store::default();
    let hub = Hub::new(WatchConfig::default(), store.current(), store.compacted());
    let stream = hub.open();
    let (reader, behind) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let called = |count: &Arc<Count>| count.0.swap(0, Ordering::Relaxed);
    let (read_waker, behind_waker) =
        (Waker::from(Arc::clone(&reader)), Waker::from(Arc::clone(&behind)));
    let put = |key: &'static [u8]| {
        let write = (Bytes::from_static(key), Some(Bytes::new()));
        hub.publish(&store.write(&[write]).unwrap());
    };
    let create = |start| {
        let create = WatchCreate {
            key: Bytes::from_static(b"a"),
            start_revision: Revision(start),
            ..WatchCreate::default()
        };
        stream.request(WatchRequest::Create(create)).unwrap();
    };
    put(b"a");
    assert!(stream.poll_next(&read_waker).is_pending());
    assert!(hub.poll_behind(&behind_waker).is_pending());
    create(0);
    assert_eq!((called(&reader), called(&behind)), (1, 0));
    assert!(stream.poll_next(&read_waker).is_ready());
    assert!(stream.poll_next(&read_waker).is_pending());
    put(b"b");
    assert_eq!((called(&reader), called(&behind)), (0, 0));
    put(b"a");
    put(b"a");
    assert_eq!((called(&reader), called(&behind)), (1, 0));

    // Someone is behind: there is work.
    create(2);
    assert_eq!(called(&behind), 1);
    assert!(hub.poll_behind(&behind_waker).is_ready());
    while hub.catch_up(&store).unwrap() {}
    assert!(hub.poll_behind(&behind_waker).is_pending());

    // The stream is full: no work before it has been read.
    (0..200).for_each(|_| put(b"a"));
    assert_eq!((hub.watchers().1, called(&behind)), (2, 0));
    while called(&behind) == 0 {
        assert!(stream.try_next().is_some(), "the stream is empty, and nobody said so");
    }
    assert!(hub.poll_behind(&behind_waker).is_ready());

    // Too many answers: no requests before they have been read.
    while stream.poll_ready(&read_waker).is_ready() {
        create(0);
    }
    assert_eq!(called(&reader), 0);
    while called(&reader) == 0 {
        assert!(stream.try_next().is_some(), "everything is read, and nobody said so");
    }
}
