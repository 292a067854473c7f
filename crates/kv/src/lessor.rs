//! When leases end: the leader's side, which is not replicated.
//!
//! The [`Lessor`] of the member that leads knows for each lease when it runs out. It renews them for keepalives, and says
//! when one is to be revoked or its remaining time to be written down; both are commands that go through the log. Time is
//! a value that the host gives with every call: microseconds of a clock that never goes back and that also counts while
//! the machine sleeps.
//!
//! What keeps a lease from ending early, or from being renewed by somebody who may not:
//!
//! * **A new leader is generous.** [`Lessor::promote`] gives every lease all of its time (or what was checkpointed) and an
//!   extension of at least an election timeout, because it cannot know what its predecessor promised last.
//! * **A decision belongs to a term.** Each [`Decision`] names the leadership in which it was made. The host proposes it so
//!   that it is refused unless this member still leads that term: a leader that slept and wakes with all of its leases
//!   overdue gets nothing into the log if another has taken over meanwhile.
//! * **A decision belongs to a lease**, and not to its id: revoked and granted again meanwhile, the new one is not ended by
//!   what was decided about the former. Each names the number of the grant, which is checked when it is applied.
//! * **A renewal is answered only by a confirmed leader**, in two steps. [`Lessor::arrived`] gives a ticket; the host then
//!   has leadership confirmed by a round that began after that, and waits until everything committed before the round is
//!   applied, as for any linearizable read; only then does [`Lessor::confirmed`] renew.
//! * **A lease that is being revoked is not renewed.** The keepalive waits for the outcome; if that is not the end of the
//!   lease, leadership must be confirmed once more ([`Renewal::Again`]), since it may have ended while the keepalive waited.
//! * **No checkpoint outlives a renewal.** A renewal is answered only when no shorter time is in the table or under way to
//!   it, else a leader elected right after would go by the shorter one.
//!
//! ```text
//!                 time is up                       applied
//!   running ───────────────────► being revoked ─────────────► gone      keepalives: 0
//!      ▲                               │
//!      └───────────────────────────────┘ refused: never in the log      keepalives: confirmed again
//! ```

mod deadlines;
mod primary;

use crate::lease::LeaseChange;
use crate::lessor::primary::{Primary, UnderWay};
use crate::{Command, LeaseCheckpoint, LeaseId, Leases};

/// Time between two rounds of decisions.
pub const LEASE_ROUND_US: u64 = 500_000;
/// Most leases that one round revokes.
pub const LEASE_EXPIRE_ROUND_MAX: usize = 500;
/// Most leases that one command revokes: their keys are deleted while nothing else is applied.
pub const LEASE_EXPIRE_BATCH_MAX: usize = 16;
/// Most checkpoints in a round, and in a command.
pub const LEASE_CHECKPOINT_ROUND_MAX: usize = 500;
/// Most keepalives that wait for the outcome of a revocation or a checkpoint.
pub const LEASE_WAITING_MAX: usize = 65_536;

const SECOND_US: u64 = 1_000_000;

/// The granted time of a request: at least one and a half election timeouts, in whole seconds, so that a lease is not
/// over before a new leader could renew it.
#[must_use]
pub fn lease_ttl_s(requested_s: i64, election_timeout_us: u64) -> i64 {
    let ttl_min_us = election_timeout_us.saturating_mul(3).div_ceil(2);
    requested_s.max(i64::try_from(ttl_min_us.div_ceil(SECOND_US)).unwrap_or(i64::MAX))
}

/// One leadership: the host's number of it, larger than that of any before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderTerm(pub u64);

/// Settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LessorConfig {
    /// What a new leader adds to every lease. At least an election timeout: less, and leases end early when the leader
    /// changes. More keeps the keys of dead owners for longer.
    pub extension_us: u64,
    /// Time between two checkpoints of a lease, for leases that are longer; `None`: no checkpoints. Without them a lease
    /// starts again from its full time with every new leader. Short intervals cost entries in the log.
    pub checkpoint_interval_us: Option<u64>,
}

impl Default for LessorConfig {
    fn default() -> Self {
        Self { extension_us: 1_000_000, checkpoint_interval_us: Some(300 * SECOND_US) }
    }
}

/// A command that this member wants in the log, as the leader of one term only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The leadership it rests on. To be proposed bound to it, and never forwarded.
    pub term: LeaderTerm,
    /// [`Command::LeaseExpire`] or [`Command::LeaseCheckpoint`].
    pub command: Command,
}

/// A keepalive, or a question for the time left, that waits for leadership to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// Different for every ticket of a lessor.
    pub number: u64,
    /// The leadership that must be confirmed.
    pub term: LeaderTerm,
    /// The lease.
    pub id: LeaseId,
    arrived_us: u64,
}

/// This member does not lead, or not the term that the request began in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPrimary;

impl core::fmt::Display for NotPrimary {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not a primary lessor")
    }
}

impl core::error::Error for NotPrimary {}

