//! Checkers that cannot fail prove nothing: each is shown something bad here, and must say so.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_node::{Action, NodeMessage, Reply};
use quorate_raft::{
    AppendEntriesReply, AppendOutcome, Change, ChangeStep, ClusterId, ElectionCause, Entry,
    Envelope, GroupId, HardState, Incarnation, Index, Install, LogId, Membership, Message, NodeId,
    Payload, Persist, Recovered, RequestId, RequestVote, RequestVoteReply, RoleName, Seq,
    SnapshotMeta, Term, Time,
};
use quorate_sim::checkers::{Checkers, Property, Violation};
use quorate_sim::cluster::{Brief, Observation, Observed};
use quorate_sim::run::{Plan, run};

const CLUSTER: ClusterId = ClusterId(1);

fn incarnation(node: u64) -> Incarnation {
    Incarnation(100 + node)
}

fn noop(index: u64, term: u64) -> Entry {
    Entry::new(Index(index), Term(term), Payload::Noop)
}

fn command(index: u64, term: u64, text: &'static str) -> Entry {
    Entry::new(Index(index), Term(term), Payload::Command(Bytes::from_static(text.as_bytes())))
}

/// A cluster that exists only as observations.
struct Story {
    checkers: Checkers,
    briefs: BTreeMap<u64, Brief>,
    seqs: BTreeMap<u64, u64>,
    first: Arc<Membership>,
    verdict: Result<(), Violation>,
}

impl Story {
    /// Voters 1 to `voters`, just started.
    fn of(voters: u64) -> Self {
        let first = Arc::new(Membership::of_voters((1..=voters).map(NodeId)));
        let mut story = Self {
            checkers: Checkers::new(),
            briefs: BTreeMap::new(),
            seqs: BTreeMap::new(),
            first,
            verdict: Ok(()),
        };
        for node in 1..=voters {
            story.start(node, Recovered::new(Arc::clone(&story.first), 1));
        }
        story
    }

    fn see(&mut self, node: u64, what: Vec<Observed>) -> &mut Self {
        let observe = |what| Observation { at: Time(0), node: NodeId(node), what };
        let observations: Vec<_> = what.into_iter().map(observe).collect();
        if self.verdict.is_ok() {
            self.verdict = self.checkers.observe(7, &observations);
        }
        self
    }

    fn start(&mut self, node: u64, recovered: Recovered) -> &mut Self {
        let last = recovered.last_index;
        let membership =
            recovered.memberships.last().map_or(&recovered.snapshot.membership, |m| &m.1);
        let brief = Brief {
            role: RoleName::Follower,
            term: recovered.hard_state.term,
            voted_for: recovered.hard_state.voted_for,
            leader: None,
            compacted: recovered.snapshot.id,
            last_log: LogId::new(last, recovered.terms.last().map_or(Term(0), |(_, term)| *term)),
            durable_index: last,
            commit_index: Index(0),
            applied: recovered.applied,
            membership: Arc::clone(membership),
            membership_index: Index(0),
            fetching: None,
            transfer_to: None,
        };
        self.briefs.insert(node, brief.clone());
        self.seqs.insert(node, 0);
        let incarnation = incarnation(node);
        self.see(node, vec![Observed::Started { incarnation, life: 1, recovered, brief }])
    }

    fn brief(&mut self, node: u64) -> &mut Brief {
        self.briefs.get_mut(&node).expect("the node has started")
    }

    /// A node takes a step that changes how it looks, and its host carries out the actions.
    fn step(
        &mut self,
        node: u64,
        change: impl FnOnce(&mut Brief),
        actions: Vec<Action>,
    ) -> &mut Self {
        let before = self.briefs[&node].clone();
        let mut after = before.clone();
        change(&mut after);
        self.briefs.insert(node, after.clone());
        let step = Observed::Stepped { before, after };
        let actions = actions.into_iter().map(Observed::Action);
        self.see(node, std::iter::once(step).chain(actions).collect())
    }

    fn act(&mut self, node: u64, action: Action) -> &mut Self {
        self.step(node, |_| {}, vec![action])
    }

    fn record(&mut self, node: u64, append: Vec<Entry>) -> Action {
        let seq = self.seqs.get_mut(&node).expect("the node has started");
        *seq += 1;
        let seq = Seq(*seq);
        let brief = &self.briefs[&node];
        let hard_state =
            HardState { term: brief.term, voted_for: brief.voted_for, ..HardState::default() };
        Action::Persist(Persist { seq, hard_state, append })
    }

