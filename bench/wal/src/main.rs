//! The durable log beside a bare loop of `pwrite` and `fdatasync`, and beside `raft-engine`.
//!
//! All of them write entries of 256 bytes to files in the same directory, one after another in the
//! same run, several rounds interleaved; a row is the median of its rounds. Ratios are what counts:
//! a disk, and above all a shared machine, is faster in one minute than in the next.
//!
//! ```text
//! quorate-bench-wal [--dir DIR] [--rounds N] [--seconds S] [--only WRITERSxBATCH] [--verbose]
//! quorate-bench-wal --three | --recovery
//! ```

mod bare;
mod measure;
mod peer;
mod quorate;
mod recovery;
mod table;

use std::path::PathBuf;
use std::time::Duration;

/// Bytes of one entry.
const ENTRY_BYTES: usize = 256;

/// What to run.
struct Arguments {
    dir: PathBuf,
    rounds: usize,
    seconds: f64,
    only: Option<String>,
    three: bool,
    recovery: bool,
    verbose: bool,
    /// Set in a process that another one has started: write like this and print the result.
    child: Option<String>,
}

impl Arguments {
    fn parse() -> Self {
        let mut arguments = Self {
            dir: std::env::temp_dir().join(format!("quorate-bench-{}", std::process::id())),
            rounds: 3,
            seconds: 2.0,
            only: None,
            three: false,
            recovery: false,
            verbose: false,
            child: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} wants a value"));
            match word.as_str() {
                "--dir" => arguments.dir = value().into(),
                "--rounds" => arguments.rounds = value().parse().expect("a number of rounds"),
                "--seconds" => arguments.seconds = value().parse().expect("a number of seconds"),
                "--only" => arguments.only = Some(value()),
                "--child" => arguments.child = Some(value()),
                "--three" => arguments.three = true,
                "--verbose" => arguments.verbose = true,
                "--recovery" => arguments.recovery = true,
                _ => panic!("unknown argument {word}"),
            }
        }
        arguments
    }

    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn main() {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.dir).expect("a directory to write in");
    if let Some(system) = &arguments.child {
        table::child(system, &arguments);
    } else {
        if arguments.three {
            table::three_processes(&arguments);
        }
        if arguments.recovery {
            recovery::run(&arguments.dir);
        }
        if !arguments.three && !arguments.recovery {
            table::run(&arguments);
        }
    }
    let _ = std::fs::remove_dir_all(&arguments.dir);
}
