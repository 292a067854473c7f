//! Did the system behave as if it were one machine? A linearizability checker.
//!
//! # The problem
//!
//! Clients call a replicated system and overlap in time. What they see is *linearizable* if each
//! operation seems to take effect at one instant between its invocation and its return: there must
//! be one order of all operations that a single, sequential copy could have executed to give
//! exactly these replies, and that keeps every operation behind those that had returned before it
//! was invoked (Herlihy & Wing, 1990). A stale read, a lost update, a write applied twice have no
//! such order.
//!
//! ```
//! use quorate_sim::linearizability::{
//!     ClientId, History, Limits, Register, RegisterOp, RegisterReply, check,
//! };
//!
//! let (alice, bob) = (ClientId(1), ClientId(2));
//! let mut history = History::new();
//! let write = history.invoke(alice, RegisterOp::Write(7), 10);
//! history.complete(write, RegisterReply::Done, 20);
//! let read = history.invoke(bob, RegisterOp::Read, 30);
//! history.complete(read, RegisterReply::Value(None), 40);
//!
//! let verdict = check(&Register, &history, Limits::default());
//! assert!(!verdict.is_linearizable());
//! assert_eq!(
//!     verdict.to_string(),
//!     "\
//! not linearizable
//! state before: None (at the start)
//!
//! client  invoked  returned  operation  reply
//! c1           10        20  write 7    done     |--|
//! c2           30        40  read       nothing        |--|  <- no order explains this
//! "
//! );
//! ```
//!
//! The checker judges what clients saw. It knows nothing of logs or terms, so it cannot share a
//! misunderstanding with the system under test. The same arguments give the same verdict.
//!
//! # What is known of an operation
//!
//! * It *returned*: it took effect once, within its interval, with its reply.
//! * It is *open*: there was no reply, so it may take effect at any later time, or never. A request
//!   that timed out is not a failed one: the entry may be in some log, and commit much later.
//! * It *failed*: it certainly has no effect, ever. To record a mere time-out as a failure accuses
//!   the system wrongly; to leave a certain failure open hides errors and costs time.
//!
//! Other systems are described by a [`Model`]. [`Register`] and [`KeyValue`] are included, and
//! [`Keyed`] makes many objects of one.
//!
//! # The algorithm
//!
//! *Wing & Gong* (1993): choose a first operation among those that no other operation precedes,
//! let the model execute it, check the reply, go on with the rest; where none fits, go back. *Lowe*
//! (2017) adds memory: two partial orders of the same operations that lead to the same state have
//! the same future, so such a *configuration* is explored once. This bounds the work by the overlap
//! between operations: at an instant without overlap only the state is left to distinguish
//! configurations, and a long history is no harder than its parts. As both have it, objects that do
//! not influence each other are checked each on its own (Herlihy & Wing's *locality*).
//!
//! Lowe, and the tools knossos and porcupine after him, walk depth-first through a doubly linked
//! list of events, from which operations are lifted and to which they are put back. That is the
//! wrong order for open operations: with k of them, each of which may be used or not, there are 2^k
//! ways to go astray before going back. Here a configuration is a value (a bit set whose full prefix
//! is only counted, and a state) that waits in a queue until it is the most promising. Five rules
//! keep the number of configurations down. None of them loses an order:
//!
//! * A read that can be next and fits is next, without an alternative. So reads cost nothing.
//! * Open operations are tried last, where the others lead nowhere, and fewest first.
//! * An open operation is only used just before one to which it makes a difference. After a blind
//!   write, nothing that came before makes one.
//! * Of two configurations that differ only in open operations spent, the one that spent more is
//!   dropped if the other spent a subset.
//! * Of equal open operations, the one invoked first is used first.
//!
//! What is a read and what is a blind write, the [`Model`] says, or leaves unsaid.
//!
//! A failure is reduced to the operations that contradict each other; `shrink.rs` tells how, and
//! why that cannot accuse the innocent.
//!
//! # Limits
//!
//! The problem is NP-complete (Gibbons & Korach, 1997). When many writes overlap *and* there is no
//! order, all their subsets have to be explored; [`Limits`] ends that, and the verdict says so.
//! Values that are written only once, replies that tell what was replaced, and several keys make
//! histories both easier and more telling. Memory grows with the number of configurations: about
//! 200 bytes for each operation of the largest key.
//!
//! Operations on different keys are ordered by time alone, even at equal times by one client; see
//! [`History`]. Only single objects are judged: a transaction over several keys needs a model whose
//! state holds them all.
//!
//! # Literature
//!
//! * M. Herlihy, J. Wing. *Linearizability: A Correctness Condition for Concurrent Objects.* ACM
//!   TOPLAS 12(3), 1990.
//! * J. Wing, C. Gong. *Testing and Verifying Concurrent Objects.* Journal of Parallel and
//!   Distributed Computing 17, 1993.
//! * P. Gibbons, E. Korach. *Testing Shared Memories.* SIAM Journal on Computing 26(4), 1997.
//! * G. Lowe. *Testing for Linearizability.* Concurrency and Computation: Practice and Experience
//!   29(4), 2017.

mod chains;
mod check;
mod history;
mod key_value;
mod model;
mod op_set;
mod problem;
mod register;
mod report;
mod search;
mod shrink;
#[cfg(test)]
mod tests;

pub use check::{Limits, Verdict, check};
pub use history::{ClientId, History, OpId, Operation, Outcome};
pub use key_value::{KeyValue, KeyValueAction, KeyValueOp, KeyValueReply};
pub use model::{Keyed, KeyedOp, Model};
pub use register::{Register, RegisterOp, RegisterReply};
pub use report::Counterexample;
