//! Frames between two nodes over real sockets: order, size, bounds, lanes.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_raft::{Incarnation, NodeId};
use quorate_transport::{Lane, Sent, Settings, Transport};

use support::{DEADLINE, Node, Proxy, identity, noise, pair, peer, settings, until};

/// Waits for a place in the queue.
async fn push(from: &Node, to: u64, lane: Lane, frame: &Bytes) {
    let begin = Instant::now();
    while from.transport.send(NodeId(to), lane, frame.clone()) != Sent::Queued {
        assert!(begin.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_frames_in_order_in_each_lane() {
    const COUNT: u32 = 20_000;
    let (a, mut b) = pair().await;
    let sender = async {
        for i in 0..COUNT {
            for (lane, size) in [(Lane::Urgent, i % 150), (Lane::Bulk, (i * 37) % 9000)] {
                let mut frame = i.to_le_bytes().to_vec();
                frame.resize(4 + size as usize, i as u8);
                push(&a, 2, lane, &Bytes::from(frame)).await;
            }
        }
    };
    let receiver = async {
        let mut next = [0u32; 2];
        while next != [COUNT; 2] {
            let (from, lane, frame) = b.next().await;
            assert_eq!(from, NodeId(1));
            let (slot, size) = match lane {
                Lane::Urgent => (0, next[0] % 150),
                Lane::Bulk => (1, (next[1] * 37) % 9000),
            };
            assert_eq!(frame[..4], next[slot].to_le_bytes());
            assert_eq!(frame.len(), 4 + size as usize);
            assert!(frame[4..].iter().all(|byte| *byte == next[slot] as u8));
            next[slot] += 1;
        }
    };
    tokio::join!(sender, receiver);
    let status = &a.transport.peers()[0];
    until("counted", || a.transport.peers()[0].lanes[0].frames_sent == u64::from(COUNT)).await;
    assert_eq!(status.incarnation, Some(Incarnation(102)));
    assert_eq!(status.features, 2);
    assert_eq!(status.last_error, "");
    assert!(status.lanes[1].writes < status.lanes[1].frames_sent);
    until("a round trip", || a.transport.peers()[0].round_trip_us.is_some()).await;
    let received = &b.transport.peers()[0].lanes;
    assert_eq!(received[0].frames_received, u64::from(COUNT));
    assert!(received[0].bytes_received >= a.transport.peers()[0].lanes[0].frames_sent * 12);
}

#[tokio::test]
async fn long_frames_and_empty_ones_arrive_whole() {
    let (a, mut b) = pair().await;
    for len in [0, 1, 4096, 4097, 65_536, 1 << 20, 20 << 20, 0, 77] {
        let frame = noise(len, len as u64);
        push(&a, 2, Lane::Bulk, &frame).await;
        assert!(b.next().await.2 == frame, "{len} bytes");
    }
}

#[tokio::test]
async fn what_is_too_long_is_not_sent() {
    let settings = Settings { frame_bytes_max: 1000, ..settings() };
    let (a, mut b) = (Node::with(identity(1), settings.clone()), Node::with(identity(2), settings));
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.reaches(2).await;
    let send = |len| a.transport.send(NodeId(2), Lane::Bulk, noise(len, 1));
    assert_eq!(send(1001), Sent::TooLarge);
    assert_eq!(send(1000), Sent::Queued);
    assert_eq!(b.next().await.2, noise(1000, 1));
    assert_eq!(a.transport.metrics().dropped_too_large, 1);
    assert_eq!(a.transport.send(NodeId(9), Lane::Bulk, noise(1, 1)), Sent::Unknown);
    assert_eq!(a.transport.send(NodeId(1), Lane::Bulk, noise(1, 1)), Sent::Unknown);
}

/// The bulk lane is hopelessly behind, and heartbeats pass it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urgent_does_not_wait_behind_64_mib_of_bulk() {
    let roomy = Settings { queue_bytes_max: 65 << 20, ..settings() };
    let (a, mut b) = (Node::with(identity(1), roomy), Node::new(2));
    let proxy = Proxy::to(b.address()).await;
    a.transport.set_peers(&[peer(2, proxy.address)]);
    b.knows(&[&a]);
    a.reaches(2).await;
    proxy.rate.store(2 << 20, Ordering::Relaxed);
    let block = noise(1 << 20, 5);
    for _ in 0..64 {
        assert_eq!(a.transport.send(NodeId(2), Lane::Bulk, block.clone()), Sent::Queued);
    }
    let mut slowest = Duration::ZERO;
    for beat in 0..100u32 {
        let begin = Instant::now();
        a.transport.send(NodeId(2), Lane::Urgent, Bytes::from(beat.to_le_bytes().to_vec()));
        loop {
            let (_, lane, frame) = b.next().await;
            if lane == Lane::Urgent {
                assert_eq!(frame[..], beat.to_le_bytes());
                break;
            }
        }
        slowest = slowest.max(begin.elapsed());
    }
    let bulk = a.transport.peers()[0].lanes[1];
    assert!(bulk.queued_bytes > 32 << 20, "the proxy was too fast to prove anything");
    // At its rate the bulk lane needs half a minute.
    assert!(slowest < Duration::from_secs(1), "a heartbeat took {slowest:?}");
    assert!(a.connected(2), "a slow link is not a dead one");
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let tight = Settings { queue_frames_max: 10, queue_bytes_max: 1 << 20, ..settings() };
    let (a, b) = (Node::with(identity(1), tight), Node::new(2));
    let proxy = Proxy::to(b.address()).await;
    a.transport.set_peers(&[peer(2, proxy.address)]);
    b.knows(&[&a]);
    a.reaches(2).await;
    proxy.set(support::Mode::Stall);
    let block = noise(200_000, 1);
    let mut queued = 0;
    // What the kernel and a batch hold comes on top of the queue.
    while a.transport.send(NodeId(2), Lane::Bulk, block.clone()) == Sent::Queued {
        queued += 1;
        assert!(queued < 1000, "no bound");
        tokio::task::yield_now().await;
    }
    let lane = a.transport.peers()[0].lanes[1];
    assert_eq!(lane.dropped_full, 1);
    assert!(lane.queued_frames <= 10 && lane.queued_bytes <= (1 << 20) + 200_000);
}

/// A host that takes nothing more of the bulk lane stops the sender, not itself.
#[tokio::test]
async fn a_slow_host_holds_up_bulk_and_hears_heartbeats() {
    let tight = Settings { queue_bytes_max: 4 << 20, ..settings() };
    let (a, mut b) = (Node::with(identity(1), tight), Node::new(2));
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.reaches(2).await;
    b.host.slow.send_replace(true);
    let block = noise(100_000, 1);
    let mut queued = 0u64;
    let mut full = 0;
    // Full for a while, not only for a moment.
    while full < 50 {
        if a.transport.send(NodeId(2), Lane::Bulk, block.clone()) == Sent::Queued {
            queued += 1;
            full = 0;
        } else {
            full += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(queued < 2000, "nothing holds the sender up");
    }
    assert!(b.transport.peers()[0].lanes[1].frames_received <= 2);
    // Much longer than silence is suffered.
    for _ in 0..10 {
        a.transport.send(NodeId(2), Lane::Urgent, Bytes::from_static(b"beat"));
        while b.next().await.1 != Lane::Urgent {}
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(a.connected(2), "a slow host is not a dead one");
    assert_eq!(a.transport.peers()[0].lanes[1].connects, 1);
    b.host.slow.send_replace(false);
    let all = || b.transport.peers()[0].lanes[1].frames_received == queued;
    until("all has arrived", all).await;
    assert_eq!(a.transport.peers()[0].lanes[1].dropped_down, 0);
}

/// TCP keeps the promises that every transport makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite() {
    quorate_transport::suite::check(|identity| {
        let tcp = quorate_transport::Tcp::bind(identity, settings()).unwrap();
        let address = tcp.local_address().to_string();
        (std::sync::Arc::new(tcp) as std::sync::Arc<dyn Transport>, address)
    })
    .await;
}
