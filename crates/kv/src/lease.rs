//! Leases as every replica sees them: which exist, for how long they were granted, and which keys hang on them.
//!
//! There is no clock here. When a lease ends is decided by the leader ([`Lessor`](crate::Lessor)) and reaches the table as
//! a command like any other; what the table knows of time is what commands say: the granted time to live, and, for long
//! leases, the remaining time that a leader wrote down so that the next one does not start from the beginning.
//!
//! **On disk** a lease is one small record ([`Leases::take_changes`], [`Leases::restore`]) without its keys: each key's
//! record names its lease, so the attachments are rebuilt with the index of keys ([`Leases::attach`] for each). A put to a
//! leased key therefore writes nothing here.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{GrantedLease, LeaseCheckpoint, LeaseId, RequestError};

/// Longest time to live that may be granted, in seconds.
pub const LEASE_TTL_MAX_S: i64 = 9_000_000_000;

/// Bytes of a lease's record.
pub const LEASE_RECORD_BYTES: usize = 25;
const RECORD_VERSION: u8 = 1;

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    id: LeaseId,
    grant: u64,
    ttl_s: i64,
    remaining_s: Option<i64>,
    keys: BTreeSet<Bytes>,
}

impl Lease {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// It, and none that had or will have its id.
    #[must_use]
    pub fn granted(&self) -> GrantedLease {
        GrantedLease { id: self.id, grant: self.grant }
    }

    /// Granted time to live, in seconds.
    #[must_use]
    pub fn ttl_s(&self) -> i64 {
        self.ttl_s
    }

    /// Remaining time of the last checkpoint, in seconds; `None` if there is none, or if it was cleared since.
    #[must_use]
    pub fn remaining_s(&self) -> Option<i64> {
        self.remaining_s
    }

    /// What a new leader gives the lease: the checkpointed remaining time, else all of it.
    #[must_use]
    pub fn time_left_s(&self) -> i64 {
        self.remaining_s.unwrap_or(self.ttl_s)
    }

    /// The attached keys, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.keys.iter()
    }

    fn record(&self) -> LeaseRecord {
        LeaseRecord { grant: self.grant, ttl_s: self.ttl_s, remaining_s: self.remaining_s }
    }
}

/// What happened to a lease, in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseChange {
    /// It was granted, for so many seconds.
    Granted(GrantedLease, i64),
    /// It ended.
    Revoked(LeaseId),
    /// Its remaining time was written down, or forgotten.
    Checkpointed(LeaseId, Option<i64>),
}

/// All leases. Same commands, same table.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    by_id: BTreeMap<LeaseId, Lease>,
    by_key: BTreeMap<Bytes, LeaseId>,
    /// How many were granted since the beginning.
    grants: u64,
    /// Leases whose record on disk is not what is here.
    changed: BTreeSet<LeaseId>,
    /// What the lessor has not seen yet, while there is one. It reads after every batch, so a batch bounds it.
    journal: Option<Vec<LeaseChange>>,
}

/// Two tables are equal if they hold the same leases and keys, whatever of it is on disk.
impl PartialEq for Leases {
    fn eq(&self, other: &Self) -> bool {
        self.grants == other.grants && self.by_id == other.by_id
    }
}

impl Eq for Leases {}

