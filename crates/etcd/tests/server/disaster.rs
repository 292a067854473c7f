//! What is left when a majority is lost, and data that nobody waits for.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::time::Duration;

use crate::support::{Clients, Cluster, Directory, config, free_port, until};
use quorate_etcd::proto::etcdserverpb as pb;
use quorate_etcd::{ClusterState, Config, Server, Url};

async fn member_ids(server: &Server) -> Vec<u64> {
    let mut clients = Clients::of(server).await;
    let request = pb::MemberListRequest { linearizable: true };
    let members = clients.cluster.member_list(request).await.unwrap().into_inner().members;
    members.into_iter().map(|member| member.id).collect()
}

async fn start(config: &Config) -> Server {
    let server = Server::start(config.clone()).await.unwrap();
    server.handle().ready().await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_goes_on_without_the_others() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let leader = cluster.leader().await;
    let survivor = cluster.follower().await;
    let mut clients = Clients::of(cluster.server(leader)).await;
    for number in 0..20 {
        clients.put(&format!("k{number}"), "before").await;
    }
    clients.grant(600, 9).await;
    let handle = cluster.server(survivor).handle();
    until("it has all of it", async || handle.reader().revision().0 == 21).await;
    let (cluster_id, id) = (handle.cluster_id(), handle.member_id());
    for number in 0..3 {
        cluster.stop(number).await;
    }

    let forced = Config { force_new_cluster: true, ..cluster.configs[survivor].clone() };
    let server = start(&forced).await;
    let handle = server.handle();
    assert_eq!(handle.member_id(), id);
    assert_ne!(handle.cluster_id(), cluster_id, "it is another cluster");
    let new_id = handle.cluster_id();
    assert_eq!(member_ids(&server).await, [id]);
    let mut clients = Clients::of(&server).await;
    assert_eq!(clients.get("k19").await.as_deref(), Some("before"));
    assert_eq!(clients.put("k", "after").await, 22);
    let leases = clients.lease.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert_eq!(leases.leases.len(), 1);

    // The others come back, and are a majority of what they know. They make up a cluster of their own.
    let mut others = Vec::new();
    for number in (0..3).filter(|number| *number != survivor) {
        others.push(Server::start(cluster.configs[number].clone()).await.unwrap());
    }
    for other in &others {
        other.handle().ready().await;
        let mut clients = Clients::of(other).await;
        assert_ne!(
            clients.get("k").await.as_deref(),
            Some("after"),
            "nothing of the new one is there"
        );
        clients.put("k", "of the old").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(handle.leads());
    assert_eq!(clients.get("k").await.as_deref(), Some("after"));
    assert_eq!(member_ids(&server).await, [id]);
    for other in others {
        other.shutdown().await;
    }

    // One that is added stays, though the flag is still there.
    let url = Url::http("127.0.0.1", free_port());
    let request = pb::MemberAddRequest { peer_ur_ls: vec![url.to_string()], is_learner: false };
    clients.cluster.member_add(request).await.unwrap();
    let directory = Directory::new();
    let mut second = config(directory.path());
    second.name = "second".to_owned();
    second.listen_peer_urls = vec![url.clone()];
    second.initial_cluster = vec![
        (forced.name.clone(), forced.listen_peer_urls.clone()),
        ("second".to_owned(), vec![url]),
    ];
    second.initial_cluster_state = ClusterState::Existing;
    let added = start(&second).await;
    assert_eq!(added.handle().cluster_id(), new_id);
    let mut at_added = Clients::of(&added).await;
    assert_eq!(at_added.get("k").await.as_deref(), Some("after"));
    until("it votes", async || member_ids(&server).await.len() == 2).await;
    server.shutdown().await;
    let server = start(&forced).await;
    assert_eq!(server.handle().cluster_id(), new_id);
    assert_eq!(member_ids(&server).await.len(), 2);

    // It can be asked for again after a start without it.
    added.shutdown().await;
    server.shutdown().await;
    let plain = Config { force_new_cluster: false, ..forced.clone() };
    Server::start(plain).await.unwrap().shutdown().await;
    let server = start(&forced).await;
    assert_ne!(server.handle().cluster_id(), new_id);
    assert_eq!(member_ids(&server).await, [id]);
    let mut clients = Clients::of(&server).await;
    assert_eq!(clients.get("k").await.as_deref(), Some("after"));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_the_disk() {
    let directory = Directory::new();
    let unsynced = Config { unsafe_no_fsync: true, ..config(directory.path()) };
    let server = start(&unsynced).await;
    let mut clients = Clients::of(&server).await;
    for number in 0..50 {
        clients.put(&format!("k{number}"), "v").await;
    }
    let revision = clients.put("last", "v").await;
    // As a crash of the process would end it: the system has everything.
    drop(server);
    let mut server = None;
    until("the directory is free", async || {
        server = Server::start(unsynced.clone()).await.ok();
        server.is_some()
    })
    .await;
    let server = server.unwrap();
    server.handle().ready().await;
    let mut clients = Clients::of(&server).await;
    assert_eq!(clients.get("last").await.as_deref(), Some("v"));
    server.shutdown().await;
    // And with syncs it goes on from there.
    let server = start(&config(directory.path())).await;
    assert_eq!(server.handle().reader().revision().0, revision);
    server.shutdown().await;
}
