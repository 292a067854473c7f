//! `get`, `put`, `del`, `compact`.

use std::io::Read;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_etcd::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse,
};
use quorate_etcd::proto::mvccpb::KeyValue;
use serde_json::Value;

use super::output::{
    self, Object, header, header_fields, key_value, key_value_fields, line, object,
};
use super::{Common, Failure, Form};

/// Which keys.
#[derive(Args, Clone, Debug)]
pub(crate) struct Keys {
    /// The key, or the first of them
    key: String,
    /// The key after the last one
    range_end: Option<String>,
    /// All keys that begin with KEY
    #[arg(long, conflicts_with_all = ["range_end", "from_key"])]
    prefix: bool,
    /// All keys from KEY on
    #[arg(long, conflicts_with = "range_end")]
    from_key: bool,
}

impl Keys {
    /// The first key and the end, as the API wants them.
    pub(crate) fn range(&self) -> (Bytes, Bytes) {
        let key = Bytes::from(self.key.clone());
        // To begin with nothing is to begin with a zero, since no key is empty.
        let first = if key.is_empty() && (self.prefix || self.from_key) {
            Bytes::from_static(&[0])
        } else {
            key.clone()
        };
        let end = if self.prefix {
            prefix_end(&key)
        } else if self.from_key {
            Bytes::from_static(&[0])
        } else {
            Bytes::from(self.range_end.clone().unwrap_or_default())
        };
        (first, end)
    }
}

/// The first key behind all that begin with `prefix`; a zero stands for no end.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[0])
}

/// `get`.
#[derive(Args, Debug)]
pub(crate) struct Get {
    #[command(flatten)]
    keys: Keys,
    /// At most so many keys; 0 is all
    #[arg(long, default_value_t = 0)]
    limit: i64,
    /// As it was at this revision; 0 is now
    #[arg(long, default_value_t = 0)]
    rev: i64,
    /// `s` is what the asked member has, however old; `l` is the latest
    #[arg(long, default_value = "l")]
    consistency: Consistency,
    /// The order
    #[arg(long)]
    order: Option<Order>,
    /// What is ordered by
    #[arg(long)]
    sort_by: Option<Target>,
    /// Print keys only
    #[arg(long)]
    keys_only: bool,
    /// Print how many there are
    #[arg(long)]
    count_only: bool,
    /// Print values only
    #[arg(long)]
    print_value_only: bool,
    /// Only what was created at or after this revision
    #[arg(long, default_value_t = 0)]
    min_create_rev: i64,
    /// Only what was created at or before this revision
    #[arg(long, default_value_t = 0)]
    max_create_rev: i64,
    /// Only what was last changed at or after this revision
    #[arg(long, default_value_t = 0)]
    min_mod_rev: i64,
    /// Only what was last changed at or before this revision
    #[arg(long, default_value_t = 0)]
    max_mod_rev: i64,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Consistency {
    #[value(alias = "linearizable")]
    L,
    #[value(alias = "serializable")]
    S,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    #[value(alias = "ASCEND")]
    Ascend,
    #[value(alias = "DESCEND")]
    Descend,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    #[value(alias = "KEY")]
    Key,
    #[value(alias = "VERSION")]
    Version,
    #[value(alias = "CREATE")]
    Create,
    #[value(alias = "MODIFY")]
    Modify,
    #[value(alias = "VALUE")]
    Value,
}

impl Get {
    /// What is asked for.
    pub(crate) fn request(&self) -> Result<RangeRequest, Failure> {
        if self.keys_only && self.print_value_only {
            return Err(Failure::Input(
                "--keys-only and --print-value-only leave nothing to print".to_owned(),
            ));
        }
        let (key, range_end) = self.keys.range();
        let order = match (self.order, self.sort_by) {
            (Some(Order::Descend), _) => SortOrder::Descend,
            (Some(Order::Ascend), _) | (None, Some(_)) => SortOrder::Ascend,
            (None, None) => SortOrder::None,
        };
        let target = match self.sort_by {
            None | Some(Target::Key) => SortTarget::Key,
            Some(Target::Version) => SortTarget::Version,
            Some(Target::Create) => SortTarget::Create,
            Some(Target::Modify) => SortTarget::Mod,
            Some(Target::Value) => SortTarget::Value,
        };
        Ok(RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: self.rev,
            sort_order: order.into(),
            sort_target: target.into(),
            serializable: self.consistency == Consistency::S,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: self.min_mod_rev,
            max_mod_revision: self.max_mod_rev,
            min_create_revision: self.min_create_rev,
            max_create_revision: self.max_create_rev,
        })
    }

    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let request = self.request()?;
        let answer = common
            .ask(|channel| {
                let request = request.clone();
                async move {
                    KvClient::new(channel)
                        .max_decoding_message_size(usize::MAX)
                        .range(request)
                        .await
                }
            })
            .await?;
        match common.write_out {
            Form::Json => object(&range_json(&answer)),
            Form::Fields => output::print(range_fields(&answer).as_bytes()),
            Form::Table => Err(no_table()),
            Form::Simple => output::print(&self.simple(&answer)),
        }
    }

    /// An answer as people want it.
    pub(crate) fn simple(&self, answer: &RangeResponse) -> Vec<u8> {
        if self.count_only {
            return format!("{}\n", answer.count).into_bytes();
        }
        let mut bytes = Vec::new();
        for kv in &answer.kvs {
            if !self.print_value_only {
                bytes.extend_from_slice(&kv.key);
                bytes.push(b'\n');
            }
            if !self.keys_only {
                bytes.extend_from_slice(&kv.value);
                bytes.push(b'\n');
            }
        }
        bytes
    }
}

