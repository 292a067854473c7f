//! Commands in this node's log whose clients wait for the outcome.
//!
//! A command that was appended at an index in a term has one of three fates: the entry committed at
//! that index has that term, then it took effect, once; it has another term, then it never will; or
//! this node does not learn which. The log is the only judge, so proposals are matched with what is
//! applied by index *and* term.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_raft::{AttemptId, Entry, Index, LogId, NodeId, Payload, RequestId, Term, Time};

use crate::action::{Executed, ProposeFailure};
use crate::waiting::Waiting;

/// Who is told what became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// A client of this node.
    Client(RequestId),
    /// A peer, which forwarded it.
    Peer {
        /// The peer.
        node: NodeId,
        /// Its name for the command.
        attempt: AttemptId,
    },
}

/// What became of a command.
pub(crate) type Outcome = (Origin, Result<Executed, ProposeFailure>);

/// Commands from their append to the state machine's response.
#[derive(Clone, Debug)]
pub(crate) struct Proposals {
    /// Appended here, by index and term. As long as this node leads, the core bounds them (each
    /// counts with `Entry::OVERHEAD_BYTES` in `Config::unapplied_bytes_max`); afterwards they leave
    /// after `Settings::outcome_wait_us`.
    appended: Waiting<(Index, Term), Origin>,
    /// Given to the state machine and not yet reported: for each batch, its commands in order, with
    /// those who wait for them. The core bounds it by `Config::apply_bytes_max`.
    executing: VecDeque<Vec<(LogId, Option<Origin>)>>,
}

impl Proposals {
    pub(crate) const fn new() -> Self {
        Self { appended: Waiting::new(), executing: VecDeque::new() }
    }

    /// The command is in this leader's log.
    pub(crate) fn appended(&mut self, at: LogId, origin: Origin) {
        self.appended.insert((at.index, at.term), origin, None);
    }

    /// This node is deposed and cannot see to the command any more. It goes on waiting until
    /// `deadline`, since the new leader's log may tell. False if it does not wait here (any more).
    pub(crate) fn orphan(&mut self, at: LogId, deadline: Time) -> bool {
        let key = (at.index, at.term);
        let Some(origin) = self.appended.remove(key) else { return false };
        self.appended.insert(key, origin, Some(deadline));
        true
    }

    /// Committed entries go to the state machine. Returns whose commands they have overtaken.
    pub(crate) fn apply(&mut self, entries: &[Entry]) -> Vec<Outcome> {
        let mut overwritten = Vec::new();
        let mut batch = Vec::new();
        for entry in entries {
            let mut origin = None;
            while let Some(((index, term), waiting)) =
                self.appended.pop_up_to((entry.index, Term(u64::MAX)))
            {
                let at = LogId::new(index, term);
                if at == entry.log_id() {
                    origin = Some(waiting);
                } else {
                    overwritten.push((waiting, Err(ProposeFailure::Overwritten { at })));
                }
            }
            if matches!(entry.payload, Payload::Command(_)) {
                batch.push((entry.log_id(), origin));
            }
        }
        self.executing.push_back(batch);
        overwritten
    }

    /// The state machine has carried out the oldest batch.
    pub(crate) fn applied(&mut self, responses: Vec<Bytes>) -> Vec<Outcome> {
        let batch = self.executing.pop_front().unwrap_or_default();
        assert_eq!(batch.len(), responses.len(), "one response to each command, in order");
        let outcome = |((at, origin), response): ((LogId, Option<Origin>), Bytes)| {
            Some((origin?, Ok(Executed { at, response })))
        };
        batch.into_iter().zip(responses).filter_map(outcome).collect()
    }

