//! The client of `demo --chaos`: it writes, reads, and remembers what it was told.
//!
//! Each writer counts: with one transaction it writes its next number under the key of that number and under its *latest*
//! key. What is not answered is not repeated, so nothing but the member's own word says that a number was written. Readers
//! read all latest keys. A read that begins after an acknowledgement, or after another read, must show what that has shown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::request_op::Request;
use quorate_etcd::proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// How many write, and how many read.
const WRITERS: usize = 4;
const READERS: usize = 2;

/// Numbers of a writer that have keys of their own; the one after them gets the first key again. It bounds what is kept.
const SLOTS: u64 = 5_000;

/// Pause between two calls of one of them.
const PACE: Duration = Duration::from_millis(10);

/// How long an answer may take; then another member is asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is done after a failure.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a member may take to answer at the end.
const LAST_PATIENCE: Duration = Duration::from_secs(20);

/// Complaints that are kept.
const COMPLAINTS_MAX: usize = 10;

/// What was acknowledged and seen.
pub(super) struct Ledger(Mutex<Known>);

struct Known {
    /// Keys of this run begin with it.
    prefix: String,
    writes: u64,
    reads: u64,
    /// Since somebody asked.
    second: Second,
    last_write: Instant,
    gap: Duration,
    /// The highest revision that an answer has shown.
    revision: i64,
    /// The highest number of each writer that an answer has shown.
    latest: [u64; WRITERS],
    /// The last acknowledged number of each slot of each writer.
    slots: [BTreeMap<u64, u64>; WRITERS],
    complaints: Vec<String>,
}

/// What has happened in a second.
#[derive(Clone, Copy, Default)]
pub(super) struct Second {
    pub(super) writes: u64,
    pub(super) reads: u64,
    /// Calls that failed, or had no answer in time.
    pub(super) failed: u64,
    /// The longest time without a write, so far.
    pub(super) gap: Duration,
}

