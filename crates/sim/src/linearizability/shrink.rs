//! From a failed search to the few operations that contradict each other.
//!
//! Leaving out operations must not invent a contradiction: without the write, its innocent read is
//! impossible. So nothing is simply removed. Each step replaces the history by one that has an order
//! whenever the original has one; if the replacement still has none, neither has the original.
//!
//! 1. *The end.* The search tells the earliest time by which it has failed. What is invoked later
//!    is dropped; what returns later only **may** take effect. (Any order of the whole, cut off
//!    behind the last operation that returned in time, is an order of this.)
//! 2. *The front.* At a quiescent instant the past comes down to the set of states that it can have
//!    left, which the failed search knows. The window begins there, in any of these states, with
//!    every open operation of the past still to come, even if some were spent. That allows more than
//!    the original did, so the search is repeated to make sure that it still fails.
//! 3. *The middle.* A must becomes a may, at any time after its invocation, wherever the search
//!    fails nevertheless. The musts that remain contradict each other whatever the rest does.
//! 4. *What to show.* Most mays have nothing to do with it, but some explain where a value came from
//!    and why each must is needed: without the write, its reader *alone* would be a contradiction,
//!    and a misleading one. So mays are left out of the report only as long as every must is still
//!    needed: without it, there is an order of the others.
//!
//! What is shown is then a history without an order in its own right: its musts have none with all
//! mays at their disposal, all the less with some of them, or with some of them compelled.

use super::history::Operation;
use super::model::Model;
use super::op_set::OpSet;
use super::problem::{Problem, Role};
use super::search::{Finding, Search};

/// How many returned operations a window should have at most, so that step 3 is cheap. If there is
/// no suitable quiescent instant, the window is made twice as long, and so on.
const WINDOW_OPERATIONS: usize = 64;

/// Operations of one object that have no order, whichever of the states they begin in.
pub(super) struct Contradiction<'a, M: Model> {
    pub(super) from: Vec<M::State>,
    /// In the order of their invocation.
    pub(super) operations: Vec<&'a Operation<M::Op, M::Reply>>,
    /// How many operations returned before the window.
    pub(super) earlier: usize,
    /// How many operations of the window are not shown.
    pub(super) left_out: usize,
}

struct Shrinking<'m, M> {
    model: &'m M,
    /// Configurations that may still be examined. Shrinking stops where this does, and is as sound
    /// there as anywhere.
    visits_left: usize,
}

struct Window<'a, M: Model> {
    from: Vec<M::State>,
    earlier: usize,
    operations: Vec<&'a Operation<M::Op, M::Reply>>,
    /// Which of `operations` returned in time.
    musts: Vec<usize>,
}

/// Shrinks `operations`, for which `search` found no order beyond `blocked_at`.
pub(super) fn shrink<'a, M: Model>(
    operations: &[&'a Operation<M::Op, M::Reply>],
    model: &M,
    search: &Search<'_, 'a, M>,
    blocked_at: u64,
    visited_max: usize,
) -> Contradiction<'a, M> {
    let mut shrinking = Shrinking { model, visits_left: visited_max };
    let window = shrinking.window(operations, search, blocked_at);
    let musts = shrinking.contradictory_musts(&window);
    let shown = shrinking.shown(&window, &musts);
    Contradiction {
        left_out: window.operations.len() - shown.len(),
        operations: shown.into_iter().map(|index| window.operations[index]).collect(),
        from: window.from,
        earlier: window.earlier,
    }
}

