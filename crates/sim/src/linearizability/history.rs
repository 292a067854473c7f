//! What clients saw: the recorded history of a run.

use std::fmt;

/// Who issued an operation. Clients are independent of each other; the operations of one client
/// follow each other, except that one whose outcome stays unknown overlaps all that come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// Names an operation of one [`History`], from its invocation to its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(usize);

/// What the client learnt about its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<Reply> {
    /// Nothing: no reply, a time-out, a lost connection. It may take effect at any time after its
    /// invocation, even long after everything else in the history, or never.
    Open,
    /// It took effect exactly once, between its invocation and `at`, with this reply.
    Returned {
        /// When the client had the reply.
        at: u64,
        /// What it said.
        reply: Reply,
    },
    /// It certainly never took effect and never will. The checker ignores it.
    Failed,
}

/// One operation as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<Op, Reply> {
    /// Who asked.
    pub client: ClientId,
    /// What was asked.
    pub op: Op,
    /// When it was asked.
    pub invoked: u64,
    /// What came of it.
    pub outcome: Outcome<Reply>,
    /// Positions of invocation and completion among all recorded events. They order two operations
    /// of one client where the times do not.
    pub(super) invoked_position: usize,
    pub(super) returned_position: usize,
}

impl<Op, Reply> Operation<Op, Reply> {
    /// When it returned; `None` for an operation without a known reply.
    pub fn returned(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Returned { at, .. } => Some(at),
            Outcome::Open | Outcome::Failed => None,
        }
    }

    /// What it returned; `None` for an operation without a known reply.
    pub fn reply(&self) -> Option<&Reply> {
        match &self.outcome {
            Outcome::Returned { reply, .. } => Some(reply),
            Outcome::Open | Outcome::Failed => None,
        }
    }
}

/// Records who asked what and when, and what came back and when.
///
/// Times are `u64` in any unit, as long as it is one unit for all clients: microseconds of virtual
/// time, or sequence numbers of events. **An operation precedes another if it returned strictly
/// before the other was invoked.** At equal times the two overlap, because nobody can say which
/// event came first. One exception: a client that completes one operation and then invokes the
/// next at the same instant has ordered the two itself, and `History` remembers that from the
/// order of the calls made to it. Calls for different clients may arrive in any order.
///
/// A history grows without bound; whoever records decides how long a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<Op, Reply> {
    operations: Vec<Operation<Op, Reply>>,
    /// Events recorded so far.
    events: usize,
}

impl<Op, Reply> History<Op, Reply> {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self { operations: Vec::new(), events: 0 }
    }

    /// Records that `client` asked for `op`. Until it is completed its outcome is unknown, and it
    /// may stay so for ever.
    pub fn invoke(&mut self, client: ClientId, op: Op, at: u64) -> OpId {
        let position = self.next_position();
        self.operations.push(Operation {
            client,
            op,
            invoked: at,
            outcome: Outcome::Open,
            invoked_position: position,
            returned_position: position,
        });
        OpId(self.operations.len() - 1)
    }

    /// Records the reply.
    ///
    /// # Panics
    ///
    /// If the operation is not open, or if it would return before it was invoked: both mean that
    /// the recording itself is wrong, and any verdict on it would be too.
    pub fn complete(&mut self, id: OpId, reply: Reply, at: u64) {
        let position = self.next_position();
        let operation = self.open_operation(id);
        assert!(operation.invoked <= at, "an operation returns before it was invoked");
        operation.outcome = Outcome::Returned { at, reply };
        operation.returned_position = position;
    }

    /// Records that the operation certainly did not and will not take effect. An error that leaves
    /// any doubt must not be recorded this way: leave the operation open.
    ///
    /// # Panics
    ///
    /// If the operation is not open.
    pub fn fail(&mut self, id: OpId) {
        self.open_operation(id).outcome = Outcome::Failed;
    }

    /// All operations in the order of their recording.
    #[must_use]
    pub fn operations(&self) -> &[Operation<Op, Reply>] {
        &self.operations
    }

    fn open_operation(&mut self, id: OpId) -> &mut Operation<Op, Reply> {
        let operation = &mut self.operations[id.0];
        assert!(
            matches!(operation.outcome, Outcome::Open),
            "an operation is completed or failed twice"
        );
        operation
    }

    fn next_position(&mut self) -> usize {
        self.events += 1;
        self.events
    }
}

impl<Op, Reply> Default for History<Op, Reply> {
    fn default() -> Self {
        Self::new()
    }
}

/// Collects part of a recorded history, for instance the operations of a counterexample.
impl<Op, Reply> FromIterator<Operation<Op, Reply>> for History<Op, Reply> {
    fn from_iter<I: IntoIterator<Item = Operation<Op, Reply>>>(operations: I) -> Self {
        let operations: Vec<_> = operations.into_iter().collect();
        let events = operations.iter().map(|o| o.invoked_position.max(o.returned_position)).max();
        Self { operations, events: events.unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_the_three_outcomes() {
        let mut history = History::new();
        let returned = history.invoke(ClientId(1), "put", 10);
        let failed = history.invoke(ClientId(2), "delete", 11);
        history.invoke(ClientId(3), "get", 12);
        history.complete(returned, "ok", 10);
        history.fail(failed);

        let [put, delete, get] = history.operations() else { panic!("three operations") };
        assert_eq!((put.returned(), put.reply()), (Some(10), Some(&"ok")));
        assert_eq!((delete.returned(), &delete.outcome), (None, &Outcome::Failed));
        assert_eq!((get.reply(), &get.outcome), (None, &Outcome::Open));
    }

    #[test]
    #[should_panic(expected = "returns before it was invoked")]
    fn refuses_a_reply_from_the_past() {
        let mut history = History::new();
        let id = history.invoke(ClientId(1), "put", 10);
        history.complete(id, "ok", 9);
    }

    #[test]
    #[should_panic(expected = "completed or failed twice")]
    fn refuses_a_second_reply() {
        let mut history = History::new();
        let id = history.invoke(ClientId(1), "put", 10);
        history.complete(id, "ok", 11);
        history.complete(id, "ok", 12);
    }
}
