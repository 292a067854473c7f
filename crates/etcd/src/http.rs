//! What is served over plain HTTP beside the API: health, version, metrics, variables.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use crate::metrics::{Metrics, Vitals, process};

/// What is asked of a member to answer.
pub(crate) trait Probe: Clone + Send + Sync + 'static {
    /// What it is at this moment.
    fn vitals(&self) -> impl Future<Output = Vitals> + Send;
    /// Whether it can read what it has; the error says why not.
    fn serializable_read(&self) -> impl Future<Output = Result<(), String>> + Send;
    /// Whether it can read what the cluster has; the error says why not.
    fn linearizable_read(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// Who may ask, and by which names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    /// Origins whose pages may read the answers; `*` is all.
    pub cors: Vec<String>,
    /// Host names under which it is served; `*` is all.
    pub hosts: Vec<String>,
}

impl Default for Access {
    /// Everybody, by any name.
    fn default() -> Self {
        Self { cors: vec!["*".to_owned()], hosts: vec!["*".to_owned()] }
    }
}

struct Shared<P> {
    probe: P,
    metrics: Arc<Metrics>,
}

/// All of it, for the URLs of clients.
pub(crate) fn client_router<P: Probe>(probe: P, metrics: Arc<Metrics>, access: Access) -> Router {
    let shared = Arc::new(Shared { probe, metrics });
    watched(Arc::clone(&shared))
        .merge(
            Router::new()
                .route("/version", any(version::<P>))
                .route("/debug/vars", any(variables::<P>))
                .with_state(shared),
        )
        .layer(from_fn_with_state(Arc::new(access), admit))
}

/// What those who watch a server need, for URLs of their own.
pub(crate) fn metrics_router<P: Probe>(probe: P, metrics: Arc<Metrics>) -> Router {
    watched(Arc::new(Shared { probe, metrics }))
}

fn watched<P: Probe>(shared: Arc<Shared<P>>) -> Router {
    Router::new()
        .route("/metrics", any(metrics::<P>))
        .route("/health", any(health::<P>))
        .route("/livez", any(livez::<P>))
        .route("/livez/{check}", any(one_of_livez::<P>))
        .route("/readyz", any(readyz::<P>))
        .route("/readyz/{check}", any(one_of_readyz::<P>))
        .with_state(shared)
}

/// Answers what is wrong as Go's `http.Error` does.
fn error(status: StatusCode, text: &str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    ];
    (status, headers, format!("{text}\n")).into_response()
}

fn answer(content_type: &'static str, body: String) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}

/// Only reading makes sense here.
fn refuse_method(method: &Method) -> Option<Response> {
    if method == Method::GET {
        return None;
    }
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    Some(response)
}

/// The values of a parameter of the query.
fn parameters<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(move |(key, _)| *key == name)
        .map(|(_, value)| value)
}

