//! Why a server does not start, and why it does not run any more.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::url::Url;

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is missing, makes no sense, or is not supported yet.
    Setting {
        /// Which, and what it should be.
        why: String,
    },
    /// An address cannot be listened at.
    Listen {
        /// Which one.
        url: Url,
        /// Why.
        why: io::Error,
    },
    /// The data directory cannot be read or written.
    DataDir {
        /// Which one.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// The data belong to a member that was removed from its cluster.
    Removed {
        /// The member.
        member: u64,
    },
    /// The cluster that is to be joined does not answer, or does not know this member.
    Join {
        /// What is wrong.
        why: String,
    },
    /// The node does not start.
    Node(quorate::StartError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { why } => f.write_str(why),
            Self::Listen { url, why } => write!(f, "cannot listen at {url}: {why}"),
            Self::DataDir { path, why } => write!(f, "data directory {}: {why}", path.display()),
            Self::Removed { member } => write!(
                f,
                "the member {member:x} has been permanently removed from the cluster; its data-dir must be removed"
            ),
            Self::Join { why } => write!(f, "cannot join the cluster: {why}"),
            Self::Node(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { why, .. } | Self::DataDir { why, .. } => Some(why),
            Self::Node(why) => Some(why),
            _ => None,
        }
    }
}

/// Why a server does not run any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// The member was removed from its cluster: its data are of no use any more.
    Removed,
    /// Its node has stopped.
    Node(quorate::StopReason),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => {
                f.write_str("the member has been permanently removed from the cluster")
            }
            Self::Node(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for Stopped {}
