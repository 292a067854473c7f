//! Proof that checkers and tests can fail: deliberate breakages of core and log, each of which must
//! be caught.
//!
//! `mutants/` holds one patch for each (see [`Patch`]). The code has no switch for them: the runner
//! copies the crates to a folder under the target directory, applies one patch, and builds. Then
//! come the judges that the patch names: the simulator runs seeds until a checker or an assertion
//! objects, and the same seed must be clean without the patch, or it would prove nothing about it;
//! or the tests of a crate are run until one fails, which must all pass without the patch. A mutant
//! is caught if all of its judges object. The copy is removed at the end.
//!
//! It needs nothing but cargo. A patch that no longer applies, or does not build, fails the whole
//! run before anything is concluded from the others.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

mod patch;
mod table;
mod tree;
mod trial;

pub use patch::{Head, Judge, Patch, PatchError};

use table::{Table, duration};
use tree::{TestProgram, Tree};
use trial::{Objection, Verdict};

/// The first seed that is run.
const FIRST_SEED: u64 = 1;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// Take only so many patches ...
    pub take: Option<usize>,
    /// ... from that many times further on, around the list: CI takes a few others every day.
    pub rotate: usize,
    /// Take only the patch of this name, or all of the folder of this name.
    pub only: Option<String>,
    /// How many mutants to try at the same time; each of them builds a tree of its own.
    pub jobs: usize,
    /// How many seeds to try at most, whatever the patches say.
    pub seeds: Option<u64>,
}

impl Default for Arguments {
    /// All patches, one after the other.
    fn default() -> Self {
        Self { take: None, rotate: 0, only: None, jobs: 1, seeds: None }
    }
}

/// Why there is no table.
#[derive(Debug)]
pub enum MutantsError {
    /// A patch is not in order, or does not apply any more.
    Patch(PatchError),
    /// There is no patch of that name, or none at all.
    NoPatch,
    /// A file cannot be read or written, or a program not started.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The code with the patch is not valid.
    DoesNotBuild {
        /// The patch.
        patch: String,
        /// What the compiler says.
        output: String,
    },
    /// Simulator or tests gave no verdict.
    DoesNotRun {
        /// The patch.
        patch: String,
        /// What it said last.
        output: String,
    },
    /// There is no such package, the tests of which a patch wants to be judged by.
    NoCrate {
        /// Its name.
        package: String,
    },
    /// A test fails without any patch.
    TestFailsAnyway {
        /// The test, and what was said of it.
        output: String,
    },
    /// The same seed fails without the patch.
    FailsAnyway {
        /// The patch.
        patch: String,
        /// The seed.
        seed: u64,
        /// What the original fails with.
        output: String,
    },
}

impl fmt::Display for MutantsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Patch(error) => error.fmt(f),
            Self::NoPatch => f.write_str("there is no such patch in mutants/"),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::DoesNotBuild { patch, output } => {
                write!(f, "{patch}.patch does not build:\n{output}")
            }
            Self::DoesNotRun { patch, output } => {
                write!(f, "there is no verdict on {patch}: {output}")
            }
            Self::NoCrate { package } => write!(f, "there is no crate {package} to be tested"),
            Self::TestFailsAnyway { output } => write!(f, "it fails without a patch: {output}"),
            Self::FailsAnyway { patch, seed, output } => {
                write!(f, "seed {seed}, on which {patch} fails, fails without it: {output}")
            }
        }
    }
}

impl std::error::Error for MutantsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Patch(error) => Some(error),
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<PatchError> for MutantsError {
    fn from(error: PatchError) -> Self {
        Self::Patch(error)
    }
}

/// One mutant, and what became of it.
#[derive(Clone, Debug)]
struct Trial {
    name: String,
    rule: String,
    outcome: Outcome,
    /// Time that the seeds took, without the build.
    wall: Duration,
}

#[derive(Clone, Debug)]
enum Outcome {
    /// By all judges: what they said.
    Caught(Vec<Objection>),
    /// That judge saw nothing.
    Survived(Judge),
    Hung,
}

impl Trial {
    const fn is_caught(&self) -> bool {
        matches!(self.outcome, Outcome::Caught(_))
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.outcome {
            Outcome::Caught(objections) => {
                write!(f, "caught    {name}")?;
                for Objection { seed, simulated_us, by, seen } in objections {
                    if let Some(seeds) = seeds_to(*seed) {
                        let simulated = duration(*simulated_us);
                        write!(f, " ({seeds} seeds, {simulated} simulated)")?;
                    }
                    write!(f, " {by}")?;
                    if !by.contains(seen.as_str()) {
                        write!(f, ": {seen}")?;
                    }
                }
                Ok(())
            }
            Outcome::Survived(judge) => write!(f, "SURVIVED  {name} ({judge})"),
            Outcome::Hung => write!(f, "HANGS     {name}"),
        }
    }
}

