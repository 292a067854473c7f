//! Observations as lines that people read.
//!
//! ```text
//! n2 follower@0 => follower@1
//! n2 persist #1 term=1 voted_for=n1 commit=0
//! n2 -> n1 RequestVoteReply term=1 granted
//! ```

use quorate_node::{Action, NodeMessage};
use quorate_raft::{NodeId, RoleName};

use crate::cluster::{Brief, Fate, Observation, Observed, Told};
use crate::storage::Crash;

/// What is shown of a node beside the story itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Detail {
    /// When writes become durable, not only when they are ordered.
    pub durability: bool,
    /// When entries are applied, not only when this is ordered.
    pub applies: bool,
}

/// The line of one observation, without its time; `None` if it is not worth one.
#[must_use]
pub fn line(observation: &Observation) -> Option<String> {
    let lines = lines(std::slice::from_ref(observation), |_| Detail::default());
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// The lines of observations that belong together, those of one command or one event.
#[must_use]
pub fn lines(observations: &[Observation], detail: impl Fn(NodeId) -> Detail) -> Vec<String> {
    let mut lines = Vec::new();
    // Messages that were lost as they were sent are told once.
    let mut told: Vec<&NodeMessage> = Vec::new();
    for (at, observation) in observations.iter().enumerate() {
        let node = observation.node;
        match &observation.what {
            Observed::Stepped { before, after } => changes(&mut lines, node, before, after),
            Observed::Action(Action::Send { message, .. }) => {
                let lost = is_lost(&observations[at + 1..], node, message);
                if lost {
                    told.push(message);
                }
                lines.push(format!("{message}{}", if lost { " (lost)" } else { "" }));
            }
            Observed::Action(Action::Reply { id, reply }) => {
                let value = match observations.get(at + 1).map(|next| &next.what) {
                    Some(Observed::Answered { value: Some(value), .. }) if !value.is_empty() => {
                        format!(": {}", String::from_utf8_lossy(value))
                    }
                    _ => String::new(),
                };
                lines.push(format!("n{node} {id} {reply}{value}"));
            }
            Observed::Action(Action::Notice(notice)) => {
                lines.push(format!("n{node} notice: {notice}"));
            }
            Observed::Action(action) => lines.push(format!("n{node} {action}")),
            Observed::Message { message, fate: Fate::Lost } => {
                match told.iter().position(|sent| *sent == message) {
                    Some(at) => {
                        told.remove(at);
                    }
                    None => lines.push(format!("{message} (lost)")),
                }
            }
            Observed::Message { message, fate: Fate::Unreachable } => {
                lines.push(format!("{message} (n{node} is down)"));
            }
            what => lines.extend(rest(node, what, detail(node))),
        }
    }
    lines
}

/// Whether a message that was just sent is among those that the same step lost.
fn is_lost(behind: &[Observation], node: NodeId, message: &NodeMessage) -> bool {
    behind
        .iter()
        .take_while(|next| match &next.what {
            Observed::Action(_) | Observed::Answered { .. } => next.node == node,
            Observed::Message { fate: Fate::Lost, .. } | Observed::Crashed { .. } => true,
            _ => false,
        })
        .any(
            |next| matches!(&next.what, Observed::Message { message: lost, .. } if lost == message),
        )
}

/// How a node looks different after a step.
fn changes(lines: &mut Vec<String>, node: NodeId, before: &Brief, after: &Brief) {
    if (before.role, before.term) != (after.role, after.term) {
        lines.push(format!(
            "n{node} {}@{} => {}@{}",
            before.role, before.term, after.role, after.term
        ));
    }
    if let Some(leader) = after.leader
        && after.role == RoleName::Follower
        && (before.leader, before.term) != (after.leader, after.term)
    {
        lines.push(format!("n{node} follows n{leader}"));
    }
    if before.commit_index != after.commit_index {
        lines.push(format!("n{node} commit {} => {}", before.commit_index, after.commit_index));
    }
    // Who is a member in which role. That data directories were bound, or descriptions changed,
    // shows in the entry.
    let (from, to) = (before.membership.to_string(), after.membership.to_string());
    if from != to {
        lines.push(format!("n{node} members [{from}] => [{to}]"));
    }
}

/// Everything but steps, actions and messages.
fn rest(node: NodeId, what: &Observed, detail: Detail) -> Option<String> {
    Some(match what {
        Observed::Started { recovered, life, .. } if *life > 1 => format!(
            "n{node} restart {} log={}..{} applied={}",
            recovered.hard_state,
            recovered.snapshot.id.index,
            recovered.last_index,
            recovered.applied
        ),
        Observed::Started { brief, .. } if brief.membership.is_empty() => {
            format!("n{node} starts, member of nothing")
        }
        Observed::Disk(news) => format!("n{node} disk: {news}"),
        Observed::StartFailed(error) => format!("n{node} cannot start: {error}"),
        Observed::Crashed { crash, unsynced, lost, .. } => {
            let name = match crash {
                Crash::Kill => "killed",
                Crash::PowerCut => "loses power",
            };
            let writes = match (unsynced, lost) {
                (0, _) => String::new(),
                (_, 0) => format!(", {} not durable", count(*unsynced, "write")),
                (all, lost) if all == lost => format!(", {} lost", count(*lost, "write")),
                (all, lost) => format!(", {lost} of {} lost", count(*all, "write")),
            };
            format!("n{node} {name}{writes}")
        }
        Observed::Paused(true) => format!("n{node} frozen"),
        Observed::Paused(false) => format!("n{node} goes on"),
        Observed::Wiped(incarnation) => {
            format!("n{node} wiped, now incarnation {:x}", incarnation.0)
        }
        Observed::Told(Told::PeerClosed { peer }) => {
            format!("n{node} hears that the process of n{peer} has ended")
        }
        Observed::Told(Told::Fetched { complete: false }) => format!("n{node} fetch failed"),
        Observed::Told(Told::Loaded { error: Some(error) }) => {
            format!("n{node} load failed: {error:?}")
        }
        Observed::Durable(seq) if detail.durability => format!("n{node} durable #{seq}"),
        Observed::Applied { entries, .. } if detail.applies => {
            let last = entries.last().map(|(id, _)| id.index).unwrap_or_default();
            format!("n{node} applied {last}")
        }
        Observed::Installed { snapshot, .. } => format!("n{node} installed {snapshot}"),
        Observed::Abandoned { id } => format!("n{node} {id} is never answered"),
        _ => return None,
    })
}

fn count(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
