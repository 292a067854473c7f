use std::collections::BTreeMap;

use super::values::VALUE_OVERHEAD_BYTES;
use super::*;

fn place(revision: i64) -> Place {
    Place { revision, sub: 0 }
}

fn put(index: &mut Index, key: &str, value: &str, revision: i64) {
    index.put(key.as_bytes(), value.as_bytes(), None, place(revision));
}

#[test]
fn ranges_are_those_of_requests() {
    let mut index = Index::new(1 << 20);
    for (revision, key) in (2..).zip(["a", "b", "b\0", "c"]) {
        put(&mut index, key, "x", revision);
    }
    let keys = |key: &'static str, end: &'static str| {
        let range = KeyRange::new(key.as_bytes(), end.as_bytes());
        assert_eq!(index.count(range, 9, 100).count, index.range(range).count() as i64);
        index.range(range).count()
    };
    assert_eq!(keys("b", ""), 1);
    assert_eq!(keys("b", "\0"), 3);
    assert_eq!(keys("b", "c"), 2);
    assert_eq!(keys("b", "b"), 0);
    assert_eq!(keys("c", "a"), 0);
    assert_eq!(keys("\0", "\0"), 4);
    let after = |key: &'static [u8]| KeyRange::new(b"a", b"c").after(key);
    assert_eq!(index.range(after(b"b")).count(), 1);
    assert_eq!(index.range(after(b"c")).count(), 0);
    assert_eq!(index.range(KeyRange::new(b"a", b"").after(b"a")).count(), 0);
}

#[test]
fn values_stay_within_their_budget() {
    let size = 104 + VALUE_OVERHEAD_BYTES;
    let mut index = Index::new(10 * size);
    for revision in 2..102 {
        put(&mut index, &format!("{revision:04}"), &"v".repeat(100), revision);
        index.keep_within_budget();
        assert!(index.values_bytes() <= 10 * size);
    }
    let kept = |index: &Index| {
        let all = index.range(KeyRange::all());
        all.filter(|(name, key)| index.now(name, key).is_some()).count()
    };
    assert_eq!(kept(&index), 10);
    index.delete(b"0101", place(102));
    assert_eq!(kept(&index), 9);
    for revision in 103..203 {
        put(&mut index, "0050", "", revision);
        index.keep_within_budget();
    }
    assert_eq!(kept(&index), 1, "old values of one key have taken the place of others");
}

#[test]
fn a_large_value_that_is_replaced_is_gone_at_once() {
    let mut index = Index::new(1 << 20);
    for revision in 2..1000 {
        put(&mut index, "a", &"v".repeat(10_000), revision);
    }
    assert!(index.values_bytes() < 100_000);
}

#[test]
fn a_value_that_is_read_outlives_those_that_are_not() {
    let size = 104 + VALUE_OVERHEAD_BYTES;
    let mut index = Index::new(100 * size);
    put(&mut index, "0000", &"v".repeat(100), 2);
    for revision in 3..1000 {
        let key = index.get(b"0000").expect("it was put");
        assert!(index.now(b"0000", key).is_some(), "at {revision}");
        put(&mut index, &format!("{revision:04}"), &"v".repeat(100), revision);
        index.keep_within_budget();
    }
}

#[test]
fn a_compaction_keeps_what_can_still_be_read() {
    let mut index = Index::new(1 << 20);
    for revision in [2, 3, 5] {
        put(&mut index, "a", "x", revision);
    }
    put(&mut index, "b", "x", 4);
    index.delete(b"b", place(6));
    put(&mut index, "c", "x", 7);
    let mut forgotten = Vec::new();
    let after = index.prune(5, None, 2, &mut forgotten);
    assert!(after.is_some(), "it was cut short");
    assert_eq!(index.prune(5, after, 2, &mut forgotten), None);
    assert_eq!(forgotten, [place(2), place(3)]);
    forgotten.clear();
    assert_eq!(index.prune(6, None, 100, &mut forgotten), None);
    assert_eq!(forgotten, [place(4)], "a deletion at the revision itself stays");
    forgotten.clear();
    index.prune(7, None, 100, &mut forgotten);
    assert_eq!(forgotten, [place(6)], "and then goes");
    assert!(index.get(b"b").is_none());
    assert_eq!(index.len(), 2);
    for sub in 0..2 {
        index.put(b"c", b"x", None, Place { revision: 8, sub });
    }
    forgotten.clear();
    index.prune(8, None, 100, &mut forgotten);
    assert_eq!(forgotten, [place(7)], "both changes of one revision can be watched");
}