/// How many seeds were run up to `seed`; `None` if there was none.
const fn seeds_to(seed: u64) -> Option<u64> {
    match seed.checked_sub(FIRST_SEED) {
        Some(before) => Some(before + 1),
        None => None,
    }
}

/// Tries the mutants and prints the table. Fails unless all of them are caught.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    match try_mutants(arguments) {
        Ok(trials) => {
            println!("\n{}", Table(&trials));
            let all_caught = trials.iter().all(Trial::is_caught);
            if all_caught { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Where the workspace is: where this was built or, if it was moved, the current directory.
fn workspace_root() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = if built.join("mutants").is_dir() { built } else { PathBuf::from(".") };
    root.canonicalize().unwrap_or(root)
}

fn try_mutants(arguments: &Arguments) -> Result<Vec<Trial>, MutantsError> {
    let root = workspace_root();
    let patches = Patch::read_all(&root.join("mutants"))?;
    for patch in &patches {
        patch.apply(&root)?;
    }
    let chosen = choose(patches, arguments);
    if chosen.is_empty() {
        return Err(MutantsError::NoPatch);
    }
    let home = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let home = home.join("mutants");
    let _lock = lock(&home)?;
    try_all(&root, &home, &chosen, arguments)
}

/// Two runs at a time would build in the same place: the second one waits.
fn lock(home: &Path) -> Result<File, MutantsError> {
    let path = home.join("lock");
    let locked = fs::create_dir_all(home).and_then(|()| File::create(&path)).and_then(|file| {
        file.lock()?;
        Ok(file)
    });
    locked.map_err(|source| MutantsError::Io { path, source })
}

fn choose(mut patches: Vec<Patch>, arguments: &Arguments) -> Vec<Patch> {
    if let Some(name) = &arguments.only {
        let is_in = |patch: &Patch| {
            patch
                .name
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        patches.retain(is_in);
    }
    if let Some(take) = arguments.take
        && take < patches.len()
    {
        let from = take.wrapping_mul(arguments.rotate) % patches.len();
        patches.rotate_left(from);
        patches.truncate(take);
    }
    patches
}

/// Tries `patches` on as many threads as there are jobs. The first error ends all.
fn try_all(
    root: &Path,
    home: &Path,
    patches: &[Patch],
    arguments: &Arguments,
) -> Result<Vec<Trial>, MutantsError> {
    let next = AtomicUsize::new(0);
    let judges = patches.iter().flat_map(|patch| &patch.head.judges);
    let tested: BTreeSet<&str> =
        judges.filter_map(|judge| judge.tests().map(|(name, _)| name)).collect();
    let work = |job: usize| -> Result<Vec<(usize, Trial)>, MutantsError> {
        let tree = Tree::copy(root, &home.join(job.to_string()), &tested)?;
        let court = Court { tree, passed: RefCell::default() };
        let mut trials = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(patch) = patches.get(number) else { return Ok(trials) };
            let trial = court.try_one(patch, arguments.seeds.unwrap_or(patch.head.seeds))?;
            println!("{trial}");
            trials.push((number, trial));
        }
    };
    let stop_at_error = |result: Result<_, MutantsError>| {
        result.inspect_err(|_| next.store(patches.len(), Ordering::Relaxed))
    };
    let mut trials = thread::scope(|scope| {
        let jobs = 0..arguments.jobs.clamp(1, patches.len());
        let workers: Vec<_> =
            jobs.map(|job| scope.spawn(move || stop_at_error(work(job)))).collect();
        let results = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.collect::<Result<Vec<_>, _>>()
    })?
    .concat();
    trials.sort_by_key(|(number, _)| *number);
    Ok(trials.into_iter().map(|(_, trial)| trial).collect())
}

/// Where mutants are tried.
struct Court {
    tree: Tree,
    /// Crates whose tests, or those of one file, have passed without a patch.
    passed: RefCell<BTreeSet<(String, Option<String>)>>,
}

impl Court {
    /// Asks the judges, until one of them has nothing to say.
    fn try_one(&self, patch: &Patch, seeds: u64) -> Result<Trial, MutantsError> {
        let mut objections = Vec::new();
        let mut wall = Duration::ZERO;
        let mut outcome = None;
        for judge in &patch.head.judges {
            let (verdict, took) = match judge.tests() {
                None => self.simulate(patch, seeds)?,
                Some((name, file)) => self.test(patch, name, file)?,
            };
            wall += took;
            match verdict {
                Verdict::Objected(objection) => objections.push(objection),
                Verdict::Clean => outcome = Some(Outcome::Survived(judge.clone())),
                Verdict::Hung => outcome = Some(Outcome::Hung),
                Verdict::Broken(output) => {
                    return Err(MutantsError::DoesNotRun { patch: patch.name.clone(), output });
                }
            }
            if outcome.is_some() {
                break;
            }
        }
        let outcome = outcome.unwrap_or(Outcome::Caught(objections));
        let (name, rule) = (patch.name.clone(), patch.head.rule.clone());
        Ok(Trial { name, rule, outcome, wall })
    }

    fn simulate(&self, patch: &Patch, seeds: u64) -> Result<(Verdict, Duration), MutantsError> {
        let program = self.tree.build(patch)?;
        let (verdict, wall) = run_seeds(&program, FIRST_SEED, seeds, patch)?;
        if let Verdict::Objected(objection) = &verdict {
            acquit_original(patch, objection.seed)?;
        }
        Ok((verdict, wall))
    }

    fn test(
        &self,
        patch: &Patch,
        name: &str,
        file: Option<&str>,
    ) -> Result<(Verdict, Duration), MutantsError> {
        let key = (name.to_owned(), file.map(str::to_owned));
        if !self.passed.borrow().contains(&key) {
            let output = match run_tests(&self.tree.build_tests(None, name, file)?)?.0 {
                Verdict::Clean => None,
                Verdict::Objected(objection) => {
                    Some(format!("{}: {}", objection.by, objection.seen))
                }
                Verdict::Hung => Some("it hangs".to_owned()),
                Verdict::Broken(output) => Some(output),
            };
            if let Some(output) = output {
                return Err(MutantsError::TestFailsAnyway { output });
            }
            self.passed.borrow_mut().insert(key);
        }
        run_tests(&self.tree.build_tests(Some(patch), name, file)?)
    }
}

fn run_tests(programs: &[TestProgram]) -> Result<(Verdict, Duration), MutantsError> {
    trial::run_tests(programs).map_err(|source| {
        let path = programs.first().map_or_else(PathBuf::new, |program| program.path.clone());
        MutantsError::Io { path, source }
    })
}

/// The same seed must be clean without the patch.
fn acquit_original(patch: &Patch, seed: u64) -> Result<(), MutantsError> {
    let original = std::env::current_exe().map_err(|source| {
        let path = PathBuf::from("quorate-sim");
        MutantsError::Io { path, source }
    })?;
    let output = match run_seeds(&original, seed, 1, patch)?.0 {
        Verdict::Clean => return Ok(()),
        Verdict::Objected(objection) => format!("{}: {}", objection.by, objection.seen),
        Verdict::Hung => "it hangs".to_owned(),
        Verdict::Broken(output) => output,
    };
    Err(MutantsError::FailsAnyway { patch: patch.name.clone(), seed, output })
}

fn run_seeds(
    program: &Path,
    first: u64,
    seeds: u64,
    patch: &Patch,
) -> Result<(Verdict, Duration), MutantsError> {
    trial::run(program, first, seeds, &patch.head.options)
        .map_err(|source| MutantsError::Io { path: program.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patches() -> Vec<Patch> {
        Patch::read_all(&workspace_root().join("mutants")).unwrap()
    }

    #[test]
    fn every_patch_applies() {
        let root = workspace_root();
        let patches = patches();
        assert!(patches.len() >= 28, "{} patches", patches.len());
        for patch in patches {
            let changed = patch.apply(&root).unwrap();
            let package = patch.name.split_once('/').map_or("raft", |(package, _)| package);
            let source = Path::new("crates").join(package).join("src");
            assert!(changed.iter().all(|(path, _)| path.starts_with(&source)), "{}", patch.name);
        }
    }

    #[test]
    fn rotation_takes_everyone_in_turn() {
        let patches = patches();
        let mut seen = BTreeSet::new();
        for rotate in 0..patches.len() {
            let arguments = Arguments { take: Some(3), rotate, ..Arguments::default() };
            let chosen = choose(patches.clone(), &arguments);
            assert_eq!(chosen.len(), 3);
            seen.extend(chosen.into_iter().map(|patch| patch.name));
        }
        assert_eq!(seen.len(), patches.len());
        let only = Some(patches[1].name.clone());
        let chosen = choose(patches.clone(), &Arguments { only, ..Arguments::default() });
        assert_eq!(chosen.len(), 1);
        let only = Some("wal".to_owned());
        let chosen = choose(patches, &Arguments { only, ..Arguments::default() });
        assert!(chosen.len() >= 28, "{} patches", chosen.len());
        assert!(chosen.iter().all(|patch| patch.name.starts_with("wal/")));
    }

    #[test]
    fn a_tree_can_be_broken_and_mended() {
        let root = workspace_root();
        let home = std::env::temp_dir().join(format!("quorate-mutants-{}", std::process::id()));
        let tree = Tree::copy(&root, &home, &BTreeSet::from(["wal"])).unwrap();
        assert!(home.join("tree/crates/raft/src/lib.rs").exists());
        assert!(home.join("tree/crates/wal/tests/crash.rs").exists());
        drop(tree);
        assert!(!home.join("tree").exists());
        fs::remove_dir_all(&home).unwrap();
    }
}
