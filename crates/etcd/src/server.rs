//! Starting and stopping a member.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use quorate::{Durable, Node, NodeId};
use quorate_kv::{Hub, Lessor, LessorConfig, Store, StoreConfig, WatchConfig};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{ClusterState, Config};
use crate::data::Data;
use crate::error::{StartError, Stopped};
use crate::front::{self, Front};
use crate::machine::Machine;
use crate::member::{Inner, Member, hex};
use crate::members;
use crate::metrics::{Metrics, Slow};
use crate::peer_port::PeerPort;
use crate::proto::host::{Identity, InitialMember};
use crate::url::{Scheme, Url};
use crate::{alone, http, identity, join};

/// A running member: it replicates, and serves clients. Dropping it stops it as a crash would;
/// [`shutdown`](Self::shutdown) is kinder.
#[derive(Debug)]
pub struct Server {
    member: Member,
    node: Option<Node<Durable<Machine>>>,
    client_urls: Vec<Url>,
    tasks: Vec<JoinHandle<()>>,
}

/// How long requests under way may take when the server stops.
const GRACE: Duration = Duration::from_secs(1);

impl Server {
    /// Starts a member. It serves when this returns; requests wait for a leader. [`Member::ready`] says when the others know
    /// of it.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, |_| Router::new()).await
    }

    /// The same, with plain HTTP beside gRPC on the clients' ports.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start_with(
        mut config: Config,
        http: impl FnOnce(&Member) -> Router,
    ) -> Result<Self, StartError> {
        check(&config)?;
        if config.initial_advertise_peer_urls.is_empty() {
            config.initial_advertise_peer_urls.clone_from(&config.listen_peer_urls);
        }
        let (listeners, client_urls) = listen(&config.listen_client_urls).await?;
        let (http_listeners, _) = listen(&config.listen_client_http_urls).await?;
        let (metrics_listeners, _) = listen(&config.listen_metrics_urls).await?;
        if config.advertise_client_urls.is_empty() {
            config.advertise_client_urls.clone_from(&client_urls);
        }
        let path = config.data_dir.clone();
        let in_data_dir = |why| StartError::DataDir { path: path.clone(), why };
        let directory = identity::make_directory(&config.data_dir).map_err(in_data_dir)?;
        let seed = random().map_err(in_data_dir)?;
        let mut identity = match identity::read(&directory).map_err(in_data_dir)? {
            Some(identity) if identity::is_removed(&directory) => {
                return Err(StartError::Removed { member: identity.member });
            }
            Some(identity) => alone::decide(&directory, &identity, config.force_new_cluster, seed)
                .map_err(in_data_dir)?,
            None => {
                let identity = new_identity(&config).await?;
                let identity = Identity { forced: config.force_new_cluster, ..identity };
                identity::write(&directory, &identity).map_err(in_data_dir)?;
                identity
            }
        };
        let known = Arc::new(OnceLock::new());
        let (node, data) = start_node(&config, &identity, &directory, &known).await?;
        if identity.former_cluster != 0 {
            identity =
                alone::done(&directory, identity, config.force_new_cluster).map_err(in_data_dir)?;
        }
        let member = Member(Arc::new(Inner {
            cluster_id: identity.cluster,
            member_id: identity.member,
            node: node.handle(),
            data,
            request_timeout: config.request_timeout(),
            quota_bytes: config.quota_bytes(),
            is_learner: AtomicBool::new(false),
            leaderless: watch::channel(false).0,
            published: watch::channel(false).0,
            stopping: watch::channel(false).0,
            removed: watch::channel(false).0,
            ids: AtomicU64::new(seed),
            client_urls: config.advertise_client_urls.iter().map(ToString::to_string).collect(),
            config,
        }));
        member.look_at_role();
        // Not by a handle that would keep the member alive: the node belongs to it.
        let weak = Arc::downgrade(&member.0);
        let _ = known.set(weak.clone());
        node.answer_with(move |_, question| {
            let member = weak.upgrade().map(Member);
            async move {
                match member {
                    Some(member) => member.answer_bytes(question).await,
                    None => bytes::Bytes::new(),
                }
            }
        });
        let stopping = || member.0.stopping.subscribe();
        let mut tasks = vec![
            tokio::spawn(member.clone().keep(stopping())),
            tokio::spawn(member.clone().keep_watches(stopping())),
            tokio::spawn(member.clone().keep_compacting(stopping())),
            tokio::spawn(member.clone().keep_history_short(stopping())),
            tokio::spawn(member.clone().publish(stopping())),
        ];
        tasks.push(tokio::spawn(member.clone().observe(stopping())));
        let metrics = || Arc::clone(member.metrics());
        let access = member.config().access.clone();
        let pages = http(&member).merge(http::client_router(member.clone(), metrics(), access));
        let only_metrics = http::metrics_router(member.clone(), metrics());
        let beside = if http_listeners.is_empty() { pages.clone() } else { Router::new() };
        for (listeners, router) in
            [(listeners, beside), (http_listeners, pages), (metrics_listeners, only_metrics)]
        {
            let front = Front::new(&member, router);
            for listener in listeners {
                let serving = front::serve(listener, front.clone(), member.clone(), stopping());
                tasks.push(tokio::spawn(serving));
            }
        }
        Ok(Self { member, node: Some(node), client_urls, tasks })
    }

    /// Where clients are served, with the ports that the system chose.
    #[must_use]
    pub fn client_urls(&self) -> &[Url] {
        &self.client_urls
    }

    /// The member, to look at it and to serve it in other ways.
    #[must_use]
    pub fn handle(&self) -> Member {
        self.member.clone()
    }

    /// Waits until the member does not run any more by itself.
    pub async fn stopped(&self) -> Stopped {
        // Others are told of the removal before this one goes.
        const LINGER: Duration = Duration::from_secs(1);
        let mut removed = self.member.0.removed.subscribe();
        tokio::select! {
            why = self.member.0.node.stopped() => Stopped::Node(why),
            _ = removed.wait_for(|removed| *removed) => {
                tokio::time::sleep(LINGER).await;
                Stopped::Removed
            }
        }
    }

    /// Stops the member. A leader hands leadership over first; requests under way are given a moment. Returns when its data
    /// are closed.
    pub async fn shutdown(mut self) {
        let member = self.member.clone();
        if let Some(node) = self.node.take() {
            let end = async {
                // New connections are refused from now on, and streams end.
                member.0.stopping.send_replace(true);
                member.0.data.hub.shutdown();
            };
            tokio::join!(node.shutdown(), end);
        }
        let tasks = std::mem::take(&mut self.tasks);
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        let _ = tokio::time::timeout(GRACE, all).await;
        let close = move || {
            // The log has it all; this spares the next start the work.
            let _ = member.0.data.flush_now();
            member.0.data.close();
        };
        let _ = tokio::task::spawn_blocking(close).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.member.0.stopping.send_replace(true);
        self.member.0.data.hub.shutdown();
    }
}

