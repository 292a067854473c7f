//! Values to encode, fixed ones and random ones.
#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod checks;

use std::sync::Arc;

use bytes::Bytes;
use quorate_raft::*;

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// Small numbers, large ones and the edges.
    pub(crate) fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(4),
            1 => self.below(1000),
            2 => self.next(),
            _ => u64::MAX - self.below(2),
        }
    }

    pub(crate) fn bytes(&mut self, len_max: u64) -> Bytes {
        let len = self.below(len_max + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn log_id(rng: &mut Rng) -> LogId {
    LogId::new(Index(rng.number()), Term(rng.number()))
}

fn attempt(rng: &mut Rng) -> AttemptId {
    AttemptId { boot: rng.number(), count: rng.number() }
}

pub(crate) fn membership(rng: &mut Rng) -> Membership {
    let count = rng.below(5);
    let members = (1..=count).map(|node| {
        let role = match rng.below(4) {
            0 if node > 1 => {
                MemberRole::Learner { promote_when_caught_up: true, replaces: Some(NodeId(1)) }
            }
            1 if node > 1 => MemberRole::LEARNER,
            _ => MemberRole::Voter,
        };
        let incarnation = rng.chance(2).then(|| Incarnation(rng.next() | 1));
        (NodeId(node), Member { role, incarnation, context: rng.bytes(30) })
    });
    let members: Vec<_> = members.collect();
    let lease = rng.chance(2).then(|| rng.number());
    Membership::bootstrap(members).with_lease(lease).with_feature_level(rng.next() as u32)
}

pub(crate) fn entry(rng: &mut Rng) -> Entry {
    let payload = match rng.below(4) {
        0 => Payload::Noop,
        1 => Payload::Membership(Arc::new(membership(rng))),
        _ => Payload::Command(rng.bytes(60)),
    };
    let mut entry = Entry::new(Index(rng.number()), Term(rng.number()), payload);
    if rng.chance(10) {
        entry.checksum ^= 1;
    }
    entry
}

pub(crate) fn hard_state(rng: &mut Rng) -> HardState {
    let seen = (1..=rng.below(4)).map(|node| (NodeId(node), Incarnation(rng.next())));
    let seen = seen.collect();
    HardState {
        term: Term(rng.number()),
        voted_for: rng.chance(2).then(|| NodeId(rng.next() | 1)),
        commit: Index(rng.number()),
        seen,
    }
}

pub(crate) fn snapshot_meta(rng: &mut Rng) -> SnapshotMeta {
    SnapshotMeta { id: log_id(rng), membership: Arc::new(membership(rng)) }
}

/// One random message of the kind that `kind` counts to.
pub(crate) fn message(rng: &mut Rng, kind: u64) -> Message {
    match kind % 15 {
        0 => Message::PreVote(PreVote {
            next_term: Term(rng.number()),
            last_log: log_id(rng),
            attempt: attempt(rng),
        }),
        1 => Message::PreVoteReply(PreVoteReply { attempt: attempt(rng), granted: rng.chance(2) }),
        2 => Message::RequestVote(RequestVote {
            last_log: log_id(rng),
            cause: match rng.below(3) {
                0 => ElectionCause::Timeout,
                1 => ElectionCause::Transfer,
                _ => ElectionCause::Forced,
            },
        }),
        3 => Message::RequestVoteReply(RequestVoteReply { granted: rng.chance(2) }),
        4 => Message::AppendEntries(AppendEntries {
            prev_log: log_id(rng),
            entries: (0..rng.below(5)).map(|_| entry(rng)).collect(),
            leader_commit: Index(rng.number()),
            round: rng.number(),
            extension: rng.bytes(9),
        }),
        5 => Message::AppendEntriesReply(AppendEntriesReply {
            outcome: if rng.chance(2) {
                AppendOutcome::Accepted { match_index: Index(rng.number()) }
            } else {
                AppendOutcome::Refused {
                    prev_index: Index(rng.number()),
                    conflict: Conflict {
                        term: rng.chance(2).then(|| Term(rng.number())),
                        first_index: Index(rng.number()),
                    },
                }
            },
            round: rng.number(),
            extension: rng.bytes(9),
        }),
        6 => Message::Heartbeat(Heartbeat {
            leader_commit: Index(rng.number()),
            round: rng.number(),
        }),
        7 => Message::HeartbeatReply(HeartbeatReply {
            round: rng.number(),
            verified: Index(rng.number()),
            feature_level: rng.next() as u32,
            clock: Time(rng.number()),
        }),
        8 => Message::CommitNotice(CommitNotice { leader_commit: Index(rng.number()) }),
        9 => Message::InstallSnapshot(InstallSnapshot { snapshot: snapshot_meta(rng) }),
        10 => Message::InstallSnapshotReply(InstallSnapshotReply {
            snapshot: log_id(rng),
            outcome: match rng.below(3) {
                0 => SnapshotOutcome::Matched { match_index: Index(rng.number()) },
                1 => SnapshotOutcome::Pending,
                _ => SnapshotOutcome::Failed,
            },
        }),
        11 => Message::TimeoutNow,
        12 => Message::ReadIndex(ReadIndex { attempt: attempt(rng) }),
        13 => Message::ReadIndexReply(ReadIndexReply {
            attempt: attempt(rng),
            index: rng.chance(2).then(|| Index(rng.number())),
        }),
        _ => Message::Refused(if rng.chance(2) {
            Refusal::WrongIncarnation { known: Incarnation(rng.number()) }
        } else {
            Refusal::WrongCluster { cluster: ClusterId(rng.number()) }
        }),
    }
}

pub(crate) fn envelope(rng: &mut Rng, kind: u64) -> Envelope {
    Envelope {
        cluster: ClusterId(rng.number()),
        group: GroupId(rng.number()),
        from: NodeId(rng.number()),
        incarnation: Incarnation(rng.number()),
        to: NodeId(rng.number()),
        term: Term(rng.number()),
        message: message(rng, kind),
    }
}
