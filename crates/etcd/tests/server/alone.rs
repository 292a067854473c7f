//! A member alone, through the eyes of a client.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use crate::support::{Clients, Directory, alone, get, prefix, put, refused, until};
use quorate_etcd::proto::etcdserverpb as pb;
use tokio_stream::StreamExt;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_and_go_and_survive_a_restart() {
    let directory = Directory::new();
    let server = alone(&directory).await;
    let mut clients = Clients::of(&server).await;
    let response = clients.kv.put(put("a", "1")).await.unwrap().into_inner();
    let header = response.header.unwrap();
    assert_eq!(header.revision, 2);
    assert_eq!(header.member_id, server.handle().member_id());
    assert_eq!(header.cluster_id, server.handle().cluster_id());
    assert!(header.raft_term > 0);
    assert_eq!(clients.put("b", "2").await, 3);
    assert_eq!(clients.get("a").await.as_deref(), Some("1"));

    let all = clients.kv.range(prefix("a")).await.unwrap().into_inner();
    assert_eq!((all.count, all.more, all.header.unwrap().revision), (1, false, 3));
    let kv = &all.kvs[0];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version, kv.lease), (2, 2, 1, 0));

    let delete = pb::DeleteRangeRequest {
        key: "b".into(),
        prev_kv: true,
        ..pb::DeleteRangeRequest::default()
    };
    let deleted = clients.kv.delete_range(delete.clone()).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, deleted.header.unwrap().revision), (1, 4));
    assert_eq!(&deleted.prev_kvs[0].value[..], b"2");
    let nothing = clients.kv.delete_range(delete).await.unwrap().into_inner();
    assert_eq!((nothing.deleted, nothing.header.unwrap().revision), (0, 4));
    let (cluster, member) = (server.handle().cluster_id(), server.handle().member_id());
    server.shutdown().await;

    let server = alone(&directory).await;
    assert_eq!((server.handle().cluster_id(), server.handle().member_id()), (cluster, member));
    let mut clients = Clients::of(&server).await;
    assert_eq!(clients.get("a").await.as_deref(), Some("1"));
    assert_eq!(clients.get("b").await, None);
    assert_eq!(clients.put("a", "3").await, 5);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_the_words_that_clients_know() {
    let directory = Directory::new();
    let server = alone(&directory).await;
    let mut clients = Clients::of(&server).await;
    let kv = &mut clients.kv;
    let invalid = Code::InvalidArgument;
    refused(kv.put(put("", "v")).await, invalid, "etcdserver: key is not provided");
    refused(kv.range(get("")).await, invalid, "etcdserver: key is not provided");
    let ignore = pb::PutRequest { ignore_value: true, ..put("none", "") };
    refused(kv.put(ignore).await, invalid, "etcdserver: key not found");
    let both = pb::PutRequest { ignore_value: true, ..put("a", "v") };
    refused(kv.put(both).await, invalid, "etcdserver: value is provided");
    let both = pb::PutRequest { ignore_lease: true, lease: 1, ..put("a", "v") };
    refused(kv.put(both).await, invalid, "etcdserver: lease is provided");
    let lease = pb::PutRequest { lease: 77, ..put("a", "v") };
    refused(kv.put(lease).await, Code::NotFound, "etcdserver: requested lease not found");
    let order = pb::RangeRequest { sort_order: 9, ..get("a") };
    refused(kv.range(order).await, invalid, "etcdserver: invalid sort option");
    let future = pb::RangeRequest { revision: 100, ..get("a") };
    let text = "etcdserver: mvcc: required revision is a future revision";
    refused(kv.range(future).await, Code::OutOfRange, text);
    let compact = pb::CompactionRequest { revision: 100, physical: false };
    refused(kv.compact(compact).await, Code::OutOfRange, text);
    let large = "v".repeat((3 << 19) + 1);
    refused(kv.put(put("a", &large)).await, invalid, "etcdserver: request is too large");
    let (code, text) = crate::support::error(kv.put(put("a", &"v".repeat(3 << 20))).await);
    assert_eq!(code, Code::ResourceExhausted);
    assert!(text.starts_with("grpc: received message larger than max ("), "{text}");

    let mut raw = tonic::client::Grpc::new(clients.channel.clone());
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<pb::StatusRequest, pb::StatusResponse>::default();
    let path = "/etcdserverpb.KV/Dance".parse().unwrap();
    let unknown = raw.unary(tonic::Request::new(pb::StatusRequest {}), path, codec).await;
    let text = "unknown method Dance for service etcdserverpb.KV";
    refused(unknown, Code::Unimplemented, text);
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<pb::StatusRequest, pb::StatusResponse>::default();
    let path = "/etcdserverpb.Dance/Range".parse().unwrap();
    let unknown = raw.unary(tonic::Request::new(pb::StatusRequest {}), path, codec).await;
    refused(unknown, Code::Unimplemented, "unknown service etcdserverpb.Dance");

    let op = |op| pb::RequestOp { request: Some(op) };
    let puts = |count: usize| {
        let put = pb::request_op::Request::RequestPut(put("a", "v"));
        pb::TxnRequest { success: vec![op(put); count], ..pb::TxnRequest::default() }
    };
    refused(kv.txn(puts(2)).await, invalid, "etcdserver: duplicate key given in txn request");
    let text = "etcdserver: too many operations in txn request";
    refused(kv.txn(puts(129)).await, invalid, text);
    let none = pb::TxnRequest {
        success: vec![pb::RequestOp { request: None }],
        ..pb::TxnRequest::default()
    };
    refused(kv.txn(none).await, invalid, "etcdserver: key not found");

    let lease = &mut clients.lease;
    let id = lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 5 }).await.unwrap();
    assert_eq!((id.get_ref().id, id.get_ref().ttl), (5, 60));
    let again = lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 5 }).await;
    refused(again, Code::FailedPrecondition, "etcdserver: lease already exists");
    let long = lease.lease_grant(pb::LeaseGrantRequest { ttl: 9_000_000_001, id: 6 }).await;
    refused(long, Code::OutOfRange, "etcdserver: too large lease TTL");
    let unknown = lease.lease_revoke(pb::LeaseRevokeRequest { id: 99 }).await;
    refused(unknown, Code::NotFound, "etcdserver: requested lease not found");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_compare_and_act() {
    let directory = Directory::new();
    let server = alone(&directory).await;
    let mut clients = Clients::of(&server).await;
    use pb::request_op::Request;
    let op = |request| pb::RequestOp { request: Some(request) };
    let create = pb::TxnRequest {
        compare: vec![pb::Compare {
            target: pb::compare::CompareTarget::Create.into(),
            key: "k".into(),
            target_union: Some(pb::compare::TargetUnion::CreateRevision(0)),
            ..pb::Compare::default()
        }],
        success: vec![op(Request::RequestPut(put("k", "1")))],
        failure: vec![op(Request::RequestRange(get("k")))],
    };
    let first = clients.kv.txn(create.clone()).await.unwrap().into_inner();
    assert!(first.succeeded);
    assert_eq!(first.header.unwrap().revision, 2);
    let second = clients.kv.txn(create).await.unwrap().into_inner();
    assert!(!second.succeeded);
    assert_eq!(second.header.unwrap().revision, 2);
    let Some(pb::response_op::Response::ResponseRange(range)) = &second.responses[0].response
    else {
        panic!("a range answers a range")
    };
    assert_eq!(&range.kvs[0].value[..], b"1");
    // Inner headers say the revision and nothing else.
    let inner = range.header.unwrap();
    assert_eq!((inner.cluster_id, inner.member_id, inner.raft_term, inner.revision), (0, 0, 0, 2));
    // One that only reads is not in the log.
    let before = clients.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    let reads = pb::TxnRequest {
        success: vec![op(Request::RequestRange(get("k")))],
        ..pb::TxnRequest::default()
    };
    assert!(clients.kv.txn(reads).await.unwrap().into_inner().succeeded);
    let after = clients.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(before.raft_index, after.raft_index);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_range_comes_in_parts() {
    let directory = Directory::new();
    let server = alone(&directory).await;
    let mut clients = Clients::of(&server).await;
    for number in 0..50 {
        clients.put(&format!("k{number:02}"), "v").await;
    }
    let mut parts = clients.kv.range_stream(prefix("k")).await.unwrap().into_inner();
    let (mut keys, mut counts, mut ends) = (0, Vec::new(), 0);
    while let Some(part) = parts.next().await {
        let part = part.unwrap().range_response.unwrap();
        keys += part.kvs.len();
        counts.push(part.kvs.len());
        if let Some(header) = part.header {
            ends += 1;
            assert_eq!((part.count, part.more, header.revision), (50, false, 51));
        }
    }
    assert_eq!((keys, counts[0], ends), (50, 10, 1));
    let sorted = pb::RangeRequest { sort_target: 4, ..prefix("k") };
    let refusal = clients.kv.range_stream(sorted).await;
    let text = "RangeStream does not support custom sort orders";
    refused(refusal.map(drop), Code::Unimplemented, text);
    let filtered = pb::RangeRequest { min_mod_revision: 1, ..prefix("k") };
    let text = "RangeStream does not support revision filters";
    refused(clients.kv.range_stream(filtered).await.map(drop), Code::Unimplemented, text);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compacted_is_gone() {
    let directory = Directory::new();
    let server = alone(&directory).await;
    let mut clients = Clients::of(&server).await;
    for value in 0..10 {
        clients.put("k", &value.to_string()).await;
    }
    let compact = pb::CompactionRequest { revision: 8, physical: true };
    clients.kv.compact(compact).await.unwrap();
    let text = "etcdserver: mvcc: required revision has been compacted";
    refused(clients.kv.compact(compact).await, Code::OutOfRange, text);
    let old = |revision| pb::RangeRequest { revision, ..get("k") };
    refused(clients.kv.range(old(7)).await, Code::OutOfRange, text);
    assert_eq!(&clients.kv.range(old(8)).await.unwrap().into_inner().kvs[0].value[..], b"6");
    let hash = clients.maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap();
    assert_eq!((hash.get_ref().compact_revision, hash.get_ref().hash_revision), (8, 11));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_is_served_beside() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = Directory::new();
    let config = crate::support::config(directory.path());
    let hello = axum::Router::new().route("/hello", axum::routing::get(|| async { "good day" }));
    let server = quorate_etcd::Server::start_with(config, |_| hello).await.unwrap();
    let mut stream =
        tokio::net::TcpStream::connect(server.client_urls()[0].address()).await.unwrap();
    let request = b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("good day"), "{answer}");
    server.handle().ready().await;
    let mut clients = Clients::of(&server).await;
    assert_eq!(clients.put("a", "b").await, 2);
    until("the version is settled", async || server.handle().cluster_version().is_some()).await;
    assert_eq!(server.handle().cluster_version().as_deref(), Some("3.6.0"));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_says_so() {
    use quorate_etcd::proto::etcdserverpb::auth_client::AuthClient;
    use quorate_etcd::proto::health::HealthCheckRequest;
    use quorate_etcd::proto::health::health_client::HealthClient;
    use quorate_etcd::proto::v3electionpb::LeaderRequest;
    use quorate_etcd::proto::v3electionpb::election_client::ElectionClient;
    use quorate_etcd::proto::v3lockpb::LockRequest;
    use quorate_etcd::proto::v3lockpb::lock_client::LockClient;
    let directory = Directory::new();
    let server = alone(&directory).await;
    let clients = Clients::of(&server).await;
    let mut auth = AuthClient::new(clients.channel.clone());
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.enabled, status.auth_revision), (false, 1));
    let refusal = auth.authenticate(pb::AuthenticateRequest::default()).await;
    let text = "etcdserver: authentication is not enabled";
    refused(refusal, Code::FailedPrecondition, text);
    let absent = |(code, text): (Code, String)| {
        assert_eq!(code, Code::Unimplemented);
        assert!(text.contains("not there yet"), "{text}");
    };
    absent(crate::support::error(auth.auth_enable(pb::AuthEnableRequest {}).await));
    absent(crate::support::error(auth.user_list(pb::AuthUserListRequest {}).await));
    let mut lock = LockClient::new(clients.channel.clone());
    absent(crate::support::error(lock.lock(LockRequest::default()).await));
    let mut election = ElectionClient::new(clients.channel.clone());
    absent(crate::support::error(election.leader(LeaderRequest::default()).await));

    let mut health = HealthClient::new(clients.channel.clone());
    let request = |service: &str| HealthCheckRequest { service: service.to_owned() };
    assert_eq!(health.check(request("")).await.unwrap().into_inner().status, 1);
    assert_eq!(crate::support::error(health.check(request("x")).await).0, Code::NotFound);
    let mut watch = health.watch(request("")).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status, 1);
    drop(watch);
    server.shutdown().await;
}
