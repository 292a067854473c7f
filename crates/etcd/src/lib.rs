//! The etcd v3 API, served by a key-value store that Raft replicates.

pub mod http;
pub mod metrics;
pub mod proto;
