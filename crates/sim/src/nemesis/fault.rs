//! One thing that the nemesis does, as a value that can be printed, read back, and left out.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use quorate_raft::{Change, ChangeStep, Index, NodeId};

use crate::storage::Crash;

/// One intervention. Those that set something right again are among them, so that a list of faults
/// with their times is the whole story.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A process dies.
    Crash(NodeId, Crash),
    /// A process dies in its next step, behind so many actions.
    CrashInStep(NodeId, usize, Crash),
    /// It is started again.
    Restart(NodeId),
    /// A process is frozen.
    Pause(NodeId),
    /// It goes on.
    Resume(NodeId),
    /// The network falls into groups.
    Partition(Vec<Vec<NodeId>>),
    /// One direction of a link is cut.
    Cut(NodeId, NodeId),
    /// It is restored.
    Restore(NodeId, NodeId),
    /// All links are restored and unclogged.
    Heal,
    /// Messages in one direction wait for so many microseconds.
    Clog(NodeId, NodeId, u64),
    /// All links lose and double so many messages (parts per million).
    Storm(u32, u32),
    /// All links behave as usual again.
    EndStorm,
    /// A disk takes up to so many microseconds for a sync; zero: as usual.
    SlowDisk(NodeId, u64),
    /// A disk completes nothing for so many microseconds.
    StallDisk(NodeId, u64),
    /// A state machine takes up to so many microseconds for a batch; zero: as usual.
    SlowApply(NodeId, u64),
    /// A data directory is lost. The node comes back without a memory.
    Wipe(NodeId),
    /// A new host waits to be added.
    AddHost(NodeId),
    /// A host that is not needed any more is shut down for ever.
    Retire(NodeId),
    /// A clock runs faster, in parts per million.
    Drift(NodeId, i32),
    /// The first is told that the process of the second has ended.
    Hint(NodeId, NodeId),
    /// Part of a log cannot be read.
    Unreadable(NodeId, Index, Index),
    /// The next sync of a disk fails.
    FailSync(NodeId),
    /// Reads from a disk fail.
    FailReads(NodeId),
    /// A disk has only so many bytes left.
    FullDisk(NodeId, u64),
    /// A disk can be read again, and has room.
    MendDisk(NodeId),
    /// Durable bytes of a log change.
    Rot(NodeId),
    /// It is repaired, and the process started anew.
    Repair(NodeId),
    /// A log is compacted up to there.
    Compact(NodeId, Index),
    /// A state machine's contents are made durable.
    Flush(NodeId),
    /// A node is asked to change the membership.
    Change(NodeId, Change),
    /// A node is asked to hand over leadership.
    Transfer(NodeId, NodeId),
    /// A node is told to campaign.
    Campaign(NodeId),
}

const fn crash_name(crash: Crash) -> &'static str {
    match crash {
        Crash::Kill => "kill",
        Crash::PowerCut => "power-cut",
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(node, crash) => write!(f, "{} {node}", crash_name(*crash)),
            Self::CrashInStep(node, actions, crash) => {
                write!(f, "{}-in-step {node} {actions}", crash_name(*crash))
            }
            Self::Restart(node) => write!(f, "restart {node}"),
            Self::Pause(node) => write!(f, "pause {node}"),
            Self::Resume(node) => write!(f, "resume {node}"),
            Self::Partition(groups) => {
                f.write_str("partition ")?;
                for (at, group) in groups.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "|" })?;
                    for (at, node) in group.iter().enumerate() {
                        write!(f, "{}{node}", if at == 0 { "" } else { "," })?;
                    }
                }
                Ok(())
            }
            Self::Cut(from, to) => write!(f, "cut {from} {to}"),
            Self::Restore(from, to) => write!(f, "restore {from} {to}"),
            Self::Heal => f.write_str("heal"),
            Self::Clog(from, to, us) => write!(f, "clog {from} {to} {us}"),
            Self::Storm(loss, duplicate) => write!(f, "storm {loss} {duplicate}"),
            Self::EndStorm => f.write_str("end-storm"),
            Self::SlowDisk(node, us) => write!(f, "slow-disk {node} {us}"),
            Self::StallDisk(node, us) => write!(f, "stall-disk {node} {us}"),
            Self::SlowApply(node, us) => write!(f, "slow-apply {node} {us}"),
            Self::Wipe(node) => write!(f, "wipe {node}"),
            Self::AddHost(node) => write!(f, "add-host {node}"),
            Self::Retire(node) => write!(f, "retire {node}"),
            Self::Drift(node, ppm) => write!(f, "drift {node} {ppm}"),
            Self::Hint(at, peer) => write!(f, "hint {at} {peer}"),
            Self::Unreadable(node, first, last) => write!(f, "unreadable {node} {first} {last}"),
            Self::FailSync(node) => write!(f, "fail-sync {node}"),
            Self::FailReads(node) => write!(f, "fail-reads {node}"),
            Self::FullDisk(node, left) => write!(f, "full-disk {node} {left}"),
            Self::MendDisk(node) => write!(f, "mend-disk {node}"),
            Self::Rot(node) => write!(f, "rot {node}"),
            Self::Repair(node) => write!(f, "repair {node}"),
            Self::Compact(node, up_to) => write!(f, "compact {node} {up_to}"),
            Self::Flush(node) => write!(f, "flush {node}"),
            Self::Change(node, change) => {
                write!(f, "change {node}")?;
                change.steps.iter().try_for_each(|step| write_step(f, step))
            }
            Self::Transfer(node, to) => write!(f, "transfer {node} {to}"),
            Self::Campaign(node) => write!(f, "campaign {node}"),
        }
    }
}

