//! Between messages of the wire and types of the store. Keys and values are shared, not copied.

use quorate_kv::{
    AlarmKind, Compare, CompareResult, CompareTarget, DeleteRange, DeleteRangeReply, Event,
    EventKind, KeyValue, LeaseId, Op, OpReply, Put, PutReply, Range, RangeReply, Reply,
    RequestError, Revision, SortOrder, SortTarget, Txn, TxnReply,
};

use crate::command::header;
use crate::proto::host::outcome;
use crate::proto::{etcdserverpb as pb, mvccpb};

pub(crate) fn range(request: pb::RangeRequest) -> Result<Range, RequestError> {
    let range = Range {
        sort_order: SortOrder::None,
        sort_target: SortTarget::Key,
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: Revision(request.revision),
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: Revision(request.min_mod_revision),
        max_mod_revision: Revision(request.max_mod_revision),
        min_create_revision: Revision(request.min_create_revision),
        max_create_revision: Revision(request.max_create_revision),
    };
    // An empty key is found before an unknown number.
    range.check()?;
    let sort_order = SortOrder::from_number(request.sort_order)?;
    let sort_target = SortTarget::from_number(request.sort_target)?;
    Ok(Range { sort_order, sort_target, ..range })
}

pub(crate) fn put(request: pb::PutRequest) -> Put {
    Put {
        key: request.key,
        value: request.value,
        lease: LeaseId::from_number(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(crate) fn delete_range(request: pb::DeleteRangeRequest) -> DeleteRange {
    DeleteRange { key: request.key, range_end: request.range_end, prev_kv: request.prev_kv }
}

/// The transaction, not yet checked as a whole. An operation that is none, or a range that sorts by an unknown number, is
/// refused here.
pub(crate) fn txn(request: pb::TxnRequest) -> Result<Txn, RequestError> {
    let ops = |ops: Vec<pb::RequestOp>| ops.into_iter().map(op).collect::<Result<Vec<_>, _>>();
    Ok(Txn {
        compare: request.compare.into_iter().map(compare).collect(),
        success: ops(request.success)?,
        failure: ops(request.failure)?,
    })
}

fn op(request: pb::RequestOp) -> Result<Op, RequestError> {
    use pb::request_op::Request;
    Ok(match request.request.ok_or(RequestError::KeyNotFound)? {
        Request::RequestRange(request) => Op::Range(range(request)?),
        Request::RequestPut(request) => Op::Put(put(request)),
        Request::RequestDeleteRange(request) => Op::DeleteRange(delete_range(request)),
        Request::RequestTxn(request) => Op::Txn(txn(request)?),
    })
}

fn compare(request: pb::Compare) -> Compare {
    use pb::compare::{CompareTarget as Target, TargetUnion};
    let union = request.target_union;
    // A field that is not the target's counts as missing, so as 0 or empty.
    let target = match Target::try_from(request.target) {
        Ok(Target::Version) => CompareTarget::Version(match union {
            Some(TargetUnion::Version(version)) => version,
            _ => 0,
        }),
        Ok(Target::Create) => CompareTarget::Create(Revision(match union {
            Some(TargetUnion::CreateRevision(revision)) => revision,
            _ => 0,
        })),
        Ok(Target::Mod) => CompareTarget::Mod(Revision(match union {
            Some(TargetUnion::ModRevision(revision)) => revision,
            _ => 0,
        })),
        Ok(Target::Value) => CompareTarget::Value(match union {
            Some(TargetUnion::Value(value)) => value,
            _ => bytes::Bytes::new(),
        }),
        Ok(Target::Lease) => CompareTarget::Lease(match union {
            Some(TargetUnion::Lease(lease)) => lease,
            _ => 0,
        }),
        // An unknown target compares nothing with nothing: equal.
        Err(_) => {
            let result = match compare_result(request.result) {
                CompareResult::Equal | CompareResult::Unknown => CompareResult::Unknown,
                other => other,
            };
            return Compare {
                key: request.key,
                range_end: request.range_end,
                result,
                target: CompareTarget::Version(0),
            };
        }
    };
    Compare {
        key: request.key,
        range_end: request.range_end,
        result: compare_result(request.result),
        target,
    }
}

fn compare_result(number: i32) -> CompareResult {
    use pb::compare::CompareResult as Wire;
    match Wire::try_from(number) {
        Ok(Wire::Equal) => CompareResult::Equal,
        Ok(Wire::Greater) => CompareResult::Greater,
        Ok(Wire::Less) => CompareResult::Less,
        Ok(Wire::NotEqual) => CompareResult::NotEqual,
        Err(_) => CompareResult::Unknown,
    }
}

pub(crate) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        value: kv.value,
        lease: kv.lease.map_or(0, |lease| lease.0),
    }
}

pub(crate) fn key_values(kvs: Vec<KeyValue>) -> Vec<mvccpb::KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

pub(crate) fn event(event: &Event) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.kv.clone())),
        prev_kv: event.prev.clone().map(key_value),
    }
}

