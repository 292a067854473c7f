//! Fresh Read: a linearizable read sees everything that was committed before it began.
//!
//! This is stronger than what clients can notice, because an entry may be committed long before
//! anyone hears of it. `ReadIndex` promises it nevertheless (thesis 6.4): when a quorum confirms
//! the leader after the read arrived, no later leader had committed anything before, and what
//! earlier leaders committed is below the first entry of the leader's own term.

use std::collections::BTreeMap;

use quorate_raft::{Index, NodeId, RequestId};

use super::violation::Property;
use super::{Found, found};

/// The linearizable reads that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Reads {
    floors: BTreeMap<(NodeId, RequestId), Index>,
}

impl Reads {
    /// `node` is asked, when `committed` is the last index committed anywhere.
    pub(super) fn began(&mut self, node: NodeId, id: RequestId, committed: Index) {
        self.floors.insert((node, id), committed);
    }

    /// `node` lets the read be served at `index`, or (`None`) refuses it.
    pub(super) fn answered(&mut self, node: NodeId, id: RequestId, index: Option<Index>) -> Found {
        let (Some(floor), Some(index)) = (self.floors.remove(&(node, id)), index) else {
            return Ok(());
        };
        if index >= floor {
            return Ok(());
        }
        found(Property::FreshRead, [node], || {
            format!(
                "n{node} serves read {id} at index {index}, but index {floor} was committed before \
                 the read began"
            )
        })
    }
}
