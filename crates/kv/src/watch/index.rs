//! Which watchers a key concerns.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::watch::intervals::{End, Intervals};

/// What a watcher watches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchRange {
    Key(Bytes),
    From(Bytes, End),
}

impl WatchRange {
    /// The range of a request; `None` if it cannot contain anything. The empty key means the first of all keys.
    pub(super) fn new(key: Bytes, range_end: Bytes) -> Option<Self> {
        let key = if key.is_empty() { Bytes::from_static(b"\0") } else { key };
        match &range_end[..] {
            b"" => Some(Self::Key(key)),
            b"\0" => Some(Self::From(key, End::Never)),
            end if &key[..] < end => Some(Self::From(key, End::Before(range_end))),
            _ => None,
        }
    }
}

/// Members by range. Those of the same range share a slot, so that an event is matched once for all of them.
#[derive(Debug)]
pub(super) struct Index<K, M> {
    slots: Vec<Slot<K, M>>,
    free: Vec<u32>,
    keys: BTreeMap<Bytes, u32>,
    intervals: Intervals,
}

/// All members of one range.
#[derive(Debug)]
pub(super) struct Slot<K, M> {
    pub(super) members: BTreeMap<K, M>,
}

impl<K: Ord, M> Index<K, M> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            keys: BTreeMap::new(),
            intervals: Intervals::default(),
        }
    }

    pub(super) fn insert(&mut self, range: &WatchRange, name: K, member: M) {
        let slot = match self.find(range) {
            Some(slot) => slot,
            None => self.add(range),
        };
        self.slots[slot as usize].members.insert(name, member);
    }

    pub(super) fn remove(&mut self, range: &WatchRange, name: &K) -> Option<M> {
        let at = self.find(range)?;
        let slot = &mut self.slots[at as usize];
        let member = slot.members.remove(name)?;
        if slot.members.is_empty() {
            match range {
                WatchRange::Key(key) => drop(self.keys.remove(key)),
                WatchRange::From(start, end) => self.intervals.remove(start, end),
            }
            self.free.push(at);
        }
        Some(member)
    }

    pub(super) fn get_mut(&mut self, range: &WatchRange, name: &K) -> Option<&mut M> {
        let at = self.find(range)?;
        self.slots[at as usize].members.get_mut(name)
    }

    /// Adds the numbers of the slots that a key concerns.
    pub(super) fn containing(&self, key: &Bytes, found: &mut Vec<u32>) {
        found.extend(self.keys.get(key));
        self.intervals.containing(key, found);
    }

    pub(super) fn slot_mut(&mut self, slot: u32) -> &mut Slot<K, M> {
        &mut self.slots[slot as usize]
    }

    fn find(&self, range: &WatchRange) -> Option<u32> {
        match range {
            WatchRange::Key(key) => self.keys.get(key).copied(),
            WatchRange::From(start, end) => self.intervals.find(start, end),
        }
    }

    fn add(&mut self, range: &WatchRange) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot { members: BTreeMap::new() });
                u32::try_from(self.slots.len() - 1).expect("fewer ranges than numbers")
            }
        };
        match range {
            WatchRange::Key(key) => drop(self.keys.insert(key.clone(), slot)),
            WatchRange::From(start, end) => {
                self.intervals.insert(start.clone(), end.clone(), slot);
            }
        }
        slot
    }
}
