//! Whatever is encoded comes back equal, and commands are not copied on the way.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use bytes::Bytes;
use quorate_raft::{AppendEntries, Entry, Index, Message, Payload, Term};
use quorate_wire::{
    Form, decode_entry, decode_envelope, encode_entry, encode_envelope, encode_envelope_head,
    payloads,
};
use support::Rng;

#[test]
fn every_message_comes_back() {
    let mut rng = Rng(1);
    for round in 0..6_000 {
        let envelope = support::envelope(&mut rng, round);
        let mut bytes = vec![0xee; 3];
        encode_envelope(&envelope, &mut bytes);
        let bytes = Bytes::from(bytes).slice(3..);
        assert_eq!(decode_envelope(&bytes).unwrap(), envelope);
        assert!(support::checks::envelope(&bytes));
    }
}

#[test]
fn every_part_comes_back() {
    let mut rng = Rng(2);
    for _ in 0..3_000 {
        let hard_state = support::hard_state(&mut rng);
        assert_eq!(Form::from_form(&hard_state.to_form()), Ok(hard_state));
        let meta = support::snapshot_meta(&mut rng);
        assert_eq!(Form::from_form(&meta.to_form()), Ok(meta));
        let membership = support::membership(&mut rng);
        assert_eq!(Form::from_form(&membership.to_form()), Ok(membership));
        let entry = support::entry(&mut rng);
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        assert_eq!(decode_entry(&bytes.into()).unwrap(), entry);
    }
}

#[test]
fn commands_are_shared_with_the_buffer_they_came_in() {
    let mut envelope = support::envelope(&mut Rng(3), 4);
    let entry = Entry::new(Index(1), Term(1), Payload::Command(Bytes::from(vec![7; 1000])));
    envelope.message = Message::AppendEntries(AppendEntries {
        entries: vec![entry],
        extension: Bytes::from_static(b"later"),
        ..AppendEntries::default()
    });
    let mut bytes = Vec::new();
    encode_envelope(&envelope, &mut bytes);
    let bytes = Bytes::from(bytes);
    let Message::AppendEntries(append) = decode_envelope(&bytes).unwrap().message else {
        panic!("another kind of message");
    };
    let Payload::Command(command) = &append.entries[0].payload else { panic!("no command") };
    let within = bytes.as_ptr_range();
    assert!(within.contains(&command.as_ptr()));
    assert!(within.contains(&append.extension.as_ptr()));
}

#[test]
fn payloads_are_shared_with_the_entries() {
    let command = Bytes::from(vec![7; 1000]);
    let mut envelope = support::envelope(&mut Rng(4), 4);
    let commands = [command.clone(), Bytes::new(), command.clone()];
    let entry = |command| Entry::new(Index(1), Term(1), Payload::Command(command));
    envelope.message = Message::AppendEntries(AppendEntries {
        entries: commands.into_iter().map(entry).collect(),
        ..AppendEntries::default()
    });
    let mut head = Vec::new();
    encode_envelope_head(&envelope, &mut head);
    assert!(head.len() < 300);
    let shared: Vec<Bytes> = payloads(&envelope).collect();
    assert_eq!(shared.len(), 2, "an empty payload needs no write");
    assert!(shared.iter().all(|payload| payload.as_ptr() == command.as_ptr()));
}
