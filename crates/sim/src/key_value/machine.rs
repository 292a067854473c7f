//! A replica of the key-value store on a simulated host, with its watches and its lessor.

use std::any::Any;

use bytes::Bytes;
use quorate_kv::{
    Changes, Command, Hub, LeaseId, Lessor, LessorConfig, RequestError, Revision, WatchConfig,
};
use quorate_raft::{Entry, LogId, Payload};

use super::form;
use super::reference::Reference;
use crate::state_machine::{StateMachine, mix};

/// What a replica did, for the oracles.
#[derive(Clone, Debug)]
pub(super) enum Done {
    Changed(Changes),
    /// A lease ended, because its time was up or because its owner wanted that.
    Ended {
        id: LeaseId,
        expired: bool,
    },
}

/// A replica. Store and lessor are what the host of a server has; the rest of the host is simulated.
#[derive(Debug)]
pub struct KeyValueMachine {
    pub(super) store: Reference,
    applied: LogId,
    durable: (Reference, LogId),
    pub(super) hub: Hub,
    pub(super) lessor: Lessor,
    /// Counts the processes that served it: streams of an earlier one are gone.
    pub(super) life: u64,
    pub(super) done: Vec<Done>,
}

/// Times of leases in a run are some seconds, so checkpoints are frequent too.
fn new_lessor() -> Lessor {
    Lessor::new(LessorConfig { extension_us: 200_000, checkpoint_interval_us: Some(1_500_000) })
}

fn new_hub(store: &Reference) -> Hub {
    let config = WatchConfig { progress_interval_us: 500_000, ..WatchConfig::default() };
    Hub::new(config, store.revision(), store.compacted)
}

impl Default for KeyValueMachine {
    fn default() -> Self {
        let store = Reference::default();
        Self {
            hub: new_hub(&store),
            durable: (store.clone(), LogId::default()),
            store,
            applied: LogId::default(),
            lessor: new_lessor(),
            life: 1,
            done: Vec::new(),
        }
    }
}

impl KeyValueMachine {
    fn execute(&mut self, command: &Command) -> Result<Revision, RequestError> {
        let done = self.store.apply(command)?;
        for changes in done.changes {
            self.hub.publish(&changes);
            self.done.push(Done::Changed(changes));
        }
        let expired = matches!(command, Command::LeaseExpire(_));
        self.done.extend(done.ended.into_iter().map(|id| Done::Ended { id, expired }));
        if let Command::Compact(_) = command {
            self.hub.compact(self.store.compacted);
        }
        Ok(self.store.revision())
    }
}

/// What a command is answered: a revision, or the text of an error.
pub(super) fn revision_of(response: &[u8]) -> Option<Revision> {
    let text = std::str::from_utf8(response).ok()?;
    Some(Revision(text.strip_prefix("revision ")?.parse().ok()?))
}

impl StateMachine for KeyValueMachine {
    fn apply(&mut self, entry: &Entry) -> Bytes {
        let next = self.applied.index.next();
        assert_eq!(entry.index, next, "State Machine Safety: entries are applied in order");
        self.applied = entry.log_id();
        let Payload::Command(command) = &entry.payload else { return Bytes::new() };
        // What proves progress at the end of a run is no command.
        let Ok(command) = Command::decode(command) else { return Bytes::new() };
        match self.execute(&command) {
            Ok(revision) => Bytes::from(format!("revision {}", revision.0)),
            Err(error) => Bytes::from_static(error.text().as_bytes()),
        }
    }

    fn query(&self, _: &[u8]) -> Bytes {
        Bytes::from(format!("revision {}", self.store.revision().0))
    }

    fn applied(&self) -> LogId {
        self.applied
    }

    fn snapshot(&self) -> Bytes {
        let head =
            [self.applied.index.0, self.applied.term.0].into_iter().flat_map(u64::to_le_bytes);
        head.chain(form::to_bytes(&self.store)).collect::<Vec<u8>>().into()
    }

    fn restore(&mut self, snapshot: &[u8]) {
        let (index, rest) = snapshot.split_first_chunk().expect("a whole snapshot");
        let (term, rest) = rest.split_first_chunk().expect("a whole snapshot");
        self.lessor.demote(&mut self.store.leases);
        self.store = form::from_bytes(rest);
        self.applied.index.0 = u64::from_le_bytes(*index);
        self.applied.term.0 = u64::from_le_bytes(*term);
        self.hub.reset(self.store.revision(), self.store.compacted);
        self.flush();
    }

    fn flush(&mut self) {
        self.durable = (self.store.clone(), self.applied);
    }

    fn durable(&self) -> LogId {
        self.durable.1
    }

    fn crash(&mut self) {
        self.hub.shutdown();
        (self.store, self.applied) = self.durable.clone();
        self.hub = new_hub(&self.store);
        self.lessor.demote(&mut self.store.leases);
        self.lessor = new_lessor();
        self.life += 1;
    }

    fn digest(&self) -> u64 {
        mix(self.store.digest(), self.applied.index.0)
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
