//! Leases, as clients see them, at a leader and at a follower.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::time::{Duration, Instant};

use crate::support::{Clients, Cluster, Directory, alone, put, until};
use quorate_etcd::proto::etcdserverpb as pb;
use tokio_stream::StreamExt;

async fn keep_alive(clients: &mut Clients, ids: &[i64]) -> Vec<(i64, i64)> {
    let requests: Vec<_> = ids.iter().map(|id| pb::LeaseKeepAliveRequest { id: *id }).collect();
    let answers = clients.lease.lease_keep_alive(tokio_stream::iter(requests)).await.unwrap();
    answers
        .into_inner()
        .map(|answer| answer.unwrap())
        .map(|answer| (answer.id, answer.ttl))
        .collect()
        .await
}

async fn time_to_live(clients: &mut Clients, id: i64) -> pb::LeaseTimeToLiveResponse {
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    clients.lease.lease_time_to_live(request).await.unwrap().into_inner()
}

async fn leased(clients: &mut Clients, key: &str, lease: i64) {
    clients.kv.put(pb::PutRequest { lease, ..put(key, "v") }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_live_as_long_as_their_lease() {
    let directory = Directory::new();
    let server = alone(&directory).await;
    let mut clients = Clients::of(&server).await;
    let id = clients.grant(1, 0).await;
    assert!(id > 0);
    leased(&mut clients, "a", id).await;
    let time = time_to_live(&mut clients, id).await;
    assert_eq!((time.id, time.granted_ttl, time.keys.len()), (id, 1, 1));
    assert_eq!(keep_alive(&mut clients, &[id, 99]).await, [(id, 1), (99, 0)]);
    let started = Instant::now();
    until("the key goes", async || clients.get("a").await.is_none()).await;
    assert!(started.elapsed() > Duration::from_millis(900), "{:?}", started.elapsed());
    let many: Vec<i64> = (1..=300).collect();
    let answers = keep_alive(&mut clients, &many).await;
    assert_eq!(answers, many.iter().map(|id| (*id, 0)).collect::<Vec<_>>(), "in their order");
    let gone = time_to_live(&mut clients, id).await;
    assert_eq!((gone.id, gone.ttl, gone.granted_ttl), (id, -1, 0));

    let id = clients.grant(600, 12).await;
    leased(&mut clients, "b", id).await;
    let leases = clients.lease.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert_eq!(leases.leases.len(), 1);
    clients.lease.lease_revoke(pb::LeaseRevokeRequest { id }).await.unwrap();
    assert_eq!(clients.get("b").await, None);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_carry_keepalives_to_the_leader() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let follower = cluster.follower().await;
    let mut clients = Clients::of(cluster.server(follower)).await;
    let id = clients.grant(2, 0).await;
    leased(&mut clients, "a", id).await;
    let until_then = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until_then {
        assert_eq!(keep_alive(&mut clients, &[id]).await, [(id, 2)]);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(clients.get("a").await.as_deref(), Some("v"));
    let time = time_to_live(&mut clients, id).await;
    assert!(time.ttl >= 0 && time.granted_ttl == 2, "{time:?}");

    // Another leader knows the lease, and gives it all of its time.
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    assert_eq!(keep_alive(&mut clients, &[id]).await, [(id, 2)]);
    until("the key goes", async || clients.get("a").await.is_none()).await;
    cluster.shutdown().await;
}
