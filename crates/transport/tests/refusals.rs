//! Who is not let in, and what both sides are told.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use quorate_raft::{ClusterId, Incarnation, NodeId};
use quorate_transport::{Identity, Lane, Note, Peer, RefusalCode, Settings, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use support::{DEADLINE, Host, Node, Proxy, identity, pair, peer, settings, until};

const MAGIC: [u8; 8] = *b"\x89QRM\r\n\x1a\n";

/// A message of the handshake, by hand.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut head = vec![kind, 0];
    head.put_u16_le(body.len() as u16);
    let covered: Vec<u8> = head.iter().chain(body).copied().collect();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&head);
    bytes.put_u32_le(quorate_raft::crc32c(&covered));
    bytes.extend_from_slice(body);
    bytes
}

/// An introduction of node `from` to node 1, by hand.
fn hello(versions: (u16, u16), purpose: u8, from: u64) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u16_le(versions.0);
    body.put_u16_le(versions.1);
    body.extend_from_slice(&[purpose, 0, 0, 0]);
    let id = identity(from);
    for number in [id.cluster.0, id.node.0, id.incarnation.0, id.boot, 1, 0] {
        body.put_u64_le(number);
    }
    message(1, &body)
}

/// A frame, by hand.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut covered = Vec::new();
    covered.put_u32_le(payload.len() as u32);
    covered.extend_from_slice(&[kind, 0, 0, 0]);
    covered.extend_from_slice(payload);
    let mut bytes = quorate_raft::crc32c(&covered).to_le_bytes().to_vec();
    bytes.extend_from_slice(&covered);
    bytes
}

/// All that comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    // A reset is a way of closing.
    let _ = tokio::time::timeout(DEADLINE, read).await.expect("closed in time");
    bytes
}

fn text(host: &Host, code: RefusalCode) -> String {
    let (spoken, heard) = host.refusals();
    let all = spoken.into_iter().chain(heard);
    all.filter(|refusal| refusal.code == code).map(|refusal| refusal.text).next().unwrap()
}

async fn both_know(refusing: &Node, refused: &Node, code: RefusalCode) -> String {
    until("spoken", || refusing.host.has_spoken(code)).await;
    until("heard", || refused.host.has_heard(code)).await;
    assert!(refusing.transport.metrics().refused > 0);
    assert!(refused.transport.metrics().refused_by_others > 0);
    text(&refused.host, code)
}

#[tokio::test]
async fn a_node_of_another_cluster() {
    let a = Node::new(1);
    let b = Node::with(Identity { cluster: ClusterId(8), ..identity(2) }, settings());
    a.transport.set_peers(&[]);
    b.knows(&[&a]);
    let text = both_know(&a, &b, RefusalCode::WrongCluster).await;
    assert!(text.contains("cluster 7,") && text.contains("you to 8;"), "{text}");
    assert!(b.last_error(1).contains("address"), "{}", b.last_error(1));
}

/// Two that were told of different founders; who does not know them is no enemy of either.
#[tokio::test]
async fn other_founders() {
    let founded = |id, founders: &[u64]| {
        let founders = founders.iter().copied().map(NodeId).collect();
        Node::with(Identity { founders, ..identity(id) }, settings())
    };
    let (a, b) = (founded(1, &[1, 2, 3]), founded(2, &[1, 2, 4]));
    a.knows(&[&b]);
    b.knows(&[&a]);
    let text = both_know(&a, &b, RefusalCode::OtherFounders).await;
    assert!(text.contains("1 2 3") && text.contains("1 2 4"), "{text}");
    assert!(!a.connected(2) && !b.connected(1));
    let c = Node::new(3);
    c.knows(&[&a, &b]);
    a.knows(&[&b, &c]);
    b.knows(&[&a, &c]);
    c.reaches(1).await;
    c.reaches(2).await;
    a.reaches(3).await;
}

