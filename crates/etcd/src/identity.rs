//! Who a data directory belongs to: written once, before anything else is in it, and believed from then on.
//!
//! ```text
//! DATA/member/identity   "QRid" | CRC32C u32 | the message `host.Identity`
//! DATA/member/db         the store
//! DATA/member/log, snapshots   the library's
//! DATA/member/removed    the member was removed from its cluster
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use prost::Message;

use crate::proto::host::Identity;

const MAGIC: &[u8; 4] = b"QRid";
/// The form of the directory.
pub(crate) const FORMAT: u32 = 1;
const IDENTITY: &str = "identity";
const REMOVED: &str = "removed";

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the file `identity` {why}"))
}

/// The identity in a member's directory, if there is one.
pub(crate) fn read(directory: &Path) -> io::Result<Option<Identity>> {
    let bytes = match fs::read(directory.join(IDENTITY)) {
        Ok(bytes) => bytes,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(why),
    };
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("is none of ours"))?;
    let (crc, body) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("is cut short"))?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(damaged("is damaged"));
    }
    let identity = Identity::decode(body).map_err(|_| damaged("cannot be read"))?;
    if identity.format != FORMAT {
        return Err(damaged(&format!("has format {}; this build knows {FORMAT}", identity.format)));
    }
    Ok(Some(identity))
}

/// Writes the identity, durably and all or nothing.
pub(crate) fn write(directory: &Path, identity: &Identity) -> io::Result<()> {
    let body = identity.encode_to_vec();
    let crc = crc32c::crc32c(&body).to_le_bytes();
    write_file(directory, IDENTITY, &[&MAGIC[..], &crc, &body].concat())
}

/// Notes that the member was removed.
pub(crate) fn mark_removed(directory: &Path) -> io::Result<()> {
    write_file(directory, REMOVED, b"")
}

/// Whether the member was removed.
pub(crate) fn is_removed(directory: &Path) -> bool {
    directory.join(REMOVED).exists()
}

fn write_file(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = directory.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, directory.join(name))?;
    File::open(directory)?.sync_all()
}

/// Makes the directory of a member, if it is not there.
pub(crate) fn make_directory(data_dir: &Path) -> io::Result<std::path::PathBuf> {
    let directory = data_dir.join("member");
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&directory)?;
    Ok(directory)
}
