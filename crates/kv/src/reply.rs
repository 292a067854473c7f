//! What requests answer. A failure is a [`RequestError`](crate::RequestError) instead.

use crate::{AlarmKind, KeyValue, LeaseId, MemberId, Revision};

/// Answer to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeReply {
    /// Revision of the header.
    pub revision: Revision,
    /// The pairs.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// Keys in the range, whatever limit and filters said.
    pub count: i64,
}

/// Answer to a put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutReply {
    /// Revision of the header.
    pub revision: Revision,
    /// The former pair, if asked for.
    pub prev_kv: Option<KeyValue>,
}

/// Answer to a removal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeReply {
    /// Revision of the header.
    pub revision: Revision,
    /// Keys removed.
    pub deleted: i64,
    /// The former pairs in key order, if asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// Answer to a transaction. A nested one has revision 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnReply {
    /// Revision of the header.
    pub revision: Revision,
    /// Which branch was taken.
    pub succeeded: bool,
    /// One answer per operation of it.
    pub responses: Vec<OpReply>,
}

/// Answer to one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpReply {
    /// To a range.
    Range(RangeReply),
    /// To a put.
    Put(PutReply),
    /// To a removal.
    DeleteRange(DeleteRangeReply),
    /// To a nested transaction.
    Txn(TxnReply),
}

/// An active alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlarmMember {
    /// Whose alarm.
    pub member: MemberId,
    /// About what.
    pub kind: AlarmKind,
}

/// Answer to a [`Command`](crate::Command).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a put.
    Put(PutReply),
    /// To a removal.
    DeleteRange(DeleteRangeReply),
    /// To a transaction.
    Txn(TxnReply),
    /// To a grant.
    LeaseGrant {
        /// Revision of the header.
        revision: Revision,
        /// The lease.
        id: LeaseId,
        /// Its time to live in seconds.
        ttl_s: i64,
    },
    /// To a compaction, a revocation, an expiry or a checkpoint.
    Done {
        /// Revision of the header.
        revision: Revision,
    },
    /// To a request about alarms.
    Alarms {
        /// Revision of the header.
        revision: Revision,
        /// Those listed, raised or taken back.
        alarms: Vec<AlarmMember>,
    },
}
