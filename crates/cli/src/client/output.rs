//! Printing answers.

use std::io::{self, Write};

use quorate_etcd::proto::etcdserverpb::ResponseHeader;
use quorate_etcd::proto::mvccpb::KeyValue;
use serde_json::{Map, Value, json};

use super::Failure;
use crate::style::Paint;

/// Prints bytes as they are. A reader that has gone away ends the command, as pipes do.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::File(format!("the standard output: {error}"))),
    }
}

/// Prints one line.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    print(format!("{}\n", text.as_ref()).as_bytes())
}

/// Prints an object as one line.
pub(crate) fn object(value: &Value) -> Result<(), Failure> {
    line(value.to_string())
}

/// Collects the fields of an object, without those that are empty or zero.
#[derive(Default)]
pub(crate) struct Object(Map<String, Value>);

impl Object {
    /// Adds a field, unless it says nothing.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if !empty {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    /// The object, with one more field whatever it says.
    pub(crate) fn value_with(mut self, name: &str, value: impl Into<Value>) -> Value {
        self.0.insert(name.to_owned(), value.into());
        Value::Object(self.0)
    }

    /// The object.
    pub(crate) fn value(self) -> Value {
        Value::Object(self.0)
    }
}

/// The header of an answer.
pub(crate) fn header(header: Option<&ResponseHeader>) -> Value {
    let Some(header) = header else { return json!({}) };
    Object::default()
        .with("cluster_id", header.cluster_id)
        .with("member_id", header.member_id)
        .with("revision", header.revision)
        .with("raft_term", header.raft_term)
        .value()
}

/// The header of an answer, one field per line.
pub(crate) fn header_fields(header: Option<&ResponseHeader>) -> String {
    let header = header.copied().unwrap_or_default();
    format!(
        "\"ClusterID\" : {}\n\"MemberID\" : {}\n\"Revision\" : {}\n\"RaftTerm\" : {}\n",
        header.cluster_id, header.member_id, header.revision, header.raft_term
    )
}

/// A key and its value.
pub(crate) fn key_value(kv: &KeyValue) -> Value {
    Object::default()
        .with("key", base64(&kv.key))
        .with("create_revision", kv.create_revision)
        .with("mod_revision", kv.mod_revision)
        .with("version", kv.version)
        .with("value", base64(&kv.value))
        .with("lease", kv.lease)
        .value()
}

/// A key and its value, one field per line.
pub(crate) fn key_value_fields(kv: &KeyValue) -> String {
    format!(
        "\"Key\" : {}\n\"CreateRevision\" : {}\n\"ModRevision\" : {}\n\"Version\" : {}\n\
         \"Value\" : {}\n\"Lease\" : {}\n",
        quoted(&kv.key),
        kv.create_revision,
        kv.mod_revision,
        kv.version,
        quoted(&kv.value),
        kv.lease
    )
}

/// Bytes between quotation marks.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

/// Bytes as text that JSON can hold.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..4 {
            if at <= chunk.len() {
                let index = word >> (18 - 6 * at) & 63;
                text.push(char::from(LETTERS[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// A text with a colour.
    pub(crate) fn new(text: impl Into<String>, paint: Paint) -> Self {
        Self { text: text.into(), paint }
    }

    /// The text without its colour.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, paint: Paint::Plain }
    }
}

/// Columns for people: aligned if plain, with lines around them if drawn.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>], drawn: bool) -> String {
    let cells = |row: &Vec<String>| row.iter().cloned().map(Cell::from).collect();
    painted_table(head, &rows.iter().map(cells).collect::<Vec<_>>(), drawn)
}

/// The same with colours, which take no room.
pub(crate) fn painted_table(head: &[&str], rows: &[Vec<Cell>], drawn: bool) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].text.chars().count());
            cells.chain([head[column].chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    let mut row = |cells: &[Cell]| {
        let mut padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(Cell { text, paint }, width)| {
                let room = " ".repeat(width - text.chars().count());
                format!("{}{room}", paint.out(text))
            })
            .collect();
        if drawn {
            text.push_str(&format!("| {} |\n", padded.join(" | ")));
            return;
        }
        // No line ends with spaces.
        while padded.last().is_some_and(|cell| cell.trim_end().is_empty()) {
            padded.pop();
        }
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    };
    let head: Vec<Cell> = head.iter().map(|name| Cell::new(*name, Paint::Head)).collect();
    row(&head);
    for cells in rows {
        row(cells);
    }
    if !drawn {
        return text;
    }
    let edge: String =
        widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>()
            + "+\n";
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    format!("{edge}{first}\n{edge}{rest}{edge}")
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    if unit == 0 || size >= 10.0 {
        format!("{size:.0} {}", UNITS[unit])
    } else {
        format!("{size:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_base64() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("\u{ff}\u{fe}", "w7/Dvg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn tables_are_aligned() {
        let rows = vec![vec!["a".to_owned(), "12345".to_owned()]];
        assert_eq!(table(&["NAME", "ID"], &rows, false), "NAME  ID\na     12345\n");
        assert_eq!(
            table(&["N", "ID"], &rows, true),
            "+---+-------+\n| N | ID    |\n+---+-------+\n| a | 12345 |\n+---+-------+\n"
        );
    }

    #[test]
    fn sizes_have_few_digits() {
        for (bytes, text) in [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (20_480, "20 kB")] {
            assert_eq!(size(bytes), text);
        }
    }
}
