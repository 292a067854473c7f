#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use axum::body::{Body, to_bytes};
use tower_service::Service;

use super::*;
use crate::metrics::Slow;

#[derive(Clone, Default)]
struct Member {
    alarms: Vec<(u64, String)>,
    leaderless: bool,
    learner: bool,
    unreadable: bool,
}

impl Probe for Member {
    async fn vitals(&self) -> Vitals {
        Vitals {
            alarms: self.alarms.clone(),
            has_leader: !self.leaderless,
            is_learner: self.learner,
            server_version: "3.6.0".to_owned(),
            ..Vitals::default()
        }
    }

    async fn serializable_read(&self) -> Result<(), String> {
        Ok(())
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        if self.unreadable { Err("etcdserver: request timed out".to_owned()) } else { Ok(()) }
    }
}

/// Asks for a path: the status, the headers and the body.
async fn ask(member: &Member, method: Method, path: &str) -> (u16, HeaderMap, String) {
    let metrics = Arc::new(Metrics::new(false, Slow::default()));
    let access = Access { hosts: vec!["good.example".to_owned()], ..Access::default() };
    let mut router = client_router(member.clone(), metrics, access);
    let (host, path) = path.split_once('!').unwrap_or(("good.example:2379", path));
    let request =
        Request::builder().method(method).uri(path).header(HOST, host).body(Body::empty()).unwrap();
    let response = router.call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(member: &Member, path: &str) -> (u16, String) {
    let (status, _, body) = ask(member, Method::GET, path).await;
    (status, body)
}

#[tokio::test]
async fn a_healthy_member_says_so() {
    let member = Member::default();
    assert_eq!(get(&member, "/health").await, (200, r#"{"health":"true","reason":""}"#.to_owned()));
    assert_eq!(get(&member, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(
        get(&member, "/readyz?verbose").await,
        (
            200,
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
             [+]non_learner ok\nok\n"
                .to_owned()
        )
    );
    assert_eq!(get(&member, "/readyz/linearizable_read").await.0, 200);
    assert_eq!(get(&member, "/readyz/nonsense").await.0, 404);
}

#[tokio::test]
async fn alarms_come_before_the_leader_and_the_leader_before_a_read() {
    let bad = |reason: &str| (503, format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n"));
    let mut member = Member { unreadable: true, ..Member::default() };
    let timeout = bad("RANGE ERROR:etcdserver: request timed out");
    assert_eq!(get(&member, "/health").await, timeout);
    assert_eq!(get(&member, "/health?serializable=true").await.0, 200);
    member.leaderless = true;
    assert_eq!(get(&member, "/health").await, bad("RAFT NO LEADER"));
    member.alarms = vec![(1, "NOSPACE".to_owned())];
    assert_eq!(get(&member, "/health").await, bad("ALARM NOSPACE"));
    assert_eq!(get(&member, "/health?exclude=NOSPACE&serializable=true").await.0, 200);
}

#[tokio::test]
async fn a_failed_check_shows_all_of_them() {
    let member = Member {
        alarms: vec![(1, "CORRUPT".to_owned())],
        learner: true,
        unreadable: true,
        leaderless: false,
    };
    assert_eq!(
        get(&member, "/readyz").await,
        (
            503,
            "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n\
             [-]linearizable_read failed: etcdserver: request timed out\n\
             [-]non_learner failed: etcdserver: rpc not supported for learner\n"
                .to_owned()
        )
    );
    let excluded = "/readyz?exclude=data_corruption&exclude=linearizable_read&exclude=non_learner";
    assert_eq!(get(&member, excluded).await, (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn the_version_is_told_before_the_cluster_has_one() {
    assert_eq!(
        get(&Member::default(), "/version").await.1,
        r#"{"etcdserver":"3.6.0","etcdcluster":"not_decided","storage":"unknown"}"#
    );
}

#[tokio::test]
async fn only_get_is_served_and_only_under_the_right_names() {
    let member = Member::default();
    let (status, headers, _) = ask(&member, Method::POST, "/health").await;
    assert_eq!((status, headers.get(ALLOW).unwrap().to_str().unwrap()), (405, "GET"));
    assert_eq!(get(&member, "evil.example!/health").await.0, 421);
    let (status, headers, _) = ask(&member, Method::OPTIONS, "/version").await;
    assert_eq!(status, 200);
    assert_eq!(headers.get("access-control-allow-origin").unwrap(), "*");
}

#[tokio::test]
async fn variables_and_metrics_are_what_readers_expect() {
    let (status, headers, body) = ask(&Member::default(), Method::GET, "/metrics").await;
    assert_eq!(status, 200);
    assert_eq!(headers.get(CONTENT_TYPE).unwrap(), "text/plain; version=0.0.4; charset=utf-8");
    assert!(body.contains("\netcd_server_has_leader 1\n"));
    let body = get(&Member::default(), "/debug/vars").await.1;
    for name in ["cmdline", "memstats", "file_descriptor_limit", "raft.status"] {
        assert!(body.contains(&format!("\"{name}\": ")), "{name} is missing in {body}");
    }
}

#[tokio::test]
async fn only_pages_of_known_origins_may_read() {
    let allowed = |access: &Access, origin: &'static str| {
        let mut headers = HeaderMap::new();
        access.tell(Some(&HeaderValue::from_static(origin)), &mut headers);
        let allowed = headers.get("access-control-allow-origin");
        allowed.map(|value| value.to_str().unwrap().to_owned())
    };
    let everybody = Access::default();
    assert_eq!(allowed(&everybody, "http://a.example").as_deref(), Some("*"));
    let one = Access { cors: vec!["http://a.example".to_owned()], ..Access::default() };
    assert_eq!(allowed(&one, "http://a.example").as_deref(), Some("http://a.example"));
    assert_eq!(allowed(&one, "http://b.example"), None);
}
