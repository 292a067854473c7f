//! Clients with leases: they ask for one, keep it alive for a while, and then say goodbye or just die. And what leaders
//! decide about leases.

use bytes::Bytes;
use quorate_kv::{Command, Decision, LeaseGrant, LeaseId, Renewal, Ticket};
use quorate_node::{ProposeFailure, Reply};
use quorate_raft::{NodeId, ReadMode, RoleName, Term};

use super::{KeyValueMachine, OWNER, Open, Trial};
use crate::rng::Rng;

/// A client with a lease.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) rng: Rng,
    pub(super) lease: Option<(LeaseId, i64)>,
    /// Keepalives before it loses interest.
    pub(super) left: u64,
    /// Whom it asked last, as long as there is no reason to ask somebody else.
    pub(super) node: Option<NodeId>,
}

impl Owner {
    pub(super) const fn new(rng: Rng) -> Self {
        Self { rng, lease: None, left: 0, node: None }
    }
}

impl Trial {
    pub(super) fn care(&mut self, number: u64) -> Result<(), String> {
        let former = self.owners.get(&number).and_then(|owner| owner.node);
        let host = former.and_then(|node| self.cluster.host(node));
        let awake = host.is_some_and(|host| host.is_up() && !host.is_paused());
        let node = if awake && self.rng.chance(800_000) { former } else { self.node() };
        let Some(node) = node else {
            self.later(OWNER | number, self.think_us);
            return Ok(());
        };
        let now = self.cluster.now();
        let Some(owner) = self.owners.get_mut(&number) else { return Ok(()) };
        let Some((id, ttl_s)) = owner.lease else {
            return if self.stopped { Ok(()) } else { self.grant(number, node) };
        };
        if owner.left == 0 || self.stopped {
            // It dies, or says goodbye first.
            owner.lease = None;
            self.oracle.given_up(id);
            let revokes = owner.rng.chance(500_000) && !self.stopped;
            let command = Command::LeaseRevoke(id).encode().map_err(|error| error.to_string())?;
            match revokes.then(|| self.cluster.propose(node, command)).flatten() {
                Some(request) => drop(self.open.insert(request, Open::Revoke { owner: number })),
                None => self.later(OWNER | number, self.think_us),
            }
            return Ok(());
        }
        owner.left -= 1;
        owner.node = Some(node);
        let ttl_us = ttl_s as u64 * 1_000_000;
        let pause_us = owner.rng.between(ttl_us / 8, ttl_us * 7 / 8);
        self.later(OWNER | number, pause_us);
        let over = self.oracle.has_ended(id);
        let Some(machine) = self.cluster.machine_mut::<KeyValueMachine>(node) else {
            return Ok(());
        };
        let life = machine.life;
        let Ok(ticket) = machine.lessor.arrived(now.0, id) else {
            if let Some(owner) = self.owners.get_mut(&number) {
                owner.node = None;
            }
            return Ok(());
        };
        if let Some(request) = self.cluster.read(node, ReadMode::ReadIndex, Bytes::new()) {
            let open = Open::Confirm { owner: number, node, life, ticket, over };
            self.open.insert(request, open);
        }
        Ok(())
    }

    pub(super) fn grant(&mut self, number: u64, node: NodeId) -> Result<(), String> {
        let id = LeaseId(self.next_lease);
        self.next_lease += 1;
        let ttl_s = self.rng.between(1, 8) as i64;
        let command = Command::LeaseGrant(LeaseGrant { id, ttl_s }).encode();
        let command = command.map_err(|error| error.to_string())?;
        let asked = self.cluster.now();
        match self.cluster.propose(node, command) {
            Some(request) => {
                self.open.insert(request, Open::Grant { owner: number, id, ttl_s, asked });
            }
            None => self.later(OWNER | number, self.think_us),
        }
        Ok(())
    }

