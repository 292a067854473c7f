//! The body of each message.

use alloc::vec::Vec;

use bytes::Bytes;
use quorate_raft::{
    AppendEntries, AppendEntriesReply, AppendOutcome, AttemptId, ClusterId, CommitNotice, Conflict,
    ElectionCause, Heartbeat, HeartbeatReply, Incarnation, Index, InstallSnapshot,
    InstallSnapshotReply, LogId, Message, PreVote, PreVoteReply, ReadIndex, ReadIndexReply,
    Refusal, RequestVote, RequestVoteReply, SnapshotMeta, SnapshotOutcome, Term, Time,
};

use crate::entry::EntryHead;
use crate::error::WireError;
use crate::form::{Form, put_count};
use crate::reader::Reader;

/// The numbers of the kinds. They are never used for anything else, even if a kind goes away.
mod kind {
    pub(super) const PRE_VOTE: u8 = 1;
    pub(super) const PRE_VOTE_REPLY: u8 = 2;
    pub(super) const REQUEST_VOTE: u8 = 3;
    pub(super) const REQUEST_VOTE_REPLY: u8 = 4;
    pub(super) const APPEND_ENTRIES: u8 = 5;
    pub(super) const APPEND_ENTRIES_REPLY: u8 = 6;
    pub(super) const HEARTBEAT: u8 = 7;
    pub(super) const HEARTBEAT_REPLY: u8 = 8;
    pub(super) const COMMIT_NOTICE: u8 = 9;
    pub(super) const INSTALL_SNAPSHOT: u8 = 10;
    pub(super) const INSTALL_SNAPSHOT_REPLY: u8 = 11;
    pub(super) const TIMEOUT_NOW: u8 = 12;
    pub(super) const READ_INDEX: u8 = 13;
    pub(super) const READ_INDEX_REPLY: u8 = 14;
    pub(super) const REFUSED: u8 = 15;
}

/// Appends the body of `message` (of `AppendEntries`: without the payloads) and returns its kind.
pub(crate) fn put_body(message: &Message, out: &mut Vec<u8>) -> u8 {
    match message {
        Message::PreVote(body) => put(kind::PRE_VOTE, body, out),
        Message::PreVoteReply(body) => put(kind::PRE_VOTE_REPLY, body, out),
        Message::RequestVote(body) => put(kind::REQUEST_VOTE, body, out),
        Message::RequestVoteReply(body) => put(kind::REQUEST_VOTE_REPLY, body, out),
        Message::AppendEntries(body) => {
            put_append_entries(body, out);
            kind::APPEND_ENTRIES
        }
        Message::AppendEntriesReply(body) => put(kind::APPEND_ENTRIES_REPLY, body, out),
        Message::Heartbeat(body) => put(kind::HEARTBEAT, body, out),
        Message::HeartbeatReply(body) => put(kind::HEARTBEAT_REPLY, body, out),
        Message::CommitNotice(body) => put(kind::COMMIT_NOTICE, body, out),
        Message::InstallSnapshot(body) => put(kind::INSTALL_SNAPSHOT, body, out),
        Message::InstallSnapshotReply(body) => put(kind::INSTALL_SNAPSHOT_REPLY, body, out),
        Message::TimeoutNow => kind::TIMEOUT_NOW,
        Message::ReadIndex(body) => put(kind::READ_INDEX, body, out),
        Message::ReadIndexReply(body) => put(kind::READ_INDEX_REPLY, body, out),
        Message::Refused(body) => put(kind::REFUSED, body, out),
    }
}

fn put(kind: u8, body: &impl Form, out: &mut Vec<u8>) -> u8 {
    body.put(out);
    kind
}

/// Takes the body of a message of that kind; the payloads of entries come from `payloads`.
pub(crate) fn take_body(
    kind: u8,
    reader: &mut Reader<'_>,
    payloads: &mut Reader<'_>,
) -> Result<Message, WireError> {
    Ok(match kind {
        kind::PRE_VOTE => Message::PreVote(Form::take(reader)?),
        kind::PRE_VOTE_REPLY => Message::PreVoteReply(Form::take(reader)?),
        kind::REQUEST_VOTE => Message::RequestVote(Form::take(reader)?),
        kind::REQUEST_VOTE_REPLY => Message::RequestVoteReply(Form::take(reader)?),
        kind::APPEND_ENTRIES => Message::AppendEntries(take_append_entries(reader, payloads)?),
        kind::APPEND_ENTRIES_REPLY => Message::AppendEntriesReply(Form::take(reader)?),
        kind::HEARTBEAT => Message::Heartbeat(Form::take(reader)?),
        kind::HEARTBEAT_REPLY => Message::HeartbeatReply(Form::take(reader)?),
        kind::COMMIT_NOTICE => Message::CommitNotice(Form::take(reader)?),
        kind::INSTALL_SNAPSHOT => Message::InstallSnapshot(Form::take(reader)?),
        kind::INSTALL_SNAPSHOT_REPLY => Message::InstallSnapshotReply(Form::take(reader)?),
        kind::TIMEOUT_NOW => Message::TimeoutNow,
        kind::READ_INDEX => Message::ReadIndex(Form::take(reader)?),
        kind::READ_INDEX_REPLY => Message::ReadIndexReply(Form::take(reader)?),
        kind::REFUSED => Message::Refused(Form::take(reader)?),
        _ => return Err(WireError::Value { what: "kind of message" }),
    })
}

