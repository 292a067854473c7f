//! What the driver and the handles share.

use std::mem::{Discriminant, discriminant};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use quorate_raft::{Index, Membership, NodeId, Notice, PeerError, Refusal, Term, Time};
use quorate_transport::{Note, RefusalCode};
use tokio::sync::{broadcast, watch};

use crate::asks::Asks;
use crate::clock;
use crate::driver::Log;
use crate::error::StopReason;
use crate::events::{EVENTS_MAX, NodeEvent};
use crate::inbox::Inbox;
use crate::metrics::Counters;
use crate::repeats::{Repeats, Tell};

pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) asks: Arc<Asks>,
    /// Until the node stops: handles may be kept for longer, and the log is locked while it is open.
    pub(crate) log: Mutex<Option<Log>>,
    pub(crate) counters: Counters,
    pub(crate) freshness: FreshnessCell,
    /// The highest index that the state machine has applied.
    pub(crate) applied: watch::Sender<Index>,
    pub(crate) leader: watch::Sender<(Option<NodeId>, Term)>,
    pub(crate) membership: watch::Sender<Arc<Membership>>,
    pub(crate) events: broadcast::Sender<NodeEvent>,
    repeats: Mutex<Repeats<Matter>>,
    /// Why the node has stopped, from then on.
    stopped: OnceLock<StopReason>,
    /// For those who wait for that.
    has_stopped: watch::Sender<bool>,
    /// Where the configuration stands that has removed this node, once it is committed.
    pub(crate) removed: OnceLock<Index>,
    /// All its threads have ended, too.
    pub(crate) ended: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(inbox: Arc<Inbox>, asks: Arc<Asks>, log: Log, applied: Index) -> Self {
        Self {
            id: asks.node(),
            inbox,
            asks,
            log: Mutex::new(Some(log)),
            counters: Counters::default(),
            freshness: FreshnessCell::default(),
            applied: watch::channel(applied).0,
            leader: watch::channel((None, Term(0))).0,
            membership: watch::channel(Arc::default()).0,
            events: broadcast::channel(EVENTS_MAX).0,
            repeats: Mutex::default(),
            stopped: OnceLock::new(),
            has_stopped: watch::channel(false).0,
            removed: OnceLock::new(),
            ended: watch::channel(false).0,
        }
    }

    /// The log, until the node stops.
    pub(crate) fn log(&self) -> Option<Log> {
        self.log.lock().expect("nobody panics while holding it").clone()
    }

    pub(crate) fn forget_log(&self) {
        self.log.lock().expect("nobody panics while holding it").take();
    }

    /// Tells whoever listens. Never waits.
    pub(crate) fn tell(&self, event: NodeEvent) {
        let _ = self.events.send(event);
    }

    /// The same for what may happen again and again: it is told at once, then at growing intervals.
    pub(crate) fn tell_again(&self, matter: &Matter, event: NodeEvent) {
        // Nodes are started one after another, and nobody need hear of that.
        const UNREACHABLE_US: u64 = 1_000_000;
        let patience_us = if matches!(matter, Matter::Unreachable(_)) { UNREACHABLE_US } else { 0 };
        let tell = self.repeats().again(matter, patience_us, clock::now());
        match tell {
            Tell::Not => {}
            Tell::First => self.tell(event),
            Tell::Again(times) => {
                self.tell(NodeEvent::Repeated { event: Box::new(event), times });
            }
        }
    }

    /// It happens no more. Whether anybody was told of it.
    pub(crate) fn over(&self, matter: &Matter) -> bool {
        self.repeats().over(matter)
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats<Matter>> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the node does not run any more; `None` while it does.
    pub(crate) fn stopped(&self) -> Option<StopReason> {
        self.stopped.get().cloned()
    }

    /// The first reason counts.
    pub(crate) fn set_stopped(&self, why: StopReason) {
        let _ = self.stopped.set(why);
        self.has_stopped.send_replace(true);
    }

    /// The same for a node that takes nothing any more.
    pub(crate) fn stop_reason(&self) -> StopReason {
        self.stopped().unwrap_or(StopReason::Requested)
    }

    /// Why whoever was to answer is gone. A driver that panics lets go of those who wait a moment
    /// before the reason is known, so this waits for it.
    pub(crate) async fn why_unanswered(&self) -> StopReason {
        let mut has_stopped = self.has_stopped.subscribe();
        let _ = has_stopped.wait_for(|has_stopped| *has_stopped).await;
        self.stop_reason()
    }
}

/// What may happen again and again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Matter {
    Refused(NodeId, RefusalCode),
    RefusedBy(NodeId, RefusalCode),
    Unreachable(NodeId),
    BadMessage(NodeId, Discriminant<PeerError>),
    MessagesRefusedBy(NodeId, Discriminant<Refusal>),
    Notice(Discriminant<Notice>),
    FetchFailed(NodeId),
    SnapshotFailed,
}

impl Matter {
    /// What a core says of the same message or state each time it meets it. `None`: it says it once.
    pub(crate) fn of_notice(notice: &Notice) -> Option<Self> {
        Some(match notice {
            Notice::Refused { from, why } => Self::BadMessage(*from, discriminant(why)),
            Notice::RefusedBy { peer, why } => Self::MessagesRefusedBy(*peer, discriminant(why)),
            Notice::FeatureLevel { .. } | Notice::Unreadable { .. } => {
                Self::Notice(discriminant(notice))
            }
            _ => return None,
        })
    }

    /// What a transport says at each attempt of a connection.
    pub(crate) fn of_note(note: &Note) -> Option<Self> {
        Some(match note {
            Note::Refused { node, refusal, .. } => Self::Refused(*node, refusal.code),
            Note::RefusedBy { peer, refusal, .. } => Self::RefusedBy(*peer, refusal.code),
            Note::Unreachable { peer, .. } => Self::Unreachable(*peer),
            _ => return None,
        })
    }
}

/// How new the data of this node are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Freshness {
    /// Nothing was heard from a leader yet.
    Unknown,
    /// They are at least what a leader had committed then.
    At(Time),
    /// This node leads, as far as it knows.
    Leads,
}

#[derive(Default)]
pub(crate) struct FreshnessCell(AtomicU64);

impl FreshnessCell {
    pub(crate) fn set(&self, freshness: Freshness) {
        self.0.store(
            match freshness {
                Freshness::Unknown => 0,
                Freshness::At(time) => time.0.max(1),
                Freshness::Leads => u64::MAX,
            },
            Relaxed,
        );
    }

    pub(crate) fn get(&self) -> Freshness {
        match self.0.load(Relaxed) {
            0 => Freshness::Unknown,
            u64::MAX => Freshness::Leads,
            time => Freshness::At(Time(time)),
        }
    }
}
