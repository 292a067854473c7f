//! Transactions: all conditions first, then all checks, then the operations.
//!
//! Conditions, also those of transactions within the branches that are taken, are judged on the state before the
//! transaction. Then every operation that will be done is checked. Only when nothing can fail any more is anything changed,
//! so there is nothing to undo.

use core::cmp::Ordering;

use bytes::Bytes;

use crate::index::KeyRange;
use crate::range::{self, Failure, Need, Pairs};
use crate::state::State;
use crate::{
    Compare, CompareResult, CompareTarget, DeleteRange, DeleteRangeReply, KeyValue, Op, OpReply,
    Put, PutReply, Range, RequestError, Revision, Txn, TxnReply,
};

/// Which branches are taken.
#[derive(Debug)]
pub(crate) struct Path {
    succeeded: bool,
    /// Of the transactions within the branch, in order.
    within: Vec<Path>,
}

impl Path {
    pub(crate) const fn succeeded(&self) -> bool {
        self.succeeded
    }
}

impl Txn {
    /// Whether there is nothing but ranges in both branches: then it need not go through the log. A transaction within makes
    /// it a write, even if that only reads.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, Op::Range(_)))
    }
}

/// The operations of the branch that is taken, each with the path of the transaction that it may be.
pub(crate) fn taken<'a>(
    txn: &'a Txn,
    path: &'a Path,
) -> impl Iterator<Item = (&'a Op, Option<&'a Path>)> {
    let mut within = path.within.iter();
    let ops = if path.succeeded { &txn.success } else { &txn.failure };
    ops.iter().map(move |op| (op, matches!(op, Op::Txn(_)).then(|| within.next()).flatten()))
}

/// Judges all conditions as of a revision.
pub(crate) fn judge(from: &impl Pairs, txn: &Txn, revision: i64) -> Result<Path, Failure> {
    let mut succeeded = true;
    for compare in &txn.compare {
        if !holds(from, compare, revision)? {
            succeeded = false;
            break;
        }
    }
    let ops = if succeeded { &txn.success } else { &txn.failure };
    let within = ops.iter().filter_map(|op| match op {
        Op::Txn(txn) => Some(judge(from, txn, revision)),
        _ => None,
    });
    let within = within.collect::<Result<_, _>>()?;
    Ok(Path { succeeded, within })
}

/// How many pairs of a range are compared before the next ones are looked for.
const COMPARE_PAIRS: usize = 256;

fn holds(from: &impl Pairs, compare: &Compare, revision: i64) -> Result<bool, Failure> {
    let keys = KeyRange::new(&compare.key, &compare.range_end);
    let need = match compare.target {
        CompareTarget::Value(_) => Need::Everything,
        _ => Need::Keys,
    };
    let mut last: Option<Bytes> = None;
    loop {
        let rest = last.as_deref().map_or(keys, |last| keys.after(last));
        let mut pairs = from.pairs(rest, revision, need, COMPARE_PAIRS)?;
        if !pairs.iter().all(|pair| is_so(compare, pair)) {
            return Ok(false);
        }
        let may_be_more = pairs.len() == COMPARE_PAIRS;
        last = pairs.pop().map(|pair| pair.key).or(last);
        if !may_be_more {
            break;
        }
    }
    Ok(if last.is_none() {
        // Nothing has a value, and what is not there has 0 of everything else.
        let missing = KeyValue {
            key: Bytes::new(),
            create_revision: Revision(0),
            mod_revision: Revision(0),
            version: 0,
            value: Bytes::new(),
            lease: None,
        };
        !matches!(compare.target, CompareTarget::Value(_)) && is_so(compare, &missing)
    } else {
        true
    })
}

fn is_so(compare: &Compare, pair: &KeyValue) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(version) => pair.version.cmp(version),
        CompareTarget::Create(revision) => pair.create_revision.cmp(revision),
        CompareTarget::Mod(revision) => pair.mod_revision.cmp(revision),
        CompareTarget::Value(value) => pair.value.cmp(value),
        CompareTarget::Lease(lease) => pair.lease.map_or(0, |lease| lease.0).cmp(lease),
    };
    match compare.result {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::NotEqual => ordering != Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
        CompareResult::Unknown => true,
    }
}

