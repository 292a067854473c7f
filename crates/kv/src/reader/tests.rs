use bytes::Bytes;

use super::*;
use crate::{
    Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, Put, Reply, Store,
    StoreConfig,
};

fn put(store: &mut Store, key: &str, value: &str) {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let value = Bytes::copy_from_slice(value.as_bytes());
    let put = Command::Put(Put { key, value, ..Put::default() });
    store.apply(&[put], &mut ()).unwrap()[0].as_ref().unwrap();
}

fn compact(store: &mut Store, revision: i64) {
    let compact = Compact { revision: Revision(revision), physical: false };
    store.apply(&[Command::Compact(compact)], &mut ()).unwrap()[0].as_ref().unwrap();
}

fn get(key: &'static str, revision: i64) -> Op {
    let key = Bytes::from_static(key.as_bytes());
    Op::Range(Range { key, revision: Revision(revision), ..Range::default() })
}

/// What is current and what is named: none of it is forgotten while the transaction reads.
#[test]
fn a_transaction_holds_all_that_it_may_read() {
    let mut store = Store::in_memory(StoreConfig::default());
    for value in ["1", "2", "3", "4"] {
        put(&mut store, "a", value);
    }
    let reader = store.reader();
    compact(&mut store, 3);
    let txn = Txn {
        success: vec![get("a", 4), get("a", 2)],
        failure: vec![get("a", 3)],
        ..Txn::default()
    };
    let (pinned, compacted, own) = reader.pin_with(&txn).unwrap();
    assert_eq!((pinned.revision, compacted), (5, 3));
    // What was compacted before is judged when its branch is taken.
    assert_eq!(own.iter().map(|own| own.revision).collect::<Vec<_>>(), [4, 3]);
    put(&mut store, "a", "5");
    compact(&mut store, 6);
    assert!(!store.compact_step(false), "it waits");
    let range = Range { key: Bytes::from_static(b"a"), ..Range::default() };
    for (from, value) in own.iter().zip(["3", "2"]) {
        let reply = range::range(from, &range, from.revision, 5).unwrap();
        assert_eq!(reply.kvs[0].value, value);
    }
    drop((pinned, own));
    while store.compact_step(false) {}
    assert_eq!(store.shared.read().compaction.floor, 6);
}

#[test]
fn long_ranges_are_compared_to_their_end() {
    let mut store = Store::in_memory(StoreConfig::default());
    for number in 0..1000 {
        put(&mut store, &format!("{number:04}"), "x");
    }
    let compare = |key: &str, value: &'static str| Compare {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::from_static(b"1"),
        result: CompareResult::Equal,
        target: CompareTarget::Value(Bytes::from_static(value.as_bytes())),
    };
    let judged = |store: &mut Store, compare: Compare| {
        let txn = Txn { compare: vec![compare], ..Txn::default() };
        let read = store.reader().txn(&txn).unwrap();
        let reply = store.apply(&[Command::Txn(txn)], &mut ()).unwrap();
        assert_eq!(reply, [Ok(Reply::Txn(read.clone()))]);
        read.succeeded
    };
    assert!(judged(&mut store, compare("0", "x")));
    assert!(judged(&mut store, compare("0488", "x")), "512 keys");
    assert!(!judged(&mut store, compare("0999", "y")));
    put(&mut store, "0999", "y");
    assert!(!judged(&mut store, compare("0", "x")));
    assert!(judged(&mut store, compare("0999", "y")));
    let all = DeleteRange {
        key: Bytes::from_static(b"0"),
        range_end: Bytes::from_static(b"\0"),
        prev_kv: false,
    };
    store.apply(&[Command::DeleteRange(all)], &mut ()).unwrap()[0].as_ref().unwrap();
    assert!(!judged(&mut store, compare("0", "x")), "nothing has a value");
}

/// Many keys, read in slices: pages of a limit together are the whole, and every count is that of the whole.
#[test]
fn pages_are_the_whole() {
    let mut store = Store::in_memory(StoreConfig { values_bytes_max: 0, ..StoreConfig::default() });
    for number in 0..3000 {
        put(&mut store, &format!("{number:04}"), &number.to_string());
    }
    let revision = store.reader().revision();
    for number in (0..3000).step_by(3) {
        let key = Bytes::from(format!("{number:04}"));
        let delete = DeleteRange { key, ..DeleteRange::default() };
        store.apply(&[Command::DeleteRange(delete)], &mut ()).unwrap()[0].as_ref().unwrap();
    }
    let reader = store.reader();
    let all = Range {
        key: Bytes::from_static(b"0"),
        range_end: Bytes::from_static(b"\0"),
        ..Range::default()
    };
    for (revision, count) in [(revision, 3000), (Revision(0), 2000)] {
        for limit in [7, 256, 257, 1999, 5000] {
            let (mut key, mut read) = (all.key.clone(), 0);
            loop {
                let page = Range { key, revision, limit, ..all.clone() };
                let reply = reader.range(&page).unwrap();
                assert_eq!(reply.count, count - read);
                read += reply.kvs.len() as i64;
                assert_eq!(reply.more, read < count);
                if !reply.more {
                    break;
                }
                let last = &reply.kvs.last().unwrap().key;
                key = [&last[..], b"\0"].concat().into();
            }
            assert_eq!(read, count);
        }
    }
}
