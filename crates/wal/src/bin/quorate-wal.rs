//! Looks at the directory of a log, without changing anything in it.
//!
//! ```text
//! quorate-wal list   DIRECTORY    segments and groups
//! quorate-wal dump   DIRECTORY    every record
//! quorate-wal verify DIRECTORY    damage only; exit code 1 if there is any
//! ```

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use quorate_wal::{OpenError, RealDisk, inspect};

const USAGE: &str = "usage: quorate-wal list|dump|verify DIRECTORY";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, directory] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let result = match command.as_str() {
        "list" => list(directory),
        "dump" => dump(directory),
        "verify" => verify(directory),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("{directory}: {error}");
        ExitCode::from(2)
    })
}

fn list(directory: &str) -> Result<ExitCode, Box<dyn std::error::Error>> {
    print!("{}", survey(directory)?);
    Ok(ExitCode::SUCCESS)
}

fn dump(directory: &str) -> Result<ExitCode, Box<dyn std::error::Error>> {
    inspect::dump(&RealDisk::existing(directory)?, &mut Output(io::stdout().lock()))?;
    Ok(ExitCode::SUCCESS)
}

fn verify(directory: &str) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let survey = survey(directory)?;
    for note in &survey.notes {
        println!("note: {note}");
    }
    for damage in &survey.damage {
        println!("DAMAGE: {damage}");
    }
    if survey.damage.is_empty() {
        let (groups, segments) = (survey.groups.len(), survey.segments.len());
        println!("{groups} groups in {segments} segment files: no damage");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn survey(directory: &str) -> Result<inspect::Survey, Box<dyn std::error::Error>> {
    let disk = RealDisk::existing(directory)?;
    let empty = || OpenError::Empty { directory: directory.to_owned() };
    Ok(inspect::survey(&disk)?.ok_or_else(empty)?)
}

/// Standard output as a writer of text.
struct Output(io::StdoutLock<'static>);

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}
