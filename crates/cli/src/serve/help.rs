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

    /// Which tests show that a flag does what it says: every flag that is used has some.
    const SHOWN_BY: &[(&str, &[&str])] = &[
        ("name", &["settings_come_from_variables_and_from_a_file"]),
        ("data-dir", &["a_data_directory_belongs_to_one_process"]),
        ("snapshot-count", &["members_count_what_passes_between_them"]),
        ("heartbeat-interval", &["what_does_not_fit_together_is_told"]),
        ("election-timeout", &["open_streams_end_when_the_leader_is_lost"]),
        ("listen-peer-urls", &["a_member_has_several_addresses"]),
        ("listen-client-urls", &["a_member_has_several_addresses"]),
        ("listen-client-http-urls", &["with_urls_for_http_those_for_clients_carry_only_grpc"]),
        ("quota-backend-bytes", &["the_quota_does_not_lag_behind_what_is_written", "quota"]),
        ("max-txn-ops", &["settings_reach_what_they_set"]),
        ("max-request-bytes", &["settings_reach_what_they_set"]),
        ("max-concurrent-streams", &["settings_reach_what_they_set"]),
        ("grpc-keepalive-interval", &["a_client_that_answers_no_ping_is_given_up"]),
        ("grpc-keepalive-timeout", &["a_client_that_answers_no_ping_is_given_up"]),
        (
            "feature-gates",
            &["old_names_set_the_flags_and_features_of_today", "a_feature_outweighs_its_group"],
        ),
        ("initial-advertise-peer-urls", &["a_member_has_several_addresses"]),
        ("initial-cluster", &["a_cluster_is_names_and_urls"]),
        ("initial-cluster-state", &["one_becomes_two_becomes_three"]),
        ("initial-cluster-token", &["ids_are_those_that_the_protocol_knows"]),
        ("advertise-client-urls", &["upkeep"]),
        ("strict-reconfig-check", &["one_becomes_two_becomes_three"]),
        ("pre-vote", &["elections_go_without_asking_before"]),
        ("auto-compaction-retention", &["old_history_is_given_up_by_itself"]),
        ("auto-compaction-mode", &["retention_is_hours_a_duration_or_revisions"]),
        ("cors", &["only_pages_of_known_origins_may_read"]),
        ("host-whitelist", &["only_get_is_served_and_only_under_the_right_names"]),
        ("metrics", &["pages_are_served_beside_the_api"]),
        ("listen-metrics-urls", &["pages_are_served_beside_the_api"]),
        ("logger", &["bad_values_are_told_as_go_tells_them"]),
        ("log-outputs", &["log_lines_may_go_to_files_and_look_otherwise"]),
        ("log-level", &["log_lines_may_go_to_files_and_look_otherwise"]),
        ("log-format", &["log_lines_may_go_to_files_and_look_otherwise"]),
        ("warning-unary-request-duration", &["slow_requests_are_told_of"]),
        ("watch-progress-notify-interval", &["every_family_is_there_and_moves"]),
        ("warning-apply-duration", &["settings_reach_what_they_set"]),
        ("max-learners", &["one_becomes_two_becomes_three"]),
        ("snapshot-catchup-entries", &["members_count_what_passes_between_them"]),
        ("api-version", &["a_cluster_is_taken_back_to_an_older_version"]),
        (
            "force-new-cluster",
            &["one_goes_on_without_the_others", "one_goes_on_alone_and_says_what_that_costs"],
        ),
        ("unsafe-no-fsync", &["nobody_waits_for_the_disk"]),
        ("config-file", &["a_configuration_file_stands_alone"]),
        ("version", &["the_version_has_four_lines"]),
    ];

    fn shown_by(flag: &str) -> &'static [&'static str] {
        SHOWN_BY.iter().find(|(name, _)| *name == flag).map_or(&[], |(_, tests)| *tests)
    }

    /// All that is written in files of tests, and beside what they test.
    fn sources(directory: &std::path::Path, into: &mut String) {
        for entry in std::fs::read_dir(directory).expect("a directory of sources") {
            let path = entry.expect("an entry of it").path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&std::fs::read_to_string(path).expect("a source is text"));
            }
        }
    }

    #[test]
    fn every_flag_that_is_used_has_a_test_that_is_there() {
        let mut all = String::new();
        for part in ["src", "tests", "../etcd/src", "../etcd/tests", "../etcd/stories"] {
            sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(part), &mut all);
        }
        for flag in FLAGS.iter().filter(|flag| flag.fate == Fate::Used) {
            assert!(!shown_by(flag.name).is_empty(), "nothing shows what --{} does", flag.name);
        }
        for (flag, tests) in SHOWN_BY {
            assert!(FLAGS.iter().any(|known| known.name == *flag), "there is no --{flag}");
            for test in *tests {
                let is_there = [format!("fn {test}("), format!("fn {test}<")];
                assert!(is_there.iter().any(|text| all.contains(text)), "{test} is not there");
            }
        }
    }

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
             the server says what is missing and goes on, or does not\nstart. The last column names the \
             tests, of `crates/cli` or `crates/etcd`, that show what a flag does.\n",
        );
        for (group, title) in Group::SHOWN.iter().chain(&[(Group::Deprecated, "Deprecated")]) {
            let _ = writeln!(
                text,
                "\n## {title}\n\n| flag | default | here | what it does | shown by |\n|---|---|---|---|---|"
            );
            for flag in FLAGS.iter().filter(|flag| flag.group == *group) {
                let default = match flag.default {
                    "" => String::new(),
                    default => format!("`{default}`"),
                };
                let help = if flag.help == "Not supported." { "" } else { flag.help };
                let tests: Vec<String> =
                    shown_by(flag.name).iter().map(|test| format!("`{test}`")).collect();
                let _ = writeln!(
                    text,
                    "| `{}` | {default} | {} | {help} | {} |",
                    flag.name,
                    fate(flag.fate),
                    tests.join(", ")
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
