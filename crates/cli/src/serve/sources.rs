//! The three places where values come from: the command line, variables, a file.

use std::fmt;
use std::path::Path;

use yaml_rust2::{Yaml, YamlLoader};

use super::table::{FLAGS, Flag, Kind, Meaning, RENAMED, SECTIONS, find, renamed};
use super::values::{SetError, Source, Value, Values};
use crate::go;

/// Reads the flags, as Go's package `flag` does: one or two dashes, the value after `=` or as the
/// next argument, the last one wins, and the first argument that is no flag ends them.
///
/// # Errors
///
/// What is wrong, for the standard error output; the process ends with 2 then.
pub(crate) fn command_line(arguments: &[String]) -> Result<CommandLine, String> {
    let mut values = Values::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
            return Ok(CommandLine::Stray { argument: argument.clone(), values });
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.is_empty() {
            // Two dashes alone end the flags.
            return Ok(match rest.next() {
                Some(argument) => CommandLine::Stray { argument: argument.clone(), values },
                None => CommandLine::Values(values),
            });
        }
        if flag.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {argument}"));
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        if matches!(name, "h" | "help") {
            return Ok(CommandLine::Help);
        }
        let value = match (value, takes_no_argument(name)) {
            (Some(value), _) => value,
            (None, Some(true)) => "true",
            (None, Some(false)) => match rest.next() {
                Some(next) => next,
                None => return Err(format!("flag needs an argument: -{name}")),
            },
            (None, None) => return Err(format!("flag provided but not defined: -{name}")),
        };
        values.set(name, value, Source::CommandLine).map_err(|error| match error {
            SetError::Unknown => format!("flag provided but not defined: -{name}"),
            SetError::Bad(why) if takes_no_argument(name) == Some(true) => {
                format!("invalid boolean value {value:?} for -{name}: {why}")
            }
            SetError::Bad(why) => format!("invalid value {value:?} for flag -{name}: {why}"),
        })?;
    }
    Ok(CommandLine::Values(values))
}

/// What the command line says.
#[derive(Debug)]
pub(crate) enum CommandLine {
    /// Help is wanted.
    Help,
    /// These values.
    Values(Values),
    /// An argument that is no flag stands behind the flags.
    Stray {
        /// Which.
        argument: String,
        /// What the flags before it say, logging among it.
        values: Values,
    },
}

/// Whether a flag may stand without a value; `None` if there is no such flag.
fn takes_no_argument(name: &str) -> Option<bool> {
    if let Some(flag) = find(name) {
        return Some(flag.kind == Kind::Bool);
    }
    match renamed(name)? {
        Meaning::Flag(name) => Some(find(name)?.kind == Kind::Bool),
        Meaning::Gate(_) => Some(true),
    }
}

/// Adds what variables say.
///
/// # Errors
///
/// A variable that has a flag beside it, or a value that does not fit.
pub(crate) fn environment(
    values: &mut Values,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(), String> {
    let mut variables: Vec<_> =
        variables.into_iter().filter(|(name, _)| name.starts_with("ETCD_")).collect();
    variables.sort();
    for (variable, text) in variables {
        let name = FLAGS
            .iter()
            .filter(|flag| flag.name != "version")
            .map(|flag| flag.name)
            .chain(RENAMED.iter().map(|(old, _)| *old))
            .find(|name| variable_of(name) == variable);
        let Some(name) = name else {
            if !matches!(variable.as_str(), "ETCD_VERIFY" | "ETCD_UNSUPPORTED_ARCH") {
                values.remark(&variable, "unrecognized environment variable");
            }
            continue;
        };
        if text.is_empty() {
            continue;
        }
        if find(name).is_some() && values.source(name) == Source::CommandLine {
            return Err(format!(
                "conflicting environment variable {variable:?} is shadowed by corresponding \
                 command-line flag \"--{name}\" (either unset environment variable or disable flag)"
            ));
        }
        values.set(name, &text, Source::Environment).map_err(|error| match error {
            SetError::Unknown => format!("{variable} belongs to no flag"),
            SetError::Bad(why) => format!("invalid value {text:?} for {variable}: {why}"),
        })?;
    }
    Ok(())
}

fn variable_of(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Why a configuration file is not taken.
#[derive(Debug)]
pub(crate) struct FileError {
    path: String,
    why: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration file {}: {}", self.path, self.why)
    }
}

/// Reads a configuration file, in YAML or JSON. Nothing else is asked then.
pub(crate) fn file(path: &str) -> Result<Values, FileError> {
    let error = |why: String| FileError { path: path.to_owned(), why };
    let text = std::fs::read_to_string(Path::new(path)).map_err(|why| error(why.to_string()))?;
    yaml(&text).map_err(error)
}

fn yaml(text: &str) -> Result<Values, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|why| why.to_string())?;
    let mut values = Values::default();
    let Some(document) = documents.first() else { return Ok(values) };
    let map = match document {
        Yaml::Hash(map) => map,
        Yaml::Null => return Ok(values),
        _ => return Err("the file has no keys at its top".to_owned()),
    };
    for (key, node) in map {
        let Some(key) = key.as_str() else {
            return Err(format!("{key:?} is not a key"));
        };
        if let Some((_, keys)) = SECTIONS.iter().find(|(section, _)| *section == key) {
            section(&mut values, key, keys, node)?;
        } else if let Some(flag) = find(key).filter(|flag| flag.name != "config-file") {
            take(&mut values, flag, key, node)?;
        } else if let Some(Meaning::Flag(newer)) = renamed(key) {
            values.remark(key, format!("deprecated name of {newer}"));
            take(&mut values, find(newer).expect("new names are in the table"), key, node)?;
        } else if renamed(key).is_some() {
            let text = scalar(node).ok_or_else(|| wanted_text(key))?;
            values
                .set(key, &text, Source::File)
                .map_err(|_| format!("{key} wants true or false"))?;
        } else {
            values.remark(key, "unknown key of the configuration file");
        }
    }
    Ok(values)
}

