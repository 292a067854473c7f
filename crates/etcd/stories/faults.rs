//! Three servers, of which some die, sleep, or fall behind.

use std::time::Duration;

use super::client::{Client, Query, WatchQuery};
use super::cluster::{Cluster, until};
use super::load::Load;

fn urls(cluster: &Cluster) -> Vec<String> {
    cluster.servers.iter().map(|server| server.client_url.clone()).collect()
}

/// Any member serves any call.
pub async fn every_member_serves<C: Client>(built: &str) {
    let mut cluster = Cluster::start::<C>(built, 3, &[]).await;
    let mut clients: Vec<C> = Vec::new();
    for at in 0..3 {
        clients.push(cluster.client(at).await);
    }
    for (at, c) in clients.iter().enumerate() {
        let key = format!("k{at}");
        c.put(&key, "1").await.unwrap();
        for other in &clients {
            assert_eq!(other.get(Query::key(&key)).await.unwrap().value(), Some("1"));
        }
        let watch = WatchQuery { key: key.clone(), from: 1, ..WatchQuery::default() };
        let mut watch = c.watch(watch).await.unwrap();
        let (lease, _) = c.grant(0, 60).await.unwrap();
        c.put_full(&key, "2", lease, false).await.unwrap();
        for other in &clients {
            assert_eq!(other.keep_alive(lease).await.unwrap(), 60);
            assert_eq!(other.time_to_live(lease).await.unwrap().keys, std::slice::from_ref(&key));
        }
        clients[(at + 1) % 3].revoke(lease).await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < 3 {
            let next = tokio::time::timeout(Duration::from_secs(10), watch.recv()).await;
            heard.extend(next.unwrap().unwrap().unwrap().events);
        }
        let seen: Vec<_> = heard.iter().map(|event| (event.deleted, &*event.pair.value)).collect();
        assert_eq!(seen, [(false, "1"), (false, "2"), (true, "")]);
    }
    let revision = clients[0].get(Query::key("k")).await.unwrap().revision;
    let hash = clients[0].hash_kv(revision).await.unwrap();
    for c in &clients[1..] {
        until("it has applied all", async || c.hash_kv(revision).await.is_ok()).await;
        assert_eq!(c.hash_kv(revision).await.unwrap(), hash);
    }
    // Leadership moves at a word.
    let leader = cluster.leader::<C>().await;
    let next = (leader + 1) % 3;
    let id = clients[next].status().await.unwrap().member;
    clients[next].move_leader(id).await.unwrap_err().must_be(9, "etcdserver: not leader");
    clients[leader].move_leader(id).await.unwrap();
    until("it leads", async || clients[next].status().await.unwrap().leader == id).await;
    clients[leader].put("still", "here").await.unwrap();
}

/// `kill -9` of the leader under load, again and again.
pub async fn leader_killed<C: Client>(built: &str, times: u32) {
    let mut cluster = Cluster::start::<C>(built, 3, &[]).await;
    let urls = urls(&cluster);
    let mut load = Load::start::<C>(&urls, 6);
    for at in 0..3 {
        load.watch::<C>(&urls, at, 1);
    }
    for _ in 0..times {
        load.more(200).await;
        let leader = cluster.leader::<C>().await;
        cluster.kill(leader);
        load.more(100).await;
        cluster.restart(leader);
        cluster.ready::<C>().await;
    }
    load.more(100).await;
    let c: C = cluster.client(0).await;
    load.end(&c).await;
}

/// All are killed at once, and nothing is lost.
pub async fn all_killed<C: Client>(built: &str) {
    let mut cluster = Cluster::start::<C>(built, 3, &[]).await;
    let urls = urls(&cluster);
    let mut load = Load::start::<C>(&urls, 4);
    load.watch::<C>(&urls, 0, 1);
    for _ in 0..2 {
        load.more(200).await;
        (0..3).for_each(|at| cluster.kill(at));
        (0..3).for_each(|at| cluster.restart(at));
        cluster.ready::<C>().await;
    }
    load.more(100).await;
    let c: C = cluster.client(1).await;
    load.end(&c).await;
}

/// One after the other is stopped and started again, while clients work.
pub async fn rolling_restart<C: Client>(built: &str) {
    let mut cluster = Cluster::start::<C>(built, 3, &[]).await;
    let urls = urls(&cluster);
    let mut load = Load::start::<C>(&urls, 4);
    load.watch::<C>(&urls, 2, 1);
    for at in 0..3 {
        load.more(100).await;
        cluster.terminate(at);
        cluster.restart(at);
        cluster.ready::<C>().await;
    }
    load.more(100).await;
    let c: C = cluster.client(0).await;
    load.end(&c).await;
}