pub(crate) fn range_response(reply: RangeReply) -> pb::RangeResponse {
    pb::RangeResponse {
        header: header(reply.revision.0),
        kvs: key_values(reply.kvs),
        more: reply.more,
        count: reply.count,
    }
}

fn put_response(reply: PutReply) -> pb::PutResponse {
    pb::PutResponse { header: header(reply.revision.0), prev_kv: reply.prev_kv.map(key_value) }
}

fn delete_response(reply: DeleteRangeReply) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: header(reply.revision.0),
        deleted: reply.deleted,
        prev_kvs: key_values(reply.prev_kvs),
    }
}

pub(crate) fn txn_response(reply: TxnReply) -> pb::TxnResponse {
    pb::TxnResponse {
        header: header(reply.revision.0),
        succeeded: reply.succeeded,
        responses: reply.responses.into_iter().map(op_response).collect(),
    }
}

fn op_response(reply: OpReply) -> pb::ResponseOp {
    use pb::response_op::Response;
    let response = match reply {
        OpReply::Range(reply) => Response::ResponseRange(range_response(reply)),
        OpReply::Put(reply) => Response::ResponsePut(put_response(reply)),
        OpReply::DeleteRange(reply) => Response::ResponseDeleteRange(delete_response(reply)),
        OpReply::Txn(reply) => Response::ResponseTxn(txn_response(reply)),
    };
    pb::ResponseOp { response: Some(response) }
}

/// The reply of the store, with nothing but the revision in its header.
pub(crate) fn outcome(reply: Reply) -> outcome::Reply {
    match reply {
        Reply::Put(reply) => outcome::Reply::Put(put_response(reply)),
        Reply::DeleteRange(reply) => outcome::Reply::DeleteRange(delete_response(reply)),
        Reply::Txn(reply) => outcome::Reply::Txn(txn_response(reply)),
        Reply::LeaseGrant { revision, id, ttl_s } => {
            outcome::Reply::LeaseGrant(pb::LeaseGrantResponse {
                header: header(revision.0),
                id: id.0,
                ttl: ttl_s,
                error: String::new(),
            })
        }
        Reply::Done { revision } => outcome::Reply::Revision(revision.0),
        Reply::Alarms { revision, alarms } => outcome::Reply::Alarm(pb::AlarmResponse {
            header: header(revision.0),
            alarms: alarms.into_iter().map(alarm_member).collect(),
        }),
    }
}

pub(crate) fn alarm_member(alarm: quorate_kv::AlarmMember) -> pb::AlarmMember {
    pb::AlarmMember { member_id: alarm.member.0, alarm: alarm_type(alarm.kind).into() }
}

pub(crate) const fn alarm_type(kind: AlarmKind) -> pb::AlarmType {
    match kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    }
}

/// `None` for every kind, and for a number that is none.
pub(crate) fn alarm_kind(number: i32) -> Option<AlarmKind> {
    match pb::AlarmType::try_from(number) {
        Ok(pb::AlarmType::Nospace) => Some(AlarmKind::NoSpace),
        Ok(pb::AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
        Ok(pb::AlarmType::None) | Err(_) => None,
    }
}
