//! Why a connection is refused, in words that say what to do.

use std::fmt;

use quorate_raft::{ClusterId, Incarnation, NodeId};

/// A refusal, as it travels to the side that is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what is wrong and what to do about it.
    pub text: String,
}

/// The reasons for which a connection is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RefusalCode {
    /// No protocol version that both sides speak.
    Version,
    /// The two belong to different clusters.
    WrongCluster,
    /// The node at this address is not the one that was dialled.
    WrongNode,
    /// The id belongs to another data directory.
    WrongIncarnation,
    /// Another process with the same id is alive.
    DuplicateNode,
    /// The node is not a member, as far as the refusing one knows.
    UnknownNode,
    /// The introduction makes no sense.
    Malformed,
    /// The refusing process is shutting down.
    ShuttingDown,
    /// The node has more connections than it can have a use for.
    TooMany,
    /// The two were told of different founding members.
    OtherFounders,
    /// A reason that a later version of this software knows.
    Other(u16),
}

impl RefusalCode {
    /// The number that stands for it in bytes. Never reused for another meaning.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Version => 1,
            Self::WrongCluster => 2,
            Self::WrongNode => 3,
            Self::WrongIncarnation => 4,
            Self::DuplicateNode => 5,
            Self::UnknownNode => 6,
            Self::Malformed => 7,
            Self::ShuttingDown => 8,
            Self::TooMany => 9,
            Self::OtherFounders => 10,
            Self::Other(number) => number,
        }
    }

    /// The reason that a number stands for.
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Version,
            2 => Self::WrongCluster,
            3 => Self::WrongNode,
            4 => Self::WrongIncarnation,
            5 => Self::DuplicateNode,
            6 => Self::UnknownNode,
            7 => Self::Malformed,
            8 => Self::ShuttingDown,
            9 => Self::TooMany,
            10 => Self::OtherFounders,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// Two ranges of versions do not meet.
    pub(crate) fn version(ours: (u16, u16), theirs: (u16, u16)) -> Self {
        let range = |(min, max): (u16, u16)| {
            if min == max { format!("{min}") } else { format!("{min} to {max}") }
        };
        let text = format!(
            "protocol versions do not meet: this node speaks {}, you speak {}; upgrade the older \
             of the two (or downgrade the newer one by a release at a time)",
            range(ours),
            range(theirs)
        );
        Self { code: RefusalCode::Version, text }
    }

    pub(crate) fn wrong_cluster(ours: ClusterId, theirs: ClusterId) -> Self {
        let text = format!(
            "this node belongs to cluster {ours}, you to {theirs}; one of the two has an \
             address of the other's cluster in its configuration, or a copied data directory"
        );
        Self { code: RefusalCode::WrongCluster, text }
    }

    pub(crate) fn wrong_node(here: NodeId, wanted: NodeId) -> Self {
        let text = format!(
            "node {here} is at this address, not node {wanted}; correct the address of node \
             {wanted} in the membership"
        );
        Self { code: RefusalCode::WrongNode, text }
    }

    pub(crate) fn wrong_incarnation(
        node: NodeId,
        known: Incarnation,
        claimed: Incarnation,
    ) -> Self {
        let text = format!(
            "node {node} is bound to another data directory (incarnation {:016x}, yours is \
             {:016x}): its disk was wiped or exchanged, and with it went votes and \
             acknowledgements that others rely on; remove it and add it under a new id",
            known.0, claimed.0
        );
        Self { code: RefusalCode::WrongIncarnation, text }
    }

    pub(crate) fn duplicate(node: NodeId, where_is_the_other: &str) -> Self {
        let text = format!(
            "another process runs as node {node} ({where_is_the_other}); stop one of the two, and \
             never start two with one id or with copies of one data directory"
        );
        Self { code: RefusalCode::DuplicateNode, text }
    }

    pub(crate) fn unknown_node(node: NodeId) -> Self {
        let text = format!(
            "node {node} is not a member of this cluster as far as this node knows; add it to the \
             membership first, or, if it was removed, delete its data directory"
        );
        Self { code: RefusalCode::UnknownNode, text }
    }

    pub(crate) fn other_founders(ours: &[NodeId], theirs: &[NodeId]) -> Self {
        let list = |nodes: &[NodeId]| {
            let ids: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            ids.join(" ")
        };
        let text = format!(
            "this node was told that the cluster was founded with members {}, you with {}; the list \
             must be the same at all of them: correct the wrong one, and start that node anew with \
             an empty data directory, or, if it was added later, let it join",
            list(ours),
            list(theirs)
        );
        Self { code: RefusalCode::OtherFounders, text }
    }

    pub(crate) fn malformed(what: &str) -> Self {
        let text = format!("the introduction makes no sense: {what}");
        Self { code: RefusalCode::Malformed, text }
    }

    pub(crate) fn too_many(connections: usize) -> Self {
        let text = format!(
            "this node has {connections} connections with you already; wait until some have ended"
        );
        Self { code: RefusalCode::TooMany, text }
    }

    pub(crate) fn shutting_down() -> Self {
        let text = "this process is shutting down; try again later".to_owned();
        Self { code: RefusalCode::ShuttingDown, text }
    }
}
