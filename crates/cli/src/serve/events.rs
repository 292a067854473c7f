//! Log lines about what happens in a node.

use quorate::transport::Note;
use quorate::{Events, Heard, NodeEvent, NodeId};

/// Writes a line for each event until the node has stopped.
pub(crate) async fn tell(mut events: Events) {
    loop {
        match events.next().await {
            Some(Heard::Event(event)) => write(&event),
            Some(Heard::Missed(count)) => {
                tracing::warn!(count, "events came faster than they could be written");
            }
            None => return,
        }
    }
}

/// Ids are hexadecimal wherever people see them.
fn hex(node: NodeId) -> String {
    format!("{:x}", node.0)
}

fn write(event: &NodeEvent) {
    match event {
        NodeEvent::Role { role, term } => tracing::info!(%role, term = term.0, "changed role"),
        NodeEvent::Leader { leader: Some(leader), term } => {
            tracing::info!(leader = hex(*leader), term = term.0, "found a leader");
        }
        NodeEvent::Leader { leader: None, term } => {
            tracing::info!(term = term.0, "no leader is known");
        }
        NodeEvent::SteppedDown { term, why } => {
            tracing::warn!(term = term.0, reason = %why, "gave up leadership");
        }
        NodeEvent::Membership { membership, at } => {
            let members: Vec<String> = membership.members().map(|(id, _)| hex(id)).collect();
            tracing::info!(?members, index = at.0, "changed members");
        }
        NodeEvent::SnapshotTaken { at, bytes } => {
            tracing::info!(at = %at, bytes, "saved snapshot");
        }
        NodeEvent::SnapshotInstalled { at } => tracing::info!(at = %at, "applied snapshot"),
        NodeEvent::FetchFailed { from, snapshot, why } => {
            let from = hex(*from);
            tracing::warn!(from, %snapshot, error = why, "snapshot could not be fetched");
        }
        NodeEvent::BadMessage { peer, why } => {
            tracing::warn!(peer = hex(*peer), error = why, "bad message of a member");
        }
        NodeEvent::PeerSilent { peer } => tracing::warn!(peer = hex(*peer), "member is silent"),
        NodeEvent::PeerBack { peer } => tracing::info!(peer = hex(*peer), "member is back"),
        NodeEvent::NoSpace { full: false } | NodeEvent::Stopped(_) => tracing::info!("{event}"),
        NodeEvent::Transport(note) => write_note(note),
        NodeEvent::Reached { peer } => tracing::info!(peer = hex(*peer), "member is reached again"),
        NodeEvent::Repeated { event, times } => {
            tracing::warn!(times, "what follows has happened so often since it was last told");
            write(event);
        }
        _ => tracing::warn!("{event}"),
    }
}

fn write_note(note: &Note) {
    match note {
        Note::Connected { peer, lane } => {
            tracing::info!(peer = hex(*peer), %lane, "connected to member");
        }
        Note::Disconnected { peer, lane, why } => {
            tracing::info!(peer = hex(*peer), %lane, reason = why, "lost connection to member");
        }
        Note::Refused { node, address, refusal, .. } => {
            tracing::warn!(
                "remote-addr" = address,
                member = hex(*node),
                error = %refusal,
                "rejected connection on peer endpoint"
            );
        }
        Note::RefusedBy { peer, address, refusal } => {
            let peer = hex(*peer);
            tracing::warn!(peer, address, error = %refusal, "refused by member");
        }
        Note::Unreachable { peer, address, why } => {
            let peer = hex(*peer);
            tracing::warn!(peer, address, error = why, "member cannot be reached");
        }
        other => tracing::info!("{other:?}"),
    }
}
