//! A copy of the crates that the simulator needs, to break and to build.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use super::MutantsError;
use super::patch::Patch;

/// The package with the command line.
const PACKAGE: &str = "quorate-sim";

/// A copy of the workspace, reduced to what the simulator needs. It is removed when dropped; what
/// was built of it stays, so that the next mutant rebuilds only what depends on the change.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    /// Where the copy was taken from.
    origin: PathBuf,
    target: PathBuf,
}

impl Tree {
    /// Copies the workspace at `origin` into a directory under `home`.
    pub(super) fn copy(origin: &Path, home: &Path) -> Result<Self, MutantsError> {
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
        let crates = needed_crates(origin, &manifest)?;
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

    /// Breaks the copy, builds it, and mends it again. Gives back the program.
    pub(super) fn build(&self, patch: &Patch) -> Result<PathBuf, MutantsError> {
        let changed = patch.apply(&self.root)?;
        for (path, text) in &changed {
            let path = self.root.join(path);
            fs::write(&path, text).map_err(at(&path))?;
        }
        let built = self.cargo_build(&patch.name);
        for (path, _) in &changed {
            // Written, not copied: cargo goes by the time of the change.
            let original = read(&self.origin.join(path))?;
            let path = self.root.join(path);
            fs::write(&path, original).map_err(at(&path))?;
        }
        built?;
        Ok(self.target.join("sim").join(PACKAGE).with_extension(env::consts::EXE_EXTENSION))
    }

    fn cargo_build(&self, name: &str) -> Result<(), MutantsError> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(&cargo);
        // Offline is enough: with fewer members the lock file gets shorter, and nothing in it moves.
        command
            .args(["build", "--profile", "sim", "--offline", "--quiet", "-p", PACKAGE])
            .arg("--target-dir")
            .arg(&self.target)
            // Most of the simulator does not change with the core: seconds instead of minutes.
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_PROFILE_SIM_DEBUG", "0")
            .current_dir(&self.root);
        let output = command.output().map_err(at(Path::new(&cargo)))?;
        if output.status.success() {
            return Ok(());
        }
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(MutantsError::DoesNotBuild { patch: name.to_owned(), output })
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What cannot be removed is replaced by the next run.
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> MutantsError {
    let path = path.to_owned();
    |source| MutantsError::Io { path, source }
}

fn read(path: &Path) -> Result<String, MutantsError> {
    fs::read_to_string(path).map_err(at(path))
}

/// The simulator's crate and those of ours that it depends on, by path.
fn needed_crates(origin: &Path, manifest: &str) -> Result<Vec<String>, MutantsError> {
    let ours: BTreeMap<&str, &str> = manifest
        .lines()
        .filter_map(|line| {
            let path = line.split_once("path = \"")?.1.split_once('"')?.0;
            Some((dependency_name(line)?, path)).filter(|_| path.starts_with("crates/"))
        })
        .collect();
    let mut needed: Vec<&str> = ours.get(PACKAGE).copied().into_iter().collect();
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
    fn the_simulator_needs_itself_the_core_and_the_host() {
        let root = super::super::workspace_root();
        let manifest = read(&root.join("Cargo.toml")).unwrap();
        let crates = needed_crates(&root, &manifest).unwrap();
        for path in ["crates/sim", "crates/raft", "crates/node"] {
            assert!(crates.iter().any(|found| found == path), "{crates:?}");
        }
    }
}
