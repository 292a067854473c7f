//! Tuning. Who takes part is not here but in [`Membership`](crate::Membership).

use crate::error::StartError;
use crate::types::{ClusterId, GroupId, Incarnation, NodeId};

/// Who this server is and how it behaves. All times are in microseconds, all sizes in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The cluster; messages of another one are refused.
    pub cluster: ClusterId,
    /// The group; zero where there is only one.
    pub group: GroupId,
    /// This server.
    pub node: NodeId,
    /// This server's data directory; drawn at random when it was made, never zero.
    pub incarnation: Incarnation,
    /// The highest feature level that this software supports.
    pub feature_level: u32,

    /// Shortest election timeout (§5.2): a follower that hears nothing for a random time between
    /// this and the maximum campaigns, and one that has heard something within this time does not
    /// listen to candidates. Default 1 s. Too small: elections while the leader is well. Too
    /// large: a silent failure is noticed late.
    pub election_timeout_min_us: u64,
    /// Longest election timeout. A leader that no quorum has answered for this long steps down.
    /// Default 2 s. Too close to the minimum: split votes (§9.3).
    pub election_timeout_max_us: u64,
    /// Time between a leader's heartbeats. Default 100 ms; at most half of the shortest election
    /// timeout.
    pub heartbeat_interval_us: u64,
    /// Ask before campaigning (thesis 9.6), so that a node that was cut off does not disturb the
    /// cluster when it returns. Default on; off only for study.
    pub pre_vote: bool,
    /// A leader that no quorum answers steps down (thesis 6.2). Default on; off only for study.
    pub check_quorum: bool,
    /// A node that hears from a leader does not listen to candidates (thesis 4.2.3). Default on;
    /// off only for study.
    pub leader_stickiness: bool,
    /// Longest random wait between the news that the leader's process has ended and a pre-vote.
    /// Default 50 ms. Zero makes all followers ask at once.
    pub peer_closed_delay_us: u64,
    /// How much faster or slower than true any clock may run, in parts per million; only leases
    /// depend on it. Default 10,000 (1 %).
    pub clock_drift_max_ppm: u32,
    /// A write that did not complete for this long makes a leader step down. Default 2 s.
    pub disk_stall_timeout_us: u64,
    /// How long a leader waits for entries to carry the news of a higher commit index before it
    /// sends the news alone. Default 1 ms. Zero: at once. Larger: fewer messages, later apply on
    /// followers.
    pub commit_notice_delay_us: u64,

    /// Largest command. Default 16 MiB. Must fit what hosts can store and send in one piece.
    pub entry_bytes_max: usize,
    /// Most entries (in bytes) in one `AppendEntries`; a larger single entry goes alone. Default
    /// 1 MiB. Too small: more messages. Too large: a slow link is blocked for long.
    pub append_bytes_max: usize,
    /// Most `AppendEntries` with entries sent to a peer and not yet acknowledged. Default 256.
    pub inflight_messages_max: usize,
    /// Most bytes of entries sent to a peer and not yet acknowledged. Default 8 MiB. This bounds
    /// what a slow peer costs its host in queues.
    pub inflight_bytes_max: usize,
    /// Bytes appended here and not yet applied beyond which proposals are refused as `Busy`.
    /// Default 64 MiB.
    pub unapplied_bytes_max: usize,
    /// Bytes of recent entries that are kept in memory for peers that are nearly up to date, apart
    /// from those not yet durable. Default 16 MiB. Older ones are loaded from the log.
    pub tail_bytes_max: usize,
    /// Most bytes given to the state machine and not yet reported as applied; a single larger
    /// entry goes alone. Default 4 MiB.
    pub apply_bytes_max: usize,
    /// Most reads that wait for a confirmation; more are refused as `Busy`. Default 65,536.
    pub reads_max: usize,
    /// How many entries a learner may be behind the leader and still be made a voter. Default
    /// 1,000.
    pub promote_lag_max: u64,
}

impl Config {
    /// The defaults, for one server of a cluster.
    #[must_use]
    pub const fn new(cluster: ClusterId, node: NodeId, incarnation: Incarnation) -> Self {
        Self {
            cluster,
            group: GroupId(0),
            node,
            incarnation,
            feature_level: 0,
            election_timeout_min_us: 1_000_000,
            election_timeout_max_us: 2_000_000,
            heartbeat_interval_us: 100_000,
            pre_vote: true,
            check_quorum: true,
            leader_stickiness: true,
            peer_closed_delay_us: 50_000,
            clock_drift_max_ppm: 10_000,
            disk_stall_timeout_us: 2_000_000,
            commit_notice_delay_us: 1_000,
            entry_bytes_max: 16 << 20,
            append_bytes_max: 1 << 20,
            inflight_messages_max: 256,
            inflight_bytes_max: 8 << 20,
            unapplied_bytes_max: 64 << 20,
            tail_bytes_max: 16 << 20,
            apply_bytes_max: 4 << 20,
            reads_max: 65_536,
            promote_lag_max: 1_000,
        }
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    ///
    /// Names the first field that does not, and the rule that it breaks.
    pub fn validate(&self) -> Result<(), StartError> {
        let rules = [
            ("node", self.node != NodeId(0), "must not be zero"),
            ("incarnation", self.incarnation != Incarnation(0), "must not be zero"),
            (
                "heartbeat_interval_us",
                self.heartbeat_interval_us > 0
                    && self.heartbeat_interval_us <= self.election_timeout_min_us / 2,
                "must be above zero and at most half of election_timeout_min_us",
            ),
            (
                "election_timeout_max_us",
                self.election_timeout_max_us >= self.election_timeout_min_us,
                "must not be below election_timeout_min_us",
            ),
            (
                "clock_drift_max_ppm",
                self.clock_drift_max_ppm < 1_000_000,
                "must be below 1,000,000 (100 %)",
            ),
            ("disk_stall_timeout_us", self.disk_stall_timeout_us > 0, "must be above zero"),
            ("entry_bytes_max", self.entry_bytes_max > 0, "must be above zero"),
            ("append_bytes_max", self.append_bytes_max > 0, "must be above zero"),
            ("inflight_messages_max", self.inflight_messages_max > 0, "must be above zero"),
            ("inflight_bytes_max", self.inflight_bytes_max > 0, "must be above zero"),
            ("unapplied_bytes_max", self.unapplied_bytes_max > 0, "must be above zero"),
            ("apply_bytes_max", self.apply_bytes_max > 0, "must be above zero"),
            ("reads_max", self.reads_max > 0, "must be above zero"),
        ];
        match rules.iter().find(|(_, holds, _)| !holds) {
            Some((field, _, rule)) => Err(StartError::Config { field, rule }),
            None => Ok(()),
        }
    }
}
