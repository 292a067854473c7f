//! What servers say to each other: one type per RPC and per reply.
//!
//! Every message travels in an [`Envelope`], which carries the sender's term: the first rule of
//! all servers (§5.1, Figure 2) is about any message, whatever it says.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::entry::Entry;
use crate::membership::Membership;
use crate::types::{AttemptId, ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Term, Time};

/// A message with its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The cluster that both ends belong to.
    pub cluster: ClusterId,
    /// The Raft group that both ends belong to.
    pub group: GroupId,
    /// Who sends.
    pub from: NodeId,
    /// The data directory that sends.
    pub incarnation: Incarnation,
    /// Who shall receive.
    pub to: NodeId,
    /// The sender's current term, durable on its disk.
    pub term: Term,
    /// What is said.
    pub message: Message,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Would you vote for me? (thesis 9.6)
    PreVote(PreVote),
    /// Answer to [`Message::PreVote`].
    PreVoteReply(PreVoteReply),
    /// Vote for me in this term (§5.2).
    RequestVote(RequestVote),
    /// Answer to [`Message::RequestVote`].
    RequestVoteReply(RequestVoteReply),
    /// Entries for the log (§5.3).
    AppendEntries(AppendEntries),
    /// Answer to [`Message::AppendEntries`].
    AppendEntriesReply(AppendEntriesReply),
    /// I lead (§5.2); the empty `AppendEntries` of the paper as a message of its own.
    Heartbeat(Heartbeat),
    /// Answer to [`Message::Heartbeat`].
    HeartbeatReply(HeartbeatReply),
    /// The commit index has advanced, and no entries are on their way that could say so. Needs
    /// no answer.
    CommitNotice(CommitNotice),
    /// Your log is too far behind: take this snapshot (§7). The bytes travel outside the core.
    InstallSnapshot(InstallSnapshot),
    /// Answer to [`Message::InstallSnapshot`].
    InstallSnapshotReply(InstallSnapshotReply),
    /// Start an election at once (thesis 3.10).
    TimeoutNow,
    /// From which index on is my read linearizable? Asked by a follower or learner (thesis 6.4).
    ReadIndex(ReadIndex),
    /// Answer to [`Message::ReadIndex`].
    ReadIndexReply(ReadIndexReply),
    /// Your messages do not count here.
    Refused(Refusal),
}

/// Asks whether an election could be won, without starting one (thesis 9.6). The envelope has the
/// term in which the sender is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PreVote {
    /// The term that the sender would campaign in.
    pub next_term: Term,
    /// The last entry of the sender's log.
    pub last_log: LogId,
    /// Tells this attempt from earlier ones.
    pub attempt: AttemptId,
}

/// Answer to [`PreVote`]. A refusal by a server in a higher term spreads that term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PreVoteReply {
    /// The attempt that is answered.
    pub attempt: AttemptId,
    /// Whether the sender would vote so. It promises nothing.
    pub granted: bool,
}

/// Asks for a vote in the envelope's term (§5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestVote {
    /// The last entry of the candidate's log (§5.4.1).
    pub last_log: LogId,
    /// What made the candidate campaign.
    pub cause: ElectionCause,
}

/// What made a candidate campaign. It decides whether voters that hear from a leader listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElectionCause {
    /// It heard from no leader for an election timeout.
    Timeout,
    /// The leader told it to (thesis 3.10), and has given up its lease.
    Transfer,
    /// An operator told it to. Voters that keep a lease do not listen.
    Forced,
}

/// Answer to [`RequestVote`]: the vote is on the sender's disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestVoteReply {
    /// Whether the vote is given, in the envelope's term.
    pub granted: bool,
}

/// Entries to append, right behind `prev_log` (§5.3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AppendEntries {
    /// The entry before the first of `entries`. The receiver must have it.
    pub prev_log: LogId,
    /// The entries, contiguous; empty for a probe.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub leader_commit: Index,
    /// The leader's latest round of heartbeats when this was sent.
    pub round: u64,
    /// Room for later versions; ignored by this one.
    pub extension: Bytes,
}

