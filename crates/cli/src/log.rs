//! Log lines, in the form that tools for etcd's logs read.
//!
//! One JSON object per line, with `level`, `ts`, `caller` and `msg` first and then the fields of the
//! event; or the same with tabs between, for people. Events come from `tracing`, of this workspace at
//! the level asked for and of others only when they warn.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

/// The target of events after which the process ends; they are written at level `fatal`.
pub(crate) const FATAL: &str = "quorate::fatal";

/// How lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// Objects.
    Json,
    /// Tabs.
    Console,
}

/// From which level on lines are written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Threshold {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What should not happen.
    Warn,
    /// What fails.
    Error,
    /// What ends the process.
    Fatal,
}

impl Threshold {
    /// The level of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "debug" | "DEBUG" => Self::Debug,
            "info" | "INFO" | "" => Self::Info,
            "warn" | "WARN" => Self::Warn,
            "error" | "ERROR" => Self::Error,
            "dpanic" | "DPANIC" | "panic" | "PANIC" | "fatal" | "FATAL" => Self::Fatal,
            _ => return None,
        })
    }

    fn of(metadata: &Metadata<'_>) -> Self {
        if metadata.target() == FATAL {
            return Self::Fatal;
        }
        match *metadata.level() {
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warn,
            Level::INFO => Self::Info,
            _ => Self::Debug,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

/// Writes events as lines.
pub(crate) struct Log {
    threshold: Threshold,
    format: Format,
    outputs: Mutex<Vec<Output>>,
}

/// Where lines go.
enum Output {
    Stdout,
    Stderr,
    File(File),
}

impl Output {
    fn open(name: &str) -> Result<Self, String> {
        match name {
            "default" | "stderr" => Ok(Self::Stderr),
            "stdout" => Ok(Self::Stdout),
            "systemd/journal" => Err("log output systemd/journal is not supported; write to \
                                      stderr, which the journal collects from a unit"
                .to_owned()),
            path => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map(Self::File)
                .map_err(|why| format!("log output {path} cannot be opened: {why}")),
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().write_all(line),
            Self::Stderr => io::stderr().lock().write_all(line),
            Self::File(file) => file.write_all(line),
        }
    }
}

impl Log {
    /// A log to these outputs.
    ///
    /// # Errors
    ///
    /// Which output cannot be written to, and why.
    pub(crate) fn open(
        threshold: Threshold,
        format: Format,
        outputs: &[&str],
    ) -> Result<Self, String> {
        let mut opened = Vec::new();
        for name in outputs {
            if *name == "default" && outputs.len() > 1 {
                return Err("log output default cannot be one of several".to_owned());
            }
            opened.push(Output::open(name)?);
        }
        Ok(Self { threshold, format, outputs: Mutex::new(opened) })
    }

    /// Makes it the log of this process. Only the first one counts.
    pub(crate) fn install(self) {
        // A second log could only be asked for by a second server in this process, which shares it.
        let _ = tracing::subscriber::set_global_default(self);
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let level = Threshold::of(metadata);
        let ours = metadata.target().starts_with("quorate");
        metadata.is_event() && level >= self.threshold && (ours || level >= Threshold::Warn)
    }

    fn write(&self, line: &str) {
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        for output in &mut *outputs {
            // There is nowhere to tell that a log cannot be written.
            let _ = output.write(line.as_bytes());
        }
    }
}

impl Subscriber for Log {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata)
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let line = Line {
            level: Threshold::of(metadata).name(),
            ts: timestamp(SystemTime::now()),
            caller: caller(metadata.file().unwrap_or("unknown"), metadata.line().unwrap_or(0)),
            message: fields.message,
            fields: fields.others,
        };
        self.write(&match self.format {
            Format::Json => line.json(),
            Format::Console => line.console(),
        });
    }

    // Spans carry nothing that lines would show.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line {
    level: &'static str,
    ts: String,
    caller: String,
    message: String,
    fields: Vec<(String, Value)>,
}

