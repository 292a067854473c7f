//! The linearizability checker judges stories with a known ending. (Its own tests compare it with a
//! checker that is too simple to be wrong.)

use std::fmt::Write;

use quorate_sim::linearizability::{
    ClientId, Counterexample, History, KeyValue, KeyValueAction, KeyValueOp, KeyValueReply, Keyed,
    KeyedOp, Limits, Register, RegisterOp, RegisterReply, Verdict, check,
};

/// Each line is `client invoked..returned operation => reply`; without a reply the outcome is
/// unknown, and `=> failed` means that it certainly did not happen.
fn register_history(story: &str) -> History<RegisterOp, RegisterReply> {
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let value = |word: &str| (word != "nothing").then(|| number(word));
    let mut history = History::new();
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (call, reply) = match line.split_once("=>") {
            Some((call, reply)) => (call, Some(reply.trim())),
            None => (line, None),
        };
        let words: Vec<_> = call.split_whitespace().collect();
        let (invoked, returned) = words[1].split_once("..").expect("an interval");
        let op = match words[2..] {
            ["read"] => RegisterOp::Read,
            ["write", value] => RegisterOp::Write(number(value)),
            ["cas", from, to] => {
                RegisterOp::CompareAndSwap { expected: value(from), new: number(to) }
            }
            _ => panic!("no operation: {line}"),
        };
        let id = history.invoke(ClientId(number(&words[0][1..])), op, number(invoked));
        let reply = match reply {
            None => continue,
            Some("failed") => {
                history.fail(id);
                continue;
            }
            Some("done") => RegisterReply::Done,
            Some("swapped") => RegisterReply::Swapped(true),
            Some("refused") => RegisterReply::Swapped(false),
            Some(word) => RegisterReply::Value(value(word)),
        };
        history.complete(id, reply, number(returned));
    }
    history
}

#[track_caller]
fn accepts(story: &str) {
    let verdict = check(&Register, &register_history(story), Limits::default());
    assert!(verdict.is_linearizable(), "{verdict}");
}

#[track_caller]
fn rejects(story: &str) -> Counterexample<Register> {
    let history = register_history(story);
    match check(&Register, &history, Limits::default()) {
        Verdict::NotLinearizable(counterexample) => counterexample,
        verdict => panic!("{verdict}: {story}"),
    }
}

#[test]
fn nothing_happened() {
    accepts("");
    accepts("c1 0..9 read => nothing");
    accepts("c1 0.. write 1");
}

#[test]
fn one_after_the_other() {
    accepts(
        "c1 0..10  write 1   => done
         c2 20..30 read      => 1
         c1 40..50 cas 1 2   => swapped
         c2 60..70 cas 1 3   => refused
         c1 80..90 read      => 2",
    );
}

#[test]
fn stale_read() {
    let shown = rejects(
        "c1 0..10  write 1 => done
         c1 20..30 write 2 => done
         c2 40..50 read    => 1",
    );
    assert_eq!((shown.operations.len(), shown.unexplained, shown.left_out), (3, 2, 0));
}

#[test]
fn read_of_a_value_never_written() {
    let shown = rejects(
        "c1 0..10  write 1 => done
         c2 5..20  write 2 => done
         c3 6..30  read    => 3",
    );
    assert_eq!((shown.operations.len(), shown.left_out), (1, 2));
}

#[test]
fn read_before_the_write_began() {
    rejects(
        "c1 0..10  read    => 1
         c2 20..30 write 1 => done",
    );
}

#[test]
fn lost_update() {
    rejects(
        "c1 0..10  cas nothing 1 => swapped
         c2 20..30 cas 1 2       => swapped
         c1 40..50 cas 1 3       => swapped",
    );
}

#[test]
fn two_swaps_from_one_value_cannot_both_win() {
    let shown = rejects(
        "c1 0..20 cas nothing 1 => swapped
         c2 0..20 cas nothing 2 => swapped",
    );
    assert_eq!(shown.operations.len(), 2);
    accepts(
        "c1 0..20 cas nothing 1 => swapped
         c2 0..20 cas nothing 2 => refused",
    );
}

#[test]
fn read_during_a_write_sees_either_value() {
    for seen in ["1", "2"] {
        accepts(&format!(
            "c1 0..10  write 1 => done
             c1 20..50 write 2 => done
             c2 30..40 read    => {seen}"
        ));
    }
    rejects(
        "c1 0..10  write 1 => done
         c1 20..50 write 2 => done
         c2 30..40 read    => nothing",
    );
}