    /// A node appends, and nothing of it is on its disk yet.
    fn append(&mut self, node: u64, entries: Vec<Entry>) -> &mut Self {
        let record = self.record(node, entries);
        self.act(node, record)
    }

    /// All that a node has written is on its disk.
    fn sync(&mut self, node: u64) -> &mut Self {
        let seq = Seq(self.seqs[&node]);
        self.see(node, vec![Observed::Durable(seq)])
    }

    fn store(&mut self, node: u64, entries: Vec<Entry>) -> &mut Self {
        self.append(node, entries).sync(node)
    }

    /// Sees a term, and votes in it perhaps.
    fn ballot(&mut self, node: u64, term: u64, voted_for: Option<u64>) -> &mut Self {
        let brief = self.brief(node);
        (brief.term, brief.voted_for) = (Term(term), voted_for.map(NodeId));
        self.store(node, Vec::new())
    }

    fn send(&mut self, from: u64, to: u64, message: Message) -> &mut Self {
        let envelope = Envelope {
            cluster: CLUSTER,
            group: GroupId(0),
            from: NodeId(from),
            incarnation: incarnation(from),
            to: NodeId(to),
            term: self.briefs[&from].term,
            message,
        };
        self.act(from, Action::Send { to: NodeId(to), message: NodeMessage::Raft(envelope) })
    }

    fn acknowledge(&mut self, from: u64, to: u64, match_index: u64) -> &mut Self {
        let outcome = AppendOutcome::Accepted { match_index: Index(match_index) };
        let reply = AppendEntriesReply { outcome, round: 0, extension: Bytes::new() };
        self.send(from, to, Message::AppendEntriesReply(reply))
    }

    fn lead(&mut self, node: u64) -> &mut Self {
        self.step(node, |brief| brief.role = RoleName::Leader, Vec::new())
    }

    /// `node` is elected by the votes of `voters`, itself among them.
    fn elect(&mut self, node: u64, term: u64, voters: &[u64]) -> &mut Self {
        for voter in voters {
            self.ballot(*voter, term, Some(node));
        }
        self.lead(node)
    }

    fn commit(&mut self, node: u64, index: u64) -> &mut Self {
        self.step(node, |brief| brief.commit_index = Index(index), Vec::new())
    }

    fn apply(&mut self, node: u64, entries: Vec<Entry>) -> &mut Self {
        self.act(node, Action::Apply(entries))
    }

    /// A leader of term 1 has committed a no-op on nodes 1 and 2 of 3.
    fn with_one_commit() -> Self {
        let mut story = Self::of(3);
        story
            .elect(1, 1, &[1, 2])
            .store(1, vec![noop(1, 1)])
            .store(2, vec![noop(1, 1)])
            .commit(1, 1);
        story
    }

    fn member(&mut self, node: u64, membership: &Membership, index: u64, term: u64) -> &mut Self {
        let membership = Arc::new(membership.clone());
        let payload = Payload::Membership(Arc::clone(&membership));
        let record = self.record(node, vec![Entry::new(Index(index), Term(term), payload)]);
        self.step(node, |brief| brief.membership = membership, vec![record])
    }

    #[track_caller]
    fn is_good(&self) {
        assert_eq!(self.verdict, Ok(()));
    }

    #[track_caller]
    fn breaks(&self, property: Property) {
        let violation = self.verdict.clone().expect_err("the checker must object");
        assert_eq!(violation.property, property, "{violation}");
        assert_eq!(violation.step, 7);
    }
}

#[test]
fn a_good_story_breaks_nothing() {
    let mut story = Story::with_one_commit();
    story.acknowledge(2, 1, 1).commit(2, 1).apply(1, vec![noop(1, 1)]).apply(2, vec![noop(1, 1)]);
    story.elect(2, 2, &[2, 3]).store(2, vec![noop(2, 2)]).store(3, vec![noop(1, 1), noop(2, 2)]);
    story.acknowledge(3, 2, 2).commit(2, 2);
    story.is_good();
}

#[test]
fn two_leaders_in_a_term() {
    let mut story = Story::of(3);
    story.elect(1, 1, &[1, 2]).is_good();
    story.elect(3, 1, &[3]).breaks(Property::ElectionSafety);
}

