//! The small files beside the log: who the directory belongs to, which segment is the newest, and
//! where each group's log starts.
//!
//! ```text
//! 0   kind      8 bytes: "QUORnode", "QUORnewe" or "QUORgrou"
//! 8   version   u32 = 1
//! 12  CRC32C    u32   of bytes 0..12 and 16..
//! 16  length    u32   of the rest
//! 20  body
//! ```
//!
//! A small file is never changed. A new one is written aside, synced, given the name, and the
//! directory is synced: after a crash the name stands for the old file or the new one, whole.

use std::sync::Arc;

use quorate_raft::{
    ClusterId, GroupId, HardState, Incarnation, Index, LogId, Membership, NodeId, SnapshotMeta,
};
use quorate_wire::{Form, Reader, WireError};

use crate::crc;
use crate::disk::{Disk, is_no_space};
use crate::error::IoFailure;
use crate::record;
use crate::segment::NUMBER_MAX;

/// The version that is written, and the highest that is read.
pub(crate) const VERSION: u32 = 1;
const HEADER_BYTES: usize = 20;
/// Longer files are not read: nothing here comes near it.
const BYTES_MAX: u64 = 64 << 20;

/// The file that says whose directory it is.
pub(crate) const IDENTITY_FILE: &str = "identity";
/// The file that says up to which number segments must exist.
pub(crate) const NEWEST_FILE: &str = "newest";
/// What files that are not finished end in. They are removed by the next start.
pub(crate) const UNFINISHED: &str = ".tmp";
const GROUP_FILE: &str = ".group";

/// A value kept in a small file.
pub(crate) trait SmallFile: Sized {
    /// What the file begins with.
    const KIND: [u8; 8];

    fn put(&self, out: &mut Vec<u8>);

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError>;

    fn to_file(&self) -> Vec<u8> {
        let mut bytes = Self::KIND.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        self.put(&mut bytes);
        let length = u32::try_from(bytes.len() - HEADER_BYTES).expect("small files are small");
        bytes[16..20].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn from_file(bytes: &[u8]) -> Result<Self, Problem> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Problem::Bad("is too short"));
        };
        let word =
            |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|offset: usize| header[at + offset]));
        if header[..8] != Self::KIND {
            return Err(Problem::Bad("does not begin as it should"));
        }
        if word(12) != checksum(bytes) {
            return Err(Problem::Bad("does not match its checksum"));
        }
        if word(8) != VERSION {
            return Err(Problem::Newer(word(8)));
        }
        if word(16) as usize != body.len() {
            return Err(Problem::Bad("is not as long as it says"));
        }
        let mut reader = Reader::new(body);
        let value = Self::take(&mut reader).map_err(|_| Problem::Bad("makes no sense"))?;
        reader.finish().map_err(|_| Problem::Bad("has bytes left over"))?;
        Ok(value)
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc::append(crc::of(&bytes[..12]), &bytes[16..])
}

/// What is wrong with a small file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Problem {
    /// Written by newer software, of that version.
    Newer(u32),
    /// Not what was written.
    Bad(&'static str),
}

/// Whose directory it is. The incarnation is drawn when the directory is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// This directory, among all that ever claimed to be that node.
    pub incarnation: Incarnation,
}

impl SmallFile for Identity {
    const KIND: [u8; 8] = *b"QUORnode";

    fn put(&self, out: &mut Vec<u8>) {
        self.cluster.put(out);
        self.node.put(out);
        self.incarnation.put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            cluster: ClusterId::take(reader)?,
            node: NodeId::take(reader)?,
            incarnation: Incarnation::take(reader)?,
        })
    }
}

/// Which segments were there last, so that a lost one is missed even if no other refers to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Newest {
    pub(crate) incarnation: Incarnation,
    /// The highest number that a segment file has been given: a file with that number or a higher
    /// one must exist.
    pub(crate) segment: u64,
    /// The segment that was being written then: it must exist, unless it has been freed.
    pub(crate) tail: u64,
}

impl SmallFile for Newest {
    const KIND: [u8; 8] = *b"QUORnewe";

    fn put(&self, out: &mut Vec<u8>) {
        self.incarnation.put(out);
        self.segment.put(out);
        self.tail.put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let incarnation = Incarnation::take(reader)?;
        let (segment, tail) = (u64::take(reader)?, u64::take(reader)?);
        if segment.max(tail) > NUMBER_MAX {
            return Err(WireError::Value { what: "number of a segment" });
        }
        Ok(Self { incarnation, segment, tail })
    }
}

