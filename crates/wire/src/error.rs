//! What can be wrong with bytes.

use core::fmt;

use quorate_raft::MembershipBytesError;

/// Why bytes are not what they should be. Nothing of them was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WireError {
    /// Written by a newer version of this software. Upgrade, or let the other side speak the
    /// older version.
    Version {
        /// The version found.
        found: u8,
        /// The highest that this software reads.
        supported: u8,
    },
    /// They end before the value does.
    Truncated,
    /// They go on after the value's end.
    Trailing,
    /// They were changed on their way.
    Checksum,
    /// A number in them means nothing, in this version.
    Value {
        /// What the number should have been.
        what: &'static str,
    },
    /// A membership in them is none.
    Membership(MembershipBytesError),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found, supported } => {
                write!(f, "format version {found}; this software reads up to {supported}")
            }
            Self::Truncated => f.write_str("bytes end too early"),
            Self::Trailing => f.write_str("bytes left over"),
            Self::Checksum => f.write_str("checksum does not match"),
            Self::Value { what } => write!(f, "not a valid {what}"),
            Self::Membership(why) => write!(f, "{why}"),
        }
    }
}

impl core::error::Error for WireError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Membership(why) => Some(why),
            _ => None,
        }
    }
}

impl From<MembershipBytesError> for WireError {
    fn from(why: MembershipBytesError) -> Self {
        Self::Membership(why)
    }
}
