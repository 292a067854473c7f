//! `txn`.

use std::io::{self, BufRead, IsTerminal};

use clap::Args;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::request_op::Request;
use quorate_etcd::proto::etcdserverpb::response_op::Response;
use quorate_etcd::proto::etcdserverpb::{Compare, RequestOp, TxnRequest, TxnResponse};
use serde_json::{Value, json};

use super::keys::{
    delete_fields, delete_json, delete_simple, no_table, put_fields, put_json, put_simple,
    range_fields, range_json,
};
use super::output::{Object, header, header_fields, object, print};
use super::script::{Operation, comparison, operation};
use super::{Common, Failure, Form};

/// `txn`.
#[derive(Args, Debug)]
#[command(after_help = "\
The standard input has three blocks, each of which ends with an empty line: comparisons, requests if all of them hold, \
requests if one does not. A comparison is TARGET(KEY) OPERATOR VALUE, where TARGET is version, create, mod, value or lease, \
and OPERATOR =, !=, < or >. A request is a command get, put or del. What contains spaces stands between quotation marks.

  mod(\"config\") = \"7\"

  put config 'new value'

  get config

The same with arguments:

  quorate txn --compare 'mod(config) = 7' --success \"put config 'new value'\" --failure 'get config'")]
pub(crate) struct Txn {
    /// Say what is to be entered; always so on a terminal
    #[arg(short, long)]
    interactive: bool,
    /// A comparison; with any of these, the standard input is not read
    #[arg(long, value_name = "COMPARISON", conflicts_with = "interactive")]
    compare: Vec<String>,
    /// A request that is made if all comparisons hold
    #[arg(long, value_name = "REQUEST", conflicts_with = "interactive")]
    success: Vec<String>,
    /// A request that is made if one does not hold
    #[arg(long, value_name = "REQUEST", conflicts_with = "interactive")]
    failure: Vec<String>,
}

/// What is to be compared and done.
#[derive(Debug)]
struct Script {
    compares: Vec<Compare>,
    success: Vec<Operation>,
    failure: Vec<Operation>,
}

impl Script {
    /// Reads three blocks of lines. An input that ends early leaves the rest empty.
    fn read(input: &mut impl BufRead, prompt: impl Fn(&str)) -> Result<Self, Failure> {
        prompt("compares:");
        let compares = block(input, comparison)?;
        prompt("success requests (get, put, del):");
        let success = block(input, operation)?;
        prompt("failure requests (get, put, del):");
        let failure = block(input, operation)?;
        Ok(Self { compares, success, failure })
    }
}

/// Reads the lines of a block.
fn block<T>(
    input: &mut impl BufRead,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Failure> {
    let mut items = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        let bytes = input
            .read_line(&mut line)
            .map_err(|why| Failure::File(format!("the standard input: {why}")))?;
        if bytes == 0 || line.trim().is_empty() {
            return Ok(items);
        }
        items.push(read(&line).map_err(Failure::Input)?);
    }
}

impl Txn {
    fn script(&self) -> Result<Script, Failure> {
        if [&self.compare, &self.success, &self.failure].iter().all(|lines| lines.is_empty()) {
            let stdin = io::stdin();
            let prompts = self.interactive || stdin.is_terminal();
            return Script::read(&mut stdin.lock(), |text| {
                if prompts {
                    eprintln!("{text}");
                }
            });
        }
        let operations = |lines: &[String]| {
            lines
                .iter()
                .map(|line| operation(line))
                .collect::<Result<_, _>>()
                .map_err(Failure::Input)
        };
        let compares = self.compare.iter().map(|line| comparison(line)).collect::<Result<_, _>>();
        Ok(Script {
            compares: compares.map_err(Failure::Input)?,
            success: operations(&self.success)?,
            failure: operations(&self.failure)?,
        })
    }

    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        if common.write_out == Form::Table {
            return Err(no_table());
        }
        let script = self.script()?;
        let requests = |operations: &[Operation]| {
            operations.iter().map(request).collect::<Result<Vec<_>, _>>()
        };
        let request = TxnRequest {
            compare: script.compares.clone(),
            success: requests(&script.success)?,
            failure: requests(&script.failure)?,
        };
        let answer = common
            .ask_once(async move |channel| {
                KvClient::new(channel).max_decoding_message_size(usize::MAX).txn(request).await
            })
            .await?;
        match common.write_out {
            Form::Json => object(&json_of(&answer)),
            Form::Fields => print(fields_of(&answer).as_bytes()),
            _ => print(&simple_of(&script, &answer)),
        }
    }
}

