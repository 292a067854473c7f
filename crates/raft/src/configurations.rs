//! The configurations that the log holds.
//!
//! A configuration is in force from the moment its entry is appended, committed or not (§6), so a
//! truncation brings back the one before it. Therefore all of them behind the log's start are kept.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::membership::Membership;
use crate::message::SnapshotMeta;
use crate::types::{Index, LogId};

/// The configuration at the log's start and every later one with its index.
#[derive(Debug)]
pub(crate) struct Configurations {
    /// In force at the log's start; the index is that of the snapshot.
    base: (Index, Arc<Membership>),
    later: Vec<(Index, Arc<Membership>)>,
}

impl Configurations {
    pub(crate) fn new(snapshot: &SnapshotMeta, later: Vec<(Index, Arc<Membership>)>) -> Self {
        Self { base: (snapshot.id.index, snapshot.membership.clone()), later }
    }

    /// The one in force, and where it comes from.
    pub(crate) fn latest(&self) -> (Index, &Arc<Membership>) {
        let (index, membership) = self.later.last().unwrap_or(&self.base);
        (*index, membership)
    }

    /// The one that was in force at `index`.
    pub(crate) fn at(&self, index: Index) -> &Arc<Membership> {
        let after = self.later.partition_point(|(at, _)| *at <= index);
        match after.checked_sub(1) {
            Some(place) => &self.later[place].1,
            None => &self.base.1,
        }
    }

    /// Since which entry the lease duration in force has been what it is.
    pub(crate) fn lease_since(&self) -> Index {
        let lease_us = self.latest().1.lease_us();
        let all = core::iter::once(&self.base).chain(&self.later).rev();
        all.take_while(|(_, membership)| membership.lease_us() == lease_us)
            .last()
            .map_or(Index::ZERO, |(index, _)| *index)
    }

    /// The longest lease of any configuration that this node may have answered under.
    pub(crate) fn longest_lease_us(&self) -> Option<u64> {
        let all = core::iter::once(&self.base).chain(&self.later);
        all.filter_map(|(_, membership)| membership.lease_us()).max()
    }

    pub(crate) fn append(&mut self, index: Index, membership: Arc<Membership>) {
        debug_assert!(index > self.latest().0 || index == Index(1));
        self.later.push((index, membership));
    }

    /// Entries from `first` on are gone, and so are their configurations.
    pub(crate) fn truncate(&mut self, first: Index) {
        while self.later.last().is_some_and(|(index, _)| *index >= first) {
            self.later.pop();
        }
    }

    /// The log now starts behind `up_to`.
    pub(crate) fn compact(&mut self, up_to: LogId) {
        self.base = (up_to.index, self.at(up_to.index).clone());
        self.later.retain(|(index, _)| *index > up_to.index);
    }

    pub(crate) fn reset(&mut self, snapshot: &SnapshotMeta) {
        *self = Self::new(snapshot, Vec::new());
    }
}
