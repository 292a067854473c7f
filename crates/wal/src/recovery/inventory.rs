//! What files there are, and in what order segments form the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_raft::{GroupId, Incarnation};

use super::damage::{Damage, DamageKind};
use crate::disk::Disk;
use crate::error::{IoFailure, OpenError};
use crate::record;
use crate::segment::{self, HeaderPage, PAGE, RECORDS_AT, Segment, SegmentHeader};
use crate::small_file::{
    self, GroupStart, IDENTITY_FILE, Identity, NEWEST_FILE, Newest, Problem, SmallFile, UNFINISHED,
};

/// The files of a directory, looked at but not changed.
pub(crate) struct Inventory {
    pub(crate) identity: Identity,
    pub(crate) newest: Option<Newest>,
    pub(crate) starts: BTreeMap<GroupId, GroupStart>,
    pub(crate) segments: BTreeMap<u64, SegmentFile>,
    /// Files that were being made when the log was last left.
    pub(crate) unfinished: Vec<String>,
    /// Files of segments that were not needed any more.
    pub(crate) spares: Vec<String>,
    /// Small files that are not what was written.
    pub(crate) damage: Vec<Damage>,
}

/// A file with the name of a segment.
pub(crate) struct SegmentFile {
    pub(crate) segment: Arc<Segment>,
    pages: [HeaderPage; 2],
    /// A record seems to begin where the first one would.
    has_first_record: bool,
}

impl SegmentFile {
    /// The header, if one of the copies is whole and is that of this file. A file that was used
    /// before and not yet again has that of its old number, and so none.
    pub(crate) fn header(&self) -> Option<SegmentHeader> {
        self.pages.iter().find_map(|page| match page {
            HeaderPage::Good(header) if header.number == self.segment.number => Some(*header),
            _ => None,
        })
    }

    /// Where the copy of the header is that is not what the other one is.
    pub(crate) fn bad_copy(&self) -> Option<u64> {
        let header = HeaderPage::Good(self.header()?);
        let bad = self.pages.iter().position(|page| *page != header)?;
        Some(bad as u64 * PAGE)
    }

    /// Whether a file may have been used under its number. One that was only prepared has two
    /// pages of zeros, or both copies of an older header.
    pub(crate) fn may_be_used(&self) -> bool {
        match self.pages {
            [HeaderPage::Zero, HeaderPage::Zero] => self.has_first_record,
            [HeaderPage::Good(one), HeaderPage::Good(other)] => {
                one != other || one.number >= self.segment.number
            }
            _ => true,
        }
    }
}

impl Inventory {
    /// Looks at everything but the records. `None` if the directory has no log.
    pub(crate) fn take(disk: &dyn Disk) -> Result<Option<Self>, OpenError> {
        let names =
            disk.list().map_err(|error| IoFailure::new("listing", &disk.describe(), &error))?;
        let has_identity = names.iter().any(|name| name == IDENTITY_FILE);
        let is_ours = |name: &String| {
            name == NEWEST_FILE
                || segment::number_of(name).is_some()
                || GroupStart::group_of(name).is_some()
        };
        if !has_identity {
            return if names.iter().any(is_ours) {
                let why = "is missing, but there are other files of a log";
                Err(OpenError::Identity { file: IDENTITY_FILE.to_owned(), why })
            } else {
                Ok(None)
            };
        }
        let mut inventory = Self {
            identity: read_identity(disk)?,
            newest: None,
            starts: BTreeMap::new(),
            segments: BTreeMap::new(),
            unfinished: Vec::new(),
            spares: Vec::new(),
            damage: Vec::new(),
        };
        for name in names {
            inventory.add(disk, name)?;
        }
        Ok(Some(inventory))
    }

    fn add(&mut self, disk: &dyn Disk, name: String) -> Result<(), OpenError> {
        if name.ends_with(UNFINISHED) {
            self.unfinished.push(name);
        } else if segment::is_spare(&name) {
            self.spares.push(name);
        } else if name == NEWEST_FILE {
            if let Some(newest) = self.read::<Newest>(disk, &name, DamageKind::NewestFile)? {
                self.check_incarnation(&name, newest.incarnation)?;
                self.newest = Some(newest);
            }
        } else if let Some(group) = GroupStart::group_of(&name) {
            if let Some(start) = self.read::<GroupStart>(disk, &name, DamageKind::GroupFile)? {
                self.check_incarnation(&name, start.incarnation)?;
                if start.group == group {
                    self.starts.insert(group, start);
                } else {
                    self.damage.push(Damage::of_file(&name, DamageKind::GroupFile));
                }
            }
        } else if let Some(number) = segment::number_of(&name) {
            if !(1..=segment::NUMBER_MAX).contains(&number) {
                return Err(OpenError::Name { file: name });
            }
            let file = read_segment(disk, number, name)?;
            if let Some(header) = file.header() {
                self.check_incarnation(&file.segment.name, header.identity.incarnation)?;
            }
            self.segments.insert(number, file);
        }
        Ok(())
    }

