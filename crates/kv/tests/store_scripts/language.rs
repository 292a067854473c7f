//! Words to commands, and replies to words.

use std::fmt::Write as _;

use bytes::Bytes;
use quorate_kv::{
    Alarm, AlarmKind, Changes, Command, Compact, Compare, CompareResult, CompareTarget,
    DeleteRange, GrantedLease, KeyValue, LeaseCheckpoint, LeaseGrant, LeaseId, MemberId, Op,
    OpReply, Put, Range, RangeReply, Reply, Revision, SortOrder, SortTarget, Txn,
};

/// Words, with brackets and commas as words of their own.
struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        let is_mark = |c: char| matches!(c, '(' | ')' | ',');
        let mut words = Vec::new();
        for word in text.split_whitespace() {
            let mut rest = word;
            while let Some(at) = rest.find(is_mark) {
                words.extend([&rest[..at], &rest[at..=at]]);
                rest = &rest[at + 1..];
            }
            words.push(rest);
        }
        words.retain(|word| !word.is_empty());
        Self { words, at: 0 }
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> &'a str {
        let word = self.peek().unwrap_or_else(|| panic!("cut short: {:?}", self.words));
        self.at += 1;
        word
    }

    fn take(&mut self, word: &str) -> bool {
        let is_there = self.peek() == Some(word);
        self.at += usize::from(is_there);
        is_there
    }

    fn number(&mut self) -> i64 {
        let word = self.next();
        word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
    }

    fn bytes(&mut self) -> Bytes {
        bytes_of(self.next())
    }

    /// The options that follow: `name` or `name=value`.
    fn options(&mut self, mut take: impl FnMut(&str, Option<&str>)) {
        while let Some(word) = self.peek() {
            if matches!(word, "," | ")" | "then" | "else") {
                break;
            }
            self.at += 1;
            match word.split_once('=') {
                Some((name, value)) => take(name, Some(value)),
                None => take(word, None),
            }
        }
    }

    fn end(&self) {
        assert!(self.peek().is_none(), "too much: {:?}", &self.words[self.at..]);
    }
}

/// `-` is empty, `zero` a zero byte, `x12` twelve bytes.
fn bytes_of(word: &str) -> Bytes {
    match (word, word.strip_prefix('x').and_then(|length| length.parse().ok())) {
        ("-", _) => Bytes::new(),
        ("zero", _) => Bytes::from_static(b"\0"),
        (_, Some(length)) => Bytes::from(vec![b'x'; length]),
        _ => Bytes::copy_from_slice(word.as_bytes()),
    }
}

fn given(value: Option<&str>) -> &str {
    value.expect("an option with a value")
}

fn number_of(value: Option<&str>) -> i64 {
    given(value).parse().expect("a number")
}

pub(crate) fn range_of(text: &str) -> Range {
    let mut words = Words::new(text);
    let range = range(&mut words);
    words.end();
    range
}

fn range(words: &mut Words<'_>) -> Range {
    let mut range = Range { key: words.bytes(), ..Range::default() };
    words.options(|name, value| {
        let revision = || Revision(number_of(value));
        match name {
            "end" => range.range_end = bytes_of(given(value)),
            "limit" => range.limit = number_of(value),
            "at" => range.revision = revision(),
            "ascend" => range.sort_order = SortOrder::Ascend,
            "descend" => range.sort_order = SortOrder::Descend,
            "by" => {
                range.sort_target = match given(value) {
                    "key" => SortTarget::Key,
                    "version" => SortTarget::Version,
                    "create" => SortTarget::Create,
                    "mod" => SortTarget::Mod,
                    "value" => SortTarget::Value,
                    other => panic!("unknown field {other}"),
                };
            }
            "serializable" => range.serializable = true,
            "keys" => range.keys_only = true,
            "count" => range.count_only = true,
            "min_mod" => range.min_mod_revision = revision(),
            "max_mod" => range.max_mod_revision = revision(),
            "min_create" => range.min_create_revision = revision(),
            "max_create" => range.max_create_revision = revision(),
            other => panic!("unknown option {other}"),
        }
    });
    range
}

