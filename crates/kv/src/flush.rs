//! Making what was applied durable, beside everything else.

use std::sync::{Arc, PoisonError};

use crate::disk::{DiskError, WriteBatch};
use crate::meta::{self, Meta};
use crate::record::Place;
use crate::store::{LogPlace, Shared};

/// How many forgotten records one flush removes.
const REMOVED_MAX: usize = 8192;
/// How many must be found before any is removed, unless no more can be found.
const REMOVABLE_ENOUGH: usize = 1 << 19;

/// Everything that was applied up to one moment, to be written in one transaction.
///
/// To be written, or the replica stops: dropping it would leave its changes waiting for ever.
#[derive(Debug)]
#[must_use = "what it holds is not durable yet"]
pub struct Flush {
    shared: Arc<Shared>,
    batch: WriteBatch,
    /// Records that are forgotten; the rest of them is for later flushes.
    removable: Vec<Place>,
    applied: LogPlace,
    finished: Option<i64>,
}

impl Flush {
    pub(crate) fn begin(shared: &Arc<Shared>) -> Option<Self> {
        let mut state = shared.write();
        let state = &mut *state;
        if state.flushing {
            return None;
        }
        let compaction = &mut state.compaction;
        // Before everything is found that is to be removed, some would be removed here and some there, at many times the cost.
        let waits = compaction.pruning && compaction.removable.len() < REMOVABLE_ENOUGH;
        let removable = if waits { Vec::new() } else { std::mem::take(&mut compaction.removable) };
        let done = !compaction.pruning && !waits && removable.len() <= REMOVED_MAX;
        let finished = (done && compaction.floor > compaction.finished).then_some(compaction.floor);
        let is_idle = state.applied == state.flushed
            && state.tails.open.is_empty()
            && removable.is_empty()
            && finished.is_none()
            && state.meta_changed.is_empty();
        if is_idle {
            return None;
        }
        state.flushing = true;
        let mut meta: Vec<(Vec<u8>, Option<Vec<u8>>)> =
            std::mem::take(&mut state.meta_changed).into_iter().collect();
        let leases = state.leases.take_changes().into_iter();
        let lease = |(id, record): (_, Option<[u8; crate::LEASE_RECORD_BYTES]>)| {
            (Meta::Lease(id).key(), record.map(Vec::from))
        };
        meta.extend(leases.map(lease));
        let applied = state.applied;
        meta.push((Meta::Applied.key(), Some(meta::pair(applied.index, applied.term))));
        meta.push((Meta::Revision.key(), Some(meta::number(state.revision))));
        let grants = state.leases.grants().cast_signed();
        meta.push((Meta::Grants.key(), Some(meta::number(grants))));
        let batch = WriteBatch { tail: state.tails.freeze(), meta, ..WriteBatch::default() };
        Some(Self { shared: Arc::clone(shared), batch, removable, applied, finished })
    }

    /// Writes it. Gives back the place up to which everything is durable then.
    ///
    /// # Errors
    ///
    /// [`DiskError`]: nothing of it was written, or nobody knows; this replica must not go on.
    pub fn write(mut self) -> Result<LogPlace, DiskError> {
        let shared = Arc::clone(&self.shared);
        // Held to the end: the database is not replaced meanwhile.
        let target = shared.target.lock().unwrap_or_else(PoisonError::into_inner);
        match &*target {
            None => self.take_removed(),
            // What is removed here might be copied there later. So it waits.
            Some(_) => self.finished = None,
        }
        if let Some(finished) = self.finished {
            self.batch.meta.push((Meta::Finished.key(), Some(meta::number(finished))));
        }
        let disk = shared.disk();
        disk.write(&self.batch)?;
        if let Some(target) = &*target {
            target.write(&self.batch);
        }
        let saved = disk.view()?;
        let mut state = shared.write();
        if !self.removable.is_empty() {
            let found_since = std::mem::replace(&mut state.compaction.removable, self.removable);
            state.compaction.removable.extend(found_since);
        }
        state.saved = saved;
        state.tails.frozen = Arc::default();
        state.flushed = self.applied;
        state.flushing = false;
        state.compaction.removed += self.batch.removed.len() as u64;
        if let Some(finished) = self.finished {
            state.compaction.finished = finished;
        }
        Ok(self.applied)
    }

    /// Decides which forgotten records this one removes.
    fn take_removed(&mut self) {
        // The oldest last: there they are taken off.
        if !self.removable.is_sorted_by(|one, next| one > next) {
            self.removable.sort_unstable_by(|one, other| other.cmp(one));
        }
        let left = self.removable.len().saturating_sub(REMOVED_MAX);
        self.batch.removed = self.removable.split_off(left);
        self.batch.removed.reverse();
    }
}