#[tokio::test]
async fn nobody_at_the_address() {
    let a = Node::new(1);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    a.transport.set_peers(&[peer(2, nobody)]);
    let told = |note: &Note| match note {
        Note::Unreachable { peer, address, why } => {
            *peer == NodeId(2) && *address == nobody.to_string() && why.contains("refused")
        }
        _ => false,
    };
    until("told", || a.host.notes.lock().unwrap().iter().any(told)).await;
}

#[tokio::test]
async fn an_address_of_another_node() {
    let (a, b) = (Node::new(1), Node::new(2));
    b.transport.set_peers(&[peer(3, a.address())]);
    let text = both_know(&a, &b, RefusalCode::WrongNode).await;
    assert!(text.contains("node 1 is at this address, not node 3"), "{text}");
}

#[tokio::test]
async fn a_stranger_unless_the_host_admits_it() {
    let (mut a, b) = (Node::new(1), Node::new(2));
    b.knows(&[&a]);
    let text = both_know(&a, &b, RefusalCode::UnknownNode).await;
    assert!(text.contains("add it to the membership"), "{text}");
    a.host.admits.store(true, Ordering::Relaxed);
    b.reaches(1).await;
    let frame = Bytes::from_static(b"may I join?");
    b.transport.send(NodeId(1), Lane::Urgent, frame.clone());
    assert_eq!(a.next().await, (NodeId(2), Lane::Urgent, frame));
    // When the host thinks better of it, the connection goes.
    a.host.admits.store(false, Ordering::Relaxed);
    a.transport.set_peers(&[peer(3, "127.0.0.1:1")]);
    a.knows(&[&b]);
    a.transport.set_peers(&[]);
    until("let go", || !b.connected(1)).await;
}

