//! Snapshots: whole, resumed, throttled, denied, and out of the way of heartbeats.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_raft::NodeId;
use quorate_transport::{
    FetchError, Handler, Lane, Settings, SnapshotRequest, SnapshotStream, Transport,
};

use support::{
    DEADLINE, Mode, Node, Proxy, Snapshot, identity, noise, pair, peer, settings, until,
};

const NAME: Bytes = Bytes::from_static(b"10@2");

fn gives(node: &Node, bytes: &Bytes, identity: u64) {
    let snapshot = Snapshot { name: NAME.to_vec(), bytes: bytes.clone(), identity };
    *node.host.snapshot.lock().unwrap() = Some(snapshot);
}

/// A sender (1), a receiver (2), and the proxy through which the receiver reaches the sender.
async fn through_proxy(sender: Settings) -> (Node, Node, Proxy) {
    let (a, b) = (Node::with(identity(1), sender), Node::new(2));
    let proxy = Proxy::to(a.address()).await;
    a.knows(&[&b]);
    b.transport.set_peers(&[peer(1, proxy.address)]);
    a.reaches(2).await;
    b.reaches(1).await;
    (a, b, proxy)
}

async fn fetch(node: &Node, request: SnapshotRequest) -> Result<SnapshotStream, FetchError> {
    let fetch = node.transport.fetch(NodeId(1), request);
    tokio::time::timeout(DEADLINE, fetch).await.expect("an answer in time")
}

async fn all(stream: &mut SnapshotStream, into: &mut Vec<u8>) -> Result<(), FetchError> {
    loop {
        let next = tokio::time::timeout(DEADLINE, stream.next()).await.expect("a chunk in time");
        match next {
            None => return Ok(()),
            Some(Ok(chunk)) => {
                assert_eq!(chunk.offset, into.len() as u64);
                into.extend_from_slice(&chunk.bytes);
            }
            Some(Err(why)) => return Err(why),
        }
    }
}

#[tokio::test]
async fn whole_at_any_length_and_from_any_offset() {
    let (a, b) = pair().await;
    for len in [0, 1, 4096, 131_072, 131_073, 1_000_000] {
        let bytes = noise(len, 3);
        gives(&a, &bytes, 5);
        for offset in [0, 1, len / 2, len] {
            let mut got = bytes[..offset.min(len)].to_vec();
            let request =
                SnapshotRequest { name: NAME, offset: got.len() as u64, identity: Some(5) };
            let mut stream = fetch(&b, request).await.unwrap();
            assert_eq!((stream.length(), stream.identity()), (len as u64, 5));
            all(&mut stream, &mut got).await.unwrap();
            assert!(got == bytes, "{len} bytes from {offset}");
        }
    }
    until("nothing is being sent", || a.transport.metrics().snapshots_sending == 0).await;
    // Ending a transfer is not dying.
    for node in [&a, &b] {
        assert!(node.host.closed.lock().unwrap().is_empty());
    }
    let sent = a.transport.peers()[0].snapshot_bytes_sent;
    assert_eq!(sent, b.transport.peers()[0].snapshot_bytes_received);
}

#[tokio::test]
async fn resumed_after_the_connection_broke_wherever_that_was() {
    let bytes = noise(3_000_000, 9);
    for broken_after in [1u64, 80, 100, 131_000, 500_000, 1_234_567, 2_900_000] {
        let (a, b, proxy) = through_proxy(settings()).await;
        gives(&a, &bytes, 6);
        let before = proxy.backwards.load(Ordering::Relaxed);
        proxy.close_after_backwards.store(before + broken_after, Ordering::Relaxed);
        let mut got = Vec::new();
        let mut breaks = 0;
        let mut request = SnapshotRequest::from_start(NAME);
        loop {
            let result = match fetch(&b, request.clone()).await {
                Ok(mut stream) => {
                    request.identity = Some(stream.identity());
                    let result = all(&mut stream, &mut got).await;
                    assert_eq!(stream.position(), got.len() as u64);
                    result
                }
                Err(why) => Err(why),
            };
            match result {
                Ok(()) => break,
                Err(why) => assert!(why.is_transient(), "{why}"),
            }
            breaks += 1;
            proxy.close_after_backwards.store(0, Ordering::Relaxed);
            request.offset = got.len() as u64;
        }
        assert!(got == bytes, "broken after {broken_after}");
        assert!(breaks >= 1, "broken after {broken_after}: it was not");
    }
}

