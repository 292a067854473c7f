//! Frames per second and CPU per frame over loopback, for frames of 100 bytes and 4 KiB: one by
//! one, in bursts of 64, and with 1024 under way. Beside it the same traffic on a bare socket with
//! nothing but a length in front of each frame (no checksum, no queue, no pings), and through the
//! in-process network.
//!
//! Sender and receiver are one process with two workers, so the CPU is that of both ends, the
//! wake-up of the sender for the next round included. `--quick` proves that it works.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::vec::Drain;

use bytes::Bytes;
use quorate_raft::{ClusterId, Incarnation, NodeId};
use quorate_transport::{
    Handler, Identity, InProcess, Lane, Pause, Peer, Sent, Settings, SnapshotSource, Tcp, Transport,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Counts what arrives and wakes the sender when a round is complete.
#[derive(Default)]
struct Counter {
    count: AtomicU64,
    wanted: AtomicU64,
    complete: Notify,
}

impl Counter {
    fn add(&self, count: u64) {
        let total = self.count.fetch_add(count, Ordering::AcqRel) + count;
        if total >= self.wanted.load(Ordering::Acquire) {
            self.complete.notify_one();
        }
    }

    async fn reach(&self, wanted: u64) {
        self.wanted.store(wanted, Ordering::Release);
        while self.count.load(Ordering::Acquire) < wanted {
            self.complete.notified().await;
        }
    }
}

struct Host(Arc<Counter>);

impl Handler for Host {
    fn received(&self, _: NodeId, _: Lane, frames: Drain<'_, Bytes>) -> Option<Pause> {
        self.0.add(frames.count() as u64);
        None
    }

    fn peer_closed(&self, _: NodeId, _: Incarnation) {}

    fn open_snapshot(&self, _: NodeId, _: &[u8]) -> io::Result<Option<SnapshotSource>> {
        Ok(None)
    }
}

/// Something that carries frames one way.
enum Way {
    Transport(Arc<dyn Transport>),
    Bare(TcpStream),
}

impl Way {
    async fn send(&mut self, frame: &Bytes, count: u64) {
        match self {
            Self::Transport(transport) => {
                for _ in 0..count {
                    while transport.send(NodeId(2), Lane::Bulk, frame.clone()) != Sent::Queued {
                        tokio::task::yield_now().await;
                    }
                }
            }
            Self::Bare(stream) => {
                let mut buffer = Vec::with_capacity((frame.len() + 4) * count as usize);
                for _ in 0..count {
                    buffer.extend_from_slice(&(frame.len() as u32).to_le_bytes());
                    buffer.extend_from_slice(frame);
                }
                stream.write_all(&buffer).await.expect("loopback");
            }
        }
    }
}

fn identity(id: u64) -> Identity {
    Identity {
        cluster: ClusterId(1),
        node: NodeId(id),
        incarnation: Incarnation(id),
        boot: id,
        features: 0,
        founders: std::sync::Arc::default(),
    }
}

fn peer(id: u64, address: String) -> Peer {
    Peer { node: NodeId(id), address, incarnation: None }
}

async fn tcp(counter: &Arc<Counter>) -> (Way, Vec<Arc<dyn Transport>>) {
    let bind = |id| {
        let tcp = Tcp::bind(identity(id), Settings::new("127.0.0.1:0")).expect("a free port");
        Arc::new(tcp)
    };
    let (a, b) = (bind(1), bind(2));
    a.start(Arc::new(Host(Arc::default()))).expect("first start");
    b.start(Arc::new(Host(Arc::clone(counter)))).expect("first start");
    b.set_peers(&[peer(1, a.local_address().to_string())]);
    a.set_peers(&[peer(2, b.local_address().to_string())]);
    while a.peers()[0].lanes[1].connected_since_us.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (Way::Transport(Arc::clone(&a) as Arc<dyn Transport>), vec![a, b])
}

async fn in_process(counter: &Arc<Counter>) -> (Way, Vec<Arc<dyn Transport>>) {
    let network = InProcess::new();
    let (a, b) = (network.join(identity(1)), network.join(identity(2)));
    a.start(Arc::new(Host(Arc::default()))).expect("first start");
    b.start(Arc::new(Host(Arc::clone(counter)))).expect("first start");
    b.set_peers(&[peer(1, String::new())]);
    a.set_peers(&[peer(2, String::new())]);
    (Way::Transport(Arc::clone(&a) as Arc<dyn Transport>), vec![a, b])
}

async fn bare(counter: &Arc<Counter>) -> (Way, Vec<Arc<dyn Transport>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("loopback");
    let (mut far, _) = listener.accept().await.expect("loopback");
    near.set_nodelay(true).expect("a socket");
    let counter = Arc::clone(counter);
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        let (mut have, mut skip) = (0, 0);
        while let Ok(read @ 1..) = far.read(&mut buffer[have..]).await {
            have += read;
            let (mut at, mut frames) = (0, 0);
            loop {
                if skip > 0 {
                    let now = skip.min(have - at);
                    skip -= now;
                    at += now;
                    if skip > 0 {
                        break;
                    }
                    frames += 1;
                }
                let Some(head) = buffer[at..have].first_chunk::<4>() else { break };
                skip = u32::from_le_bytes(*head) as usize;
                at += 4;
            }
            buffer.copy_within(at..have, 0);
            have -= at;
            if frames > 0 {
                counter.add(frames);
            }
        }
    });
    (Way::Bare(near), Vec::new())
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Rounds of `burst` frames, each complete before the next begins; with `window` rounds under way.
async fn measure(
    way: &mut Way,
    counter: &Counter,
    frame: &Bytes,
    burst: u64,
    window: u64,
    time: Duration,
) -> (f64, f64) {
    let from = counter.count.load(Ordering::Acquire);
    let mut sent = 0;
    let (begin, cpu_before) = (Instant::now(), cpu());
    while begin.elapsed() < time {
        for _ in 0..8 {
            way.send(frame, burst).await;
            sent += burst;
            counter.reach((from + sent).saturating_sub(burst * (window - 1))).await;
        }
    }
    counter.reach(from + sent).await;
    let (took, cpu) = (begin.elapsed().as_secs_f64(), cpu() - cpu_before);
    (sent as f64 / took, cpu.as_secs_f64() * 1e6 / sent as f64)
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (rounds, time) =
        if quick { (1, Duration::from_millis(20)) } else { (7, Duration::from_millis(400)) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let work = runtime.spawn(run(rounds, time));
    runtime.block_on(work).expect("no panic");
}

async fn run(rounds: usize, time: Duration) {
    println!("medians of {rounds} interleaved runs; CPU of both ends together\n");
    println!("| frames | how | tcp frames/s | us CPU | bare frames/s | us CPU | in process frames/s | us CPU |");
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    for size in [100, 4096] {
        let frame = Bytes::from(vec![7; size]);
        for (name, burst, window) in
            [("one by one", 1, 1), ("bursts of 64", 64, 1), ("1024 under way", 64, 16)]
        {
            let counters: [Arc<Counter>; 3] = Default::default();
            let mut ways = [
                tcp(&counters[0]).await,
                bare(&counters[1]).await,
                in_process(&counters[2]).await,
            ];
            let mut results: [Vec<(f64, f64)>; 3] = Default::default();
            for _ in 0..rounds {
                for (i, (way, _)) in ways.iter_mut().enumerate() {
                    let one = measure(way, &counters[i], &frame, burst, window, time).await;
                    results[i].push(one);
                }
            }
            let cells: Vec<String> = results
                .iter_mut()
                .map(|runs| {
                    let mut of = |f: fn(&(f64, f64)) -> f64| {
                        runs.sort_by(|a, b| f(a).total_cmp(&f(b)));
                        f(&runs[runs.len() / 2])
                    };
                    format!("{:.0} | {:.2}", of(|run| run.0), of(|run| run.1))
                })
                .collect();
            println!("| {size} B | {name} | {} |", cells.join(" | "));
            for (_, transports) in ways {
                for transport in transports {
                    transport.shutdown().await;
                }
            }
        }
    }
}
