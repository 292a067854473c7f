//! The bytes of version 1, fixed for ever: `golden/v1.txt` holds what released software has
//! written to disks and sent to peers. A change of that file is a new version of the format, not
//! a test to be updated. (`QUORATE_GOLDEN=write` makes the file of a new version.)
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use quorate_raft::*;
use quorate_wire::{Form, decode_entry, decode_envelope, encode_entry, encode_envelope};

fn membership() -> Membership {
    let voter = Member {
        role: MemberRole::Voter,
        incarnation: Some(Incarnation(0xabcd)),
        context: Bytes::from_static(b"n1:2380"),
    };
    let learner = MemberRole::Learner { promote_when_caught_up: true, replaces: Some(NodeId(1)) };
    Membership::bootstrap([
        (NodeId(1), voter),
        (NodeId(2), Member::new(MemberRole::Voter)),
        (NodeId(3), Member::new(learner)),
    ])
    .with_feature_level(2)
    .with_lease(Some(900_000))
}

fn messages() -> Vec<Message> {
    let attempt = AttemptId { boot: 0x1122_3344_5566_7788, count: 9 };
    let last_log = LogId::new(Index(41), Term(6));
    let command = Payload::Command(Bytes::from_static(b"put k v"));
    let entries = vec![
        Entry::new(Index(42), Term(7), Payload::Noop),
        Entry::new(Index(43), Term(7), command),
        Entry::new(Index(44), Term(7), Payload::Membership(Arc::new(membership()))),
    ];
    let accepted = AppendOutcome::Accepted { match_index: Index(44) };
    let refused = |term| AppendOutcome::Refused {
        prev_index: Index(41),
        conflict: Conflict { term, first_index: Index(17) },
    };
    let reply = |outcome| {
        let extension = Bytes::new();
        Message::AppendEntriesReply(AppendEntriesReply { outcome, round: 5, extension })
    };
    let vote = |cause| Message::RequestVote(RequestVote { last_log, cause });
    let snapshot = SnapshotMeta { id: last_log, membership: Arc::new(membership()) };
    let installed = |outcome| {
        Message::InstallSnapshotReply(InstallSnapshotReply { snapshot: last_log, outcome })
    };
    vec![
        Message::PreVote(PreVote { next_term: Term(8), last_log, attempt }),
        Message::PreVoteReply(PreVoteReply { attempt, granted: true }),
        vote(ElectionCause::Timeout),
        vote(ElectionCause::Transfer),
        vote(ElectionCause::Forced),
        Message::RequestVoteReply(RequestVoteReply { granted: false }),
        Message::AppendEntries(AppendEntries {
            prev_log: last_log,
            entries,
            leader_commit: Index(40),
            round: 5,
            extension: Bytes::from_static(b"later"),
        }),
        reply(accepted),
        reply(refused(Some(Term(3)))),
        reply(refused(None)),
        Message::Heartbeat(Heartbeat { leader_commit: Index(40), round: 6 }),
        Message::HeartbeatReply(HeartbeatReply {
            round: 6,
            verified: Index(44),
            feature_level: 2,
            clock: Time(123_456_789),
        }),
        Message::CommitNotice(CommitNotice { leader_commit: Index(44) }),
        Message::InstallSnapshot(InstallSnapshot { snapshot }),
        installed(SnapshotOutcome::Matched { match_index: Index(41) }),
        installed(SnapshotOutcome::Pending),
        installed(SnapshotOutcome::Failed),
        Message::TimeoutNow,
        Message::ReadIndex(ReadIndex { attempt }),
        Message::ReadIndexReply(ReadIndexReply { attempt, index: Some(Index(44)) }),
        Message::ReadIndexReply(ReadIndexReply { attempt, index: None }),
        Message::Refused(Refusal::WrongIncarnation { known: Incarnation(0xabcd) }),
        Message::Refused(Refusal::WrongCluster { cluster: ClusterId(0xc1) }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Name and bytes of every form, and a check that those bytes are read as the same value.
fn forms() -> Vec<(String, Vec<u8>)> {
    let mut forms = Vec::new();
    for message in messages() {
        let envelope = Envelope {
            cluster: ClusterId(0xc1),
            group: GroupId(3),
            from: NodeId(1),
            incarnation: Incarnation(0xabcd),
            to: NodeId(2),
            term: Term(7),
            message,
        };
        let mut bytes = Vec::new();
        encode_envelope(&envelope, &mut bytes);
        assert_eq!(decode_envelope(&bytes.clone().into()).unwrap(), envelope);
        forms.push((format!("{envelope}"), bytes));
    }
    let hard_state = HardState {
        term: Term(7),
        voted_for: Some(NodeId(2)),
        commit: Index(40),
        seen: vec![(NodeId(2), Incarnation(0xef01)), (NodeId(3), Incarnation(0xef02))],
    };
    forms.push((format!("hard state {hard_state}"), hard_state.to_form()));
    forms.push(("hard state of a new server".into(), HardState::default().to_form()));
    let meta =
        SnapshotMeta { id: LogId::new(Index(41), Term(6)), membership: Arc::new(membership()) };
    forms.push((format!("snapshot {} [{}]", meta.id, meta.membership), meta.to_form()));
    for payload in [
        Payload::Noop,
        Payload::Command(Bytes::from_static(b"put k v")),
        Payload::Membership(Arc::new(membership())),
    ] {
        let entry = Entry::new(Index(42), Term(7), payload);
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        assert_eq!(decode_entry(&bytes.clone().into()).unwrap(), entry);
        forms.push((format!("entry {entry}"), bytes));
    }
    forms
}

#[test]
fn version_1() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1.txt");
    let text = forms().iter().fold(String::new(), |mut text, (name, bytes)| {
        write!(text, "{name}\n{}\n\n", hex(bytes)).unwrap();
        text
    });
    if std::env::var_os("QUORATE_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert_eq!(text, golden, "the bytes of version 1 have changed");
    for line in golden.lines().filter(|line| line.starts_with("01")) {
        let bytes = unhex(line);
        assert!(support::checks::envelope(&bytes) || support::checks::entry(&bytes));
    }
}
