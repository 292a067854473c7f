//! Names for numbers, and the key-value pair.

use bytes::Bytes;

/// A store revision. Requests may carry any number, negative ones too; a fresh store is at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// A lease. On the wire 0 means "none"; here that is `Option::None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// The lease of a wire field, `None` for 0.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }
}

/// A member of the cluster, as alarms name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// A member is over its quota: nothing that costs space is accepted.
    NoSpace,
    /// Members disagree: nothing that goes through the log is accepted.
    Corrupt,
}

/// A key with its value, as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, never empty.
    pub key: Bytes,
    /// Revision of the put that began the current generation.
    pub create_revision: Revision,
    /// Revision of the last put.
    pub mod_revision: Revision,
    /// Puts since creation, from 1.
    pub version: i64,
    /// The value; empty is legal.
    pub value: Bytes,
    /// The lease that the key is attached to.
    pub lease: Option<LeaseId>,
}
