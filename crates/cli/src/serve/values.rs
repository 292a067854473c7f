//! From command line, environment or file to one value per flag.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use quorate_etcd::Url;

use super::table::{FLAGS, Fate, Flag, GATES, Kind, Meaning, Stage, find, renamed};
use crate::go;

/// The value of a flag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    /// Of [`Kind::Text`], [`Kind::Urls`] and [`Kind::OneOf`].
    Text(String),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Integer`].
    Integer(i64),
    /// Of [`Kind::Duration`], in nanoseconds.
    Duration(i64),
    /// Of [`Kind::Gates`]: what was switched, in that order.
    Gates(Vec<(String, bool)>),
}

/// What is wrong with a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BadValue(pub(crate) String);

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value {
    /// Reads a value of this kind.
    pub(crate) fn parse(kind: Kind, text: &str) -> Result<Self, BadValue> {
        let parse_error = || BadValue("parse error".to_owned());
        match kind {
            Kind::Text => Ok(Self::Text(text.to_owned())),
            Kind::Bool => go::boolean(text).map(Self::Bool).ok_or_else(parse_error),
            Kind::Integer { min, max } => {
                let value = go::integer(text).ok_or_else(parse_error)?;
                if value < i128::from(min) && min == 0 {
                    return Err(parse_error());
                }
                i64::try_from(value)
                    .ok()
                    .filter(|value| (min..=max).contains(value))
                    .map(Self::Integer)
                    .ok_or_else(|| BadValue("value out of range".to_owned()))
            }
            Kind::Duration => go::nanoseconds(text).map(Self::Duration).ok_or_else(parse_error),
            Kind::Urls => {
                for url in text.split(',').map(str::trim).filter(|url| !url.is_empty()) {
                    url.parse::<Url>().map_err(|why| BadValue(why.to_string()))?;
                }
                Ok(Self::Text(text.to_owned()))
            }
            Kind::OneOf(words) if words.contains(&text) => Ok(Self::Text(text.to_owned())),
            Kind::OneOf(words) => {
                Err(BadValue(format!("invalid value {text:?}, possible: {}", words.join(", "))))
            }
            Kind::Gates => parse_gates(text).map(Self::Gates),
        }
    }
}

fn parse_gates(text: &str) -> Result<Vec<(String, bool)>, BadValue> {
    let mut switched = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(BadValue(format!("missing bool value for {part}")));
        };
        let (name, value) = (name.trim(), value.trim());
        let value = go::boolean(value)
            .ok_or_else(|| BadValue(format!("invalid value of {name}={value}: not a bool")))?;
        let known =
            matches!(name, "AllAlpha" | "AllBeta") || GATES.iter().any(|gate| gate.name == name);
        if !known {
            return Err(BadValue(format!("unrecognized feature gate: {name}")));
        }
        switched.push((name.to_owned(), value));
    }
    Ok(switched)
}

/// Where a value came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// Nobody set it.
    Default,
    /// A flag.
    CommandLine,
    /// A variable.
    Environment,
    /// The configuration file.
    File,
}

/// Something to tell once there is a log to write it to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Remark {
    /// What.
    pub(crate) what: String,
    /// Of which flag, variable or key.
    pub(crate) name: String,
}

/// A value for every flag.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    by_name: BTreeMap<&'static str, (Value, Source)>,
    /// What an operator should know about the values.
    pub(crate) remarks: Vec<Remark>,
}

impl Default for Values {
    fn default() -> Self {
        let by_name = FLAGS
            .iter()
            .map(|flag| {
                let value = Value::parse(flag.kind, flag.default).expect("defaults are valid");
                (flag.name, (value, Source::Default))
            })
            .collect();
        Self { by_name, remarks: Vec::new() }
    }
}

/// Why a flag could not be set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SetError {
    /// No flag has this name, now or in the past.
    Unknown,
    /// It does not take this value.
    Bad(BadValue),
}

impl Values {
    /// Sets a flag by any of its names from text.
    pub(crate) fn set(&mut self, name: &str, text: &str, source: Source) -> Result<(), SetError> {
        let flag = match (find(name), renamed(name)) {
            (Some(flag), _) => flag,
            (None, Some(Meaning::Flag(newer))) => {
                self.remark(name, format!("deprecated name of --{newer}"));
                find(newer).expect("new names are in the table")
            }
            (None, Some(Meaning::Gate(gate))) => {
                let value = Value::parse(Kind::Bool, text).map_err(SetError::Bad)?;
                self.remark(name, format!("deprecated name of --feature-gates={gate}={text}"));
                self.switch(gate, value == Value::Bool(true), source);
                return Ok(());
            }
            (None, None) => return Err(SetError::Unknown),
        };
        let value = Value::parse(flag.kind, text).map_err(SetError::Bad)?;
        self.put(flag, value, source);
        Ok(())
    }

    /// Sets a flag to a value of its kind.
    pub(crate) fn put(&mut self, flag: &'static Flag, value: Value, source: Source) {
        if let Value::Gates(switched) = value {
            for (gate, on) in switched {
                self.switch(&gate, on, source);
            }
            return;
        }
        self.by_name.insert(flag.name, (value, source));
    }

    fn switch(&mut self, gate: &str, on: bool, source: Source) {
        let entry = self.by_name.get_mut("feature-gates").expect("every flag has a value");
        if let Value::Gates(switched) = &mut entry.0 {
            switched.push((gate.to_owned(), on));
        }
        entry.1 = source;
    }

    /// Notes something to be told later.
    pub(crate) fn remark(&mut self, name: &str, what: impl Into<String>) {
        self.remarks.push(Remark { what: what.into(), name: name.to_owned() });
    }

    fn value(&self, name: &str) -> &Value {
        &self.by_name.get(name).expect("only names of the table are asked for").0
    }

    /// Where the value of this flag came from.
    pub(crate) fn source(&self, name: &str) -> Source {
        self.by_name.get(name).map_or(Source::Default, |(_, source)| *source)
    }

    /// Whether anybody set this flag.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.source(name) != Source::Default
    }

    /// Names of the flags that somebody set.
    pub(crate) fn set_by_hand(&self) -> impl Iterator<Item = &'static str> {
        self.by_name
            .iter()
            .filter(|(_, (_, source))| *source != Source::Default)
            .map(|(name, _)| *name)
    }

    /// The value of a flag that is a text.
    pub(crate) fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(text) => text,
            other => unreachable!("{name} is {other:?}, not a text"),
        }
    }

    /// The value of a flag of [`Kind::Text`] that is a list with commas.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        self.text(name).split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
    }

    /// The value of a flag of [`Kind::Urls`].
    pub(crate) fn urls(&self, name: &str) -> Vec<Url> {
        let parse = |url: &str| url.parse().expect("checked when it was set");
        self.list(name).into_iter().map(parse).collect()
    }

    /// The value of a flag of [`Kind::Bool`].
    pub(crate) fn bool(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(value) => *value,
            other => unreachable!("{name} is {other:?}, not a truth value"),
        }
    }

    /// The value of a flag of [`Kind::Integer`].
    pub(crate) fn integer(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Integer(value) => *value,
            other => unreachable!("{name} is {other:?}, not an integer"),
        }
    }

    /// The value of a flag of [`Kind::Integer`] that is never negative.
    pub(crate) fn count(&self, name: &str) -> u64 {
        u64::try_from(self.integer(name)).expect("the table says that it is not negative")
    }

    /// The value of a flag of [`Kind::Duration`]; what is negative counts as none.
    pub(crate) fn duration(&self, name: &str) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanoseconds(name)).unwrap_or(0))
    }

    /// The value of a flag of [`Kind::Duration`], in nanoseconds.
    pub(crate) fn nanoseconds(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Duration(nanos) => *nanos,
            other => unreachable!("{name} is {other:?}, not a span of time"),
        }
    }

    /// Whether a feature is on.
    pub(crate) fn gate(&self, name: &str) -> bool {
        let stage = GATES.iter().find(|gate| gate.name == name).map(|gate| gate.stage);
        let mut on = stage == Some(Stage::Beta);
        let Value::Gates(switched) = self.value("feature-gates") else { return on };
        let group = if stage == Some(Stage::Alpha) { "AllAlpha" } else { "AllBeta" };
        // A feature's own word outweighs that about its group.
        for wanted in [group, name] {
            if let Some((_, value)) = switched.iter().rev().find(|(gate, _)| gate == wanted) {
                on = *value;
            }
        }
        on
    }

    /// What was set that cannot be honoured: the first reason not to start.
    pub(crate) fn refusal(&self) -> Option<String> {
        FLAGS.iter().find_map(|flag| match flag.fate {
            Fate::Refused(why) if self.is_changed(flag) => {
                Some(format!("--{} cannot be honoured: {why}", flag.name))
            }
            _ => None,
        })
    }

    /// What was set that is missing, but does no harm by that.
    pub(crate) fn warnings(&self) -> Vec<Remark> {
        let flags = FLAGS.iter().filter_map(|flag| match flag.fate {
            Fate::Warned(why) if self.is_changed(flag) => {
                Some(Remark { what: why.to_owned(), name: flag.name.to_owned() })
            }
            _ => None,
        });
        let gates = GATES.iter().filter_map(|gate| match gate.fate {
            Fate::Warned(why) if self.gate(gate.name) != (gate.stage == Stage::Beta) => {
                Some(Remark { what: why.to_owned(), name: gate.name.to_owned() })
            }
            _ => None,
        });
        flags.chain(gates).collect()
    }

    fn is_changed(&self, flag: &Flag) -> bool {
        let default = Value::parse(flag.kind, flag.default).expect("defaults are valid");
        *self.value(flag.name) != default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Values {
        let mut values = Values::default();
        for (name, text) in pairs {
            values.set(name, text, Source::CommandLine).expect("a valid value");
        }
        values
    }

    #[test]
    fn old_names_set_the_flags_and_features_of_today() {
        let values = set(&[
            ("experimental-max-learners", "3"),
            ("experimental-enable-lease-checkpoint", "true"),
        ]);
        assert_eq!(values.count("max-learners"), 3);
        assert!(values.gate("LeaseCheckpoint"));
        assert_eq!(values.remarks.len(), 2);
    }

    #[test]
    fn a_feature_outweighs_its_group() {
        let values = set(&[("feature-gates", "LeaseCheckpoint=false,AllAlpha=true")]);
        assert!(!values.gate("LeaseCheckpoint"));
        assert!(values.gate("CompactHashCheck"));
        assert!(values.gate("FastLeaseKeepAlive"));
        assert!(!set(&[("feature-gates", "AllBeta=0")]).gate("FastLeaseKeepAlive"));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_unless_it_is_the_default() {
        assert_eq!(Values::default().refusal(), None);
        assert_eq!(set(&[("client-cert-auth", "false")]).refusal(), None);
        assert_eq!(
            set(&[("cert-file", "server.pem")]).refusal().as_deref(),
            Some("--cert-file cannot be honoured: TLS is not supported yet")
        );
        assert!(set(&[("enable-grpc-gateway", "true")]).refusal().is_some());
        let values = set(&[("experimental-initial-corrupt-check", "true")]);
        assert_eq!(values.refusal(), None);
        assert_eq!(values.warnings().len(), 1);
    }

    #[test]
    fn bad_values_are_told_as_go_tells_them() {
        let parse = |name: &str, text: &str| {
            let kind = find(name).expect("a flag").kind;
            Value::parse(kind, text).expect_err("a bad value").0
        };
        assert_eq!(parse("heartbeat-interval", "x"), "parse error");
        assert_eq!(parse("heartbeat-interval", "-1"), "parse error");
        assert_eq!(parse("max-concurrent-streams", "4294967296"), "value out of range");
        assert_eq!(parse("pre-vote", "yes"), "parse error");
        assert_eq!(parse("feature-gates", "Foo=true"), "unrecognized feature gate: Foo");
    }
}