#[test]
fn reads_during_a_write_do_not_go_back() {
    accepts(
        "c1 0..90  write 1 => done
         c2 10..20 read    => nothing
         c3 30..40 read    => 1",
    );
    let shown = rejects(
        "c1 0..90  write 1 => done
         c2 10..20 read    => 1
         c3 30..40 read    => nothing",
    );
    assert_eq!(shown.operations.len(), 3, "the write explains the first read: {shown}");
}

#[test]
fn unknown_write_is_never_observed() {
    accepts(
        "c1 0..10  write 1 => done
         c2 20..   write 2
         c1 30..40 read    => 1
         c1 50..60 read    => 1",
    );
}

#[test]
fn unknown_write_is_observed_late() {
    accepts(
        "c2 0..    write 2
         c1 10..20 write 1 => done
         c1 30..40 read    => 1
         c1 50..60 read    => 2",
    );
}

#[test]
fn unknown_write_cannot_be_undone() {
    let shown = rejects(
        "c1 0..10  write 1 => done
         c2 20..   write 2
         c1 30..40 read    => 1
         c1 50..60 read    => 2
         c1 70..80 read    => 1",
    );
    assert_eq!((shown.operations.len(), shown.left_out), (4, 1), "{shown}");
}

#[test]
fn unknown_write_happens_once_at_most() {
    rejects(
        "c2 0..    write 2
         c1 10..20 read    => 2
         c1 30..40 write 1 => done
         c1 50..60 read    => 2",
    );
    accepts(
        "c2 0..    write 2
         c2 5..    write 2
         c1 10..20 read    => 2
         c1 30..40 write 1 => done
         c1 50..60 read    => 2",
    );
}

#[test]
fn unknown_write_does_not_happen_before_it_was_invoked() {
    rejects(
        "c1 10..20 read    => 2
         c2 30..   write 2",
    );
}

#[test]
fn failed_write_never_happened() {
    accepts(
        "c1 0..10  write 1 => done
         c2 20..30 write 2 => failed
         c1 40..50 read    => 1",
    );
    rejects(
        "c1 0..10  write 1 => done
         c2 20..30 write 2 => failed
         c1 40..50 read    => 2",
    );
}

#[test]
fn retried_write_applied_twice_across_another() {
    // c1's write was sent twice and applied twice: once before and once after c2's.
    rejects(
        "c1 0..90  write 1 => done
         c3 10..20 read    => 1
         c2 30..40 write 2 => done
         c3 50..60 read    => 2
         c3 70..80 read    => 1",
    );
}

#[test]
fn one_of_two_unknown_operations_explains_a_read_and_the_other_a_later_one() {
    // Either could have written the first 5, but only the write could have written the second.
    let unknown = ["write 5", "cas nothing 5"];
    for [first, second] in [unknown, [unknown[1], unknown[0]]] {
        accepts(&format!(
            "c1 0..    {first}
             c2 1..    {second}
             c3 10..20 read    => 5
             c3 30..40 write 6 => done
             c3 50..60 read    => 5"
        ));
    }
}

#[test]
fn chain_of_unknown_operations_is_found() {
    accepts(
        "c1 0.. write 1
         c2 0.. cas 1 2
         c3 0.. cas 2 3
         c4 10..20 read => nothing
         c4 30..40 read => 3",
    );
    rejects(
        "c1 0.. write 1
         c2 0.. cas 1 2
         c3 0.. cas 2 3
         c4 10..20 read => 2
         c4 30..40 read => 1",
    );
}

#[test]
fn equal_times_overlap() {
    accepts(
        "c1 0..10  write 1 => done
         c2 10..20 read    => nothing",
    );
    rejects(
        "c1 0..10  write 1 => done
         c2 11..20 read    => nothing",
    );
    accepts(
        "c1 5..5 read    => 1
         c2 5..5 write 1 => done",
    );
}

#[test]
fn equal_times_of_one_client_follow_each_other() {
    rejects(
        "c1 0..10  write 1 => done
         c1 10..20 read    => nothing",
    );
    rejects(
        "c1 5..5 read    => 1
         c1 5..5 write 1 => done",
    );
    // c1's operations do, and c2's do, but each client overlaps the other.
    accepts(
        "c1 0..5  write 1 => done
         c1 5..9  read    => 2
         c2 0..5  read    => nothing
         c2 5..9  write 2 => done",
    );
    rejects(
        "c1 0..5  write 1 => done
         c1 5..9  read    => nothing
         c2 0..5  read    => nothing
         c2 5..9  write 2 => done",
    );
}

