//! The plainest store that answers as the real one must: maps, and all changes in a list.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_kv::{
    Changes, Command, Compare, CompareResult, CompareTarget, Event, History, HistoryError,
    KeyValue, LeaseGrant, LeaseId, Leases, Op, Past, PastRequest, Put, RequestError, Revision, Txn,
};
use quorate_raft::crc32c;

use crate::state_machine::mix;

/// A store with its whole history.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) pairs: BTreeMap<Bytes, KeyValue>,
    /// Of every revision from 2 on.
    pub(super) changes: Vec<Changes>,
    pub(super) compacted: Revision,
    pub(super) leases: Leases,
}

/// What a command did.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) changes: Vec<Changes>,
    /// Leases that ended.
    pub(super) ended: Vec<LeaseId>,
}

impl Default for Reference {
    fn default() -> Self {
        Self {
            pairs: BTreeMap::new(),
            changes: Vec::new(),
            compacted: Revision(-1),
            leases: Leases::new(),
        }
    }
}

impl Reference {
    pub(super) fn revision(&self) -> Revision {
        Revision(self.changes.len() as i64 + 1)
    }

    /// Carries out a command.
    pub(super) fn apply(&mut self, command: &Command) -> Result<Done, RequestError> {
        let mut done = Done::default();
        match command {
            Command::Put(put) => done.changes.extend(self.write(&[Op::Put(put.clone())])?),
            Command::DeleteRange(range) => {
                done.changes.extend(self.write(&[Op::DeleteRange(range.clone())])?);
            }
            Command::Txn(Txn { compare, success, failure }) => {
                let holds = compare.iter().all(|compare| self.holds(compare));
                done.changes.extend(self.write(if holds { success } else { failure })?);
            }
            Command::Compact(compact) => {
                if compact.revision > self.revision() {
                    return Err(RequestError::FutureRevision);
                }
                if compact.revision <= self.compacted {
                    return Err(RequestError::Compacted);
                }
                self.compacted = compact.revision;
            }
            Command::LeaseGrant(LeaseGrant { id, ttl_s }) => drop(self.leases.grant(*id, *ttl_s)?),
            Command::LeaseRevoke(id) => self.end(*id, &mut done)?,
            Command::LeaseExpire(ids) => {
                for id in ids.iter().filter(|id| self.leases.contains(**id)).collect::<Vec<_>>() {
                    self.end(*id, &mut done)?;
                }
            }
            Command::LeaseCheckpoint(checkpoints) => {
                for checkpoint in checkpoints {
                    self.leases.checkpoint(*checkpoint);
                }
            }
            Command::Alarm(_) => {}
        }
        Ok(done)
    }

    fn end(&mut self, id: LeaseId, done: &mut Done) -> Result<(), RequestError> {
        let keys = self.leases.revoke(id)?;
        done.ended.push(id);
        let revision = Revision(self.revision().0 + 1);
        let events = keys.into_iter().filter_map(|key| {
            let prev = self.pairs.remove(&key)?;
            Some(Event::delete(key, revision, Some(prev)))
        });
        let events: Arc<[Event]> = events.collect();
        if !events.is_empty() {
            let changes = Changes { revision, events };
            self.changes.push(changes.clone());
            done.changes.push(changes);
        }
        Ok(())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let pair = self.pairs.get(&compare.key);
        let (stored, given) = match &compare.target {
            CompareTarget::Create(given) => (pair.map_or(0, |kv| kv.create_revision.0), given.0),
            CompareTarget::Mod(given) => (pair.map_or(0, |kv| kv.mod_revision.0), given.0),
            CompareTarget::Version(given) => (pair.map_or(0, |kv| kv.version), *given),
            CompareTarget::Value(_) | CompareTarget::Lease(_) => return false,
        };
        match compare.result {
            CompareResult::Equal => stored == given,
            CompareResult::Greater => stored > given,
            CompareResult::Less => stored < given,
            CompareResult::NotEqual => stored != given,
            CompareResult::Unknown => true,
        }
    }

    /// Writes in one revision, if anything is written.
    fn write(&mut self, ops: &[Op]) -> Result<Option<Changes>, RequestError> {
        let leases = ops.iter().filter_map(|op| match op {
            Op::Put(put) => put.lease,
            _ => None,
        });
        for lease in leases {
            if !self.leases.contains(lease) {
                return Err(RequestError::LeaseNotFound);
            }
        }
        let revision = Revision(self.revision().0 + 1);
        let mut events = Vec::new();
        for op in ops {
            match op {
                Op::Put(put) => events.push(self.put(put, revision)),
                Op::DeleteRange(range) => {
                    let within = |key: &Bytes| match &range.range_end[..] {
                        b"" => *key == range.key,
                        b"\0" => *key >= range.key,
                        end => *key >= range.key && &key[..] < end,
                    };
                    let keys: Vec<Bytes> =
                        self.pairs.keys().filter(|key| within(key)).cloned().collect();
                    for key in keys {
                        self.leases.detach(&key);
                        let prev = self.pairs.remove(&key);
                        events.push(Event::delete(key, revision, prev));
                    }
                }
                Op::Range(_) | Op::Txn(_) => {}
            }
        }
        if events.is_empty() {
            return Ok(None);
        }
        let changes = Changes { revision, events: events.into() };
        self.changes.push(changes.clone());
        Ok(Some(changes))
    }

    fn put(&mut self, put: &Put, revision: Revision) -> Event {
        let prev = self.pairs.get(&put.key).cloned();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: prev.as_ref().map_or(revision, |prev| prev.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            value: put.value.clone(),
            lease: put.lease,
        };
        match put.lease {
            Some(lease) => self.leases.attach(&put.key, lease).expect("it was looked for"),
            None => drop(self.leases.detach(&put.key)),
        }
        self.pairs.insert(put.key.clone(), kv.clone());
        Event::put(kv, prev)
    }

    /// Equal for equal contents.
    pub(super) fn digest(&self) -> u64 {
        let number = |hash, number: i64| mix(hash, number.cast_unsigned());
        let mut hash = number(number(0, self.revision().0), self.compacted.0);
        for kv in self.pairs.values() {
            hash = mix(mix(hash, u64::from(crc32c(&kv.key))), u64::from(crc32c(&kv.value)));
            hash = number(number(hash, kv.create_revision.0), kv.mod_revision.0);
            hash = number(number(hash, kv.version), kv.lease.map_or(0, |lease| lease.0));
        }
        for (id, record) in self.leases.records() {
            hash = number(mix(hash, u64::from(crc32c(&record))), id.0);
            for key in self.leases.keys_of(id) {
                hash = mix(hash, u64::from(crc32c(key)));
            }
        }
        hash
    }
}

impl History for Reference {
    fn past(&self, request: PastRequest) -> Result<Past, HistoryError> {
        if request.from < self.compacted {
            return Err(HistoryError::Compacted(self.compacted));
        }
        let first = (request.from.0 - 2).clamp(0, self.changes.len() as i64) as usize;
        let wanted = self.changes[first..].iter().take(request.revisions_max);
        let changes: Vec<Changes> =
            wanted.take_while(|changes| changes.revision <= request.to).cloned().collect();
        let through = changes.last().map_or(request.to, |last| last.revision);
        Ok(Past { changes, through })
    }
}
