//! Errors as values: one small enum per operation. Each variant says what is now true and what
//! the caller can do.

use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use crate::membership::InvalidChange;
use crate::types::{ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Term};

/// Why a proposal has no good end here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProposeError {
    /// This node does not lead. Nothing was appended; propose at the leader. `None` while no
    /// leader is known.
    NotLeader {
        /// The node to go to.
        leader: Option<NodeId>,
    },
    /// The proposal was bound to another term. Nothing was appended, and it must not be retried:
    /// what it was decided from may no longer hold.
    WrongTerm {
        /// The term of this node.
        term: Term,
    },
    /// The command exceeds [`Config::entry_bytes_max`](crate::Config). Nothing was appended, and
    /// retrying cannot help.
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Too many bytes are appended and not yet applied here. Nothing was appended; retry later.
    Busy {
        /// Bytes appended and not yet applied.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Leadership is on its way to another node. Nothing was appended; retry there.
    Transferring {
        /// The node that shall lead.
        to: NodeId,
    },
    /// The checksum is not that of the command. Nothing was appended.
    Corrupt,
    /// The command was appended here, and then this node lost leadership: it may still commit, or
    /// never. Retrying may execute it twice.
    OutcomeUnknown {
        /// Where it was appended.
        at: LogId,
    },
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader } => write_not_leader(f, *leader),
            Self::WrongTerm { term } => write!(f, "bound to another term than {term}"),
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "command of {bytes} bytes exceeds {bytes_max}")
            }
            Self::Busy { bytes, bytes_max } => {
                write!(f, "busy: {bytes} bytes are not yet applied, limit {bytes_max}")
            }
            Self::Transferring { to } => write!(f, "leadership is being transferred to n{to}"),
            Self::Corrupt => f.write_str("checksum does not match the command"),
            Self::OutcomeUnknown { at } => write!(f, "outcome unknown, appended at {at}"),
        }
    }
}

fn write_not_leader(f: &mut fmt::Formatter<'_>, leader: Option<NodeId>) -> fmt::Result {
    match leader {
        Some(leader) => write!(f, "not the leader, n{leader} is"),
        None => f.write_str("not the leader, and none is known"),
    }
}

/// Why a read was not answered. Reads have no effect, so any of them may be retried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// No leader is known, or the one that was known did not answer within an election timeout.
    NoLeader,
    /// Leadership changed while the read waited.
    LeaderChanged,
    /// Only a leader holds a lease.
    NotLeader {
        /// The node to go to.
        leader: Option<NodeId>,
    },
    /// No lease is held now: see the reason. A [`ReadMode::ReadIndex`](crate::ReadMode) read works.
    NoLease(NoLease),
    /// Too many reads wait already; retry later.
    Busy {
        /// The limit, [`Config::reads_max`](crate::Config).
        reads_max: usize,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLeader => f.write_str("no leader"),
            Self::LeaderChanged => f.write_str("leader changed"),
            Self::NotLeader { leader } => write_not_leader(f, *leader),
            Self::NoLease(why) => write!(f, "no lease: {why}"),
            Self::Busy { reads_max } => write!(f, "busy: {reads_max} reads wait already"),
        }
    }
}

/// Why a leader holds no lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NoLease {
    /// Leases are off in the membership.
    Off,
    /// The entry that turned them on has not committed, or nothing of this term has.
    NotCommitted,
    /// No quorum answered recently enough. The drift bound is taken off the lease's duration.
    Expired,
    /// No quorum answered recently enough without those whose clocks were seen to drift by more
    /// than [`Config::clock_drift_max_ppm`](crate::Config).
    Drift,
    /// `TimeoutNow` was sent in this term.
    Transferred,
}

impl fmt::Display for NoLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "leases are off",
            Self::NotCommitted => "not committed in this term yet",
            Self::Expired => "no quorum has answered recently",
            Self::Drift => "clocks drift by more than the bound",
            Self::Transferred => "given up by a transfer",
        })
    }
}

