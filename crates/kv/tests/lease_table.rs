//! The replicated table of leases.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_kv::{
    GrantedLease, LEASE_RECORD_BYTES, LEASE_TTL_MAX_S, Lease, LeaseCheckpoint, LeaseId,
    LeaseRecordError, Leases, RequestError,
};

fn key(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn checkpoint_of(id: i64, grant: u64, remaining_s: i64) -> LeaseCheckpoint {
    LeaseCheckpoint { lease: GrantedLease { id: LeaseId(id), grant }, remaining_s }
}

fn keys_of(leases: &Leases, id: i64) -> Vec<Bytes> {
    leases.keys_of(LeaseId(id)).cloned().collect()
}

#[test]
fn a_grant_answers_its_time_and_refuses_what_cannot_be() {
    let mut leases = Leases::new();
    assert_eq!(leases.grant(LeaseId(7), 60), Ok(60));
    assert_eq!(leases.grant(LeaseId(7), 60), Err(RequestError::LeaseExist));
    assert_eq!(leases.grant(LeaseId(0), 60), Err(RequestError::LeaseNotFound));
    assert_eq!(leases.grant(LeaseId(8), LEASE_TTL_MAX_S), Ok(LEASE_TTL_MAX_S));
    let too_large = leases.grant(LeaseId(9), LEASE_TTL_MAX_S + 1);
    assert_eq!(too_large, Err(RequestError::LeaseTtlTooLarge));
    assert_eq!(leases.grant(LeaseId(-1), -5), Ok(1));
    let ids: Vec<i64> = leases.iter().map(|lease| lease.id().0).collect();
    assert_eq!(ids, [-1, 7, 8]);
}

#[test]
fn a_key_belongs_to_at_most_one_lease() {
    let mut leases = Leases::new();
    leases.grant(LeaseId(1), 10).unwrap();
    leases.grant(LeaseId(2), 10).unwrap();
    leases.attach(&key("a"), LeaseId(1)).unwrap();
    leases.attach(&key("a"), LeaseId(2)).unwrap();
    assert_eq!(leases.lease_of(b"a"), Some(LeaseId(2)));
    assert!(keys_of(&leases, 1).is_empty());
    assert_eq!(leases.revoke(LeaseId(1)), Ok(vec![]));
    assert_eq!(leases.lease_of(b"a"), Some(LeaseId(2)));
}

#[test]
fn a_key_keeps_its_lease_if_the_new_one_is_unknown() {
    let mut leases = Leases::new();
    leases.grant(LeaseId(1), 10).unwrap();
    leases.attach(&key("a"), LeaseId(1)).unwrap();
    assert_eq!(leases.attach(&key("a"), LeaseId(3)), Err(RequestError::LeaseNotFound));
    assert_eq!(keys_of(&leases, 1), [key("a")]);
}

#[test]
fn a_revocation_gives_the_keys_in_order_and_forgets_them() {
    let mut leases = Leases::new();
    leases.grant(LeaseId(1), 10).unwrap();
    for name in ["m", "a", "z", "aa"] {
        leases.attach(&key(name), LeaseId(1)).unwrap();
    }
    assert_eq!(leases.detach(b"m"), Some(LeaseId(1)));
    assert_eq!(leases.detach(b"m"), None);
    assert_eq!(leases.revoke(LeaseId(1)), Ok(vec![key("a"), key("aa"), key("z")]));
    assert_eq!(leases.revoke(LeaseId(1)), Err(RequestError::LeaseNotFound));
    assert_eq!(leases.lease_of(b"a"), None);
    assert!(leases.is_empty());
}

#[test]
fn a_checkpoint_is_what_a_new_leader_goes_by_until_it_is_cleared() {
    let mut leases = Leases::new();
    leases.grant(LeaseId(1), 100).unwrap();
    let mut checkpoint = |remaining_s| {
        let known = leases.checkpoint(checkpoint_of(1, 1, remaining_s));
        let lease = leases.get(LeaseId(1)).unwrap();
        (known, lease.remaining_s(), lease.time_left_s())
    };
    assert_eq!(checkpoint(40), (true, Some(40), 40));
    assert_eq!(checkpoint(400), (true, Some(100), 100));
    assert_eq!(checkpoint(0), (true, None, 100));
    assert_eq!(checkpoint(-1), (true, None, 100));
    assert!(!leases.checkpoint(checkpoint_of(2, 1, 1)));
    // Of a lease that had the id before, or has it later.
    assert!(!leases.checkpoint(checkpoint_of(1, 0, 1)));
    assert!(!leases.checkpoint(checkpoint_of(1, 2, 1)));
    assert_eq!(leases.get(LeaseId(1)).unwrap().remaining_s(), None);
}

#[test]
fn a_lease_is_not_another_one_of_its_id() {
    let mut leases = Leases::new();
    leases.grant(LeaseId(1), 60).unwrap();
    let former = leases.get(LeaseId(1)).unwrap().granted();
    assert!(leases.has(former));
    leases.revoke(LeaseId(1)).unwrap();
    assert!(!leases.has(former));
    leases.grant(LeaseId(1), 60).unwrap();
    assert!(!leases.has(former));
    assert!(leases.has(GrantedLease { id: LeaseId(1), grant: 2 }));
    assert_eq!(leases.grants(), 2);
}

#[test]
fn only_what_changed_is_written() {
    let mut leases = Leases::new();
    leases.grant(LeaseId(1), 10).unwrap();
    leases.grant(LeaseId(2), 20).unwrap();
    let ids = |leases: &mut Leases| -> Vec<(i64, bool)> {
        let changes = leases.take_changes();
        changes.iter().map(|(id, record)| (id.0, record.is_some())).collect()
    };
    assert_eq!(ids(&mut leases), [(1, true), (2, true)]);
    leases.attach(&key("a"), LeaseId(1)).unwrap();
    leases.checkpoint(checkpoint_of(1, 1, 0));
    assert_eq!(ids(&mut leases), []);
    leases.checkpoint(checkpoint_of(2, 2, 5));
    leases.revoke(LeaseId(1)).unwrap();
    assert_eq!(ids(&mut leases), [(1, false), (2, true)]);
    leases.grant(LeaseId(3), 10).unwrap();
    leases.revoke(LeaseId(3)).unwrap();
    assert_eq!(ids(&mut leases), [(3, false)]);
}

#[test]
fn bad_records_are_refused() {
    let mut good = Leases::new();
    good.grant(LeaseId(1), 10).unwrap();
    let (_, record) = good.records().next().unwrap();
    let mut leases = Leases::new();
    assert_eq!(leases.restore(LeaseId(0), &record), Err(LeaseRecordError::Id(LeaseId(0))));
    assert_eq!(leases.restore(LeaseId(1), &record), Ok(()));
    assert_eq!(leases.restore(LeaseId(1), &record), Err(LeaseRecordError::Id(LeaseId(1))));
    assert_eq!(leases.restore(LeaseId(2), &record[1..]), Err(LeaseRecordError::Length(24)));
    let changed = |at: usize, byte: u8| {
        let mut bytes = record;
        bytes[at] = byte;
        bytes
    };
    let mut refuse = |bytes: [u8; LEASE_RECORD_BYTES]| leases.restore(LeaseId(2), &bytes);
    assert_eq!(refuse(changed(0, 2)), Err(LeaseRecordError::Version(2)));
    assert_eq!(refuse(changed(16, 0)), Err(LeaseRecordError::Time));
    assert_eq!(refuse(changed(9, 0x7f)), Err(LeaseRecordError::Time));
    assert_eq!(refuse(changed(17, 0xff)), Err(LeaseRecordError::Time));
    assert_eq!(refuse(changed(24, 11)), Err(LeaseRecordError::Time));
    assert_eq!(leases.len(), 1);
}

/// Random commands against plain maps, and a disk that only ever sees the changes.
#[test]
fn the_table_does_what_plain_maps_do_and_survives_a_restart() {
    for seed in 0..50 {
        let mut random = Random(seed);
        let mut leases = Leases::new();
        let mut times: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        let mut owners: BTreeMap<Bytes, i64> = BTreeMap::new();
        let mut disk: BTreeMap<LeaseId, [u8; LEASE_RECORD_BYTES]> = BTreeMap::new();
        for _ in 0..400 {
            let id = random.below(8) as i64;
            let name = key(&format!("k{}", random.below(12)));
            match random.below(7) {
                0 => {
                    let granted = leases.grant(LeaseId(id), 50);
                    if id == 0 {
                        assert_eq!(granted, Err(RequestError::LeaseNotFound));
                    } else {
                        assert_eq!(granted.is_err(), times.contains_key(&id));
                        times.entry(id).or_insert((50, 0));
                    }
                }
                1 if random.below(3) == 0 => {
                    let keys: BTreeSet<Bytes> = owners
                        .iter()
                        .filter(|(_, of)| **of == id)
                        .map(|(k, _)| k.clone())
                        .collect();
                    let expected = times.remove(&id).map(|_| keys.into_iter().collect());
                    owners.retain(|_, of| *of != id);
                    assert_eq!(leases.revoke(LeaseId(id)).ok(), expected);
                }
                2 => assert_eq!(leases.detach(&name).map(|id| id.0), owners.remove(&name)),
                3 => {
                    let remaining_s = random.below(60) as i64;
                    if let Some(lease) = leases.get(LeaseId(id)).map(Lease::granted) {
                        leases.checkpoint(LeaseCheckpoint { lease, remaining_s });
                    }
                    if let Some(time) = times.get_mut(&id) {
                        time.1 = remaining_s.min(50);
                    }
                }
                4 if random.below(4) == 0 => {
                    for (id, record) in leases.take_changes() {
                        match record {
                            Some(record) => disk.insert(id, record),
                            None => disk.remove(&id),
                        };
                    }
                    let whole: BTreeMap<_, _> = leases.records().collect();
                    assert_eq!(disk, whole);
                    let mut recovered = Leases::new();
                    recovered.restore_grants(leases.grants());
                    for (id, record) in &disk {
                        recovered.restore(*id, record).unwrap();
                    }
                    for (name, id) in &owners {
                        recovered.attach(name, LeaseId(*id)).unwrap();
                    }
                    assert_eq!(recovered, leases);
                    assert!(recovered.take_changes().is_empty());
                }
                _ => {
                    let attached = leases.attach(&name, LeaseId(id)).is_ok();
                    assert_eq!(attached, times.contains_key(&id));
                    if attached {
                        owners.insert(name, id);
                    }
                }
            }
            let held: BTreeMap<i64, (i64, i64)> = leases
                .iter()
                .map(|lease| (lease.id().0, (lease.ttl_s(), lease.remaining_s().unwrap_or(0))))
                .collect();
            assert_eq!(held, times, "seed {seed}");
            for name in (0..12).map(|n| key(&format!("k{n}"))) {
                let owner = owners.get(&name).copied();
                assert_eq!(leases.lease_of(&name).map(|id| id.0), owner, "seed {seed}");
                for id in times.keys() {
                    let listed = leases.keys_of(LeaseId(*id)).any(|k| *k == name);
                    assert_eq!(listed, owner == Some(*id), "seed {seed}");
                }
            }
        }
    }
}

/// The splitmix generator.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
