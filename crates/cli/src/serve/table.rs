//! Every flag of `quorate serve`: one row says all there is to know about it.
//!
//! The names are etcd's, so that unit files, manifests and scripts written for etcd go on working.
//! What cannot be honoured is refused or warned about; nothing is ignored in silence that would
//! change what clients or operators may rely on.

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Its name, which is also its key in the configuration file; `ETCD_` and its upper-case form
    /// is its variable.
    pub(crate) name: &'static str,
    /// What values it takes.
    pub(crate) kind: Kind,
    /// Its value when nobody sets it, as text.
    pub(crate) default: &'static str,
    /// Under which title the help shows it.
    pub(crate) group: Group,
    /// What becomes of it.
    pub(crate) fate: Fate,
    /// What it does, for the help.
    pub(crate) help: &'static str,
}

/// What values a flag takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A truth value; the only kind that may stand without one.
    Bool,
    /// An integer within these bounds.
    Integer {
        /// The lowest.
        min: i64,
        /// The highest.
        max: i64,
    },
    /// A span of time, `100ms` or `5m`; nanoseconds in the configuration file.
    Duration,
    /// URLs with commas between.
    Urls,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Names of features that are switched on and off: `A=true,B=false`.
    Gates,
}

/// Under which title the help shows a flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    /// This member alone.
    Member,
    /// The cluster and how it begins.
    Clustering,
    /// Encryption and certificates.
    Security,
    /// Users and tokens.
    Auth,
    /// What can be watched from outside.
    Monitoring,
    /// Log lines.
    Logging,
    /// Traces.
    Tracing,
    /// Limits and checks.
    Features,
    /// What can lose data.
    Unsafe,
    /// The rest.
    Other,
    /// Of no use any more, taken so that old command lines work. Not in the help.
    Deprecated,
}

