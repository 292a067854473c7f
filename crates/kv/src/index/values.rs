//! Pairs in memory, under a budget.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;

use super::key::Slot;

/// What a pair takes in memory besides its bytes: its place here, what counts its users, and what the allocator adds.
pub(super) const VALUE_OVERHEAD_BYTES: usize = 88;

/// Keys with their values, one behind the other in the same bytes, so that whoever is told a pair is given both without a
/// copy.
#[derive(Debug, Default)]
pub(super) struct Values {
    held: Vec<Held>,
    free: Vec<Slot>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Held {
    /// Empty if the place is free: no key is.
    pair: Bytes,
    /// Somebody has looked at it since the clock's hand came by.
    touched: AtomicBool,
}

impl Values {
    /// Bytes of all that is held.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a pair of so many bytes counts.
    pub(super) const fn size(pair_bytes: usize) -> usize {
        pair_bytes + VALUE_OVERHEAD_BYTES
    }

    /// Holds a pair, in the place of another one if there is one.
    pub(super) fn hold(&mut self, slot: Slot, pair: Bytes) -> Slot {
        debug_assert!(!pair.is_empty(), "no key is empty");
        self.bytes += Self::size(pair.len());
        if let Some(at) = slot.at() {
            let old = core::mem::replace(&mut self.held[at].pair, pair);
            self.bytes -= Self::size(old.len());
            return slot;
        }
        let held = Held { pair, touched: AtomicBool::new(false) };
        match self.free.pop() {
            Some(slot) => {
                self.held[slot.at().expect("free places are places")] = held;
                slot
            }
            None => {
                self.held.push(held);
                Slot::of(self.held.len() - 1)
            }
        }
    }

    pub(super) fn drop(&mut self, slot: Slot) {
        let Some(at) = slot.at() else { return };
        let old = core::mem::take(&mut self.held[at].pair);
        self.bytes -= Self::size(old.len());
        self.free.push(slot);
    }

    /// The pair, which is thereby looked at.
    pub(super) fn get(&self, slot: Slot) -> Option<&Bytes> {
        let held = &self.held[slot.at()?];
        if !held.touched.load(Relaxed) {
            held.touched.store(true, Relaxed);
        }
        Some(&held.pair)
    }

    /// The clock's hand comes by. Whether somebody had looked at it since the last time.
    pub(super) fn pass(&mut self, slot: Slot) -> bool {
        slot.at().is_some_and(|at| core::mem::take(self.held[at].touched.get_mut()))
    }
}
