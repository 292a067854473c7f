//! `member` and `move-leader`.

use clap::{Args, Subcommand};
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest, MoveLeaderRequest, ResponseHeader, StatusRequest,
};
use serde_json::Value;

use super::output::{Cell, Object, header, header_fields, line, object, painted_table, print};
use super::{Common, Failure, Form};
use crate::style::{Paint, is_for_people};

/// Commands of `member`.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show who belongs to the cluster
    List {
        /// `s` is what the asked member knows, however old
        #[arg(long, default_value = "l")]
        consistency: String,
    },
    /// Add a member; then start it with --initial-cluster-state existing
    Add {
        /// Its name; only printed for the start of the new member
        name: Option<String>,
        /// Where other members will reach it
        #[arg(long, value_delimiter = ',', required = true)]
        peer_urls: Vec<String>,
        /// Let it learn without a vote
        #[arg(long)]
        learner: bool,
    },
    /// Remove a member
    Remove {
        /// Its id, in hexadecimal
        #[arg(value_parser = id)]
        id: u64,
    },
    /// Change where other members reach a member
    Update {
        /// Its id, in hexadecimal
        #[arg(value_parser = id)]
        id: u64,
        /// Where other members reach it
        #[arg(long, value_delimiter = ',', required = true)]
        peer_urls: Vec<String>,
    },
    /// Give a learner a vote
    Promote {
        /// Its id, in hexadecimal
        #[arg(value_parser = id)]
        id: u64,
    },
}

fn id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| "an id is a hexadecimal number".to_owned())
}

/// Carries out a command of `member`.
pub(crate) async fn run(command: Command, common: &Common) -> Result<(), Failure> {
    match command {
        Command::List { consistency } => {
            let linearizable = match consistency.as_str() {
                "l" | "linearizable" => true,
                "s" | "serializable" => false,
                other => {
                    return Err(Failure::Input(format!("--consistency is l or s, not {other:?}")));
                }
            };
            list(common, linearizable).await
        }
        Command::Add { name, peer_urls, learner } => add(common, name, peer_urls, learner).await,
        Command::Remove { id } => {
            let request = MemberRemoveRequest { id };
            let answer = common
                .ask_once(async move |channel| {
                    ClusterClient::new(channel).member_remove(request).await
                })
                .await?;
            done(common, answer.header.as_ref(), &answer.members, id, "removed from")
        }
        Command::Update { id, peer_urls } => {
            let request = MemberUpdateRequest { id, peer_ur_ls: peer_urls };
            let answer = common
                .ask_once(async move |channel| {
                    ClusterClient::new(channel).member_update(request).await
                })
                .await?;
            done(common, answer.header.as_ref(), &answer.members, id, "updated in")
        }
        Command::Promote { id } => {
            let request = MemberPromoteRequest { id };
            let answer = common
                .ask_once(async move |channel| {
                    ClusterClient::new(channel).member_promote(request).await
                })
                .await?;
            done(common, answer.header.as_ref(), &answer.members, id, "promoted in")
        }
    }
}

async fn list(common: &Common, linearizable: bool) -> Result<(), Failure> {
    let answer = common
        .ask(async |channel| {
            ClusterClient::new(channel).member_list(MemberListRequest { linearizable }).await
        })
        .await?;
    match common.write_out {
        Form::Json => json(answer.header.as_ref(), &answer.members),
        Form::Fields => {
            let mut text = header_fields(answer.header.as_ref());
            for member in &answer.members {
                text.push_str(&format!("\"ID\" : {}\n\"Name\" : {:?}\n", member.id, member.name));
                for url in &member.peer_ur_ls {
                    text.push_str(&format!("\"PeerURL\" : {url:?}\n"));
                }
                for url in &member.client_ur_ls {
                    text.push_str(&format!("\"ClientURL\" : {url:?}\n"));
                }
                text.push_str(&format!("\"IsLearner\" : {}\n\n", member.is_learner));
            }
            print(text.as_bytes())
        }
        // Scripts know this form from etcdctl.
        Form::Simple if !is_for_people() => {
            for member in &answer.members {
                line(columns(member).join(", "))?;
            }
            Ok(())
        }
        form @ (Form::Simple | Form::Table) => {
            let head = ["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"];
            let rows: Vec<Vec<Cell>> = answer.members.iter().map(cells).collect();
            print(painted_table(&head, &rows, form == Form::Table).as_bytes())
        }
    }
}