/// The file of the store.
pub(crate) const DATABASE: &str = "db";

fn setting<T>(why: impl Into<String>) -> Result<T, StartError> {
    Err(StartError::Setting { why: why.into() })
}

fn check(config: &Config) -> Result<(), StartError> {
    let urls = [
        ("listen-client-urls", &config.listen_client_urls),
        ("listen-client-http-urls", &config.listen_client_http_urls),
        ("listen-metrics-urls", &config.listen_metrics_urls),
        ("listen-peer-urls", &config.listen_peer_urls),
        ("initial-advertise-peer-urls", &config.initial_advertise_peer_urls),
    ];
    for (name, urls) in urls {
        if let Some(url) = urls.iter().find(|url| url.scheme() != Scheme::Http) {
            return setting(format!("{name}: {url}: only http is supported so far"));
        }
    }
    if config.listen_client_urls.is_empty() {
        return setting("listen-client-urls: say where clients are served");
    }
    if config.listen_peer_urls.is_empty() {
        return setting("listen-peer-urls: say where other members are served");
    }
    Ok(())
}

async fn listen(urls: &[Url]) -> Result<(Vec<TcpListener>, Vec<Url>), StartError> {
    let (mut listeners, mut bound) = (Vec::new(), Vec::new());
    for url in urls {
        let failed = |why| StartError::Listen { url: url.clone(), why };
        let listener = front::listen(url.address()).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        bound.push(url.with_port(address.port()));
        listeners.push(listener);
    }
    Ok((listeners, bound))
}

