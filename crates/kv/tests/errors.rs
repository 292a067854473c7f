//! The texts of errors, as clients match on them.

use quorate_kv::{RequestError, SortOrder, SortTarget};

#[test]
fn texts_are_those_of_the_wire() {
    let texts = [
        (RequestError::EmptyKey, "key is not provided"),
        (RequestError::KeyNotFound, "key not found"),
        (RequestError::ValueProvided, "value is provided"),
        (RequestError::LeaseProvided, "lease is provided"),
        (RequestError::TooManyOps, "too many operations in txn request"),
        (RequestError::DuplicateKey, "duplicate key given in txn request"),
        (RequestError::InvalidSortOption, "invalid sort option"),
        (RequestError::Compacted, "mvcc: required revision has been compacted"),
        (RequestError::FutureRevision, "mvcc: required revision is a future revision"),
        (RequestError::NoSpace, "mvcc: database space exceeded"),
        (RequestError::LeaseNotFound, "requested lease not found"),
        (RequestError::LeaseExist, "lease already exists"),
        (RequestError::LeaseTtlTooLarge, "too large lease TTL"),
        (RequestError::Corrupt, "corrupt cluster"),
    ];
    for (error, text) in texts {
        assert_eq!(error.to_string(), format!("etcdserver: {text}"));
    }
}

#[test]
fn unknown_sort_numbers_are_refused() {
    for number in [-1, 3, i32::MAX] {
        assert_eq!(SortOrder::from_number(number), Err(RequestError::InvalidSortOption));
    }
    for number in [-1, 5, i32::MIN] {
        assert_eq!(SortTarget::from_number(number), Err(RequestError::InvalidSortOption));
    }
}
