//! `completion` and `man`: what is generated from the definitions of all commands.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Arg, Args, Command, CommandFactory, ValueHint};
use clap_complete::Shell;

use crate::client::Failure;
use crate::client::output::{line, print};
use crate::{Cli, serve};

/// `completion`.
#[derive(Args, Debug)]
#[command(after_help = "\
bash:  quorate completion bash > /etc/bash_completion.d/quorate
zsh:   quorate completion zsh > \"${fpath[1]}/_quorate\"
fish:  quorate completion fish > ~/.config/fish/completions/quorate.fish

For the shell that is running now: source <(quorate completion bash)")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

/// `man`.
#[derive(Args, Debug)]
#[command(after_help = "\
One page:   quorate man snapshot save | man -l -
All pages:  quorate man --dir /usr/local/share/man/man1")]
pub(crate) struct Manual {
    /// Write the pages of all commands into this directory, which is made if it does not exist
    #[arg(long, value_hint = ValueHint::DirPath, conflicts_with = "command")]
    dir: Option<PathBuf>,
    /// Print the page of this command; by default, that of the program
    command: Vec<String>,
}

/// All commands, with those whose flags are read by other parsers.
fn commands() -> Command {
    let mut all = Cli::command();
    let common: Vec<Arg> = all.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    // What is common belongs to the commands that talk to a cluster: others take it, and have no use for it.
    let names: Vec<String> =
        all.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    all = all.mut_args(|arg| arg.global(false));
    for name in names {
        all = match name.as_str() {
            "serve" => all.mut_subcommand(name, |_| serve::command()),
            "sim" => all.mut_subcommand(name, |command| simulator(&command)),
            "demo" | "completion" | "man" => all,
            _ => all.mut_subcommand(name, |command| command.args(common.clone())),
        };
    }
    all
}

fn simulator(command: &Command) -> Command {
    let mut command = Command::new("sim").about(command.get_about().cloned().unwrap_or_default());
    for part in quorate_sim::cli::COMMANDS {
        let flags = part.flags.iter().map(|flag| {
            let name = flag.name.trim_start_matches("--");
            let argument = Arg::new(name).long(name).help(flag.help);
            if flag.value.is_empty() {
                argument.action(clap::ArgAction::SetTrue)
            } else {
                argument.value_name(flag.value)
            }
        });
        let mut sub = Command::new(part.name).about(part.help).args(flags);
        if !part.word.is_empty() {
            sub = sub.arg(Arg::new("word").value_name(part.word));
        }
        command = command.subcommand(sub);
    }
    command
}

impl Completion {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut commands(), "quorate", &mut script);
        print(&script)
    }
}

impl Manual {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut all = commands().disable_help_subcommand(true);
        all.build();
        if let Some(directory) = &self.dir {
            let fails = |why: io::Error| Failure::File(format!("{}: {why}", directory.display()));
            std::fs::create_dir_all(directory).map_err(fails)?;
            let count = write_all(&all, directory).map_err(fails)?;
            return line(format!("{count} pages written to {}", directory.display()));
        }
        let mut found = &all;
        for name in &self.command {
            found = found.find_subcommand(name).ok_or_else(|| {
                Failure::Input(format!("there is no command {name:?}; see `quorate help`"))
            })?;
        }
        let mut text = Vec::new();
        page(found).render(&mut text).map_err(|why| Failure::File(format!("the page: {why}")))?;
        print(&text)
    }
}

fn page(command: &Command) -> clap_mangen::Man {
    clap_mangen::Man::new(command.clone())
        .manual("Quorate")
        .source(concat!("quorate ", env!("CARGO_PKG_VERSION")))
}

fn write_all(command: &Command, directory: &Path) -> io::Result<usize> {
    page(command).generate_to(directory)?;
    let mut count = 1;
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        count += write_all(command, directory)?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_sound() {
        commands().debug_assert();
    }

    #[test]
    fn what_is_common_is_told_where_it_is_of_use() {
        let mut all = commands();
        all.build();
        let has = |path: &[&str]| {
            let found = path.iter().fold(&all, |found, name| {
                found.find_subcommand(name).expect("there is such a command")
            });
            found.get_arguments().any(|arg| arg.get_long() == Some("endpoints"))
        };
        assert!(has(&["get"]) && has(&["lease", "grant"]) && has(&["bench", "put"]));
        assert!(!has(&["serve"]) && !has(&["sim", "run"]) && !has(&["man"]));
    }
}