/// What became of a keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease has all of its time, in seconds, from now on.
    Renewed(i64),
    /// There is no such lease: the answer is a time of 0.
    NotFound,
    /// Somebody else may lead. Nothing was renewed.
    NotPrimary,
    /// The outcome of a command is awaited: [`Lessor::take_outcomes`] will have the answer.
    Waiting,
    /// The outcome is there. Leadership is to be confirmed by another round, and [`Lessor::confirmed`] to be called again
    /// with the same ticket. Only [`Lessor::take_outcomes`] says this.
    Again,
    /// [`LEASE_WAITING_MAX`] keepalives are waiting. Nothing is promised; ask again later.
    Busy,
}

/// Time of a lease, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// Whole seconds left; 0 or negative while it waits for its revocation.
    pub remaining_s: i64,
    /// Granted time.
    pub granted_s: i64,
}

/// See the module.
#[derive(Debug)]
pub struct Lessor {
    config: LessorConfig,
    last_term: Option<LeaderTerm>,
    primary: Option<Primary>,
    tickets: u64,
    outcomes: Vec<(Ticket, Renewal)>,
}

impl Lessor {
    /// A lessor that does not lead.
    #[must_use]
    pub fn new(config: LessorConfig) -> Self {
        Self { config, last_term: None, primary: None, tickets: 0, outcomes: Vec::new() }
    }

    /// The leadership that it acts in.
    #[must_use]
    pub fn term(&self) -> Option<LeaderTerm> {
        self.primary.as_ref().map(|primary| primary.term)
    }

    /// This member leads from now on. Whether it is news: a term that is not later than every one before changes nothing.
    ///
    /// To be called when the first entry of that term has been applied here, so that the table holds everything that former
    /// leaders did: an older table may still have a checkpoint that was cleared when its owner was promised all of the
    /// time. And where `leases` is changed, so that nothing is missed between the table as it is now and what
    /// [`follow`](Self::follow) sees from now on.
    pub fn promote(&mut self, now_us: u64, term: LeaderTerm, leases: &mut Leases) -> bool {
        if self.last_term.is_some_and(|last| term <= last) {
            return false;
        }
        self.demote(leases);
        self.last_term = Some(term);
        leases.start_journal();
        self.primary = Some(Primary::new(&self.config, now_us, term, leases));
        true
    }

    /// This member does not lead any more. Keepalives that wait are answered so.
    pub fn demote(&mut self, leases: &mut Leases) {
        leases.stop_journal();
        let Some(primary) = self.primary.take() else { return };
        let waiting = primary.waiting.into_values().flatten();
        self.outcomes.extend(waiting.map(|ticket| (ticket, Renewal::NotPrimary)));
    }

    /// Takes notice of what was applied to the table. To be called after every batch of commands, before its results are
    /// answered.
    pub fn follow(&mut self, now_us: u64, leases: &mut Leases) {
        let journal = leases.take_journal();
        let Some(primary) = &mut self.primary else { return };
        for change in journal {
            match change {
                LeaseChange::Granted(lease, ttl_s) => {
                    primary.granted(&self.config, now_us, lease, ttl_s);
                }
                LeaseChange::Revoked(id) => {
                    primary.tenures.remove(&id);
                    primary.clears.remove(&id);
                    primary.answer(id, Renewal::NotFound, &mut self.outcomes);
                }
                LeaseChange::Checkpointed(id, remaining_s) => {
                    if let Some(tenure) = primary.tenures.get_mut(&id) {
                        tenure.checkpointed_s = remaining_s;
                        if tenure.command == UnderWay::Checkpoint {
                            tenure.command = UnderWay::Nothing;
                        }
                        primary.plan_checkpoint(&self.config, now_us, id);
                        primary.settle(id, &mut self.outcomes);
                    }
                }
            }
        }
        primary.tidy();
    }

    /// A decision of [`decide`](Self::decide) is certainly not in the log and never will be, or was answered with an error
    /// when it was applied. What it was about is as before, and will be decided anew.
    ///
    /// There is no call for "perhaps": a decision is applied, or refused, or the term ends.
    pub fn refused(&mut self, now_us: u64, decision: &Decision) {
        let Some(primary) = self.primary.as_mut().filter(|primary| primary.term == decision.term)
        else {
            return;
        };
        match &decision.command {
            Command::LeaseExpire(leases) => {
                for lease in leases {
                    let Some(tenure) = primary.deciding(*lease, UnderWay::Expire) else { continue };
                    tenure.command = UnderWay::Nothing;
                    let expiry_us = tenure.expiry_us;
                    primary.expiries.push(expiry_us, lease.id);
                    primary.settle(lease.id, &mut self.outcomes);
                }
            }
            Command::LeaseCheckpoint(checkpoints) => {
                for LeaseCheckpoint { lease, .. } in checkpoints {
                    let Some(tenure) = primary.deciding(*lease, UnderWay::Checkpoint) else {
                        continue;
                    };
                    tenure.command = UnderWay::Nothing;
                    primary.plan_checkpoint(&self.config, now_us, lease.id);
                    primary.settle(lease.id, &mut self.outcomes);
                }
            }
            _ => {}
        }
    }