/// A node whose disk was wiped comes back under its old id: whoever dials, both hear what to do.
#[tokio::test]
async fn a_wiped_node_that_dials() {
    let a = Node::new(1);
    let wiped = Node::with(Identity { incarnation: Incarnation(999), ..identity(2) }, settings());
    let bound = Peer { incarnation: Some(Incarnation(102)), ..peer(2, "127.0.0.1:1") };
    a.transport.set_peers(&[bound]);
    wiped.knows(&[&a]);
    let text = both_know(&a, &wiped, RefusalCode::WrongIncarnation).await;
    assert!(text.contains("remove it and add it under a new id"), "{text}");
    assert!(wiped.host.closed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_wiped_node_that_is_dialled() {
    let a = Node::new(1);
    let wiped = Node::with(Identity { incarnation: Incarnation(999), ..identity(2) }, settings());
    wiped.transport.set_peers(&[peer(1, "127.0.0.1:1")]);
    let bound = Peer { incarnation: Some(Incarnation(102)), ..peer(2, wiped.address()) };
    a.transport.set_peers(&[bound]);
    let text = both_know(&a, &wiped, RefusalCode::WrongIncarnation).await;
    assert!(text.contains("remove it and add it under a new id"), "{text}");
    let dropped = || a.transport.send(NodeId(2), Lane::Urgent, Bytes::new());
    until("down", || dropped() == quorate_transport::Sent::Down).await;
    assert_eq!(wiped.transport.peers()[0].lanes[0].frames_received, 0);
    assert!(wiped.host.closed.lock().unwrap().is_empty());
}

/// The cluster binds an incarnation while the connection of another one stands.
#[tokio::test]
async fn a_connection_that_is_found_to_be_wrong() {
    let (a, b) = pair().await;
    let bound = Peer { incarnation: Some(Incarnation(5)), ..peer(2, b.address()) };
    a.transport.set_peers(&[bound]);
    both_know(&a, &b, RefusalCode::WrongIncarnation).await;
    until("apart", || !a.connected(2) && !b.connected(1)).await;
    for node in [&a, &b] {
        assert!(node.host.closed.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn two_processes_with_one_id() {
    let (a, b) = pair().await;
    let twin = Node::with(Identity { boot: 77, ..identity(2) }, settings());
    twin.knows(&[&a]);
    let text = both_know(&a, &twin, RefusalCode::DuplicateNode).await;
    assert!(text.contains("stop one of the two"), "{text}");
    // The first stays.
    a.transport.send(NodeId(2), Lane::Urgent, Bytes::from_static(b"still you?"));
    let mut b = b;
    assert_eq!(b.next().await.2, Bytes::from_static(b"still you?"));
    assert_eq!(a.transport.peers()[0].lanes[0].connects, 1);
    assert!(a.host.closed.lock().unwrap().is_empty());
    // Once the first is gone, there is no twin.
    b.transport.shutdown().await;
    twin.reaches(1).await;
    assert_eq!(*a.host.closed.lock().unwrap(), [(NodeId(2), Incarnation(102))]);
}

#[tokio::test]
async fn the_twin_that_is_dialled() {
    let (a, b) = pair().await;
    let twin = Node::with(Identity { boot: 77, ..identity(2) }, settings());
    twin.transport.set_peers(&[peer(1, "127.0.0.1:1")]);
    a.transport.set_peers(&[peer(2, twin.address())]);
    let text = both_know(&a, &twin, RefusalCode::DuplicateNode).await;
    assert!(text.contains("another process runs as node 2"), "{text}");
    assert!(b.connected(1));
}

#[tokio::test]
async fn a_node_that_meets_itself() {
    let (a, twin) = (Node::new(1), Node::with(Identity { boot: 5, ..identity(1) }, settings()));
    // It has another node's address for its own id's twin; by hand, since no host would set it.
    let mut stream = TcpStream::connect(a.address()).await.unwrap();
    stream.write_all(&hello((1, 1), 1, 1)).await.unwrap();
    let answer = rest(&mut stream).await;
    assert_eq!(answer[8], 3);
    assert!(String::from_utf8_lossy(&answer).contains("another process runs as node 1"));
    assert!(a.host.has_spoken(RefusalCode::DuplicateNode));
    drop(twin);
}

#[tokio::test]
async fn another_protocol_version_names_both() {
    let a = Node::new(1);
    a.transport.set_peers(&[peer(2, "127.0.0.1:1")]);
    let mut stream = TcpStream::connect(a.address()).await.unwrap();
    stream.write_all(&hello((3, 5), 1, 2)).await.unwrap();
    let answer = rest(&mut stream).await;
    let words = String::from_utf8_lossy(&answer).into_owned();
    assert!(words.contains("this node speaks 1, you speak 3 to 5"), "{words}");
    assert_eq!(answer[8], 3);
    assert_eq!(answer[16..22], [1, 0, 1, 0, 1, 0]);
    assert!(a.host.has_spoken(RefusalCode::Version));
}

#[tokio::test]
async fn a_refusal_of_a_later_version_is_passed_on() {
    let future = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let a = Node::new(1);
    a.transport.set_peers(&[peer(2, future.local_addr().unwrap())]);
    let (mut stream, _) = future.accept().await.unwrap();
    let mut body = vec![200, 1, 3, 0, 5, 0, 9, 0];
    body.extend_from_slice(b"too old!!");
    stream.write_all(&message(3, &body)).await.unwrap();
    until("heard", || a.host.has_heard(RefusalCode::Other(456))).await;
    until("shown", || a.last_error(2) == "too old!!").await;
}

#[tokio::test]
async fn an_unknown_purpose_is_refused_in_words() {
    let a = Node::new(1);
    a.transport.set_peers(&[peer(2, "127.0.0.1:1")]);
    let mut stream = TcpStream::connect(a.address()).await.unwrap();
    stream.write_all(&hello((1, 1), 9, 2)).await.unwrap();
    assert!(String::from_utf8_lossy(&rest(&mut stream).await).contains("unknown purpose"));
}

#[tokio::test]
async fn garbage_is_closed_quietly_and_counted() {
    let quick = Settings { dial_timeout: Duration::from_millis(300), ..settings() };
    let a = Node::with(identity(1), quick);
    let long = support::noise(100_000, 3);
    let mut damaged = hello((1, 1), 1, 2);
    damaged[20] ^= 1;
    let mut long_body = MAGIC.to_vec();
    long_body.extend_from_slice(&[1, 0, 255, 255, 0, 0, 0, 0]);
    let cases: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0],
        &long,
        &damaged,
        &long_body,
        &hello((1, 1), 1, 2)[..30],
    ];
    for (i, case) in cases.iter().enumerate() {
        let mut stream = TcpStream::connect(a.address()).await.unwrap();
        let _ = stream.write_all(case).await;
        assert_eq!(rest(&mut stream).await, [], "case {i}");
        until("counted", || a.transport.metrics().not_ours == i as u64 + 1).await;
    }
    // Nothing said at all; and gone before anything was said.
    let mut stream = TcpStream::connect(a.address()).await.unwrap();
    assert_eq!(rest(&mut stream).await, []);
    drop(TcpStream::connect(a.address()).await.unwrap());
    until("counted", || a.transport.metrics().not_ours == cases.len() as u64 + 2).await;
    assert!(a.host.notes.lock().unwrap().is_empty());
    assert!(a.host.closed.lock().unwrap().is_empty());
    assert!(a.transport.peers().is_empty());
}

#[tokio::test]
async fn who_hesitates_in_numbers_does_not_keep_others_out_for_ever() {
    let few =
        Settings { handshakes_max: 3, dial_timeout: Duration::from_millis(500), ..settings() };
    let (a, b) = (Node::with(identity(1), few), Node::new(2));
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(TcpStream::connect(a.address()).await.unwrap());
    }
    until("over the limit", || a.transport.metrics().over_limit == 7).await;
    a.knows(&[&b]);
    b.knows(&[&a]);
    b.reaches(1).await;
}

/// After a good handshake: each kind of bad frame costs the connection and nothing more.
#[tokio::test]
async fn bad_frames_end_their_connection() {
    let small = Settings { frame_bytes_max: 1 << 20, ..settings() };
    let mut a = Node::with(identity(1), small);
    a.transport.set_peers(&[peer(2, "127.0.0.1:1")]);
    let mut flipped = frame(1, b"hello");
    flipped[14] ^= 1;
    let mut long = Vec::new();
    long.put_u32_le(0);
    long.put_u32_le((1 << 20) + 1);
    long.put_u32_le(1);
    let bad = [flipped, long, frame(99, b""), frame(4, b"")];
    for (i, bad) in bad.iter().enumerate() {
        let mut stream = TcpStream::connect(a.address()).await.unwrap();
        stream.write_all(&hello((1, 1), 2, 2)).await.unwrap();
        let mut welcome = [0; 72];
        stream.read_exact(&mut welcome).await.unwrap();
        assert_eq!(welcome[8], 2);
        let good = frame(1, &[i as u8]);
        stream.write_all(&[&good[..], bad, &good[..]].concat()).await.unwrap();
        // What came before the bad one counts; what came behind it does not.
        assert_eq!(a.next().await, (NodeId(2), Lane::Bulk, Bytes::from(vec![i as u8])));
        rest(&mut stream).await;
        until("counted", || a.transport.metrics().bad_frames == i as u64 + 1).await;
    }
    assert!(a.frames.try_recv().is_err());
    assert!(a.host.closed.lock().unwrap().is_empty());
}

/// A frame that is cut off by the end of the connection is not delivered, and that end counts as
/// one of a process.
#[tokio::test]
async fn a_truncated_frame_is_not_delivered() {
    let mut a = Node::new(1);
    a.transport.set_peers(&[peer(2, "127.0.0.1:1")]);
    let mut stream = TcpStream::connect(a.address()).await.unwrap();
    stream.write_all(&hello((1, 1), 1, 2)).await.unwrap();
    let whole = frame(1, b"whole");
    stream.write_all(&[&whole[..], &whole[..whole.len() - 1]].concat()).await.unwrap();
    assert_eq!(a.next().await.2, Bytes::from_static(b"whole"));
    drop(stream);
    until("told", || !a.host.closed.lock().unwrap().is_empty()).await;
    assert!(a.frames.try_recv().is_err());
}

/// Who hangs up before the handshake is known to be complete was never there.
#[tokio::test]
async fn an_attempt_that_is_given_up_is_not_a_death() {
    let a = Node::new(1);
    a.transport.set_peers(&[peer(2, "127.0.0.1:1")]);
    for _ in 0..20 {
        let mut stream = TcpStream::connect(a.address()).await.unwrap();
        stream.write_all(&hello((1, 1), 1, 2)).await.unwrap();
        let mut some = [0; 8];
        stream.read_exact(&mut some).await.unwrap();
    }
    // A later connection of the same life is there, so those before are over.
    let b = Node::new(2);
    b.knows(&[&a]);
    b.reaches(1).await;
    assert!(a.host.closed.lock().unwrap().is_empty());
}

/// Something at the address that is no node: no harm, and words for the operator.
#[tokio::test]
async fn what_answers_is_not_a_node() {
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = web.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = web.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let a = Node::new(1);
    a.transport.set_peers(&[peer(2, address)]);
    until("said", || a.last_error(2).contains("not a node of Quorate")).await;
    // A port that accepts and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let quick = Settings { dial_timeout: Duration::from_millis(100), ..settings() };
    let c = Node::with(identity(3), quick);
    let begin = Instant::now();
    c.transport.set_peers(&[peer(2, mute.local_addr().unwrap())]);
    until("said", || c.last_error(2).contains("no answer in time")).await;
    assert!(begin.elapsed() >= Duration::from_millis(100));
    assert!(
        c.host.notes.lock().unwrap().iter().all(|note| !matches!(note, Note::Connected { .. }))
    );
}

/// A process that has vanished without a word makes way for its successor, once it was silent
/// long enough not to be taken for a twin.
#[tokio::test]
async fn a_ghost_makes_way() {
    let a = Node::new(1);
    let world = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let world = world.unwrap();
    let proxy = Proxy::to(a.address()).await;
    let b = {
        let _inside = world.enter();
        Node::new(2)
    };
    a.transport.set_peers(&[peer(2, "127.0.0.1:1")]);
    b.transport.set_peers(&[peer(1, proxy.address)]);
    b.reaches(1).await;
    // The proxy keeps the connection, as a lost machine does.
    proxy.set(support::Mode::Stall);
    drop(b);
    world.shutdown_background();
    let again = Node::with(Identity { boot: 9, ..identity(2) }, settings());
    again.knows(&[&a]);
    again.reaches(1).await;
}

/// A peer that connects anew has given up what stood before, even if this side has not noticed.
#[tokio::test]
async fn a_newer_connection_takes_the_place_of_the_older() {
    let mut a = Node::new(1);
    a.transport.set_peers(&[peer(2, "127.0.0.1:1")]);
    let mut streams = Vec::new();
    for count in 0..3u8 {
        let mut stream = TcpStream::connect(a.address()).await.unwrap();
        stream.write_all(&hello((1, 1), 2, 2)).await.unwrap();
        stream.write_all(&frame(1, &[count])).await.unwrap();
        assert_eq!(a.next().await.2[..], [count]);
        streams.push(stream);
    }
    let goodbye = frame(4, &[2, 0]);
    for mut stream in streams.drain(..2) {
        let bytes = rest(&mut stream).await;
        assert!(bytes.ends_with(&goodbye), "{bytes:?}");
    }
    streams[0].write_all(&frame(1, b"still here")).await.unwrap();
    assert_eq!(a.next().await.2, Bytes::from_static(b"still here"));
    assert!(a.host.closed.lock().unwrap().is_empty());
}
