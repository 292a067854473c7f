//! The language of transactions: `mod("key") = "3"`, `put "a key" 'and its value'`.
//!
//! It is etcdctl's, and what etcdctl refuses for lack of quotation marks is taken as well.

use bytes::Bytes;
use clap::{Parser, Subcommand};
use quorate_etcd::proto::etcdserverpb::Compare;
use quorate_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

use super::keys::{Del, Get, Put, lease};

/// A request of a transaction, written as the command of the same name.
#[derive(Subcommand, Debug)]
pub(crate) enum Operation {
    /// Read keys
    Get(Get),
    /// Write a key
    Put(Put),
    /// Remove keys
    #[command(alias = "delete")]
    Del(Del),
}

/// A line with a request, as the parser of arguments sees it.
#[derive(Parser, Debug)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    operation: Operation,
}

/// Reads a request.
pub(crate) fn operation(line: &str) -> Result<Operation, String> {
    let line = line.trim();
    match Line::try_parse_from(words(line)?) {
        Ok(Line { operation }) => Ok(operation),
        Err(why) => {
            let why = why.render().to_string();
            let why = why.lines().next().unwrap_or_default();
            let why = why.strip_prefix("error: ").unwrap_or(why);
            Err(format!("invalid txn request: {line}: {why}"))
        }
    }
}

/// Reads a comparison: `TARGET("KEY") OPERATOR "VALUE"`.
pub(crate) fn comparison(line: &str) -> Result<Compare, String> {
    let line = line.trim();
    let bad = |why: &str| format!("malformed comparison: {line}{why}");
    let (target, rest) = line.split_once('(').ok_or_else(|| bad(""))?;
    let (key, rest) = quoted_or(rest, |letter| letter == ')').ok_or_else(|| bad(""))?;
    let rest = rest.trim_start().strip_prefix(')').ok_or_else(|| bad(""))?.trim_start();
    // The longer ones first.
    let operators = [
        ("!=", CompareResult::NotEqual),
        ("=", CompareResult::Equal),
        (">", CompareResult::Greater),
        ("<", CompareResult::Less),
    ];
    let (rest, result) = operators
        .iter()
        .find_map(|(text, result)| Some((rest.strip_prefix(text)?, *result)))
        .ok_or_else(|| bad("; the operators are =, !=, < and >"))?;
    let rest = rest.trim();
    let (value, rest) = quoted_or(rest, char::is_whitespace).ok_or_else(|| bad(""))?;
    if !rest.is_empty() {
        return Err(bad(&format!("; {rest:?} is too much")));
    }
    let text = || String::from_utf8_lossy(&value).into_owned();
    let number = || text().parse().map_err(|_| bad(&format!("; {:?} is no number", text())));
    let (target, union) = match target.trim() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(Bytes::from(value))),
        "lease" => {
            let id = lease(&text()).map_err(|why| bad(&format!("; {why}")))?;
            (CompareTarget::Lease, TargetUnion::Lease(id))
        }
        other => {
            let why = format!("; {other:?} is none of version, create, mod, value and lease");
            return Err(bad(&why));
        }
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        ..Compare::default()
    })
}

/// A quoted text, or else everything up to a letter that ends it, and what follows.
fn quoted_or(text: &str, ends: impl Fn(char) -> bool) -> Option<(Vec<u8>, &str)> {
    let text = text.trim_start();
    if text.starts_with(['"', '\'', '`']) {
        return quoted(text);
    }
    let end = text.find(ends).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let word = word.trim_end();
    (!word.is_empty()).then(|| (word.as_bytes().to_vec(), rest.trim_start()))
}

