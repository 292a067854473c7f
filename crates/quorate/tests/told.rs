//! What owners of nodes are told: of settings that cannot work, of peers that are not reached or do not
//! belong, and of their own removal.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::error::Error;
use std::io::{self, Read};
use std::time::Duration;

use quorate::{
    Builder, ChangeError, Events, Heard, InProcess, Node, NodeEvent, Snapshot, StartError,
    StateMachine,
};
use support::{Scratch, addresses, hears, leader, stop_all, until};

#[derive(Default)]
struct Sum(u64);

impl StateMachine for Sum {
    type Command = u64;
    type Reply = u64;

    fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
        let add = |command| {
            self.0 += command;
            self.0
        };
        commands.into_iter().map(add).collect()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0)
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        self.0 = quorate::read_snapshot(snapshot)?;
        Ok(())
    }
}

fn node(id: u64) -> Builder<Sum> {
    Node::builder(id, Sum::default())
}

fn pick(all: &[(u64, String)], ids: &[u64]) -> Vec<(u64, String)> {
    all.iter().filter(|(id, _)| ids.contains(id)).cloned().collect()
}

// ---- members ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_differ_are_found_before_anything_is_decided() {
    let (scratch, all) = (Scratch::new(), addresses(4));
    let start = async |id: u64, members: &[u64], directory: u64| {
        let builder = node(id).data_dir(scratch.of(directory)).members(pick(&all, members));
        builder.start().await.unwrap()
    };
    let first = start(1, &[1, 2, 3], 1).await;
    let mut events = first.events();
    let second = start(2, &[1, 2, 4], 2).await;
    let said = hears(&mut events, "founded").await;
    assert!(said.contains("node 2"), "{said}");
    assert!(said.contains("1 2 3") && said.contains("1 2 4"), "{said}");
    let mut theirs = second.events();
    let said = hears(&mut theirs, "founded").await;
    assert!(said.contains("1 2 3") && said.contains("1 2 4"), "{said}");
    assert_eq!((first.leader().0, second.leader().0), (None, None));
    second.stop().await;
    // Made anew with the right list, it belongs.
    let second = start(2, &[1, 2, 3], 20).await;
    assert_eq!(leader(&[&first, &second]).await.propose(7).await, Ok(7));
    // And one that goes on from its own directory is asked what it was founded with.
    second.stop().await;
    let second = start(2, &[1, 2, 4], 20).await;
    leader(&[&first, &second]).await;
    stop_all([first, second]).await;
}

#[tokio::test]
async fn members_that_differ_inside_a_process() {
    let network = InProcess::new();
    let start = |id, members: [u64; 3]| {
        let members = members.map(|id| (id, ""));
        node(id).in_memory().members(members).in_process(&network).start()
    };
    let first = start(1, [1, 2, 3]).await.unwrap();
    let failed = start(2, [1, 2, 4]).await.unwrap_err().to_string();
    let expected = "node 2 was given the members 1 2 4, node 1 the members 1 2 3; the list must be \
                    the same at all of them";
    assert_eq!(failed, expected);
    let second = start(2, [1, 2, 3]).await.unwrap();
    leader(&[&first, &second]).await;
    stop_all([first, second]).await;
}

// ---- addresses ----

