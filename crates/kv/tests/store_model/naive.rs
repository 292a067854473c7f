//! The same store in the plainest way: for every revision a map of all that there is.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_kv::{
    Alarm, AlarmKind, AlarmMember, Command, Compare, CompareResult, CompareTarget, DeleteRange,
    DeleteRangeReply, KeyValue, LeaseId, Op, OpReply, Put, PutReply, Range, RangeReply, Reply,
    RequestError, Revision, SortOrder, SortTarget, Txn, TxnReply,
};

type Map = BTreeMap<Bytes, KeyValue>;

/// A change, as a watcher hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) key: Bytes,
    /// `None`: deleted.
    pub(crate) pair: Option<KeyValue>,
    pub(crate) prev: Option<KeyValue>,
}

#[derive(Clone)]
pub(crate) struct Naive {
    /// What there was at each revision; the first is that of revision 1.
    pub(crate) maps: Vec<Map>,
    /// What changed in each.
    pub(crate) heard: Vec<Vec<Heard>>,
    pub(crate) compacted: i64,
    pub(crate) leases: BTreeMap<LeaseId, i64>,
    /// Which grant each was, and how many there were.
    pub(crate) granted: BTreeMap<LeaseId, u64>,
    pub(crate) grants: u64,
    pub(crate) alarms: BTreeSet<AlarmMember>,
}

/// A transaction under way.
struct Draft {
    map: Map,
    heard: Vec<Heard>,
}

fn within(key: &[u8], first: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == first,
        [0] => key >= first,
        end => key >= first && key < end,
    }
}

