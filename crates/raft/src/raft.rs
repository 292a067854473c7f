//! skeleton; replaced soon
#![allow(
    clippy::todo,
    missing_docs,
    unused_variables,
    clippy::missing_errors_doc,
    clippy::needless_pass_by_value
)]
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::*;

#[derive(Debug)]
pub struct Raft {}

impl Raft {
    /// `now` is the moment of the start, `seed` decides all randomness.
    pub fn new(
        config: Config,
        now: Time,
        seed: u64,
        recovered: Recovered,
    ) -> Result<Self, StartError> {
        todo!()
    }
    /// One piece of news. Effects accumulate until `take_effects`; several steps before one
    /// `take_effects` are batched into one `Persist` and one `AppendEntries` per peer.
    pub fn step(&mut self, now: Time, input: Input) {
        todo!()
    }
    pub fn take_effects(&mut self) -> Vec<Effect> {
        todo!()
    }
    /// When to step with `Input::Wake`, unless news comes earlier. Ask after `take_effects`.
    pub fn deadline(&self) -> Option<Time> {
        todo!()
    }
    pub fn status(&self) -> Status {
        todo!()
    }
    pub fn config(&self) -> &Config {
        todo!()
    }
    pub fn role(&self) -> RoleName {
        todo!()
    }
    pub fn term(&self) -> Term {
        todo!()
    }
    pub fn leader(&self) -> Option<NodeId> {
        todo!()
    }
    pub fn commit_index(&self) -> Index {
        todo!()
    }
    pub fn applied(&self) -> Index {
        todo!()
    }
    /// Configuration in force (the latest in the log).
    pub fn membership(&self) -> &Arc<Membership> {
        todo!()
    }
    /// Term of the entry at `index`; `None` behind the log or before its start (the compacted entry itself is known).
    pub fn term_at(&self, index: Index) -> Option<Term> {
        todo!()
    }
    /// What a snapshot at `index` stands for; `None` unless applied and not before the log start.
    pub fn snapshot_meta(&self, index: Index) -> Option<SnapshotMeta> {
        todo!()
    }
    /// The whole hard state as it will next be written.
    pub fn hard_state(&self) -> &HardState {
        todo!()
    }
}