    pub(super) fn propose_decision(
        &mut self,
        node: NodeId,
        life: u64,
        decision: Decision,
    ) -> Result<(), String> {
        let machine = self.cluster.machine_mut::<KeyValueMachine>(node);
        if machine.is_none_or(|machine| machine.life != life) {
            // It died with its process.
            return Ok(());
        }
        if let Command::LeaseExpire(ids) = &decision.command {
            self.counts.expired += ids.len() as u64;
        }
        let command = decision.command.encode().map_err(|error| error.to_string())?;
        let term = Term(decision.term.0);
        if let Some(request) = self.cluster.propose_in_term(node, command, term) {
            self.open.insert(request, Open::Decision { node, life, decision });
        }
        Ok(())
    }

    pub(super) fn fate(
        &mut self,
        node: NodeId,
        life: u64,
        decision: &Decision,
        reply: &Reply,
    ) -> Result<(), String> {
        let Reply::Proposed(Err(failure)) = reply else { return Ok(()) };
        let now = self.cluster.now();
        let brief = self.cluster.host(node).and_then(|host| host.brief().cloned());
        let Some(machine) = self.cluster.machine_mut::<KeyValueMachine>(node) else {
            return Ok(());
        };
        if machine.life != life {
            return Ok(());
        }
        if let ProposeFailure::OutcomeUnknown { .. } = failure {
            let term = Term(decision.term.0);
            let leads = |role: RoleName| role == RoleName::Leader;
            if brief.is_some_and(|brief| leads(brief.role) && brief.term == term) {
                return Err(format!("n{node} leads {term}, and does not know of {decision:?}"));
            }
            return Ok(());
        }
        machine.lessor.refused(now.0, decision);
        Ok(())
    }

    /// The node's state is as new as the round. If it led all the time, the lessor still has that term.
    pub(super) fn confirmed(
        &mut self,
        number: u64,
        node: NodeId,
        life: u64,
        ticket: Ticket,
        over: bool,
    ) -> Result<(), String> {
        // The node may have stepped down in the very step that answers.
        self.look_at_replicas()?;
        let now = self.cluster.now();
        let Some(machine) = self.cluster.machine_mut::<KeyValueMachine>(node) else {
            return Ok(());
        };
        if machine.life != life {
            return Ok(());
        }
        let renewal = machine.lessor.confirmed(now.0, ticket);
        if renewal == Renewal::Waiting {
            self.counts.waited += 1;
            self.waiting.insert((node, life, ticket), (number, over));
            return Ok(());
        }
        self.renewed(number, ticket, over, renewal)
    }

    pub(super) fn outcome(
        &mut self,
        node: NodeId,
        life: u64,
        ticket: Ticket,
        renewal: Renewal,
    ) -> Result<(), String> {
        let Some((owner, over)) = self.waiting.remove(&(node, life, ticket)) else {
            return Err(format!("nobody waits for {ticket:?}"));
        };
        if renewal != Renewal::Again {
            return self.renewed(owner, ticket, over, renewal);
        }
        if let Some(request) = self.cluster.read(node, ReadMode::ReadIndex, Bytes::new()) {
            self.open.insert(request, Open::Confirm { owner, node, life, ticket, over });
        }
        Ok(())
    }

    pub(super) fn renewed(
        &mut self,
        number: u64,
        ticket: Ticket,
        over: bool,
        renewal: Renewal,
    ) -> Result<(), String> {
        let held = self.owners.get(&number).and_then(|owner| owner.lease);
        let holds = held.is_some_and(|(id, _)| id == ticket.id);
        match renewal {
            Renewal::Renewed(_) if over => Err(format!(
                "lease {} is renewed, but had ended when it was asked for",
                ticket.id.0
            )),
            Renewal::Renewed(ttl_s) => {
                self.counts.renewed += 1;
                if holds {
                    let until = self.cluster.now().after(ttl_s as u64 * 1_000_000);
                    self.oracle.promised(ticket.id, until);
                }
                Ok(())
            }
            Renewal::NotFound if !self.oracle.has_ended(ticket.id) => {
                Err(format!("lease {} is not found, but never ended", ticket.id.0))
            }
            Renewal::NotFound => {
                if let Some(owner) = self.owners.get_mut(&number).filter(|_| holds) {
                    owner.lease = None;
                }
                Ok(())
            }
            Renewal::NotPrimary | Renewal::Busy | Renewal::Waiting | Renewal::Again => Ok(()),
        }
    }
}
