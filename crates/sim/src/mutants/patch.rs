//! One deliberate breakage: a head that says what it breaks, and a unified diff.
//!
//! ```text
//! Rule: one vote a term, first come, first served (§5.2)
//! Shipped by: nobody we know of
//! Exposed by: two candidates in one term
//! Judges: simulator
//! Options: pre_vote=0
//! Seeds: 20
//!
//! --- crates/raft/src/vote.rs
//! +++ crates/raft/src/vote.rs
//! @@ -80,7 +80,6 @@
//!          let granted = term == self.term()
//! -            && voted_for.is_none_or(|voted_for| voted_for == from)
//!              && self.is_up_to_date(m.last_log);
//! ```
//!
//! A hunk is found by its old lines, which must occur exactly once in the file; the line numbers
//! are for readers. So a patch survives changes elsewhere in the file, and is an error as soon as
//! what it breaks has changed.
//!
//! Patches lie in `mutants/` (the core) and its folders, whose name is part of theirs:
//! `wal/sync-skipped`. Each says who must object to it; see [`Judge`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::options::RunOptions;

/// How many seeds a mutant may need unless its head says otherwise.
const SEEDS: u64 = 1000;

/// A breakage of the code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Patch {
    /// Its file's name without the ending, behind that of its folder: the wrong behaviour in a few
    /// words.
    pub name: String,
    /// What it says about itself.
    pub head: Head,
    files: Vec<FilePatch>,
}

/// What a patch says about itself, before the diff.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The rule that it breaks, with the section of the paper or thesis.
    pub rule: String,
    /// Who shipped that bug.
    pub shipped_by: String,
    /// Which situation shows it.
    pub exposed_by: String,
    /// Who is asked, in that order, and must object. The simulator, unless it says otherwise.
    pub judges: Vec<Judge>,
    /// Options of [`RunOptions`] that make the situation likely; empty if any run will do.
    pub options: String,
    /// How many seeds it needs at most.
    pub seeds: u64,
}

/// Who decides whether a mutant is caught.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Judge {
    /// `simulator`: random clusters and their checkers.
    Simulator,
    /// `scripts`: the golden scripts, for what random clusters come to too rarely.
    Scripts,
    /// `wal tests`: the tests of the crate of that name, those that every change must pass.
    Tests(String),
}

impl Judge {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "simulator" => return Some(Self::Simulator),
            "scripts" => return Some(Self::Scripts),
            _ => {}
        }
        let name = text.strip_suffix(" tests")?;
        let is_name = !name.is_empty() && name.chars().all(|char| char.is_ascii_lowercase());
        is_name.then(|| Self::Tests(name.to_owned()))
    }

    /// The crate whose tests are run, and the one file of them if not all.
    pub(super) fn tests(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Simulator => None,
            Self::Scripts => Some(("sim", Some("scripts"))),
            Self::Tests(name) => Some((name, None)),
        }
    }
}

impl fmt::Display for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simulator => f.write_str("simulator"),
            Self::Scripts => f.write_str("scripts"),
            Self::Tests(name) => write!(f, "{name} tests"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct FilePatch {
    /// From the workspace's root.
    path: String,
    hunks: Vec<Hunk>,
}

/// Old lines, and what to put in their place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Hunk {
    old: Vec<String>,
    new: Vec<String>,
}

/// Why a patch cannot be used. Nothing was changed.
#[derive(Debug)]
pub enum PatchError {
    /// The patch, or a file that it changes, cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The head lacks a line, or has one that makes no sense.
    Head {
        /// The patch.
        patch: String,
        /// What is wrong.
        what: String,
    },
    /// The diff is not one that the runner understands.
    Form {
        /// The patch.
        patch: String,
        /// The line, counted from 1.
        line: usize,
    },
    /// The old lines of a hunk do not occur, or not only once: the code has changed and the patch
    /// must follow.
    DoesNotApply {
        /// The patch.
        patch: String,
        /// The file to be changed.
        file: String,
        /// The hunk, counted from 1.
        hunk: usize,
        /// How often its old lines occur.
        occurrences: usize,
    },
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Head { patch, what } => write!(f, "{patch}.patch: the head {what}"),
            Self::Form { patch, line } => {
                write!(f, "{patch}.patch, line {line}: not part of a unified diff")
            }
            Self::DoesNotApply { patch, file, hunk, occurrences } => write!(
                f,
                "{patch}.patch does not apply: the old lines of hunk {hunk} occur {occurrences} \
                 times in {file}, not once"
            ),
        }
    }
}

