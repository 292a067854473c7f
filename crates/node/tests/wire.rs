//! Bytes of forwarded commands and their answers.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use bytes::Bytes;
use quorate_node::{Executed, Forward, ForwardReply, NodeMessage, ProposeFailure};
use quorate_raft::{
    AttemptId, ClusterId, CommitNotice, Envelope, GroupId, Incarnation, Index, LogId, Message,
    NodeId, ProposeError, Term, crc32c,
};
use quorate_wire::WireError;

fn forward() -> NodeMessage {
    let command = Bytes::from_static(b"put");
    NodeMessage::Forward(Forward {
        cluster: ClusterId(1),
        group: GroupId(2),
        from: NodeId(3),
        to: NodeId(4),
        term: Term(5),
        attempt: AttemptId { boot: 6, count: 7 },
        checksum: crc32c(&command),
        command,
    })
}

fn reply(result: Result<Executed, ProposeFailure>) -> NodeMessage {
    NodeMessage::ForwardReply(ForwardReply {
        cluster: ClusterId(1),
        group: GroupId(2),
        from: NodeId(4),
        to: NodeId(3),
        attempt: AttemptId { boot: 6, count: 7 },
        result,
    })
}

fn messages() -> Vec<NodeMessage> {
    let at = LogId::new(Index(8), Term(9));
    let refused = [
        ProposeError::NotLeader { leader: None },
        ProposeError::NotLeader { leader: Some(NodeId(3)) },
        ProposeError::WrongTerm { term: Term(1) },
        ProposeError::TooLarge { bytes: 2, bytes_max: 1 },
        ProposeError::Busy { bytes: 4, bytes_max: 3 },
        ProposeError::Transferring { to: NodeId(2) },
        ProposeError::Corrupt,
    ];
    let mut messages = vec![forward(), reply(Ok(Executed { at, response: "ok".into() }))];
    messages.extend(refused.map(|refused| reply(Err(ProposeFailure::Refused(refused)))));
    messages.extend(
        [
            ProposeFailure::Overwritten { at },
            ProposeFailure::Busy { forwarded_max: 5 },
            ProposeFailure::OutcomeUnknown { at: None },
            ProposeFailure::OutcomeUnknown { at: Some(at) },
        ]
        .map(|failure| reply(Err(failure))),
    );
    messages.push(NodeMessage::Raft(Envelope {
        cluster: ClusterId(1),
        group: GroupId(2),
        from: NodeId(3),
        incarnation: Incarnation(9),
        to: NodeId(4),
        term: Term(5),
        message: Message::CommitNotice(CommitNotice { leader_commit: Index(6) }),
    }));
    messages
}

#[test]
fn every_message_comes_back() {
    for message in messages() {
        assert_eq!(NodeMessage::from_bytes(&message.to_bytes()).as_ref(), Ok(&message));
    }
}

#[test]
fn golden_bytes() {
    let bytes = forward().to_bytes();
    let number = |n: u64| n.to_le_bytes();
    let head: Vec<u8> = [1, 2, 3, 4, 6, 7, 5].into_iter().flat_map(number).collect();
    assert_eq!(bytes[..4], [1, 64, 0, 0]);
    assert_eq!(bytes[8..64], head);
    assert_eq!(bytes[64..68], crc32c(b"put").to_le_bytes());
    assert_eq!(bytes[68..], *b"\x03\0\0\0put");
    let answer = reply(Ok(Executed { at: LogId::new(Index(8), Term(9)), response: "ok".into() }));
    let bytes = answer.to_bytes();
    assert_eq!(bytes[..4], [1, 65, 0, 0]);
    assert_eq!(bytes[56], 0);
    assert_eq!(bytes[57..65], number(8));
    assert_eq!(bytes[65..73], number(9));
    assert_eq!(bytes[73..], *b"\x02\0\0\0ok");
}

#[test]
fn damage_is_found() {
    for message in messages() {
        let bytes = message.to_bytes();
        for length in 0..bytes.len() {
            assert!(NodeMessage::from_bytes(&bytes.slice(..length)).is_err());
        }
        let command_at = match &message {
            NodeMessage::Forward(forward) => bytes.len() - forward.command.len(),
            _ => bytes.len(),
        };
        for at in 0..command_at {
            for bit in 0..8 {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1 << bit;
                assert!(NodeMessage::from_bytes(&damaged.into()).is_err(), "byte {at} bit {bit}");
            }
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(NodeMessage::from_bytes(&longer.into()).is_err());
    }
}

#[test]
fn a_damaged_command_is_left_to_the_core() {
    let mut bytes = forward().to_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let Ok(NodeMessage::Forward(forward)) = NodeMessage::from_bytes(&bytes.into()) else {
        panic!("the head is whole")
    };
    assert_ne!(crc32c(&forward.command), forward.checksum);
}

#[test]
fn another_version_is_named() {
    let mut bytes = forward().to_bytes().to_vec();
    bytes[0] = 9;
    let error = NodeMessage::from_bytes(&bytes.into());
    assert_eq!(error, Err(WireError::Version { found: 9, supported: 1 }));
}
