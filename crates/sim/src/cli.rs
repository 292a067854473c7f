//! The command line, for the program of this package and for others that have it as a part.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::report::{self, Summary, trace_lines};
use crate::run::{Outcome, Plan, STEPS, run, run_watched};
use crate::shrink::Shrink;
use crate::{demo, figure16, mutants, options::OptionsError};

/// Prints a line. A reader that has seen enough and closes the pipe is no error.
macro_rules! say {
    ($($part:tt)*) => {{
        let _ = writeln!(io::stdout(), $($part)*);
    }};
}

const HELP: &str = "\
A Raft cluster in virtual time: faults, clients, judges.

  PROGRAM demo                    a guided tour: election, crash, partition, membership change
  PROGRAM run                     random runs, each decided by its seed
      --seeds N                     how many (100)
      --first S                     the first seed (1)
      --steps M                     events of each before the faults end (20,000)
      --jobs J                      threads (2)
      --options NAME=VALUE,...      instead of what the seed says
      --failures N                  stop after so many failed runs (1)
      --require-marks               fail unless every rare state was reached
  PROGRAM replay SEED             one run again
      --plan FILE                   what `shrink` wrote, instead of a seed
      --steps M, --options ...      as above
      --trace                       show everything that happens
  PROGRAM shrink SEED             make a failing run small
      --plan FILE, --steps M, --options ...
      --out DIRECTORY               where the small plan and its trace go (.)
      --tries N                     how many runs that may take (2,000)
  PROGRAM options [SEED]          all options, with their values for a seed
  PROGRAM figure16                the paper's measurement of elections
      --trials N                    crashes for each curve (1,000)
      --seed S
      --svg FILE                    draw the curves
  PROGRAM mutants                 broken cores, and what catches them; needs the sources
      --take N --rotate K           only N of them, from the (N*K)th on
      --only NAME
      --jobs J                      how many at a time (1)
      --seeds N                     at most, for each

What fails ends with exit code 1, a command line that makes no sense with 2.
";

/// One command of this command line, for those who describe it elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub help: &'static str,
    /// What follows it besides flags; empty if nothing does.
    pub word: &'static str,
    /// Its flags.
    pub flags: &'static [PartFlag],
}

/// A flag of a command.
#[derive(Clone, Copy, Debug)]
pub struct PartFlag {
    /// Its name, with its dashes.
    pub name: &'static str,
    /// What its value is called; empty if it has none.
    pub value: &'static str,
    /// What it says.
    pub help: &'static str,
}

const fn flag(name: &'static str, value: &'static str, help: &'static str) -> PartFlag {
    PartFlag { name, value, help }
}

const PLAN: PartFlag = flag("--plan", "FILE", "What `shrink` wrote, instead of a seed");
const STEPS_OF: PartFlag = flag("--steps", "M", "Events before the faults end");
const OPTIONS: PartFlag = flag("--options", "NAME=VALUE,...", "Instead of what the seed says");
const JOBS: PartFlag = flag("--jobs", "J", "How many at a time");

/// All commands.
pub const COMMANDS: &[Part] = &[
    Part { name: "demo", help: "A guided tour", word: "", flags: &[] },
    Part {
        name: "run",
        help: "Random runs, each decided by its seed",
        word: "",
        flags: &[
            flag("--seeds", "N", "How many"),
            flag("--first", "S", "The first seed"),
            STEPS_OF,
            JOBS,
            OPTIONS,
            flag("--failures", "N", "Stop after so many failed runs"),
            flag("--require-marks", "", "Fail unless every rare state was reached"),
        ],
    },
    Part {
        name: "replay",
        help: "One run again",
        word: "SEED",
        flags: &[PLAN, STEPS_OF, OPTIONS, flag("--trace", "", "Show everything that happens")],
    },
    Part {
        name: "shrink",
        help: "Make a failing run small",
        word: "SEED",
        flags: &[
            PLAN,
            STEPS_OF,
            OPTIONS,
            flag("--out", "DIRECTORY", "Where the small plan and its trace go"),
            flag("--tries", "N", "How many runs that may take"),
        ],
    },
    Part {
        name: "options",
        help: "All options, with their values for a seed",
        word: "SEED",
        flags: &[PLAN, STEPS_OF, OPTIONS],
    },
    Part {
        name: "figure16",
        help: "The paper's measurement of elections",
        word: "",
        flags: &[
            flag("--trials", "N", "Crashes for each curve"),
            flag("--seed", "S", "Decides the runs"),
            flag("--svg", "FILE", "Draw the curves"),
        ],
    },
    Part {
        name: "mutants",
        help: "Broken cores, and what catches them; needs the sources",
        word: "",
        flags: &[
            flag("--take", "N", "Only so many of them"),
            flag("--rotate", "K", "From the (N*K)th on"),
            flag("--only", "NAME", "Only this one"),
            JOBS,
            flag("--seeds", "N", "At most, for each"),
        ],
    },
];

