//! `snapshot`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_etcd::proto::etcdserverpb::SnapshotRequest;
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::{Config, RestoreOptions, Url, restore_snapshot, snapshot_status};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::output::{line, object, print, size, table};
use super::{Common, Failure, Form};
use crate::serve::initial_cluster;
use crate::style::Bar;

/// How often a bar is looked after.
const BAR_INTERVAL: Duration = Duration::from_millis(50);

/// Bytes of the hash at the end of a snapshot.
const HASH_LEN: usize = 32;

/// Commands of `snapshot`.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Save all data of a member into a file
    Save {
        /// The file
        file: PathBuf,
    },
    /// Show what is in a file
    Status {
        /// The file
        file: PathBuf,
    },
    /// Make the data directory of a member of a new cluster out of a file
    ///
    /// Do it once for each member, with the same file and the same --initial-cluster; then start them all.
    Restore(Restore),
}

/// `snapshot restore`.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The file
    file: PathBuf,
    /// The data directory, which must be empty or missing; <name>.etcd if not given
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// The member's name
    #[arg(long, default_value = "default")]
    name: String,
    /// The members of the new cluster: name=url,name=url; this member alone if not given
    #[arg(long)]
    initial_cluster: Option<String>,
    /// A word that tells the new cluster from others
    #[arg(long, default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// Where other members will reach this one
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2380")]
    initial_advertise_peer_urls: Vec<Url>,
    /// Take a file whose hash is missing or wrong, such as one copied from a data directory
    #[arg(long)]
    skip_hash_check: bool,
    /// Skip so many revisions, so that none that clients have seen since is given again
    #[arg(long, default_value_t = 0)]
    bump_revision: u64,
    /// Let watches and reads of skipped revisions fail as compacted
    #[arg(long, requires = "bump_revision")]
    mark_compacted: bool,
}

impl Restore {
    fn run(self, common: &Common) -> Result<(), Failure> {
        if self.bump_revision > 0 && !self.mark_compacted {
            return Err(Failure::Input(
                "--mark-compacted required if --bump-revision > 0".to_owned(),
            ));
        }
        let data_dir = self.data_dir.unwrap_or_else(|| format!("{}.etcd", self.name).into());
        let initial_cluster = match &self.initial_cluster {
            Some(text) => initial_cluster(text).map_err(Failure::Input)?,
            None => vec![(self.name.clone(), self.initial_advertise_peer_urls.clone())],
        };
        let options = RestoreOptions {
            config: Config {
                name: self.name,
                initial_cluster,
                initial_cluster_token: self.initial_cluster_token,
                initial_advertise_peer_urls: self.initial_advertise_peer_urls,
                ..Config::new(&data_dir)
            },
            skip_hash_check: self.skip_hash_check,
            bump_revision: self.bump_revision,
            mark_compacted: self.mark_compacted,
        };
        restore(&self.file, &options)?;
        match common.write_out {
            Form::Json => object(&json!({ "dataDir": data_dir.display().to_string() })),
            _ => line(format!("Snapshot restored to {}", data_dir.display())),
        }
    }
}

/// Makes the data of a member, with a bar that shows how much of them is there.
fn restore(file: &Path, options: &RestoreOptions) -> Result<(), Failure> {
    // What is read is not seen from here, but what is written is.
    let total = std::fs::metadata(file).map(|file| file.len()).ok();
    let done = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut bar = Bar::new("restoring", total, size);
            while bar.is_visible() && !done.load(Ordering::Relaxed) {
                bar.set(bytes_below(&options.config.data_dir));
                std::thread::sleep(BAR_INTERVAL);
            }
        });
        let outcome = restore_snapshot(file, options);
        done.store(true, Ordering::Relaxed);
        outcome
    });
    outcome.map_err(|why| Failure::File(why.to_string()))
}

