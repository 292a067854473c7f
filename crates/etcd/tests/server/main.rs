//! Members in this process, through the eyes of clients over gRPC. One program: each would take as long to build as all.

mod alone;
mod disaster;
mod leases;
mod limits;
mod members;
mod metrics;
mod support;
mod watches;
