//! What clients ask, and what the log carries.

use bytes::Bytes;

use crate::{AlarmKind, LeaseId, MemberId, RequestError, Revision};

/// A read. `range_end` empty: the one key; one zero byte: every key from `key` on; else `[key, range_end)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First key.
    pub key: Bytes,
    /// End of the range, see the type.
    pub range_end: Bytes,
    /// Most keys to return; 0 and below mean all.
    pub limit: i64,
    /// Revision to read at; 0 and below mean the current one (in a transaction, negative ones are compared as they are).
    pub revision: Revision,
    /// Direction.
    pub sort_order: SortOrder,
    /// Field to sort by.
    pub sort_target: SortTarget,
    /// Whether local state suffices.
    pub serializable: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Lowest `mod_revision`, if not 0.
    pub min_mod_revision: Revision,
    /// Highest `mod_revision`, if not 0.
    pub max_mod_revision: Revision,
    /// Lowest `create_revision`, if not 0.
    pub min_create_revision: Revision,
    /// Highest `create_revision`, if not 0.
    pub max_create_revision: Revision,
}

/// Direction of a sorted read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// Not asked for: ascending.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

impl SortOrder {
    /// The order of a wire number.
    pub fn from_number(number: i32) -> Result<Self, RequestError> {
        match number {
            0 => Ok(Self::None),
            1 => Ok(Self::Ascend),
            2 => Ok(Self::Descend),
            _ => Err(RequestError::InvalidSortOption),
        }
    }
}

/// Field that a read sorts by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// `version`.
    Version,
    /// `create_revision`.
    Create,
    /// `mod_revision`.
    Mod,
    /// The value's bytes.
    Value,
}

impl SortTarget {
    /// The target of a wire number.
    pub fn from_number(number: i32) -> Result<Self, RequestError> {
        match number {
            0 => Ok(Self::Key),
            1 => Ok(Self::Version),
            2 => Ok(Self::Create),
            3 => Ok(Self::Mod),
            4 => Ok(Self::Value),
            _ => Err(RequestError::InvalidSortOption),
        }
    }
}

/// A write of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Lease to attach to; `None` detaches.
    pub lease: Option<LeaseId>,
    /// Answer with the former pair.
    pub prev_kv: bool,
    /// Keep the value.
    pub ignore_value: bool,
    /// Keep the lease.
    pub ignore_lease: bool,
}

/// Removal of a range, bounds as in [`Range`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRange {
    /// First key.
    pub key: Bytes,
    /// End of the range.
    pub range_end: Bytes,
    /// Answer with the former pairs.
    pub prev_kv: bool,
}

/// One condition of a transaction; over a range it must hold for every key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// First key.
    pub key: Bytes,
    /// End of the range, as in [`Range`].
    pub range_end: Bytes,
    /// Relation of the stored field to the given one.
    pub result: CompareResult,
    /// Field, with what it is compared to. A missing wire value is 0 or empty.
    pub target: CompareTarget,
}

/// Relation of a stored field to a given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareResult {
    /// Same.
    Equal,
    /// Stored is larger.
    Greater,
    /// Stored is smaller.
    Less,
    /// Different.
    NotEqual,
    /// A number that is none of these; it counts as true.
    Unknown,
}

/// Field that is compared, and the value it is compared to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// `version`.
    Version(i64),
    /// `create_revision`.
    Create(Revision),
    /// `mod_revision`.
    Mod(Revision),
    /// The value's bytes.
    Value(Bytes),
    /// The lease's number, 0 for none.
    Lease(i64),
}

/// Conditions, and what to do if all hold or if one does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Conditions; none at all is success.
    pub compare: Vec<Compare>,
    /// Done when all hold.
    pub success: Vec<Op>,
    /// Done otherwise.
    pub failure: Vec<Op>,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read.
    Range(Range),
    /// Write.
    Put(Put),
    /// Remove.
    DeleteRange(DeleteRange),
    /// A transaction within.
    Txn(Txn),
}

/// Give up old revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compact {
    /// Oldest revision that stays readable.
    pub revision: Revision,
    /// Answer only once the space is free.
    pub physical: bool,
}

/// A new lease. The proposer has chosen the id and raised the time to its minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGrant {
    /// Its id.
    pub id: LeaseId,
    /// Granted time to live, in seconds.
    pub ttl_s: i64,
}

/// A lease, told apart from others that had its id before or have it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantedLease {
    /// Its id.
    pub id: LeaseId,
    /// Which grant of the cluster's it was, counted from 1.
    pub grant: u64,
}

/// Remaining time of one lease, as its leader saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseCheckpoint {
    /// Which lease. If it ended, the command is not about another one that has its id now.
    pub lease: GrantedLease,
    /// Remaining time, in seconds; 0 clears the checkpoint.
    pub remaining_s: i64,
}

/// A request about alarms. `None` as kind means every kind in `List` and nothing in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Those that are active.
    List(Option<AlarmKind>),
    /// Raise one.
    Activate(MemberId, Option<AlarmKind>),
    /// Take one back.
    Deactivate(MemberId, Option<AlarmKind>),
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Write one key.
    Put(Put),
    /// Remove a range.
    DeleteRange(DeleteRange),
    /// A transaction that may write.
    Txn(Txn),
    /// Give up old revisions.
    Compact(Compact),
    /// Make a lease.
    LeaseGrant(LeaseGrant),
    /// End a lease because a client asked.
    LeaseRevoke(LeaseId),
    /// End leases because the leader saw their time run out. The proposer binds it to its term. What ended meanwhile is
    /// left out, also if another lease has its id by now.
    LeaseExpire(Vec<GrantedLease>),
    /// Keep remaining times.
    LeaseCheckpoint(Vec<LeaseCheckpoint>),
    /// List or change alarms.
    Alarm(Alarm),
}
