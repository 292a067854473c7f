//! Opening a log: find out what is there, and if all is well, make it fit to be written.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex};

use quorate_raft::{GroupId, Incarnation};

use crate::completions::Completions;
use crate::disk::{Disk, LockError};
use crate::error::{IoFailure, OpenError, Stopped};
use crate::index::Groups;
use crate::log::{Log, Prepared, Random};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::prepare::Chores;
use crate::recovery::fresh::{self, Fresh, open_error};
use crate::recovery::{self, Damage, Examined, Note, RecoveredGroup};
use crate::segment::RECORDS_AT;
use crate::small_file::{self, IDENTITY_FILE, Identity, NEWEST_FILE, Newest, SmallFile};
use crate::wal::{Shared, Wal};

/// A log, and what was found in it.
pub struct Opened {
    /// The log. If there is damage it can only be read.
    pub wal: Wal,
    /// Every group that the log knows of.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// What is damaged. Unless this is empty, the host must not vote, acknowledge or serve: it
    /// says what is damaged, and stops. No file was changed.
    pub damage: Vec<Damage>,
    /// What else happened, for the host's own log.
    pub notes: Vec<Note>,
}

impl Wal {
    /// Opens the log on `disk`, or makes one if there is none.
    ///
    /// Everything in [`Opened::groups`] is durable when this returns: what was not known to be was
    /// written again and synced. Files are changed only if nothing is damaged.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. Damage to the log itself is not an error but in [`Opened::damage`].
    pub fn open(disk: Arc<dyn Disk>, options: &Options) -> Result<Opened, OpenError> {
        let options = options.normal();
        let lock = disk.lock().map_err(|error| match error {
            LockError::Held { holder } => OpenError::Locked { directory: disk.describe(), holder },
            LockError::Io(error) => IoFailure::new("locking", &disk.describe(), &error).into(),
        })?;
        let mut random = Random(options.random);
        let mut examined = recovery::examine(&*disk)?;
        let identity = match &mut examined {
            Some(examined) => {
                let found = check_identity(examined.inventory.identity, &options)?;
                rename_cluster(&*disk, found, &options, examined)?
            }
            None => make_identity(&*disk, &options, &mut random)?,
        };
        let mut damage = Vec::new();
        let mut log = match &mut examined {
            Some(examined) if !examined.damage.is_empty() => {
                damage = std::mem::take(&mut examined.damage);
                let stopped = Some(Stopped::Damaged);
                Log { stopped, ..Log::new(identity, random, examined.written) }
            }
            _ => go_on(&*disk, &options, identity, random, examined.as_mut())?,
        };
        let mut groups = BTreeMap::new();
        let mut notes = Vec::new();
        if let Some(examined) = examined {
            groups = examined.replay.recovered();
            notes = examined.notes;
            for (segment, end) in &examined.segments {
                log.segments.insert(Arc::clone(segment), *end);
            }
            log.groups = examined.replay.into_groups(&mut log.segments);
        }
        let shared = Shared {
            disk,
            options,
            log: Mutex::new(log),
            sync_ended: Condvar::new(),
            chores: Mutex::new(Chores::default()),
            urgent: AtomicUsize::new(0),
            urgent_done: Condvar::new(),
            starts: Mutex::new(()),
            drafts: Mutex::new(Vec::new()),
            _lock: lock,
        };
        Ok(Opened { wal: Wal { shared: Arc::new(shared) }, groups, damage, notes })
    }
}

impl Log {
    fn new(identity: Identity, random: Random, written: u64) -> Self {
        Self {
            identity,
            groups: Groups::default(),
            segments: crate::index::Segments::default(),
            tail: None,
            next: None,
            filling: None,
            spares: Vec::new(),
            next_segment: 1,
            random,
            written,
            durable: written,
            marked: (written, written),
            written_for_groups: written,
            freed: (0, 0),
            leftover: false,
            tail_ended: false,
            installing: None,
            syncing: false,
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            pending: Completions::default(),
            completed: Completions::default(),
            stopped: None,
            metrics: Metrics::default(),
        }
    }
}

fn check_identity(found: Identity, options: &Options) -> Result<Identity, OpenError> {
    if found.cluster != options.cluster && Some(found.cluster) != options.former_cluster {
        return Err(OpenError::OtherCluster { found: found.cluster, expected: options.cluster });
    }
    if found.node != options.node {
        return Err(OpenError::OtherNode { found: found.node, expected: options.node });
    }
    Ok(found)
}

/// Gives the log of the former cluster to the present one. Records and segments do not say whose they
/// are, but by the incarnation, which stays.
fn rename_cluster(
    disk: &dyn Disk,
    found: Identity,
    options: &Options,
    examined: &mut Examined,
) -> Result<Identity, OpenError> {
    let identity = Identity { cluster: options.cluster, ..found };
    if identity != found && examined.damage.is_empty() {
        small_file::replace(disk, IDENTITY_FILE, &identity.to_file()).map_err(open_error)?;
        // What an earlier attempt has left aside has been written over, and got the name.
        let aside = format!("{IDENTITY_FILE}{}", small_file::UNFINISHED);
        examined.inventory.unfinished.retain(|name| *name != aside);
    }
    Ok(identity)
}

