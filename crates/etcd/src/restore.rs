//! Snapshots as files: what is in one, and new clusters made of one.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use quorate_kv::{LogPlace, Opened, Store, StoreConfig};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::error::StartError;
use crate::identity;
use crate::maintenance::SNAPSHOT_ALIGN;
use crate::member::hex;
use crate::members;
use crate::server::{DATABASE, founder};

/// Bytes of the hash behind a snapshot.
const HASH_BYTES: u64 = 32;
const CACHE_BYTES: usize = 64 << 20;

/// How a snapshot becomes the data of a member.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The member: its name, its data directory, peer URLs, and the members of the new cluster.
    pub config: Config,
    /// Restore a file whose hash is missing or wrong.
    pub skip_hash_check: bool,
    /// How many revisions to skip, so that none is given again that clients have seen since the snapshot was made.
    pub bump_revision: u64,
    /// Everything below the revision that is skipped to counts as compacted.
    pub mark_compacted: bool,
}

/// What is in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// A hash of everything in it.
    pub hash: u32,
    /// Its revision.
    pub revision: i64,
    /// Keys in it.
    pub total_key: u64,
    /// Bytes of the file.
    pub total_size: u64,
}

/// Why a snapshot was not restored, or not looked into.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreError {
    /// The data directory is in use.
    DataDir {
        /// Which one.
        path: PathBuf,
    },
    /// There is no hash behind the snapshot.
    HashMissing,
    /// The file is damaged.
    HashWrong {
        /// The hash that the file has.
        expected: String,
        /// The hash of what is in it.
        got: String,
    },
    /// It is no snapshot of this software.
    Snapshot(quorate_kv::RestoreError),
    /// The revision would be too large.
    Revision,
    /// The settings do not describe a member of a new cluster, or its directory cannot be made.
    Start(StartError),
    /// A file cannot be read or written.
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataDir { path } => {
                write!(f, "data-dir \"{}\" not empty or could not be read", path.display())
            }
            Self::HashMissing => f.write_str("snapshot missing hash but --skip-hash-check=false"),
            Self::HashWrong { expected, got } => {
                write!(f, "expected sha256 [{expected}], got [{got}]")
            }
            Self::Snapshot(why) => why.fmt(f),
            Self::Revision => f.write_str("--bump-revision: there are no such revisions"),
            Self::Start(why) => why.fmt(f),
            Self::File { path, why } => write!(f, "{}: {why}", path.display()),
        }
    }
}

impl std::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Snapshot(why) => Some(why),
            Self::Start(why) => Some(why),
            Self::File { why, .. } => Some(why),
            _ => None,
        }
    }
}

impl From<StartError> for RestoreError {
    fn from(why: StartError) -> Self {
        Self::Start(why)
    }
}

fn in_file(path: &Path) -> impl Fn(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |why| RestoreError::File { path: path.clone(), why }
}

