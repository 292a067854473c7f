//! Every golden script of the core still tells the same story.
//!
//! `UPDATE_SCRIPTS=1 cargo test -p quorate-sim --test scripts` writes them anew; `SCRIPT=name` runs
//! only those whose path contains it.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_sim::script::{Script, diff};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../raft/scripts")
}

/// All scripts, sorted by path.
fn scripts(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).expect("the directory of scripts");
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry of it").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            scripts(&path, found);
        } else if path.extension().is_none_or(|extension| extension != "md") {
            found.push(path);
        }
    }
}

/// Runs one script; says what is wrong with it.
fn run(path: &Path, update: bool) -> Result<(), String> {
    let expected = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let script = Script::parse(&expected);
    // A script may stop at an assertion of the core; the others shall still be run.
    let result = std::panic::catch_unwind(|| script.run());
    let found = match result {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("panicked; see above".to_owned()),
    };
    if found == expected {
        return Ok(());
    }
    if update {
        return fs::write(path, found).map_err(|error| error.to_string());
    }
    Err(format!("differs (- as written, + as it is):\n{}", diff(&expected, &found)))
}

#[test]
fn golden_scripts() {
    let update = std::env::var("UPDATE_SCRIPTS").is_ok_and(|value| value == "1");
    let only = std::env::var("SCRIPT").unwrap_or_default();
    let directory = directory();
    let mut paths = Vec::new();
    scripts(&directory, &mut paths);
    let mut failures = Vec::new();
    for path in paths {
        let name = path.strip_prefix(&directory).expect("it is below").display().to_string();
        if name.contains(&only)
            && let Err(what) = run(&path, update)
        {
            failures.push(format!("{name}: {what}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} scripts fail; UPDATE_SCRIPTS=1 writes them anew\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}
