//! The search for an order of the operations of one object.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use super::chains::{Chain, Chains, Origin};
use super::model::Model;
use super::op_set::OpSet;
use super::problem::{Frontier, Problem};

/// How many single mays can be tried in the time that one configuration takes, roughly.
const MAYS_PER_CONFIGURATION: usize = 32;

/// What a search found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// There is an order.
    Order,
    /// There is none: in no order can all musts that return at or before this time take effect.
    /// All that return strictly before it can.
    Blocked { at: u64 },
    /// The limit was reached first.
    Undecided,
}

/// A search for one order of all musts and any of the mays.
///
/// A *configuration* is what a partial order comes down to: the musts linearized, the mays spent,
/// and the state. The search is best-first over configurations, deepest first, so it behaves like
/// a depth-first search as long as no may has to be spent.
pub(super) struct Search<'p, 'a, M: Model> {
    model: &'p M,
    problem: &'p Problem<'a, M>,
    /// How many musts the search steps back before it spends one more may. Too few, and a wrong
    /// order of two overlapping writes is "repaired" by assuming that a lost write came back; too
    /// many, and orders are tried all over again where a lost write did come back. A wrong order
    /// shows once all have returned that overlapped it, hence a measure that grows with overlap.
    /// (Measured on 20,000 operations: half as many cost 3 times the configurations where there is
    /// no order, and without a bound a plain search with 1,000 mays takes 80 times as long.)
    steps_back: usize,
    /// For each set of musts and each state, the sets of mays spent to get there, without those
    /// that contain another: what can be reached after spending more can be reached after spending
    /// less.
    memo: BTreeMap<(OpSet, M::State), Vec<Rc<OpSet>>>,
    queue: BinaryHeap<Task<M::State>>,
    /// What was worth remembering: configurations, and chains of more than one may.
    remembered: usize,
    mays_tried: usize,
    visited_max: usize,
    /// The latest deadline that stopped a configuration.
    furthest: u64,
    tasks_created: usize,
}

struct Configuration<S> {
    linearized: OpSet,
    linearized_count: usize,
    spent: Rc<OpSet>,
    spent_count: usize,
    state: S,
}

struct Task<S> {
    priority: usize,
    created: usize,
    configuration: Configuration<S>,
    stage: Stage<S>,
}

/// How the next must of a configuration is to be reached.
enum Stage<S> {
    Directly,
    AfterOneMay,
    /// After a chain longer by one than these.
    AfterMoreThan(Chains<S>),
}

impl<'p, 'a, M: Model> Search<'p, 'a, M> {
    pub(super) fn new(model: &'p M, problem: &'p Problem<'a, M>, visited_max: usize) -> Self {
        Self {
            model,
            problem,
            steps_back: 2 * problem.overlap_max(),
            memo: BTreeMap::new(),
            queue: BinaryHeap::new(),
            remembered: 0,
            mays_tried: 0,
            visited_max,
            furthest: 0,
            tasks_created: 0,
        }
    }

    /// Looks for an order that begins in any of the states `from`.
    pub(super) fn run(&mut self, from: &[M::State]) -> Finding {
        for state in from {
            self.enqueue(Configuration {
                linearized: OpSet::default(),
                linearized_count: 0,
                spent: Rc::default(),
                spent_count: 0,
                state: state.clone(),
            });
        }
        while let Some(Task { configuration, stage, .. }) = self.queue.pop() {
            if self.visited() > self.visited_max {
                return Finding::Undecided;
            }
            let Some(frontier) = self.problem.frontier(&configuration.linearized) else {
                return Finding::Order;
            };
            match stage {
                Stage::Directly => self.try_directly(configuration, &frontier),
                Stage::AfterOneMay => self.try_after_chain(configuration, None, &frontier),
                Stage::AfterMoreThan(chains) => {
                    self.try_after_chain(configuration, Some(chains), &frontier);
                }
            }
        }
        Finding::Blocked { at: self.furthest }
    }

    pub(super) fn problem(&self) -> &'p Problem<'a, M> {
        self.problem
    }

    /// How much was examined so far, in configurations.
    pub(super) fn visited(&self) -> usize {
        self.remembered + self.mays_tried / MAYS_PER_CONFIGURATION
    }

    /// After [`Finding::Blocked`]: the states in which exactly these musts can have been linearized.
    pub(super) fn states_after(&self, musts: &OpSet) -> Vec<M::State> {
        let entries = self.memo.keys().filter(|(linearized, _)| linearized == musts);
        entries.map(|(_, state)| state.clone()).collect()
    }