/// Why the configuration was not changed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChangeError {
    /// This node does not lead. Nothing was appended; ask the leader.
    NotLeader {
        /// The node to go to.
        leader: Option<NodeId>,
    },
    /// No entry of this leader's term has committed yet, and before that no change is safe.
    /// Retry soon.
    NotReady,
    /// An earlier change has not committed yet. Retry when it has.
    InFlight {
        /// Its entry.
        at: Index,
    },
    /// The steps make no sense for the configuration in force.
    Invalid(InvalidChange),
    /// The learner's log is too far behind to make it a voter. Retry when it has caught up.
    Lagging {
        /// The learner.
        node: NodeId,
        /// How far it is.
        match_index: Index,
        /// How far the cluster is.
        commit_index: Index,
    },
    /// Too few voters of the new configuration are alive: the cluster would stop.
    NoQuorum {
        /// Voters of the new configuration.
        voters: usize,
        /// How many of them were heard from within an election timeout.
        alive: usize,
    },
    /// A member does not support the feature level, or did not say so yet.
    FeatureUnsupported {
        /// The member.
        node: NodeId,
        /// What it supports, if known.
        supported: Option<u32>,
    },
    /// The lease would be longer than this node's election timeout.
    LeaseTooLong {
        /// The longest that is possible, in microseconds.
        lease_us_max: u64,
    },
    /// The membership's entry would exceed [`Config::entry_bytes_max`](crate::Config).
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// Leadership is on its way to another node. Nothing was appended; retry there.
    Transferring {
        /// The node that shall lead.
        to: NodeId,
    },
    /// The change was appended, and then this node lost leadership: it may still commit. Look at
    /// the configuration before retrying.
    OutcomeUnknown {
        /// Where it was appended.
        at: LogId,
    },
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader } => write_not_leader(f, *leader),
            Self::NotReady => f.write_str("no entry of this term has committed yet"),
            Self::InFlight { at } => write!(f, "the change at index {at} has not committed yet"),
            Self::Invalid(why) => why.fmt(f),
            Self::Lagging { node, match_index, commit_index } => {
                write!(f, "n{node} has only caught up to index {match_index} of {commit_index}")
            }
            Self::NoQuorum { voters, alive } => {
                write!(f, "only {alive} of the {voters} voters would be alive")
            }
            Self::FeatureUnsupported { node, supported: Some(level) } => {
                write!(f, "n{node} supports only feature level {level}")
            }
            Self::FeatureUnsupported { node, supported: None } => {
                write!(f, "n{node} has not said which feature level it supports")
            }
            Self::LeaseTooLong { lease_us_max } => {
                write!(f, "a lease may last {lease_us_max} us at most")
            }
            Self::TooLarge { bytes_max } => {
                write!(f, "the membership would exceed {bytes_max} bytes")
            }
            Self::Transferring { to } => write!(f, "leadership is being transferred to n{to}"),
            Self::OutcomeUnknown { at } => write!(f, "outcome unknown, appended at {at}"),
        }
    }
}

/// Why leadership was not transferred.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TransferError {
    /// This node does not lead.
    NotLeader {
        /// The node to go to.
        leader: Option<NodeId>,
    },
    /// The target leads already.
    AlreadyLeader,
    /// The target is no voter, or ceased to be one.
    NotVoter {
        /// The target.
        to: NodeId,
    },
    /// Another transfer is under way.
    InProgress {
        /// Its target.
        to: NodeId,
    },
    /// The target did not take over within an election timeout. This node goes on leading, unless
    /// the target is elected yet.
    TimedOut,
    /// This node lost leadership, and not, as far as it knows, to the target.
    ElectedOther {
        /// Who leads now, if known.
        leader: Option<NodeId>,
    },
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader } => write_not_leader(f, *leader),
            Self::AlreadyLeader => f.write_str("the target leads already"),
            Self::NotVoter { to } => write!(f, "n{to} is not a voter"),
            Self::InProgress { to } => write!(f, "a transfer to n{to} is under way"),
            Self::TimedOut => f.write_str("the target did not take over in time"),
            Self::ElectedOther { leader: Some(leader) } => write!(f, "n{leader} leads instead"),
            Self::ElectedOther { leader: None } => f.write_str("leadership was lost"),
        }
    }
}

/// Why a forced campaign did not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CampaignError {
    /// This node leads already.
    AlreadyLeader,
    /// This node has no vote.
    NotVoter,
    /// A leader may still hold a lease: wait for it to run out, or turn leases off.
    LeaseHeld {
        /// Microseconds until it has run out for certain.
        wait_us: u64,
    },
    /// Part of this node's log cannot be read, or its disk is stalled: it must not lead.
    Unfit,
}

impl fmt::Display for CampaignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyLeader => f.write_str("this node leads already"),
            Self::NotVoter => f.write_str("this node is not a voter"),
            Self::LeaseHeld { wait_us } => {
                write!(f, "a leader may hold a lease for another {wait_us} us")
            }
            Self::Unfit => f.write_str("this node's log cannot be read, or its disk is stalled"),
        }
    }
}

