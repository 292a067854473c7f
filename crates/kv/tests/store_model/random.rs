//! Random commands over few keys.

use bytes::Bytes;
use quorate_kv::{
    Alarm, AlarmKind, Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange,
    GrantedLease, LeaseCheckpoint, LeaseGrant, LeaseId, MemberId, Op, Put, Range, Revision,
    SortOrder, SortTarget, Txn,
};

use crate::naive::Naive;

/// xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn key(&mut self) -> Bytes {
        Bytes::from_static(self.one(&[&b"a"[..], b"ab", b"b", b"b\0", b"c", b"d", b"\xff"]))
    }

    fn end(&mut self) -> Bytes {
        Bytes::from_static(self.one(&[&b""[..], b"", b"\0", b"a", b"b", b"c", b"d", b"\xff\xff"]))
    }

    fn value(&mut self) -> Bytes {
        let byte = b'0' + self.below(10) as u8;
        Bytes::from(vec![byte; self.one(&[0, 1, 5, 80])])
    }

    fn lease(&mut self) -> Option<LeaseId> {
        let number = self.one(&[0, 0, 0, 1, 2, 3, -4]);
        LeaseId::from_number(number)
    }

    fn put(&mut self) -> Put {
        let (ignore_value, ignore_lease) = (self.chance(10), self.chance(10));
        Put {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            lease: if ignore_lease { None } else { self.lease() },
            prev_kv: self.chance(30),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> DeleteRange {
        let range_end = if self.chance(60) { Bytes::new() } else { self.end() };
        DeleteRange { key: self.key(), range_end, prev_kv: self.chance(30) }
    }

    fn revision(&mut self, current: i64) -> Revision {
        Revision(match self.below(10) {
            0..=5 => 0,
            6 => -1,
            7 => current + 1,
            _ => 1 + self.below(current as usize) as i64,
        })
    }

    pub(crate) fn range(&mut self, current: i64) -> Range {
        let sorts = self.chance(40);
        let mut filter = |percent| {
            if self.chance(percent) {
                Revision(1 + self.below(current as usize) as i64)
            } else {
                Revision(0)
            }
        };
        let filters = [filter(5), filter(5), filter(5), filter(5)];
        let targets = [
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ];
        let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
        Range {
            key: self.key(),
            range_end: self.end(),
            limit: self.one(&[0, 0, -1, 1, 2, 3, 100]),
            revision: self.revision(current),
            sort_order: if sorts { self.one(&orders) } else { SortOrder::None },
            sort_target: if sorts { self.one(&targets) } else { SortTarget::Key },
            serializable: false,
            keys_only: self.chance(20),
            count_only: self.chance(10),
            min_mod_revision: filters[0],
            max_mod_revision: filters[1],
            min_create_revision: filters[2],
            max_create_revision: filters[3],
        }
    }

    fn compare(&mut self, current: i64) -> Compare {
        let number = self.one(&[0, 1, 2, current, current - 1]);
        let target = match self.below(5) {
            0 => CompareTarget::Version(number),
            1 => CompareTarget::Create(Revision(number)),
            2 => CompareTarget::Mod(Revision(number)),
            3 => CompareTarget::Value(self.value()),
            _ => CompareTarget::Lease(number),
        };
        let results = [
            CompareResult::Equal,
            CompareResult::NotEqual,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::Unknown,
        ];
        let range_end = if self.chance(70) { Bytes::new() } else { self.end() };
        Compare { key: self.key(), range_end, result: self.one(&results), target }
    }

    fn ops(&mut self, current: i64, depth: usize) -> Vec<Op> {
        let count = self.below(4);
        let mut ops = Vec::new();
        // Twice the same key within a transaction is refused before it gets here, but for a hole in that rule.
        for _ in 0..count {
            ops.push(match self.below(8) {
                0..=2 => Op::Put(self.put()),
                3 => Op::DeleteRange(self.delete()),
                4 if depth > 0 => Op::Txn(self.txn(current, depth - 1)),
                _ => Op::Range(self.range(current)),
            });
        }
        ops
    }

    fn txn(&mut self, current: i64, depth: usize) -> Txn {
        let count = self.below(3);
        Txn {
            compare: (0..count).map(|_| self.compare(current)).collect(),
            success: self.ops(current, depth),
            failure: self.ops(current, depth),
        }
    }

    /// The lease that has an id, or now and then another one.
    fn granted(&mut self, id: LeaseId, naive: &Naive) -> GrantedLease {
        let grant = naive.granted.get(&id).copied().unwrap_or(1);
        GrantedLease { id, grant: grant.saturating_sub(u64::from(self.below(4) == 0)) }
    }

    pub(crate) fn command(&mut self, naive: &Naive) -> Command {
        let current = naive.revision();
        match self.below(40) {
            0..=15 => Command::Put(self.put()),
            16..=20 => Command::DeleteRange(self.delete()),
            21..=29 => Command::Txn(self.txn(current, 2)),
            30 => {
                let revision = Revision(self.below(current as usize + 2) as i64);
                Command::Compact(Compact { revision, physical: false })
            }
            31..=33 => {
                let id = self.lease().unwrap_or(LeaseId(1));
                let ttl_s = self.one(&[-1, 0, 5, 60, 9_000_000_001]);
                Command::LeaseGrant(LeaseGrant { id, ttl_s })
            }
            34 => Command::LeaseRevoke(self.lease().unwrap_or(LeaseId(2))),
            35 => {
                let ids: Vec<_> = (0..self.below(3)).filter_map(|_| self.lease()).collect();
                let leases = ids.into_iter().map(|id| self.granted(id, naive));
                Command::LeaseExpire(leases.collect())
            }
            36 => {
                let id = self.lease().unwrap_or(LeaseId(1));
                let lease = self.granted(id, naive);
                Command::LeaseCheckpoint(vec![LeaseCheckpoint { lease, remaining_s: 3 }])
            }
            37 => {
                let kinds = [None, Some(AlarmKind::NoSpace), Some(AlarmKind::Corrupt)];
                let (member, kind) = (MemberId(self.below(2) as u64), self.one(&kinds));
                Command::Alarm(match self.below(4) {
                    0 => Alarm::List(kind),
                    1 => Alarm::Activate(member, kind),
                    _ => Alarm::Deactivate(member, kind),
                })
            }
            _ => {
                // So that alarms do not last.
                let all = naive.alarms.iter().next();
                match all {
                    Some(alarm) => {
                        Command::Alarm(Alarm::Deactivate(alarm.member, Some(alarm.kind)))
                    }
                    None => Command::Put(self.put()),
                }
            }
        }
    }
}
