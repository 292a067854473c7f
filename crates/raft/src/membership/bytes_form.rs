//! The canonical bytes of a [`Membership`]: what its entry's checksum is made from, and therefore
//! what logs, snapshots and messages must carry. All numbers are little-endian.
//!
//! ```text
//! version u8 = 1 | feature_level u32 | lease_us u64 (0: off)
//! count u32 | per member, by id: id u64, role u8, replaces u64 (0: none),
//!             incarnation u64 (0: unbound), context length u32, context
//! count u32 | per outgoing voter, ascending: id u64
//! ```
//!
//! Roles: 0 voter, 1 learner, 2 learner to be promoted, 3 leaving.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use super::{Member, MemberRole, Membership};
use crate::types::{Incarnation, NodeId};

const VERSION: u8 = 1;

/// Why bytes are not those of a membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MembershipBytesError {
    /// Written by a newer version of this software.
    Version {
        /// The version found.
        found: u8,
    },
    /// They end too early or have bytes left over.
    Length,
    /// They say something that no membership can be: members out of order, an unknown role, an
    /// outgoing voter that is no member, or no voter among the members.
    Content,
}

impl fmt::Display for MembershipBytesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => {
                write!(f, "membership of version {found}; this software reads up to {VERSION}")
            }
            Self::Length => f.write_str("membership bytes end too early or have some left over"),
            Self::Content => f.write_str("membership bytes contradict themselves"),
        }
    }
}

impl core::error::Error for MembershipBytesError {}

impl Membership {
    /// The canonical bytes; equal memberships give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.size());
        out.push(VERSION);
        out.extend_from_slice(&self.feature_level.to_le_bytes());
        out.extend_from_slice(&self.lease_us.unwrap_or(0).to_le_bytes());
        put_count(&mut out, self.members.len());
        for (node, member) in &self.members {
            let (role, replaces) = match member.role {
                MemberRole::Voter => (0, None),
                MemberRole::Learner { promote_when_caught_up, replaces } => {
                    (1 + u8::from(promote_when_caught_up), replaces)
                }
                MemberRole::Leaving => (3, None),
            };
            out.extend_from_slice(&node.0.to_le_bytes());
            out.push(role);
            out.extend_from_slice(&replaces.map_or(0, |node| node.0).to_le_bytes());
            out.extend_from_slice(&member.incarnation.map_or(0, |i| i.0).to_le_bytes());
            put_count(&mut out, member.context.len());
            out.extend_from_slice(&member.context);
        }
        put_count(&mut out, self.outgoing.len());
        for node in &self.outgoing {
            out.extend_from_slice(&node.0.to_le_bytes());
        }
        out.into()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. Never panics, and allocates no more than
    /// `bytes` is long.
    ///
    /// # Errors
    ///
    /// When the bytes are not a membership; see [`MembershipBytesError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MembershipBytesError> {
        let mut reader = Reader { rest: bytes };
        let version = reader.u8()?;
        if version != VERSION {
            return Err(MembershipBytesError::Version { found: version });
        }
        let feature_level = reader.u32()?;
        let lease_us = Some(reader.u64()?).filter(|us| *us > 0);
        let mut members = BTreeMap::new();
        for _ in 0..reader.u32()? {
            let (node, member) = reader.member()?;
            let in_order = members.last_key_value().is_none_or(|(last, _)| *last < node);
            if node == NodeId(0) || !in_order {
                return Err(MembershipBytesError::Content);
            }
            members.insert(node, member);
        }
        let mut outgoing = Vec::new();
        for _ in 0..reader.u32()? {
            let node = NodeId(reader.u64()?);
            let in_order = outgoing.last().is_none_or(|last| *last < node);
            if !in_order || !members.contains_key(&node) {
                return Err(MembershipBytesError::Content);
            }
            outgoing.push(node);
        }
        if !reader.rest.is_empty() {
            return Err(MembershipBytesError::Length);
        }
        let membership = Self::assemble(members, outgoing, feature_level, lease_us);
        if !membership.is_empty() && membership.voters.is_empty() {
            return Err(MembershipBytesError::Content);
        }
        let leaving_without_joint = !membership.is_joint()
            && membership.members.values().any(|member| member.role == MemberRole::Leaving);
        if leaving_without_joint {
            return Err(MembershipBytesError::Content);
        }
        Ok(membership)
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a membership has far fewer than 2^32 parts");
    out.extend_from_slice(&count.to_le_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], MembershipBytesError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(MembershipBytesError::Length)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MembershipBytesError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, MembershipBytesError> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, MembershipBytesError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, MembershipBytesError> {
        self.array().map(u64::from_le_bytes)
    }

    fn member(&mut self) -> Result<(NodeId, Member), MembershipBytesError> {
        let node = NodeId(self.u64()?);
        let role = self.u8()?;
        let replaces = Some(self.u64()?).filter(|id| *id > 0).map(NodeId);
        let incarnation = Some(self.u64()?).filter(|id| *id > 0).map(Incarnation);
        let context_len = self.u32()? as usize;
        let context = Bytes::copy_from_slice(self.take(context_len)?);
        let role = match (role, replaces) {
            (0, None) => MemberRole::Voter,
            (1 | 2, replaces) => {
                MemberRole::Learner { promote_when_caught_up: role == 2, replaces }
            }
            (3, None) => MemberRole::Leaving,
            _ => return Err(MembershipBytesError::Content),
        };
        Ok((node, Member { role, incarnation, context }))
    }
}
