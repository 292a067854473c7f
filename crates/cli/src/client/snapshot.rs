//! `snapshot save`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use quorate_etcd::proto::etcdserverpb::SnapshotRequest;
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::output::{line, object};
use super::{Common, Failure, Form};

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
}

/// Carries out a command of `snapshot`.
pub(crate) async fn run(command: Command, common: &Common) -> Result<(), Failure> {
    match command {
        Command::Save { file } => save(common, &file).await,
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
    let outcome = async {
        while let Some(part) = parts.message().await? {
            hash.update(&part.blob);
            file.write_all(&part.blob).map_err(error)?;
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
