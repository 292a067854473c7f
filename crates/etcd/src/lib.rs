//! The etcd v3 API, served by a key-value store that Raft replicates.
//!
//! A [`Server`] is one member: it replicates with the others of its cluster, and serves clients over gRPC. Any member serves
//! any call; what only the leader can do is carried there.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use quorate_etcd::{Config, Server};
//!
//! let server = Server::start(Config::new("/var/lib/quorate")).await?;
//! server.handle().ready().await;
//! println!("serving {}", server.client_urls()[0]);
//! println!("{}", server.stopped().await);
//! # Ok(())
//! # }
//! ```

mod absent;
mod alone;
mod asks;
mod authority;
mod clock;
mod cluster;
mod command;
mod compactor;
mod config;
mod convert;
mod data;
mod deadline;
mod error;
mod front;
mod health;
mod http;
mod identity;
mod inspect;
mod join;
mod keeper;
mod kv;
mod lease;
mod lessor;
mod machine;
mod maintenance;
mod member;
mod members;
mod metrics;
mod peer_port;
pub mod proto;
mod restore;
mod server;
mod status;
mod url;
mod watch;

pub use config::{AutoCompaction, ClusterState, Config, QUOTA_DEFAULT_BYTES};
pub use error::{StartError, Stopped};
pub use http::Access;
pub use inspect::describe_command;
pub use member::Member;
pub use metrics::{PeerVitals, Vitals};
pub use restore::{
    RestoreError, RestoreOptions, SnapshotStatus, restore_snapshot, snapshot_status,
};
pub use server::Server;
pub use url::{Scheme, Url, UrlError};
