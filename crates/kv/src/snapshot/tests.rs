//! Streams whose checksums are right and whose rows are not.

use redb::backends::InMemoryBackend;

use super::*;

const PLACE: Place = Place { revision: 7, sub: 0 };
const DELETE: &[u8] = &[1, 2, b'k'];

fn stream(rows: impl FnOnce(&mut BlockWriter<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut blocks = BlockWriter::begin(&mut bytes).unwrap();
    rows(&mut blocks);
    blocks.end().unwrap();
    bytes
}

fn end(blocks: &mut BlockWriter<'_>, meta_rows: u64, records: u64) {
    let counts = [meta_rows, records].map(u64::to_le_bytes).concat();
    blocks.push(&[&[END][..], &counts].concat()).unwrap();
}

#[track_caller]
fn refused(why: &str, rows: impl FnOnce(&mut BlockWriter<'_>)) {
    let bytes = stream(rows);
    let told = restore(&mut &bytes[..], InMemoryBackend::new(), 1 << 20).unwrap_err();
    assert!(matches!(&told, RestoreError::Damaged { what } if what.contains(why)), "{told}");
}

#[test]
fn rows_that_make_a_snapshot() {
    let bytes = stream(|blocks| {
        blocks.meta(b"a", &meta::pair(3, 2)).unwrap();
        blocks.meta(b"x", b"").unwrap();
        blocks.record(PLACE, DELETE).unwrap();
        blocks.record(Place { sub: 1, ..PLACE }, DELETE).unwrap();
        end(blocks, 2, 2);
    });
    let place = restore(&mut &bytes[..], InMemoryBackend::new(), 1 << 20).unwrap();
    assert_eq!(place, LogPlace { index: 3, term: 2 });
}

#[test]
fn counts_that_differ() {
    refused("rows are missing", |blocks| end(blocks, 0, 1));
    refused("rows are missing", |blocks| {
        blocks.record(PLACE, DELETE).unwrap();
        end(blocks, 1, 0);
    });
}

#[test]
fn rows_out_of_order() {
    for keys in [[b"x", b"a"], [b"x", b"x"]] {
        refused("meta is out of order", |blocks| {
            for key in keys {
                blocks.meta(key, &meta::pair(3, 2)).unwrap();
            }
        });
    }
    refused("meta is out of order", |blocks| {
        blocks.record(PLACE, DELETE).unwrap();
        blocks.meta(b"x", b"").unwrap();
    });
    for later in [Place { revision: 6, sub: 9 }, PLACE] {
        refused("history is out of order", |blocks| {
            blocks.record(PLACE, DELETE).unwrap();
            blocks.record(later, DELETE).unwrap();
        });
    }
    refused("history is out of order", |blocks| {
        blocks.record(Place { revision: -1, sub: 0 }, DELETE).unwrap();
    });
}

#[test]
fn rows_that_are_none() {
    refused("unknown kind 9", |blocks| blocks.push(&[9]).unwrap());
    refused("meta row named", |blocks| blocks.meta(b"unknown", b"").unwrap());
    refused("part of a snapshot", |blocks| blocks.meta(meta::RESTORING, b"").unwrap());
    refused("record of unknown kind", |blocks| blocks.record(PLACE, &[1, 9]).unwrap());
    refused("impossible length", |blocks| {
        blocks.push(&[META]).unwrap();
        blocks.push(&[0xff; 8]).unwrap();
    });
    refused("ends within a row", |blocks| blocks.push(&[META, 1]).unwrap());
    refused("after its end", |blocks| {
        end(blocks, 0, 0);
        blocks.push(&[0]).unwrap();
    });
}