/// What is added to the help where assertions are not compiled in.
const WITHOUT_ASSERTIONS: &str = "
This program was built without debug assertions, so it judges runs by what can be seen from outside alone, and not by the
invariants that the code itself asserts. To search for bugs, build it with them:

  cargo run --profile sim -p quorate-sim -- run
";

/// The help, for a program of that name.
#[must_use]
pub fn help(program: &str) -> String {
    let mut text = HELP.replace("PROGRAM", program);
    if cfg!(not(debug_assertions)) {
        text.push_str(WITHOUT_ASSERTIONS);
    }
    text
}

/// Carries out a command line, complaints included, for a program of that name.
#[must_use]
pub fn main(program: &str, arguments: &[String]) -> ExitCode {
    if matches!(arguments.first().map(String::as_str), Some("help" | "--help" | "-h")) {
        // A reader that has seen enough is no error.
        let _ = write!(io::stdout(), "{}", help(program));
        return ExitCode::SUCCESS;
    }
    execute(arguments).unwrap_or_else(|error| {
        eprintln!("{error}\nTry `{program} help`.");
        ExitCode::from(2)
    })
}

/// Why a command line is not carried out.
#[derive(Debug)]
enum CliError {
    Unknown(String),
    Value { flag: String, value: String },
    Missing(&'static str),
    Options(OptionsError),
    Plan(String),
    Io(PathBuf, io::Error),
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "`{word}` is not understood"),
            Self::Value { flag, value } => write!(f, "{flag}: `{value}` is not a good value"),
            Self::Missing(what) => write!(f, "{what} is missing"),
            Self::Options(error) => error.fmt(f),
            Self::Plan(error) => f.write_str(error),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for CliError {}

/// Flags and words of a command line.
#[derive(Debug, Default)]
struct Arguments {
    words: Vec<String>,
    flags: Vec<(String, Option<String>)>,
}

impl Arguments {
    fn parse(arguments: &[String], known: &[PartFlag]) -> Result<Self, CliError> {
        let mut parsed = Self::default();
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            if !word.starts_with("--") {
                parsed.words.push(word.clone());
                continue;
            }
            let flag = known.iter().find(|flag| flag.name == word);
            let flag = flag.ok_or_else(|| CliError::Unknown(word.clone()))?;
            let value = match flag.value {
                "" => None,
                _ => Some(rest.next().ok_or(CliError::Missing("the value of the last flag"))?),
            };
            parsed.flags.push((word.clone(), value.cloned()));
        }
        Ok(parsed)
    }

    fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|(flag, _)| flag == name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.flags.iter().rev().find(|(flag, _)| flag == name)?;
        value.as_deref()
    }

    fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, CliError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let bad = || CliError::Value { flag: name.to_owned(), value: text.to_owned() };
        text.replace(['_', ','], "").parse().map_err(|_| bad())
    }

    /// The plan that a seed and flags, or a file, describe.
    fn plan(&self) -> Result<Plan, CliError> {
        let mut plan = match (self.text("--plan"), self.words.first()) {
            (Some(path), _) => {
                let path = Path::new(path);
                let text = std::fs::read_to_string(path)
                    .map_err(|error| CliError::Io(path.to_owned(), error))?;
                text.parse().map_err(|error| CliError::Plan(format!("{error}")))?
            }
            (None, Some(seed)) => {
                let bad = || CliError::Value { flag: "seed".to_owned(), value: seed.clone() };
                Plan::of_seed(seed.parse().map_err(|_| bad())?)
            }
            (None, None) => return Err(CliError::Missing("the seed")),
        };
        plan.steps = self.number("--steps", plan.steps)?;
        plan.options.set(self.text("--options").unwrap_or("")).map_err(CliError::Options)?;
        Ok(plan)
    }
}

