//! The service of keys.

use std::pin::Pin;
use std::task::{Context, Poll};

use prost::Message;
use quorate_kv::{
    Command, Compact, Range, RangeStream, RequestError, Revision, SortOrder, SortTarget,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::member::Member;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::host::outcome;
use crate::status;

/// See the module.
pub(crate) struct KvService(pub(crate) Member);

/// Keys that a read may look at where requests are served; longer ones get a thread, so that nobody waits behind them.
const INLINE_KEYS_MAX: i64 = 1000;

fn is_short(range: &Range) -> bool {
    range.range_end.is_empty() || (1..=INLINE_KEYS_MAX).contains(&range.limit)
}

impl KvService {
    async fn read(&self, range: Range) -> Result<quorate_kv::RangeReply, Status> {
        let reader = self.0.reader();
        let reply = if is_short(&range) {
            reader.range(&range)
        } else {
            on_thread(move || reader.range(&range)).await?
        };
        reply.map_err(status::read)
    }
}

/// Runs what takes long on a thread of its own.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(status::broken)
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let range = convert::range(request.into_inner()).map_err(status::request)?;
        if !range.serializable {
            if self.0.is_learner() {
                return Err(status::learner());
            }
            self.0.linearizable().await?;
        }
        let mut response = convert::range_response(self.read(range).await?);
        self.0.complete(&mut response.header);
        Ok(Response::new(response))
    }

    type RangeStreamStream = Parts;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Parts>, Status> {
        let range = convert::range(request.into_inner()).map_err(status::request)?;
        let in_order =
            range.sort_target == SortTarget::Key && range.sort_order != SortOrder::Descend;
        if !in_order {
            return Err(status::sorted_stream());
        }
        let filters = [
            range.min_mod_revision,
            range.max_mod_revision,
            range.min_create_revision,
            range.max_create_revision,
        ];
        if filters != [Revision(0); 4] {
            return Err(status::filtered_stream());
        }
        if !range.serializable {
            self.0.linearizable().await?;
        }
        let parts = self.0.reader().range_stream(range).map_err(status::read)?;
        Ok(Response::new(Parts { member: self.0.clone(), parts: Some(parts), keys: PART_KEYS }))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let put = convert::put(request);
        let checked = put.check();
        let command = Command::Put(put);
        self.0.check_quota(&command).await?;
        checked.map_err(status::request)?;
        self.0.check_size(bytes)?;
        match self.0.propose(&command).await? {
            outcome::Reply::Put(mut response) => {
                self.0.complete(&mut response.header);
                Ok(Response::new(response))
            }
            _ => Err(status::confused()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let delete = convert::delete_range(request);
        delete.check().map_err(status::request)?;
        self.0.check_size(bytes)?;
        match self.0.propose(&Command::DeleteRange(delete)).await? {
            outcome::Reply::DeleteRange(mut response) => {
                self.0.complete(&mut response.header);
                Ok(Response::new(response))
            }
            _ => Err(status::confused()),
        }
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let ops_max = self.0.config().max_txn_ops;
        let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
        let txn = if ops > ops_max {
            Err(RequestError::TooManyOps)
        } else {
            convert::txn(request).and_then(|txn| txn.check(ops_max).map(|()| txn))
        };
        let txn = txn.map_err(status::request)?;
        if txn.only_reads() {
            let (reads_here, short) = reads(&txn);
            if !reads_here {
                self.0.linearizable().await?;
            }
            let reader = self.0.reader();
            let reply =
                if short { reader.txn(&txn) } else { on_thread(move || reader.txn(&txn)).await? };
            let mut response = convert::txn_response(reply.map_err(status::read)?);
            self.0.complete(&mut response.header);
            return Ok(Response::new(response));
        }
        let command = Command::Txn(txn);
        self.0.check_quota(&command).await?;
        self.0.check_size(bytes)?;
        match self.0.propose(&command).await? {
            outcome::Reply::Txn(mut response) => {
                self.0.complete(&mut response.header);
                Ok(Response::new(response))
            }
            _ => Err(status::confused()),
        }
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        let revision = Revision(revision);
        self.0.propose(&Command::Compact(Compact { revision, physical })).await?;
        if physical {
            self.0.compacted(revision).await?;
        }
        Ok(Response::new(pb::CompactionResponse { header: self.0.header_now() }))
    }
}

/// Whether all ranges of a transaction that only reads are content with what is here, and whether all are short.
fn reads(txn: &quorate_kv::Txn) -> (bool, bool) {
    let mut here = true;
    let mut short = txn.compare.iter().all(|compare| compare.range_end.is_empty());
    for op in txn.success.iter().chain(&txn.failure) {
        if let quorate_kv::Op::Range(range) = op {
            here &= range.serializable;
            short &= is_short(range);
        }
    }
    (here, short)
}

/// Pairs in the first part of a stream.
const PART_KEYS: usize = 10;

/// A range in parts that grow to about the size of a request.
pub(crate) struct Parts {
    member: Member,
    parts: Option<RangeStream>,
    keys: usize,
}

impl Stream for Parts {
    type Item = Result<pb::RangeStreamResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(parts) = &mut this.parts else { return Poll::Ready(None) };
        let part = match parts.next(this.keys) {
            Ok(Some(part)) => part,
            Ok(None) => return Poll::Ready(None),
            Err(why) => {
                this.parts = None;
                return Poll::Ready(Some(Err(status::read(why))));
            }
        };
        let mut response = pb::RangeResponse {
            kvs: convert::key_values(part.kvs),
            ..pb::RangeResponse::default()
        };
        if let Some(end) = part.end {
            response.header = this.member.header(end.revision.0);
            response.more = end.more;
            response.count = end.count;
            this.parts = None;
        }
        let bytes = response.encoded_len();
        let wanted = this.member.config().max_request_bytes;
        if bytes < wanted / 2 {
            this.keys = this.keys.saturating_mul(2);
        } else if bytes > wanted.saturating_mul(2) {
            this.keys = (this.keys / 2).max(1);
        }
        Poll::Ready(Some(Ok(pb::RangeStreamResponse { range_response: Some(response) })))
    }
}
