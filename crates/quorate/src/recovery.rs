//! What a start makes of a data directory.
//!
//! ```text
//! DIRECTORY/log         the log
//! DIRECTORY/snapshots   snapshots of this node's state, and those that were fetched
//! ```
//!
//! Putting a fetched snapshot into place takes several steps, and a crash may come between any two:
//!
//! 1. the snapshot is received, checked, synced, and gets its name: from now on its file *is* the
//!    intent;
//! 2. the state machine takes its contents;
//! 3. the log starts behind it.
//!
//! So a start looks for a finished snapshot that the log does not reach. Whatever the leader of a
//! term has offered is committed, so redoing steps 2 and 3 is right wherever the crash came; and
//! what the log has in other terms there is not committed, so dropping it is right too (§7).

use std::sync::Arc;

use bytes::Bytes;
use quorate_raft::{
    Entry, GroupId, HardState, Index, Install, LogId, Member, MemberRole, Membership, Payload,
    Persist, Recovered, Seq, SnapshotMeta,
};
use quorate_wal::{Disk, Options, RecoveredGroup, Wal};

use crate::error::StartError;
use crate::replica::Replicated;
use crate::snapshot_file::sessions_of;
use crate::snapshots::Snapshots;

pub(crate) const GROUP: GroupId = GroupId(0);

/// An opened log, and what the core starts from.
pub(crate) struct Opened {
    pub(crate) wal: Wal,
    pub(crate) recovered: Recovered,
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    options: &Options,
    first: &Arc<Membership>,
    replica: &dyn Replicated,
    snapshots: &Snapshots,
    boot_nonce: u64,
    alone: Option<&Bytes>,
) -> Result<Opened, StartError> {
    let directory = disk.describe();
    let opened = Wal::open(disk, options);
    let opened = opened.map_err(|why| StartError::Log { directory: directory.clone(), why })?;
    if !opened.damage.is_empty() {
        let damage = opened.damage.iter().map(ToString::to_string).collect();
        return Err(StartError::Damaged { directory, damage });
    }
    let wal = opened.wal;
    let log = NamedLog { wal: &wal, directory: &directory };
    let mut group = match opened.groups.get(&GROUP) {
        Some(group) => group.clone(),
        None => {
            let snapshot = SnapshotMeta { id: LogId::ZERO, membership: Arc::clone(first) };
            let made = wal.compact(GROUP, &snapshot);
            made.map_err(|why| log.failed(&why))?;
            RecoveredGroup { snapshot, ..RecoveredGroup::default() }
        }
    };
    let applied = if replica.is_durable() {
        finish_installation(&log, &mut group, replica, snapshots)?
    } else {
        restore_latest(&log, &mut group, replica, snapshots)?
    };
    if let Some(context) = alone {
        abandon_others(&log, &mut group, context)?;
    }
    Ok(Opened { wal, recovered: group.recovered(applied.index, boot_nonce) })
}

/// A log, and where it is.
struct NamedLog<'a> {
    wal: &'a Wal,
    directory: &'a str,
}

impl NamedLog<'_> {
    fn failed(&self, why: &dyn std::fmt::Display) -> StartError {
        StartError::Disk { directory: self.directory.to_owned(), why: why.to_string() }
    }
}

/// Appends the configuration of a cluster that is this node and nobody else, unless that is the latest one already. It is in
/// force from now on (§6), so that this node alone commits it, and with it everything that is in the log before it: what may
/// have been committed is kept, be it known to be or not.
fn abandon_others(
    log: &NamedLog<'_>,
    group: &mut RecoveredGroup,
    context: &Bytes,
) -> Result<(), StartError> {
    let wal = log.wal;
    let own = wal.identity().node;
    let latest = group.memberships.last().map_or(&group.snapshot.membership, |(_, latest)| latest);
    let is_alone = !latest.is_joint() && latest.voters() == [own] && latest.members().count() == 1;
    if is_alone {
        return Ok(());
    }
    let known = latest.member(own);
    let member = Member {
        role: MemberRole::Voter,
        incarnation: Some(wal.identity().incarnation),
        context: known.map_or_else(|| context.clone(), |known| known.context.clone()),
    };
    let membership = Arc::new(
        Membership::bootstrap([(own, member)])
            .with_feature_level(latest.feature_level())
            .with_lease(latest.lease_us()),
    );
    // Of a term that nobody has led, so that no other entry is taken for it.
    let term = group.hard_state.term.next();
    let hard_state =
        HardState { term, voted_for: Some(own), commit: group.hard_state.commit, seen: Vec::new() };
    let index = group.last_index.next();
    let entry = Entry::new(index, term, Payload::Membership(Arc::clone(&membership)));
    let persist = Persist { seq: Seq(0), hard_state, append: vec![entry] };
    wal.write(&[(GROUP, &persist)]).map_err(|why| log.failed(&why))?;
    wal.sync().map_err(|why| log.failed(&why))?;
    group.hard_state = persist.hard_state;
    group.memberships.push((index, membership));
    group.terms.push((index, term));
    group.last_index = index;
    Ok(())
}

