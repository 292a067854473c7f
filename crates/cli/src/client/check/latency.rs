//! How long a read, a write and the news of it take.

use std::time::{Duration, Instant};

use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use quorate_etcd::proto::etcdserverpb::watch_client::WatchClient;
use quorate_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, WatchCreateRequest,
    WatchRequest, WatchResponse,
};
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::client::{Common, Failure};

/// Seconds after which a key that was not removed goes by itself.
const KEY_TTL_S: i64 = 60;

/// Several measurements of the same.
#[derive(Clone, Copy)]
pub(super) struct Latency {
    pub(super) median: Duration,
    max: Duration,
}

impl Latency {
    pub(super) fn of(mut samples: Vec<Duration>) -> Option<Self> {
        samples.sort_unstable();
        let max = *samples.last()?;
        Some(Self { median: samples[samples.len() / 2], max })
    }

    pub(super) fn json(self) -> Value {
        json!({ "median": micros(self.median), "max": micros(self.max) })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A time for people, with three digits at most.
pub(super) fn span(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    if us < 10_000.0 {
        format!("{:.2} ms", us / 1e3)
    } else if us < 1e6 {
        format!("{:.0} ms", us / 1e3)
    } else {
        format!("{:.1} s", us / 1e6)
    }
}

/// Linearizable reads of one key through one member.
pub(super) async fn reads(
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
pub(super) async fn writes(
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
