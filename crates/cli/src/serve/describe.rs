//! The flags of a server as the generator of completions and manual pages wants them. They are read by another parser.

use clap::{Arg, ArgAction, Command, ValueHint};

use super::table::{FLAGS, Fate, Flag, Group, Kind};

/// The command with all flags that the help shows.
pub(crate) fn command() -> Command {
    let help = Arg::new("help")
        .long("help")
        .short('h')
        .action(ArgAction::SetTrue)
        .help("Print all flags and exit.");
    let shown = |group: &(Group, &'static str)| {
        let (group, title) = *group;
        let flags = FLAGS.iter().filter(move |flag| flag.group == group);
        flags.map(move |flag| argument(flag).help_heading(title))
    };
    Command::new("serve")
        .about("Start a server that speaks the etcd v3 API; its flags are those of etcd")
        .long_about(
            "Starts a member of a cluster, which serves clients that speak the etcd v3 API. A flag may have one dash or two, \
             and its value follows after `=` or a space. Every flag has a variable, ETCD_ and its name in capitals.",
        )
        .override_usage("quorate serve [flags]\nquorate serve --config-file FILE")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(Group::SHOWN.iter().flat_map(shown))
        .arg(help)
}

fn argument(flag: &'static Flag) -> Arg {
    let mut help = flag.help.to_owned();
    if let Fate::Warned(why) | Fate::Refused(why) = flag.fate
        && flag.help != "Not supported."
    {
        help.push_str(&format!(" Not supported: {why}."));
    }
    let argument = Arg::new(flag.name)
        .long(flag.name)
        .help(help)
        .env(format!("ETCD_{}", flag.name.replace('-', "_").to_uppercase()))
        .hide_env_values(true)
        .value_name(value_name(flag.kind));
    let argument = match flag.default {
        "" => argument,
        default => argument.default_value(default),
    };
    match flag.kind {
        // It may stand without a value, which completions must not ask for.
        Kind::Bool => argument
            .num_args(0..=1)
            .require_equals(true)
            .value_parser(["true", "false"])
            .hide_possible_values(true),
        Kind::OneOf(words) => argument.value_parser(words.to_vec()),
        Kind::Urls => argument.value_hint(ValueHint::Url),
        Kind::Text => argument.value_hint(match flag.name {
            name if name.ends_with("-dir") => ValueHint::DirPath,
            name if name.ends_with("-file") => ValueHint::FilePath,
            _ => ValueHint::Other,
        }),
        Kind::Integer { .. } | Kind::Duration | Kind::Gates => {
            argument.value_hint(ValueHint::Other)
        }
    }
}

fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "TEXT",
        Kind::Bool => "true|false",
        Kind::Integer { .. } => "NUMBER",
        Kind::Duration => "TIME",
        Kind::Urls => "URLS",
        Kind::OneOf(_) => "WORD",
        Kind::Gates => "NAME=BOOL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_that_is_shown_is_described() {
        let command = command();
        command.clone().debug_assert();
        for flag in FLAGS.iter().filter(|flag| flag.group != Group::Deprecated) {
            assert!(
                command.get_arguments().any(|argument| argument.get_long() == Some(flag.name)),
                "{}",
                flag.name
            );
        }
    }
}