/// Answer to [`AppendEntries`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendEntriesReply {
    /// Whether the entries fit.
    pub outcome: AppendOutcome,
    /// The round that the request carried.
    pub round: u64,
    /// Room for later versions; ignored by this one.
    pub extension: Bytes,
}

/// Whether entries fitted into a follower's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendOutcome {
    /// The follower's log equals the leader's up to there, and that much is on its disk.
    Accepted {
        /// Last index known to be equal and durable.
        match_index: Index,
    },
    /// The entry before them is missing or another one.
    Refused {
        /// The index of the `prev_log` that was refused.
        prev_index: Index,
        /// Where to go on.
        conflict: Conflict,
    },
}

/// Where a follower's log leaves the leader's (§5.3, "the protocol can be optimized").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The term of the follower's entry at the refused index; `None` if its log ends before it.
    pub term: Option<Term>,
    /// The first index that the follower has for that term; behind its last entry if `term` is
    /// `None`.
    pub first_index: Index,
}

/// A leader's sign of life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// The leader's commit index. The receiver takes it only as far as it knows its log to be the
    /// leader's.
    pub leader_commit: Index,
    /// Counts the rounds of this leader; an answer confirms leadership since the round was sent.
    pub round: u64,
}

/// Answer to [`Heartbeat`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeartbeatReply {
    /// The round that is answered.
    pub round: u64,
    /// Last index at which the sender knows its log to be the leader's, durable or not. What the
    /// leader sent before the round and is not in it was lost.
    pub verified: Index,
    /// The highest feature level that the sender's software supports.
    pub feature_level: u32,
    /// The sender's clock, for the drift check of leases.
    pub clock: Time,
}

/// Tells a follower how far it may apply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitNotice {
    /// The leader's commit index.
    pub leader_commit: Index,
}

/// What a snapshot stands for: all entries up to `id`, and the configuration there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SnapshotMeta {
    /// The last entry that the snapshot includes. It names the snapshot.
    pub id: LogId,
    /// The configuration in force at that entry.
    pub membership: Arc<Membership>,
}

/// Offers a snapshot (§7). The receiver's host fetches the bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstallSnapshot {
    /// The snapshot that the leader's host holds ready.
    pub snapshot: SnapshotMeta,
}

/// Answer to [`InstallSnapshot`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstallSnapshotReply {
    /// The snapshot that was offered.
    pub snapshot: LogId,
    /// What became of it.
    pub outcome: SnapshotOutcome,
}

/// What became of an offered snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotOutcome {
    /// Installed, or not needed: the sender's log equals the leader's up to there, durably.
    Matched {
        /// Last index known to be equal and durable.
        match_index: Index,
    },
    /// Its bytes are being fetched.
    Pending,
    /// The fetch failed; offer one again.
    Failed,
}

/// A follower's question for a read index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadIndex {
    /// Tells this attempt from earlier ones.
    pub attempt: AttemptId,
}

/// Answer to [`ReadIndex`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadIndexReply {
    /// The attempt that is answered.
    pub attempt: AttemptId,
    /// A state machine that has applied this index serves the read; `None` if the receiver of the
    /// question could not tell (it does not lead, or has too many reads waiting).
    pub index: Option<Index>,
}

/// Why a server's messages do not count at another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The id belongs to another data directory. The sender has lost its data, or is a copy: it
    /// must be removed and added under a new id.
    WrongIncarnation {
        /// The incarnation that the cluster knows under that id.
        known: Incarnation,
    },
    /// The message was for another cluster.
    WrongCluster {
        /// The cluster of the server that refuses.
        cluster: ClusterId,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongIncarnation { known } => write!(
                f,
                "this id belongs to another data directory (incarnation {:x}); remove the node \
                 and add it under a new id",
                known.0
            ),
            Self::WrongCluster { cluster } => write!(f, "the cluster here is {cluster}"),
        }
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{} -> n{} {} term={}", self.from, self.to, self.message.name(), self.term)?;
        write!(f, "{}", self.message)
    }
}

