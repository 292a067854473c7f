//! Commands on their way from a follower to the leader.
//!
//! The follower's half remembers what it sent, and to the leader of which term. If that term ends,
//! or the leader's process does, before the answer comes, the outcome is unknown. The leader's half
//! makes sure that a message which the network delivers twice is executed once.

use std::collections::BTreeMap;

use quorate_raft::{NodeId, RequestId, Term, Time};

use crate::waiting::Waiting;

/// A command that was forwarded and not yet answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Forwarded {
    /// The client's request.
    pub(crate) request: RequestId,
    /// Where it was sent.
    pub(crate) leader: NodeId,
    /// The term that `leader` leads.
    pub(crate) term: Term,
}

/// The follower's half, by the count of the attempt. Bounded by `Settings::forwarded_max`.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    waiting: Waiting<u64, Forwarded>,
    sent: u64,
}

impl Outgoing {
    pub(crate) const fn new() -> Self {
        Self { waiting: Waiting::new(), sent: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Remembers a command; returns its count.
    pub(crate) fn send(&mut self, forwarded: Forwarded, deadline: Time) -> u64 {
        self.sent += 1;
        self.waiting.insert(self.sent, forwarded, Some(deadline));
        self.sent
    }

    /// `from` has answered. `None` if nothing waits for that.
    pub(crate) fn answered(&mut self, from: NodeId, count: u64) -> Option<RequestId> {
        let forwarded = self.waiting.get(count)?;
        if forwarded.leader != from {
            return None;
        }
        self.waiting.remove(count).map(|forwarded| forwarded.request)
    }

    /// Gives up what was sent to the leader of an earlier term.
    pub(crate) fn term_ended(&mut self, term: Term) -> Vec<RequestId> {
        self.give_up(|forwarded| forwarded.term < term)
    }

    /// Gives up what was sent to a process that has ended.
    pub(crate) fn peer_closed(&mut self, peer: NodeId) -> Vec<RequestId> {
        self.give_up(|forwarded| forwarded.leader == peer)
    }

    /// Gives up everything.
    pub(crate) fn abandon(&mut self) -> Vec<RequestId> {
        self.give_up(|_| true)
    }

    fn give_up(&mut self, mut which: impl FnMut(&Forwarded) -> bool) -> Vec<RequestId> {
        let gone = self.waiting.take(|_, forwarded| which(forwarded));
        gone.into_iter().map(|(_, forwarded)| forwarded.request).collect()
    }

    /// Gives up what has waited too long.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<RequestId> {
        let mut requests = Vec::new();
        while let Some((_, forwarded)) = self.waiting.pop_expired(now) {
            requests.push(forwarded.request);
        }
        requests
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.waiting.deadline()
    }
}

/// The leader's half: which forwarded commands it has seen in the latest term in which it saw any.
/// What it has forgotten, it cannot tell from what it has never seen; then it must not say that a
/// command never happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Incoming {
    term: Term,
    /// By peer and its boot. Bounded by `Settings::forwarders_max`.
    seen: BTreeMap<(NodeId, u64), Window>,
}

/// Whether a forwarded command has come before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// It has not.
    First,
    /// It has, or so many came after it that this is not known any more. It must not be executed,
    /// and the first copy is answered, not this one.
    Copy,
    /// Too many processes forward in this term.
    TooMany,
}

impl Incoming {
    /// A command named `count` has arrived from a life of `peer`, for this leader of `term`.
    pub(crate) fn arrive(
        &mut self,
        term: Term,
        peer: NodeId,
        boot: u64,
        count: u64,
        forwarders_max: usize,
    ) -> Arrival {
        if self.term != term {
            self.term = term;
            self.seen.clear();
        }
        let known = self.seen.contains_key(&(peer, boot));
        if !known && self.seen.len() >= forwarders_max {
            return Arrival::TooMany;
        }
        if self.seen.entry((peer, boot)).or_default().insert(count) {
            Arrival::First
        } else {
            Arrival::Copy
        }
    }
}

/// What a node that does not lead the term of a command can say of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    /// It led the term and took the command: the first copy is answered, not this one.
    Taken,
    /// It never took it.
    NeverTaken,
    /// It may have, and has forgotten.
    Forgotten,
}

impl Incoming {
    /// Whether this process has taken that command while it led `term`.
    pub(crate) fn recall(&self, term: Term, peer: NodeId, boot: u64, count: u64) -> Memory {
        if term > self.term {
            return Memory::NeverTaken;
        }
        if term < self.term {
            return Memory::Forgotten;
        }
        match self.seen.get(&(peer, boot)) {
            Some(window) if window.has(count) => Memory::Taken,
            _ => Memory::NeverTaken,
        }
    }
}

