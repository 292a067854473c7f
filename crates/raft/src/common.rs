//! What a server has whatever its role: its state of Figure 2, its configuration, its clock.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::apply::{Applying, Unreadable};
use crate::backlog::Backlog;
use crate::config::Config;
use crate::configurations::Configurations;
use crate::durability::Durability;
use crate::effect::{Answer, Effect, HardState, LoadId, Notice, Persist};
use crate::entry::{Entry, Payload};
use crate::error::{StartError, TransferError};
use crate::log::Log;
use crate::membership::Membership;
use crate::message::{Envelope, Message, SnapshotMeta};
use crate::recovered::Recovered;
use crate::rng::Rng;
use crate::types::{AttemptId, Incarnation, Index, LogId, NodeId, RequestId, Seq, Term, Time};

/// Messages of servers not seen before that wait, at most, until the disk holds who they are.
const DEFERRED_MAX: usize = 64;

/// The part of a server that outlives its roles.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) config: Config,
    /// The moment of the step under way.
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    boot_nonce: u64,
    attempts: u64,
    loads: u64,

    /// Term, vote and seen incarnations; its commit index is only set when it is written.
    pub(crate) hard_state: HardState,
    pub(crate) durability: Durability,
    pub(crate) log: Log,
    pub(crate) configurations: Configurations,
    pub(crate) commit_index: Index,
    pub(crate) applying: Applying,
    pub(crate) backlog: Backlog,

    /// When a leader was last heard from; what stickiness and leases go by.
    pub(crate) leader_contact: Option<Time>,
    /// Quick attempts left since the leader's process is known to have ended.
    pub(crate) hurried_attempts: u32,
    /// No vote before this time: an earlier life may have answered a leader that counts on it.
    pub(crate) no_vote_before: Time,
    /// A snapshot that the host is fetching, and from whom.
    pub(crate) fetch: Option<Fetch>,
    /// The write that puts a snapshot in the place of log and state machine.
    pub(crate) installing: Option<(Seq, Index)>,
    /// The first entry that could not be read back, and when to try again.
    pub(crate) unreadable: Option<Unreadable>,
    /// A transfer that this node began, lost leadership over, and has not answered.
    pub(crate) handed_over: Option<HandedOver>,

    /// Messages that wait until the incarnation of their sender is durable.
    deferred: VecDeque<(Seq, Envelope)>,
    /// The write that holds the latest of `hard_state.seen`.
    seen_seq: Seq,
    effects: Vec<Effect>,
}

/// A snapshot on its way here.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    pub(crate) from: NodeId,
    pub(crate) snapshot: SnapshotMeta,
}

/// A transfer whose end shows in who leads next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandedOver {
    pub(crate) id: RequestId,
    pub(crate) to: NodeId,
    pub(crate) deadline: Time,
}

impl Common {
    pub(crate) fn new(
        config: Config,
        now: Time,
        seed: u64,
        recovered: Recovered,
    ) -> Result<Self, StartError> {
        config.validate()?;
        recovered.validate(&config)?;
        let Recovered { hard_state, snapshot, memberships, terms, last_index, applied, .. } =
            recovered;
        let applied = applied.max(snapshot.id.index);
        let commit_index = hard_state.commit.max(applied);
        let configurations = Configurations::new(&snapshot, memberships);
        let log = Log::new(snapshot.id, &terms, last_index);
        let mut common = Self {
            now,
            rng: Rng::new(seed),
            boot_nonce: recovered.boot_nonce,
            attempts: 0,
            loads: 0,
            hard_state,
            durability: Durability::new(last_index),
            log,
            configurations,
            commit_index,
            applying: Applying::new(applied),
            backlog: Backlog::new(applied, last_index),
            leader_contact: None,
            hurried_attempts: 0,
            no_vote_before: now,
            fetch: None,
            installing: None,
            unreadable: None,
            handed_over: None,
            deferred: VecDeque::new(),
            seen_seq: Seq(0),
            effects: Vec::new(),
            config,
        };
        if let Some(lease_us) = common.configurations.longest_lease_us() {
            // Thesis 6.4.1 rests on what voters promised; a restart must not forget it.
            common.no_vote_before = now.after(lease_us.max(common.config.election_timeout_min_us));
        }
        Ok(common)
    }

    // Identity and configuration.

    pub(crate) const fn node(&self) -> NodeId {
        self.config.node
    }

    pub(crate) const fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The configuration in force.
    pub(crate) fn membership(&self) -> &Arc<Membership> {
        self.configurations.latest().1
    }

    /// Whether this node may ask for votes: it has one itself, and can lead if it wins.
    pub(crate) fn may_campaign(&self) -> bool {
        self.has_vote() && self.unreadable.is_none() && !self.disk_stalled()
    }

    /// Whether this node is a voter, or may still be needed as one: thesis 4.2.2, a server that its
    /// own latest configuration removes goes on starting elections until the removal has committed,
    /// since without the entry that removes it nobody else may be electable. Its own vote counts
    /// by the latest configuration, so it does not count any more.
    pub(crate) fn has_vote(&self) -> bool {
        let (index, latest) = self.configurations.latest();
        latest.is_voter(self.node())
            || (index > self.commit_index
                && self.configurations.at(self.commit_index).is_voter(self.node()))
    }

