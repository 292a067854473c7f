//! Going on alone: a member whose cluster has lost its majority for good becomes a cluster of its own.
//!
//! The file `identity` carries it through crashes. First it says which cluster is left behind and what the new one is called;
//! then the log is given to that one, with an entry that makes this member the only one; then `identity` says that it is done.
//! A start that finds the first without the last goes on from there, whether it is asked to or not.
//!
//! The new cluster has another id, so that members of the old one, should they come back, are refused wherever they knock: two
//! of them would be a majority of what they know, and could undo what this member has done since.
//!
//! Flags stay in unit files. So what was asked for is done once as long as the flag is there, and can be asked for again after
//! a start without it.

use std::io;
use std::path::Path;

use quorate::wal::{Disk, DiskLock, LockError, RealDisk};
use sha1::{Digest, Sha1};

use crate::identity;
use crate::proto::host::Identity;

/// Makes up the mind of a start about the others. Gives back the identity with which it goes on.
pub(crate) fn decide(
    directory: &Path,
    identity: &Identity,
    asked: bool,
    random: u64,
) -> io::Result<Identity> {
    let mut next = identity.clone();
    if identity.former_cluster != 0 {
        // A start that was to do it has not come to its end.
    } else if asked && identity.forced {
        tracing::warn!(
            "--force-new-cluster is ignored: it was carried out already. Take it away; to give up members that were added \
             since, start once without it"
        );
    } else if asked {
        next.former_cluster = identity.cluster;
        next.cluster = new_cluster(identity, random);
        next.members.retain(|member| member.member == identity.member);
        next.joins = false;
        tracing::warn!(
            "former-cluster-id" = format!("{:x}", identity.cluster),
            "cluster-id" = format!("{:x}", next.cluster),
            "local-member-id" = format!("{:x}", identity.member),
            "forcing a new cluster: all other members are given up"
        );
    } else {
        next.forced = false;
    }
    if next != *identity {
        let _alone = lock(directory)?;
        identity::write(directory, &next)?;
    }
    Ok(next)
}

/// Notes that this member is alone.
pub(crate) fn done(directory: &Path, mut identity: Identity, asked: bool) -> io::Result<Identity> {
    identity.former_cluster = 0;
    identity.forced = asked;
    identity::write(directory, &identity)?;
    Ok(identity)
}

/// Nobody else has the directory as long as this is held.
fn lock(directory: &Path) -> io::Result<Box<dyn DiskLock>> {
    RealDisk::new(directory.join("log"))?.lock().map_err(|why| match why {
        LockError::Io(why) => why,
        held @ LockError::Held { .. } => io::Error::other(held),
    })
}

/// An id that no other cluster has, this one's earlier lives included.
fn new_cluster(identity: &Identity, random: u64) -> u64 {
    let mut hash = Sha1::new();
    for part in [identity.cluster, identity.member, random] {
        hash.update(part.to_be_bytes());
    }
    let digest = hash.finalize();
    let id = digest.first_chunk::<8>().copied().map_or(random, u64::from_be_bytes);
    if id == 0 || id == identity.cluster { !identity.cluster } else { id }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use super::*;
    use crate::proto::host::InitialMember;

    fn identity() -> Identity {
        let member = |member| InitialMember { member, ..InitialMember::default() };
        Identity {
            format: identity::FORMAT,
            cluster: 7,
            member: 1,
            members: vec![member(1), member(2)],
            ..Identity::default()
        }
    }

    #[test]
    fn it_is_decided_once_and_carried_through() {
        let directory = std::env::temp_dir().join(format!("quorate-alone-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let decide = |identity: &Identity, asked| decide(&directory, identity, asked, 5).unwrap();
        assert_eq!(decide(&identity(), false), identity());
        assert!(!directory.join("identity").exists(), "nothing was to be written");

        let begun = decide(&identity(), true);
        assert_eq!((begun.former_cluster, begun.members.len()), (7, 1));
        assert!(begun.cluster != 7 && begun.cluster != 0);
        assert_eq!(identity::read(&directory).unwrap().as_ref(), Some(&begun));
        // A start that comes after a crash goes on, even if the flag is gone.
        assert_eq!(decide(&begun, false), begun);
        assert_eq!(decide(&begun, true), begun);

        let ended = done(&directory, begun, true).unwrap();
        assert_eq!(decide(&ended, true), ended, "the flag is still there");
        let without = decide(&ended, false);
        assert_eq!(without, Identity { forced: false, ..ended });
        let again = decide(&without, true);
        assert_eq!(again.former_cluster, without.cluster);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
