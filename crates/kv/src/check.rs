//! What a request must be like before it is served or proposed. None of it needs the data, so it is the business of whoever
//! takes requests in; those that come out of the log were checked by the member that proposed them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{DeleteRange, Op, Put, Range, RequestError, Txn};

/// Operations that a transaction may have, unless it is set otherwise.
pub const TXN_OPS_MAX: usize = 128;

impl Range {
    /// Checks a read.
    ///
    /// # Errors
    ///
    /// [`RequestError::EmptyKey`]. Unknown sort numbers were refused before, when they were made into a
    /// [`SortOrder`](crate::SortOrder) and a [`SortTarget`](crate::SortTarget).
    pub fn check(&self) -> Result<(), RequestError> {
        check_key(&self.key)
    }
}

impl Put {
    /// Checks a write.
    ///
    /// # Errors
    ///
    /// [`RequestError::EmptyKey`], [`RequestError::ValueProvided`], [`RequestError::LeaseProvided`], in this order.
    pub fn check(&self) -> Result<(), RequestError> {
        check_key(&self.key)?;
        if self.ignore_value && !self.value.is_empty() {
            return Err(RequestError::ValueProvided);
        }
        if self.ignore_lease && self.lease.is_some() {
            return Err(RequestError::LeaseProvided);
        }
        Ok(())
    }
}

impl DeleteRange {
    /// Checks a removal.
    ///
    /// # Errors
    ///
    /// [`RequestError::EmptyKey`].
    pub fn check(&self) -> Result<(), RequestError> {
        check_key(&self.key)
    }
}

impl Txn {
    /// Checks a transaction: its size, then each operation, then that no key is changed twice. `ops_max` is
    /// [`TXN_OPS_MAX`] by default.
    ///
    /// # Errors
    ///
    /// [`RequestError::TooManyOps`], what the operations are refused for, [`RequestError::DuplicateKey`].
    pub fn check(&self, ops_max: usize) -> Result<(), RequestError> {
        self.check_ops(ops_max)?;
        Changed::by(&self.success)?;
        Changed::by(&self.failure)?;
        Ok(())
    }

    /// A transaction within has what its parent leaves.
    fn check_ops(&self, ops_max: usize) -> Result<(), RequestError> {
        let ops = self.compare.len().max(self.success.len()).max(self.failure.len());
        let left = ops_max.checked_sub(ops).ok_or(RequestError::TooManyOps)?;
        for compare in &self.compare {
            check_key(&compare.key)?;
        }
        for op in self.success.iter().chain(&self.failure) {
            match op {
                Op::Range(range) => range.check()?,
                Op::Put(put) => put.check()?,
                Op::DeleteRange(delete) => delete.check()?,
                Op::Txn(txn) => txn.check_ops(left)?,
            }
        }
        Ok(())
    }
}

fn check_key(key: &Bytes) -> Result<(), RequestError> {
    if key.is_empty() { Err(RequestError::EmptyKey) } else { Ok(()) }
}

/// What a branch changes, with the transactions within.
#[derive(Debug, Default)]
struct Changed {
    puts: BTreeSet<Bytes>,
    deletes: Spans,
}

impl Changed {
    /// Clients know the order in which these are looked at, and the hole that it leaves: of two transactions side by side, the
    /// first may put what the second deletes.
    fn by(ops: &[Op]) -> Result<Self, RequestError> {
        let mut changed = Self::default();
        for op in ops {
            if let Op::DeleteRange(delete) = op {
                changed.deletes.insert(delete);
            }
        }
        for op in ops {
            if let Op::Txn(txn) = op {
                changed.add(Self::by(&txn.success)?, Self::by(&txn.failure)?)?;
            }
        }
        for op in ops {
            if let Op::Put(put) = op {
                changed.add_put(put.key.clone())?;
            }
        }
        Ok(changed)
    }

    /// Adds both branches of a transaction. Only one of them is taken, so they may repeat each other's keys.
    fn add(&mut self, success: Self, failure: Self) -> Result<(), RequestError> {
        let mut puts = success.puts;
        puts.extend(failure.puts);
        for key in puts {
            self.add_put(key)?;
        }
        self.deletes.extend(success.deletes);
        self.deletes.extend(failure.deletes);
        Ok(())
    }

