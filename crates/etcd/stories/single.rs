//! One server: every call, its errors, watches, leases, restarts.

use std::time::Duration;

use super::client::{Client, Heard, Outcome, Query, WatchQuery, prefix_end};
use super::cluster::{Cluster, until};

const INVALID: i32 = 3;
const NOT_FOUND: i32 = 5;
const EXHAUSTED: i32 = 8;
const PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;

pub async fn keys_and_transactions<C: Client>(built: &str) {
    let cluster = Cluster::start::<C>(built, 1, &[]).await;
    let c: C = cluster.client(0).await;
    assert_eq!(c.put("a", "1").await.unwrap(), 2);
    let (revision, previous) = c.put_full("a", "2", 0, true).await.unwrap();
    assert_eq!((revision, previous.unwrap().value.as_str()), (3, "1"));
    let got = c.get(Query::key("a")).await.unwrap();
    let pair = &got.pairs[0];
    assert_eq!((got.revision, got.count, got.more), (3, 1, false));
    assert_eq!((pair.create, pair.modified, pair.version, &*pair.value), (2, 3, 2, "2"));
    assert_eq!(c.get(Query::key("a").at(2)).await.unwrap().value(), Some("1"));

    let pairs: Vec<_> = (0..10).map(|n| (format!("k/{n}"), format!("v{n}"))).collect();
    assert_eq!(c.put_all(&pairs).await.unwrap(), 4, "all at one revision");
    let got = c.get(Query { limit: 3, ..Query::prefix("k/") }).await.unwrap();
    assert_eq!((got.pairs.len(), got.count, got.more), (3, 10, true));
    let got = c.get(Query::prefix("k/").serializable()).await.unwrap();
    assert!(got.pairs.iter().all(|pair| pair.create == 4) && got.count == 10);

    assert_eq!(c.swap("s", None, "1").await.unwrap(), (5, true));
    assert_eq!(c.swap("s", None, "2").await.unwrap(), (5, false), "nothing was changed");
    assert_eq!(c.swap("s", Some("1"), "2").await.unwrap(), (6, true));
    assert_eq!(c.delete("k/", &prefix_end("k/")).await.unwrap(), (7, 10));
    assert_eq!(c.delete("k/", &prefix_end("k/")).await.unwrap(), (7, 0));

    let (hash, _) = c.hash_kv(7).await.unwrap();
    c.compact(6, true).await.unwrap();
    let (after, compacted) = c.hash_kv(7).await.unwrap();
    assert_eq!(compacted, 6);
    assert_ne!(hash, 0);
    assert_ne!(after, 0);
    c.get(Query::key("a").at(5))
        .await
        .unwrap_err()
        .must_be(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted");
    c.get(Query::key("a").at(8))
        .await
        .unwrap_err()
        .must_be(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision");
    c.compact(6, false)
        .await
        .unwrap_err()
        .must_be(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted");
    c.compact(99, false)
        .await
        .unwrap_err()
        .must_be(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision");
    assert_eq!(c.get(Query::key("a").at(6)).await.unwrap().value(), Some("2"));

    c.put("", "x").await.unwrap_err().must_be(INVALID, "etcdserver: key is not provided");
    c.get(Query::key("")).await.unwrap_err().must_be(INVALID, "etcdserver: key is not provided");
    c.put_full("a", "x", 77, false)
        .await
        .unwrap_err()
        .must_be(NOT_FOUND, "etcdserver: requested lease not found");
    let twice = [("d".to_owned(), "1".to_owned()), ("d".to_owned(), "2".to_owned())];
    c.put_all(&twice)
        .await
        .unwrap_err()
        .must_be(INVALID, "etcdserver: duplicate key given in txn request");
    let many: Vec<_> = (0..129).map(|n| (format!("m{n}"), String::new())).collect();
    c.put_all(&many)
        .await
        .unwrap_err()
        .must_be(INVALID, "etcdserver: too many operations in txn request");
    c.put("large", &"x".repeat((3 << 19) + 1))
        .await
        .unwrap_err()
        .must_be(INVALID, "etcdserver: request is too large");
    assert_eq!(c.get(Query::key("a")).await.unwrap().revision, 7, "none of it left a trace");
}

/// What comes next on a watch.
async fn next(stream: &mut tokio::sync::mpsc::Receiver<Outcome<Heard>>) -> Heard {
    let heard = tokio::time::timeout(Duration::from_secs(10), stream.recv()).await;
    heard.expect("something is heard").expect("the stream goes on").unwrap()
}

async fn events(
    stream: &mut tokio::sync::mpsc::Receiver<Outcome<Heard>>,
    count: usize,
) -> Vec<(i64, bool, String, String)> {
    let mut all = Vec::new();
    while all.len() < count {
        for event in next(stream).await.events {
            let pair = event.pair;
            all.push((pair.modified, event.deleted, pair.key, pair.value));
        }
    }
    assert_eq!(all.len(), count);
    all
}

pub async fn watches<C: Client>(built: &str) {
    let cluster = Cluster::start::<C>(built, 1, &[]).await;
    let c: C = cluster.client(0).await;
    let put =
        |revision: i64, key: &str, value: &str| (revision, false, key.to_owned(), value.to_owned());
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        c.put(key, value).await.unwrap();
    }
    c.delete("a", "").await.unwrap();
    let query =
        |key: &str, from: i64| WatchQuery { key: key.to_owned(), from, ..WatchQuery::default() };

    // From the past on into the present.
    let mut past = c.watch(query("a", 2)).await.unwrap();
    assert!(next(&mut past).await.created);
    let deleted = (5, true, "a".to_owned(), String::new());
    assert_eq!(events(&mut past, 3).await, [put(2, "a", "1"), put(4, "a", "3"), deleted]);
    c.put("a", "6").await.unwrap();
    assert_eq!(events(&mut past, 1).await, [put(6, "a", "6")]);

    // From now on, a range, with what was there before.
    let all = WatchQuery { end: "\0".to_owned(), previous: true, ..query("\0", 0) };
    let mut all = c.watch(all).await.unwrap();
    assert!(next(&mut all).await.created);
    c.put("a", "7").await.unwrap();
    let heard = next(&mut all).await;
    assert_eq!(heard.events[0].previous.as_ref().unwrap().value, "6");

    // From a revision that is still to come.
    let mut future = c.watch(query("z", 10)).await.unwrap();
    assert!(next(&mut future).await.created);
    for value in ["8", "9", "10", "11"] {
        c.put("z", value).await.unwrap();
    }
    assert_eq!(events(&mut future, 2).await, [put(10, "z", "10"), put(11, "z", "11")]);

    // What is done at once is heard at once.
    let pairs: Vec<_> = (0..20).map(|n| (format!("t{n}"), String::new())).collect();
    let revision = c.put_all(&pairs).await.unwrap();
    loop {
        let heard = next(&mut all).await;
        if heard.events.iter().any(|event| event.pair.modified == revision) {
            assert_eq!(heard.events.len(), 20);
            break;
        }
    }

    // Compacted: the watch is told from where it can begin.
    c.compact(8, true).await.unwrap();
    let mut late = c.watch(query("a", 3)).await.unwrap();
    let mut heard = next(&mut late).await;
    if heard.created && !heard.canceled {
        heard = next(&mut late).await;
    }
    assert!(heard.canceled);
    assert_eq!(heard.compacted, 8);

    // Many on one server; each hears its own.
    let mut many = Vec::new();
    for number in 0..200 {
        let mut stream = c.watch(query(&format!("w{number}"), 0)).await.unwrap();
        assert!(next(&mut stream).await.created);
        many.push(stream);
    }
    for number in 0..200 {
        c.put(&format!("w{number}"), "x").await.unwrap();
    }
    for (number, stream) in many.iter_mut().enumerate() {
        assert_eq!(events(stream, 1).await[0].2, format!("w{number}"));
    }
}

pub async fn leases<C: Client>(built: &str) {
    let mut cluster = Cluster::start::<C>(built, 1, &[]).await;
    let c: C = cluster.client(0).await;
    let (id, ttl) = c.grant(0, 100).await.unwrap();
    assert!(id > 0);
    assert_eq!(ttl, 100);
    assert_eq!(c.grant(7, 2).await.unwrap().0, 7);
    c.grant(7, 2).await.unwrap_err().must_be(PRECONDITION, "etcdserver: lease already exists");
    c.grant(0, 9_000_000_001)
        .await
        .unwrap_err()
        .must_be(OUT_OF_RANGE, "etcdserver: too large lease TTL");
    c.put_full("long", "1", id, false).await.unwrap();
    c.put_full("short", "1", 7, false).await.unwrap();
    let found = c.time_to_live(id).await.unwrap();
    assert_eq!((found.granted, found.keys.as_slice()), (100, &["long".to_owned()][..]));
    assert!((90..=100).contains(&found.left));
    let mut leases = c.leases().await.unwrap();
    leases.sort_unstable();
    let mut both = vec![7, id];
    both.sort_unstable();
    assert_eq!(leases, both);

    // Kept alive beyond its time, and then not any more.
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(c.keep_alive(7).await.unwrap() >= 2);
    }
    assert_eq!(c.get(Query::key("short")).await.unwrap().count, 1);
    let watch = WatchQuery { key: "short".to_owned(), ..WatchQuery::default() };
    let mut watch = c.watch(watch).await.unwrap();
    assert!(next(&mut watch).await.created);
    let gone = next(&mut watch).await;
    assert!(gone.events[0].deleted, "what is attached to a lease goes with it");
    assert_eq!(c.get(Query::key("short")).await.unwrap().count, 0);
    assert_eq!(c.keep_alive(7).await.unwrap(), 0);
    assert_eq!(c.time_to_live(7).await.unwrap().left, -1);
    c.revoke(7).await.unwrap_err().must_be(NOT_FOUND, "etcdserver: requested lease not found");

    // A lease outlives the process, and so does what is attached to it.
    cluster.kill(0);
    cluster.restart(0);
    cluster.ready::<C>().await;
    let c: C = cluster.client(0).await;
    assert_eq!(c.time_to_live(id).await.unwrap().keys, ["long"]);
    assert!(c.keep_alive(id).await.unwrap() == 100);
    c.revoke(id).await.unwrap();
    assert_eq!(c.get(Query::key("long")).await.unwrap().count, 0);
}

pub async fn upkeep<C: Client>(built: &str) {
    let mut cluster = Cluster::start::<C>(built, 1, &[]).await;
    let c: C = cluster.client(0).await;
    let status = c.status().await.unwrap();
    assert_eq!(status.leader, status.member);
    assert!(!status.version.is_empty() && status.size > 0 && status.size_in_use > 0);
    assert!(status.term > 0 && status.index >= status.applied && status.errors.is_empty());
    assert!(!status.learner);
    for number in 0..1000 {
        c.put(&format!("k{}", number % 10), &"x".repeat(1000)).await.unwrap();
    }
    let revision = c.get(Query::key("k1")).await.unwrap().revision;
    c.compact(revision, true).await.unwrap();
    c.defragment().await.unwrap();
    assert_eq!(c.get(Query::prefix("k")).await.unwrap().count, 10);
    assert!(c.alarms().await.unwrap().is_empty());
    let snapshot = c.snapshot().await.unwrap();
    assert_eq!(snapshot.len() % 512, 32);
    let members = c.members().await.unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].id, status.member);
    assert_eq!(members[0].name, cluster.servers[0].name);
    assert_eq!(members[0].peer_urls, [cluster.servers[0].peer_url.clone()]);
    assert_eq!(members[0].client_urls, [cluster.servers[0].client_url.clone()]);
    c.move_leader(1).await.unwrap_err().must_be(PRECONDITION, "etcdserver: bad leader transferee");

    // Everything is there again after a crash, and after a stop that was asked for.
    let (hash, _) = c.hash_kv(0).await.unwrap();
    cluster.kill(0);
    cluster.restart(0);
    cluster.ready::<C>().await;
    let c: C = cluster.client(0).await;
    assert_eq!(c.hash_kv(0).await.unwrap().0, hash);
    cluster.terminate(0);
    cluster.restart(0);
    cluster.ready::<C>().await;
    let c: C = cluster.client(0).await;
    assert_eq!(c.get(Query::key("k1")).await.unwrap().revision, revision);
    assert_eq!(c.hash_kv(0).await.unwrap().0, hash);
    assert_eq!(c.status().await.unwrap().member, status.member);
}

