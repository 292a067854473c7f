//! `quorate serve`: one member, started as etcd is started.

mod describe;
mod events;
mod help;
mod settings;
mod sources;
mod supervisor;
mod table;
mod url;
mod values;

use std::process::ExitCode;

use quorate_etcd::{Config, Server, Stopped, Url};

pub(crate) use describe::command;
pub(crate) use settings::initial_cluster;

use crate::go;
use crate::log::{FATAL, Format, Log, Threshold};
use crate::signals::{Request, Signals};
use sources::CommandLine;
use url::is_loopback;
use values::Values;

/// Exit code of flags that make no sense.
const BAD_FLAGS: u8 = 2;

/// Exit code of everything else that ends a server.
const FAILED: u8 = 1;

/// Runs a server until it is told to stop.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let (values, stray) = match sources::command_line(arguments) {
        Ok(CommandLine::Help) => {
            print!("{}", help::flags());
            return ExitCode::SUCCESS;
        }
        Ok(CommandLine::Values(values)) => (values, None),
        Ok(CommandLine::Stray { argument, values }) => (values, Some(argument)),
        Err(mistake) => {
            eprintln!("{mistake}\n{}", help::USAGE);
            return ExitCode::from(BAD_FLAGS);
        }
    };
    if values.bool("version") {
        print!("{}", help::version(values.text("api-version")));
        return ExitCode::SUCCESS;
    }
    let values = match all_sources(values) {
        Ok(values) => values,
        Err(why) => return refuse(&why),
    };
    if let Err(why) = install_log(&values) {
        return refuse(&why);
    }
    if let Some(argument) = stray {
        return fail(&format!("{argument:?} is not a valid flag"));
    }
    tracing::info!(args = ?std::env::args().collect::<Vec<_>>(), "Running: ");
    remarks(&values);
    let config = match settings::settings(&values) {
        Ok(config) => config,
        Err(why) => {
            tracing::warn!(error = why, "failed to verify flags");
            return ExitCode::from(FAILED);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return fail(&format!("the runtime cannot be started: {why}")),
    };
    let ended = runtime.block_on(serve(config));
    // Nothing may keep the process: what matters has been closed.
    runtime.shutdown_background();
    match ended {
        Ok(End::Signal(request)) => request.end(),
        Ok(End::Removed) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

/// The values of the file if there is one, else those of flags and variables.
fn all_sources(mut values: Values) -> Result<Values, String> {
    sources::environment(&mut values, std::env::vars())?;
    match values.text("config-file") {
        "" => Ok(values),
        path => {
            let path = path.to_owned();
            let given = values.set_by_hand().filter(|name| *name != "config-file").count();
            let mut values = sources::file(&path).map_err(|why| why.to_string())?;
            if given > 0 {
                values.remark(
                    "config-file",
                    "other flags and environment variables are ignored beside it",
                );
            }
            Ok(values)
        }
    }
}

fn install_log(values: &Values) -> Result<(), String> {
    let level = values.text("log-level");
    let threshold =
        Threshold::parse(level).ok_or_else(|| format!("unrecognized log level {level:?}"))?;
    let format = match values.text("log-format") {
        "console" => Format::Console,
        _ => Format::Json,
    };
    Log::open(threshold, format, &values.list("log-outputs"))?.install();
    Ok(())
}

/// Ends a start before there is a log as configured: the line goes where it would by default.
fn refuse(why: &str) -> ExitCode {
    if let Ok(log) = Log::open(Threshold::Info, Format::Json, &["default"]) {
        log.install();
    }
    fail(why)
}

fn fail(why: &str) -> ExitCode {
    tracing::error!(target: FATAL, "{why}");
    ExitCode::from(FAILED)
}

/// Tells what an operator should know about the settings.
fn remarks(values: &Values) {
    for remark in &values.remarks {
        tracing::warn!(name = remark.name, "{}", remark.what);
    }
    for warning in values.warnings() {
        tracing::warn!(name = warning.name, "set, but without effect: {}", warning.what);
    }
}

/// Why a server ended without an error.
enum End {
    /// It was told to stop by this signal.
    Signal(Request),
    /// It was removed from the cluster.
    Removed,
}

/// Starts the server, waits until something ends it, and stops it.
async fn serve(config: Config) -> Result<End, String> {
    let mut signals = Signals::listen().map_err(|why| format!("signals are not heard: {why}"))?;
    let has_data = config.data_dir.join("member").exists();
    if has_data {
        tracing::info!("data-dir" = %config.data_dir.display(), "server has already been initialized");
    } else {
        tracing::info!("data-dir" = %config.data_dir.display(), "Initialize and start etcd server");
    }
    announce(&config);
    let started = tokio::select! {
        started = Server::start(config.clone()) => started,
        request = signals.next() => return Ok(End::Signal(request)),
    };
    let server = started.map_err(|why| why.to_string())?;
    let member = server.handle();
    let events = tokio::spawn(events::tell(member.node().events()));
    tracing::info!(
        "cluster-id" = format!("{:x}", member.cluster_id()),
        "local-member-id" = format!("{:x}", member.member_id()),
        "{}",
        if has_data { "restarting local member" } else { "starting local member" }
    );
    let texts = |urls: &[Url]| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
    tracing::info!(address = ?texts(&config.listen_peer_urls), "serving peer traffic");
    if !config.listen_metrics_urls.is_empty() {
        tracing::info!(address = ?texts(&config.listen_metrics_urls), "serving metrics");
    }
    let mut is_ready = false;
    let ended = loop {
        tokio::select! {
            () = member.ready(), if !is_ready => {
                is_ready = true;
                tracing::info!(
                    "local-member-id" = format!("{:x}", member.member_id()),
                    "published local member to cluster through raft"
                );
                for url in server.client_urls() {
                    tracing::info!("ready to serve client requests");
                    tracing::info!(
                        traffic = "grpc+http",
                        address = url.address(),
                        "serving client traffic insecurely; this is strongly discouraged!"
                    );
                }
                supervisor::notify("READY=1");
            }
            request = signals.next() => {
                tracing::info!(signal = request.name(), "received signal; shutting down");
                supervisor::notify("STOPPING=1");
                break Ok(End::Signal(request));
            }
            why = server.stopped() => break judge(&why),
        }
    };
    let stopped = tokio::select! {
        () = server.shutdown() => true,
        // Whoever asks twice does not want to wait.
        _ = signals.next() => false,
    };
    events.abort();
    if stopped {
        tracing::info!("server stopped");
    }
    ended
}

/// Says with what a server is started, and what an operator should think about.
fn announce(config: &Config) {
    let texts = |urls: &[Url]| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
    let cluster: Vec<String> = config
        .initial_cluster
        .iter()
        .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
        .collect();
    tracing::info!(
        "etcd-version" = config.api_version,
        "quorate-version" = env!("CARGO_PKG_VERSION"),
        name = config.name,
        "data-dir" = %config.data_dir.display(),
        "heartbeat-interval" = go::write_duration(config.heartbeat_interval),
        "election-timeout" = go::write_duration(config.election_timeout),
        "snapshot-count" = config.snapshot_count,
        "snapshot-catchup-entries" = config.snapshot_catchup_entries,
        "listen-peer-urls" = ?texts(&config.listen_peer_urls),
        "initial-advertise-peer-urls" = ?texts(&config.initial_advertise_peer_urls),
        "listen-client-urls" = ?texts(&config.listen_client_urls),
        "advertise-client-urls" = ?texts(&config.advertise_client_urls),
        "initial-cluster" = cluster.join(","),
        "initial-cluster-token" = config.initial_cluster_token,
        "quota-backend-bytes" = config.quota_bytes().unwrap_or(0),
        "max-request-bytes" = config.max_request_bytes,
        "max-learners" = config.max_learners,
        "pre-vote" = config.pre_vote,
        "starting an etcd server"
    );
    if config.unsafe_no_fsync {
        tracing::warn!(
            "--unsafe-no-fsync: nothing waits for the disk. When power is lost, acknowledged writes are lost with it, and the \
             member may not start again"
        );
    }
    let exposed = |urls: &[Url]| {
        texts(urls.iter().filter(|url| !is_loopback(url)).cloned().collect::<Vec<_>>().as_slice())
    };
    for (what, urls) in [
        ("clients", exposed(&config.listen_client_urls)),
        ("members", exposed(&config.listen_peer_urls)),
    ] {
        if !urls.is_empty() {
            tracing::warn!(
                ?urls,
                "listening for {what} beyond this machine without TLS and without users: whoever \
                 reaches these addresses can read and change everything"
            );
        }
    }
}

/// Whether a member that does not run any more has failed.
fn judge(why: &Stopped) -> Result<End, String> {
    match why {
        Stopped::Removed => {
            tracing::warn!("the member has been permanently removed from the cluster");
            Ok(End::Removed)
        }
        why => Err(why.to_string()),
    }
}