fn request(operation: &Operation) -> Result<RequestOp, Failure> {
    let request = match operation {
        Operation::Get(get) => Request::RequestRange(get.request()?),
        Operation::Del(del) => Request::RequestDeleteRange(del.request()),
        Operation::Put(put) => Request::RequestPut(put.request(|| {
            Err(Failure::Input("invalid txn request: a put must have a value".to_owned()))
        })?),
    };
    Ok(RequestOp { request: Some(request) })
}

fn simple_of(script: &Script, answer: &TxnResponse) -> Vec<u8> {
    let (word, operations) = if answer.succeeded {
        ("SUCCESS\n", &script.success)
    } else {
        ("FAILURE\n", &script.failure)
    };
    let mut bytes = word.as_bytes().to_vec();
    for (operation, answer) in operations.iter().zip(&answer.responses) {
        bytes.push(b'\n');
        match (operation, &answer.response) {
            (Operation::Get(get), Some(Response::ResponseRange(answer))) => {
                bytes.extend(get.simple(answer));
            }
            (_, Some(Response::ResponsePut(answer))) => bytes.extend(put_simple(answer)),
            (_, Some(Response::ResponseDeleteRange(answer))) => bytes.extend(delete_simple(answer)),
            // Nothing else is asked for.
            _ => {}
        }
    }
    bytes
}

fn json_of(answer: &TxnResponse) -> Value {
    let responses: Vec<Value> = answer
        .responses
        .iter()
        .map(|answer| {
            let response = match &answer.response {
                Some(Response::ResponseRange(answer)) => {
                    json!({ "ResponseRange": range_json(answer) })
                }
                Some(Response::ResponsePut(answer)) => json!({ "ResponsePut": put_json(answer) }),
                Some(Response::ResponseDeleteRange(answer)) => {
                    json!({ "ResponseDeleteRange": delete_json(answer) })
                }
                Some(Response::ResponseTxn(answer)) => json!({ "ResponseTxn": json_of(answer) }),
                None => Value::Null,
            };
            json!({ "Response": response })
        })
        .collect();
    Object::default()
        .with("header", header(answer.header.as_ref()))
        .with("succeeded", answer.succeeded)
        .with("responses", responses)
        .value()
}

fn fields_of(answer: &TxnResponse) -> String {
    let mut text = header_fields(answer.header.as_ref());
    text.push_str(&format!("\"Succeeded\" : {}\n", answer.succeeded));
    for answer in &answer.responses {
        text.push_str(&match &answer.response {
            Some(Response::ResponseRange(answer)) => range_fields(answer),
            Some(Response::ResponsePut(answer)) => put_fields(answer),
            Some(Response::ResponseDeleteRange(answer)) => delete_fields(answer),
            Some(Response::ResponseTxn(answer)) => fields_of(answer),
            None => String::new(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(usize, usize, usize), String> {
        let script = Script::read(&mut text.as_bytes(), |_| {}).map_err(|why| why.to_string())?;
        Ok((script.compares.len(), script.success.len(), script.failure.len()))
    }

    #[test]
    fn blocks_end_with_an_empty_line() {
        assert_eq!(read("mod(a) = 1\n\nput a b\nget a\n\ndel a\n\n"), Ok((1, 2, 1)));
        assert_eq!(read("\nput a b\n"), Ok((0, 1, 0)));
        assert_eq!(read("\n\nget a"), Ok((0, 0, 1)));
        assert_eq!(read(""), Ok((0, 0, 0)));
        assert_eq!(read("foo\n"), Err("malformed comparison: foo".to_owned()));
    }
}
