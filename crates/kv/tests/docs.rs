//! `docs/etcd-compat.md` and the scripts know each other.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const FOLDERS: [&str; 3] = ["store", "watch", "lease"];

/// Names in backquotes of a form like `store/fresh_store`.
fn scripts_in(text: &str) -> BTreeSet<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_script = |name: &&str| {
        name.split_once('/').is_some_and(|(folder, name)| {
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            FOLDERS.contains(&folder) && name.chars().all(is_name)
        })
    };
    quoted.filter(is_script).map(str::to_owned).collect()
}

#[test]
fn every_rule_names_scripts_that_there_are_and_every_script_has_a_rule() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let there: BTreeSet<String> = FOLDERS
        .iter()
        .flat_map(|folder| {
            let files = fs::read_dir(root.join("scripts").join(folder)).unwrap();
            files.map(move |file| {
                format!("{folder}/{}", file.unwrap().file_name().to_str().unwrap())
            })
        })
        .collect();
    let read = |name: &str| fs::read_to_string(root.join("../../docs").join(name)).unwrap();
    let rules = scripts_in(&read("etcd-compat.md"));
    let failures = scripts_in(&read("known-failures.md"));
    let named: BTreeSet<_> = rules.union(&failures).cloned().collect();
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "no such scripts: {missing:?}");
    let unnamed: Vec<_> = there.difference(&named).collect();
    assert!(unnamed.is_empty(), "no rule names {unnamed:?}");
}
