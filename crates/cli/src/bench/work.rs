//! What one client asks for, call after call.

use bytes::Bytes;
use prost::Message;
use quorate_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_etcd::proto::etcdserverpb::request_op::Request;
use quorate_etcd::proto::etcdserverpb::response_op::Response;
use quorate_etcd::proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};

use super::connection::{CallError, Link, Procedure, frame};
use super::keys::{Chooser, Data};

/// Keys of one page, when a client reads what is there before it begins.
const PAGE_KEYS: i64 = 1000;

/// A kind of outcome, which is counted on its own: its place among the names of the run.
pub(crate) type Kind = usize;

/// What one client does. Each call is made when the one before it was answered.
pub(crate) enum Work {
    Put(Putter),
    Range(Ranger),
    Swap(Swapper),
    /// So many percent of reads, the rest writes.
    Mixed(u64, Ranger, Putter),
}

impl Work {
    /// What has to be known before the first call.
    pub(crate) async fn prepare(&mut self, link: &Link) -> Result<(), CallError> {
        match self {
            Self::Swap(swapper) => swapper.learn(link).await,
            _ => Ok(()),
        }
    }

    /// Makes one call, and says what it was.
    pub(crate) async fn call(&mut self, link: &Link) -> Result<Kind, CallError> {
        match self {
            Self::Put(putter) => putter.call(link).await,
            Self::Range(ranger) => ranger.call(link).await,
            Self::Swap(swapper) => swapper.call(link).await,
            Self::Mixed(reads, ranger, putter) => {
                if ranger.chooser.below(100) < *reads {
                    ranger.call(link).await
                } else {
                    putter.call(link).await
                }
            }
        }
    }
}

/// Writes keys.
pub(crate) struct Putter {
    pub(crate) kind: Kind,
    pub(crate) data: Data,
    pub(crate) values: Vec<Bytes>,
    pub(crate) chooser: Chooser,
    pub(crate) calls: usize,
}

impl Putter {
    fn request(&mut self) -> PutRequest {
        self.calls += 1;
        PutRequest {
            key: self.data.key(self.chooser.next()),
            value: self.values[self.calls % self.values.len()].clone(),
            ..PutRequest::default()
        }
    }

    async fn call(&mut self, link: &Link) -> Result<Kind, CallError> {
        let request = frame(&self.request());
        link.call(Procedure::Put, request).await?;
        Ok(self.kind)
    }
}

/// Reads keys that are known to be there.
pub(crate) struct Ranger {
    pub(crate) kind: Kind,
    pub(crate) data: Data,
    pub(crate) chooser: Chooser,
    /// So many neighbours at once.
    pub(crate) width: u64,
    pub(crate) serializable: bool,
}

impl Ranger {
    async fn call(&mut self, link: &Link) -> Result<Kind, CallError> {
        let first = self.chooser.next();
        let range_end = match self.width {
            1 => Bytes::new(),
            width => self.data.key(first + width),
        };
        let request = RangeRequest {
            key: self.data.key(first),
            range_end,
            serializable: self.serializable,
            ..RangeRequest::default()
        };
        let answer = link.call(Procedure::Range, frame(&request)).await?;
        let found = pairs(&answer)?;
        if found == self.width {
            return Ok(self.kind);
        }
        Err(CallError::strange(format!(
            "{found} of {} keys were there; write all of them first with `quorate bench fill`, \
             given the same keys",
            self.width
        )))
    }
}

/// How many pairs the answer to a range has. What is in them is not looked at.
fn pairs(mut answer: &[u8]) -> Result<u64, CallError> {
    const NUMBER: u64 = 0;
    const BYTES: u64 = 2;
    const PAIRS: u64 = 2;
    let broken = || CallError::strange("an answer that cannot be decoded");
    let mut count = 0;
    while !answer.is_empty() {
        let tag = prost::encoding::decode_varint(&mut answer).map_err(|_| broken())?;
        let value = prost::encoding::decode_varint(&mut answer).map_err(|_| broken())?;
        match tag & 7 {
            NUMBER => {}
            BYTES => {
                let length = usize::try_from(value).map_err(|_| broken())?;
                answer = answer.get(length..).ok_or_else(broken)?;
                count += u64::from(tag >> 3 == PAIRS);
            }
            _ => return Err(broken()),
        }
    }
    Ok(count)
}

