//! `check`: is this cluster as it should be? A table, what is wrong in words, and one line at the end.

mod latency;
mod verdict;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::{
    AlarmRequest, HashKvRequest, Member, MemberListRequest, StatusRequest, StatusResponse,
};
use tonic::transport::Channel;

use self::latency::{Latency, reads, writes};
use super::output::{object, print};
use super::status::{alarm_name, member_of};
use super::{Common, Failure, Form, duration};

/// Begin of the keys that are written.
const KEYS: &str = "quorate-check/";

/// How often members are asked again that do not agree on a leader or a term: an election may be under way.
const ROUNDS: usize = 5;

/// What is done between these rounds, and between two attempts to compare hashes.
const PAUSE: Duration = Duration::from_millis(300);

/// `check`.
#[derive(Args, Debug)]
#[command(after_help = "\
What is looked at: every member can be reached, has been started, and belongs to the same cluster; all follow one leader \
in one term; their versions; how far each is behind; whether all voters hold the same data at one revision; alarms, and how \
much of the quota is used; how long a linearizable read, a write and the news of it in a watch take through each voter.

For the writes, each voter is given a key of its own below quorate-check/, with a lease that is revoked at the end. The \
revision of the store rises by that. --read-only spares it; what is left in the log then are the questions for alarms, as with \
every such question.

The exit code is 0 if nothing is wrong, 1 if something is, and as with other commands if the cluster cannot be asked at all.")]
pub(crate) struct Check {
    /// Write nothing: neither writes nor watches are measured
    #[arg(long)]
    read_only: bool,
    /// How often each latency is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    samples: u32,
    /// A median latency above this is wrong
    #[arg(long, default_value = "500ms", value_parser = duration)]
    latency_max: Duration,
    /// A member that has applied so many entries less than the cluster has committed is wrong
    #[arg(long, default_value_t = 5000)]
    lag_max: u64,
}

/// One member, and what is known of it.
#[derive(Default)]
struct Subject {
    id: u64,
    name: String,
    endpoint: String,
    channel: Option<Channel>,
    status: Option<StatusResponse>,
    /// Why there is no status.
    failure: Option<String>,
    hash: Option<Hash>,
    read: Option<Latency>,
    write: Option<Latency>,
    watch: Option<Latency>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Hash {
    hash: u32,
    compact_revision: i64,
}

/// What was found.
#[derive(Default)]
struct Report {
    subjects: Vec<Subject>,
    /// What is wrong.
    problems: Vec<String>,
    /// What is worth a look.
    notes: Vec<String>,
    /// At which revision hashes were compared.
    revision: Option<i64>,
}

impl Check {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        if common.write_out == Form::Fields {
            return Err(Failure::Input(
                "check prints no fields; use -o simple, table or json".to_owned(),
            ));
        }
        let mut report = Report { subjects: subjects(common).await?, ..Report::default() };
        report.statuses(common).await;
        report.hashes(common).await;
        report.alarms(common).await;
        self.latencies(common, &mut report).await;
        report.judge(&self);
        match common.write_out {
            Form::Json => object(&report.json())?,
            form => print(report.text(form == Form::Table).as_bytes())?,
        }
        if report.problems.is_empty() { Ok(()) } else { Err(Failure::Said(1)) }
    }

    async fn latencies(&self, common: &Common, report: &mut Report) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = format!("{:x}-{:x}", std::process::id(), since.as_micros());
        for subject in &mut report.subjects {
            let Some(channel) = subject.serving() else { continue };
            match reads(common, &channel, self.samples).await {
                Ok(latency) => subject.read = latency,
                Err(why) => {
                    report.problems.push(format!("{}: a read fails: {why}", subject.label()));
                }
            }
            if self.read_only {
                continue;
            }
            let key = format!("{KEYS}{run}/{:x}", subject.id);
            match writes(common, &channel, &key, self.samples).await {
                Ok((write, watch)) => (subject.write, subject.watch) = (write, watch),
                Err(why) => {
                    report.problems.push(format!("{}: a write fails: {why}", subject.label()));
                }
            }
        }
    }
}

/// All members of the cluster, with the endpoint that leads to each.
async fn subjects(common: &Common) -> Result<Vec<Subject>, Failure> {
    // Endpoints that were named are believed more than those that members advertise: these may have names that are only
    // known where the members are.
    let mut named: Vec<(u64, String)> = Vec::new();
    for endpoint in common.endpoints() {
        let Ok(channel) = common.connect(endpoint).await else { continue };
        let status = common
            .limit(async { MaintenanceClient::new(channel).status(StatusRequest::default()).await })
            .await;
        if let Ok(status) = status {
            named.push((member_of(&status), endpoint.to_owned()));
        }
    }
    let list = async |linearizable| {
        common
            .ask(async |channel| {
                ClusterClient::new(channel).member_list(MemberListRequest { linearizable }).await
            })
            .await
    };
    // Without a quorum, what one member knows is better than nothing.
    let list = match list(true).await {
        Err(Failure::Status(_)) => list(false).await?,
        other => other?,
    };
    let mut subjects = Vec::new();
    for member in list.members {
        let Member { id, name, client_ur_ls: urls, .. } = member;
        let named = named.iter().filter(|(member, _)| *member == id).map(|(_, url)| url.clone());
        let mut subject = Subject { id, name, ..Subject::default() };
        let mut failures = Vec::new();
        for url in named.chain(urls) {
            subject.endpoint.clone_from(&url);
            match common.connect(&url).await {
                Ok(channel) => {
                    subject.channel = Some(channel);
                    break;
                }
                Err(why) => failures.push(why.to_string()),
            }
        }
        if subject.channel.is_none() {
            subject.failure = Some(match failures.is_empty() {
                true => "has not been started".to_owned(),
                false => failures.join("; "),
            });
        }
        subjects.push(subject);
    }
    Ok(subjects)
}

