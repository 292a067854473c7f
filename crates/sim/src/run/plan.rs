//! What a run does, as a value and as a file.
//!
//! ```text
//! # Election Safety is violated by n1, n2 at step 431, 812.004ms: ...
//! seed 4711
//! steps 600
//! options loss_ppm=0,voters=3
//! clients 1 3
//! 12004 kill 1
//! 15210 restart 1
//! ```
//!
//! `options` holds what differs from the options that the seed stands for. Without `clients` all
//! take part. The faults follow, each with its virtual time in microseconds.

use std::fmt;
use std::str::FromStr;

use quorate_raft::Time;

use crate::nemesis::{Fault, FaultError};
use crate::options::{OptionsError, RunOptions};

/// Steps of a run unless told otherwise.
pub const STEPS: u64 = 20_000;

/// Everything that decides a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Decides all that is left to chance.
    pub seed: u64,
    /// Events until the faults end.
    pub steps: u64,
    /// What is in the run.
    pub options: RunOptions,
    /// The clients that take part; `None`: all.
    pub clients: Option<Vec<u64>>,
    /// What goes wrong, and when; `None`: what the seed and the options say.
    pub faults: Option<Vec<(Time, Fault)>>,
}

impl Plan {
    /// What a seed stands for.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let options = RunOptions::from_seed(seed);
        Self { seed, steps: STEPS, options, clients: None, faults: None }
    }

    /// The command line that repeats the run, as far as it is not a list of faults.
    #[must_use]
    pub fn command(&self) -> String {
        let mut command = format!(
            "cargo run --profile sim -p quorate-sim -- replay {} --steps {}",
            self.seed, self.steps
        );
        let difference = self.options.difference(&RunOptions::from_seed(self.seed));
        if !difference.is_empty() {
            command.push_str(" --options ");
            command.push_str(&difference);
        }
        command
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "steps {}", self.steps)?;
        let difference = self.options.difference(&RunOptions::from_seed(self.seed));
        if !difference.is_empty() {
            writeln!(f, "options {difference}")?;
        }
        if let Some(clients) = &self.clients {
            let clients: Vec<String> = clients.iter().map(u64::to_string).collect();
            writeln!(f, "clients {}", clients.join(" "))?;
        }
        if self.faults.is_some() {
            writeln!(f, "faults")?;
        }
        for (at, fault) in self.faults.iter().flatten() {
            writeln!(f, "{} {fault}", at.0)?;
        }
        Ok(())
    }
}

/// Why a file is no plan.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PlanError {
    /// A line that says nothing.
    Line {
        /// Its number, from 1.
        number: usize,
        /// What it says.
        text: String,
    },
    /// A line with options that there are not.
    Options(OptionsError),
    /// A line with a fault that there is not.
    Fault(FaultError),
    /// There is no line with the seed.
    NoSeed,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { number, text } => write!(f, "line {number}: `{text}` is not understood"),
            Self::Options(error) => error.fmt(f),
            Self::Fault(error) => error.fmt(f),
            Self::NoSeed => f.write_str("a plan begins with `seed` and a number"),
        }
    }
}

impl std::error::Error for PlanError {}

impl FromStr for Plan {
    type Err = PlanError;

    /// Reads what `Display` writes; empty lines and those with `#` are skipped.
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut plan: Option<Self> = None;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let unknown = || PlanError::Line { number: at + 1, text: line.to_owned() };
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let number = || rest.trim().parse().map_err(|_| unknown());
            if word == "seed" {
                plan = Some(Self::of_seed(number()?));
                continue;
            }
            let plan = plan.as_mut().ok_or(PlanError::NoSeed)?;
            match word {
                "steps" => plan.steps = number()?,
                "options" => plan.options.set(rest).map_err(PlanError::Options)?,
                "clients" => {
                    let clients = rest.split_whitespace().map(|word| word.parse().ok());
                    plan.clients = Some(clients.collect::<Option<_>>().ok_or_else(unknown)?);
                }
                "faults" => plan.faults = Some(plan.faults.take().unwrap_or_default()),
                _ => {
                    let at = word.parse().map_err(|_| unknown())?;
                    let fault = rest.parse().map_err(PlanError::Fault)?;
                    plan.faults.get_or_insert_default().push((Time(at), fault));
                }
            }
        }
        plan.ok_or(PlanError::NoSeed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_read() {
        let mut plan = Plan::of_seed(7);
        assert_eq!(plan.to_string().parse(), Ok(plan.clone()));
        plan.steps = 99;
        plan.options.voters = 6;
        plan.clients = Some(vec![1, 3]);
        plan.faults = Some(vec![(Time(5), Fault::Heal), (Time(9), "kill 2".parse().unwrap())]);
        assert_eq!(plan.to_string().parse(), Ok(plan));
    }

    #[test]
    fn errors_say_where() {
        assert_eq!("steps 5".parse::<Plan>(), Err(PlanError::NoSeed));
        let error = "seed 5\n\nsmile".parse::<Plan>().unwrap_err();
        assert_eq!(error.to_string(), "line 3: `smile` is not understood");
    }
}