impl Message {
    /// The name of the RPC.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PreVote(_) => "PreVote",
            Self::PreVoteReply(_) => "PreVoteReply",
            Self::RequestVote(_) => "RequestVote",
            Self::RequestVoteReply(_) => "RequestVoteReply",
            Self::AppendEntries(_) => "AppendEntries",
            Self::AppendEntriesReply(_) => "AppendEntriesReply",
            Self::Heartbeat(_) => "Heartbeat",
            Self::HeartbeatReply(_) => "HeartbeatReply",
            Self::CommitNotice(_) => "CommitNotice",
            Self::InstallSnapshot(_) => "InstallSnapshot",
            Self::InstallSnapshotReply(_) => "InstallSnapshotReply",
            Self::TimeoutNow => "TimeoutNow",
            Self::ReadIndex(_) => "ReadIndex",
            Self::ReadIndexReply(_) => "ReadIndexReply",
            Self::Refused(_) => "Refused",
        }
    }
}

impl fmt::Display for Message {
    /// The fields, each behind a space; the name is [`Message::name`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreVote(m) => write!(f, " next_term={} last_log={}", m.next_term, m.last_log),
            Self::PreVoteReply(PreVoteReply { granted, .. })
            | Self::RequestVoteReply(RequestVoteReply { granted }) => {
                f.write_str(if *granted { " granted" } else { " refused" })
            }
            Self::RequestVote(m) => {
                write!(f, " last_log={}", m.last_log)?;
                match m.cause {
                    ElectionCause::Timeout => Ok(()),
                    ElectionCause::Transfer => f.write_str(" cause=transfer"),
                    ElectionCause::Forced => f.write_str(" cause=forced"),
                }
            }
            Self::AppendEntries(m) => {
                write!(f, " prev={} commit={}", m.prev_log, m.leader_commit)?;
                write_entries(f, &m.entries)
            }
            Self::AppendEntriesReply(m) => match m.outcome {
                AppendOutcome::Accepted { match_index } => write!(f, " match={match_index}"),
                AppendOutcome::Refused { prev_index, conflict } => {
                    write!(f, " refused prev={prev_index} first={}", conflict.first_index)?;
                    match conflict.term {
                        Some(term) => write!(f, " conflict={term}"),
                        None => f.write_str(" short"),
                    }
                }
            },
            Self::Heartbeat(m) => write!(f, " round={} commit={}", m.round, m.leader_commit),
            Self::HeartbeatReply(m) => write!(f, " round={} verified={}", m.round, m.verified),
            Self::CommitNotice(m) => write!(f, " commit={}", m.leader_commit),
            Self::InstallSnapshot(m) => {
                write!(f, " snapshot={} [{}]", m.snapshot.id, m.snapshot.membership)
            }
            Self::InstallSnapshotReply(m) => {
                write!(f, " snapshot={}", m.snapshot)?;
                match m.outcome {
                    SnapshotOutcome::Matched { match_index } => write!(f, " match={match_index}"),
                    SnapshotOutcome::Pending => f.write_str(" pending"),
                    SnapshotOutcome::Failed => f.write_str(" failed"),
                }
            }
            Self::TimeoutNow => Ok(()),
            Self::ReadIndex(m) => write!(f, " attempt={}", m.attempt),
            Self::ReadIndexReply(m) => match m.index {
                Some(index) => write!(f, " attempt={} index={index}", m.attempt),
                None => write!(f, " attempt={} refused", m.attempt),
            },
            Self::Refused(refusal) => write!(f, " {refusal}"),
        }
    }
}

/// A few entries one by one, many as their range.
pub(crate) fn write_entries(f: &mut fmt::Formatter<'_>, entries: &[Entry]) -> fmt::Result {
    const FEW: usize = 6;
    match entries {
        [] => Ok(()),
        [first, .., last] if entries.len() > FEW => {
            write!(f, " [{first} .. {last}, {} entries]", entries.len())
        }
        [first, rest @ ..] => {
            write!(f, " [{first}")?;
            for entry in rest {
                write!(f, ", {entry}")?;
            }
            f.write_str("]")
        }
    }
}