#[tokio::test]
async fn a_link_that_goes_silent_breaks_the_transfer() {
    let (a, b, proxy) = through_proxy(settings()).await;
    gives(&a, &noise(30_000_000, 9), 6);
    let mut stream = fetch(&b, SnapshotRequest::from_start(NAME)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    proxy.set(Mode::Stall);
    let mut got = stream.position();
    let why = loop {
        match stream.next().await.expect("not complete") {
            Ok(chunk) => got += chunk.bytes.len() as u64,
            Err(why) => break why,
        }
    };
    assert!(matches!(why, FetchError::Broken { .. }), "{why}");
    assert_eq!(got, stream.position());
    assert!(stream.next().await.is_none());
    until("the sender has given up too", || a.transport.metrics().snapshots_sending == 0).await;
    assert!(a.host.closed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_had_is_denied_in_words() {
    let (a, b) = pair().await;
    let from_start = SnapshotRequest::from_start(NAME);
    assert_eq!(fetch(&b, from_start.clone()).await.unwrap_err(), FetchError::Missing);
    gives(&a, &noise(100, 1), 5);
    let other = SnapshotRequest { identity: Some(4), ..from_start.clone() };
    assert_eq!(fetch(&b, other).await.unwrap_err(), FetchError::Changed);
    let beyond = SnapshotRequest { offset: 101, ..from_start.clone() };
    assert_eq!(fetch(&b, beyond).await.unwrap_err(), FetchError::Changed);
    let broken = SnapshotRequest::from_start(Bytes::from_static(b"broken"));
    let why = FetchError::Unreadable { why: "the disk is on fire".to_owned() };
    assert_eq!(fetch(&b, broken).await.unwrap_err(), why);
    let long = SnapshotRequest::from_start(noise(256, 1));
    assert_eq!(fetch(&b, long).await.unwrap_err(), FetchError::NameTooLong);
    let nobody = b.transport.fetch(NodeId(9), from_start.clone()).await;
    assert_eq!(nobody.unwrap_err(), FetchError::Unknown);
    a.transport.shutdown().await;
    let gone = fetch(&b, from_start.clone()).await.unwrap_err();
    assert!(matches!(gone, FetchError::Unreachable { .. }), "{gone}");
    b.transport.shutdown().await;
    assert_eq!(fetch(&b, from_start).await.unwrap_err(), FetchError::Stopped);
}

/// A file that ends before its length says so, whatever the reason.
#[tokio::test]
async fn a_file_that_is_too_short_is_an_error() {
    let (a, b) = pair().await;
    struct Short;
    impl quorate_transport::SnapshotRead for Short {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
            Ok(if offset == 0 { buffer.len().min(10) } else { 0 })
        }
    }
    // The host's own type is fixed, so the short file is shown through a transport of its own.
    struct Liar;
    impl Handler for Liar {
        fn received(
            &self,
            _: NodeId,
            _: Lane,
            _: std::vec::Drain<'_, Bytes>,
        ) -> Option<quorate_transport::Pause> {
            None
        }
        fn peer_closed(&self, _: NodeId, _: quorate_raft::Incarnation) {}
        fn open_snapshot(
            &self,
            _: NodeId,
            _: &[u8],
        ) -> std::io::Result<Option<quorate_transport::SnapshotSource>> {
            let reader = Box::new(Short);
            Ok(Some(quorate_transport::SnapshotSource { length: 100, identity: 0, reader }))
        }
    }
    let liar = quorate_transport::Tcp::bind(identity(3), settings()).unwrap();
    liar.start(std::sync::Arc::new(Liar)).unwrap();
    liar.set_peers(&[peer(2, b.address())]);
    b.transport.set_peers(&[peer(1, a.address()), peer(3, liar.local_address())]);
    let stream = b.transport.fetch(NodeId(3), SnapshotRequest::from_start(NAME)).await;
    let mut stream = stream.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().bytes.len(), 10);
    let why = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(why, FetchError::Unreadable { .. }), "{why}");
}

#[tokio::test]
async fn so_many_at_once_and_no_more() {
    let two = Settings { snapshot_streams_max: 2, ..settings() };
    let a = Node::with(identity(1), two);
    let receivers: Vec<Node> = (2..=4).map(Node::new).collect();
    a.knows(&receivers.iter().collect::<Vec<_>>());
    for receiver in &receivers {
        receiver.knows(&[&a]);
        receiver.reaches(1).await;
    }
    let bytes = noise(50_000_000, 2);
    gives(&a, &bytes, 1);
    let begin = || SnapshotRequest::from_start(NAME);
    let first = fetch(&receivers[0], begin()).await.unwrap();
    let mut second = fetch(&receivers[1], begin()).await.unwrap();
    match fetch(&receivers[2], begin()).await {
        Err(FetchError::Busy { retry_after_ms }) => assert!(retry_after_ms > 0),
        other => panic!("{other:?}"),
    }
    assert_eq!(a.transport.metrics().snapshots_sending, 2);
    assert_eq!(a.transport.metrics().snapshots_busy, 1);
    // Who loses interest makes room.
    drop(first);
    until("room", || a.transport.metrics().snapshots_sending == 1).await;
    let mut third = fetch(&receivers[2], begin()).await.unwrap();
    let (mut got_second, mut got_third) = (Vec::new(), Vec::new());
    let (one, two) =
        tokio::join!(all(&mut second, &mut got_second), all(&mut third, &mut got_third));
    assert_eq!((one, two), (Ok(()), Ok(())));
    assert!(got_second == bytes && got_third == bytes);
    assert!(a.host.closed.lock().unwrap().is_empty(), "losing interest is not dying");
}

