//! `inject`: a message that no correct node would send, or not now.

use std::sync::Arc;

use bytes::Bytes;
use quorate_node::NodeMessage;
use quorate_raft::{
    AppendEntries, AppendEntriesReply, AppendOutcome, AttemptId, ClusterId, CommitNotice, Conflict,
    ElectionCause, Entry, Envelope, GroupId, Heartbeat, HeartbeatReply, Incarnation, Index,
    InstallSnapshot, InstallSnapshotReply, LogId, Membership, Message, Payload, PreVote,
    PreVoteReply, ReadIndex, ReadIndexReply, RequestVote, RequestVoteReply, SnapshotMeta,
    SnapshotOutcome, Term, Time,
};

use super::arguments::{Fault, Words, log_id, number};
use super::session::Session;

/// `n1 -> n2 Kind key=value ...`: what is not said is as `n1` would say it now.
pub(super) fn message(session: &mut Session, words: &mut Words) -> Result<NodeMessage, Fault> {
    let (Some(from), Some(to)) = words.link()? else {
        return Err("inject needs both nodes".to_owned());
    };
    let kind = words.next("the kind of message")?;
    let sender = session.host(from)?;
    let config = sender.config();
    let term = sender
        .brief()
        .map_or_else(|| sender.storage().durable().hard_state.term, |brief| brief.term);
    let membership = Arc::clone(&sender.storage().durable().start.membership);
    let mut envelope = Envelope {
        cluster: config.cluster,
        group: config.group,
        from,
        incarnation: config.incarnation,
        to,
        term,
        message: Message::TimeoutNow,
    };
    if let Some(word) = words.option("cluster") {
        envelope.cluster = ClusterId(number(&word)?);
    }
    if let Some(word) = words.option("group") {
        envelope.group = GroupId(number(&word)?);
    }
    if let Some(word) = words.option("incarnation") {
        envelope.incarnation = Incarnation(number(&word)?);
    }
    if let Some(word) = words.option("term") {
        envelope.term = Term(number(&word)?);
    }
    envelope.message = content(&kind, words, &membership, envelope.term)?;
    Ok(NodeMessage::Raft(envelope))
}

fn content(
    kind: &str,
    words: &mut Words,
    membership: &Arc<Membership>,
    term: Term,
) -> Result<Message, Fault> {
    Ok(match kind {
        "TimeoutNow" => Message::TimeoutNow,
        "PreVote" => Message::PreVote(PreVote {
            next_term: number_or(words, "next_term", term.0 + 1).map(Term)?,
            last_log: log_id_or_zero(words, "last_log")?,
            attempt: attempt(words)?,
        }),
        "PreVoteReply" => Message::PreVoteReply(PreVoteReply {
            attempt: attempt(words)?,
            granted: granted(words)?,
        }),
        "RequestVote" => Message::RequestVote(RequestVote {
            last_log: log_id_or_zero(words, "last_log")?,
            cause: match words.option("cause").as_deref() {
                None | Some("timeout") => ElectionCause::Timeout,
                Some("transfer") => ElectionCause::Transfer,
                Some("forced") => ElectionCause::Forced,
                Some(word) => return Err(format!("`{word}` is no cause of an election")),
            },
        }),
        "RequestVoteReply" => {
            Message::RequestVoteReply(RequestVoteReply { granted: granted(words)? })
        }
        "AppendEntries" => Message::AppendEntries(AppendEntries {
            prev_log: log_id_or_zero(words, "prev")?,
            entries: entries(words)?,
            leader_commit: number_or(words, "commit", 0).map(Index)?,
            round: number_or(words, "round", 0)?,
            extension: Bytes::new(),
        }),
        "AppendEntriesReply" => Message::AppendEntriesReply(AppendEntriesReply {
            outcome: append_outcome(words)?,
            round: number_or(words, "round", 0)?,
            extension: Bytes::new(),
        }),
        "Heartbeat" => Message::Heartbeat(Heartbeat {
            leader_commit: number_or(words, "commit", 0).map(Index)?,
            round: number_or(words, "round", 0)?,
        }),
        "HeartbeatReply" => Message::HeartbeatReply(HeartbeatReply {
            round: number_or(words, "round", 0)?,
            verified: number_or(words, "verified", 0).map(Index)?,
            feature_level: u32::try_from(number_or(words, "features", 0)?)
                .map_err(|_| "the feature level is too large".to_owned())?,
            clock: number_or(words, "clock", 0).map(Time)?,
        }),
        "CommitNotice" => Message::CommitNotice(CommitNotice {
            leader_commit: number_or(words, "commit", 0).map(Index)?,
        }),
        "InstallSnapshot" => {
            let id = log_id_or_zero(words, "snapshot")?;
            let membership = if words.accept("nobody") {
                Arc::new(Membership::default())
            } else {
                Arc::clone(membership)
            };
            Message::InstallSnapshot(InstallSnapshot { snapshot: SnapshotMeta { id, membership } })
        }
        "InstallSnapshotReply" => Message::InstallSnapshotReply(InstallSnapshotReply {
            snapshot: log_id_or_zero(words, "snapshot")?,
            outcome: if words.accept("pending") {
                SnapshotOutcome::Pending
            } else if words.accept("failed") {
                SnapshotOutcome::Failed
            } else {
                let match_index = number_or(words, "match", 0).map(Index)?;
                SnapshotOutcome::Matched { match_index }
            },
        }),
        "ReadIndex" => Message::ReadIndex(ReadIndex { attempt: attempt(words)? }),
        "ReadIndexReply" => Message::ReadIndexReply(ReadIndexReply {
            attempt: attempt(words)?,
            index: words.option("index").map(|word| number(&word)).transpose()?.map(Index),
        }),
        _ => return Err(format!("unknown kind of message `{kind}`")),
    })
}

