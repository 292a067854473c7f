//! A copy of the crates that the judges need, to break and to build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use super::MutantsError;
use super::patch::Patch;

/// The package with the command line.
const PACKAGE: &str = "quorate-sim";

/// A copy of the workspace, reduced to what the simulator and the crates with tests need. It is
/// removed when dropped; what was built of it stays, so that the next mutant rebuilds only what
/// depends on the change.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    /// Where the copy was taken from.
    origin: PathBuf,
    target: PathBuf,
}

impl Tree {
    /// Copies the workspace at `origin` into a directory under `home`: the simulator, the crates
    /// of ours called `tested`, and what they need.
    pub(super) fn copy(
        origin: &Path,
        home: &Path,
        tested: &BTreeSet<&str>,
    ) -> Result<Self, MutantsError> {
        let tree = Self {
            root: home.join("tree"),
            origin: origin.to_owned(),
            target: home.join("target"),
        };
        // An earlier run may have been killed.
        if tree.root.exists() {
            fs::remove_dir_all(&tree.root).map_err(at(&tree.root))?;
        }
        let manifest = read(&origin.join("Cargo.toml"))?;
        let crates = needed_crates(origin, &manifest, tested)?;
        for path in &crates {
            copy_directory(&origin.join(path), &tree.root.join(path))?;
        }
        let reduced = reduced_manifest(&manifest, &crates);
        let path = tree.root.join("Cargo.toml");
        fs::write(&path, reduced).map_err(at(&path))?;
        let lock = tree.root.join("Cargo.lock");
        fs::copy(origin.join("Cargo.lock"), &lock).map_err(at(&lock))?;
        Ok(tree)
    }

    /// Breaks the copy, builds the simulator, and mends the copy again. Gives back the program.
    pub(super) fn build(&self, patch: &Patch) -> Result<PathBuf, MutantsError> {
        self.broken(patch, || {
            self.cargo(&["build", "--profile", "sim", "--quiet", "-p", PACKAGE], &patch.name)
        })?;
        Ok(self.target.join("sim").join(PACKAGE).with_extension(env::consts::EXE_EXTENSION))
    }

    /// Breaks the copy if there is a patch, builds the tests of the crate `name`, or those of one file,
    /// and mends the copy again.
    pub(super) fn build_tests(
        &self,
        patch: Option<&Patch>,
        name: &str,
        file: Option<&str>,
    ) -> Result<Vec<TestProgram>, MutantsError> {
        let package = package(name);
        let build = |patch: &str| {
            let form = "--message-format=json-render-diagnostics";
            let mut arguments = vec!["test", "--no-run", form, "-p", &package];
            match file {
                Some(file) => arguments.extend(["--test", file]),
                None => arguments.extend(["--lib", "--tests"]),
            }
            self.cargo(&arguments, patch)
        };
        let said = match patch {
            Some(patch) => self.broken(patch, || build(&patch.name))?,
            None => build("no")?,
        };
        let directory = self.root.join("crates").join(name);
        let programs = said.lines().filter_map(|line| TestProgram::parse(line, &directory));
        let mut programs: Vec<TestProgram> = programs.collect();
        programs.sort();
        Ok(programs)
    }

    /// Does something while the copy is broken.
    fn broken<T>(
        &self,
        patch: &Patch,
        act: impl FnOnce() -> Result<T, MutantsError>,
    ) -> Result<T, MutantsError> {
        let changed = patch.apply(&self.root)?;
        for (path, text) in &changed {
            let path = self.root.join(path);
            fs::write(&path, text).map_err(at(&path))?;
        }
        let result = act();
        for (path, _) in &changed {
            // Written, not copied: cargo goes by the time of the change.
            let original = read(&self.origin.join(path))?;
            let path = self.root.join(path);
            fs::write(&path, original).map_err(at(&path))?;
        }
        result
    }

