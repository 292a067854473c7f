//! Commands and their bytes: one form each, bounded, and an error for whatever else.

use bytes::Bytes;
use quorate_kv::{
    Alarm, AlarmKind, COMMAND_BYTES_MAX, Command, Compact, Compare, CompareResult, CompareTarget,
    DecodeError, DeleteRange, EncodeError, GrantedLease, LeaseCheckpoint, LeaseGrant, LeaseId,
    MemberId, Op, Put, Range, Revision, SortOrder, SortTarget, TXN_DEPTH_MAX, Txn,
};

fn granted(id: i64, grant: u64) -> GrantedLease {
    GrantedLease { id: LeaseId(id), grant }
}

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn compare(result: CompareResult, target: CompareTarget) -> Compare {
    Compare { key: b("a"), range_end: b("b"), result, target }
}

fn samples() -> Vec<Command> {
    let put = Put {
        key: b("key"),
        value: b("value"),
        lease: Some(LeaseId(-7)),
        prev_kv: true,
        ignore_value: false,
        ignore_lease: true,
    };
    let delete = DeleteRange { key: b("a"), range_end: b("\0"), prev_kv: true };
    let range = |sort_order, sort_target| {
        Op::Range(Range {
            key: b("k"),
            range_end: b("z"),
            limit: -1,
            revision: Revision(i64::MIN),
            sort_order,
            sort_target,
            serializable: true,
            keys_only: false,
            count_only: true,
            min_mod_revision: Revision(1),
            max_mod_revision: Revision(i64::MAX),
            min_create_revision: Revision(3),
            max_create_revision: Revision(-4),
        })
    };
    let txn = Txn {
        compare: vec![
            compare(CompareResult::Equal, CompareTarget::Version(1)),
            compare(CompareResult::Greater, CompareTarget::Create(Revision(300))),
            compare(CompareResult::Less, CompareTarget::Mod(Revision(-1))),
            compare(CompareResult::NotEqual, CompareTarget::Value(b("v"))),
            compare(CompareResult::Unknown, CompareTarget::Lease(0)),
        ],
        success: vec![
            Op::Put(put.clone()),
            Op::DeleteRange(delete.clone()),
            Op::Txn(Txn { failure: vec![Op::Put(Put::default())], ..Txn::default() }),
        ],
        failure: vec![
            range(SortOrder::None, SortTarget::Key),
            range(SortOrder::Ascend, SortTarget::Version),
            range(SortOrder::Descend, SortTarget::Create),
            range(SortOrder::None, SortTarget::Mod),
            range(SortOrder::None, SortTarget::Value),
        ],
    };
    vec![
        Command::Put(put),
        Command::DeleteRange(delete),
        Command::Txn(txn),
        Command::Compact(Compact { revision: Revision(9), physical: true }),
        Command::LeaseGrant(LeaseGrant { id: LeaseId(i64::MAX), ttl_s: 60 }),
        Command::LeaseRevoke(LeaseId(5)),
        Command::LeaseExpire(vec![granted(5, 1), granted(i64::MIN, u64::MAX)]),
        Command::LeaseCheckpoint(vec![LeaseCheckpoint {
            lease: granted(1, 300),
            remaining_s: 300,
        }]),
        Command::Alarm(Alarm::List(None)),
        Command::Alarm(Alarm::Activate(MemberId(u64::MAX), Some(AlarmKind::NoSpace))),
        Command::Alarm(Alarm::Deactivate(MemberId(0), Some(AlarmKind::Corrupt))),
    ]
}

#[test]
fn every_command_comes_back() {
    for command in samples() {
        let bytes = command.encode().unwrap();
        assert_eq!(Command::decode(&bytes).unwrap(), command);
    }
}

#[test]
fn the_bytes_of_a_put_stay_what_they_are() {
    let put = Put { key: b("k"), value: b("v"), lease: LeaseId::from_number(3), ..Put::default() };
    let bytes = Command::Put(put).encode().unwrap();
    assert_eq!(&bytes[..], [1, 1, 1, b'k', 1, b'v', 6, 0, 0, 0]);
}

#[test]
fn a_command_cut_anywhere_is_truncated() {
    for command in samples() {
        let bytes = command.encode().unwrap();
        for end in 0..bytes.len() {
            assert_eq!(Command::decode(&bytes.slice(..end)), Err(DecodeError::Truncated));
        }
    }
}

#[test]
fn any_changed_byte_is_an_error_or_another_command_in_its_one_form() {
    for command in samples() {
        let bytes = command.encode().unwrap();
        for at in 0..bytes.len() {
            for value in 0..=u8::MAX {
                let mut changed = bytes.to_vec();
                changed[at] = value;
                let changed = Bytes::from(changed);
                if let Ok(other) = Command::decode(&changed) {
                    assert_eq!(other.encode().unwrap(), changed);
                }
            }
        }
    }
}

#[test]
fn other_forms_are_refused() {
    let decode = |bytes: &'static [u8]| Command::decode(&Bytes::from_static(bytes));
    assert_eq!(decode(&[2, 6, 2]), Err(DecodeError::Version(2)));
    assert_eq!(decode(&[1, 10]), Err(DecodeError::Kind(10)));
    assert_eq!(decode(&[1, 6, 2, 0]), Err(DecodeError::Trailing));
    assert_eq!(decode(&[1, 6, 0]), Err(DecodeError::NoLease));
    assert_eq!(decode(&[1, 6, 0x82, 0]), Err(DecodeError::Number));
    assert_eq!(decode(&[1, 4, 0, 2]), Err(DecodeError::Kind(2)));
    let long = [1, 6, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2];
    assert_eq!(Command::decode(&Bytes::copy_from_slice(&long)), Err(DecodeError::Number));
    let huge = [1, 7, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
    assert_eq!(Command::decode(&Bytes::copy_from_slice(&huge)), Err(DecodeError::Truncated));
    assert_eq!(Command::LeaseRevoke(LeaseId(0)).encode(), Err(EncodeError::NoLease));
}

#[test]
fn depth_is_bounded_both_ways() {
    let nested = |depth: usize| {
        let mut txn = Txn::default();
        for _ in 1..depth {
            txn = Txn { success: vec![Op::Txn(txn)], ..Txn::default() };
        }
        Command::Txn(txn)
    };
    let deepest = nested(TXN_DEPTH_MAX);
    assert_eq!(Command::decode(&deepest.encode().unwrap()).unwrap(), deepest);
    assert_eq!(nested(TXN_DEPTH_MAX + 1).encode(), Err(EncodeError::TooDeep));
    let mut bytes = vec![1, 3];
    for _ in 0..100_000 {
        bytes.extend([0, 1, 4]);
    }
    assert_eq!(Command::decode(&Bytes::from(bytes)), Err(DecodeError::TooDeep));
}

#[test]
fn size_is_bounded_both_ways() {
    let zeros = Bytes::from(vec![0; COMMAND_BYTES_MAX + 1]);
    assert_eq!(Command::decode(&zeros), Err(DecodeError::TooLarge));
    let put = Put { key: b("k"), value: zeros.slice(..COMMAND_BYTES_MAX - 4), ..Put::default() };
    assert_eq!(Command::Put(put).encode(), Err(EncodeError::TooLarge));
}