/// The store is full: writes are refused until somebody has made room and said so.
pub async fn quota<C: Client>(built: &str) {
    let flags = ["--quota-backend-bytes", "2097152"];
    let mut cluster = Cluster::start::<C>(built, 1, &flags).await;
    let c: C = cluster.client(0).await;
    let value = "x".repeat(100_000);
    let mut refused = None;
    // The size is that of the file, which follows what is written by some tenths of a second.
    for number in 0..5000 {
        if let Err(why) = c.put(&format!("fill{}", number % 4), &value).await {
            refused = Some(why);
            break;
        }
    }
    let full = "etcdserver: mvcc: database space exceeded";
    refused.expect("it is full in the end").must_be(EXHAUSTED, full);
    let member = c.status().await.unwrap().member;
    until("the alarm is raised", async || c.alarms().await.unwrap() == [(member, 1)]).await;
    c.put("small", "x").await.unwrap_err().must_be(EXHAUSTED, full);
    c.grant(0, 100).await.unwrap_err().must_be(EXHAUSTED, full);
    assert!(!c.status().await.unwrap().errors.is_empty());
    // Reading and making room go on, after a restart as well.
    cluster.kill(0);
    cluster.restart(0);
    cluster.ready::<C>().await;
    let c: C = cluster.client(0).await;
    assert_eq!(c.alarms().await.unwrap(), [(member, 1)]);
    let revision = c.get(Query::prefix("fill")).await.unwrap().revision;
    c.compact(revision, true).await.unwrap();
    c.delete("fill0", "").await.unwrap();
    c.defragment().await.unwrap();
    c.disarm().await.unwrap();
    until("there is room", async || c.put("small", "x").await.is_ok()).await;
    assert!(c.alarms().await.unwrap().is_empty());
}
