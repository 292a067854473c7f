//! What a server is started with: the values of its flags, checked against each other.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use quorate_etcd::{Access, AutoCompaction, ClusterState, Config, Scheme, Url};

use super::table::{GATES, Gate, Stage};
use super::url::{is_bindable, is_unspecified, resolve};
use super::values::Values;
use crate::go;

/// The longest election timeout, in milliseconds.
const ELECTION_MS_MAX: u64 = 50_000;

/// How often idle watchers are told the revision if nobody says.
const PROGRESS_DEFAULT: Duration = Duration::from_secs(600);

/// Checks the values against each other.
///
/// # Errors
///
/// The first reason not to start with them.
pub(crate) fn settings(values: &Values) -> Result<Config, String> {
    if let Some(refusal) = values.refusal() {
        return Err(refusal);
    }
    timing(values)?;
    if values.is_set("listen-client-urls") && !values.is_set("advertise-client-urls") {
        return Err("--advertise-client-urls is required when --listen-client-urls is set \
                    explicitly"
            .to_owned());
    }
    let listen_peer_urls = listeners(values, "listen-peer-urls", true)?;
    let listen_client_urls = listeners(values, "listen-client-urls", true)?;
    let listen_client_http_urls = listeners(values, "listen-client-http-urls", false)?;
    let listen_metrics_urls = listeners(values, "listen-metrics-urls", false)?;
    if values.nanoseconds("compact-hash-check-time") <= 0 {
        return Err("--compact-hash-check-time must be >0".to_owned());
    }
    if values.gate("LeaseCheckpointPersist") && !values.gate("LeaseCheckpoint") {
        return Err("enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                    LeaseCheckpoint"
            .to_owned());
    }
    let name = values.text("name").to_owned();
    let advertise_peer_urls = advertised(values, "initial-advertise-peer-urls", &listen_peer_urls)?;
    let advertise_client_urls = advertised(values, "advertise-client-urls", &listen_client_urls)?;
    let existing = values.text("initial-cluster-state") == "existing";
    let cluster = match values.text("initial-cluster") {
        "" => vec![(name.clone(), advertise_peer_urls.clone())],
        text => initial_cluster(text)?,
    };
    own_place(&name, &cluster, &advertise_peer_urls, existing)?;
    let data_dir = match values.text("data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        directory => PathBuf::from(directory),
    };
    let texts = |name| values.list(name).into_iter().map(str::to_owned).collect();
    let count = |name| usize::try_from(values.count(name)).unwrap_or(usize::MAX);
    Ok(Config {
        name,
        listen_peer_urls,
        listen_client_urls,
        advertise_client_urls,
        initial_advertise_peer_urls: advertise_peer_urls,
        initial_cluster: cluster,
        initial_cluster_token: values.text("initial-cluster-token").to_owned(),
        initial_cluster_state: if existing { ClusterState::Existing } else { ClusterState::New },
        heartbeat_interval: Duration::from_millis(values.count("heartbeat-interval")),
        election_timeout: Duration::from_millis(values.count("election-timeout")),
        snapshot_count: values.count("snapshot-count"),
        snapshot_catchup_entries: values.count("snapshot-catchup-entries"),
        quota_backend_bytes: values.integer("quota-backend-bytes"),
        max_txn_ops: count("max-txn-ops"),
        max_request_bytes: count("max-request-bytes"),
        max_concurrent_streams: u32::try_from(values.count("max-concurrent-streams"))
            .unwrap_or(u32::MAX),
        grpc_keepalive_min_time: values.duration("grpc-keepalive-min-time"),
        grpc_keepalive_interval: values.duration("grpc-keepalive-interval"),
        grpc_keepalive_timeout: values.duration("grpc-keepalive-timeout"),
        auto_compaction: compaction(values)?,
        strict_reconfig_check: values.bool("strict-reconfig-check"),
        max_learners: count("max-learners"),
        pre_vote: values.bool("pre-vote"),
        watch_progress_notify_interval: match values.duration("watch-progress-notify-interval") {
            Duration::ZERO => PROGRESS_DEFAULT,
            interval => interval,
        },
        warning_unary_request_duration: values.duration("warning-unary-request-duration"),
        warning_apply_duration: values.duration("warning-apply-duration"),
        lease_checkpoint: values.gate("LeaseCheckpoint"),
        api_version: values.text("api-version").to_owned(),
        listen_client_http_urls,
        listen_metrics_urls,
        access: Access { cors: texts("cors"), hosts: texts("host-whitelist") },
        extensive_metrics: values.text("metrics") == "extensive",
        features: features(values),
        force_new_cluster: values.bool("force-new-cluster"),
        unsafe_no_fsync: values.bool("unsafe-no-fsync"),
        ..Config::new(data_dir)
    })
}