impl Leases {
    /// A table without leases.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// One lease.
    #[must_use]
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    /// Whether there is such a lease.
    #[must_use]
    pub fn contains(&self, id: LeaseId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Whether the lease is there that is meant, and not another one with its id.
    #[must_use]
    pub fn has(&self, lease: GrantedLease) -> bool {
        self.get(lease.id).is_some_and(|there| there.grant == lease.grant)
    }

    /// How many leases were granted since the beginning: whoever stores [records](Self::take_changes) stores it, too.
    #[must_use]
    pub const fn grants(&self) -> u64 {
        self.grants
    }

    /// Puts that number back.
    pub fn restore_grants(&mut self, grants: u64) {
        self.grants = grants;
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Lease> {
        self.by_id.values()
    }

    /// The lease of a key.
    #[must_use]
    pub fn lease_of(&self, key: &[u8]) -> Option<LeaseId> {
        self.by_key.get(key).copied()
    }

    /// The keys of a lease, in order; none if there is no such lease.
    pub fn keys_of(&self, id: LeaseId) -> impl Iterator<Item = &Bytes> {
        self.by_id.get(&id).into_iter().flat_map(Lease::keys)
    }

    /// A new lease. The proposer has raised the time to its minimum; what is below one second counts as one.
    ///
    /// Gives back the granted time in seconds.
    pub fn grant(&mut self, id: LeaseId, ttl_s: i64) -> Result<i64, RequestError> {
        if id.0 == 0 {
            return Err(RequestError::LeaseNotFound);
        }
        if ttl_s > LEASE_TTL_MAX_S {
            return Err(RequestError::LeaseTtlTooLarge);
        }
        if self.by_id.contains_key(&id) {
            return Err(RequestError::LeaseExist);
        }
        let ttl_s = ttl_s.max(1);
        self.grants += 1;
        let lease =
            Lease { id, grant: self.grants, ttl_s, remaining_s: None, keys: BTreeSet::new() };
        self.note(LeaseChange::Granted(lease.granted(), ttl_s));
        self.by_id.insert(id, lease);
        self.changed.insert(id);
        Ok(ttl_s)
    }

    /// Ends a lease, and gives back its keys in the order in which they are to be deleted, all in one revision.
    pub fn revoke(&mut self, id: LeaseId) -> Result<Vec<Bytes>, RequestError> {
        let lease = self.by_id.remove(&id).ok_or(RequestError::LeaseNotFound)?;
        self.changed.insert(id);
        self.note(LeaseChange::Revoked(id));
        for key in &lease.keys {
            let owner = self.by_key.remove(key);
            debug_assert_eq!(owner, Some(id), "a key belongs to the lease that lists it");
        }
        Ok(lease.keys.into_iter().collect())
    }

    /// A key was put with this lease: it leaves the one it had. Without such a lease nothing changes.
    pub fn attach(&mut self, key: &Bytes, id: LeaseId) -> Result<(), RequestError> {
        if self.by_key.get(key) == Some(&id) {
            return Ok(());
        }
        if !self.by_id.contains_key(&id) {
            return Err(RequestError::LeaseNotFound);
        }
        self.detach(key);
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(key.clone());
        }
        self.by_key.insert(key.clone(), id);
        Ok(())
    }

    /// A key was deleted, or put without a lease. Gives back the lease that it had.
    pub fn detach(&mut self, key: &[u8]) -> Option<LeaseId> {
        let id = self.by_key.remove(key)?;
        if let Some(lease) = self.by_id.get_mut(&id) {
            let listed = lease.keys.remove(key);
            debug_assert!(listed, "a lease lists the keys that belong to it");
        }
        Some(id)
    }

    /// Notes the remaining time of a lease, at most the granted one; 0 or less forgets it. Whether the lease that is meant
    /// is there.
    pub fn checkpoint(&mut self, checkpoint: LeaseCheckpoint) -> bool {
        let GrantedLease { id, grant } = checkpoint.lease;
        let Some(lease) = self.by_id.get_mut(&id).filter(|lease| lease.grant == grant) else {
            return false;
        };
        let remaining_s = checkpoint.remaining_s.min(lease.ttl_s);
        let remaining_s = (remaining_s > 0).then_some(remaining_s);
        if lease.remaining_s != remaining_s {
            lease.remaining_s = remaining_s;
            self.changed.insert(id);
        }
        self.note(LeaseChange::Checkpointed(id, remaining_s));
        true
    }

    /// From here on, what happens is kept for [`take_journal`](Self::take_journal).
    pub(crate) fn start_journal(&mut self) {
        self.journal = Some(Vec::new());
    }

    /// Nobody reads the journal any more.
    pub(crate) fn stop_journal(&mut self) {
        self.journal = None;
    }

    /// What happened since it was asked last.
    pub(crate) fn take_journal(&mut self) -> Vec<LeaseChange> {
        self.journal.as_mut().map(core::mem::take).unwrap_or_default()
    }

    fn note(&mut self, change: LeaseChange) {
        if let Some(journal) = &mut self.journal {
            journal.push(change);
        }
    }

    /// Records that differ from those taken last: the bytes to store under the id, or `None` to remove it. By id.
    ///
    /// Whoever takes them stores them with everything else of the same moment, or stops.
    pub fn take_changes(&mut self) -> Vec<(LeaseId, Option<[u8; LEASE_RECORD_BYTES]>)> {
        let changed = core::mem::take(&mut self.changed);
        let record = |id: &LeaseId| self.by_id.get(id).map(|lease| lease.record().encode());
        changed.iter().map(|id| (*id, record(id))).collect()
    }

    /// Every record, as a snapshot holds them. By id.
    pub fn records(&self) -> impl Iterator<Item = (LeaseId, [u8; LEASE_RECORD_BYTES])> {
        self.iter().map(|lease| (lease.id, lease.record().encode()))
    }

    /// Puts a lease back from its record, without keys. Nothing of it counts as changed.
    pub fn restore(&mut self, id: LeaseId, record: &[u8]) -> Result<(), LeaseRecordError> {
        let LeaseRecord { grant, ttl_s, remaining_s } = LeaseRecord::decode(record)?;
        if id.0 == 0 || self.by_id.contains_key(&id) {
            return Err(LeaseRecordError::Id(id));
        }
        let lease = Lease { id, grant, ttl_s, remaining_s, keys: BTreeSet::new() };
        self.by_id.insert(id, lease);
        Ok(())
    }
}

/// A record: version, number of the grant, granted and remaining seconds, big-endian, 0 for "no checkpoint".
struct LeaseRecord {
    grant: u64,
    ttl_s: i64,
    remaining_s: Option<i64>,
}

impl LeaseRecord {
    fn encode(&self) -> [u8; LEASE_RECORD_BYTES] {
        let mut bytes = [RECORD_VERSION; LEASE_RECORD_BYTES];
        bytes[1..9].copy_from_slice(&self.grant.to_be_bytes());
        bytes[9..17].copy_from_slice(&self.ttl_s.to_be_bytes());
        bytes[17..].copy_from_slice(&self.remaining_s.unwrap_or(0).to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, LeaseRecordError> {
        let bytes: &[u8; LEASE_RECORD_BYTES] =
            bytes.try_into().map_err(|_| LeaseRecordError::Length(bytes.len()))?;
        let ([version], numbers) = bytes.split_first_chunk().ok_or(LeaseRecordError::Length(0))?;
        let (version, mut numbers) = (*version, numbers.iter().copied());
        let mut number = || core::array::from_fn(|_| numbers.next().unwrap_or_default());
        let grant = u64::from_be_bytes(number());
        let (ttl_s, remaining_s) = (number(), number());
        if version != RECORD_VERSION {
            return Err(LeaseRecordError::Version(version));
        }
        let ttl_s = i64::from_be_bytes(ttl_s);
        let remaining_s = i64::from_be_bytes(remaining_s);
        if !(1..=LEASE_TTL_MAX_S).contains(&ttl_s) || !(0..=ttl_s).contains(&remaining_s) {
            return Err(LeaseRecordError::Time);
        }
        Ok(Self { grant, ttl_s, remaining_s: (remaining_s > 0).then_some(remaining_s) })
    }
}

/// Why bytes are not the record of a lease. The table is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseRecordError {
    /// Not [`LEASE_RECORD_BYTES`] but this many.
    Length(usize),
    /// A version that this build does not know.
    Version(u8),
    /// Times that no lease can have.
    Time,
    /// The number 0, or a lease that is there already.
    Id(LeaseId),
}

impl fmt::Display for LeaseRecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => write!(f, "the record of a lease has {bytes} bytes"),
            Self::Version(version) => write!(f, "unknown version {version} of a lease's record"),
            Self::Time => f.write_str("the record of a lease has impossible times"),
            Self::Id(id) => write!(f, "lease {} cannot be restored", id.0),
        }
    }
}

impl core::error::Error for LeaseRecordError {}
