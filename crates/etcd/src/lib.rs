//! The etcd v3 API, served by a key-value store that Raft replicates.
//!
//! A [`Server`] is one member: it replicates with the others of its cluster, and serves clients over gRPC. Any member serves
//! any call; what only the leader can do is carried there.

mod clock;
mod command;
mod config;
mod convert;
mod data;
pub mod http;
mod machine;
pub mod metrics;
pub mod proto;
mod url;

pub use config::{AutoCompaction, ClusterState, Config, QUOTA_DEFAULT_BYTES};
pub use url::{Scheme, Url, UrlError};
