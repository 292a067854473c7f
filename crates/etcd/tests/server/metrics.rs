//! Every family of metrics that etcd's dashboards and alerts know is there, and moves when its subject does.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{Clients, Cluster, Directory, config, get, prefix, put, until};
use quorate_etcd::proto::etcdserverpb as pb;
use quorate_etcd::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;

/// Families of an etcd server, and what is theirs: `c`ounter, `g`auge, `h`istogram.
const FAMILIES: &str = "
    etcd_cluster_version g
    etcd_debugging_auth_revision g
    etcd_debugging_disk_backend_commit_rebalance_duration_seconds h
    etcd_debugging_disk_backend_commit_spill_duration_seconds h
    etcd_debugging_disk_backend_commit_write_duration_seconds h
    etcd_debugging_lease_granted_total c
    etcd_debugging_lease_renewed_total c
    etcd_debugging_lease_revoked_total c
    etcd_debugging_lease_ttl_total h
    etcd_debugging_mvcc_compact_revision g
    etcd_debugging_mvcc_current_revision g
    etcd_debugging_mvcc_db_compaction_keys_total c
    etcd_debugging_mvcc_db_compaction_last g
    etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds h
    etcd_debugging_mvcc_db_compaction_total_duration_milliseconds h
    etcd_debugging_mvcc_events_total c
    etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds h
    etcd_debugging_mvcc_keys_total g
    etcd_debugging_mvcc_pending_events_total g
    etcd_debugging_mvcc_slow_watcher_total g
    etcd_debugging_mvcc_total_put_size_in_bytes g
    etcd_debugging_mvcc_watch_stream_total g
    etcd_debugging_mvcc_watcher_total g
    etcd_debugging_server_alarms g
    etcd_debugging_server_lease_expired_total c
    etcd_debugging_server_watch_send_loop_control_stream_duration_seconds h
    etcd_debugging_server_watch_send_loop_progress_duration_seconds h
    etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds h
    etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds h
    etcd_debugging_snap_save_marshalling_duration_seconds h
    etcd_debugging_snap_save_total_duration_seconds h
    etcd_debugging_store_expires_total c
    etcd_debugging_store_watch_requests_total c
    etcd_debugging_store_watchers g
    etcd_disk_backend_commit_duration_seconds h
    etcd_disk_backend_defrag_duration_seconds h
    etcd_disk_backend_snapshot_duration_seconds h
    etcd_disk_defrag_inflight g
    etcd_disk_wal_fsync_duration_seconds h
    etcd_disk_wal_write_bytes_total g
    etcd_disk_wal_write_duration_seconds h
    etcd_grpc_proxy_cache_hits_total g
    etcd_grpc_proxy_cache_keys_total g
    etcd_grpc_proxy_cache_misses_total g
    etcd_grpc_proxy_events_coalescing_total c
    etcd_grpc_proxy_watchers_coalescing_total g
    etcd_mvcc_db_open_read_transactions g
    etcd_mvcc_db_total_size_in_bytes g
    etcd_mvcc_db_total_size_in_use_in_bytes g
    etcd_mvcc_delete_total c
    etcd_mvcc_hash_duration_seconds h
    etcd_mvcc_hash_rev_duration_seconds h
    etcd_mvcc_put_total c
    etcd_mvcc_range_total c
    etcd_mvcc_txn_total c
    etcd_network_active_peers g
    etcd_network_client_grpc_received_bytes_total c
    etcd_network_client_grpc_sent_bytes_total c
    etcd_network_disconnected_peers_total c
    etcd_network_known_peers g
    etcd_network_peer_received_bytes_total c
    etcd_network_peer_received_failures_total c
    etcd_network_peer_round_trip_time_seconds h
    etcd_network_peer_sent_bytes_total c
    etcd_network_peer_sent_failures_total c
    etcd_network_server_stream_failures_total c
    etcd_network_snapshot_receive_failures c
    etcd_network_snapshot_receive_inflights_total g
    etcd_network_snapshot_receive_success c
    etcd_network_snapshot_receive_total_duration_seconds h
    etcd_network_snapshot_send_failures c
    etcd_network_snapshot_send_inflights_total g
    etcd_network_snapshot_send_success c
    etcd_network_snapshot_send_total_duration_seconds h
    etcd_server_apply_duration_seconds h
    etcd_server_client_requests_total c
    etcd_server_feature_enabled g
    etcd_server_go_version g
    etcd_server_has_leader g
    etcd_server_health_failures c
    etcd_server_health_success c
    etcd_server_healthcheck g
    etcd_server_healthchecks_total c
    etcd_server_heartbeat_send_failures_total c
    etcd_server_id g
    etcd_server_is_leader g
    etcd_server_is_learner g
    etcd_server_leader_changes_seen_total c
    etcd_server_learner_promote_failures c
    etcd_server_learner_promote_successes c
    etcd_server_proposals_applied_total g
    etcd_server_proposals_committed_total g
    etcd_server_proposals_failed_total c
    etcd_server_proposals_pending g
    etcd_server_quota_backend_bytes g
    etcd_server_range_duration_seconds h
    etcd_server_read_indexes_failed_total c
    etcd_server_request_duration_seconds h
    etcd_server_slow_apply_total c
    etcd_server_slow_read_indexes_total c
    etcd_server_snapshot_apply_in_progress_total g
    etcd_server_version g
    etcd_snap_db_fsync_duration_seconds h
    etcd_snap_db_save_total_duration_seconds h
    etcd_snap_fsync_duration_seconds h
    grpc_server_handled_total c
    grpc_server_handling_seconds h
    grpc_server_msg_received_total c
    grpc_server_msg_sent_total c
    grpc_server_started_total c
    os_fd_limit g
    os_fd_used g
    process_cpu_seconds_total c
    process_max_fds g
    process_open_fds g
    process_resident_memory_bytes g
    process_start_time_seconds g
    process_virtual_memory_bytes g
    promhttp_metric_handler_requests_in_flight g
    promhttp_metric_handler_requests_total c
