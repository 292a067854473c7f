//! What can be tuned, with bounds for everything that could grow.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::stream::{Plain, Security};

/// Settings of a [`Tcp`](super::Tcp) transport. The defaults suit a cluster within one region.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen: `host:port`, or several of them separated by commas; port 0 lets the system choose
    /// ([`Tcp::local_address`](super::Tcp::local_address) tells which, of the first).
    pub listen: String,
    /// Seed of the jitter in back-off; any number, different on each node.
    pub seed: u64,
    /// Longest frame, sent or received, in bytes. A longer one is not sent, and ends the
    /// connection on which it arrives, before memory is taken for it. Default 64 MiB, at most 1 GiB; it must hold
    /// the largest batch of entries that the host makes, and be the same on all nodes.
    pub frame_bytes_max: usize,
    /// Most frames that wait for one peer in one lane. Default 4096.
    pub queue_frames_max: usize,
    /// Their bytes; a frame is let in while there are fewer. Default 64 MiB, so a lane holds at
    /// most this and one frame more, and 256 KiB or one frame that is being written.
    pub queue_bytes_max: usize,
    /// How long making a connection may take, handshake included, and how long an accepted one
    /// has to introduce itself. Default 2 s.
    pub dial_timeout: Duration,
    /// First pause between attempts to connect. Default 50 ms.
    pub backoff_min: Duration,
    /// Longest pause, reached by doubling. Default 2 s. A node that has been away is dialled as
    /// soon as it dials, so this matters only where connections work in one direction.
    pub backoff_max: Duration,
    /// Each end of a connection says something at least this often. Default 1 s.
    pub ping_interval: Duration,
    /// After so many intervals in which nothing was heard a connection is given up. Default 4.
    /// That is no [`peer_closed`](crate::Handler::peer_closed). Too small: a long pause of a
    /// process costs its connections; too large: a healed network is noticed late.
    pub silent_pings_max: u32,
    /// Accepted connections whose handshake is not finished; more are closed at once. Default 64.
    pub handshakes_max: usize,
    /// Bytes of snapshots sent per second, all receivers together; 0 is no limit. Default 64 MiB,
    /// about half of a gigabit link.
    pub snapshot_bytes_per_second: u64,
    /// Snapshots sent at once; further receivers are asked to come again. Default 2.
    pub snapshot_streams_max: usize,
    /// What protects the connections. Default: nothing, see [`Plain`].
    pub security: Arc<dyn Security>,
}

impl Settings {
    /// Defaults, and where to listen.
    #[must_use]
    pub fn new(listen: impl Into<String>) -> Self {
        Self {
            listen: listen.into(),
            seed: 0,
            frame_bytes_max: 64 * 1024 * 1024,
            queue_frames_max: 4096,
            queue_bytes_max: 64 * 1024 * 1024,
            dial_timeout: Duration::from_secs(2),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            ping_interval: Duration::from_secs(1),
            silent_pings_max: 4,
            handshakes_max: 64,
            snapshot_bytes_per_second: 64 * 1024 * 1024,
            snapshot_streams_max: 2,
            security: Arc::new(Plain),
        }
    }

    /// Bytes of a snapshot in one chunk: small enough that a limited sender does not send in
    /// bursts that heartbeats feel.
    pub(super) fn chunk_bytes(&self) -> usize {
        match self.snapshot_bytes_per_second {
            0 => CHUNK_BYTES_MAX,
            rate => usize::try_from(rate / 16)
                .unwrap_or(CHUNK_BYTES_MAX)
                .clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX),
        }
    }
}

/// Bytes of a snapshot that travel under one checksum, at least.
const CHUNK_BYTES_MIN: usize = 4 * 1024;
/// At most.
pub(super) const CHUNK_BYTES_MAX: usize = 128 * 1024;

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("frame_bytes_max", &self.frame_bytes_max)
            .field("queue_frames_max", &self.queue_frames_max)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("dial_timeout", &self.dial_timeout)
            .field("backoff_min", &self.backoff_min)
            .field("backoff_max", &self.backoff_max)
            .field("ping_interval", &self.ping_interval)
            .field("silent_pings_max", &self.silent_pings_max)
            .field("handshakes_max", &self.handshakes_max)
            .field("snapshot_bytes_per_second", &self.snapshot_bytes_per_second)
            .field("snapshot_streams_max", &self.snapshot_streams_max)
            .finish_non_exhaustive()
    }
}