impl Ledger {
    /// Of keys that begin like this.
    fn new(prefix: String) -> Self {
        Self(Mutex::new(Known {
            prefix,
            writes: 0,
            reads: 0,
            second: Second::default(),
            last_write: Instant::now(),
            gap: Duration::ZERO,
            revision: 0,
            latest: [0; WRITERS],
            slots: Default::default(),
            complaints: Vec::new(),
        }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is in it is whole after every change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has happened since this was asked last.
    pub(super) fn second(&self) -> Second {
        let mut known = self.known();
        let gap = known.gap.max(known.last_write.elapsed());
        Second { gap, ..std::mem::take(&mut known.second) }
    }

    fn written(&self, writer: usize, number: u64, revision: i64) {
        let mut known = self.known();
        known.writes += 1;
        known.second.writes += 1;
        let silent = known.last_write.elapsed();
        known.gap = known.gap.max(silent);
        known.last_write = Instant::now();
        known.revision = known.revision.max(revision);
        known.latest[writer] = known.latest[writer].max(number);
        known.slots[writer].insert(number % SLOTS, number);
    }

    fn failed(&self) {
        self.known().second.failed += 1;
    }

    /// What a read that begins now must show.
    fn bound(&self) -> (i64, [u64; WRITERS]) {
        let known = self.known();
        (known.revision, known.latest)
    }

    /// Judges a read by what was known when it began.
    fn read(&self, bound: (i64, [u64; WRITERS]), answer: &RangeResponse, whose: &str) {
        let mut known = self.known();
        known.reads += 1;
        known.second.reads += 1;
        let (revision, latest) = bound;
        let shown = answer.header.map_or(0, |header| header.revision);
        if shown < revision {
            known.complain(format!("a read of {whose} was at revision {shown}, after {revision}"));
        }
        known.revision = known.revision.max(shown);
        for (writer, was) in latest.into_iter().enumerate() {
            let key = known.latest_key(writer);
            let number =
                answer.kvs.iter().find(|kv| kv.key == key).map_or(0, |kv| number(&kv.value));
            if number < was {
                known.complain(format!("a read of {whose} has shown {number} after {was}"));
            }
            known.latest[writer] = known.latest[writer].max(number);
        }
    }
}

impl Known {
    fn complain(&mut self, text: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(text);
        }
    }

    fn latest_key(&self, writer: usize) -> Bytes {
        format!("{}latest/{writer}", self.prefix).into()
    }

    fn slot_key(&self, writer: usize, slot: u64) -> Bytes {
        format!("{}{writer}/{slot:06}", self.prefix).into()
    }

    /// What of the acknowledged writes is not in an answer with all keys.
    fn missing(&self, found: &BTreeMap<Bytes, Bytes>) -> Vec<String> {
        let mut missing = Vec::new();
        let mut look = |key: Bytes, acknowledged: u64| {
            let number = found.get(&key).map_or(0, |value| number(value));
            if number < acknowledged {
                missing.push(format!(
                    "{} is {number}, but {acknowledged} was acknowledged",
                    key.escape_ascii()
                ));
            }
        };
        for writer in 0..WRITERS {
            for (slot, number) in &self.slots[writer] {
                look(self.slot_key(writer, *slot), *number);
            }
            look(self.latest_key(writer), self.latest[writer]);
        }
        missing
    }
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Writers and readers at work.
pub(super) struct Traffic {
    pub(super) ledger: Arc<Ledger>,
    clients: Vec<(String, KvClient<Channel>)>,
    is_over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Begins to write and read.
    pub(super) fn start(urls: &[String]) -> Result<Self, String> {
        let client = |url: &String| {
            let endpoint = Endpoint::from_shared(url.clone())
                .map_err(|why| format!("{url}: {why}"))?
                .connect_timeout(PATIENCE)
                .tcp_nodelay(true);
            let client = KvClient::new(endpoint.connect_lazy());
            Ok::<_, String>((url.clone(), client.max_decoding_message_size(usize::MAX)))
        };
        let clients = urls.iter().map(client).collect::<Result<Vec<_>, _>>()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ledger = Arc::new(Ledger::new(format!("quorate-chaos/{:x}/", now.as_millis())));
        let is_over = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for worker in 0..WRITERS + READERS {
            let (ledger, clients) = (Arc::clone(&ledger), clients.clone());
            let is_over = Arc::clone(&is_over);
            tasks.push(tokio::spawn(async move {
                let mut at = worker % clients.len();
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) {
                    count += 1;
                    let (url, client) = &clients[at];
                    let done = match worker.checked_sub(WRITERS) {
                        None => write(&ledger, client.clone(), worker, count).await,
                        Some(_) => read(&ledger, client.clone(), url).await,
                    };
                    if !done {
                        ledger.failed();
                        // Another one may be alive.
                        at = (at + 1) % clients.len();
                        tokio::time::sleep(PAUSE).await;
                    } else if worker >= WRITERS {
                        // Readers go round, so that each sees what others have shown.
                        at = (at + 1) % clients.len();
                    }
                    tokio::time::sleep(PACE).await;
                }
            }));
        }
        Ok(Self { ledger, clients, is_over, tasks })
    }

    /// Ends, looks for what was acknowledged through each member, and removes it. What is wrong, and what is right.
    pub(super) async fn finish(self) -> (Vec<String>, String) {
        self.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            // One that has panicked has complained on its own.
            let _ = task.await;
        }
        let prefix = self.ledger.known().prefix.clone();
        let (key, range_end) = range_of(&prefix);
        for (url, client) in &self.clients {
            let request = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                ..RangeRequest::default()
            };
            let answer = insist(async || client.clone().range(request.clone()).await).await;
            let mut known = self.ledger.known();
            match answer {
                Ok(answer) => {
                    let found = answer.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
                    for what in known.missing(&found) {
                        known.complain(format!("lost: at {url}, {what}"));
                    }
                }
                Err(why) => known.complain(format!("{url} does not answer any more: {why}")),
            }
        }
        if let Some((_, client)) = self.clients.first() {
            // It was only for this run; if it cannot be removed, it does no harm.
            let request = DeleteRangeRequest { key, range_end, prev_kv: false };
            let _ = insist(async || client.clone().delete_range(request.clone()).await).await;
        }
        let mut known = self.ledger.known();
        if known.writes == 0 || known.reads == 0 {
            known.complain(
                "nothing was written or nothing was read, so nothing is known".to_owned(),
            );
        }
        let text = format!(
            "{} acknowledged writes, {} reads, the longest gap between writes {} ms; {}",
            known.writes,
            known.reads,
            known.gap.as_millis(),
            match known.complaints.is_empty() {
                true => "every acknowledged write is still there, reads never went back",
                false => "see above for what is wrong",
            }
        );
        (std::mem::take(&mut known.complaints), text)
    }
}

fn range_of(prefix: &str) -> (Bytes, Bytes) {
    // All prefixes end with a slash, and a zero follows it.
    let end = format!("{}0", prefix.trim_end_matches('/'));
    (prefix.to_owned().into(), end.into())
}

