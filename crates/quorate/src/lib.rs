//! Replicate your own state machine.
//!
//! You have some data and commands that change them, and they must survive the loss of a machine.
//! Write what a command does to the data. This library runs it on several machines, in the same
//! order on each, with [Raft](https://raft.github.io): as long as a majority of them is alive and
//! connected, commands are carried out, and nothing that was acknowledged is ever lost.
//!
//! Log, network, snapshots, membership changes, linearizable reads and exactly-once sessions are
//! included. What you write is one trait with three methods.
//!
//! # Add it
//!
//! ```toml
//! [dependencies]
//! quorate = "0.1"
//! serde = { version = "1", features = ["derive"] }    # commands and replies are what serde can write
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! From a checkout, it is `quorate = { path = "quorate/crates/quorate" }`. Rust 1.90 or later; nothing of
//! it is built by anything but Cargo. Without the feature `postcard`, on by default, serde is not needed:
//! commands and replies then implement [`Codec`].
//!
//! # Run it
//!
//! ```
//! use std::io::{self, Read};
//! use quorate::{InProcess, Node, Snapshot, StateMachine};
//!
//! #[derive(Default)]
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     type Command = u64; // how much to add
//!     type Reply = u64; // the sum
//!
//!     fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
//!         commands.into_iter().map(|add| { self.0 += add; self.0 }).collect()
//!     }
//!     fn snapshot(&self) -> Snapshot {
//!         Snapshot::of(self.0)
//!     }
//!     fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
//!         self.0 = quorate::read_snapshot(snapshot)?;
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Three nodes in this process, without disks: for a first look, and for tests.
//! let network = InProcess::new();
//! let mut nodes = Vec::new();
//! for id in 1..=3 {
//!     let builder = Node::builder(id, Counter::default())
//!         .in_memory()
//!         .members([(1, ""), (2, ""), (3, "")])
//!         .in_process(&network);
//!     nodes.push(builder.start().await?);
//! }
//!
//! // Any node takes commands, and any node serves reads that see them.
//! assert_eq!(nodes[0].propose(5).await?, 5);
//! assert_eq!(nodes[1].propose(2).await?, 7);
//! assert_eq!(nodes[2].read(|counter| counter.0).await?, 7);
//! # for node in nodes { node.stop().await; }
//! # Ok(())
//! # }
//! ```
//!
//! In production each node is a process of its own, with a directory and an address:
//!
//! ```no_run
//! # use quorate::{Node, StateMachine};
//! # async fn start<S: StateMachine>(machine: S) -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder(1, machine)
//!     .data_dir("/var/lib/counter")
//!     .members([(1, "10.0.0.1:7400"), (2, "10.0.0.2:7400"), (3, "10.0.0.3:7400")])
//!     .start()
//!     .await?;
//! # node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! All of them are started with the same list; the ids are yours to choose, once and for ever. Nodes that
//! were given different lists refuse each other, and say so in [`events`](Handle::events), as do nodes
//! whose addresses are wrong. So write the events to your log from the first line on:
//!
//! ```
//! # use quorate::{Handle, Heard, Machine};
//! # fn listen<M: Machine>(node: &Handle<M>) {
//! let mut events = node.events();
//! tokio::spawn(async move {
//!     while let Some(heard) = events.next().await {
//!         match heard {
//!             Heard::Event(event) => eprintln!("quorate: {event}"),
//!             Heard::Missed(count) => eprintln!("quorate: {count} events missed"),
//!         }
//!     }
//! });
//! # }
//! ```
//!
//! **Give the cluster a name** with [`cluster`](Builder::cluster) as soon as there is, or may ever be, a
//! second one that could reach its addresses: staging beside production, two services on the same
//! hosts, a test that was left running. Nodes of clusters with different names refuse each other, so an
//! address in the wrong file costs an event, not your data. Clusters without a name are all called
//! "quorate". The name is written into the data directory and cannot be changed later; messages show it as
//! a number in hexadecimal, which is made of it.
//!
//! `examples/counter.rs` is the first of these with disks: run it twice, and the counter goes on.
//! `examples/kv.rs` is the second: a key-value store over HTTP, to play with through `curl`.
//!
//! # Your state machine
//!
//! [`StateMachine`] is for data that fit in memory: the library keeps the log and snapshots, and
//! after a restart restores the one and replays the other. [`DurableStateMachine`] is for data that
//! a database keeps; wrap it in [`Durable`]. Both must be *deterministic*, which is written down
//! [here](StateMachine#determinism), and checked by [`testing::check_state_machine`]:
//!
//! ```
//! # use std::io::{self, Read};
//! # use quorate::{Snapshot, StateMachine};
//! # #[derive(Default)]
//! # struct Counter(u64);
//! # impl StateMachine for Counter {
//! #     type Command = u64;
//! #     type Reply = u64;
//! #     fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
//! #         commands.into_iter().map(|add| { self.0 += add; self.0 }).collect()
//! #     }
//! #     fn snapshot(&self) -> Snapshot { Snapshot::of(self.0) }
//! #     fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
//! #         self.0 = quorate::read_snapshot(snapshot)?;
//! #         Ok(())
//! #     }
//! # }
//! quorate::testing::check_state_machine(Counter::default, vec![1, 2, 3, 40]);
//! ```
//!
//! Commands and replies are whatever serde can write, or what implements [`Codec`]. Most machines have
//! several commands, which are variants of an enum; what a command cannot do is a *reply*:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::io::{self, Read};
//!
//! use quorate::{InProcess, Node, Snapshot, StateMachine};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Debug)]
//! enum Command {
//!     Deposit { account: String, cents: u64 },
//!     Transfer { from: String, to: String, cents: u64 },
//!     // New ones are added here, at the end, and proposed once all members understand them.
//! }
//!
//! #[derive(Serialize, Deserialize, PartialEq, Debug)]
//! enum Reply {
//!     Balance(u64),
//!     TooLittle { balance: u64 },
//! }
//!
//! /// Balances, by account: in a `BTreeMap`, since its order is the same on every member.
//! #[derive(Default)]
//! struct Bank(BTreeMap<String, u64>);
//!
//! impl Bank {
//!     fn carry_out(&mut self, command: Command) -> Reply {
//!         match command {
//!             Command::Deposit { account, cents } => {
//!                 let balance = self.0.entry(account).or_default();
//!                 *balance += cents;
//!                 Reply::Balance(*balance)
//!             }
//!             Command::Transfer { from, to, cents } => {
//!                 let balance = self.0.get(&from).copied().unwrap_or_default();
//!                 let Some(rest) = balance.checked_sub(cents) else {
//!                     return Reply::TooLittle { balance };
//!                 };
//!                 self.0.insert(from, rest);
//!                 *self.0.entry(to).or_default() += cents;
//!                 Reply::Balance(rest)
//!             }
//!         }
//!     }
//! }
//!
//! impl StateMachine for Bank {
//!     type Command = Command;
//!     type Reply = Reply;
//!
//!     fn apply(&mut self, commands: Vec<Command>) -> Vec<Reply> {
//!         commands.into_iter().map(|command| self.carry_out(command)).collect()
//!     }
//!     fn snapshot(&self) -> Snapshot {
//!         Snapshot::of(self.0.clone())
//!     }
//!     fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
//!         self.0 = quorate::read_snapshot(snapshot)?;
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let builder = Node::builder(1, Bank::default()).in_memory().members([(1, "")]);
//! let node = builder.in_process(&InProcess::new()).start().await?;
//! let deposit = Command::Deposit { account: "ann".to_owned(), cents: 500 };
//! assert_eq!(node.propose(deposit).await?, Reply::Balance(500));
//! let transfer = Command::Transfer { from: "ann".to_owned(), to: "bob".to_owned(), cents: 700 };
//! assert_eq!(node.propose(transfer).await?, Reply::TooLittle { balance: 500 });
//! # node.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Proposing
//!
//! [`propose`](Handle::propose) returns the reply once the command is committed and applied. On a
//! follower it goes to the leader; without a leader it waits for one. What can go wrong is in
//! [`ProposeError`], and each variant says whether the command takes effect. The one that matters
//! is [`OutcomeUnknown`](ProposeError::OutcomeUnknown): the leader was lost while it had the
//! command, so it may have been carried out, or may be yet. Asking again could carry it out twice.
//!
//! A [`Session`] solves that: it numbers its commands, the cluster remembers the numbers, and a
//! retry gets the first reply. So it retries for you:
//!
//! ```
//! # use std::io::{self, Read};
//! # use quorate::{Handle, Node, StateMachine};
//! # async fn pay<S: StateMachine<Command = u64, Reply = u64>>(node: &Handle<S>) -> Result<(), Box<dyn std::error::Error>> {
//! let session = node.session().await?;
//! let sum = session.propose(5).await?; // once, whatever happens to leaders meanwhile
//! # Ok(())
//! # }
//! ```
//!
//! [`start_proposal`](Handle::start_proposal) gives a command's place in the log at once and its
//! fate later; [`committed`](Handle::committed) is a stream of what was committed, for those who
//! would rather pull.
//!
//! # Reads
//!
//! A closure looks at the data, on any node:
//!
//! | | sees | costs |
//! |---|---|---|
//! | [`read`](Handle::read) | everything acknowledged before the read began | a round of messages that many reads share |
//! | [`Consistency::Lease`] | the same, if clocks run right within a bound | nothing; only at the leader, with leases on |
//! | [`Consistency::AtLeast`] | your own writes, by the index of a proposal | waiting until this node is there |
//! | [`Consistency::Local`] | what this node has, and how old it may be ([`Age`]) | nothing |
//!
//! # Membership
//!
//! Changes are made at the leader; [`leader`](Handle::leader) says who that is. A new node is started
//! with [`Builder::join`] and told where to [`listen`](Builder::listen), and the leader adds it:
//! [`add_voter`](Handle::add_voter) lets it catch up as a learner and makes it a voter when it has;
//! [`add_learner`](Handle::add_learner) and [`promote`](Handle::promote) are the same in two steps,
//! with [`catch_up`](Handle::catch_up) to see how far it is. [`remove`](Handle::remove) and
//! [`replace`](Handle::replace) do what they say, and [`change`](Handle::change) any combination at
//! once. A change that makes no sense, or that would stop the cluster, is refused, and the error
//! says what it would do to the number of failures that the cluster survives. A member that is removed
//! hears of it ([`NodeEvent::Removed`], [`removed`](Handle::removed)): stop it then.
//!
//! **A data directory is a node.** One that lost it (a wiped disk) has forgotten what it promised
//! and comes back under a *new* id: `replace(old, new, address)`.
//!
//! # Snapshots
//!
//! They are taken when the log has grown ([`Tuning::snapshot_entries`], [`Tuning::snapshot_bytes`]),
//! from a view, on a thread of their own, while commands go on. Then the log is compacted below
//! them. A member that is further behind than the log goes back is sent a snapshot, beside the other
//! messages, in checked chunks; a transfer that breaks goes on where it was.
//!
//! # Operations
//!
//! * [`shutdown`](Node::shutdown) hands leadership over before it stops: use it for rolling
//!   restarts. [`transfer`](Handle::transfer) does only the first half.
//! * [`status`](Handle::status) is everything worth seeing at one moment, [`metrics`](Handle::metrics)
//!   are counters, [`events`](Handle::events) tell what happens: roles, leaders, members, snapshots,
//!   stalled disks, silent peers, refused strangers, addresses where nobody is. What happens again and
//!   again is told at growing intervals. A slow listener loses the oldest events and is told how many.
//! * Everything that queues is bounded. Overload is answered with [`Busy`](ProposeError::Busy), not
//!   with memory: a node has at most [`requests_max`](Builder::requests_max) requests under way
//!   (65,536, less than a KiB each besides their commands), and three times `unapplied_bytes_max`
//!   (64 MiB) of commands: those it has not looked at yet, those in the log that are not applied,
//!   and those that peers have sent. The tail of the log takes `tail_bytes_max` (16 MiB) more, and
//!   what waits for a peer's connection `inflight_bytes_max` (8 MiB) of entries, and never more than
//!   [`queue_bytes_max`](transport::Settings::queue_bytes_max). Snapshots pass through in
//!   chunks. What sessions hold, see [`Session`].
//!
//! # When things fail
//!
//! | | what happens |
//! |---|---|
//! | a minority of the nodes is lost | nothing, after an election if the leader was among them |
//! | a majority is lost | no command is carried out until enough are back; local reads go on |
//! | a machine loses power | what was acknowledged is on disks of a majority; the node goes on when it is back |
//! | a disk fails or a sync fails | that node stops: [`StopReason::Disk`] |
//! | a disk is full | that node refuses proposals ([`NoSpace`](ProposeError::NoSpace)) and goes on when there is room |
//! | a disk stalls | a leader gives up leadership, and says so |
//! | a log is damaged | that node does not start, and says where: [`StartError::Damaged`] |
//! | your state machine panics | that node stops: [`StopReason::Panicked`]; its directory stays usable |
//! | anything else panics | the same, with [`StopReason::Internal`]; whoever waits gets an error |
//! | a node is suspended and wakes up | its lease is over: the clock counts suspended time |
//!
//! # What is not provided
//!
//! * Defence against members that lie (Byzantine faults). Crashes, losses, delays, partitions and
//!   lying disks are the model.
//! * Encryption and authentication between nodes: keep them in a network of their own.
//! * Transactions over several clusters, and sharding.
//! * Repair of a damaged log from peers: replace the node.

