//! Watches, as clients see them.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use crate::support::{Clients, Directory, alone};
use quorate_etcd::proto::etcdserverpb as pb;
use quorate_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_etcd::proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::Streaming;

struct Requests(mpsc::Receiver<pb::WatchRequest>);

impl tokio_stream::Stream for Requests {
    type Item = pb::WatchRequest;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

struct Watch {
    requests: Option<mpsc::Sender<pb::WatchRequest>>,
    responses: Streaming<pb::WatchResponse>,
}

impl Watch {
    async fn open(clients: &mut Clients) -> Self {
        let (sender, receiver) = mpsc::channel(16);
        let responses = clients.watch.watch(Requests(receiver)).await.unwrap().into_inner();
        Self { requests: Some(sender), responses }
    }

    async fn ask(&self, request: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(request) };
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    async fn create(&self, key: &str, start_revision: i64) {
        self.ask(RequestUnion::CreateRequest(pb::WatchCreateRequest {
            start_revision,
            prev_kv: true,
            ..create(key)
        }))
        .await;
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let limit = std::time::Duration::from_secs(10);
        tokio::time::timeout(limit, self.responses.next()).await.unwrap().unwrap().unwrap()
    }
}

fn create(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.to_owned().into(), ..pb::WatchCreateRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_hears_what_is_and_what_was() {
    let directory = Directory::new();
    let server = alone(&directory).await;
    let mut clients = Clients::of(&server).await;
    clients.put("k", "1").await;
    let mut watch = Watch::open(&mut clients).await;
    watch.create("k", 0).await;
    let created = watch.next().await;
    assert_eq!((created.created, created.watch_id, created.header.unwrap().revision), (true, 0, 2));
    clients.put("k", "2").await;
    let news = watch.next().await;
    assert_eq!(news.header.unwrap().revision, 3);
    let event = &news.events[0];
    assert_eq!(event.r#type(), EventType::Put);
    assert_eq!(&event.kv.as_ref().unwrap().value[..], b"2");
    assert_eq!(&event.prev_kv.as_ref().unwrap().value[..], b"1");

    watch.create("k", 2).await;
    assert_eq!(watch.next().await.watch_id, 1);
    let past = watch.next().await;
    assert_eq!((past.watch_id, past.events.len()), (1, 2));

    watch.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 })).await;
    let canceled = watch.next().await;
    assert_eq!((canceled.canceled, canceled.watch_id), (true, 0));
    watch.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let progress = watch.next().await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert_eq!(progress.header.unwrap().revision, 3);

    // The client's side is closed; its watchers live on.
    watch.requests = None;
    clients.put("k", "3").await;
    assert_eq!(watch.next().await.watch_id, 1);
    server.shutdown().await;
    let end = watch.responses.next().await;
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_come_in_the_stream() {
    let directory = Directory::new();
    let server = alone(&directory).await;
    let mut clients = Clients::of(&server).await;
    for value in 0..5 {
        clients.put("k", &value.to_string()).await;
    }
    let compact = pb::CompactionRequest { revision: 4, physical: false };
    clients.kv.compact(compact).await.unwrap();
    let mut watch = Watch::open(&mut clients).await;
    let negative = pb::WatchCreateRequest { start_revision: -1, ..create("k") };
    let empty = pb::WatchCreateRequest { range_end: "a".into(), ..create("k") };
    let same = pb::WatchCreateRequest { watch_id: 7, ..create("k") };
    watch.ask(RequestUnion::CreateRequest(same.clone())).await;
    assert_eq!(watch.next().await.watch_id, 7);
    for (refused, reason) in [
        (negative, "etcdserver: mvcc: required revision has been compacted"),
        (empty, "mvcc: watcher range is empty"),
        (same, "mvcc: duplicate watch ID provided on the WatchStream"),
    ] {
        watch.ask(RequestUnion::CreateRequest(refused)).await;
        let refusal = watch.next().await;
        assert_eq!((refusal.created, refusal.canceled, refusal.watch_id), (true, true, -1));
        assert_eq!(refusal.cancel_reason, reason);
    }
    // What is compacted is told after the watcher was created.
    watch.create("k", 2).await;
    assert!(watch.next().await.created);
    let end = watch.next().await;
    assert_eq!((end.canceled, end.compact_revision, end.header.unwrap().revision), (true, 4, 0));
    assert_eq!(end.cancel_reason, "");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watchers_hear_the_same() {
    let directory = Directory::new();
    let server = alone(&directory).await;
    let mut clients = Clients::of(&server).await;
    let mut watch = Watch::open(&mut clients).await;
    for _ in 0..200 {
        watch.create("k", 0).await;
        assert!(watch.next().await.created);
    }
    clients.put("k", "v").await;
    let mut ids: Vec<i64> = Vec::new();
    for _ in 0..200 {
        ids.push(watch.next().await.watch_id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..200).collect::<Vec<i64>>());
    server.shutdown().await;
}
