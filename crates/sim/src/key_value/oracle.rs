//! What must be true of revisions, leases and watches, whatever goes wrong.

use std::collections::BTreeMap;

use quorate_kv::{Changes, Event, LeaseId, Revision};
use quorate_raft::{NodeId, Time};

use super::machine::Done;

/// The one history that all replicas must have, as far as any has applied it.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    changes: Vec<Changes>,
    leases: BTreeMap<LeaseId, Promise>,
    /// The newest revision that somebody was told of.
    told: Revision,
}

/// What the owner of a lease may rely on.
#[derive(Debug, Default)]
struct Promise {
    /// Until when it was promised to live; `None` once its owner has given it up.
    until: Option<Time>,
    /// When it had ended for the first replica.
    ended: Option<Time>,
}

impl Oracle {
    /// A replica did something.
    pub(super) fn did(&mut self, node: NodeId, now: Time, done: Done) -> Result<(), String> {
        match done {
            Done::Changed(changes) => {
                let at = usize::try_from(changes.revision.0 - 2).map_err(|_| "revision below 2")?;
                match self.changes.get(at) {
                    Some(known) if *known == changes => Ok(()),
                    Some(known) => Err(format!("n{node} has {changes:?}, others {known:?}")),
                    None if at == self.changes.len() => {
                        self.changes.push(changes);
                        Ok(())
                    }
                    None => Err(format!("n{node} leaves out revisions: {changes:?}")),
                }
            }
            Done::Ended { id, expired } => {
                let promise = self.leases.entry(id).or_default();
                if promise.ended.is_none() {
                    promise.ended = Some(now);
                    if let Some(until) = promise.until.filter(|until| expired && now < *until) {
                        let early = until.since(now);
                        return Err(format!("lease {} ends {early} us early, by n{node}", id.0));
                    }
                }
                Ok(())
            }
        }
    }

    /// The owner of a lease was told that it has so much time.
    pub(super) fn promised(&mut self, id: LeaseId, until: Time) {
        let promise = self.leases.entry(id).or_default();
        promise.until = promise.until.max(Some(until));
    }

    /// The owner does not want the lease any more.
    pub(super) fn given_up(&mut self, id: LeaseId) {
        self.leases.entry(id).or_default().until = None;
    }

    pub(super) fn has_ended(&self, id: LeaseId) -> bool {
        self.leases.get(&id).is_some_and(|promise| promise.ended.is_some())
    }

    /// The newest revision that somebody was told of. Whoever asks from now on hears of no older one.
    pub(super) const fn told(&self) -> Revision {
        self.told
    }

    /// Somebody was told of a revision, who asked when `floor` had been told.
    pub(super) fn tells(&mut self, floor: Revision, revision: Revision) -> Result<(), String> {
        self.told = self.told.max(revision);
        if revision < floor {
            return Err(format!("revision {} was told, then {}", floor.0, revision.0));
        }
        Ok(())
    }

    /// The events from one revision to another that a watcher wants.
    pub(super) fn events(
        &self,
        from: Revision,
        to: Revision,
        wants: impl Fn(&Event) -> bool,
    ) -> Vec<Event> {
        let within = self.changes.iter().filter(|c| (from..=to).contains(&c.revision));
        let events = within.flat_map(|changes| changes.events.iter());
        events.filter(|event| wants(event)).cloned().collect()
    }
}