fn put(words: &mut Words<'_>) -> Put {
    let mut put = Put { key: words.bytes(), ..Put::default() };
    if words.peek().is_some_and(|word| !is_put_option(word)) {
        put.value = words.bytes();
    }
    words.options(|name, value| match name {
        "lease" => put.lease = LeaseId::from_number(number_of(value)),
        "prev" => put.prev_kv = true,
        "ignore_value" => put.ignore_value = true,
        "ignore_lease" => put.ignore_lease = true,
        other => panic!("unknown option {other}"),
    });
    put
}

fn is_put_option(word: &str) -> bool {
    let options = ["prev", "ignore_value", "ignore_lease", ",", ")", "then", "else"];
    options.contains(&word) || word.starts_with("lease=")
}

fn delete(words: &mut Words<'_>) -> DeleteRange {
    let mut delete = DeleteRange { key: words.bytes(), ..DeleteRange::default() };
    words.options(|name, value| match name {
        "end" => delete.range_end = bytes_of(given(value)),
        "prev" => delete.prev_kv = true,
        other => panic!("unknown option {other}"),
    });
    delete
}

pub(crate) fn txn_of(text: &str) -> Txn {
    let mut words = Words::new(text);
    let txn = txn(&mut words);
    words.end();
    txn
}

fn txn(words: &mut Words<'_>) -> Txn {
    let mut txn = Txn::default();
    if words.take("if") {
        txn.compare = list(words, compare);
    }
    if words.take("then") {
        txn.success = list(words, op);
    }
    if words.take("else") {
        txn.failure = list(words, op);
    }
    txn
}

fn list<T>(words: &mut Words<'_>, element: impl Fn(&mut Words<'_>) -> T) -> Vec<T> {
    let mut list = vec![element(words)];
    while words.take(",") {
        list.push(element(words));
    }
    list
}

fn compare(words: &mut Words<'_>) -> Compare {
    let target = words.next();
    let (key, range_end) = match words.next() {
        keys if keys.contains("..") => {
            let (key, end) = keys.split_once("..").unwrap();
            (bytes_of(key), bytes_of(end))
        }
        key => (bytes_of(key), Bytes::new()),
    };
    let result = match words.next() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        "?" => CompareResult::Unknown,
        other => panic!("unknown relation {other}"),
    };
    let target = match target {
        "version" => CompareTarget::Version(words.number()),
        "create" => CompareTarget::Create(Revision(words.number())),
        "mod" => CompareTarget::Mod(Revision(words.number())),
        "lease" => CompareTarget::Lease(words.number()),
        "value" => CompareTarget::Value(words.bytes()),
        other => panic!("unknown field {other}"),
    };
    Compare { key, range_end, result, target }
}

fn op(words: &mut Words<'_>) -> Op {
    match words.next() {
        "get" => Op::Range(range(words)),
        "put" => Op::Put(put(words)),
        "delete" => Op::DeleteRange(delete(words)),
        "txn" => {
            assert!(words.take("("), "a transaction within is in brackets");
            let txn = txn(words);
            assert!(words.take(")"), "a bracket is missing");
            Op::Txn(txn)
        }
        other => panic!("unknown operation {other}"),
    }
}

/// `7#2`: the lease 7 of the second grant.
fn granted(word: &str) -> GrantedLease {
    let (id, grant) = word.split_once('#').expect("a lease and its grant");
    GrantedLease { id: LeaseId(id.parse().unwrap()), grant: grant.parse().unwrap() }
}

pub(crate) fn command_of(text: &str) -> Command {
    let mut words = Words::new(text);
    let command = match words.next() {
        "put" => Command::Put(put(&mut words)),
        "delete" => Command::DeleteRange(delete(&mut words)),
        "txn" => Command::Txn(txn(&mut words)),
        "compact" => Command::Compact(Compact {
            revision: Revision(words.number()),
            physical: words.take("physical"),
        }),
        "grant" => {
            Command::LeaseGrant(LeaseGrant { id: LeaseId(words.number()), ttl_s: words.number() })
        }
        "revoke" => Command::LeaseRevoke(LeaseId(words.number())),
        "expire" => {
            let mut ids = Vec::new();
            while words.peek().is_some() {
                ids.push(granted(words.next()));
            }
            Command::LeaseExpire(ids)
        }
        "checkpoint" => {
            let (lease, remaining_s) = (granted(words.next()), words.number());
            Command::LeaseCheckpoint(vec![LeaseCheckpoint { lease, remaining_s }])
        }
        "alarm" => Command::Alarm(alarm(&mut words)),
        other => panic!("unknown command {other}"),
    };
    words.end();
    command
}

