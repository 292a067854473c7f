//! What a host does for its node: inputs in, actions carried out, disk and state machine driven.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_node::{Action, Event, NodeMessage, Reply};
use quorate_raft::{Index, LogId, NodeId, Payload, RequestId, SnapshotMeta, Time};

use super::host::{Fetch, Host, PendingWrite, Work};
use super::observation::{Brief, Fate, Observed, Told};
use super::options::Mode;
use super::schedule::Task;
use super::{Cluster, InFlight};
use crate::storage::{Crash, DiskError, Write};

/// How long a host waits before it tries a full disk again.
const FULL_DISK_PAUSE_US: u64 = 20_000;

impl Cluster {
    /// Carries out a scheduled task.
    pub(super) fn carry_out(&mut self, task: Task) {
        match task {
            Task::Arrive(message) => {
                self.count(2, message.from().0 << 32 ^ message.to().0 ^ weight(&message) << 16);
                self.arrive(message);
            }
            Task::Batch { node, epoch } if self.lives(node, epoch) => {
                self.count(3, node.0);
                if !self.hosts[&node].paused
                    && let Some(process) = self.process(node)
                {
                    let events: Vec<Event> = process.inbox.drain(..).collect();
                    self.run(node, events);
                }
            }
            Task::Synced { node, epoch, serial } if self.lives(node, epoch) => {
                self.count(4, node.0);
                self.synced(node, serial);
            }
            Task::DiskRetry { node, epoch } if self.lives(node, epoch) => {
                self.count(11, node.0);
                if let Some(process) = self.process(node) {
                    process.disk_waits = false;
                }
                self.kick_disk(node);
            }
            Task::Worked { node, epoch } if self.lives(node, epoch) => {
                self.count(5, node.0);
                self.worked(node);
            }
            Task::Spooled { node, epoch } if self.lives(node, epoch) => {
                self.count(14, node.0);
                self.spooled(node);
            }
            Task::Flush { node, epoch } if self.lives(node, epoch) => {
                self.count(6, node.0);
                self.flush(node);
            }
            Task::Loaded { node, epoch, load } if self.lives(node, epoch) => {
                self.count(7, node.0);
                let Some(host) = self.hosts.get_mut(&node) else { return };
                let result = host.storage.read(load.first..=load.last, load.bytes_max);
                self.input(node, Event::Loaded { id: load.id, result });
            }
            Task::Fetched { node, epoch, serial, source_epoch, fails }
                if self.lives(node, epoch) =>
            {
                self.count(8, node.0);
                self.fetched(node, serial, source_epoch, fails);
            }
            Task::Recovered { node, epoch } => {
                let host = &self.hosts[&node];
                if host.epoch == epoch && host.recovering {
                    self.count(9, node.0);
                    self.start(node);
                }
            }
            Task::PeerClosed { at, peer, incarnation } => {
                self.count(10, at.0);
                if !self.network.is_cut(peer, at) {
                    self.input(at, Event::PeerClosed { peer, incarnation });
                }
            }
            Task::Timer(token) => self.observe(NodeId(0), Observed::Timer(token)),
            // The process that this was for is dead.
            _ => {}
        }
    }

    fn lives(&self, node: NodeId, epoch: u64) -> bool {
        self.hosts.get(&node).is_some_and(|host| host.is_up() && host.epoch == epoch)
    }

    // ---- inputs ----

    pub(super) fn arrive(&mut self, message: NodeMessage) {
        let node = message.to();
        let fate = if self.network.is_cut(message.from(), node) {
            Fate::Lost
        } else if self.hosts.get(&node).is_some_and(Host::is_up) {
            Fate::Delivered
        } else {
            Fate::Unreachable
        };
        self.observe(node, Observed::Message { message: message.clone(), fate });
        if fate == Fate::Delivered {
            self.input(node, Event::Receive(message));
        }
    }

