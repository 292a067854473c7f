//! The service of leases. Granting and revoking go through the log; renewing is the leader's, see [`crate::lessor`].

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use prost::Message;
use quorate_kv::{Command, LeaseGrant, LeaseId, RequestError, lease_ttl_s};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::member::Member;
use crate::metrics::Api;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::lease_server::Lease;
use crate::proto::host::{answer, outcome, question};
use crate::status;
use crate::watch::Ends;

/// See the module.
pub(crate) struct LeaseService(pub(crate) Member);

/// Keepalives of one stream that are worked on at the same time; more wait to be read.
const KEEPALIVES_MAX: usize = 64;

impl Member {
    /// Renews a lease, wherever that is done. 0: there is no such lease.
    async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        match self.ask_leader(question::Question::KeepAlive(id)).await? {
            answer::Answer::KeepAlive(ttl) => Ok(ttl),
            _ => Err(status::confused()),
        }
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        self.0.check_size(request.encoded_len())?;
        let election = self.0.config().election_timeout;
        let election_us = u64::try_from(election.as_micros()).unwrap_or(u64::MAX);
        let ttl_s = lease_ttl_s(request.ttl, election_us);
        loop {
            let id = match request.id {
                // Positive, and never 0.
                0 => LeaseId(((self.0.new_id() >> 1) | 1).cast_signed()),
                id => LeaseId(id),
            };
            let command = Command::LeaseGrant(LeaseGrant { id, ttl_s });
            self.0.check_quota(&command).await?;
            return match self.0.propose(&command).await {
                Ok(outcome::Reply::LeaseGrant(mut response)) => {
                    self.0.complete(&mut response.header);
                    Ok(Response::new(response))
                }
                Ok(_) => Err(status::confused()),
                // Another number, then.
                Err(why) if request.id == 0 && why.message() == RequestError::LeaseExist.text() => {
                    continue;
                }
                Err(why) => Err(why),
            };
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let Some(id) = LeaseId::from_number(request.into_inner().id) else {
            return Err(status::request(RequestError::LeaseNotFound));
        };
        self.0.propose(&Command::LeaseRevoke(id)).await?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: self.0.header_now() }))
    }

    type LeaseKeepAliveStream = Renewals;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Renewals>, Status> {
        let ends = self.0.ends(request.metadata());
        let member = self.0.clone();
        let answers = request.into_inner().map(move |request| answer(member.clone(), request));
        let answers = Box::pin(answers.buffered(KEEPALIVES_MAX));
        Ok(Response::new(Renewals { answers, ends, ended: false }))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        match self.0.ask_leader(question::Question::TimeToLive(request)).await? {
            answer::Answer::TimeToLive(mut response) => {
                response.header = self.0.header_now();
                Ok(Response::new(response))
            }
            _ => Err(status::confused()),
        }
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let by_expiry = self.0.0.data.leases().lessor.by_expiry();
        let ids = by_expiry
            .unwrap_or_else(|| self.0.reader().leases().into_iter().map(|(id, _)| id).collect());
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.0.header_now(), leases }))
    }
}

async fn answer(
    member: Member,
    request: Result<pb::LeaseKeepAliveRequest, Status>,
) -> Result<pb::LeaseKeepAliveResponse, Status> {
    let pb::LeaseKeepAliveRequest { id } = request.inspect_err(|_| {
        member.metrics().stream_failed(Api::KeepAlive);
    })?;
    // As it was before the renewal.
    let header = member.header_now();
    let ttl = member.keep_alive(id).await?;
    Ok(pb::LeaseKeepAliveResponse { header, id, ttl })
}

/// Answers to keepalives, in the order of the requests; the first error is the end.
pub(crate) struct Renewals {
    answers: Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>,
    ends: Ends,
    ended: bool,
}

impl Stream for Renewals {
    type Item = Result<pb::LeaseKeepAliveResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let next = match this.answers.as_mut().poll_next(cx) {
            Poll::Pending => this.ends.as_mut().poll(cx).map(|why| Some(Err(why))),
            next => next,
        };
        this.ended = matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }
}
