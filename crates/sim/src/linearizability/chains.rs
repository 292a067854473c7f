//! Operations of unknown outcome, taken in a row.

use std::collections::BTreeMap;

use super::model::Model;
use super::op_set::OpSet;
use super::problem::Problem;

/// Some mays, one after another, and the state they lead to.
pub(super) struct Chain<S> {
    /// Sorted; the order in which they come no longer matters.
    mays: Vec<usize>,
    pub(super) state: S,
}

/// The chains of one length that could come between a configuration and its next must.
///
/// Only chains without a superfluous member are kept: what another chain reaches with some of the
/// same mays is left out, and so is a may to which what precedes it makes no difference. Hence a
/// blind write is only ever the first of a chain, and with blind writes alone there is none longer
/// than one.
pub(super) struct Chains<S> {
    pub(super) longest: Vec<Chain<S>>,
    /// Which mays lead to which state, for all chains of two and more up to this length.
    reached: BTreeMap<S, Vec<Vec<usize>>>,
}

/// Where chains begin.
pub(super) struct Origin<'c, S> {
    pub(super) linearized: &'c OpSet,
    pub(super) spent: &'c OpSet,
    pub(super) state: &'c S,
    pub(super) deadline: u64,
}

impl<S: Clone + Ord> Chains<S> {
    /// All chains of one may.
    pub(super) fn of_one<M: Model<State = S>>(
        model: &M,
        problem: &Problem<'_, M>,
        origin: &Origin<'_, S>,
    ) -> Self {
        let is_spent = |may| origin.spent.contains(may);
        let longest = problem
            .next_among(0..problem.mays.len(), origin.linearized, origin.deadline, is_spent)
            .filter_map(|may| {
                let state = problem.mays[may].step(model, origin.state)?;
                (state != *origin.state).then(|| Chain { mays: vec![may], state })
            })
            .collect();
        Self { longest, reached: BTreeMap::new() }
    }

    /// All chains that are longer by one, or at least `count_max` of them.
    pub(super) fn lengthened<M: Model<State = S>>(
        mut self,
        model: &M,
        problem: &Problem<'_, M>,
        origin: &Origin<'_, S>,
        count_max: usize,
    ) -> Self {
        let mut longest = Vec::new();
        for chain in &self.longest {
            if longest.len() >= count_max {
                break;
            }
            let is_spent = |may| origin.spent.contains(may) || chain.mays.contains(&may);
            let mays = match chain.mays[..] {
                [first] => problem.followers(first),
                _ => problem.sensitive_mays(),
            };
            let mays = mays.iter().copied();
            for may in problem.next_among(mays, origin.linearized, origin.deadline, is_spent) {
                let Some(state) = problem.mays[may].step(model, &chain.state) else {
                    continue;
                };
                let mut mays = chain.mays.clone();
                mays.insert(mays.partition_point(|other| *other < may), may);
                let reaches = |may: &usize| {
                    problem.mays[*may].step(model, origin.state).as_ref() == Some(&state)
                };
                if state == *origin.state || state == chain.state || mays.iter().any(reaches) {
                    continue; // None or one of them would do.
                }
                let known = self.reached.entry(state.clone()).or_default();
                if !known.iter().any(|known| is_subset(known, &mays)) {
                    known.push(mays.clone());
                    longest.push(Chain { mays, state });
                }
            }
        }
        self.longest = longest;
        self
    }
}

impl<S> Chain<S> {
    pub(super) fn len(&self) -> usize {
        self.mays.len()
    }

    /// `spent` and these.
    pub(super) fn spent_after(&self, spent: &OpSet) -> OpSet {
        self.mays.iter().fold(spent.clone(), |spent, may| spent.with(*may))
    }
}

/// Of sorted lists.
fn is_subset(some: &[usize], all: &[usize]) -> bool {
    some.iter().all(|member| all.binary_search(member).is_ok())
}
