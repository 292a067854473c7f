//! A cluster that begins with data.

use std::path::Path;

use bytes::Bytes;
use quorate_node::sessions::Sessions;
use quorate_raft::{ClusterId, Index, LogId, Membership, SnapshotMeta, Term};
use quorate_wire::Form;

use crate::builder::{first_membership, listed, name_hash};
use crate::error::StartError;
use crate::machine::Snapshot;
use crate::replica::View;
use crate::snapshot_file::Head;
use crate::snapshots::{Snapshots, named};

/// Where the data of a seeded cluster stand: behind an entry that nobody has.
pub const SEEDED_AT: LogId = LogId::new(Index(1), Term(1));

/// Makes a data directory out of a snapshot of a state machine, for member `id` of a new cluster
/// of that name: the node that is started there begins with these data. `members` is what
/// [`Builder::members`](crate::Builder::members) is to be given. Every member must be seeded with the
/// same data, as restoring a backup does it; members that are added later get them from the others.
///
/// A [`DurableStateMachine`](crate::DurableStateMachine) is given the snapshot to restore when the node
/// starts.
///
/// # Errors
///
/// [`StartError::Setting`] if the directory holds a log or snapshots already, or if the members make
/// no sense; [`StartError::Io`] if it cannot be written.
pub fn seed<I, A>(
    directory: &Path,
    cluster: &str,
    id: u64,
    members: I,
    snapshot: Snapshot,
) -> Result<(), StartError>
where
    I: IntoIterator<Item = (u64, A)>,
    A: AsRef<str>,
{
    for part in ["log", "snapshots"] {
        if directory.join(part).exists() {
            let why = format!("{} belongs to a node already", directory.display());
            return Err(StartError::Setting { why });
        }
    }
    let members = listed(members);
    let membership: Membership = first_membership(quorate_raft::NodeId(id), &members)?;
    let meta = SnapshotMeta { id: SEEDED_AT, membership: membership.into() };
    let sessions = Sessions::new().to_form();
    let cluster = ClusterId(name_hash(cluster));
    let head = Head { cluster, meta, sessions: Bytes::from(sessions.clone()) };
    std::fs::create_dir_all(directory).map_err(named("making", directory))?;
    let snapshots = Snapshots::in_directory(directory.join("snapshots"))?;
    snapshots.write(&head, View { at: SEEDED_AT, sessions, machine: snapshot })?;
    Ok(())
}
