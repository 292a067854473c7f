//! The judge: splits a history by key, searches each part, reports.

use std::collections::BTreeMap;
use std::fmt;

use super::history::{History, Operation, Outcome};
use super::model::Model;
use super::problem::{Problem, Role};
use super::report::Counterexample;
use super::search::{Finding, Search};
use super::shrink::shrink;

/// How much work a check may be.
///
/// Work is counted in *configurations*: which operations are linearized, and the state they lead to.
/// One costs in the order of a microsecond and of 200 bytes, more if states are large. A correct
/// history takes one or two for each operation as a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For the search of one key. Too small, and histories with much overlap end undecided; too
    /// large, and a hopeless one takes long and much memory to end the same way.
    pub configurations_max: usize,
    /// For making a counterexample small. Zero shows all operations from the beginning to the
    /// contradiction.
    pub shrinking_configurations_max: usize,
}

impl Default for Limits {
    /// 2,000,000 for each key and 500,000 for shrinking: seconds at worst.
    fn default() -> Self {
        Self { configurations_max: 2_000_000, shrinking_configurations_max: 500_000 }
    }
}

/// What [`check`] found out.
pub enum Verdict<M: Model> {
    /// For each key there is an order that explains all replies.
    Linearizable,
    /// For one key, perhaps one of several, there is none.
    NotLinearizable(Counterexample<M>),
    /// Some key would have taken more work than the limits allow, and no other key is at fault.
    Undecided {
        /// Configurations examined, those of all keys together.
        visited: usize,
    },
}

impl<M: Model> Verdict<M> {
    /// Whether an order was found. An undecided history is not known to be linearizable.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Self::Linearizable)
    }
}

impl<M: Model> fmt::Debug for Verdict<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<M: Model> fmt::Display for Verdict<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => write!(f, "linearizable"),
            Self::NotLinearizable(counterexample) => write!(f, "{counterexample}"),
            Self::Undecided { visited } => {
                write!(f, "undecided after {visited} configurations")
            }
        }
    }
}

/// Judges whether every reply in `history` can be explained by `model`, if each operation takes
/// effect at one instant between its invocation and its return.
///
/// The same arguments give the same verdict, counterexample included.
pub fn check<M: Model>(
    model: &M,
    history: &History<M::Op, M::Reply>,
    limits: Limits,
) -> Verdict<M> {
    let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for operation in history.operations() {
        if !matches!(operation.outcome, Outcome::Failed) {
            by_key.entry(model.key(&operation.op)).or_default().push(operation);
        }
    }

    let mut visited = 0;
    let mut is_undecided = false;
    for (key, operations) in by_key {
        let problem = Problem::new(model, operations.iter().map(|o| (*o, role(o))));
        let mut search = Search::new(model, &problem, limits.configurations_max);
        let finding = search.run(&[model.initial()]);
        visited += search.visited();
        match finding {
            Finding::Order => {}
            Finding::Undecided => is_undecided = true,
            Finding::Blocked { at } => {
                let visited_max = limits.shrinking_configurations_max;
                let contradiction = shrink(&operations, model, &search, at, visited_max);
                return Verdict::NotLinearizable(Counterexample::new(key, at, contradiction));
            }
        }
    }
    if is_undecided { Verdict::Undecided { visited } } else { Verdict::Linearizable }
}

fn role<Op, Reply>(operation: &Operation<Op, Reply>) -> Role {
    match operation.outcome {
        Outcome::Returned { .. } => Role::Must,
        Outcome::Open | Outcome::Failed => Role::May,
    }
}