    fn add_put(&mut self, key: Bytes) -> Result<(), RequestError> {
        if self.deletes.contains(&key) || !self.puts.insert(key) {
            return Err(RequestError::DuplicateKey);
        }
        Ok(())
    }
}

/// Ranges of keys, from their first key to their end; none touches another one.
#[derive(Debug, Default)]
struct Spans(BTreeMap<Bytes, Bytes>);

impl Spans {
    /// The end is taken as it is written: a removal of everything from a key on is none here, as clients know it.
    fn insert(&mut self, delete: &DeleteRange) {
        let end = if delete.range_end.is_empty() {
            let mut next = delete.key.to_vec();
            next.push(0);
            Bytes::from(next)
        } else {
            delete.range_end.clone()
        };
        self.insert_span(delete.key.clone(), end);
    }

    fn insert_span(&mut self, mut start: Bytes, mut end: Bytes) {
        if start >= end {
            return;
        }
        while let Some((from, to)) = self.0.range::<Bytes, _>(..=&end).next_back() {
            if *to < start {
                break;
            }
            let from = from.clone();
            let to = self.0.remove(&from).expect("it was found just now");
            start = start.min(from);
            end = end.max(to);
        }
        self.0.insert(start, end);
    }

    fn extend(&mut self, other: Self) {
        for (start, end) in other.0 {
            self.insert_span(start, end);
        }
    }

    fn contains(&self, key: &Bytes) -> bool {
        self.0.range::<Bytes, _>(..=key).next_back().is_some_and(|(_, end)| key < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compare, CompareResult, CompareTarget, LeaseId};

    fn put(key: &'static str) -> Op {
        Op::Put(Put { key: Bytes::from_static(key.as_bytes()), ..Put::default() })
    }

    fn delete(key: &'static str, end: &'static str) -> Op {
        let (key, range_end) =
            (Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()));
        Op::DeleteRange(DeleteRange { key, range_end, prev_kv: false })
    }

    fn get(key: &'static str) -> Op {
        Op::Range(Range { key: Bytes::from_static(key.as_bytes()), ..Range::default() })
    }

    fn within(success: Vec<Op>, failure: Vec<Op>) -> Op {
        Op::Txn(Txn { success, failure, ..Txn::default() })
    }

    fn check(success: Vec<Op>) -> Result<(), RequestError> {
        let as_failure = Txn { failure: success.clone(), ..Txn::default() }.check(TXN_OPS_MAX);
        let as_success = Txn { success, ..Txn::default() }.check(TXN_OPS_MAX);
        assert_eq!(as_success, as_failure, "branches are alike");
        as_success
    }

    const TWICE: Result<(), RequestError> = Err(RequestError::DuplicateKey);

    #[test]
    fn keys_are_needed_everywhere() {
        let empty = Err(RequestError::EmptyKey);
        assert_eq!(Range::default().check(), empty);
        assert_eq!(DeleteRange::default().check(), empty);
        for op in [put(""), delete("", "b"), get(""), within(vec![put("")], vec![])] {
            assert_eq!(check(vec![put("a"), op]), empty);
        }
        let compare = Compare {
            key: Bytes::new(),
            range_end: Bytes::new(),
            result: CompareResult::Equal,
            target: CompareTarget::Version(0),
        };
        let txn = Txn { compare: vec![compare], ..Txn::default() };
        assert_eq!(txn.check(TXN_OPS_MAX), empty);
    }

    #[test]
    fn what_is_kept_is_not_given() {
        let (value, lease) = (Bytes::from_static(b"v"), Some(LeaseId(1)));
        let key = Bytes::from_static(b"k");
        let full =
            Put { key, value, lease, ignore_value: true, ignore_lease: true, prev_kv: false };
        assert_eq!(full.check(), Err(RequestError::ValueProvided));
        let without_value = Put { value: Bytes::new(), ..full.clone() };
        assert_eq!(without_value.check(), Err(RequestError::LeaseProvided));
        assert_eq!(Put { lease: None, ..without_value }.check(), Ok(()));
        // The key is the first thing that is looked at.
        assert_eq!(Put { key: Bytes::new(), ..full }.check(), Err(RequestError::EmptyKey));
    }

