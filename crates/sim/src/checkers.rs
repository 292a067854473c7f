//! The paper's properties, checked after every event.
//!
//! The checkers know what an omniscient observer knows: every step of every node, every action that
//! a host carries out, and the moment at which each write is on a disk. From that they keep a shadow
//! of each log and disk, and judge every observation against it: the five properties of Figure 3,
//! and what those rest on (one vote a term, acknowledgements that are true and durable, commitment
//! by quorums that overlap, reads that are not stale).
//!
//! Nothing here scans a log. Each rule has a form that can be kept up entry by entry; the modules
//! say why that form is equivalent. The code under test is not asked for its opinion, except for the
//! arithmetic of one majority ([`Membership::has_quorum`]).
//!
//! What is *not* judged here: whether clients' histories have an order
//! ([`linearizability`](crate::linearizability)) and whether the cluster makes progress
//! ([`run`](crate::run)).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use quorate_node::{Action, NodeMessage, Reply};
use quorate_raft::{
    Incarnation, Index, Install, Membership, NodeId, Persist, Recovered, RequestId, RoleName, Term,
};

use crate::cluster::{Brief, Observation, Observed};
use crate::marks::Marks;

mod commits;
mod configurations;
mod elections;
mod identities;
mod promises;
mod reads;
mod shadow;
mod sightings;
mod spoken;
mod violation;

pub use violation::{Property, Violation};

use commits::{Advance, Commits};
use elections::Elections;
use identities::Identities;
use promises::AllPromises;
use reads::Reads;
use shadow::{Ballot, Record, Seen, Shadow};
use sightings::Sightings;
use spoken::Truth;

/// A broken rule, before it is known when.
#[derive(Debug)]
struct Broken {
    property: Property,
    nodes: Vec<NodeId>,
    seen: String,
}

/// What a single rule says. The error is boxed because it is rare and large.
type Found = Result<(), Box<Broken>>;

fn found<const N: usize>(
    property: Property,
    nodes: [NodeId; N],
    seen: impl FnOnce() -> String,
) -> Found {
    let mut nodes = nodes.to_vec();
    nodes.dedup();
    Err(Box::new(Broken { property, nodes, seen: seen() }))
}

/// What is at some place of a log.
struct Held(Option<Term>);

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(term) => write!(f, "an entry of term {term}"),
            None => f.write_str("nothing"),
        }
    }
}

/// Where an index is in a table that starts with index 0.
fn position(index: Index) -> usize {
    usize::try_from(index.0).expect("a run is short")
}

/// All checkers of one run.
#[derive(Debug, Default)]
pub struct Checkers {
    shadows: BTreeMap<NodeId, Shadow>,
    promises: AllPromises,
    identities: Identities,
    elections: Elections,
    commits: Commits,
    reads: Reads,
    sightings: Sightings,
}

/// One step of a node and what its host did of it.
struct Step<'a> {
    node: NodeId,
    before: &'a Brief,
    after: &'a Brief,
    /// The actions carried out, and replies between them.
    actions: &'a [Observation],
    /// Whether all of them were; a crash in the middle leaves some out.
    is_whole: bool,
}

impl Step<'_> {
    fn actions(&self) -> impl Iterator<Item = &Action> {
        self.actions.iter().filter_map(|observation| match &observation.what {
            Observed::Action(action) => Some(action),
            _ => None,
        })
    }

    /// Whether the node led one term all the time.
    fn leads_throughout(&self) -> bool {
        let leads = |brief: &Brief| brief.role == RoleName::Leader;
        leads(self.before) && leads(self.after) && self.before.term == self.after.term
    }
}

impl Checkers {
    /// Checkers of a cluster that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges what happened, in the order in which it did; all that one event caused together.
    /// `step` counts the events, for reports.
    ///
    /// # Errors
    ///
    /// The first rule that is broken. What is observed after that means little.
    pub fn observe(&mut self, step: u64, observations: &[Observation]) -> Result<(), Violation> {
        let mut rest = observations;
        while let Some((first, behind)) = rest.split_first() {
            let judged;
            (judged, rest) = match &first.what {
                Observed::Stepped { before, after } => {
                    let is_part = |next: &&Observation| {
                        next.node == first.node
                            && matches!(
                                next.what,
                                Observed::Action(_)
                                    | Observed::Answered { .. }
                                    | Observed::Abandoned { .. }
                            )
                    };
                    let count = behind.iter().take_while(is_part).count();
                    let (actions, behind) = behind.split_at(count);
                    let is_whole = !behind.first().is_some_and(|next| {
                        next.node == first.node
                            && matches!(next.what, Observed::Crashed { within_step: true, .. })
                    });
                    // A node that stops keeps what it would have written to itself, too.
                    let stops = |part: &Observation| part.what == Observed::Action(Action::Stop);
                    let is_whole = is_whole && !actions.iter().any(stops);
                    let node = first.node;
                    self.sightings.at(first.at);
                    (self.stepped(&Step { node, before, after, actions, is_whole }), behind)
                }
                _ => (self.happened(first), behind),
            };
            judged.map_err(|broken| {
                let Broken { property, nodes, seen } = *broken;
                Violation { property, nodes, seen, step, time: first.at }
            })?;
        }
        Ok(())
    }

