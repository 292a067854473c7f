//! Several members: any of them serves, they come and go, and snapshots make new clusters.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::time::Duration;

use crate::support::{
    Clients, Cluster, Directory, alone, config, free_port, get, prefix, refused, until,
};
use quorate_etcd::proto::etcdserverpb as pb;
use quorate_etcd::{ClusterState, RestoreOptions, Server, Url, restore_snapshot, snapshot_status};
use tokio_stream::StreamExt;
use tonic::Code;

async fn member_list(clients: &mut Clients) -> Vec<pb::Member> {
    let request = pb::MemberListRequest { linearizable: true };
    clients.cluster.member_list(request).await.unwrap().into_inner().members
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_serves_any_call() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let leader = cluster.leader().await;
    for number in 0..3 {
        let mut clients = Clients::of(cluster.server(number)).await;
        let key = format!("k{number}");
        clients.put(&key, "v").await;
        // What was answered here is seen here.
        let here = pb::RangeRequest { serializable: true, ..get(&key) };
        assert_eq!(clients.kv.range(here).await.unwrap().into_inner().count, 1);
        for other in 0..3 {
            let mut others = Clients::of(cluster.server(other)).await;
            assert_eq!(others.get(&key).await.as_deref(), Some("v"));
        }
        let status = clients.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        let leads = cluster.server(leader).handle().member_id();
        assert_eq!(status.leader, leads);
        assert_eq!(status.header.unwrap().member_id, cluster.server(number).handle().member_id());
        assert!(status.db_size > 0 && status.raft_index > 0 && status.raft_term > 0);
        assert_eq!((status.version.as_str(), status.db_size_quota), ("3.6.0", 2 << 30));
        let members = member_list(&mut clients).await;
        assert_eq!(members.len(), 3);
        assert!(
            members.iter().all(|member| !member.name.is_empty() && member.client_ur_ls.len() == 1)
        );
    }
    // The same everywhere.
    let mut hashes = Vec::new();
    for number in 0..3 {
        let mut clients = Clients::of(cluster.server(number)).await;
        clients.get("k0").await;
        let hash = clients.maintenance.hash_kv(pb::HashKvRequest { revision: 4 }).await.unwrap();
        hashes.push((hash.get_ref().hash, hash.get_ref().compact_revision));
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1);

    // Leadership moves on request, and when the leader goes.
    let follower = cluster.follower().await;
    let target_id = cluster.server(follower).handle().member_id();
    let request = pb::MoveLeaderRequest { target_id };
    let mut elsewhere = Clients::of(cluster.server(follower)).await;
    refused(
        elsewhere.maintenance.move_leader(request).await,
        Code::FailedPrecondition,
        "etcdserver: not leader",
    );
    let mut clients = Clients::of(cluster.server(leader)).await;
    let unknown = pb::MoveLeaderRequest { target_id: 1 };
    let text = "etcdserver: bad leader transferee";
    refused(clients.maintenance.move_leader(unknown).await, Code::FailedPrecondition, text);
    clients.maintenance.move_leader(request).await.unwrap();
    until("it leads", async || cluster.leader().await == follower).await;
    cluster.stop(follower).await;
    assert_eq!(clients.put("after", "v").await, 5);
    cluster.restart(follower).await;
    let mut again = Clients::of(cluster.server(follower)).await;
    assert_eq!(again.get("after").await.as_deref(), Some("v"));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_there_is_no_leader() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let leader = cluster.leader().await;
    let mut clients = Clients::of(cluster.server(leader)).await;
    clients.put("k", "v").await;
    for number in (0..3).filter(|number| *number != leader) {
        cluster.stop(number).await;
    }
    let handle = cluster.server(leader).handle();
    until("nobody leads", async || handle.leader().0.is_none()).await;
    let here = pb::RangeRequest { serializable: true, ..get("k") };
    assert_eq!(clients.kv.range(here).await.unwrap().into_inner().count, 1);
    let mut request = tonic::Request::new(get("k"));
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    refused(clients.kv.range(request).await, Code::Unavailable, "etcdserver: no leader");
    let status = clients.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, ["etcdserver: no leader"]);
    let (put, read) = {
        let mut others = clients.clone();
        tokio::join!(clients.kv.put(crate::support::put("k", "w")), others.kv.range(get("k")),)
    };
    refused(put, Code::DeadlineExceeded, "context deadline exceeded");
    refused(read, Code::Unavailable, "etcdserver: request timed out");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_becomes_two_becomes_three() {
    let first_directory = Directory::new();
    let mut first_config = config(first_directory.path());
    first_config.name = "m0".to_owned();
    first_config.listen_peer_urls = vec![Url::http("127.0.0.1", free_port())];
    let first = Server::start(first_config.clone()).await.unwrap();
    first.handle().ready().await;
    let mut clients = Clients::of(&first).await;
    clients.put("k", "v").await;

    let bad = pb::MemberAddRequest { peer_ur_ls: vec!["x".to_owned()], is_learner: false };
    let text = "etcdserver: given member URLs are invalid";
    refused(clients.cluster.member_add(bad).await, Code::InvalidArgument, text);
    let taken = first_config.listen_peer_urls[0].to_string();
    let taken = pb::MemberAddRequest { peer_ur_ls: vec![taken], is_learner: false };
    let text = "etcdserver: Peer URLs already exists";
    refused(clients.cluster.member_add(taken).await, Code::FailedPrecondition, text);
    let alone = pb::MemberRemoveRequest { id: first.handle().member_id() };
    let text = "etcdserver: re-configuration failed due to not enough started members";
    refused(clients.cluster.member_remove(alone).await, Code::Unknown, text);
    let unknown = clients.cluster.member_remove(pb::MemberRemoveRequest { id: 7 }).await;
    refused(unknown, Code::NotFound, "etcdserver: member not found");

    let mut members = vec![("m0".to_owned(), first_config.listen_peer_urls.clone())];
    let mut servers = vec![first];
    let mut directories = vec![first_directory];
    for number in 1..3 {
        let url = Url::http("127.0.0.1", free_port());
        let request =
            pb::MemberAddRequest { peer_ur_ls: vec![url.to_string()], is_learner: number == 2 };
        let added = clients.cluster.member_add(request).await.unwrap().into_inner();
        // A voter is shown as one at once, though it does not run yet; writes go on.
        let member = added.member.unwrap();
        assert_eq!((member.is_learner, member.name.as_str()), (number == 2, ""));
        assert_eq!(added.header.unwrap().revision, 0);
        clients.put("k", "w").await;
        if number == 2 {
            let text = "etcdserver: can only promote a learner member which is in sync with leader";
            let early =
                clients.cluster.member_promote(pb::MemberPromoteRequest { id: member.id }).await;
            refused(early, Code::FailedPrecondition, text);
        }
        members.push((format!("m{number}"), vec![url.clone()]));
        let directory = Directory::new();
        let mut config = config(directory.path());
        config.name = format!("m{number}");
        config.listen_peer_urls = vec![url];
        config.initial_cluster.clone_from(&members);
        config.initial_cluster_state = ClusterState::Existing;
        let server = Server::start(config).await.unwrap();
        assert_eq!(server.handle().member_id(), member.id);
        server.handle().ready().await;
        until("it is one of them", async || {
            member_list(&mut clients).await.iter().filter(|member| !member.name.is_empty()).count()
                == number + 1
        })
        .await;
        servers.push(server);
        directories.push(directory);
    }
    let learner = servers[2].handle();
    until("it knows its part", async || learner.is_learner()).await;
    let mut at_learner = Clients::of(&servers[2]).await;
    let text = "etcdserver: rpc not supported for learner";
    refused(at_learner.kv.put(crate::support::put("k", "x")).await, Code::FailedPrecondition, text);
    refused(at_learner.kv.range(get("k")).await, Code::FailedPrecondition, text);
    let here = pb::RangeRequest { serializable: true, ..get("k") };
    assert_eq!(at_learner.kv.range(here).await.unwrap().into_inner().count, 1);
    let more = pb::MemberAddRequest {
        peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
        is_learner: true,
    };
    let text = "etcdserver: too many learner members in cluster";
    refused(clients.cluster.member_add(more).await, Code::FailedPrecondition, text);

    // Promoted by way of a member that does not lead.
    let mut elsewhere = Clients::of(&servers[1]).await;
    let request = pb::MemberPromoteRequest { id: learner.member_id() };
    let promoted = loop {
        match elsewhere.cluster.member_promote(request).await {
            Ok(promoted) => break promoted.into_inner(),
            // What the leader has written meanwhile has to get there first.
            Err(why) => assert!(why.message().ends_with("in sync with leader"), "{why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(promoted.members.iter().all(|member| !member.is_learner));
    let page = crate::metrics::Page::of(&servers[1]).await;
    assert_eq!(page.value("etcd_server_learner_promote_successes", ""), 1.0);
    let text = "etcdserver: can only promote a learner member";
    refused(elsewhere.cluster.member_promote(request).await, Code::FailedPrecondition, text);
    until("it serves", async || at_learner.kv.put(crate::support::put("k", "x")).await.is_ok())
        .await;

    // And removed: it stops by itself, and does not come back.
    let removed = servers.pop().unwrap();
    let request = pb::MemberRemoveRequest { id: removed.handle().member_id() };
    let left = clients.cluster.member_remove(request).await.unwrap().into_inner().members;
    assert_eq!(left.len(), 2);
    let why = tokio::time::timeout(Duration::from_secs(10), removed.stopped()).await.unwrap();
    assert_eq!(why, quorate_etcd::Stopped::Removed);
    let mut config = removed.handle().config().clone();
    config.listen_client_urls = vec![Url::http("127.0.0.1", 0)];
    removed.shutdown().await;
    let refusal = Server::start(config).await.unwrap_err().to_string();
    assert!(refusal.contains("permanently removed"), "{refusal}");
    for server in servers {
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_makes_a_new_cluster() {
    let directory = Directory::new();
    let server = alone(&directory).await;
    let mut clients = Clients::of(&server).await;
    for number in 0..2000 {
        clients.put(&format!("k{:03}", number % 700), &"v".repeat(100)).await;
    }
    clients.grant(600, 9).await;
    let mut blobs =
        clients.maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    let (mut file, mut left) = (Vec::new(), Vec::new());
    while let Some(blob) = blobs.next().await {
        let blob = blob.unwrap();
        assert!(blob.blob.len() <= 32 << 10 && blob.version == "3.6.0");
        left.push(blob.remaining_bytes);
        file.extend_from_slice(&blob.blob);
    }
    assert_eq!(file.len() % 512, 32);
    assert_eq!(&left[left.len() - 2..], [0, 0]);
    assert!(left.is_sorted_by(|a, b| a >= b));
    let (cluster_id, revision) =
        (server.handle().cluster_id(), server.handle().reader().revision().0);
    server.shutdown().await;

    let place = Directory::new();
    let path = place.path().join("snapshot");
    std::fs::write(&path, &file).unwrap();
    let status = snapshot_status(&path).unwrap();
    assert_eq!((status.revision, status.total_key), (revision, 700));
    let damaged = place.path().join("damaged");
    file[5000] ^= 1;
    std::fs::write(&damaged, &file).unwrap();

    let directories: Vec<Directory> = (0..3).map(|_| Directory::new()).collect();
    let members: Vec<(String, Vec<Url>)> = (0..3)
        .map(|number| (format!("n{number}"), vec![Url::http("127.0.0.1", free_port())]))
        .collect();
    let mut configs = Vec::new();
    for (directory, (name, urls)) in directories.iter().zip(&members) {
        let mut config = config(directory.path());
        config.name.clone_from(name);
        config.listen_peer_urls.clone_from(urls);
        config.initial_cluster.clone_from(&members);
        config.initial_cluster_token = "another".to_owned();
        let options = RestoreOptions {
            config: config.clone(),
            skip_hash_check: false,
            bump_revision: 1_000_000,
            mark_compacted: true,
        };
        let why = restore_snapshot(&damaged, &options).unwrap_err().to_string();
        assert!(why.starts_with("expected sha256 ["), "{why}");
        restore_snapshot(&path, &options).unwrap();
        let why = restore_snapshot(&path, &options).unwrap_err().to_string();
        assert!(why.contains("not empty or could not be read"), "{why}");
        configs.push(config);
    }
    let mut servers = Vec::new();
    for config in &configs {
        servers.push(Server::start(config.clone()).await.unwrap());
    }
    for server in &servers {
        server.handle().ready().await;
        assert_ne!(server.handle().cluster_id(), cluster_id);
        let mut clients = Clients::of(server).await;
        let all = pb::RangeRequest { count_only: true, ..prefix("k") };
        let all = clients.kv.range(all).await.unwrap().into_inner();
        assert_eq!((all.count, all.header.unwrap().revision), (700, revision + 1_000_000));
        let old = pb::RangeRequest { revision, ..get("k000") };
        let text = "etcdserver: mvcc: required revision has been compacted";
        refused(clients.kv.range(old).await, Code::OutOfRange, text);
        let names: Vec<String> =
            member_list(&mut clients).await.into_iter().map(|member| member.name).collect();
        assert!(names.iter().all(|name| name.starts_with('n')) && names.len() == 3, "{names:?}");
    }
    // One that is added later gets all of it.
    let mut clients = Clients::of(&servers[0]).await;
    clients.put("new", "v").await;
    let url = Url::http("127.0.0.1", free_port());
    let request = pb::MemberAddRequest { peer_ur_ls: vec![url.to_string()], is_learner: false };
    let mut added = None;
    until("it is added", async || {
        added = clients.cluster.member_add(request.clone()).await.ok();
        added.is_some()
    })
    .await;
    let mut members = members;
    members.push(("late".to_owned(), vec![url.clone()]));
    let late_directory = Directory::new();
    let mut late = config(late_directory.path());
    late.name = "late".to_owned();
    late.listen_peer_urls = vec![url];
    late.initial_cluster = members;
    late.initial_cluster_state = ClusterState::Existing;
    let late = Server::start(late).await.unwrap();
    late.handle().ready().await;
    let mut clients = Clients::of(&late).await;
    assert_eq!(clients.kv.range(prefix("k")).await.unwrap().into_inner().count, 700);
    servers.push(late);
    for server in servers {
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_member_says_so_until_the_alarm_is_taken_back() {
    let directory = Directory::new();
    let mut config = config(directory.path());
    config.quota_backend_bytes = 1;
    let server = Server::start(config).await.unwrap();
    server.handle().ready().await;
    let mut clients = Clients::of(&server).await;
    let text = "etcdserver: mvcc: database space exceeded";
    refused(clients.kv.put(crate::support::put("k", "v")).await, Code::ResourceExhausted, text);
    // The quota comes before what is wrong with a request.
    refused(clients.kv.put(crate::support::put("", "v")).await, Code::ResourceExhausted, text);
    let alarm = |action| pb::AlarmRequest { action, ..pb::AlarmRequest::default() };
    let alarms = clients.maintenance.alarm(alarm(0)).await.unwrap().into_inner().alarms;
    let id = server.handle().member_id();
    assert_eq!((alarms.len(), alarms[0].member_id, alarms[0].alarm), (1, id, 1));
    let status = clients.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, [format!("memberID:{id} alarm:NOSPACE")]);
    assert_eq!(clients.get("k").await, None, "reads go on");
    let disarm = pb::AlarmRequest { action: 2, member_id: id, alarm: 1 };
    assert_eq!(clients.maintenance.alarm(disarm).await.unwrap().into_inner().alarms.len(), 1);
    assert_eq!(clients.maintenance.alarm(alarm(0)).await.unwrap().into_inner().alarms.len(), 0);
    server.shutdown().await;
}
