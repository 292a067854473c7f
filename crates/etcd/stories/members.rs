//! Members come and go.

use std::time::Duration;

use super::client::{Client, Query};
use super::cluster::{Cluster, free_url, until};
use super::load::Load;

/// One becomes two becomes three, a member is replaced, and clients do not notice.
pub async fn grown_and_replaced<C: Client>(built: &str) {
    let mut cluster = Cluster::start::<C>(built, 1, &[]).await;
    let c: C = cluster.client(0).await;
    c.put("before", "1").await.unwrap();
    for _ in 0..2 {
        let at = cluster.describe();
        let peer = cluster.servers[at].peer_url.clone();
        let added = until_added(&c, &peer).await;
        let members = c.members().await.unwrap();
        let found = members.iter().find(|member| member.id == added).unwrap();
        assert!(found.name.is_empty() && !found.learner, "{found:?}");
        cluster.launch(at, &cluster.initial_cluster(), "existing");
        cluster.ready::<C>().await;
        let joined: C = cluster.client(at).await;
        assert_eq!(joined.get(Query::key("before")).await.unwrap().value(), Some("1"));
        until("it says its name", async || {
            let members = c.members().await.unwrap();
            members.iter().any(|member| member.id == added && !member.name.is_empty())
        })
        .await;
    }
    assert_eq!(c.members().await.unwrap().len(), 3);

    let urls: Vec<String> =
        cluster.servers.iter().map(|server| server.client_url.clone()).collect();
    let mut load = Load::start::<C>(&urls[..2], 4);
    load.watch::<C>(&urls[..2], 1, 1);
    load.more(100).await;
    // The third is lost with its disk; another takes its place.
    let lost = cluster.client::<C>(2).await.status().await.unwrap().member;
    cluster.kill(2);
    load.more(100).await;
    c.remove_member(lost).await.unwrap();
    let at = cluster.describe();
    let peer = cluster.servers[at].peer_url.clone();
    let added = until_added(&c, &peer).await;
    let mut members: Vec<String> = Vec::new();
    for at in [0, 1, 3] {
        members.push(format!("{}={}", cluster.servers[at].name, cluster.servers[at].peer_url));
    }
    cluster.launch(at, &members.join(","), "existing");
    cluster.ready::<C>().await;
    load.more(100).await;
    let newest: C = cluster.client(at).await;
    assert_eq!(newest.status().await.unwrap().member, added);
    load.end(&newest).await;

    // One that was removed while it ran ends by itself.
    let second = cluster.client::<C>(1).await.status().await.unwrap().member;
    until("it is removed", async || c.remove_member(second).await.is_ok()).await;
    assert_eq!(cluster.wait_for_end(1), Some(0));
    c.remove_member(second).await.unwrap_err().must_be(5, "etcdserver: member not found");
    assert_eq!(c.members().await.unwrap().len(), 2);
    assert_eq!(
        c.put("after", "1").await.unwrap(),
        c.get(Query::key("after")).await.unwrap().revision
    );
}

/// Adds a voter as soon as the members before are connected for long enough.
async fn until_added<C: Client>(c: &C, peer: &str) -> u64 {
    let begun = std::time::Instant::now();
    loop {
        match c.add_member(peer, false).await {
            Ok(id) => return id,
            Err(why) if begun.elapsed() < Duration::from_secs(20) => {
                let healthy = [
                    "etcdserver: unhealthy cluster",
                    "etcdserver: re-configuration failed due to not enough started members",
                ];
                assert!(healthy.contains(&why.message.as_str()), "{why}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(why) => panic!("{why}"),
        }
    }
}

/// A learner has no vote, serves little, and is promoted once it has caught up.
pub async fn learner<C: Client>(built: &str) {
    let mut cluster = Cluster::start::<C>(built, 1, &[]).await;
    let c: C = cluster.client(0).await;
    for number in 0..100 {
        c.put(&format!("k{number}"), "x").await.unwrap();
    }
    let at = cluster.describe();
    let peer = cluster.servers[at].peer_url.clone();
    let id = c.add_member(&peer, true).await.unwrap();
    c.add_member(&free_url(), true)
        .await
        .unwrap_err()
        .must_be(9, "etcdserver: too many learner members in cluster");
    // Within the same second it would even have the same id.
    let again = c.add_member(&peer, true).await.unwrap_err();
    let known = ["etcdserver: Peer URLs already exists", "etcdserver: member ID already exist"];
    assert!(again.code == 9 && known.contains(&&*again.message), "{again}");
    c.promote_member(id)
        .await
        .unwrap_err()
        .must_be(9, "etcdserver: can only promote a learner member which is in sync with leader");
    cluster.launch(at, &cluster.initial_cluster(), "existing");
    let learner: C = cluster.client(at).await;
    let query = Query::prefix("k").serializable();
    until("it has caught up", async || {
        learner.get(query.clone()).await.is_ok_and(|got| got.count == 100)
    })
    .await;
    assert!(learner.status().await.unwrap().learner);
    let refused = "etcdserver: rpc not supported for learner";
    // Its code was another one before 3.5.
    assert_eq!(learner.put("x", "1").await.unwrap_err().message, refused);
    assert_eq!(learner.get(Query::key("x")).await.unwrap_err().message, refused);
    until("it is promoted", async || c.promote_member(id).await.is_ok()).await;
    until("it serves", async || learner.put("x", "1").await.is_ok()).await;
    c.promote_member(id)
        .await
        .unwrap_err()
        .must_be(9, "etcdserver: can only promote a learner member");
}
