//! `quorate`: see `quorate help`.

use std::process::ExitCode;

mod go;
mod log;
mod serve;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    serve::run(&arguments)
}