fn section(
    values: &mut Values,
    section: &str,
    keys: &[(&str, &str)],
    node: &Yaml,
) -> Result<(), String> {
    let map = match node {
        Yaml::Hash(map) => map,
        Yaml::Null => return Ok(()),
        _ => return Err(format!("{section} has no keys")),
    };
    for (key, node) in map {
        let name = key.as_str().unwrap_or_default();
        match keys.iter().find(|(key, _)| *key == name) {
            Some((key, flag)) => {
                let flag = find(flag).expect("sections name flags of the table");
                take(values, flag, &format!("{section}.{key}"), node)?;
            }
            None => {
                values
                    .remark(&format!("{section}.{name}"), "unknown key of the configuration file");
            }
        }
    }
    Ok(())
}

/// Takes one key's value.
fn take(values: &mut Values, flag: &'static Flag, key: &str, node: &Yaml) -> Result<(), String> {
    if node.is_null() {
        return Ok(());
    }
    let wrong = |wanted: &str| format!("{key} wants {wanted}");
    let value = match flag.kind {
        Kind::Text => Value::Text(text(node).ok_or_else(|| wanted_text(key))?),
        Kind::Bool => Value::Bool(node.as_bool().ok_or_else(|| wrong("true or false"))?),
        Kind::Integer { min, max } => {
            let value = node.as_i64().ok_or_else(|| wrong("an integer"))?;
            if !(min..=max).contains(&value) {
                return Err(wrong(&format!("an integer from {min} to {max}")));
            }
            Value::Integer(value)
        }
        // Nanoseconds, or as a flag has it.
        Kind::Duration => Value::Duration(
            node.as_i64()
                .or_else(|| go::nanoseconds(node.as_str()?))
                .ok_or_else(|| wrong("nanoseconds, or a span of time such as 100ms"))?,
        ),
        Kind::Urls | Kind::OneOf(_) => {
            let text = text(node).ok_or_else(|| wanted_text(key))?;
            if text.is_empty() {
                return Ok(());
            }
            Value::parse(flag.kind, &text).map_err(|why| format!("{key}: {why}"))?
        }
        Kind::Gates => {
            let text = scalar(node).ok_or_else(|| wanted_text(key))?;
            Value::parse(Kind::Gates, &text).map_err(|why| format!("{key}: {why}"))?
        }
    };
    // An empty text is a key that nobody filled in.
    if value != Value::Text(String::new()) {
        values.put(flag, value, Source::File);
    }
    Ok(())
}

fn wanted_text(key: &str) -> String {
    format!("{key} wants a text")
}

/// A scalar, or a list of them with commas between. What stands in a section that is a flag here
/// (the client of discovery) is no scalar, and only has to be there.
fn text(node: &Yaml) -> Option<String> {
    match node {
        Yaml::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(scalar).collect();
            Some(items?.join(","))
        }
        Yaml::Hash(_) => Some("a section".to_owned()),
        other => scalar(other),
    }
}

