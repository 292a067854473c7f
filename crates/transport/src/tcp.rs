//! Nodes reach each other over TCP.

mod backoff;
mod connection;
mod frame;
mod handshake;
mod inbound;
mod outbound;
mod output;
mod peers;
mod queue;
mod settings;
mod shared;
mod snapshots;
mod stream;
mod throttle;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use quorate_raft::NodeId;

use crate::handler::Handler;
use crate::snapshot::{FetchError, SnapshotRequest, SnapshotStream};
use crate::status::{Metrics, PeerStatus};
use crate::tasks::Tasks;
use crate::transport::{BoxFuture, Identity, Lane, Peer, Sent, StartError, Transport};

pub use settings::Settings;
pub use stream::{Plain, Security, Stream};

use shared::Shared;

/// The longest frame that any setting allows, 1 GiB: lengths have 32 bits.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// The [`Transport`] of production: framed, checksummed TCP.
///
/// Between two nodes stand four connections, two each way: **every connection is made by the node
/// that sends through it**, one for [`Lane::Urgent`] and one for [`Lane::Bulk`]; only pings come
/// back. Sharing one connection for both directions would save two sockets, and would need a rule
/// for what happens when both dial at once, which is where such protocols have their bugs; it
/// would also make a node that cannot be dialled look healthy. Lanes have connections of their own
/// because a kernel's send buffer is a queue that nobody can overtake. A snapshot has one more
/// connection for as long as it takes.
///
/// A host learns of the death of a peer's process from the kernel, within a round trip
/// ([`Handler::peer_closed`]). A peer that falls silent is only disconnected from, after
/// [`Settings::silent_pings_max`] intervals.
pub struct Tcp {
    identity: Identity,
    settings: Settings,
    address: SocketAddr,
    /// Until the start.
    listeners: Mutex<Vec<TcpListener>>,
    shared: OnceLock<Arc<Shared>>,
    /// Set before the start.
    early: Mutex<Vec<Peer>>,
}

impl Tcp {
    /// Takes the addresses to listen at. Connections are accepted after
    /// [`start`](Transport::start).
    ///
    /// # Errors
    ///
    /// [`StartError::Listen`] if one of them is not to be had.
    pub fn bind(identity: Identity, mut settings: Settings) -> Result<Self, StartError> {
        settings.frame_bytes_max = settings.frame_bytes_max.min(FRAME_BYTES_MAX);
        let listen = |address: &str| {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let mut listeners = Vec::new();
        for address in settings.listen.split(',').map(str::trim) {
            let listener = listen(address)
                .map_err(|source| StartError::Listen { address: address.to_owned(), source })?;
            listeners.push(listener);
        }
        let first = listeners.first().map(TcpListener::local_addr);
        let address = first
            .unwrap_or_else(|| Err(std::io::ErrorKind::InvalidInput.into()))
            .map_err(|source| StartError::Listen { address: settings.listen.clone(), source })?;
        Ok(Self {
            identity,
            settings,
            address,
            listeners: Mutex::new(listeners),
            shared: OnceLock::new(),
            early: Mutex::default(),
        })
    }

    /// Where it listens, with the port that the system has chosen.
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.address
    }
}

impl Transport for Tcp {
    fn start(&self, handler: Arc<dyn Handler>) -> Result<(), StartError> {
        let tasks = Tasks::new(Arc::clone(&handler)).ok_or(StartError::NoRuntime)?;
        let listeners = {
            let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *listeners)
        };
        if listeners.is_empty() {
            return Err(StartError::AlreadyStarted);
        }
        let listeners: Result<Vec<_>, _> =
            listeners.into_iter().map(tokio::net::TcpListener::from_std).collect();
        let listeners = listeners.map_err(|source| StartError::Listen {
            address: self.settings.listen.clone(),
            source,
        })?;
        let shared = Arc::new(Shared::new(
            self.identity.clone(),
            self.settings.clone(),
            handler,
            tasks.clone(),
        ));
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        shared.set_peers(&early);
        early.clear();
        for listener in listeners {
            tasks.spawn(inbound::accept(Arc::clone(&shared), listener));
        }
        self.shared.set(shared).map_err(|_| StartError::AlreadyStarted)
    }

    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Sent {
        let Some(shared) = self.shared.get() else { return Sent::Stopped };
        if frame.len() > shared.settings.frame_bytes_max {
            shared.counters.dropped_too_large.fetch_add(1, Ordering::Relaxed);
            return Sent::TooLarge;
        }
        shared.with_peer(to, |peer| peer.lane(lane).queue.push(frame)).unwrap_or_else(|| {
            shared.counters.dropped_unknown.fetch_add(1, Ordering::Relaxed);
            Sent::Unknown
        })
    }

    fn set_peers(&self, peers: &[Peer]) {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        match self.shared.get() {
            Some(shared) if shared.tasks.is_stopping() => {}
            Some(shared) => shared.set_peers(peers),
            None => *early = peers.to_vec(),
        }
    }

    fn fetch(
        &self,
        from: NodeId,
        request: SnapshotRequest,
    ) -> BoxFuture<'static, Result<SnapshotStream, FetchError>> {
        match self.shared.get() {
            Some(shared) => Box::pin(snapshots::fetch(Arc::clone(shared), from, request)),
            None => Box::pin(async { Err(FetchError::Stopped) }),
        }
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let Some(shared) = self.shared.get() else { return Vec::new() };
        shared.all_peers().iter().map(|peer| peer.status()).collect()
    }

    fn metrics(&self) -> Metrics {
        self.shared.get().map(|shared| shared.metrics()).unwrap_or_default()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clear();
            if let Some(shared) = self.shared.get() {
                shared.tasks.stop().await;
                for peer in shared.all_peers() {
                    for lane in &peer.lanes {
                        lane.queue.close();
                    }
                }
            }
        })
    }
}

impl Drop for Tcp {
    /// Tasks end in the background if nobody waited for them.
    fn drop(&mut self) {
        if let Some(shared) = self.shared.get() {
            shared.tasks.begin_stop();
        }
    }
}
