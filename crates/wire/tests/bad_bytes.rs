//! Bad bytes are an error: cut short, changed, or simply anything.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use bytes::Bytes;
use quorate_raft::{HardState, SnapshotMeta};
use quorate_wire::{Form, VERSION, WireError, decode_entry, decode_envelope};
use support::{Rng, checks};

fn encoded(rng: &mut Rng, kind: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    quorate_wire::encode_envelope(&support::envelope(rng, kind), &mut bytes);
    bytes
}

#[test]
fn truncated_anywhere() {
    let mut rng = Rng(11);
    for kind in 0..15 * 20 {
        let bytes = Bytes::from(encoded(&mut rng, kind));
        for len in 0..bytes.len() {
            let error = decode_envelope(&bytes.slice(..len)).unwrap_err();
            assert!(matches!(error, WireError::Truncated), "{len} of {}: {error}", bytes.len());
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(decode_envelope(&longer.into()), Err(WireError::Trailing));
    }
}

#[test]
fn parts_truncated_anywhere() {
    let mut rng = Rng(12);
    for _ in 0..200 {
        let hard_state = support::hard_state(&mut rng).to_form();
        let meta = support::snapshot_meta(&mut rng).to_form();
        let mut entry = Vec::new();
        quorate_wire::encode_entry(&support::entry(&mut rng), &mut entry);
        let entry = Bytes::from(entry);
        for len in 0..hard_state.len() {
            HardState::from_form(&hard_state[..len]).unwrap_err();
        }
        for len in 0..meta.len() {
            SnapshotMeta::from_form(&meta[..len]).unwrap_err();
        }
        for len in 0..entry.len() {
            decode_entry(&entry.slice(..len)).unwrap_err();
        }
    }
}

/// A flipped bit in the head is an error; one in a payload leaves the entry's identity as it was,
/// and its checksum shows it.
#[test]
fn every_bit_flipped() {
    let mut rng = Rng(13);
    for kind in 0..15 * 6 {
        let bytes = encoded(&mut rng, kind);
        let original = decode_envelope(&bytes.clone().into()).unwrap();
        let head_len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match decode_envelope(&flipped.into()) {
                Ok(other) => {
                    assert!(bit / 8 >= head_len, "bit {bit} of the head went unnoticed");
                    let heads = |envelope| {
                        let mut head = Vec::new();
                        quorate_wire::encode_envelope_head(envelope, &mut head);
                        head
                    };
                    assert_eq!(heads(&other), heads(&original));
                }
                Err(error) => {
                    let in_membership = bit / 8 >= head_len;
                    assert!(!in_membership || matches!(error, WireError::Membership(_)));
                }
            }
        }
    }
}

#[test]
fn newer_version() {
    let mut bytes = encoded(&mut Rng(14), 0);
    bytes[0] = VERSION + 1;
    let newer = WireError::Version { found: VERSION + 1, supported: VERSION };
    assert_eq!(decode_envelope(&bytes.into()), Err(newer));
    assert_eq!(decode_entry(&vec![VERSION + 1; 40].into()), Err(newer));
}

/// Lengths and counts beyond what is there: an error before any memory is asked for.
#[test]
fn huge_counts() {
    let mut bytes = vec![0; 24];
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(HardState::from_form(&bytes), Err(WireError::Truncated));
    let mut bytes = vec![0; 16];
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(SnapshotMeta::from_form(&bytes), Err(WireError::Truncated));
}

/// The short run of the fuzz targets: pure noise, noise behind a good start, and damaged values
/// with a checksum made to fit.
#[test]
fn arbitrary_bytes() {
    let mut rng = Rng(15);
    let mut decoded = 0;
    for round in 0..60_000 {
        let mut bytes = match round % 3 {
            0 => rng.bytes(200).to_vec(),
            1 => {
                let mut bytes = encoded(&mut rng, round / 3);
                bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
                bytes.extend_from_slice(&rng.bytes(20));
                bytes
            }
            _ => encoded(&mut rng, round / 3),
        };
        for _ in 0..rng.below(3) {
            if !bytes.is_empty() {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.number() as u8;
            }
        }
        checks::fit_checksum(&mut bytes);
        decoded += u32::from(checks::envelope(&bytes));
        checks::entry(&bytes);
        checks::parts(&bytes);
    }
    assert!(decoded > 1_000, "only {decoded} of the damaged values were still values");
}
