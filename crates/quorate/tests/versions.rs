//! Software of different ages in one cluster: what cannot work together says so.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use quorate::{
    ChangeStep, Codec, CodecError, Index, Node, NodeId, Snapshot, StateMachine, StopReason,
};
use support::store::{Put, Store};
use support::{Scratch, addresses, hears, leader, stop_all, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn start(
    id: u64,
    scratch: &Scratch,
    members: &[(u64, String)],
    feature_level: u32,
) -> Result<Node<Store>, quorate::StartError> {
    Node::builder(id, Store::default())
        .data_dir(scratch.of(id))
        .members(members.to_vec())
        .tune(|tuning| {
            tuning.core.feature_level = feature_level;
            tuning.segment_bytes = 1 << 20;
        })
        .start()
        .await
}

async fn put(nodes: &[&Node<Store>], value: u64) {
    let put = Put { key: 0, value };
    until("it is written", async || leader(nodes).await.propose(put).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feature_level_is_for_all_and_there_is_no_way_back() {
    let (scratch, members) = (Scratch::new(), addresses(3));
    let mut nodes = Vec::new();
    // The third one is not upgraded yet.
    for (id, level) in [(1, 1), (2, 1), (3, 0)] {
        nodes.push(start(id, &scratch, &members, level).await.unwrap());
    }
    let all: Vec<_> = nodes.iter().collect();
    let raise = || ChangeStep::SetFeatureLevel { level: 1 }.into();
    until("one of the new ones leads", async || {
        let old = leader(&all).await;
        old.id().0 != 3 || old.transfer(1).await.is_ok()
    })
    .await;
    put(&all, 1).await;
    let mut why = String::new();
    until("it is refused for that reason", async || {
        match leader(&all).await.change(raise()).await {
            Ok(_) => panic!("raised beyond what a member supports"),
            Err(refused) => why = refused.to_string(),
        }
        why.contains("n3 ") && why.contains('0')
    })
    .await;

    // It is upgraded, the level is raised, and then somebody starts the old software again.
    nodes.pop().unwrap().stop().await;
    let third = start(3, &scratch, &members, 1).await.unwrap();
    let all = [&nodes[0], &nodes[1], &third];
    until("the level is raised", async || leader(&all).await.change(raise()).await.is_ok()).await;
    until("it knows", async || third.membership().feature_level() == 1).await;
    third.stop().await;
    let why = start(3, &scratch, &members, 0).await.unwrap_err().to_string();
    assert_eq!(why, "the cluster requires feature level 1, this software supports 0");
    let two: Vec<_> = nodes.iter().collect();
    put(&two, 2).await;
    let third = start(3, &scratch, &members, 1).await.unwrap();
    assert_eq!(third.read(|store| store.get(0)).await.unwrap(), Some(2));
    nodes.push(third);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_node_that_returns_after_the_feature_level_was_raised_is_told_to_upgrade() {
    let (scratch, members) = (Scratch::new(), addresses(3));
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(id, &scratch, &members, 1).await.unwrap());
    }
    put(&nodes.iter().collect::<Vec<_>>(), 1).await;
    until("the third one has it", async || {
        nodes[2].read(|store| store.get(0)).await == Ok(Some(1))
    })
    .await;
    until("the leader knows what all support", async || {
        let all: Vec<_> = nodes.iter().collect();
        let peers = leader(&all).await.status().await.unwrap().peers;
        !peers.is_empty() && peers.iter().all(|peer| peer.feature_level == Some(1))
    })
    .await;
    let all: Vec<_> = nodes.iter().collect();
    until("another one leads", async || {
        let old = leader(&all).await;
        old.id().0 != 3 || old.transfer(1).await.is_ok()
    })
    .await;
    until("the new leader knows, too", async || {
        let peers = leader(&all).await.status().await.unwrap().peers;
        !peers.is_empty() && peers.iter().all(|peer| peer.feature_level == Some(1))
    })
    .await;
    // It goes, and what comes back is older.
    nodes.pop().unwrap().stop().await;
    let two: Vec<_> = nodes.iter().collect();
    let raise = || ChangeStep::SetFeatureLevel { level: 1 }.into();
    leader(&two).await.change(raise()).await.unwrap();
    for value in 2..10 {
        put(&two, value).await;
    }
    let term = leader(&two).await.leader().1;
    let third = start(3, &scratch, &members, 0).await.unwrap();
    let mut events = third.events();
    for _ in 0..3 {
        hears(&mut events, "requires feature level 1, this software supports 0; upgrade it").await;
    }
    assert!(third.membership().feature_level() == 0, "it took nothing of it");
    let (seen, _) =
        third.read_with(quorate::Consistency::Local, |store| store.get(0)).await.unwrap();
    assert!(seen.is_none_or(|seen| seen == 1));
    assert_eq!(leader(&two).await.leader().1, term, "and disturbs nobody");
    third.stop().await;
    let third = start(3, &scratch, &members, 1).await.unwrap();
    assert_eq!(third.read(|store| store.get(0)).await.unwrap(), Some(9));
    nodes.push(third);
    stop_all(nodes).await;
}

/// A command that only software of its generation, and later, understands.
struct Command<const GENERATION: u8>(u8);

impl<const GENERATION: u8> Codec for Command<GENERATION> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.0);
    }

    fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        match **bytes {
            [generation] if generation <= GENERATION => Ok(Self(generation)),
            _ => Err(CodecError::new("is of a later generation")),
        }
    }
}

