//! Stories about watches: `scripts/watch`. The README above it has the language.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod watch_support;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use quorate_kv::{
    Hub, Revision, WatchConfig, WatchCreate, WatchId, WatchRequest, WatchResponse, WatchStream,
};
use watch_support::store::{Store, Write, event_text};

#[test]
fn scripts() {
    watch_support::run_scripts("watch", World::new, World::run);
}

struct World {
    store: Store,
    hub: Hub,
    streams: BTreeMap<String, WatchStream>,
    now_us: u64,
}

impl World {
    fn new() -> Self {
        Self::with(WatchConfig { progress_interval_us: 10_000_000, ..WatchConfig::default() })
    }

    fn with(config: WatchConfig) -> Self {
        let store = Store::default();
        let hub = Hub::new(config, store.current(), store.compacted());
        Self { store, hub, streams: BTreeMap::new(), now_us: 0 }
    }

    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<i64>().expect("a number");
        match words[0] {
            "hub" => {
                let response_bytes_max = words[1].parse().expect("a size");
                *self = Self::with(WatchConfig { response_bytes_max, ..WatchConfig::default() });
            }
            "put" => return self.write(&[put(words[1], words[2])]),
            "delete" => return self.write(&[delete(words[1])]),
            "txn" => {
                let writes: Vec<Write> = words[1..].iter().map(|word| write(word)).collect();
                return self.write(&writes);
            }
            "delete_range" => {
                let keys = self.store.keys(words[1].as_bytes(), words[2].as_bytes());
                let writes: Vec<Write> = keys.into_iter().map(|key| (key, None)).collect();
                return self.write(&writes);
            }
            "puts" => {
                for n in 0..number(2) {
                    self.write(&[put(words[1], &n.to_string())]);
                }
                return format!("revision {}\n", self.store.current().0);
            }
            // What other replicas applied while this one was away.
            "elsewhere" => {
                self.store.write(&words[1..].iter().map(|word| write(word)).collect::<Vec<_>>());
                return format!("revision {}\n", self.store.current().0);
            }
            "snapshot" => self.hub.reset(self.store.current(), self.store.compacted()),
            "compact" => {
                self.store.compact(Revision(number(1)));
                self.hub.compact(Revision(number(1)));
            }
            // The hub hears of it only through history.
            "compact_unheard" => self.store.compact(Revision(number(1))),
            "open" => {
                self.streams.insert(words[1].to_owned(), self.hub.open());
            }
            "close" => drop(self.streams.remove(words[1])),
            "watch" => return self.request(words[1], WatchRequest::Create(create(&words[2..]))),
            "cancel" => return self.request(words[1], WatchRequest::Cancel(WatchId(number(2)))),
            "progress" => return self.request(words[1], WatchRequest::Progress),
            "refuse" => {
                let reason = words[2..].join(" ");
                return self.request(words[1], WatchRequest::Refuse(Cow::Owned(reason)));
            }
            "round" => {
                let more = self.hub.catch_up(&self.store).expect("history can be read");
                return if more { "more\n".to_owned() } else { String::new() };
            }
            "catch_up" => while self.hub.catch_up(&self.store).expect("history can be read") {},
            "watchers" => {
                let (synced, behind) = self.hub.watchers();
                return format!("{synced} synced, {behind} behind\n");
            }
            "tick" => {
                self.now_us += words[1].trim_end_matches('s').parse::<u64>().unwrap() * 1_000_000;
                self.hub.tick(self.now_us);
            }
            "shutdown" => self.hub.shutdown(),
            "read" => {
                let most = words.get(2).map_or(usize::MAX, |most| most.parse().unwrap());
                return self.read(words[1], most);
            }
            "skip" => {
                let most: usize = words[2].parse().unwrap();
                let read = (0..most).take_while(|_| self.next(words[1]).is_some()).count();
                return format!("{read} responses\n");
            }
            other => panic!("unknown command {other}"),
        }
        String::new()
    }

    fn write(&mut self, writes: &[Write]) -> String {
        match self.store.write(writes) {
            Some(changes) => {
                self.hub.publish(&changes);
                format!("revision {}\n", changes.revision.0)
            }
            None => "nothing\n".to_owned(),
        }
    }

    fn request(&mut self, stream: &str, request: WatchRequest) -> String {
        match self.streams[stream].request(request) {
            Ok(()) => String::new(),
            Err(full) => format!("{full}\n"),
        }
    }

    fn next(&self, stream: &str) -> Option<WatchResponse> {
        self.streams[stream].try_next()
    }

    fn read(&self, stream: &str, most: usize) -> String {
        let mut out = String::new();
        for _ in 0..most {
            let waker = core::task::Waker::noop();
            match self.streams[stream].poll_next(waker) {
                core::task::Poll::Pending => break,
                core::task::Poll::Ready(None) => {
                    writeln!(out, "{stream} ends").unwrap();
                    break;
                }
                core::task::Poll::Ready(Some(response)) => {
                    writeln!(out, "{stream} {}", response_text(&response)).unwrap();
                }
            }
        }
        out
    }
}

fn bytes(text: &str) -> Bytes {
    match text {
        "-" => Bytes::new(),
        "zero" => Bytes::from_static(b"\0"),
        text => Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// `x12` is twelve bytes.
fn value(text: &str) -> Bytes {
    match text.strip_prefix('x').and_then(|len| len.parse().ok()) {
        Some(len) => Bytes::from(vec![b'x'; len]),
        None => bytes(text),
    }
}

fn put(key: &str, new: &str) -> Write {
    (bytes(key), Some(value(new)))
}

fn delete(key: &str) -> Write {
    (bytes(key), None)
}

fn write(word: &str) -> Write {
    match word.split_once('=') {
        Some((key, new)) => put(key, new),
        None => delete(word),
    }
}

fn create(words: &[&str]) -> WatchCreate {
    let mut create = WatchCreate { key: bytes(words[0]), ..WatchCreate::default() };
    for word in &words[1..] {
        match word.split_once('=') {
            Some(("end", end)) => create.range_end = bytes(end),
            Some(("id", id)) => create.watch_id = WatchId(id.parse().unwrap()),
            Some(("start", start)) => create.start_revision = Revision(start.parse().unwrap()),
            _ => match *word {
                "prev_kv" => create.prev_kv = true,
                "no_put" => create.no_put = true,
                "no_delete" => create.no_delete = true,
                "progress" => create.progress_notify = true,
                "fragment" => create.fragment = true,
                other => panic!("unknown option {other}"),
            },
        }
    }
    create
}

fn response_text(response: &WatchResponse) -> String {
    let mut out = format!("w{} @{}", response.watch_id.0, response.revision.0);
    if response.created {
        out += " created";
    }
    if response.canceled {
        out += " canceled";
    }
    if let Some(revision) = response.compact_revision {
        write!(out, " compacted={}", revision.0).unwrap();
    }
    if let Some(reason) = &response.cancel_reason {
        write!(out, " \"{reason}\"").unwrap();
    }
    if response.fragment {
        out += " fragment";
    }
    if response.events.len() > 8 {
        let (first, last) = (&response.events[0], &response.events[response.events.len() - 1]);
        let count = response.events.len();
        return out + &format!(" {count} events: {} ... {}", event_text(first), event_text(last));
    }
    let events: Vec<String> = response.events.iter().map(event_text).collect();
    if !events.is_empty() {
        write!(out, ": {}", events.join(", ")).unwrap();
    }
    out
}
