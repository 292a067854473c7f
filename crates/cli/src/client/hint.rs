//! What to do about an error, for people: programs compare the words of errors, so these are only added on a terminal.

use tonic::Code;

use super::Failure;

/// What to do about refusals, by a part of their words.
const REFUSALS: [(&str, &str); 11] = [
    (
        "database space exceeded",
        "make room: `quorate compact REVISION`, `quorate defrag --cluster`, then `quorate alarm disarm`",
    ),
    ("requested lease not found", "`quorate lease list` shows the leases that there are"),
    ("expired or revoked", "`quorate lease grant TTL` makes a new one"),
    ("revision has been compacted", "that history is gone; leave --rev out, or take a newer one"),
    ("is a future revision", "nothing has that revision yet; `quorate status` shows how far it is"),
    ("member not found", "`quorate member list` shows the members and their ids"),
    ("not in sync with leader", "it is still catching up; `quorate status` shows how far it is"),
    (
        "re-configuration failed",
        "the cluster would be at risk; `quorate check` says what is missing",
    ),
    ("unhealthy cluster", "`quorate check` says what is wrong"),
    ("no leader", "a majority of the members must run; `quorate check` says which do"),
    ("leader changed", "an election came between; try again"),
];

/// What may help.
pub(crate) fn hint(failure: &Failure) -> Option<&'static str> {
    let text = failure.to_string();
    let refusal = REFUSALS.iter().find(|(words, _)| text.contains(words));
    match failure {
        _ if refusal.is_some() => refusal.map(|(_, hint)| *hint),
        Failure::Connection(_) => Some(
            "is a server running there? --endpoints or ETCDCTL_ENDPOINTS says where the members are",
        ),
        Failure::Status(status) => match status.code() {
            Code::DeadlineExceeded => Some(
                "the cluster may lack a majority: `quorate check` says more; --command-timeout waits longer",
            ),
            Code::Unavailable => Some("`quorate check` says which members answer"),
            Code::ResourceExhausted => {
                Some("too much at once: try again later, or in smaller parts")
            }
            _ => None,
        },
        Failure::Input(_) | Failure::File(_) | Failure::Unhealthy(_) | Failure::Said(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_helped_has_a_hint() {
        let refused = |text| Failure::Status(tonic::Status::failed_precondition(text));
        let of = |failure: &Failure| hint(failure).unwrap_or_default();
        assert!(of(&refused("etcdserver: mvcc: database space exceeded")).contains("compact"));
        assert!(of(&Failure::Connection("refused".to_owned())).contains("--endpoints"));
        let late = Failure::Status(tonic::Status::deadline_exceeded("no answer within 5s"));
        assert!(of(&late).contains("--command-timeout"));
        assert_eq!(hint(&refused("etcdserver: key not found")), None);
        assert_eq!(hint(&Failure::Said(1)), None);
    }
}