fn texts(urls: &[Url]) -> Vec<String> {
    let mut texts: Vec<String> = urls.iter().map(ToString::to_string).collect();
    texts.sort_unstable();
    texts
}

/// Who this member will be.
async fn new_identity(config: &Config) -> Result<Identity, StartError> {
    match config.initial_cluster_state {
        ClusterState::New => founder(config),
        ClusterState::Existing => {
            let (cluster, own_urls) = initial_cluster(config)?;
            join::identity(config, &cluster, &own_urls).await
        }
    }
}

type InitialCluster = Vec<(String, Vec<Url>)>;

/// The members as the settings name them, and this member's peer URLs.
fn initial_cluster(config: &Config) -> Result<(InitialCluster, Vec<String>), StartError> {
    let own_urls = texts(&config.initial_advertise_peer_urls);
    let mut cluster = config.initial_cluster.clone();
    if cluster.is_empty() {
        cluster.push((config.name.clone(), config.initial_advertise_peer_urls.clone()));
    }
    let Some((_, urls)) = cluster.iter().find(|(name, _)| *name == config.name) else {
        return setting(format!(
            "couldn't find local name \"{}\" in the initial cluster configuration",
            config.name
        ));
    };
    if texts(urls) != own_urls {
        return setting(format!(
            "--initial-cluster has {}={} but missing from --initial-advertise-peer-urls={}",
            config.name,
            texts(urls).join(","),
            own_urls.join(",")
        ));
    }
    Ok((cluster, own_urls))
}

/// Who a member of a new cluster is.
pub(crate) fn founder(config: &Config) -> Result<Identity, StartError> {
    let (cluster, own_urls) = initial_cluster(config)?;
    let token = &config.initial_cluster_token;
    let members: Vec<InitialMember> = cluster
        .iter()
        .map(|(name, urls)| {
            let peer_urls = texts(urls);
            let member = members::member_id(&peer_urls, token, None);
            InitialMember { member, name: name.clone(), peer_urls }
        })
        .collect();
    let own = members::member_id(&own_urls, token, None);
    Ok(Identity {
        format: identity::FORMAT,
        cluster: members::cluster_id(members.iter().map(|member| member.member)),
        member: own,
        members,
        ..Identity::default()
    })
}

fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    let count = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if count < bytes.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(u64::from_le_bytes(bytes))
}

/// A client of a follower is answered when that one has applied, and so waits for the news of the commit. With many clients
/// it comes with the next entries anyway; a single one would wait some milliseconds longer.
const COMMIT_NOTICE_DELAY_US: u64 = 0;

/// What an entry or a message may be larger than the request in it.
const AROUND_ENTRY_BYTES: usize = 1 << 20;

type Known = Arc<OnceLock<std::sync::Weak<Inner>>>;