impl Naive {
    pub(crate) fn new() -> Self {
        Self {
            maps: vec![Map::new()],
            heard: vec![Vec::new()],
            compacted: -1,
            leases: BTreeMap::new(),
            granted: BTreeMap::new(),
            grants: 0,
            alarms: BTreeSet::new(),
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.maps.len() as i64
    }

    pub(crate) fn at(&self, revision: i64) -> &Map {
        &self.maps[revision as usize - 1]
    }

    fn now(&self) -> &Map {
        self.at(self.revision())
    }

    fn draft(&self) -> Draft {
        Draft { map: self.now().clone(), heard: Vec::new() }
    }

    /// Revision of a header after a draft.
    fn keep(&mut self, draft: Draft) -> Revision {
        if !draft.heard.is_empty() {
            self.maps.push(draft.map);
            self.heard.push(draft.heard);
        }
        Revision(self.revision())
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Result<Reply, RequestError> {
        let raised = |kind| self.alarms.iter().any(|alarm| alarm.kind == kind);
        if !matches!(command, Command::Alarm(_)) {
            if raised(AlarmKind::Corrupt) {
                return Err(RequestError::Corrupt);
            }
            if raised(AlarmKind::NoSpace) && costs(command) {
                return Err(RequestError::NoSpace);
            }
        }
        match command {
            Command::Put(put) => {
                self.check_put(put)?;
                let mut draft = self.draft();
                let mut reply = self.put(&mut draft, put);
                reply.revision = self.keep(draft);
                Ok(Reply::Put(reply))
            }
            Command::DeleteRange(delete) => {
                let mut draft = self.draft();
                let mut reply = self.delete(&mut draft, delete);
                reply.revision = self.keep(draft);
                Ok(Reply::DeleteRange(reply))
            }
            Command::Txn(txn) => {
                self.check_txn(txn)?;
                let mut draft = self.draft();
                let mut reply = self.txn(&mut draft, txn);
                reply.revision = self.keep(draft);
                Ok(Reply::Txn(reply))
            }
            Command::Compact(compact) => {
                if compact.revision.0 > self.revision() {
                    return Err(RequestError::FutureRevision);
                }
                if compact.revision.0 <= self.compacted {
                    return Err(RequestError::Compacted);
                }
                self.compacted = compact.revision.0;
                Ok(Reply::Done { revision: Revision(self.revision()) })
            }
            Command::LeaseGrant(grant) => {
                if grant.ttl_s > 9_000_000_000 {
                    return Err(RequestError::LeaseTtlTooLarge);
                }
                if self.leases.contains_key(&grant.id) {
                    return Err(RequestError::LeaseExist);
                }
                let ttl_s = grant.ttl_s.max(1);
                self.leases.insert(grant.id, ttl_s);
                self.grants += 1;
                self.granted.insert(grant.id, self.grants);
                Ok(Reply::LeaseGrant { revision: Revision(self.revision()), id: grant.id, ttl_s })
            }
            Command::LeaseRevoke(id) => {
                if !self.leases.contains_key(id) {
                    return Err(RequestError::LeaseNotFound);
                }
                Ok(Reply::Done { revision: self.end_lease(*id) })
            }
            Command::LeaseExpire(ids) => {
                for lease in ids {
                    if self.granted.get(&lease.id) == Some(&lease.grant) {
                        self.end_lease(lease.id);
                    }
                }
                Ok(Reply::Done { revision: Revision(self.revision()) })
            }
            Command::LeaseCheckpoint(_) => Ok(Reply::Done { revision: Revision(self.revision()) }),
            Command::Alarm(alarm) => Ok(self.alarm(*alarm)),
        }
    }

    fn end_lease(&mut self, id: LeaseId) -> Revision {
        self.leases.remove(&id);
        self.granted.remove(&id);
        let mut draft = self.draft();
        let keys: Vec<Bytes> = draft
            .map
            .values()
            .filter(|pair| pair.lease == Some(id))
            .map(|pair| pair.key.clone())
            .collect();
        for key in keys {
            let prev = draft.map.remove(&key);
            draft.heard.push(Heard { key, pair: None, prev });
        }
        self.keep(draft)
    }

    fn alarm(&mut self, alarm: Alarm) -> Reply {
        let alarms = match alarm {
            Alarm::List(kind) => self
                .alarms
                .iter()
                .filter(|alarm| kind.is_none_or(|kind| kind == alarm.kind))
                .copied()
                .collect(),
            Alarm::Activate(member, Some(kind)) => {
                self.alarms.insert(AlarmMember { member, kind });
                vec![AlarmMember { member, kind }]
            }
            Alarm::Deactivate(member, Some(kind)) => {
                let alarm = AlarmMember { member, kind };
                if self.alarms.remove(&alarm) { vec![alarm] } else { vec![] }
            }
            _ => vec![],
        };
        Reply::Alarms { revision: Revision(self.revision()), alarms }
    }

    fn check_put(&self, put: &Put) -> Result<(), RequestError> {
        if put.lease.is_some_and(|lease| !self.leases.contains_key(&lease)) {
            return Err(RequestError::LeaseNotFound);
        }
        if (put.ignore_lease || put.ignore_value) && !self.now().contains_key(&put.key) {
            return Err(RequestError::KeyNotFound);
        }
        Ok(())
    }

    fn put(&self, draft: &mut Draft, put: &Put) -> PutReply {
        let revision = Revision(self.revision() + 1);
        let old = draft.map.get(&put.key).cloned();
        let pair = KeyValue {
            key: put.key.clone(),
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(0, |old| old.version) + 1,
            value: match &old {
                Some(old) if put.ignore_value => old.value.clone(),
                _ => put.value.clone(),
            },
            lease: match &old {
                Some(old) if put.ignore_lease => old.lease,
                _ => put.lease,
            },
        };
        draft.map.insert(put.key.clone(), pair.clone());
        let creates = pair.create_revision == pair.mod_revision;
        let prev = self.now().get(&put.key).filter(|_| !creates).cloned();
        draft.heard.push(Heard { key: put.key.clone(), pair: Some(pair), prev });
        PutReply { revision, prev_kv: old.filter(|_| put.prev_kv) }
    }

    fn delete(&self, draft: &mut Draft, delete: &DeleteRange) -> DeleteRangeReply {
        let hit = |key: &&Bytes| within(key, &delete.key, &delete.range_end);
        let keys: Vec<Bytes> = draft.map.keys().filter(hit).cloned().collect();
        let mut prev_kvs = Vec::new();
        for key in &keys {
            prev_kvs.extend(draft.map.remove(key));
            let prev = self.now().get(key).cloned();
            draft.heard.push(Heard { key: key.clone(), pair: None, prev });
        }
        if !delete.prev_kv {
            prev_kvs.clear();
        }
        let revision = Revision(self.revision() + i64::from(!draft.heard.is_empty()));
        DeleteRangeReply { revision, deleted: keys.len() as i64, prev_kvs }
    }

    /// On the state before the transaction, whatever its operations do.
    fn succeeds(&self, txn: &Txn) -> bool {
        txn.compare.iter().all(|compare| self.holds(compare))
    }

    fn holds(&self, compare: &Compare) -> bool {
        let hit = |pair: &&KeyValue| within(&pair.key, &compare.key, &compare.range_end);
        let pairs: Vec<&KeyValue> = self.now().values().filter(hit).collect();
        let so = |ordering: std::cmp::Ordering| match compare.result {
            CompareResult::Equal => ordering.is_eq(),
            CompareResult::NotEqual => ordering.is_ne(),
            CompareResult::Greater => ordering.is_gt(),
            CompareResult::Less => ordering.is_lt(),
            CompareResult::Unknown => true,
        };
        let number = |of: &dyn Fn(&KeyValue) -> i64, than: i64| {
            if pairs.is_empty() {
                so(0.cmp(&than))
            } else {
                pairs.iter().all(|pair| so(of(pair).cmp(&than)))
            }
        };
        match &compare.target {
            CompareTarget::Version(than) => number(&|pair| pair.version, *than),
            CompareTarget::Create(than) => number(&|pair| pair.create_revision.0, than.0),
            CompareTarget::Mod(than) => number(&|pair| pair.mod_revision.0, than.0),
            CompareTarget::Lease(than) => {
                number(&|pair| pair.lease.map_or(0, |lease| lease.0), *than)
            }
            CompareTarget::Value(than) => {
                !pairs.is_empty() && pairs.iter().all(|pair| so(pair.value.cmp(than)))
            }
        }
    }

    fn branch<'a>(&self, txn: &'a Txn) -> &'a [Op] {
        if self.succeeds(txn) { &txn.success } else { &txn.failure }
    }