/// Makes the data directory of a member of a new cluster out of a snapshot. The others are made in the same way, out of the
/// same file and with the same settings but their own; then all of them are started.
///
/// # Errors
///
/// See [`RestoreError`]. What was made of the directory by then is of no use and can be removed.
pub fn restore_snapshot(file: &Path, options: &RestoreOptions) -> Result<(), RestoreError> {
    let mut config = options.config.clone();
    if config.initial_advertise_peer_urls.is_empty() {
        config.initial_advertise_peer_urls.clone_from(&config.listen_peer_urls);
    }
    let identity = founder(&config)?;
    let in_use = match fs::read_dir(&config.data_dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(why) => why.kind() != io::ErrorKind::NotFound,
    };
    if in_use {
        return Err(RestoreError::DataDir { path: config.data_dir });
    }
    let mut snapshot = File::open(file).map_err(in_file(file))?;
    if !options.skip_hash_check {
        check_hash(&mut snapshot, file)?;
    }
    let directory =
        identity::make_directory(&config.data_dir).map_err(in_file(&config.data_dir))?;
    let path = directory.join(format!("{DATABASE}.new"));
    let (mut store, opened) = load(&mut snapshot, file, &path)?;
    if options.bump_revision > 0 {
        store
            .bump_revision(options.bump_revision, options.mark_compacted)
            .map_err(|_| RestoreError::Revision)?;
    }
    // What the old cluster knew of its members and clients is not the new one's.
    let rows = opened.rows.into_iter().map(|(key, _)| (key, None));
    let at = quorate::SEEDED_AT;
    store.finish(LogPlace { index: at.index.0, term: at.term.0 }, rows);
    if let Some(flush) = store.begin_flush() {
        flush.write().map_err(|why| in_file(&path)(io::Error::other(why.to_string())))?;
    }
    let view = store.reader().snapshot();
    let snapshot = quorate::Snapshot::new(move |out| {
        view.write_to(out).map(drop).map_err(|why| io::Error::other(why.to_string()))
    });
    let contacts = identity
        .members
        .iter()
        .map(|member| (member.member, members::context(&member.name, &member.peer_urls)));
    quorate::seed(&directory, &hex(identity.cluster), identity.member, contacts, snapshot)
        .map_err(StartError::Node)?;
    drop(store);
    fs::remove_file(&path).map_err(in_file(&path))?;
    // Last, so that a directory without it is none.
    identity::write(&directory, &identity).map_err(in_file(&directory))
}

/// Looks into a snapshot.
///
/// # Errors
///
/// See [`RestoreError`].
pub fn snapshot_status(file: &Path) -> Result<SnapshotStatus, RestoreError> {
    let mut snapshot = File::open(file).map_err(in_file(file))?;
    let total_size = snapshot.metadata().map_err(in_file(file))?.len();
    let name = format!("quorate-snapshot-{}-{total_size}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let loaded = load(&mut snapshot, file, &path).and_then(|(store, _)| {
        let reader = store.reader();
        let failed = |why: quorate_kv::ReadError| in_file(&path)(io::Error::other(why.to_string()));
        let hash = reader.hash().map_err(failed)?;
        let all = quorate_kv::Range {
            key: bytes::Bytes::from_static(b"\0"),
            range_end: bytes::Bytes::from_static(b"\0"),
            count_only: true,
            ..quorate_kv::Range::default()
        };
        let count = reader.range(&all).map_err(failed)?.count;
        Ok(SnapshotStatus {
            hash: hash.hash,
            revision: hash.revision.0,
            total_key: count.unsigned_abs(),
            total_size,
        })
    });
    let _ = fs::remove_file(&path);
    loaded
}

/// The store of a snapshot, in a file.
fn load(snapshot: &mut File, file: &Path, path: &Path) -> Result<(Store, Opened), RestoreError> {
    snapshot.seek(SeekFrom::Start(0)).map_err(in_file(file))?;
    let mut reader = BufReader::with_capacity(1 << 18, snapshot);
    quorate_kv::restore_file(&mut reader, path, CACHE_BYTES).map_err(RestoreError::Snapshot)?;
    Store::open_file(path, StoreConfig::default())
        .map_err(|why| in_file(path)(io::Error::other(why.to_string())))
}

fn check_hash(snapshot: &mut File, file: &Path) -> Result<(), RestoreError> {
    let bytes = snapshot.metadata().map_err(in_file(file))?.len();
    if bytes % SNAPSHOT_ALIGN != HASH_BYTES {
        return Err(RestoreError::HashMissing);
    }
    let mut hash = Sha256::new();
    let mut body = BufReader::with_capacity(1 << 18, &mut *snapshot);
    io::copy(&mut (&mut body).take(bytes - HASH_BYTES), &mut hash).map_err(in_file(file))?;
    let mut expected = Vec::new();
    body.read_to_end(&mut expected).map_err(in_file(file))?;
    let got = hash.finalize();
    if got[..] != expected[..] {
        let text = |bytes: &[u8]| {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join("")
        };
        return Err(RestoreError::HashWrong { expected: text(&expected), got: text(&got) });
    }
    Ok(())
}
