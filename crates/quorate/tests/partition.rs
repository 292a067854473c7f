//! Five nodes over real sockets, whose connections go through proxies that can be cut.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate::{Handle, Node, RoleName};
use support::proxy::Mesh;
use support::store::{KEYS, Recorder, Store};
use support::{leader, stop_all, until};
use tokio::task::JoinHandle;

/// What a client does between its requests.
const PAUSE: Duration = Duration::from_millis(1);

struct Cluster {
    mesh: Mesh,
    nodes: Vec<Node<Store>>,
    recorder: Arc<Recorder>,
}

impl Cluster {
    async fn start() -> Self {
        let mesh = Mesh::new(5).await;
        let mut nodes = Vec::new();
        for (id, _) in mesh.members() {
            let node = Node::builder(id, Store::default())
                .in_memory()
                .members(mesh.members())
                .listen(mesh.listen(id))
                // Later than all that is to happen, so that it is not the connections that give up.
                .tcp(|settings| settings.ping_interval = Duration::from_secs(5))
                .tune(|tuning| {
                    tuning.core.election_timeout_min_us = 500_000;
                    tuning.core.election_timeout_max_us = 1_000_000;
                    tuning.core.heartbeat_interval_us = 50_000;
                    tuning.node.forward_timeout_us = 1_000_000;
                    tuning.leader_wait = Duration::from_millis(500);
                    tuning.session_wait = Duration::from_secs(60);
                })
                .start()
                .await
                .unwrap();
            nodes.push(node);
        }
        Self { mesh, nodes, recorder: Arc::new(Recorder::new()) }
    }

    fn node(&self, id: u64) -> &Node<Store> {
        &self.nodes[id as usize - 1]
    }

    async fn leader(&self) -> u64 {
        leader(&self.nodes.iter().collect::<Vec<_>>()).await.id().0
    }

    /// The others, in their order.
    fn others(&self, than: u64) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id().0).filter(|id| *id != than).collect()
    }

    async fn more(&self, count: u64) {
        let goal = self.recorder.acknowledged() + count;
        until("the cluster goes on", async || self.recorder.acknowledged() >= goal).await;
    }

    /// All agree in the end, and what clients saw is linearizable.
    async fn end(self) {
        let mut executed = Vec::new();
        for node in &self.nodes {
            let mut seen = Err(quorate::ReadError::NoLeader);
            until("all serve reads", async || {
                seen = node.read(|store| store.executed().clone()).await;
                seen.is_ok()
            })
            .await;
            executed.push(seen.unwrap());
        }
        for other in &executed {
            assert_eq!(*other, executed[0]);
        }
        self.recorder.judge(&executed[0]);
        stop_all(self.nodes).await;
    }
}

/// Writes in a session and reads, in turn; no write may fail.
fn client(cluster: &Cluster, id: u64, done: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (node, recorder) = (cluster.node(id).handle(), Arc::clone(&cluster.recorder));
    let done = Arc::clone(done);
    tokio::spawn(async move {
        let session = node.session().await.unwrap();
        let mut turn = id;
        while !done.load(Ordering::Relaxed) {
            turn += 1;
            tokio::time::sleep(PAUSE).await;
            recorder.propose_in(id, &session, turn % KEYS).await.unwrap();
            let _ = recorder.read(id, &node, turn % KEYS).await;
        }
    })
}

/// Asks, of a node that is cut off, what it must not answer; counts how often it did not.
async fn asks_in_vain(recorder: &Recorder, node: &Handle<Store>, tries: &AtomicU64) {
    let id = 100 + node.id().0;
    loop {
        let (read, write) =
            tokio::join!(recorder.read(id, node, 0), recorder.propose(id + 100, node, 0));
        assert!(read.is_err(), "node {} serves a read in a minority", node.id());
        assert!(write.is_err(), "node {} acknowledges a write in a minority", node.id());
        tries.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_majority_goes_on_and_the_minority_answers_nothing() {
    let cluster = Cluster::start().await;
    let old = cluster.leader().await;
    let others = cluster.others(old);
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = others[1..].iter().map(|id| client(&cluster, *id, &done)).collect();
    cluster.more(50).await;

    // The leader is with the few.
    let few = [old, others[0]];
    cluster.mesh.partition(&few);
    let tries = [AtomicU64::new(0), AtomicU64::new(0)];
    let majority = async {
        cluster.more(100).await;
        until("the few have been asked", async || {
            tries.iter().all(|tries| tries.load(Ordering::Relaxed) >= 3)
        })
        .await;
    };
    tokio::select! {
        () = majority => {}
        () = asks_in_vain(&cluster.recorder, cluster.node(few[0]), &tries[0]) => {}
        () = asks_in_vain(&cluster.recorder, cluster.node(few[1]), &tries[1]) => {}
    }
    let status = cluster.node(old).status().await.unwrap();
    assert_ne!(status.role, RoleName::Leader, "a quorum does not answer it");

    cluster.mesh.heal();
    cluster.more(50).await;
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_not_heard_or_does_not_hear_is_replaced() {
    let cluster = Cluster::start().await;
    cluster.leader().await;
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (1..=5).map(|id| client(&cluster, id, &done)).collect();
    for is_heard in [false, true] {
        cluster.more(50).await;
        let old = cluster.leader().await;
        let term = cluster.node(old).leader().1;
        for other in cluster.others(old) {
            match is_heard {
                false => cluster.mesh.cut(old, other),
                true => cluster.mesh.cut(other, old),
            }
        }
        let rest: Vec<_> = cluster.others(old).into_iter().map(|id| cluster.node(id)).collect();
        until("another one leads", async || {
            rest[0].leader().1 > term && rest[0].leader().0.is_some_and(|new| new.0 != old)
        })
        .await;
        let new = leader(&rest).await.leader().1;
        // The one that is cut off asks for votes, and disturbs nobody.
        cluster.more(200).await;
        let tries = AtomicU64::new(0);
        tokio::select! {
            () = until("it was asked", async || tries.load(Ordering::Relaxed) >= 2) => {}
            () = asks_in_vain(&cluster.recorder, cluster.node(old), &tries) => {}
        }
        assert_eq!(leader(&rest).await.leader().1, new, "nobody else was elected meanwhile");
        cluster.mesh.heal();
    }
    cluster.more(50).await;
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    cluster.end().await;
}
