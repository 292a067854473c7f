//! `check`: is this cluster as it should be? A table, what is wrong in words, and one line at the end.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::watch_client::WatchClient;
use quorate_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_etcd::proto::etcdserverpb::{
    AlarmRequest, HashKvRequest, LeaseGrantRequest, LeaseRevokeRequest, Member, MemberListRequest,
    PutRequest, RangeRequest, StatusRequest, StatusResponse, WatchCreateRequest, WatchRequest,
    WatchResponse,
};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::output::{Cell, Object, object, painted_table, print, size};
use super::status::{alarm_name, member_of, role_of};
use super::{Common, Failure, Form, duration};
use crate::go;
use crate::style::Paint;

/// Begin of the keys that are written.
const KEYS: &str = "quorate-check/";

/// Seconds after which a key that was not removed goes by itself.
const KEY_TTL_S: i64 = 60;

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

For the writes, each member is given a key of its own below quorate-check/, with a lease that is revoked at the end. The \
revision of the store rises by that. --read-only spares it.

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

/// Several measurements of the same.
#[derive(Clone, Copy)]
struct Latency {
    median: Duration,
    max: Duration,
}

impl Latency {
    fn of(mut samples: Vec<Duration>) -> Option<Self> {
        samples.sort_unstable();
        let max = *samples.last()?;
        Some(Self { median: samples[samples.len() / 2], max })
    }