mod addresses;
mod asks;
mod builder;
mod clock;
mod codec;
mod committed;
mod control;
mod disk_log;
mod driver;
mod durable;
mod error;
mod events;
mod handle;
mod inbox;
mod machine;
mod machinist;
mod members;
mod memory_log;
mod metrics;
mod network;
mod panics;
mod peers;
mod recovery;
mod remote;
mod repeats;
mod replica;
mod replies;
mod seed;
mod session;
mod shared;
mod snapshot_file;
mod snapshots;
pub mod testing;

pub use addresses::AddressError;
pub use asks::AskError;
pub use builder::{Apply, Builder, Tuning};
pub use codec::{Codec, CodecError, Raw};
pub use committed::{Committed, CommittedCommand, CommittedError};
pub use durable::{
    Applied, Batch, DurableStateMachine, Flush, FlushJob, LibraryRow, Opened, Restore,
};
pub use error::{ProposeError, ReadError, SessionError, StartError, StopReason};
pub use events::{EVENTS_MAX, Events, Heard, NodeEvent};
pub use handle::{Age, Consistency, Handle, Node, Pending};
#[cfg(feature = "postcard")]
pub use machine::read_snapshot;
pub use machine::{Snapshot, StateMachine};
pub use members::{CatchUp, ChangeError, FaultTolerance, TransferError};
pub use metrics::Metrics;
pub use network::InProcess;
pub use quorate_node::Settings;
pub use quorate_node::sessions::SessionId;
pub use quorate_raft::{
    Change, ChangeStep, Config, Index, LogId, Member, MemberRole, Membership, NodeId, PeerStatus,
    RoleName, Status, Term,
};
pub use replica::{Durable, Machine};
pub use seed::{SEEDED_AT, seed};
pub use session::Session;

/// What the core says of the cases that this crate's errors and events contain, and its own errors
/// where they share a name with one of this crate.
pub mod core {
    pub use quorate_raft::{
        ChangeError, ClusterId, Incarnation, InvalidChange, Notice, ReadError, StartError,
        StepDownReason, Time, TransferError,
    };
}

/// The log on disk: the disks that it can be given, what its opening may find, and what it has done.
pub mod wal {
    pub use quorate_wal::{
        Disk, DiskLock, Histogram, LockError, MemoryDisk, Metrics, OpenError, RealDisk,
    };
}

/// How peers reach each other: the settings of TCP, and the trait of a transport of your own, with
/// the suite that judges it.
pub use quorate_transport as transport;
