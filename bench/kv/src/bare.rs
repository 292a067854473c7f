//! redb by itself in the same layout, and an ordered map.
//!
//! A history alone answers no question about a key. So the peer of the store also keeps an ordered map in memory, from each
//! key to its revisions; redb without it is the row that says what the database takes.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use crate::measure::{Puts, Watch, scattered};
use crate::{Plan, key, thousand, value};

const HISTORY: TableDefinition<'static, (u64, u32), &'static [u8]> =
    TableDefinition::new("history");
const META: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("meta");
/// A durable commit comes this often.
pub const FLUSH_S: f64 = 0.2;

fn record(number: u64) -> Vec<u8> {
    [&[0; 30][..], &key(number), &value(number)].concat()
}

fn create(plan: &Plan) -> Database {
    let path = plan.dir.join("bare");
    let _ = std::fs::remove_file(&path);
    let mut builder = Database::builder();
    builder.set_cache_size(64 << 20);
    builder.create(path).expect("a new database")
}

fn write(database: &Database, numbers: std::ops::Range<u64>, is_durable: bool) {
    let mut transaction = database.begin_write().expect("redb begins");
    let durability = if is_durable { Durability::Immediate } else { Durability::None };
    transaction.set_durability(durability).expect("no savepoints");
    transaction.set_quick_repair(is_durable);
    {
        let mut history = transaction.open_table(HISTORY).expect("a table");
        let mut meta = transaction.open_table(META).expect("a table");
        let applied = numbers.end.to_be_bytes();
        for number in numbers {
            history.insert((number, 0), record(number).as_slice()).expect("redb inserts");
        }
        meta.insert(&b"applied"[..], &applied[..]).expect("redb inserts");
    }
    transaction.commit().expect("redb commits");
}

/// One transaction for each batch; now and then a durable one. With an index of keys, or without.
pub fn puts(plan: &Plan, batch: u64, has_index: bool) -> Puts {
    let database = create(plan);
    write(&database, 0..1, true);
    let mut index: BTreeMap<Bytes, Vec<(u64, u32)>> = BTreeMap::new();
    let watch = Watch::start();
    let (mut count, mut worst_s, mut flushed) = (1, 0_f64, Instant::now());
    while watch.wall_s() < plan.seconds {
        let begun = Instant::now();
        if has_index {
            for number in count..count + batch {
                index.entry(key(number)).or_default().push((number, 0));
            }
        }
        let is_durable = flushed.elapsed().as_secs_f64() > FLUSH_S;
        write(&database, count..count + batch, is_durable);
        if is_durable {
            flushed = Instant::now();
        }
        count += batch;
        worst_s = worst_s.max(begun.elapsed().as_secs_f64());
    }
    write(&database, count..count + 1, true);
    let puts = watch.puts(count, worst_s);
    assert!(!has_index || index.len() as u64 == count - 1);
    puts
}

/// Reads of a filled database and of a filled map.
pub fn reads(plan: &Plan) {
    println!();
    let database = create(plan);
    for from in (0..plan.keys).step_by(10_000) {
        write(&database, from..(from + 10_000).min(plan.keys), true);
    }
    let transaction = database.begin_read().expect("redb begins");
    let history = transaction.open_table(HISTORY).expect("a table");
    let get =
        |number: u64| history.get((number, 0)).expect("redb reads").map(|row| row.value().to_vec());
    let watch = Watch::start();
    for n in 0..plan.reads {
        assert!(get(scattered(n, plan.keys)).is_some());
    }
    watch.row("redb: point get", plan.reads);

    let ranges = plan.reads / 500;
    let watch = Watch::start();
    for n in 0..ranges {
        let pairs: Vec<_> = (0..1000).map(|m| get(scattered(n * 1000 + m, plan.keys))).collect();
        assert_eq!(pairs.len(), 1000);
    }
    watch.row("redb: 1000 keys out of the history", ranges);

    let watch = Watch::start();
    let rows = history.range((0, 0)..).expect("redb reads").filter(|row| row.is_ok()).count();
    assert_eq!(rows as u64, plan.keys);
    watch.row("redb: scan, each record", plan.keys);
    drop(history);
    drop(transaction);
    drop(database);

    let map: BTreeMap<_, _> = (0..plan.keys).map(|n| (key(n), (n, n, 1_u64, value(n)))).collect();
    let watch = Watch::start();
    for n in 0..ranges {
        let (from, end) = thousand(n, plan.keys);
        let pairs: Vec<_> =
            map.range(from..end).map(|(key, pair)| (key.clone(), pair.clone())).collect();
        assert!(!pairs.is_empty());
        drop(std::hint::black_box(pairs));
    }
    watch.row("ordered map: 1000-key range", ranges);
}
