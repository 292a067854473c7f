//! Snapshots at the receiving end (§7). The bytes travel outside the core: it decides whether to
//! fetch an offered snapshot, and whether to install it once it is here.

use crate::backlog::Backlog;
use crate::common::{Common, Fetch};
use crate::effect::{Effect, Install, Notice};
use crate::error::PeerError;
use crate::follower::Follower;
use crate::message::{InstallSnapshotReply, Message, SnapshotMeta, SnapshotOutcome};
use crate::types::{Index, LogId, NodeId, Term};

impl Follower {
    /// The leader offers a snapshot.
    pub(crate) fn on_install_snapshot(
        &mut self,
        common: &mut Common,
        from: NodeId,
        snapshot: SnapshotMeta,
    ) {
        self.on_snapshot_contact(common);
        let id = snapshot.id;
        let contradicts = |term: Term| id.index <= common.commit_index && term != id.term;
        if common.log.term_at(id.index).is_some_and(contradicts) {
            // Nothing is replaced by it, but nothing true can be said about it either.
            let why = PeerError::SnapshotConflict { at: id.index };
            common.notice(Notice::Refused { from, why });
            return;
        }
        if common.has_up_to(id) {
            self.on_snapshot_matched(common, id);
            common.reply_matched(from, id);
            return;
        }
        let outdated = |fetch: &Fetch| fetch.from == from && fetch.snapshot.id.index >= id.index;
        if common.installing.is_none() && !common.fetch.as_ref().is_some_and(outdated) {
            common.fetch = Some(Fetch { from, snapshot: snapshot.clone() });
            common.push(Effect::FetchSnapshot { from, snapshot });
        }
        common.reply_snapshot(from, id, SnapshotOutcome::Pending);
    }

    /// The host has fetched a snapshot, or could not.
    pub(crate) fn on_snapshot_fetched(
        &mut self,
        common: &mut Common,
        fetch: &Fetch,
        complete: bool,
    ) {
        let id = fetch.snapshot.id;
        let asked_by = self.leader.unwrap_or(fetch.from);
        if common.has_up_to(id) {
            self.on_snapshot_matched(common, id);
            common.reply_matched(asked_by, id);
        } else if complete {
            common.install(&fetch.snapshot);
            self.on_snapshot_matched(common, id);
            common.reply_matched(asked_by, id);
        } else {
            common.reply_snapshot(asked_by, id, SnapshotOutcome::Failed);
        }
    }
}

impl Common {
    /// Whether a snapshot at `id` brings nothing: what it covers is committed here, or in the log.
    fn has_up_to(&self, id: LogId) -> bool {
        // §7: if the log has the snapshot's last entry, what follows it is kept.
        id.index <= self.commit_index || self.log.has(id)
    }

    /// Puts a snapshot in the place of log and state machine.
    ///
    /// The log does not have the snapshot's last entry, so whatever it has behind that index is
    /// not committed, and all before it is covered (§7).
    fn install(&mut self, snapshot: &SnapshotMeta) {
        let id = snapshot.id;
        debug_assert!(!self.has_up_to(id), "an installed snapshot brings something new");
        self.log.reset(id);
        self.configurations.reset(snapshot);
        self.commit_index = id.index;
        self.hard_state.commit = id.index;
        self.unreadable = None;
        self.backlog = Backlog::new(id.index, id.index);
        let given = self.applying.given();
        let seq = self.durability.hand_out_install(given, id.index, self.now);
        self.installing = Some((seq, id.index));
        let hard_state = self.hard_state.clone();
        self.push(Effect::Install(Install { seq, snapshot: snapshot.clone(), hard_state }));
    }

    fn reply_matched(&mut self, to: NodeId, snapshot: LogId) {
        let match_index: Index = snapshot.index;
        let outcome = SnapshotOutcome::Matched { match_index };
        let reply = Message::InstallSnapshotReply(InstallSnapshotReply { snapshot, outcome });
        self.send_when_durable(to, reply, match_index);
    }

    fn reply_snapshot(&mut self, to: NodeId, snapshot: LogId, outcome: SnapshotOutcome) {
        let reply = InstallSnapshotReply { snapshot, outcome };
        self.send(to, Message::InstallSnapshotReply(reply));
    }
}
