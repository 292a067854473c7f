//! The paper's own experiment: how long it takes to replace a crashed leader (§9.3, Figure 16;
//! thesis chapter 9).
//!
//! Five servers. The leader sends one synchronised round of heartbeats and crashes at a random
//! point of its heartbeat interval, which is half of the shortest election timeout. Two of the four
//! survivors have shorter logs, so they can disturb an election but not win it. The time from the
//! crash until a survivor leads is measured, for several ranges of the election timeout.
//!
//! Little randomness makes split votes likely and the wait long; much of it makes detection slow.
//! One setting of delays serves all curves; see [`Delays::PAPER`].

use std::fmt;

mod chart;
mod trial;

pub use chart::draw;
pub use trial::{Delays, Product, Survivors, run_trial};

/// One curve: a range of election timeouts.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Its name in the chart.
    pub name: String,
    /// How the survivors behave.
    pub survivors: Survivors,
    /// Published median and worst case in milliseconds, if the paper has the curve.
    pub published: Option<(u32, u32)>,
    /// Whether the median must be within [`TOLERANCE`] of the published one.
    pub held: bool,
    /// How many leaders are crashed.
    pub trials: u32,
}

/// How far a median may be from the published one.
pub const TOLERANCE: f64 = 0.20;

/// What came out for one curve: times from crash to new leader in microseconds, ascending.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The curve.
    pub curve: Curve,
    /// One time per trial that ended within the limit.
    pub times_us: Vec<u64>,
    /// Trials in which nobody was elected within a hundred seconds.
    pub unfinished: u32,
}

impl Outcome {
    /// The time that half of the trials stayed below, in milliseconds.
    #[must_use]
    pub fn median_ms(&self) -> f64 {
        self.quantile_ms(0.5)
    }

    /// The time that a share of the trials stayed below, in milliseconds; infinite if that many
    /// did not finish.
    #[must_use]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let all = self.times_us.len() + self.unfinished as usize;
        let place = ((all as f64 * share) as usize).min(all.saturating_sub(1));
        self.times_us.get(place).map_or(f64::INFINITY, |us| *us as f64 / 1000.0)
    }

    /// Whether the median is as close to the published one as it must be.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.curve.published {
            Some((median, _)) if self.curve.held => {
                (self.median_ms() / f64::from(median) - 1.0).abs() <= TOLERANCE
            }
            _ => true,
        }
    }
}

/// The paper's curves. `trials` for each but the hopeless one without randomness.
#[must_use]
pub fn paper_curves(trials: u32) -> Vec<Curve> {
    let curve = |low: u64, high: u64, published, held, trials| Curve {
        name: format!("{low}-{high} ms"),
        survivors: Survivors::paper(low * 1000, high * 1000),
        published,
        held,
        trials,
    };
    vec![
        curve(150, 150, None, false, trials / 10),
        curve(150, 151, Some((1199, 8231)), false, trials),
        curve(150, 155, Some((287, 2143)), false, trials),
        curve(150, 175, Some((141, 610)), true, trials),
        curve(150, 200, Some((146, 512)), true, trials),
        curve(150, 300, Some((171, 603)), true, trials),
        curve(100, 200, Some((120, 335)), true, trials),
        curve(50, 100, Some((67, 253)), true, trials),
        curve(25, 50, Some((43, 276)), true, trials),
        curve(12, 24, Some((30, 152)), true, trials),
    ]
}

/// The same crash with the defaults of the product: pre-vote and stickiness on, timeouts of one to
/// two seconds; once found out by silence alone, once by the hint that the leader's process ended.
#[must_use]
pub fn product_curves(trials: u32) -> Vec<Curve> {
    let curve = |name: &str, product| Curve {
        name: name.to_owned(),
        survivors: Survivors::product(product),
        published: None,
        held: true,
        trials,
    };
    vec![
        curve("defaults, silent", Product::Silent),
        curve("defaults, process ended", Product::ProcessEnded),
    ]
}

/// Runs all trials of a curve. The same seed gives the same times.
#[must_use]
pub fn run_curve(curve: Curve, seed: u64) -> Outcome {
    let mut times_us = Vec::new();
    let mut unfinished = 0;
    for trial in 0..u64::from(curve.trials) {
        match run_trial(&curve.survivors, seed.wrapping_add(trial.wrapping_mul(0x9e37_79b9))) {
            Some(us) => times_us.push(us),
            None => unfinished += 1,
        }
    }
    times_us.sort_unstable();
    Outcome { curve, times_us, unfinished }
}

/// The table of outcomes beside the paper's figures.
#[derive(Debug)]
pub struct Table<'a>(pub &'a [Outcome]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24} {:>7} {:>10} {:>10} {:>10} {:>8} {:>12} {:>12}",
            "election timeout",
            "trials",
            "median ms",
            "paper",
            "differs",
            "99 % ms",
            "worst ms",
            "paper worst"
        )?;
        for outcome in self.0 {
            let curve = &outcome.curve;
            let median = outcome.median_ms();
            let (published, differs, worst) = match curve.published {
                None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
                Some((published, worst)) => {
                    let differs = 100.0 * (median / f64::from(published) - 1.0);
                    let mark = match (curve.held, outcome.holds()) {
                        (true, false) => " !",
                        _ => "",
                    };
                    (published.to_string(), format!("{differs:+.0} %{mark}"), worst.to_string())
                }
            };
            writeln!(
                f,
                "{:<24} {:>7} {median:>10.0} {published:>10} {differs:>10} {:>8.0} {:>12.0} {worst:>12}",
                curve.name,
                curve.trials,
                outcome.quantile_ms(0.99),
                outcome.quantile_ms(1.0),
            )?;
            if outcome.unfinished > 0 {
                writeln!(f, "{:<24} {} without a leader at the limit", "", outcome.unfinished)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fewer trials than the full experiment, with the same bounds.
    #[test]
    fn medians_are_the_papers() {
        for curve in paper_curves(400).into_iter().filter(|curve| curve.held) {
            let outcome = run_curve(curve, 1);
            assert!(
                outcome.holds(),
                "{}: median {:.0} ms instead of {:?}",
                outcome.curve.name,
                outcome.median_ms(),
                outcome.curve.published
            );
        }
    }

    #[test]
    fn same_seed_same_times() {
        let run = || run_curve(paper_curves(20).remove(5), 3).times_us;
        assert_eq!(run(), run());
    }
}
