//! What the leader does for leases: renewing them, and having those revoked whose time is up.

use quorate::{Consistency, NodeId, ReadError, Term};
use quorate_kv::{Decision, LeaseId, Renewal, RequestError, Ticket};

use crate::asks::Unanswered;
use crate::clock;
use crate::command::Entry;
use crate::member::Member;
use crate::proto::etcdserverpb as pb;
use crate::status;

impl Member {
    /// A ticket for a question about a lease that just arrived, with leadership confirmed by a round that began after it.
    async fn confirmed_ticket(&self, id: LeaseId) -> Result<Ticket, Unanswered> {
        let ticket = self.0.data.leases().lessor.arrived(clock::now_us(), id);
        let ticket = ticket.map_err(|_| Unanswered::NotLeader)?;
        self.confirm().await?;
        Ok(ticket)
    }

    /// Has leadership confirmed by a round that begins now, and waits until everything committed before it is applied.
    async fn confirm(&self) -> Result<(), Unanswered> {
        match self.0.node.reach(Consistency::Linearizable).await {
            Ok(()) => Ok(()),
            Err(ReadError::NoLeader) => Err(Unanswered::NotLeader),
            Err(why) => Err(status::wait(why).into()),
        }
    }

    /// Renews a lease for a keepalive that just arrived. Gives back its time to live in seconds; 0 if there is no such lease.
    pub(crate) async fn renew(&self, id: i64) -> Result<i64, Unanswered> {
        let Some(id) = LeaseId::from_number(id) else { return Ok(0) };
        let ticket = self.confirmed_ticket(id).await?;
        loop {
            let (renewal, waits) = {
                let mut leases = self.0.data.leases();
                let renewal = leases.lessor.confirmed(clock::now_us(), ticket);
                // Before outcomes are delivered: this one's may be among them.
                let waits = (renewal == Renewal::Waiting).then(|| leases.wait(ticket));
                leases.deliver();
                (renewal, waits)
            };
            let renewal = match waits {
                None => renewal,
                Some(outcome) => {
                    self.0.data.lease_news.notify_one();
                    outcome.await.map_err(|_| Unanswered::Status(status::stopped()))?
                }
            };
            return match renewal {
                Renewal::Renewed(ttl_s) => {
                    self.metrics().leases_renewed.increment();
                    Ok(ttl_s)
                }
                Renewal::NotFound => Ok(0),
                Renewal::NotPrimary => Err(Unanswered::NotLeader),
                Renewal::Busy => Err(status::too_many_requests().into()),
                Renewal::Again | Renewal::Waiting => {
                    self.confirm().await?;
                    continue;
                }
            };
        }
    }

    /// What is known of a lease and its time.
    pub(crate) async fn time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Unanswered> {
        let none = pb::LeaseTimeToLiveResponse {
            id: request.id,
            ttl: -1,
            ..pb::LeaseTimeToLiveResponse::default()
        };
        let Some(id) = LeaseId::from_number(request.id) else { return Ok(none) };
        let ticket = self.confirmed_ticket(id).await?;
        let time = self.0.data.leases().lessor.time_to_live(clock::now_us(), ticket);
        let Some(time) = time.map_err(|_| Unanswered::NotLeader)? else { return Ok(none) };
        let keys = if request.keys {
            self.reader().lease_keys(id).unwrap_or_default()
        } else {
            Vec::new()
        };
        Ok(pb::LeaseTimeToLiveResponse {
            ttl: time.remaining_s,
            granted_ttl: time.granted_s,
            keys,
            ..none
        })
    }

    /// Lets the lessor lead while this member does.
    pub(crate) fn follow_leadership(&self) {
        let data = &self.0.data;
        let (leader, term) = self.0.node.leader();
        let leads = leader == Some(NodeId(self.0.member_id));
        let acts_in = data.leases().lessor.term().map(|term| term.0);
        if acts_in.is_some_and(|acts_in| !leads || acts_in != term.0) {
            let mut store = data.store();
            data.demote(&mut store);
        }
        // Not before the first entry of the term is applied: an older table may be wrong about checkpoints.
        if leads && acts_in != Some(term.0) && data.applied_term() == term.0 {
            data.promote(term.0);
        }
    }

    /// Proposes what the lessor has decided.
    pub(crate) fn carry_out_decisions(&self) {
        let decisions = {
            let mut leases = self.0.data.leases();
            let now_us = clock::now_us();
            match leases.lessor.wake_us() {
                Some(wake_us) if wake_us <= now_us => leases.lessor.decide(now_us),
                _ => Vec::new(),
            }
        };
        for decision in decisions {
            let member = self.clone();
            // Bounded by what a round decides; decided again only when the outcome is known.
            tokio::spawn(async move { member.carry_out(decision).await });
        }
    }

    async fn carry_out(&self, decision: Decision) {
        let never = match Entry::of(&decision.command) {
            Err(_) => true,
            Ok(entry) => {
                let proposed = self.0.node.propose_in_term(Term(decision.term.0), entry).await;
                match proposed {
                    Ok(reply) => !matches!(
                        reply.into_result(),
                        Ok(_) | Err(Some(RequestError::LeaseNotFound))
                    ),
                    Err(why) => why.never_happened(),
                }
            }
        };
        if never {
            let mut leases = self.0.data.leases();
            leases.lessor.refused(clock::now_us(), &decision);
            leases.deliver();
        }
    }
}
