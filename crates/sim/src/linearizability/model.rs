//! What a system is supposed to do: its sequential specification.

use std::fmt;

/// A sequential specification: how the object behaves when operations come one at a time.
///
/// `step` must be a function: the same state, operation and reply always give the same answer. An
/// object whose next state is not determined by its state and the operation cannot be described.
pub trait Model {
    /// The object's state. The order is used only to remember which states were seen: any total
    /// order that agrees with equality will do, so derive it.
    type State: Clone + Ord + fmt::Debug;
    /// What clients ask. Equal operations must behave alike.
    type Op: Clone + PartialEq + fmt::Display;
    /// What they are told.
    type Reply: Clone + fmt::Display;
    /// Names one of several independent objects; `()` where there is only one.
    type Key: Clone + Ord + fmt::Debug;

    /// The state before the first operation, for every key.
    fn initial(&self) -> Self::State;

    /// The state after `op`, or `None` if `op` cannot give this `reply` in this `state`.
    ///
    /// Without a reply, nothing is known about the outcome and nothing is to be checked: return the
    /// state that `op` leads to.
    fn step(
        &self,
        state: &Self::State,
        op: &Self::Op,
        reply: Option<&Self::Reply>,
    ) -> Option<Self::State>;

    /// Whether `op`, where it can give this `reply` at all, leaves *every* state as it is: a read, or
    /// a compare-and-swap that did not swap.
    ///
    /// `false` is always right. `true` makes the check cheaper and counterexamples clearer; where it
    /// is wrong, so are the verdicts.
    fn is_read(&self, op: &Self::Op, reply: Option<&Self::Reply>) -> bool {
        let _ = (op, reply);
        false
    }

    /// Whether `op` with this `reply` leads from *every* state to one and the same: a write whose
    /// reply tells nothing of what was there before.
    ///
    /// `false` is always right. `true` makes the check cheaper where outcomes are unknown; where it
    /// is wrong, so are the verdicts.
    fn is_blind_write(&self, op: &Self::Op, reply: Option<&Self::Reply>) -> bool {
        let _ = (op, reply);
        false
    }

    /// Which object `op` belongs to.
    ///
    /// Operations with different keys must not influence each other, for each key is checked
    /// on its own, with a state of its own. That is exact, because linearizability is *local*
    /// (Herlihy & Wing, theorem 1), and it is what makes long histories cheap. A model whose
    /// operations span keys returns `None` for all of them, which makes them one object.
    fn key(&self, op: &Self::Op) -> Option<Self::Key> {
        let _ = op;
        None
    }
}

/// Many independent copies of one model, told apart by a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keyed<M, K> {
    model: M,
    key: std::marker::PhantomData<K>,
}

impl<M, K> Keyed<M, K> {
    /// A copy of `model` for every key.
    pub fn new(model: M) -> Self {
        Self { model, key: std::marker::PhantomData }
    }
}

/// An operation on one of the copies of a [`Keyed`] model. Prints as `key: op`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedOp<K, Op> {
    /// Which copy.
    pub key: K,
    /// What to do with it.
    pub op: Op,
}

impl<K: fmt::Display, Op: fmt::Display> fmt::Display for KeyedOp<K, Op> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.op)
    }
}

/// The keys of `M` itself, if it has any, are not used: a copy is one object.
impl<M, K> Model for Keyed<M, K>
where
    M: Model,
    K: Clone + Ord + fmt::Debug + fmt::Display,
{
    type State = M::State;
    type Op = KeyedOp<K, M::Op>;
    type Reply = M::Reply;
    type Key = K;

    fn initial(&self) -> Self::State {
        self.model.initial()
    }

    fn step(
        &self,
        state: &Self::State,
        op: &Self::Op,
        reply: Option<&Self::Reply>,
    ) -> Option<Self::State> {
        self.model.step(state, &op.op, reply)
    }

    fn is_read(&self, op: &Self::Op, reply: Option<&Self::Reply>) -> bool {
        self.model.is_read(&op.op, reply)
    }

    fn is_blind_write(&self, op: &Self::Op, reply: Option<&Self::Reply>) -> bool {
        self.model.is_blind_write(&op.op, reply)
    }

    fn key(&self, op: &Self::Op) -> Option<K> {
        Some(op.key.clone())
    }
}