#[test]
fn a_term_led_again_after_a_restart() {
    let mut story = Story::of(3);
    story.elect(1, 1, &[1, 2]);
    let mut recovered = Recovered::new(Arc::clone(&story.first), 2);
    (recovered.hard_state.term, recovered.hard_state.voted_for) = (Term(1), Some(NodeId(1)));
    story.start(1, recovered).lead(1).breaks(Property::ElectionSafety);
}

#[test]
fn a_leader_speaks_that_was_not_elected() {
    let mut story = Story::of(3);
    story.ballot(1, 1, None).send(1, 2, Message::TimeoutNow).breaks(Property::ElectionSafety);
}

#[test]
fn a_leader_without_a_quorum_of_votes() {
    Story::of(3).elect(1, 1, &[1]).breaks(Property::ElectionQuorum);
    Story::of(5).elect(1, 1, &[1, 2]).breaks(Property::ElectionQuorum);
    Story::of(5).elect(1, 1, &[1, 2, 5]).is_good();
}

#[test]
fn a_leader_whose_own_disk_does_not_know() {
    let mut story = Story::of(3);
    story.ballot(2, 1, Some(1)).ballot(3, 1, Some(1));
    story.brief(1).term = Term(1);
    story.lead(1).breaks(Property::DurableBeforeSpoken);
}

#[test]
fn a_vote_for_two() {
    let mut story = Story::of(3);
    story.ballot(1, 4, Some(2)).ballot(1, 4, Some(3)).breaks(Property::OneVotePerTerm);
}

#[test]
fn a_vote_forgotten_in_a_restart() {
    let mut story = Story::of(3);
    story.ballot(1, 4, Some(2));
    let mut recovered = Recovered::new(Arc::clone(&story.first), 2);
    recovered.hard_state.term = Term(4);
    story.start(1, recovered).breaks(Property::DiskKeepsPromises);
}

#[test]
fn a_vote_spoken_before_it_is_durable() {
    let mut story = Story::of(3);
    story.ballot(1, 4, None);
    story.brief(1).voted_for = Some(NodeId(2));
    let granted = Message::RequestVoteReply(RequestVoteReply { granted: true });
    story.append(1, Vec::new()).send(1, 2, granted).breaks(Property::DurableBeforeSpoken);
}

#[test]
fn a_candidacy_before_the_vote_for_oneself_is_durable() {
    let mut story = Story::of(3);
    story.ballot(1, 4, None);
    let request = RequestVote { last_log: LogId::ZERO, cause: ElectionCause::Timeout };
    let request = Message::RequestVote(request);
    story.send(1, 2, request).breaks(Property::DurableBeforeSpoken);
}

#[test]
fn a_vote_spoken_for_another_than_the_one_on_disk() {
    let mut story = Story::of(3);
    let granted = Message::RequestVoteReply(RequestVoteReply { granted: true });
    story.ballot(1, 4, Some(2)).send(1, 3, granted).breaks(Property::OneVotePerTerm);
}

#[test]
fn a_term_spoken_before_it_is_durable() {
    let mut story = Story::of(3);
    story.brief(1).term = Term(3);
    let refused = Message::RequestVoteReply(RequestVoteReply { granted: false });
    story.send(1, 2, refused).breaks(Property::DurableBeforeSpoken);
}

#[test]
fn a_leader_that_drops_entries() {
    let mut story = Story::of(3);
    story.elect(1, 1, &[1, 2]).store(1, vec![noop(1, 1), command(2, 1, "a")]);
    story.append(1, vec![command(2, 1, "b")]).breaks(Property::LeaderAppendOnly);
}

#[test]
fn a_follower_that_drops_what_does_not_conflict() {
    let mut story = Story::of(3);
    story.ballot(2, 1, None).store(2, vec![noop(1, 1), command(2, 1, "a")]);
    story.append(2, vec![noop(1, 1)]).breaks(Property::OnlyConflictsAreDropped);
}

#[test]
fn a_follower_that_drops_what_conflicts_is_right() {
    let mut story = Story::of(3);
    story.ballot(2, 1, None).store(2, vec![noop(1, 1), command(2, 1, "a")]);
    story.ballot(2, 2, None).append(2, vec![noop(2, 2)]).is_good();
}

