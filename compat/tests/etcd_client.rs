//! The stories, told through the crate `etcd-client`.
//!
//! `SERVER` says whose servers are heard: `target/debug/quorate serve` from the root of the project, unless it says
//! otherwise; `SERVER=etcd` hears them from an etcd.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use etcd_client as etcd;
use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, LeaseGrantOptions, MemberAddOptions,
    PutOptions, Txn, TxnOp, WatchOptions,
};
use tokio::sync::mpsc;

#[path = "../../crates/etcd/stories/mod.rs"]
mod stories;

use stories::client::{
    Client, Event, Failure, Got, Heard, Member, Outcome, Pair, Query, Status, TimeToLive,
    WatchQuery,
};
use stories::{faults, members, single};

const BUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/debug/quorate");

#[derive(Clone)]
struct Foreign(etcd::Client);

fn failure(error: etcd::Error) -> Failure {
    match error {
        etcd::Error::GRpcStatus(status) => {
            Failure { code: status.code() as i32, message: status.message().to_owned() }
        }
        other => Failure { code: -1, message: other.to_string() },
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pair(kv: &KeyValue) -> Pair {
    Pair {
        key: text(kv.key()),
        value: text(kv.value()),
        create: kv.create_revision(),
        modified: kv.mod_revision(),
        version: kv.version(),
        lease: kv.lease(),
    }
}

impl Client for Foreign {
    async fn connect(url: &str) -> Outcome<Self> {
        let options =
            etcd::ConnectOptions::new().with_connect_timeout(std::time::Duration::from_secs(2));
        etcd::Client::connect([url], Some(options)).await.map(Self).map_err(failure)
    }

    async fn put_full(
        &self,
        key: &str,
        value: &str,
        lease: i64,
        previous: bool,
    ) -> Outcome<(i64, Option<Pair>)> {
        let mut options = PutOptions::new().with_lease(lease);
        if previous {
            options = options.with_prev_key();
        }
        let answer = self.0.clone().put(key, value, Some(options)).await.map_err(failure)?;
        Ok((answer.header().unwrap().revision(), answer.prev_key().map(pair)))
    }

    async fn get(&self, query: Query) -> Outcome<Got> {
        let mut options = GetOptions::new().with_limit(query.limit).with_revision(query.revision);
        if !query.end.is_empty() {
            options = options.with_range(query.end);
        }
        if query.serializable {
            options = options.with_serializable();
        }
        let answer = self.0.clone().get(query.key, Some(options)).await.map_err(failure)?;
        Ok(Got {
            revision: answer.header().unwrap().revision(),
            pairs: answer.kvs().iter().map(pair).collect(),
            count: answer.count(),
            more: answer.more(),
        })
    }

    async fn delete(&self, key: &str, end: &str) -> Outcome<(i64, i64)> {
        let options = (!end.is_empty()).then(|| DeleteOptions::new().with_range(end));
        let answer = self.0.clone().delete(key, options).await.map_err(failure)?;
        Ok((answer.header().unwrap().revision(), answer.deleted()))
    }

    async fn swap(&self, key: &str, old: Option<&str>, new: &str) -> Outcome<(i64, bool)> {
        let is = match old {
            Some(old) => Compare::value(key, CompareOp::Equal, old),
            None => Compare::create_revision(key, CompareOp::Equal, 0),
        };
        let txn = Txn::new().when([is]).and_then([TxnOp::put(key, new, None)]);
        let answer = self.0.clone().txn(txn).await.map_err(failure)?;
        Ok((answer.header().unwrap().revision(), answer.succeeded()))
    }

    async fn put_all(&self, pairs: &[(String, String)]) -> Outcome<i64> {
        let puts: Vec<_> = pairs
            .iter()
            .map(|(key, value)| TxnOp::put(key.as_str(), value.as_str(), None))
            .collect();
        let answer = self.0.clone().txn(Txn::new().and_then(puts)).await.map_err(failure)?;
        Ok(answer.header().unwrap().revision())
    }

    async fn compact(&self, revision: i64, physical: bool) -> Outcome<()> {
        let mut options = etcd::CompactionOptions::new();
        if physical {
            options = options.with_physical();
        }
        self.0.clone().compact(revision, Some(options)).await.map_err(failure)?;
        Ok(())
    }

    async fn watch(&self, query: WatchQuery) -> Outcome<mpsc::Receiver<Outcome<Heard>>> {
        let mut options = WatchOptions::new().with_start_revision(query.from);
        if !query.end.is_empty() {
            options = options.with_range(query.end);
        }
        if query.previous {
            options = options.with_prev_key();
        }
        if query.progress {
            options = options.with_progress_notify();
        }
        let mut stream = self.0.clone().watch(query.key, Some(options)).await.map_err(failure)?;
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let heard = tokio::select! {
                    heard = stream.message() => heard,
                    () = sender.closed() => return,
                };
                let heard = match heard {
                    Ok(Some(heard)) => Ok(heard_of(&heard)),
                    Ok(None) => return,
                    Err(why) => Err(failure(why)),
                };
                if sender.send(heard).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    async fn grant(&self, id: i64, ttl: i64) -> Outcome<(i64, i64)> {
        let options = LeaseGrantOptions::new().with_id(id);
        let answer = self.0.clone().lease_grant(ttl, Some(options)).await.map_err(failure)?;
        Ok((answer.id(), answer.ttl()))
    }

    async fn revoke(&self, id: i64) -> Outcome<()> {
        self.0.clone().lease_revoke(id).await.map_err(failure)?;
        Ok(())
    }

    async fn keep_alive(&self, id: i64) -> Outcome<i64> {
        // The client takes the first answer for itself, and says in words that there is no such lease.
        match self.0.clone().lease_keep_alive(id).await {
            Ok((mut keeper, mut answers)) => {
                keeper.keep_alive().await.map_err(failure)?;
                let answer = answers.message().await.map_err(failure)?;
                Ok(answer.map_or(0, |answer| answer.ttl()))
            }
            Err(etcd::Error::LeaseKeepAliveError(_)) => Ok(0),
            Err(why) => Err(failure(why)),
        }
    }

    async fn time_to_live(&self, id: i64) -> Outcome<TimeToLive> {
        let options = etcd::LeaseTimeToLiveOptions::new().with_keys();
        let answer = self.0.clone().lease_time_to_live(id, Some(options)).await.map_err(failure)?;
        Ok(TimeToLive {
            left: answer.ttl(),
            granted: answer.granted_ttl(),
            keys: answer.keys().iter().map(|key| text(key)).collect(),
        })
    }

    async fn leases(&self) -> Outcome<Vec<i64>> {
        let answer = self.0.clone().leases().await.map_err(failure)?;
        Ok(answer.leases().iter().map(|lease| lease.id()).collect())
    }

    async fn members(&self) -> Outcome<Vec<Member>> {
        let answer = self.0.clone().member_list().await.map_err(failure)?;
        let member = |member: &etcd::Member| Member {
            id: member.id(),
            name: member.name().to_owned(),
            peer_urls: member.peer_urls().to_vec(),
            client_urls: member.client_urls().to_vec(),
            learner: member.is_learner(),
        };
        Ok(answer.members().iter().map(member).collect())
    }

    async fn add_member(&self, url: &str, learner: bool) -> Outcome<u64> {
        let options = learner.then(|| MemberAddOptions::new().with_is_learner());
        let answer = self.0.clone().member_add([url], options).await.map_err(failure)?;
        Ok(answer.member().unwrap().id())
    }

    async fn remove_member(&self, id: u64) -> Outcome<()> {
        self.0.clone().member_remove(id).await.map_err(failure)?;
        Ok(())
    }

    async fn promote_member(&self, id: u64) -> Outcome<()> {
        self.0.clone().member_promote(id).await.map_err(failure)?;
        Ok(())
    }

    async fn status(&self) -> Outcome<Status> {
        let status = self.0.clone().status().await.map_err(failure)?;
        let header = status.header().unwrap();
        Ok(Status {
            member: header.member_id(),
            leader: status.leader(),
            revision: header.revision(),
            term: status.raft_term(),
            index: status.raft_index(),
            applied: status.raft_applied_index(),
            version: status.version().to_owned(),
            size: status.db_size(),
            size_in_use: status.raft_used_db_size(),
            errors: status.errors().to_vec(),
            learner: status.is_learner(),
        })
    }

    async fn move_leader(&self, id: u64) -> Outcome<()> {
        self.0.clone().move_leader(id).await.map_err(failure)?;
        Ok(())
    }

    async fn hash_kv(&self, revision: i64) -> Outcome<(u32, i64)> {
        let answer = self.0.clone().hash_kv(revision).await.map_err(failure)?;
        Ok((answer.hash(), answer.compact_version()))
    }

    async fn alarms(&self) -> Outcome<Vec<(u64, i32)>> {
        let (get, none) = (etcd::AlarmAction::Get, etcd::AlarmType::None);
        let answer = self.0.clone().alarm(get, none, None).await.map_err(failure)?;
        let alarms = answer.alarms().iter();
        Ok(alarms.map(|alarm| (alarm.member_id(), alarm.alarm() as i32)).collect())
    }

    async fn disarm(&self) -> Outcome<()> {
        for (member, alarm) in self.alarms().await? {
            let mut options = etcd::AlarmOptions::new();
            options.with_member(member);
            let kind = if alarm == 1 { etcd::AlarmType::Nospace } else { etcd::AlarmType::Corrupt };
            let action = etcd::AlarmAction::Deactivate;
            self.0.clone().alarm(action, kind, Some(options)).await.map_err(failure)?;
        }
        Ok(())
    }

    async fn defragment(&self) -> Outcome<()> {
        self.0.clone().defragment().await.map_err(failure)?;
        Ok(())
    }

    async fn snapshot(&self) -> Outcome<Vec<u8>> {
        let mut stream = self.0.clone().snapshot().await.map_err(failure)?;
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(failure)? {
            bytes.extend_from_slice(part.blob());
        }
        Ok(bytes)
    }
}

fn heard_of(heard: &etcd::WatchResponse) -> Heard {
    Heard {
        revision: heard.header().map_or(0, etcd::ResponseHeader::revision),
        created: heard.created(),
        canceled: heard.canceled(),
        compacted: heard.compact_revision(),
        reason: heard.cancel_reason().to_owned(),
        events: heard
            .events()
            .iter()
            .map(|event| Event {
                deleted: event.event_type() == etcd::EventType::Delete,
                pair: event.kv().map(pair).unwrap(),
                previous: event.prev_kv().map(pair),
            })
            .collect(),
    }
}

/// Each story is a test of its own.
macro_rules! stories {
    ($($name:ident: $story:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $story.await;
        }
    )*};
}

stories! {
    keys_and_transactions: single::keys_and_transactions::<Foreign>(BUILT);
    watches: single::watches::<Foreign>(BUILT);
    leases: single::leases::<Foreign>(BUILT);
    upkeep: single::upkeep::<Foreign>(BUILT);
    quota: single::quota::<Foreign>(BUILT);
    every_member_serves: faults::every_member_serves::<Foreign>(BUILT);
    the_leader_is_killed: faults::leader_killed::<Foreign>(BUILT, 2);
    all_are_killed: faults::all_killed::<Foreign>(BUILT);
    a_rolling_restart: faults::rolling_restart::<Foreign>(BUILT);
    the_quorum_is_lost: faults::quorum_lost::<Foreign>(BUILT);
    the_disk_is_full: faults::full_disk::<Foreign>(BUILT);
    the_leader_sleeps: faults::leader_sleeps::<Foreign>(BUILT);
    a_follower_falls_far_behind: faults::follower_far_behind::<Foreign>(BUILT, 4000, &["--snapshot-count", "1000"]);
    members_come_and_go: members::grown_and_replaced::<Foreign>(BUILT);
    a_learner_is_promoted: members::learner::<Foreign>(BUILT);
}
