//! Connections that end, fail, come back, and go elsewhere.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_raft::{Incarnation, NodeId};
use quorate_transport::{Identity, Lane, Note, Sent, Settings, StartError, Tcp, Transport};
use tokio::runtime::{Builder, Handle, Runtime};

use support::{DEADLINE, Mode, Node, Proxy, identity, pair, peer, settings, until};

const BEAT: Bytes = Bytes::from_static(b"beat");

/// A runtime of its own: dropped, it closes all sockets of its node without a word, as the
/// kernel does for a process that was killed.
fn world() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn node_in(world: &Runtime, identity: Identity) -> Node {
    let _inside = world.enter();
    Node::with(identity, settings())
}

#[tokio::test]
async fn the_death_of_a_process_is_told_once() {
    let world = world();
    let a = Node::new(1);
    let b = node_in(&world, identity(2));
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.reaches(2).await;
    b.reaches(1).await;
    let begin = Instant::now();
    world.shutdown_background();
    until("told", || !a.host.closed.lock().unwrap().is_empty()).await;
    assert!(begin.elapsed() < Duration::from_secs(1));
    until("noticed in each lane", || {
        a.transport.peers()[0].lanes.iter().all(|lane| lane.connected_since_us.is_none())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(*a.host.closed.lock().unwrap(), [(NodeId(2), Incarnation(102))]);
    assert_eq!(a.transport.metrics().peers_closed, 1);
}

/// The real thing: another process, and kill -9.
#[tokio::test]
async fn kill_9_is_told() {
    const CHILD: &str = "QUORATE_TRANSPORT_TEST_CHILD";
    if let Ok(address) = std::env::var(CHILD) {
        let b = Node::new(2);
        b.transport.set_peers(&[peer(1, address)]);
        tokio::time::sleep(Duration::from_secs(60)).await;
        return;
    }
    let a = Node::new(1);
    a.transport.set_peers(&[peer(2, "127.0.0.1:1")]);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill_9_is_told", "--test-threads=1"])
        .env(CHILD, a.address().to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let heard = || a.transport.peers()[0].lanes[0].bytes_received > 0;
    let begin = Instant::now();
    while !heard() && begin.elapsed() < DEADLINE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    until("told", || !a.host.closed.lock().unwrap().is_empty()).await;
    assert_eq!(*a.host.closed.lock().unwrap(), [(NodeId(2), Incarnation(102))]);
}

#[tokio::test]
async fn a_cut_is_noticed_and_not_told() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (to_b, to_a) = (Proxy::to(b.address()).await, Proxy::to(a.address()).await);
    a.transport.set_peers(&[peer(2, to_b.address)]);
    b.transport.set_peers(&[peer(1, to_a.address)]);
    a.reaches(2).await;
    b.reaches(1).await;
    to_a.set(Mode::Stall);
    to_b.set(Mode::Stall);
    until("noticed", || {
        [&a, &b].iter().all(|node| {
            node.transport.peers()[0].lanes.iter().all(|lane| lane.connected_since_us.is_none())
        })
    })
    .await;
    assert!(a.transport.metrics().silent > 0);
    to_a.set(Mode::Forward);
    to_b.set(Mode::Forward);
    a.reaches(2).await;
    b.reaches(1).await;
    for node in [&a, &b] {
        assert!(node.host.closed.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_shutdown_is_told_and_leaves_nothing() {
    let world = world();
    let a = Node::new(1);
    let mut b = node_in(&world, identity(2));
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.reaches(2).await;
    b.reaches(1).await;
    let before = world.metrics().num_alive_tasks();
    assert!(before >= 5, "{before}");
    // More than the kernel takes at once.
    let last = support::noise(1 << 20, 9);
    for _ in 0..24 {
        assert_eq!(b.transport.send(NodeId(1), Lane::Bulk, last.clone()), Sent::Queued);
    }
    let transport = Arc::clone(&b.transport);
    world.spawn(async move { transport.shutdown().await }).await.unwrap();
    until("no task left", || world.metrics().num_alive_tasks() == 0).await;
    until("told", || !a.host.closed.lock().unwrap().is_empty()).await;
    let mut a = a;
    for _ in 0..24 {
        assert!(a.next().await == (NodeId(2), Lane::Bulk, last.clone()));
    }
    assert_eq!(b.transport.send(NodeId(1), Lane::Urgent, BEAT), Sent::Down);
    assert!(b.host.closed.lock().unwrap().is_empty());
    b.transport.shutdown().await;
    assert!(std::net::TcpStream::connect(b.address()).is_err());
    assert!(b.frames.try_recv().is_err());
    world.shutdown_background();
}

#[tokio::test]
async fn a_restarted_peer_is_reached_again_at_once() {
    let far = world();
    // A back-off that would fail the test if nobody cut it short.
    let patient = Settings { backoff_min: DEADLINE * 2, backoff_max: DEADLINE * 2, ..settings() };
    let a = Node::with(identity(1), patient);
    let b = node_in(&far, identity(2));
    let address = b.address();
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.reaches(2).await;
    b.reaches(1).await;
    drop(b);
    far.shutdown_background();
    until("down", || a.transport.send(NodeId(2), Lane::Urgent, BEAT) == Sent::Down).await;
    let far = world();
    let again = {
        let _inside = far.enter();
        let settings = Settings { listen: address.to_string(), ..settings() };
        Node::with(Identity { boot: 5, ..identity(2) }, settings)
    };
    again.knows(&[&a]);
    a.reaches(2).await;
    let mut again = again;
    a.transport.send(NodeId(2), Lane::Urgent, BEAT);
    assert_eq!(again.next().await, (NodeId(1), Lane::Urgent, BEAT));
    assert_eq!(a.transport.peers()[0].lanes[0].connects, 2);
    far.shutdown_background();
}

#[tokio::test]
async fn attempts_back_off_and_what_is_sent_meanwhile_is_dropped() {
    // A port where nobody listens.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let slow = Settings {
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(160),
        ..settings()
    };
    let a = Node::with(identity(1), slow);
    let begin = Instant::now();
    a.transport.set_peers(&[peer(2, nobody)]);
    let failures = || a.transport.peers()[0].lanes[0].connect_failures;
    until("five attempts", || failures() >= 5).await;
    // At least 10 + 20 + 40 + 80 ms lie between them.
    assert!(begin.elapsed() >= Duration::from_millis(150));
    assert_eq!(a.transport.send(NodeId(2), Lane::Urgent, BEAT), Sent::Down);
    assert_eq!(a.transport.peers()[0].lanes[0].dropped_down, 1);
    assert!(a.last_error(2).contains(&nobody.to_string()));
}

#[tokio::test]
async fn a_new_address_is_dialled_at_once() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let patient = Settings { backoff_min: DEADLINE * 2, backoff_max: DEADLINE * 2, ..settings() };
    let a = Node::with(identity(1), patient);
    let mut b = Node::new(2);
    b.transport.set_peers(&[peer(1, nobody)]);
    a.transport.set_peers(&[peer(2, nobody)]);
    until("down", || a.transport.send(NodeId(2), Lane::Urgent, BEAT) == Sent::Down).await;
    a.knows(&[&b]);
    a.reaches(2).await;
    // Also while a connection stands; through a proxy it is the same node.
    let proxy = Proxy::to(b.address()).await;
    a.transport.set_peers(&[peer(2, proxy.address)]);
    until("moved", || a.transport.peers()[0].lanes.iter().all(|lane| lane.connects == 2)).await;
    a.reaches(2).await;
    a.transport.send(NodeId(2), Lane::Urgent, BEAT);
    assert_eq!(b.next().await.2, BEAT);
    // Of several addresses any will do.
    let second = Node::new(3);
    second.transport.set_peers(&[peer(1, nobody)]);
    let many = format!("{nobody}, {}", second.address());
    a.transport.set_peers(&[peer(2, proxy.address), peer(3, many)]);
    // The pause between them is the patient one; a node that dials cuts it short.
    until("failed", || a.transport.send(NodeId(3), Lane::Urgent, BEAT) == Sent::Down).await;
    second.transport.set_peers(&[peer(1, a.address())]);
    a.reaches(3).await;
    assert!(b.host.closed.lock().unwrap().is_empty(), "moving away is not dying");
}

#[tokio::test]
async fn who_is_no_peer_any_more_is_left_and_let_go() {
    let (a, b) = pair().await;
    a.transport.set_peers(&[]);
    // The peer keeps dialling, and learns why that is of no use.
    until("refused", || b.host.has_heard(quorate_transport::RefusalCode::UnknownNode)).await;
    until("gone", || {
        a.transport.peers().iter().all(|peer| peer.node != NodeId(2))
            || a.transport.send(NodeId(2), Lane::Urgent, BEAT) == Sent::Down
    })
    .await;
    assert!(b.last_error(1).contains("not a member"));
    for node in [&a, &b] {
        assert!(node.host.closed.lock().unwrap().is_empty(), "leaving is not dying");
    }
    a.knows(&[&b]);
    a.reaches(2).await;
    b.reaches(1).await;
    // The host was told of every turn.
    let notes = b.host.notes.lock().unwrap();
    let connects = notes
        .iter()
        .filter(|note| matches!(note, Note::Connected { lane: Lane::Urgent, .. }))
        .count();
    assert!(connects >= 2, "{notes:?}");
}

#[tokio::test]
async fn an_address_in_use_is_an_error_and_starting_twice_too() {
    let a = Node::new(1);
    let taken = Settings::new(a.address().to_string());
    match Tcp::bind(identity(2), taken) {
        Err(StartError::Listen { address, .. }) => assert_eq!(address, a.address().to_string()),
        other => panic!("{:?}", other.map(|_| ())),
    }
    let again = a.transport.start(Arc::clone(&a.host) as Arc<dyn quorate_transport::Handler>);
    assert!(matches!(again, Err(StartError::AlreadyStarted)));
    assert!(Handle::try_current().is_ok());
    let unstarted = Tcp::bind(identity(3), settings()).unwrap();
    assert_eq!(unstarted.send(NodeId(1), Lane::Bulk, BEAT), Sent::Stopped);
    unstarted.shutdown().await;
    let start = unstarted.start(Arc::clone(&a.host) as Arc<dyn quorate_transport::Handler>);
    assert!(matches!(start, Err(StartError::AlreadyStarted)));
}
