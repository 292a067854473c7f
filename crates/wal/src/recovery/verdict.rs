//! The decision table: what is to be made of what a start finds in the log.
//!
//! Everything turns on one question: *was the record that is not there, or not whole, ever said to
//! be durable?* Each record carries a mark, the number up to which all records were known to be
//! durable when it was written, and so do segment headers and the files of groups with an installed
//! snapshot. The highest mark found anywhere is a true statement, wherever it stands, since the
//! process that made it had seen the sync succeed. So:
//!
//! * a record **at or below the mark** was durable, and may have been acknowledged. If it is not
//!   whole, the disk has lost it: *rot*. Nothing is cut, nothing is written, the host is told what
//!   and where, and must not take part until it is repaired;
//! * a record **above the mark** was never said to be durable, as far as anyone can tell. If it is
//!   not whole, this is what a power cut leaves of writes that had not been synced: a *torn tail*.
//!   The log ends before it. Whole records behind it are void too: they build on what is lost.
//!
//! Between a sync and the first mark that covers it lies a window in which rot looks like a torn
//! tail. The next record closes it, or [`Wal::mark`](crate::Wal::mark), or closing the log.
//!
//! `docs/wal-format.md` has the same table with the reasoning for each row.

use super::scan::Looks;

/// What was found where a whole record was expected next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// Nothing that is a record, up to the end of the last segment.
    NoMore(Looks),
    /// Nothing that is a record for some bytes, and then records again.
    Unreadable,
    /// A whole record that does not build on the one before it.
    ChainBroken,
    /// A record whose header is whole, and some of its payloads are not.
    Payload,
    /// A record that is whole, and the bytes that fill it up are not zero.
    Padding,
    /// One of the two copies of a segment's header is not what the other one is.
    HeaderCopy,
    /// Neither copy of a segment's header is whole, but there are records behind it.
    SegmentHeader,
    /// A segment that others refer to has no file.
    SegmentMissing,
}

/// What to make of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The log ends here, as it should.
    End,
    /// The log ends here; what is behind it was never durable.
    TornTail,
    /// Nothing of the log is affected.
    Harmless,
    /// Something durable is lost. Nothing may be changed.
    Rot,
}

/// Judges one finding. `number` is the lowest number of a record that is affected, `mark` the
/// highest mark found anywhere.
pub(crate) const fn judge(found: Found, number: u64, mark: u64) -> Verdict {
    let was_durable = number <= mark;
    match found {
        // The file of a segment gets its name durably before anything is written into it, and
        // loses it only when the log does not need it. No crash removes it.
        Found::SegmentMissing => Verdict::Rot,

        // The next record was durable, and is not there.
        Found::NoMore(_) if was_durable => Verdict::Rot,
        // Prepared and never written.
        Found::NoMore(Looks::Zero) => Verdict::End,
        // Nothing durable is missing. The bytes are what is left of a write that was never synced,
        // or of an earlier use of the file. They are mentioned, because they might also be rot in
        // the window before the mark, which nobody could tell from here.
        Found::NoMore(Looks::Torn | Looks::Other) => Verdict::TornTail,

        // The record that should be here was durable, and is not, or not all of it.
        Found::Unreadable | Found::ChainBroken | Found::Payload | Found::SegmentHeader
            if was_durable =>
        {
            Verdict::Rot
        }
        // Writes that were not synced reach the disk in any order, so a hole may have records
        // behind it; and a write that failed for want of space may have left whole records, which
        // do not build on what was written in its place.
        Found::Unreadable | Found::ChainBroken | Found::Payload | Found::SegmentHeader => {
            Verdict::TornTail
        }

        // Nothing is lost, but a disk that changes bytes is not to be relied on, and the next
        // change may not be harmless: told as rot, and like it repaired before the node goes on.
        Found::Padding | Found::HeaderCopy if was_durable => Verdict::Rot,
        Found::Padding => Verdict::TornTail,
        // The switch to this segment was not synced. Its records, if any, are above the mark and
        // are moved to a new segment anyway.
        Found::HeaderCopy => Verdict::Harmless,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Found; 10] = [
        Found::NoMore(Looks::Zero),
        Found::NoMore(Looks::Torn),
        Found::NoMore(Looks::Other),
        Found::Unreadable,
        Found::ChainBroken,
        Found::Payload,
        Found::Padding,
        Found::HeaderCopy,
        Found::SegmentHeader,
        Found::SegmentMissing,
    ];

    #[test]
    fn nothing_durable_is_ever_cut() {
        for found in ALL {
            assert_eq!(judge(found, 7, 7), Verdict::Rot);
            assert_eq!(judge(found, 7, 8), Verdict::Rot);
        }
    }

    #[test]
    fn above_the_mark_a_log_may_end() {
        assert_eq!(judge(Found::NoMore(Looks::Zero), 8, 7), Verdict::End);
        assert_eq!(judge(Found::NoMore(Looks::Torn), 8, 7), Verdict::TornTail);
        assert_eq!(judge(Found::ChainBroken, 8, 7), Verdict::TornTail);
        assert_eq!(judge(Found::Payload, 8, 7), Verdict::TornTail);
        assert_eq!(judge(Found::HeaderCopy, 8, 7), Verdict::Harmless);
        assert_eq!(judge(Found::SegmentMissing, 8, 7), Verdict::Rot);
    }
}
