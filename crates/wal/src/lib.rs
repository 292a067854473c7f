//! The durable log of a node: what is acknowledged stays, on a disk that lies.
//!
//! One log holds the records of all Raft groups of a node. It is synchronous and owns no thread:
//! [`Wal::write`], [`Wal::sync`] and [`Wal::prepare`] are calls, hosts bring threads, and so the
//! simulator drives the code that production runs. Many writers share one sync: what arrives while
//! a sync runs is made durable by the next one, all at once.
//!
//! * **One record per `Persist`**: hard state and entries are never written apart. The header of a
//!   record has a checksum of its own and identifies every entry in it; payloads have theirs, which
//!   travel with the entries. So damage is confined, and known exactly.
//! * **The end of the log is decided by evidence**, not by the first bad byte. Every record says
//!   up to where the log was durable when it was written. Damage below is rot, which is reported and
//!   never cut away; above is what a power cut leaves of unsynced writes.
//! * **The page cache is not the disk.** What a start finds above the mark it writes again and
//!   syncs before it says that it is durable. A failed sync is final: [`Stopped::Poisoned`].
//! * **Segments are filled with zeros before use and used again**, so that making a record durable
//!   is one write of the disk, without the file system's journal. Random tags keep old records from
//!   coming back.
//! * **Quiet groups pin nothing**: what little counts in old segments is rewritten at the end.
//!
//! `docs/wal-format.md` has the byte maps, the decision table of recovery and the reasons.
//!
//! ```
//! use std::sync::Arc;
//!
//! use quorate_raft::{ClusterId, Entry, GroupId, HardState, Index, NodeId, Payload, Persist, Seq, Term};
//! use quorate_wal::{MemoryDisk, Options, Wal};
//!
//! let disk = Arc::new(MemoryDisk::new());
//! let options = Options::new(ClusterId(1), NodeId(1), 4711);
//! let opened = Wal::open(disk.clone(), &options)?;
//! assert!(opened.damage.is_empty());
//!
//! let entry = Entry::new(Index(1), Term(1), Payload::Command("put k v".into()));
//! let hard_state = HardState { term: Term(1), ..HardState::default() };
//! let persist = Persist { seq: Seq(1), hard_state, append: vec![entry.clone()] };
//! opened.wal.write(&[(GroupId(0), &persist)])?;
//! assert_eq!(opened.wal.sync()?, [(GroupId(0), Seq(1))]);
//! opened.wal.close()?;
//! drop(opened);
//!
//! let opened = Wal::open(disk, &options)?;
//! assert_eq!(opened.groups[&GroupId(0)].last_index, Index(1));
//! assert_eq!(opened.wal.read(GroupId(0), Index(1), Index(1), 1 << 20)?, [entry]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![doc(test(attr(deny(warnings))))]

mod completions;
mod crc;
mod disk;
mod error;
mod forward;
mod index;
pub mod inspect;
mod log;
mod memory_disk;
mod metrics;
mod open;
mod options;
mod prepare;
mod read;
mod real_disk;
mod record;
mod recovery;
mod segment;
mod small_file;
mod start;
mod unsynced;
mod wal;

pub use disk::{Disk, DiskFile, DiskLock, LockError};
pub use error::{ChoreError, IoFailure, OpenError, ReadError, Stopped, WriteError};
pub use memory_disk::{Fate, MemoryDisk, Pending};
pub use metrics::{Histogram, Metrics};
pub use open::Opened;
pub use options::Options;
pub use prepare::Progress;
pub use real_disk::RealDisk;
pub use recovery::{Damage, DamageKind, Note, RecoveredGroup};
pub use small_file::Identity;
pub use unsynced::Unsynced;
pub use wal::{Position, SyncJob, Usage, Wal};
