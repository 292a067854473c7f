//! Commands that talk to a cluster.

mod check;
mod hint;
mod keys;
mod lease;
mod members;
pub(crate) mod output;
mod script;
mod snapshot;
mod status;
mod txn;
mod watch;

use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

pub(crate) use self::hint::hint;
use crate::go;
use crate::style::Colour;

/// Under which title the help shows the flags that many commands share.
const COMMON: &str = "Common options";

/// What every command that talks to a cluster needs to know.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Where the members are: host:port or a URL, with commas between
    #[arg(
        long,
        global = true,
        help_heading = COMMON,
        env = "ETCDCTL_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:2379"
    )]
    endpoints: Vec<String>,
    /// How long to try to reach a member
    #[arg(
        long,
        global = true,
        help_heading = COMMON,
        env = "ETCDCTL_DIAL_TIMEOUT",
        default_value = "2s",
        value_parser = duration
    )]
    pub(crate) dial_timeout: Duration,
    /// How long a command may take, once a member is reached
    #[arg(
        long,
        global = true,
        help_heading = COMMON,
        env = "ETCDCTL_COMMAND_TIMEOUT",
        default_value = "5s",
        value_parser = duration
    )]
    pub(crate) command_timeout: Duration,
    /// The form of what is printed
    #[arg(
        long,
        short = 'w',
        visible_short_alias = 'o',
        visible_alias = "output",
        global = true,
        help_heading = COMMON,
        env = "ETCDCTL_WRITE_OUT",
        default_value = "simple"
    )]
    pub(crate) write_out: Form,
    /// When colours are used
    #[arg(
        long,
        global = true,
        help_heading = COMMON,
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub(crate) color: Colour,
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    go::nanoseconds(text)
        .and_then(|nanos| u64::try_from(nanos).ok())
        .map(Duration::from_nanos)
        .ok_or_else(|| "not a span of time such as 500ms or 5s".to_owned())
}

/// The form of what is printed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// For people and pipes
    Simple,
    /// One object per answer, keys and values in base64
    Json,
    /// One field per line
    Fields,
    /// A drawn table, where there is one
    Table,
}

/// A command.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Print keys and their values
    Get(keys::Get),
    /// Write a key
    Put(keys::Put),
    /// Remove keys
    #[command(visible_alias = "delete")]
    Del(keys::Del),
    /// Compare, and read and write accordingly, in one step
    Txn(txn::Txn),
    /// Print changes of keys as they happen, until interrupted
    Watch(watch::Watch),
    /// Forget the history before a revision
    #[command(visible_alias = "compaction")]
    Compact(keys::Compact),
    /// Keys that go when nobody renews them
    #[command(subcommand)]
    Lease(lease::Command),
    /// Show how each member is
    Status(status::Status),
    /// Show whether each member can serve
    Health(status::Health),
    /// Look at everything that shows whether a cluster is as it should be, and give a verdict
    Check(check::Check),
    /// `status`, `health` and hashes of the data, in the words of etcdctl
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Show and change who belongs to the cluster
    #[command(subcommand)]
    Member(members::Command),
    /// Save all data into a file, look at such a file, or begin a new cluster with it
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Hand leadership over to another member
    MoveLeader(members::MoveLeader),
    /// Give back the space of what was removed
    Defrag(status::Defrag),
    /// Show and lift alarms
    #[command(subcommand)]
    Alarm(status::Alarm),
}

/// Commands of `endpoint`.
#[derive(Subcommand, Debug)]
pub(crate) enum EndpointCommand {
    /// Show how each member is
    Status(status::Status),
    /// Show whether each member can serve
    Health(status::Health),
    /// Show the hash of each member's data, which is the same on all at the same revision
    #[command(name = "hashkv")]
    HashKv(status::HashKv),
}

/// Carries a command out.
pub(crate) async fn run(command: Command, common: &Common) -> Result<(), Failure> {
    refuse_secrets()?;
    match command {
        Command::Get(get) => get.run(common).await,
        Command::Put(put) => put.run(common).await,
        Command::Del(del) => del.run(common).await,
        Command::Txn(txn) => txn.run(common).await,
        Command::Watch(watch) => watch.run(common).await,
        Command::Compact(compact) => compact.run(common).await,
        Command::Lease(command) => lease::run(command, common).await,
        Command::Status(status) | Command::Endpoint(EndpointCommand::Status(status)) => {
            status.run(common).await
        }
        Command::Endpoint(EndpointCommand::HashKv(hash)) => hash.run(common).await,
        Command::Health(health) | Command::Endpoint(EndpointCommand::Health(health)) => {
            health.run(common).await
        }
        Command::Check(check) => check.run(common).await,
        Command::Member(command) => members::run(command, common).await,
        Command::Snapshot(command) => snapshot::run(command, common).await,
        Command::MoveLeader(command) => command.run(common).await,
        Command::Defrag(defrag) => defrag.run(common).await,
        Command::Alarm(command) => status::alarm(&command, common).await,
    }
}

