//! Log Matching and the rules of §5.3 about changing a log.
//!
//! Log Matching speaks of pairs of logs. It holds of all of them if each entry, named by index and
//! term, has one content and one predecessor wherever it appears: equal entries then have equal
//! predecessors, those again, and so on to the start. So one table of entries is enough, and each
//! entry is looked at once when a log takes it.

use quorate_raft::{Entry, LogId, NodeId, Payload, Term};

use super::shadow::ShadowLog;
use super::violation::Property;
use super::{Found, found, position};

/// What is known of an entry, besides its index.
#[derive(Debug)]
struct Known {
    term: Term,
    prev_term: Term,
    kind: u8,
    checksum: u32,
    first_seen: NodeId,
}

/// All entries that were ever in a log.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// By index; a few terms at most each.
    entries: Vec<Vec<Known>>,
}

const fn kind(payload: &Payload) -> u8 {
    match payload {
        Payload::Noop => 0,
        Payload::Command(_) => 1,
        Payload::Membership(_) => 2,
    }
}

impl Identities {
    /// The log of `node` takes `entry` behind `prev`.
    pub(super) fn take(&mut self, node: NodeId, prev: LogId, entry: &Entry) -> Found {
        if entry.index != prev.index.next() || entry.term < prev.term {
            return found(Property::LogMatching, [node], || {
                format!("entry {} is put behind {prev}", entry.log_id())
            });
        }
        let at = position(entry.index);
        if self.entries.len() <= at {
            self.entries.resize_with(at + 1, Vec::new);
        }
        let content = (prev.term, kind(&entry.payload), entry.checksum);
        let Some(known) = self.entries[at].iter().find(|known| known.term == entry.term) else {
            let (prev_term, kind, checksum) = content;
            let (term, first_seen) = (entry.term, node);
            self.entries[at].push(Known { term, prev_term, kind, checksum, first_seen });
            return Ok(());
        };
        if content == (known.prev_term, known.kind, known.checksum) {
            return Ok(());
        }
        found(Property::LogMatching, [node, known.first_seen], || {
            format!(
                "entry {} is not the same in two logs: here {entry}, checksum {:08x}, behind term \
                 {}, there checksum {:08x} behind term {}",
                entry.log_id(),
                entry.checksum,
                prev.term,
                known.checksum,
                known.prev_term
            )
        })
    }

    /// Whether `entry` is the one that logs have under its name.
    pub(super) fn is_known(&self, entry: &Entry) -> bool {
        self.entries.get(position(entry.index)).is_some_and(|known| {
            known.iter().any(|known| {
                (known.term, known.kind, known.checksum)
                    == (entry.term, kind(&entry.payload), entry.checksum)
            })
        })
    }
}

/// `node` drops its log from the index of `first` on, to put `first` there. `led` says whether it
/// was the leader of one term all the time.
pub(super) fn cut(node: NodeId, log: &ShadowLog, first: &Entry, led: bool) -> Found {
    if led {
        return found(Property::LeaderAppendOnly, [node], || {
            format!(
                "the leader drops its log from index {} on, which ends at {}",
                first.index, log.last
            )
        });
    }
    let dropped = log.term_at(first.index);
    if first.index <= log.base.index || dropped == Some(first.term) {
        return found(Property::OnlyConflictsAreDropped, [node], || {
            format!(
                "the log {}..={} is cut for entry {}, which does not conflict with it",
                log.base.index.next(),
                log.last,
                first.log_id()
            )
        });
    }
    Ok(())
}