fn make_identity(
    disk: &dyn Disk,
    options: &Options,
    random: &mut Random,
) -> Result<Identity, OpenError> {
    if !options.create {
        return Err(OpenError::Empty { directory: disk.describe() });
    }
    let incarnation = Incarnation(random.draw().max(1));
    let identity = Identity { cluster: options.cluster, node: options.node, incarnation };
    small_file::replace(disk, IDENTITY_FILE, &identity.to_file()).map_err(open_error)?;
    Ok(identity)
}

/// Makes the segment in which the log goes on, and tidies up.
fn go_on(
    disk: &dyn Disk,
    options: &Options,
    identity: Identity,
    mut random: Random,
    mut examined: Option<&mut Examined>,
) -> Result<Log, OpenError> {
    let mut unused = Vec::new();
    let mut void = Vec::new();
    let mut number = 1;
    if let Some(examined) = &examined {
        // What was just read may have its names in the page cache only. If they were lost while
        // files are renamed because of what it says, older files would speak of files that are gone.
        small_file::sync_dir(disk).map_err(open_error)?;
        number = examined.inventory.highest_segment() + 1;
        for name in &examined.inventory.unfinished {
            disk.remove(name).map_err(|error| IoFailure::new("removal", name, &error))?;
        }
        (unused, void) = examined.unneeded(disk)?;
        examined.give_up_prepared(disk, &unused)?;
    }
    let made = fresh::make(
        disk,
        options,
        identity,
        &mut random,
        number,
        examined.as_deref_mut(),
        &mut unused,
    )?;
    // Only now are the records safe that were found behind the end of the log before.
    let Fresh { tail, written } = made;
    let mut log = Log::new(identity, random, written);
    for file in unused {
        let keep =
            file.size >= options.segment_bytes && log.spares.len() < options.spare_segments_max;
        if keep {
            log.spares.push(file);
        } else {
            void.push(file.name);
        }
    }
    for name in void {
        disk.remove(&name).map_err(|error| IoFailure::new("removal", &name, &error))?;
    }
    let oldest = examined.and_then(|examined| examined.segments.first().map(|(s, _)| s.number));
    log.freed = (0, oldest.unwrap_or(number));
    log.next_segment = number + 1;
    log.segments.insert(Arc::clone(&tail.segment), tail.place.offset.max(RECORDS_AT));
    log.tail = Some(tail);
    Ok(log)
}

impl Examined {
    /// Segment files that are not part of the log: those without records, which may be used, and
    /// those with records that are void or have still to be moved.
    fn unneeded(&self, disk: &dyn Disk) -> Result<(Vec<Prepared>, Vec<String>), OpenError> {
        let (mut unused, mut void) = (Vec::new(), Vec::new());
        for name in &self.inventory.spares {
            let failure = |error| IoFailure::new("opening", name, &error);
            let file = disk.open(name).map_err(failure)?;
            let size = file.len().map_err(failure)?;
            let (number, name) = (0, name.clone());
            let spare = Prepared { number, name, file, size, filled: size, recycled: true };
            unused.push(spare);
        }
        for (number, file) in &self.inventory.segments {
            if self.segments.iter().any(|(segment, _)| segment.number == *number) {
                continue;
            }
            let prepared = Prepared {
                number: *number,
                name: file.segment.name.clone(),
                file: Arc::clone(&file.segment.file),
                size: file.segment.size,
                filled: file.segment.size,
                recycled: true,
            };
            // A header further on leads to it even if it has none itself.
            let is_used = file.may_be_used() || self.chained.contains(number);
            if is_used { void.push(prepared.name) } else { unused.push(prepared) }
        }
        Ok((unused, void))
    }

    /// Lets go of the files of `unused` that have numbers, so that they may lose their names: until
    /// there is a segment with a higher number, they would be missed.
    fn give_up_prepared(&self, disk: &dyn Disk, unused: &[Prepared]) -> Result<(), OpenError> {
        let Some(newest) = self.inventory.newest else { return Ok(()) };
        let kept = |number: &u64| unused.iter().all(|file| file.number != *number);
        let segment = self.inventory.segments.keys().rev().copied().find(kept).unwrap_or(0);
        let tail = if kept(&newest.tail) { newest.tail } else { self.anchor.0.segment };
        if segment >= newest.segment && tail == newest.tail {
            return Ok(());
        }
        let newest = Newest { segment, tail, ..newest };
        small_file::replace(disk, NEWEST_FILE, &newest.to_file()).map_err(open_error)
    }
}
