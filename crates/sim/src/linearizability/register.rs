//! One register: the smallest object that can go wrong.

use std::fmt;

use super::Model;

/// A register that holds a number, or nothing until it is first written.
///
/// Histories say most if every write has a value of its own. [`Keyed`](super::Keyed) makes many
/// registers of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

/// What can be asked of a [`Register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOp {
    /// What does it hold? Answered by `Value`.
    Read,
    /// Hold this from now on. Answered by `Done`.
    Write(u64),
    /// Hold `new` if it holds `expected`, else change nothing. Answered by `Swapped`.
    CompareAndSwap {
        /// What it must hold.
        expected: Option<u64>,
        /// What it then holds.
        new: u64,
    },
}

/// What a [`Register`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterReply {
    /// What was read; `None` if nothing was ever written.
    Value(Option<u64>),
    /// The write has taken effect.
    Done,
    /// Whether it held what was expected, and so was changed.
    Swapped(bool),
}

/// A reply of the wrong kind (a write answered by `Value`) is an impossible one.
impl Model for Register {
    type State = Option<u64>;
    type Op = RegisterOp;
    type Reply = RegisterReply;
    type Key = ();

    fn initial(&self) -> Self::State {
        None
    }

    fn step(
        &self,
        state: &Self::State,
        op: &Self::Op,
        reply: Option<&Self::Reply>,
    ) -> Option<Self::State> {
        let (next, answer) = match *op {
            RegisterOp::Read => (*state, RegisterReply::Value(*state)),
            RegisterOp::Write(value) => (Some(value), RegisterReply::Done),
            RegisterOp::CompareAndSwap { expected, new } if *state == expected => {
                (Some(new), RegisterReply::Swapped(true))
            }
            RegisterOp::CompareAndSwap { .. } => (*state, RegisterReply::Swapped(false)),
        };
        reply.is_none_or(|reply| *reply == answer).then_some(next)
    }

    fn is_read(&self, op: &Self::Op, reply: Option<&Self::Reply>) -> bool {
        matches!(op, RegisterOp::Read) || reply == Some(&RegisterReply::Swapped(false))
    }

    fn is_blind_write(&self, op: &Self::Op, reply: Option<&Self::Reply>) -> bool {
        matches!(op, RegisterOp::Write(_)) && matches!(reply, None | Some(RegisterReply::Done))
    }
}

impl fmt::Display for RegisterOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => write!(f, "read"),
            Self::Write(value) => write!(f, "write {value}"),
            Self::CompareAndSwap { expected: Some(expected), new } => {
                write!(f, "cas {expected} -> {new}")
            }
            Self::CompareAndSwap { expected: None, new } => write!(f, "cas nothing -> {new}"),
        }
    }
}

impl fmt::Display for RegisterReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(Some(value)) => write!(f, "{value}"),
            Self::Value(None) => write!(f, "nothing"),
            Self::Done => write!(f, "done"),
            Self::Swapped(true) => write!(f, "swapped"),
            Self::Swapped(false) => write!(f, "not swapped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RegisterOp::{CompareAndSwap, Read, Write};
    use super::RegisterReply::{Done, Swapped, Value};
    use super::*;

    #[test]
    fn a_known_reply_is_checked_and_an_unknown_one_is_not() {
        let cas = CompareAndSwap { expected: Some(1), new: 2 };
        for (state, op, reply, next) in [
            (Some(1), Read, Some(Value(Some(1))), Some(Some(1))),
            (Some(1), Read, Some(Value(None)), None),
            (Some(1), Read, Some(Done), None),
            (None, Read, None, Some(None)),
            (None, Write(3), Some(Done), Some(Some(3))),
            (None, Write(3), None, Some(Some(3))),
            (Some(1), cas, Some(Swapped(true)), Some(Some(2))),
            (Some(1), cas, Some(Swapped(false)), None),
            (Some(3), cas, Some(Swapped(false)), Some(Some(3))),
            (Some(1), cas, None, Some(Some(2))),
            (Some(3), cas, None, Some(Some(3))),
        ] {
            assert_eq!(
                Register.step(&state, &op, reply.as_ref()),
                next,
                "{state:?} {op} {reply:?}"
            );
        }
    }
}
