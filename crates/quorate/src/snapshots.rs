//! Where finished snapshots are, and those on their way in.
//!
//! On disk, a snapshot has its final name only when all of it is there, checked and synced. For a
//! plain state machine the latest file *is* its durable state. A fetched file is also the intent to
//! install it: see [`recovery`](crate::recovery).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use quorate_raft::{Index, LogId, Term};

use crate::replica::View;
use crate::snapshot_file::{Head, SnapshotReader, SnapshotWriter};

/// How many finished snapshots are kept: the newest, and the one before, which a peer may be
/// fetching.
const KEPT: usize = 2;
const FINISHED: &str = ".snapshot";
const INCOMING: &str = ".incoming";
const UNFINISHED: &str = ".unfinished";

/// Names the file that an operation failed on, which the system does not.
pub(crate) fn named(operation: &str, path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| {
        let path = path.display();
        io::Error::new(error.kind(), format!("{operation} `{path}` failed: {error}"))
    }
}

/// The bytes of a snapshot, to be read from any offset.
pub(crate) trait Source: Read + Send {
    fn seek_to(&mut self, offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset)).map(|_| ())
    }
}

impl Source for Cursor<Bytes> {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        self.set_position(offset);
        Ok(())
    }
}

pub(crate) enum Snapshots {
    Memory(Mutex<Vec<(LogId, Bytes)>>),
    Directory(PathBuf),
}

impl Snapshots {
    pub(crate) fn in_memory() -> Self {
        Self::Memory(Mutex::default())
    }

