//! Joining a cluster that runs: its members say which of them this one is.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Config;
use crate::error::StartError;
use crate::identity;
use crate::peer_port::{CLUSTER_HEADER, MemberJson};
use crate::proto::host::{Identity, InitialMember};
use crate::url::Url;

const LIMIT: Duration = Duration::from_secs(5);
/// Rounds through all members, with a pause between: one may just be starting.
const ROUNDS: usize = 10;
const PAUSE: Duration = Duration::from_millis(500);
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Asks the other members who this one is.
pub(crate) async fn identity(
    config: &Config,
    cluster: &[(String, Vec<Url>)],
    own_urls: &[String],
) -> Result<Identity, StartError> {
    let others: Vec<&Url> = cluster
        .iter()
        .filter(|(name, _)| *name != config.name)
        .flat_map(|(_, urls)| urls)
        .collect();
    if others.is_empty() {
        return Err(join("--initial-cluster names no other member"));
    }
    let mut problem = String::new();
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        for url in &others {
            match tokio::time::timeout(LIMIT, ask(url)).await {
                Ok(Ok((id, members))) => match identity_among(id, &members, cluster, own_urls) {
                    Ok(identity) => return Ok(identity),
                    // It may not know of its newest member yet.
                    Err(why) => problem = why,
                },
                Ok(Err(why)) => problem = format!("{url}: {why}"),
                Err(_) => problem = format!("{url} does not answer"),
            }
        }
    }
    Err(join(problem))
}

fn join(why: impl Into<String>) -> StartError {
    StartError::Join { why: why.into() }
}

fn identity_among(
    cluster_id: u64,
    members: &[MemberJson],
    cluster: &[(String, Vec<Url>)],
    own_urls: &[String],
) -> Result<Identity, String> {
    if members.len() != cluster.len() {
        return Err(format!(
            "member count is unequal: --initial-cluster has {}, the cluster has {}",
            cluster.len(),
            members.len()
        ));
    }
    let is_own = |member: &&MemberJson| {
        let mut urls = member.peer_urls.clone();
        urls.sort_unstable();
        urls == own_urls
    };
    let own = members.iter().find(is_own).ok_or_else(|| {
        format!(
            "error validating peerURLs: no member of the cluster has {}; add it first",
            own_urls.join(",")
        )
    })?;
    let initial = |member: &MemberJson| InitialMember {
        member: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
    };
    Ok(Identity {
        format: identity::FORMAT,
        cluster: cluster_id,
        member: own.id,
        members: members.iter().map(initial).collect(),
        joins: true,
        ..Identity::default()
    })
}

/// Asks one member for the cluster's id and its members.
async fn ask(url: &Url) -> Result<(u64, Vec<MemberJson>), String> {
    let failed = |why: std::io::Error| why.to_string();
    let mut stream = TcpStream::connect(url.address()).await.map_err(failed)?;
    let host = url.address();
    let request = format!("GET /members HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.map_err(failed)?;
    let answer = String::from_utf8(answer).map_err(|_| "its answer is no text")?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("its answer is cut short")?;
    let mut lines = head.lines();
    if !lines.next().is_some_and(|status| status.contains(" 200 ")) {
        return Err("it does not say who its members are".to_owned());
    }
    let id = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case(CLUSTER_HEADER))
        .and_then(|(_, value)| u64::from_str_radix(value.trim(), 16).ok())
        .ok_or("it does not say which cluster it is of")?;
    let members =
        serde_json::from_str(body).map_err(|why| format!("its list of members: {why}"))?;
    Ok((id, members))
}
