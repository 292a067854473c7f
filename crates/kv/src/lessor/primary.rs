//! What a leader knows of its leases: their times, and what is under way about them.

use std::collections::{BTreeMap, BTreeSet};

use crate::lessor::deadlines::Deadlines;
use crate::lessor::{
    LEASE_CHECKPOINT_ROUND_MAX, LEASE_EXPIRE_ROUND_MAX, LEASE_WAITING_MAX, LeaderTerm,
    LessorConfig, Renewal, SECOND_US, Ticket,
};
use crate::{GrantedLease, LeaseCheckpoint, LeaseId, Leases};

/// What only a leader has.
#[derive(Debug)]
pub(super) struct Primary {
    pub(super) term: LeaderTerm,
    pub(super) tenures: BTreeMap<LeaseId, Tenure>,
    pub(super) expiries: Deadlines,
    pub(super) checkpoints: Deadlines,
    /// Renewed leases whose checkpoint must be cleared before the renewal is answered.
    pub(super) clears: BTreeSet<LeaseId>,
    /// Keepalives, by the lease whose command they wait for.
    pub(super) waiting: BTreeMap<LeaseId, Vec<Ticket>>,
    pub(super) waiting_count: usize,
    pub(super) next_round_us: u64,
}

/// The time of one lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tenure {
    pub(super) grant: u64,
    pub(super) ttl_s: i64,
    /// Never moves back.
    pub(super) expiry_us: u64,
    /// `u64::MAX`: no checkpoint is planned. Never moves back.
    pub(super) checkpoint_us: u64,
    /// What the table says.
    pub(super) checkpointed_s: Option<i64>,
    /// What is on its way to the table.
    pub(super) command: UnderWay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnderWay {
    Nothing,
    Expire,
    Checkpoint,
}

impl Tenure {
    pub(super) fn full_expiry_us(&self, now_us: u64) -> u64 {
        now_us.saturating_add(seconds(self.ttl_s))
    }
}

fn seconds(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0).saturating_mul(SECOND_US)
}

fn planned_checkpoints(
    tenures: &BTreeMap<LeaseId, Tenure>,
) -> impl Iterator<Item = (u64, LeaseId)> {
    let planned = tenures.iter().filter(|(_, tenure)| tenure.checkpoint_us != u64::MAX);
    planned.map(|(id, tenure)| (tenure.checkpoint_us, *id))
}

impl Primary {
    pub(super) fn new(
        config: &LessorConfig,
        now_us: u64,
        term: LeaderTerm,
        leases: &Leases,
    ) -> Self {
        let start_us = now_us.saturating_add(config.extension_us);
        let tenures = leases.iter().map(|lease| {
            let expiry_us = start_us.saturating_add(seconds(lease.time_left_s()));
            let tenure = Tenure {
                grant: lease.granted().grant,
                ttl_s: lease.ttl_s(),
                expiry_us,
                checkpoint_us: config.next_checkpoint_us(now_us, expiry_us),
                checkpointed_s: lease.remaining_s(),
                command: UnderWay::Nothing,
            };
            (lease.id(), tenure)
        });
        let tenures: BTreeMap<LeaseId, Tenure> = tenures.collect();
        Self {
            term,
            expiries: tenures.iter().map(|(id, tenure)| (tenure.expiry_us, *id)).collect(),
            checkpoints: planned_checkpoints(&tenures).collect(),
            tenures,
            clears: BTreeSet::new(),
            waiting: BTreeMap::new(),
            waiting_count: 0,
            next_round_us: now_us,
        }
    }

    /// What is known of a lease, if that is what is under way about it.
    pub(super) fn deciding(
        &mut self,
        lease: GrantedLease,
        command: UnderWay,
    ) -> Option<&mut Tenure> {
        let tenure = self.tenures.get_mut(&lease.id)?;
        (tenure.grant == lease.grant && tenure.command == command).then_some(tenure)
    }

    pub(super) fn granted(
        &mut self,
        config: &LessorConfig,
        now_us: u64,
        GrantedLease { id, grant }: GrantedLease,
        ttl_s: i64,
    ) {
        let expiry_us = now_us.saturating_add(seconds(ttl_s));
        let checkpoint_us = config.next_checkpoint_us(now_us, expiry_us);
        let (checkpointed_s, command) = (None, UnderWay::Nothing);
        let tenure = Tenure { grant, ttl_s, expiry_us, checkpoint_us, checkpointed_s, command };
        self.tenures.insert(id, tenure);
        self.expiries.push(expiry_us, id);
        if checkpoint_us != u64::MAX {
            self.checkpoints.push(checkpoint_us, id);
        }
    }

    /// Gives a lease all of its time. What is promised already is not taken back.
    pub(super) fn renew(&mut self, config: &LessorConfig, now_us: u64, id: LeaseId) {
        let Some(tenure) = self.tenures.get_mut(&id) else { return };
        tenure.expiry_us = tenure.expiry_us.max(tenure.full_expiry_us(now_us));
        self.plan_checkpoint(config, now_us, id);
    }

    pub(super) fn plan_checkpoint(&mut self, config: &LessorConfig, now_us: u64, id: LeaseId) {
        let Some(tenure) = self.tenures.get_mut(&id) else { return };
        let checkpoint_us = config.next_checkpoint_us(now_us, tenure.expiry_us);
        let queued = tenure.checkpoint_us != u64::MAX && tenure.command == UnderWay::Nothing;
        tenure.checkpoint_us = checkpoint_us;
        // What is queued is looked at when its time comes, and finds the later one.
        if checkpoint_us != u64::MAX && !queued {
            self.checkpoints.push(checkpoint_us, id);
        }
    }