    /// Snapshots in files of `directory`, which is made if it does not exist. What was not finished
    /// is removed; what was on its way in is kept, to be resumed.
    pub(crate) fn in_directory(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory).map_err(named("making", &directory))?;
        for name in names(&directory)? {
            if name.ends_with(UNFINISHED) {
                remove(&directory.join(name))?;
            }
        }
        Ok(Self::Directory(directory))
    }

    /// The finished ones, oldest first.
    pub(crate) fn finished(&self) -> io::Result<Vec<LogId>> {
        let mut found: Vec<LogId> = match self {
            Self::Memory(kept) => lock(kept).iter().map(|(id, _)| *id).collect(),
            Self::Directory(directory) => {
                let ids = names(directory)?;
                ids.iter().filter_map(|name| id_of(name.strip_suffix(FINISHED)?)).collect()
            }
        };
        found.sort_unstable_by_key(|id| (id.index, id.term));
        Ok(found)
    }

    /// What messages call it.
    pub(crate) fn describe(&self, id: LogId) -> String {
        match self {
            Self::Memory(_) => format!("{id} in memory"),
            Self::Directory(directory) => {
                directory.join(file_name(id, FINISHED)).display().to_string()
            }
        }
    }

    /// Opens a finished one: its bytes and how many there are.
    pub(crate) fn open(&self, id: LogId) -> io::Result<(Box<dyn Source>, u64)> {
        match self {
            Self::Memory(kept) => {
                let kept = lock(kept);
                let bytes = kept.iter().find(|(kept, _)| *kept == id).map(|(_, bytes)| bytes);
                let bytes = bytes.ok_or(io::ErrorKind::NotFound)?.clone();
                let length = bytes.len() as u64;
                Ok((Box::new(Cursor::new(bytes)), length))
            }
            Self::Directory(directory) => {
                let path = directory.join(file_name(id, FINISHED));
                let file = File::open(&path).map_err(named("opening", &path))?;
                let length = file.metadata().map_err(named("opening", &path))?.len();
                Ok((Box::new(file), length))
            }
        }
    }

    /// Reads a finished one: its head, and then the state machine's part.
    pub(crate) fn read(&self, id: LogId) -> io::Result<(Head, SnapshotReader<impl Read + use<>>)> {
        let (source, _) = self.open(id)?;
        SnapshotReader::new(io::BufReader::with_capacity(1 << 16, source))
    }

    /// Writes a view into a finished snapshot, and drops those before it. Returns its length.
    pub(crate) fn write(&self, head: &Head, view: View) -> io::Result<u64> {
        let id = head.meta.id;
        match self {
            Self::Memory(kept) => {
                let mut writer = SnapshotWriter::new(Vec::new(), head)?;
                view.machine.write_to(&mut writer)?;
                let (bytes, length) = writer.finish()?;
                keep(&mut lock(kept), id, bytes.into());
                Ok(length)
            }
            Self::Directory(directory) => {
                let unfinished = directory.join(file_name(id, UNFINISHED));
                let failed = named("writing", &unfinished);
                let file = File::create(&unfinished).map_err(&failed)?;
                let file = BufWriter::with_capacity(1 << 16, file);
                let mut writer = SnapshotWriter::new(file, head).map_err(&failed)?;
                view.machine.write_to(&mut writer).map_err(&failed)?;
                let (file, length) = writer.finish().map_err(&failed)?;
                let file = file.into_inner().map_err(io::IntoInnerError::into_error);
                file.and_then(|file| file.sync_all()).map_err(&failed)?;
                self.publish(directory, &unfinished, id)?;
                Ok(length)
            }
        }
    }

    fn publish(&self, directory: &Path, from: &Path, id: LogId) -> io::Result<()> {
        fs::rename(from, directory.join(file_name(id, FINISHED)))
            .map_err(named("renaming", from))?;
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(named("syncing", directory))?;
        // Older ones go; that some of them do not is no reason to fail.
        let finished = self.finished()?;
        let old = finished.len().saturating_sub(KEPT);
        for id in &finished[..old] {
            let _ = fs::remove_file(directory.join(file_name(*id, FINISHED)));
        }
        Ok(())
    }

    /// Removes all that are finished but `keep`.
    pub(crate) fn remove_others(&self, keep: Option<LogId>) -> io::Result<()> {
        for id in self.finished()? {
            if Some(id) == keep {
                continue;
            }
            match self {
                Self::Memory(kept) => lock(kept).retain(|(kept, _)| *kept != id),
                Self::Directory(directory) => {
                    remove(&directory.join(file_name(id, FINISHED)))?;
                }
            }
        }
        Ok(())
    }

    /// Begins to receive a snapshot, or goes on with it. Another one that was on its way is
    /// dropped.
    pub(crate) fn receive(&self, id: LogId) -> io::Result<Incoming<'_>> {
        match self {
            Self::Memory(_) => {
                let into = Into::Memory(Vec::new());
                Ok(Incoming { snapshots: self, id, identity: None, offset: 0, into })
            }
            Self::Directory(directory) => {
                // Of which file its beginning is, its name says.
                let stem = file_name(id, ".");
                let mut begun = None;
                for name in names(directory)? {
                    let Some(rest) = name.strip_suffix(INCOMING) else { continue };
                    let of = rest.strip_prefix(&stem).filter(|identity| identity.len() == 16);
                    let of = of.and_then(|identity| u64::from_str_radix(identity, 16).ok());
                    match of {
                        Some(identity) if begun.is_none() => begun = Some((identity, name)),
                        _ => remove(&directory.join(name))?,
                    }
                }
                let (identity, name) = match begun {
                    Some((identity, name)) => (Some(identity), name),
                    None => (None, file_name(id, INCOMING)),
                };
                let path = directory.join(name);
                let mut options = OpenOptions::new();
                let options = options.read(true).write(true).create(true).truncate(false);
                let mut file = options.open(&path).map_err(named("opening", &path))?;
                // The last bytes may be those of a crash; the check at the end would find that, but
                // by then everything is here.
                let offset = file.seek(SeekFrom::End(0))?.saturating_sub(1 << 16);
                file.set_len(offset)?;
                file.seek(SeekFrom::Start(offset))?;
                Ok(Incoming { snapshots: self, id, identity, offset, into: Into::File(path, file) })
            }
        }
    }
}