    fn try_directly(&mut self, configuration: Configuration<M::State>, frontier: &Frontier) {
        self.furthest = self.furthest.max(frontier.deadline);
        let mut successors = Vec::new();
        for &must in &frontier.next {
            let call = &self.problem.musts[must];
            let Some(state) = call.step(self.model, &configuration.state) else {
                continue;
            };
            // A read that can be next and fits may as well be next: any order that begins here stays
            // one when the read is moved to its front. (Nothing that is left returned before the
            // read was invoked, or it could not be next.)
            if call.is_read {
                debug_assert!(state == configuration.state, "Model::is_read is wrong");
                self.enqueue(configuration.with_must(must, state));
                return;
            }
            successors.push((must, state));
        }
        // Of equal priority the latest task goes first: the must that returns earliest.
        for (must, state) in successors.into_iter().rev() {
            self.enqueue(configuration.with_must(must, state));
        }
        self.push(configuration, Stage::AfterOneMay);
    }

    /// A may is only ever linearized just before a must, or in a chain of mays that ends in a must,
    /// to which it makes a difference: elsewhere it can as well be left unspent.
    fn try_after_chain(
        &mut self,
        configuration: Configuration<M::State>,
        shorter: Option<Chains<M::State>>,
        frontier: &Frontier,
    ) {
        let (model, problem) = (self.model, self.problem);
        let sensitive: Vec<_> = (frontier.next.iter())
            .map(|must| (*must, &problem.musts[*must]))
            .filter(|(_, call)| !call.is_blind_write)
            .map(|(must, call)| (must, call, call.step(model, &configuration.state)))
            .collect();
        if sensitive.is_empty() {
            return;
        }
        let origin = Origin {
            linearized: &configuration.linearized,
            spent: &configuration.spent,
            state: &configuration.state,
            deadline: frontier.deadline,
        };
        let chains = if let Some(chains) = shorter {
            let count_max = self.visited_max.saturating_sub(self.visited()) + 1;
            let chains = chains.lengthened(model, problem, &origin, count_max);
            self.remembered += chains.longest.len();
            chains
        } else {
            let chains = Chains::of_one(model, problem, &origin);
            self.mays_tried += chains.longest.len();
            chains
        };
        for chain in &chains.longest {
            for (must, call, directly) in &sensitive {
                let after = call.step(model, &chain.state);
                if after != *directly
                    && let Some(state) = after
                {
                    self.enqueue(configuration.with_chain(chain).with_must(*must, state));
                }
            }
        }
        self.push(configuration, Stage::AfterMoreThan(chains));
    }

    /// Queues the configuration unless one at least as good was queued before.
    fn enqueue(&mut self, configuration: Configuration<M::State>) {
        let key = (configuration.linearized.clone(), configuration.state.clone());
        let known = self.memo.entry(key).or_default();
        if known.iter().any(|spent| spent.is_subset(&configuration.spent)) {
            return;
        }
        known.retain(|spent| !configuration.spent.is_subset(spent));
        known.push(Rc::clone(&configuration.spent));
        self.remembered += 1;
        self.push(configuration, Stage::Directly);
    }

    /// Queues another stage of the configuration, unless it is known to lead nowhere.
    fn push(&mut self, configuration: Configuration<M::State>, stage: Stage<M::State>) {
        let mays = match &stage {
            Stage::Directly => 0,
            Stage::AfterOneMay => 1,
            Stage::AfterMoreThan(chains) => match chains.longest.first() {
                Some(chain) if !self.problem.sensitive_mays().is_empty() => chain.len() + 1,
                _ => return,
            },
        };
        let spent_count = configuration.spent_count + mays;
        let Some(unspent) = self.problem.mays.len().checked_sub(spent_count) else {
            return; // There are not that many.
        };
        self.tasks_created += 1;
        self.queue.push(Task {
            priority: configuration.linearized_count + self.steps_back * unspent,
            created: self.tasks_created,
            configuration,
            stage,
        });
    }
}

impl<S: Clone> Configuration<S> {
    fn with_must(&self, must: usize, state: S) -> Self {
        Self {
            linearized: self.linearized.with(must),
            linearized_count: self.linearized_count + 1,
            spent: Rc::clone(&self.spent),
            spent_count: self.spent_count,
            state,
        }
    }

    fn with_chain(&self, chain: &Chain<S>) -> Self {
        Self {
            linearized: self.linearized.clone(),
            linearized_count: self.linearized_count,
            spent: Rc::new(chain.spent_after(&self.spent)),
            spent_count: self.spent_count + chain.len(),
            state: chain.state.clone(),
        }
    }
}

/// By priority, then the latest first, which makes the search depth-first among equals.
impl<S> Ord for Task<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.priority, self.created).cmp(&(other.priority, other.created))
    }
}

impl<S> PartialOrd for Task<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S> PartialEq for Task<S> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<S> Eq for Task<S> {}
