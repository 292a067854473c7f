//! The node itself: events in, actions out.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_raft::{
    Answer, AttemptId, Config, Effect, Index, Input, LogId, NodeId, Proposal, ProposeError, Raft,
    ReadError, Recovered, RequestId, RoleName, Seq, StartError, Term, Time, crc32c,
};

use crate::action::{Action, Executed, ProposeFailure, ReadFailure, Reply};
use crate::event::{Event, Request};
use crate::forwarding::{Arrival, Forwarded, Incoming, Memory, Outgoing};
use crate::message::{Forward, ForwardReply, NodeMessage};
use crate::proposals::{Origin, Outcome, Proposals};
use crate::settings::Settings;
use crate::snapshots::{Compaction, OwnSnapshots, Prepare, Snapshots};
use crate::waiting::Waiting;

/// A Raft core with everything that its host decides.
///
/// ```text
///  clients  -- Request -->  +------+  -- Reply -->                      clients
///  peers    -- Receive -->  |      |  -- Send, Fetch -->                peers
///  disk     -- Stored  -->  | Node |  -- Persist, Install, Compact -->  disk
///  machine  -- Applied -->  |      |  -- Apply, Install, Spool -->      state machine
///  clock    -- Wake    -->  +------+  -- deadline() -->                 clock
/// ```
///
/// Several [`step`](Self::step)s before one [`take_actions`](Self::take_actions) are batched: their
/// entries become one record and one message per peer.
#[derive(Debug)]
pub struct Node {
    raft: Raft,
    settings: Settings,
    now: Time,
    boot: u64,
    /// The term that the disk held when this life began. Lives before this one led none after it.
    boot_term: Term,
    /// The term at the end of the last `take_actions`.
    term: Term,
    /// No local read is served before this index is applied: a client that saw it committed before
    /// the restart must not see less after it.
    recovered_commit: Index,
    last_request: u64,
    /// What the core has been asked and has not answered, by the core's name for it. Proposals are
    /// answered in the same `take_actions`; `Config::reads_max` bounds the reads; of changes,
    /// transfers and campaigns the core holds one each and refuses the others at once.
    asked: BTreeMap<RequestId, Asked>,
    proposals: Proposals,
    outgoing: Outgoing,
    incoming: Incoming,
    /// Reads that wait for the state machine to reach an index.
    reads: Waiting<(Index, RequestId), ()>,
    snapshots: Snapshots,
    own_snapshots: OwnSnapshots,
    compaction: Compaction,
    /// The installation that waits to become durable, and its snapshot.
    installing: Option<(Seq, LogId)>,
    actions: Vec<Action>,
    /// Proposals whose places are to be told, until they are appended or refused.
    announced: BTreeSet<RequestId>,
    /// Those places.
    places: Vec<(RequestId, LogId)>,
    /// The disk has failed.
    stopped: bool,
}

/// A request that the core works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Proposal(Origin),
    /// A read, change, transfer or campaign of a client.
    Client(RequestId),
}

impl Node {
    /// A node that starts at `now` from what its disk held. `seed` decides all randomness.
    ///
    /// # Errors
    ///
    /// When the core cannot start; see [`StartError`].
    pub fn new(
        config: Config,
        settings: Settings,
        now: Time,
        seed: u64,
        recovered: Recovered,
    ) -> Result<Self, StartError> {
        let boot = recovered.boot_nonce;
        let boot_term = recovered.hard_state.term;
        let recovered_commit = recovered.hard_state.commit;
        let compaction = Compaction::new(recovered.snapshot.id.index, recovered.applied);
        let own_snapshots = OwnSnapshots::new(recovered.applied);
        let raft = Raft::new(config, now, seed, recovered)?;
        let term = raft.term();
        Ok(Self {
            raft,
            settings,
            now,
            boot,
            boot_term,
            term,
            recovered_commit,
            last_request: 0,
            asked: BTreeMap::new(),
            proposals: Proposals::new(),
            outgoing: Outgoing::new(),
            incoming: Incoming::default(),
            reads: Waiting::new(),
            snapshots: Snapshots::default(),
            own_snapshots,
            compaction,
            installing: None,
            actions: Vec::new(),
            announced: BTreeSet::new(),
            places: Vec::new(),
            stopped: false,
        })
    }