    fn read<T: SmallFile>(
        &mut self,
        disk: &dyn Disk,
        name: &str,
        kind: DamageKind,
    ) -> Result<Option<T>, OpenError> {
        match T::from_file(&small_file::read(disk, name)?) {
            Ok(value) => Ok(Some(value)),
            Err(Problem::Newer(found)) => {
                let supported = small_file::VERSION;
                Err(OpenError::Newer { file: name.to_owned(), found, supported })
            }
            Err(Problem::Bad(_)) => {
                self.damage.push(Damage::of_file(name, kind));
                Ok(None)
            }
        }
    }

    fn check_incarnation(&self, name: &str, found: Incarnation) -> Result<(), OpenError> {
        if found == self.identity.incarnation {
            return Ok(());
        }
        Err(OpenError::Foreign { file: name.to_owned(), found })
    }

    /// The highest number that a segment file has, or had.
    pub(crate) fn highest_segment(&self) -> u64 {
        let named = self.segments.keys().next_back().copied().unwrap_or(0);
        named.max(self.newest.map_or(0, |newest| newest.segment))
    }

    /// The chain of segments that is the log, oldest first.
    ///
    /// It is followed from its end, the highest number that is in use, by what each header says
    /// of the segment before it. It ends at one that is gone: its number is returned, and whether
    /// it may be gone turns out when the records have been read. If it may not, because it is not
    /// older than `past_missing`, the chain goes on with what is there: which is only good for
    /// telling what is damaged.
    pub(crate) fn chain(&self, past_missing: Option<u64>) -> (Vec<Link<'_>>, Option<u64>) {
        let used = |(_, file): &(&u64, &SegmentFile)| file.header().is_some();
        let highest_below = |number: u64| {
            self.segments.range(..number).rev().find(used).map(|(_, file)| (file, None))
        };
        let mut links = Vec::new();
        let mut missing = None;
        let mut next = highest_below(u64::MAX);
        while let Some((file, end)) = next.take() {
            let header = file.header();
            links.push(Link { file, header, end });
            let number = file.segment.number;
            let Some(header) = header else {
                next = highest_below(number);
                continue;
            };
            let previous = header.previous;
            if previous.segment == 0 {
                break;
            }
            match self.segments.get(&previous.segment) {
                Some(file) => next = Some((file, Some(previous.offset))),
                None => {
                    missing = missing.or(Some(previous.segment));
                    if past_missing.is_some_and(|oldest| previous.segment >= oldest) {
                        next = highest_below(previous.segment);
                    }
                }
            }
        }
        links.reverse();
        (links, missing)
    }
}

/// One segment of the chain.
pub(crate) struct Link<'a> {
    pub(crate) file: &'a SegmentFile,
    pub(crate) header: Option<SegmentHeader>,
    /// Where its records end, according to the segment after it.
    pub(crate) end: Option<u64>,
}

fn read_identity(disk: &dyn Disk) -> Result<Identity, OpenError> {
    let file = IDENTITY_FILE.to_owned();
    match Identity::from_file(&small_file::read(disk, IDENTITY_FILE)?) {
        Ok(identity) => Ok(identity),
        Err(Problem::Newer(found)) => {
            Err(OpenError::Newer { file, found, supported: small_file::VERSION })
        }
        Err(Problem::Bad(why)) => Err(OpenError::Identity { file, why }),
    }
}

fn read_segment(disk: &dyn Disk, number: u64, name: String) -> Result<SegmentFile, OpenError> {
    let failure = |operation, error| IoFailure::new(operation, &name, &error);
    let file = disk.open(&name).map_err(|error| failure("opening", error))?;
    let size = file.len().map_err(|error| failure("reading", error))?;
    let mut start = vec![0; RECORDS_AT as usize + 48];
    let count = file.read_at(&mut start, 0).map_err(|error| failure("reading", error))?;
    start.truncate(count);
    let page = |from: usize| {
        let to = start.len().min(from + PAGE as usize);
        SegmentHeader::from_page(start.get(from..to).unwrap_or_default())
    };
    let pages = [page(0), page(PAGE as usize)];
    let newer = pages.iter().find_map(|page| match page {
        HeaderPage::Newer(version) => Some(*version),
        _ => None,
    });
    if let Some(found) = newer {
        return Err(OpenError::Newer { file: name, found, supported: segment::VERSION });
    }
    let has_first_record = start.get(RECORDS_AT as usize..).is_some_and(record::begins);
    let segment = Arc::new(Segment { number, name, file, size });
    Ok(SegmentFile { segment, pages, has_first_record })
}