/// Whether a range within a transaction can be read: its revision is compared as it is, 0 apart.
pub(crate) fn check_range(
    range: &Range,
    revision: i64,
    compacted: i64,
) -> Result<(), RequestError> {
    match range.revision.0 {
        0 => Ok(()),
        asked if asked > revision => Err(RequestError::FutureRevision),
        asked if asked < compacted => Err(RequestError::Compacted),
        _ => Ok(()),
    }
}

impl State {
    /// Carries out a transaction, all or nothing.
    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<TxnReply, Failure> {
        let path = judge(self, txn, self.revision)?;
        self.check(txn, &path)?;
        let mut reply = self.execute(txn, &path)?;
        reply.revision = Revision(self.seen_revision());
        Ok(reply)
    }

    fn check(&self, txn: &Txn, path: &Path) -> Result<(), RequestError> {
        for (op, within) in taken(txn, path) {
            match (op, within) {
                (Op::Range(range), _) => check_range(range, self.revision, self.compacted)?,
                (Op::Put(put), _) => self.check_put(put)?,
                (Op::Txn(txn), Some(path)) => self.check(txn, path)?,
                (Op::DeleteRange(_) | Op::Txn(_), _) => {}
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &Put) -> Result<(), RequestError> {
        if put.lease.is_some_and(|lease| !self.leases.contains(lease)) {
            return Err(RequestError::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && self.index.live(&put.key).is_none() {
            return Err(RequestError::KeyNotFound);
        }
        Ok(())
    }

    fn execute(&mut self, txn: &Txn, path: &Path) -> Result<TxnReply, Failure> {
        let mut responses = Vec::new();
        for (op, within) in taken(txn, path) {
            responses.push(match (op, within) {
                (Op::Range(range), _) => {
                    let seen = self.seen_revision();
                    let revision = if range.revision.0 > 0 { range.revision.0 } else { seen };
                    OpReply::Range(range::range(self, range, revision, seen)?)
                }
                (Op::Put(put), _) => OpReply::Put(self.execute_put(put)?),
                (Op::DeleteRange(delete), _) => OpReply::DeleteRange(self.execute_delete(delete)?),
                (Op::Txn(txn), Some(path)) => OpReply::Txn(self.execute(txn, path)?),
                (Op::Txn(_), None) => unreachable!("every transaction within was judged"),
            });
        }
        Ok(TxnReply { revision: Revision(0), succeeded: path.succeeded, responses })
    }

    /// A put by itself.
    pub(crate) fn put_alone(&mut self, put: &Put) -> Result<PutReply, Failure> {
        self.check_put(put)?;
        self.execute_put(put)
    }

    fn execute_put(&mut self, put: &Put) -> Result<PutReply, Failure> {
        let keeps = put.prev_kv || put.ignore_value;
        let prev = self.prev(&put.key, keeps)?;
        // A transaction may delete the key after it was looked up: then there is nothing to keep.
        let value = match &prev {
            Some(prev) if put.ignore_value => prev.value.clone(),
            _ if put.ignore_value => Bytes::new(),
            _ => put.value.clone(),
        };
        let lease = if put.ignore_lease {
            self.index.live(&put.key).and_then(crate::index::Key::lease)
        } else {
            put.lease
        };
        let prev_kv = if put.prev_kv { prev.clone() } else { None };
        self.put(&put.key, &value, lease, prev);
        Ok(PutReply { revision: Revision(self.seen_revision()), prev_kv })
    }

    pub(crate) fn execute_delete(
        &mut self,
        delete: &DeleteRange,
    ) -> Result<DeleteRangeReply, Failure> {
        let keys = KeyRange::new(&delete.key, &delete.range_end);
        let live = self.index.range(keys).filter(|(_, entry)| entry.is_live());
        let keys: Vec<Bytes> = live.map(|(key, _)| Bytes::copy_from_slice(key)).collect();
        let mut prev_kvs = Vec::new();
        let mut deleted = 0;
        for key in keys {
            let prev = self.prev(&key, delete.prev_kv)?;
            if delete.prev_kv {
                prev_kvs.extend(prev.clone());
            }
            self.delete(key, prev);
            deleted += 1;
        }
        Ok(DeleteRangeReply { revision: Revision(self.seen_revision()), deleted, prev_kvs })
    }
}