#[tokio::test]
async fn nonsense_is_no_address() {
    let scratch = Scratch::new();
    let refused = async |builder: Builder<Sum>| {
        let failed = builder.data_dir(scratch.of(1)).start().await.unwrap_err();
        assert!(matches!(failed, StartError::Setting { .. }), "{failed}");
        failed.to_string()
    };
    let own = (1, "127.0.0.1:7400");
    let said = refused(node(1).members([own, (2, "elsewhere")])).await;
    assert_eq!(said, "member 2: `elsewhere` is no address: it has no port; write `host:port`");
    let said = refused(node(1).members([own, (2, "")])).await;
    assert!(said.contains("member 2") && said.contains("it is empty"), "{said}");
    let said = refused(node(1).members([(1, "here"), (2, "there:7400")])).await;
    assert!(said.contains("member 1") && said.contains("no port"), "{said}");
    let said = refused(node(1).members([own]).listen("0.0.0.0")).await;
    assert!(said.contains("`listen`: `0.0.0.0` is no address"), "{said}");
    let said = refused(node(1).listen("127.0.0.1:0").join([(2, "http://there:7400")])).await;
    assert!(said.contains("member 2") && said.contains("slash"), "{said}");
    assert!(!scratch.of(1).exists(), "nothing was made");

    let one = node(1).data_dir(scratch.of(1)).members([(1, "127.0.0.1:0")]).start().await.unwrap();
    let refused = one.add_voter(2, "there").await.unwrap_err();
    assert!(matches!(refused, ChangeError::Address { .. }), "{refused}");
    assert_eq!(
        refused.to_string(),
        "member 2: `there` is no address: it has no port; write `host:port`"
    );
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_cannot_be_reached_and_then_can() {
    let (scratch, all) = (Scratch::new(), addresses(2));
    let start = |id: u64| node(id).data_dir(scratch.of(id)).members(all.clone()).start();
    let first = start(1).await.unwrap();
    let mut events = first.events();
    let said = hears(&mut events, "cannot reach").await;
    assert!(said.starts_with(&format!("cannot reach node 2 at {}: ", all[1].1)), "{said}");
    let second = start(2).await.unwrap();
    assert_eq!(hears(&mut events, "reached again").await, "node 2 is reached again");
    stop_all([first, second]).await;
}

// ---- floods ----

/// What is heard within some time.
async fn heard_for(events: &mut Events, time: Duration) -> Vec<NodeEvent> {
    let mut heard = Vec::new();
    let _ = tokio::time::timeout(time, async {
        while let Some(next) = events.next().await {
            match next {
                Heard::Event(event) => heard.push(event),
                Heard::Missed(count) => panic!("{count} events were too many"),
            }
        }
    })
    .await;
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_peer_that_tries_again_and_again_is_one_event() {
    let (scratch, all) = (Scratch::new(), addresses(2));
    let one = node(1).data_dir(scratch.of(1)).members([all[0].clone()]).start().await.unwrap();
    one.wait_for_leader().await.unwrap();
    let mut events = one.events();
    let eager = |builder: Builder<Sum>| {
        builder.tcp(|settings| {
            settings.backoff_min = Duration::from_millis(2);
            settings.backoff_max = Duration::from_millis(4);
        })
    };
    let other = eager(node(2)).cluster("another").data_dir(scratch.of(2)).members(all.clone());
    let other = other.start().await.unwrap();
    let mut theirs = other.events();
    let heard = heard_for(&mut events, Duration::from_secs(3)).await;
    let words: Vec<String> = heard.iter().map(ToString::to_string).collect();
    let refused = words.iter().filter(|said| said.contains("refused node 2")).count();
    assert_eq!(refused, 1, "{words:?}");
    assert!(heard_for(&mut theirs, Duration::from_millis(100)).await.len() < 10);
    stop_all([one, other]).await;
}

// ---- removal ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_removed_hears_of_it() {
    let network = InProcess::new();
    let members = [1, 2, 3].map(|id| (id, ""));
    let mut nodes = Vec::new();
    for (id, _) in members {
        let builder = node(id).in_memory().members(members).in_process(&network);
        nodes.push(builder.start().await.unwrap());
    }
    // A follower first, then the leader itself.
    let first = leader(&nodes.iter().collect::<Vec<_>>()).await.id();
    let follower = nodes.iter().find(|node| node.id() != first).unwrap();
    for gone in [follower.id(), first] {
        let gone = nodes.iter().find(|node| node.id() == gone).unwrap();
        let leading = nodes.iter().find(|node| node.id() == first).unwrap();
        let mut events = gone.events();
        assert_eq!(gone.removed(), None);
        let at = leading.remove(gone.id().0).await.unwrap();
        let said = hears(&mut events, "removed from the cluster at").await;
        assert_eq!(said, format!("this node was removed from the cluster at index {}", at.index));
        assert_eq!(gone.removed(), Some(at.index));
    }
    let last = nodes.iter().find(|node| node.removed().is_none()).unwrap();
    until("the last one leads", async || last.leader().0 == Some(last.id())).await;
    stop_all(nodes).await;
}

// ---- errors at the start ----

/// An error prints all there is to say, and the errors behind it do not say it again.
fn chain(error: &dyn Error) -> String {
    let said = error.to_string();
    let mut next = error.source();
    while let Some(behind) = next {
        assert!(!said.contains(&behind.to_string()), "twice: {behind}");
        next = behind.source();
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_what_failed_and_where() {
    let scratch = Scratch::new();
    let start = |directory, cluster: &str| {
        let members = [(1, "")];
        let builder = node(1).data_dir(directory).cluster(cluster).members(members);
        builder.in_process(&InProcess::new()).start()
    };
    let file = scratch.0.join("a file");
    std::fs::write(&file, "in the way").unwrap();
    let failed = start(file.clone(), "quorate").await.unwrap_err();
    assert!(chain(&failed).contains(&format!("{}", file.display())), "{failed}");

    let directory = scratch.of(1);
    let log = format!("the log in `{}`", directory.join("log").display());
    let running = start(directory.clone(), "quorate").await.unwrap();
    let failed = start(directory.clone(), "quorate").await.unwrap_err();
    assert!(chain(&failed).contains(&log) && chain(&failed).contains("in use by"), "{failed}");
    running.propose(1).await.unwrap();
    running.snapshot().await.unwrap();
    running.stop().await;

    // The same numbers in the same notation wherever clusters are named.
    let failed = start(directory.clone(), "another").await.unwrap_err();
    let said = format!("{log}: the log belongs to cluster 57d89c494afbf63e, not");
    assert!(chain(&failed).contains(&said), "{failed}");

    // A directory where a file should be.
    let snapshots = directory.join("snapshots");
    let in_the_way = snapshots.join("0000000000000009-0000000000000001.unfinished");
    std::fs::create_dir_all(&in_the_way).unwrap();
    let failed = start(directory.clone(), "quorate").await.unwrap_err();
    assert!(chain(&failed).contains(&format!("removing `{}`", in_the_way.display())), "{failed}");
    std::fs::remove_dir(&in_the_way).unwrap();

    std::fs::write(directory.join("log").join("identity"), "nonsense").unwrap();
    let failed = start(directory, "quorate").await.unwrap_err();
    assert!(chain(&failed).contains(&log) && chain(&failed).contains("`identity`"), "{failed}");
}