impl std::error::Error for PatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Patch {
    /// All patches of a directory, by name, and behind them those of its folders.
    ///
    /// # Errors
    ///
    /// When one of them cannot be read or understood.
    pub fn read_all(directory: &Path) -> Result<Vec<Self>, PatchError> {
        Self::read_folder(directory, "")
    }

    fn read_folder(directory: &Path, prefix: &str) -> Result<Vec<Self>, PatchError> {
        let unreadable = |source| PatchError::Unreadable { path: directory.to_owned(), source };
        let (mut paths, mut folders) = (Vec::new(), Vec::new());
        for found in fs::read_dir(directory).map_err(unreadable)? {
            let path = found.map_err(unreadable)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "patch") {
                paths.push(path);
            }
        }
        paths.sort();
        folders.sort();
        let name = |path: &Path| {
            format!("{prefix}{}", path.file_stem().unwrap_or_default().to_string_lossy())
        };
        let read_one = |path: &PathBuf| Self::parse(&name(path), &read(path)?);
        let mut patches: Vec<Self> = paths.iter().map(read_one).collect::<Result<_, _>>()?;
        for folder in folders {
            patches.extend(Self::read_folder(&folder, &format!("{}/", name(&folder)))?);
        }
        Ok(patches)
    }

    /// Understands the text of a patch.
    ///
    /// # Errors
    ///
    /// When the head is incomplete or the diff is none.
    pub fn parse(name: &str, text: &str) -> Result<Self, PatchError> {
        let head_lines = text.lines().take_while(|line| !line.starts_with("--- ")).count();
        let head = Head::parse(text.lines().take(head_lines))
            .map_err(|what| PatchError::Head { patch: name.to_owned(), what })?;
        let mut files: Vec<FilePatch> = Vec::new();
        let diff: Vec<&str> = text.lines().skip(head_lines).collect();
        let mut at = 0;
        while at < diff.len() {
            let used = match read_file_name(&diff[at..]) {
                Some(path) => {
                    files.push(FilePatch { path: path.to_owned(), hunks: Vec::new() });
                    2
                }
                None => files.last_mut().and_then(|file| file.take_line(diff[at])).unwrap_or(0),
            };
            if used == 0 {
                return Err(PatchError::Form { patch: name.to_owned(), line: head_lines + at + 1 });
            }
            at += used;
        }
        let is_empty = |file: &FilePatch| file.hunks.is_empty();
        if files.is_empty() || files.iter().any(is_empty) {
            return Err(PatchError::Form { patch: name.to_owned(), line: text.lines().count() });
        }
        Ok(Self { name: name.to_owned(), head, files })
    }

    /// The files that it changes in the tree at `root`: path from there, and new text.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or a hunk does not fit.
    pub fn apply(&self, root: &Path) -> Result<Vec<(PathBuf, String)>, PatchError> {
        let changed = self.files.iter().map(|file| {
            let text = read(&root.join(&file.path))?;
            let text = file.apply(&text).map_err(|(hunk, occurrences)| {
                let (patch, file) = (self.name.clone(), file.path.clone());
                PatchError::DoesNotApply { patch, file, hunk: hunk + 1, occurrences }
            })?;
            Ok((PathBuf::from(&file.path), text))
        });
        changed.collect()
    }
}

fn read(path: &Path) -> Result<String, PatchError> {
    fs::read_to_string(path)
        .map_err(|source| PatchError::Unreadable { path: path.to_owned(), source })
}

