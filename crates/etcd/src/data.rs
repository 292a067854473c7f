//! What a member knows, shared by whoever applies and whoever serves.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use quorate_kv::{AlarmKind, Hub, LeaderTerm, Lessor, Reader, Renewal, Store, Ticket};
use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::proto::host;

/// What the cluster keeps beside keys and leases.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attributes {
    /// What members say of themselves.
    pub(crate) members: BTreeMap<u64, host::Attributes>,
    pub(crate) cluster_version: Option<String>,
}

/// The lessor, with the keepalives that wait for an outcome by the numbers of their tickets.
pub(crate) struct LeaseBook {
    pub(crate) lessor: Lessor,
    pub(crate) waiting: HashMap<u64, oneshot::Sender<Renewal>>,
}

impl LeaseBook {
    /// Answers whoever waited for what is known now.
    pub(crate) fn deliver(&mut self) {
        for (ticket, renewal) in self.lessor.take_outcomes() {
            if let Some(waiting) = self.waiting.remove(&ticket.number) {
                let _ = waiting.send(renewal);
            }
        }
    }

    /// A place to hear what becomes of a ticket.
    pub(crate) fn wait(&mut self, ticket: Ticket) -> oneshot::Receiver<Renewal> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(ticket.number, sender);
        receiver
    }
}

/// See the module. Whoever takes several of its locks takes the store's first.
pub(crate) struct Data {
    store: Mutex<Store>,
    reader: RwLock<Reader>,
    pub(crate) hub: Hub,
    leases: Mutex<LeaseBook>,
    attributes: RwLock<Arc<Attributes>>,
    applied_term: AtomicU64,
    /// A member is out of space.
    no_space: AtomicBool,
    /// The table of leases has changed, or a first entry of a term was applied.
    pub(crate) lease_news: Notify,
    /// There is something to forget.
    pub(crate) compaction_news: Notify,
}

impl Data {
    pub(crate) fn new(store: Store, hub: Hub, lessor: Lessor, attributes: Attributes) -> Self {
        let reader = store.reader();
        let data = Self {
            applied_term: AtomicU64::new(reader.applied().term),
            no_space: AtomicBool::new(false),
            store: Mutex::new(store),
            reader: RwLock::new(reader),
            hub,
            leases: Mutex::new(LeaseBook { lessor, waiting: HashMap::new() }),
            attributes: RwLock::new(Arc::new(attributes)),
            lease_news: Notify::new(),
            compaction_news: Notify::new(),
        };
        data.look_at_alarms();
        data
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For one request: a snapshot of a leader may replace it.
    pub(crate) fn reader(&self) -> Reader {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn leases(&self) -> MutexGuard<'_, LeaseBook> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attributes(&self) -> Arc<Attributes> {
        Arc::clone(&self.attributes.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change_attributes(&self, change: impl FnOnce(&mut Attributes)) {
        let mut all = self.attributes.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut all));
    }

    pub(crate) fn is_out_of_space(&self) -> bool {
        self.no_space.load(Ordering::Relaxed)
    }

    pub(crate) fn applied_term(&self) -> u64 {
        self.applied_term.load(Ordering::Acquire)
    }

    fn look_at_alarms(&self) {
        let alarms = self.reader().alarms();
        let no_space = alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace);
        self.no_space.store(no_space, Ordering::Relaxed);
    }

    /// A batch was applied, and nobody has been answered yet.
    pub(crate) fn applied(&self, store: &mut Store, term: u64, compacted: bool, alarms: bool) {
        let mut leases = self.leases();
        store.follow(&mut leases.lessor, clock::now_us());
        leases.deliver();
        let wakes = leases.lessor.wake_us().is_some();
        drop(leases);
        let before = self.applied_term.swap(term, Ordering::AcqRel);
        if wakes || before != term {
            self.lease_news.notify_one();
        }
        if compacted {
            self.compaction_news.notify_one();
        }
        if alarms {
            self.look_at_alarms();
        }
    }

    /// This member leads a term whose first entry is applied here.
    pub(crate) fn promote(&self, term: u64) {
        let mut store = self.store();
        let mut leases = self.leases();
        store.promote(&mut leases.lessor, clock::now_us(), LeaderTerm(term));
        leases.deliver();
    }

    /// This member does not lead (any more).
    pub(crate) fn demote(&self, store: &mut Store) {
        let mut leases = self.leases();
        store.demote(&mut leases.lessor);
        leases.deliver();
    }

    /// A snapshot of another member has replaced everything.
    pub(crate) fn replaced(&self, store: &mut Store, attributes: Attributes) {
        let reader = store.reader();
        self.applied_term.store(reader.applied().term, Ordering::Release);
        let (current, compacted) = (reader.revision(), reader.compacted());
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader;
        self.change_attributes(|all| *all = attributes);
        self.look_at_alarms();
        self.hub.reset(current, compacted);
        self.compaction_news.notify_one();
    }
}
