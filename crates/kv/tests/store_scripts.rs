//! Stories about the store: `scripts/store`. The README above it has the language.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "store_scripts/language.rs"]
mod language;
mod watch_support;

use std::fmt::Write as _;

use language::{command_of, range_of, text_of_events, text_of_range, text_of_reply, txn_of};
use quorate_kv::testing::FaultyDisk;
use quorate_kv::{
    Changes, Command, History, LogPlace, PastRequest, RangeStream, ReadError, Revision, Sink,
    Store, StoreConfig, TXN_OPS_MAX,
};

#[test]
fn scripts() {
    watch_support::run_scripts("store", World::new, World::run);
}

const CONFIG: StoreConfig = StoreConfig {
    values_bytes_max: 1 << 20,
    cache_bytes: 1 << 20,
    tail_bytes_max: 1 << 20,
    unsynced: false,
};

/// Two replicas that apply the same; only the first one is asked, compacted in steps, and flushed.
struct World {
    disk: FaultyDisk,
    store: Store,
    other: Store,
    place: LogPlace,
    sink: Ear,
    stream: Option<RangeStream>,
    tells_events: bool,
}

#[derive(Default)]
struct Ear(Vec<Changes>);

impl Sink for Ear {
    fn changed(&mut self, changes: &Changes) {
        self.0.push(changes.clone());
    }

    fn compacted(&mut self, _: Revision) {}

    fn wants_prev(&self) -> bool {
        true
    }
}

impl World {
    fn new() -> Self {
        let disk = FaultyDisk::new();
        let (store, _) = Store::open(disk.backend(), CONFIG).unwrap();
        // Of the other one, every value has to come from the database.
        let other = Store::in_memory(StoreConfig { values_bytes_max: 0, ..StoreConfig::default() });
        let (place, sink) = (LogPlace::default(), Ear::default());
        Self { disk, store, other, place, sink, stream: None, tells_events: false }
    }

