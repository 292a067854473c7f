//! Checks for your own state machine.

use std::fmt::Debug;

use bytes::Bytes;

use crate::codec::Codec;
use crate::machine::StateMachine;

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
/// If a promise is broken; the message says which, and at which command.
pub fn check_state_machine<S>(make: impl Fn() -> S, commands: Vec<S::Command>)
where
    S: StateMachine,
{
    let encoded: Vec<Bytes> = commands.iter().map(bytes_of).collect();
    drop(commands);
    let decode = |range: std::ops::Range<usize>| -> Vec<S::Command> {
        let decode = |(at, bytes): (usize, &Bytes)| {
            let command = S::Command::decode(bytes);
            let command =
                command.unwrap_or_else(|why| panic!("command {at} cannot be read back: {why}"));
            assert_eq!(bytes_of(&command), *bytes, "command {at} is another one after decoding");
            command
        };
        encoded[range.clone()].iter().zip(range).map(|(bytes, at)| decode((at, bytes))).collect()
    };
    let count = encoded.len();

    // One by one, with a view before every command that is written only at the end.
    let mut first = make();
    let mut replies = Vec::new();
    let mut views = Vec::new();
    for at in 0..count {
        views.push(first.snapshot());
        replies.extend(apply(&mut first, decode(at..at + 1), at));
    }
    let end = written(first.snapshot(), count);
    let snapshots: Vec<Vec<u8>> =
        views.into_iter().enumerate().map(|(at, view)| written(view, at)).collect();

    // All at once.
    let mut second = make();
    let at_once = apply(&mut second, decode(0..count), 0);
    same("replies depend on how commands are cut into batches", &replies, &at_once);
    assert!(
        written(second.snapshot(), count) == end,
        "two replicas that were given the same commands write different snapshots"
    );

    // From every snapshot on.
    for (cut, snapshot) in snapshots.iter().enumerate() {
        // Into a machine that has other data, as a follower has.
        let mut restored = make();
        apply(&mut restored, decode(0..count.min(3)), 0);
        let mut reader = snapshot.as_slice();
        restored
            .restore(&mut reader)
            .unwrap_or_else(|why| panic!("the snapshot before command {cut}: {why}"));
        assert!(
            written(restored.snapshot(), cut) == *snapshot,
            "the snapshot before command {cut} is another one after it was restored"
        );
        let rest = apply(&mut restored, decode(cut..count), cut);
        same("replies differ after a restore", &replies[cut..], &rest);
        assert!(
            written(restored.snapshot(), count) == end,
            "the data differ at the end after a restore before command {cut}"
        );
    }
}

fn bytes_of(value: &impl Codec) -> Bytes {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes.into()
}

fn apply<S: StateMachine>(machine: &mut S, commands: Vec<S::Command>, from: usize) -> Vec<Bytes> {
    let count = commands.len();
    let replies = machine.apply(commands);
    assert_eq!(replies.len(), count, "one reply to each command, from command {from} on");
    let round_trip = |reply: S::Reply| {
        let bytes = bytes_of(&reply);
        let again = S::Reply::decode(&bytes)
            .unwrap_or_else(|why| panic!("a reply from command {from} on: {why}"));
        assert_eq!(bytes_of(&again), bytes, "a reply is another one after decoding");
        bytes
    };
    replies.into_iter().map(round_trip).collect()
}

fn written(snapshot: crate::Snapshot, at: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let result = snapshot.write_to(&mut bytes);
    result
        .unwrap_or_else(|why| panic!("the snapshot before command {at} cannot be written: {why}"));
    bytes
}

fn same<T: PartialEq + Debug>(what: &str, expected: &[T], found: &[T]) {
    for (at, (expected, found)) in expected.iter().zip(found).enumerate() {
        assert_eq!(expected, found, "{what}, at reply {at}");
    }
    assert_eq!(expected.len(), found.len(), "{what}");
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::Snapshot;

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

    #[test]
    #[should_panic(expected = "how commands are cut into batches")]
    fn batches_that_count_are_found() {
        check(Fault::BatchCounts);
    }

    #[test]
    #[should_panic(expected = "after it was restored")]
    fn an_incomplete_restore_is_found() {
        check(Fault::ForgetsInRestore);
    }

    #[test]
    #[should_panic(expected = "after it was restored")]
    fn a_view_that_changes_is_found() {
        check(Fault::LiveView);
    }

    #[test]
    #[should_panic(expected = "at reply")]
    fn randomness_is_found() {
        check(Fault::Random);
    }
}