/// Without a quorum nothing is written or read that must be the latest; with it, everything goes on.
pub async fn quorum_lost<C: Client>(built: &str) {
    let mut cluster = Cluster::start::<C>(built, 3, &[]).await;
    let c: C = cluster.client(0).await;
    c.put("k", "1").await.unwrap();
    cluster.kill(1);
    cluster.kill(2);
    let c: C = cluster.client(0).await;
    until("it serves what it has", async || {
        c.get(Query::key("k").serializable()).await.is_ok_and(|got| got.value() == Some("1"))
    })
    .await;
    // Both are tried for as long as a server tries, and then say that it took too long.
    let query = Query::key("k");
    let (put, get) = tokio::join!(c.put("k", "2"), c.get(query));
    let put = put.expect_err("written without a quorum");
    assert!([4, 14].contains(&put.code), "{put}");
    let get = get.expect_err("read without a quorum");
    assert!(get.code == 14 && get.message.starts_with("etcdserver: "), "{get}");
    cluster.restart(1);
    until("it goes on", async || c.put("k", "3").await.is_ok()).await;
    let got = c.get(Query::key("k")).await.unwrap();
    assert_eq!(got.value(), Some("3"));
}

/// A leader that sleeps is replaced; when it wakes up it serves nothing old.
pub async fn leader_sleeps<C: Client>(built: &str) {
    let mut cluster = Cluster::start::<C>(built, 3, &[]).await;
    let leader = cluster.leader::<C>().await;
    let old: C = cluster.client(leader).await;
    old.put("k", "old").await.unwrap();
    let other = cluster.other(leader);
    let new: C = cluster.client(other).await;
    cluster.freeze(leader);
    // Asked while it sleeps, answered when it wakes up.
    let asked = {
        let old = old.clone();
        tokio::spawn(async move { old.get(Query::key("k")).await })
    };
    until("the others go on", async || {
        let put = tokio::time::timeout(Duration::from_secs(2), new.put("k", "new")).await;
        matches!(put, Ok(Ok(_)))
    })
    .await;
    cluster.thaw(leader);
    if let Ok(got) = asked.await.unwrap() {
        assert_eq!(got.value(), Some("new"), "a stale read");
    }
    until("it follows", async || {
        old.get(Query::key("k")).await.is_ok_and(|got| got.value() == Some("new"))
    })
    .await;
}

/// A member that was away for so long that the log does not reach back gets a snapshot, while watchers stay attached
/// to the others and to the one that was asleep.
pub async fn follower_far_behind<C: Client>(built: &str, writes: usize, flags: &[&str]) {
    let mut cluster = Cluster::start::<C>(built, 3, flags).await;
    let leader = cluster.leader::<C>().await;
    let behind = cluster.other(leader);
    let watching: C = cluster.client(behind).await;
    let watch =
        WatchQuery { key: "k".to_owned(), end: "l".to_owned(), from: 2, ..WatchQuery::default() };
    let mut stream = watching.watch(watch).await.unwrap();
    let c: C = cluster.client(leader).await;
    c.put("k", "first").await.unwrap();
    cluster.freeze(behind);
    let mut tasks = Vec::new();
    for worker in 0..16 {
        let c = c.clone();
        tasks.push(tokio::spawn(async move {
            for number in 0..writes / 16 {
                let key = format!("k{worker}-{number}");
                while c.put(&key, "0123456789").await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    cluster.thaw(behind);
    let total = i64::try_from(writes / 16 * 16).unwrap() + 1;
    until("it has caught up", async || {
        let query = Query { limit: 1, ..Query::prefix("k").serializable() };
        let got = tokio::time::timeout(Duration::from_secs(5), watching.get(query)).await;
        matches!(got, Ok(Ok(got)) if got.count == total)
    })
    .await;
    let mut heard = 0;
    let mut last = 0;
    while heard < total {
        let next = tokio::time::timeout(Duration::from_secs(20), stream.recv()).await;
        let Some(Ok(next)) = next.expect("all is heard") else { panic!("the stream has ended") };
        assert!(!next.canceled, "{next:?}");
        for event in next.events {
            assert!(event.pair.modified > last, "in order, and once");
            last = event.pair.modified;
            heard += 1;
        }
    }
}

/// The disk is full: writes fail, nothing that was acknowledged is lost, and with more room everything goes on.
pub async fn full_disk<C: Client>(built: &str) {
    let Some((mut cluster, disk)) = Cluster::on_small_disk::<C>(built, 200).await else {
        println!("not tried: no file system of one's own can be mounted here");
        return;
    };
    let c: C = cluster.client(0).await;
    let value = "x".repeat(250_000);
    let mut written = 0;
    loop {
        let key = format!("k{written:04}");
        let put = c.put(&key, &value);
        match tokio::time::timeout(Duration::from_secs(15), put).await {
            Ok(Ok(_)) => written += 1,
            _ => break,
        }
        assert!(written < 2000, "the disk is never full");
    }
    assert!(written > 20, "full after {written} writes");
    // It has ended and said why, or it goes on and refuses.
    until("it says why", async || cluster.log(0).to_lowercase().contains("no space")).await;
    cluster.kill(0);
    disk.grow(1000);
    cluster.restart(0);
    cluster.ready::<C>().await;
    let c: C = cluster.client(0).await;
    for number in 0..written {
        let got = c.get(Query::key(&format!("k{number:04}"))).await.unwrap();
        assert_eq!(got.value().map(str::len), Some(value.len()), "k{number:04} is lost");
    }
    c.put("after", "1").await.unwrap();
}
