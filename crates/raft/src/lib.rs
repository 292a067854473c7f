//! Raft as a pure state machine. (skeleton)
#![no_std]
#![doc(test(attr(deny(warnings))))]

extern crate alloc;

mod apply;
mod backlog;
mod candidate;
mod checksum;
mod common;
mod config;
mod configurations;
mod durability;
mod effect;
mod entry;
mod error;
mod follower;
mod forwarded_reads;
mod input;
mod invariants;
mod leader;
mod log;
mod membership;
mod message;
mod pre_candidate;
mod quorum;
mod raft;
mod recovered;
mod rng;
mod role;
mod snapshot;
mod status;
mod tally;
mod types;
mod validate;
mod vote;

pub use checksum::crc32c;
pub use config::Config;
pub use effect::{Answer, Effect, HardState, Install, Load, LoadId, Notice, Persist};
pub use entry::{Entry, Payload};
pub use error::{
    CampaignError, ChangeError, NoLease, PeerError, ProposeError, ReadError, StartError,
    StepDownReason, TransferError,
};
pub use input::{Input, LoadError, Proposal, ReadMode};
pub use membership::{
    Change, ChangeStep, InvalidChange, Member, MemberRole, Membership, MembershipBytesError,
};
pub use message::{
    AppendEntries, AppendEntriesReply, AppendOutcome, CommitNotice, Conflict, ElectionCause,
    Envelope, Heartbeat, HeartbeatReply, InstallSnapshot, InstallSnapshotReply, Message, PreVote,
    PreVoteReply, ReadIndex, ReadIndexReply, Refusal, RequestVote, RequestVoteReply, SnapshotMeta,
    SnapshotOutcome,
};
pub use raft::Raft;
pub use recovered::Recovered;
pub use status::{PeerStatus, ReplicationMode, RoleName, Status};
pub use types::{
    AttemptId, ClusterId, GroupId, Incarnation, Index, LogId, NodeId, RequestId, Seq, Term, Time,
};