    fn check_txn(&self, txn: &Txn) -> Result<(), RequestError> {
        for op in self.branch(txn) {
            match op {
                Op::Range(range) if range.revision.0 > self.revision() => {
                    return Err(RequestError::FutureRevision);
                }
                Op::Range(range) if range.revision.0 != 0 && range.revision.0 < self.compacted => {
                    return Err(RequestError::Compacted);
                }
                Op::Put(put) => self.check_put(put)?,
                Op::Txn(txn) => self.check_txn(txn)?,
                Op::Range(_) | Op::DeleteRange(_) => {}
            }
        }
        Ok(())
    }

    fn txn(&self, draft: &mut Draft, txn: &Txn) -> TxnReply {
        let mut responses = Vec::new();
        for op in self.branch(txn) {
            responses.push(match op {
                Op::Put(put) => OpReply::Put(self.put(draft, put)),
                Op::DeleteRange(delete) => OpReply::DeleteRange(self.delete(draft, delete)),
                Op::Txn(txn) => OpReply::Txn(self.txn(draft, txn)),
                Op::Range(range) => {
                    let map =
                        if range.revision.0 > 0 { self.at(range.revision.0) } else { &draft.map };
                    let seen = self.revision() + i64::from(!draft.heard.is_empty());
                    OpReply::Range(read(map, range, seen))
                }
            });
        }
        TxnReply { revision: Revision(0), succeeded: self.succeeds(txn), responses }
    }

    pub(crate) fn range(&self, range: &Range) -> Result<RangeReply, RequestError> {
        let revision = if range.revision.0 > 0 { range.revision.0 } else { self.revision() };
        if revision > self.revision() {
            return Err(RequestError::FutureRevision);
        }
        if revision < self.compacted {
            return Err(RequestError::Compacted);
        }
        Ok(read(self.at(revision), range, self.revision()))
    }
}

fn costs(command: &Command) -> bool {
    fn puts(ops: &[Op]) -> bool {
        ops.iter().any(|op| match op {
            Op::Put(_) => true,
            Op::Txn(txn) => puts(&txn.success) || puts(&txn.failure),
            _ => false,
        })
    }
    match command {
        Command::Put(_) | Command::LeaseGrant(_) => true,
        Command::Txn(txn) => puts(&txn.success) || puts(&txn.failure),
        _ => false,
    }
}

fn read(map: &Map, range: &Range, header: i64) -> RangeReply {
    let hit = |pair: &&KeyValue| within(&pair.key, &range.key, &range.range_end);
    let mut kvs: Vec<KeyValue> = map.values().filter(hit).cloned().collect();
    let count = kvs.len() as i64;
    let revision = Revision(header);
    if range.count_only {
        return RangeReply { revision, kvs: vec![], more: false, count };
    }
    let limit = usize::try_from(range.limit).unwrap_or(0);
    let filters = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    let filtered = filters.iter().any(|filter| filter.0 != 0);
    // Clients know the order of an unnamed direction as one of the first pairs.
    if limit > 0 && !filtered && range.sort_order == SortOrder::None {
        kvs.truncate(limit + 1);
    }
    let [min_mod, max_mod, min_create, max_create] = filters.map(|filter| filter.0);
    kvs.retain(|pair| {
        (min_mod == 0 || pair.mod_revision.0 >= min_mod)
            && (max_mod == 0 || pair.mod_revision.0 <= max_mod)
            && (min_create == 0 || pair.create_revision.0 >= min_create)
            && (max_create == 0 || pair.create_revision.0 <= max_create)
    });
    kvs.sort_by(|one, other| {
        let ordering = match range.sort_target {
            SortTarget::Key => one.key.cmp(&other.key),
            SortTarget::Version => one.version.cmp(&other.version),
            SortTarget::Create => one.create_revision.cmp(&other.create_revision),
            SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
            SortTarget::Value => one.value.cmp(&other.value),
        };
        // Of those that are equal nothing is promised; this is what the store does.
        let ordering = ordering.then_with(|| one.key.cmp(&other.key));
        if range.sort_order == SortOrder::Descend { ordering.reverse() } else { ordering }
    });
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if range.keys_only {
        for pair in &mut kvs {
            pair.value = Bytes::new();
            if range.sort_target != SortTarget::Value {
                pair.lease = None;
            }
        }
    }
    RangeReply { revision, kvs, more, count }
}
