//! Sessions against a naive model: exactly once, whatever the batches are.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_node::sessions::{
    Command, REPLIES_MAX, Response, SessionId, Sessions, Together, split_responses,
};
use quorate_raft::Index;
use quorate_wire::Form;

/// A small generator: the same seed, the same numbers.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 8
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A state machine that writes down what it executes and answers with the count.
#[derive(Default)]
struct Machine {
    executed: Vec<Bytes>,
}

impl Machine {
    fn run(&mut self, sessions: &mut Sessions, entries: &[(Index, Bytes)]) -> Vec<Bytes> {
        let commands = entries.iter().map(|(index, bytes)| (*index, bytes));
        let plan = sessions.plan(commands).expect("well formed");
        let mut replies = Vec::new();
        for (_, command) in plan.commands() {
            self.executed.push(command.clone());
            let count = self.executed.len().to_string();
            replies.push(Response::Executed(count.into()).to_bytes());
        }
        sessions.finish(plan, replies)
    }
}

fn numbered(session: u64, number: u64, acknowledged: u64, command: &str) -> Bytes {
    let command = Bytes::copy_from_slice(command.as_bytes());
    Command::Numbered { session: SessionId(session), number, acknowledged, command }.to_bytes()
}

fn response(bytes: &Bytes) -> Response {
    Response::from_bytes(bytes).unwrap()
}

fn executed(reply: &'static str) -> Response {
    Response::Executed(Bytes::from_static(reply.as_bytes()))
}

fn one(sessions: &mut Sessions, machine: &mut Machine, index: u64, command: Bytes) -> Response {
    response(&machine.run(sessions, &[(Index(index), command)])[0])
}

#[test]
fn a_repeated_command_gets_the_first_reply() {
    let (mut sessions, mut machine) = (Sessions::new(), Machine::default());
    let open = Command::Open { sessions_max: 10 }.to_bytes();
    assert_eq!(one(&mut sessions, &mut machine, 7, open), Response::Opened);
    let first = numbered(7, 1, 1, "add 5");
    assert_eq!(one(&mut sessions, &mut machine, 8, first.clone()), executed("1"));
    assert_eq!(one(&mut sessions, &mut machine, 9, first.clone()), executed("1"));
    assert_eq!(one(&mut sessions, &mut machine, 10, numbered(7, 2, 2, "add 1")), executed("2"));
    assert_eq!(one(&mut sessions, &mut machine, 11, first), Response::Acknowledged);
    assert_eq!(machine.executed, ["add 5", "add 1"]);
}

#[test]
fn an_unknown_session_executes_nothing() {
    let (mut sessions, mut machine) = (Sessions::new(), Machine::default());
    assert_eq!(one(&mut sessions, &mut machine, 8, numbered(7, 1, 1, "x")), Response::Expired);
    assert!(machine.executed.is_empty());
    assert!(sessions.is_empty(), "and opens none");
}

#[test]
fn a_session_that_was_closed_stays_closed() {
    let (mut sessions, mut machine) = (Sessions::new(), Machine::default());
    one(&mut sessions, &mut machine, 1, Command::Open { sessions_max: 10 }.to_bytes());
    let close = Command::Close { session: SessionId(1) }.to_bytes();
    assert_eq!(one(&mut sessions, &mut machine, 2, close.clone()), Response::Closed);
    assert_eq!(one(&mut sessions, &mut machine, 3, close), Response::Closed);
    assert_eq!(one(&mut sessions, &mut machine, 4, numbered(1, 1, 1, "x")), Response::Expired);
}

#[test]
fn the_least_recently_used_session_ends_first() {
    let (mut sessions, mut machine) = (Sessions::new(), Machine::default());
    let open = || Command::Open { sessions_max: 2 }.to_bytes();
    one(&mut sessions, &mut machine, 1, open());
    one(&mut sessions, &mut machine, 2, open());
    one(&mut sessions, &mut machine, 3, numbered(1, 1, 1, "a"));
    one(&mut sessions, &mut machine, 4, open());
    assert_eq!(sessions.len(), 2);
    assert_eq!(one(&mut sessions, &mut machine, 5, numbered(2, 1, 1, "b")), Response::Expired);
    assert_eq!(one(&mut sessions, &mut machine, 6, numbered(1, 2, 2, "c")), executed("2"));
}

