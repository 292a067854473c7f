//! What this node's disk holds, and what must wait for it.
//!
//! A message that promises something durable (a vote, an acknowledgement, or just "I am in this
//! term") is given to the host only when the write that it depends on is confirmed. That rule
//! lives here and nowhere else, so no host can get it wrong.

use alloc::collections::VecDeque;

use crate::message::{AppendOutcome, Envelope, Message};
use crate::types::{Index, Seq, Term, Time};

/// Writes under way and messages that wait for them.
#[derive(Debug)]
pub(crate) struct Durability {
    /// The number of the next storage effect.
    next: Seq,
    /// Everything up to here is durable.
    confirmed: Seq,
    /// Handed out and not confirmed, ascending.
    writes: VecDeque<Write>,
    /// The log up to here is durable.
    index: Index,
    /// The first entry that was not handed out yet.
    unwritten: Option<Index>,
    /// Term, vote or incarnations changed since the last hand-out.
    hard_state_changed: bool,
    /// The write that holds the latest term and vote.
    hard_state_seq: Seq,
    /// Messages to send, each with the write that it waits for.
    withheld: VecDeque<(Seq, Envelope)>,
}

#[derive(Debug)]
struct Write {
    seq: Seq,
    /// Once this write is confirmed, the log is durable up to here.
    last_index: Index,
    since: Time,
}

impl Durability {
    /// What a restart found is durable.
    pub(crate) fn new(last_index: Index) -> Self {
        Self {
            next: Seq(1),
            confirmed: Seq(0),
            writes: VecDeque::new(),
            index: last_index,
            unwritten: None,
            hard_state_changed: false,
            hard_state_seq: Seq(0),
            withheld: VecDeque::new(),
        }
    }

    /// The log up to here is durable.
    pub(crate) const fn index(&self) -> Index {
        self.index
    }

    /// Whether the latest term and vote are durable.
    pub(crate) fn hard_state_is_durable(&self) -> bool {
        self.hard_state_seq <= self.confirmed
    }

    /// The write that holds, or will hold, the latest term, vote and incarnations.
    pub(crate) const fn hard_state_seq(&self) -> Seq {
        self.hard_state_seq
    }

    pub(crate) fn is_confirmed(&self, seq: Seq) -> bool {
        seq <= self.confirmed
    }

    /// Since when the oldest write has been under way.
    pub(crate) fn writing_since(&self) -> Option<Time> {
        self.writes.front().map(|write| write.since)
    }

    /// Term, vote or incarnations changed: the next record must hold them.
    pub(crate) fn change_hard_state(&mut self) {
        self.hard_state_changed = true;
        self.hard_state_seq = self.next;
    }

    /// An entry was appended at `index`, in memory.
    pub(crate) fn append(&mut self, index: Index) {
        self.unwritten.get_or_insert(index);
    }

    /// Entries from `first` on are gone from memory; what the disk has there is worth nothing.
    pub(crate) fn truncate(&mut self, first: Index) {
        self.clamp(first.prev());
        if self.unwritten.is_some_and(|unwritten| unwritten >= first) {
            self.unwritten = None;
        }
    }

    fn clamp(&mut self, last: Index) {
        self.index = self.index.min(last);
        for write in &mut self.writes {
            write.last_index = write.last_index.min(last);
        }
    }

    /// Whether there is anything to hand out, and the first entry of it.
    pub(crate) const fn pending(&self) -> Option<Option<Index>> {
        if self.hard_state_changed || self.unwritten.is_some() {
            return Some(self.unwritten);
        }
        None
    }

    /// Everything up to `last_index`, and the latest hard state, is handed out now.
    pub(crate) fn hand_out(&mut self, last_index: Index, now: Time) -> Seq {
        let seq = self.next;
        self.next = seq.next();
        self.unwritten = None;
        self.hard_state_changed = false;
        self.writes.push_back(Write { seq, last_index, since: now });
        seq
    }

    /// A snapshot takes the place of the whole log. Until it is installed, the disk is good for
    /// nothing behind `applied`.
    pub(crate) fn hand_out_install(&mut self, applied: Index, snapshot: Index, now: Time) -> Seq {
        self.clamp(applied);
        self.hand_out(snapshot, now)
    }

    /// The write that makes the log durable up to `index`; zero if it is already.
    fn covering(&self, index: Index) -> Seq {
        if index <= self.index {
            return Seq(0);
        }
        let write = self.writes.iter().find(|write| write.last_index >= index);
        write.map_or(self.next, |write| write.seq)
    }

    /// Gives `envelope` back if it may be sent at once, or keeps it until the sender's term and,
    /// if an index is given, the log up to it are durable.
    pub(crate) fn hold(&mut self, envelope: Envelope, index: Option<Index>) -> Option<Envelope> {
        let needs = index.map_or(Seq(0), |index| self.covering(index)).max(self.hard_state_seq);
        if needs <= self.confirmed {
            return Some(envelope);
        }
        if let Some((last_needs, last)) = self.withheld.back_mut()
            && *last_needs == needs
            && absorb(last, &envelope)
        {
            return None;
        }
        self.withheld.push_back((needs, envelope));
        None
    }

