//! The service of watches. A stream is driven by whoever sends its responses: no task of its own, no queue besides the hub's.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BufMut;
use http_body::Body as HttpBody;
use prost::Message;
use quorate_kv::{Event, Revision, WatchCreate, WatchId, WatchRequest, WatchResponse, WatchStream};
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstDecoder;

use crate::convert;
use crate::member::Member;
use crate::metrics::Api;
use crate::proto::etcdserverpb as pb;
use crate::status;

/// See the module.
#[derive(Clone)]
pub(crate) struct WatchService(pub(crate) Member);

impl WatchService {
    /// Serves a call of the service.
    pub(crate) async fn serve<B>(
        self,
        request: http::Request<B>,
        bytes_max: usize,
    ) -> http::Response<Body>
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        if request.uri().path() != "/etcdserverpb.Watch/Watch" {
            return Status::unimplemented("").into_http();
        }
        Grpc::new(WatchCodec::default())
            .apply_max_message_size_config(Some(bytes_max), Some(usize::MAX))
            .streaming(self, request)
            .await
    }
}

impl StreamingService<pb::WatchRequest> for WatchService {
    type Response = Said;
    type ResponseStream = Watching;
    type Future = std::future::Ready<Result<Response<Watching>, Status>>;

    fn call(&mut self, request: Request<Streaming<pb::WatchRequest>>) -> Self::Future {
        let ends = self.0.ends(request.metadata());
        std::future::ready(Ok(Response::new(Watching {
            stream: self.0.0.data.hub.open(),
            member: self.0.clone(),
            requests: Some(request.into_inner()),
            held: None,
            ends,
            ended: false,
            in_a_row: 0,
            sending: None,
        })))
    }
}

/// A response on its way to the wire.
pub(crate) struct Said {
    header: pb::ResponseHeader,
    watch_id: i64,
    /// What most responses have none of.
    rest: Option<Box<pb::WatchResponse>>,
    events: quorate_kv::Events,
    /// There have been others just before, and more may follow at once.
    in_a_row: bool,
}

/// Encodes events once for all watchers that are told of them, and a header once for all responses of a stream that have the
/// same: with a thousand watchers, that is what costs.
#[derive(Clone, Default)]
struct WatchCodec {
    header: pb::ResponseHeader,
    /// What that one is on the wire.
    encoded_header: Vec<u8>,
}

impl Codec for WatchCodec {
    type Encode = Said;
    type Decode = pb::WatchRequest;
    type Encoder = Self;
    type Decoder = ProstDecoder<pb::WatchRequest>;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl WatchCodec {
    /// What a stream has before it is told anything. There are many that hear little.
    const FIRST_BYTES: usize = 1 << 10;
    /// What is sent at once if there is so much.
    const SENT_BYTES: usize = 32 << 10;
}

impl Encoder for WatchCodec {
    type Item = Said;
    type Error = Status;

