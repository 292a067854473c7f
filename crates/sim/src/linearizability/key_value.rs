//! A map from keys to values, each key an object of its own.

use std::fmt;
use std::marker::PhantomData;

use super::Model;

/// A map in which every operation touches one key, so that each key is checked alone.
///
/// Writes that return what they replaced are worth asking for: each such reply names the write
/// before it, which leaves few orders to choose from, and so catches more and costs less.
#[derive(Clone, Copy, Debug)]
pub struct KeyValue<K = String, V = String> {
    types: PhantomData<(K, V)>,
}

impl<K, V> KeyValue<K, V> {
    /// A map that is empty at first.
    #[must_use]
    pub fn new() -> Self {
        Self { types: PhantomData }
    }
}

impl<K, V> Default for KeyValue<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// What can be asked of a [`KeyValue`] map, and of which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValueOp<K, V> {
    /// The key, the only one that the operation reads or changes.
    pub key: K,
    /// What to do with it.
    pub action: KeyValueAction<V>,
}

/// What can be done with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyValueAction<V> {
    /// Read the value. Answered by `Value`.
    Get,
    /// Set the value. Answered by `Done`, or by `Value` with what was there before.
    Put(V),
    /// Remove the value, if there is one. Answered by `Done`, or by `Value` with what was there.
    Delete,
    /// Set `new` (`None` removes) if the value is `expected` (`None` is absent), else change
    /// nothing. Answered by `Swapped`.
    CompareAndSwap {
        /// What must be there.
        expected: Option<V>,
        /// What is there then.
        new: Option<V>,
    },
}

/// What a [`KeyValue`] map answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyValueReply<V> {
    /// The value before the operation; `None` if the key was absent.
    Value(Option<V>),
    /// The operation has taken effect, and the client did not ask what was there before.
    Done,
    /// Whether the value was the expected one, and so was changed.
    Swapped(bool),
}

/// A reply of the wrong kind (a get answered by `Swapped`) is an impossible one.
impl<K, V> Model for KeyValue<K, V>
where
    K: Clone + Ord + fmt::Debug + fmt::Display,
    V: Clone + Ord + fmt::Debug + fmt::Display,
{
    type State = Option<V>;
    type Op = KeyValueOp<K, V>;
    type Reply = KeyValueReply<V>;
    type Key = K;

    fn initial(&self) -> Self::State {
        None
    }

    fn step(
        &self,
        state: &Self::State,
        op: &Self::Op,
        reply: Option<&Self::Reply>,
    ) -> Option<Self::State> {
        use KeyValueAction as Action;
        use KeyValueReply as Reply;

        let possible = match (&op.action, reply) {
            (_, None) | (Action::Put(_) | Action::Delete, Some(Reply::Done)) => true,
            (Action::Get | Action::Put(_) | Action::Delete, Some(Reply::Value(before))) => {
                before == state
            }
            (Action::CompareAndSwap { expected, .. }, Some(Reply::Swapped(swapped))) => {
                *swapped == (expected == state)
            }
            _ => false,
        };
        possible.then(|| match &op.action {
            Action::Put(value) => Some(value.clone()),
            Action::Delete => None,
            Action::CompareAndSwap { expected, new } if expected == state => new.clone(),
            Action::Get | Action::CompareAndSwap { .. } => state.clone(),
        })
    }

    fn is_read(&self, op: &Self::Op, reply: Option<&Self::Reply>) -> bool {
        matches!(op.action, KeyValueAction::Get) || reply == Some(&KeyValueReply::Swapped(false))
    }

    fn is_blind_write(&self, op: &Self::Op, reply: Option<&Self::Reply>) -> bool {
        matches!(op.action, KeyValueAction::Put(_) | KeyValueAction::Delete)
            && matches!(reply, None | Some(KeyValueReply::Done))
    }

    fn key(&self, op: &Self::Op) -> Option<K> {
        Some(op.key.clone())
    }
}

impl<K: fmt::Display, V: fmt::Display> fmt::Display for KeyValueOp<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.action {
            KeyValueAction::Get => write!(f, "get {key}"),
            KeyValueAction::Put(value) => write!(f, "put {key} = {value}"),
            KeyValueAction::Delete => write!(f, "delete {key}"),
            KeyValueAction::CompareAndSwap { expected, new } => {
                write!(f, "cas {key} {} -> {}", OrAbsent(expected), OrAbsent(new))
            }
        }
    }
}

impl<V: fmt::Display> fmt::Display for KeyValueReply<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{}", OrAbsent(value)),
            Self::Done => write!(f, "done"),
            Self::Swapped(true) => write!(f, "swapped"),
            Self::Swapped(false) => write!(f, "not swapped"),
        }
    }
}

struct OrAbsent<'a, V>(&'a Option<V>);

impl<V: fmt::Display> fmt::Display for OrAbsent<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value}"),
            None => write!(f, "absent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::KeyValueAction::{CompareAndSwap, Delete, Get, Put};
    use super::KeyValueReply::{Done, Swapped, Value};
    use super::*;

    #[test]
    fn a_known_reply_is_checked_and_an_unknown_one_is_not() {
        let model = KeyValue::<&str, u64>::new();
        let take = CompareAndSwap { expected: Some(1), new: None };
        let create = CompareAndSwap { expected: None, new: Some(5) };
        for (state, action, reply, next) in [
            (Some(1), Get, Some(Value(Some(1))), Some(Some(1))),
            (Some(1), Get, Some(Value(None)), None),
            (Some(1), Get, Some(Done), None),
            (Some(1), Put(2), Some(Done), Some(Some(2))),
            (Some(1), Put(2), Some(Value(Some(1))), Some(Some(2))),
            (Some(1), Put(2), Some(Value(None)), None),
            (Some(1), Put(2), Some(Swapped(true)), None),
            (None, Delete, Some(Value(None)), Some(None)),
            (Some(1), Delete, Some(Value(None)), None),
            (Some(1), Delete, None, Some(None)),
            (Some(1), take.clone(), Some(Swapped(true)), Some(None)),
            (Some(2), take.clone(), Some(Swapped(true)), None),
            (Some(2), take, None, Some(Some(2))),
            (None, create.clone(), Some(Swapped(true)), Some(Some(5))),
            (Some(1), create, Some(Swapped(false)), Some(Some(1))),
        ] {
            let op = KeyValueOp { key: "k", action };
            assert_eq!(model.step(&state, &op, reply.as_ref()), next, "{state:?} {op} {reply:?}");
        }
    }
}
