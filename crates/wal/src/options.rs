//! Settings.

use quorate_raft::{ClusterId, NodeId};

/// Whose log to open, and how it behaves. Sizes are in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The cluster. The log of another one is refused.
    pub cluster: ClusterId,
    /// The node. The log of another one is refused.
    pub node: NodeId,
    /// A cluster whose log becomes one of `cluster` as it is opened: the node has left the others of
    /// that cluster behind and goes on without them. Durable before anything else is written. Default
    /// none.
    pub former_cluster: Option<ClusterId>,
    /// A random number that no other start of any node has used. A new directory takes its
    /// incarnation from it, and segments their tags.
    pub random: u64,
    /// Make a log if the directory has none. Default yes. If no, an empty directory is refused:
    /// for nodes that must have been there before, whose disk may not be mounted.
    pub create: bool,
    /// Size of a segment. Default 64 MiB. Small: more switches, and files that come and go. Large:
    /// space is freed in larger steps, and the first filling of a segment takes longer.
    pub segment_bytes: u64,
    /// Size of the segment that a start makes if it finds none ready, and that a write makes if
    /// none was prepared. Default 4 MiB: filled in some milliseconds. Those that follow grow up to
    /// `segment_bytes`, so that a log with little in it takes little room.
    pub first_segment_bytes: u64,
    /// Unused segments kept to be used again, besides the next one. Default 2.
    pub spare_segments_max: usize,
}

impl Options {
    /// The defaults.
    #[must_use]
    pub const fn new(cluster: ClusterId, node: NodeId, random: u64) -> Self {
        Self {
            cluster,
            node,
            former_cluster: None,
            random,
            create: true,
            segment_bytes: 64 << 20,
            first_segment_bytes: 4 << 20,
            spare_segments_max: 2,
        }
    }

    /// The same with sizes that can be worked with: whole pages, and not absurdly small or large.
    pub(crate) fn normal(&self) -> Self {
        let whole = |bytes: u64| bytes.clamp(4 * PAGE, 1 << 34).next_multiple_of(PAGE);
        let segment_bytes = whole(self.segment_bytes);
        let first_segment_bytes = whole(self.first_segment_bytes).min(segment_bytes);
        Self { segment_bytes, first_segment_bytes, ..self.clone() }
    }
}

const PAGE: u64 = crate::segment::PAGE;
