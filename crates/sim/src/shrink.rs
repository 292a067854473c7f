//! Makes a failing run small: fewer faults, fewer clients, simpler options, fewer steps, as long as
//! the same property still fails.
//!
//! The faults of a run are a list, and a list can be reduced by *delta debugging* (Zeller, 2002): leave
//! out large parts first, then smaller ones, and keep whatever still fails. Leaving something out
//! changes what comes after it, so the same property may come to fail for another reason; that is
//! welcome if it is simpler.

use crate::checkers::{Property, Violation};
use crate::options::RunOptions;
use crate::run::{Outcome, Plan, run};

/// A reduction under way.
#[derive(Debug)]
pub struct Shrink {
    plan: Plan,
    violation: Violation,
    tries_left: u64,
}

/// Simplifications of options, tried in this order.
const SIMPLER: &[&str] = &[
    "storm=0",
    "learners=0",
    "ballast_ppm=0",
    "in_term_ppm=0",
    "lease_reads_ppm=0",
    "reads_ppm=0",
    "loss_ppm=0",
    "duplicate_ppm=0",
    "reorder=0",
    "delay_outlier_ppm=0",
    "sync_outlier_ppm=0",
    "fetch_fails_ppm=0",
    "batch_ppm=0",
    "random_crash_loss=0",
    "peer_closed=0",
    "forward=0",
    "outcome_wait_us=0",
    "lease_us=0",
    "bound=1",
    "pre_vote=1",
    "check_quorum=1",
    "stickiness=1",
    "compact_entries=0,keep_entries=0",
    "entry_bytes=16777216",
    "append_bytes=1048576",
    "inflight_messages=256",
    "inflight_bytes=8388608",
    "unapplied_bytes=67108864",
    "tail_bytes=16777216",
    "apply_bytes=4194304",
    "reads=65536",
    "voters=1",
    "voters=2",
    "voters=3",
    "voters=5",
    "keys=1",
];

impl Shrink {
    /// Begins with a run that failed, and may try so many others.
    ///
    /// # Panics
    ///
    /// If the run did not fail.
    #[must_use]
    pub fn new(outcome: Outcome, tries: u64) -> Self {
        let violation = outcome.violation.expect("only what fails can be made smaller");
        Self { plan: outcome.plan, violation, tries_left: tries }
    }

    /// The smallest plan so far.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How it fails.
    #[must_use]
    pub const fn violation(&self) -> &Violation {
        &self.violation
    }

    /// Reduces until nothing more can be left out, or no tries are left. Tells `progress` what it
    /// achieves.
    pub fn run(&mut self, progress: &mut dyn FnMut(&str)) {
        // A list that fails at another instant than the run it was written in is good enough.
        if !self.accepts(self.plan.clone()) {
            progress("the faults as a list do not fail the same way; reducing options only");
            self.plan.faults = None;
        }
        loop {
            let before = self.plan.clone();
            self.reduce_steps();
            self.reduce_faults();
            self.reduce_clients();
            self.reduce_options();
            progress(&format!(
                "{} faults, {} clients, {} steps, {} tries left",
                self.plan.faults.as_ref().map_or(0, Vec::len),
                self.clients().len(),
                self.plan.steps,
                self.tries_left
            ));
            if self.plan == before || self.tries_left == 0 {
                return;
            }
        }
    }

    /// Takes a plan over if it fails in the same way.
    fn accepts(&mut self, plan: Plan) -> bool {
        if self.tries_left == 0 {
            return false;
        }
        self.tries_left -= 1;
        let outcome = run(&plan);
        match outcome.violation {
            Some(violation) if violation.property == self.violation.property => {
                self.plan = plan;
                self.violation = violation;
                true
            }
            _ => false,
        }
    }

    /// What happens after the failure is not needed; and where the failure is that nothing happens,
    /// a shorter run may end in the same state.
    fn reduce_steps(&mut self) {
        let is_late =
            matches!(self.violation.property, Property::Liveness | Property::Linearizability);
        let enough = if is_late { self.plan.steps } else { self.violation.step + 1 };
        let steps = enough.min(self.plan.steps);
        if steps < self.plan.steps {
            self.accepts(Plan { steps, ..self.plan.clone() });
        }
        let mut cut = self.plan.steps / 2;
        while cut > 0 {
            let steps = self.plan.steps - cut;
            if !self.accepts(Plan { steps, ..self.plan.clone() }) {
                cut /= 2;
            }
            cut = cut.min(self.plan.steps / 2);
            if !is_late || cut < 16 {
                break;
            }
        }
    }

    fn reduce_faults(&mut self) {
        let mut size = self.plan.faults.as_ref().map_or(0, Vec::len);
        while size > 0 {
            let mut at = 0;
            loop {
                let faults = self.plan.faults.clone().unwrap_or_default();
                if at >= faults.len() {
                    break;
                }
                let end = (at + size).min(faults.len());
                let fewer = [&faults[..at], &faults[end..]].concat();
                if !self.accepts(Plan { faults: Some(fewer), ..self.plan.clone() }) {
                    at = end;
                }
            }
            size /= 2;
        }
    }

    fn clients(&self) -> Vec<u64> {
        let all = || (1..=self.plan.options.clients).collect();
        self.plan.clients.clone().unwrap_or_else(all)
    }

    fn reduce_clients(&mut self) {
        for client in self.clients() {
            let mut clients = self.clients();
            clients.retain(|other| *other != client);
            self.accepts(Plan { clients: Some(clients), ..self.plan.clone() });
        }
    }

    fn reduce_options(&mut self) {
        for simpler in SIMPLER {
            let mut options: RunOptions = self.plan.options.clone();
            if options.set(simpler).is_err() || options == self.plan.options {
                continue;
            }
            if options.voters > self.plan.options.voters {
                continue;
            }
            self.accepts(Plan { options, ..self.plan.clone() });
        }
    }
}
