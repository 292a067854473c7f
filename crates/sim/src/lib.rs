//! Deterministic simulation.

pub mod linearizability;
