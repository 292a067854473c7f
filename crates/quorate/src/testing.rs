//! Checks for your own state machine.

use std::fmt::Debug;
use std::ops::Range;

use bytes::Bytes;

use crate::codec::Codec;
use crate::machine::{Snapshot, StateMachine};

/// Checks that a state machine keeps its promises, as far as these commands show it:
///
/// * two replicas that are given the same commands, in batches that are cut differently, give the
///   same replies and write the same snapshots;
/// * a replica that is restored from a snapshot, at *every* cut, goes on just as the one that wrote
///   it;
/// * a snapshot is a view: it stays as it was when it was taken, while `apply` goes on;
/// * commands and replies are the same after they were written and read back.
///
/// `make` makes an empty machine, as [`Node::builder`](crate::Node::builder) is given. Use commands
/// that reach the corners, and some hundred of them; the time grows with their square.
///
/// # Panics
///
/// If a promise is broken. The message says which, in which step, at which command, what was expected
/// and what was found:
///
/// ```text
/// the state machine breaks a promise: how commands are cut into batches means nothing
///   step:     all 19 commands in one batch
///   command:  number 1 (the first is 0): 2
///   expected: the reply 5, as when each is a batch of its own
///   found:    the reply 4
/// ```
pub fn check_state_machine<S>(make: impl Fn() -> S, commands: Vec<S::Command>)
where
    S: StateMachine,
    S::Command: Debug,
    S::Reply: Debug,
{
    let commands = Commands::<S>::of(commands);
    let count = commands.encoded.len();

    // One by one, with a view before every command that is written only at the end.
    let mut first = make();
    let mut replies = Vec::new();
    let mut views = Vec::new();
    for at in 0..count {
        views.push(first.snapshot());
        replies.extend(commands.apply(&mut first, at..at + 1, "each command a batch of its own"));
    }
    let end = written(first.snapshot(), "a snapshot at the end");
    let written_late = |(at, view)| {
        written(view, &format!("the snapshot taken before command {at}, written at the end"))
    };
    let snapshots: Vec<Vec<u8>> = views.into_iter().enumerate().map(written_late).collect();

    // All at once.
    let step = format!("all {count} commands in one batch");
    let mut second = make();
    let at_once = commands.apply(&mut second, 0..count, &step);
    let promise = "how commands are cut into batches means nothing";
    commands.same_replies(promise, &step, 0, "each is a batch of its own", &replies, &at_once);
    same_bytes(
        "the same commands make the same data",
        &format!("{step}, then a snapshot"),
        ("as of the replica that was given them one by one", &end),
        &written(second.snapshot(), &step),
    );

    // From every snapshot on.
    for (cut, snapshot) in snapshots.iter().enumerate() {
        let before = format!("the snapshot taken before command {cut}");
        // Into a machine that has other data, as a follower has.
        let mut restored = make();
        let others = format!("commands 0 to {} to a machine that is to restore", count.min(3) - 1);
        commands.apply(&mut restored, 0..count.min(3), &others);
        let mut reader = snapshot.as_slice();
        if let Err(error) = restored.restore(&mut reader) {
            broken(
                "what `snapshot` writes, `restore` reads",
                &format!("restoring {before}"),
                &[("expected", "no error".to_owned()), ("found", error.to_string())],
            );
        }
        let step = format!("restoring {before} into a machine with other data, then a snapshot");
        same_bytes(
            "a snapshot is all of the data, and stays as it was when it was taken",
            &step,
            ("as it was restored", snapshot),
            &written(restored.snapshot(), &step),
        );
        let step = format!("restoring {before}, then the commands from {cut} on in one batch");
        let rest = commands.apply(&mut restored, cut..count, &step);
        let promise = "a restored replica goes on like the one that wrote the snapshot";
        let replies = &replies[cut..];
        commands.same_replies(promise, &step, cut, "nothing was restored", replies, &rest);
        let found = written(restored.snapshot(), &step);
        same_bytes(promise, &step, ("as without the restore", &end), &found);
    }
}

fn bytes_of(value: &impl Codec) -> Bytes {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes.into()
}