async fn start_node(
    config: &Config,
    identity: &Identity,
    directory: &Path,
    known: &Known,
) -> Result<(Node<Durable<Machine>>, Arc<Data>), StartError> {
    let path = directory.join(DATABASE);
    let seed = random().map_err(|why| StartError::DataDir { path: path.clone(), why })?;
    let store_config = StoreConfig {
        values_bytes_max: config.values_bytes_max,
        cache_bytes: config.cache_bytes,
        unsynced: config.unsafe_no_fsync,
        ..StoreConfig::default()
    };
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let election_us = micros(config.election_timeout);
    let watch_config = WatchConfig {
        response_bytes_max: config.max_request_bytes + (512 << 10),
        progress_interval_us: micros(config.watch_progress_notify_interval),
        seed,
    };
    let checkpoints = config.lease_checkpoint.then(|| micros(config.lease_checkpoint_interval));
    let lessor_config =
        LessorConfig { extension_us: 2 * election_us, checkpoint_interval_us: checkpoints };
    let metrics = Arc::new(Metrics::new(
        config.extensive_metrics,
        Slow { call: config.warning_unary_request_duration, apply: config.warning_apply_duration },
    ));
    let (file, data_file, quota) = (path.clone(), path.clone(), config.quota_bytes());
    // Reads all keys.
    let opened = tokio::task::spawn_blocking(move || {
        Machine::open(file, store_config, |store: Store, attributes| {
            let reader = store.reader();
            let hub = Hub::new(watch_config, reader.revision(), reader.compacted());
            Data::new(store, hub, Lessor::new(lessor_config), attributes, metrics, data_file, quota)
        })
    });
    let opened = opened.await.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    let (machine, data) = opened.map_err(|why| StartError::DataDir { path, why })?;

    let contacts: Vec<(u64, String)> = identity
        .members
        .iter()
        .map(|member| (member.member, members::context(&member.name, &member.peer_urls)))
        .collect();
    let request_timeout = config.request_timeout();
    let heartbeat_us = micros(config.heartbeat_interval);
    let (pre_vote, snapshot_count, kept) =
        (config.pre_vote, config.snapshot_count, config.snapshot_catchup_entries);
    let entry_bytes_max = config.max_request_bytes + AROUND_ENTRY_BYTES;
    let mut peer_addresses = Vec::new();
    for url in &config.listen_peer_urls {
        let resolved = front::resolve(url.address()).await;
        let resolved = resolved.map_err(|why| StartError::Listen { url: url.clone(), why })?;
        peer_addresses.push(resolved[0].to_string());
    }
    let peer_port = PeerPort::new(Arc::clone(known));
    let builder = Node::builder(identity.member, Durable(machine))
        .data_dir(directory)
        .cluster(hex(identity.cluster))
        .address_of(members::address_of)
        .listen(peer_addresses.join(","))
        .tcp(move |tcp| {
            tcp.security = Arc::new(peer_port);
            tcp.frame_bytes_max = tcp.frame_bytes_max.max(entry_bytes_max + AROUND_ENTRY_BYTES);
        })
        .tune(move |tuning| {
            tuning.core.election_timeout_min_us = election_us;
            tuning.core.election_timeout_max_us = 2 * election_us;
            tuning.core.heartbeat_interval_us = heartbeat_us;
            tuning.core.pre_vote = pre_vote;
            tuning.core.commit_notice_delay_us = COMMIT_NOTICE_DELAY_US;
            tuning.core.entry_bytes_max = tuning.core.entry_bytes_max.max(entry_bytes_max);
            tuning.node.compact_entries = snapshot_count.max(1);
            tuning.node.keep_entries = kept.min(snapshot_count.max(1));
            tuning.node.forward_timeout_us = micros(request_timeout);
            tuning.node.read_wait_us = micros(request_timeout);
            tuning.leader_wait = request_timeout;
        });
    let builder = if config.unsafe_no_fsync { builder.unsynced_log() } else { builder };
    let builder = match identity.former_cluster {
        0 => builder,
        former => builder.abandon_others(hex(former)),
    };
    let builder = if identity.joins { builder.join(contacts) } else { builder.members(contacts) };
    let node = builder.start().await.map_err(StartError::Node)?;
    debug_assert_eq!(node.id(), NodeId(identity.member));
    Ok((node, data))
}
