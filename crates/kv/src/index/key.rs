//! One key: its revisions, and what it is now.

use bytes::Bytes;

use crate::record::{Place, PutRef};
use crate::{KeyValue, LeaseId, Revision};

/// One revision of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    revision: i64,
    /// The lowest bit says whether the key was deleted.
    sub: u32,
}

impl Step {
    pub(crate) fn new(place: Place, deleted: bool) -> Self {
        Self { revision: place.revision, sub: place.sub << 1 | u32::from(deleted) }
    }

    pub(crate) const fn place(self) -> Place {
        Place { revision: self.revision, sub: self.sub >> 1 }
    }

    pub(crate) const fn is_delete(self) -> bool {
        self.sub & 1 == 1
    }
}

/// Where the value of a key may be among those in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot(pub(super) u32);

/// A key: its last revision, what it is now, and whatever else most keys do not have. Millions of these are in memory.
#[derive(Debug)]
pub(crate) struct Key {
    revision: i64,
    create_revision: i64,
    /// 0 if it is deleted.
    version: i64,
    sub: u32,
    pub(super) value: Slot,
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// Revisions before the last one, in their order.
    earlier: Vec<Step>,
    lease: Option<LeaseId>,
}

impl More {
    fn is_needed(&self) -> bool {
        !self.earlier.is_empty() || self.lease.is_some()
    }
}

impl Key {
    /// A key that was put, and no more is known of it.
    pub(super) fn put(put: &PutRef<'_>, place: Place) -> Self {
        let mut key = Self::at_step(Step::new(place, false));
        key.now_is(put);
        key
    }

    /// A key that was deleted.
    pub(super) fn deleted(place: Place) -> Self {
        Self::at_step(Step::new(place, true))
    }

    fn at_step(Step { revision, sub }: Step) -> Self {
        Self { revision, create_revision: 0, version: 0, sub, value: Slot::default(), more: None }
    }

    fn now_is(&mut self, put: &PutRef<'_>) {
        (self.create_revision, self.version) = (put.create_revision, put.version);
        if put.lease.is_some() || self.more.is_some() {
            self.more.get_or_insert_default().lease = put.lease;
        }
    }

    /// It was put once more.
    pub(super) fn put_again(&mut self, put: &PutRef<'_>, place: Place) {
        self.push(Step::new(place, false));
        self.now_is(put);
    }

    /// It was deleted.
    pub(super) fn delete(&mut self, place: Place) {
        self.push(Step::new(place, true));
        (self.create_revision, self.version) = (0, 0);
        self.more.get_or_insert_default().lease = None;
    }

    fn push(&mut self, step: Step) {
        let last = self.last();
        self.more.get_or_insert_default().earlier.push(last);
        (self.revision, self.sub) = (step.revision, step.sub);
    }

    /// Adds a revision before all that are known. Until [`turn_round`](Self::turn_round), nothing before the last one may be
    /// asked for.
    pub(super) fn push_earlier(&mut self, step: Step) {
        self.more.get_or_insert_default().earlier.push(step);
    }

    /// Ends a run of [`push_earlier`](Self::push_earlier).
    pub(super) fn turn_round(&mut self) {
        if let Some(more) = &mut self.more {
            more.earlier.reverse();
            more.earlier.shrink_to_fit();
        }
    }

    fn earlier(&self) -> &[Step] {
        self.more.as_ref().map_or(&[], |more| &more.earlier)
    }

    pub(crate) const fn last(&self) -> Step {
        Step { revision: self.revision, sub: self.sub }
    }

    /// The last change at or before a revision.
    pub(crate) fn at(&self, revision: i64) -> Option<Step> {
        if self.revision <= revision {
            return Some(self.last());
        }
        let earlier = self.earlier();
        let count = earlier.partition_point(|step| step.revision <= revision);
        earlier[..count].last().copied()
    }

    /// Where the pair was written that the key had at a revision, if it had one.
    pub(crate) fn live_at(&self, revision: i64) -> Option<Place> {
        self.at(revision).filter(|step| !step.is_delete()).map(Step::place)
    }

    pub(crate) const fn is_live(&self) -> bool {
        self.version > 0
    }

    pub(crate) const fn create_revision(&self) -> i64 {
        self.create_revision
    }

    pub(crate) const fn version(&self) -> i64 {
        self.version
    }

    pub(crate) fn lease(&self) -> Option<LeaseId> {
        self.more.as_ref()?.lease
    }

    /// The pair as it is now, with such bytes.
    pub(crate) fn pair(&self, key: Bytes, value: Bytes) -> KeyValue {
        KeyValue {
            key,
            create_revision: Revision(self.create_revision),
            mod_revision: Revision(self.revision),
            version: self.version,
            value,
            lease: self.lease(),
        }
    }

    /// Forgets what a compaction does not keep. True if nothing is left.
    pub(super) fn prune(&mut self, revision: i64, forgotten: &mut Vec<Place>) -> bool {
        let at = self.at(revision);
        // Whoever watches from the revision itself hears of everything that happened in it.
        let keeps =
            |step: &Step| step.revision >= revision || (at == Some(*step) && !step.is_delete());
        if let Some(more) = &mut self.more {
            more.earlier.retain(|step| {
                let is_kept = keeps(step);
                if !is_kept {
                    forgotten.push(step.place());
                }
                is_kept
            });
            more.earlier.shrink_to_fit();
            if !more.is_needed() {
                self.more = None;
            }
        }
        let last = self.last();
        if keeps(&last) {
            return false;
        }
        debug_assert!(self.earlier().is_empty(), "what is earlier goes first");
        forgotten.push(last.place());
        true
    }
}
