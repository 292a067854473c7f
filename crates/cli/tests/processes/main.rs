//! The program, as processes of their own. One program of tests: each would take as long to build as all.

mod bench;
mod check;
mod cluster;
mod demo;
mod flags;
mod keys;
mod manual;
mod serve;
mod support;
mod wal;