    /// A snapshot has taken the place of the log up to `index`: what became of the commands there
    /// is not known any more.
    pub(crate) fn skip(&mut self, index: Index) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while let Some((key, origin)) = self.appended.pop_up_to((index, Term(u64::MAX))) {
            outcomes.push(unknown(key, origin));
        }
        outcomes
    }

    /// Those whose time has run out.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while let Some((key, origin)) = self.appended.pop_expired(now) {
            outcomes.push(unknown(key, origin));
        }
        outcomes
    }

    /// Gives up everything. Returns those who wait.
    pub(crate) fn abandon(&mut self) -> Vec<Origin> {
        let executing = std::mem::take(&mut self.executing).into_iter().flatten();
        let executing = executing.filter_map(|(_, origin)| origin);
        let appended = self.appended.take(|_, _| true).into_iter().map(|(_, origin)| origin);
        executing.chain(appended).collect()
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.appended.deadline()
    }
}

fn unknown((index, term): (Index, Term), origin: Origin) -> Outcome {
    let at = Some(LogId::new(index, term));
    (origin, Err(ProposeFailure::OutcomeUnknown { at }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64, term: u64) -> LogId {
        LogId::new(Index(index), Term(term))
    }

    fn command(index: u64, term: u64) -> Entry {
        Entry::new(Index(index), Term(term), Payload::Command(Bytes::from_static(b"x")))
    }

    const CLIENT: Origin = Origin::Client(RequestId(1));

    #[test]
    fn a_command_is_executed_when_its_own_entry_is() {
        let mut proposals = Proposals::new();
        proposals.appended(id(2, 1), CLIENT);
        let noop = Entry::new(Index(1), Term(1), Payload::Noop);
        assert_eq!(proposals.apply(&[noop, command(2, 1), command(3, 1)]), []);
        let responses = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        let executed = Executed { at: id(2, 1), response: Bytes::from_static(b"a") };
        assert_eq!(proposals.applied(responses), [(CLIENT, Ok(executed))]);
    }

    #[test]
    fn another_term_at_its_index_means_that_it_never_happens() {
        let mut proposals = Proposals::new();
        proposals.appended(id(2, 1), CLIENT);
        assert!(proposals.orphan(id(2, 1), Time(100)));
        let outcome = Err(ProposeFailure::Overwritten { at: id(2, 1) });
        assert_eq!(proposals.apply(&[command(1, 1), command(2, 3)]), [(CLIENT, outcome)]);
        assert_eq!(proposals.deadline(), None);
    }

    #[test]
    fn two_leaderships_may_wait_at_one_index() {
        let other = Origin::Client(RequestId(2));
        let mut proposals = Proposals::new();
        proposals.appended(id(2, 1), CLIENT);
        assert!(proposals.orphan(id(2, 1), Time(100)));
        proposals.appended(id(2, 4), other);
        let outcome = Err(ProposeFailure::Overwritten { at: id(2, 1) });
        assert_eq!(proposals.apply(&[command(1, 1), command(2, 4)]), [(CLIENT, outcome)]);
        let told = proposals.applied(vec![Bytes::new(), Bytes::new()]);
        assert_eq!(told, [(other, Ok(Executed { at: id(2, 4), response: Bytes::new() }))]);
    }

    #[test]
    fn a_deposed_leader_waits_no_longer_than_told() {
        let mut proposals = Proposals::new();
        proposals.appended(id(2, 1), CLIENT);
        assert!(proposals.orphan(id(2, 1), Time(100)));
        assert_eq!(proposals.expire(Time(99)), []);
        let outcome = Err(ProposeFailure::OutcomeUnknown { at: Some(id(2, 1)) });
        assert_eq!(proposals.expire(Time(100)), [(CLIENT, outcome)]);
        assert!(!proposals.orphan(id(2, 1), Time(200)));
    }

    #[test]
    fn a_snapshot_hides_what_happened() {
        let mut proposals = Proposals::new();
        proposals.appended(id(2, 1), CLIENT);
        proposals.appended(id(9, 1), CLIENT);
        let outcome = Err(ProposeFailure::OutcomeUnknown { at: Some(id(2, 1)) });
        assert_eq!(proposals.skip(Index(5)), [(CLIENT, outcome)]);
    }
}