fn broken(promise: &str, step: &str, details: &[(&str, String)]) -> ! {
    let mut text = format!("the state machine breaks a promise: {promise}\n  step:     {step}");
    for (name, value) in details {
        let name = format!("{name}:");
        text.push_str(&format!("\n  {name:<9} {value}"));
    }
    panic!("{text}")
}

/// A reply, as bytes and for people.
struct Reply {
    bytes: Bytes,
    text: String,
}

/// The commands of a check. They need not be `Clone`: each is made anew from its bytes.
struct Commands<S> {
    encoded: Vec<Bytes>,
    texts: Vec<String>,
    machine: std::marker::PhantomData<fn(S)>,
}

impl<S> Commands<S>
where
    S: StateMachine,
    S::Command: Debug,
    S::Reply: Debug,
{
    fn of(commands: Vec<S::Command>) -> Self {
        let both = |command| (bytes_of(&command), format!("{command:?}"));
        let (encoded, texts) = commands.into_iter().map(both).unzip();
        Self { encoded, texts, machine: std::marker::PhantomData }
    }

    fn named(&self, at: usize) -> (&'static str, String) {
        ("command", format!("number {at} (the first is 0): {}", self.texts[at]))
    }

    fn decode(&self, at: usize) -> S::Command {
        const PROMISE: &str = "a command is the same after it was written and read back";
        let bytes = &self.encoded[at];
        let fails = |found: String| -> ! {
            let expected = ("expected", format!("{} from {bytes:x?}", self.texts[at]));
            broken(PROMISE, "decoding", &[self.named(at), expected, ("found", found)])
        };
        match S::Command::decode(bytes) {
            Ok(command) if bytes_of(&command) == *bytes => command,
            Ok(command) => fails(format!("{command:?}, as {:x?}", bytes_of(&command))),
            Err(why) => fails(why.to_string()),
        }
    }

    fn apply(&self, machine: &mut S, range: Range<usize>, step: &str) -> Vec<Reply> {
        let count = range.len();
        let replies = machine.apply(range.clone().map(|at| self.decode(at)).collect());
        if replies.len() != count {
            let expected = ("expected", format!("{count} replies"));
            let found = ("found", format!("{} replies", replies.len()));
            let from = range.start.min(self.texts.len().saturating_sub(1));
            let first = self.named(from);
            broken("`apply` gives one reply to each command", step, &[first, expected, found]);
        }
        let checked = |(at, reply): (usize, S::Reply)| {
            const PROMISE: &str = "a reply is the same after it was written and read back";
            let (bytes, text) = (bytes_of(&reply), format!("{reply:?}"));
            let found = match S::Reply::decode(&bytes) {
                Ok(again) if bytes_of(&again) == bytes => return Reply { bytes, text },
                Ok(again) => format!("{again:?}, as {:x?}", bytes_of(&again)),
                Err(why) => why.to_string(),
            };
            let expected = ("expected", format!("{text} from {bytes:x?}"));
            broken(PROMISE, step, &[self.named(at), expected, ("found", found)])
        };
        range.zip(replies).map(checked).collect()
    }

    /// `expected` and `found` begin with the reply to command `from`.
    fn same_replies(
        &self,
        promise: &str,
        step: &str,
        from: usize,
        otherwise: &str,
        expected: &[Reply],
        found: &[Reply],
    ) {
        for (at, (expected, found)) in (from..).zip(expected.iter().zip(found)) {
            if expected.bytes != found.bytes {
                let expected =
                    ("expected", format!("the reply {}, as when {otherwise}", expected.text));
                let found = ("found", format!("the reply {}", found.text));
                broken(promise, step, &[self.named(at), expected, found]);
            }
        }
    }
}

fn written(snapshot: Snapshot, step: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = snapshot.write_to(&mut bytes) {
        let found = [("expected", "no error".to_owned()), ("found", error.to_string())];
        broken("a snapshot can be written into memory", step, &found);
    }
    bytes
}

