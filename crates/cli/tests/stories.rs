//! The stories of real servers, told through the client that is generated from `proto/`.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::time::Duration;

use quorate_etcd::proto::etcdserverpb as pb;
use quorate_etcd::proto::mvccpb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

#[path = "../../etcd/stories/mod.rs"]
mod stories;

use stories::client::{
    Client, Event, Failure, Got, Heard, Member, Outcome, Pair, Query, Status, TimeToLive,
    WatchQuery,
};
use stories::{faults, members, single};

const BUILT: &str = env!("CARGO_BIN_EXE_quorate");

#[derive(Clone)]
struct Own(Channel);

#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failure(status: tonic::Status) -> Failure {
    Failure { code: status.code() as i32, message: status.message().to_owned() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn bytes(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

#[allow(clippy::needless_pass_by_value, reason = "for `map`")]
fn pair(kv: mvccpb::KeyValue) -> Pair {
    Pair {
        key: text(&kv.key),
        value: text(&kv.value),
        create: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..pb::PutRequest::default() }
}

fn op(put: pb::PutRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
}

impl Own {
    fn kv(&self) -> pb::kv_client::KvClient<Channel> {
        pb::kv_client::KvClient::new(self.0.clone()).max_decoding_message_size(usize::MAX)
    }

    fn lease(&self) -> pb::lease_client::LeaseClient<Channel> {
        pb::lease_client::LeaseClient::new(self.0.clone())
    }

    fn cluster(&self) -> pb::cluster_client::ClusterClient<Channel> {
        pb::cluster_client::ClusterClient::new(self.0.clone())
    }

    fn maintenance(&self) -> pb::maintenance_client::MaintenanceClient<Channel> {
        pb::maintenance_client::MaintenanceClient::new(self.0.clone())
    }

    async fn alarm(&self, request: pb::AlarmRequest) -> Outcome<Vec<pb::AlarmMember>> {
        let answer = self.maintenance().alarm(request).await.map_err(failure)?;
        Ok(answer.into_inner().alarms)
    }
}

impl Client for Own {
    async fn connect(url: &str) -> Outcome<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
        let endpoint = endpoint.connect_timeout(Duration::from_secs(2)).tcp_nodelay(true);
        let refused = |why: tonic::transport::Error| Failure { code: 14, message: why.to_string() };
        Ok(Self(endpoint.connect().await.map_err(refused)?))
    }

    async fn put_full(
        &self,
        key: &str,
        value: &str,
        lease: i64,
        previous: bool,
    ) -> Outcome<(i64, Option<Pair>)> {
        let request = pb::PutRequest { lease, prev_kv: previous, ..put(key, value) };
        let answer = self.kv().put(request).await.map_err(failure)?.into_inner();
        Ok((answer.header.unwrap().revision, answer.prev_kv.map(pair)))
    }

    async fn get(&self, query: Query) -> Outcome<Got> {
        let request = pb::RangeRequest {
            key: bytes(&query.key),
            range_end: bytes(&query.end),
            limit: query.limit,
            revision: query.revision,
            serializable: query.serializable,
            ..pb::RangeRequest::default()
        };
        let answer = self.kv().range(request).await.map_err(failure)?.into_inner();
        Ok(Got {
            revision: answer.header.unwrap().revision,
            pairs: answer.kvs.into_iter().map(pair).collect(),
            count: answer.count,
            more: answer.more,
        })
    }

    async fn delete(&self, key: &str, end: &str) -> Outcome<(i64, i64)> {
        let (key, range_end) = (bytes(key), bytes(end));
        let request = pb::DeleteRangeRequest { key, range_end, prev_kv: false };
        let answer = self.kv().delete_range(request).await.map_err(failure)?.into_inner();
        Ok((answer.header.unwrap().revision, answer.deleted))
    }

    async fn swap(&self, key: &str, old: Option<&str>, new: &str) -> Outcome<(i64, bool)> {
        use pb::compare::{CompareTarget, TargetUnion};
        let (target, union) = match old {
            Some(old) => (CompareTarget::Value, TargetUnion::Value(bytes(old))),
            None => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
        };
        let compare = pb::Compare {
            target: target as i32,
            key: bytes(key),
            target_union: Some(union),
            ..pb::Compare::default()
        };
        let request = pb::TxnRequest {
            compare: vec![compare],
            success: vec![op(put(key, new))],
            failure: Vec::new(),
        };
        let answer = self.kv().txn(request).await.map_err(failure)?.into_inner();
        Ok((answer.header.unwrap().revision, answer.succeeded))
    }

    async fn put_all(&self, pairs: &[(String, String)]) -> Outcome<i64> {
        let success = pairs.iter().map(|(key, value)| op(put(key, value))).collect();
        let request = pb::TxnRequest { success, ..pb::TxnRequest::default() };
        let answer = self.kv().txn(request).await.map_err(failure)?.into_inner();
        Ok(answer.header.unwrap().revision)
    }

    async fn compact(&self, revision: i64, physical: bool) -> Outcome<()> {
        let request = pb::CompactionRequest { revision, physical };
        self.kv().compact(request).await.map_err(failure)?;
        Ok(())
    }

    async fn watch(&self, query: WatchQuery) -> Outcome<mpsc::Receiver<Outcome<Heard>>> {
        use pb::watch_request::RequestUnion;
        let create = pb::WatchCreateRequest {
            key: bytes(&query.key),
            range_end: bytes(&query.end),
            start_revision: query.from,
            prev_kv: query.previous,
            progress_notify: query.progress,
            ..pb::WatchCreateRequest::default()
        };
        let (requests, receiver) = mpsc::channel(4);
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(create).await.unwrap();
        let mut client = pb::watch_client::WatchClient::new(self.0.clone())
            .max_decoding_message_size(usize::MAX);
        let answers = client.watch(ReceiverStream::new(receiver)).await.map_err(failure)?;
        let mut answers = answers.into_inner();
        let (sender, heard) = mpsc::channel(64);
        tokio::spawn(async move {
            // The stream lasts as long as somebody may ask for more on it.
            let _requests = requests;
            loop {
                let answer = tokio::select! {
                    answer = answers.message() => answer,
                    () = sender.closed() => return,
                };
                let heard = match answer {
                    Ok(Some(answer)) => Ok(heard_of(answer)),
                    Ok(None) => return,
                    Err(why) => Err(failure(why)),
                };
                if sender.send(heard).await.is_err() {
                    return;
                }
            }
        });
        Ok(heard)
    }

    async fn grant(&self, id: i64, ttl: i64) -> Outcome<(i64, i64)> {
        let request = pb::LeaseGrantRequest { ttl, id };
        let answer = self.lease().lease_grant(request).await.map_err(failure)?.into_inner();
        Ok((answer.id, answer.ttl))
    }

    async fn revoke(&self, id: i64) -> Outcome<()> {
        self.lease().lease_revoke(pb::LeaseRevokeRequest { id }).await.map_err(failure)?;
        Ok(())
    }

    async fn keep_alive(&self, id: i64) -> Outcome<i64> {
        let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let answers = self.lease().lease_keep_alive(requests).await.map_err(failure)?;
        let answer = answers.into_inner().message().await.map_err(failure)?;
        Ok(answer.unwrap().ttl)
    }

    async fn time_to_live(&self, id: i64) -> Outcome<TimeToLive> {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        let answer = self.lease().lease_time_to_live(request).await.map_err(failure)?;
        let answer = answer.into_inner();
        Ok(TimeToLive {
            left: answer.ttl,
            granted: answer.granted_ttl,
            keys: answer.keys.iter().map(|key| text(key)).collect(),
        })
    }

    async fn leases(&self) -> Outcome<Vec<i64>> {
        let answer = self.lease().lease_leases(pb::LeaseLeasesRequest {}).await;
        let answer = answer.map_err(failure)?.into_inner();
        Ok(answer.leases.iter().map(|lease| lease.id).collect())
    }

    async fn members(&self) -> Outcome<Vec<Member>> {
        let request = pb::MemberListRequest { linearizable: true };
        let answer = self.cluster().member_list(request).await.map_err(failure)?.into_inner();
        let member = |member: pb::Member| Member {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_ur_ls,
            client_urls: member.client_ur_ls,
            learner: member.is_learner,
        };
        Ok(answer.members.into_iter().map(member).collect())
    }

    async fn add_member(&self, url: &str, learner: bool) -> Outcome<u64> {
        let peer_ur_ls = vec![url.to_owned()];
        let request = pb::MemberAddRequest { peer_ur_ls, is_learner: learner };
        let answer = self.cluster().member_add(request).await.map_err(failure)?.into_inner();
        Ok(answer.member.unwrap().id)
    }

    async fn remove_member(&self, id: u64) -> Outcome<()> {
        self.cluster().member_remove(pb::MemberRemoveRequest { id }).await.map_err(failure)?;
        Ok(())
    }

    async fn promote_member(&self, id: u64) -> Outcome<()> {
        self.cluster().member_promote(pb::MemberPromoteRequest { id }).await.map_err(failure)?;
        Ok(())
    }

    async fn status(&self) -> Outcome<Status> {
        let status = self.maintenance().status(pb::StatusRequest {}).await;
        let status = status.map_err(failure)?.into_inner();
        let header = status.header.unwrap();
        Ok(Status {
            member: header.member_id,
            leader: status.leader,
            revision: header.revision,
            term: status.raft_term,
            index: status.raft_index,
            applied: status.raft_applied_index,
            version: status.version,
            size: status.db_size,
            size_in_use: status.db_size_in_use,
            errors: status.errors,
            learner: status.is_learner,
        })
    }

    async fn move_leader(&self, id: u64) -> Outcome<()> {
        let request = pb::MoveLeaderRequest { target_id: id };
        self.maintenance().move_leader(request).await.map_err(failure)?;
        Ok(())
    }

    async fn hash_kv(&self, revision: i64) -> Outcome<(u32, i64)> {
        let answer = self.maintenance().hash_kv(pb::HashKvRequest { revision }).await;
        let answer = answer.map_err(failure)?.into_inner();
        Ok((answer.hash, answer.compact_revision))
    }

    async fn alarms(&self) -> Outcome<Vec<(u64, i32)>> {
        let alarms = self.alarm(pb::AlarmRequest::default()).await?;
        Ok(alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect())
    }

    async fn disarm(&self) -> Outcome<()> {
        for (member_id, alarm) in self.alarms().await? {
            let action = pb::alarm_request::AlarmAction::Deactivate as i32;
            self.alarm(pb::AlarmRequest { action, member_id, alarm }).await?;
        }
        Ok(())
    }

    async fn defragment(&self) -> Outcome<()> {
        self.maintenance().defragment(pb::DefragmentRequest {}).await.map_err(failure)?;
        Ok(())
    }

    async fn snapshot(&self) -> Outcome<Vec<u8>> {
        let stream = self.maintenance().snapshot(pb::SnapshotRequest {}).await;
        let mut stream = stream.map_err(failure)?.into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(failure)? {
            bytes.extend_from_slice(&part.blob);
        }
        Ok(bytes)
    }
}

fn heard_of(answer: pb::WatchResponse) -> Heard {
    let event = |event: mvccpb::Event| Event {
        deleted: event.r#type == mvccpb::event::EventType::Delete as i32,
        pair: event.kv.map(pair).unwrap(),
        previous: event.prev_kv.map(pair),
    };
    Heard {
        revision: answer.header.map_or(0, |header| header.revision),
        created: answer.created,
        canceled: answer.canceled,
        compacted: answer.compact_revision,
        reason: answer.cancel_reason,
        events: answer.events.into_iter().map(event).collect(),
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
    keys_and_transactions: single::keys_and_transactions::<Own>(BUILT);
    watches: single::watches::<Own>(BUILT);
    leases: single::leases::<Own>(BUILT);
    upkeep: single::upkeep::<Own>(BUILT);
    quota: single::quota::<Own>(BUILT);
    every_member_serves: faults::every_member_serves::<Own>(BUILT);
    the_leader_is_killed: faults::leader_killed::<Own>(BUILT, 2);
    all_are_killed: faults::all_killed::<Own>(BUILT);
    a_rolling_restart: faults::rolling_restart::<Own>(BUILT);
    the_quorum_is_lost: faults::quorum_lost::<Own>(BUILT);
    the_disk_is_full: faults::full_disk::<Own>(BUILT);
    the_leader_sleeps: faults::leader_sleeps::<Own>(BUILT);
    a_follower_falls_far_behind:
        faults::follower_far_behind::<Own>(BUILT, 4000, &["--snapshot-count", "1000"]);
    members_come_and_go: members::grown_and_replaced::<Own>(BUILT);
    a_learner_is_promoted: members::learner::<Own>(BUILT);
}
