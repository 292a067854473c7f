//! Golden scripts: short stories of a cluster, told in commands and checked line by line.
//!
//! ```text
//! # A vote is on disk before anyone hears of it (Figure 2).
//! cluster 3
//! ---
//! ok
//!
//! timeout n1; hold disk n2; deliver n1 -> n2
//! ---
//! n1 follower@0 => pre-candidate@0
//! ...
//! ```
//!
//! A script is a row of blocks with a blank line between them. A block has comments (`#`), commands
//! (one a line, or several with `;`), the line `---`, and what the commands print. [`Script::run`]
//! executes the commands and gives back the whole text as it should be; whoever tests compares, or
//! with `UPDATE_SCRIPTS=1` writes it back. The commands are described in
//! `crates/raft/scripts/README.md`.

use std::fmt;

mod arguments;
mod commands;
mod diff;
mod inject;
mod pictures;
mod session;
mod setup;

pub use diff::diff;

use session::Session;

/// The line between commands and their output.
const SEPARATOR: &str = "---";

/// A script, cut into blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    blocks: Vec<Block>,
}

/// A few commands and what they print.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Block {
    /// Comments and commands, as they stand, each with its number in the file.
    lines: Vec<(usize, String)>,
    /// Whether there is any command among them.
    has_commands: bool,
}

/// Why a script cannot be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ScriptError {}

impl Script {
    /// Cuts a text into blocks. What they have printed so far is not looked at.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut blocks = Vec::new();
        let mut block = Block { lines: Vec::new(), has_commands: false };
        let mut in_output = false;
        let end = std::iter::once("");
        for (number, line) in text.lines().chain(end).enumerate() {
            let line = line.trim_end();
            if line.is_empty() {
                if !block.lines.is_empty() {
                    blocks.push(std::mem::replace(
                        &mut block,
                        Block { lines: Vec::new(), has_commands: false },
                    ));
                }
                in_output = false;
            } else if line == SEPARATOR {
                in_output = true;
            } else if !in_output {
                block.has_commands |= !line.starts_with('#');
                block.lines.push((number + 1, line.to_owned()));
            }
        }
        Self { blocks }
    }

    /// Runs all commands against a new cluster. Gives the script's text with what they print.
    ///
    /// # Errors
    ///
    /// If a command is unknown or its arguments make no sense.
    pub fn run(&self) -> Result<String, ScriptError> {
        let mut session = Session::default();
        let mut text = String::new();
        for block in &self.blocks {
            if !text.is_empty() {
                text.push('\n');
            }
            for (_, line) in &block.lines {
                text.push_str(line);
                text.push('\n');
            }
            if !block.has_commands {
                continue;
            }
            text.push_str(SEPARATOR);
            text.push('\n');
            let mut output = Vec::new();
            for (number, line) in block.lines.iter().filter(|(_, line)| !line.starts_with('#')) {
                let failed = |what| ScriptError { line: *number, what };
                for command in arguments::split_commands(line).map_err(failed)? {
                    output.extend(session.execute(&command).map_err(failed)?);
                }
            }
            if output.is_empty() {
                output.push("ok".to_owned());
            }
            for line in output {
                text.push_str(&line);
                text.push('\n');
            }
        }
        Ok(text)
    }
}
