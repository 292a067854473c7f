//! `status`, `health`, `defrag`, `alarm`.

use std::time::Instant;

use clap::{Args, Subcommand};
use quorate_etcd::proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::{
    AlarmRequest, AlarmType, DefragmentRequest, HashKvRequest, MemberListRequest, RangeRequest,
    StatusRequest, StatusResponse,
};
use serde_json::{Value, json};
use tonic::Code;

use super::output::{
    Cell, Object, header, header_fields, line, object, painted_table, print, size,
};
use super::{Common, Failure, Form};
use crate::go;
use crate::style::Paint;

/// Which members.
#[derive(Args, Clone, Copy, Debug)]
struct Whom {
    /// All members of the cluster, not only those of --endpoints
    #[arg(long)]
    cluster: bool,
}

impl Whom {
    /// The endpoints to ask, one by one.
    async fn endpoints(self, common: &Common) -> Result<Vec<String>, Failure> {
        if !self.cluster {
            return Ok(common.endpoints().into_iter().map(str::to_owned).collect());
        }
        let list = common
            .ask(async |channel| {
                ClusterClient::new(channel).member_list(MemberListRequest::default()).await
            })
            .await?;
        Ok(list.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
    }
}

/// `status`.
#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    whom: Whom,
}

impl Status {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let mut answers = Vec::new();
        let mut failed = Vec::new();
        for endpoint in self.whom.endpoints(common).await? {
            match status(common, &endpoint).await {
                Ok(answer) => answers.push((endpoint, answer)),
                Err(failure) => failed.push(format!("{endpoint}: {failure}")),
            }
        }
        match common.write_out {
            Form::Json => object(&answers.iter().map(json_of).collect())?,
            Form::Fields => {
                for (endpoint, answer) in &answers {
                    print(fields_of(endpoint, answer).as_bytes())?;
                }
            }
            Form::Simple | Form::Table => {
                let rows: Vec<Vec<Cell>> = answers.iter().map(row_of).collect();
                let head = [
                    "ENDPOINT", "ID", "VERSION", "DB SIZE", "IN USE", "ROLE", "TERM", "INDEX",
                    "APPLIED", "ERRORS",
                ];
                if !rows.is_empty() {
                    print(painted_table(&head, &rows, common.write_out == Form::Table).as_bytes())?;
                }
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(Failure::Connection(failed.join("\n"))) }
    }
}

async fn status(common: &Common, endpoint: &str) -> Result<StatusResponse, Failure> {
    let channel = common.connect(endpoint).await?;
    common
        .limit(async { MaintenanceClient::new(channel).status(StatusRequest::default()).await })
        .await
}

/// Who answered.
pub(crate) fn member_of(answer: &StatusResponse) -> u64 {
    answer.header.as_ref().map_or(0, |header| header.member_id)
}

/// What a member is to the others, and how that looks.
pub(crate) fn role_of(answer: &StatusResponse) -> Cell {
    let id = member_of(answer);
    if answer.is_learner {
        Cell::new("learner", Paint::Odd)
    } else if answer.leader == id && id != 0 {
        Cell::new("leader", Paint::Good)
    } else if answer.leader == 0 {
        Cell::new("no leader", Paint::Bad)
    } else {
        Cell::new("follower", Paint::Plain)
    }
}

fn row_of((endpoint, answer): &(String, StatusResponse)) -> Vec<Cell> {
    let bytes = |bytes: i64| Cell::from(size(u64::try_from(bytes).unwrap_or(0)));
    vec![
        endpoint.clone().into(),
        format!("{:x}", member_of(answer)).into(),
        answer.version.clone().into(),
        bytes(answer.db_size),
        bytes(answer.db_size_in_use),
        role_of(answer),
        answer.raft_term.to_string().into(),
        answer.raft_index.to_string().into(),
        answer.raft_applied_index.to_string().into(),
        Cell::new(answer.errors.join(", "), Paint::Bad),
    ]
}