/// Bytes of all files below a directory, as far as they can be seen.
fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn status(path: &Path, common: &Common) -> Result<(), Failure> {
    let status = snapshot_status(path).map_err(|why| Failure::File(why.to_string()))?;
    let cells = [
        format!("{:x}", status.hash),
        status.revision.to_string(),
        status.total_key.to_string(),
        size(status.total_size),
    ];
    match common.write_out {
        Form::Json => object(&json!({
            "hash": status.hash,
            "revision": status.revision,
            "totalKey": status.total_key,
            "totalSize": status.total_size,
        })),
        Form::Simple => line(cells.join(", ")),
        Form::Fields => line(format!(
            "\"Hash\" : {}\n\"Revision\" : {}\n\"Keys\" : {}\n\"Size\" : {}",
            status.hash, status.revision, status.total_key, status.total_size
        )),
        Form::Table => {
            let head = ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"];
            print(table(&head, &[cells.to_vec()], true).as_bytes())
        }
    }
}

/// Carries out a command of `snapshot`.
pub(crate) async fn run(command: Command, common: &Common) -> Result<(), Failure> {
    match command {
        Command::Save { file } => save(common, &file).await,
        Command::Status { file } => status(&file, common),
        Command::Restore(restore) => restore.run(common),
    }
}

/// The file has its name only when it is whole, so whoever finds it can rely on it.
async fn save(common: &Common, path: &Path) -> Result<(), Failure> {
    let channel = common.connect_any().await?;
    let mut client = MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut parts = client.snapshot(SnapshotRequest::default()).await?.into_inner();
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let error = |why: std::io::Error| Failure::File(format!("{}: {why}", partial.display()));
    let mut file = create(&partial).map_err(error)?;
    let mut hash = TrailingHash::default();
    let mut version = String::new();
    let mut bar: Option<Bar> = None;
    let outcome = async {
        while let Some(part) = parts.message().await? {
            hash.update(&part.blob);
            file.write_all(&part.blob).map_err(error)?;
            let bytes = part.blob.len() as u64;
            // Each part says how much is left; servers that do not know it say nothing.
            let total = (part.remaining_bytes > 0).then(|| part.remaining_bytes + bytes);
            bar.get_or_insert_with(|| Bar::new("saving", total, size)).add(bytes);
            if !part.version.is_empty() {
                version = part.version;
            }
        }
        file.sync_all().map_err(error)?;
        if !hash.agrees() {
            return Err(Failure::File(
                "the snapshot has not arrived whole: its hash is wrong; save it again".to_owned(),
            ));
        }
        std::fs::rename(&partial, path)
            .map_err(|why| Failure::File(format!("{}: {why}", path.display())))
    }
    .await;
    drop(bar);
    if let Err(failure) = outcome {
        // What is left of it would only take space.
        let _ = std::fs::remove_file(&partial);
        return Err(failure);
    }
    if common.write_out == Form::Json {
        return object(&json!({ "file": path.display().to_string(), "version": version }));
    }
    line(format!("Snapshot saved at {}", path.display()))?;
    if !version.is_empty() {
        line(format!("Server version {version}"))?;
    }
    Ok(())
}

/// Snapshots hold everything, so nobody else may read them.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Hashes all bytes but the last, and compares with those.
#[derive(Default)]
struct TrailingHash {
    hash: Sha256,
    last: Vec<u8>,
}

impl TrailingHash {
    fn update(&mut self, bytes: &[u8]) {
        self.last.extend_from_slice(bytes);
        let settled = self.last.len().saturating_sub(HASH_LEN);
        self.hash.update(&self.last[..settled]);
        self.last.drain(..settled);
    }

    fn agrees(self) -> bool {
        self.last.len() == HASH_LEN && self.hash.finalize()[..] == self.last[..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_at_the_end_is_that_of_everything_before() {
        let data = vec![7; 1000];
        let mut whole = data.clone();
        whole.extend_from_slice(&Sha256::digest(&data));
        for size in [1, 31, 32, 33, 500, 2000] {
            let mut hash = TrailingHash::default();
            whole.chunks(size).for_each(|chunk| hash.update(chunk));
            assert!(hash.agrees(), "in pieces of {size}");
        }
        let mut hash = TrailingHash::default();
        hash.update(&whole[1..]);
        assert!(!hash.agrees());
        assert!(!TrailingHash::default().agrees());
    }
}
