//! Errors in the words and numbers that clients match on.

use quorate_kv::RequestError;
use tonic::{Code, Status};

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident: $code:ident, $text:literal;)*) => {
        $($(#[$doc])* pub(crate) fn $name() -> Status {
            Status::new(Code::$code, $text)
        })*
    };
}

statuses! {
    too_large: InvalidArgument, "etcdserver: request is too large";
    /// Its code on the wire is not what its name promises, and clients know it so.
    too_many_requests: Unknown, "etcdserver: too many requests";
    no_space: ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    no_leader: Unavailable, "etcdserver: no leader";
    not_leader: FailedPrecondition, "etcdserver: not leader";
    stopped: Unavailable, "etcdserver: server stopped";
    timed_out: Unavailable, "etcdserver: request timed out";
    timed_out_by_leader:
        Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    timed_out_by_connection:
        Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    timed_out_applying: Unavailable,
        "etcdserver: request timed out, waiting for the applied index took too long";
    deadline_exceeded: DeadlineExceeded, "context deadline exceeded";
    not_primary: Unknown, "not a primary lessor";
    learner: FailedPrecondition, "etcdserver: rpc not supported for learner";
    bad_client_version: InvalidArgument, "etcdserver: invalid client api version";
    watch_canceled: Cancelled, "etcdserver: watch canceled";
    member_bad_urls: InvalidArgument, "etcdserver: given member URLs are invalid";
    peer_url_exists: FailedPrecondition, "etcdserver: Peer URLs already exists";
    member_not_found: NotFound, "etcdserver: member not found";
    member_exists: FailedPrecondition, "etcdserver: member ID already exist";
    /// Its code on the wire is not what its name promises, and clients know it so.
    not_enough_started:
        Unknown, "etcdserver: re-configuration failed due to not enough started members";
    unhealthy: Unavailable, "etcdserver: unhealthy cluster";
    not_a_learner: FailedPrecondition, "etcdserver: can only promote a learner member";
    learner_not_ready: FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader";
    too_many_learners: FailedPrecondition, "etcdserver: too many learner members in cluster";
    bad_transferee: FailedPrecondition, "etcdserver: bad leader transferee";
    transfer_timed_out:
        Unknown, "etcdserver: request timed out, leader transfer took too long";
    unknown_method: Unknown, "etcdserver: unknown method";
    bad_downgrade_version: InvalidArgument, "etcdserver: wrong downgrade target version format";
    no_cluster_version:
        FailedPrecondition, "etcdserver: cluster version not found during downgrade";
    downgrade_under_way:
        FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    bad_downgrade_target: InvalidArgument, "etcdserver: invalid downgrade target version";
    sorted_stream: Unimplemented, "RangeStream does not support custom sort orders";
    filtered_stream: Unimplemented, "RangeStream does not support revision filters";
}

/// The code of an error of the store.
const fn code(why: RequestError) -> Code {
    match why {
        RequestError::Compacted | RequestError::FutureRevision | RequestError::LeaseTtlTooLarge => {
            Code::OutOfRange
        }
        RequestError::NoSpace => Code::ResourceExhausted,
        RequestError::LeaseNotFound => Code::NotFound,
        RequestError::LeaseExist => Code::FailedPrecondition,
        RequestError::Corrupt => Code::DataLoss,
        _ => Code::InvalidArgument,
    }
}

/// An error of the store.
pub(crate) fn request(why: RequestError) -> Status {
    Status::new(code(why), why.text())
}

/// This replica cannot go on; its node notices by itself.
pub(crate) fn broken(why: impl std::fmt::Display) -> Status {
    Status::internal(format!("the database of this member failed: {why}"))
}

/// An answer of another kind than the question.
pub(crate) fn confused() -> Status {
    Status::internal(
        "a member of another version has answered in a way that this one does not know",
    )
}

pub(crate) fn read(why: quorate_kv::ReadError) -> Status {
    match why {
        quorate_kv::ReadError::Request(why) => request(why),
        why => broken(why),
    }
}

/// A wait that ended before what was waited for was there.
#[expect(clippy::needless_pass_by_value, reason = "it is what maps errors")]
pub(crate) fn wait(why: quorate::ReadError) -> Status {
    match why {
        quorate::ReadError::Busy => too_many_requests(),
        quorate::ReadError::Stopped(_) => stopped(),
        quorate::ReadError::TimedOut { .. } => timed_out_applying(),
        _ => timed_out(),
    }
}