#[test]
fn within_one_entry_the_order_of_use_counts_too() {
    let (mut sessions, mut machine) = (Sessions::new(), Machine::default());
    let open = || Command::Open { sessions_max: 2 }.to_bytes();
    one(&mut sessions, &mut machine, 1, open());
    one(&mut sessions, &mut machine, 2, open());
    let mut together = Together::new();
    together.push(&numbered(2, 1, 1, "a"));
    together.push(&numbered(1, 1, 1, "b"));
    machine.run(&mut sessions, &[(Index(3), together.take())]);
    one(&mut sessions, &mut machine, 4, open());
    assert_eq!(one(&mut sessions, &mut machine, 5, numbered(2, 2, 2, "c")), Response::Expired);
    assert_eq!(one(&mut sessions, &mut machine, 6, numbered(1, 2, 2, "d")), executed("3"));
}

#[test]
fn replies_that_nobody_acknowledges_are_bounded() {
    let (mut sessions, mut machine) = (Sessions::new(), Machine::default());
    one(&mut sessions, &mut machine, 1, Command::Open { sessions_max: 10 }.to_bytes());
    for number in 1..=REPLIES_MAX as u64 {
        let command = numbered(1, number, 1, "x");
        let response = one(&mut sessions, &mut machine, 1 + number, command);
        assert!(matches!(response, Response::Executed(_)));
    }
    let next = REPLIES_MAX as u64 + 1;
    let index = next + 1;
    let refused = one(&mut sessions, &mut machine, index, numbered(1, next, 1, "x"));
    assert_eq!(refused, Response::TooMany);
    let again = one(&mut sessions, &mut machine, index + 1, numbered(1, next, 2, "x"));
    assert!(matches!(again, Response::Executed(_)), "there is room again");
}

#[test]
fn several_commands_in_one_entry_are_answered_one_by_one() {
    let (mut sessions, mut machine) = (Sessions::new(), Machine::default());
    one(&mut sessions, &mut machine, 1, Command::Open { sessions_max: 10 }.to_bytes());
    let mut together = Together::new();
    together.push(&Command::Plain("a".into()).to_bytes());
    together.push(&numbered(1, 1, 1, "b"));
    together.push(&numbered(1, 1, 1, "b"));
    together.push(&numbered(9, 1, 1, "c"));
    assert_eq!(together.len(), 4);
    let plain = Command::Plain("d".into()).to_bytes();
    let entries = [(Index(2), plain.clone()), (Index(3), together.take()), (Index(4), plain)];
    let responses = machine.run(&mut sessions, &entries);
    assert_eq!(responses.len(), 3);
    assert_eq!(response(&responses[0]), executed("1"));
    let parts: Vec<Response> =
        split_responses(&responses[1]).unwrap().map(|part| response(&part.unwrap())).collect();
    assert_eq!(parts, [executed("2"), executed("3"), executed("3"), Response::Expired]);
    assert_eq!(response(&responses[2]), executed("4"));
    assert_eq!(machine.executed, ["d", "a", "b", "d"]);
}

#[test]
fn what_opens_a_session_shares_its_entry_with_nothing() {
    let mut together = Together::new();
    let open = Command::Open { sessions_max: 1 }.to_bytes();
    assert!(!Command::may_share(&open));
    together.push(&open);
    let bytes = together.take();
    assert!(Sessions::new().plan([(Index(1), &bytes)]).is_err());
}

/// What the table should do, written as plainly as possible: everything is kept for ever.
#[derive(Default)]
struct Model {
    /// Per session: last use, and all replies.
    sessions: BTreeMap<u64, (u64, u64, BTreeMap<u64, Response>)>,
    clock: u64,
    executed: u64,
}

