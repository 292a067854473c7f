//! Log lines about what happens in a node.

use quorate::{Events, Heard, NodeEvent};

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

fn write(event: &NodeEvent) {
    match event {
        NodeEvent::Role { .. }
        | NodeEvent::Leader { .. }
        | NodeEvent::Membership { .. }
        | NodeEvent::SnapshotTaken { .. }
        | NodeEvent::SnapshotInstalled { .. }
        | NodeEvent::PeerBack { .. }
        | NodeEvent::NoSpace { full: false } => tracing::info!("{event}"),
        NodeEvent::Transport(_) => tracing::info!("{event}"),
        NodeEvent::Stopped(_) => tracing::info!("{event}"),
        _ => tracing::warn!("{event}"),
    }
}