impl Group {
    /// The titles of the help, in its order.
    pub(crate) const SHOWN: &[(Self, &'static str)] = &[
        (Self::Member, "Member"),
        (Self::Clustering, "Clustering"),
        (Self::Security, "Security"),
        (Self::Auth, "Auth"),
        (Self::Monitoring, "Profiling and monitoring"),
        (Self::Logging, "Logging"),
        (Self::Tracing, "Distributed tracing"),
        (Self::Features, "Features"),
        (Self::Unsafe, "Unsafe"),
        (Self::Other, "Other"),
    ];
}

/// What becomes of a flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It does what it says.
    Used,
    /// Taken and without effect: it tunes the inside of another storage, or something that is
    /// always so here. Nobody can tell the difference from outside.
    Moot,
    /// Any value but the default is taken with a warning that says what is missing.
    Warned(&'static str),
    /// Any value but the default ends the start with this reason.
    Refused(&'static str),
}

const U32: Kind = Kind::Integer { min: 0, max: u32::MAX as i64 };
const U63: Kind = Kind::Integer { min: 0, max: i64::MAX };
const I64: Kind = Kind::Integer { min: i64::MIN, max: i64::MAX };

const NO_TLS: Fate = Refused("TLS is not supported yet");
const NO_AUTH: Fate = Refused("authentication is not supported yet");
const NO_DISCOVERY: Fate = Refused("discovery is not supported; use --initial-cluster");
const NO_TRACING: Fate = Refused("distributed tracing is not supported yet");
const NO_V2: Fate = Refused("the API v2 is not supported; use v3");
const NO_CHECK: Fate =
    Warned("data are not compared between members yet, so this check is not made");

macro_rules! flags {
    ($($group:ident { $($name:literal $kind:expr, $default:literal, $fate:expr, $help:literal;)* })*) => {
        /// All flags, group by group.
        pub(crate) const FLAGS: &[Flag] = &[$($(
            Flag {
                name: $name,
                kind: $kind,
                default: $default,
                group: Group::$group,
                fate: $fate,
                help: $help,
            },
        )*)*];
    };
}

use Fate::{Moot, Refused, Used, Warned};
use Kind::{Bool, Duration, Gates, OneOf, Text, Urls};

flags! {
    Member {
        "name" Text, "default", Used, "Name of this member.";
        "data-dir" Text, "", Used, "Directory of this member's data; NAME.etcd if not given.";
        "wal-dir" Text, "", Refused("the log is kept in the data directory"), "Directory of the log.";
        "snapshot-count" U63, "10000", Used, "Entries after which the log may be compacted.";
        "heartbeat-interval" U32, "100", Used, "Milliseconds between heartbeats of the leader.";
        "election-timeout" U32, "1000", Used, "Milliseconds without a heartbeat before an election.";
        "initial-election-tick-advance" Bool, "true", Moot, "Has no effect: a start never waits longer than an election.";
        "listen-peer-urls" Urls, "http://localhost:2380", Used, "Where to listen for other members.";
        "listen-client-urls" Urls, "http://localhost:2379", Used, "Where to listen for clients.";
        "listen-client-http-urls" Urls, "", Used, "Where to serve /health, /metrics and the like; the client URLs carry only gRPC then.";
        "max-wals" U63, "5", Moot, "Has no effect: files of the log are recycled.";
        "memory-mlock" Bool, "false", Warned("memory is not locked"), "Keep the process in memory.";
        "quota-backend-bytes" I64, "0", Used, "Size of the data that raises the NOSPACE alarm; 0: 2 GiB, negative: none.";
        "backend-bbolt-freelist-type" Text, "map", Moot, "Has no effect: another storage.";
        "backend-batch-interval" Duration, "0s", Moot, "Has no effect: another storage.";
        "backend-batch-limit" U63, "0", Moot, "Has no effect: another storage.";
        "max-txn-ops" U32, "128", Used, "Operations that a transaction may have.";
        "max-request-bytes" U32, "1572864", Used, "Bytes that a request may have.";
        "max-concurrent-streams" U32, "4294967295", Used, "Streams that a client may have open on a connection.";
        "grpc-keepalive-min-time" Duration, "5s", Moot, "Has no effect: clients may ping as often as they like.";
        "grpc-keepalive-interval" Duration, "2h", Used, "Time between pings to a client; 0: none.";
        "grpc-keepalive-timeout" Duration, "20s", Used, "How long a ping to a client may go unanswered; 0: for ever.";
        "socket-reuse-port" Bool, "false", Refused("ports are not shared between processes"), "Share ports with other processes.";
        "socket-reuse-address" Bool, "false", Moot, "Always so.";
        "enable-grpc-gateway" Bool, "false", Refused("the JSON gateway is not there yet"), "Serve the API as JSON over HTTP.";
        "raft-read-timeout" Duration, "5s", Moot, "Has no effect: members find lost connections by heartbeats.";
        "raft-write-timeout" Duration, "5s", Moot, "Has no effect: members find lost connections by heartbeats.";
        "feature-gates" Gates, "", Used, "Features to switch on or off: Name=true,Other=false.";
    }
    Clustering {
        "initial-advertise-peer-urls" Urls, "http://localhost:2380", Used, "Where other members reach this one.";
        "initial-cluster" Text, "", Used, "The members at the start: name=url,name=url.";
        "initial-cluster-state" OneOf(&["new", "existing"]), "new", Used, "new, or existing to join a cluster that has added this member.";
        "initial-cluster-token" Text, "etcd-cluster", Used, "A word that tells this cluster from others.";
        "advertise-client-urls" Urls, "http://localhost:2379", Used, "Where clients reach this member.";
        "discovery" Text, "", NO_DISCOVERY, "Not supported.";
        "discovery-token" Text, "", NO_DISCOVERY, "Not supported.";
        "discovery-endpoints" Text, "", NO_DISCOVERY, "Not supported.";
        "discovery-dial-timeout" Duration, "2s", Moot, "Has no effect without discovery.";
        "discovery-request-timeout" Duration, "5s", Moot, "Has no effect without discovery.";
        "discovery-keepalive-time" Duration, "2s", Moot, "Has no effect without discovery.";
        "discovery-keepalive-timeout" Duration, "6s", Moot, "Has no effect without discovery.";
        "discovery-insecure-transport" Bool, "true", Moot, "Has no effect without discovery.";
        "discovery-insecure-skip-tls-verify" Bool, "false", Moot, "Has no effect without discovery.";
        "discovery-cert" Text, "", NO_DISCOVERY, "Not supported.";
        "discovery-key" Text, "", NO_DISCOVERY, "Not supported.";
        "discovery-cacert" Text, "", NO_DISCOVERY, "Not supported.";
        "discovery-user" Text, "", NO_DISCOVERY, "Not supported.";
        "discovery-password" Text, "", NO_DISCOVERY, "Not supported.";
        "discovery-fallback" Text, "exit", Moot, "Has no effect without discovery.";
        "discovery-proxy" Text, "", NO_DISCOVERY, "Not supported.";
        "discovery-srv" Text, "", NO_DISCOVERY, "Not supported.";
        "discovery-srv-name" Text, "", NO_DISCOVERY, "Not supported.";
        "strict-reconfig-check" Bool, "true", Used, "Refuse changes of members that would lose the quorum.";
        "pre-vote" Bool, "true", Used, "Ask whether an election could be won before it is begun.";
        "auto-compaction-retention" Text, "0", Used, "History to keep: hours or a duration, or revisions; 0: all.";
        "auto-compaction-mode" Text, "periodic", Used, "What the retention counts: periodic or revision.";
    }
    Security {
        "cert-file" Text, "", NO_TLS, "Not supported.";
        "key-file" Text, "", NO_TLS, "Not supported.";
        "client-cert-auth" Bool, "false", NO_TLS, "Not supported.";
        "client-cert-file" Text, "", NO_TLS, "Not supported.";
        "client-key-file" Text, "", NO_TLS, "Not supported.";
        "client-crl-file" Text, "", NO_TLS, "Not supported.";
        "client-cert-allowed-hostname" Text, "", NO_TLS, "Not supported.";
        "trusted-ca-file" Text, "", NO_TLS, "Not supported.";
        "auto-tls" Bool, "false", NO_TLS, "Not supported.";
        "peer-cert-file" Text, "", NO_TLS, "Not supported.";
        "peer-key-file" Text, "", NO_TLS, "Not supported.";
        "peer-client-cert-auth" Bool, "false", NO_TLS, "Not supported.";
        "peer-client-cert-file" Text, "", NO_TLS, "Not supported.";
        "peer-client-key-file" Text, "", NO_TLS, "Not supported.";
        "peer-trusted-ca-file" Text, "", NO_TLS, "Not supported.";
        "peer-cert-allowed-cn" Text, "", NO_TLS, "Not supported.";
        "peer-cert-allowed-hostname" Text, "", NO_TLS, "Not supported.";
        "peer-auto-tls" Bool, "false", NO_TLS, "Not supported.";
        "self-signed-cert-validity" U32, "1", NO_TLS, "Not supported.";
        "peer-crl-file" Text, "", NO_TLS, "Not supported.";
        "cipher-suites" Text, "", NO_TLS, "Not supported.";
        "cors" Text, "*", Used, "Origins whose pages may read what is served over HTTP.";
        "host-whitelist" Text, "*", Used, "Host names under which HTTP is served.";
        "tls-min-version" Text, "TLS1.2", NO_TLS, "Not supported.";
        "tls-max-version" Text, "", NO_TLS, "Not supported.";
    }
    Auth {
        "auth-token" Text, "simple", NO_AUTH, "Not supported.";
        "bcrypt-cost" U32, "10", NO_AUTH, "Not supported.";
        "auth-token-ttl" U32, "300", NO_AUTH, "Not supported.";
    }
    Monitoring {
        "enable-pprof" Bool, "false", Refused("there are no profiles of a Go runtime here; use perf"), "Not supported.";
        "metrics" OneOf(&["basic", "extensive"]), "basic", Used, "basic, or extensive to have the durations of all calls.";
        "listen-metrics-urls" Urls, "", Used, "Where to serve only /metrics, /health, /livez and /readyz, besides the client URLs.";
    }
    Logging {
        "logger" OneOf(&["zap"]), "zap", Used, "The form of log lines; there is only zap.";
        "log-outputs" Text, "default", Used, "Where log lines go: default, stderr, stdout, files.";
        "log-level" Text, "info", Used, "debug, info, warn, error, panic or fatal.";
        "log-format" OneOf(&["json", "console"]), "json", Used, "json or console.";
        "enable-log-rotation" Bool, "false", Refused("log files are not rotated; use logrotate with copytruncate"), "Not supported.";
        "log-rotation-config-json" Text, "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", Moot, "Has no effect without --enable-log-rotation.";
        "warning-unary-request-duration" Duration, "300ms", Used, "How long a request may take before it is logged.";
    }
    Tracing {
        "enable-distributed-tracing" Bool, "false", NO_TRACING, "Not supported.";
        "distributed-tracing-address" Text, "localhost:4317", Moot, "Has no effect without tracing.";
        "distributed-tracing-service-name" Text, "etcd", Moot, "Has no effect without tracing.";
        "distributed-tracing-instance-id" Text, "", Moot, "Has no effect without tracing.";
        "distributed-tracing-sampling-rate" U32, "0", Moot, "Has no effect without tracing.";
    }
    Features {
        "corrupt-check-time" Duration, "0s", NO_CHECK, "Time between comparisons of members' data.";
        "compact-hash-check-time" Duration, "1m", Moot, "Has no effect without the feature CompactHashCheck.";
        "compaction-batch-limit" U63, "0", Moot, "Has no effect: a compaction yields by itself.";
        "peer-skip-client-san-verification" Bool, "false", NO_TLS, "Not supported.";
        "watch-progress-notify-interval" Duration, "0s", Used, "Time between progress notifications to idle watchers; 0: 10m.";
        "warning-apply-duration" Duration, "100ms", Used, "How long applying may take before it is logged.";
        "bootstrap-defrag-threshold-megabytes" U63, "0", Warned("nothing is defragmented at start"), "Free space at start that is given back.";
        "max-learners" U32, "1", Used, "Learners that the cluster may have.";
        "compaction-sleep-interval" Duration, "0s", Moot, "Has no effect: a compaction yields by itself.";
        "downgrade-check-time" Duration, "5s", Moot, "Has no effect: how far a downgrade is, is looked at twice a second.";
        "snapshot-catchup-entries" U63, "5000", Used, "Entries kept in the log for members that are behind.";
        "api-version" Text, "3.6.0", Used, "Version of the etcd API that is reported to clients.";
    }
    Unsafe {
        "force-new-cluster" Bool, "false", Used, "Give up all other members, once: a new cluster of this member alone with its data.";
        "unsafe-no-fsync" Bool, "false", Used, "Never wait for the disk: a power cut loses data, and may leave a data directory that cannot be started.";
    }
    Other {
        "config-file" Text, "", Used, "A file of YAML with the other flags, which are ignored then.";
        "version" Bool, "false", Used, "Print the version and exit.";
    }
    Deprecated {
        "max-snapshots" U63, "5", Moot, "";
        "v2-deprecation" Text, "not-yet", Moot, "";
        "enable-v2" Bool, "false", NO_V2, "";
        "proxy" Text, "off", Refused("the proxy is not supported"), "";
        "proxy-failure-wait" U63, "5000", Moot, "";
        "proxy-refresh-interval" U63, "30000", Moot, "";
        "proxy-dial-timeout" U63, "1000", Moot, "";
        "proxy-write-timeout" U63, "5000", Moot, "";
        "proxy-read-timeout" U63, "0", Moot, "";
        "cluster-active-size" Text, "", Moot, "";
        "cluster-remove-delay" Text, "", Moot, "";
        "cluster-sync-interval" Text, "", Moot, "";
        "config" Text, "", Moot, "";
        "force" Text, "", Moot, "";
        "max-result-buffer" Text, "", Moot, "";
        "max-retry-attempts" Text, "", Moot, "";
        "peer-heartbeat-interval" Text, "", Moot, "";
        "peer-election-timeout" Text, "", Moot, "";
        "retry-interval" Text, "", Moot, "";
        "snapshot" Text, "", Moot, "";
        "v" Text, "", Moot, "";
        "vv" Text, "", Moot, "";
        "test.coverprofile" Text, "", Moot, "";
        "test.outputdir" Text, "", Moot, "";
    }
}

/// What an older name means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meaning {
    /// The flag of this name.
    Flag(&'static str),
    /// One feature, switched by a truth value.
    Gate(&'static str),
}

/// Flags that were experimental once and have other names since.
pub(crate) const RENAMED: &[(&str, Meaning)] = &[
    ("experimental-backend-bbolt-freelist-type", Meaning::Flag("backend-bbolt-freelist-type")),
    (
        "experimental-bootstrap-defrag-threshold-megabytes",
        Meaning::Flag("bootstrap-defrag-threshold-megabytes"),
    ),
    ("experimental-compact-hash-check-enabled", Meaning::Gate("CompactHashCheck")),
    ("experimental-compact-hash-check-time", Meaning::Flag("compact-hash-check-time")),
    ("experimental-compaction-batch-limit", Meaning::Flag("compaction-batch-limit")),
    ("experimental-compaction-sleep-interval", Meaning::Flag("compaction-sleep-interval")),
    ("experimental-corrupt-check-time", Meaning::Flag("corrupt-check-time")),
    ("experimental-distributed-tracing-address", Meaning::Flag("distributed-tracing-address")),
    (
        "experimental-distributed-tracing-instance-id",
        Meaning::Flag("distributed-tracing-instance-id"),
    ),
    (
        "experimental-distributed-tracing-sampling-rate",
        Meaning::Flag("distributed-tracing-sampling-rate"),
    ),
    (
        "experimental-distributed-tracing-service-name",
        Meaning::Flag("distributed-tracing-service-name"),
    ),
    ("experimental-downgrade-check-time", Meaning::Flag("downgrade-check-time")),
    ("experimental-enable-distributed-tracing", Meaning::Flag("enable-distributed-tracing")),
    ("experimental-enable-lease-checkpoint", Meaning::Gate("LeaseCheckpoint")),
    ("experimental-enable-lease-checkpoint-persist", Meaning::Gate("LeaseCheckpointPersist")),
    ("experimental-initial-corrupt-check", Meaning::Gate("InitialCorruptCheck")),
    ("experimental-max-learners", Meaning::Flag("max-learners")),
    ("experimental-memory-mlock", Meaning::Flag("memory-mlock")),
    (
        "experimental-peer-skip-client-san-verification",
        Meaning::Flag("peer-skip-client-san-verification"),
    ),
    ("experimental-set-member-localaddr", Meaning::Gate("SetMemberLocalAddr")),
    ("experimental-snapshot-catchup-entries", Meaning::Flag("snapshot-catchup-entries")),
    ("experimental-stop-grpc-service-on-defrag", Meaning::Gate("StopGRPCServiceOnDefrag")),
    (
        "experimental-txn-mode-write-with-shared-buffer",
        Meaning::Gate("TxnModeWriteWithSharedBuffer"),
    ),
    ("experimental-warning-apply-duration", Meaning::Flag("warning-apply-duration")),
    (
        "experimental-warning-unary-request-duration",
        Meaning::Flag("warning-unary-request-duration"),
    ),
    (
        "experimental-watch-progress-notify-interval",
        Meaning::Flag("watch-progress-notify-interval"),
    ),
];

/// How far a feature has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Off unless asked for.
    Alpha,
    /// On unless refused.
    Beta,
}

/// A feature that can be switched.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Its name in `--feature-gates`.
    pub(crate) name: &'static str,
    /// How far it has come; also says whether it is on by default.
    pub(crate) stage: Stage,
    /// What becomes of it if somebody switches it.
    pub(crate) fate: Fate,
}

/// All features.
pub(crate) const GATES: &[Gate] = &[
    Gate { name: "StopGRPCServiceOnDefrag", stage: Stage::Alpha, fate: Moot },
    Gate { name: "InitialCorruptCheck", stage: Stage::Alpha, fate: NO_CHECK },
    Gate { name: "CompactHashCheck", stage: Stage::Alpha, fate: NO_CHECK },
    Gate { name: "TxnModeWriteWithSharedBuffer", stage: Stage::Beta, fate: Moot },
    Gate { name: "LeaseCheckpoint", stage: Stage::Alpha, fate: Used },
    Gate { name: "LeaseCheckpointPersist", stage: Stage::Alpha, fate: Used },
    Gate {
        name: "SetMemberLocalAddr",
        stage: Stage::Alpha,
        fate: Warned("the system chooses the address from which members connect"),
    },
    Gate { name: "FastLeaseKeepAlive", stage: Stage::Beta, fate: Moot },
    Gate { name: "PriorityRequest", stage: Stage::Alpha, fate: Moot },
];

/// Keys of the configuration file that stand in a section, and the flags that they mean.
pub(crate) const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "client-transport-security",
        &[
            ("cert-file", "cert-file"),
            ("key-file", "key-file"),
            ("client-cert-file", "client-cert-file"),
            ("client-key-file", "client-key-file"),
            ("client-cert-auth", "client-cert-auth"),
            ("trusted-ca-file", "trusted-ca-file"),
            ("auto-tls", "auto-tls"),
            ("allowed-hostname", "client-cert-allowed-hostname"),
        ],
    ),
    (
        "peer-transport-security",
        &[
            ("cert-file", "peer-cert-file"),
            ("key-file", "peer-key-file"),
            ("client-cert-file", "peer-client-cert-file"),
            ("client-key-file", "peer-client-key-file"),
            ("client-cert-auth", "peer-client-cert-auth"),
            ("trusted-ca-file", "peer-trusted-ca-file"),
            ("auto-tls", "peer-auto-tls"),
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
            ("skip-client-san-verification", "peer-skip-client-san-verification"),
        ],
    ),
    (
        "socket-options",
        &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")],
    ),
    ("discovery-config", &[("token", "discovery-token"), ("client", "discovery-endpoints")]),
];

/// The flag of this name.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// What an older name means.
pub(crate) fn renamed(name: &str) -> Option<Meaning> {
    RENAMED.iter().find(|(old, _)| *old == name).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_what_they_refer_to_exists() {
        let names: BTreeSet<_> = FLAGS.iter().map(|flag| flag.name).collect();
        assert_eq!(names.len(), FLAGS.len());
        for (old, meaning) in RENAMED {
            assert!(!names.contains(old), "{old} is a flag and an old name");
            match meaning {
                Meaning::Flag(name) => assert!(names.contains(name), "{old} means nothing"),
                Meaning::Gate(name) => {
                    assert!(GATES.iter().any(|gate| gate.name == *name), "{old} means nothing");
                }
            }
        }
        for (_, keys) in SECTIONS {
            for (_, name) in *keys {
                assert!(names.contains(name), "{name} is no flag");
            }
        }
    }

    #[test]
    fn only_flags_that_are_shown_have_a_help_text() {
        for flag in FLAGS {
            assert_eq!(flag.help.is_empty(), flag.group == Group::Deprecated, "{}", flag.name);
        }
    }
}