#[test]
fn equal_unknown_operations_are_not_interchangeable_if_one_follows_its_client() {
    // c1's write follows c1's read, so it was c2's that was read.
    accepts(
        "c1 0..5 read => 1
         c1 5..  write 1
         c2 5..  write 1",
    );
}

#[test]
fn put_that_returns_what_was_there_fixes_the_order() {
    let put = |key, value| KeyValueOp { key, action: KeyValueAction::Put(value) };
    let was = KeyValueReply::Value;
    let judge = |replies: [Option<u64>; 3]| {
        let mut history = History::new();
        let ids = [1, 2, 3].map(|n| history.invoke(ClientId(n), put("x", n), 0));
        for (id, reply) in ids.into_iter().zip(replies) {
            history.complete(id, was(reply), 10);
        }
        check(&KeyValue::<&str, u64>::new(), &history, Limits::default())
    };
    assert!(judge([None, Some(1), Some(2)]).is_linearizable());
    assert!(judge([Some(3), None, Some(2)]).is_linearizable());
    assert!(!judge([None, Some(1), Some(1)]).is_linearizable(), "a lost update");
    assert!(!judge([Some(2), Some(3), Some(1)]).is_linearizable(), "a circle");
}

#[test]
fn keys_are_judged_apart() {
    let mut history = History::new();
    let mut record = |key, op, reply, at| {
        let id = history.invoke(ClientId(1), KeyedOp { key, op }, at);
        history.complete(id, reply, at + 5);
    };
    record("x", RegisterOp::Write(1), RegisterReply::Done, 0);
    record("y", RegisterOp::Write(2), RegisterReply::Done, 10);
    record("x", RegisterOp::Read, RegisterReply::Value(Some(1)), 20);
    record("y", RegisterOp::Read, RegisterReply::Value(Some(1)), 30);
    let verdict = check(&Keyed::new(Register), &history, Limits::default());
    assert_eq!(
        verdict.to_string(),
        r#"not linearizable: key "y"
state before: None (at the start)

client  invoked  returned  operation  reply
c1           30        35  y: read    1      |--|  <- no order explains this

1 other operation left out: whatever it did, it does not help
"#
    );
}

#[test]
fn prints_a_chart() {
    let shown = rejects(
        "c1 0..10  write 1 => done
         c2 20..   write 2
         c4 30..40 read    => 1
         c1 50..60 read    => 2
         c1 70..80 read    => 1
         c4 75..85 read    => 2
         c1 90..95 read    => 9",
    );
    assert_eq!(
        shown.to_string(),
        "\
not linearizable
state before: None (at the start)

client  invoked  returned  operation  reply
c1            0        10  write 1    done     |--|
c2           20         -  write 2    unknown        |--------------->
c1           50        60  read       2                 |--|
c1           70        80  read       1                       |--|  <- no order explains this

2 other operations left out: whatever they did, it does not help
"
    );
}

#[test]
fn window_reaches_back_as_far_as_the_cause() {
    let mut story = "c2 0.. write 2\nc1 10..20 read => 2\n".to_owned();
    for n in 3..100 {
        writeln!(story, "c1 {n}0..{n}5 write {n} => done").expect("a String takes anything");
    }
    // The only write of 2 is long spent, but the state in between does not tell.
    story.push_str("c1 1000..1005 read => 2");
    let shown = rejects(&story);
    assert_eq!((shown.earlier, shown.operations.len()), (0, 4), "{shown}");

    // Here the state before does tell, and there is no need to look back.
    let shown = rejects(&story.replace("read => 2", "read => 1"));
    assert_eq!((shown.earlier, shown.operations.len(), shown.left_out), (0, 1, 1), "{shown}");
    story.push_str("\nc1 1010..1015 write 7 => done\nc2 1020..1025 read => 8");
    let shown = rejects(&story.replace("1005 read => 2", "1005 read => 99"));
    assert!(shown.earlier > 30, "{shown}");
}

#[test]
fn gives_up_within_the_limit() {
    // Any of 2^24 subsets of the writes may have taken effect when the read fails.
    let mut history = History::new();
    for n in 0..24 {
        let id = history.invoke(ClientId(n), RegisterOp::Write(n), 0);
        history.complete(id, RegisterReply::Done, 100);
    }
    let id = history.invoke(ClientId(99), RegisterOp::Read, 0);
    history.complete(id, RegisterReply::Value(Some(99)), 100);
    let limits = Limits { configurations_max: 1_000, ..Limits::default() };
    match check(&Register, &history, limits) {
        Verdict::Undecided { visited } => assert!((1_000..1_100).contains(&visited), "{visited}"),
        verdict => panic!("{verdict}"),
    }
}
