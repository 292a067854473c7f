//! A member: what its services share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate::{Consistency, Durable, Handle, MemberRole, NodeId, ProposeError};
use quorate_kv::{Alarm, AlarmKind, Command, MemberId, Reader};
use tokio::sync::watch;
use tonic::Status;

use crate::command::{Entry, Reply};
use crate::config::Config;
use crate::data::{Attributes, Data};
use crate::machine::Machine;
use crate::metrics::{Metrics, UnderWay};
use crate::proto::etcdserverpb as pb;
use crate::proto::host::{HostCommand, outcome};
use crate::status;

/// A member of a cluster, as those who serve its clients see it. Clones are the same member.
#[derive(Clone)]
pub struct Member(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    pub(crate) node: Handle<Durable<Machine>>,
    pub(crate) data: Arc<Data>,
    pub(crate) request_timeout: Duration,
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) is_learner: AtomicBool,
    /// Whether no leader was known for three election timeouts.
    pub(crate) leaderless: watch::Sender<bool>,
    /// Whether the member has told the others where its clients find it.
    pub(crate) published: watch::Sender<bool>,
    pub(crate) stopping: watch::Sender<bool>,
    /// Whether the others have removed this member.
    pub(crate) removed: watch::Sender<bool>,
    pub(crate) ids: AtomicU64,
    /// Where clients find this member.
    pub(crate) client_urls: Vec<String>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("id", &self.0.member_id).finish_non_exhaustive()
    }
}

/// A proposal without an outcome. It has failed if nobody knows one, or waits for it any more.
struct Proposal<'a> {
    metrics: &'a Metrics,
    answered: bool,
    _pending: UnderWay<'a>,
}

impl<'a> Proposal<'a> {
    fn begin(metrics: &'a Metrics) -> Self {
        Self { metrics, answered: false, _pending: metrics.pending.begin() }
    }
}

impl Drop for Proposal<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.metrics.proposals_failed.increment();
        }
    }
}

/// A number as ids print it.
pub(crate) fn hex(id: u64) -> String {
    format!("{id:x}")
}