/// A message that is nothing but its fields, in the order of the byte map.
macro_rules! fields {
    ($($name:ident { $($field:ident: $type:ty),+ })*) => {
        $(impl Form for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)+
            }

            fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                $(let $field = <$type as Form>::take(reader)?;)+
                Ok(Self { $($field),+ })
            }
        })*
    };
}
fields! {
    PreVote { next_term: Term, last_log: LogId, attempt: AttemptId }
    PreVoteReply { attempt: AttemptId, granted: bool }
    RequestVote { last_log: LogId, cause: ElectionCause }
    RequestVoteReply { granted: bool }
    AppendEntriesReply { outcome: AppendOutcome, round: u64, extension: Bytes }
    Conflict { term: Option<Term>, first_index: Index }
    Heartbeat { leader_commit: Index, round: u64 }
    HeartbeatReply { round: u64, verified: Index, feature_level: u32, clock: Time }
    CommitNotice { leader_commit: Index }
    InstallSnapshot { snapshot: SnapshotMeta }
    InstallSnapshotReply { snapshot: LogId, outcome: SnapshotOutcome }
    ReadIndex { attempt: AttemptId }
    ReadIndexReply { attempt: AttemptId, index: Option<Index> }
}

/// ```text
/// prev_log (index u64, term u64) | leader_commit u64 | round u64
/// length u32 | extension | count u32 | heads
/// ```
fn put_append_entries(body: &AppendEntries, out: &mut Vec<u8>) {
    body.prev_log.put(out);
    body.leader_commit.put(out);
    body.round.put(out);
    body.extension.put(out);
    put_count(body.entries.len(), out);
    out.reserve(body.entries.len() * EntryHead::BYTES);
    for entry in &body.entries {
        EntryHead::borrowing(entry).0.put(out);
    }
}

fn take_append_entries(
    reader: &mut Reader<'_>,
    payloads: &mut Reader<'_>,
) -> Result<AppendEntries, WireError> {
    let prev_log = LogId::take(reader)?;
    let leader_commit = Index::take(reader)?;
    let round = u64::take(reader)?;
    let extension = Bytes::take(reader)?;
    let count = reader.count(EntryHead::BYTES)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let head = EntryHead::take(reader)?;
        entries.push(head.entry(payloads.bytes(head.payload_len as usize)?)?);
    }
    Ok(AppendEntries { prev_log, entries, leader_commit, round, extension })
}

/// One byte: 0 timeout, 1 transfer, 2 forced.
impl Form for ElectionCause {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Timeout => 0,
            Self::Transfer => 1,
            Self::Forced => 2,
        });
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::take(reader)? {
            0 => Ok(Self::Timeout),
            1 => Ok(Self::Transfer),
            2 => Ok(Self::Forced),
            _ => Err(WireError::Value { what: "cause of an election" }),
        }
    }
}

/// One byte: 0 accepted, with the match index; 1 refused, with the index and the conflict.
impl Form for AppendOutcome {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Accepted { match_index } => {
                out.push(0);
                match_index.put(out);
            }
            Self::Refused { prev_index, conflict } => {
                out.push(1);
                prev_index.put(out);
                conflict.put(out);
            }
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::take(reader)? {
            0 => Ok(Self::Accepted { match_index: Index::take(reader)? }),
            1 => Ok(Self::Refused {
                prev_index: Index::take(reader)?,
                conflict: Conflict::take(reader)?,
            }),
            _ => Err(WireError::Value { what: "outcome of an append" }),
        }
    }
}

/// One byte: 0 matched, with the match index; 1 pending; 2 failed.
impl Form for SnapshotOutcome {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Matched { match_index } => {
                out.push(0);
                match_index.put(out);
            }
            Self::Pending => out.push(1),
            Self::Failed => out.push(2),
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::take(reader)? {
            0 => Ok(Self::Matched { match_index: Index::take(reader)? }),
            1 => Ok(Self::Pending),
            2 => Ok(Self::Failed),
            _ => Err(WireError::Value { what: "outcome of a snapshot" }),
        }
    }
}

/// One byte: 1 wrong incarnation, with the known one; 2 wrong cluster, with the right one.
impl Form for Refusal {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::WrongIncarnation { known } => {
                out.push(1);
                known.put(out);
            }
            Self::WrongCluster { cluster } => {
                out.push(2);
                cluster.put(out);
            }
            // `Refusal` may grow; whoever adds a reason adds its bytes here, and the test that
            // encodes every message finds it if not.
            _ => unreachable!("a refusal that has no bytes"),
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::take(reader)? {
            1 => Ok(Self::WrongIncarnation { known: Incarnation::take(reader)? }),
            2 => Ok(Self::WrongCluster { cluster: ClusterId::take(reader)? }),
            _ => Err(WireError::Value { what: "refusal" }),
        }
    }
}
