//! Replicating the log (§5.3): sending entries, and learning from the answers where the logs meet.

use alloc::vec::Vec;
use bytes::Bytes;

use super::progress::{Offer, Progress, State};
use super::{Leader, is_behind_on_commit};
use crate::common::Common;
use crate::effect::{Effect, Load, LoadId, Notice};
use crate::entry::Entry;
use crate::error::{PeerError, StepDownReason};
use crate::input::LoadError;
use crate::message::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Conflict, HeartbeatReply, InstallSnapshot,
    InstallSnapshotReply, Message, SnapshotMeta, SnapshotOutcome,
};
use crate::role::Next;
use crate::types::{Index, LogId, NodeId};

impl Leader {
    pub(crate) fn on_append_entries_reply(
        &mut self,
        common: &mut Common,
        from: NodeId,
        m: &AppendEntriesReply,
    ) -> Next {
        self.contact(common, from, m.round);
        let Some(progress) = self.progress.get_mut(&from) else { return Next::Stay };
        match m.outcome {
            AppendOutcome::Accepted { match_index } => self.on_match(common, from, match_index),
            AppendOutcome::Refused { prev_index, conflict } => {
                on_refusal(common, progress, prev_index, conflict);
                Next::Stay
            }
        }
    }

    /// `from` holds everything up to `match_index`, durably (Figure 2, leaders).
    fn on_match(&mut self, common: &mut Common, from: NodeId, match_index: Index) -> Next {
        if match_index > common.log.last_index() {
            let why = PeerError::Unsent { at: match_index };
            common.notice(Notice::Refused { from, why });
            return Next::Stay;
        }
        let Some(progress) = self.progress.get_mut(&from) else { return Next::Stay };
        let advanced = match_index > progress.match_index;
        progress.matched(match_index);
        if matches!(progress.state, State::Snapshot(_))
            && common.log.term_at(progress.match_index).is_some()
        {
            // It has caught up with the log's start in some way.
            progress.probe(progress.match_index.next());
        } else if progress.snapshot_index().is_some_and(|index| index <= progress.match_index) {
            // The log's start has moved past the snapshot while it was in transfer.
            progress.state = State::Snapshot(Offer::Wanted { asked: false });
        }
        if !advanced {
            return Next::Stay;
        }
        if is_behind_on_commit(progress, common.commit_index) && self.notice_deadline.is_none() {
            // It was not there when the others were told.
            self.notice_deadline = Some(common.now.after(common.config.commit_notice_delay_us));
        }
        match self.advance_commit(common) {
            Next::Stay => self.advance_membership(common),
            next => next,
        }
    }

    pub(crate) fn on_heartbeat_reply(
        &mut self,
        common: &mut Common,
        from: NodeId,
        m: HeartbeatReply,
    ) -> Next {
        let sent_at = self.rounds.sent_at(m.round);
        let latest = self.rounds.latest();
        let Some(progress) = self.progress.get_mut(&from) else { return Next::Stay };
        progress.feature_level = Some(m.feature_level);
        if common.membership().lease_us().is_some()
            && let Some(sent_at) = sent_at
            && m.round > progress.acked_round
        {
            let window_us = common.config.election_timeout_max_us.saturating_mul(10);
            let drift_max_ppm = common.config.clock_drift_max_ppm;
            progress.drift.observe(m.clock, sent_at, common.now, drift_max_ppm, window_us);
        }
        self.contact(common, from, m.round);
        let Some(progress) = self.progress.get_mut(&from) else { return Next::Stay };
        recover_lost(common, from, progress, m, latest);
        Next::Stay
    }

    pub(crate) fn on_install_snapshot_reply(
        &mut self,
        common: &mut Common,
        from: NodeId,
        m: InstallSnapshotReply,
    ) -> Next {
        let Some(progress) = self.progress.get_mut(&from) else { return Next::Stay };
        match m.outcome {
            SnapshotOutcome::Matched { match_index } => self.on_match(common, from, match_index),
            SnapshotOutcome::Pending => {
                if let State::Snapshot(Offer::Made { snapshot, at }) = &mut progress.state
                    && snapshot.id == m.snapshot
                {
                    *at = common.now;
                }
                Next::Stay
            }
            SnapshotOutcome::Failed => {
                if progress.snapshot_index() == Some(m.snapshot.index) {
                    // Asked again with the next heartbeat, not at once: it may fail again.
                    progress.state = State::Snapshot(Offer::Wanted { asked: true });
                }
                Next::Stay
            }
        }
    }

