//! etcd's data model as a deterministic state machine.
//!
//! Its vocabulary: the [`Command`]s that a replicated log carries, with their bytes; the replies; and the errors with the
//! texts that clients match on. Leases: the replicated table ([`Leases`]) and the leader's side of it ([`Lessor`]). Watches:
//! the [`Hub`], fed with the [`Changes`] of every revision. Nothing here knows a clock, a network or a log.
//!
//! ```
//! use bytes::Bytes;
//! use quorate_kv::{Command, Put};
//!
//! let put = Put { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v"), ..Put::default() };
//! let command = Command::Put(put);
//! let bytes = command.encode()?;
//! assert_eq!(Command::decode(&bytes)?, command);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bump;
mod check;
mod codec;
mod command;
mod defragment;
mod disk;
mod error;
mod event;
mod flush;
mod hash;
mod history;
mod index;
mod lease;
mod lessor;
mod meta;
mod quota;
mod range;
mod reader;
mod record;
mod reply;
mod snapshot;
mod state;
mod store;
mod tail;
pub mod testing;
mod txn;
mod types;
mod unsynced;
mod watch;

pub use bump::BumpError;
pub use check::TXN_OPS_MAX;
pub use codec::{COMMAND_BYTES_MAX, DecodeError, EncodeError, FORMAT_VERSION, TXN_DEPTH_MAX};
pub use command::{
    Alarm, Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, GrantedLease,
    LeaseCheckpoint, LeaseGrant, Op, Put, Range, SortOrder, SortTarget, Txn,
};
pub use defragment::{Defragment, DefragmentError};
pub use disk::DiskError;
pub use error::RequestError;
pub use event::{Changes, Event, EventKind, History, HistoryError, Past, PastRequest};
pub use flush::Flush;
pub use hash::{Hash, HashKv};
pub use lease::{LEASE_RECORD_BYTES, LEASE_TTL_MAX_S, Lease, LeaseRecordError, Leases};
pub use lessor::{
    Decision, LEASE_CHECKPOINT_ROUND_MAX, LEASE_EXPIRE_BATCH_MAX, LEASE_EXPIRE_ROUND_MAX,
    LEASE_ROUND_US, LEASE_WAITING_MAX, LeaderTerm, Lessor, LessorConfig, NotPrimary, Renewal,
    Ticket, TimeToLive, lease_ttl_s,
};
pub use reader::{RangeEnd, RangePart, RangeStream, ReadError, Reader};
pub use reply::{AlarmMember, DeleteRangeReply, OpReply, PutReply, RangeReply, Reply, TxnReply};
pub use snapshot::{RestoreError, Snapshot, SnapshotError, restore, restore_file};
pub use state::Sink;
pub use store::{HostRow, LogPlace, Opened, Store, StoreConfig};
pub use types::{AlarmKind, KeyValue, LeaseId, MemberId, Revision};
pub use watch::{
    Events, Full, Hub, WATCH_ANSWERS_MAX, WATCH_BYTES_MAX, WATCH_RESPONSES_MAX, WATCH_ROUND_MAX,
    WATCH_WINDOW_BYTES_MAX, WATCH_WINDOW_REVISIONS_MAX, WATCHERS_MAX, WatchConfig, WatchCreate,
    WatchId, WatchRequest, WatchResponse, WatchStream,
};