impl Line {
    fn json(&self) -> String {
        let mut line = format!("{{\"level\":\"{}\",\"ts\":\"{}\"", self.level, self.ts);
        let mut add = |key: &str, value: &Value| {
            let _ = write!(line, ",{}:{value}", Value::from(key));
        };
        add("caller", &Value::from(self.caller.as_str()));
        add("msg", &Value::from(self.message.as_str()));
        for (key, value) in &self.fields {
            add(key, value);
        }
        line.push_str("}\n");
        line
    }

    fn console(&self) -> String {
        let mut line = format!("{}\t{}\t{}\t{}", self.ts, self.level, self.caller, self.message);
        if !self.fields.is_empty() {
            let fields: Map<String, Value> = self.fields.iter().cloned().collect();
            let _ = write!(line, "\t{}", Value::Object(fields));
        }
        line.push('\n');
        line
    }
}

/// Collects the message and the fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(String, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => {
                self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            }
            name => {
                self.others.push((name.to_owned(), value));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        // Lists of texts are written by `Debug` as JSON writes them.
        let value = text
            .starts_with('[')
            .then(|| serde_json::from_str(&text).ok())
            .flatten()
            .unwrap_or(Value::String(text));
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, Value::from(value.to_string()));
    }
}

/// The last part of a crate's path and the file in it: `cli/serve.rs:12`.
fn caller(path: &str, line: u32) -> String {
    let path = path.replace('\\', "/");
    let short = match path.rsplit_once("/src/") {
        Some((before, file)) => {
            let package = before.rsplit('/').next().unwrap_or(before);
            format!("{package}/{file}")
        }
        None => path,
    };
    format!("{short}:{line}")
}

/// `2006-01-02T15:04:05.999999Z`, without zeros at the end of the fraction.
pub(crate) fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = civil_date(seconds / 86_400);
    let time = seconds % 86_400;
    let mut text = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        time / 3600,
        time / 60 % 60,
        time % 60
    );
    let micros = since.subsec_micros();
    if micros > 0 {
        let digits = format!("{micros:06}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Year, month and day of a day since 1970, by Howard Hinnant's `civil_from_days`: years begin in
/// March there, so that the leap day is the last one.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_tools_expect_them() {
        let at = |seconds, micros| {
            timestamp(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros))
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400, 500_000), "2000-02-29T00:00:00.5Z");
        assert_eq!(at(1_767_225_599, 999_999), "2025-12-31T23:59:59.999999Z");
    }

    #[test]
    fn callers_are_short() {
        assert_eq!(caller("crates/cli/src/serve/table.rs", 7), "cli/serve/table.rs:7");
        assert_eq!(caller("/x/registry/src/index-1/h2-0.4.1/src/lib.rs", 1), "h2-0.4.1/lib.rs:1");
        assert_eq!(caller("main.rs", 1), "main.rs:1");
    }

    #[test]
    fn lines_have_their_four_keys_first() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let name = path.path().to_str().expect("a name");
        for (format, start) in
            [(Format::Json, "{\"level\":\"info\",\"ts\":\""), (Format::Console, "2")]
        {
            std::fs::write(name, "").expect("an empty file");
            let log = Log::open(Threshold::Info, format, &[name]).expect("a log");
            tracing::subscriber::with_default(log, || {
                tracing::debug!("not shown");
                let urls = vec!["http://a:1".to_owned(), "b\"".to_owned()];
                tracing::info!(name = "n1", "election-ms" = 10, ?urls, "started \"it\"");
                tracing::error!(target: FATAL, error = "gone", "stopping");
            });
            let text = std::fs::read_to_string(name).expect("lines");
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 2, "{text}");
            assert!(lines[0].starts_with(start), "{text}");
            if format == Format::Json {
                let line: Value = serde_json::from_str(lines[0]).expect("an object");
                assert_eq!(line["msg"], "started \"it\"");
                assert_eq!(line["election-ms"], 10);
                assert_eq!(line["urls"][1], "b\"");
                assert!(line["caller"].as_str().expect("a text").starts_with("cli/log.rs:"));
                let line: Value = serde_json::from_str(lines[1]).expect("an object");
                assert_eq!((&line["level"], &line["error"]), (&"fatal".into(), &"gone".into()));
            } else {
                assert_eq!(lines[0].split('\t').count(), 5, "{text}");
            }
        }
    }
}