/// The answer to a range as an object.
pub(crate) fn range_json(answer: &RangeResponse) -> Value {
    let kvs: Vec<Value> = answer.kvs.iter().map(key_value).collect();
    Object::default()
        .with("header", header(answer.header.as_ref()))
        .with("kvs", kvs)
        .with("more", answer.more)
        .with("count", answer.count)
        .value()
}

/// The answer to a range, one field per line.
pub(crate) fn range_fields(answer: &RangeResponse) -> String {
    let mut text = header_fields(answer.header.as_ref());
    answer.kvs.iter().for_each(|kv| text.push_str(&key_value_fields(kv)));
    text.push_str(&format!("\"More\" : {}\n\"Count\" : {}\n", answer.more, answer.count));
    text
}

/// `put`.
#[derive(Args, Debug)]
pub(crate) struct Put {
    /// The key
    key: String,
    /// The value; without it, the standard input
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
    /// The lease that the key lives with, in hexadecimal
    #[arg(long, value_parser = lease, default_value = "0")]
    lease: i64,
    /// Print what the key had before
    #[arg(long)]
    prev_kv: bool,
    /// Keep the value
    #[arg(long, conflicts_with = "value")]
    ignore_value: bool,
    /// Keep the lease
    #[arg(long)]
    ignore_lease: bool,
}

/// A lease as all commands write it.
pub(crate) fn lease(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text, 16).map_err(|_| "a lease is a hexadecimal number".to_owned())
}

