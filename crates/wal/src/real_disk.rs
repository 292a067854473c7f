//! A directory of the operating system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, DiskLock, LockError};

/// Holds the process id of whoever has the directory, and the lock.
const LOCK_FILE: &str = "lock";

/// A directory of the operating system as a [`Disk`]. File names are used as they are; directories
/// inside it are none of ours.
#[derive(Clone, Debug)]
pub struct RealDisk {
    directory: PathBuf,
    /// Files are opened for reading, and nothing else is done.
    only_reads: bool,
}

impl RealDisk {
    /// The directory at `path`, made if it does not exist yet, with those above it. Then all their
    /// names are synced, so that a directory with a log in it cannot be lost.
    ///
    /// # Errors
    ///
    /// When it can be neither found nor made.
    pub fn new(path: impl AsRef<Path>) -> io::Result<Self> {
        let directory = path.as_ref().to_path_buf();
        let made = directory.ancestors().take_while(|path| !path.is_dir()).count();
        fs::create_dir_all(&directory)?;
        // Each directory that was made has its name in the one above it.
        for parent in directory.canonicalize()?.ancestors().skip(1).take(made) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { directory, only_reads: false })
    }

    /// The directory at `path`, which must exist; for those who only look. Nothing in it is opened for writing, made,
    /// renamed, removed or locked.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn existing(path: impl AsRef<Path>) -> io::Result<Self> {
        let directory = path.as_ref().to_path_buf();
        if !fs::metadata(&directory)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { directory, only_reads: true })
    }

    /// Who has the directory locked at this moment, as a process id; `None` if nobody has, or if this system does not say.
    /// Nobody is kept from locking it by the question.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        use std::os::unix::fs::MetadataExt as _;
        let path = self.path(LOCK_FILE);
        let claimed: u32 = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        let inode = fs::metadata(&path).ok()?.ino();
        // number: FLOCK ADVISORY WRITE process major:minor:inode from to
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let is_it = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let file = words.get(5)?.rsplit(':').next()?.parse::<u64>().ok()?;
            Some(words[1] == "FLOCK" && words[4] == claimed.to_string() && file == inode)
        };
        locks.lines().any(|line| is_it(line) == Some(true)).then_some(claimed)
    }

    fn writable(&self) -> io::Result<()> {
        if self.only_reads {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "this directory was opened to look at it only",
            ));
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Disk for RealDisk {
    fn describe(&self) -> String {
        self.directory.display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
                && name != LOCK_FILE
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.writable()?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(RealFile { file: file.open(self.path(name))? }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        if self.only_reads {
            return Ok(Arc::new(RealFile { file: File::open(&path)? }));
        }
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            // Whoever may only look, looks.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(&path)?,
            other => other?,
        };
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.writable()?;
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.writable()?;
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    /// The lock is the system's (`flock`), so it ends with the process; the file stays, and only
    /// says whose it is or last was.
    fn lock(&self) -> Result<Box<dyn DiskLock>, LockError> {
        self.writable().map_err(LockError::Io)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(self.path(LOCK_FILE)).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known { holder.trim().to_owned() } else { "unknown".to_owned() };
                return Err(LockError::Held { holder });
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        file.set_len(0).map_err(LockError::Io)?;
        write!(file, "{}", std::process::id()).map_err(LockError::Io)?;
        Ok(Box::new(RealLock { _file: file }))
    }
}

struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Contents, and of the metadata what is needed to find them again: the length.
        self.file.sync_data()
    }
}

struct RealLock {
    _file: File,
}

impl DiskLock for RealLock {}