async fn health<P: Probe>(
    State(shared): State<Arc<Shared<P>>>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    if let Some(refusal) = refuse_method(&method) {
        return refusal;
    }
    let query = query.as_deref();
    let excluded: Vec<&str> = parameters(query, "exclude").collect();
    let serializable = parameters(query, "serializable").any(|value| value == "true");
    match illness(&shared.probe, &excluded, serializable).await {
        None => {
            shared.metrics.health_good.increment();
            answer("text/plain; charset=utf-8", r#"{"health":"true","reason":""}"#.to_owned())
        }
        Some(reason) => {
            shared.metrics.health_bad.increment();
            tracing::warn!(reason, "serving /health false");
            let reason = json_string(&reason);
            error(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!(r#"{{"health":"false","reason":{reason}}}"#),
            )
        }
    }
}

async fn illness<P: Probe>(probe: &P, excluded: &[&str], serializable: bool) -> Option<String> {
    let vitals = probe.vitals().await;
    let alarm = vitals.alarms.iter().find(|(_, alarm)| !excluded.contains(&alarm.as_str()));
    if let Some((_, alarm)) = alarm {
        let known = matches!(alarm.as_str(), "NOSPACE" | "CORRUPT");
        return Some(format!("ALARM {}", if known { alarm } else { "UNKNOWN" }));
    }
    let read = if serializable {
        probe.serializable_read().await
    } else if vitals.has_leader {
        probe.linearizable_read().await
    } else {
        return Some("RAFT NO LEADER".to_owned());
    };
    read.err().map(|why| format!("RANGE ERROR:{why}"))
}

/// What can be checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    const LIVE: &[Self] = &[Self::SerializableRead];
    const READY: &[Self] =
        &[Self::DataCorruption, Self::SerializableRead, Self::LinearizableRead, Self::NonLearner];

    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn make<P: Probe>(self, probe: &P) -> Result<(), String> {
        match self {
            Self::DataCorruption => {
                let vitals = probe.vitals().await;
                if vitals.alarms.iter().any(|(_, alarm)| alarm == "CORRUPT") {
                    return Err("alarm activated: CORRUPT".to_owned());
                }
                Ok(())
            }
            Self::SerializableRead => probe.serializable_read().await,
            Self::LinearizableRead => probe.linearizable_read().await,
            Self::NonLearner if probe.vitals().await.is_learner => {
                Err("etcdserver: rpc not supported for learner".to_owned())
            }
            Self::NonLearner => Ok(()),
        }
    }
}

async fn livez<P: Probe>(
    State(shared): State<Arc<Shared<P>>>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    checks(&shared, "livez", Check::LIVE, &method, query.as_deref()).await
}

async fn readyz<P: Probe>(
    State(shared): State<Arc<Shared<P>>>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    checks(&shared, "readyz", Check::READY, &method, query.as_deref()).await
}

async fn one_of_livez<P: Probe>(
    State(shared): State<Arc<Shared<P>>>,
    Path(check): Path<String>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    match Check::LIVE.iter().find(|known| known.name() == check) {
        Some(check) => checks(&shared, "livez", &[*check], &method, query.as_deref()).await,
        None => error(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

async fn one_of_readyz<P: Probe>(
    State(shared): State<Arc<Shared<P>>>,
    Path(check): Path<String>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    match Check::READY.iter().find(|known| known.name() == check) {
        Some(check) => checks(&shared, "readyz", &[*check], &method, query.as_deref()).await,
        None => error(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

async fn checks<P: Probe>(
    shared: &Shared<P>,
    kind: &'static str,
    checks: &[Check],
    method: &Method,
    query: Option<&str>,
) -> Response {
    if let Some(refusal) = refuse_method(method) {
        return refusal;
    }
    let mut lines = String::new();
    let mut well = true;
    for check in checks {
        if parameters(query, "exclude").any(|excluded| excluded == check.name()) {
            continue;
        }
        let outcome = check.make(&shared.probe).await;
        shared.metrics.checked(kind, check.name(), outcome.is_ok());
        let _ = match &outcome {
            Ok(()) => writeln!(lines, "[+]{} ok", check.name()),
            Err(why) => writeln!(lines, "[-]{} failed: {why}", check.name()),
        };
        well &= outcome.is_ok();
    }
    if !well {
        tracing::warn!(kind, checks = lines, "health check failed");
        return error(StatusCode::SERVICE_UNAVAILABLE, lines.trim_end());
    }
    if parameters(query, "verbose").next().is_none() {
        lines.clear();
    }
    let mut response = answer("text/plain; charset=utf-8", format!("{lines}ok\n"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

async fn version<P: Probe>(State(shared): State<Arc<Shared<P>>>, method: Method) -> Response {
    if let Some(refusal) = refuse_method(&method) {
        return refusal;
    }
    let vitals = shared.probe.vitals().await;
    let known = |unknown: &str| match vitals.cluster_version.as_str() {
        "" => unknown.to_owned(),
        version => format!("{version}.0"),
    };
    answer(
        "application/json",
        format!(
            r#"{{"etcdserver":{},"etcdcluster":{},"storage":{}}}"#,
            json_string(&vitals.server_version),
            json_string(&known("not_decided")),
            json_string(&known("unknown")),
        ),
    )
}

async fn metrics<P: Probe>(State(shared): State<Arc<Shared<P>>>, method: Method) -> Response {
    if let Some(refusal) = refuse_method(&method) {
        return refusal;
    }
    let page = shared.metrics.page(&shared.probe.vitals().await);
    answer("text/plain; version=0.0.4; charset=utf-8", page)
}

async fn variables<P: Probe>(State(shared): State<Arc<Shared<P>>>, method: Method) -> Response {
    if let Some(refusal) = refuse_method(&method) {
        return refusal;
    }
    let vitals = shared.probe.vitals().await;
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| json_string(&argument.to_string_lossy())).collect();
    let (resident, mapped) =
        process::Stat::read().map_or((0, 0), |stat| (stat.resident_bytes, stat.virtual_bytes));
    let state = match (vitals.is_leader, vitals.is_learner) {
        (true, _) => "leader",
        (_, true) => "learner",
        _ => "follower",
    };
    answer(
        "application/json; charset=utf-8",
        format!(
            "{{\n\"cmdline\": [{}],\n\"file_descriptor_limit\": {},\n\
             \"memstats\": {{\"Sys\":{mapped},\"HeapSys\":{resident}}},\n\
             \"raft.status\": {{\"id\":\"{:x}\",\"raftState\":\"{state}\",\"commit\":{},\
             \"applied\":{}}}\n}}\n",
            arguments.join(","),
            process::descriptor_limit().unwrap_or(0),
            vitals.member_id,
            vitals.committed,
            vitals.applied,
        ),
    )
}

/// A text as JSON writes it.
fn json_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            letter if letter < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// Refuses other names than those allowed, and tells browsers whose pages may read the answer.
async fn admit(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !access.serves(host) {
        return error(
            StatusCode::MISDIRECTED_REQUEST,
            "this host name is not among those of --host-whitelist",
        );
    }
    let origin = request.headers().get("origin").cloned();
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        next.run(request).await
    };
    access.tell(origin.as_ref(), response.headers_mut());
    response
}

impl Access {
    fn serves(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        self.hosts.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(name))
    }

    fn tell(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let allowed = if self.cors.iter().any(|allowed| allowed == "*") {
            HeaderValue::from_static("*")
        } else {
            let known = origin.filter(|origin| {
                self.cors.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
            });
            match known {
                Some(origin) => origin.clone(),
                None => return,
            }
        };
        headers.insert("access-control-allow-origin", allowed);
        headers.insert(
            "access-control-allow-methods",
            HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
        );
        headers.insert(
            "access-control-allow-headers",
            HeaderValue::from_static("accept, content-type, authorization"),
        );
    }
}

#[cfg(test)]
mod tests;
