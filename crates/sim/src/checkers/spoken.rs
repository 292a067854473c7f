//! What servers say must be true: durable where they promise something, and about the logs that
//! they name.

use quorate_raft::{
    AppendEntries, AppendOutcome, Envelope, Index, Message, NodeId, SnapshotOutcome, Term,
};

use super::commits::Commits;
use super::elections::Elections;
use super::identities::Identities;
use super::promises::AllPromises;
use super::shadow::Shadow;
use super::violation::Property;
use super::{Found, Held, found};

/// Everything that a statement can be compared with.
pub(super) struct Truth<'a> {
    pub(super) promises: &'a AllPromises,
    pub(super) identities: &'a Identities,
    pub(super) elections: &'a Elections,
    pub(super) commits: &'a Commits,
}

impl Truth<'_> {
    /// `shadow` sends `envelope`, with commit index `commit`. If the message is not of the moment
    /// that the shadow shows (`is_current` is false), the log may lack what it is about.
    pub(super) fn sent(
        &self,
        shadow: &Shadow,
        commit: Index,
        envelope: &Envelope,
        is_current: bool,
    ) -> Found {
        let (node, term) = (envelope.from, envelope.term);
        // Nobody looks at the term of a refusal.
        let is_refusal = matches!(envelope.message, Message::Refused(_));
        if term > shadow.disk.ballot.term && !is_refusal {
            return found(Property::DurableBeforeSpoken, [node], || {
                format!(
                    "n{node} speaks of term {term}, and its disk holds only term {}: {envelope}",
                    shadow.disk.ballot.term
                )
            });
        }
        match &envelope.message {
            Message::RequestVote(_) => self.vote(shadow, envelope, node),
            Message::RequestVoteReply(reply) if reply.granted => {
                self.vote(shadow, envelope, envelope.to)
            }
            Message::AppendEntries(append) => {
                self.leads(envelope)?;
                self.committed(envelope, append.leader_commit, commit)?;
                if is_current { self.entries(shadow, envelope, append) } else { Ok(()) }
            }
            Message::Heartbeat(heartbeat) => {
                self.leads(envelope)?;
                self.committed(envelope, heartbeat.leader_commit, commit)
            }
            Message::CommitNotice(notice) => {
                self.leads(envelope)?;
                self.committed(envelope, notice.leader_commit, commit)
            }
            Message::InstallSnapshot(install) => {
                self.leads(envelope)?;
                self.commits.snapshot(node, &install.snapshot)
            }
            Message::TimeoutNow => {
                self.leads(envelope)?;
                self.hands_over(shadow, envelope)
            }
            Message::AppendEntriesReply(reply) => match reply.outcome {
                AppendOutcome::Accepted { match_index } => {
                    self.acknowledged(shadow, envelope, match_index)
                }
                AppendOutcome::Refused { .. } => Ok(()),
            },
            Message::InstallSnapshotReply(reply) => match reply.outcome {
                SnapshotOutcome::Matched { match_index } => {
                    self.acknowledged(shadow, envelope, match_index)
                }
                SnapshotOutcome::Pending | SnapshotOutcome::Failed => Ok(()),
            },
            Message::HeartbeatReply(reply) if is_current => {
                let held = shadow.log.term_at(reply.verified);
                self.equals_leaders(shadow, envelope, reply.verified, held)
            }
            _ => Ok(()),
        }
    }

    /// A candidate asks for votes, its own being the first, or a voter gives one.
    fn vote(&self, shadow: &Shadow, envelope: &Envelope, candidate: NodeId) -> Found {
        let (node, term) = (envelope.from, envelope.term);
        let given = self.promises.vote_of((node, shadow.incarnation), term);
        match given {
            Some(given) if given == candidate => Ok(()),
            Some(given) => found(Property::OneVotePerTerm, [node, given, candidate], || {
                format!("n{node} voted for n{given}, and then: {envelope}")
            }),
            None => found(Property::DurableBeforeSpoken, [node], || {
                format!("the vote is not on the disk of n{node}: {envelope}")
            }),
        }
    }

    /// Only the leader of the term speaks so.
    fn leads(&self, envelope: &Envelope) -> Found {
        let (node, term) = (envelope.from, envelope.term);
        let leader = self.elections.leader(term);
        if leader == Some(node) {
            return Ok(());
        }
        found(Property::ElectionSafety, [node], || match leader {
            Some(other) => format!("n{other} leads term {term}, and yet: {envelope}"),
            None => format!("nobody was elected in term {term}, and yet: {envelope}"),
        })
    }

    /// A leader hands over. One that its own configuration removes only says goodbye.
    fn hands_over(&self, shadow: &Shadow, envelope: &Envelope) -> Found {
        let Envelope { from: node, to, .. } = *envelope;
        let last = shadow.log.last_log();
        if !shadow.log.config().is_voter(node)
            || self.promises.has_stored(to, last.term, last.index)
        {
            return Ok(());
        }
        found(Property::CaughtUpBeforeTransfer, [node, to], || {
            format!("n{to} does not hold the log of n{node} up to {last}: {envelope}")
        })
    }

    fn committed(&self, envelope: &Envelope, said: Index, commit: Index) -> Found {
        if said <= commit {
            return Ok(());
        }
        found(Property::CommitQuorum, [envelope.from], || {
            format!("the sender's commit index is {commit}: {envelope}")
        })
    }

    /// What a leader sends is in its log (§5.3).
    fn entries(&self, shadow: &Shadow, envelope: &Envelope, append: &AppendEntries) -> Found {
        let node = envelope.from;
        let prev = append.prev_log;
        let broken =
            |what: &str| found(Property::LogMatching, [node], || format!("{what}: {envelope}"));
        let held = shadow.log.term_at(prev.index);
        if held.is_some_and(|held| held != prev.term) {
            return broken("the sender's log has another entry before them");
        }
        let mut expected = prev.index.next();
        for entry in &append.entries {
            if entry.index != expected {
                return broken("the entries have a gap");
            }
            if !self.identities.is_known(entry) {
                return broken("such an entry is in no log");
            }
            expected = expected.next();
        }
        let last = append.entries.last();
        if last.is_some_and(|last| shadow.log.term_at(last.index) != Some(last.term)) {
            return broken("the entries are not in the sender's log");
        }
        Ok(())
    }

    /// A follower tells the leader of the envelope's term that their logs are equal up to
    /// `match_index`, durably.
    fn acknowledged(&self, shadow: &Shadow, envelope: &Envelope, match_index: Index) -> Found {
        let node = envelope.from;
        let durable = &shadow.disk.log;
        if match_index > durable.last {
            return found(Property::DurableBeforeSpoken, [node], || {
                format!(
                    "the disk of n{node} holds the log up to {}: {envelope}",
                    durable.last_log()
                )
            });
        }
        self.equals_leaders(shadow, envelope, match_index, durable.term_at(match_index))
    }

    /// The sender says to the leader of the envelope's term that at `index` their logs are equal;
    /// the sender has an entry of term `held` there.
    fn equals_leaders(
        &self,
        shadow: &Shadow,
        envelope: &Envelope,
        index: Index,
        held: Option<Term>,
    ) -> Found {
        let (node, leader, term) = (envelope.from, envelope.to, envelope.term);
        if index == Index::ZERO {
            // True of any two logs; so speaks who only wants to say its term.
            return Ok(());
        }
        // What is committed is in the log of whoever leads a later term, elected yet or not.
        if held.is_some() && held == self.commits.term_at(index) {
            return Ok(());
        }
        // An index before the shadow's start is part of a snapshot, and so committed.
        let held = if index < shadow.log.base.index { self.commits.term_at(index) } else { held };
        let expected = self.elections.leaders_term_at(term, index, self.commits);
        if self.elections.leader(term) == Some(leader) && held.is_some() && held == expected {
            return Ok(());
        }
        found(Property::TrueAcknowledgement, [node, leader], || {
            format!(
                "n{node} has {} at index {index}, the leader of term {term} has {}: {envelope}",
                Held(held),
                Held(expected)
            )
        })
    }
}