    #[test]
    fn those_within_have_what_the_parent_leaves() {
        let ops = |count: usize| vec![get("a"); count];
        let txn = |success, failure| Txn { success, failure, ..Txn::default() };
        assert_eq!(txn(ops(3), ops(2)).check(3), Ok(()), "the longest list counts");
        assert_eq!(txn(ops(2), ops(4)).check(3), Err(RequestError::TooManyOps));
        let nested = |count| txn(vec![get("a"), within(ops(count), vec![])], vec![]);
        assert_eq!(nested(3).check(5), Ok(()));
        assert_eq!(nested(4).check(5), Err(RequestError::TooManyOps));
        // Not even an operation that is refused by itself is looked at before.
        assert_eq!(txn(vec![put(""); 4], vec![]).check(3), Err(RequestError::TooManyOps));
    }

    #[test]
    fn a_key_changes_once() {
        assert_eq!(check(vec![put("a"), put("b"), get("a")]), Ok(()));
        assert_eq!(check(vec![put("a"), put("a")]), TWICE);
        assert_eq!(check(vec![put("b"), delete("a", "c")]), TWICE);
        assert_eq!(check(vec![delete("a", ""), put("a")]), TWICE);
        assert_eq!(check(vec![delete("a", "c"), delete("b", "d"), put("d")]), Ok(()));
        assert_eq!(check(vec![delete("a", "c"), delete("b", "d"), put("c")]), TWICE);
        // From a key on is not seen.
        assert_eq!(check(vec![delete("a", "\0"), put("b")]), Ok(()));
        let both = Txn { success: vec![put("a")], failure: vec![put("a")], ..Txn::default() };
        assert_eq!(both.check(TXN_OPS_MAX), Ok(()));
    }

    #[test]
    fn those_within_change_no_key_of_others() {
        let puts = |key| within(vec![put(key)], vec![]);
        assert_eq!(check(vec![puts("a"), puts("b")]), Ok(()));
        assert_eq!(check(vec![puts("a"), put("a")]), TWICE);
        assert_eq!(check(vec![puts("a"), puts("a")]), TWICE);
        assert_eq!(check(vec![puts("a"), within(vec![], vec![put("a")])]), TWICE);
        assert_eq!(check(vec![within(vec![put("a")], vec![put("a")])]), Ok(()));
        assert_eq!(check(vec![puts("b"), delete("a", "c")]), TWICE);
        assert_eq!(check(vec![within(vec![delete("a", "c")], vec![]), put("b")]), TWICE);
        assert_eq!(check(vec![within(vec![], vec![delete("a", "c")]), put("b")]), TWICE);
        assert_eq!(check(vec![within(vec![put("a")], vec![delete("a", "")])]), Ok(()));
        assert_eq!(check(vec![within(vec![put("a"), put("a")], vec![])]), TWICE);
        // Side by side: only a deletion that comes first is seen.
        let deletes = within(vec![delete("a", "c")], vec![]);
        assert_eq!(check(vec![deletes.clone(), puts("b")]), TWICE);
        assert_eq!(check(vec![puts("b"), deletes]), Ok(()));
    }

    #[test]
    fn spans_are_as_the_ranges_that_made_them() {
        let letters = b"abcdefgh";
        let mut seed = 7_u32;
        let mut letter = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Bytes::copy_from_slice(&letters[(seed >> 24) as usize % 8..][..1])
        };
        for _ in 0..500 {
            let mut spans = Spans::default();
            let mut plain: Vec<(Bytes, Bytes)> = Vec::new();
            for _ in 0..4 {
                let (start, end) = (letter(), letter());
                spans.insert_span(start.clone(), end.clone());
                plain.push((start, end));
                for at in 0..8 {
                    let key = Bytes::copy_from_slice(&letters[at..=at]);
                    let is_in = plain.iter().any(|(start, end)| *start <= key && key < *end);
                    assert_eq!(spans.contains(&key), is_in, "{key:?} in {plain:?}");
                }
            }
        }
    }
}
