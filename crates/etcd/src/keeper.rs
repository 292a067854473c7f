//! What a member does besides serving: leading leases, catching up watches, compacting, telling who it is.

use std::time::{Duration, Instant};

use quorate::NodeId;
use quorate_kv::{Command, Compact, Revision};
use tokio::sync::watch;

use crate::clock;
use crate::compactor::Compactor;
use crate::identity;
use crate::maintenance::is_of;
use crate::member::Member;
use crate::proto::host::{Attributes, HostCommand, host_command};

/// Longest time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long a compaction waits for those who read what it forgets.
const READ_AGE_MAX: Duration = Duration::from_secs(60);

impl Member {
    /// Leads leases while this member leads, and looks after what needs a look now and then.
    pub(crate) async fn keep(self, mut stopping: watch::Receiver<bool>) {
        let mut events = self.0.node.events();
        let mut with_leader = Instant::now();
        loop {
            let now_us = clock::now_us();
            let wake = self.0.data.leases().lessor.wake_us();
            let wake = wake.map(|wake| Duration::from_micros(wake.saturating_sub(now_us)));
            let pause = wake.unwrap_or(LOOK).min(LOOK);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.data.lease_news.notified() => {}
                heard = events.next() => if heard.is_none() { return },
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            self.follow_leadership();
            self.carry_out_decisions();
            self.0.data.hub.tick(clock::now_us());
            self.look_at_role();
            if self.0.data.take_over_quota() && !self.0.data.is_out_of_space() {
                let member = self.clone();
                tokio::spawn(async move {
                    if member.raise_no_space().await.is_err() {
                        member.0.data.went_over_quota();
                    }
                });
            }
            if self.leader().0.is_some() {
                with_leader = Instant::now();
            }
            let leaderless = with_leader.elapsed() >= 3 * self.config().election_timeout;
            self.0
                .leaderless
                .send_if_modified(|now| std::mem::replace(now, leaderless) != leaderless);
            // Once it is committed: until then it may be taken back.
            if self.0.node.removed().is_some() && !*self.0.removed.borrow() {
                // Nothing else can be done if it cannot be noted: the others refuse this member anyway.
                let _ = identity::mark_removed(&self.config().data_dir.join("member"));
                self.0.removed.send_replace(true);
            }
        }
    }