    /// Whether the oldest write has been under way for too long.
    pub(crate) fn disk_stalled(&self) -> bool {
        self.disk_stall_deadline().is_some_and(|deadline| self.now >= deadline)
    }

    pub(crate) fn disk_stall_deadline(&self) -> Option<Time> {
        let since = self.durability.writing_since()?;
        Some(since.after(self.config.disk_stall_timeout_us))
    }

    // Time.

    /// The shortest election timeout: no vote is asked for or given while a lease may be held.
    pub(crate) fn election_timeout_min_us(&self) -> u64 {
        let lease_us = self.configurations.longest_lease_us().unwrap_or(0);
        self.config.election_timeout_min_us.max(lease_us)
    }

    /// A time at which to give up waiting for a leader or for votes (§5.2).
    pub(crate) fn random_election_deadline(&mut self) -> Time {
        let min = self.election_timeout_min_us();
        let timeout = self.rng.between(min, self.config.election_timeout_max_us.max(min));
        self.now.after(timeout)
    }

    /// A time at which to give up an attempt to be elected, and to begin another. After the news
    /// that the leader's process has ended, the first few attempts follow each other quickly: the
    /// others may have had the news a moment later, or two may have asked at once.
    pub(crate) fn random_attempt_deadline(&mut self) -> Time {
        let Some(left) = self.hurried_attempts.checked_sub(1) else {
            return self.random_election_deadline();
        };
        self.hurried_attempts = left;
        let delay_us = self.config.peer_closed_delay_us;
        let timeout_us = self.rng.between(delay_us, delay_us.saturating_mul(2)).max(1);
        self.now.after(timeout_us.min(self.election_timeout_min_us()))
    }

    /// Names an attempt that no answer to an earlier one, or to an earlier life, can match.
    pub(crate) fn next_attempt(&mut self) -> AttemptId {
        self.attempts += 1;
        AttemptId { boot: self.boot_nonce, count: self.attempts }
    }

    pub(crate) fn next_load(&mut self) -> LoadId {
        self.loads += 1;
        LoadId(self.loads)
    }

    // Effects.

    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn answer(&mut self, answer: Answer) {
        self.effects.push(Effect::Answer(answer));
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.effects.push(Effect::Notice(notice));
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        core::mem::take(&mut self.effects)
    }