    pub(super) fn wait(&mut self, ticket: Ticket) -> Renewal {
        if self.waiting_count >= LEASE_WAITING_MAX {
            return Renewal::Busy;
        }
        self.waiting_count += 1;
        self.waiting.entry(ticket.id).or_default().push(ticket);
        Renewal::Waiting
    }

    pub(super) fn answer(
        &mut self,
        id: LeaseId,
        renewal: Renewal,
        outcomes: &mut Vec<(Ticket, Renewal)>,
    ) {
        if let Some(waiting) = self.waiting.remove(&id) {
            self.waiting_count -= waiting.len();
            outcomes.extend(waiting.into_iter().map(|ticket| (ticket, renewal)));
        }
    }

    /// Goes on with the keepalives that wait for a lease, if nothing about it is under way. Those that came when its time
    /// was up go on waiting for its end.
    pub(super) fn settle(&mut self, id: LeaseId, outcomes: &mut Vec<(Ticket, Renewal)>) {
        let (Some(tenure), Some(waiting)) = (self.tenures.get(&id), self.waiting.get_mut(&id))
        else {
            return;
        };
        let in_time = |ticket: &mut Ticket| ticket.arrived_us < tenure.expiry_us;
        if tenure.command != UnderWay::Nothing || !waiting.iter_mut().any(in_time) {
            return;
        }
        if tenure.checkpointed_s.is_some() {
            self.clears.insert(id);
            return;
        }
        let before = waiting.len();
        outcomes.extend(waiting.extract_if(.., in_time).map(|ticket| (ticket, Renewal::Again)));
        self.waiting_count -= before - waiting.len();
        if waiting.is_empty() {
            self.waiting.remove(&id);
        }
    }

    pub(super) fn take_expired(&mut self, now_us: u64) -> Vec<GrantedLease> {
        let mut expired = Vec::new();
        while expired.len() < LEASE_EXPIRE_ROUND_MAX {
            let tenures = &self.tenures;
            let deadline = |id| match tenures.get(&id) {
                Some(tenure) if tenure.command != UnderWay::Expire => Some(tenure.expiry_us),
                _ => None,
            };
            let Some(id) = self.expiries.pop_due(now_us, deadline) else { break };
            self.clears.remove(&id);
            let Some(tenure) = self.tenures.get_mut(&id) else { continue };
            tenure.command = UnderWay::Expire;
            expired.push(GrantedLease { id, grant: tenure.grant });
        }
        expired
    }

    pub(super) fn take_checkpoints(&mut self, now_us: u64) -> Vec<LeaseCheckpoint> {
        let mut checkpoints = Vec::new();
        while checkpoints.len() < LEASE_CHECKPOINT_ROUND_MAX {
            let tenures = &self.tenures;
            let deadline = |id| {
                let planned = tenures.get(&id).map(|tenure| tenure.checkpoint_us);
                planned.filter(|checkpoint_us| *checkpoint_us != u64::MAX)
            };
            let Some(id) = self.checkpoints.pop_due(now_us, deadline) else { break };
            let Some(tenure) = self.tenures.get_mut(&id) else { continue };
            tenure.checkpoint_us = u64::MAX;
            let remaining_us = tenure.expiry_us.saturating_sub(now_us);
            let remaining_s = i64::try_from(remaining_us.div_ceil(SECOND_US)).unwrap_or(i64::MAX);
            // While something is under way, its outcome plans anew. And a keepalive that waits for a clear would only
            // have to wait once more.
            let settled = tenure.command == UnderWay::Nothing && !self.clears.contains(&id);
            if !settled || remaining_s == 0 || remaining_s >= tenure.ttl_s {
                continue;
            }
            tenure.command = UnderWay::Checkpoint;
            let lease = GrantedLease { id, grant: tenure.grant };
            checkpoints.push(LeaseCheckpoint { lease, remaining_s });
        }
        checkpoints
    }

    pub(super) fn take_clears(&mut self) -> Vec<LeaseCheckpoint> {
        let mut cleared = Vec::new();
        while cleared.len() < LEASE_CHECKPOINT_ROUND_MAX {
            let Some(id) = self.clears.pop_first() else { break };
            let Some(tenure) = self.tenures.get_mut(&id) else { continue };
            tenure.command = UnderWay::Checkpoint;
            // Planned again when the outcome is known.
            tenure.checkpoint_us = u64::MAX;
            let lease = GrantedLease { id, grant: tenure.grant };
            cleared.push(LeaseCheckpoint { lease, remaining_s: 0 });
        }
        cleared
    }

    /// Queues keep what is over until its time comes; not forever, if leases come and go quickly.
    pub(super) fn tidy(&mut self) {
        let leases = self.tenures.len();
        if self.expiries.is_stale(leases) {
            let queued = self.tenures.iter().filter(|(_, t)| t.command != UnderWay::Expire);
            self.expiries = queued.map(|(id, tenure)| (tenure.expiry_us, *id)).collect();
        }
        if self.checkpoints.is_stale(leases) {
            self.checkpoints = planned_checkpoints(&self.tenures).collect();
        }
    }
}