impl Head {
    /// `Name: text` on each line; a line that begins with blanks continues the one before it.
    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut fields: Vec<(&str, String)> = Vec::new();
        for line in lines.filter(|line| !line.trim().is_empty()) {
            if line.starts_with(char::is_whitespace) {
                let (_, text) = fields.last_mut().ok_or("begins with a continued line")?;
                text.push(' ');
                text.push_str(line.trim());
                continue;
            }
            let (name, text) =
                line.split_once(':').ok_or_else(|| format!("has a line without a name: {line}"))?;
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(format!("says `{name}` twice"));
            }
            fields.push((name, text.trim().to_owned()));
        }
        let mut take = |wanted: &str| {
            let at = fields.iter().position(|(name, _)| *name == wanted)?;
            Some(fields.swap_remove(at).1).filter(|text| !text.is_empty())
        };
        let rule = take("Rule").ok_or("does not say `Rule`")?;
        let shipped_by = take("Shipped by").ok_or("does not say `Shipped by`")?;
        let exposed_by = take("Exposed by").ok_or("does not say `Exposed by`")?;
        let judges = take("Judges").unwrap_or_else(|| Judge::Simulator.to_string());
        let judge = |text: &str| {
            let text = text.trim();
            Judge::parse(text).ok_or_else(|| format!("has a judge that nobody knows: {text}"))
        };
        let judges: Vec<Judge> = judges.split(',').map(judge).collect::<Result<_, _>>()?;
        let options = take("Options").unwrap_or_default();
        RunOptions::default().set(&options).map_err(|error| format!("has bad options: {error}"))?;
        let seeds = match take("Seeds") {
            Some(seeds) => seeds.parse().map_err(|_| format!("has bad seeds: {seeds}"))?,
            None => SEEDS,
        };
        match fields.first() {
            Some((name, _)) => Err(format!("says `{name}`, which means nothing")),
            None => Ok(Self { rule, shipped_by, exposed_by, judges, options, seeds }),
        }
    }
}

/// The path of the file that the next hunks are about, if that is what the next two lines say.
fn read_file_name<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let [old, new, ..] = lines else { return None };
    let path = |line: &'a str, mark| line.strip_prefix(mark)?.split('\t').next();
    let (old, new) = (path(old, "--- ")?, path(new, "+++ ")?);
    // Nothing but our own crates, wherever a copy of them lies.
    (old == new && old.starts_with("crates/") && !old.contains("..")).then_some(old)
}

impl FilePatch {
    /// Takes in one line of the diff, if it is one; gives back how many lines that were.
    fn take_line(&mut self, line: &str) -> Option<usize> {
        if line.starts_with("@@") {
            self.hunks.push(Hunk::default());
            return Some(1);
        }
        let hunk = self.hunks.last_mut()?;
        // Some editors strip the blank of an empty line.
        let (mark, text) = line.split_at_checked(1).unwrap_or((" ", ""));
        if matches!(mark, " " | "-") {
            hunk.old.push(text.to_owned());
        }
        if matches!(mark, " " | "+") {
            hunk.new.push(text.to_owned());
        }
        matches!(mark, " " | "-" | "+").then_some(1)
    }