    /// The host holds a snapshot ready, or cannot.
    pub(crate) fn on_snapshot_prepared(
        &mut self,
        common: &mut Common,
        to: NodeId,
        snapshot: Option<SnapshotMeta>,
    ) {
        let Some(progress) = self.progress.get_mut(&to) else { return };
        // One that ends before the log's start would leave a gap; the next heartbeat asks again.
        let fits = |snapshot: &SnapshotMeta| snapshot.id.index >= common.log.base().index;
        if let (State::Snapshot(state @ Offer::Wanted { .. }), Some(snapshot)) =
            (&mut progress.state, snapshot.filter(fits))
        {
            *state = Offer::Made { snapshot: snapshot.clone(), at: common.now };
            let message = InstallSnapshot { snapshot };
            common.send(to, Message::InstallSnapshot(message));
        }
    }

    /// Entries for a peer were read back, or could not be.
    pub(crate) fn on_loaded(
        &mut self,
        common: &mut Common,
        id: LoadId,
        result: Result<Vec<Entry>, LoadError>,
    ) -> Next {
        let round = self.rounds.latest();
        let wants = |progress: &Progress| progress.load == Some(id);
        let Some((peer, progress)) = self.progress.iter_mut().find(|(_, p)| wants(p)) else {
            return Next::Stay;
        };
        progress.load = None;
        let first = progress.next_index;
        let prev_index = first.prev();
        let Some(prev_term) = common.log.term_at(prev_index) else {
            // Compacted meanwhile; the next flush sees it.
            return Next::Stay;
        };
        match result {
            Ok(entries) if common.is_log_part(first, &entries) => {
                let bytes = entries.iter().map(Entry::size).sum();
                let prev_log = LogId::new(prev_index, prev_term);
                pipeline(common, *peer, progress, prev_log, entries, bytes, round);
                Next::Stay
            }
            // The peer moved on while they were read.
            Ok(entries) if entries.first().is_some_and(|entry| entry.index != first) => Next::Stay,
            Err(LoadError::Compacted) => Next::Stay,
            Ok(_) | Err(LoadError::Unreadable) => {
                // Skipping them would lose them; somebody else can send them.
                common.mark_unreadable(first);
                Next::StepDown(StepDownReason::Unreadable { index: first })
            }
        }
    }

    /// The peer's process has ended: what was on its way to it is lost.
    pub(crate) fn on_peer_closed(&mut self, peer: NodeId) {
        if let Some(progress) = self.progress.get_mut(&peer)
            && !matches!(progress.state, State::Snapshot(_))
        {
            progress.probe(progress.match_index.next());
        }
    }
}

/// Sends `peer` what it lacks, as far as its window allows.
pub(super) fn replicate(common: &mut Common, peer: NodeId, progress: &mut Progress, round: u64) {
    loop {
        let prev_index = progress.next_index.prev();
        if matches!(progress.state, State::Snapshot(_)) {
            offer(common, peer, progress);
            return;
        }
        let Some(prev_term) = common.log.term_at(prev_index) else {
            // The entry before the next one was compacted away, and so may be the next.
            progress.load = None;
            progress.inflights.clear();
            progress.state = State::Snapshot(Offer::Wanted { asked: false });
            continue;
        };
        let prev_log = LogId::new(prev_index, prev_term);
        let last = common.log.last_index();
        let bytes_max = common.config.append_bytes_max;
        match progress.state {
            State::Probe { sent_in: Some(_), .. } => return,
            State::Probe { sent_in: None, bare } => {
                // What is not in memory can wait until the place is found.
                let found = common.log.recent(progress.next_index, last, bytes_max);
                let found = found.filter(|_| !bare);
                let entries = found.map_or_else(Vec::new, |(entries, _)| entries);
                progress.state = State::Probe { sent_in: Some(round), bare };
                send_entries(common, peer, progress, prev_log, entries, round);
                return;
            }
            State::Replicate => {
                let messages_max = common.config.inflight_messages_max;
                let bytes_inflight_max = common.config.inflight_bytes_max;
                if progress.next_index > last
                    || progress.load.is_some()
                    || progress.inflights.is_full(messages_max, bytes_inflight_max)
                {
                    return;
                }
                let Some((entries, bytes)) =
                    common.log.recent(progress.next_index, last, bytes_max)
                else {
                    let id = common.next_load();
                    progress.load = Some(id);
                    let first = progress.next_index;
                    common.push(Effect::Load(Load { id, first, last, bytes_max }));
                    return;
                };
                pipeline(common, peer, progress, prev_log, entries, bytes, round);
            }
            State::Snapshot(_) => return,
        }
    }
}