/// Asks until there is an answer.
async fn insist<T>(
    ask: impl AsyncFn() -> Result<tonic::Response<T>, tonic::Status>,
) -> Result<T, String> {
    let end = Instant::now() + LAST_PATIENCE;
    loop {
        let why = match tokio::time::timeout(LAST_PATIENCE, ask()).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => format!("no answer within {LAST_PATIENCE:?}"),
        };
        if Instant::now() >= end {
            return Err(why);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Writes a number. Whether that was acknowledged.
async fn write(ledger: &Ledger, mut client: KvClient<Channel>, writer: usize, count: u64) -> bool {
    let keys = {
        let known = ledger.known();
        [known.slot_key(writer, count % SLOTS), known.latest_key(writer)]
    };
    let value = Bytes::from(count.to_string());
    let put = |key| PutRequest { key, value: value.clone(), ..PutRequest::default() };
    let success = keys.map(|key| RequestOp { request: Some(Request::RequestPut(put(key))) });
    let request = TxnRequest { success: success.to_vec(), ..TxnRequest::default() };
    match tokio::time::timeout(PATIENCE, client.txn(request)).await {
        Ok(Ok(answer)) => {
            let revision = answer.into_inner().header.map_or(0, |header| header.revision);
            ledger.written(writer, count, revision);
            true
        }
        // Perhaps it was written, perhaps not: nobody has promised anything.
        _ => false,
    }
}

/// Reads all latest numbers. Whether there was an answer.
async fn read(ledger: &Ledger, mut client: KvClient<Channel>, url: &str) -> bool {
    let (key, range_end) = range_of(&format!("{}latest/", ledger.known().prefix));
    let bound = ledger.bound();
    let request = RangeRequest { key, range_end, ..RangeRequest::default() };
    match tokio::time::timeout(PATIENCE, client.range(request)).await {
        Ok(Ok(answer)) => {
            ledger.read(bound, &answer.into_inner(), url);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use quorate_etcd::proto::etcdserverpb::ResponseHeader;
    use quorate_etcd::proto::mvccpb::KeyValue;

    use super::*;

    fn ledger() -> Ledger {
        Ledger::new("p/".to_owned())
    }

    fn answer(revision: i64, number: u64) -> RangeResponse {
        let key = Bytes::from_static(b"p/latest/0");
        let kv = KeyValue { key, value: number.to_string().into(), ..KeyValue::default() };
        let header = ResponseHeader { revision, ..ResponseHeader::default() };
        RangeResponse { header: Some(header), kvs: vec![kv], ..RangeResponse::default() }
    }

    #[test]
    fn reads_that_go_back_are_found() {
        let ledger = ledger();
        ledger.written(0, 1, 10);
        let early = ledger.bound();
        ledger.written(0, 2, 11);
        let late = ledger.bound();
        // One that began before the second write may show either.
        ledger.read(early, &answer(10, 1), "a");
        ledger.read(late, &answer(11, 2), "a");
        assert!(ledger.known().complaints.is_empty());
        ledger.read(late, &answer(10, 1), "b");
        let complaints = ledger.known().complaints.clone();
        assert_eq!(
            complaints,
            ["a read of b was at revision 10, after 11", "a read of b has shown 1 after 2"]
        );
        // What a read has shown, the next one must show, acknowledged or not.
        ledger.read(late, &answer(12, 3), "a");
        assert_eq!(ledger.bound().1[0], 3);
    }

    #[test]
    fn writes_that_are_gone_are_found() {
        let ledger = ledger();
        ledger.written(0, 1, 10);
        ledger.written(1, SLOTS + 1, 11);
        let known = ledger.known();
        let mut found: BTreeMap<Bytes, Bytes> = [
            (known.slot_key(0, 1), "1"),
            (known.latest_key(0), "1"),
            (known.slot_key(1, 1), "5001"),
            (known.latest_key(1), "5002"),
        ]
        .map(|(key, value)| (key, Bytes::from(value)))
        .into();
        assert_eq!(known.missing(&found), Vec::<String>::new());
        // An older number in the same slot is not the one that was acknowledged.
        found.insert(known.slot_key(1, 1), "1".into());
        found.remove(&known.slot_key(0, 1));
        assert_eq!(
            known.missing(&found),
            [
                "p/0/000001 is 0, but 1 was acknowledged",
                "p/1/000001 is 1, but 5001 was acknowledged"
            ]
        );
    }
}
