//! What people read at the end: of a run that failed, and of many that did not.

use std::collections::VecDeque;
use std::fmt;

use quorate_raft::Time;

use crate::cluster::Observation;
use crate::marks::Marks;
use crate::run::{Outcome, Plan, Stats, run_watched};
use crate::trace;

/// Lines of the trace that a failure shows.
pub const LINES: usize = 60;

/// Events that are kept in order to show their last lines; many have none.
const KEPT_EVENTS: usize = 500;

/// The lines of a trace: number of the event, time, what happened.
pub fn trace_lines(step: u64, observations: &[Observation]) -> impl Iterator<Item = String> {
    let Time(us) = observations.first().map_or(Time(0), |first| first.at);
    let lines = trace::lines(observations, |_| trace::Detail::default()).into_iter();
    lines.map(move |line| format!("{step:>7} {:>9}.{:03}  {line}", us / 1000, us % 1000))
}

/// Repeats a run and keeps the last `lines` lines of its trace.
#[must_use]
pub fn last_lines(plan: &Plan, lines: usize) -> Vec<String> {
    // Only what may be among the last lines is made into text.
    let mut last: VecDeque<(u64, Vec<Observation>)> = VecDeque::with_capacity(lines + 1);
    let mut keep = |step: u64, observations: &[Observation]| {
        last.push_back((step, observations.to_vec()));
        if last.len() > KEPT_EVENTS {
            last.pop_front();
        }
    };
    let _ = run_watched(plan, &mut keep);
    let all: Vec<String> =
        last.iter().flat_map(|(step, observations)| trace_lines(*step, observations)).collect();
    all[all.len().saturating_sub(lines)..].to_vec()
}

/// Everything that is needed to look into a failure.
///
/// The run is repeated for its trace, so this takes as long as the run did.
#[must_use]
pub fn failure(plan: &Plan, outcome: &Outcome) -> String {
    let Some(violation) = &outcome.violation else { return String::new() };
    let mut text = String::new();
    for line in last_lines(plan, LINES) {
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str(&format!(
        "\nfailed: seed {}, step {}: {}\n  {violation}\n  options: {}\n  replay:  {} --trace\n  \
         shrink:  {}\n",
        plan.seed,
        violation.step,
        violation.property,
        plan.options,
        plan.command(),
        plan.command().replace(" replay ", " shrink "),
    ));
    text
}

/// A failure in one line, for programs. `simulated_us` is the virtual time until it was found.
#[must_use]
pub fn failure_line(outcome: &Outcome, simulated_us: u64) -> String {
    let Some(violation) = &outcome.violation else { return String::new() };
    format!(
        "FAILED seed={} step={} simulated_us={simulated_us} property=\"{}\" seen=\"{}\"",
        outcome.plan.seed,
        violation.step,
        violation.property,
        violation.seen.replace('\n', " ").replace('"', "'")
    )
}

/// What many runs were like together.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs.
    pub seeds: u64,
    /// Those that failed.
    pub failures: u64,
    /// Their sum; of the recovery times, the longest.
    pub stats: Stats,
    /// Their sum.
    pub marks: Marks,
}

impl Summary {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.failures += u64::from(outcome.violation.is_some());
        self.stats.add(&outcome.stats);
        self.marks.add(&outcome.marks);
    }
}

impl fmt::Display for Summary {
    /// The table of marks, then the totals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, failures, stats, marks } = self;
        writeln!(f, "rare states, and how often each was reached:\n{marks}")?;
        let never: Vec<String> = marks.never().map(|mark| format!("  {mark}\n")).collect();
        if !never.is_empty() {
            writeln!(f, "never reached:\n{}", never.concat())?;
        }
        writeln!(f, "{seeds} seeds, {failures} failed")?;
        writeln!(f, "  steps                      {:>14}", stats.steps)?;
        writeln!(f, "  simulated time             {:>14}", Span(stats.virtual_us))?;
        writeln!(f, "  longest recovery           {:>14}", Span(stats.recovery_us))?;
        writeln!(f, "  elections                  {:>14}", stats.elections)?;
        writeln!(f, "  crashes                    {:>14}", stats.crashes)?;
        writeln!(f, "  snapshots installed        {:>14}", stats.snapshots)?;
        writeln!(f, "  configurations committed   {:>14}", stats.memberships)?;
        writeln!(f, "  entries committed          {:>14}", stats.committed)?;
        writeln!(f, "  commands executed          {:>14}", stats.executed)?;
        writeln!(f, "  reads served               {:>14}", stats.read)?;
        writeln!(f, "  faults                     {:>14}", stats.faults)?;
        writeln!(f, "  histories left undecided   {:>14}", stats.undecided)
    }
}

/// A time as people say it.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 as f64 / 1e6;
        f.pad(&match seconds {
            s if s < 120.0 => format!("{s:.1} s"),
            s if s < 7_200.0 => format!("{:.1} min", s / 60.0),
            s => format!("{:.1} h", s / 3_600.0),
        })
    }
}