/// Sends entries of the log ahead of the answers.
fn pipeline(
    common: &mut Common,
    peer: NodeId,
    progress: &mut Progress,
    prev_log: LogId,
    entries: Vec<Entry>,
    bytes: usize,
    round: u64,
) {
    let last = entries.last().map_or(prev_log.index, |entry| entry.index);
    progress.next_index = last.next();
    progress.inflights.push(last, bytes);
    send_entries(common, peer, progress, prev_log, entries, round);
}

fn send_entries(
    common: &mut Common,
    peer: NodeId,
    progress: &mut Progress,
    prev_log: LogId,
    entries: Vec<Entry>,
    round: u64,
) {
    let last = entries.last().map_or(prev_log.index, |entry| entry.index);
    let leader_commit = common.commit_index;
    progress.commit_sent = progress.commit_sent.max(leader_commit.min(last));
    let extension = Bytes::new();
    let message = AppendEntries { prev_log, entries, leader_commit, round, extension };
    common.send(peer, Message::AppendEntries(message));
}

/// Has a snapshot prepared for a peer that needs one.
fn offer(common: &mut Common, peer: NodeId, progress: &mut Progress) {
    if let State::Snapshot(Offer::Wanted { asked }) = &mut progress.state
        && !*asked
    {
        *asked = true;
        let min_index = common.log.base().index;
        common.push(Effect::PrepareSnapshot { to: peer, min_index });
    }
}

/// §5.3: the logs differ at `prev_index`; go back, a whole term at a time.
fn on_refusal(common: &Common, progress: &mut Progress, prev_index: Index, conflict: Conflict) {
    // An answer to something older than what is known by now, or than the probe under way.
    let stale = prev_index <= progress.match_index
        || match progress.state {
            State::Probe { .. } => prev_index != progress.next_index.prev(),
            State::Replicate => prev_index >= progress.next_index,
            State::Snapshot(_) => true,
        };
    if stale {
        return;
    }
    // If the leader has entries of the conflicting term, the logs may meet at the last of them;
    // otherwise the follower has nothing of use from that term.
    let own_last = conflict.term.and_then(|term| common.log.last_index_of(term));
    let next_index = match own_last {
        Some(own_last) if own_last < prev_index => own_last.next(),
        // That the logs differ above the start does not prove that they differ at the start.
        _ if conflict.term.is_some() => conflict.first_index.max(common.log.base().index.next()),
        _ => conflict.first_index,
    };
    progress.probe(next_index.min(prev_index).max(progress.match_index.next()));
}

/// A heartbeat's answer shows what has arrived of all that was sent before the heartbeat. What has
/// not was lost, and is sent again, without waiting for a new proposal to reveal the gap. At most
/// one message a heartbeat comes of this, however long a disk takes.
fn recover_lost(
    common: &mut Common,
    peer: NodeId,
    progress: &mut Progress,
    m: HeartbeatReply,
    latest_round: u64,
) {
    let Some((round, sent_before)) = progress.heartbeat else { return };
    if m.round < round {
        return;
    }
    progress.heartbeat = None;
    match progress.state {
        State::Probe { sent_in: Some(sent_in), .. } if round > sent_in => {
            let bare = m.verified >= progress.next_index;
            progress.state = State::Probe { sent_in: None, bare };
        }
        State::Replicate if m.verified.next() < sent_before => {
            progress.probe(m.verified.next().max(progress.match_index.next()));
        }
        State::Replicate if progress.match_index.next() < sent_before => {
            // It has arrived, but no acknowledgement has: the disk is slow there, or the
            // acknowledgement was lost. Asking again costs one small message.
            let prev_index = sent_before.prev();
            if let Some(term) = common.log.term_at(prev_index) {
                let prev_log = LogId::new(prev_index, term);
                send_entries(common, peer, progress, prev_log, Vec::new(), latest_round);
            }
        }
        _ => {}
    }
}
