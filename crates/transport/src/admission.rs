//! Who may connect: the same rules for every transport.

use std::sync::Arc;

use quorate_raft::{ClusterId, Incarnation, NodeId};

use crate::handler::{Handler, Stranger};
use crate::refusal::Refusal;
use crate::transport::Identity;

/// Who the other side of a connection says it is, and whom it wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) boot: u64,
    pub(crate) wanted: NodeId,
    pub(crate) features: u64,
    pub(crate) founders: Arc<[NodeId]>,
}

impl Claim {
    /// What `identity` says to reach `wanted`.
    pub(crate) fn of(identity: &Identity, wanted: NodeId) -> Self {
        Self {
            cluster: identity.cluster,
            node: identity.node,
            incarnation: identity.incarnation,
            boot: identity.boot,
            wanted,
            features: identity.features,
            founders: Arc::clone(&identity.founders),
        }
    }

    /// An error if both know whom the cluster was founded with, and not the same.
    pub(crate) fn check_founders(&self, me: &Identity) -> Result<(), Refusal> {
        let (ours, theirs) = (&me.founders, &self.founders);
        if ours.is_empty() || theirs.is_empty() || ours == theirs {
            return Ok(());
        }
        Err(Refusal::other_founders(ours, theirs))
    }
}

/// What is known about a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Known {
    /// Not among the peers.
    Stranger,
    /// A peer; with its data directory, if one is bound to it.
    Peer(Option<Incarnation>),
}

/// Whether `claim` may connect to `me`.
pub(crate) fn admit(
    me: &Identity,
    claim: &Claim,
    known: Known,
    address: &str,
    handler: &dyn Handler,
) -> Result<(), Refusal> {
    if claim.cluster != me.cluster {
        return Err(Refusal::wrong_cluster(me.cluster, claim.cluster));
    }
    if claim.node == NodeId(0) {
        return Err(Refusal::malformed("no node has id 0"));
    }
    if claim.wanted != me.node {
        return Err(Refusal::wrong_node(me.node, claim.wanted));
    }
    if claim.node == me.node {
        return Err(Refusal::duplicate(me.node, "the one that you have dialled"));
    }
    claim.check_founders(me)?;
    match known {
        Known::Peer(Some(bound)) if bound != claim.incarnation => {
            Err(Refusal::wrong_incarnation(claim.node, bound, claim.incarnation))
        }
        Known::Peer(_) => Ok(()),
        Known::Stranger => {
            let stranger = Stranger {
                node: claim.node,
                incarnation: claim.incarnation,
                address: address.to_owned(),
            };
            if handler.admits(&stranger) { Ok(()) } else { Err(Refusal::unknown_node(claim.node)) }
        }
    }
}
