//! `quorate`: see `quorate help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod client;
mod demo;
mod go;
mod log;
mod serve;
mod signals;

/// Requests are made on one thread and dropped on another, all the time; this allocator takes a seventh off what a put costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A replicated key-value store that speaks the etcd v3 API.
#[derive(Parser, Debug)]
#[command(name = "quorate", version, about)]
struct Cli {
    #[command(flatten)]
    common: client::Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start a server; its flags are those of etcd, see `quorate serve --help`
    #[command(disable_help_flag = true)]
    Serve {
        /// Flags of the server
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        flags: Vec<String>,
    },
    /// Run a cluster of three members in this process, to play with
    Demo(demo::Demo),
    #[command(flatten)]
    Client(client::Command),
    /// Put a cluster under load and measure what it does
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    // Flags of a server are read as Go reads them, so they never get to the other parser. Under the
    // name of the server that it stands in for, the program is that server.
    let name = program.rsplit(['/', '\\']).next().unwrap_or_default();
    match arguments.split_first() {
        _ if name == "etcd" => return serve::run(&arguments),
        Some((first, rest)) if first == "serve" => return serve::run(rest),
        _ => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes.
            let code = if error.use_stderr() { 128 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let command = match cli.command {
        Command::Serve { flags } => return serve::run(&flags),
        Command::Demo(demo) => return demo.run().unwrap_or_else(|why| fail(&why, 1)),
        Command::Bench(bench) => return ended(bench.run(&cli.common)),
        Command::Client(command) => command,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return fail(&format!("the runtime cannot be started: {why}"), 1),
    };
    ended(runtime.block_on(client::run(command, &cli.common)))
}

fn ended(result: Result<(), client::Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure.to_string(), failure.exit_code()),
    }
}

fn fail(text: &str, code: u8) -> ExitCode {
    eprintln!("Error: {text}");
    ExitCode::from(code)
}
