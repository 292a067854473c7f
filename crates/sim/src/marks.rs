//! Rare states, counted.
//!
//! A simulation that never sees a snapshot race proves little about snapshot races. So each state
//! worth reaching has a [`Mark`], a run counts how often it was there, and a summary that shows a
//! zero shows a hole in the workload (tigerbeetle's `marks.zig` has the idea).

use std::fmt;

macro_rules! marks {
    ($($(#[$group:meta])* $name:ident = $text:literal,)*) => {
        /// A state worth reaching; [`Display`](fmt::Display) says which.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[allow(missing_docs, reason = "each has its description as text, for the summary")]
        pub enum Mark { $($name,)* }

        impl Mark {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What is reached, in a few words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

marks! {
    // Elections.
    ElectionByTimeout = "a candidate campaigns after a time-out",
    ElectionByTransfer = "a candidate campaigns because the leader told it to",
    ElectionForced = "a candidate campaigns because an operator told it to",
    TwoCandidates = "two candidates in one term",
    SplitVote = "a term with several candidates ends without a leader",
    CandidateMeetsLeader = "a candidate meets the leader of its own term",
    CandidateMeetsHigherTerm = "a candidate learns of a higher term",
    VoteRefusedForLog = "a vote is refused to a log that is behind",
    VoteRefusedGivenAway = "a vote is refused because it was given away",
    PreVoteLost = "a pre-candidate gives up and follows",
    PreVoteRefusedBySticky = "a pre-vote is refused by a voter that hears from a leader",
    TwoLeadersAtOnce = "a deposed leader does not know it yet",
    LeaderInheritsUncommitted = "a leader is elected with uncommitted entries of earlier terms",
    LateCommit = "a leader commits after its successor was elected",
    OutsiderAsks = "a server that was removed asks for votes",
    PeerClosedElection = "a pre-vote soon after the leader's process ended",
    PeerClosedWrongly = "word of a process's end that is wrong",
    LeaderOfOne = "a single voter leads",

    // Stepping down.
    DownHigherTerm = "a leader steps down: higher term",
    DownNoQuorum = "a leader steps down: no quorum answers",
    DownRemoved = "a leader steps down: its removal has committed",
    DownDiskStalled = "a leader steps down: its disk is stalled",
    DownUnreadable = "a leader steps down: its log is unreadable",

    // Replication.
    AppendRefusedShort = "entries are refused: the log is too short",
    AppendRefusedConflict = "entries are refused: another term there",
    LogTruncated = "a follower drops conflicting entries",
    MembershipTruncated = "a follower drops a configuration with them",
    TruncatedAfterRestart = "a log recovered from disk is truncated",
    CommitBeforeOwnDisk = "a leader commits what its own disk does not hold yet",
    LoadedFromDisk = "entries for a slow peer are loaded from disk",
    LoadCompacted = "entries to load are compacted away",
    LoadUnreadable = "entries to load cannot be read",

    // Snapshots.
    SnapshotOffered = "a leader offers a snapshot",
    SnapshotFetched = "a snapshot is fetched",
    SnapshotFetchFailed = "fetching a snapshot fails",
    SnapshotDuringSnapshot = "a second snapshot is fetched during the first",
    SnapshotInstalled = "a snapshot is installed",
    SnapshotOverLog = "a snapshot replaces a log that has entries",
    SnapshotChangesMembership = "a snapshot brings another configuration",
    InstallCrashed = "a crash during the installation of a snapshot",
    LogCompacted = "a log is compacted",

    // Membership.
    LearnerAdded = "a learner is added",
    VoterAdded = "a voter is added, as a learner at first",
    LearnerPromoted = "a learner is promoted by request",
    LearnerAutoPromoted = "a learner that has caught up is promoted by the leader",
    MemberReplaced = "a promoted learner replaces a member",
    VoterDemoted = "a voter is demoted",
    MemberRemoved = "a member is removed",
    LeaderRemoved = "a leader appends its own removal",
    JointEntered = "a joint configuration is entered",
    JointLeft = "a joint configuration is left",
    JointLeftBySuccessor = "a joint configuration is left by a later leader",
    ElectionInJoint = "a leader is elected in a joint configuration",
    MembersBound = "members' incarnations are bound",
    ContextSet = "a member's context is changed",
    FeatureLevelRaised = "the feature level is raised",
    LeaseChanged = "the lease is turned on, off or changed",
    RestartWithOldMembership = "a restart with an outdated configuration",
    ChangeNotReady = "a change is refused before the leader's first commit",
    ChangeInFlight = "a change is refused while another is in flight",
    ChangeLagging = "a promotion is refused because the learner lags",
    ChangeNoQuorum = "a change is refused because too few would be alive",
    ChangeInvalid = "a change that makes no sense is refused",
    ChangeUnsupported = "a feature level is refused because a member does not support it",
    ChangeLeaseTooLong = "a lease is refused because it is too long",
    ChangeOutcomeUnknown = "the outcome of a change is unknown",
    ChangeCommitted = "a change is answered with its place",
    WipedRefused = "a wiped node is told to come back under another id",

    // Reads.
    ReadAtLeader = "a read is served at the leader",
    ReadAtFollower = "a read is served at a follower",
    ReadAtLearner = "a read is served at a learner",
    ReadNoLeader = "a read is refused: no leader",
    ReadLeaderChanged = "a read is refused: the leader changed",
    ReadBusy = "a read is refused: busy",
    ReadTimedOut = "a read waits for the state machine in vain",
    ReadRetried = "a client retries a read",
    LeaseReadServed = "a lease read is served",
    LeaseOff = "a lease read is refused: leases are off",
    LeaseNotCommitted = "a lease read is refused: nothing of this term has committed",
    LeaseExpired = "a lease read is refused: it ran out",
    LeaseDrift = "a lease read is refused: a clock was seen to drift beyond the bound",
    LeaseTransferred = "a lease read is refused: given up by a transfer",

    // Proposals.
    Executed = "a command is executed",
    ExecutedInTerm = "a command bound to a term is executed",
    ExecutedForwarded = "a command is executed that was not proposed at its leader",
    ProposeNotLeader = "a command is refused: not the leader",
    ProposeWrongTerm = "a command is refused: bound to another term",
    ProposeBusy = "a command is refused: busy",
    ProposeTooLarge = "a command is refused: too large",
    ProposeTransferring = "a command is refused during a transfer",
    ProposeOverwritten = "a command is overwritten in the log",
    ProposeOutcomeUnknown = "the outcome of a command is unknown",
    ProposeRetried = "a client retries a command",

    // Transfers and forced elections.
    TransferSucceeded = "a transfer succeeds",
    TransferTimedOut = "a transfer times out",
    TransferElectedOther = "a transfer ends with another leader",
    TransferRefused = "a transfer is refused",
    CampaignBegun = "a forced campaign begins",
    CampaignLeaseHeld = "a forced campaign is refused because of a lease",
    CampaignRefused = "a forced campaign is refused otherwise",

    // Crashes.
    CrashInStep = "a crash between two effects",
    CrashLosesWrites = "a crash loses writes that were not durable",
    KillKeepsWrites = "a kill leaves writes that were not durable",
    LeaderCrashed = "a leader crashes",
    CrashWhileRecovering = "a crash before the restart is done",
    RestartRedoesEntries = "a restart applies entries again",
    StartRefused = "a node refuses to start",
    RestartFinishesInstall = "a restart completes an installation that a crash cut short",

    // Disks.
    DiskFull = "a write is refused by a full disk",
    SyncFailed = "a sync fails, and the node stops",
    DiedHalfWay = "a process dies in the middle of an operation on its log",
    StartInterrupted = "a start is interrupted by a crash",
    TornTail = "a start cuts a torn tail",
    RewrittenAboveMark = "a start writes records again that may not be durable",
    DamageRefused = "a start refuses a damaged log",
    SegmentRecycled = "a segment is used again",
    RecordsForwarded = "what counts in an old segment is written again",
    SegmentUnprepared = "a segment is needed before it is prepared",
    LogRotted = "durable bytes of a log change",
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// How often each mark was reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Marks {
    counts: Vec<u64>,
}

impl Default for Marks {
    fn default() -> Self {
        Self { counts: vec![0; Mark::ALL.len()] }
    }
}

impl Marks {
    /// Counts one.
    pub fn hit(&mut self, mark: Mark) {
        self.counts[mark as usize] += 1;
    }

    /// How often the mark was reached.
    #[must_use]
    pub fn count(&self, mark: Mark) -> u64 {
        self.counts[mark as usize]
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// How many were reached at all.
    #[must_use]
    pub fn reached(&self) -> usize {
        Mark::ALL.len() - self.never().count()
    }

    /// Those never reached.
    pub fn never(&self) -> impl Iterator<Item = Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.count(*mark) == 0)
    }
}

impl fmt::Display for Marks {
    /// One line for each, the count first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mark in Mark::ALL {
            writeln!(f, "{:>12}  {mark}", self.count(*mark))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_counted_and_summed() {
        let mut marks = Marks::default();
        marks.hit(Mark::SplitVote);
        let mut sum = marks.clone();
        sum.add(&marks);
        assert_eq!(sum.count(Mark::SplitVote), 2);
        assert_eq!(sum.never().count(), Mark::ALL.len() - 1);
    }
}