/// Features as metrics show them.
fn features(values: &Values) -> Vec<(String, String, bool)> {
    let stage = |gate: &Gate| match gate.stage {
        Stage::Alpha => "ALPHA",
        Stage::Beta => "BETA",
    };
    GATES
        .iter()
        .map(|gate| (gate.name.to_owned(), stage(gate).to_owned(), values.gate(gate.name)))
        .collect()
}

fn timing(values: &Values) -> Result<(), String> {
    let heartbeat = values.count("heartbeat-interval");
    let election = values.count("election-timeout");
    if heartbeat == 0 {
        return Err("--heartbeat-interval must be >0 (set to 0ms)".to_owned());
    }
    if election == 0 {
        return Err("--election-timeout must be >0 (set to 0ms)".to_owned());
    }
    if election < 5 * heartbeat {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > ELECTION_MS_MAX {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than \
             {ELECTION_MS_MAX}ms"
        ));
    }
    Ok(())
}

/// The URLs of a flag, which must be such that one can listen there.
fn listeners(values: &Values, flag: &str, needed: bool) -> Result<Vec<Url>, String> {
    let urls = values.urls(flag);
    if urls.is_empty() && needed {
        return Err(format!("--{flag} names no URL"));
    }
    for url in &urls {
        if url.scheme() == Scheme::Https && flag == "listen-metrics-urls" {
            return Err("client TLS key/cert (--cert-file, --key-file) must be provided for \
                        metrics secure url"
                .to_owned());
        }
        if plain(flag, url).is_ok() && !is_bindable(url) {
            return Err(format!("--{flag}: expected IP in URL for binding ({url})"));
        }
    }
    without_tls(flag, urls)
}

fn without_tls(flag: &str, urls: Vec<Url>) -> Result<Vec<Url>, String> {
    urls.iter().try_for_each(|url| plain(flag, url))?;
    Ok(urls)
}

fn plain(flag: &str, url: &Url) -> Result<(), String> {
    match url.scheme() {
        Scheme::Http => Ok(()),
        Scheme::Https => Err(format!("--{flag}: TLS is not supported yet ({url}); use http")),
        Scheme::Unix | Scheme::Unixs => {
            Err(format!("--{flag}: unix sockets are not supported yet ({url}); use http"))
        }
    }
}

/// The URLs under which this member is known. If nobody says and it listens everywhere, `localhost`
/// would lead others to themselves: then the address that the default route goes out from is used.
fn advertised(values: &Values, flag: &str, listen: &[Url]) -> Result<Vec<Url>, String> {
    let mut urls = values.urls(flag);
    if !values.is_set(flag)
        && listen.iter().any(is_unspecified)
        && let Some(host) = default_route()
    {
        for url in &mut urls {
            *url = Url::http(&host, url.port().unwrap_or(0));
        }
    }
    if urls.is_empty() {
        return Err(format!("--{flag} names no URL"));
    }
    without_tls(flag, urls)
}

/// The address that packets to the outside would come from. Nothing is sent.
fn default_route() -> Option<String> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then(|| address.to_string())
}

/// Reads `name=url,name=url`; a name may come more than once.
pub(crate) fn initial_cluster(text: &str) -> Result<Vec<(String, Vec<Url>)>, String> {
    let mut cluster: Vec<(String, Vec<Url>)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, url)) = part.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(format!("--initial-cluster: {part:?} is not name=url"));
        };
        let url: Url = url.parse().map_err(|why| format!("--initial-cluster: {why}"))?;
        match cluster.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url),
            None => cluster.push((name.to_owned(), vec![url])),
        }
    }
    let mut seen = BTreeSet::new();
    for (_, urls) in &cluster {
        for url in urls {
            if !seen.insert(url) {
                return Err(format!("--initial-cluster: {url} belongs to two members"));
            }
        }
        without_tls("initial-cluster", urls.clone())?;
    }
    Ok(cluster)
}

/// This member must stand in the cluster, and under the URLs that it advertises.
fn own_place(
    name: &str,
    cluster: &[(String, Vec<Url>)],
    advertised: &[Url],
    existing: bool,
) -> Result<(), String> {
    let Some((_, listed)) = cluster.iter().find(|(known, _)| known == name) else {
        return Err(format!(
            "couldn't find local name {name:?} in the initial cluster configuration"
        ));
    };
    if existing || same(listed, advertised) {
        return Ok(());
    }
    let write =
        |urls: &[Url]| urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",");
    Err(format!(
        "--initial-cluster has {} but --initial-advertise-peer-urls has {}; they must be the same",
        write(listed),
        write(advertised)
    ))
}

/// Whether these are the same URLs, by their text or by the addresses behind them.
fn same(a: &[Url], b: &[Url]) -> bool {
    let set = |urls: &[Url]| urls.iter().cloned().collect::<BTreeSet<_>>();
    if set(a) == set(b) {
        return true;
    }
    let resolved = |urls: &[Url]| urls.iter().map(resolve).collect::<BTreeSet<_>>();
    let (a, b) = (resolved(a), resolved(b));
    a == b && !a.contains(&Vec::new())
}

