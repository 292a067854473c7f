//! Who the members are: what the membership and the published attributes say together, and the ids.

use quorate::{MemberRole, Membership, NodeId};
use sha1::{Digest, Sha1};

use crate::data::Attributes;
use crate::proto::etcdserverpb as pb;
use crate::url::{Scheme, Url};

/// What the membership says of a member besides its role: a name, which may be empty, and peer URLs, a line each.
pub(crate) fn context(name: &str, peer_urls: &[String]) -> String {
    let mut text = name.to_owned();
    for url in peer_urls {
        text.push('\n');
        text.push_str(url);
    }
    text
}

/// The name and the peer URLs of a context.
pub(crate) fn of_context(context: &[u8]) -> (String, Vec<String>) {
    let text = String::from_utf8_lossy(context);
    let mut lines = text.split('\n').map(str::to_owned);
    (lines.next().unwrap_or_default(), lines.collect())
}

/// Where a member is dialled: at its peer URLs, whichever answers, with commas between.
pub(crate) fn address_of(context: &[u8]) -> String {
    let (_, urls) = of_context(context);
    let addresses: Vec<String> = urls
        .iter()
        .filter_map(|url| url.parse::<Url>().ok())
        .map(|url| url.address().to_owned())
        .collect();
    addresses.join(",")
}

/// All members, by id.
pub(crate) fn list(membership: &Membership, attributes: &Attributes) -> Vec<pb::Member> {
    let members = membership.members().filter(|(_, member)| member.role != MemberRole::Leaving);
    members
        .map(|(node, member)| {
            let (name, peer_urls) = of_context(&member.context);
            let published = attributes.members.get(&node.0);
            pb::Member {
                id: node.0,
                name: published.map_or(name, |published| published.name.clone()),
                peer_ur_ls: peer_urls,
                client_ur_ls: published
                    .map(|published| published.client_urls.clone())
                    .unwrap_or_default(),
                is_learner: member.role == MemberRole::LEARNER,
            }
        })
        .collect()
}

/// Whether a member counts as started: it has a name.
pub(crate) fn is_started(membership: &Membership, attributes: &Attributes, node: NodeId) -> bool {
    let has_name = |member: &quorate::Member| !of_context(&member.context).0.is_empty();
    attributes.members.contains_key(&node.0) || membership.member(node).is_some_and(has_name)
}

/// Peer URLs of a request: without spaces around, checked, in order. `None` if there are none, or one is none.
pub(crate) fn peer_urls(urls: &[String]) -> Option<Vec<String>> {
    let mut checked = Vec::with_capacity(urls.len());
    for url in urls {
        checked.push(url.trim().parse::<Url>().ok()?.to_string());
    }
    checked.sort_unstable();
    (!checked.is_empty()).then_some(checked)
}

/// Whether this build can reach a member there.
pub(crate) fn is_reachable(url: &str) -> bool {
    url.parse::<Url>().is_ok_and(|url| url.scheme() == Scheme::Http)
}

fn first_bytes(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let first = digest.first_chunk::<8>().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}

/// The id of a member, from its peer URLs and either the token of its cluster or the time when it was added.
pub(crate) fn member_id(peer_urls: &[String], token: &str, added: Option<u64>) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in &urls {
        hash.update(url);
    }
    hash.update(token);
    if let Some(seconds) = added {
        hash.update(seconds.to_string());
    }
    first_bytes(hash)
}

/// The id of a new cluster, from those of its members.
pub(crate) fn cluster_id(members: impl IntoIterator<Item = u64>) -> u64 {
    let mut ids: Vec<u64> = members.into_iter().collect();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.to_be_bytes());
    }
    first_bytes(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_the_protocol_knows() {
        // A member of the defaults, as every new installation has it.
        let id = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster", None);
        assert_eq!(id, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id([id]), 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn a_context_has_name_and_urls() {
        let urls = vec!["http://a:1".to_owned(), "http://b:2".to_owned()];
        let text = context("n", &urls);
        assert_eq!(of_context(text.as_bytes()), ("n".to_owned(), urls));
        assert_eq!(address_of(text.as_bytes()), "a:1,b:2");
        assert_eq!(address_of(b""), "");
    }
}
