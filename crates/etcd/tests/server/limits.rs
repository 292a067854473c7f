//! What ends by itself: calls past their deadline, streams without a leader, room, history; and several ways to a member.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::time::{Duration, Instant};

use crate::support::{
    Clients, Cluster, Directory, alone, config, free_port, get, put, refused, until,
};
use http_body_util::{BodyExt, Full};
use prost::Message;
use quorate_etcd::proto::etcdserverpb as pb;
use quorate_etcd::{AutoCompaction, Server, Url};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Streaming};

/// A call with a deadline, by a client that leaves it to the server. Gives back the status and how many bytes came before it.
async fn call_within(
    server: &Server,
    path: &str,
    message: &impl Message,
    timeout: &str,
) -> (i32, usize) {
    let tcp = tokio::net::TcpStream::connect(server.client_urls()[0].address()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(tcp);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let length = u32::try_from(message.encoded_len()).unwrap();
    let body = [&[0][..], &length.to_be_bytes(), &message.encode_to_vec()].concat();
    let request = http::Request::post(format!("http://x{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = |headers: &http::HeaderMap| {
        let status = headers.get("grpc-status")?;
        Some(status.to_str().unwrap().parse::<i32>().unwrap())
    };
    let in_front = status(response.headers());
    let body = response.into_body().collect().await.unwrap();
    let behind = body.trailers().and_then(status);
    (in_front.or(behind).unwrap(), body.to_bytes().len())
}

fn with_leader<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

const DEADLINE_EXCEEDED: i32 = Code::DeadlineExceeded as i32;

type Requests = mpsc::Sender<pb::WatchRequest>;

/// Begins to watch a key; `wrap` puts what it needs around the request.
async fn watch(
    clients: &mut Clients,
    wrap: impl FnOnce(ReceiverStream<pb::WatchRequest>) -> Request<ReceiverStream<pb::WatchRequest>>,
) -> (Requests, Streaming<pb::WatchResponse>) {
    let (requests, receiver) = mpsc::channel(4);
    let create = pb::WatchCreateRequest { key: "k".into(), ..pb::WatchCreateRequest::default() };
    let create = pb::watch_request::RequestUnion::CreateRequest(create);
    requests.send(pb::WatchRequest { request_union: Some(create) }).await.unwrap();
    let stream = clients.watch.watch(wrap(ReceiverStream::new(receiver))).await;
    let mut stream = stream.unwrap().into_inner();
    assert!(stream.next().await.unwrap().unwrap().created);
    (requests, stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_at_its_deadline() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let leader = cluster.leader().await;
    let mut clients = Clients::of(cluster.server(leader)).await;
    let put_path = "/etcdserverpb.KV/Put";
    let (code, bytes) = call_within(cluster.server(leader), put_path, &put("k", "v"), "5S").await;
    assert!(code == 0 && bytes > 5, "{code}, {bytes} bytes");
    let (_requests, mut unlimited) = watch(&mut clients, Request::new).await;
    let watchers = || cluster.server(leader).handle().watchers().0;
    let create = pb::WatchCreateRequest { key: "k".into(), ..pb::WatchCreateRequest::default() };
    let create = pb::watch_request::RequestUnion::CreateRequest(create);
    let create = pb::WatchRequest { request_union: Some(create) };
    let began = Instant::now();
    let path = "/etcdserverpb.Watch/Watch";
    let watched = call_within(cluster.server(leader), path, &create, "700m");
    let (watched, ()) = tokio::join!(watched, async {
        until("both are there", async || watchers() == 2).await;
    });
    assert!(watched.0 == DEADLINE_EXCEEDED && watched.1 > 5, "{watched:?}");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(700) && took < Duration::from_secs(5), "{took:?}");
    until("its watcher is gone", async || watchers() == 1).await;
    clients.put("k", "w").await;
    assert_eq!(unlimited.next().await.unwrap().unwrap().events.len(), 1);

    // Without a quorum nothing is answered, and the server would go on for 5.6 s.
    for number in (0..3).filter(|number| *number != leader) {
        cluster.stop(number).await;
    }
    let server = cluster.server(leader);
    let range_path = "/etcdserverpb.KV/Range";
    for timeout in ["300m", "300000u"] {
        let began = Instant::now();
        let late = call_within(server, put_path, &put("k", "x"), timeout).await;
        assert_eq!(late, (DEADLINE_EXCEEDED, 0));
        let late = call_within(server, range_path, &get("k"), timeout).await;
        assert_eq!(late, (DEADLINE_EXCEEDED, 0));
        assert!(began.elapsed() < Duration::from_secs(4));
    }
    let page = crate::metrics::Page::of(server).await;
    assert_eq!(page.value("etcd_server_proposals_failed_total", ""), 2.0);
    assert_eq!(page.value("etcd_server_proposals_pending", ""), 0.0);
    let malformed = call_within(server, range_path, &get("k"), "soon").await;
    assert_eq!(malformed.0, Code::Internal as i32);
    drop(unlimited);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_end_when_the_leader_is_lost() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let leader = cluster.leader().await;
    let mut clients = Clients::of(cluster.server(leader)).await;
    clients.grant(60, 5).await;
    let (_wanting, mut wanting) = watch(&mut clients, with_leader).await;
    let (_content, mut content) = watch(&mut clients, Request::new).await;
    let (alive, receiver) = mpsc::channel(4);
    alive.send(pb::LeaseKeepAliveRequest { id: 5 }).await.unwrap();
    let renewals = with_leader(ReceiverStream::new(receiver));
    let mut renewals = clients.lease.lease_keep_alive(renewals).await.unwrap().into_inner();
    assert_eq!(renewals.next().await.unwrap().unwrap().ttl, 60);
    let began = Instant::now();
    for number in (0..3).filter(|number| *number != leader) {
        cluster.stop(number).await;
    }
    let text = "etcdserver: no leader";
    refused(wanting.next().await.unwrap(), Code::Unavailable, text);
    refused(renewals.next().await.unwrap(), Code::Unavailable, text);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900), "not before three election timeouts: {took:?}");
    // A new one is refused at once.
    let (_requests, receiver) = mpsc::channel::<pb::WatchRequest>(4);
    let refusal = clients.watch.watch(with_leader(ReceiverStream::new(receiver))).await;
    refused(refusal.map(drop), Code::Unavailable, text);
    // Who does not ask for a leader goes on.
    let silence = tokio::time::timeout(Duration::from_millis(500), content.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    for number in (0..3).filter(|number| *number != leader) {
        cluster.servers[number] =
            Some(Server::start(cluster.configs[number].clone()).await.unwrap());
    }
    cluster.leader().await;
    until("it is written", async || clients.kv.put(put("k", "v")).await.is_ok()).await;
    assert_eq!(content.next().await.unwrap().unwrap().events.len(), 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_does_not_lag_behind_what_is_written() {
    let directory = Directory::new();
    let server = alone(&directory).await;
    let empty = server.handle().db_bytes();
    server.shutdown().await;
    let mut full = config(directory.path());
    let room: u64 = 4 << 20;
    full.quota_backend_bytes = i64::try_from(empty + room).unwrap();
    let server = Server::start(full).await.unwrap();
    server.handle().ready().await;
    // Many at once: what is under way is checked again when it is applied.
    let value = "v".repeat(50_000);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let (mut clients, value) = (Clients::of(&server).await, value.clone());
        writers.spawn(async move {
            let mut written = 0_u64;
            for number in 0..1000 {
                match clients.kv.put(put(&format!("k{writer}/{number}"), &value)).await {
                    Ok(_) => written += value.len() as u64,
                    Err(why) => {
                        let text = "etcdserver: mvcc: database space exceeded";
                        assert_eq!((why.code(), why.message()), (Code::ResourceExhausted, text));
                        return written;
                    }
                }
            }
            panic!("it is never full");
        });
    }
    let written: u64 = writers.join_all().await.into_iter().sum();
    assert!(written <= room, "{written} bytes were let into {room}");
    assert!(written >= room / 4, "only {written} bytes of {room} were let in");
    let mut clients = Clients::of(&server).await;
    let id = server.handle().member_id();
    until("the alarm is raised", async || {
        let all = clients.maintenance.alarm(pb::AlarmRequest::default()).await.unwrap();
        let all = all.into_inner().alarms;
        all.len() == 1 && all[0].member_id == id && all[0].alarm == 1
    })
    .await;
    // What was applied and answered as an error is at most what was under way.
    let all = pb::RangeRequest { count_only: true, ..crate::support::prefix("k") };
    let count = clients.kv.range(all).await.unwrap().into_inner().count.unsigned_abs();
    let answered = written / value.len() as u64;
    assert!((answered..=answered + 16).contains(&count), "{count} keys, {answered} answered");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_history_is_given_up_by_itself() {
    let directory = Directory::new();
    let mut periodic = config(directory.path());
    periodic.auto_compaction = AutoCompaction::Periodic(Duration::from_secs(1));
    let server = Server::start(periodic).await.unwrap();
    server.handle().ready().await;
    let mut clients = Clients::of(&server).await;
    for number in 0..10 {
        clients.put("k", &number.to_string()).await;
    }
    let reader = server.handle().reader();
    until("history is given up", async || reader.compacted().0 == 11).await;
    let old = pb::RangeRequest { revision: 10, ..get("k") };
    let text = "etcdserver: mvcc: required revision has been compacted";
    refused(clients.kv.range(old).await, Code::OutOfRange, text);
    assert_eq!(clients.get("k").await.as_deref(), Some("9"));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_has_several_addresses() {
    let url = |port| Url::http("127.0.0.1", port);
    // Of each member's peer URLs, nobody listens at the first one: the ids are as of all, and the way is by the second.
    let cluster = Cluster::start(3, |config| {
        let number: u16 = config.name[1..].parse().unwrap();
        config.listen_client_urls = vec![url(0), url(0)];
        let mut cluster = std::mem::take(&mut config.initial_cluster);
        for (_, urls) in &mut cluster {
            urls.insert(0, url(1));
        }
        for (at, (_, urls)) in cluster.iter_mut().enumerate() {
            // All different, and never listened at.
            urls[0] = url(u16::try_from(at).unwrap() + 2);
        }
        config.initial_advertise_peer_urls.clone_from(&cluster[usize::from(number)].1);
        config.listen_peer_urls.push(url(0));
        config.initial_cluster = cluster;
    })
    .await;
    let server = cluster.server(0);
    assert_eq!(server.client_urls().len(), 2);
    for url in server.client_urls() {
        let mut clients = Clients::at(&url.to_string()).await;
        clients.put("k", "v").await;
        let members = clients.cluster.member_list(pb::MemberListRequest { linearizable: true });
        let members = members.await.unwrap().into_inner().members;
        assert_eq!(members.len(), 3);
        for member in members {
            assert_eq!((member.peer_ur_ls.len(), member.client_ur_ls.len()), (2, 2), "{member:?}");
        }
    }
    cluster.shutdown().await;

    // And both are served where both are listened at.
    let directory = Directory::new();
    let mut two = config(directory.path());
    two.listen_peer_urls = vec![url(free_port()), url(free_port())];
    let server = Server::start(two.clone()).await.unwrap();
    for url in &two.listen_peer_urls {
        tokio::net::TcpStream::connect(url.address()).await.unwrap();
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_taken_back_to_an_older_version() {
    use pb::downgrade_request::DowngradeAction::{Cancel, Enable, Validate};
    let mut cluster = Cluster::start(3, |_| {}).await;
    let mut clients = Clients::of(cluster.server(0)).await;
    let version = |cluster: &Cluster, number: usize| {
        cluster.server(number).handle().cluster_version().unwrap_or_default()
    };
    until("the version is settled", async || version(&cluster, 0) == "3.6.0").await;
    let request = |action: pb::downgrade_request::DowngradeAction, version: &str| {
        pb::DowngradeRequest { action: action.into(), version: version.to_owned() }
    };
    let invalid = Code::InvalidArgument;
    for (wrong, text) in [
        ("x", "etcdserver: wrong downgrade target version format"),
        ("3.4", "etcdserver: invalid downgrade target version"),
        ("3.6", "etcdserver: invalid downgrade target version"),
    ] {
        for action in [Validate, Enable] {
            refused(clients.maintenance.downgrade(request(action, wrong)).await, invalid, text);
        }
    }
    let unknown = pb::DowngradeRequest { action: 9, version: "3.5".to_owned() };
    let text = "etcdserver: unknown method";
    refused(clients.maintenance.downgrade(unknown).await, Code::Unknown, text);
    let answer = clients.maintenance.downgrade(request(Validate, "3.5.2")).await.unwrap();
    assert_eq!(answer.into_inner().version, "3.6");
    // Nothing is to be taken back.
    clients.maintenance.downgrade(request(Cancel, "")).await.unwrap();

    let answer = clients.maintenance.downgrade(request(Enable, "3.5")).await.unwrap();
    assert_eq!(answer.into_inner().version, "3.6");
    until("it is taken down", async || version(&cluster, 0) == "3.5.0").await;
    let status = clients.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    let info = status.downgrade_info.unwrap();
    assert_eq!((info.enabled, info.target_version.as_str()), (true, "3.5.0"));
    assert_eq!((status.version.as_str(), status.storage_version.as_str()), ("3.6.0", "3.5.0"));
    // As the error of 3.4 from 3.5: it is compared first.
    let text = "etcdserver: invalid downgrade target version";
    refused(clients.maintenance.downgrade(request(Enable, "3.5")).await, invalid, text);
    let text = "etcdserver: cluster has a downgrade job in progress";
    let more = clients.maintenance.downgrade(request(Enable, "3.4")).await;
    refused(more, Code::FailedPrecondition, text);

    // Taken back, it goes up again.
    clients.maintenance.downgrade(request(Cancel, "")).await.unwrap();
    until("it is up again", async || version(&cluster, 0) == "3.6.0").await;

    // And carried out, it ends by itself.
    clients.maintenance.downgrade(request(Enable, "3.5")).await.unwrap();
    until("it is taken down", async || version(&cluster, 0) == "3.5.0").await;
    for number in 0..3 {
        cluster.stop(number).await;
        cluster.configs[number].api_version = "3.5.9".to_owned();
        cluster.restart(number).await;
    }
    let mut clients = Clients::of(cluster.server(0)).await;
    until("it has ended", async || {
        let status = clients.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        !status.downgrade_info.unwrap().enabled
    })
    .await;
    assert_eq!(version(&cluster, 1), "3.5.0");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_reach_what_they_set() {
    let directory = Directory::new();
    let mut tight = config(directory.path());
    tight.max_txn_ops = 2;
    tight.max_request_bytes = 1000;
    tight.max_concurrent_streams = 2;
    tight.warning_apply_duration = Duration::from_nanos(1);
    let server = Server::start(tight).await.unwrap();
    server.handle().ready().await;
    let mut clients = Clients::of(&server).await;
    let op = pb::request_op::Request::RequestRange(get("k"));
    let op = pb::RequestOp { request: Some(op) };
    let txn = pb::TxnRequest { success: vec![op; 3], ..pb::TxnRequest::default() };
    let text = "etcdserver: too many operations in txn request";
    refused(clients.kv.txn(txn).await, Code::InvalidArgument, text);
    let text = "etcdserver: request is too large";
    let large = clients.kv.put(put("k", &"v".repeat(1000))).await;
    refused(large, Code::InvalidArgument, text);
    clients.put("k", "v").await;
    let slow = crate::metrics::Page::of(&server).await.value("etcd_server_slow_apply_total", "");
    assert!(slow >= 1.0, "{slow}");

    // A third stream of a connection waits until one of two has ended.
    let mut clients = Clients::of(&server).await;
    let first = watch(&mut clients, Request::new).await;
    let _second = watch(&mut clients, Request::new).await;
    let mut others = clients.clone();
    let mut third = tokio::spawn(async move { others.get("k").await });
    let waits = tokio::time::timeout(Duration::from_millis(300), &mut third).await;
    assert!(waits.is_err(), "{waits:?}");
    drop(first);
    assert_eq!(third.await.unwrap().as_deref(), Some("v"));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_answers_no_ping_is_given_up() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const PING: u8 = 6;
    let directory = Directory::new();
    let mut pinging = config(directory.path());
    pinging.grpc_keepalive_interval = Duration::from_millis(200);
    pinging.grpc_keepalive_timeout = Duration::from_millis(300);
    let server = Server::start(pinging).await.unwrap();
    let address = server.client_urls()[0].address().to_owned();
    let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
    // What every connection begins with, and settings that change nothing.
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut heard = Vec::new();
    let end = silent.read_to_end(&mut heard);
    let ended = tokio::time::timeout(Duration::from_secs(10), end).await;
    assert!(ended.is_ok(), "it is still connected");
    let mut frames = &heard[..];
    let mut kinds = Vec::new();
    while let Some((head, rest)) = frames.split_first_chunk::<9>() {
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        kinds.push(head[3]);
        frames = rest.get(length..).unwrap_or_default();
    }
    assert!(kinds.contains(&PING), "{kinds:?}");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_go_without_asking_before() {
    // A member that is left alone campaigns, and with each campaign its term grows; unless it asks first, and nobody answers.
    for pre_vote in [false, true] {
        let mut cluster = Cluster::start(3, |config| config.pre_vote = pre_vote).await;
        let left = cluster.follower().await;
        for number in (0..3).filter(|number| *number != left) {
            cluster.stop(number).await;
        }
        let handle = cluster.server(left).handle();
        until("it sees no leader", async || handle.leader().0.is_none()).await;
        let term = || handle.node().metrics().term;
        let before = term();
        if pre_vote {
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(term(), before);
        } else {
            until("it campaigns", async || term() >= before + 2).await;
        }
        cluster.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_may_ping_as_often_as_they_like() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const PINGS: usize = 200;
    const PONG: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0often!!!";
    let directory = Directory::new();
    let server = alone(&directory).await;
    let address = server.client_urls()[0].address().to_owned();
    let mut often = tokio::net::TcpStream::connect(address).await.unwrap();
    often.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut heard = Vec::new();
    let pongs = |heard: &[u8]| heard.windows(PONG.len()).filter(|part| *part == PONG).count();
    for number in 1..=PINGS {
        often.write_all(b"\0\0\x08\x06\0\0\0\0\0often!!!").await.unwrap();
        while pongs(&heard) < number {
            let mut part = [0; 4096];
            let count = often.read(&mut part).await.unwrap();
            assert!(count > 0, "it was closed after {number} pings");
            heard.extend_from_slice(&part[..count]);
        }
    }
    server.shutdown().await;
}
