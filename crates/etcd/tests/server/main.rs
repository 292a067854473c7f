//! Members in this process, through the eyes of clients over gRPC. One program: each would take as long to build as all.

mod alone;
mod leases;
mod members;
mod support;
mod watches;