fn json_of((endpoint, answer): &(String, StatusResponse)) -> Value {
    json!({
        "Endpoint": endpoint,
        "Status": Object::default()
            .with("header", header(answer.header.as_ref()))
            .with("version", answer.version.as_str())
            .with("dbSize", answer.db_size)
            .with("leader", answer.leader)
            .with("raftIndex", answer.raft_index)
            .with("raftTerm", answer.raft_term)
            .with("raftAppliedIndex", answer.raft_applied_index)
            .with("errors", answer.errors.clone())
            .with("dbSizeInUse", answer.db_size_in_use)
            .with("isLearner", answer.is_learner)
            .with("storageVersion", answer.storage_version.as_str())
            .with("dbSizeQuota", answer.db_size_quota)
            .value(),
    })
}

fn fields_of(endpoint: &str, answer: &StatusResponse) -> String {
    format!(
        "{}\"Version\" : {:?}\n\"StorageVersion\" : {:?}\n\"DBSize\" : {}\n\"DBSizeInUse\" : {}\n\
         \"Leader\" : {}\n\"IsLearner\" : {}\n\"RaftIndex\" : {}\n\"RaftTerm\" : {}\n\
         \"RaftAppliedIndex\" : {}\n\"Errors\" : {:?}\n\"Endpoint\" : {endpoint:?}\n\n",
        header_fields(answer.header.as_ref()),
        answer.version,
        answer.storage_version,
        answer.db_size,
        answer.db_size_in_use,
        answer.leader,
        answer.is_learner,
        answer.raft_index,
        answer.raft_term,
        answer.raft_applied_index,
        answer.errors,
    )
}

/// `health`.
#[derive(Args, Debug)]
pub(crate) struct Health {
    #[command(flatten)]
    whom: Whom,
}

impl Health {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let mut ill = false;
        let mut answers = Vec::new();
        for endpoint in self.whom.endpoints(common).await? {
            let began = Instant::now();
            let failure = health(common, &endpoint).await.err();
            let took = go::write_duration(began.elapsed());
            ill |= failure.is_some();
            if common.write_out != Form::Json {
                line(match &failure {
                    None => format!(
                        "{endpoint} is {}: successfully committed proposal: took = {took}",
                        Paint::Good.out("healthy")
                    ),
                    Some(why) => format!(
                        "{endpoint} is {}: failed to commit proposal: {why}",
                        Paint::Bad.out("unhealthy")
                    ),
                })?;
            }
            answers.push(
                Object::default()
                    .with("endpoint", endpoint.as_str())
                    .with("took", took)
                    .with("error", failure.as_ref().map(ToString::to_string))
                    .value_with("health", failure.is_none()),
            );
        }
        if common.write_out == Form::Json {
            object(&Value::Array(answers))?;
        }
        if ill { Err(Failure::Unhealthy("unhealthy cluster".to_owned())) } else { Ok(()) }
    }
}

/// Reads a key with the consent of a majority, and asks for alarms.
async fn health(common: &Common, endpoint: &str) -> Result<(), Failure> {
    let channel = common.connect(endpoint).await?;
    let read = common
        .limit(async {
            let request = RangeRequest { key: "health".into(), ..RangeRequest::default() };
            KvClient::new(channel.clone()).range(request).await
        })
        .await;
    match read {
        // Whoever may not read the key has been answered by a healthy member.
        Err(Failure::Status(status)) if status.code() == Code::PermissionDenied => {}
        other => {
            other?;
        }
    }
    let alarms = common
        .limit(async { MaintenanceClient::new(channel).alarm(AlarmRequest::default()).await })
        .await?
        .alarms;
    if alarms.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = alarms.iter().map(|alarm| alarm_name(alarm.alarm)).collect();
    Err(Failure::Unhealthy(format!("active alarms: {}", names.join(", "))))
}

/// An alarm in one word.
pub(crate) fn alarm_name(number: i32) -> &'static str {
    AlarmType::try_from(number).map_or("UNKNOWN", |alarm| alarm.as_str_name())
}

/// `endpoint hashkv`.
#[derive(Args, Debug)]
pub(crate) struct HashKv {
    #[command(flatten)]
    whom: Whom,
    /// The hash of everything up to this revision; 0 is all
    #[arg(long, default_value_t = 0)]
    rev: i64,
}