    /// A client's linearizable read goes to `node` as request `id`. To be called when the request
    /// is made.
    pub fn read_began(&mut self, node: NodeId, id: RequestId) {
        self.reads.began(node, id, self.commits.last());
    }

    /// The rare states seen so far.
    #[must_use]
    pub const fn marks(&self) -> &Marks {
        self.sightings.marks()
    }

    /// How many leaders were elected.
    #[must_use]
    pub fn elections(&self) -> usize {
        self.elections.count()
    }

    /// The last index committed anywhere.
    #[must_use]
    pub fn committed(&self) -> Index {
        self.commits.last()
    }

    /// The last committed configuration and its index; `None` before the first commit.
    #[must_use]
    pub fn committed_membership(&self) -> Option<(Index, &Arc<Membership>)> {
        self.commits.config().map(|(index, membership)| (*index, membership))
    }

    /// How many configurations were committed, the first one included.
    #[must_use]
    pub fn memberships(&self) -> usize {
        self.commits.configs()
    }

    fn happened(&mut self, observation: &Observation) -> Found {
        let node = observation.node;
        self.sightings.happened(observation, self.shadows.get(&node));
        match &observation.what {
            Observed::Started { incarnation, recovered, brief, .. } => {
                self.started(node, *incarnation, recovered, brief)
            }
            Observed::Crashed { .. } => {
                if let Some(shadow) = self.shadows.get_mut(&node) {
                    shadow.is_up = false;
                }
                Ok(())
            }
            Observed::Wiped(_) => {
                self.shadows.remove(&node);
                Ok(())
            }
            Observed::HandMade(log) => {
                let mut prev = log.start.id;
                for entry in &log.entries {
                    self.identities.take(node, prev, entry)?;
                    prev = entry.log_id();
                }
                self.commits.made_by_hand(log);
                Ok(())
            }
            Observed::Durable(seq) => {
                let Some(shadow) = self.shadows.get_mut(&node) else { return Ok(()) };
                while shadow.pending.front().is_some_and(|record| record.seq <= *seq) {
                    let record = shadow.pending.pop_front().expect("it is there");
                    written(shadow, &record, node, &mut self.promises)?;
                }
                Ok(())
            }
            Observed::Applied { entries, digest } => match entries.last() {
                Some((last, _)) => self.commits.applied(node, last.index, *digest),
                None => Ok(()),
            },
            Observed::Installed { snapshot, digest } => {
                self.commits.applied(node, snapshot.index, *digest)
            }
            _ => Ok(()),
        }
    }

    /// A process starts. Its disk must hold all that was durable, and may hold later writes, in
    /// their order.
    fn started(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        recovered: &Recovered,
        brief: &Brief,
    ) -> Found {
        let Some(shadow) = self.shadows.get_mut(&node) else {
            let shadow = Shadow::first(incarnation, recovered, brief);
            self.shadows.insert(node, shadow);
            return Ok(());
        };
        let mut later = std::mem::take(&mut shadow.pending).into_iter();
        while !shadow.disk.is_what(recovered) {
            let Some(record) = later.next() else {
                return found(Property::DiskKeepsPromises, [node], || {
                    format!(
                        "n{node} restarts with {} and a log up to index {}, which is not what its \
                         disk held, with or without later writes",
                        recovered.hard_state, recovered.last_index
                    )
                });
            };
            written(shadow, &record, node, &mut self.promises)?;
        }
        self.sightings.recovered(shadow, brief, &self.commits);
        shadow.restart(brief);
        if brief.commit_index > self.commits.last()
            || !self.commits.agrees(&shadow.log, brief.commit_index)
        {
            return found(Property::StateMachineSafety, [node], || {
                format!("n{node} restarts with commit index {}", brief.commit_index)
            });
        }
        Ok(())
    }