    fn encode(&mut self, item: Said, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let Said { header, watch_id, rest, events, in_a_row } = item;
        if self.encoded_header.is_empty() || self.header != header {
            let only = pb::WatchResponse { header: Some(header), ..pb::WatchResponse::default() };
            self.encoded_header = only.encode_to_vec();
            self.header = header;
        }
        let events = if events.is_empty() { None } else { Some(events.encoded(encoded)) };
        let bytes = self.encoded_header.len()
            + ID_BYTES_MAX
            + rest.as_ref().map_or(0, Message::encoded_len)
            + events.as_ref().map_or(0, |events| events.len());
        if buf.chunk_mut().len() < bytes {
            // In the middle of much, room for all that is sent at once, so that nothing is moved again.
            buf.reserve(if in_a_row { bytes + Self::SENT_BYTES } else { bytes });
        }
        // The parts of a message simply follow each other.
        buf.put_slice(&self.encoded_header);
        if watch_id != 0 {
            let mut small = [0; ID_BYTES_MAX];
            let mut free = &mut small[..];
            prost::encoding::int64::encode(WATCH_ID, &watch_id, &mut free);
            let left = free.len();
            buf.put_slice(&small[..ID_BYTES_MAX - left]);
        }
        if let Some(rest) = rest {
            rest.encode(buf).map_err(|why| Status::internal(why.to_string()))?;
        }
        events.iter().for_each(|events| buf.put_slice(events));
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(Self::FIRST_BYTES, Self::SENT_BYTES)
    }
}

/// The field of a watcher's number, and the most that it takes.
const WATCH_ID: u32 = 2;
const ID_BYTES_MAX: usize = 11;

/// The part of a response that has the events, in the form of the wire.
fn encoded(events: &[Event]) -> Vec<u8> {
    let events = events.iter().map(convert::event).collect();
    pb::WatchResponse { events, ..pb::WatchResponse::default() }.encode_to_vec()
}

/// Something that ends a stream of its own accord.
pub(crate) type Ends = Pin<Box<dyn Future<Output = Status> + Send>>;

impl Member {
    /// When a stream is to end of itself: when the server stops, and when its client wants a leader and there is none for
    /// long.
    pub(crate) fn ends(&self, metadata: &tonic::metadata::MetadataMap) -> Ends {
        let wants = metadata.get("hasleader").is_some_and(|value| value == "true");
        let mut stopping = self.0.stopping.subscribe();
        let mut leaderless = wants.then(|| self.0.leaderless.subscribe());
        Box::pin(async move {
            let leaderless = async {
                match &mut leaderless {
                    Some(leaderless) => drop(leaderless.wait_for(|leaderless| *leaderless).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = leaderless => status::no_leader(),
                _ = stopping.wait_for(|stopping| *stopping) => status::stopped(),
            }
        })
    }
}

/// One client's stream.
pub(crate) struct Watching {
    member: Member,
    stream: WatchStream,
    /// `None` when the client has closed its side; its watchers live on.
    requests: Option<Streaming<pb::WatchRequest>>,
    /// A request that waits until more answers are read.
    held: Option<WatchRequest>,
    ends: Ends,
    ended: bool,
    /// Responses since there was none.
    in_a_row: u32,
    /// When the last response was taken, and what it was, if that is measured.
    sending: Option<(Instant, What)>,
}

/// What a response says.
#[derive(Clone, Copy)]
enum What {
    /// An answer to a request.
    Answer,
    Progress,
    /// So many events.
    Events(u32),
}

/// How the reading of requests goes on.
enum Requests {
    /// One was taken: there may be an answer.
    Taken,
    Pending,
    Failed,
}

impl Watching {
    const SOME_IN_A_ROW: u32 = 4;

    fn take_request(&mut self, cx: &mut Context<'_>) -> Requests {
        if self.held.is_none() {
            let Some(requests) = &mut self.requests else { return Requests::Pending };
            match Pin::new(requests).poll_next(cx) {
                Poll::Pending => return Requests::Pending,
                Poll::Ready(None) => {
                    self.requests = None;
                    return Requests::Pending;
                }
                // The client is gone.
                Poll::Ready(Some(Err(_))) => return Requests::Failed,
                Poll::Ready(Some(Ok(request))) => match request_of(request) {
                    Some(request) => self.held = Some(request),
                    None => return Requests::Taken,
                },
            }
        }
        if self.stream.poll_ready(cx.waker()).is_pending() {
            return Requests::Pending;
        }
        if let Some(request) = self.held.take()
            && let Err(full) = self.stream.request(request)
        {
            self.held = Some(full.0);
        }
        Requests::Taken
    }

    /// Whoever asks for the next response has sent the last one.
    fn sent(&mut self) {
        let Some((taken, what)) = self.sending.take() else { return };
        let (took, metrics) = (taken.elapsed(), self.member.metrics());
        match what {
            What::Answer => metrics.watch_controls.observe(took),
            What::Progress => metrics.watch_progress.observe(took),
            What::Events(count) => {
                metrics.watch_events.observe(took);
                metrics.watch_per_event.observe(took / count);
            }
        }
    }

    /// Notes that a response is on its way.
    fn sends(&mut self, response: &WatchResponse) {
        let metrics = self.member.metrics();
        let count = u32::try_from(response.events.len()).unwrap_or(u32::MAX);
        metrics.events.add(count.into());
        if metrics.is_extensive() {
            let what = match count {
                0 if response.created || response.canceled => What::Answer,
                0 => What::Progress,
                count => What::Events(count),
            };
            self.sending = Some((Instant::now(), what));
        }
    }

    fn end(&mut self, why: Status) -> Poll<Option<Result<Said, Status>>> {
        self.ended = true;
        Poll::Ready(Some(Err(why)))
    }
}

impl Stream for Watching {
    type Item = Result<Said, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        this.sent();
        loop {
            match this.stream.poll_next(cx.waker()) {
                Poll::Ready(Some(response)) => {
                    this.sends(&response);
                    this.in_a_row = this.in_a_row.saturating_add(1);
                    let in_a_row = this.in_a_row > Self::SOME_IN_A_ROW;
                    return Poll::Ready(Some(Ok(said(&this.member, response, in_a_row))));
                }
                Poll::Ready(None) => return this.end(status::stopped()),
                Poll::Pending => this.in_a_row = 0,
            }
            match this.take_request(cx) {
                Requests::Taken => {}
                Requests::Failed => {
                    this.member.metrics().stream_failed(Api::Watch);
                    return this.end(status::watch_canceled());
                }
                Requests::Pending => break,
            }
        }
        match this.ends.as_mut().poll(cx) {
            Poll::Ready(why) => this.end(why),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The request; `None` for one of an unknown kind, which is ignored.
fn request_of(request: pb::WatchRequest) -> Option<WatchRequest> {
    use pb::watch_request::RequestUnion;
    Some(match request.request_union? {
        RequestUnion::CreateRequest(create) => WatchRequest::Create(create_of(create)),
        RequestUnion::CancelRequest(cancel) => WatchRequest::Cancel(WatchId(cancel.watch_id)),
        RequestUnion::ProgressRequest(_) => WatchRequest::Progress,
    })
}

fn create_of(create: pb::WatchCreateRequest) -> WatchCreate {
    use pb::watch_create_request::FilterType;
    let filters = |filter: FilterType| create.filters.contains(&i32::from(filter));
    WatchCreate {
        no_put: filters(FilterType::Noput),
        no_delete: filters(FilterType::Nodelete),
        key: create.key,
        range_end: create.range_end,
        start_revision: Revision(create.start_revision),
        watch_id: WatchId(create.watch_id),
        prev_kv: create.prev_kv,
        progress_notify: create.progress_notify,
        fragment: create.fragment,
    }
}

fn said(member: &Member, response: WatchResponse, in_a_row: bool) -> Said {
    let WatchResponse {
        watch_id,
        revision,
        created,
        canceled,
        compact_revision,
        cancel_reason,
        fragment,
        events,
    } = response;
    let rest = (created || canceled || fragment).then(|| {
        Box::new(pb::WatchResponse {
            created,
            canceled,
            compact_revision: compact_revision.map_or(0, |revision| revision.0),
            cancel_reason: cancel_reason.map(String::from).unwrap_or_default(),
            fragment,
            ..pb::WatchResponse::default()
        })
    });
    let header = member.header(revision.0).unwrap_or_default();
    Said { header, watch_id: watch_id.0, rest, events, in_a_row }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_kv::KeyValue;
    use tokio_stream::StreamExt as _;

    use super::*;

    /// What the codec makes of some responses.
    async fn sent(responses: Vec<Said>) -> Vec<pb::WatchResponse> {
        let source = tokio_stream::iter(responses.into_iter().map(Ok));
        let body = tonic::codec::EncodeBody::new_server(
            WatchCodec::default(),
            source,
            None,
            tonic::codec::SingleMessageCompressionOverride::default(),
            None,
        );
        let decoder = tonic_prost::ProstCodec::<(), pb::WatchResponse>::default().decoder();
        let stream = Streaming::new_response(decoder, body, http::StatusCode::OK, None, None);
        stream.map(Result::unwrap).collect().await
    }

    #[tokio::test]
    async fn what_is_encoded_in_parts_is_one_message() {
        let pair = |value: &'static [u8]| KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: Revision(2),
            mod_revision: Revision(300),
            version: 2,
            value: Bytes::from_static(value),
            lease: None,
        };
        let put = Event::put(pair(b"new"), Some(pair(b"old")));
        let gone = Event::delete(Bytes::from_static(b"gone"), Revision(300), None);
        let events = quorate_kv::Events::from(std::sync::Arc::from([put, gone]));
        let header =
            |revision| pb::ResponseHeader { cluster_id: u64::MAX, revision, ..header_of() };
        fn header_of() -> pb::ResponseHeader {
            pb::ResponseHeader { member_id: 7, raft_term: 3, ..pb::ResponseHeader::default() }
        }
        let ended = pb::WatchResponse {
            canceled: true,
            compact_revision: 9,
            cancel_reason: "compacted".to_owned(),
            ..pb::WatchResponse::default()
        };
        let said = |revision, watch_id, events: &quorate_kv::Events, rest: &pb::WatchResponse| {
            let rest = (*rest != pb::WatchResponse::default()).then(|| Box::new(rest.clone()));
            Said {
                header: header(revision),
                watch_id,
                rest,
                events: events.clone(),
                in_a_row: true,
            }
        };
        let (none, plain) = (quorate_kv::Events::default(), pb::WatchResponse::default());
        let responses = vec![
            said(300, 0, &events, &plain),
            said(300, 1, &events, &plain),
            said(301, -1, &none, &plain),
            said(0, i64::MAX, &none, &ended),
        ];
        let expected = |revision, watch_id, with: &quorate_kv::Events, rest: pb::WatchResponse| {
            let events = with.iter().map(convert::event).collect();
            pb::WatchResponse { header: Some(header(revision)), watch_id, events, ..rest }
        };
        assert_eq!(
            sent(responses).await,
            [
                expected(300, 0, &events, plain.clone()),
                expected(300, 1, &events, plain.clone()),
                expected(301, -1, &none, plain),
                expected(0, i64::MAX, &none, ended),
            ]
        );
    }
}