fn number_or(words: &mut Words, key: &str, default: u64) -> Result<u64, Fault> {
    words.option(key).map_or(Ok(default), |word| number(&word))
}

fn log_id_or_zero(words: &mut Words, key: &str) -> Result<LogId, Fault> {
    words.option(key).map_or(Ok(LogId::ZERO), |word| log_id(&word))
}

/// `attempt=11.3`: boot (hexadecimal) and count, as they are printed.
fn attempt(words: &mut Words) -> Result<AttemptId, Fault> {
    let Some(word) = words.option("attempt") else { return Ok(AttemptId::default()) };
    let wrong = || format!("`{word}` is no attempt; write it as it is printed, 11.3");
    let (boot, count) = word.split_once('.').ok_or_else(wrong)?;
    let boot = u64::from_str_radix(boot, 16).map_err(|_| wrong())?;
    let count = count.parse().map_err(|_| wrong())?;
    Ok(AttemptId { boot, count })
}

fn granted(words: &mut Words) -> Result<bool, Fault> {
    match words.next("granted or refused")?.as_str() {
        "granted" => Ok(true),
        "refused" => Ok(false),
        word => Err(format!("`{word}` is neither granted nor refused")),
    }
}

/// `entries=2@1,3@1!`: commands; `!` behind one whose checksum is wrong.
fn entries(words: &mut Words) -> Result<Vec<Entry>, Fault> {
    let Some(list) = words.option("entries") else { return Ok(Vec::new()) };
    let entry = |word: &str| {
        let (id, good) = word.strip_suffix('!').map_or((word, true), |id| (id, false));
        let LogId { index, term } = log_id(id)?;
        let mut entry = Entry::new(index, term, Payload::Command(Bytes::from_static(b"x")));
        if !good {
            entry.checksum ^= 1;
        }
        Ok(entry)
    };
    list.split(',').map(entry).collect()
}

/// `match=5`, or `refused prev=5 first=3 conflict=2`.
fn append_outcome(words: &mut Words) -> Result<AppendOutcome, Fault> {
    if !words.accept("refused") {
        let match_index = number_or(words, "match", 0).map(Index)?;
        return Ok(AppendOutcome::Accepted { match_index });
    }
    let conflict = Conflict {
        term: words.option("conflict").map(|word| number(&word)).transpose()?.map(Term),
        first_index: number_or(words, "first", 1).map(Index)?,
    };
    let prev_index = number_or(words, "prev", 0).map(Index)?;
    Ok(AppendOutcome::Refused { prev_index, conflict })
}
