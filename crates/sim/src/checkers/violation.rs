//! What a checker reports.

use std::fmt;

use quorate_raft::{NodeId, Time};

/// A rule that must hold in every state, named as in Figure 3 of the paper where it has a name
/// there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Property {
    /// At most one leader can be elected in a given term (Figure 3).
    ElectionSafety,
    /// A leader never overwrites or deletes entries in its log (Figure 3).
    LeaderAppendOnly,
    /// An entry is dropped only for a conflicting one, of another term (§5.3).
    OnlyConflictsAreDropped,
    /// Two logs that have an entry with the same index and term are identical up to it (Figure 3).
    LogMatching,
    /// An entry committed in a term is in the logs of the leaders of all later terms (Figure 3).
    LeaderCompleteness,
    /// No two servers apply different entries at the same index (Figure 3).
    StateMachineSafety,
    /// A server votes for one candidate in a term, whatever crashes lie between (§5.2).
    OneVotePerTerm,
    /// A leader is elected by a quorum of votes in its configuration, and on its own disk too.
    ElectionQuorum,
    /// Term and commit index of a process never go back.
    NoGoingBack,
    /// A leader commits an entry of its own term that a quorum of its configuration has on disk
    /// (§5.4.2).
    CommitQuorum,
    /// What a server promises to others is on its own disk.
    DurableBeforeSpoken,
    /// An acknowledged log is the leader's log.
    TrueAcknowledgement,
    /// Only what is committed, and on the server's own disk, is applied, in order.
    AppliedIsDurable,
    /// Leadership is handed over to a server whose disk holds all that the leader has (thesis 3.10).
    CaughtUpBeforeTransfer,
    /// A snapshot stands for committed entries only.
    SnapshotIsCommitted,
    /// Neighbouring configurations have overlapping quorums, one change is under way at a time,
    /// and none before the leader has committed an entry of its own term.
    ConfigurationSafety,
    /// The configuration in force is the latest in the log.
    ConfigurationInForce,
    /// What was durable is there after a restart.
    DiskKeepsPromises,
    /// A read sees all that was committed before it began.
    FreshRead,
    /// A command bound to a term is executed in that term or not at all.
    BoundToTerm,
    /// A command in a session takes effect once, and has one answer (thesis 6.3).
    ExactlyOnce,
    /// What clients saw is what one machine could have shown them.
    Linearizability,
    /// Once the faults are over, the cluster makes progress and its logs converge.
    Liveness,
    /// Nothing panics: a failed assertion of the core or the host.
    NoPanic,
}

impl Property {
    /// The name that reports use; words that a command line can carry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ElectionSafety => "Election Safety",
            Self::LeaderAppendOnly => "Leader Append-Only",
            Self::OnlyConflictsAreDropped => "Only Conflicts Are Dropped",
            Self::LogMatching => "Log Matching",
            Self::LeaderCompleteness => "Leader Completeness",
            Self::StateMachineSafety => "State Machine Safety",
            Self::OneVotePerTerm => "One Vote Per Term",
            Self::ElectionQuorum => "Election Quorum",
            Self::NoGoingBack => "No Going Back",
            Self::CommitQuorum => "Commit Quorum",
            Self::DurableBeforeSpoken => "Durable Before Spoken",
            Self::TrueAcknowledgement => "True Acknowledgement",
            Self::AppliedIsDurable => "Applied Is Durable",
            Self::CaughtUpBeforeTransfer => "Caught Up Before Transfer",
            Self::SnapshotIsCommitted => "Snapshot Is Committed",
            Self::ConfigurationSafety => "Configuration Safety",
            Self::ConfigurationInForce => "Configuration In Force",
            Self::DiskKeepsPromises => "Disk Keeps Promises",
            Self::FreshRead => "Fresh Read",
            Self::BoundToTerm => "Bound To Term",
            Self::ExactlyOnce => "Exactly Once",
            Self::Linearizability => "Linearizability",
            Self::Liveness => "Liveness",
            Self::NoPanic => "No Panic",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A rule was broken: which, by whom, and what was seen when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The rule.
    pub property: Property,
    /// The nodes concerned, the one whose step showed it first; none if it is the cluster's.
    pub nodes: Vec<NodeId>,
    /// What was seen, in a sentence.
    pub seen: String,
    /// The event after which it was seen.
    pub step: u64,
    /// The virtual time of that event.
    pub time: Time,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is violated", self.property)?;
        for (at, node) in self.nodes.iter().enumerate() {
            write!(f, "{}n{node}", if at == 0 { " by " } else { ", " })?;
        }
        write!(f, " at step {}, {}: {}", self.step, self.time, self.seen)
    }
}