/// Replaces values, each if it is still the one that this client knows. The keys are its own, so it always is, unless
/// somebody else is at work too.
pub(crate) struct Swapper {
    pub(crate) swapped: Kind,
    pub(crate) conflict: Kind,
    pub(crate) putter: Putter,
    /// Its keys: from here on, one for each revision.
    pub(crate) first: u64,
    pub(crate) revisions: Vec<i64>,
}

impl Swapper {
    /// Reads which revisions its keys have. Those that are not there have 0, as the API says too.
    async fn learn(&mut self, link: &Link) -> Result<(), CallError> {
        let data = &self.putter.data;
        let count = self.revisions.len() as u64;
        let end = data.key(self.first + count);
        let mut key = data.key(self.first);
        loop {
            let request = RangeRequest {
                key,
                range_end: end.clone(),
                limit: PAGE_KEYS,
                keys_only: true,
                ..RangeRequest::default()
            };
            let answer = link.call(Procedure::Range, frame(&request)).await?;
            let answer = RangeResponse::decode(answer).map_err(undecoded)?;
            let mut last = Bytes::new();
            for pair in answer.kvs {
                let place = data
                    .number(&pair.key)
                    .and_then(|number| usize::try_from(number.checked_sub(self.first)?).ok());
                if let Some(revision) = place.and_then(|place| self.revisions.get_mut(place)) {
                    *revision = pair.mod_revision;
                }
                last = pair.key;
            }
            if !answer.more || last.is_empty() {
                return Ok(());
            }
            key = [&last[..], &[0]].concat().into();
        }
    }

    async fn call(&mut self, link: &Link) -> Result<Kind, CallError> {
        let put = self.putter.request();
        let number = self.putter.data.number(&put.key).unwrap_or(self.first);
        let place = usize::try_from(number - self.first).unwrap_or(0);
        let key = put.key.clone();
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(self.revisions[place])),
            ..Compare::default()
        };
        let look = RangeRequest { key, keys_only: true, ..RangeRequest::default() };
        let request = TxnRequest {
            compare: vec![compare],
            success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
            failure: vec![RequestOp { request: Some(Request::RequestRange(look)) }],
        };
        let answer = link.call(Procedure::Txn, frame(&request)).await?;
        let answer = TxnResponse::decode(answer).map_err(undecoded)?;
        if answer.succeeded {
            self.revisions[place] = answer.header.map_or(0, |header| header.revision);
            return Ok(self.swapped);
        }
        let found = answer.responses.into_iter().find_map(|response| match response.response {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        self.revisions[place] = found.map_or(0, |pair| pair.mod_revision);
        Ok(self.conflict)
    }
}

/// An answer that is none.
#[expect(clippy::needless_pass_by_value, reason = "it is what maps errors")]
pub(crate) fn undecoded(why: prost::DecodeError) -> CallError {
    CallError::strange(format!("an answer that cannot be decoded: {why}"))
}

#[cfg(test)]
mod tests {
    use quorate_etcd::proto::etcdserverpb::ResponseHeader;
    use quorate_etcd::proto::mvccpb::KeyValue;

    use super::*;

    #[test]
    fn pairs_are_counted_without_a_look_into_them() {
        let pair = KeyValue { key: "k".into(), value: vec![7; 300].into(), ..KeyValue::default() };
        for count in [0_usize, 1, 3] {
            let answer = RangeResponse {
                header: Some(ResponseHeader { revision: 1 << 40, ..ResponseHeader::default() }),
                kvs: vec![pair.clone(); count],
                more: true,
                count: 100,
            };
            let bytes = answer.encode_to_vec();
            assert_eq!(pairs(&bytes).ok(), Some(count as u64));
            assert!(pairs(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