/// What a key is told apart by: with little in common, much, and everything but an end.
fn name(number: u64) -> Vec<u8> {
    let digit = |place: u32| (number / 8_u64.pow(place) % 8) as u8;
    match digit(0) {
        0 => vec![digit(1), digit(2)],
        1 | 2 => [&b"/registry/pods/"[..], &[digit(1), digit(2), 0, digit(3)]].concat(),
        3 => vec![0; 1 + usize::from(digit(1)) * 3],
        4 => [vec![b'a'; usize::from(digit(1))], vec![0; usize::from(digit(2))]].concat(),
        _ => format!("/registry/events/default/{:05}", number % 3000).into_bytes(),
    }
}

/// Random changes, against maps: the last revisions of each key.
#[test]
fn it_is_what_plain_maps_are() {
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for round in 0..6 {
        let mut index = Index::new([0, 5000, 1 << 20][round % 3]);
        let mut plain: BTreeMap<Vec<u8>, Vec<(i64, bool)>> = BTreeMap::new();
        for revision in 2..4000 {
            let key = match name(random(1 << 16)) {
                key if key.is_empty() => vec![9],
                key => key,
            };
            let steps = plain.entry(key.clone()).or_default();
            if steps.last().is_some_and(|(_, is_live)| *is_live) && random(3) == 0 {
                index.delete(&key, place(revision));
                steps.push((revision, false));
            } else {
                let (kv, _) = index.put(&key, b"value", None, place(revision));
                let puts = steps.iter().rev().take_while(|(_, is_live)| *is_live).count();
                assert!(kv.version > puts as i64, "some of them may be forgotten");
                steps.push((revision, true));
            }
            index.keep_within_budget();
            if random(1000) == 0 {
                let at = random(revision as u64) as i64;
                let mut after = None;
                loop {
                    after = index.prune(at, after, 200, &mut Vec::new());
                    if after.is_none() {
                        break;
                    }
                }
                for steps in plain.values_mut() {
                    let last = steps.iter().rposition(|(revision, _)| *revision <= at);
                    let is_kept = |(place, (revision, is_live)): &(usize, (i64, bool))| {
                        *revision >= at || (Some(*place) == last && *is_live)
                    };
                    let kept = steps.iter().copied().enumerate().filter(is_kept);
                    *steps = kept.map(|(_, step)| step).collect();
                }
                plain.retain(|_, steps| !steps.is_empty());
            }
            if random(20) == 0 {
                compare(&index, &plain, revision, &mut random);
            }
        }
    }
}

fn compare(
    index: &Index,
    plain: &BTreeMap<Vec<u8>, Vec<(i64, bool)>>,
    revision: i64,
    random: &mut impl FnMut(u64) -> u64,
) {
    assert_eq!(index.len(), plain.len());
    let (from, end) = (name(random(1 << 16)), name(random(1 << 16)));
    let range = KeyRange::new(&from, &end);
    let at = revision - random(100) as i64;
    let is_in = |key: &[u8]| match &end[..] {
        [] => *key == from[..],
        [0] => *key >= from[..],
        end => *key >= from[..] && *key < *end,
    };
    let live = |steps: &[(i64, bool)]| {
        let step = steps.iter().rev().find(|(revision, _)| *revision <= at);
        step.is_some_and(|(_, is_live)| *is_live)
    };
    let wanted: Vec<&[u8]> = plain.keys().map(|key| &key[..]).filter(|key| is_in(key)).collect();
    let found: Vec<&[u8]> = index.range(range).map(|(name, _)| name).collect();
    assert_eq!(found, wanted);
    let count = plain.iter().filter(|(key, steps)| is_in(key) && live(steps)).count();
    let (mut counted, mut after) = (0, None::<Box<[u8]>>);
    loop {
        let rest = after.as_deref().map_or(range, |after| range.after(after));
        let part = index.count(rest, at, 50);
        counted += part.count;
        after = part.after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(counted, count as i64, "{range:?} at {at}");
    for key in found {
        let entry = index.get(key).expect("it was found");
        assert_eq!(entry.live_at(at).is_some(), live(&plain[key]));
        if let Some(now) = index.now(key, entry) {
            assert_eq!((&now.key[..], &now.value[..]), (key, &b"value"[..]));
        }
    }
}
