//! Stories of servers as real processes, told through any client of the etcd v3 API.
//!
//! The same files are compiled into the tests of the workspace, with the client that is generated from `proto/`, and
//! into those of `compat/`, with a client that others wrote. `SERVER` names another server to hear them from: an
//! `etcd`, say, whose answers are known to be right.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]
#![allow(dead_code, unreachable_pub, reason = "not every program needs everything")]

pub mod client;
pub mod cluster;
pub mod faults;
pub mod load;
pub mod members;
pub mod single;
