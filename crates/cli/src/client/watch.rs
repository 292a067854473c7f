//! `watch`.

use std::time::Duration;

use clap::Args;
use quorate_etcd::proto::etcdserverpb::watch_client::WatchClient;
use quorate_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_etcd::proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use quorate_etcd::proto::mvccpb::event::EventType;
use serde_json::{Value, json};
use tokio_stream::StreamExt;

use super::keys::{Keys, no_table, pair};
use super::output::{
    Object, header, header_fields, key_value, key_value_fields, line, object, print,
};
use super::{Common, Failure, Form};

/// How often in a row a watch may be lost before it has told anything.
const ATTEMPTS_MAX: usize = 10;

/// How long it rests before it goes to another member.
const PAUSE: Duration = Duration::from_millis(200);

/// `watch`.
#[derive(Args, Debug)]
pub(crate) struct Watch {
    #[command(flatten)]
    keys: Keys,
    /// Begin with this revision; 0 is with what comes
    #[arg(long, default_value_t = 0)]
    rev: i64,
    /// Print what the key had before
    #[arg(long)]
    prev_kv: bool,
    /// Print how far the member is when nothing happens
    #[arg(long)]
    progress_notify: bool,
}

impl Watch {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        if common.write_out == Form::Table {
            return Err(no_table());
        }
        let (key, range_end) = self.keys.range();
        let mut create = WatchCreateRequest {
            key,
            range_end,
            start_revision: self.rev,
            prev_kv: self.prev_kv,
            progress_notify: self.progress_notify,
            ..WatchCreateRequest::default()
        };
        // A member that goes away is replaced by another one, from the revision after the last seen.
        let mut failures = 0;
        loop {
            let lost = follow(common, &mut create, &mut failures).await?;
            failures += 1;
            if failures > ATTEMPTS_MAX {
                return Err(lost);
            }
            // A process that is being killed may still take a connection.
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Prints what one member tells until the connection is lost, and why it was.
async fn follow(
    common: &Common,
    create: &mut WatchCreateRequest,
    failures: &mut usize,
) -> Result<Failure, Failure> {
    let channel = common.connect_any().await?;
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) };
    // The stream of requests stays open: its end would end the watch.
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut answers = match client.watch(requests).await {
        Ok(answers) => answers.into_inner(),
        Err(status) if status.code() == tonic::Code::Unavailable => return Ok(status.into()),
        Err(status) => return Err(status.into()),
    };
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                return Ok(Failure::Connection("the member has closed the watch".to_owned()));
            }
            Err(status) => return Ok(status.into()),
        };
        *failures = 0;
        show(common.write_out, &answer)?;
        if answer.canceled {
            let why = if answer.compact_revision > 0 {
                format!(
                    "etcdserver: mvcc: required revision has been compacted (oldest is {})",
                    answer.compact_revision
                )
            } else {
                answer.cancel_reason
            };
            return Err(Failure::Status(tonic::Status::out_of_range(why)));
        }
        // Whoever takes over goes on behind what has been seen. Without fragments, an answer has all
        // events of its revisions; one without events says up to where there are none.
        let last = answer.events.iter().filter_map(|event| event.kv.as_ref());
        let last = last.map(|kv| kv.mod_revision).max();
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        match last {
            Some(last) => create.start_revision = last + 1,
            None if !answer.created || create.start_revision == 0 => {
                create.start_revision = create.start_revision.max(revision + 1);
            }
            None => {}
        }
    }
}

fn show(form: Form, answer: &WatchResponse) -> Result<(), Failure> {
    if answer.created && answer.events.is_empty() {
        return Ok(());
    }
    match form {
        Form::Json => {
            let events: Vec<Value> = answer
                .events
                .iter()
                .map(|event| {
                    Object::default()
                        .with("type", event.r#type)
                        .with("kv", event.kv.as_ref().map(key_value))
                        .with("prev_kv", event.prev_kv.as_ref().map(key_value))
                        .value()
                })
                .collect();
            object(&json!({
                "Header": header(answer.header.as_ref()),
                "Events": events,
                "CompactRevision": answer.compact_revision,
                "Canceled": answer.canceled,
                "Created": answer.created,
            }))
        }
        Form::Fields => {
            let mut text = header_fields(answer.header.as_ref());
            for event in &answer.events {
                text.push_str(&format!("\"Type\" : \"{}\"\n", kind(event.r#type)));
                for kv in event.prev_kv.iter().chain(&event.kv) {
                    text.push_str(&key_value_fields(kv));
                }
            }
            print(text.as_bytes())
        }
        _ if answer.canceled => Ok(()),
        _ if answer.events.is_empty() => {
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            line(format!("progress notify: {revision}"))
        }
        _ => {
            let mut bytes = Vec::new();
            for event in &answer.events {
                bytes.extend_from_slice(kind(event.r#type).as_bytes());
                bytes.push(b'\n');
                event.prev_kv.iter().chain(&event.kv).for_each(|kv| pair(kv, &mut bytes));
            }
            print(&bytes)
        }
    }
}

fn kind(number: i32) -> &'static str {
    match EventType::try_from(number) {
        Ok(EventType::Put) => "PUT",
        Ok(EventType::Delete) => "DELETE",
        Err(_) => "UNKNOWN",
    }
}