    fn run(&mut self, line: &str) -> String {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "events" => self.tells_events = true,
            "get" => return self.get(rest),
            "stream" => match self.store.reader().range_stream(range_of(rest)) {
                Ok(stream) => self.stream = Some(stream),
                Err(why) => return format!("{why}\n"),
            },
            "part" => return self.part(rest.parse().unwrap()),
            "close" => self.stream = None,
            "read_txn" => {
                let txn = txn_of(rest);
                assert!(txn.only_reads(), "a transaction that only reads: {rest}");
                return match self.store.reader().txn(&txn) {
                    Ok(reply) => text_of_reply(&quorate_kv::Reply::Txn(reply)),
                    Err(why) => format!("{why}\n"),
                };
            }
            "check" => {
                return match check(&command_of(rest)) {
                    Ok(()) => String::new(),
                    Err(why) => format!("{why}\n"),
                };
            }
            "cost" => return format!("{} bytes\n", command_of(rest).cost_bytes()),
            "steps" => while self.store.compact_step(rest == "force") {},
            "flush" => flush(&mut self.store),
            "restart" => self.restart(),
            "revision" => {
                let reader = self.store.reader();
                let (current, compacted) = (reader.revision().0, reader.compacted().0);
                let finished = reader.compaction_finished().0;
                return format!("revision {current}, compacted {compacted}, finished {finished}\n");
            }
            "keys_in_memory" => return format!("{}\n", self.store.reader().keys()),
            "lease_keys" => {
                let id = quorate_kv::LeaseId(rest.parse().unwrap());
                return match self.store.reader().lease_keys(id) {
                    Some(keys) => {
                        let keys: Vec<_> =
                            keys.iter().map(|key| String::from_utf8_lossy(key)).collect();
                        format!("[{}]\n", keys.join(" "))
                    }
                    None => "no such lease\n".to_owned(),
                };
            }
            "history" => return self.history(rest),
            "hash" => return self.hash(rest),
            "hash_all" => {
                let hash = self.store.reader().hash().unwrap();
                assert_eq!(hash, self.other.reader().hash().unwrap(), "on all replicas");
                return format!("{:08x} @{}\n", hash.hash, hash.revision.0);
            }
            _ => return self.apply(line),
        }
        String::new()
    }

    fn apply(&mut self, line: &str) -> String {
        let command = command_of(line);
        self.place.index += 1;
        let encoded = command.encode().unwrap();
        assert_eq!(Command::decode(&encoded).unwrap(), command, "the log carries it");
        let reply = self.store.apply(std::slice::from_ref(&command), &mut self.sink).unwrap();
        self.store.finish(self.place, []);
        let other = self.other.apply(&[command], &mut ()).unwrap();
        self.other.finish(self.place, []);
        flush(&mut self.other);
        assert_eq!(reply, other, "replicas answer the same: {line}");
        let mut out = match &reply[0] {
            Ok(reply) => text_of_reply(reply),
            Err(why) => format!("{why}\n"),
        };
        for changes in self.sink.0.drain(..) {
            if self.tells_events {
                out += &text_of_events(&changes);
            }
        }
        out
    }

    fn get(&self, rest: &str) -> String {
        let range = range_of(rest);
        let answer = |store: &Store| store.reader().range(&range).map_err(|why| why.to_string());
        let reply = answer(&self.store);
        assert_eq!(reply, answer(&self.other), "replicas answer the same: {rest}");
        match reply {
            Ok(reply) => text_of_range(&reply),
            Err(why) => format!("{why}\n"),
        }
    }

    /// What whoever watches from a revision is told; of the other replica, which forgets nothing, the same.
    fn history(&self, rest: &str) -> String {
        let request = PastRequest {
            from: Revision(rest.parse().unwrap()),
            to: self.store.reader().revision(),
            prev_kv: true,
            revisions_max: 1000,
            bytes_max: 1 << 20,
        };
        let past = self.store.reader().past(request);
        assert_eq!(past, self.other.reader().past(request), "replicas tell the same: {rest}");
        match past {
            Ok(past) => past.changes.iter().map(text_of_events).collect(),
            Err(why) => format!("{why}\n"),
        }
    }

    fn part(&mut self, pairs_max: usize) -> String {
        let stream = self.stream.as_mut().expect("a stream");
        let part = match stream.next(pairs_max) {
            Ok(Some(part)) => part,
            Ok(None) => return "nothing more\n".to_owned(),
            Err(ReadError::Request(why)) => return format!("{why}\n"),
            Err(why) => panic!("{why}"),
        };
        let mut out = String::new();
        for kv in &part.kvs {
            writeln!(out, "  {}", language::text_of_pair(kv)).unwrap();
        }
        match part.end {
            Some(end) => {
                let more = if end.more { ", more" } else { "" };
                writeln!(out, "end @{} count {}{more}", end.revision.0, end.count).unwrap();
            }
            None => out += "goes on\n",
        }
        out
    }

    fn hash(&self, rest: &str) -> String {
        let at = Revision(rest.parse().unwrap_or(0));
        let hash_of = |store: &Store| store.reader().hash_kv(at).map_err(|why| why.to_string());
        let hash = hash_of(&self.store);
        assert_eq!(hash, hash_of(&self.other), "hashes are equal on all replicas");
        match hash {
            Ok(hash) => {
                let (number, up_to) = (hash.hash, hash.hash_revision.0);
                let (compacted, now) = (hash.compact_revision.0, hash.revision.0);
                format!("{number:08x} of {compacted}..{up_to} @{now}\n")
            }
            Err(why) => format!("{why}\n"),
        }
    }

    /// What is not flushed is in the log, so all of it is there again.
    fn restart(&mut self) {
        self.stream = None;
        flush(&mut self.store);
        self.store = Store::open(self.disk.backend(), CONFIG).unwrap().0;
    }
}

fn check(command: &Command) -> Result<(), quorate_kv::RequestError> {
    match command {
        Command::Put(put) => put.check(),
        Command::DeleteRange(delete) => delete.check(),
        Command::Txn(txn) => txn.check(TXN_OPS_MAX),
        other => panic!("{other:?} needs no check"),
    }
}

fn flush(store: &mut Store) {
    while let Some(flush) = store.begin_flush() {
        flush.write().unwrap();
    }
}