fn columns(member: &Member) -> Vec<String> {
    // A member tells its name when it is started for the first time.
    let status = if member.name.is_empty() { "unstarted" } else { "started" };
    vec![
        format!("{:x}", member.id),
        status.to_owned(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}

fn cells(member: &Member) -> Vec<Cell> {
    let columns = columns(member).into_iter().enumerate();
    let paint = |column| match column {
        1 if member.name.is_empty() => Paint::Bad,
        1 => Paint::Good,
        2 => Paint::Strong,
        5 if member.is_learner => Paint::Odd,
        _ => Paint::Plain,
    };
    columns.map(|(column, text)| Cell::new(text, paint(column))).collect()
}

async fn add(
    common: &Common,
    name: Option<String>,
    peer_urls: Vec<String>,
    learner: bool,
) -> Result<(), Failure> {
    let request = MemberAddRequest { peer_ur_ls: peer_urls, is_learner: learner };
    let answer = common
        .ask_once(async move |channel| ClusterClient::new(channel).member_add(request).await)
        .await?;
    let id = answer.member.as_ref().map_or(0, |member| member.id);
    if common.write_out == Form::Json {
        let added = answer.member.as_ref().map(json_of);
        let members: Vec<Value> = answer.members.iter().map(json_of).collect();
        return object(
            &Object::default()
                .with("header", header(answer.header.as_ref()))
                .with("member", added)
                .with("members", members)
                .value(),
        );
    }
    done(common, answer.header.as_ref(), &answer.members, id, "added to")?;
    let Some(name) = name else { return Ok(()) };
    let cluster: Vec<String> = answer
        .members
        .iter()
        .flat_map(|member| {
            let name = if member.id == id { &name } else { &member.name };
            member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
        })
        .collect();
    let own = answer.member.map(|member| member.peer_ur_ls.join(",")).unwrap_or_default();
    line(format!(
        "\nETCD_NAME={name:?}\nETCD_INITIAL_CLUSTER={:?}\n\
         ETCD_INITIAL_ADVERTISE_PEER_URLS={own:?}\nETCD_INITIAL_CLUSTER_STATE=\"existing\"",
        cluster.join(",")
    ))
}

/// Says that a change is made.
fn done(
    common: &Common,
    head: Option<&ResponseHeader>,
    members: &[Member],
    id: u64,
    what: &str,
) -> Result<(), Failure> {
    if common.write_out == Form::Json {
        return json(head, members);
    }
    let cluster = head.map_or(0, |head| head.cluster_id);
    line(format!("Member {id:>16x} {what} cluster {cluster:>16x}"))
}

fn json(head: Option<&ResponseHeader>, members: &[Member]) -> Result<(), Failure> {
    let members: Vec<Value> = members.iter().map(json_of).collect();
    object(&Object::default().with("header", header(head)).with("members", members).value())
}

fn json_of(member: &Member) -> Value {
    Object::default()
        .with("ID", member.id)
        .with("name", member.name.as_str())
        .with("peerURLs", member.peer_ur_ls.clone())
        .with("clientURLs", member.client_ur_ls.clone())
        .with("isLearner", member.is_learner)
        .value()
}

/// `move-leader`.
#[derive(Args, Debug)]
pub(crate) struct MoveLeader {
    /// The id of the member that is to lead, in hexadecimal
    #[arg(value_parser = id)]
    target: u64,
}

impl MoveLeader {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        // Only the leader hands leadership over, so it must be found first.
        for endpoint in common.endpoints() {
            let Ok(channel) = common.connect(endpoint).await else { continue };
            let mut client = MaintenanceClient::new(channel);
            let status = common.limit(client.status(StatusRequest::default())).await?;
            let Some(head) = status.header.filter(|head| head.member_id == status.leader) else {
                continue;
            };
            let request = MoveLeaderRequest { target_id: self.target };
            let answer = common.limit(client.move_leader(request)).await?;
            return match common.write_out {
                Form::Json => object(
                    &Object::default().with("header", header(answer.header.as_ref())).value(),
                ),
                _ => line(format!(
                    "Leadership transferred from {:x} to {:x}",
                    head.member_id, self.target
                )),
            };
        }
        Err(Failure::Connection(
            "no endpoint given is the leader's; name all members with --endpoints".to_owned(),
        ))
    }
}