#[derive(Default)]
struct Machine<const GENERATION: u8>(u64);

impl<const GENERATION: u8> StateMachine for Machine<GENERATION> {
    type Command = Command<GENERATION>;
    type Reply = u64;

    fn apply(&mut self, commands: Vec<Command<GENERATION>>) -> Vec<u64> {
        let count = |_| {
            self.0 += 1;
            self.0
        };
        commands.into_iter().map(count).collect()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0)
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        self.0 = quorate::read_snapshot(snapshot)?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_older_software_does_not_understand_stops_it_until_it_is_upgraded() {
    let (scratch, members) = (Scratch::new(), addresses(3));
    async fn start<const GENERATION: u8>(
        id: u64,
        scratch: &Scratch,
        members: &[(u64, String)],
    ) -> Node<Machine<GENERATION>> {
        Node::builder(id, Machine::<GENERATION>::default())
            .data_dir(scratch.of(id))
            .members(members.to_vec())
            .start()
            .await
            .unwrap()
    }
    let new = [start::<2>(1, &scratch, &members).await, start::<2>(2, &scratch, &members).await];
    let old = start::<1>(3, &scratch, &members).await;
    until("they begin", async || new[0].propose(Command(1)).await.is_ok()).await;
    // It may be the one that leads; then the outcome is unknown to whoever sent it there.
    let _ = new[0].propose(Command(2)).await;
    let why = old.stopped().await;
    let StopReason::Undecodable { index, .. } = &why else { panic!("{why}") };
    assert!(*index > Index(1));
    assert!(
        why.to_string().contains("of a later generation; another version of the program wrote it"),
        "{why}"
    );
    // Until that has shown, a command may still be sent to one that is gone.
    let session = new[1].session().await.unwrap();
    session.propose(Command(1)).await.expect("the others go on");
    drop(old);
    let upgraded = start::<2>(3, &scratch, &members).await;
    let count = new[0].read(|machine| machine.0).await.unwrap();
    assert_eq!(upgraded.read(|machine| machine.0).await.unwrap(), count);
    stop_all(new.into_iter().chain([upgraded])).await;
}

/// Says hello for somebody else, in a version of the protocol that is to come; otherwise passes on
/// what it hears.
async fn from_the_future(listener: TcpListener, target: String) {
    const HEAD_BYTES: usize = 16;
    while let Ok((mut dialler, _)) = listener.accept().await {
        let Ok(mut target) = TcpStream::connect(&target).await else { continue };
        tokio::spawn(async move {
            let mut head = [0; HEAD_BYTES];
            dialler.read_exact(&mut head).await?;
            let mut body = vec![0; usize::from(u16::from_le_bytes([head[10], head[11]]))];
            dialler.read_exact(&mut body).await?;
            body[..4].copy_from_slice(&[9, 0, 10, 0]);
            let covered: Vec<u8> = head[8..12].iter().chain(&body).copied().collect();
            head[12..].copy_from_slice(&quorate_raft::crc32c(&covered).to_le_bytes());
            target.write_all(&head).await?;
            target.write_all(&body).await?;
            tokio::io::copy_bidirectional(&mut dialler, &mut target).await.map(drop)
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_of_the_protocol_is_refused_with_a_reason() {
    let listen = addresses(2);
    let mut members = Vec::new();
    for (id, target) in listen.clone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        members.push((id, listener.local_addr().unwrap().to_string()));
        tokio::spawn(from_the_future(listener, target));
    }
    let mut nodes = Vec::new();
    for (id, listen) in listen {
        let node = Node::builder(id, Store::default())
            .in_memory()
            .members(members.clone())
            .listen(listen)
            .tune(|tuning| tuning.leader_wait = Duration::from_millis(100))
            .start()
            .await
            .unwrap();
        nodes.push(node);
    }
    let reason = "protocol versions do not meet: this node speaks 1, you speak 9 to 10; upgrade";
    for node in &nodes {
        let mut events = node.events();
        let (refused, by) = (node.events(), node.id());
        let other = NodeId(3 - by.0);
        let said = hears(&mut events, "refused by").await;
        assert!(said.contains(reason), "{said}");
        let mut refused = refused;
        let said = hears(&mut refused, &format!("refused node {other}")).await;
        assert!(said.contains(reason), "{said}");
        assert!(node.read(|_| ()).await.is_err(), "alone it has no majority");
    }
    stop_all(nodes).await;
}
