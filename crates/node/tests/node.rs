//! What a node decides for its host, seen from outside: events in, actions out.

use std::sync::Arc;

use bytes::Bytes;
use quorate_node::{
    Action, Event, Executed, Forward, Node, NodeMessage, ProposeFailure, Reply, Request, Settings,
    SnapshotPolicy,
};
use quorate_raft::{
    AttemptId, ClusterId, Config, Envelope, GroupId, HardState, Heartbeat, Incarnation, Index,
    LogId, Member, MemberRole, Membership, Message, NodeId, ProposeError, ReadMode, Recovered,
    RequestId, RequestVoteReply, RoleName, Term, Time, crc32c,
};

const CLUSTER: ClusterId = ClusterId(1);

/// Voters that are bound to their data directories, so that a leader need not do it.
fn membership(voters: u64) -> Arc<Membership> {
    let member = |node| {
        let incarnation = Some(Incarnation(node));
        (NodeId(node), Member { incarnation, ..Member::new(MemberRole::Voter) })
    };
    Arc::new(Membership::bootstrap((1..=voters).map(member)))
}

/// A node with a host that stores and applies when told to.
struct Host {
    node: Node,
    now: Time,
    actions: Vec<Action>,
}

impl Host {
    fn new(voters: u64, settings: Settings) -> Self {
        Self::recover(Recovered::new(membership(voters), 7), settings)
    }

    fn recover(recovered: Recovered, settings: Settings) -> Self {
        let config =
            Config { commit_notice_delay_us: 0, ..Config::new(CLUSTER, NodeId(1), Incarnation(1)) };
        let now = Time(0);
        let node = Node::new(config, settings, now, 1, recovered).expect("it starts");
        Self { node, now, actions: Vec::new() }
    }

    fn step(&mut self, event: Event) {
        self.node.step(self.now, event);
        self.actions.extend(self.node.take_actions());
    }

    fn request(&mut self, id: u64, request: Request) {
        self.step(Event::Request { id: RequestId(id), request });
    }

    fn propose(&mut self, id: u64, command: &'static str) {
        let command = Bytes::from(command);
        self.request(id, Request::Propose { command, in_term: None });
    }

    fn wake(&mut self) {
        self.now = self.node.deadline().expect("it waits for something").max(self.now);
        self.step(Event::Wake);
    }

    /// Takes out the actions of one kind.
    fn take<T>(&mut self, wanted: impl Fn(&Action) -> Option<T>) -> Vec<T> {
        let found = self.actions.iter().filter_map(&wanted).collect();
        self.actions.retain(|action| wanted(action).is_none());
        found
    }

    fn replies(&mut self) -> Vec<(u64, Reply)> {
        self.take(|action| match action {
            Action::Reply { id, reply } => Some((id.0, reply.clone())),
            _ => None,
        })
    }

    /// All writes become durable.
    fn store(&mut self) {
        let writes = self.take(|action| match action {
            Action::Persist(persist) => Some(persist.seq),
            _ => None,
        });
        if let Some(last) = writes.last() {
            self.step(Event::Stored(*last));
        }
    }

    /// All entries given to the state machine are applied; it answers with their index.
    fn apply(&mut self) {
        let batches = self.take(|action| match action {
            Action::Apply(entries) => Some(entries.clone()),
            _ => None,
        });
        for entries in batches {
            let up_to = entries.last().expect("an entry").index;
            let commands = entries
                .iter()
                .filter(|entry| matches!(entry.payload, quorate_raft::Payload::Command(_)));
            let responses = commands.map(|entry| Bytes::from(entry.index.to_string())).collect();
            self.step(Event::Applied { up_to, responses });
        }
    }

    /// The only voter becomes leader.
    fn lead(&mut self) {
        while self.node.raft().role() != RoleName::Leader {
            self.wake();
            self.store();
        }
        self.store();
        self.apply();
        self.actions.clear();
    }
}

fn executed(index: u64, term: u64) -> Reply {
    let at = LogId::new(Index(index), Term(term));
    Reply::Proposed(Ok(Executed { at, response: Bytes::from(index.to_string()) }))
}

#[test]
fn a_command_is_answered_when_it_was_applied_and_not_before() {
    let mut host = Host::new(1, Settings::default());
    host.lead();
    host.propose(5, "x");
    assert_eq!(host.replies(), []);
    host.store();
    assert_eq!(host.replies(), []);
    host.apply();
    assert_eq!(host.replies(), [(5, executed(2, 1))]);
}

#[test]
fn a_read_waits_for_the_state_machine() {
    let mut host = Host::new(1, Settings::default());
    host.lead();
    host.propose(5, "x");
    host.store();
    host.request(6, Request::Read { mode: ReadMode::ReadIndex });
    assert_eq!(host.replies(), []);
    host.apply();
    let read = Reply::Read(Ok(Index(2)));
    assert_eq!(host.replies(), [(5, executed(2, 1)), (6, read)]);
}

