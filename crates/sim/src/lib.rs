//! Deterministic simulation of a Quorate cluster, in virtual time and without I/O.
//!
//! A [`cluster`] runs the nodes that production runs, on hosts that crash, freeze, drift and stall,
//! over a [`network`] that loses, doubles, delays and cuts. One seed decides everything, so every
//! run can be had again. Two kinds of stories are told with it:
//!
//! * a [`script`] has it in hand, message by message: the golden scripts of the core are read as the
//!   documentation of the protocol;
//! * a seeded [`run`] leaves it to itself under a [`nemesis`] and a client [`workload`].
//!
//! Either way the [`checkers`] judge every step by the properties of the Raft paper, and
//! [`linearizability`] what clients saw. The log of a host in a seeded run is the real one on a
//! simulated disk ([`disk_log`]); its state machine is behind the trait of [`state_machine`], where the
//! real one will be plugged in.

pub mod checkers;
pub mod cli;
pub mod cluster;
pub mod demo;
pub mod disk_log;
pub mod figure16;
pub mod key_value;
pub mod linearizability;
pub mod marks;
pub mod mutants;
pub mod nemesis;
pub mod network;
pub mod options;
pub mod report;
pub mod rng;
pub mod run;
pub mod script;
pub mod shrink;
pub mod state_machine;
pub mod storage;
pub mod trace;
pub mod workload;