    /// Gives an event to a node: at once, or with others in a moment, or when it is not frozen any
    /// more.
    pub(super) fn input(&mut self, node: NodeId, event: Event) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        if host.paused || !process.inbox.is_empty() {
            return process.inbox.push_back(event);
        }
        if host.options.batch_ppm > 0 && self.rng.chance(host.options.batch_ppm) {
            process.inbox.push_back(event);
            let at = now.after(self.rng.between(1, host.options.batch_us));
            return self.schedule.add(at, Task::Batch { node, epoch: host.epoch });
        }
        self.run(node, vec![event]);
    }

    /// Lets a node work on events, and carries out what it wants done.
    pub(super) fn run(&mut self, node: NodeId, events: Vec<Event>) {
        for event in &events {
            if let Some(told) = told(event) {
                self.observe(node, Observed::Told(told));
            }
        }
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        let local = host.clock.local(self.now);
        for event in events {
            process.node.step(local, event);
        }
        let actions = process.node.take_actions();
        let after = Brief::of(&process.node);
        let before = std::mem::replace(&mut process.brief, after.clone());
        process.wake_at = process.node.deadline().map(|at| host.clock.global(at));
        let doomed = if actions.is_empty() { None } else { host.doomed.take() };
        self.observe(node, Observed::Stepped { before, after });
        let count = doomed.map_or(usize::MAX, |(count, _)| count);
        let stops = actions.contains(&Action::Stop);
        for action in actions.into_iter().take(count) {
            self.act(node, action);
        }
        if let Some((_, crash)) = doomed {
            self.die(node, crash, true);
        } else if stops {
            self.die(node, Crash::Kill, false);
        }
        for message in std::mem::take(&mut self.lost) {
            self.observe(message.to(), Observed::Message { message, fate: Fate::Lost });
        }
        self.kick_disk(node);
        self.kick_machine(node);
    }

    // ---- actions ----

    fn act(&mut self, node: NodeId, action: Action) {
        self.observe(node, Observed::Action(action.clone()));
        match action {
            Action::Persist(persist) => {
                let pending = PendingWrite { seq: Some(persist.seq), install: None };
                self.write(node, Write::Persist(persist), pending);
            }
            Action::Install(install) => {
                let id = install.snapshot.id;
                let pending = PendingWrite { seq: Some(install.seq), install: Some(id) };
                self.write(node, Write::Install(install), pending);
                self.work(node, Work::Install);
            }
            Action::Compact(snapshot) => {
                let pending = PendingWrite { seq: None, install: None };
                self.write(node, Write::Compact(snapshot), pending);
            }
            Action::Send { message, .. } => self.send(message),
            Action::Apply(entries) => self.work(node, Work::Apply(entries)),
            Action::Spool => self.work(node, Work::Spool),
            Action::Load(load) => {
                let host = &self.hosts[&node];
                let at = self.now.after(host.options.load.draw(&mut self.rng));
                self.schedule.add(at, Task::Loaded { node, epoch: host.epoch, load });
            }
            Action::Fetch { from, snapshot } => self.fetch(node, from, snapshot),
            Action::Reply { id, reply } => self.answered(node, id, reply),
            Action::Notice(_) | Action::Stop => {}
        }
    }

    fn write(&mut self, node: NodeId, write: Write, pending: PendingWrite) {
        if let Some(host) = self.hosts.get_mut(&node)
            && let Some(process) = &mut host.process
        {
            host.storage.write(write);
            process.writes.push_back(pending);
        }
    }

    fn work(&mut self, node: NodeId, work: Work) {
        if let Some(process) = self.process(node) {
            process.work.push_back(work);
        }
    }

    fn send(&mut self, message: NodeMessage) {
        self.messages_sent += 1;
        let (from, to) = (message.from(), message.to());
        if self.options.mode == Mode::Manual {
            if self.network.is_cut(from, to) {
                return self.lost.push(message);
            }
            return self.in_flight.push(InFlight { id: self.messages_sent, message });
        }
        match self.network.arrivals(&mut self.rng, self.now, from, to) {
            [None, None] => self.lost.push(message),
            arrivals => {
                for at in arrivals.into_iter().flatten() {
                    self.schedule.add(at, Task::Arrive(message.clone()));
                }
            }
        }
    }

    fn answered(&mut self, node: NodeId, id: RequestId, reply: Reply) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        let query = process.requests.remove(&id).flatten();
        if reply == Reply::Stopped {
            return self.observe(node, Observed::Abandoned { id });
        }
        let value = match (&reply, query) {
            (Reply::Read(Ok(_)), Some(query)) => Some(host.machine.query(&query)),
            _ => None,
        };
        self.observe(node, Observed::Answered { id, reply, value });
    }

    // ---- the disk ----

    /// Starts a sync if there is something to sync and none under way. It covers all that was
    /// written before it; a snapshot goes into place alone.
    pub(super) fn kick_disk(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        if process.syncing > 0 || process.disk_waits || host.disk_held {
            return;
        }
        let Some(first) = process.writes.front() else { return };
        let count = if first.install.is_some() {
            // The state machine finishes what it was given before.
            if process.work.front() != Some(&Work::Install) || host.machine_held {
                return;
            }
            1
        } else {
            process.writes.iter().take_while(|write| write.install.is_none()).count()
        };
        match host.storage.begin_sync(count) {
            Ok(covered) => {
                process.syncing = covered;
                self.schedule_sync(node);
            }
            Err(error) => self.disk_error(node, &error),
        }
    }

    /// The disk is full, and is tried again soon; or has failed, and the node is told.
    fn disk_error(&mut self, node: NodeId, error: &DiskError) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let news = host.storage.take_news();
        if let Some(process) = &mut host.process
            && *error == DiskError::Full
        {
            process.disk_waits = true;
            let at = self.now.after(FULL_DISK_PAUSE_US);
            self.schedule.add(at, Task::DiskRetry { node, epoch: host.epoch });
        }
        self.observe_disk(node, news);
        if *error != DiskError::Full {
            self.input(node, Event::DiskFailed);
        }
    }

    /// Says when the sync under way will have completed. What was said before is void.
    pub(super) fn schedule_sync(&mut self, node: NodeId) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        process.syncs += 1;
        let at = now.max(host.stalled_until).after(host.options.sync.draw(&mut self.rng));
        let task = Task::Synced { node, epoch: host.epoch, serial: process.syncs };
        self.schedule.add(at, task);
    }

    fn synced(&mut self, node: NodeId, serial: u64) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        if serial != process.syncs {
            return;
        }
        let count = std::mem::take(&mut process.syncing);
        self.complete_writes(node, count);
    }

    /// The oldest `count` writes are durable now.
    pub(super) fn complete_writes(&mut self, node: NodeId, count: usize) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        let count = count.min(process.writes.len());
        let install = process.writes.front().and_then(|write| write.install);
        if install.is_some_and(|id| host.received.as_ref().is_none_or(|(other, _)| *other != id)) {
            panic!("what is installed was fetched before");
        }
        if let Err(error) = host.storage.sync(count) {
            return self.disk_error(node, &error);
        }
        let done: Vec<PendingWrite> = process.writes.drain(..count).collect();
        let installed = done.iter().find_map(|write| write.install);
        if let Some(snapshot) = installed {
            let (_, bytes) = host.received.as_ref().expect("it was there just now");
            host.machine.restore(bytes);
            let marker = process.work.pop_front();
            assert_eq!(marker, Some(Work::Install), "the state machine waits for the snapshot");
            let digest = host.machine.digest();
            self.observe(node, Observed::Installed { snapshot, digest });
        }
        let seq = done.iter().filter_map(|write| write.seq).next_back();
        if let Some(seq) = seq {
            self.observe(node, Observed::Durable(seq));
            self.input(node, Event::Stored(seq));
        }
        self.kick_disk(node);
        self.kick_machine(node);
    }

    // ---- the state machine ----

    /// Starts the next piece of work of the state machine, if it is idle.
    pub(super) fn kick_machine(&mut self, node: NodeId) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        if process.working || host.machine_held {
            return;
        }
        while process.work.front() == Some(&Work::Spool) {
            // The view is taken at once, and written while others are applied.
            process.work.pop_front();
            process.spooling = Some((host.machine.applied(), host.machine.snapshot()));
            let at = now.after(host.options.spool.draw(&mut self.rng));
            self.schedule.add(at, Task::Spooled { node, epoch: host.epoch });
        }
        let delay = match process.work.front() {
            Some(Work::Apply(_)) => host.options.apply,
            Some(Work::Install) => return self.kick_disk(node),
            Some(Work::Spool) | None => return,
        };
        process.working = true;
        let at = now.after(delay.draw(&mut self.rng));
        self.schedule.add(at, Task::Worked { node, epoch: host.epoch });
    }

    pub(super) fn worked(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        process.working = false;
        match process.work.pop_front() {
            Some(Work::Apply(entries)) => {
                let up_to = entries.last().map_or(Index::ZERO, |entry| entry.index);
                let mut responses = Vec::new();
                for entry in &entries {
                    let response = host.machine.apply(entry);
                    if matches!(entry.payload, Payload::Command(_)) {
                        responses.push(response);
                    }
                }
                let ids = entries.iter().map(|entry| (entry.log_id(), entry.checksum)).collect();
                let digest = host.machine.digest();
                if let Some(interval) = host.options.flush_interval_us
                    && self.options.settings.snapshots.is_none()
                    && !std::mem::replace(&mut process.flush_scheduled, true)
                {
                    let task = Task::Flush { node, epoch: host.epoch };
                    self.schedule.add(self.now.after(interval), task);
                }
                self.observe(node, Observed::Applied { entries: ids, digest });
                self.input(node, Event::Applied { up_to, responses });
            }
            // Held up until now, by a script that looks at nothing in between.
            Some(Work::Spool) => {
                process.spooling = Some((host.machine.applied(), host.machine.snapshot()));
                self.spooled(node);
            }
            Some(Work::Install) | None => {}
        }
        self.kick_machine(node);
    }

    /// A snapshot is finished.
    fn spooled(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        let Some((id, bytes)) = process.spooling.take() else { return };
        if self.options.settings.snapshots.is_some() {
            // That file is what it has instead of a disk.
            host.machine.keep(&bytes);
            process.spooled = Some((id, bytes));
            self.observe(node, Observed::Flushed(id.index));
        } else {
            process.spooled = Some((id, bytes));
        }
        self.input(node, Event::Spooled(Some(id)));
    }

    /// Makes the contents of a running state machine durable now; if snapshots do that, has one
    /// taken.
    pub fn flush(&mut self, node: NodeId) {
        if self.options.settings.snapshots.is_some() {
            return self.input(node, Event::TakeSnapshot);
        }
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        process.flush_scheduled = false;
        host.machine.flush();
        let index = host.machine.durable().index;
        self.observe(node, Observed::Flushed(index));
        self.input(node, Event::StateDurable(index));
    }

    // ---- snapshots ----

    /// Fetches a snapshot: from a process that runs, can be reached both ways, and has it, from the
    /// beginning of the transfer to its end.
    fn fetch(&mut self, node: NodeId, from: NodeId, snapshot: SnapshotMeta) {
        let source_epoch = self.hosts.get(&from).map_or(0, |host| host.epoch);
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(process) = &mut host.process else { return };
        process.fetches += 1;
        let serial = process.fetches;
        process.fetch = Some(Fetch { serial, from, snapshot });
        if host.fetch_held {
            return;
        }
        let at = self.now.after(host.options.fetch.draw(&mut self.rng));
        let fails = self.rng.chance(host.options.fetch_fails_ppm);
        let task = Task::Fetched { node, epoch: host.epoch, serial, source_epoch, fails };
        self.schedule.add(at, task);
    }

    fn fetched(&mut self, node: NodeId, serial: u64, source_epoch: u64, fails: bool) {
        let Some(process) = self.process(node) else { return };
        // A later fetch has replaced this one.
        if process.fetch.as_ref().is_none_or(|fetch| fetch.serial != serial) {
            return;
        }
        self.complete_fetch(node, Some(source_epoch), fails);
    }

    /// Ends the fetch under way. `source_epoch`: the source must still be that process.
    pub(super) fn complete_fetch(&mut self, node: NodeId, source_epoch: Option<u64>, fails: bool) {
        let Some(process) = self.process(node) else { return };
        let Some(Fetch { from, snapshot, .. }) = process.fetch.take() else { return };
        let cut = self.network.is_cut(from, node) || self.network.is_cut(node, from);
        let bytes = self.served(from, snapshot.id, source_epoch).filter(|_| !cut && !fails);
        let complete = bytes.is_some();
        if let Some(host) = self.hosts.get_mut(&node)
            && let Some(bytes) = bytes
        {
            host.received = Some((snapshot.id, bytes));
        }
        self.input(node, Event::Fetched { snapshot: snapshot.id, complete });
    }

    fn served(&self, from: NodeId, id: LogId, epoch: Option<u64>) -> Option<Bytes> {
        let host = self.hosts.get(&from).filter(|host| !host.paused)?;
        if epoch.is_some_and(|epoch| epoch != host.epoch) {
            return None;
        }
        let (spooled, bytes) = host.process.as_ref()?.spooled.as_ref()?;
        (*spooled == id).then(|| bytes.clone())
    }

    // ---- death ----

    /// Ends a process, now.
    pub(super) fn die(&mut self, node: NodeId, crash: Crash, within_step: bool) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if host.process.is_none() && !host.recovering {
            return;
        }
        host.epoch += 1;
        host.recovering = false;
        host.paused = false;
        host.doomed = None;
        let process = host.process.take();
        let unsynced = host.storage.unsynced();
        let rng = host.options.random_crash_loss.then_some(&mut self.rng);
        host.storage.crash(crash, rng);
        host.machine.crash();
        let lost = unsynced - host.storage.unsynced();
        let hint = host.options.peer_closed;
        let incarnation = host.config.incarnation;
        let installing = process
            .as_ref()
            .is_some_and(|process| process.writes.iter().any(|write| write.install.is_some()));
        let news = host.storage.take_news();
        self.observe(node, Observed::Crashed { crash, unsynced, lost, within_step, installing });
        self.observe_disk(node, news);
        for id in process.map_or(BTreeMap::new(), |process| process.requests).into_keys() {
            self.observe(node, Observed::Abandoned { id });
        }
        // A machine without power sends no reset.
        if let (Crash::Kill, Some(delay)) = (crash, hint) {
            let peers: Vec<NodeId> =
                self.hosts.values().filter(|host| host.is_up()).map(Host::id).collect();
            for at in peers {
                let due = self.now.after(delay.draw(&mut self.rng));
                self.schedule.add(due, Task::PeerClosed { at, peer: node, incarnation });
            }
        }
    }

    /// When a node wants to be woken, in global time, if it runs.
    #[must_use]
    pub fn wake_time(&self, node: NodeId) -> Option<Time> {
        self.hosts.get(&node)?.process.as_ref()?.wake_at
    }
}

fn told(event: &Event) -> Option<Told> {
    match event {
        Event::PeerClosed { peer, .. } => Some(Told::PeerClosed { peer: *peer }),
        Event::Loaded { result, .. } => {
            Some(Told::Loaded { error: result.as_ref().err().copied() })
        }
        Event::Fetched { complete, .. } => Some(Told::Fetched { complete: *complete }),
        _ => None,
    }
}

/// Some number that depends on a message's content.
fn weight(message: &NodeMessage) -> u64 {
    match message {
        NodeMessage::Raft(envelope) => {
            let entries = match &envelope.message {
                quorate_raft::Message::AppendEntries(append) => append.entries.len() as u64,
                _ => 0,
            };
            let name = envelope.message.name();
            envelope.term.0 << 20 ^ entries << 8 ^ name.len() as u64
        }
        NodeMessage::Forward(forward) => forward.attempt.count,
        NodeMessage::ForwardReply(reply) => !reply.attempt.count,
    }
}
