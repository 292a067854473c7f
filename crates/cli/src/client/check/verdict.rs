//! What is wrong in what was seen, for people and for programs.

use quorate_etcd::proto::etcdserverpb::StatusResponse;
use serde_json::Value;

use super::latency::{Latency, span};
use super::{Check, Report, Subject};
use crate::client::output::{Cell, Object, painted_table, size};
use crate::client::status::role_of;
use crate::go;
use crate::style::Paint;

impl Report {
    /// Finds what is wrong in what was seen.
    pub(super) fn judge(&mut self, check: &Check) {
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
        let committed = self.committed();
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

    /// How far the cluster is, as far as anybody knows.
    fn committed(&self) -> u64 {
        self.present().map(|(_, status)| status.raft_index).max().unwrap_or(0)
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
            // Learners are not asked for a hash.
            (_, Some(revision)) if self.subjects.iter().any(|subject| subject.hash.is_none()) => (
                format!("of {all} members, the voters"),
                format!("hold the same data at revision {revision}"),
            ),
            (_, Some(revision)) => {
                (format!("all {all} members"), format!("hold the same data at revision {revision}"))
            }
            (_, None) => (format!("{present} of {all} members"), "answer".to_owned()),
        };
        format!("{members} {data}; {} leads term {term}", self.leader_name(leader))
    }

    pub(super) fn text(&self, drawn: bool) -> String {
        let head = [
            "MEMBER", "ENDPOINT", "ROLE", "VERSION", "TERM", "INDEX", "LAG", "IN USE", "HASH",
            "READ", "WRITE", "WATCH",
        ];
        let rows: Vec<Vec<Cell>> =
            self.subjects.iter().map(|subject| row(subject, self.committed())).collect();
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

    pub(super) fn json(&self) -> Value {
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

fn row(subject: &Subject, committed: u64) -> Vec<Cell> {
    let label = Cell::new(subject.label(), Paint::Strong);
    let mut cells = vec![label, subject.endpoint.clone().into()];
    let Some(status) = &subject.status else {
        let what = if subject.name.is_empty() { "unstarted" } else { "unreachable" };
        cells.push(Cell::new(what, Paint::Bad));
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
        committed.saturating_sub(status.raft_applied_index).to_string().into(),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::check::Hash;

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
    fn learners_have_no_hash_and_need_none() {
        let mut subjects = vec![subject(1, 1, 4), subject(2, 1, 4)];
        subjects[1].hash = None;
        let report = report(subjects);
        assert_eq!(
            report.verdict(),
            "of 2 members, the voters hold the same data at revision 5; n1 leads term 4"
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