fn compaction(values: &Values) -> Result<AutoCompaction, String> {
    let text = values.text("auto-compaction-retention");
    let bad = || format!("--auto-compaction-retention {text:?} is neither a number nor a duration");
    let number = text.parse::<u64>().ok();
    match values.text("auto-compaction-mode") {
        "revision" => match number.ok_or_else(bad)? {
            0 => Ok(AutoCompaction::Off),
            revisions => i64::try_from(revisions).map(AutoCompaction::Revision).map_err(|_| bad()),
        },
        "periodic" | "" => {
            let period = match number {
                Some(hours) => Duration::from_secs(hours.saturating_mul(3600)),
                None => go::nanoseconds(text)
                    .and_then(|nanos| u64::try_from(nanos).ok())
                    .map(Duration::from_nanos)
                    .ok_or_else(bad)?,
            };
            if period.is_zero() {
                return Ok(AutoCompaction::Off);
            }
            Ok(AutoCompaction::Periodic(period))
        }
        mode => Err(format!("unknown auto-compaction-mode {mode:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::values::Source;

    fn with(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let mut values = Values::default();
        for (name, text) in pairs {
            values.set(name, text, Source::CommandLine).expect("a valid value");
        }
        settings(&values)
    }

    #[test]
    fn the_defaults_are_a_cluster_of_one() {
        let settings = with(&[]).expect("valid settings");
        assert_eq!(settings.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(settings.initial_cluster.len(), 1);
        assert_eq!(settings.initial_cluster[0].1, settings.initial_advertise_peer_urls);
        assert_eq!(settings.quota_bytes(), Some(2 << 30));
        assert_eq!(settings.auto_compaction, AutoCompaction::Off);
        assert_eq!(settings.watch_progress_notify_interval, PROGRESS_DEFAULT);
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (pairs, text) in [
            (
                &[("listen-client-urls", "http://127.0.0.1:1")][..],
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            ),
            (&[("heartbeat-interval", "0")], "--heartbeat-interval must be >0 (set to 0ms)"),
            (&[("election-timeout", "0")], "--election-timeout must be >0 (set to 0ms)"),
            (
                &[("election-timeout", "499")],
                "--election-timeout[499ms] should be at least as 5 times as \
                 --heartbeat-interval[100ms]",
            ),
            (
                &[("election-timeout", "50001")],
                "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
            ),
            (
                &[("listen-peer-urls", "http://example.com:1")],
                "--listen-peer-urls: expected IP in URL for binding (http://example.com:1)",
            ),
            (
                &[("initial-cluster", "other=http://localhost:2380")],
                "couldn't find local name \"default\" in the initial cluster configuration",
            ),
            (
                &[("listen-metrics-urls", "https://127.0.0.1:1")],
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics \
                 secure url",
            ),
            (&[("auto-compaction-mode", "x")], "unknown auto-compaction-mode \"x\""),
            (
                &[("discovery-token", "x")],
                "--discovery-token cannot be honoured: discovery is not supported; use \
                 --initial-cluster",
            ),
            (
                &[("feature-gates", "LeaseCheckpointPersist=true")],
                "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                 LeaseCheckpoint",
            ),
        ] {
            assert_eq!(with(pairs).map(|_| ()), Err(text.to_owned()), "{pairs:?}");
        }
        let error = with(&[("initial-cluster", "default=http://127.0.0.1:9")]);
        assert!(error.expect_err("different URLs").starts_with("--initial-cluster has "));
    }

    #[test]
    fn a_cluster_is_names_and_urls() {
        let settings = with(&[
            ("name", "b"),
            ("initial-advertise-peer-urls", "http://127.0.0.1:2"),
            ("initial-cluster", "a=http://127.0.0.1:1,b=http://127.0.0.1:2,a=http://127.0.0.1:3"),
        ])
        .expect("valid settings");
        assert_eq!(settings.initial_cluster.len(), 2);
        assert_eq!(settings.initial_cluster[0].1.len(), 2);
    }

    #[test]
    fn retention_is_hours_a_duration_or_revisions() {
        let with = |mode, text| {
            with(&[("auto-compaction-mode", mode), ("auto-compaction-retention", text)])
                .map(|settings| settings.auto_compaction)
        };
        let periodic = |seconds| Ok(AutoCompaction::Periodic(Duration::from_secs(seconds)));
        assert_eq!(with("periodic", "2"), periodic(7200));
        assert_eq!(with("periodic", "5m"), periodic(300));
        assert_eq!(with("revision", "1000"), Ok(AutoCompaction::Revision(1000)));
        assert_eq!(with("revision", "0"), Ok(AutoCompaction::Off));
        assert!(with("revision", "5m").is_err());
        assert!(with("periodic", "-5m").is_err());
    }
}