    /// Everything up to `seq` is durable. Gives back the messages that waited for it.
    pub(crate) fn confirm(&mut self, seq: Seq) -> VecDeque<Envelope> {
        let mut released = VecDeque::new();
        let seq = Seq(seq.0.min(self.next.0 - 1));
        if seq <= self.confirmed {
            return released;
        }
        self.confirmed = seq;
        while self.writes.front().is_some_and(|write| write.seq <= seq) {
            if let Some(write) = self.writes.pop_front() {
                self.index = self.index.max(write.last_index);
            }
        }
        let mut kept = VecDeque::with_capacity(self.withheld.len());
        for (needs, envelope) in self.withheld.drain(..) {
            if needs > seq {
                kept.push_back((needs, envelope));
            } else if !released.back_mut().is_some_and(|last| absorb(last, &envelope)) {
                released.push_back(envelope);
            }
        }
        self.withheld = kept;
        released
    }

    /// The election that they were for is given up: votes are not asked for any more.
    pub(crate) fn forget_campaign(&mut self) {
        self.withheld.retain(|(_, envelope)| {
            !matches!(envelope.message, Message::PreVote(_) | Message::RequestVote(_))
        });
    }

    /// Messages of an older term are not worth sending any more.
    pub(crate) fn forget_before(&mut self, term: Term) {
        self.withheld.retain(|(_, envelope)| envelope.term >= term);
    }
}

/// Whether the acknowledgement `next` can take the place of `last`: it says the same and more.
fn absorb(last: &mut Envelope, next: &Envelope) -> bool {
    let (Message::AppendEntriesReply(old), Message::AppendEntriesReply(new)) =
        (&last.message, &next.message)
    else {
        return false;
    };
    let (
        AppendOutcome::Accepted { match_index: old_match },
        AppendOutcome::Accepted { match_index: new_match },
    ) = (old.outcome, new.outcome)
    else {
        return false;
    };
    let absorbs = last.to == next.to
        && last.term == next.term
        && old_match <= new_match
        && old.round <= new.round;
    if absorbs {
        *last = next.clone();
    }
    absorbs
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use bytes::Bytes;

    use super::*;
    use crate::message::{AppendEntriesReply, RequestVoteReply};
    use crate::types::{ClusterId, GroupId, Incarnation, NodeId};

    fn envelope(message: Message) -> Envelope {
        Envelope {
            cluster: ClusterId(1),
            group: GroupId(0),
            from: NodeId(1),
            incarnation: Incarnation(1),
            to: NodeId(2),
            term: Term(3),
            message,
        }
    }

    fn vote() -> Envelope {
        envelope(Message::RequestVoteReply(RequestVoteReply { granted: true }))
    }

    fn ack(match_index: u64) -> Envelope {
        let outcome = AppendOutcome::Accepted { match_index: Index(match_index) };
        let reply = AppendEntriesReply { outcome, round: 1, extension: Bytes::new() };
        envelope(Message::AppendEntriesReply(reply))
    }

    fn appended(from: u64, to: u64, durability: &mut Durability) -> Seq {
        (from..=to).for_each(|index| durability.append(Index(index)));
        durability.hand_out(Index(to), Time(0))
    }

    #[test]
    fn a_vote_waits_for_the_write_that_holds_it() {
        let mut durability = Durability::new(Index(0));
        durability.change_hard_state();
        assert_eq!(durability.hold(vote(), None), None);
        let seq = durability.hand_out(Index(0), Time(0));
        assert_eq!(durability.hold(vote(), None), None);
        assert_eq!(durability.confirm(seq).len(), 2);
        assert_eq!(durability.hold(vote(), None), Some(vote()));
    }

    #[test]
    fn stale_early_and_repeated_confirmations_are_harmless() {
        let mut durability = Durability::new(Index(0));
        let first = appended(1, 3, &mut durability);
        let second = appended(4, 5, &mut durability);
        assert!(durability.confirm(Seq(99)).is_empty());
        assert_eq!(durability.index(), Index(5), "no more than was handed out");
        durability.confirm(first);
        durability.confirm(second);
        assert_eq!(durability.index(), Index(5));
    }

    #[test]
    fn a_truncated_write_counts_only_as_far_as_it_is_still_true() {
        let mut durability = Durability::new(Index(0));
        let old = appended(1, 20, &mut durability);
        durability.truncate(Index(15));
        let new = appended(15, 16, &mut durability);
        durability.confirm(old);
        assert_eq!(durability.index(), Index(14));
        durability.confirm(new);
        assert_eq!(durability.index(), Index(16));
    }

    #[test]
    fn acknowledgements_to_one_leader_are_merged() {
        let mut durability = Durability::new(Index(0));
        let first = appended(1, 3, &mut durability);
        assert_eq!(durability.hold(ack(2), Some(Index(2))), None);
        assert_eq!(durability.hold(ack(3), Some(Index(3))), None);
        let second = appended(4, 4, &mut durability);
        assert_eq!(durability.hold(ack(4), Some(Index(4))), None);
        assert_eq!(Vec::from(durability.confirm(first)), [ack(3)]);
        assert_eq!(Vec::from(durability.confirm(second)), [ack(4)]);
    }
}
