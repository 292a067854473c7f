//! One change, and many who want to know.

use bytes::Bytes;
use quorate_kv::{
    Command, Hub, LogPlace, Put, Revision, Store, StoreConfig, WatchConfig, WatchCreate,
    WatchRequest, WatchStream,
};

use crate::Plan;
use crate::measure::Watch;

const WATCHERS: usize = 1000;
/// Changes between two looks of those who watch: less than a stream holds.
const BURST: u64 = 16;

/// Hears of what is applied.
struct Told<'a>(&'a Hub);

impl quorate_kv::Sink for Told<'_> {
    fn changed(&mut self, changes: &quorate_kv::Changes) {
        self.0.publish(changes);
    }

    fn compacted(&mut self, revision: Revision) {
        self.0.compact(revision);
    }

    fn wants_prev(&self) -> bool {
        false
    }
}

fn read(streams: &[WatchStream]) -> u64 {
    let mut events = 0;
    for stream in streams {
        while let Some(response) = stream.try_next() {
            events += response.events.len() as u64;
        }
    }
    events
}

/// A thousand streams with a watcher each: on the same key, on a prefix, or on a key of their own.
pub fn fan_out(plan: &Plan) {
    let same = |_: usize| (Bytes::from_static(b"/watched/0000"), Bytes::new());
    let prefix = |_: usize| (Bytes::from_static(b"/watched/"), Bytes::from_static(b"/watched0"));
    let own = |n: usize| (Bytes::from(format!("/watched/{n:04}")), Bytes::new());
    let puts = (plan.reads / 100).max(100);
    row("one key", puts, same, |_| 0, WATCHERS as u64);
    row("a prefix", puts, prefix, |n| n % 1000, WATCHERS as u64);
    row("a key each", puts * 100, own, |n| n % 1000, 1);
}

fn row(
    name: &str,
    puts: u64,
    keys: impl Fn(usize) -> (Bytes, Bytes),
    put: impl Fn(u64) -> u64,
    events_each: u64,
) {
    let mut store = Store::in_memory(StoreConfig::default());
    let hub = Hub::new(WatchConfig::default(), Revision(1), Revision(-1));
    let streams: Vec<WatchStream> = (0..WATCHERS)
        .map(|n| {
            let stream = hub.open();
            let (key, range_end) = keys(n);
            let create = WatchCreate { key, range_end, ..WatchCreate::default() };
            stream.request(WatchRequest::Create(create)).expect("there is room");
            stream
        })
        .collect();
    assert_eq!(read(&streams), 0);
    let watch = Watch::start();
    let mut events = 0;
    for number in 0..puts {
        let key = Bytes::from(format!("/watched/{:04}", put(number)));
        let command = Command::Put(Put { key, value: crate::value(number), ..Put::default() });
        store.apply(&[command], &mut Told(&hub)).expect("memory does not fail");
        store.finish(LogPlace { index: number + 1, term: 1 }, []);
        if number % BURST == 0 {
            events += read(&streams);
        }
    }
    events += read(&streams);
    assert_eq!(events, puts * events_each, "nobody falls behind");
    watch.row(&format!("watch, {WATCHERS} on {name}: each event"), events);
}