/// A plain state machine starts from its latest snapshot.
fn restore_latest(
    log: &NamedLog<'_>,
    group: &mut RecoveredGroup,
    replica: &dyn Replicated,
    snapshots: &Snapshots,
) -> Result<LogId, StartError> {
    let start = group.snapshot.id;
    let mut problem = None;
    for id in snapshots.finished()?.into_iter().rev() {
        if id.index < start.index {
            break;
        }
        match restore(replica, snapshots, id) {
            Ok(meta) => {
                if !has(group, id) {
                    install(log, group, meta)?;
                }
                return Ok(id);
            }
            // The one before it may do, if the log goes back that far.
            Err(why @ StartError::Snapshot { .. }) => {
                problem.get_or_insert(why);
            }
            Err(why) => return Err(why),
        }
    }
    match problem {
        Some(why) => Err(why),
        None if start.index == Index::ZERO => Ok(LogId::ZERO),
        None => Err(StartError::Snapshot {
            file: snapshots.describe(start),
            why: "is missing, and the log starts behind it".to_owned(),
        }),
    }
}

/// A durable state machine has its data. If a fetched snapshot was on its way into place, that is
/// finished.
fn finish_installation(
    log: &NamedLog<'_>,
    group: &mut RecoveredGroup,
    replica: &dyn Replicated,
    snapshots: &Snapshots,
) -> Result<LogId, StartError> {
    let mut applied = replica.applied();
    let newest = snapshots.finished()?.into_iter().next_back();
    if let Some(id) = newest {
        let behind = id.index > applied.index;
        if behind && (!has(group, id) || group.snapshot.id.index > applied.index) {
            restore(replica, snapshots, id)?;
            applied = id;
        }
        if applied == id && !has(group, id) {
            let (head, _) = snapshots.read(id)?;
            install(log, group, head.meta)?;
        }
    }
    // What was kept for peers is of no use any more: they are offered a newer one.
    snapshots.remove_others(None)?;
    Ok(applied)
}

fn restore(
    replica: &dyn Replicated,
    snapshots: &Snapshots,
    id: LogId,
) -> Result<SnapshotMeta, StartError> {
    let unreadable = |error: std::io::Error| StartError::Snapshot {
        file: snapshots.describe(id),
        why: error.to_string(),
    };
    // All of it is checked before the state machine sees any of it.
    let (_, mut rest) = snapshots.read(id).map_err(unreadable)?;
    rest.check_rest().map_err(unreadable)?;
    let (head, mut reader) = snapshots.read(id).map_err(unreadable)?;
    let sessions = sessions_of(&head).map_err(unreadable)?;
    replica.restore(id, sessions, &mut reader).map_err(StartError::Machine)?;
    Ok(head.meta)
}

/// Whether the log has that entry, or starts right behind it.
fn has(group: &RecoveredGroup, id: LogId) -> bool {
    if id == group.snapshot.id {
        return true;
    }
    let term = group.terms.iter().rev().find(|(first, _)| *first <= id.index);
    id.index <= group.last_index && term.is_some_and(|(_, term)| *term == id.term)
}

/// Puts a snapshot in the place of the log.
fn install(
    log: &NamedLog<'_>,
    group: &mut RecoveredGroup,
    snapshot: SnapshotMeta,
) -> Result<(), StartError> {
    let mut hard_state: HardState = group.hard_state.clone();
    hard_state.commit = hard_state.commit.max(snapshot.id.index);
    if hard_state.term < snapshot.id.term {
        (hard_state.term, hard_state.voted_for) = (snapshot.id.term, None);
    }
    let install = Install { seq: Seq(0), snapshot, hard_state };
    log.wal.install(GROUP, &install).map_err(|why| log.failed(&why))?;
    let Install { snapshot, hard_state, .. } = install;
    let last_index = snapshot.id.index;
    *group = RecoveredGroup { hard_state, snapshot, last_index, ..RecoveredGroup::default() };
    Ok(())
}

#[cfg(test)]
mod tests;