/// A bandwidth limit holds for all receivers together, and slow is not silent.
#[tokio::test]
async fn no_faster_than_allowed() {
    let limited = Settings { snapshot_bytes_per_second: 400_000, ..settings() };
    let a = Node::with(identity(1), limited);
    let receivers: Vec<Node> = (2..=3).map(Node::new).collect();
    a.knows(&receivers.iter().collect::<Vec<_>>());
    for receiver in &receivers {
        receiver.knows(&[&a]);
    }
    let bytes = noise(200_000, 2);
    gives(&a, &bytes, 1);
    let begin = Instant::now();
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let load = async |node: &Node, into: &mut Vec<u8>| {
        let mut stream = fetch(node, SnapshotRequest::from_start(NAME)).await.unwrap();
        all(&mut stream, into).await.unwrap();
    };
    tokio::join!(load(&receivers[0], &mut one), load(&receivers[1], &mut two));
    assert!(one == bytes && two == bytes);
    let took = begin.elapsed();
    // 400 kB at 400 kB/s; the last chunk of each is paid for by nobody.
    assert!(took >= Duration::from_millis(800), "{took:?}");
}

/// The sender is done long before the last byte has arrived, and does not hang up on it.
#[tokio::test]
async fn the_tail_arrives_through_a_slow_link() {
    let (a, b, proxy) = through_proxy(settings()).await;
    let bytes = noise(3_000_000, 2);
    gives(&a, &bytes, 1);
    proxy.rate_back.store(3_000_000, Ordering::Relaxed);
    let mut stream = fetch(&b, SnapshotRequest::from_start(NAME)).await.unwrap();
    let mut got = Vec::new();
    all(&mut stream, &mut got).await.unwrap();
    assert!(got == bytes);
}

/// The host of the receiver takes its time: nothing piles up, and nobody is taken for dead.
#[tokio::test]
async fn a_slow_receiver_holds_the_sender_up() {
    let (a, b) = pair().await;
    let bytes = noise(40_000_000, 2);
    gives(&a, &bytes, 1);
    let mut stream = fetch(&b, SnapshotRequest::from_start(NAME)).await.unwrap();
    let mut got = stream.next().await.unwrap().unwrap().bytes.to_vec();
    // Much longer than silence is suffered (4 intervals of 50 ms).
    tokio::time::sleep(Duration::from_millis(600)).await;
    let sent = a.transport.peers()[0].snapshot_bytes_sent;
    assert!(sent < 20_000_000, "{sent} bytes are on their way");
    all(&mut stream, &mut got).await.unwrap();
    assert!(got == bytes);
}

/// 64 MiB at a limited rate (2 GiB with `QUORATE_LONG=1`), and heartbeats do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_do_not_wait_behind_64_mib_of_snapshot() {
    let (length, rate): (u64, u64) = match std::env::var_os("QUORATE_LONG") {
        Some(_) => (2 << 30, 128 << 20),
        None => (64 << 20, 32 << 20),
    };
    let limited = Settings { snapshot_bytes_per_second: rate, ..settings() };
    let (a, mut b) = (Node::with(identity(1), limited), Node::new(2));
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.reaches(2).await;
    b.reaches(1).await;
    let name = Bytes::from(format!("pattern {length}"));
    let mut stream = fetch(&b, SnapshotRequest::from_start(name)).await.unwrap();
    let loading = tokio::spawn(async move {
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.unwrap();
            let mut bytes = (chunk.offset..).zip(&chunk.bytes);
            assert!(bytes.all(|(at, byte)| *byte == support::pattern(at)));
        }
        stream.position()
    });
    let (mut beats, mut slowest) = (0u32, Duration::ZERO);
    let begin = Instant::now();
    while !loading.is_finished() {
        let begin = Instant::now();
        a.transport.send(NodeId(2), Lane::Urgent, Bytes::from(beats.to_le_bytes().to_vec()));
        assert_eq!(b.next().await.2[..], beats.to_le_bytes());
        slowest = slowest.max(begin.elapsed());
        beats += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(loading.await.unwrap(), length);
    assert!(begin.elapsed().as_secs_f64() > 0.9 * length as f64 / rate as f64);
    assert!(beats >= 50, "{beats}");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
}
