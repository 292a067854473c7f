//! `lease`.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use quorate_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use quorate_etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, ResponseHeader,
};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::keys::{lease, no_table};
use super::output::{Object, base64, header, header_fields, line, object, print, quoted};
use super::{Common, Failure, Form};

/// How long a renewal rests before it goes to another member, at most.
const PAUSE: Duration = Duration::from_millis(200);

/// Commands of `lease`.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a lease: keys that are put with it are removed when it runs out
    Grant {
        /// Seconds that it lives without being renewed
        ttl: i64,
        /// Its id, in hexadecimal; by default one that is free
        #[arg(long, value_parser = lease, default_value = "0")]
        id: i64,
    },
    /// End a lease, and remove its keys
    Revoke {
        /// Its id, in hexadecimal
        #[arg(value_parser = lease)]
        id: i64,
    },
    /// Show how long a lease lives
    #[command(name = "timetolive", visible_aliases = ["time-to-live", "ttl", "show"])]
    TimeToLive {
        /// Its id, in hexadecimal
        #[arg(value_parser = lease)]
        id: i64,
        /// Show its keys, too
        #[arg(long)]
        keys: bool,
    },
    /// Show all leases
    #[command(visible_alias = "ls")]
    List,
    /// Renew a lease again and again, until interrupted
    #[command(visible_alias = "keepalive")]
    KeepAlive(KeepAlive),
}

/// `lease keep-alive`.
#[derive(Args, Debug)]
pub(crate) struct KeepAlive {
    /// Its id, in hexadecimal
    #[arg(value_parser = lease)]
    id: i64,
    /// Renew it once
    #[arg(long)]
    once: bool,
}

/// Carries out a command of `lease`.
pub(crate) async fn run(command: Command, common: &Common) -> Result<(), Failure> {
    let form = common.write_out;
    if form == Form::Table {
        return Err(no_table());
    }
    match command {
        Command::Grant { ttl, id } => {
            let request = LeaseGrantRequest { ttl, id };
            let answer = common
                .ask_once(async move |channel| LeaseClient::new(channel).lease_grant(request).await)
                .await?;
            let head = answer.header.as_ref();
            match form {
                Form::Json => {
                    let own = json!({ "ID": answer.id, "TTL": answer.ttl, "Error": answer.error });
                    object(&with_head(head, own))
                }
                Form::Fields => print(fields(head, answer.id, &[("TTL", answer.ttl)]).as_bytes()),
                _ => line(format!("lease {:016x} granted with TTL({}s)", answer.id, answer.ttl)),
            }
        }
        Command::Revoke { id } => {
            let request = LeaseRevokeRequest { id };
            let answer = common
                .ask_once(async move |channel| {
                    LeaseClient::new(channel).lease_revoke(request).await
                })
                .await?;
            let head = answer.header.as_ref();
            match form {
                Form::Json => object(&Object::default().with("header", header(head)).value()),
                Form::Fields => print(header_fields(head).as_bytes()),
                _ => line(format!("lease {id:016x} revoked")),
            }
        }
        Command::TimeToLive { id, keys } => time_to_live(common, id, keys).await,
        Command::List => list(common).await,
        Command::KeepAlive(keep_alive) => keep_alive.run(common).await,
    }
}

/// An object of a lease, which has the fields of the header beside its own.
fn with_head(head: Option<&ResponseHeader>, own: Value) -> Value {
    let mut whole = header(head);
    if let (Value::Object(whole), Value::Object(own)) = (&mut whole, own) {
        whole.extend(own);
    }
    whole
}

fn fields(head: Option<&ResponseHeader>, id: i64, more: &[(&str, i64)]) -> String {
    let mut text = header_fields(head);
    text.push_str(&format!("\"ID\" : {id}\n"));
    for (name, value) in more {
        text.push_str(&format!("{name:?} : {value}\n"));
    }
    text
}