#[test]
fn one_name_for_two_entries() {
    let mut story = Story::of(3);
    story.ballot(1, 1, None).ballot(2, 1, None).store(1, vec![command(1, 1, "a")]);
    story.append(2, vec![command(1, 1, "b")]).breaks(Property::LogMatching);
}

#[test]
fn one_entry_behind_two_others() {
    let mut story = Story::of(3);
    story.ballot(1, 3, None).ballot(2, 3, None).store(1, vec![noop(1, 1), noop(2, 3)]);
    story.append(2, vec![noop(1, 2), noop(2, 3)]).breaks(Property::LogMatching);
}

#[test]
fn a_gap_and_a_term_that_decreases() {
    let mut story = Story::of(3);
    story.ballot(1, 3, None).append(1, vec![noop(2, 1)]).breaks(Property::LogMatching);
    let mut story = Story::of(3);
    story.ballot(1, 3, None).append(1, vec![noop(1, 3), noop(2, 2)]).breaks(Property::LogMatching);
}

#[test]
fn a_leader_without_what_was_committed() {
    let mut story = Story::with_one_commit();
    story.ballot(2, 2, Some(3)).ballot(3, 2, Some(3));
    story.lead(3).breaks(Property::LeaderCompleteness);
}

#[test]
fn a_commit_that_a_later_leader_does_not_have() {
    // Node 2 acknowledges to the leader of term 1 after it voted in term 2.
    let mut story = Story::of(3);
    story.elect(1, 1, &[1, 2]).store(1, vec![noop(1, 1)]).elect(3, 2, &[2, 3]);
    story.store(2, vec![noop(1, 1)]).commit(1, 1).breaks(Property::LeaderCompleteness);
}

#[test]
fn a_commit_that_is_not_on_enough_disks() {
    let mut story = Story::of(3);
    story.elect(1, 1, &[1, 2]).store(1, vec![noop(1, 1)]).append(2, vec![noop(1, 1)]);
    story.commit(1, 1).breaks(Property::CommitQuorum);
}

/// Figure 8 (c): the entry of term 2 is on a majority, and counting that does not commit it.
#[test]
fn a_commit_of_an_earlier_terms_entry_by_counting() {
    let mut story = Story::of(5);
    story.elect(1, 2, &[1, 2, 3]).store(1, vec![noop(1, 2)]).store(2, vec![noop(1, 2)]);
    story.elect(5, 3, &[3, 4, 5]).store(5, vec![noop(1, 3)]);
    for node in 1..=4 {
        story.brief(node).role = RoleName::Follower;
    }
    story.elect(1, 4, &[1, 2, 3]).store(1, vec![noop(2, 4)]).store(3, vec![noop(1, 2)]).is_good();
    story.commit(1, 1).breaks(Property::CommitQuorum);
}

#[test]
fn a_follower_that_commits_before_any_leader() {
    let mut story = Story::of(3);
    story.elect(1, 1, &[1, 2]).store(2, vec![noop(1, 1)]);
    story.commit(2, 1).breaks(Property::CommitQuorum);
}

#[test]
fn a_leader_that_tells_of_a_commit_it_does_not_know() {
    let mut story = Story::with_one_commit();
    let notice = quorate_raft::CommitNotice { leader_commit: Index(2) };
    story.send(1, 2, Message::CommitNotice(notice)).breaks(Property::CommitQuorum);
}

#[test]
fn a_follower_that_commits_another_entry() {
    let mut story = Story::with_one_commit();
    story.ballot(3, 2, None).store(3, vec![noop(1, 2)]);
    story.commit(3, 1).breaks(Property::StateMachineSafety);
}

#[test]
fn a_commit_index_beyond_the_log() {
    let mut story = Story::with_one_commit();
    story.commit(3, 1).breaks(Property::StateMachineSafety);
}

#[test]
fn a_commit_index_and_a_term_that_go_back() {
    let mut story = Story::with_one_commit();
    story.commit(1, 0).breaks(Property::NoGoingBack);
    let mut story = Story::of(3);
    story.ballot(1, 4, None).step(1, |brief| brief.term = Term(3), Vec::new());
    story.breaks(Property::NoGoingBack);
}

