//! Checking what peers say before anything of it is used.
//!
//! Nothing in here panics, whatever the bytes were: the offender is named in a
//! [`Notice::Refused`](crate::Notice::Refused) and the message is dropped.

use crate::entry::{Entry, Payload};
use crate::error::PeerError;
use crate::membership::Membership;
use crate::message::{
    AppendEntries, AppendOutcome, Envelope, Message, SnapshotMeta, SnapshotOutcome,
};
use crate::types::{Index, LogId, Term};

/// Whether terms and indexes are such as a correct server can send.
pub(crate) fn check_envelope(envelope: &Envelope) -> Result<(), PeerError> {
    let possible = |id: LogId| id.index <= Index::MAX && id.term <= envelope.term;
    let sound = envelope.term < Term::MAX
        && match &envelope.message {
            Message::PreVote(m) => possible(m.last_log) && m.next_term == envelope.term.next(),
            Message::RequestVote(m) => possible(m.last_log),
            Message::AppendEntries(m) => return check_append(envelope.term, m),
            Message::AppendEntriesReply(m) => match m.outcome {
                AppendOutcome::Accepted { match_index } => match_index <= Index::MAX,
                AppendOutcome::Refused { prev_index, conflict } => {
                    prev_index <= Index::MAX && conflict.first_index <= prev_index
                }
            },
            Message::HeartbeatReply(m) => m.verified <= Index::MAX,
            Message::InstallSnapshot(m) => {
                return check_snapshot(envelope.term, &m.snapshot);
            }
            Message::InstallSnapshotReply(m) => match m.outcome {
                SnapshotOutcome::Matched { match_index } => match_index <= Index::MAX,
                SnapshotOutcome::Pending | SnapshotOutcome::Failed => true,
            },
            Message::ReadIndexReply(m) => m.index.is_none_or(|index| index <= Index::MAX),
            _ => true,
        };
    if sound { Ok(()) } else { Err(PeerError::Impossible) }
}

/// Whether the entries of a message follow each other, have possible terms and are undamaged.
fn check_append(term: Term, m: &AppendEntries) -> Result<(), PeerError> {
    let AppendEntries { prev_log, entries, .. } = m;
    let zero_index = prev_log.index == Index::ZERO;
    if prev_log.index > Index::MAX || term >= Term::MAX || zero_index != (prev_log.term == Term(0))
    {
        return Err(PeerError::Impossible);
    }
    if prev_log.term > term {
        return Err(PeerError::EntryTerm { at: prev_log.index });
    }
    let mut prev = *prev_log;
    for entry in entries {
        if entry.index != prev.index.next() || entry.index > Index::MAX {
            return Err(PeerError::Gap { at: prev.index.next() });
        }
        if entry.term < prev.term || entry.term > term || entry.term == Term(0) {
            return Err(PeerError::EntryTerm { at: entry.index });
        }
        if !entry.checksum_holds() {
            return Err(PeerError::Checksum { at: entry.index });
        }
        prev = entry.log_id();
    }
    Ok(())
}

fn check_snapshot(term: Term, snapshot: &SnapshotMeta) -> Result<(), PeerError> {
    let id = snapshot.id;
    if id.index > Index::MAX || id.index == Index::ZERO || id.term > term || term >= Term::MAX {
        return Err(PeerError::Impossible);
    }
    if snapshot.membership.voters().is_empty() {
        return Err(PeerError::NoMembership);
    }
    Ok(())
}

/// The highest feature level that the configurations in a message demand.
pub(crate) fn feature_level_of(message: &Message) -> u32 {
    let of_entry = |entry: &Entry| match &entry.payload {
        Payload::Membership(membership) => membership.feature_level(),
        Payload::Noop | Payload::Command(_) => 0,
    };
    match message {
        Message::AppendEntries(m) => m.entries.iter().map(of_entry).max().unwrap_or(0),
        Message::InstallSnapshot(m) => Membership::feature_level(&m.snapshot.membership),
        _ => 0,
    }
}
