//! Where a group's log starts: compaction, and snapshots put in the place of the log.
//!
//! Both come down to the group's small file, which is replaced as a whole. Only after that is
//! durable are the entries dropped from the index, and their segments become free.

use std::time::Instant;

use quorate_raft::{GroupId, Index, Install, SnapshotMeta};

use crate::error::ChoreError;
use crate::log::Draft;
use crate::prepare::chore_error;
use crate::small_file::{self, GroupStart, SmallFile};
use crate::wal::{Position, Shared, Wal};

impl Wal {
    /// Makes `snapshot` the start of the group's log: drops the entries up to its index. For a new
    /// group, `0@0` and the first configuration, so that the next start knows it. Durable when it
    /// returns. A start before the present one changes nothing.
    ///
    /// # Errors
    ///
    /// See [`ChoreError`]; the log then starts where it did.
    pub fn compact(&self, group: GroupId, snapshot: &SnapshotMeta) -> Result<(), ChoreError> {
        let shared = &*self.shared;
        let _starts = shared.starts();
        let mut log = shared.log();
        log.check()?;
        let incarnation = log.identity.incarnation;
        let known = log.groups.of(group, incarnation);
        let present = &known.start.snapshot;
        let is_same = present == snapshot;
        if snapshot.id.index < present.id.index || (is_same && known.start_index() > Index::ZERO) {
            return Ok(());
        }
        if snapshot.id.index > known.last {
            return Err(ChoreError::Beyond { last: known.last });
        }
        let start = GroupStart { snapshot: snapshot.clone(), ..known.start.clone() };
        drop(log);
        shared.save_start(&start)?;
        let log = &mut *shared.log();
        let index = start.snapshot.id.index;
        let known = log.groups.of(group, incarnation);
        known.start = start;
        known.compact(index, |gone| log.segments.release(gone));
        Ok(())
    }

    /// Puts a snapshot in the place of the group's log: all its entries are dropped, and the next
    /// one follows on the snapshot. Atomic, and durable when it returns: answer it with
    /// [`Input::Persisted`](quorate_raft::Input::Persisted). The group must have been written
    /// nothing that comes after it before it returns.
    ///
    /// # Errors
    ///
    /// See [`ChoreError`]; the group's log is then as it was.
    pub fn install(&self, group: GroupId, install: &Install) -> Result<(), ChoreError> {
        let shared = &*self.shared;
        let _starts = shared.starts();
        let reset = self.begin_install(group)?;
        let result = self.finish_install(group, install, reset);
        shared.log().installing = None;
        result
    }

    /// Says that a snapshot is being installed, and gives the number of the last record that will
    /// mean nothing for the group. From here on nobody rewrites older records of it, which would
    /// have a higher number.
    fn begin_install(&self, group: GroupId) -> Result<u64, ChoreError> {
        loop {
            let mut log = self.shared.log();
            log.check()?;
            if !log.leftover {
                log.installing = Some(group);
                return Ok(log.written);
            }
            // What a failed write may have left behind the end has such a number, too. Another
            // record takes its place.
            let mut draft = Draft::default();
            draft.push_mark(log.freed.1);
            drop(log);
            self.write_draft(&mut draft, Instant::now()).map_err(chore_error)?;
        }
    }

    fn finish_install(
        &self,
        group: GroupId,
        install: &Install,
        reset: u64,
    ) -> Result<(), ChoreError> {
        let shared = &*self.shared;
        // The file will say that records up to `reset` mean nothing for the group. The number of
        // a record that is not durable might be given to another one after a crash.
        self.sync_to(Position(reset))?;
        let start = GroupStart {
            incarnation: self.identity().incarnation,
            group,
            reset,
            hard_state: install.hard_state.clone(),
            snapshot: install.snapshot.clone(),
        };
        shared.save_start(&start)?;
        let log = &mut *shared.log();
        let known = log.groups.of(group, start.incarnation);
        known.hard_state = start.hard_state.clone();
        known.start = start;
        known.clear(|gone| log.segments.release(gone));
        log.segments.move_state(known.state_segment.take(), None);
        Ok(())
    }
}

impl Shared {
    fn starts(&self) -> std::sync::MutexGuard<'_, ()> {
        self.starts.lock().expect("no thread panics while it writes the file of a group")
    }

    fn save_start(&self, start: &GroupStart) -> Result<(), ChoreError> {
        let name = GroupStart::file_name(start.group);
        small_file::replace(&*self.disk, &name, &start.to_file()).map_err(|fault| self.fault(fault))
    }
}