";

/// Families that are not there, and the reason. `docs/etcd-compat.md` lists them.
const ABSENT: [&str; 4] = [
    "etcd_debugging_store_reads_failed_total",
    "etcd_debugging_store_reads_total",
    "etcd_debugging_store_writes_failed_total",
    "etcd_debugging_store_writes_total",
];

/// A page of metrics.
pub(crate) struct Page(String);

impl Page {
    pub(crate) async fn of(server: &Server) -> Self {
        let url = server.client_urls()[0].address().to_owned();
        let mut stream = tokio::net::TcpStream::connect(url).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        Self(answer)
    }

    /// The families with their kinds.
    fn families(&self) -> BTreeMap<&str, &str> {
        let types = self.0.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.filter_map(|family| family.split_once(' ')).collect()
    }

    /// The sum of all samples of that name whose labels contain `labels`.
    pub(crate) fn value(&self, name: &str, labels: &str) -> f64 {
        let samples = self.0.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (found, rest) = sample.split_once('{').unwrap_or((sample, ""));
            (found == name && rest.contains(labels)).then(|| value.parse::<f64>().unwrap())
        });
        samples.sum()
    }

    /// How often something was timed.
    fn count(&self, name: &str, labels: &str) -> f64 {
        self.value(&format!("{name}_count"), labels)
    }
}