fn write_step(f: &mut fmt::Formatter<'_>, step: &ChangeStep) -> fmt::Result {
    match step {
        ChangeStep::AddLearner { node, .. } => write!(f, " learner:{node}"),
        ChangeStep::AddVoter { node, replaces: None, .. } => write!(f, " voter:{node}"),
        ChangeStep::AddVoter { node, replaces: Some(old), .. } => {
            write!(f, " voter:{node}/{old}")
        }
        ChangeStep::Promote { node } => write!(f, " promote:{node}"),
        ChangeStep::Demote { node } => write!(f, " demote:{node}"),
        ChangeStep::Remove { node } => write!(f, " remove:{node}"),
        ChangeStep::SetContext { node, context } => {
            write!(f, " context:{node}/{}", String::from_utf8_lossy(context))
        }
        ChangeStep::SetFeatureLevel { level } => write!(f, " features:{level}"),
        ChangeStep::SetLease { lease_us } => write!(f, " lease:{}", lease_us.unwrap_or(0)),
    }
}

/// Why text is no fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultError {
    /// The text.
    pub text: String,
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not something that the nemesis can do", self.text)
    }
}

impl std::error::Error for FaultError {}

impl FromStr for Fault {
    type Err = FaultError;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, FaultError> {
        parse(text).ok_or_else(|| FaultError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Fault> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (name, arguments) = words.split_first()?;
    if *name == "change" {
        let (node, steps) = arguments.split_first()?;
        let steps: Option<Change> = steps.iter().map(|step| parse_step(step)).collect();
        return Some(Fault::Change(parse_node(node)?, steps?));
    }
    if *name == "partition" {
        let groups = arguments.first()?.split('|');
        let group = |group: &str| group.split(',').map(parse_node).collect::<Option<Vec<_>>>();
        return groups.map(group).collect::<Option<Vec<_>>>().map(Fault::Partition);
    }
    let numbers: Option<Vec<i64>> = arguments.iter().map(|word| word.parse().ok()).collect();
    let numbers = numbers?;
    let node = |at: usize| numbers.get(at).map(|number| NodeId(number.unsigned_abs()));
    let number = |at: usize| numbers.get(at).map(|number| number.unsigned_abs());
    let small = |at: usize| number(at).and_then(|number| u32::try_from(number).ok());
    let index = |at: usize| number(at).map(Index);
    Some(match *name {
        "kill" => Fault::Crash(node(0)?, Crash::Kill),
        "power-cut" => Fault::Crash(node(0)?, Crash::PowerCut),
        "kill-in-step" => Fault::CrashInStep(node(0)?, small(1)? as usize, Crash::Kill),
        "power-cut-in-step" => Fault::CrashInStep(node(0)?, small(1)? as usize, Crash::PowerCut),
        "restart" => Fault::Restart(node(0)?),
        "pause" => Fault::Pause(node(0)?),
        "resume" => Fault::Resume(node(0)?),
        "cut" => Fault::Cut(node(0)?, node(1)?),
        "restore" => Fault::Restore(node(0)?, node(1)?),
        "heal" => Fault::Heal,
        "clog" => Fault::Clog(node(0)?, node(1)?, number(2)?),
        "storm" => Fault::Storm(small(0)?, small(1)?),
        "end-storm" => Fault::EndStorm,
        "slow-disk" => Fault::SlowDisk(node(0)?, number(1)?),
        "stall-disk" => Fault::StallDisk(node(0)?, number(1)?),
        "slow-apply" => Fault::SlowApply(node(0)?, number(1)?),
        "wipe" => Fault::Wipe(node(0)?),
        "add-host" => Fault::AddHost(node(0)?),
        "retire" => Fault::Retire(node(0)?),
        "drift" => Fault::Drift(node(0)?, i32::try_from(*numbers.get(1)?).ok()?),
        "hint" => Fault::Hint(node(0)?, node(1)?),
        "unreadable" => Fault::Unreadable(node(0)?, index(1)?, index(2)?),
        "fail-sync" => Fault::FailSync(node(0)?),
        "fail-reads" => Fault::FailReads(node(0)?),
        "full-disk" => Fault::FullDisk(node(0)?, number(1)?),
        "mend-disk" => Fault::MendDisk(node(0)?),
        "rot" => Fault::Rot(node(0)?),
        "repair" => Fault::Repair(node(0)?),
        "compact" => Fault::Compact(node(0)?, index(1)?),
        "flush" => Fault::Flush(node(0)?),
        "transfer" => Fault::Transfer(node(0)?, node(1)?),
        "campaign" => Fault::Campaign(node(0)?),
        _ => return None,
    })
}

fn parse_node(text: &str) -> Option<NodeId> {
    text.parse().ok().map(NodeId)
}

fn parse_step(text: &str) -> Option<ChangeStep> {
    let (name, rest) = text.split_once(':')?;
    let (first, second) = match rest.split_once('/') {
        Some((first, second)) => (first, Some(second)),
        None => (rest, None),
    };
    let context = Bytes::new;
    let node = parse_node(first);
    Some(match name {
        "learner" => ChangeStep::AddLearner { node: node?, context: context() },
        "voter" => {
            let replaces = match second {
                Some(old) => Some(parse_node(old)?),
                None => None,
            };
            ChangeStep::AddVoter { node: node?, context: context(), replaces }
        }
        "promote" => ChangeStep::Promote { node: node? },
        "demote" => ChangeStep::Demote { node: node? },
        "remove" => ChangeStep::Remove { node: node? },
        "context" => {
            let context = Bytes::copy_from_slice(second?.as_bytes());
            ChangeStep::SetContext { node: node?, context }
        }
        "features" => ChangeStep::SetFeatureLevel { level: first.parse().ok()? },
        "lease" => {
            let lease_us: u64 = first.parse().ok()?;
            ChangeStep::SetLease { lease_us: Some(lease_us).filter(|us| *us > 0) }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_read() {
        for text in [
            "kill 1",
            "power-cut 2",
            "kill-in-step 3 2",
            "power-cut-in-step 3 0",
            "partition 1,2|3,4,5",
            "cut 1 2",
            "heal",
            "clog 1 2 5000",
            "storm 100000 2000",
            "end-storm",
            "drift 4 -250",
            "unreadable 1 5 9",
            "fail-sync 1",
            "fail-reads 2",
            "full-disk 3 4096",
            "mend-disk 3",
            "rot 2",
            "change 1 learner:4 voter:5 voter:6/2 promote:7 demote:3 remove:8",
            "change 1 context:2/abc features:1 lease:5000 lease:0",
            "transfer 1 2",
        ] {
            let fault: Fault = text.parse().unwrap();
            assert_eq!(fault.to_string(), text);
        }
        assert!("explode 1".parse::<Fault>().is_err());
        assert!("cut 1".parse::<Fault>().is_err());
        assert!("change 1 voter:x".parse::<Fault>().is_err());
    }
}
