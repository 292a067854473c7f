//! Which lease is next.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::LeaseId;

/// Deadlines by time. A later deadline of a lease, as every renewal brings, changes nothing here: the lease is found too
/// early, asked again and put back. So a renewal costs no more than a look at the lease, and each lease costs 16 bytes.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, LeaseId)>>,
}

impl Deadlines {
    pub(super) fn push(&mut self, at_us: u64, id: LeaseId) {
        self.heap.push(Reverse((at_us, id)));
    }

    /// Not later than the first deadline.
    pub(super) fn first_us(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_us, _))| *at_us)
    }

    /// Takes out a lease whose deadline is not after `now_us`. `deadline` knows the present one of each, if any.
    pub(super) fn pop_due(
        &mut self,
        now_us: u64,
        deadline: impl Fn(LeaseId) -> Option<u64>,
    ) -> Option<LeaseId> {
        loop {
            let Reverse((at_us, id)) = *self.heap.peek()?;
            if at_us > now_us {
                return None;
            }
            self.heap.pop();
            match deadline(id) {
                Some(deadline_us) if deadline_us > now_us => self.push(deadline_us, id),
                Some(_) => return Some(id),
                None => {}
            }
        }
    }

    /// Whether most of it is about leases that are gone.
    pub(super) fn is_stale(&self, leases: usize) -> bool {
        self.heap.len() > 1024 + 2 * leases
    }
}

impl FromIterator<(u64, LeaseId)> for Deadlines {
    fn from_iter<I: IntoIterator<Item = (u64, LeaseId)>>(deadlines: I) -> Self {
        Self { heap: deadlines.into_iter().map(Reverse).collect() }
    }
}