fn kind_of(letter: &str) -> &'static str {
    match letter {
        "c" => "counter",
        "g" => "gauge",
        _ => "histogram",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_family_is_there_and_moves() {
    let directory = Directory::new();
    let mut config = config(directory.path());
    config.extensive_metrics = true;
    config.watch_progress_notify_interval = Duration::from_millis(200);
    let server = Server::start(config).await.unwrap();
    server.handle().ready().await;
    until("the version is known", async || server.handle().cluster_version().is_some()).await;
    let before = Page::of(&server).await;
    let families = before.families();
    for line in FAMILIES.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(families.get(name), Some(&kind_of(kind)), "{name}");
    }
    for name in ABSENT {
        assert!(!families.contains_key(name), "{name} is there");
    }

    let mut clients = Clients::of(&server).await;
    let (requests, receiver) = tokio::sync::mpsc::channel(4);
    let create = pb::WatchCreateRequest {
        key: "k".into(),
        progress_notify: true,
        ..pb::WatchCreateRequest::default()
    };
    let create = pb::watch_request::RequestUnion::CreateRequest(create);
    requests.send(pb::WatchRequest { request_union: Some(create) }).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut watch = clients.watch.watch(stream).await.unwrap().into_inner();
    assert!(watch.next().await.unwrap().unwrap().created);
    for number in 0..20 {
        clients.put("k", &number.to_string()).await;
        assert_eq!(watch.next().await.unwrap().unwrap().events.len(), 1);
    }
    // Nothing happens for a while, which is told, too.
    let progress = tokio::time::timeout(Duration::from_secs(5), watch.next()).await;
    assert!(progress.unwrap().unwrap().unwrap().events.is_empty());
    clients.put("other", "v").await;
    clients.get("k").await;
    clients.kv.range(prefix("k")).await.unwrap();
    let delete =
        pb::DeleteRangeRequest { key: "other".into(), ..pb::DeleteRangeRequest::default() };
    clients.kv.delete_range(delete).await.unwrap();
    let op =
        |key| pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put(key, "v"))) };
    let txn = pb::TxnRequest { success: vec![op("t1"), op("t2")], ..pb::TxnRequest::default() };
    clients.kv.txn(txn).await.unwrap();
    clients.grant(100, 1).await;
    clients.grant(100, 2).await;
    clients.lease.lease_revoke(pb::LeaseRevokeRequest { id: 2 }).await.unwrap();
    let alive = tokio_stream::once(pb::LeaseKeepAliveRequest { id: 1 });
    let mut alive = clients.lease.lease_keep_alive(alive).await.unwrap().into_inner();
    assert_eq!(alive.next().await.unwrap().unwrap().ttl, 100);
    clients.grant(1, 3).await;
    let compact = pb::CompactionRequest { revision: 15, physical: true };
    clients.kv.compact(compact).await.unwrap();
    clients.maintenance.hash(pb::HashRequest {}).await.unwrap();
    clients.maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap();
    clients.maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
    let mut blobs =
        clients.maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    while blobs.next().await.is_some() {}
    let alarm = pb::AlarmRequest { action: 1, member_id: 9, alarm: 1 };
    clients.maintenance.alarm(alarm).await.unwrap();
    let reader = server.handle().reader();
    until("a lease runs out", async || reader.leases().len() == 1).await;

    let page = Page::of(&server).await;
    for (name, least) in [
        ("etcd_debugging_lease_granted_total", 3.0),
        ("etcd_debugging_lease_renewed_total", 1.0),
        ("etcd_debugging_lease_revoked_total", 1.0),
        ("etcd_debugging_lease_ttl_total_count", 3.0),
        ("etcd_debugging_mvcc_compact_revision", 15.0),
        ("etcd_debugging_mvcc_current_revision", 24.0),
        ("etcd_debugging_mvcc_db_compaction_keys_total", 10.0),
        ("etcd_debugging_mvcc_db_compaction_last", 15.0),
        ("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count", 1.0),
        ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count", 1.0),
        ("etcd_debugging_mvcc_events_total", 20.0),
        ("etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds_count", 1.0),
        ("etcd_debugging_mvcc_keys_total", 3.0),
        ("etcd_debugging_mvcc_total_put_size_in_bytes", 50.0),
        ("etcd_debugging_mvcc_watch_stream_total", 1.0),
        ("etcd_debugging_mvcc_watcher_total", 1.0),
        ("etcd_debugging_server_alarms", 1.0),
        ("etcd_debugging_server_lease_expired_total", 1.0),
        ("etcd_debugging_server_watch_send_loop_control_stream_duration_seconds_count", 1.0),
        ("etcd_debugging_server_watch_send_loop_progress_duration_seconds_count", 1.0),
        ("etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds_count", 20.0),
        ("etcd_disk_backend_commit_duration_seconds_count", 1.0),
        ("etcd_disk_backend_defrag_duration_seconds_count", 1.0),
        ("etcd_disk_backend_snapshot_duration_seconds_count", 1.0),
        ("etcd_disk_wal_fsync_duration_seconds_count", 20.0),
        ("etcd_disk_wal_write_bytes_total", 1000.0),
        ("etcd_disk_wal_write_duration_seconds_count", 20.0),
        ("etcd_mvcc_db_total_size_in_bytes", 4096.0),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", 100.0),
        ("etcd_mvcc_delete_total", 1.0),
        ("etcd_mvcc_hash_duration_seconds_count", 1.0),
        ("etcd_mvcc_hash_rev_duration_seconds_count", 1.0),
        ("etcd_mvcc_put_total", 23.0),
        ("etcd_mvcc_range_total", 2.0),
        ("etcd_mvcc_txn_total", 1.0),
        ("etcd_network_client_grpc_received_bytes_total", 100.0),
        ("etcd_network_client_grpc_sent_bytes_total", 100.0),
        ("etcd_server_apply_duration_seconds_count", 30.0),
        ("etcd_server_client_requests_total", 30.0),
        ("etcd_server_has_leader", 1.0),
        ("etcd_server_is_leader", 1.0),
        ("etcd_server_leader_changes_seen_total", 1.0),
        ("etcd_server_proposals_applied_total", 30.0),
        ("etcd_server_proposals_committed_total", 30.0),
        ("etcd_server_quota_backend_bytes", 2_147_483_648.0),
        ("etcd_server_range_duration_seconds_count", 2.0),
        ("etcd_server_request_duration_seconds_count", 30.0),
        ("grpc_server_handled_total", 30.0),
        ("grpc_server_handling_seconds_count", 30.0),
        ("grpc_server_msg_received_total", 30.0),
        ("grpc_server_msg_sent_total", 50.0),
        ("grpc_server_started_total", 30.0),
        ("os_fd_used", 3.0),
        ("process_cpu_seconds_total", 0.01),
        ("process_resident_memory_bytes", 1e6),
        ("promhttp_metric_handler_requests_total", 2.0),
    ] {
        let value = page.value(name, "");
        assert!(value >= least, "{name} is {value} and should be {least} or more");
    }
    assert_eq!(page.value("etcd_server_proposals_pending", ""), 0.0);
    for op in ["Put", "DeleteRange", "Txn", "Compaction", "LeaseGrant", "LeaseRevoke", "Alarm"] {
        let labels = format!("op=\"{op}\"");
        assert!(page.count("etcd_server_apply_duration_seconds", &labels) >= 1.0, "{op}");
    }
    drop(requests);
    drop(watch);
    until("the watch is gone", async || {
        Page::of(&server).await.value("etcd_debugging_mvcc_watch_stream_total", "") == 0.0
    })
    .await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_count_what_passes_between_them() {
    // The log is short, so that whoever was away needs a snapshot.
    let tune = |config: &mut Config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
    };
    let mut cluster = Cluster::start(3, tune).await;
    let leader = cluster.leader().await;
    let away = cluster.follower().await;
    let id = cluster.server(away).handle().member_id();
    cluster.stop(away).await;
    let mut clients = Clients::of(cluster.server(leader)).await;
    let value = "v".repeat(1000);
    let handle = cluster.server(leader).handle();
    let seen = handle.node().status().await.unwrap().last_log.index;
    // The log is cut when the data are durable, which takes a moment.
    let mut written = 0;
    while handle.node().status().await.unwrap().compacted.index <= seen {
        for number in 0..50 {
            clients.put(&format!("k{number}"), &value).await;
        }
        written += 50;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(handle);
    cluster.restart(away).await;
    let revision = || cluster.server(away).handle().reader().revision().0;
    until("it has all of it", async || revision() > written).await;
    let to = format!("To=\"{id:x}\"");
    let from_leader = format!("From=\"{:x}\"", cluster.server(leader).handle().member_id());
    until("it was counted", async || {
        let page = Page::of(cluster.server(leader)).await;
        let there = Page::of(cluster.server(away)).await;
        page.value("etcd_network_peer_sent_bytes_total", &to) > 1000.0
            && page.value("etcd_network_peer_received_bytes_total", "") > 1000.0
            && page.count("etcd_network_peer_round_trip_time_seconds", &to) >= 1.0
            && page.value("etcd_network_peer_sent_failures_total", &to) >= 1.0
            && page.value("etcd_network_disconnected_peers_total", "") >= 1.0
            && page.value("etcd_network_active_peers", "") == 2.0
            && page.value("etcd_network_snapshot_send_success", &to) >= 1.0
            && page.count("etcd_network_snapshot_send_total_duration_seconds", &to) >= 1.0
            && page.value("etcd_network_snapshot_send_inflights_total", &to) == 0.0
            && there.value("etcd_network_snapshot_receive_success", &from_leader) >= 1.0
            && there.count("etcd_network_snapshot_receive_total_duration_seconds", &from_leader)
                >= 1.0
            && there.value("etcd_network_snapshot_receive_inflights_total", &from_leader) == 0.0
    })
    .await;

    // What fails is counted where it was asked for.
    let unknown = pb::MemberPromoteRequest { id: 7 };
    clients.cluster.member_promote(unknown).await.unwrap_err();
    let page = Page::of(cluster.server(leader)).await;
    let why = "Reason=\"etcdserver: member not found\"";
    assert_eq!(page.value("etcd_server_learner_promote_failures", why), 1.0);
    for number in (0..3).filter(|number| *number != leader) {
        cluster.stop(number).await;
    }
    let (put, read) = {
        let mut others = clients.clone();
        tokio::join!(clients.kv.put(put("k", "w")), others.kv.range(get("k")))
    };
    assert!(put.is_err() && read.is_err());
    let page = Page::of(cluster.server(leader)).await;
    for name in [
        "etcd_server_proposals_failed_total",
        "etcd_server_read_indexes_failed_total",
        "etcd_server_slow_read_indexes_total",
    ] {
        assert!(page.value(name, "") >= 1.0, "{name}");
    }
    cluster.shutdown().await;
}