impl Subject {
    fn label(&self) -> String {
        if self.name.is_empty() { format!("member {:x}", self.id) } else { self.name.clone() }
    }

    /// The way to a member that answers everything. A learner only says how it is.
    fn serving(&self) -> Option<Channel> {
        let status = self.status.as_ref()?;
        self.channel.clone().filter(|_| !status.is_learner)
    }

    async fn ask_status(&mut self, common: &Common) {
        let Some(channel) = self.channel.clone() else { return };
        let mut client = MaintenanceClient::new(channel);
        match common.limit(client.status(StatusRequest::default())).await {
            Ok(status) => (self.status, self.failure) = (Some(status), None),
            Err(why) => (self.status, self.failure) = (None, Some(why.to_string())),
        }
    }

    async fn ask_hash(&self, common: &Common, revision: i64) -> Result<Option<Hash>, Failure> {
        let Some(channel) = self.serving() else { return Ok(None) };
        let mut client = MaintenanceClient::new(channel);
        let answer = common.limit(client.hash_kv(HashKvRequest { revision })).await?;
        Ok(Some(Hash { hash: answer.hash, compact_revision: answer.compact_revision }))
    }
}

impl Report {
    fn present(&self) -> impl Iterator<Item = (&Subject, &StatusResponse)> {
        self.subjects.iter().filter_map(|subject| Some((subject, subject.status.as_ref()?)))
    }

    /// Asks all members how they are, again if an election may have come between.
    async fn statuses(&mut self, common: &Common) {
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            for subject in &mut self.subjects {
                subject.ask_status(common).await;
            }
            let mut views = self.present().map(|(_, status)| (status.leader, status.raft_term));
            let first = views.next();
            let is_settled = first.is_none_or(|(leader, _)| leader != 0);
            if is_settled && views.all(|view| Some(view) == first) {
                return;
            }
        }
    }

    /// Asks all members for the hash of their data at the highest revision that all have.
    async fn hashes(&mut self, common: &Common) {
        let mut failure = None;
        for _ in 0..ROUNDS {
            let revisions = self.present().filter_map(|(_, status)| status.header.as_ref());
            let Some(revision) = revisions.map(|header| header.revision).min() else { return };
            let mut hashes = Vec::new();
            failure = None;
            for subject in &self.subjects {
                match subject.ask_hash(common, revision).await {
                    Ok(hash) => hashes.push(hash),
                    Err(why) => {
                        failure =
                            Some(format!("{}: the data have no hash: {why}", subject.label()));
                        break;
                    }
                }
            }
            let mut known = hashes.iter().flatten().map(|hash| hash.compact_revision);
            let first = known.next();
            // Of histories that are cut at different places, hashes may differ.
            if failure.is_none() && known.all(|revision| Some(revision) == first) {
                self.revision = Some(revision);
                for (subject, hash) in self.subjects.iter_mut().zip(hashes) {
                    subject.hash = hash;
                }
                return;
            }
            // A compaction has come between.
            tokio::time::sleep(PAUSE).await;
            for subject in &mut self.subjects {
                subject.ask_status(common).await;
            }
        }
        match failure {
            Some(why) => self.problems.push(why),
            None => self.notes.push(
                "hashes were not compared: members have compacted up to different revisions"
                    .to_owned(),
            ),
        }
    }

    async fn alarms(&mut self, common: &Common) {
        let mut alarms = Vec::new();
        for subject in &self.subjects {
            let Some(channel) = subject.serving() else { continue };
            let mut client = MaintenanceClient::new(channel);
            match common.limit(client.alarm(AlarmRequest::default())).await {
                Ok(answer) => alarms = answer.alarms,
                // The next one may be able to say.
                Err(_) => continue,
            }
            break;
        }
        for alarm in alarms {
            let subject = self.subjects.iter().find(|subject| subject.id == alarm.member_id);
            let whose = subject.map_or("the cluster".to_owned(), Subject::label);
            let what_to_do = match alarm_name(alarm.alarm) {
                "NOSPACE" => "; compact, defrag, then `alarm disarm`, or raise the quota",
                "CORRUPT" => "; its data differ from those of others: replace that member",
                _ => "",
            };
            self.problems.push(format!("{whose}: alarm {}{what_to_do}", alarm_name(alarm.alarm)));
        }
    }
}
