//! Pairs in memory, under a budget.
//!
//! They are in a ring, in the order in which they came. What is over the budget goes from its beginning; a pair that was
//! looked at goes to the end instead. A key knows where in the ring its pair is, and the ring which revision that pair is
//! of: if it is not the key's last one, then the pair is gone, or an old one that will go when its turn comes. So dropping a
//! pair needs no look at its key.
//!
//! Small pairs share pieces of memory with those that came just before, and will go together with them. One that stays gets
//! memory of its own.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::key::Slot;
use crate::record::Place;

/// What a pair takes in memory besides its bytes.
pub(super) const VALUE_OVERHEAD_BYTES: usize = 80;
/// Memory that small pairs share.
const PIECE_BYTES: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Values {
    ring: VecDeque<Held>,
    /// The number of the first one.
    first: u32,
    bytes: usize,
    piece: BytesMut,
}

/// A key with its value, one behind the other in the same bytes, so that whoever is told the pair is given both without a
/// copy.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pair: Bytes,
    pub(super) key_bytes: u32,
    /// Somebody has looked at it since it came, or came once more.
    touched: AtomicBool,
    pub(super) place: Place,
}

const fn size(pair: &[u8]) -> usize {
    pair.len() + VALUE_OVERHEAD_BYTES
}

impl Values {
    /// Bytes of all that is held.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes for a pair, filled with it.
    pub(super) fn pair(&mut self, key: &[u8], value: &[u8]) -> Bytes {
        let length = key.len() + value.len();
        if length > PIECE_BYTES / 4 {
            return alone(key, value);
        }
        if self.piece.capacity() < length {
            self.piece = BytesMut::with_capacity(PIECE_BYTES);
        }
        self.piece.extend_from_slice(key);
        self.piece.extend_from_slice(value);
        self.piece.split().freeze()
    }

    fn held(pair: Bytes, key: &[u8], place: Place) -> Held {
        let key_bytes = u32::try_from(key.len()).expect("a command is far smaller than 4 GiB");
        Held { pair, key_bytes, touched: AtomicBool::new(false), place }
    }

    /// Holds a pair, behind all others.
    pub(super) fn hold(&mut self, pair: Bytes, key: &[u8], place: Place) -> Slot {
        self.bytes += size(&pair);
        self.ring.push_back(Self::held(pair, key, place));
        Slot(self.first.wrapping_add(self.ring.len() as u32 - 1))
    }

    /// Holds a pair before all others, if that leaves the whole within so many bytes.
    pub(super) fn hold_first(
        &mut self,
        pair: &[u8],
        key: &[u8],
        place: Place,
        bytes_max: usize,
    ) -> Slot {
        if self.bytes + size(pair) > bytes_max {
            return Slot::default();
        }
        self.bytes += size(pair);
        let pair = self.pair(pair, &[]);
        self.ring.push_front(Self::held(pair, key, place));
        self.first = self.first.wrapping_sub(1);
        Slot(self.first)
    }

    fn find(&self, slot: Slot, place: Place) -> Option<&Held> {
        let at = slot.0.wrapping_sub(self.first);
        self.ring.get(at as usize).filter(|held| held.place == place)
    }

    /// The pair that was put at a place, if it is here; thereby it is looked at.
    pub(super) fn get(&self, slot: Slot, place: Place) -> Option<&Bytes> {
        let held = self.find(slot, place)?;
        if !held.touched.load(Relaxed) {
            held.touched.store(true, Relaxed);
        }
        Some(&held.pair)
    }

    /// A pair is not needed any more. Small ones go when their turn comes: the memory that they share is not free before.
    pub(super) fn forget(&mut self, slot: Slot, place: Place) {
        let at = slot.0.wrapping_sub(self.first);
        let held = self.ring.get_mut(at as usize).filter(|held| held.place == place);
        if let Some(held) = held
            && held.pair.len() > PIECE_BYTES / 4
        {
            let pair = core::mem::take(&mut held.pair);
            self.bytes -= pair.len();
            *held.touched.get_mut() = false;
        }
    }

    /// Takes the first one out; if it was looked at, it may come once more.
    pub(super) fn take_first(&mut self) -> Option<Held> {
        let mut held = self.ring.pop_front()?;
        self.first = self.first.wrapping_add(1);
        self.bytes -= size(&held.pair);
        held.touched.get_mut().then_some(held)
    }
}

/// A pair in memory that it does not share.
pub(super) fn alone(key: &[u8], value: &[u8]) -> Bytes {
    let mut pair = Vec::with_capacity(key.len() + value.len());
    pair.extend_from_slice(key);
    pair.extend_from_slice(value);
    Bytes::from(pair)
}