    /// Runs cargo in the copy, and gives back what it says.
    fn cargo(&self, arguments: &[&str], patch: &str) -> Result<String, MutantsError> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(&cargo);
        command
            .args(arguments)
            // Enough: with fewer members the lock file gets shorter, and nothing in it moves.
            .arg("--offline")
            .arg("--target-dir")
            .arg(&self.target)
            // Most of it does not change with the patch: seconds instead of minutes.
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_PROFILE_SIM_DEBUG", "0")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .current_dir(&self.root);
        let output = command.output().map_err(at(Path::new(&cargo)))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(MutantsError::DoesNotBuild { patch: patch.to_owned(), output })
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What cannot be removed is replaced by the next run.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A program with tests.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct TestProgram {
    /// Those of the library, which take no time, come first.
    is_integration: bool,
    /// The name of the file with the tests.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Where it runs.
    pub(super) directory: PathBuf,
}

impl TestProgram {
    /// The program that cargo says, in one of its messages, that it has built.
    fn parse(line: &str, directory: &Path) -> Option<Self> {
        // No name of ours has a character that JSON would write in another way.
        let text = |name: &str| line.split_once(name)?.1.split('"').next();
        let path = PathBuf::from(text("\"executable\":\"")?);
        let source = Path::new(text("\"src_path\":\"")?);
        // Not the crate's own programs, which are built for their tests.
        let profile = line.split_once("\"profile\":{")?.1.split('}').next()?;
        if !profile.contains("\"test\":true") {
            return None;
        }
        let is_integration = !source.starts_with(directory.join("src"));
        let name = source.file_stem()?.to_str()?.to_owned();
        Some(Self { is_integration, name, path, directory: directory.to_owned() })
    }
}

/// The package of the crate of that name.
fn package(name: &str) -> String {
    format!("quorate-{name}")
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> MutantsError {
    let path = path.to_owned();
    |source| MutantsError::Io { path, source }
}

fn read(path: &Path) -> Result<String, MutantsError> {
    fs::read_to_string(path).map_err(at(path))
}

/// The simulator's crate, those called `tested`, and those of ours that they depend on, by path.
fn needed_crates(
    origin: &Path,
    manifest: &str,
    tested: &BTreeSet<&str>,
) -> Result<Vec<String>, MutantsError> {
    let ours: BTreeMap<&str, &str> = manifest
        .lines()
        .filter_map(|line| {
            let path = line.split_once("path = \"")?.1.split_once('"')?.0;
            Some((dependency_name(line)?, path)).filter(|_| path.starts_with("crates/"))
        })
        .collect();
    let wanted = tested.iter().map(|name| package(name)).chain([PACKAGE.to_owned()]);
    let mut needed = Vec::new();
    for package in wanted {
        match ours.get(package.as_str()) {
            Some(path) => needed.push(*path),
            None => return Err(MutantsError::NoCrate { package }),
        }
    }
    let mut place = 0;
    while let Some(path) = needed.get(place) {
        let manifest = read(&origin.join(path).join("Cargo.toml"))?;
        for path in manifest.lines().filter_map(dependency_name).filter_map(|name| ours.get(name)) {
            if !needed.contains(path) {
                needed.push(path);
            }
        }
        place += 1;
    }
    Ok(needed.into_iter().map(str::to_owned).collect())
}

/// `name` of `name = { path = ... }` and of `name.workspace = true`.
fn dependency_name(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    key.trim().split('.').next()
}

/// The workspace's manifest with these members only.
fn reduced_manifest(manifest: &str, members: &[String]) -> String {
    let mut reduced = String::new();
    let mut inside_list = false;
    for line in manifest.lines() {
        let is_list = ["members", "default-members", "exclude"]
            .iter()
            .any(|key| line.strip_prefix(key).is_some_and(|rest| rest.trim().starts_with('=')));
        if !is_list && !inside_list {
            reduced.push_str(line);
            reduced.push('\n');
            if line.trim() == "[workspace]" {
                reduced.push_str(&format!("members = {members:?}\n"));
            }
            continue;
        }
        inside_list = !line.contains(']');
    }
    reduced
}

fn copy_directory(from: &Path, to: &Path) -> Result<(), MutantsError> {
    fs::create_dir_all(to).map_err(at(to))?;
    for found in fs::read_dir(from).map_err(at(from))? {
        let found = found.map_err(at(from))?;
        let (from, to) = (found.path(), to.join(found.file_name()));
        if found.file_type().map_err(at(&from))?.is_dir() {
            copy_directory(&from, &to)?;
        } else {
            fs::copy(&from, &to).map_err(at(&from))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_reduced_however_they_are_written() {
        let manifest = "[workspace]\nresolver = \"3\"\nmembers = [\n    \"crates/*\",\n]\n\
                        exclude = [\"bench\"]\ndefault-members = [\"crates/sim\"]\n\n\
                        [workspace.dependencies]\nbytes = \"1\"\n";
        let reduced = "[workspace]\nmembers = [\"crates/raft\"]\nresolver = \"3\"\n\n\
                       [workspace.dependencies]\nbytes = \"1\"\n";
        assert_eq!(reduced_manifest(manifest, &["crates/raft".to_owned()]), reduced);
    }

    #[test]
    fn judges_need_themselves_and_what_they_depend_on() {
        let root = super::super::workspace_root();
        let manifest = read(&root.join("Cargo.toml")).unwrap();
        let crates = needed_crates(&root, &manifest, &BTreeSet::from(["wal"])).unwrap();
        for path in ["crates/sim", "crates/raft", "crates/node", "crates/wal", "crates/wire"] {
            assert_eq!(crates.iter().filter(|found| *found == path).count(), 1, "{crates:?}");
        }
        let error = needed_crates(&root, &manifest, &BTreeSet::from(["none"])).unwrap_err();
        assert!(error.to_string().contains("quorate-none"), "{error}");
    }

    #[test]
    fn the_programs_that_cargo_builds_are_found() {
        let line = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"crash\",\
                    \"src_path\":\"/w/crates/wal/tests/crash.rs\",\"test\":true},\
                    \"profile\":{\"debuginfo\":0,\"test\":true},\"filenames\":[],\
                    \"executable\":\"/t/debug/deps/crash-1\",\"fresh\":true}";
        let found = TestProgram::parse(line, Path::new("/w/crates/wal")).unwrap();
        assert_eq!((found.name.as_str(), found.is_integration), ("crash", true));
        assert_eq!(found.path, Path::new("/t/debug/deps/crash-1"));
        let none = line.replace("\"/t/debug/deps/crash-1\"", "null");
        assert_eq!(TestProgram::parse(&none, Path::new("/w")), None);
        let program = line.replace("0,\"test\":true", "0,\"test\":false");
        assert_eq!(TestProgram::parse(&program, Path::new("/w")), None);
    }
}