#[test]
fn a_read_does_not_wait_for_ever() {
    let mut host = Host::new(1, Settings { read_wait_us: 10, ..Settings::default() });
    host.lead();
    host.propose(5, "x");
    host.store();
    host.request(6, Request::Read { mode: ReadMode::ReadIndex });
    host.now = host.now.after(10);
    host.step(Event::Wake);
    assert!(matches!(&host.replies()[..], [(6, Reply::Read(Err(_)))]));
}

#[test]
fn a_local_read_never_shows_less_than_before_a_restart() {
    let recovered = Recovered {
        hard_state: HardState { term: Term(1), commit: Index(2), ..HardState::default() },
        terms: vec![(Index(1), Term(1))],
        last_index: Index(2),
        ..Recovered::new(membership(1), 8)
    };
    let mut host = Host::recover(recovered, Settings::default());
    host.request(1, Request::LocalRead);
    assert_eq!(host.replies(), []);
    while host.replies().is_empty() {
        assert_ne!(host.node.raft().role(), RoleName::Leader, "it needs no leader for that");
        let loads = host.take(|action| match action {
            Action::Load(load) => Some(load.id),
            _ => None,
        });
        for id in loads {
            let entry = |index| {
                let payload = quorate_raft::Payload::Noop;
                quorate_raft::Entry::new(Index(index), Term(1), payload)
            };
            host.step(Event::Loaded { id, result: Ok(vec![entry(1), entry(2)]) });
        }
        host.apply();
        if host.actions.is_empty() && host.node.raft().applied() < Index(2) {
            host.wake();
        }
    }
    assert_eq!(host.node.raft().applied(), Index(2));
}

fn forward(count: u64, term: u64) -> Event {
    let command = Bytes::from_static(b"f");
    Event::Receive(NodeMessage::Forward(Forward {
        cluster: CLUSTER,
        group: GroupId(0),
        from: NodeId(2),
        to: NodeId(1),
        term: Term(term),
        attempt: AttemptId { boot: 3, count },
        checksum: crc32c(&command),
        command,
    }))
}

fn answers(host: &mut Host) -> Vec<(u64, Result<Executed, ProposeFailure>)> {
    host.take(|action| match action {
        Action::Send { message: NodeMessage::ForwardReply(reply), .. } => {
            Some((reply.attempt.count, reply.result.clone()))
        }
        _ => None,
    })
}