    fn json(self) -> Value {
        json!({ "median": micros(self.median), "max": micros(self.max) })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A time for people, with three digits at most.
fn span(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    if us < 10_000.0 {
        format!("{:.2} ms", us / 1e3)
    } else if us < 1e6 {
        format!("{:.0} ms", us / 1e3)
    } else {
        format!("{:.1} s", us / 1e6)
    }
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

    fn lag(&self) -> Option<u64> {
        let status = self.status.as_ref()?;
        Some(status.raft_index.saturating_sub(status.raft_applied_index))
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

    /// Finds what is wrong in what was seen.
    fn judge(&mut self, check: &Check) {
        let mut problems = Vec::new();
        let mut notes = Vec::new();
        for subject in &self.subjects {
            if let Some(why) = &subject.failure {
                problems.push(format!("{}: {why}", subject.label()));
            }
        }
        let all_same = |of: &dyn Fn(&StatusResponse) -> String| {
            let mut found: Vec<(String, Vec<String>)> = Vec::new();
            for (subject, status) in self.present() {
                let value = of(status);
                match found.iter_mut().find(|(other, _)| *other == value) {
                    Some((_, who)) => who.push(subject.label()),
                    None => found.push((value, vec![subject.label()])),
                }
            }
            let words =
                |(value, who): &(String, Vec<String>)| format!("{value} ({})", who.join(", "));
            (found.len() > 1).then(|| found.iter().map(words).collect::<Vec<_>>().join(", "))
        };
        if let Some(values) =
            all_same(&|status| format!("{:x}", status.header.map_or(0, |header| header.cluster_id)))
        {
            problems.push(format!("members belong to different clusters: {values}"));
        }
        if let Some(values) = all_same(&|status| status.raft_term.to_string()) {
            problems.push(format!("members are in different terms: {values}"));
        }
        if let Some(values) = all_same(&|status| self.leader_name(status.leader)) {
            problems.push(format!("members follow different leaders: {values}"));
        } else if self.present().any(|(_, status)| status.leader == 0) {
            problems.push(
                "there is no leader: a majority of the voters must run and reach each other"
                    .to_owned(),
            );
        }
        if let Some(values) = all_same(&|status| status.version.clone()) {
            notes.push(format!("versions differ: {values}"));
        }
        let committed = self.present().map(|(_, status)| status.raft_index).max().unwrap_or(0);
        for (subject, status) in self.present() {
            let behind = committed.saturating_sub(status.raft_applied_index);
            if behind > check.lag_max {
                problems.push(format!("{}: {behind} entries behind", subject.label()));
            }
            for error in &status.errors {
                // Alarms are told by the cluster as a whole.
                if !error.contains("alarm") {
                    problems.push(format!("{}: {error}", subject.label()));
                }
            }
            let quota = status.db_size_quota;
            if quota > 0 && status.db_size_in_use.max(0) / 9 > quota / 10 {
                let used = size(status.db_size_in_use.unsigned_abs());
                notes.push(format!(
                    "{}: {used} of {} that the quota allows are in use",
                    subject.label(),
                    size(quota.unsigned_abs())
                ));
            }
            let slow = [("read", subject.read), ("write", subject.write), ("watch", subject.watch)];
            for (what, latency) in slow {
                if let Some(Latency { median, .. }) = latency
                    && median > check.latency_max
                {
                    problems.push(format!(
                        "{}: a {what} takes {}, which is more than {}",
                        subject.label(),
                        span(median),
                        go::write_duration(check.latency_max)
                    ));
                }
            }
        }
        let hashes: Vec<(String, u32)> = self
            .subjects
            .iter()
            .filter_map(|subject| Some((subject.label(), subject.hash?.hash)))
            .collect();
        if hashes.windows(2).any(|pair| pair[0].1 != pair[1].1) {
            let values: Vec<String> =
                hashes.iter().map(|(who, hash)| format!("{hash:08x} ({who})")).collect();
            problems.push(format!(
                "members hold different data at revision {}: {}; keep clients away, and replace those \
                 that differ from the majority",
                self.revision.unwrap_or(0),
                values.join(", ")
            ));
        }
        self.problems.splice(0..0, problems);
        self.notes.splice(0..0, notes);
    }

    fn leader_name(&self, id: u64) -> String {
        if id == 0 {
            return "none".to_owned();
        }
        let subject = self.subjects.iter().find(|subject| subject.id == id);
        subject.map_or_else(|| format!("{id:x}"), Subject::label)
    }

    /// The last line, without its first word.
    fn verdict(&self) -> String {
        let (present, all) = (self.present().count(), self.subjects.len());
        if !self.problems.is_empty() {
            let count = self.problems.len();
            let things = if count == 1 { "problem" } else { "problems" };
            return format!("{count} {things}; {present} of {all} members answer");
        }
        let (leader, term) =
            self.present().next().map_or((0, 0), |(_, status)| (status.leader, status.raft_term));
        let (members, data) = match (all, self.revision) {
            (1, Some(revision)) => {
                ("the only member".to_owned(), format!("is at revision {revision}"))
            }
            (_, Some(revision)) => {
                (format!("all {all} members"), format!("hold the same data at revision {revision}"))
            }
            (_, None) => (format!("{present} of {all} members"), "answer".to_owned()),
        };
        format!("{members} {data}; {} leads term {term}", self.leader_name(leader))
    }

    fn text(&self, drawn: bool) -> String {
        let head = [
            "MEMBER", "ENDPOINT", "ROLE", "VERSION", "TERM", "INDEX", "LAG", "IN USE", "HASH",
            "READ", "WRITE", "WATCH",
        ];
        let rows: Vec<Vec<Cell>> = self.subjects.iter().map(row).collect();
        let mut text = painted_table(&head, &rows, drawn);
        for problem in &self.problems {
            text.push_str(&format!("{} {problem}\n", Paint::Bad.out("wrong:")));
        }
        for note in &self.notes {
            text.push_str(&format!("{} {note}\n", Paint::Odd.out("note:")));
        }
        let word = if self.problems.is_empty() {
            Paint::Good.out("GOOD:")
        } else {
            Paint::Bad.out("BAD:")
        };
        text.push_str(&format!("{word} {}\n", self.verdict()));
        text
    }

    fn json(&self) -> Value {
        let members: Vec<Value> = self.subjects.iter().map(json_of).collect();
        let leader = self.present().next().map(|(_, status)| status.leader);
        Object::default()
            .with("problems", self.problems.clone())
            .with("notes", self.notes.clone())
            .with("leader", leader)
            .with("hash_revision", self.revision)
            .with("members", members)
            .with("verdict", self.verdict())
            .value_with("good", self.problems.is_empty())
    }
}

fn row(subject: &Subject) -> Vec<Cell> {
    let label = Cell::new(subject.label(), Paint::Strong);
    let mut cells = vec![label, subject.endpoint.clone().into()];
    let Some(status) = &subject.status else {
        cells.push(Cell::new("unreachable", Paint::Bad));
        cells.extend((3..12).map(|_| Cell::new("-", Paint::Faint)));
        return cells;
    };
    let hash = subject.hash.map_or("-".to_owned(), |hash| format!("{:08x}", hash.hash));
    let latency = |latency: Option<Latency>| {
        Cell::from(latency.map_or("-".to_owned(), |latency| span(latency.median)))
    };
    cells.extend([
        role_of(status),
        status.version.clone().into(),
        status.raft_term.to_string().into(),
        status.raft_index.to_string().into(),
        subject.lag().unwrap_or(0).to_string().into(),
        size(status.db_size_in_use.max(0).unsigned_abs()).into(),
        hash.into(),
        latency(subject.read),
        latency(subject.write),
        latency(subject.watch),
    ]);
    cells
}

fn json_of(subject: &Subject) -> Value {
    let mut whole = Object::default()
        .with("ID", subject.id)
        .with("name", subject.name.as_str())
        .with("endpoint", subject.endpoint.as_str())
        .with("error", subject.failure.clone());
    if let Some(status) = &subject.status {
        whole = whole
            .with("clusterID", status.header.map_or(0, |header| header.cluster_id))
            .with("role", role_of(status).text())
            .with("version", status.version.as_str())
            .with("raftTerm", status.raft_term)
            .with("raftIndex", status.raft_index)
            .with("raftAppliedIndex", status.raft_applied_index)
            .with("dbSizeInUse", status.db_size_in_use);
    }
    let latencies =
        [("read_us", subject.read), ("write_us", subject.write), ("watch_us", subject.watch)];
    for (name, latency) in latencies {
        whole = whole.with(name, latency.map(Latency::json));
    }
    whole.with("hash", subject.hash.map(|hash| hash.hash)).value()
}

/// Linearizable reads of one key through one member.
async fn reads(
    common: &Common,
    channel: &Channel,
    samples: u32,
) -> Result<Option<Latency>, Failure> {
    let mut client = KvClient::new(channel.clone());
    let mut times = Vec::new();
    for _ in 0..samples {
        let began = Instant::now();
        let request = RangeRequest { key: "health".into(), limit: 1, ..RangeRequest::default() };
        match common.limit(client.range(request)).await {
            // Whoever may not read the key has been answered all the same.
            Err(Failure::Status(status)) if status.code() == Code::PermissionDenied => {}
            other => {
                other?;
            }
        }
        times.push(began.elapsed());
    }
    Ok(Latency::of(times))
}

/// Writes of one key through one member, and when a watch there hears of them.
async fn writes(
    common: &Common,
    channel: &Channel,
    key: &str,
    samples: u32,
) -> Result<(Option<Latency>, Option<Latency>), Failure> {
    let mut leases = LeaseClient::new(channel.clone());
    let request = LeaseGrantRequest { ttl: KEY_TTL_S, id: 0 };
    let lease = common.limit(leases.lease_grant(request)).await?.id;
    let outcome = write_samples(common, channel, key, lease, samples).await;
    // The key goes with its lease, at the latest when that runs out.
    let gone = common.limit(leases.lease_revoke(LeaseRevokeRequest { id: lease })).await;
    let outcome = outcome?;
    gone?;
    Ok(outcome)
}

async fn write_samples(
    common: &Common,
    channel: &Channel,
    key: &str,
    lease: i64,
    samples: u32,
) -> Result<(Option<Latency>, Option<Latency>), Failure> {
    let mut news = follow(common, channel, key).await?;
    let mut client = KvClient::new(channel.clone());
    let (mut writes, mut watches) = (Vec::new(), Vec::new());
    for sample in 0..samples {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: sample.to_string().into(),
            lease,
            ..PutRequest::default()
        };
        let began = Instant::now();
        let put = async {
            let answer = common.limit(client.put(request)).await?;
            Ok::<_, Failure>((answer.header.map_or(0, |header| header.revision), began.elapsed()))
        };
        let heard = async {
            common.limit(next_event(&mut news)).await.map(|revision| (revision, began.elapsed()))
        };
        let ((written, write), (heard, watch)) = tokio::try_join!(put, heard)?;
        if written != heard {
            return Err(Failure::Unhealthy(format!(
                "a watch has told of revision {heard} when {written} was written"
            )));
        }
        writes.push(write);
        watches.push(watch);
    }
    Ok((Latency::of(writes), Latency::of(watches)))
}

/// Watches a key. When this returns, the watch has begun.
async fn follow(
    common: &Common,
    channel: &Channel,
    key: &str,
) -> Result<Streaming<WatchResponse>, Failure> {
    use tokio_stream::StreamExt as _;
    let create = WatchCreateRequest { key: key.to_owned().into(), ..WatchCreateRequest::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut client = WatchClient::new(channel.clone());
    let mut news = common.limit(client.watch(requests)).await?;
    let first = common.limit(next_answer(&mut news)).await?;
    if first.canceled {
        return Err(Failure::Unhealthy(format!("a watch is refused: {}", first.cancel_reason)));
    }
    Ok(news)
}

async fn next_answer(
    news: &mut Streaming<WatchResponse>,
) -> Result<tonic::Response<WatchResponse>, tonic::Status> {
    let answer = news.message().await?;
    answer
        .map(tonic::Response::new)
        .ok_or_else(|| tonic::Status::unavailable("the member has closed a watch"))
}

/// The revision of the next change that a watch tells of.
async fn next_event(
    news: &mut Streaming<WatchResponse>,
) -> Result<tonic::Response<i64>, tonic::Status> {
    loop {
        let answer = next_answer(news).await?.into_inner();
        if answer.canceled {
            return Err(tonic::Status::unavailable(answer.cancel_reason));
        }
        let first = answer.events.first().and_then(|event| event.kv.as_ref());
        if let Some(kv) = first {
            return Ok(tonic::Response::new(kv.mod_revision));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> Check {
        Check { read_only: false, samples: 1, latency_max: Duration::from_millis(500), lag_max: 10 }
    }

    fn subject(id: u64, leader: u64, term: u64) -> Subject {
        Subject {
            id,
            name: format!("n{id}"),
            status: Some(StatusResponse {
                leader,
                raft_term: term,
                raft_index: 100,
                raft_applied_index: 100,
                ..StatusResponse::default()
            }),
            hash: Some(Hash { hash: 7, compact_revision: -1 }),
            ..Subject::default()
        }
    }

    fn report(subjects: Vec<Subject>) -> Report {
        let mut report = Report { subjects, revision: Some(5), ..Report::default() };
        report.judge(&check());
        report
    }

    #[test]
    fn a_cluster_that_agrees_is_good() {
        let report = report((1..=3).map(|id| subject(id, 2, 4)).collect());
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(
            report.verdict(),
            "all 3 members hold the same data at revision 5; n2 leads term 4"
        );
    }

    #[test]
    fn whatever_differs_is_named() {
        let mut odd = vec![subject(1, 1, 4), subject(2, 2, 5), subject(3, 2, 5)];
        odd[2].hash = Some(Hash { hash: 8, compact_revision: -1 });
        odd[2].read = Latency::of(vec![Duration::from_secs(1)]);
        if let Some(status) = &mut odd[0].status {
            status.raft_applied_index = 80;
        }
        odd.push(Subject {
            id: 0xab,
            failure: Some("has not been started".to_owned()),
            ..Subject::default()
        });
        let report = report(odd);
        assert_eq!(
            report.problems,
            [
                "member ab: has not been started",
                "members are in different terms: 4 (n1), 5 (n2, n3)",
                "members follow different leaders: n1 (n1), n2 (n2, n3)",
                "n1: 20 entries behind",
                "n3: a read takes 1.0 s, which is more than 500ms",
                "members hold different data at revision 5: 00000007 (n1), 00000007 (n2), 00000008 \
                 (n3); keep clients away, and replace those that differ from the majority",
            ]
        );
        assert_eq!(report.verdict(), "6 problems; 3 of 4 members answer");
    }
}