#[test]
fn an_acknowledgement_beyond_the_disk() {
    let mut story = Story::of(3);
    story.elect(1, 1, &[1, 2]).store(1, vec![noop(1, 1)]).append(2, vec![noop(1, 1)]);
    story.acknowledge(2, 1, 1).breaks(Property::DurableBeforeSpoken);
}

#[test]
fn an_acknowledgement_of_something_else() {
    let mut story = Story::of(3);
    story.ballot(3, 1, None).store(3, vec![noop(1, 1)]);
    story.elect(1, 2, &[1, 2]).store(1, vec![noop(1, 2)]).ballot(3, 2, None);
    story.acknowledge(3, 1, 1).breaks(Property::TrueAcknowledgement);
}

#[test]
fn applied_before_it_is_committed() {
    let mut story = Story::with_one_commit();
    story.apply(2, vec![noop(1, 1)]).breaks(Property::AppliedIsDurable);
}

#[test]
fn applied_before_it_is_durable() {
    let mut story = Story::with_one_commit();
    story.ballot(3, 1, None).append(3, vec![noop(1, 1)]).commit(3, 1).is_good();
    story.apply(3, vec![noop(1, 1)]).breaks(Property::AppliedIsDurable);
}

#[test]
fn applied_out_of_order_and_twice() {
    let mut story = Story::with_one_commit();
    story.apply(1, vec![noop(2, 1)]).breaks(Property::AppliedIsDurable);
    let mut story = Story::with_one_commit();
    story.apply(1, vec![noop(1, 1)]).is_good();
    story.apply(1, vec![noop(1, 1)]).breaks(Property::AppliedIsDurable);
}

#[test]
fn applied_what_was_not_committed_there() {
    let mut story = Story::with_one_commit();
    story.apply(1, vec![command(1, 1, "x")]).breaks(Property::StateMachineSafety);
}

#[test]
fn state_machines_that_differ() {
    let mut story = Story::with_one_commit();
    let applied =
        |digest| Observed::Applied { entries: vec![(LogId::new(Index(1), Term(1)), 0)], digest };
    story.see(1, vec![applied(5)]).see(2, vec![applied(6)]).breaks(Property::StateMachineSafety);
}

fn snapshot(index: u64, term: u64, membership: &Arc<Membership>) -> SnapshotMeta {
    SnapshotMeta { id: LogId::new(Index(index), Term(term)), membership: Arc::clone(membership) }
}

#[test]
fn a_snapshot_of_what_is_not_committed() {
    let mut story = Story::with_one_commit();
    let first = Arc::clone(&story.first);
    story.act(1, Action::Compact(snapshot(1, 1, &first))).is_good();
    story.act(1, Action::Compact(snapshot(2, 1, &first))).breaks(Property::SnapshotIsCommitted);
}

#[test]
fn a_snapshot_with_the_wrong_configuration() {
    let mut story = Story::with_one_commit();
    let other = Arc::new(Membership::of_voters([NodeId(1)]));
    story.act(1, Action::Compact(snapshot(1, 1, &other))).breaks(Property::SnapshotIsCommitted);
}

#[test]
fn a_snapshot_that_drops_what_it_need_not() {
    let mut story = Story::with_one_commit();
    story.store(2, vec![command(2, 1, "a")]);
    let install = Install {
        seq: Seq(99),
        snapshot: snapshot(1, 1, &story.first),
        hard_state: HardState { term: Term(1), voted_for: Some(NodeId(1)), ..HardState::default() },
    };
    story.act(2, Action::Install(install)).breaks(Property::OnlyConflictsAreDropped);
}

#[test]
fn a_change_before_the_leaders_first_commit() {
    let mut story = Story::of(3);
    let next = Membership::of_voters([NodeId(1), NodeId(2)]);
    story.elect(1, 1, &[1, 2]).store(1, vec![noop(1, 1)]);
    story.member(1, &next, 2, 1).breaks(Property::ConfigurationSafety);
}

#[test]
fn two_changes_at_a_time() {
    let mut story = Story::with_one_commit();
    story.member(1, &Membership::of_voters([NodeId(1), NodeId(2)]), 2, 1).is_good();
    let next = Membership::of_voters([NodeId(1)]);
    story.member(1, &next, 3, 1).breaks(Property::ConfigurationSafety);
}