#[test]
fn a_forwarded_command_that_comes_twice_is_executed_once() {
    let mut host = Host::new(1, Settings::default());
    host.lead();
    for count in [1, 2, 1, 2] {
        host.step(forward(count, 1));
    }
    host.store();
    host.apply();
    for count in [1, 2] {
        host.step(forward(count, 1));
    }
    host.store();
    let done = answers(&mut host);
    assert_eq!(done.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [1, 2]);
    assert!(done.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(host.node.raft().commit_index(), Index(3));
}

#[test]
fn a_command_for_another_term_is_not_executed() {
    let mut host = Host::new(1, Settings::default());
    host.lead();
    host.step(forward(1, 2));
    let not_leader = ProposeError::NotLeader { leader: Some(NodeId(1)) };
    assert_eq!(answers(&mut host), [(1, Err(ProposeFailure::Refused(not_leader)))]);
}

fn from_two(term: Term, message: Message) -> Event {
    Event::Receive(NodeMessage::Raft(Envelope {
        cluster: CLUSTER,
        group: GroupId(0),
        from: NodeId(2),
        incarnation: Incarnation(2),
        to: NodeId(1),
        term,
        message,
    }))
}

/// The second copy of a command comes when the node has stepped down: the first one is in the log
/// and may commit, so nobody must hear that it never happened.
#[test]
fn a_copy_is_not_refused_once_the_first_was_taken() {
    let mut host = Host::new(2, Settings::default());
    host.request(9, Request::Campaign);
    host.store();
    let granted = Message::RequestVoteReply(RequestVoteReply { granted: true });
    host.step(from_two(host.node.raft().term(), granted));
    assert_eq!(host.node.raft().role(), RoleName::Leader);
    host.store();
    let term = host.node.raft().term();
    host.step(forward(1, term.0));
    let heartbeat = Heartbeat { leader_commit: Index(0), round: 1 };
    let next = Term(term.0 + 1);
    host.step(from_two(next, Message::Heartbeat(heartbeat)));
    assert_ne!(host.node.raft().role(), RoleName::Leader);
    host.actions.clear();
    host.step(forward(1, term.0));
    assert_eq!(answers(&mut host), [], "the first copy is to be answered");
    // It has taken nothing else in that term.
    host.step(forward(2, term.0));
    let not_leader = ProposeError::NotLeader { leader: Some(NodeId(2)) };
    assert_eq!(answers(&mut host), [(2, Err(ProposeFailure::Refused(not_leader)))]);
}

/// A restarted node does not know what it took when it led, so it does not say that it took nothing.
#[test]
fn what_an_earlier_life_took_is_unknown() {
    let hard_state = HardState { term: Term(4), ..HardState::default() };
    let recovered = Recovered { hard_state, ..Recovered::new(membership(2), 7) };
    let mut host = Host::recover(recovered, Settings::default());
    host.step(forward(1, 4));
    let unknown = ProposeFailure::OutcomeUnknown { at: None };
    assert_eq!(answers(&mut host), [(1, Err(unknown))]);
}

#[test]
fn without_a_leader_nothing_is_forwarded() {
    let mut host = Host::new(3, Settings::default());
    host.propose(5, "x");
    let refused = ProposeFailure::Refused(ProposeError::NotLeader { leader: None });
    assert!(refused.never_happened());
    assert_eq!(host.replies(), [(5, Reply::Proposed(Err(refused)))]);
}

#[test]
fn the_log_is_compacted_only_as_far_as_the_state_machine_is_durable() {
    let settings = Settings { compact_entries: 4, keep_entries: 1, ..Settings::default() };
    let mut host = Host::new(1, settings);
    host.lead();
    for id in 0..8 {
        host.propose(id, "x");
        host.store();
        host.apply();
    }
    let compactions = |host: &mut Host| {
        host.take(|action| match action {
            Action::Compact(snapshot) => Some(snapshot.id.index.0),
            _ => None,
        })
    };
    assert_eq!(compactions(&mut host), []);
    host.step(Event::StateDurable(Index(5)));
    assert_eq!(compactions(&mut host), [5]);
    host.step(Event::Compact { up_to: Index(7) });
    assert_eq!(compactions(&mut host), [], "an operator cannot have more either");
    host.step(Event::StateDurable(Index(9)));
    assert_eq!(compactions(&mut host), [8], "one entry is kept, as the settings say");
    host.step(Event::Compact { up_to: Index(9) });
    assert_eq!(compactions(&mut host), [9], "unless an operator says otherwise");
}

#[test]
fn a_machine_without_a_disk_lives_on_its_snapshots() {
    let policy = SnapshotPolicy { entries: 4, bytes: 10_000 };
    let settings = Settings {
        compact_entries: 1_000,
        keep_entries: 1_000,
        snapshots: Some(policy),
        ..Settings::default()
    };
    let mut host = Host::new(1, settings);
    host.lead();
    let taken = |host: &mut Host| {
        host.take(|action| match action {
            Action::Spool => Some((0, 0)),
            Action::Compact(snapshot) => Some((1, snapshot.id.index.0)),
            _ => None,
        })
    };
    let propose = |host: &mut Host, ids: std::ops::Range<u64>, command: &'static str| {
        for id in ids {
            host.propose(id, command);
            host.store();
            host.apply();
        }
    };
    // The leader's own first entry counts, too.
    propose(&mut host, 0..3, "x");
    assert_eq!(taken(&mut host), [(0, 0)]);
    propose(&mut host, 3..9, "x");
    assert_eq!(taken(&mut host), [], "one at a time");
    let at = |host: &Host, index| Some(host.node.raft().snapshot_meta(Index(index)).unwrap().id);
    host.step(Event::Spooled(at(&host, 4)));
    assert_eq!(taken(&mut host), [], "the log is kept from the snapshot before this one on");
    propose(&mut host, 9..10, "x");
    assert_eq!(taken(&mut host), [(0, 0)], "six entries have been applied meanwhile");
    host.step(Event::Spooled(None));
    assert_eq!(taken(&mut host), [], "it failed");
    propose(&mut host, 10..11, "x".repeat(10_000).leak());
    assert_eq!(taken(&mut host), [(0, 0)], "bytes count");
    host.step(Event::Spooled(at(&host, 12)));
    assert_eq!(taken(&mut host), [(1, 4)]);
    host.step(Event::TakeSnapshot);
    host.step(Event::TakeSnapshot);
    assert_eq!(taken(&mut host), [(0, 0)], "an operator wants one");
}

#[test]
fn a_failed_disk_ends_everything_and_answers_everyone() {
    let mut host = Host::new(1, Settings::default());
    host.lead();
    host.propose(5, "appended");
    host.propose(6, "applied, not reported");
    host.store();
    host.request(7, Request::Read { mode: ReadMode::ReadIndex });
    host.propose(8, "not durable");
    host.actions.clear();
    host.step(Event::DiskFailed);
    let mut stopped = host.replies();
    stopped.sort_by_key(|(id, _)| *id);
    assert_eq!(stopped, [5, 6, 7, 8].map(|id| (id, Reply::Stopped)));
    assert_eq!(host.actions, [Action::Stop]);
    assert_eq!(host.node.deadline(), None);
    // It takes nothing in any more, above all no word that something became durable after all.
    host.actions.clear();
    host.propose(9, "late");
    host.step(Event::Stored(quorate_raft::Seq(99)));
    assert_eq!(host.actions, []);
}
