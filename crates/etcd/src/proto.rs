//! The messages, clients and servers of the API, generated from `proto/`.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rust_2018_idioms,
    clippy::all,
    clippy::map_unwrap_or,
    clippy::semicolon_if_nothing_returned,
    reason = "generated"
)]

pub mod authpb {
    tonic::include_proto!("authpb");
}

pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

pub(crate) mod host {
    tonic::include_proto!("host");
}
