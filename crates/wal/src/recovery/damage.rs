//! What a start has to tell: damage, and what else is worth a line in the host's log.

use std::fmt;
use std::ops::RangeInclusive;

use quorate_raft::{GroupId, LogId};

/// Something durable that is not what was written. As long as there is any, the log is only to be
/// read, and the host takes no part: a vote or an acknowledgement may be among what is lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// How many bytes are affected, as far as known.
    pub len: u64,
    /// What they should be.
    pub kind: DamageKind,
    /// The numbers of the records that are lost or damaged; none if only the file's own data is.
    pub records: Option<RangeInclusive<u64>>,
    /// The group, where known.
    pub group: Option<GroupId>,
    /// The entries, where known.
    pub entries: Vec<LogId>,
}

/// What is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DamageKind {
    /// There should be records, and there are none that could be read.
    Records,
    /// A record does not build on the one before it: one is from another time.
    Chain,
    /// Payloads of entries. Which ones, and the vote beside them, is known.
    Payload,
    /// The bytes that fill a record up. Nothing is lost.
    Padding,
    /// One of the two copies of a segment's header. Nothing is lost.
    HeaderCopy,
    /// Both copies of a segment's header.
    SegmentHeader,
    /// The file of a segment is gone.
    SegmentMissing,
    /// The file that says where a group's log starts.
    GroupFile,
    /// That file is gone, or is an older one than records say.
    GroupFileMissing,
    /// The file that says which segments must be there.
    NewestFile,
}

impl Damage {
    pub(crate) fn of_file(file: &str, kind: DamageKind) -> Self {
        let (file, records) = (file.to_owned(), None);
        Self { file, offset: 0, len: 0, kind, records, group: None, entries: Vec::new() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DamageKind::Records => "records are unreadable",
            DamageKind::Chain => "a record does not follow on the one before it",
            DamageKind::Payload => "the payload of an entry is damaged",
            DamageKind::Padding => "bytes between records are damaged",
            DamageKind::HeaderCopy => "one copy of the segment's header is damaged",
            DamageKind::SegmentHeader => "the segment's header is damaged",
            DamageKind::SegmentMissing => "the segment is missing",
            DamageKind::GroupFile => "the file is damaged",
            DamageKind::GroupFileMissing => "the file is missing, or older than the log",
            DamageKind::NewestFile => "the file is damaged or missing",
        };
        write!(f, "`{}` at offset {}: {what}", self.file, self.offset)?;
        if let Some(group) = self.group {
            write!(f, ", group {group}")?;
        }
        if let Some(records) = &self.records {
            write!(f, ", records {} to {}", records.start(), records.end())?;
        }
        for (at, entry) in self.entries.iter().enumerate() {
            write!(f, "{}{entry}", if at == 0 { ", entries " } else { ", " })?;
        }
        Ok(())
    }
}

/// Something that happened at a start and is as it should be after a crash.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Note {
    /// The log was not closed: it ends in something that was never durable, and was cut there.
    TornTail {
        /// The segment.
        file: String,
        /// Where the log ends now.
        offset: u64,
        /// The number of the first record that is not there.
        record: u64,
        /// Whether a record had begun there; if not, it may be what an earlier use of the file
        /// has left.
        begun: bool,
    },
    /// Records that were whole, but not known to be durable, were written again and synced.
    Rewritten {
        /// How many.
        records: u64,
        /// Their bytes.
        bytes: u64,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail { file, offset, record, begun } => {
                let what = if *begun { "a torn write" } else { "bytes that are no record" };
                write!(f, "log cut before record {record}: {what} in `{file}` at offset {offset}")
            }
            Self::Rewritten { records, bytes } => write!(
                f,
                "{records} records ({bytes} bytes) not known to be durable were written again"
            ),
        }
    }
}
