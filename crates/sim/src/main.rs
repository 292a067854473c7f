//! `quorate-sim`: a cluster in virtual time, from the command line. See `quorate-sim help`.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match cli::execute(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}\nTry `quorate-sim help`.");
            ExitCode::from(2)
        }
    }
}
