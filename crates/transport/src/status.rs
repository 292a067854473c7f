//! How it stands, as values.

use quorate_raft::{Incarnation, NodeId};

/// One peer, at the moment of asking.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// The address as it was set.
    pub address: String,
    /// The data directory at the other end, once a handshake has told it.
    pub incarnation: Option<Incarnation>,
    /// The other end's feature flags; zero before a handshake.
    pub features: u64,
    /// The frames to it, by lane: urgent, bulk.
    pub lanes: [LaneStatus; 2],
    /// Round trip of the last ping in microseconds, through the urgent lane.
    pub round_trip_us: Option<u64>,
    /// How many pings have been answered, through the urgent lane.
    pub round_trips: u64,
    /// Why the last connection to it ended or could not be made; empty once frames flow again.
    pub last_error: String,
    /// Bytes of snapshots sent to it.
    pub snapshot_bytes_sent: u64,
    /// Bytes of snapshots received from it.
    pub snapshot_bytes_received: u64,
}

/// One lane to, and from, one peer. Counters begin with the transport and only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LaneStatus {
    /// Since when the connection to the peer stands, in microseconds of this transport's life;
    /// `None` if it does not.
    pub connected_since_us: Option<u64>,
    /// How often it was made.
    pub connects: u64,
    /// How often making it failed.
    pub connect_failures: u64,
    /// Frames that wait to be written.
    pub queued_frames: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Frames written.
    pub frames_sent: u64,
    /// Bytes written, headers included.
    pub bytes_sent: u64,
    /// Calls to the operating system that wrote them.
    pub writes: u64,
    /// Frames dropped because the queue was full.
    pub dropped_full: u64,
    /// Frames dropped because there was no connection, or it broke while they waited.
    pub dropped_down: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Bytes received, headers included.
    pub bytes_received: u64,
    /// How often reading stopped because the host was slow.
    pub pauses: u64,
}

/// The node as a whole. Counters begin with the transport and only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    /// Connections accepted, before anything was read from them.
    pub accepted: u64,
    /// Of those, closed because what they said is not this protocol, or nothing was said in time:
    /// port scanners, browsers, garbage.
    pub not_ours: u64,
    /// Connections closed at once, because too many were in their handshake.
    pub over_limit: u64,
    /// Connections, either way, that this node refused.
    pub refused: u64,
    /// Connections that others refused.
    pub refused_by_others: u64,
    /// Connections closed because a frame was damaged, too long or of no known kind.
    pub bad_frames: u64,
    /// Connections given up because nothing was heard for too long.
    pub silent: u64,
    /// Ends of peers' processes that were told to the host.
    pub peers_closed: u64,
    /// Frames to nodes that were never set as peers.
    pub dropped_unknown: u64,
    /// Frames that were longer than allowed, and not sent.
    pub dropped_too_large: u64,
    /// Snapshots that are being sent now.
    pub snapshots_sending: u64,
    /// Requests for snapshots that were put off because as many as allowed were being sent.
    pub snapshots_busy: u64,
}