impl Member {
    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.0.cluster_id
    }

    /// The member's id.
    #[must_use]
    pub fn member_id(&self) -> u64 {
        self.0.member_id
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.data.metrics
    }

    /// What the server was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The node that replicates: status, counters, events.
    #[must_use]
    pub fn node(&self) -> &Handle<impl quorate::Machine> {
        &self.0.node
    }

    /// Reads the store as it is here.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.0.data.reader()
    }

    /// Watchers that are up to date, and watchers that are behind.
    #[must_use]
    pub fn watchers(&self) -> (usize, usize) {
        self.0.data.hub.watchers()
    }

    /// Who leads, and in which term, as far as this member knows.
    #[must_use]
    pub fn leader(&self) -> (Option<u64>, u64) {
        let (leader, term) = self.0.node.leader();
        (leader.map(|leader| leader.0), term.0)
    }

    /// Whether this member leads, as far as it knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.0.node.leader().0 == Some(NodeId(self.0.member_id))
    }

    /// Whether this member has no vote (yet).
    #[must_use]
    pub fn is_learner(&self) -> bool {
        self.0.is_learner.load(Ordering::Relaxed)
    }

    /// What the database takes on the disk in bytes, as of the last flush.
    #[must_use]
    pub fn db_bytes(&self) -> u64 {
        self.0.data.file_bytes()
    }

    /// The quota of the database; `None` if it has none.
    #[must_use]
    pub fn quota_bytes(&self) -> Option<u64> {
        self.0.quota_bytes
    }

    /// The version of the API that all members serve, once they have agreed on it.
    #[must_use]
    pub fn cluster_version(&self) -> Option<String> {
        self.attributes().cluster_version.clone()
    }

    /// Waits until what was acknowledged before this call can be read here.
    ///
    /// # Errors
    ///
    /// The status that a client is given.
    pub async fn linearizable(&self) -> Result<(), Status> {
        /// As long as etcd waits before it asks the leader again.
        const SLOW: Duration = Duration::from_millis(500);
        let started = Instant::now();
        let reached = self.0.node.reach(Consistency::Linearizable);
        let reached = match tokio::time::timeout(self.0.request_timeout, reached).await {
            Ok(reached) => reached.map_err(status::wait),
            Err(_) => Err(status::timed_out()),
        };
        if reached.is_err() {
            self.metrics().reads_failed.increment();
        }
        if started.elapsed() > SLOW {
            self.metrics().reads_slow.increment();
        }
        reached
    }

    /// Waits until the member can serve clients: it knows a leader, and the others know it.
    pub async fn ready(&self) {
        let mut published = self.0.published.subscribe();
        // The sender lives as long as the member.
        let _ = published.wait_for(|published| *published).await;
    }

    pub(crate) fn attributes(&self) -> Arc<Attributes> {
        self.0.data.attributes()
    }

    // ---- answers ----

    /// The header of an answer: everything but the revision is this member's, whoever did the work.
    pub(crate) fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.0.cluster_id,
            member_id: self.0.member_id,
            revision,
            raft_term: self.0.node.leader().1.0,
        })
    }

    pub(crate) fn header_now(&self) -> Option<pb::ResponseHeader> {
        self.header(self.reader().revision().0)
    }

    /// Completes a header that has its revision already.
    pub(crate) fn complete(&self, header: &mut Option<pb::ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        let revision = if revision == 0 { self.reader().revision().0 } else { revision };
        *header = self.header(revision);
    }

    // ---- proposals ----

    /// Has a command of the store carried out, and waits until it is so here too.
    pub(crate) async fn propose(&self, command: &Command) -> Result<outcome::Reply, Status> {
        // Deeper than the log can carry, or larger: both are requests that are too large.
        let entry = Entry::of(command).map_err(|_| status::too_large())?;
        self.propose_entry(entry).await
    }

    pub(crate) async fn propose_host(&self, command: HostCommand) -> Result<(), Status> {
        self.propose_entry(Entry::Host(command)).await.map(drop)
    }

    async fn propose_entry(&self, entry: Entry) -> Result<outcome::Reply, Status> {
        let mut proposal = Proposal::begin(self.metrics());
        let reply = self.try_proposal(entry).await?;
        proposal.answered = true;
        reply.into_result().map_err(|why| match why {
            Some(why) => status::request(why),
            None => status::confused(),
        })
    }

    /// What a proposal came to here; an error if that is nothing, or unknown.
    async fn try_proposal(&self, entry: Entry) -> Result<Reply, Status> {
        let started = Instant::now();
        let asked = self.0.node.leader();
        loop {
            let proposed = self.0.node.propose_placed(entry.clone());
            let left = self.0.request_timeout.saturating_sub(started.elapsed());
            let why = match tokio::time::timeout(left, proposed).await {
                // A leader may have it, or nobody.
                Err(_) if self.0.node.leader().0.is_none() => {
                    return Err(status::deadline_exceeded());
                }
                Err(_) if asked == self.0.node.leader() && !self.leads() => {
                    return Err(status::timed_out_by_connection());
                }
                Err(_) => return Err(status::timed_out_by_leader()),
                Ok(Ok((at, reply))) => {
                    if self.0.data.applied_index() < at.index.0 {
                        let reached = self.0.node.reach(Consistency::AtLeast(at.index)).await;
                        reached.map_err(status::wait)?;
                    }
                    return Ok(reply);
                }
                Ok(Err(why)) => why,
            };
            return Err(match why {
                // It certainly did not happen, so another attempt cannot be a second one.
                ProposeError::Overwritten { .. } if started.elapsed() < self.0.request_timeout => {
                    continue;
                }
                ProposeError::Overwritten { .. } => status::timed_out_by_leader(),
                ProposeError::NotLeader { .. } => status::deadline_exceeded(),
                ProposeError::Busy => status::too_many_requests(),
                ProposeError::NoSpace => status::no_space(),
                ProposeError::TooLarge { .. } => status::too_large(),
                ProposeError::Stopped(_) => status::stopped(),
                ProposeError::Reply { .. } => status::confused(),
                ProposeError::OutcomeUnknown { .. } if self.0.node.stop_reason().is_some() => {
                    status::stopped()
                }
                // The same leader is there and was not heard from.
                ProposeError::OutcomeUnknown { .. }
                    if asked == self.0.node.leader() && asked.0.is_some() && !self.leads() =>
                {
                    status::timed_out_by_connection()
                }
                ProposeError::OutcomeUnknown { .. } => status::timed_out_by_leader(),
                _ => status::timed_out(),
            });
        }
    }

    /// Refuses what the quota has no room for.
    pub(crate) async fn check_quota(&self, command: &Command) -> Result<(), Status> {
        let cost = command.cost_bytes() as u64;
        if cost == 0 {
            return Ok(());
        }
        if self.0.data.is_out_of_space() {
            return Err(status::no_space());
        }
        if self.0.data.exceeds_quota(cost) {
            self.raise_no_space().await?;
            return Err(status::no_space());
        }
        Ok(())
    }

    pub(crate) async fn raise_no_space(&self) -> Result<(), Status> {
        let member = MemberId(self.0.member_id);
        let alarm = Command::Alarm(Alarm::Activate(member, Some(AlarmKind::NoSpace)));
        self.propose(&alarm).await.map(drop)
    }

    /// Refuses requests that are too large for the log; `bytes` is the request's size on the wire.
    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), Status> {
        // What the request is wrapped in counts, too.
        const AROUND_BYTES: usize = 16;
        if bytes + AROUND_BYTES > self.0.config.max_request_bytes {
            return Err(status::too_large());
        }
        Ok(())
    }

    /// Waits until nothing below a compacted revision is left here.
    pub(crate) async fn compacted(&self, revision: quorate_kv::Revision) -> Result<(), Status> {
        const LOOK: Duration = Duration::from_millis(10);
        while self.reader().compaction_finished() < revision {
            if self.0.node.stop_reason().is_some() {
                return Err(status::stopped());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// A number that this member gives once, and hardly any other ever.
    pub(crate) fn new_id(&self) -> u64 {
        let next = self.0.ids.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Notes what part this member plays now.
    pub(crate) fn look_at_role(&self) {
        let membership = self.0.node.membership();
        let own = membership.member(NodeId(self.0.member_id));
        let is_learner = own.is_some_and(|own| own.role == MemberRole::LEARNER);
        self.0.is_learner.store(is_learner, Ordering::Relaxed);
    }
}