    fn stepped(&mut self, step: &Step<'_>) -> Found {
        let Step { node, before, after, is_whole, .. } = *step;
        let Some(shadow) = self.shadows.get_mut(&node) else { return Ok(()) };
        shadow.never_goes_back(node, after)?;
        let config_before = Arc::clone(shadow.log.config());
        self.sightings.stepped(step, shadow, &self.elections, &self.commits);

        for action in step.actions() {
            match action {
                Action::Persist(persist) => {
                    let leads = step.leads_throughout();
                    persisted(node, shadow, persist, after, leads, &mut self.identities)?;
                }
                Action::Install(install) => {
                    self.commits.snapshot(node, &install.snapshot)?;
                    installed(node, shadow, install)?;
                }
                Action::Compact(snapshot) | Action::Fetch { snapshot, .. } => {
                    self.commits.snapshot(node, snapshot)?;
                }
                _ => {}
            }
        }
        let config_after = Arc::clone(shadow.log.config());
        let configs = [&*config_before, &*config_after];

        let led = |brief: &Brief| (brief.role == RoleName::Leader).then_some(brief.term);
        let seen_leading = (shadow.seen.role == RoleName::Leader).then_some(shadow.seen.term);
        if let Some(term) = led(after).filter(|term| seen_leading != Some(*term)) {
            self.elections.elected(node, term, shadow, configs, &self.promises, &self.commits)?;
        }

        let to = after.commit_index;
        // A crash in the middle of a step may keep from the shadow what a follower appended in it; a
        // leader commits what it had before.
        let led_before = before.role == RoleName::Leader && before.term == after.term;
        if to > shadow.seen.commit_index && (is_whole || led_before) {
            // A leader advances by counting, everybody else by hearsay. One that ceased or began
            // to lead in this very step may have done either.
            let leads = if step.leads_throughout() || to > self.commits.last() {
                led(before).or(led(after))
            } else {
                None
            };
            let advance = Advance { node, leads, log: &shadow.log, to, configs };
            self.commits.advanced(&advance, &self.promises, &self.elections)?;
        }
        if is_whole {
            configurations::in_force(node, &after.membership, &shadow.log)?;
        }

        let truth = Truth {
            promises: &self.promises,
            identities: &self.identities,
            elections: &self.elections,
            commits: &self.commits,
        };
        for action in step.actions() {
            match action {
                Action::Send { message: NodeMessage::Raft(envelope), .. } => {
                    // In a step that took several inputs, a leader may have sent entries that it
                    // dropped by the end as the follower of another.
                    let is_current = is_whole && envelope.term == after.term;
                    truth.sent(shadow, to, envelope, is_current)?;
                }
                Action::Apply(entries) => {
                    truth.commits.given(node, shadow, to, entries, truth.identities)?;
                    shadow.given = entries.last().map_or(shadow.given, |last| last.index);
                }
                Action::Install(install) => shadow.given = install.snapshot.id.index,
                Action::Reply { id, reply: Reply::Read(result) } => {
                    self.reads.answered(node, *id, result.as_ref().ok().copied())?;
                }
                _ => {}
            }
        }
        shadow.seen = Seen { role: after.role, term: after.term, commit_index: to };
        Ok(())
    }
}

/// A write is on the disk of `node`.
fn written(
    shadow: &mut Shadow,
    record: &Record,
    node: NodeId,
    promises: &mut AllPromises,
) -> Found {
    let whose = (node, shadow.incarnation);
    shadow.disk.write(record, |term, last| promises.durable(whose, term, last));
    match record.ballot.voted_for {
        Some(candidate) => promises.vote(whose, record.ballot.term, candidate),
        None => Ok(()),
    }
}

/// The core hands a record to storage: its log is changed.
fn persisted(
    node: NodeId,
    shadow: &mut Shadow,
    persist: &Persist,
    after: &Brief,
    leads: bool,
    identities: &mut Identities,
) -> Found {
    shadow.ballot_changes(node, Ballot::from(&persist.hard_state))?;
    if let Some(first) = persist.append.first()
        && first.index <= shadow.log.last
    {
        identities::cut(node, &shadow.log, first, leads)?;
        shadow.log.truncate(first.index.prev());
    }
    for entry in &persist.append {
        identities.take(node, shadow.log.last_log(), entry)?;
        if after.role == RoleName::Leader {
            let commit = after.commit_index;
            configurations::appended_by_leader(node, after.term, &shadow.log, commit, entry)?;
        }
        shadow.log.append(entry);
    }
    shadow.pending.push_back(Record::persist(persist));
    Ok(())
}

/// The core has a snapshot put in the place of its log.
fn installed(node: NodeId, shadow: &mut Shadow, install: &Install) -> Found {
    let id = install.snapshot.id;
    shadow.ballot_changes(node, Ballot::from(&install.hard_state))?;
    if id.index < shadow.given {
        return found(Property::StateMachineSafety, [node], || {
            format!("n{node} goes back to snapshot {id}; it has applied up to {}", shadow.given)
        });
    }
    if shadow.log.last > id.index && shadow.log.term_at(id.index) == Some(id.term) {
        return found(Property::OnlyConflictsAreDropped, [node], || {
            format!(
                "n{node} installs snapshot {id} over its log, which holds that entry and goes up \
                 to {}",
                shadow.log.last_log()
            )
        });
    }
    shadow.log.install(&install.snapshot);
    shadow.pending.push_back(Record::install(install));
    Ok(())
}
