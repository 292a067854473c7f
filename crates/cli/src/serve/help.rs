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
    use super::*;

    #[test]
    fn the_help_shows_every_flag_that_is_of_use() {
        let help = flags();
        for flag in FLAGS.iter().filter(|flag| flag.group != Group::Deprecated) {
            assert!(help.contains(&format!("\n  --{} ", flag.name)), "{}", flag.name);
        }
        assert!(!help.contains("cluster-active-size"));
    }
}