    /// Brings watchers forward that are behind.
    pub(crate) async fn keep_watches(self, mut stopping: watch::Receiver<bool>) {
        loop {
            let behind = std::future::poll_fn(|cx| self.0.data.hub.poll_behind(cx.waker()));
            tokio::select! {
                () = behind => {}
                () = tokio::time::sleep(LOOK) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            let member = self.clone();
            let caught_up = tokio::task::spawn_blocking(move || {
                while member.0.data.hub.catch_up(&member.reader())? {}
                Ok::<_, quorate_kv::HistoryError>(())
            });
            if !matches!(caught_up.await, Ok(Ok(()))) {
                // The next flush tells why, and the node stops.
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Forgets what was compacted, a little at a time.
    pub(crate) async fn keep_compacting(self, mut stopping: watch::Receiver<bool>) {
        let mut waiting_since = None;
        loop {
            let reader = self.reader();
            let has_work = reader.compaction_finished() < reader.compacted();
            tokio::select! {
                () = self.0.data.compaction_news.notified() => {}
                () = tokio::time::sleep(LOOK), if has_work => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            let since = *waiting_since.get_or_insert_with(Instant::now);
            let force = since.elapsed() > READ_AGE_MAX;
            let member = self.clone();
            let steps = move || {
                loop {
                    let mut store = member.0.data.store();
                    let began = Instant::now();
                    let more = store.compact_step(force);
                    let took = began.elapsed();
                    drop(store);
                    // The index is changed in the same step.
                    member.metrics().compaction_pauses.observe(took);
                    member.metrics().index_pauses.observe(took);
                    if !more {
                        break;
                    }
                }
            };
            let stepped = tokio::task::spawn_blocking(steps).await;
            let reader = self.reader();
            let is_done = stepped.is_err() || reader.compaction_finished() >= reader.compacted();
            if is_done && let Some(since) = waiting_since.take() {
                self.metrics().compactions.observe(since.elapsed());
            }
        }
    }

    /// Tells the others where this member's clients find it, once there is a leader, and has the leader settle the
    /// version of the cluster.
    pub(crate) async fn publish(self, mut stopping: watch::Receiver<bool>) {
        const AGAIN: Duration = Duration::from_millis(500);
        let publish = async {
            loop {
                let own = Attributes {
                    member: self.0.member_id,
                    name: self.config().name.clone(),
                    client_urls: self.0.client_urls.clone(),
                    version: self.config().api_version.clone(),
                };
                let linearizable = self.linearizable().await.is_ok();
                if linearizable && self.attributes().members.get(&own.member) == Some(&own) {
                    break;
                }
                let command = Some(host_command::Command::Attributes(own));
                if self.propose_host(HostCommand { command }).await.is_ok() {
                    break;
                }
                tokio::time::sleep(AGAIN).await;
            }
            self.0.published.send_replace(true);
            let mut told: Option<String> = None;
            loop {
                self.settle_version().await;
                told = self.tell_of_downgrade(told.as_deref());
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            () = publish => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// As the leader: the version of the cluster is the lowest of its members'. It goes down only if somebody has asked for it,
    /// and up again if that is taken back.
    async fn settle_version(&self) {
        if !self.leads() {
            return;
        }
        let attributes = self.attributes();
        let membership = self.0.node.membership();
        let versions = membership.members().map(|(node, _)| {
            attributes.members.get(&node.0).and_then(|member| minor_version(&member.version))
        });
        // Not before all have told theirs.
        let Some(lowest) =
            versions.collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().min())
        else {
            return;
        };
        let current = attributes.cluster_version.as_deref().and_then(minor_version);
        let target = attributes.downgrade.as_deref().and_then(minor_version);
        let (major, minor) = match (current, target) {
            (Some(current), Some(target)) if current == target => {
                // All that is left is that the members are started as the older ones.
                let runs_target = |(node, _): (NodeId, _)| {
                    let member = attributes.members.get(&node.0);
                    member.and_then(|member| minor_version(&member.version)) == Some(target)
                };
                if membership.members().all(runs_target) {
                    let command = Some(host_command::Command::Downgrade(String::new()));
                    let _ = self.propose_host(HostCommand { command }).await;
                }
                return;
            }
            (Some(_), Some(target)) => target,
            (current, None) if current.is_none_or(|current| current < lowest) => lowest,
            _ => return,
        };
        let command = Some(host_command::Command::ClusterVersion(format!("{major}.{minor}.0")));
        let _ = self.propose_host(HostCommand { command }).await;
    }

    /// Tells the operator how far a downgrade is. Gives back the one that is under way.
    fn tell_of_downgrade(&self, told: Option<&str>) -> Option<String> {
        let attributes = self.attributes();
        let is_ready = |target: &str| {
            attributes.cluster_version.as_ref().is_some_and(|version| is_of(version, target))
        };
        let ready = attributes.downgrade.clone().filter(|target| is_ready(target));
        match (told, &ready) {
            (None, Some(target)) => {
                tracing::info!("target-version" = target, "The server is ready to downgrade");
            }
            (Some(target), None) if attributes.downgrade.is_none() && is_ready(target) => {
                tracing::info!("cluster-version" = target, "the cluster has been downgraded");
            }
            _ => {}
        }
        ready
    }

    /// As the leader: gives up old revisions as the settings say.
    pub(crate) async fn keep_history_short(self, mut stopping: watch::Receiver<bool>) {
        let Some(mut compactor) = Compactor::new(self.config().auto_compaction) else { return };
        let started = Instant::now();
        let compact = async {
            loop {
                compactor.sample(started.elapsed(), self.reader().revision().0);
                tokio::time::sleep(compactor.pause()).await;
                // Elsewhere it waits, ready to take over.
                if !self.leads() {
                    continue;
                }
                if let Some(revision) = compactor.due(started.elapsed()) {
                    let done = self.compact_to(revision).await;
                    compactor.compacted(started.elapsed(), revision, done);
                }
            }
        };
        tokio::select! {
            () = compact => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// Whether the store is compacted up to there, be it by this or by somebody else.
    async fn compact_to(&self, revision: i64) -> bool {
        if revision <= self.reader().compacted().0 {
            return true;
        }
        let compact = Compact { revision: Revision(revision), physical: false };
        match self.propose(&Command::Compact(compact)).await {
            Ok(_) => {
                tracing::info!(revision, "completed auto compaction");
                true
            }
            Err(why) => {
                tracing::warn!(
                    revision,
                    error = why.message(),
                    "auto compaction failed; it is tried again"
                );
                false
            }
        }
    }
}

/// Major and minor number of a version.
fn minor_version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}