fn alarm(words: &mut Words<'_>) -> Alarm {
    let action = words.next();
    let member = MemberId(if action == "list" { 0 } else { words.number().cast_unsigned() });
    let kind = match words.next() {
        "any" => None,
        "nospace" => Some(AlarmKind::NoSpace),
        "corrupt" => Some(AlarmKind::Corrupt),
        other => panic!("unknown alarm {other}"),
    };
    match action {
        "list" => Alarm::List(kind),
        "raise" => Alarm::Activate(member, kind),
        "take_back" => Alarm::Deactivate(member, kind),
        other => panic!("unknown action {other}"),
    }
}

fn text_of_bytes(bytes: &[u8]) -> String {
    match bytes {
        [] => "-".to_owned(),
        [b'x', ..] if bytes.len() > 8 => format!("x{}", bytes.len()),
        bytes => bytes.escape_ascii().to_string(),
    }
}

/// `key=value create/mod/version`.
pub(crate) fn text_of_pair(kv: &KeyValue) -> String {
    let (key, value) = (text_of_bytes(&kv.key), text_of_bytes(&kv.value));
    let (create, revision, version) = (kv.create_revision.0, kv.mod_revision.0, kv.version);
    let lease = kv.lease.map_or(String::new(), |lease| format!(" lease={}", lease.0));
    format!("{key}={value} {create}/{revision}/{version}{lease}")
}

pub(crate) fn text_of_range(reply: &RangeReply) -> String {
    let more = if reply.more { ", more" } else { "" };
    let mut out = format!("@{} count {}{more}\n", reply.revision.0, reply.count);
    for kv in &reply.kvs {
        writeln!(out, "  {}", text_of_pair(kv)).unwrap();
    }
    out
}

pub(crate) fn text_of_reply(reply: &Reply) -> String {
    match reply {
        Reply::Put(put) => text_of_op(&OpReply::Put(put.clone())),
        Reply::DeleteRange(delete) => text_of_op(&OpReply::DeleteRange(delete.clone())),
        Reply::Txn(txn) => text_of_op(&OpReply::Txn(txn.clone())),
        Reply::LeaseGrant { revision, id, ttl_s } => {
            format!("lease {} for {ttl_s} s @{}\n", id.0, revision.0)
        }
        Reply::Done { revision } => format!("@{}\n", revision.0),
        Reply::Alarms { revision, alarms } => {
            let text = |alarm: &quorate_kv::AlarmMember| {
                let kind = match alarm.kind {
                    AlarmKind::NoSpace => "nospace",
                    AlarmKind::Corrupt => "corrupt",
                };
                format!("{} of {}", kind, alarm.member.0)
            };
            let alarms: Vec<_> = alarms.iter().map(text).collect();
            format!("@{} alarms: [{}]\n", revision.0, alarms.join(", "))
        }
    }
}

fn text_of_op(reply: &OpReply) -> String {
    match reply {
        OpReply::Range(range) => text_of_range(range),
        OpReply::Put(put) => {
            let was = put.prev_kv.as_ref().map(|kv| format!(", was {}", text_of_pair(kv)));
            format!("@{}{}\n", put.revision.0, was.unwrap_or_default())
        }
        OpReply::DeleteRange(delete) => {
            let mut out = format!("@{} deleted {}\n", delete.revision.0, delete.deleted);
            for kv in &delete.prev_kvs {
                writeln!(out, "  was {}", text_of_pair(kv)).unwrap();
            }
            out
        }
        OpReply::Txn(txn) => {
            let branch = if txn.succeeded { "then" } else { "else" };
            let mut out = format!("@{} {branch}\n", txn.revision.0);
            for response in &txn.responses {
                for line in text_of_op(response).lines() {
                    writeln!(out, "  {line}").unwrap();
                }
            }
            out
        }
    }
}

pub(crate) fn text_of_events(changes: &Changes) -> String {
    let mut out = String::new();
    for event in changes.events.iter() {
        let what = if event.is_delete() {
            format!("delete {} {}", text_of_bytes(&event.kv.key), event.kv.mod_revision.0)
        } else {
            format!("put {}", text_of_pair(&event.kv))
        };
        let was = event.prev.as_ref().map(|kv| format!(", was {}", text_of_pair(kv)));
        writeln!(out, "  event {what}{}", was.unwrap_or_default()).unwrap();
    }
    out
}