/// What is wrong with a message. Nothing of it was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PeerError {
    /// It is for another cluster.
    WrongCluster {
        /// The cluster that it names.
        found: ClusterId,
    },
    /// It is for another group.
    WrongGroup {
        /// The group that it names.
        found: GroupId,
    },
    /// It is for another node, or comes from this one.
    WrongAddress {
        /// The node that it names.
        to: NodeId,
    },
    /// The sender's id belongs to another data directory.
    WrongIncarnation {
        /// The incarnation that the cluster knows.
        known: Incarnation,
        /// The sender's.
        found: Incarnation,
    },
    /// A term or index is larger than any that a correct cluster can reach, or an id is zero.
    Impossible,
    /// Another node leads the term already.
    SecondLeader {
        /// The leader that is known.
        leader: NodeId,
    },
    /// The entries are not contiguous.
    Gap {
        /// The index at which another was expected.
        at: Index,
    },
    /// The terms of the entries decrease, or exceed the message's.
    EntryTerm {
        /// The first offender.
        at: Index,
    },
    /// An entry is not what its checksum was made from.
    Checksum {
        /// The entry.
        at: Index,
    },
    /// An acknowledgement of something that was never sent.
    Unsent {
        /// The index acknowledged.
        at: Index,
    },
    /// An offered snapshot names no configuration.
    NoMembership,
    /// An offered snapshot ends in another entry than the one that is committed here.
    SnapshotConflict {
        /// The index.
        at: Index,
    },
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongCluster { found } => write!(f, "it is for cluster {found}"),
            Self::WrongGroup { found } => write!(f, "it is for group {found}"),
            Self::WrongAddress { to } => write!(f, "it is addressed to n{to}"),
            Self::WrongIncarnation { known, found } => {
                write!(f, "incarnation {:x} instead of {:x}", found.0, known.0)
            }
            Self::Impossible => f.write_str("impossible term or index"),
            Self::SecondLeader { leader } => write!(f, "n{leader} leads this term already"),
            Self::Gap { at } => write!(f, "gap in the entries at index {at}"),
            Self::EntryTerm { at } => write!(f, "impossible term of the entry at index {at}"),
            Self::Checksum { at } => write!(f, "checksum of the entry at index {at} is wrong"),
            Self::Unsent { at } => write!(f, "acknowledges index {at}, which was never sent"),
            Self::NoMembership => f.write_str("a snapshot without a configuration"),
            Self::SnapshotConflict { at } => {
                write!(f, "a snapshot that contradicts the committed entry at index {at}")
            }
        }
    }
}

/// Why a leader gave up leadership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StepDownReason {
    /// A higher term was seen (§5.1).
    HigherTerm {
        /// That term.
        term: Term,
        /// Where it was seen.
        from: NodeId,
    },
    /// No quorum answered for an election timeout (thesis 6.2).
    NoQuorum,
    /// The configuration without this node has committed (§6).
    Removed,
    /// The node's own disk did not complete a write for
    /// [`Config::disk_stall_timeout_us`](crate::Config).
    DiskStalled,
    /// The log cannot be read at this index.
    Unreadable {
        /// The first entry that cannot be read.
        index: Index,
    },
}

impl fmt::Display for StepDownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HigherTerm { term, from } => write!(f, "n{from} is in term {term}"),
            Self::NoQuorum => f.write_str("no quorum answered for an election timeout"),
            Self::Removed => f.write_str("removed from the cluster"),
            Self::DiskStalled => f.write_str("its disk is stalled"),
            Self::Unreadable { index } => write!(f, "its log is unreadable at index {index}"),
        }
    }
}

/// Why a node cannot start.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A setting makes no sense.
    Config {
        /// The field of [`Config`](crate::Config).
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// The state machine has applied, or a commit index covers, more than log and snapshot hold:
    /// part of the log was lost. Restore the node under a new id.
    LogLost {
        /// What should be there.
        expected: Index,
        /// The last index that is there.
        last_index: Index,
    },
    /// The log starts behind what the state machine has applied, so entries are missing between.
    /// Restore the state machine from the snapshot first.
    StateMachineBehind {
        /// What it has applied.
        applied: Index,
        /// The last index that the log no longer holds.
        compacted: Index,
    },
    /// Parts of the log are damaged. Nothing was changed.
    Damaged {
        /// The damaged entries.
        ranges: Vec<RangeInclusive<Index>>,
    },
    /// What was recovered contradicts itself.
    Inconsistent {
        /// In what way.
        what: &'static str,
    },
    /// The configuration demands a higher feature level; upgrade the software.
    FeatureLevel {
        /// What the cluster has agreed on.
        level: u32,
        /// What this software supports.
        supported: u32,
    },
    /// The cluster knows this node's id with another data directory.
    WrongIncarnation {
        /// The incarnation in the configuration.
        known: Incarnation,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { field, rule } => write!(f, "`{field}` {rule}"),
            Self::LogLost { expected, last_index } => write!(
                f,
                "the log ends at index {last_index}, but index {expected} was applied or \
                 committed: part of it was lost; add the node again under a new id"
            ),
            Self::StateMachineBehind { applied, compacted } => write!(
                f,
                "the state machine has applied index {applied}, but the log only starts after \
                 {compacted}; restore it from the snapshot"
            ),
            Self::Damaged { ranges } => {
                f.write_str("the log is damaged at ")?;
                for (at, range) in ranges.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{}..={}", range.start(), range.end())?;
                }
                Ok(())
            }
            Self::Inconsistent { what } => write!(f, "recovered state contradicts itself: {what}"),
            Self::FeatureLevel { level, supported } => write!(
                f,
                "the cluster requires feature level {level}, this software supports {supported}"
            ),
            Self::WrongIncarnation { known } => write!(
                f,
                "the cluster knows this node's id with another data directory (incarnation {:x})",
                known.0
            ),
        }
    }
}

macro_rules! errors {
    ($($name:ident),*) => { $(impl core::error::Error for $name {})* };
}
errors!(ProposeError, ReadError, TransferError, CampaignError, PeerError, StartError, NoLease);

impl core::error::Error for ChangeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Invalid(why) => Some(why),
            _ => None,
        }
    }
}
