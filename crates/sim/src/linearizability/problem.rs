//! The operations of one object, prepared for the search.

use std::collections::BTreeMap;

use super::history::{ClientId, Operation};
use super::model::Model;
use super::op_set::OpSet;

/// How an operation takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It took effect between its invocation and its return.
    Must,
    /// It may take effect at any time after its invocation, with its reply if it has one, or never.
    May,
}

/// An operation of either role, as far as both have the same.
pub(super) struct Call<'a, M: Model> {
    pub(super) op: &'a M::Op,
    pub(super) reply: Option<&'a M::Reply>,
    /// See [`Model::is_read`].
    pub(super) is_read: bool,
    /// See [`Model::is_blind_write`].
    pub(super) is_blind_write: bool,
    pub(super) invoked: u64,
    /// Musts of the same client that ended at the very instant at which this one began. The times
    /// alone would make them overlap.
    after: Vec<usize>,
}

impl<M: Model> Call<'_, M> {
    /// The state it leads to, unless its reply is impossible in `state`.
    pub(super) fn step(&self, model: &M, state: &M::State) -> Option<M::State> {
        model.step(state, self.op, self.reply)
    }
}

/// What is to be put in order.
pub(super) struct Problem<'a, M: Model> {
    /// In the order of their invocation.
    pub(super) musts: Vec<Call<'a, M>>,
    /// When each must returned.
    returned: Vec<u64>,
    /// In the order of their invocation.
    pub(super) mays: Vec<Call<'a, M>>,
    /// Those to which it can make a difference what comes before.
    sensitive_mays: Vec<usize>,
    /// For each blind write among the mays, the mays that change the state that it leaves behind,
    /// whatever there was before. Without this, every configuration would have to try all pairs.
    followers: Vec<Option<Vec<usize>>>,
    /// For each may an earlier one that can always take its place.
    twin: Vec<Option<usize>>,
}

/// The musts that can be next, given those that are linearized.
pub(super) struct Frontier {
    /// In the order of their return.
    pub(super) next: Vec<usize>,
    /// The earliest return among musts not linearized: what is invoked later cannot be next.
    pub(super) deadline: u64,
}

impl<'a, M: Model> Problem<'a, M> {
    /// Takes each operation in its role; failed ones must have been left out.
    pub(super) fn new(
        model: &M,
        operations: impl IntoIterator<Item = (&'a Operation<M::Op, M::Reply>, Role)>,
    ) -> Self {
        let mut operations: Vec<_> = operations.into_iter().collect();
        operations.sort_by_key(|(operation, _)| (operation.invoked, operation.invoked_position));

        let mut returned = Vec::new();
        let mut ended: BTreeMap<(ClientId, u64), Vec<(usize, usize)>> = BTreeMap::new();
        for (operation, role) in &operations {
            if let (Role::Must, Some(at)) = (role, operation.returned()) {
                let ends = ended.entry((operation.client, at)).or_default();
                ends.push((operation.returned_position, returned.len()));
                returned.push(at);
            }
        }

        let (mut musts, mut mays) = (Vec::new(), Vec::new());
        for (operation, role) in operations {
            let instant = (operation.client, operation.invoked);
            let ends = ended.get(&instant).map_or(&[][..], Vec::as_slice);
            let after = ends.iter().filter(|(position, _)| *position < operation.invoked_position);
            let call = Call {
                op: &operation.op,
                reply: operation.reply(),
                is_read: model.is_read(&operation.op, operation.reply()),
                is_blind_write: model.is_blind_write(&operation.op, operation.reply()),
                invoked: operation.invoked,
                after: after.map(|(_, must)| *must).collect(),
            };
            match role {
                Role::Must => musts.push(call),
                Role::May => mays.push(call),
            }
        }
        let sensitive_mays: Vec<_> =
            (0..mays.len()).filter(|may| !mays[*may].is_blind_write).collect();
        let followers = |call: &Call<'_, M>| {
            let state = call.step(model, &model.initial()).filter(|_| call.is_blind_write)?;
            let changes = |may: &usize| mays[*may].step(model, &state).is_some_and(|s| s != state);
            Some(sensitive_mays.iter().copied().filter(changes).collect())
        };
        Self {
            followers: mays.iter().map(followers).collect(),
            twin: twins(&mays),
            musts,
            returned,
            mays,
            sensitive_mays,
        }
    }

    /// `None` once all musts are linearized.
    pub(super) fn frontier(&self, linearized: &OpSet) -> Option<Frontier> {
        let mut next = Vec::new();
        let mut deadline = None;
        for must in linearized.first_absent()..self.musts.len() {
            if deadline.is_some_and(|deadline| deadline < self.musts[must].invoked) {
                break;
            }
            if !linearized.contains(must) {
                let returned = self.returned[must];
                deadline = Some(deadline.map_or(returned, |deadline: u64| deadline.min(returned)));
                next.push(must);
            }
        }
        next.retain(|must| follows_its_client(&self.musts[*must], linearized));
        next.sort_by_key(|must| self.returned[*must]);
        deadline.map(|deadline| Frontier { next, deadline })
    }

