//! Snapshots for peers that are too far behind, and what of the log may be dropped.

use std::collections::BTreeMap;

use quorate_raft::{Entry, Index, LogId, NodeId, ReplicationMode, SnapshotMeta, Status, Time};

use crate::settings::{Settings, SnapshotPolicy};

/// The snapshot that is ready for peers, and who waits for a newer one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshots {
    /// The newest finished one. A host that starts drops what it had, so there is none at first.
    finished: Option<SnapshotMeta>,
    spooling: bool,
    /// Peers that wait for the one that is being spooled, with the least index that helps them.
    /// Bounded by the number of members that a leader has had while the spooling went on.
    waiting: BTreeMap<NodeId, Index>,
}

/// What to do for a peer that needs a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Prepare {
    /// This one serves it.
    Ready(SnapshotMeta),
    /// One must be spooled first.
    Spool,
    /// One is being spooled.
    Wait,
}

impl Snapshots {
    /// A peer needs a snapshot that includes `min_index`.
    pub(crate) fn prepare(&mut self, to: NodeId, min_index: Index) -> Prepare {
        if let Some(finished) = &self.finished
            && finished.id.index >= min_index
        {
            return Prepare::Ready(finished.clone());
        }
        self.waiting.insert(to, min_index);
        if std::mem::replace(&mut self.spooling, true) { Prepare::Wait } else { Prepare::Spool }
    }

    /// One is wanted whatever peers need. False if one is being spooled already.
    pub(crate) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.spooling, true)
    }

    /// The spooling has ended. Returns the peers that waited, each with the snapshot if it helps.
    pub(crate) fn spooled(
        &mut self,
        snapshot: Option<&SnapshotMeta>,
    ) -> Vec<(NodeId, Option<SnapshotMeta>)> {
        self.spooling = false;
        // Its file took the place of the one before it, whatever the log says about it now.
        self.finished = snapshot.cloned();
        let waiting = std::mem::take(&mut self.waiting);
        let answer = |(to, min_index)| {
            (to, snapshot.filter(|snapshot| snapshot.id.index >= min_index).cloned())
        };
        waiting.into_iter().map(answer).collect()
    }
}

/// The snapshots that a state machine without a disk of its own lives on.
#[derive(Clone, Debug)]
pub(crate) struct OwnSnapshots {
    /// The latest, from which a restart would go on.
    latest: Index,
    /// Applied since the last one was begun.
    entries: u64,
    bytes: u64,
}

impl OwnSnapshots {
    pub(crate) const fn new(latest: Index) -> Self {
        Self { latest, entries: 0, bytes: 0 }
    }

    pub(crate) fn applied(&mut self, entries: &[Entry]) {
        self.entries += entries.len() as u64;
        self.bytes += entries.iter().map(|entry| entry.size() as u64).sum::<u64>();
    }

    pub(crate) fn due(&self, policy: Option<SnapshotPolicy>) -> bool {
        policy.is_some_and(|policy| self.entries >= policy.entries || self.bytes >= policy.bytes)
    }

    pub(crate) const fn begun(&mut self) {
        self.entries = 0;
        self.bytes = 0;
    }

    /// There is a new one; returns the one before it.
    pub(crate) fn taken(&mut self, index: Index) -> Index {
        let latest = self.latest.max(index);
        std::mem::replace(&mut self.latest, latest)
    }

    /// One of a peer has replaced the state machine's contents.
    pub(crate) fn installed(&mut self, index: Index) {
        self.begun();
        self.taken(index);
    }
}

/// A peer that fetches a snapshot and is not heard from for longer than this beyond an election
/// timeout is dead: it will have to begin anew.
const TRANSFER_PATIENCE_US: u64 = 60_000_000;

/// Where the log starts, and how far the state machine needs it no more.
#[derive(Clone, Debug)]
pub(crate) struct Compaction {
    start: Index,
    state_durable: Index,
}

impl Compaction {
    pub(crate) const fn new(start: Index, state_durable: Index) -> Self {
        Self { start, state_durable }
    }

    /// The state machine's contents up to there would survive a crash.
    pub(crate) fn state_durable(&mut self, index: Index) {
        self.state_durable = self.state_durable.max(index);
    }

    /// A snapshot has taken the place of log and state machine.
    pub(crate) fn installed(&mut self, snapshot: LogId) {
        self.start = snapshot.index;
        self.state_durable = self.state_durable.max(snapshot.index);
    }

    /// How far an order to compact up to `index` can be followed; `None` if not at all.
    pub(crate) fn demanded(&self, index: Index, applied: Index) -> Option<Index> {
        let up_to = index.min(applied).min(self.state_durable);
        (up_to > self.start).then_some(up_to)
    }

    /// How far the log should be compacted now, if at all. `status` is only asked if it may be so.
    pub(crate) fn due(
        &self,
        settings: &Settings,
        applied: Index,
        alive_since: Time,
        status: impl FnOnce() -> Status,
    ) -> Option<Index> {
        if settings.compact_entries == 0
            || applied.0.saturating_sub(self.start.0) < settings.compact_entries
        {
            return None;
        }
        let keep = settings.keep_entries.min(settings.compact_entries);
        let up_to = self.demanded(Index(applied.0 - keep), applied)?;
        self.sparing_peers(up_to, settings, alive_since, &status())
    }