/// A snapshot on its way in.
pub(crate) struct Incoming<'a> {
    snapshots: &'a Snapshots,
    id: LogId,
    /// Tells files of the same snapshot apart: two nodes may write the same state differently.
    identity: Option<u64>,
    offset: u64,
    into: Into,
}

enum Into {
    Memory(Vec<u8>),
    File(PathBuf, File),
}

impl Incoming<'_> {
    /// Where to go on.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Of which file the bytes before the offset are; `None` as long as there are none.
    pub(crate) fn identity(&self) -> Option<u64> {
        self.identity
    }

    /// What follows is of the file of that identity. If what is here is of another one, it is
    /// dropped, and the file is wanted from its start.
    pub(crate) fn of_file(&mut self, identity: u64) -> io::Result<()> {
        if self.identity == Some(identity) {
            return Ok(());
        }
        self.restart()?;
        self.identity = Some(identity);
        if let (Into::File(path, _), Snapshots::Directory(directory)) =
            (&mut self.into, self.snapshots)
        {
            let suffix = format!(".{identity:016x}{INCOMING}");
            let named = directory.join(file_name(self.id, &suffix));
            fs::rename(&*path, &named)?;
            *path = named;
        }
        Ok(())
    }

    /// Drops what is here.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        self.identity = None;
        self.offset = 0;
        match &mut self.into {
            Into::Memory(all) => all.clear(),
            Into::File(path, file) => {
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                let unnamed = path.with_file_name(file_name(self.id, INCOMING));
                fs::rename(&*path, &unnamed)?;
                *path = unnamed;
            }
        }
        Ok(())
    }

    /// The next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.into {
            Into::Memory(all) => all.extend_from_slice(bytes),
            Into::File(path, file) => file.write_all(bytes).map_err(named("writing", path))?,
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// All is here: checks it, makes it durable, and gives it its name.
    pub(crate) fn finish(self, expected: &Head) -> io::Result<()> {
        let check = |input: &mut dyn Read| {
            let (head, mut rest) = SnapshotReader::new(input)?;
            if head.meta.id != expected.meta.id || head.cluster != expected.cluster {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "this is another snapshot than the one asked for",
                ));
            }
            rest.check_rest()
        };
        match (self.into, self.snapshots) {
            (Into::Memory(bytes), Snapshots::Memory(kept)) => {
                check(&mut bytes.as_slice())?;
                keep(&mut lock(kept), self.id, bytes.into());
                Ok(())
            }
            (Into::File(path, mut file), Snapshots::Directory(directory)) => {
                file.seek(SeekFrom::Start(0))?;
                let checked = check(&mut io::BufReader::with_capacity(1 << 16, &file));
                if let Err(error) = checked {
                    // Not to be resumed: it begins anew the next time.
                    remove(&path)?;
                    return Err(error);
                }
                file.sync_all().map_err(named("syncing", &path))?;
                self.snapshots.publish(directory, &path, self.id)
            }
            _ => unreachable!("it is received where it is kept"),
        }
    }
}

fn lock(kept: &Mutex<Vec<(LogId, Bytes)>>) -> MutexGuard<'_, Vec<(LogId, Bytes)>> {
    kept.lock().expect("nobody panics while holding the snapshots")
}

fn keep(kept: &mut Vec<(LogId, Bytes)>, id: LogId, bytes: Bytes) {
    kept.retain(|(kept, _)| *kept != id);
    kept.push((id, bytes));
    kept.sort_unstable_by_key(|(id, _)| (id.index, id.term));
    let old = kept.len().saturating_sub(KEPT);
    kept.drain(..old);
}

fn file_name(id: LogId, suffix: &str) -> String {
    format!("{:016x}-{:016x}{suffix}", id.index.0, id.term.0)
}

fn id_of(stem: &str) -> Option<LogId> {
    let (index, term) = stem.split_once('-')?;
    let number =
        |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
    Some(LogId::new(Index(number(index)?), Term(number(term)?)))
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).map_err(named("removing", path))
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let failed = named("listing", directory);
    for entry in fs::read_dir(directory).map_err(&failed)? {
        if let Ok(name) = entry.map_err(&failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
