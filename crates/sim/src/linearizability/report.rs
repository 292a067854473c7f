//! A contradiction as a person wants to see it.

use std::collections::BTreeSet;
use std::fmt;

use super::history::Operation;
use super::model::Model;
use super::shrink::Contradiction;

/// A few operations on one object that no order explains.
///
/// They contradict each other whatever the operations that are not shown do; `shrink.rs` says why.
/// Prints as a chart over time, one line for each operation.
#[non_exhaustive]
pub struct Counterexample<M: Model> {
    /// The object, for models that have several.
    pub key: Option<M::Key>,
    /// The states that the object can have been in before the operations shown. From none of them
    /// is there an order.
    pub from: Vec<M::State>,
    /// How many operations on this object had returned by then.
    pub earlier: usize,
    /// The operations in the order of their invocation.
    pub operations: Vec<Operation<M::Op, M::Reply>>,
    /// Which of them returned when no order was left: the first reply that is wrong, though the
    /// cause may lie further back.
    pub unexplained: usize,
    /// How many more operations on this object were running or began since, and do not matter.
    pub left_out: usize,
}

impl<M: Model> Counterexample<M> {
    pub(super) fn new(
        key: Option<M::Key>,
        blocked_at: u64,
        contradiction: Contradiction<'_, M>,
    ) -> Self {
        let Contradiction { from, operations, earlier, left_out } = contradiction;
        let unexplained = operations.iter().rposition(|o| o.returned() == Some(blocked_at));
        Self {
            key,
            from,
            earlier,
            operations: operations.into_iter().cloned().collect(),
            unexplained: unexplained.expect("before that time there is an order"),
            left_out,
        }
    }
}

impl<M: Model> fmt::Debug for Counterexample<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<M: Model> fmt::Display for Counterexample<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not linearizable")?;
        if let Some(key) = &self.key {
            write!(f, ": key {key:?}")?;
        }
        match &self.from[..] {
            [state] => write!(f, "\nstate before: {state:?}")?,
            states => write!(f, "\nstate before: one of {states:?}")?,
        }
        match self.earlier {
            0 => writeln!(f, " (at the start)\n")?,
            1 => writeln!(f, " (after 1 operation)\n")?,
            earlier => writeln!(f, " (after {earlier} operations)\n")?,
        }

        let header = ["client", "invoked", "returned", "operation", "reply"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(header)
            .chain(self.operations.iter().map(|operation| {
                [
                    operation.client.to_string(),
                    operation.invoked.to_string(),
                    operation.returned().map_or("-".to_owned(), |at| at.to_string()),
                    operation.op.to_string(),
                    operation.reply().map_or("unknown".to_owned(), ToString::to_string),
                ]
            }))
            .collect();
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let [client_w, invoked_w, returned_w, op_w, reply_w] = [0, 1, 2, 3, 4].map(width);

        let chart = Chart::of(&self.operations);
        for (index, [client, invoked, returned, op, reply]) in rows.iter().enumerate() {
            let left =
                format!("{client:client_w$}  {invoked:>invoked_w$}  {returned:>returned_w$}");
            let row = format!("{left}  {op:op_w$}  {reply:reply_w$}");
            let Some(index) = index.checked_sub(1) else {
                writeln!(f, "{}", row.trim_end())?;
                continue;
            };
            let bar = chart.bar(&self.operations[index]);
            let mark = if index == self.unexplained { "  <- no order explains this" } else { "" };
            writeln!(f, "{}", format!("{row}  {bar}{mark}").trim_end())?;
        }
        match self.left_out {
            0 => Ok(()),
            1 => writeln!(f, "\n1 other operation left out: whatever it did, it does not help"),
            many => {
                writeln!(
                    f,
                    "\n{many} other operations left out: whatever they did, it does not help"
                )
            }
        }
    }
}

/// Where each instant is drawn. Only the order of instants matters, so each that differs from the
/// one before moves on by the same distance, however long it took.
struct Chart {
    instants: Vec<u64>,
}

const CHART_COLUMNS_MAX: usize = 96;
const COLUMNS_PER_INSTANT: usize = 3;

impl Chart {
    fn of<Op, Reply>(operations: &[Operation<Op, Reply>]) -> Self {
        let invoked = operations.iter().map(|operation| operation.invoked);
        let returned = operations.iter().filter_map(Operation::returned);
        let instants: BTreeSet<_> = invoked.chain(returned).collect();
        Self { instants: instants.into_iter().collect() }
    }

    fn bar<Op, Reply>(&self, operation: &Operation<Op, Reply>) -> String {
        let begin = self.column(self.instants.partition_point(|at| *at < operation.invoked));
        let mut bar = " ".repeat(begin);
        bar.push('|');
        let Some(returned) = operation.returned() else {
            bar.push_str(&"-".repeat(self.column(self.instants.len()) - begin));
            bar.push('>');
            return bar;
        };
        let end = self.column(self.instants.partition_point(|at| *at < returned));
        if end > begin {
            bar.push_str(&"-".repeat(end - begin - 1));
            bar.push('|');
        }
        bar
    }

    fn column(&self, rank: usize) -> usize {
        let columns = CHART_COLUMNS_MAX.min(self.instants.len() * COLUMNS_PER_INSTANT);
        rank * columns / self.instants.len().max(1)
    }
}
