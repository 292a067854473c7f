//! Where clients come in: gRPC and plain HTTP on the same port, told apart by what a request is.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service as _;

use crate::absent::{AuthService, ElectionService, LockService};
use crate::authority::Lenient;
use crate::cluster::ClusterService;
use crate::deadline;
use crate::health::HealthService;
use crate::kv::KvService;
use crate::lease::LeaseService;
use crate::maintenance::MaintenanceService;
use crate::member::Member;
use crate::metrics::{Counted, Metrics};
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::health::health_server::HealthServer;
use crate::proto::v3electionpb::election_server::ElectionServer;
use crate::proto::v3lockpb::lock_server::LockServer;
use crate::status;
use crate::watch::WatchService;

/// What a message may be larger than the largest request.
const AROUND_REQUEST_BYTES: usize = 512 << 10;
/// Bytes that a client may send on a stream, and on a connection, before they are looked at.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Answers that wait for a slow connection, per stream.
const SEND_BYTES_MAX: usize = 1 << 20;

/// Calls that a client has taken back before they were looked at. Clients give up many at once when they stop.
const RESETS_MAX: usize = 1024;

/// Everything that clients can call.
#[derive(Clone)]
pub(crate) struct Front(Arc<Services>);

struct Services {
    member: Member,
    kv: KvServer<KvService>,
    watch: WatchService,
    lease: LeaseServer<LeaseService>,
    cluster: ClusterServer<ClusterService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    auth: AuthServer<AuthService>,
    lock: LockServer<LockService>,
    election: ElectionServer<ElectionService>,
    health: HealthServer<HealthService>,
    http: Router,
    request_bytes_max: usize,
}

impl Front {
    /// `http` serves whatever is not gRPC.
    pub(crate) fn new(member: &Member, http: Router) -> Self {
        let bytes_max = member.config().max_request_bytes + AROUND_REQUEST_BYTES;
        macro_rules! server {
            ($server:ident, $service:expr) => {
                $server::new($service)
                    .max_decoding_message_size(bytes_max)
                    .max_encoding_message_size(usize::MAX)
            };
        }
        let own = || member.clone();
        Self(Arc::new(Services {
            member: own(),
            kv: server!(KvServer, KvService(own())),
            watch: WatchService(own()),
            lease: server!(LeaseServer, LeaseService(own())),
            cluster: server!(ClusterServer, ClusterService(own())),
            maintenance: server!(MaintenanceServer, MaintenanceService(own())),
            auth: server!(AuthServer, AuthService(own())),
            lock: server!(LockServer, LockService),
            election: server!(ElectionServer, ElectionService),
            health: server!(HealthServer, HealthService),
            http,
            request_bytes_max: bytes_max,
        }))
    }
}

impl Services {
    /// Whether a call is served at all here and now.
    fn admit(&self, path: &str, headers: &HeaderMap) -> Result<(), Status> {
        if let Some(version) = headers.get("client-api-version")
            && std::str::from_utf8(version.as_bytes()).is_err()
        {
            return Err(status::bad_client_version());
        }
        if self.member.is_learner() && !is_for_learners(path) {
            return Err(status::learner());
        }
        let wants_leader = headers.get("hasleader").is_some_and(|value| value == "true");
        if wants_leader && self.member.leader().0.is_none() {
            return Err(status::no_leader());
        }
        Ok(())
    }

    /// Errors that the library has words of its own for, in those that clients know.
    fn reword(&self, called: (&str, &str), response: &mut Response<Body>) {
        const TONIC: &str = "Error, decoded message length too large: found ";
        let Some(status) = Status::from_header_map(response.headers()) else { return };
        if status.code() == Code::Unimplemented && status.message().is_empty() {
            let (service, method) = called;
            let text = format!("unknown method {method} for service {service}");
            *response = Status::unimplemented(text).into_http();
            return;
        }
        let Some(rest) = status.message().strip_prefix(TONIC) else { return };
        let found = rest.split(' ').next().unwrap_or("0");
        let max = self.request_bytes_max;
        let text = format!("grpc: received message larger than max ({found} vs. {max})");
        *response = Status::new(Code::ResourceExhausted, text).into_http();
    }
}

/// A learner serves reads of what it has (the service of keys looks at which), its status and its data.
fn is_for_learners(path: &str) -> bool {
    matches!(
        path,
        "/etcdserverpb.KV/Range"
            | "/etcdserverpb.Maintenance/Status"
            | "/etcdserverpb.Maintenance/Snapshot"
    ) || path.starts_with("/grpc.health.v1.Health/")
}

