//! What `quorate serve` says about itself.

use std::fmt::Write as _;

use super::table::{FLAGS, Fate, Group, Kind};

/// The first lines of the help, and all of them after a mistake.
pub(crate) const USAGE: &str = "\
Usage:

  quorate serve [flags]
    Start a server that speaks the etcd v3 API.

  quorate serve --version
    Print the version of that API and of this program.

  quorate serve -h | --help
    Print all flags.

  quorate serve --config-file FILE
    Start a server with the settings of a file; other flags and variables are ignored then.
";

/// All flags, group by group.
pub(crate) fn flags() -> String {
    let mut text = String::from(USAGE);
    text.push_str(
        "\nA flag may have one dash or two, and its value follows after `=` or a space. Every flag \
         has a\nvariable, ETCD_ and its name in capitals: ETCD_DATA_DIR.\n",
    );
    for (group, title) in Group::SHOWN {
        let _ = writeln!(text, "\n{title}:");
        for flag in FLAGS.iter().filter(|flag| flag.group == *group) {
            let default = match flag.kind {
                Kind::Bool => flag.default.to_owned(),
                _ => format!("'{}'", flag.default),
            };
            let _ = writeln!(text, "  --{} {default}\n    {}", flag.name, flag.help);
            if let Fate::Warned(why) | Fate::Refused(why) = flag.fate
                && flag.help != "Not supported."
            {
                let _ = writeln!(text, "    Not supported: {why}.");
            }
        }
    }
    text
}

/// What `--version` prints, line by line as tools read it.
pub(crate) fn version(api_version: &str) -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    format!(
        "etcd Version: {api_version}\n\
         Git SHA: quorate-{version}\n\
         Go Version: none, Quorate {version} is written in Rust\n\
         Go OS/Arch: {os}/{architecture}\n",
        version = env!("CARGO_PKG_VERSION"),
        os = std::env::consts::OS,
    )
}

#[cfg(test)]
mod tests {
    use super::super::table::{GATES, Meaning, RENAMED, Stage};
    use super::*;

    /// The page about flags: its rows are those of the tables.
    fn page() -> String {
        let fate = |fate: Fate| match fate {
            Fate::Used => "yes".to_owned(),
            Fate::Moot => "accepted".to_owned(),
            Fate::Warned(why) => format!("warns: {why}"),
            Fate::Refused(why) => format!("refused: {why}"),
        };
        let mut text = String::from(
            "# Flags of `quorate serve`\n\n\
             They are etcd's, in all their spellings: `-flag` or `--flag`, the value after `=` or as the \
             next argument. Every\nflag has a variable, `ETCD_` and its name in capitals; a flag and its \
             variable together are an error. `--config-file`\nnames a YAML file with the same names as \
             keys; then nothing else is read.\n\n\
             What becomes of a flag: **yes**, it does what it says. **accepted**, it is taken and nobody \
             could tell a difference.\n**warns** and **refused** concern values other than the default: \
             the server says what is missing and goes on, or does not\nstart.\n",
        );
        for (group, title) in Group::SHOWN.iter().chain(&[(Group::Deprecated, "Deprecated")]) {
            let _ = writeln!(
                text,
                "\n## {title}\n\n| flag | default | here | what it does |\n|---|---|---|---|"
            );
            for flag in FLAGS.iter().filter(|flag| flag.group == *group) {
                let default = match flag.default {
                    "" => String::new(),
                    default => format!("`{default}`"),
                };
                let help = if flag.help == "Not supported." { "" } else { flag.help };
                let _ = writeln!(
                    text,
                    "| `{}` | {default} | {} | {help} |",
                    flag.name,
                    fate(flag.fate)
                );
            }
        }
        text.push_str(
            "\n## Features (`--feature-gates`)\n\n| feature | default | here |\n|---|---|---|\n",
        );
        for gate in GATES {
            let default = if gate.stage == Stage::Beta { "on" } else { "off" };
            let _ = writeln!(text, "| `{}` | {default} | {} |", gate.name, fate(gate.fate));
        }
        text.push_str("\n## Older names\n\n| name | means |\n|---|---|\n");
        for (old, meaning) in RENAMED {
            let _ = match meaning {
                Meaning::Flag(name) => writeln!(text, "| `{old}` | `{name}` |"),
                Meaning::Gate(name) => writeln!(text, "| `{old}` | feature `{name}` |"),
            };
        }
        text
    }

    #[test]
    fn the_page_about_flags_is_that_of_the_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/flags.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, page()).expect("docs/flags.md can be written");
        }
        let written = std::fs::read_to_string(path).expect("docs/flags.md is there");
        assert!(
            written == page(),
            "docs/flags.md is not up to date: UPDATE_DOCS=1 cargo test -p quorate-cli page_about_flags"
        );
    }

    #[test]
    fn the_help_shows_every_flag_that_is_of_use() {
        let help = flags();
        for flag in FLAGS.iter().filter(|flag| flag.group != Group::Deprecated) {
            assert!(help.contains(&format!("\n  --{} ", flag.name)), "{}", flag.name);
        }
        assert!(!help.contains("cluster-active-size"));
    }
}