    /// The core, to look at.
    #[must_use]
    pub const fn raft(&self) -> &Raft {
        &self.raft
    }

    /// When to step with [`Event::Wake`], unless news comes earlier. Ask after `take_actions`.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        if self.stopped {
            return None;
        }
        let deadlines = [
            self.raft.deadline(),
            self.proposals.deadline(),
            self.outgoing.deadline(),
            self.reads.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Takes in one piece of news. What follows from it is in the next `take_actions`.
    pub fn step(&mut self, now: Time, event: Event) {
        self.now = self.now.max(now);
        if self.stopped {
            return;
        }
        match event {
            Event::DiskFailed => self.stop(),
            Event::Wake => {
                self.expire();
                self.tell(Input::Wake);
            }
            Event::Receive(message) => self.receive(message),
            Event::Request { id, request } => self.request(id, request),
            Event::Stored(seq) => {
                if let Some((install, snapshot)) = self.installing
                    && install <= seq
                {
                    self.installing = None;
                    self.compaction.installed(snapshot);
                    self.own_snapshots.installed(snapshot.index);
                }
                self.tell(Input::Persisted(seq));
            }
            Event::Applied { up_to, responses } => {
                self.tell(Input::Applied(up_to));
                for outcome in self.proposals.applied(responses) {
                    self.settle(outcome);
                }
                self.compact_if_due();
            }
            Event::StateDurable(index) => {
                self.compaction.state_durable(index);
                self.compact_if_due();
            }
            Event::Compact { up_to } => {
                let up_to = self.compaction.demanded(up_to, self.raft.applied());
                self.compact(up_to);
            }
            Event::Loaded { id, result } => self.tell(Input::Loaded { id, result }),
            Event::TakeSnapshot => self.spool(),
            Event::Spooled(id) => self.spooled(id),
            Event::Fetched { snapshot, complete } => {
                self.tell(Input::SnapshotFetched { snapshot, complete });
            }
            Event::PeerClosed { peer, incarnation } => {
                for request in self.outgoing.peer_closed(peer) {
                    self.outcome_unknown(request);
                }
                self.tell(Input::PeerClosed { peer, incarnation });
            }
        }
    }

    /// The place of the proposal that is requested next under `id` is to be told as soon as it is
    /// known: see [`take_places`](Self::take_places). For proposals that are not forwarded, since
    /// the place of those is known only with their outcome.
    pub fn announce(&mut self, id: RequestId) {
        self.announced.insert(id);
    }

    /// The places of proposals that were announced and have been appended by the last
    /// [`take_actions`](Self::take_actions).
    pub fn take_places(&mut self) -> Vec<(RequestId, LogId)> {
        std::mem::take(&mut self.places)
    }

    /// What the host is to do, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take_actions_into(&mut actions);
        actions
    }

    /// The same into memory that the host has used before; `actions` must be empty.
    pub fn take_actions_into(&mut self, actions: &mut Vec<Action>) {
        debug_assert!(actions.is_empty(), "actions that were not carried out");
        while !self.stopped {
            let effects = self.raft.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.carry_out(effect);
            }
        }
        if self.raft.term() != self.term {
            self.term = self.raft.term();
            for request in self.outgoing.term_ended(self.term) {
                self.outcome_unknown(request);
            }
        }
        let applied = (self.raft.applied(), RequestId(u64::MAX));
        while let Some(((index, id), ())) = self.reads.pop_up_to(applied) {
            self.reply(id, Reply::Read(Ok(index)));
        }
        std::mem::swap(&mut self.actions, actions);
    }

    /// The disk has failed: nothing that this node promises from now on could be kept.
    fn stop(&mut self) {
        self.stopped = true;
        let mut open = self.outgoing.abandon();
        let origins = self.asked.values().map(|asked| match asked {
            Asked::Proposal(origin) => *origin,
            Asked::Client(client) => Origin::Client(*client),
        });
        let origins: Vec<Origin> = origins.chain(self.proposals.abandon()).collect();
        open.extend(origins.into_iter().filter_map(|origin| match origin {
            Origin::Client(client) => Some(client),
            // It hears that this process has ended.
            Origin::Peer { .. } => None,
        }));
        open.extend(self.reads.take(|_, ()| true).into_iter().map(|((_, id), ())| id));
        self.asked.clear();
        for id in open {
            self.reply(id, Reply::Stopped);
        }
        self.actions.push(Action::Stop);
    }

    fn tell(&mut self, input: Input) {
        self.raft.step(self.now, input);
    }

    fn reply(&mut self, id: RequestId, reply: Reply) {
        self.actions.push(Action::Reply { id, reply });
    }

    fn outcome_unknown(&mut self, id: RequestId) {
        let unknown = ProposeFailure::OutcomeUnknown { at: None };
        self.reply(id, Reply::Proposed(Err(unknown)));
    }

    /// A name for the core under which it answers a request.
    fn ask(&mut self, asked: Asked) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.asked.insert(id, asked);
        id
    }

    // ---- requests ----

    fn request(&mut self, id: RequestId, request: Request) {
        match request {
            Request::Propose { command, in_term } => self.propose(id, command, in_term),
            Request::Read { mode } => {
                let id = self.ask(Asked::Client(id));
                self.tell(Input::Read { id, mode });
            }
            Request::LocalRead => self.read_at(id, self.recovered_commit),
            Request::Change(change) => {
                let id = self.ask(Asked::Client(id));
                self.tell(Input::Change { id, change });
            }
            Request::Transfer { to } => {
                let id = self.ask(Asked::Client(id));
                self.tell(Input::Transfer { id, to });
            }
            Request::Campaign => {
                let id = self.ask(Asked::Client(id));
                self.tell(Input::Campaign { id });
            }
        }
    }

    fn propose(&mut self, request: RequestId, command: Bytes, in_term: Option<Term>) {
        // A decision bound to a term is good at this node or nowhere.
        let leader = self.raft.leader().filter(|_| {
            self.settings.forward && in_term.is_none() && self.raft.role() != RoleName::Leader
        });
        match leader {
            Some(leader) => self.forward(request, leader, command),
            None => {
                let id = self.ask(Asked::Proposal(Origin::Client(request)));
                self.tell(Input::Propose(Proposal { in_term, ..Proposal::new(id, command) }));
            }
        }
    }

    fn forward(&mut self, request: RequestId, leader: NodeId, command: Bytes) {
        let forwarded_max = self.settings.forwarded_max;
        if self.outgoing.len() >= forwarded_max {
            let busy = ProposeFailure::Busy { forwarded_max };
            return self.reply(request, Reply::Proposed(Err(busy)));
        }
        let term = self.raft.term();
        let deadline = self.now.after(self.settings.forward_timeout_us);
        let count = self.outgoing.send(Forwarded { request, leader, term }, deadline);
        let config = self.raft.config();
        let forward = Forward {
            cluster: config.cluster,
            group: config.group,
            from: config.node,
            to: leader,
            term,
            attempt: AttemptId { boot: self.boot, count },
            checksum: crc32c(&command),
            command,
        };
        self.send(NodeMessage::Forward(forward));
    }

    /// The read may be served once `index` is applied.
    fn read_at(&mut self, id: RequestId, index: Index) {
        let reads_max = self.settings.reads_max;
        if index > self.raft.applied() && self.reads.len() >= reads_max {
            return self.reply(id, Reply::Read(Err(ReadFailure::Busy { reads_max })));
        }
        let deadline = self.now.after(self.settings.read_wait_us);
        self.reads.insert((index, id), (), Some(deadline));
    }

    fn expire(&mut self) {
        for outcome in self.proposals.expire(self.now) {
            self.settle(outcome);
        }
        for request in self.outgoing.expire(self.now) {
            self.outcome_unknown(request);
        }
        while let Some(((index, id), ())) = self.reads.pop_expired(self.now) {
            self.reply(id, Reply::Read(Err(ReadFailure::TimedOut { index })));
        }
    }

    // ---- messages ----

    fn send(&mut self, message: NodeMessage) {
        self.actions.push(Action::Send { to: message.to(), message });
    }

    fn receive(&mut self, message: NodeMessage) {
        match message {
            NodeMessage::Raft(envelope) => self.tell(Input::Receive(envelope)),
            NodeMessage::Forward(forward) => {
                let config = self.raft.config();
                if (forward.cluster, forward.group, forward.to)
                    == (config.cluster, config.group, config.node)
                {
                    self.receive_forward(forward);
                }
            }
            NodeMessage::ForwardReply(reply) => {
                let config = self.raft.config();
                if (reply.cluster, reply.group, reply.to, reply.attempt.boot)
                    == (config.cluster, config.group, config.node, self.boot)
                    && let Some(request) = self.outgoing.answered(reply.from, reply.attempt.count)
                {
                    self.reply(request, Reply::Proposed(reply.result));
                }
            }
        }
    }

    fn receive_forward(&mut self, forward: Forward) {
        let Forward { from, term, attempt, command, checksum, .. } = forward;
        let origin = Origin::Peer { node: from, attempt };
        // The same process never leads a term twice, so a copy of what this leader has executed
        // cannot pass as new once it has forgotten it.
        if self.raft.role() != RoleName::Leader || self.raft.term() != term {
            return self.refuse_forward(origin, term, from, attempt);
        }
        let forwarders_max = self.settings.forwarders_max;
        match self.incoming.arrive(term, from, attempt.boot, attempt.count, forwarders_max) {
            Arrival::First => {
                let id = self.ask(Asked::Proposal(origin));
                let in_term = Some(term);
                self.tell(Input::Propose(Proposal { id, command, checksum, in_term }));
            }
            Arrival::Copy => {}
            Arrival::TooMany => {
                let busy = ProposeFailure::Busy { forwarded_max: forwarders_max };
                self.settle((origin, Err(busy)));
            }
        }
    }

    /// A command for the leader of a term that this node does not lead (any more). It may be a copy
    /// of one that it took when it did, perhaps in an earlier life: "never happened" is only said
    /// of what it is certain not to have taken.
    fn refuse_forward(&mut self, origin: Origin, term: Term, from: NodeId, attempt: AttemptId) {
        let memory = match self.incoming.recall(term, from, attempt.boot, attempt.count) {
            // Nobody leads a term that its disk does not hold.
            Memory::NeverTaken if term <= self.boot_term => Memory::Forgotten,
            memory => memory,
        };
        let failure = match memory {
            Memory::Taken => return,
            Memory::NeverTaken => ProposeError::NotLeader { leader: self.raft.leader() }.into(),
            Memory::Forgotten => ProposeFailure::OutcomeUnknown { at: None },
        };
        self.settle((origin, Err(failure)));
    }

    // ---- effects ----

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(persist) => self.actions.push(Action::Persist(persist)),
            Effect::Send(envelope) => self.send(NodeMessage::Raft(envelope)),
            Effect::Apply(entries) => {
                for outcome in self.proposals.apply(&entries) {
                    self.settle(outcome);
                }
                self.own_snapshots.applied(&entries);
                self.actions.push(Action::Apply(entries));
                if self.own_snapshots.due(self.settings.snapshots) {
                    self.spool();
                }
            }
            Effect::Load(load) => self.actions.push(Action::Load(load)),
            Effect::PrepareSnapshot { to, min_index } => {
                match self.snapshots.prepare(to, min_index) {
                    Prepare::Ready(snapshot) => {
                        self.tell(Input::SnapshotPrepared { to, snapshot: Some(snapshot) });
                    }
                    Prepare::Spool => {
                        self.own_snapshots.begun();
                        self.actions.push(Action::Spool);
                    }
                    Prepare::Wait => {}
                }
            }
            Effect::FetchSnapshot { from, snapshot } => {
                self.actions.push(Action::Fetch { from, snapshot });
            }
            Effect::Install(install) => {
                for outcome in self.proposals.skip(install.snapshot.id.index) {
                    self.settle(outcome);
                }
                self.installing = Some((install.seq, install.snapshot.id));
                self.actions.push(Action::Install(install));
            }
            Effect::Answer(answer) => self.answer(answer),
            Effect::Notice(notice) => self.actions.push(Action::Notice(notice)),
        }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Appended { id, at } => {
                if let Some(Asked::Proposal(origin)) = self.asked.remove(&id) {
                    if let Origin::Client(request) = origin
                        && !self.announced.is_empty()
                        && self.announced.remove(&request)
                    {
                        self.places.push((request, at));
                    }
                    self.proposals.appended(at, origin);
                }
            }
            Answer::ProposeFailed { id, error } => {
                if let Some(Asked::Proposal(origin)) = self.asked.remove(&id) {
                    self.settle((origin, Err(error.into())));
                } else if let ProposeError::OutcomeUnknown { at } = error {
                    let deadline = self.now.after(self.settings.outcome_wait_us);
                    self.proposals.orphan(at, deadline);
                    for outcome in self.proposals.expire(self.now) {
                        self.settle(outcome);
                    }
                }
            }
            Answer::Read { id, result } => match (self.client(id), result) {
                (Some(id), Ok(index)) => self.read_at(id, index),
                (Some(id), Err(error)) => self.reply(id, read_failed(error)),
                (None, _) => {}
            },
            Answer::Change { id, result } => self.answer_client(id, Reply::Changed(result)),
            Answer::Transfer { id, result } => self.answer_client(id, Reply::Transferred(result)),
            Answer::Campaign { id, result } => self.answer_client(id, Reply::Campaigned(result)),
        }
    }

    fn client(&mut self, id: RequestId) -> Option<RequestId> {
        match self.asked.remove(&id) {
            Some(Asked::Client(client)) => Some(client),
            _ => None,
        }
    }

    fn answer_client(&mut self, id: RequestId, reply: Reply) {
        if let Some(client) = self.client(id) {
            self.reply(client, reply);
        }
    }

    /// Tells a command's origin what became of it.
    fn settle(&mut self, (origin, result): Outcome) {
        match origin {
            Origin::Client(request) => {
                self.announced.remove(&request);
                self.reply(request, Reply::Proposed(result));
            }
            Origin::Peer { node, attempt } => self.forward_reply(node, attempt, result),
        }
    }

    fn forward_reply(
        &mut self,
        to: NodeId,
        attempt: AttemptId,
        result: Result<Executed, ProposeFailure>,
    ) {
        let config = self.raft.config();
        let (cluster, group, from) = (config.cluster, config.group, config.node);
        let reply = ForwardReply { cluster, group, from, to, attempt, result };
        self.send(NodeMessage::ForwardReply(reply));
    }

    // ---- snapshots ----

    /// Has a snapshot spooled, unless one is.
    fn spool(&mut self) {
        if self.snapshots.begin() {
            self.own_snapshots.begun();
            self.actions.push(Action::Spool);
        }
    }

    fn spooled(&mut self, id: Option<LogId>) {
        let snapshot = id
            .and_then(|id| self.raft.snapshot_meta(id.index))
            .filter(|snapshot| Some(snapshot.id) == id);
        for (to, snapshot) in self.snapshots.spooled(snapshot.as_ref()) {
            self.tell(Input::SnapshotPrepared { to, snapshot });
        }
        if let Some(id) = id
            && self.settings.snapshots.is_some()
        {
            self.compaction.state_durable(id.index);
            self.compact_if_due();
            let before = self.own_snapshots.taken(id.index);
            // However large its entries are: the log reaches back to the snapshot before this one
            // at most.
            self.compact_sparingly(before);
        }
    }

    // ---- compaction ----

    /// Compacts the log up to `up_to`, whatever the settings say about its entries, or as far as
    /// nothing is lost and no peer loses what it needs.
    fn compact_sparingly(&mut self, up_to: Index) {
        let up_to = self.compaction.demanded(up_to, self.raft.applied());
        let up_to = up_to.and_then(|up_to| {
            let (settings, alive_since) = (&self.settings, self.alive_since());
            self.compaction.sparing_peers(up_to, settings, alive_since, &self.raft.status())
        });
        self.compact(up_to);
    }

    fn compact_if_due(&mut self) {
        let applied = self.raft.applied();
        let alive_since = self.alive_since();
        let due = self.compaction.due(&self.settings, applied, alive_since, || self.raft.status());
        self.compact(due);
    }

    /// Peers that were heard from since then are alive.
    const fn alive_since(&self) -> Time {
        Time(self.now.0.saturating_sub(self.raft.config().election_timeout_max_us))
    }

    fn compact(&mut self, up_to: Option<Index>) {
        // While a snapshot is on its way into place, the log is about to be replaced anyway.
        if self.installing.is_some() {
            return;
        }
        if let Some(up_to) = up_to
            && let Some(snapshot) = self.raft.snapshot_meta(up_to)
        {
            self.tell(Input::Compact { up_to });
            self.compaction.compacted(up_to);
            self.actions.push(Action::Compact(snapshot));
        }
    }
}

const fn read_failed(error: ReadError) -> Reply {
    Reply::Read(Err(ReadFailure::Refused(error)))
}
