//! Proof that the checkers can fail: deliberate breakages of the core, each of which must be caught.
//!
//! `mutants/` holds one patch for each (see [`Patch`]). The core has no switch for them: the runner
//! copies the crates to a folder under the target directory, applies one patch, builds, and runs
//! seeds until a checker or an assertion objects. The same seed must then be clean without the
//! patch, or it would prove nothing about it. The copy is removed at the end.
//!
//! It needs nothing but cargo. A patch that no longer applies, or does not build, fails the whole
//! run before anything is concluded from the others.

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

pub use patch::{Head, Patch, PatchError};

use table::{Table, duration};
use tree::Tree;
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
    /// Take only the patch of this name.
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
    /// The simulator gave no verdict.
    DoesNotRun {
        /// The patch.
        patch: String,
        /// What it said last.
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
                write!(f, "the simulator gives no verdict on {patch}: {output}")
            }
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
    Caught { by: String, seen: String, seeds: u64, simulated_us: u64 },
    Survived { seeds: u64 },
    Hung,
}

impl Trial {
    const fn is_caught(&self) -> bool {
        matches!(self.outcome, Outcome::Caught { .. })
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.outcome {
            Outcome::Caught { by, seen, seeds, simulated_us } => {
                let seen = if by.contains(seen.as_str()) { "" } else { seen };
                let simulated = duration(*simulated_us);
                write!(f, "caught    {name} ({seeds} seeds, {simulated} simulated) {by}")?;
                if seen.is_empty() { Ok(()) } else { write!(f, ": {seen}") }
            }
            Outcome::Survived { seeds } => write!(f, "SURVIVED  {name} ({seeds} seeds)"),
            Outcome::Hung => write!(f, "HANGS     {name}"),
        }
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
        patches.retain(|patch| patch.name == *name);
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
    let work = |job: usize| -> Result<Vec<(usize, Trial)>, MutantsError> {
        let tree = Tree::copy(root, &home.join(job.to_string()))?;
        let mut trials = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(patch) = patches.get(number) else { return Ok(trials) };
            let trial = try_one(&tree, patch, arguments.seeds.unwrap_or(patch.head.seeds))?;
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

fn try_one(tree: &Tree, patch: &Patch, seeds: u64) -> Result<Trial, MutantsError> {
    let program = tree.build(patch)?;
    let (verdict, wall) = run_seeds(&program, FIRST_SEED, seeds, patch)?;
    let outcome = match verdict {
        Verdict::Clean => Outcome::Survived { seeds },
        Verdict::Hung => Outcome::Hung,
        Verdict::Objected(Objection { seed, simulated_us, by, seen }) => {
            acquit_original(patch, seed)?;
            Outcome::Caught { by, seen, seeds: seed.saturating_sub(FIRST_SEED) + 1, simulated_us }
        }
        Verdict::Broken(output) => {
            return Err(MutantsError::DoesNotRun { patch: patch.name.clone(), output });
        }
    };
    let (name, rule) = (patch.name.clone(), patch.head.rule.clone());
    Ok(Trial { name, rule, outcome, wall })
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
            assert!(changed.iter().all(|(path, _)| path.starts_with("crates/raft/src")));
        }
    }

    #[test]
    fn rotation_takes_everyone_in_turn() {
        let patches = patches();
        let mut seen = std::collections::BTreeSet::new();
        for rotate in 0..patches.len() {
            let arguments = Arguments { take: Some(3), rotate, ..Arguments::default() };
            let chosen = choose(patches.clone(), &arguments);
            assert_eq!(chosen.len(), 3);
            seen.extend(chosen.into_iter().map(|patch| patch.name));
        }
        assert_eq!(seen.len(), patches.len());
        let only = Some(patches[1].name.clone());
        let chosen = choose(patches, &Arguments { only, ..Arguments::default() });
        assert_eq!(chosen.len(), 1);
    }

    #[test]
    fn a_tree_can_be_broken_and_mended() {
        let root = workspace_root();
        let home = std::env::temp_dir().join(format!("quorate-mutants-{}", std::process::id()));
        let tree = Tree::copy(&root, &home).unwrap();
        assert!(home.join("tree/crates/raft/src/lib.rs").exists());
        drop(tree);
        assert!(!home.join("tree").exists());
        fs::remove_dir_all(&home).unwrap();
    }
}
