//! What a log says, for people who look at it.

use bytes::Bytes;
use quorate::Codec;
use quorate_kv::{Alarm, Command, DeleteRange, Op, Put, Range, Txn};

use crate::command::Entry;
use crate::proto::host::host_command;

/// What a command of a member's log asks for, in one line; values only if `values`, else their sizes. What is no command is
/// said to be none.
#[must_use]
pub fn describe_command(bytes: &Bytes, values: bool) -> String {
    match Entry::decode(bytes) {
        Ok(Entry::Store(command)) => store(&command, values),
        Ok(Entry::Host(command)) => match command.command {
            Some(host_command::Command::Attributes(member)) => format!(
                "member {:x} is {:?}, serves {} at {}",
                member.member,
                member.name,
                member.version,
                member.client_urls.join(",")
            ),
            Some(host_command::Command::ClusterVersion(version)) => {
                format!("version of the cluster {version}")
            }
            Some(host_command::Command::Downgrade(version)) if version.is_empty() => {
                "no downgrade any more".to_owned()
            }
            Some(host_command::Command::Downgrade(version)) => format!("downgrade to {version}"),
            None => "a command of a newer member".to_owned(),
        },
        // Nothing is decoded to this.
        Ok(Entry::Encoded(_)) => "a command".to_owned(),
        Err(why) => format!("{} bytes that are no command: {why}", bytes.len()),
    }
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

fn interval(key: &[u8], end: &[u8]) -> String {
    match end {
        [] => quoted(key),
        [0] => format!("{}..", quoted(key)),
        end => format!("{}..{}", quoted(key), quoted(end)),
    }
}

fn put(put: &Put, values: bool) -> String {
    let value = match (put.ignore_value, values) {
        (true, _) => "the value it has".to_owned(),
        (false, true) => quoted(&put.value),
        (false, false) => format!("{} bytes", put.value.len()),
    };
    let lease = match (put.ignore_lease, put.lease) {
        (true, _) => " with the lease it has".to_owned(),
        (false, Some(lease)) => format!(" with lease {:x}", lease.0),
        (false, None) => String::new(),
    };
    format!("put {} {value}{lease}", quoted(&put.key))
}

fn delete(delete: &DeleteRange) -> String {
    format!("delete {}", interval(&delete.key, &delete.range_end))
}

fn range(range: &Range) -> String {
    format!("get {}", interval(&range.key, &range.range_end))
}

fn txn(txn: &Txn, values: bool) -> String {
    let compares: Vec<String> =
        txn.compare.iter().map(|compare| interval(&compare.key, &compare.range_end)).collect();
    let ops = |ops: &[Op]| {
        let ops = ops.iter().map(|op| match op {
            Op::Range(inner) => range(inner),
            Op::Put(inner) => put(inner, values),
            Op::DeleteRange(inner) => delete(inner),
            Op::Txn(inner) => self::txn(inner, values),
        });
        ops.collect::<Vec<_>>().join("; ")
    };
    format!(
        "txn if [{}] then [{}] else [{}]",
        compares.join(", "),
        ops(&txn.success),
        ops(&txn.failure)
    )
}

fn store(command: &Command, values: bool) -> String {
    match command {
        Command::Put(inner) => put(inner, values),
        Command::DeleteRange(inner) => delete(inner),
        Command::Txn(inner) => txn(inner, values),
        Command::Compact(compact) => format!("compact revision {}", compact.revision.0),
        Command::LeaseGrant(grant) => {
            format!("grant lease {:x} for {} s", grant.id.0, grant.ttl_s)
        }
        Command::LeaseRevoke(id) => format!("revoke lease {:x}", id.0),
        Command::LeaseExpire(leases) => {
            let ids: Vec<String> = leases.iter().map(|lease| format!("{:x}", lease.id.0)).collect();
            format!("expire leases {}", ids.join(", "))
        }
        Command::LeaseCheckpoint(checkpoints) => {
            let left = checkpoints.iter().map(|checkpoint| {
                format!("{:x} has {} s", checkpoint.lease.id.0, checkpoint.remaining_s)
            });
            format!("checkpoint leases {}", left.collect::<Vec<_>>().join(", "))
        }
        Command::Alarm(alarm) => match alarm {
            Alarm::List(_) => "list alarms".to_owned(),
            Alarm::Activate(member, kind) => {
                format!("raise alarm {kind:?} of member {:x}", member.0)
            }
            Alarm::Deactivate(member, kind) => {
                format!("lift alarm {kind:?} of member {:x}", member.0)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use quorate_kv::{LeaseGrant, LeaseId};

    use super::*;

    #[test]
    fn commands_are_told_in_one_line() {
        let of = |command: &Command, values| {
            describe_command(&command.encode().expect("a command has bytes"), values)
        };
        let one = Put {
            key: Bytes::from_static(b"a\n"),
            value: Bytes::from_static(b"xyz"),
            lease: Some(LeaseId(0x1f)),
            ..Put::default()
        };
        assert_eq!(of(&Command::Put(one.clone()), false), r#"put "a\n" 3 bytes with lease 1f"#);
        assert_eq!(of(&Command::Put(one.clone()), true), r#"put "a\n" "xyz" with lease 1f"#);
        let both = Txn { success: vec![Op::Put(one)], ..Txn::default() };
        assert_eq!(
            of(&Command::Txn(both), false),
            r#"txn if [] then [put "a\n" 3 bytes with lease 1f] else []"#
        );
        let grant = Command::LeaseGrant(LeaseGrant { id: LeaseId(255), ttl_s: 60 });
        assert_eq!(of(&grant, false), "grant lease ff for 60 s");
        assert!(describe_command(&Bytes::from_static(b"\xff"), false).contains("no command"));
    }
}