/// Carries out a command line.
fn execute(arguments: &[String]) -> Result<ExitCode, CliError> {
    let Some((command, rest)) = arguments.split_first() else { return demonstrate() };
    let unknown = || CliError::Unknown(command.clone());
    let part = COMMANDS.iter().find(|part| part.name == command).ok_or_else(unknown)?;
    let arguments = Arguments::parse(rest, part.flags)?;
    match part.name {
        "demo" => demonstrate(),
        "run" => run_many(&arguments),
        "replay" => replay(&arguments),
        "shrink" => shrink(&arguments),
        "options" => {
            let options = match arguments.words.is_empty() {
                true => crate::options::RunOptions::default(),
                false => arguments.plan()?.options,
            };
            say!("{}", options.to_string().replace(',', "\n"));
            Ok(ExitCode::SUCCESS)
        }
        "figure16" => measure(&arguments),
        "mutants" => try_mutants(&arguments),
        _ => Err(unknown()),
    }
}

fn measure(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let trials = arguments.number("--trials", 1_000)?;
    let seed = arguments.number("--seed", 1)?;
    let curves = [figure16::paper_curves(trials), figure16::product_curves(trials)].concat();
    let mut outcomes = Vec::new();
    for curve in curves {
        eprintln!("{} ...", curve.name);
        outcomes.push(figure16::run_curve(curve, seed));
    }
    say!("one setting for all curves: {:?}\n", figure16::Delays::PAPER);
    say!("{}", figure16::Table(&outcomes));
    if let Some(path) = arguments.text("--svg") {
        std::fs::write(path, figure16::draw(&outcomes))
            .map_err(|error| CliError::Io(PathBuf::from(path), error))?;
        say!("wrote {path}");
    }
    Ok(code(outcomes.iter().all(figure16::Outcome::holds)))
}

fn try_mutants(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let optional = |name| match arguments.text(name) {
        Some(_) => arguments.number(name, 0).map(Some),
        None => Ok(None),
    };
    Ok(mutants::main(&mutants::Arguments {
        take: optional("--take")?.map(|take: u64| take as usize),
        rotate: arguments.number("--rotate", 0)?,
        only: arguments.text("--only").map(str::to_owned),
        jobs: arguments.number("--jobs", 1)?,
        seeds: optional("--seeds")?,
    }))
}

