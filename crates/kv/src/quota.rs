//! What a request costs in space, by the rule that clients know.

use crate::{Command, Op, Put, Txn};

/// What a put takes besides its key and value.
const PUT_BYTES: usize = 256;
const LEASE_BYTES: usize = 64;

impl Command {
    /// Bytes that this may add to the database, as the quota counts them. What costs nothing is also done while a member
    /// is out of space.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        match self {
            Self::Put(put) => of_put(put),
            Self::Txn(txn) => of_txn(txn),
            Self::LeaseGrant(_) => LEASE_BYTES,
            Self::DeleteRange(_)
            | Self::Compact(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseExpire(_)
            | Self::LeaseCheckpoint(_)
            | Self::Alarm(_) => 0,
        }
    }
}

fn of_put(put: &Put) -> usize {
    PUT_BYTES + put.key.len() + put.value.len()
}

/// The dearer branch, with the transactions within.
fn of_txn(txn: &Txn) -> usize {
    let of = |ops: &[Op]| {
        let cost = |op: &Op| match op {
            Op::Put(put) => of_put(put),
            Op::Txn(txn) => of_txn(txn),
            Op::Range(_) | Op::DeleteRange(_) => 0,
        };
        ops.iter().map(cost).sum::<usize>()
    };
    of(&txn.success).max(of(&txn.failure))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_dearer_branch_counts() {
        let put = |value: usize| {
            let value = Bytes::from(vec![0; value]);
            Op::Put(Put { key: Bytes::from_static(b"k"), value, ..Put::default() })
        };
        let nested = Txn { failure: vec![put(10)], ..Txn::default() };
        let txn = Txn {
            success: vec![put(1), put(2)],
            failure: vec![Op::Txn(nested), put(0), put(0)],
            ..Txn::default()
        };
        assert_eq!(Command::Txn(txn).cost_bytes(), 3 * 257 + 10);
        assert_eq!(Command::Txn(Txn::default()).cost_bytes(), 0);
    }
}