fn same_bytes(promise: &str, step: &str, (of, expected): (&str, &[u8]), found: &[u8]) {
    if expected == found {
        return;
    }
    const SHOWN: usize = 16;
    let differ = expected.iter().zip(found).position(|(expected, found)| expected != found);
    let at = differ.unwrap_or_else(|| expected.len().min(found.len()));
    let shown = |bytes: &[u8]| {
        let part = &bytes[at..bytes.len().min(at + SHOWN)];
        format!("a snapshot of {} bytes, from byte {at} on {part:02x?}", bytes.len())
    };
    let expected = ("expected", format!("{}, {of}", shown(expected)));
    broken(promise, step, &[expected, ("found", shown(found))]);
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A counter with a fault that can be switched on.
    #[derive(Default)]
    struct Counter {
        sum: u64,
        fault: Fault,
        shared: Arc<AtomicU64>,
    }

    #[derive(Clone, Copy, PartialEq, Default)]
    enum Fault {
        #[default]
        None,
        BatchCounts,
        ForgetsInRestore,
        LiveView,
        Random,
        AnswersTwice,
    }

    impl StateMachine for Counter {
        type Command = u64;
        type Reply = u64;

        fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
            if self.fault == Fault::BatchCounts {
                self.sum += 1;
            }
            let mut replies = Vec::new();
            for command in commands {
                self.sum += command;
                if self.fault == Fault::Random {
                    self.sum += self.shared.fetch_add(1, Ordering::Relaxed);
                }
                replies.push(self.sum);
            }
            if self.fault == Fault::AnswersTwice {
                replies.push(self.sum);
            }
            if self.fault == Fault::LiveView {
                self.shared.store(self.sum, Ordering::Relaxed);
            }
            replies
        }

        fn snapshot(&self) -> Snapshot {
            let shared = Arc::clone(&self.shared);
            match self.fault {
                Fault::LiveView => Snapshot::new(move |out| {
                    out.write_all(&shared.load(Ordering::Relaxed).to_le_bytes())
                }),
                _ => Snapshot::from_bytes(self.sum.to_le_bytes()),
            }
        }

        fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
            let mut bytes = [0; 8];
            snapshot.read_exact(&mut bytes)?;
            if self.fault != Fault::ForgetsInRestore {
                self.sum = u64::from_le_bytes(bytes);
            }
            Ok(())
        }
    }

    fn check(fault: Fault) {
        let shared = Arc::new(AtomicU64::new(0));
        let make = || Counter { sum: 0, fault, shared: Arc::clone(&shared) };
        check_state_machine(make, (1..20).collect());
    }

    #[test]
    fn a_good_one_passes() {
        check(Fault::None);
    }

    /// What the check says of a fault.
    fn said(fault: Fault) -> String {
        let panic = std::panic::catch_unwind(|| check(fault)).unwrap_err();
        crate::panics::message_of(&*panic)
    }

    #[test]
    fn batches_that_count_are_found() {
        let expected = "the state machine breaks a promise: how commands are cut into batches means \
                        nothing\n  \
                        step:     all 19 commands in one batch\n  \
                        command:  number 1 (the first is 0): 2\n  \
                        expected: the reply 5, as when each is a batch of its own\n  \
                        found:    the reply 4";
        assert_eq!(said(Fault::BatchCounts), expected);
    }

    #[test]
    fn an_incomplete_restore_is_found() {
        let expected = "the state machine breaks a promise: a snapshot is all of the data, and stays as \
                        it was when it was taken\n  \
                        step:     restoring the snapshot taken before command 0 into a machine with \
                        other data, then a snapshot\n  \
                        expected: a snapshot of 8 bytes, from byte 0 on [00, 00, 00, 00, 00, 00, 00, \
                        00], as it was restored\n  \
                        found:    a snapshot of 8 bytes, from byte 0 on [06, 00, 00, 00, 00, 00, 00, \
                        00]";
        assert_eq!(said(Fault::ForgetsInRestore), expected);
    }

    #[test]
    fn a_view_that_changes_is_found() {
        let said = said(Fault::LiveView);
        assert!(said.contains("stays as it was when it was taken"), "{said}");
    }

    #[test]
    fn randomness_is_found() {
        let said = said(Fault::Random);
        assert!(
            said.contains("command:  number ") && said.contains("found:    the reply"),
            "{said}"
        );
    }

    #[test]
    fn a_reply_too_many_is_found() {
        let said = said(Fault::AnswersTwice);
        assert!(said.contains("expected: 1 replies\n  found:    2 replies"), "{said}");
    }
}