/// The words of a line, as a shell would part them.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let bad = || format!("invalid txn request: {line}: a quotation mark is missing");
        let (word, after) = quoted_or(rest, char::is_whitespace).ok_or_else(bad)?;
        let word = String::from_utf8(word).map_err(|_| {
            format!("invalid txn request: {line}: keys and values must be text here")
        })?;
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// What stands between quotation marks at the begin of a text, and what follows. Between double ones, a backslash begins an
/// escape as Go and C know them; between others, everything is as it is written.
fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let mark = text.chars().next()?;
    let body = &text[mark.len_utf8()..];
    if mark != '"' {
        let (inside, rest) = body.split_once(mark)?;
        return Some((inside.as_bytes().to_vec(), rest));
    }
    let mut bytes = Vec::new();
    let mut letters = body.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((bytes, &body[at + 1..])),
            '\\' => {
                let (_, escape) = letters.next()?;
                let mut digits = |count: usize, radix: u32, mut value: u32| {
                    for _ in 0..count {
                        value = value * radix + letters.next()?.1.to_digit(radix)?;
                    }
                    Some(value)
                };
                match escape {
                    'a' => bytes.push(7),
                    'b' => bytes.push(8),
                    'f' => bytes.push(12),
                    'n' => bytes.push(b'\n'),
                    'r' => bytes.push(b'\r'),
                    't' => bytes.push(b'\t'),
                    'v' => bytes.push(11),
                    '\\' | '"' | '\'' => bytes.push(u8::try_from(escape).ok()?),
                    'x' => bytes.push(u8::try_from(digits(2, 16, 0)?).ok()?),
                    '0'..='7' => {
                        let value = digits(2, 8, escape.to_digit(8)?)?;
                        bytes.push(u8::try_from(value).ok()?);
                    }
                    'u' | 'U' => {
                        let count = if escape == 'u' { 4 } else { 8 };
                        let letter = char::from_u32(digits(count, 16, 0)?)?;
                        bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    _ => return None,
                }
            }
            letter => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_words() {
        for (line, expected) in [
            ("put a b", vec!["put", "a", "b"]),
            ("  put \"a b\"   'c \"d\"' ", vec!["put", "a b", "c \"d\""]),
            (r#"put "a\n\"\x41\101\u00e9" `\n`"#, vec!["put", "a\n\"AA\u{e9}", r"\n"]),
            ("put k ''", vec!["put", "k", ""]),
            ("get a --prefix", vec!["get", "a", "--prefix"]),
            ("", Vec::new()),
        ] {
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(words(line), Ok(expected), "{line}");
        }
        for line in ["put \"a", "put 'a", r#"put "\q""#, r#"put "\xff""#, r#"put "\777""#] {
            assert!(words(line).is_err(), "{line}");
        }
    }

    #[test]
    fn comparisons_have_a_target_an_operator_and_a_value() {
        let read = |line: &str| {
            let compare = comparison(line).expect(line);
            (compare.result, compare.key, compare.target_union)
        };
        let key = || Bytes::from_static(b"k");
        for (line, result, union) in [
            (r#"mod("k") > "0""#, CompareResult::Greater, TargetUnion::ModRevision(0)),
            (r#"ver("k")="3""#, CompareResult::Equal, TargetUnion::Version(3)),
            ("create(k) < 7", CompareResult::Less, TargetUnion::CreateRevision(7)),
            (r#"lease("k") = "1f""#, CompareResult::Equal, TargetUnion::Lease(0x1f)),
            (
                r#" value( "k" ) != "\xff a" "#,
                CompareResult::NotEqual,
                TargetUnion::Value(Bytes::from_static(b"\xff a")),
            ),
        ] {
            assert_eq!(read(line), (result.into(), key(), Some(union)), "{line}");
        }
        for line in [
            "",
            "foo",
            "mod(k)",
            "mod(k) =",
            "mod() = 1",
            "mod(k) = x",
            "mod(k) ~ 1",
            "mod(k) = 1 2",
            "size(k) = 1",
            "lease(k) = z",
            r#"mod("k) = 1"#,
        ] {
            let why = comparison(line).expect_err(line);
            assert!(why.starts_with(&format!("malformed comparison: {line}")), "{why}");
        }
    }

    #[test]
    fn requests_are_commands() {
        assert!(matches!(operation("get a --prefix"), Ok(Operation::Get(_))));
        assert!(matches!(operation("put a -v"), Ok(Operation::Put(_))));
        assert!(matches!(operation("del a"), Ok(Operation::Del(_))));
        for line in ["", "watch a", "get", "get a --nothing", "help", "put a b c"] {
            let why = operation(line).expect_err(line);
            assert!(why.starts_with(&format!("invalid txn request: {line}")), "{why}");
            assert!(!why.contains('\n'), "{why}");
        }
    }
}