/// Whether a call may go on when its answer has begun.
fn is_stream(path: &str) -> bool {
    matches!(
        path,
        "/etcdserverpb.Watch/Watch"
            | "/etcdserverpb.Lease/LeaseKeepAlive"
            | "/etcdserverpb.KV/RangeStream"
            | "/etcdserverpb.Maintenance/Snapshot"
            | "/v3electionpb.Election/Observe"
            | "/grpc.health.v1.Health/Watch"
    )
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<B> Service<Request<B>> for Front
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<B>) -> Answer {
        let is_grpc = request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let services = Arc::clone(&self.0);
        if !is_grpc {
            let mut http = services.http.clone();
            return Box::pin(async move {
                let response = http.call(request.map(axum::body::Body::new)).await?;
                Ok(response.map(Body::new))
            });
        }
        let uri = request.uri().clone();
        let path = uri.path();
        if let Err(why) = services.admit(path, request.headers()) {
            return Box::pin(std::future::ready(Ok(why.into_http())));
        }
        let deadline = match deadline::of(request.headers()) {
            Ok(deadline) => deadline,
            Err(why) => return Box::pin(std::future::ready(Ok(why.into_http()))),
        };
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let answer = match service.map(|(service, _)| service) {
            Some("etcdserverpb.KV") => services.kv.clone().call(request),
            Some("etcdserverpb.Watch") => {
                let served = services.watch.clone().serve(request, services.request_bytes_max);
                Box::pin(async move { Ok(served.await) })
            }
            Some("etcdserverpb.Lease") => services.lease.clone().call(request),
            Some("etcdserverpb.Cluster") => services.cluster.clone().call(request),
            Some("etcdserverpb.Maintenance") => services.maintenance.clone().call(request),
            Some("etcdserverpb.Auth") => services.auth.clone().call(request),
            Some("v3lockpb.Lock") => services.lock.clone().call(request),
            Some("v3electionpb.Election") => services.election.clone().call(request),
            Some("grpc.health.v1.Health") => services.health.clone().call(request),
            unknown => {
                let text = format!("unknown service {}", unknown.unwrap_or_default());
                return Box::pin(std::future::ready(Ok(Status::unimplemented(text).into_http())));
            }
        };
        Box::pin(async move {
            let mut response = match deadline {
                None => answer.await?,
                Some(deadline) => deadline::keep(deadline, is_stream(uri.path()), answer).await?,
            };
            // Only what failed before it began has its status in front.
            if response.headers().contains_key("grpc-status") {
                let called = uri.path().trim_start_matches('/').split_once('/');
                services.reword(called.unwrap_or_default(), &mut response);
            }
            response.headers_mut().entry("content-type").or_insert(GRPC);
            Ok(response)
        })
    }
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Serves clients that come to a listener, until told to stop; then those under way get some time.
pub(crate) async fn serve(
    listener: TcpListener,
    front: Front,
    member: Member,
    mut stopping: watch::Receiver<bool>,
) {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
    let builder = Arc::new(builder(&member));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (front, builder) = (front.clone(), Arc::clone(&builder));
                let metrics = Arc::clone(member.metrics());
                tokio::spawn(connection(stream, front, metrics, builder, stopping.clone()));
            }
            // Most likely the process has no descriptors left.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn builder(member: &Member) -> Builder<TokioExecutor> {
    let config = member.config();
    let mut builder = Builder::new(TokioExecutor::new());
    let interval = config.grpc_keepalive_interval;
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(config.max_concurrent_streams)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .keep_alive_interval((!interval.is_zero()).then_some(interval))
        .keep_alive_timeout(config.grpc_keepalive_timeout);
    builder.http1().timer(TokioTimer::new());
    builder
}

async fn connection(
    stream: TcpStream,
    front: Front,
    metrics: Arc<Metrics>,
    builder: Arc<Builder<TokioExecutor>>,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let counted = Counted::new(front, metrics);
    let stream = TokioIo::new(Lenient::new(stream));
    let connection = builder.serve_connection(stream, counted);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        served = connection.as_mut() => return served,
        _ = stopping.wait_for(|stopping| *stopping) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// The addresses behind `host:port`; without a host, all of this machine. Names may have several, and clients try those of
/// IPv4 first.
pub(crate) async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let everywhere;
    let address = if address.starts_with(':') {
        everywhere = format!("0.0.0.0{address}");
        &everywhere
    } else {
        address
    };
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host(address).await?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

/// Listens at an address of the form `host:port`.
pub(crate) async fn listen(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(&resolve(address).await?[..]).await
}
