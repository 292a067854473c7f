//! What the stories need of a client.

use std::fmt;
use std::future::Future;

use tokio::sync::mpsc;

/// An error of the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The gRPC code.
    pub code: i32,
    pub message: String,
}

impl Failure {
    /// Whether it says so, word for word.
    #[track_caller]
    pub fn must_be(&self, code: i32, message: &str) {
        assert_eq!((self.code, self.message.as_str()), (code, message));
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}: {}", self.code, self.message)
    }
}

pub type Outcome<T> = Result<T, Failure>;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pair {
    pub key: String,
    pub value: String,
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub lease: i64,
}

#[derive(Clone, Debug, Default)]
pub struct Query {
    pub key: String,
    pub end: String,
    pub limit: i64,
    pub revision: i64,
    pub serializable: bool,
}

impl Query {
    pub fn key(key: &str) -> Self {
        Self { key: key.to_owned(), ..Self::default() }
    }

    /// All keys that begin so.
    pub fn prefix(key: &str) -> Self {
        Self { key: key.to_owned(), end: prefix_end(key), ..Self::default() }
    }

    pub fn at(self, revision: i64) -> Self {
        Self { revision, ..self }
    }

    pub fn serializable(self) -> Self {
        Self { serializable: true, ..self }
    }
}

/// Where the keys that begin with `key` end. Its last byte must not be the highest.
pub fn prefix_end(key: &str) -> String {
    let mut end = key.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    String::from_utf8(end).unwrap()
}

#[derive(Clone, Debug, Default)]
pub struct Got {
    /// Of the header.
    pub revision: i64,
    pub pairs: Vec<Pair>,
    pub count: i64,
    pub more: bool,
}

impl Got {
    pub fn value(&self) -> Option<&str> {
        self.pairs.first().map(|pair| pair.value.as_str())
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub deleted: bool,
    pub pair: Pair,
    pub previous: Option<Pair>,
}

/// An answer on a watch.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    pub revision: i64,
    pub created: bool,
    pub canceled: bool,
    pub compacted: i64,
    pub reason: String,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, Default)]
pub struct WatchQuery {
    pub key: String,
    pub end: String,
    pub from: i64,
    pub previous: bool,
    pub progress: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub id: u64,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub learner: bool,
}

#[derive(Clone, Debug)]
pub struct Status {
    pub member: u64,
    pub leader: u64,
    pub revision: i64,
    pub term: u64,
    pub index: u64,
    pub applied: u64,
    pub version: String,
    pub size: i64,
    pub size_in_use: i64,
    pub errors: Vec<String>,
    pub learner: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimeToLive {
    pub left: i64,
    pub granted: i64,
    pub keys: Vec<String>,
}

/// A client. Clones share the connection.
pub trait Client: Clone + Send + Sync + Sized + 'static {
    fn connect(url: &str) -> impl Future<Output = Outcome<Self>> + Send;

    /// The revision, and the pair before if that is asked for.
    fn put_full(
        &self,
        key: &str,
        value: &str,
        lease: i64,
        previous: bool,
    ) -> impl Future<Output = Outcome<(i64, Option<Pair>)>> + Send;
    fn get(&self, query: Query) -> impl Future<Output = Outcome<Got>> + Send;
    /// The revision, and how many.
    fn delete(&self, key: &str, end: &str) -> impl Future<Output = Outcome<(i64, i64)>> + Send;
    /// Sets `new` if the value is `old`, or there is none: the revision, and whether it was.
    fn swap(
        &self,
        key: &str,
        old: Option<&str>,
        new: &str,
    ) -> impl Future<Output = Outcome<(i64, bool)>> + Send;
    /// Puts all of them at once.
    fn put_all(&self, pairs: &[(String, String)]) -> impl Future<Output = Outcome<i64>> + Send;
    fn compact(&self, revision: i64, physical: bool) -> impl Future<Output = Outcome<()>> + Send;
    /// Answers come until the stream ends; dropping the receiver ends it.
    fn watch(
        &self,
        query: WatchQuery,
    ) -> impl Future<Output = Outcome<mpsc::Receiver<Outcome<Heard>>>> + Send;

    /// The id, and the time.
    fn grant(&self, id: i64, ttl: i64) -> impl Future<Output = Outcome<(i64, i64)>> + Send;
    fn revoke(&self, id: i64) -> impl Future<Output = Outcome<()>> + Send;
    /// The time, 0 if there is no such lease.
    fn keep_alive(&self, id: i64) -> impl Future<Output = Outcome<i64>> + Send;
    fn time_to_live(&self, id: i64) -> impl Future<Output = Outcome<TimeToLive>> + Send;
    fn leases(&self) -> impl Future<Output = Outcome<Vec<i64>>> + Send;

    fn members(&self) -> impl Future<Output = Outcome<Vec<Member>>> + Send;
    fn add_member(&self, url: &str, learner: bool) -> impl Future<Output = Outcome<u64>> + Send;
    fn remove_member(&self, id: u64) -> impl Future<Output = Outcome<()>> + Send;
    fn promote_member(&self, id: u64) -> impl Future<Output = Outcome<()>> + Send;

    fn status(&self) -> impl Future<Output = Outcome<Status>> + Send;
    fn move_leader(&self, id: u64) -> impl Future<Output = Outcome<()>> + Send;
    /// Hash and compact revision.
    fn hash_kv(&self, revision: i64) -> impl Future<Output = Outcome<(u32, i64)>> + Send;
    /// Who raised which (1: no space, 2: corrupt).
    fn alarms(&self) -> impl Future<Output = Outcome<Vec<(u64, i32)>>> + Send;
    fn disarm(&self) -> impl Future<Output = Outcome<()>> + Send;
    fn defragment(&self) -> impl Future<Output = Outcome<()>> + Send;
    fn snapshot(&self) -> impl Future<Output = Outcome<Vec<u8>>> + Send;

    fn put(&self, key: &str, value: &str) -> impl Future<Output = Outcome<i64>> + Send {
        async { Ok(self.put_full(key, value, 0, false).await?.0) }
    }
}
