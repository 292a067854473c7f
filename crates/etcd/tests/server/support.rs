//! Clusters in this process, and clients of them.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_etcd::proto::etcdserverpb as pb;
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::watch_client::WatchClient;
use quorate_etcd::{Config, Server, Url};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A directory that goes when the test ends.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("quorate-etcd-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Settings of a member for a test: short times, ports that the system gives.
pub(crate) fn config(directory: &Path) -> Config {
    let mut config = Config::new(directory);
    config.listen_client_urls = vec![Url::http("127.0.0.1", 0)];
    config.listen_peer_urls = vec![Url::http("127.0.0.1", 0)];
    config.heartbeat_interval = Duration::from_millis(30);
    config.election_timeout = Duration::from_millis(300);
    config
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Clients of one member.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) kv: KvClient<Channel>,
    pub(crate) watch: WatchClient<Channel>,
    pub(crate) lease: LeaseClient<Channel>,
    pub(crate) cluster: ClusterClient<Channel>,
    pub(crate) maintenance: MaintenanceClient<Channel>,
    pub(crate) channel: Channel,
}

impl Clients {
    pub(crate) async fn of(server: &Server) -> Self {
        Self::at(&server.client_urls()[0].to_string()).await
    }

    pub(crate) async fn at(url: &str) -> Self {
        let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        let unlimited = usize::MAX;
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(unlimited),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(unlimited),
            lease: LeaseClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            channel,
        }
    }

    pub(crate) async fn put(&mut self, key: &str, value: &str) -> i64 {
        let request = put(key, value);
        self.kv.put(request).await.unwrap().into_inner().header.unwrap().revision
    }

    pub(crate) async fn get(&mut self, key: &str) -> Option<String> {
        let response = self.kv.range(get(key)).await.unwrap().into_inner();
        response.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
    }

    pub(crate) async fn grant(&mut self, ttl: i64, id: i64) -> i64 {
        let request = pb::LeaseGrantRequest { ttl, id };
        self.lease.lease_grant(request).await.unwrap().into_inner().id
    }
}

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..pb::PutRequest::default()
    }
}

pub(crate) fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..pb::RangeRequest::default() }
}

pub(crate) fn prefix(key: &str) -> pb::RangeRequest {
    let mut end = key.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: end.into(),
        ..pb::RangeRequest::default()
    }
}

/// Code and text of an error.
pub(crate) fn error<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}

/// Whether two errors are the same to a client.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str) {
    assert_eq!(error(result), (code, text.to_owned()));
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "{what} does not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A member alone.
pub(crate) async fn alone(directory: &Directory) -> Server {
    let server = Server::start(config(directory.path())).await.unwrap();
    server.handle().ready().await;
    server
}

/// Several members of one cluster.
pub(crate) struct Cluster {
    pub(crate) directories: Vec<Directory>,
    pub(crate) configs: Vec<Config>,
    pub(crate) servers: Vec<Option<Server>>,
}

impl Cluster {
    pub(crate) async fn start(count: usize, tune: impl Fn(&mut Config)) -> Self {
        let directories: Vec<Directory> = (0..count).map(|_| Directory::new()).collect();
        let members: Vec<(String, Vec<Url>)> = (0..count)
            .map(|number| (format!("m{number}"), vec![Url::http("127.0.0.1", free_port())]))
            .collect();
        let mut configs = Vec::new();
        for (directory, (name, urls)) in directories.iter().zip(&members) {
            let mut config = config(directory.path());
            config.name.clone_from(name);
            config.listen_peer_urls.clone_from(urls);
            config.initial_cluster.clone_from(&members);
            tune(&mut config);
            configs.push(config);
        }
        let mut servers = Vec::new();
        for config in &configs {
            servers.push(Some(Server::start(config.clone()).await.unwrap()));
        }
        let cluster = Self { directories, configs, servers };
        for server in cluster.servers.iter().flatten() {
            server.handle().ready().await;
        }
        cluster
    }

    pub(crate) fn server(&self, number: usize) -> &Server {
        self.servers[number].as_ref().unwrap()
    }

    /// The number of the one that leads.
    pub(crate) async fn leader(&self) -> usize {
        let mut leader = None;
        until("somebody leads", async || {
            leader = self
                .servers
                .iter()
                .position(|server| server.as_ref().is_some_and(|server| server.handle().leads()));
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    pub(crate) async fn follower(&self) -> usize {
        let leader = self.leader().await;
        (0..self.servers.len())
            .find(|number| *number != leader && self.servers[*number].is_some())
            .unwrap()
    }

    pub(crate) async fn stop(&mut self, number: usize) {
        self.servers[number].take().unwrap().shutdown().await;
    }

    pub(crate) async fn restart(&mut self, number: usize) {
        let server = Server::start(self.configs[number].clone()).await.unwrap();
        server.handle().ready().await;
        self.servers[number] = Some(server);
    }

    pub(crate) async fn shutdown(mut self) {
        for server in std::mem::take(&mut self.servers).into_iter().flatten() {
            server.shutdown().await;
        }
    }
}
