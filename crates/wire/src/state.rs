//! What a server must not forget: hard state and the start of its log.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use quorate_raft::{HardState, Incarnation, Index, LogId, Membership, NodeId, SnapshotMeta, Term};

use crate::error::WireError;
use crate::form::{Form, put_count};
use crate::reader::Reader;

/// ```text
/// term u64 | voted_for u64 (0: nobody) | commit u64
/// count u32 | per member seen, ascending: node u64, incarnation u64
/// ```
impl Form for HardState {
    fn put(&self, out: &mut Vec<u8>) {
        self.term.put(out);
        self.voted_for.unwrap_or(NodeId(0)).put(out);
        self.commit.put(out);
        // Nobody could read it back otherwise.
        assert!(self.seen.is_sorted_by(|a, b| a.0 < b.0), "members are seen once, by id");
        put_count(self.seen.len(), out);
        for (node, incarnation) in &self.seen {
            node.put(out);
            incarnation.put(out);
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let term = Term::take(reader)?;
        let voted_for = Some(NodeId::take(reader)?).filter(|node| *node != NodeId(0));
        let commit = Index::take(reader)?;
        let count = reader.count(16)?;
        let mut seen: Vec<(NodeId, Incarnation)> = Vec::with_capacity(count);
        for _ in 0..count {
            let node = NodeId::take(reader)?;
            if seen.last().is_some_and(|(last, _)| *last >= node) {
                return Err(WireError::Value { what: "order of members" });
            }
            seen.push((node, Incarnation::take(reader)?));
        }
        Ok(Self { term, voted_for, commit, seen })
    }
}

/// The canonical bytes of the membership behind their length (`docs/wire-format.md`).
impl Form for Membership {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_bytes().put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = reader.count(1)?;
        Ok(Self::from_bytes(reader.take(count)?)?)
    }
}

/// ```text
/// index u64 | term u64 | length u32 | membership
/// ```
impl Form for SnapshotMeta {
    fn put(&self, out: &mut Vec<u8>) {
        self.id.put(out);
        self.membership.put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = LogId::take(reader)?;
        Ok(Self { id, membership: Arc::new(Membership::take(reader)?) })
    }
}

/// The membership that a payload of `bytes` says.
pub(crate) fn membership_of(bytes: &Bytes) -> Result<Arc<Membership>, WireError> {
    Ok(Arc::new(Membership::from_bytes(bytes)?))
}