impl Put {
    /// What is asked for, with a value that comes from elsewhere if none is given.
    pub(crate) fn request(
        &self,
        otherwise: impl FnOnce() -> Result<Bytes, Failure>,
    ) -> Result<PutRequest, Failure> {
        let value = match &self.value {
            Some(value) => Bytes::from(value.clone()),
            None if self.ignore_value => Bytes::new(),
            None => otherwise()?,
        };
        Ok(PutRequest {
            key: Bytes::from(self.key.clone()),
            value,
            lease: self.lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }

    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let request = self.request(|| {
            let mut value = Vec::new();
            std::io::stdin()
                .read_to_end(&mut value)
                .map_err(|why| Failure::File(format!("the standard input: {why}")))?;
            Ok(value.into())
        })?;
        let answer =
            common.ask_once(async move |channel| KvClient::new(channel).put(request).await).await?;
        match common.write_out {
            Form::Json => object(&put_json(&answer)),
            Form::Fields => output::print(put_fields(&answer).as_bytes()),
            Form::Table => Err(no_table()),
            Form::Simple => output::print(&put_simple(&answer)),
        }
    }
}

/// The answer to a put as people want it.
pub(crate) fn put_simple(answer: &PutResponse) -> Vec<u8> {
    let mut bytes = b"OK\n".to_vec();
    answer.prev_kv.iter().for_each(|kv| pair(kv, &mut bytes));
    bytes
}

/// The answer to a put as an object.
pub(crate) fn put_json(answer: &PutResponse) -> Value {
    Object::default()
        .with("header", header(answer.header.as_ref()))
        .with("prev_kv", answer.prev_kv.as_ref().map(key_value))
        .value()
}

/// The answer to a put, one field per line.
pub(crate) fn put_fields(answer: &PutResponse) -> String {
    let mut text = header_fields(answer.header.as_ref());
    answer.prev_kv.iter().for_each(|kv| text.push_str(&key_value_fields(kv)));
    text
}

/// `del`.
#[derive(Args, Debug)]
pub(crate) struct Del {
    #[command(flatten)]
    keys: Keys,
    /// Print what was removed
    #[arg(long)]
    prev_kv: bool,
}

impl Del {
    /// What is asked for.
    pub(crate) fn request(&self) -> DeleteRangeRequest {
        let (key, range_end) = self.keys.range();
        DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv }
    }

    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let request = self.request();
        let answer = common
            .ask_once(async move |channel| KvClient::new(channel).delete_range(request).await)
            .await?;
        match common.write_out {
            Form::Json => object(&delete_json(&answer)),
            Form::Fields => output::print(delete_fields(&answer).as_bytes()),
            Form::Table => Err(no_table()),
            Form::Simple => output::print(&delete_simple(&answer)),
        }
    }
}

/// The answer to a removal as people want it.
pub(crate) fn delete_simple(answer: &DeleteRangeResponse) -> Vec<u8> {
    let mut bytes = format!("{}\n", answer.deleted).into_bytes();
    answer.prev_kvs.iter().for_each(|kv| pair(kv, &mut bytes));
    bytes
}

/// The answer to a removal as an object.
pub(crate) fn delete_json(answer: &DeleteRangeResponse) -> Value {
    let previous: Vec<Value> = answer.prev_kvs.iter().map(key_value).collect();
    Object::default()
        .with("header", header(answer.header.as_ref()))
        .with("deleted", answer.deleted)
        .with("prev_kvs", previous)
        .value()
}

/// The answer to a removal, one field per line.
pub(crate) fn delete_fields(answer: &DeleteRangeResponse) -> String {
    let mut text = header_fields(answer.header.as_ref());
    text.push_str(&format!("\"Deleted\" : {}\n", answer.deleted));
    answer.prev_kvs.iter().for_each(|kv| text.push_str(&key_value_fields(kv)));
    text
}

/// `compact`.
#[derive(Args, Debug)]
pub(crate) struct Compact {
    /// The revision that stays readable
    revision: i64,
    /// Wait until the space is free
    #[arg(long)]
    physical: bool,
}

impl Compact {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let request = CompactionRequest { revision: self.revision, physical: self.physical };
        let answer = common
            .ask_once(async move |channel| KvClient::new(channel).compact(request).await)
            .await?;
        match common.write_out {
            Form::Json => {
                object(&Object::default().with("header", header(answer.header.as_ref())).value())
            }
            _ => line(format!("compacted revision {}", self.revision)),
        }
    }
}

/// Appends a key and its value as two lines.
pub(crate) fn pair(kv: &KeyValue, bytes: &mut Vec<u8>) {
    for part in [&kv.key, &kv.value] {
        bytes.extend_from_slice(part);
        bytes.push(b'\n');
    }
}

/// What has no columns.
pub(crate) fn no_table() -> Failure {
    Failure::Input("this command prints no table; use -w simple, json or fields".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_key_begins_with_it() {
        assert_eq!(prefix_end(b"foo").as_ref(), b"fop");
        assert_eq!(prefix_end(&[1, 0xff, 0xff]).as_ref(), [2]);
        assert_eq!(prefix_end(&[0xff]).as_ref(), [0]);
        assert_eq!(prefix_end(b"").as_ref(), [0]);
    }

    #[test]
    fn leases_are_hexadecimal() {
        assert_eq!(lease("694d7f"), Ok(0x0069_4d7f));
        assert!(lease("x").is_err());
    }
}