const fn code(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn demonstrate() -> Result<ExitCode, CliError> {
    let mut out = io::stdout().lock();
    match demo::run(&mut out) {
        Ok(is_good) => Ok(code(is_good)),
        Err(error) => Err(CliError::Io(PathBuf::from("standard output"), error)),
    }
}

fn run_many(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let seeds: u64 = arguments.number("--seeds", 100)?;
    let first: u64 = arguments.number("--first", 1)?;
    let steps: u64 = arguments.number("--steps", STEPS)?;
    let jobs: u64 = arguments.number("--jobs", 2)?;
    let failures_max: u64 = arguments.number("--failures", 1)?;
    let options = arguments.text("--options").unwrap_or("").to_owned();
    Plan::of_seed(first).options.set(&options).map_err(CliError::Options)?;
    let plan = |seed| {
        let mut plan = Plan { steps, ..Plan::of_seed(seed) };
        // Checked above.
        let _ = plan.options.set(&options);
        plan
    };

    let began = Instant::now();
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let (sender, outcomes) = mpsc::channel::<Outcome>();
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let sender = sender.clone();
            let (next, stop) = (&next, &stop);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(seeds) || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if sender.send(run(&plan(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut shown = Instant::now();
        for outcome in outcomes {
            summary.add(&outcome);
            if outcome.violation.is_some() {
                say!("{}", report::failure(&plan(outcome.plan.seed), &outcome));
                say!("{}", report::failure_line(&outcome, summary.stats.virtual_us));
                if summary.failures >= failures_max {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            if outcome.stats.undecided > 0 {
                eprintln!("seed {}: the history was too hard to judge", outcome.plan.seed);
            }
            if shown.elapsed() > Duration::from_secs(2) {
                shown = Instant::now();
                let steps_per_second = summary.stats.steps as f64 / began.elapsed().as_secs_f64();
                eprintln!(
                    "{}/{seeds} seeds, {} failed, {:.0} s, {steps_per_second:.0} steps/s",
                    summary.seeds,
                    summary.failures,
                    began.elapsed().as_secs_f64()
                );
            }
        }
    });
    let wall = began.elapsed().as_secs_f64();
    let _ = write!(io::stdout(), "{summary}");
    say!("  wall time                  {:>12.1} s", wall);
    say!(
        "  simulated time per minute  {:>12.1} h",
        summary.stats.virtual_us as f64 / 3.6e9 / (wall / 60.0)
    );
    let marks_missing = summary.marks.never().count();
    if arguments.has("--require-marks") && marks_missing > 0 {
        say!("FAILED: {marks_missing} rare states were never reached");
        return Ok(code(false));
    }
    Ok(code(summary.failures == 0))
}

fn replay(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let plan = arguments.plan()?;
    if !arguments.has("--trace") {
        let outcome = run(&plan);
        print_outcome(&plan, &outcome);
        return Ok(code(outcome.violation.is_none()));
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let outcome = run_watched(&plan, &mut |step, observations| {
        for line in trace_lines(step, observations) {
            // A reader that has seen enough is no error.
            let _ = writeln!(out, "{line}");
        }
    });
    let _ = out.flush();
    drop(out);
    say!("");
    print_end(&outcome);
    Ok(code(outcome.violation.is_none()))
}

fn print_outcome(plan: &Plan, outcome: &Outcome) {
    if outcome.violation.is_some() {
        say!("{}", report::failure(plan, outcome));
    }
    print_end(outcome);
}

fn print_end(outcome: &Outcome) {
    say!("seed {}: {}, digest {:016x}", outcome.plan.seed, outcome.stats, outcome.digest);
    match &outcome.violation {
        Some(violation) => say!("{violation}"),
        None => say!("all properties hold"),
    }
}

fn shrink(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let plan = arguments.plan()?;
    let tries: u64 = arguments.number("--tries", 2_000)?;
    let directory = PathBuf::from(arguments.text("--out").unwrap_or("."));
    let outcome = run(&plan);
    let Some(violation) = outcome.violation.clone() else {
        print_end(&outcome);
        say!("nothing to shrink");
        return Ok(code(false));
    };
    say!("{violation}");
    let mut shrink = Shrink::new(outcome, tries);
    shrink.run(&mut |what| eprintln!("{what}"));
    let small = shrink.plan();
    let outcome = run(small);
    let Some(violation) = &outcome.violation else {
        return Err(CliError::Plan("the reduced plan does not fail any more".to_owned()));
    };
    let mut trace = format!("# {violation}\n");
    let mut lines = |step: u64, observations: &[_]| {
        for line in trace_lines(step, observations) {
            trace.push_str(&line);
            trace.push('\n');
        }
    };
    let _ = run_watched(small, &mut lines);
    let write = |name: String, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(|error| CliError::Io(path.clone(), error))?;
        say!("wrote {}", path.display());
        Ok::<_, CliError>(())
    };
    let seed = small.seed;
    write(format!("seed-{seed}.plan"), &format!("# {violation}\n{small}"))?;
    write(format!("seed-{seed}.trace"), &trace)?;
    say!("{violation}\n\n{small}");
    Ok(code(false))
}