impl Model {
    fn run(&mut self, index: u64, command: &Command) -> Response {
        self.clock += 1;
        let clock = self.clock;
        match command {
            Command::Plain(_) => self.execute(),
            Command::Open { sessions_max } => {
                while self.sessions.len() >= *sessions_max as usize {
                    let oldest =
                        *self.sessions.iter().min_by_key(|(_, (used, ..))| *used).unwrap().0;
                    self.sessions.remove(&oldest);
                }
                self.sessions.insert(index, (clock, 0, BTreeMap::new()));
                Response::Opened
            }
            Command::Close { session } => {
                self.sessions.remove(&session.0);
                Response::Closed
            }
            Command::Numbered { session, number, acknowledged, .. } => {
                let Some((used, known, replies)) = self.sessions.get_mut(&session.0) else {
                    return Response::Expired;
                };
                *used = clock;
                *known = (*known).max(*acknowledged);
                if number < known {
                    return Response::Acknowledged;
                }
                if let Some(reply) = replies.get(number) {
                    return reply.clone();
                }
                let reply = self.execute();
                let session = self.sessions.get_mut(&session.0).unwrap();
                session.2.insert(*number, reply.clone());
                reply
            }
        }
    }

    fn execute(&mut self) -> Response {
        self.executed += 1;
        Response::Executed(self.executed.to_string().into())
    }
}

#[test]
fn the_table_does_what_the_model_does() {
    for seed in 0..300 {
        let mut numbers = Numbers(seed);
        let (mut sessions, mut machine) = (Sessions::new(), Machine::default());
        let mut model = Model::default();
        let mut rows: BTreeMap<SessionId, Vec<u8>> = BTreeMap::new();
        let (mut entries, mut expected) = (Vec::new(), VecDeque::new());
        for index in 1..200 {
            let draw = |numbers: &mut Numbers| match numbers.below(10) {
                0 => Command::Open { sessions_max: 3 },
                1 => Command::Close { session: SessionId(1 + numbers.below(index)) },
                2 => Command::Plain("p".into()),
                _ => Command::Numbered {
                    session: SessionId(1 + numbers.below(index)),
                    number: 1 + numbers.below(4),
                    acknowledged: numbers.below(4),
                    command: "n".into(),
                },
            };
            if numbers.below(3) == 0 {
                let mut together = Together::new();
                let mut parts = Vec::new();
                for _ in 0..=numbers.below(4) {
                    let command = draw(&mut numbers);
                    if Command::may_share(&command.to_bytes()) {
                        together.push(&command.to_bytes());
                        parts.push(model.run(index, &command));
                    }
                }
                if together.is_empty() {
                    continue;
                }
                entries.push((Index(index), together.take()));
                expected.push_back(parts);
            } else {
                let command = draw(&mut numbers);
                entries.push((Index(index), command.to_bytes()));
                expected.push_back(vec![model.run(index, &command)]);
            }
            // Batches end anywhere; so do processes, and then the table is read back.
            if numbers.below(3) == 0 {
                for bytes in machine.run(&mut sessions, &entries) {
                    let told: Vec<Response> = match split_responses(&bytes) {
                        Ok(parts) => parts.map(|part| response(&part.unwrap())).collect(),
                        Err(_) => vec![response(&bytes)],
                    };
                    assert_eq!(Some(told), expected.pop_front(), "seed {seed}");
                }
                entries.clear();
                for (id, row) in sessions.take_changes() {
                    match row {
                        Some(row) => rows.insert(id, row),
                        None => rows.remove(&id),
                    };
                }
                let restored = Sessions::from_form(&sessions.to_form()).unwrap();
                assert_eq!(restored, sessions);
                assert_eq!(Sessions::from_rows(rows.clone()).unwrap(), sessions);
                sessions = restored;
            }
        }
        assert_eq!(machine.executed.len() as u64 + pending(&entries, &sessions), model.executed);
    }
}