fn scalar(node: &Yaml) -> Option<String> {
    match node {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(value) => Some(value.to_string()),
        Yaml::Boolean(value) => Some(value.to_string()),
        Yaml::Null => Some(String::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<CommandLine, String> {
        command_line(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn values(arguments: &[&str]) -> Values {
        match parse(arguments) {
            Ok(CommandLine::Values(values)) => values,
            other => panic!("no values of {arguments:?} but {other:?}"),
        }
    }

    #[test]
    fn all_spellings_of_a_flag_are_the_same() {
        for arguments in [
            &["-name", "a"][..],
            &["--name", "a"],
            &["-name=a"],
            &["--name=a"],
            &["--name=b", "--name", "a"],
        ] {
            assert_eq!(values(arguments).text("name"), "a", "{arguments:?}");
        }
        assert!(!values(&["--pre-vote=false"]).bool("pre-vote"));
        assert!(values(&["--force-new-cluster", "--name", "x"]).bool("force-new-cluster"));
        assert_eq!(values(&["--name="]).text("name"), "");
        assert_eq!(values(&["--quota-backend-bytes", "-1"]).integer("quota-backend-bytes"), -1);
    }

    #[test]
    fn mistakes_are_told_as_go_tells_them() {
        for (arguments, text) in [
            (&["--nonsense"][..], "flag provided but not defined: -nonsense"),
            (&["--nonsense=1"], "flag provided but not defined: -nonsense"),
            (&["--name"], "flag needs an argument: -name"),
            (&["---name"], "bad flag syntax: ---name"),
            (
                &["--heartbeat-interval", "x"],
                "invalid value \"x\" for flag -heartbeat-interval: parse error",
            ),
            (&["--pre-vote=x"], "invalid boolean value \"x\" for -pre-vote: parse error"),
            (
                &["--feature-gates", "Foo=true"],
                "invalid value \"Foo=true\" for flag -feature-gates: unrecognized feature gate: Foo",
            ),
        ] {
            assert_eq!(parse(arguments).err().as_deref(), Some(text));
        }
    }

    #[test]
    fn the_first_argument_without_a_dash_ends_the_flags() {
        for arguments in [&["--pre-vote", "false"][..], &["--", "false"], &["false", "--name"]] {
            match parse(arguments) {
                Ok(CommandLine::Stray { argument, .. }) => assert_eq!(argument, "false"),
                other => panic!("{arguments:?}: {other:?}"),
            }
        }
        assert!(matches!(parse(&["-h"]), Ok(CommandLine::Help)));
        assert!(matches!(parse(&["--name", "x", "--help"]), Ok(CommandLine::Help)));
    }

    #[test]
    fn variables_fill_in_what_no_flag_says() {
        let variables = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>()
        };
        let mut taken = values(&[]);
        environment(
            &mut taken,
            variables(&[
                ("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1"),
                ("ETCD_NAME", ""),
                ("ETCD_NONSENSE", "1"),
                ("ETCD_VERSION", "1"),
                ("HOME", "/"),
            ]),
        )
        .expect("valid variables");
        assert_eq!(taken.text("listen-client-urls"), "http://127.0.0.1:1");
        assert_eq!(taken.text("name"), "default");
        assert!(!taken.is_set("name"));
        let names: Vec<_> = taken.remarks.iter().map(|remark| remark.name.as_str()).collect();
        assert_eq!(names, ["ETCD_NONSENSE", "ETCD_VERSION"]);

        let error = environment(&mut values(&["--name", "a"]), variables(&[("ETCD_NAME", "b")]));
        assert!(error.expect_err("a conflict").contains("is shadowed by corresponding"));
        let error = environment(&mut values(&[]), variables(&[("ETCD_PRE_VOTE", "x")]));
        assert_eq!(
            error.expect_err("a bad value"),
            "invalid value \"x\" for ETCD_PRE_VOTE: parse error"
        );
    }

    #[test]
    fn a_file_has_the_same_names() {
        let taken = yaml(
            "name: 'n1'\n\
             heartbeat-interval: 50\n\
             listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\n\
             initial-cluster-token:\n\
             log-outputs: [stderr, file.log]\n\
             grpc-keepalive-interval: 1000000\n\
             feature-gates: LeaseCheckpoint=true\n\
             experimental-max-learners: 2\n\
             nonsense: 1\n\
             client-transport-security:\n  client-cert-auth: false\n  cert-file: a.pem\n",
        )
        .expect("a valid file");
        assert_eq!(taken.text("name"), "n1");
        assert_eq!(taken.integer("heartbeat-interval"), 50);
        assert_eq!(taken.list("listen-client-urls").len(), 2);
        assert_eq!(taken.list("log-outputs"), ["stderr", "file.log"]);
        assert_eq!(taken.duration("grpc-keepalive-interval").as_millis(), 1);
        assert_eq!(taken.text("initial-cluster-token"), "etcd-cluster");
        assert_eq!(taken.text("cert-file"), "a.pem");
        assert_eq!(taken.count("max-learners"), 2);
        assert!(taken.gate("LeaseCheckpoint"));
        assert!(taken.remarks.iter().any(|remark| remark.name == "nonsense"));

        assert_eq!(yaml("{\"name\": \"json\"}").expect("a valid file").text("name"), "json");
        assert_eq!(
            yaml("heartbeat-interval: fast").expect_err("no number"),
            "heartbeat-interval wants an integer"
        );
        assert!(yaml("- a\n").is_err());
        assert!(yaml("a: [").is_err());
        yaml("").expect("an empty file is one without keys");
    }
}
