//! What must hold of any bytes at all. The fuzz targets (`fuzz/`) and the short random runs in
//! these tests call the same functions.

use bytes::Bytes;
use quorate_raft::{HardState, LogId, Membership, SnapshotMeta};
use quorate_wire::{
    EntryHead, Form, HEAD_BYTES_MIN, decode_entry, decode_envelope, encode_entry, encode_envelope,
    encode_envelope_head, payloads,
};

/// Decoding either fails or gives a value whose bytes are the very same.
pub(crate) fn envelope(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(envelope) = decode_envelope(&bytes) else { return false };
    let mut again = Vec::new();
    encode_envelope(&envelope, &mut again);
    assert_eq!(again, bytes, "one value, one form");

    let mut parts = Vec::new();
    encode_envelope_head(&envelope, &mut parts);
    for payload in payloads(&envelope) {
        parts.extend_from_slice(&payload);
    }
    assert_eq!(parts, bytes, "head and payloads are the whole");
    true
}

/// The same for an entry that stands alone.
pub(crate) fn entry(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(entry) = decode_entry(&bytes) else { return false };
    let mut again = Vec::new();
    encode_entry(&entry, &mut again);
    assert_eq!(again, bytes, "one value, one form");
    true
}

/// The same for the values that are parts of something else.
pub(crate) fn parts(bytes: &[u8]) -> bool {
    fn check<T: Form>(bytes: &[u8]) -> bool {
        let Ok(value) = T::from_form(bytes) else { return false };
        assert_eq!(value.to_form(), bytes, "one value, one form");
        true
    }
    check::<HardState>(bytes)
        | check::<LogId>(bytes)
        | check::<EntryHead>(bytes)
        | check::<SnapshotMeta>(bytes)
        | check::<Membership>(bytes)
}

/// Makes the checksum of a damaged head right, so that what is behind it gets its turn.
pub(crate) fn fit_checksum(bytes: &mut [u8]) {
    if bytes.len() < HEAD_BYTES_MIN {
        return;
    }
    let head_len = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
    let Some(rest) = bytes.get(8..head_len) else { return };
    let mut start = [0; 8];
    start[..4].copy_from_slice(&bytes[..4]);
    start[4..].copy_from_slice(&quorate_raft::crc32c(rest).to_le_bytes());
    bytes[4..8].copy_from_slice(&quorate_raft::crc32c(&start).to_le_bytes());
}
