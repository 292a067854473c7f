//! The port for peers, which also answers plain HTTP: who the members are, for those who join, and the version.

use std::io;
use std::sync::{Arc, OnceLock, Weak};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use quorate::NodeId;
use quorate::transport::{Security, Stream};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::member::{Inner, Member, hex};

/// The header that says which cluster it is.
pub(crate) const CLUSTER_HEADER: &str = "x-etcd-cluster-id";

type Known = Arc<OnceLock<Weak<Inner>>>;
type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

/// Tells HTTP from what peers speak, by the first byte.
pub(crate) struct PeerPort {
    http: Router,
}

/// A member as the members' list says it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MemberJson {
    pub(crate) id: u64,
    #[serde(rename = "peerURLs", default)]
    pub(crate) peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) client_urls: Vec<String>,
}

impl PeerPort {
    pub(crate) fn new(known: Known) -> Self {
        let http = Router::new()
            .route("/members", get(list))
            .route("/version", get(version))
            .with_state(known);
        Self { http }
    }
}

fn member(known: &Known) -> Option<Member> {
    known.get().and_then(Weak::upgrade).map(Member)
}

async fn list(State(known): State<Known>) -> axum::response::Response {
    let Some(member) = member(&known) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let members: Vec<MemberJson> = member
        .members()
        .into_iter()
        .map(|member| MemberJson {
            id: member.id,
            peer_urls: member.peer_ur_ls,
            is_learner: member.is_learner,
            name: member.name,
            client_urls: member.client_ur_ls,
        })
        .collect();
    let body = serde_json::to_string(&members).unwrap_or_default();
    let headers = [
        (CLUSTER_HEADER, hex(member.cluster_id())),
        ("content-type", "application/json".to_owned()),
    ];
    (headers, body).into_response()
}

async fn version(State(known): State<Known>) -> axum::response::Response {
    let Some(member) = member(&known) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let cluster = member.cluster_version();
    let body = serde_json::json!({
        "etcdserver": member.config().api_version,
        "etcdcluster": cluster.as_deref().unwrap_or("not_decided"),
        "storage": cluster.as_ref().map_or("unknown", |_| &member.config().api_version),
    });
    ([("content-type", "application/json")], body.to_string()).into_response()
}

impl Security for PeerPort {
    fn connect(
        &self,
        stream: TcpStream,
        _: NodeId,
        _: &str,
    ) -> BoxFuture<io::Result<Box<dyn Stream>>> {
        Box::pin(async { Ok(Box::new(stream) as Box<dyn Stream>) })
    }

    fn accept(&self, stream: TcpStream) -> BoxFuture<io::Result<Box<dyn Stream>>> {
        let http = self.http.clone();
        Box::pin(async move {
            let mut first = [0];
            stream.peek(&mut first).await?;
            // What peers speak begins with a byte that is no letter.
            if !first[0].is_ascii_uppercase() {
                return Ok(Box::new(stream) as Box<dyn Stream>);
            }
            let serve = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(http));
            let _ = serve.await;
            Err(io::Error::other("it was a request over HTTP, and is answered"))
        })
    }
}
