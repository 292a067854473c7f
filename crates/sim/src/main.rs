//! `quorate-sim`: a cluster in virtual time, from the command line. See `quorate-sim help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    quorate_sim::cli::main("quorate-sim", &arguments)
}
