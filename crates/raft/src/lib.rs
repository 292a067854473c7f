//! Raft as a pure state machine: values in, values out.
//!
//! Raft keeps several servers in agreement on one log of commands, as long as a majority of them
//! is alive and connected. This crate is the agreement and nothing else. It has no clock, disk,
//! network, thread or `async`, so it runs the same in production, under a simulator, in a test
//! and in a browser.
//!
//! References like §5.4 are to Ongaro and Ousterhout, *In Search of an Understandable Consensus
//! Algorithm* (extended version, 2014), and "thesis" is Ongaro's dissertation (2014).
//! `docs/raft-map.md` joins every section with its code and its test.
//!
//! # The loop of a host
//!
//! A host gives [`Raft`] one [`Input`] after another, and carries out the [`Effect`]s:
//!
//! ```
//! use quorate_raft::{
//!     Answer, ClusterId, Config, Effect, Incarnation, Input, Member, MemberRole, Membership,
//!     NodeId, Payload, Proposal, Raft, Recovered, RequestId, Time,
//! };
//!
//! // One server, alone in its cluster, without a history.
//! let membership = Membership::bootstrap([(NodeId(1), Member::new(MemberRole::Voter))]);
//! let config = Config::new(ClusterId(7), NodeId(1), Incarnation(42));
//! let recovered = Recovered::new(membership.into(), /* boot nonce */ 1);
//! let mut raft = Raft::new(config, Time(0), /* seed */ 1, recovered)?;
//!
//! let mut now = Time(0);
//! let mut applied = Vec::new();
//! raft.step(now, Input::Propose(Proposal::new(RequestId(1), "too early".into())));
//! loop {
//!     for effect in raft.take_effects() {
//!         match effect {
//!             // A real host writes to its disk, and says so once that is durable.
//!             Effect::Persist(persist) => raft.step(now, Input::Persisted(persist.seq)),
//!             Effect::Apply(entries) => {
//!                 for entry in entries {
//!                     if let Payload::Command(command) = &entry.payload {
//!                         applied.push(command.clone());
//!                     }
//!                     raft.step(now, Input::Applied(entry.index));
//!                 }
//!             }
//!             Effect::Answer(Answer::ProposeFailed { .. }) => {} // nobody led yet
//!             Effect::Send(_) => unreachable!("there is nobody else"),
//!             _ => {}
//!         }
//!     }
//!     if raft.leader() == Some(NodeId(1)) && applied.is_empty() {
//!         raft.step(now, Input::Propose(Proposal::new(RequestId(2), "hello".into())));
//!     } else if applied.is_empty() {
//!         // Nothing to do before the next deadline: this one is the election timeout.
//!         now = raft.deadline().expect("a voter always waits for something");
//!         raft.step(now, Input::Wake);
//!     } else {
//!         break;
//!     }
//! }
//! assert_eq!(applied, ["hello"]);
//! # Ok::<(), quorate_raft::StartError>(())
//! ```
//!
//! Three promises hold:
//!
//! * **The same seed and the same calls give the same effects**, byte for byte.
//! * **The host has no ordering rule to remember** but to keep each kind of effect in order. A
//!   message that promises something durable is not given out before
//!   [`Input::Persisted`] confirmed it.
//! * **Every request is answered.** What can no longer be known is answered as unknown.
//!
//! # What it does
//!
//! Elections with pre-vote, check-quorum and leader stickiness; pipelined replication with fast
//! backup and bounded memory; commitment by the rule of §5.4.2; linearizable reads by read index,
//! from any member, and by lease; single and joint configuration changes, learners, automatic
//! promotion; leadership transfer; snapshots and compaction; and refusal of what strangers, wiped
//! servers and broken peers say. Every part can be found by the name that the paper gives it.
//!
//! # What it does not do
//!
//! * It stores and sends nothing: that is the host's part.
//! * It does not forward proposals: a follower names the leader.
//! * It knows no client sessions: a proposal retried after
//!   [`OutcomeUnknown`](ProposeError::OutcomeUnknown) may be applied twice.
//! * It tolerates crashes, not malice (no Byzantine faults): a server that lies about its vote can
//!   break it. What *can* be recognised as wrong is refused.

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
mod receive;
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