#[test]
fn a_change_of_two_voters_in_one_step() {
    let mut story = Story::with_one_commit();
    let next = Membership::of_voters((1..=5).map(NodeId));
    story.member(1, &next, 2, 1).breaks(Property::ConfigurationSafety);
}

#[test]
fn a_joint_change_counted_by_one_majority() {
    // From 1 2 3 to 3 4 5. Node 1 leads, and counts 3 4 5 but not the old majority.
    let mut story = Story::with_one_commit();
    let steps = [
        ChangeStep::AddLearner { node: NodeId(4), context: Bytes::new() },
        ChangeStep::AddLearner { node: NodeId(5), context: Bytes::new() },
    ];
    let with_learners = story.first.changed(&steps.into_iter().collect::<Change>()).unwrap();
    story.member(1, &with_learners, 2, 1).is_good();
    let steps = [
        ChangeStep::Promote { node: NodeId(4) },
        ChangeStep::Promote { node: NodeId(5) },
        ChangeStep::Remove { node: NodeId(1) },
        ChangeStep::Remove { node: NodeId(2) },
    ];
    let joint = with_learners.changed(&steps.into_iter().collect::<Change>()).unwrap();
    story.member(1, &joint, 3, 1).sync(1).is_good();
    let entries: Vec<Entry> = [&with_learners, &joint]
        .into_iter()
        .zip(2..)
        .map(|(membership, index)| {
            let payload = Payload::Membership(Arc::new(membership.clone()));
            Entry::new(Index(index), Term(1), payload)
        })
        .collect();
    for node in [4, 5] {
        story.start(node, Recovered::new(Arc::new(Membership::default()), 1));
        story.ballot(node, 1, None);
        story.brief(node).membership = Arc::new(joint.clone());
        let all = [vec![noop(1, 1)], entries.clone()].concat();
        story.store(node, all);
    }
    story.is_good();
    // On the disks of 1, 4 and 5: two of the new voters, and only one of the old.
    story.commit(1, 3).breaks(Property::CommitQuorum);
}

#[test]
fn a_configuration_that_is_not_rolled_back() {
    let mut story = Story::of(3);
    story.ballot(2, 1, None);
    story.member(2, &Membership::of_voters([NodeId(1), NodeId(2)]), 1, 1).is_good();
    story.ballot(2, 2, None).append(2, vec![noop(1, 2)]).breaks(Property::ConfigurationInForce);
}

#[test]
fn a_restart_that_lost_durable_entries() {
    let mut story = Story::of(3);
    story.ballot(1, 1, None).store(1, vec![noop(1, 1)]);
    let mut recovered = Recovered::new(Arc::clone(&story.first), 2);
    recovered.hard_state.term = Term(1);
    story.start(1, recovered).breaks(Property::DiskKeepsPromises);
}

#[test]
fn a_restart_that_kept_cached_entries_is_right() {
    let mut story = Story::of(3);
    story.ballot(1, 1, None).append(1, vec![noop(1, 1)]);
    let mut recovered = Recovered::new(Arc::clone(&story.first), 2);
    recovered.hard_state.term = Term(1);
    (recovered.terms, recovered.last_index) = (vec![(Index(1), Term(1))], Index(1));
    story.start(1, recovered).is_good();
}

#[test]
fn a_transfer_to_one_that_lags() {
    let mut story = Story::with_one_commit();
    story.send(1, 2, Message::TimeoutNow).is_good();
    story.send(1, 3, Message::TimeoutNow).breaks(Property::CaughtUpBeforeTransfer);
}

#[test]
fn a_stale_read() {
    let read = |index| Action::Reply { id: RequestId(1), reply: Reply::Read(Ok(Index(index))) };
    let mut story = Story::with_one_commit();
    story.checkers.read_began(NodeId(1), RequestId(1));
    story.act(1, read(1)).is_good();
    story.checkers.read_began(NodeId(3), RequestId(1));
    story.act(3, read(0)).breaks(Property::FreshRead);
}

/// Messages that take longer than an election time-out: nobody can be elected.
#[test]
fn a_cluster_that_does_not_recover() {
    let mut plan = Plan { steps: 200, ..Plan::of_seed(1) };
    plan.options = "voters=3,delay_min_us=9000000,delay_max_us=9000000".parse().unwrap();
    let violation = run(&plan).violation.unwrap();
    assert_eq!(violation.property, Property::Liveness, "{violation}");
}