async fn time_to_live(common: &Common, id: i64, keys: bool) -> Result<(), Failure> {
    let answer = common
        .ask(async |channel| {
            let request = LeaseTimeToLiveRequest { id, keys };
            LeaseClient::new(channel)
                .max_decoding_message_size(usize::MAX)
                .lease_time_to_live(request)
                .await
        })
        .await?;
    let head = answer.header.as_ref();
    match common.write_out {
        Form::Json => {
            let keys: Vec<String> = answer.keys.iter().map(|key| base64(key)).collect();
            let own = json!({
                "id": answer.id,
                "ttl": answer.ttl,
                "granted-ttl": answer.granted_ttl,
                "keys": if keys.is_empty() { Value::Null } else { keys.into() },
            });
            object(&with_head(head, own))
        }
        Form::Fields => {
            let more = [("TTL", answer.ttl), ("GrantedTTL", answer.granted_ttl)];
            let mut text = fields(head, answer.id, &more);
            for key in &answer.keys {
                text.push_str(&format!("\"Key\" : {}\n", quoted(key)));
            }
            print(text.as_bytes())
        }
        _ if answer.ttl < 0 => line(format!("lease {id:016x} already expired")),
        _ => {
            let mut bytes = format!(
                "lease {id:016x} granted with TTL({}s), remaining({}s)",
                answer.granted_ttl, answer.ttl
            )
            .into_bytes();
            if keys {
                bytes.extend_from_slice(b", attached keys([");
                bytes.extend_from_slice(&answer.keys.join(&b' '));
                bytes.extend_from_slice(b"])");
            }
            bytes.push(b'\n');
            print(&bytes)
        }
    }
}

async fn list(common: &Common) -> Result<(), Failure> {
    let answer = common
        .ask(async |channel| {
            LeaseClient::new(channel)
                .max_decoding_message_size(usize::MAX)
                .lease_leases(LeaseLeasesRequest {})
                .await
        })
        .await?;
    let head = answer.header.as_ref();
    match common.write_out {
        Form::Json => {
            let leases: Vec<Value> =
                answer.leases.iter().map(|lease| json!({ "id": lease.id })).collect();
            object(&with_head(head, json!({ "leases": leases })))
        }
        Form::Fields => {
            let mut text = header_fields(head);
            for lease in &answer.leases {
                text.push_str(&format!("\"ID\" : {}\n", lease.id));
            }
            print(text.as_bytes())
        }
        _ => {
            let mut text = format!("found {} leases\n", answer.leases.len());
            for lease in &answer.leases {
                text.push_str(&format!("{:016x}\n", lease.id));
            }
            print(text.as_bytes())
        }
    }
}

impl KeepAlive {
    async fn run(self, common: &Common) -> Result<(), Failure> {
        let mut lives_until = Instant::now();
        loop {
            let answer = common
                .ask(async |channel| renew(channel, self.id).await.map(tonic::Response::new))
                .await;
            let answer = match answer {
                Ok(answer) => answer,
                // Members come and go; as long as the lease may live, it is worth another attempt.
                Err(Failure::Connection(_) | Failure::Status(_))
                    if Instant::now() < lives_until =>
                {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(why) => return Err(why),
            };
            if answer.ttl <= 0 {
                return Err(Failure::Status(tonic::Status::not_found(format!(
                    "lease {:016x} expired or revoked.",
                    self.id
                ))));
            }
            show(common.write_out, &answer)?;
            if self.once {
                return Ok(());
            }
            // As often as other clients do: three times before it runs out.
            let ttl = Duration::from_secs(answer.ttl.unsigned_abs());
            lives_until = Instant::now() + ttl;
            tokio::time::sleep((ttl / 3).max(PAUSE)).await;
        }
    }
}

/// Renews a lease once.
pub(crate) async fn renew(
    channel: Channel,
    id: i64,
) -> Result<LeaseKeepAliveResponse, tonic::Status> {
    let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
    let mut answers = LeaseClient::new(channel).lease_keep_alive(requests).await?.into_inner();
    answers.message().await?.ok_or_else(|| {
        tonic::Status::unavailable("the member has closed the stream without an answer")
    })
}

fn show(form: Form, answer: &LeaseKeepAliveResponse) -> Result<(), Failure> {
    let head = answer.header.as_ref();
    match form {
        Form::Json => object(&with_head(head, json!({ "ID": answer.id, "TTL": answer.ttl }))),
        Form::Fields => print(fields(head, answer.id, &[("TTL", answer.ttl)]).as_bytes()),
        _ => line(format!("lease {:016x} keepalived with TTL({})", answer.id, answer.ttl)),
    }
}