impl<M: Model> Shrinking<'_, M> {
    /// Steps 1 and 2.
    fn window<'a>(
        &mut self,
        operations: &[&'a Operation<M::Op, M::Reply>],
        search: &Search<'_, 'a, M>,
        blocked_at: u64,
    ) -> Window<'a, M> {
        let mut in_time: Vec<_> =
            operations.iter().copied().filter(|o| o.invoked <= blocked_at).collect();
        in_time.sort_by_key(|operation| (operation.invoked, operation.invoked_position));
        let returned: Vec<_> = in_time.iter().filter(|o| o.returned().is_some()).collect();

        let window = |cut: usize, from: Vec<M::State>| {
            let begin = returned.get(cut).map(|operation| operation.invoked);
            let is_past = |o: &Operation<_, _>| o.returned().is_some() && Some(o.invoked) < begin;
            let operations: Vec<_> = in_time.iter().copied().filter(|o| !is_past(o)).collect();
            let is_must = |index: &usize| operations[*index].returned() <= Some(blocked_at);
            let returned = |index: &usize| operations[*index].returned().is_some();
            let musts = (0..operations.len()).filter(returned).filter(is_must).collect();
            Window { from, earlier: cut, musts, operations }
        };

        let mut cuts = search.problem().cuts();
        cuts.retain(|cut| *cut < returned.len());
        let mut length = WINDOW_OPERATIONS;
        while length < returned.len() {
            if let Some(&cut) = cuts.iter().find(|cut| returned.len() - **cut <= length) {
                let candidate = window(cut, search.states_after(&OpSet::prefix(cut)));
                if self.is_blocked(&candidate, &candidate.musts) {
                    return candidate;
                }
            }
            length *= 2;
        }
        window(0, vec![self.model.initial()])
    }

    /// Step 3. Reads first: a contradiction between writes and one read says more than one between
    /// reads.
    fn contradictory_musts(&mut self, window: &Window<'_, M>) -> Vec<usize> {
        let mut musts = window.musts.clone();
        musts.sort_by_key(|must| {
            let operation = window.operations[*must];
            !self.model.is_read(&operation.op, operation.reply())
        });
        reduce(musts, |musts| (self.visits_left > 0).then(|| self.is_blocked(window, musts)))
    }

    /// Step 4.
    fn shown(&mut self, window: &Window<'_, M>, musts: &[usize]) -> Vec<usize> {
        let mays = window.all_but(musts);
        let others = |spared: usize| -> Vec<_> {
            musts.iter().copied().filter(|must| *must != spared).collect()
        };
        // All of them, unless step 3 or this one ran out of visits.
        let mut needed = musts.to_vec();
        needed.retain(|must| {
            self.visits_left > 0
                && self.find(window, &others(*must), &[&mays, &[*must][..]].concat())
                    == Finding::Order
        });
        let mut shown = reduce(mays, |mays| {
            let suffices = needed.iter().all(|must| {
                let mays = [mays, &[*must]].concat();
                self.find(window, &others(*must), &mays) == Finding::Order
            });
            (self.visits_left > 0).then_some(suffices)
        });
        shown.extend(musts);
        shown.sort_unstable();
        shown
    }

    /// Whether there is certainly no order of `musts`, when all else in the window may happen.
    fn is_blocked(&mut self, window: &Window<'_, M>, musts: &[usize]) -> bool {
        matches!(self.find(window, musts, &window.all_but(musts)), Finding::Blocked { .. })
    }

    fn find(&mut self, window: &Window<'_, M>, musts: &[usize], mays: &[usize]) -> Finding {
        let musts = musts.iter().map(|must| (window.operations[*must], Role::Must));
        let mays = mays.iter().map(|may| (window.operations[*may], Role::May));
        let problem = Problem::new(self.model, musts.chain(mays));
        let mut search = Search::new(self.model, &problem, self.visits_left);
        let finding = search.run(&window.from);
        let visited = search.visited() + window.operations.len();
        self.visits_left = self.visits_left.saturating_sub(visited);
        finding
    }
}

impl<M: Model> Window<'_, M> {
    fn all_but(&self, some: &[usize]) -> Vec<usize> {
        let mut is_left = vec![true; self.operations.len()];
        for index in some {
            is_left[*index] = false;
        }
        (0..is_left.len()).filter(|index| is_left[*index]).collect()
    }
}

/// Removes items, in ever smaller groups and from the front, as long as the rest suffices, and stops
/// where nobody can tell (`None`). Where more than what suffices does so too, the result has none to
/// spare.
fn reduce(mut items: Vec<usize>, mut suffices: impl FnMut(&[usize]) -> Option<bool>) -> Vec<usize> {
    let mut group = items.len();
    while group > 0 {
        let mut begin = 0;
        while begin < items.len() {
            let end = items.len().min(begin + group);
            let rest = [&items[..begin], &items[end..]].concat();
            match suffices(&rest) {
                Some(true) => items = rest,
                Some(false) => begin = end,
                None => return items,
            }
        }
        group /= 2;
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduces_to_what_is_needed() {
        for needed in [&[][..], &[0], &[99], &[3, 50, 51], &[0, 1, 2, 3]] {
            let all = (0..100).collect();
            let rest = reduce(all, |items| Some(needed.iter().all(|item| items.contains(item))));
            assert_eq!(rest, needed);
        }
    }
}