    /// The text with all hunks applied; or which hunk does not fit, and how often its old lines
    /// occur.
    fn apply(&self, text: &str) -> Result<String, (usize, usize)> {
        let mut lines: Vec<&str> = text.lines().collect();
        for (number, Hunk { old, new }) in self.hunks.iter().enumerate() {
            let length = old.len().max(1);
            let places: Vec<usize> = lines
                .windows(length)
                .enumerate()
                .filter(|(_, window)| *window == old.as_slice())
                .map(|(place, _)| place)
                .collect();
            let [place] = places[..] else { return Err((number, places.len())) };
            lines.splice(place..place + length, new.iter().map(String::as_str));
        }
        let mut text = lines.join("\n");
        text.push('\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "\
Rule: one vote a term, first come,
  first served (§5.2)
Shipped by: nobody we know of
Exposed by: two candidates
Options: voters=5, pre_vote=0
Seeds: 7

--- crates/raft/src/vote.rs
+++ crates/raft/src/vote.rs
@@ -1,3 +1,2 @@
 a

-b
 c
@@ -9,2 +8,3 @@
 x
+new
 y
";

    fn parsed() -> Patch {
        Patch::parse("two-votes", PATCH).unwrap()
    }

    fn applied(text: &str) -> Result<String, (usize, usize)> {
        parsed().files[0].apply(text)
    }

    #[test]
    fn the_head_is_understood() {
        let head = Head {
            rule: "one vote a term, first come, first served (§5.2)".to_owned(),
            shipped_by: "nobody we know of".to_owned(),
            exposed_by: "two candidates".to_owned(),
            judges: vec![Judge::Simulator],
            options: "voters=5, pre_vote=0".to_owned(),
            seeds: 7,
        };
        assert_eq!(parsed().head, head);
    }

    #[test]
    fn judges_are_understood() {
        let judges = |line: &str| {
            let text = PATCH.replace("Seeds: 7", line);
            Patch::parse("two-votes", &text).map(|patch| patch.head.judges)
        };
        let wal = || Judge::Tests("wal".to_owned());
        assert_eq!(judges("Judges: wal tests").unwrap(), [wal()]);
        assert_eq!(judges("Judges: wal tests, simulator").unwrap(), [wal(), Judge::Simulator]);
        assert_eq!(judges("Judges: scripts").unwrap(), [Judge::Scripts]);
        assert!(judges("Judges: wal").unwrap_err().to_string().contains("nobody knows: wal"));
        assert!(judges("Judges: ../wal tests").is_err());
        assert!(judges("Judges: simulator,").is_err());
    }

    #[test]
    fn an_incomplete_head_is_refused() {
        let refused = |from: &str, to: &str| {
            let text = PATCH.replace(from, to);
            assert_ne!(text, PATCH);
            Patch::parse("two-votes", &text).unwrap_err().to_string()
        };
        assert!(refused("Shipped by: nobody we know of", "").contains("does not say `Shipped by`"));
        assert!(refused("Exposed by: two candidates", "Exposed by:").contains("`Exposed by`"));
        assert!(refused("Seeds: 7", "Seeds: many").contains("bad seeds"));
        assert!(refused("Seeds: 7", "Steps: 7").contains("`Steps`"));
        assert!(refused("pre_vote=0", "volume=11").contains("volume=11"));
        assert!(refused("Seeds: 7", "Rule: 7").contains("twice"));
    }

    #[test]
    fn what_is_no_diff_is_refused() {
        let line = |text: &str| match Patch::parse("two-votes", text) {
            Err(PatchError::Form { line, .. }) => line,
            other => panic!("{other:?}"),
        };
        assert_eq!(line(&PATCH.replace("-b", "*b")), 13);
        assert_eq!(line(&PATCH.replace("+++ crates", "+++ elsewhere")), 8);
        assert_eq!(line(&PATCH.replace("crates/raft", "crates/../../raft")), 8);
        assert_eq!(line(PATCH.split_once("@@").unwrap().0), 9, "no hunk");
        assert_eq!(line(PATCH.split_once("---").unwrap().0), 7, "no file");
    }

    #[test]
    fn hunks_are_found_by_their_old_lines() {
        let text = "0\na\n\nb\nc\nmore\nx\ny\nz\n";
        assert_eq!(applied(text).unwrap(), "0\na\n\nc\nmore\nx\nnew\ny\nz\n");
    }

    #[test]
    fn a_missing_and_an_ambiguous_place_are_refused() {
        assert_eq!(applied("a\n\nB\nc\nx\ny\n"), Err((0, 0)));
        assert_eq!(applied("a\n\nb\nc\nx\n"), Err((1, 0)));
        assert_eq!(applied("a\n\nb\nc\nx\ny\nx\ny\n"), Err((1, 2)));
        assert_eq!(applied(""), Err((0, 0)));
        // Lines are compared as a whole.
        assert_eq!(applied("a\n\nb\ncc\nx\ny\n"), Err((0, 0)));
    }
}