impl HashKv {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let mut answers = Vec::new();
        let mut failed = Vec::new();
        for endpoint in self.whom.endpoints(common).await? {
            let answer = async {
                let mut client = MaintenanceClient::new(common.connect(&endpoint).await?);
                common.limit(client.hash_kv(HashKvRequest { revision: self.rev })).await
            };
            match answer.await {
                Ok(answer) => answers.push((endpoint, answer)),
                Err(failure) => failed.push(format!("{endpoint}: {failure}")),
            }
        }
        match common.write_out {
            Form::Json => {
                let all = answers.iter().map(|(endpoint, answer)| {
                    json!({
                        "Endpoint": endpoint,
                        "HashKV": Object::default()
                            .with("header", header(answer.header.as_ref()))
                            .with("compact_revision", answer.compact_revision)
                            .with("hash_revision", answer.hash_revision)
                            .value_with("hash", answer.hash),
                    })
                });
                object(&all.collect())?;
            }
            Form::Fields => {
                for (endpoint, answer) in &answers {
                    print(
                        format!(
                            "{}\"Endpoint\" : {endpoint:?}\n\"Hash\" : {}\n\n",
                            header_fields(answer.header.as_ref()),
                            answer.hash
                        )
                        .as_bytes(),
                    )?;
                }
            }
            Form::Simple => {
                for (endpoint, answer) in &answers {
                    line(format!("{endpoint}, {}", answer.hash))?;
                }
            }
            Form::Table => {
                let rows: Vec<Vec<Cell>> = answers
                    .iter()
                    .map(|(endpoint, answer)| {
                        vec![
                            endpoint.clone().into(),
                            answer.hash.to_string().into(),
                            answer.hash_revision.to_string().into(),
                            answer.compact_revision.to_string().into(),
                        ]
                    })
                    .collect();
                let head = ["ENDPOINT", "HASH", "REVISION", "COMPACTED"];
                print(painted_table(&head, &rows, true).as_bytes())?;
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(Failure::Connection(failed.join("\n"))) }
    }
}

/// `defrag`.
#[derive(Args, Debug)]
pub(crate) struct Defrag {
    #[command(flatten)]
    whom: Whom,
}

impl Defrag {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let mut failed = 0;
        for endpoint in self.whom.endpoints(common).await? {
            let began = Instant::now();
            let outcome = defragment(common, &endpoint).await;
            let took = go::write_duration(began.elapsed());
            match outcome {
                Ok(()) => {
                    line(format!("Finished defragmenting etcd member[{endpoint}]. took {took}"))?;
                }
                Err(why) => {
                    failed += 1;
                    eprintln!("Failed to defragment etcd member[{endpoint}]. took {took}. ({why})");
                }
            }
        }
        match failed {
            0 => Ok(()),
            _ => Err(Failure::Unhealthy(format!("{failed} members were not defragmented"))),
        }
    }
}

async fn defragment(common: &Common, endpoint: &str) -> Result<(), Failure> {
    let channel = common.connect(endpoint).await?;
    // It takes as long as there are data, so there is no limit.
    MaintenanceClient::new(channel).defragment(DefragmentRequest::default()).await?;
    Ok(())
}

/// Commands of `alarm`.
#[derive(Subcommand, Debug)]
pub(crate) enum Alarm {
    /// Show the alarms that are raised
    List,
    /// Lift all alarms
    Disarm,
}

/// Carries out a command of `alarm`.
pub(crate) async fn alarm(command: &Alarm, common: &Common) -> Result<(), Failure> {
    let action = match command {
        Alarm::List => AlarmAction::Get,
        Alarm::Disarm => AlarmAction::Deactivate,
    };
    let request = AlarmRequest { action: action.into(), ..AlarmRequest::default() };
    let answer = common
        .ask_once(async move |channel| MaintenanceClient::new(channel).alarm(request).await)
        .await?;
    if common.write_out == Form::Json {
        let alarms: Vec<Value> = answer
            .alarms
            .iter()
            .map(|alarm| {
                Object::default()
                    .with("memberID", alarm.member_id)
                    .with("alarm", alarm.alarm)
                    .value()
            })
            .collect();
        return object(
            &Object::default()
                .with("header", header(answer.header.as_ref()))
                .with("alarms", alarms)
                .value(),
        );
    }
    for alarm in &answer.alarms {
        line(format!("memberID:{} alarm:{} ", alarm.member_id, alarm_name(alarm.alarm)))?;
    }
    Ok(())
}
