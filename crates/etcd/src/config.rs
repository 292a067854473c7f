//! What a server is started with.

use std::path::PathBuf;
use std::time::Duration;

use crate::http::Access;
use crate::url::Url;

/// Settings of a server. [`Config::new`] has the defaults that users of the API know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The member's name. Default `default`.
    pub name: String,
    /// Where the member keeps its data. It is made if it does not exist.
    pub data_dir: PathBuf,
    /// Where clients are served, by gRPC and HTTP. Port 0 is one that the system chooses.
    pub listen_client_urls: Vec<Url>,
    /// Where clients are told to find this member. Empty: where it listens.
    pub advertise_client_urls: Vec<Url>,
    /// Where other members reach this one.
    pub listen_peer_urls: Vec<Url>,
    /// Where other members are told to find this one; they try one after the other. Empty: where it listens.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// The members of a new cluster, or of the one that is joined: name and peer URLs. Empty: this member alone.
    pub initial_cluster: Vec<(String, Vec<Url>)>,
    /// What makes the ids of one new cluster differ from those of another. Default `etcd-cluster`.
    pub initial_cluster_token: String,
    /// Whether the cluster is new.
    pub initial_cluster_state: ClusterState,
    /// Time between heartbeats. Default 100 ms.
    pub heartbeat_interval: Duration,
    /// Shortest election timeout. Default 1 s.
    pub election_timeout: Duration,
    /// Entries that may be applied before the log is compacted. Default 10,000.
    pub snapshot_count: u64,
    /// Applied entries that stay in the log for slow members. Default 5,000.
    pub snapshot_catchup_entries: u64,
    /// Size of the database from which writes are refused: 0 for the default of 2 GiB, below that for no quota.
    pub quota_backend_bytes: i64,
    /// Most compares or operations of a transaction. Default 128.
    pub max_txn_ops: usize,
    /// Largest request. Default 1.5 MiB.
    pub max_request_bytes: usize,
    /// Most streams of one client connection.
    pub max_concurrent_streams: u32,
    /// Shortest time between pings of a client that is tolerated. Default 5 s.
    pub grpc_keepalive_min_time: Duration,
    /// Idle time after which a client is pinged. Default 2 h; zero: never.
    pub grpc_keepalive_interval: Duration,
    /// How long the answer to a ping may take. Default 20 s.
    pub grpc_keepalive_timeout: Duration,
    /// Compaction that the leader proposes by itself.
    pub auto_compaction: AutoCompaction,
    /// Refuse changes of the membership that could cost the quorum. Default on.
    pub strict_reconfig_check: bool,
    /// Most learners. Default 1.
    pub max_learners: usize,
    /// Ask before campaigning. Default on.
    pub pre_vote: bool,
    /// Time between two notices of progress to a watcher that wants them. Default 10 min.
    pub watch_progress_notify_interval: Duration,
    /// Requests that take longer are told of in the log. Default 300 ms; zero: none.
    pub warning_unary_request_duration: Duration,
    /// Applying that takes longer is told of in the log. Default 100 ms.
    pub warning_apply_duration: Duration,
    /// Write down the time left of long leases, so that a new leader knows it. Default off.
    pub lease_checkpoint: bool,
    /// Time between two of these. Default 5 min.
    pub lease_checkpoint_interval: Duration,
    /// Bytes of current values that are kept in memory. Default 64 MiB.
    pub values_bytes_max: usize,
    /// Bytes that the database keeps in memory. Default 64 MiB.
    pub cache_bytes: usize,
    /// Go on as the only member of a cluster whose others are lost.
    pub force_new_cluster: bool,
    /// Do not wait for the disk. Loses data when power is lost.
    pub unsafe_no_fsync: bool,
    /// The version of the API that is reported. Default `3.6.0`.
    pub api_version: String,
    /// Where plain HTTP is served instead of the clients' URLs. Empty: beside gRPC.
    pub listen_client_http_urls: Vec<Url>,
    /// Where health and metrics are served, besides the clients' URLs.
    pub listen_metrics_urls: Vec<Url>,
    /// Who may ask over plain HTTP. Default: everybody.
    pub access: Access,
    /// Metrics keep the durations of all calls, too. Default off.
    pub extensive_metrics: bool,
    /// Features as metrics show them: name, stage, and whether it is on. Default none.
    pub features: Vec<(String, String, bool)>,
}

/// Whether a cluster is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// All members start together.
    #[default]
    New,
    /// This member was added to a cluster that runs.
    Existing,
}

/// Compaction without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoCompaction {
    /// None.
    #[default]
    Off,
    /// History older than this is given up.
    Periodic(Duration),
    /// So many revisions are kept.
    Revision(i64),
}

/// The quota if none is set.
pub const QUOTA_DEFAULT_BYTES: i64 = 2 << 30;

impl Config {
    /// The defaults, for a member alone with its data in that directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: "default".to_owned(),
            data_dir: data_dir.into(),
            listen_client_urls: vec![Url::http("localhost", 2379)],
            advertise_client_urls: Vec::new(),
            listen_peer_urls: vec![Url::http("localhost", 2380)],
            initial_advertise_peer_urls: Vec::new(),
            initial_cluster: Vec::new(),
            initial_cluster_token: "etcd-cluster".to_owned(),
            initial_cluster_state: ClusterState::New,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            quota_backend_bytes: 0,
            max_txn_ops: quorate_kv::TXN_OPS_MAX,
            max_request_bytes: 1_536 << 10,
            max_concurrent_streams: u32::MAX,
            grpc_keepalive_min_time: Duration::from_secs(5),
            grpc_keepalive_interval: Duration::from_secs(2 * 3600),
            grpc_keepalive_timeout: Duration::from_secs(20),
            auto_compaction: AutoCompaction::Off,
            strict_reconfig_check: true,
            max_learners: 1,
            pre_vote: true,
            watch_progress_notify_interval: Duration::from_secs(600),
            warning_unary_request_duration: Duration::from_millis(300),
            warning_apply_duration: Duration::from_millis(100),
            lease_checkpoint: false,
            lease_checkpoint_interval: Duration::from_secs(300),
            values_bytes_max: 64 << 20,
            cache_bytes: 64 << 20,
            force_new_cluster: false,
            unsafe_no_fsync: false,
            api_version: "3.6.0".to_owned(),
            listen_client_http_urls: Vec::new(),
            listen_metrics_urls: Vec::new(),
            access: Access::default(),
            extensive_metrics: false,
            features: Vec::new(),
        }
    }

    /// How long a request is tried before it fails.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// The quota in bytes; `None` if there is none.
    #[must_use]
    pub fn quota_bytes(&self) -> Option<u64> {
        match self.quota_backend_bytes {
            0 => u64::try_from(QUOTA_DEFAULT_BYTES).ok(),
            bytes => u64::try_from(bytes).ok(),
        }
    }
}