/// Where a group's log starts, and what an installed snapshot has put in its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GroupStart {
    pub(crate) incarnation: Incarnation,
    pub(crate) group: GroupId,
    /// Records of the group up to this number mean nothing any more: a snapshot was installed
    /// when they were already durable. Zero: none was.
    pub(crate) reset: u64,
    /// The hard state that came with that snapshot. Later records have later ones.
    pub(crate) hard_state: HardState,
    /// The last entry that is gone, and the configuration there.
    pub(crate) snapshot: SnapshotMeta,
}

impl GroupStart {
    /// A log that has everything.
    pub(crate) fn new(incarnation: Incarnation, group: GroupId) -> Self {
        let snapshot =
            SnapshotMeta { id: LogId::ZERO, membership: Arc::new(Membership::default()) };
        Self { incarnation, group, reset: 0, hard_state: HardState::default(), snapshot }
    }

    /// The file of that group.
    pub(crate) fn file_name(group: GroupId) -> String {
        format!("{:016x}{GROUP_FILE}", group.0)
    }

    /// The group whose file is called that.
    pub(crate) fn group_of(name: &str) -> Option<GroupId> {
        let digits = name.strip_suffix(GROUP_FILE)?;
        let group = GroupId(u64::from_str_radix(digits, 16).ok()?);
        (Self::file_name(group) == name).then_some(group)
    }
}

impl SmallFile for GroupStart {
    const KIND: [u8; 8] = *b"QUORgrou";

    fn put(&self, out: &mut Vec<u8>) {
        self.incarnation.put(out);
        self.group.put(out);
        self.reset.put(out);
        self.hard_state.put(out);
        self.snapshot.put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let start = Self {
            incarnation: Incarnation::take(reader)?,
            group: GroupId::take(reader)?,
            reset: u64::take(reader)?,
            hard_state: HardState::take(reader)?,
            snapshot: SnapshotMeta::take(reader)?,
        };
        if start.snapshot.id.index > Index::MAX || start.reset > record::NUMBER_MAX {
            return Err(WireError::Value { what: "start of a log" });
        }
        Ok(start)
    }
}

/// A failure, and whether anything can be done about it.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing has changed; it may work another time.
    Passing(IoFailure),
    /// What is on the disk is unknown: a sync failed.
    Final(IoFailure),
}

/// Puts `bytes` under `name`, durably, in place of what was there.
pub(crate) fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), Fault> {
    let aside = format!("{name}{UNFINISHED}");
    let passing = |operation, error| Fault::Passing(IoFailure::new(operation, &aside, &error));
    let file = disk.create(&aside).map_err(|error| passing("creation", error))?;
    file.write_at(bytes, 0).map_err(|error| passing("write", error))?;
    file.sync_data().map_err(|error| sync_fault(&aside, &error))?;
    disk.rename(&aside, name).map_err(|error| passing("rename", error))?;
    sync_dir(disk)
}

/// Makes names durable.
pub(crate) fn sync_dir(disk: &dyn Disk) -> Result<(), Fault> {
    disk.sync_dir().map_err(|error| sync_fault(&disk.describe(), &error))
}

/// A failed sync is final, unless it only says that there was no room for a file that nobody
/// needs yet.
pub(crate) fn sync_fault(name: &str, error: &std::io::Error) -> Fault {
    let failure = IoFailure::new("sync", name, error);
    if is_no_space(error) && name.ends_with(UNFINISHED) {
        Fault::Passing(failure)
    } else {
        Fault::Final(failure)
    }
}

/// All bytes of a file that should be small.
pub(crate) fn read(disk: &dyn Disk, name: &str) -> Result<Vec<u8>, IoFailure> {
    let failure = |error| IoFailure::new("read", name, &error);
    let file = disk.open(name).map_err(failure)?;
    let len = file.len().map_err(failure)?.min(BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let count = file.read_at(&mut bytes, 0).map_err(failure)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_and_cut_is_noticed() {
        let start = GroupStart::new(Incarnation(7), GroupId(3));
        let bytes = start.to_file();
        assert_eq!(GroupStart::from_file(&bytes), Ok(start));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(GroupStart::from_file(&flipped).is_err());
        }
        for len in 0..bytes.len() {
            assert!(GroupStart::from_file(&bytes[..len]).is_err());
        }
        assert!(Identity::from_file(&bytes).is_err());
    }

    #[test]
    fn newer_files_are_recognised() {
        let mut bytes = Newest { incarnation: Incarnation(7), segment: 3, tail: 2 }.to_file();
        bytes[8] = 9;
        let sum = checksum(&bytes);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Newest::from_file(&bytes), Err(Problem::Newer(9)));
    }

    #[test]
    fn names_of_groups() {
        let name = GroupStart::file_name(GroupId(0xab));
        assert_eq!(GroupStart::group_of(&name), Some(GroupId(0xab)));
        assert_eq!(GroupStart::group_of("ab.group"), None);
    }
}