    /// As far towards `up_to` as no peer loses what it will need, within limits: a transfer without
    /// end, or a peer that never catches up, must not keep a log without end. One that was heard from
    /// at `alive_since` lives; one that fetches a snapshot may be silent for longer.
    pub(crate) fn sparing_peers(
        &self,
        mut up_to: Index,
        settings: &Settings,
        alive_since: Time,
        status: &Status,
    ) -> Option<Index> {
        let patient_since = Time(alive_since.0.saturating_sub(TRANSFER_PATIENCE_US));
        let behind = |index: Index| status.last_log.index.0.saturating_sub(index.0);
        for peer in &status.peers {
            if let Some(snapshot) = peer.snapshot {
                // It will need what comes behind its snapshot; without it, it would need the next
                // snapshot at once.
                if behind(snapshot) <= settings.keep_for_transfer
                    && peer.last_contact >= patient_since
                {
                    up_to = up_to.min(snapshot);
                }
            } else if peer.mode == ReplicationMode::Replicate
                && peer.last_contact >= alive_since
                && behind(peer.match_index) <= settings.keep_for_followers
            {
                // It lives, and is on its way.
                up_to = up_to.min(peer.match_index);
            }
        }
        (up_to > self.start).then_some(up_to)
    }

    /// The log starts behind `index` now.
    pub(crate) const fn compacted(&mut self, index: Index) {
        self.start = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use quorate_raft::{PeerStatus, RoleName, Term};

    fn snapshot(index: u64) -> SnapshotMeta {
        let id = LogId::new(Index(index), Term(1));
        SnapshotMeta { id, ..SnapshotMeta::default() }
    }

    #[test]
    fn one_snapshot_serves_many_peers() {
        let mut snapshots = Snapshots::default();
        assert_eq!(snapshots.prepare(NodeId(2), Index(5)), Prepare::Spool);
        assert_eq!(snapshots.prepare(NodeId(3), Index(9)), Prepare::Wait);
        let answers = snapshots.spooled(Some(&snapshot(7)));
        assert_eq!(answers, [(NodeId(2), Some(snapshot(7))), (NodeId(3), None)]);
        assert_eq!(snapshots.prepare(NodeId(4), Index(7)), Prepare::Ready(snapshot(7)));
        assert_eq!(snapshots.prepare(NodeId(3), Index(9)), Prepare::Spool);
    }

    #[test]
    fn a_failed_spooling_leaves_nothing() {
        let mut snapshots = Snapshots::default();
        assert_eq!(snapshots.prepare(NodeId(2), Index(5)), Prepare::Spool);
        assert_eq!(snapshots.spooled(None), [(NodeId(2), None)]);
        assert_eq!(snapshots.prepare(NodeId(2), Index(5)), Prepare::Spool);
    }

    #[test]
    fn nothing_is_dropped_that_peers_need() {
        let peer = |node, mode, match_index, snapshot| PeerStatus {
            node: NodeId(node),
            mode,
            match_index: Index(match_index),
            next_index: Index(match_index + 1),
            inflight_messages: 0,
            inflight_bytes: 0,
            last_contact: Time(50),
            snapshot,
            feature_level: None,
        };
        let status = Status {
            node: NodeId(1),
            role: RoleName::Leader,
            term: Term(1),
            voted_for: None,
            leader: Some(NodeId(1)),
            compacted: LogId::ZERO,
            last_log: LogId::new(Index(100), Term(1)),
            durable_index: Index(100),
            commit_index: Index(100),
            applied: Index(100),
            membership: Arc::default(),
            membership_index: Index(0),
            unapplied_bytes: 0,
            tail_bytes: 0,
            unreadable: None,
            writing_since: None,
            fetching: None,
            peers: vec![
                peer(2, ReplicationMode::Replicate, 60, None),
                peer(3, ReplicationMode::Snapshot, 0, Some(Index(30))),
            ],
            transfer_to: None,
        };
        let settings = |transfer, followers| Settings {
            keep_for_transfer: transfer,
            keep_for_followers: followers,
            ..Settings::default()
        };
        let compaction = Compaction::new(Index(10), Index(90));
        let spare = |settings: &Settings, alive_since| {
            compaction.sparing_peers(Index(90), settings, Time(alive_since), &status)
        };
        assert_eq!(spare(&settings(0, 0), 50), Some(Index(90)));
        assert_eq!(spare(&settings(0, 40), 50), Some(Index(60)), "a follower lags");
        assert_eq!(spare(&settings(0, 39), 50), Some(Index(90)), "by too much");
        assert_eq!(spare(&settings(0, 40), 51), Some(Index(90)), "a dead one needs nothing");
        assert_eq!(spare(&settings(70, 40), 50), Some(Index(30)), "a transfer is under way");
        let patience = TRANSFER_PATIENCE_US;
        assert_eq!(spare(&settings(70, 0), 50 + patience), Some(Index(30)), "and may be slow");
        assert_eq!(spare(&settings(70, 0), 51 + patience), Some(Index(90)), "but not dead");
    }

    #[test]
    fn nothing_is_dropped_that_the_state_machine_would_miss() {
        let mut compaction = Compaction::new(Index(0), Index(0));
        assert_eq!(compaction.demanded(Index(10), Index(20)), None);
        compaction.state_durable(Index(7));
        assert_eq!(compaction.demanded(Index(10), Index(20)), Some(Index(7)));
        assert_eq!(compaction.demanded(Index(5), Index(20)), Some(Index(5)));
        compaction.compacted(Index(7));
        assert_eq!(compaction.demanded(Index(5), Index(20)), None);
        compaction.installed(LogId::new(Index(30), Term(1)));
        assert_eq!(compaction.demanded(Index(40), Index(40)), None);
    }
}