    /// How many musts were running at once, at most.
    pub(super) fn overlap_max(&self) -> usize {
        let mut returned = self.returned.clone();
        returned.sort_unstable();
        let running = self.musts.iter().enumerate().map(|(before, call)| {
            before + 1 - returned.partition_point(|returned| *returned < call.invoked)
        });
        running.max().unwrap_or(0)
    }

    /// The mays to which it can make a difference what comes before.
    pub(super) fn sensitive_mays(&self) -> &[usize] {
        &self.sensitive_mays
    }

    /// The mays that change anything right after this one.
    pub(super) fn followers(&self, may: usize) -> &[usize] {
        self.followers[may].as_deref().unwrap_or(&self.sensitive_mays)
    }

    /// Those of the given mays that can be next before `deadline`, without those that differ in
    /// nothing from one that can also be next.
    pub(super) fn next_among(
        &self,
        mays: impl IntoIterator<Item = usize>,
        linearized: &OpSet,
        deadline: u64,
        is_spent: impl Fn(usize) -> bool,
    ) -> impl Iterator<Item = usize> {
        mays.into_iter().take_while(move |may| self.mays[*may].invoked <= deadline).filter(
            move |may| {
                !is_spent(*may)
                    && self.twin[*may].is_none_or(&is_spent)
                    && follows_its_client(&self.mays[*may], linearized)
            },
        )
    }

    /// Every number of musts, in the order of their invocation, after which there is a *quiescent*
    /// instant: all of them have returned strictly before any other must is invoked.
    pub(super) fn cuts(&self) -> Vec<usize> {
        let mut latest_return = None;
        let mut cuts = Vec::new();
        for (must, call) in self.musts.iter().enumerate() {
            if latest_return < Some(call.invoked) {
                cuts.push(must);
            }
            latest_return = latest_return.max(Some(self.returned[must]));
        }
        cuts
    }
}

fn follows_its_client<M: Model>(call: &Call<'_, M>, linearized: &OpSet) -> bool {
    call.after.iter().all(|must| linearized.contains(*must))
}

/// Two equal operations of unknown outcome are interchangeable, except that the one invoked earlier
/// can do all that the other can. So the later one need not be tried before the earlier one is
/// spent, and of n equal ones n + 1 subsets are tried instead of 2^n.
fn twins<M: Model>(mays: &[Call<'_, M>]) -> Vec<Option<usize>> {
    let alike = |a: &Call<'_, M>, b: &Call<'_, M>| {
        a.reply.is_none() && b.reply.is_none() && a.after.is_empty() && a.op == b.op
    };
    let earlier = |may: usize| (0..may).rev().find(|twin| alike(&mays[*twin], &mays[may]));
    (0..mays.len()).map(earlier).collect()
}

#[cfg(test)]
mod tests {
    use super::super::history::History;
    use super::super::register::{Register, RegisterOp, RegisterReply};
    use super::*;

    fn reads(intervals: &[(u64, u64)]) -> History<RegisterOp, RegisterReply> {
        let mut history = History::new();
        for (client, (invoked, returned)) in (0..).map(ClientId).zip(intervals) {
            let id = history.invoke(client, RegisterOp::Read, *invoked);
            history.complete(id, RegisterReply::Value(None), *returned);
        }
        history
    }

    fn problem(history: &History<RegisterOp, RegisterReply>) -> Problem<'_, Register> {
        let operations = history.operations().iter().map(|operation| (operation, Role::Must));
        Problem::new(&Register, operations)
    }

    #[test]
    fn cuts_where_nothing_is_running() {
        let cuts = |intervals: &[_]| problem(&reads(intervals)).cuts();
        assert_eq!(cuts(&[]), []);
        assert_eq!(cuts(&[(0, 1), (2, 3), (4, 5)]), [0, 1, 2]);
        assert_eq!(cuts(&[(0, 9), (2, 3), (4, 5), (10, 11)]), [0, 3]);
        assert_eq!(cuts(&[(0, 1), (1, 2), (2, 3)]), [0], "equal times overlap");
    }

    #[test]
    fn counts_what_runs_at_once() {
        let overlap_max = |intervals: &[_]| problem(&reads(intervals)).overlap_max();
        assert_eq!(overlap_max(&[]), 0);
        assert_eq!(overlap_max(&[(0, 1), (2, 3), (4, 5)]), 1);
        assert_eq!(overlap_max(&[(0, 9), (2, 3), (4, 5), (10, 11)]), 2);
        assert_eq!(overlap_max(&[(0, 1), (1, 2), (2, 3)]), 2, "equal times overlap");
    }

    #[test]
    fn frontier_is_what_nothing_left_precedes() {
        let history = reads(&[(0, 9), (1, 3), (3, 5), (4, 6)]);
        let frontier = |linearized: OpSet| {
            let frontier = problem(&history).frontier(&linearized);
            frontier.map(|frontier| (frontier.next, frontier.deadline))
        };
        assert_eq!(frontier(OpSet::default()), Some((vec![1, 2, 0], 3)), "earliest return first");
        assert_eq!(frontier(OpSet::default().with(1)), Some((vec![2, 3, 0], 5)));
        assert_eq!(frontier(OpSet::prefix(3)), Some((vec![3], 6)));
        assert_eq!(frontier(OpSet::prefix(4)), None);
    }
}