/// Commands that the last batch would still execute.
fn pending(entries: &[(Index, Bytes)], sessions: &Sessions) -> u64 {
    let commands = entries.iter().map(|(index, bytes)| (*index, bytes));
    sessions.clone().plan(commands).unwrap().commands().len() as u64
}

#[test]
fn golden_bytes() {
    assert_eq!(Command::Plain("ab".into()).to_bytes()[..], *b"\0ab");
    assert_eq!(Command::Open { sessions_max: 258 }.to_bytes()[..], [1, 2, 1, 0, 0]);
    assert_eq!(
        numbered(7, 2, 1, "x")[..],
        [2, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'x']
    );
    let close = Command::Close { session: SessionId(7) };
    assert_eq!(close.to_bytes()[..], [3, 7, 0, 0, 0, 0, 0, 0, 0]);
    let mut together = Together::new();
    together.push(b"\0a");
    together.push(b"\0");
    assert_eq!(together.take()[..], [4, 2, 0, 0, 0, 0, b'a', 1, 0, 0, 0, 0]);
    assert_eq!(Response::Executed("ok".into()).to_bytes()[..], *b"\0ok");
    let others = [
        Response::Opened,
        Response::Closed,
        Response::Expired,
        Response::Acknowledged,
        Response::TooMany,
    ];
    for (at, other) in others.iter().enumerate() {
        assert_eq!(other.to_bytes()[..], [at as u8 + 1]);
        assert_eq!(Response::from_bytes(&other.to_bytes()).as_ref(), Ok(other));
    }
    let (mut sessions, mut machine) = (Sessions::new(), Machine::default());
    one(&mut sessions, &mut machine, 1, Command::Open { sessions_max: 10 }.to_bytes());
    one(&mut sessions, &mut machine, 2, numbered(1, 5, 4, "x"));
    let expected = [
        &[1, 0, 0, 0][..],         // one session
        &[1, 0, 0, 0, 0, 0, 0, 0], // its name
        &[2, 0, 0, 0, 0, 0, 0, 0], // last used at entry 2
        &[0, 0, 0, 0],             // by its first command
        &[4, 0, 0, 0, 0, 0, 0, 0], // acknowledged below 4
        &[1, 0, 0, 0],             // one reply
        &[5, 0, 0, 0, 0, 0, 0, 0], // to number 5
        &[2, 0, 0, 0, 0, b'1'],    // of two bytes: executed, "1"
    ];
    assert_eq!(sessions.to_form(), expected.concat());
}

#[test]
fn bad_bytes_are_refused() {
    let (mut sessions, mut machine) = (Sessions::new(), Machine::default());
    one(&mut sessions, &mut machine, 1, Command::Open { sessions_max: 10 }.to_bytes());
    one(&mut sessions, &mut machine, 2, numbered(1, 5, 4, "x"));
    one(&mut sessions, &mut machine, 3, Command::Open { sessions_max: 10 }.to_bytes());
    let form = sessions.to_form();
    for length in 0..form.len() {
        assert!(Sessions::from_form(&form[..length]).is_err(), "cut to {length}");
    }
    let mut numbers = Numbers(1);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = form.clone();
        for _ in 0..=numbers.below(3) {
            let at = numbers.below(bytes.len() as u64) as usize;
            bytes[at] = numbers.next() as u8;
        }
        // Whatever is accepted is a table, and has just these bytes.
        if let Ok(table) = Sessions::from_form(&bytes) {
            assert_eq!(table.to_form(), bytes);
        }
        let bytes = Bytes::from(bytes);
        let _ = Command::from_bytes(&bytes);
        let _ = Response::from_bytes(&bytes);
        if let Ok(parts) = split_responses(&bytes) {
            let _ = parts.take_while(Result::is_ok).count();
        }
        let _ = sessions.clone().plan([(Index(9), &bytes)]);
    }
}
