//! Pictures of a cluster: statuses, logs, messages under way.

use quorate_raft::{Index, NodeId};

use crate::cluster::{Cluster, Host};

/// One line for each message under way.
pub(super) fn messages(cluster: &Cluster) -> Vec<String> {
    let messages = cluster.in_flight().iter();
    let lines: Vec<String> = messages.map(|in_flight| in_flight.message.to_string()).collect();
    if lines.is_empty() { vec!["none".to_owned()] } else { lines }
}

/// One line for each node. Of nodes that were asked for by name, also how a leader sees its peers.
pub(super) fn status(cluster: &Cluster, nodes: &[NodeId]) -> Vec<String> {
    let mut lines = Vec::new();
    let wanted = cluster.hosts().filter(|host| nodes.is_empty() || nodes.contains(&host.id()));
    for host in wanted {
        let Some(status) = host.status() else {
            lines.push(match host.start_error() {
                Some(error) => format!("n{} cannot start: {error}", host.id()),
                None => format!("n{} down", host.id()),
            });
            continue;
        };
        let frozen = if host.is_paused() { " frozen" } else { "" };
        lines.push(format!("{status}{frozen}"));
        if nodes.is_empty() {
            continue;
        }
        for peer in &status.peers {
            let snapshot = peer.snapshot.map(|index| format!(" snapshot={index}"));
            lines.push(format!(
                "  n{} {} match={} next={} inflight={}{}",
                peer.node,
                format!("{:?}", peer.mode).to_lowercase(),
                peer.match_index,
                peer.next_index,
                peer.inflight_messages,
                snapshot.unwrap_or_default()
            ));
        }
    }
    lines
}

/// All logs by term, like Figures 6 to 8 of the paper. A dot is an entry that was compacted away,
/// a star marks one that is not durable.
pub(super) fn logs(cluster: &Cluster) -> Vec<String> {
    let last = cluster.hosts().map(|host| host.storage().written().last().index).max();
    let last = last.unwrap_or_default();
    let mut rows: Vec<Vec<String>> = vec![vec!["log".to_owned()]];
    rows[0].extend((1..=last.0).map(|index| index.to_string()));
    for host in cluster.hosts() {
        let cells = (1..=last.0).map(|index| cell(host, Index(index)));
        rows.push(std::iter::once(format!("n{}", host.id())).chain(cells).collect());
    }
    let columns = 0..=usize::try_from(last.0).unwrap_or(usize::MAX);
    let widths: Vec<usize> = columns
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default())
        .collect();
    let line = |(at, row): (usize, &Vec<String>)| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let mut line = cells.collect::<Vec<_>>().join("  ");
        if let Some(host) = at.checked_sub(1).and_then(|at| cluster.hosts().nth(at)) {
            line = format!("{line}  {}", remark(host));
        }
        line.trim_end().to_owned()
    };
    rows.iter().enumerate().map(line).collect()
}

fn cell(host: &Host, index: Index) -> String {
    let (written, durable) = (host.storage().written(), host.storage().durable());
    match written.entry(index) {
        Some(entry) => {
            let is_durable = durable.term_at(index) == Some(entry.term);
            format!("{}{}", entry.term, if is_durable { "" } else { "*" })
        }
        None if index <= written.start.id.index => ".".to_owned(),
        None => String::new(),
    }
}

fn remark(host: &Host) -> String {
    match host.brief() {
        Some(brief) => format!("{}@{} commit={}", brief.role, brief.term, brief.commit_index),
        None => "down".to_owned(),
    }
}