    /// Sends `message` once this node's term and vote are durable.
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.send_after(to, message, None);
    }

    /// Sends `message` once term, vote and the log up to `index` are durable.
    pub(crate) fn send_when_durable(&mut self, to: NodeId, message: Message, index: Index) {
        self.send_after(to, message, Some(index));
    }

    fn send_after(&mut self, to: NodeId, message: Message, index: Option<Index>) {
        let envelope = self.envelope(to, message);
        if let Some(envelope) = self.durability.hold(envelope, index) {
            self.effects.push(Effect::Send(envelope));
        }
    }

    /// Sends `message` at once. Only for what promises nothing.
    pub(crate) fn send_now(&mut self, to: NodeId, message: Message) {
        let envelope = self.envelope(to, message);
        self.effects.push(Effect::Send(envelope));
    }

    fn envelope(&self, to: NodeId, message: Message) -> Envelope {
        Envelope {
            cluster: self.config.cluster,
            group: self.config.group,
            from: self.node(),
            incarnation: self.config.incarnation,
            to,
            term: self.term(),
            message,
        }
    }

    // Hard state.

    /// Enters a higher term, in which no vote is given yet (§5.1).
    pub(crate) fn set_term(&mut self, term: Term) {
        assert!(term > self.hard_state.term, "terms never go back (Figure 2)");
        self.hard_state.term = term;
        self.hard_state.voted_for = None;
        self.durability.change_hard_state();
        self.durability.forget_before(term);
    }

    /// Gives this term's vote, for good (§5.2).
    pub(crate) fn vote_for(&mut self, node: NodeId) {
        assert!(
            self.hard_state.voted_for.is_none_or(|voted_for| voted_for == node),
            "Election Safety (Figure 3): one vote per term"
        );
        if self.hard_state.voted_for.is_none() {
            self.hard_state.voted_for = Some(node);
            self.durability.change_hard_state();
        }
    }

    /// The incarnation that counts as `node`: the one bound by the configuration or, before that,
    /// the first one seen.
    pub(crate) fn known_incarnation(&self, node: NodeId) -> Option<Incarnation> {
        let member = self.membership().member(node)?;
        member.incarnation.or_else(|| {
            let seen = &self.hard_state.seen;
            let place = seen.binary_search_by_key(&node, |(node, _)| *node).ok()?;
            Some(seen[place].1)
        })
    }

    /// Takes note of the first incarnation of a member, so that no other one counts as it. The
    /// message that showed it waits until the note is durable: what is concluded from it must not
    /// be forgotten in a crash.
    pub(crate) fn see_incarnation(&mut self, node: NodeId, incarnation: Incarnation) {
        let seen = &mut self.hard_state.seen;
        if let Err(place) = seen.binary_search_by_key(&node, |(node, _)| *node) {
            seen.insert(place, (node, incarnation));
            self.durability.change_hard_state();
            self.seen_seq = self.durability.hard_state_seq();
        }
    }

    /// Whether every incarnation that was seen is durable.
    pub(crate) fn seen_is_durable(&self) -> bool {
        self.durability.is_confirmed(self.seen_seq)
    }

    /// Keeps a message until its sender's incarnation is durable; drops it if too many wait.
    pub(crate) fn defer(&mut self, envelope: Envelope) {
        if self.deferred.len() < DEFERRED_MAX {
            self.deferred.push_back((self.seen_seq, envelope));
        }
    }

    /// A deferred message whose time has come.
    pub(crate) fn next_deferred(&mut self) -> Option<Envelope> {
        let (seq, _) = self.deferred.front()?;
        if !self.durability.is_confirmed(*seq) {
            return None;
        }
        self.deferred.pop_front().map(|(_, envelope)| envelope)
    }

    // Log.

    /// Appends one entry in memory; the next record takes it to the disk.
    pub(crate) fn append(&mut self, entry: Entry) {
        if let Payload::Membership(membership) = &entry.payload {
            // §6: a server uses the latest configuration in its log, committed or not.
            self.configurations.append(entry.index, membership.clone());
        }
        self.durability.append(entry.index);
        self.backlog.append(entry.size());
        self.log.append(entry);
    }

    /// Drops the entry at `first` and all behind it (§5.3).
    pub(crate) fn truncate(&mut self, first: Index) {
        assert!(
            first > self.commit_index,
            "Leader Completeness (Figure 3): a committed entry would be removed"
        );
        self.configurations.truncate(first);
        self.durability.truncate(first);
        self.backlog.truncate(first);
        self.log.truncate(first);
    }

    /// Learns that everything up to `index`, which this log holds, is committed.
    pub(crate) fn commit(&mut self, index: Index) {
        debug_assert!(index <= self.log.last_index());
        if index <= self.commit_index {
            return;
        }
        self.commit_index = index;
        if self.hard_state.seen.is_empty() {
            return;
        }
        // An incarnation that the committed configuration binds need not be remembered.
        let bound = self.configurations.at(index).clone();
        let latest = self.configurations.latest().1.clone();
        self.hard_state.seen.retain(|(node, _)| {
            latest.contains(*node)
                && bound.member(*node).is_none_or(|member| member.incarnation.is_none())
        });
    }

    /// Hands what has changed to storage, as one record.
    pub(crate) fn flush_storage(&mut self) {
        let Some(unwritten) = self.durability.pending() else { return };
        let append = unwritten.map_or_else(Vec::new, |first| {
            let all = self.log.recent(first, self.log.last_index(), usize::MAX);
            all.expect("entries stay in memory until they are durable").0
        });
        self.hard_state.commit = self.commit_index.min(self.log.last_index());
        let seq = self.durability.hand_out(self.log.last_index(), self.now);
        let hard_state = self.hard_state.clone();
        self.effects.push(Effect::Persist(Persist { seq, hard_state, append }));
    }

    /// Storage is durable up to `seq`.
    pub(crate) fn persisted(&mut self, seq: Seq) {
        for envelope in self.durability.confirm(seq) {
            self.effects.push(Effect::Send(envelope));
        }
        if let Some((install, index)) = self.installing
            && self.durability.is_confirmed(install)
        {
            self.installing = None;
            self.applying.installed(index);
            self.backlog.applied(index);
        }
    }

    /// The host needs nothing up to `up_to` any more.
    pub(crate) fn compact(&mut self, up_to: Index) {
        if up_to <= self.log.base().index {
            return;
        }
        assert!(
            up_to <= self.applying.applied(),
            "State Machine Safety (Figure 3): an entry that is not applied would be dropped"
        );
        let term =
            self.log.term_at(up_to).expect("an applied entry behind the start is in the log");
        let base = LogId::new(up_to, term);
        self.configurations.compact(base);
        self.log.compact(base);
    }

    /// A leader is known: a transfer that was handed over has ended.
    pub(crate) fn leader_known(&mut self, leader: NodeId) {
        if let Some(HandedOver { id, to, .. }) = self.handed_over.take() {
            let result = if leader == to {
                Ok(self.term())
            } else {
                Err(TransferError::ElectedOther { leader: Some(leader) })
            };
            self.answer(Answer::Transfer { id, result });
        }
    }

    /// Gives up waiting for the end of a transfer that was handed over.
    pub(crate) fn expire_handed_over(&mut self) {
        if let Some(HandedOver { id, deadline, .. }) = self.handed_over
            && self.now >= deadline
        {
            self.handed_over = None;
            let result = Err(TransferError::ElectedOther { leader: None });
            self.answer(Answer::Transfer { id, result });
        }
    }
}