    /// A keepalive or a question for the time left has arrived.
    pub fn arrived(&mut self, now_us: u64, id: LeaseId) -> Result<Ticket, NotPrimary> {
        let term = self.term().ok_or(NotPrimary)?;
        self.tickets += 1;
        Ok(Ticket { number: self.tickets, term, id, arrived_us: now_us })
    }

    /// A round that began after the ticket was given has confirmed that this member leads, and what was committed by then
    /// is applied here: the keepalive is carried out. (Without confirmation the ticket is just forgotten.)
    pub fn confirmed(&mut self, now_us: u64, ticket: Ticket) -> Renewal {
        let Some(primary) = self.primary.as_mut().filter(|primary| primary.term == ticket.term)
        else {
            return Renewal::NotPrimary;
        };
        let Some(tenure) = primary.tenures.get(&ticket.id) else {
            return Renewal::NotFound;
        };
        // It was there in time, even if the round took longer than the lease had left.
        let late = tenure.expiry_us <= ticket.arrived_us;
        if tenure.command == UnderWay::Expire || late {
            return primary.wait(ticket);
        }
        let ttl_s = tenure.ttl_s;
        if tenure.command == UnderWay::Checkpoint || tenure.checkpointed_s.is_some() {
            let renewal = primary.wait(ticket);
            if renewal == Renewal::Waiting {
                primary.renew(&self.config, now_us, ticket.id);
                primary.settle(ticket.id, &mut self.outcomes);
            }
            return renewal;
        }
        primary.renew(&self.config, now_us, ticket.id);
        // Those that came too late, but now need not wait for a revocation any more.
        primary.settle(ticket.id, &mut self.outcomes);
        Renewal::Renewed(ttl_s)
    }

    /// The time left of the ticket's lease, after its leadership was confirmed; `None` if there is no such lease.
    pub fn time_to_live(
        &self,
        now_us: u64,
        ticket: Ticket,
    ) -> Result<Option<TimeToLive>, NotPrimary> {
        let primary = self.primary.as_ref().filter(|primary| primary.term == ticket.term);
        let Some(tenure) = primary.ok_or(NotPrimary)?.tenures.get(&ticket.id) else {
            return Ok(None);
        };
        let remaining_us = i128::from(tenure.expiry_us) - i128::from(now_us);
        let remaining_s = i64::try_from(remaining_us / i128::from(SECOND_US)).unwrap_or(i64::MAX);
        Ok(Some(TimeToLive { remaining_s, granted_s: tenure.ttl_s }))
    }

    /// Answers to keepalives that waited.
    pub fn take_outcomes(&mut self) -> Vec<(Ticket, Renewal)> {
        core::mem::take(&mut self.outcomes)
    }

    /// What is to be proposed now. Nothing is decided twice while the first decision's fate is open.
    pub fn decide(&mut self, now_us: u64) -> Vec<Decision> {
        let Some(primary) = &mut self.primary else { return Vec::new() };
        let mut commands = Vec::new();
        if primary.next_round_us <= now_us {
            let expired = primary.take_expired(now_us);
            let checkpoints = primary.take_checkpoints(now_us);
            if !(expired.is_empty() && checkpoints.is_empty()) {
                primary.next_round_us = now_us.saturating_add(LEASE_ROUND_US);
            }
            let batches = expired.chunks(LEASE_EXPIRE_BATCH_MAX);
            commands.extend(batches.map(|batch| Command::LeaseExpire(batch.to_vec())));
            if !checkpoints.is_empty() {
                commands.push(Command::LeaseCheckpoint(checkpoints));
            }
        }
        // Clients wait for these.
        while !primary.clears.is_empty() {
            commands.push(Command::LeaseCheckpoint(primary.take_clears()));
        }
        let term = primary.term;
        commands.into_iter().map(|command| Decision { term, command }).collect()
    }

    /// When [`decide`](Self::decide) may next have something to say; `None` until something else happens.
    #[must_use]
    pub fn wake_us(&self) -> Option<u64> {
        let primary = self.primary.as_ref()?;
        if !primary.clears.is_empty() {
            return Some(0);
        }
        let deadlines = [primary.expiries.first_us(), primary.checkpoints.first_us()];
        let first_us = deadlines.into_iter().flatten().min()?;
        Some(first_us.max(primary.next_round_us))
    }

    /// The leases of the one that leads, next to end first; `None` elsewhere, where nobody knows.
    #[must_use]
    pub fn by_expiry(&self) -> Option<Vec<LeaseId>> {
        let primary = self.primary.as_ref()?;
        let mut leases: Vec<(u64, LeaseId)> =
            primary.tenures.iter().map(|(id, tenure)| (tenure.expiry_us, *id)).collect();
        leases.sort_unstable();
        Some(leases.into_iter().map(|(_, id)| id).collect())
    }
}

impl LessorConfig {
    /// When to write down the remaining time of a lease: only if it is then still long enough to be worth it.
    fn next_checkpoint_us(&self, now_us: u64, expiry_us: u64) -> u64 {
        match self.checkpoint_interval_us {
            Some(interval_us) if expiry_us.saturating_sub(now_us) > interval_us => {
                now_us.saturating_add(interval_us)
            }
            _ => u64::MAX,
        }
    }
}
