//! Tuning of the host's decisions; that of the core is [`quorate_raft::Config`].

/// How a [`Node`](crate::Node) behaves. Times are in microseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Send proposals that arrive at a follower on to the leader. Default on. Off: they fail with
    /// `NotLeader`, and the client goes there itself.
    pub forward: bool,
    /// How long a forwarded proposal waits for the leader's answer before its outcome counts as
    /// unknown. Default 5 s. Too small: unknown outcomes under load.
    pub forward_timeout_us: u64,
    /// Most proposals that this node has forwarded and that wait for an answer; more are refused
    /// as busy. Default 16,384.
    pub forwarded_max: usize,
    /// Most lives of peers (node and boot) whose forwarded proposals are told apart in one term;
    /// beyond that, proposals of further ones are refused until the term ends. Default 256.
    pub forwarders_max: usize,
    /// How long a proposal that was appended by a deposed leader waits for the log to tell its
    /// fate, before its outcome counts as unknown. Default 0: not at all. Larger: fewer unknown
    /// outcomes, later answers.
    pub outcome_wait_us: u64,
    /// How long a read whose index is known waits for the state machine to get there. Default
    /// 5 s.
    pub read_wait_us: u64,
    /// Most reads that wait for the state machine; more are refused as busy. Default 65,536.
    pub reads_max: usize,
    /// Entries that may be in the log and applied before it is compacted. Default 100,000. Zero
    /// turns compaction off.
    pub compact_entries: u64,
    /// Applied entries that stay in the log when it is compacted, so that a slightly slow follower
    /// needs no snapshot. Default 10,000. At most `compact_entries`.
    pub keep_entries: u64,
    /// Entries that the log may hold for a snapshot in transfer: while a peer fetches one, what
    /// comes behind it is kept, up to this many, unless the peer is not heard from for a minute.
    /// Default 1,000,000.
    pub keep_for_transfer: u64,
    /// Entries that the log may hold for a follower that is being sent entries and lags, up to this
    /// many. Default 0: none. Larger: it needs no snapshot, and the log more room.
    pub keep_for_followers: u64,
    /// The state machine keeps nothing on disk: what it has applied is durable once it is in a
    /// snapshot, and snapshots are taken when this says. Default `None`: the host reports what is
    /// durable, and snapshots are for peers only.
    pub snapshots: Option<SnapshotPolicy>,
}

/// When a snapshot of the state machine is taken: as soon as one of the limits is reached. Smaller:
/// shorter restarts and a shorter log, and more writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotPolicy {
    /// Entries applied since the last one.
    pub entries: u64,
    /// Bytes of entries applied since the last one.
    pub bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            forward: true,
            forward_timeout_us: 5_000_000,
            forwarded_max: 16_384,
            forwarders_max: 256,
            outcome_wait_us: 0,
            read_wait_us: 5_000_000,
            reads_max: 65_536,
            compact_entries: 100_000,
            keep_entries: 10_000,
            keep_for_transfer: 1_000_000,
            keep_for_followers: 0,
            snapshots: None,
        }
    }
}