/// A cluster that asks for secrets must not be asked without them in silence.
pub(crate) fn refuse_secrets() -> Result<(), Failure> {
    for name in ["CACERT", "CERT", "KEY", "USER", "PASSWORD"] {
        let variable = format!("ETCDCTL_{name}");
        if std::env::var_os(&variable).is_some_and(|value| !value.is_empty()) {
            return Err(Failure::Input(format!(
                "{variable} is set, but TLS and users are not supported yet; unset it"
            )));
        }
    }
    Ok(())
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments make no sense.
    Input(String),
    /// No member could be reached.
    Connection(String),
    /// A member said no.
    Status(tonic::Status),
    /// A file could not be read or written.
    File(String),
    /// What was asked for is not so; everything has been printed.
    Unhealthy(String),
    /// Everything has been said; only the code is left.
    Said(u8),
}

impl Failure {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Said(code) => *code,
            Self::Status(_) => 1,
            Self::Connection(_) => 2,
            Self::Input(_) => 3,
            Self::Unhealthy(_) => 5,
            Self::File(_) => 6,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(text)
            | Self::Connection(text)
            | Self::File(text)
            | Self::Unhealthy(text) => f.write_str(text),
            Self::Said(_) => Ok(()),
            Self::Status(status) if status.message().is_empty() => {
                write!(f, "{}", status.code())
            }
            Self::Status(status) => f.write_str(status.message()),
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self::Status(status)
    }
}

/// The URL of an endpoint that may lack its scheme.
pub(crate) fn url_of(endpoint: &str) -> Result<String, Failure> {
    match endpoint.split_once("://") {
        None => Ok(format!("http://{endpoint}")),
        Some(("http", _)) => Ok(endpoint.to_owned()),
        Some(("https", _)) => {
            Err(Failure::Input(format!("{endpoint}: TLS is not supported yet; use http")))
        }
        Some(_) => Err(Failure::Input(format!("{endpoint} is neither host:port nor a URL"))),
    }
}

impl Common {
    /// The members that were named.
    pub(crate) fn endpoints(&self) -> Vec<&str> {
        self.endpoints.iter().map(|endpoint| endpoint.trim()).filter(|e| !e.is_empty()).collect()
    }

    /// Connects to one member.
    async fn connect(&self, endpoint: &str) -> Result<Channel, Failure> {
        let url = url_of(endpoint)?;
        let endpoint = Endpoint::from_shared(url)
            .map_err(|why| Failure::Input(format!("{endpoint}: {why}")))?
            .connect_timeout(self.dial_timeout)
            .tcp_nodelay(true);
        endpoint.connect().await.map_err(|why| {
            Failure::Connection(format!("{} cannot be reached: {}", endpoint.uri(), cause(&why)))
        })
    }

    /// Connects to the first member that can be reached.
    async fn connect_any(&self) -> Result<Channel, Failure> {
        let mut failures = Vec::new();
        for endpoint in self.endpoints() {
            match self.connect(endpoint).await {
                Ok(channel) => return Ok(channel),
                Err(Failure::Connection(why)) => failures.push(why),
                Err(other) => return Err(other),
            }
        }
        Err(Failure::Connection(if failures.is_empty() {
            "no endpoint is given".to_owned()
        } else {
            failures.join("; ")
        }))
    }

    /// Asks one member after the other until one answers. Only for what may be asked twice.
    async fn ask<T, F>(&self, ask: impl Fn(Channel) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut last = Failure::Connection("no endpoint is given".to_owned());
        for endpoint in self.endpoints() {
            let channel = match self.connect(endpoint).await {
                Ok(channel) => channel,
                Err(failure @ Failure::Connection(_)) => {
                    last = failure;
                    continue;
                }
                Err(other) => return Err(other),
            };
            match self.limit(ask(channel)).await {
                Err(Failure::Status(status)) if status.code() == Code::Unavailable => {
                    last = Failure::Status(status);
                }
                other => return other,
            }
        }
        Err(last)
    }

    /// Asks the first member that can be reached, once.
    async fn ask_once<T, F>(&self, ask: impl FnOnce(Channel) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let channel = self.connect_any().await?;
        self.limit(ask(channel)).await
    }

    /// Waits no longer than the user wants to.
    async fn limit<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.command_timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(Failure::Status(tonic::Status::deadline_exceeded(format!(
                "no answer within {}",
                go::write_duration(self.command_timeout)
            )))),
        }
    }
}

/// The innermost reason, which says most.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
