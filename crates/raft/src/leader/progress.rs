//! How far a peer is, as its leader sees it (Figure 2, "volatile state on leaders").

use super::drift::DriftCheck;
use super::inflights::Inflights;
use crate::effect::LoadId;
use crate::message::SnapshotMeta;
use crate::status::ReplicationMode;
use crate::types::{Index, Time};

/// What a leader knows of a peer.
///
/// ```text
///            first match                    log starts behind next_index
///   Probe ─────────────────► Replicate ───────────────────► Snapshot
///     ▲ ▲                        │                              │
///     │ └── refused, lost, closed┘                              │
///     └────────────────── installed ────────────────────────────┘
/// ```
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) state: State,
    /// Highest index known to be equal and durable there.
    pub(crate) match_index: Index,
    /// Next index to send.
    pub(crate) next_index: Index,
    /// The latest round that the peer has answered; zero if none.
    pub(crate) acked_round: u64,
    /// When that round was sent. Of a new leader, when its term began.
    pub(crate) acked_at: Time,
    /// The same, as far as it counts for the lease.
    pub(crate) lease_acked_at: Option<Time>,
    /// The round of the oldest heartbeat that was not answered, and what had been sent before it.
    pub(crate) heartbeat: Option<(u64, Index)>,
    pub(crate) inflights: Inflights,
    /// Entries for it that are being read back.
    pub(crate) load: Option<LoadId>,
    /// How far it was told to commit.
    pub(crate) commit_sent: Index,
    pub(crate) feature_level: Option<u32>,
    pub(crate) drift: DriftCheck,
    /// It was removed by the entry at that index, at that time, and is told so before it is
    /// forgotten.
    pub(crate) departing: Option<(Index, Time)>,
}

/// How entries go to a peer.
#[derive(Debug)]
pub(crate) enum State {
    /// Looks for the place where the logs meet. One message at a time.
    Probe {
        /// The round at which the message under way was sent; `None` if there is none.
        sent_in: Option<u64>,
        /// The peer is known to have received what was sent, and only has to say that it is durable:
        /// no need to send entries again.
        bare: bool,
    },
    /// Sends ahead of the answers, within the window.
    Replicate,
    /// The log no longer has what the peer needs.
    Snapshot(Offer),
}

/// A snapshot on its way to a peer.
#[derive(Debug)]
pub(crate) enum Offer {
    /// The host is to hold one ready.
    Wanted {
        /// Whether it has been told.
        asked: bool,
    },
    /// The peer is to fetch it.
    Made {
        snapshot: SnapshotMeta,
        /// When it was last offered.
        at: Time,
    },
}

impl Progress {
    pub(crate) fn new(next_index: Index, now: Time) -> Self {
        Self {
            state: State::Probe { sent_in: None, bare: false },
            match_index: Index::ZERO,
            next_index,
            acked_round: 0,
            acked_at: now,
            lease_acked_at: None,
            heartbeat: None,
            inflights: Inflights::default(),
            load: None,
            commit_sent: Index::ZERO,
            feature_level: None,
            drift: DriftCheck::default(),
            departing: None,
        }
    }

    pub(crate) const fn mode(&self) -> ReplicationMode {
        match self.state {
            State::Probe { .. } => ReplicationMode::Probe,
            State::Replicate => ReplicationMode::Replicate,
            State::Snapshot(_) => ReplicationMode::Snapshot,
        }
    }

    pub(crate) const fn snapshot_index(&self) -> Option<Index> {
        match &self.state {
            State::Snapshot(Offer::Made { snapshot, .. }) => Some(snapshot.id.index),
            _ => None,
        }
    }

    /// Goes back to looking, from `next_index` on.
    pub(crate) fn probe(&mut self, next_index: Index) {
        debug_assert!(next_index > self.match_index);
        self.state = State::Probe { sent_in: None, bare: false };
        self.next_index = next_index;
        self.heartbeat = None;
        self.inflights.clear();
        self.load = None;
    }

    /// The peer's log is known to equal the leader's up to `match_index`, durably.
    pub(crate) fn matched(&mut self, match_index: Index) {
        self.match_index = self.match_index.max(match_index);
        self.inflights.free_to(self.match_index);
        match self.state {
            State::Probe { .. } => {
                self.state = State::Replicate;
                self.next_index = self.match_index.next();
            }
            State::Replicate => self.next_index = self.next_index.max(self.match_index.next()),
            State::Snapshot(_) => {}
        }
    }
}
