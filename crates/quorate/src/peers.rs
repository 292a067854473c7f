//! Whom this node keeps connections with: the members, and for a while those who leave.
//!
//! A configuration is in force as soon as it is in the log (§6). If the connections with those that
//! it removes ended then, they would never hear that they were removed; and a leader that removes
//! itself, which leads until that has committed, would not hear that it has.

use std::sync::Arc;

use quorate_raft::{Member, Membership, NodeId, Time};

/// The configuration in force, and who has left it lately.
#[derive(Default)]
pub(crate) struct Peers {
    membership: Option<Arc<Membership>>,
    parting: Vec<Parting>,
}

/// A node that is no member any more.
struct Parting {
    node: NodeId,
    member: Member,
    until: Time,
}

impl Peers {
    /// Whether this is news: `membership` is in force, or the time of somebody who left has run
    /// out. Those who leave now have `patience_us`.
    pub(crate) fn follow(
        &mut self,
        membership: &Arc<Membership>,
        now: Time,
        patience_us: u64,
    ) -> bool {
        let same = |seen: &Arc<Membership>| Arc::ptr_eq(seen, membership);
        if self.membership.as_ref().is_some_and(same) {
            let before = self.parting.len();
            self.parting.retain(|parting| now < parting.until);
            return self.parting.len() != before;
        }
        let before = self.membership.replace(Arc::clone(membership)).unwrap_or_default();
        self.parting.retain(|parting| !membership.contains(parting.node));
        for (node, member) in before.members().filter(|(node, _)| !membership.contains(*node)) {
            let until = now.after(patience_us);
            self.parting.push(Parting { node, member: member.clone(), until });
        }
        true
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        let members = self.membership.iter().flat_map(|membership| membership.members());
        members.chain(self.parting.iter().map(|parting| (parting.node, &parting.member)))
    }

    /// Whether nobody is a member: this node waits to be added.
    pub(crate) fn is_empty(&self) -> bool {
        self.membership.as_ref().is_none_or(|membership| membership.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_leave_stay_for_a_while() {
        let of = |nodes: &[u64]| Arc::new(Membership::of_voters(nodes.iter().copied().map(NodeId)));
        let all = |peers: &Peers| peers.all().map(|(node, _)| node.0).collect::<Vec<_>>();
        let mut peers = Peers::default();
        assert!(peers.is_empty());
        let (three, two) = (of(&[1, 2, 3]), of(&[1, 2]));
        assert!(peers.follow(&three, Time(0), 10));
        assert!(!peers.follow(&three, Time(1), 10));
        assert!(peers.follow(&two, Time(5), 10));
        assert_eq!(all(&peers), [1, 2, 3]);
        assert!(!peers.follow(&two, Time(14), 10));
        assert!(peers.follow(&two, Time(15), 10));
        assert_eq!(all(&peers), [1, 2]);
        // The change was rolled back.
        assert!(peers.follow(&of(&[2]), Time(20), 10));
        assert!(peers.follow(&three, Time(21), 10));
        assert_eq!(all(&peers), [1, 2, 3]);
    }
}