/// Which of the latest counts were seen. Those before the window count as seen.
#[derive(Clone, Debug)]
struct Window {
    /// The highest count seen.
    last: u64,
    /// One bit for each count of the window, at `count % LENGTH`.
    bits: [u64; Self::WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self { last: 0, bits: [0; Self::WORDS] }
    }
}

impl Window {
    const WORDS: usize = 64;
    /// How far a message may be overtaken by later ones and still count.
    const LENGTH: u64 = 64 * Self::WORDS as u64;

    /// Whether `count` is new.
    fn insert(&mut self, count: u64) -> bool {
        // Counts start at 1, so that 0 can stand for none.
        if count > self.last {
            let steps = (count - self.last).min(Self::LENGTH);
            for fresh in count - steps + 1..=count {
                self.set(fresh, false);
            }
            self.last = count;
        } else if self.last - count >= Self::LENGTH {
            return false;
        }
        let new = !self.get(count);
        self.set(count, true);
        new
    }

    /// Whether `count` was seen, or may have been.
    const fn has(&self, count: u64) -> bool {
        count <= self.last && (self.last - count >= Self::LENGTH || self.get(count))
    }

    const fn place(count: u64) -> (usize, u64) {
        let bit = count % Self::LENGTH;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    const fn get(&self, count: u64) -> bool {
        let (word, mask) = Self::place(count);
        self.bits[word] & mask != 0
    }

    const fn set(&mut self, count: u64, seen: bool) {
        let (word, mask) = Self::place(count);
        if seen {
            self.bits[word] |= mask;
        } else {
            self.bits[word] &= !mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_from_the_first_in_any_order() {
        let mut window = Window::default();
        assert!(window.insert(5));
        assert!(window.insert(3));
        assert!(!window.insert(5));
        assert!(!window.insert(3));
        assert!(window.insert(4));
        assert!(window.insert(3 + Window::LENGTH));
        assert!(!window.insert(3), "behind the window");
        assert!(!window.insert(4), "within the window, and seen");
        assert!(window.insert(6), "within the window, and new");
        assert!(window.insert(10 * Window::LENGTH));
        assert!(window.insert(10 * Window::LENGTH - 1));
    }

    #[test]
    fn a_new_life_or_term_counts_anew() {
        let mut incoming = Incoming::default();
        let mut arrive = |term, boot, count| incoming.arrive(Term(term), NodeId(2), boot, count, 2);
        assert_eq!(arrive(1, 7, 1), Arrival::First);
        assert_eq!(arrive(1, 7, 1), Arrival::Copy);
        assert_eq!(arrive(1, 8, 1), Arrival::First);
        assert_eq!(arrive(1, 7, 1), Arrival::Copy);
        assert_eq!(arrive(1, 9, 1), Arrival::TooMany);
        assert_eq!(arrive(2, 9, 1), Arrival::First);
    }

    #[test]
    fn only_the_leader_that_was_asked_may_answer() {
        let mut outgoing = Outgoing::new();
        let forwarded = Forwarded { request: RequestId(9), leader: NodeId(1), term: Term(4) };
        let count = outgoing.send(forwarded, Time(10));
        assert_eq!(outgoing.answered(NodeId(3), count), None);
        assert_eq!(outgoing.answered(NodeId(1), count), Some(RequestId(9)));
        assert_eq!(outgoing.answered(NodeId(1), count), None);
    }

    #[test]
    fn what_was_sent_to_an_earlier_leader_is_given_up() {
        let mut outgoing = Outgoing::new();
        let forwarded = Forwarded { request: RequestId(9), leader: NodeId(1), term: Term(4) };
        outgoing.send(forwarded, Time(10));
        assert_eq!(outgoing.term_ended(Term(4)), []);
        assert_eq!(outgoing.term_ended(Term(5)), [RequestId(9)]);
        outgoing.send(forwarded, Time(10));
        assert_eq!(outgoing.peer_closed(NodeId(2)), []);
        assert_eq!(outgoing.peer_closed(NodeId(1)), [RequestId(9)]);
        outgoing.send(forwarded, Time(10));
        assert_eq!(outgoing.expire(Time(10)), [RequestId(9)]);
        assert_eq!(outgoing.len(), 0);
    }
}
