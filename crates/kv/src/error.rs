//! Why a request failed, in the words that clients match on.

use core::fmt;

/// Why a request failed. Nothing was changed, and every replica gives the same answer, with one exception that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// A key is empty where one is needed.
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a missing key, or an operation of a transaction that is none.
    KeyNotFound,
    /// A value beside `ignore_value`.
    ValueProvided,
    /// A lease beside `ignore_lease`.
    LeaseProvided,
    /// A transaction with more compares or operations than allowed.
    TooManyOps,
    /// A transaction that changes one key twice.
    DuplicateKey,
    /// A sort order or target of an unknown number.
    InvalidSortOption,
    /// The revision is below the compact revision, or was compacted already.
    Compacted,
    /// The revision is above the current one.
    FutureRevision,
    /// The quota is exceeded. When raised at apply the write may have happened.
    NoSpace,
    /// No such lease.
    LeaseNotFound,
    /// The id of a new lease is in use.
    LeaseExist,
    /// A time to live of more than 9,000,000,000 seconds.
    LeaseTtlTooLarge,
    /// Members disagree about the data, so nothing is changed any more.
    Corrupt,
}

impl RequestError {
    /// The text of the wire, byte for byte.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::EmptyKey => "etcdserver: key is not provided",
            Self::KeyNotFound => "etcdserver: key not found",
            Self::ValueProvided => "etcdserver: value is provided",
            Self::LeaseProvided => "etcdserver: lease is provided",
            Self::TooManyOps => "etcdserver: too many operations in txn request",
            Self::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Self::InvalidSortOption => "etcdserver: invalid sort option",
            Self::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Self::FutureRevision => "etcdserver: mvcc: required revision is a future revision",
            Self::NoSpace => "etcdserver: mvcc: database space exceeded",
            Self::LeaseNotFound => "etcdserver: requested lease not found",
            Self::LeaseExist => "etcdserver: lease already exists",
            Self::LeaseTtlTooLarge => "etcdserver: too large lease TTL",
            Self::Corrupt => "etcdserver: corrupt cluster",
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for RequestError {}
