//! Changing who takes part.

use std::fmt;

use bytes::Bytes;
use quorate_node::Request;
use quorate_raft::{Change, ChangeError as Core, ChangeStep, LogId, NodeId, Term};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::addresses::{self, AddressError};
use crate::clock;
use crate::error::StopReason;
use crate::handle::Handle;
use crate::inbox::Refused;
use crate::replica::Machine;
use crate::replies::ReplyTo;

/// Why the membership was not changed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChangeError {
    /// The core refused, or lost sight of it: see the reason.
    Refused {
        /// Why.
        why: Core,
        /// What the change would do to the number of failures that the cluster survives.
        effect: Option<FaultTolerance>,
    },
    /// The member could not be reached there. Nothing was changed.
    Address {
        /// The member that was to have the address.
        node: NodeId,
        /// What is wrong with it.
        why: AddressError,
    },
    /// Too much is under way. Nothing was changed; retry later.
    Busy,
    /// This node does not run (any more). The change may have been made.
    Stopped(StopReason),
}

/// How many voters may fail before and after a change, and how many of those after it are known to
/// answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultTolerance {
    /// Voters before the change.
    pub voters_before: usize,
    /// Voters after it.
    pub voters_after: usize,
}

impl FaultTolerance {
    /// How many voters may fail before the change.
    #[must_use]
    pub const fn survives_before(&self) -> usize {
        self.voters_before.saturating_sub(1) / 2
    }

    /// How many voters may fail after it.
    #[must_use]
    pub const fn survives_after(&self) -> usize {
        self.voters_after.saturating_sub(1) / 2
    }
}

impl fmt::Display for FaultTolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} voters survive {} failures; {} would survive {}",
            self.voters_before,
            self.survives_before(),
            self.voters_after,
            self.survives_after()
        )
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { why, effect: Some(effect) } => write!(f, "{why} ({effect})"),
            Self::Refused { why, effect: None } => why.fmt(f),
            Self::Address { node, why } => write!(f, "member {node}: {why}"),
            Self::Busy => f.write_str("too much is under way; retry later"),
            Self::Stopped(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for ChangeError {}

/// How far a learner is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CatchUp {
    /// Up to where its log is known to be the leader's.
    pub matched: quorate_raft::Index,
    /// The last index of the leader's log.
    pub last: quorate_raft::Index,
    /// The snapshot that is being transferred to it, if any.
    pub snapshot: Option<quorate_raft::Index>,
}

impl<M: Machine> Handle<M> {
    /// Adds a member that receives the log and has no vote, at `host:port`; it is started with
    /// [`Builder::join`](crate::Builder::join). Its id was never used before. As all changes, only
    /// at the leader; answered when the change is committed.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn add_learner(&self, id: u64, address: &str) -> Result<LogId, ChangeError> {
        let (node, context) = (NodeId(id), Bytes::copy_from_slice(address.as_bytes()));
        self.change(ChangeStep::AddLearner { node, context }.into()).await
    }

    /// Adds a member that is to vote. It enters as a learner, and whichever node leads makes it a
    /// voter once it has caught up: so a member that is not running yet stalls nothing.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn add_voter(&self, id: u64, address: &str) -> Result<LogId, ChangeError> {
        let (node, context) = (NodeId(id), Bytes::copy_from_slice(address.as_bytes()));
        self.change(ChangeStep::AddVoter { node, context, replaces: None }.into()).await
    }

    /// Makes a learner a voter; refused while it lags.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn promote(&self, id: u64) -> Result<LogId, ChangeError> {
        self.change(ChangeStep::Promote { node: NodeId(id) }.into()).await
    }

    /// Removes a member, for good: do not use its id again, which nobody but you can make sure of, since
    /// the cluster remembers who is a member and not who was. The process of the removed member is not
    /// ended by this, and may go on to answer from what it knew: stop it when this has returned. It
    /// hears of its end as [`NodeEvent::Removed`](crate::NodeEvent::Removed), and knows it by
    /// [`removed`](Self::removed).
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn remove(&self, id: u64) -> Result<LogId, ChangeError> {
        self.change(ChangeStep::Remove { node: NodeId(id) }.into()).await
    }

    /// Replaces a member, one whose disk is lost for example: the new one enters as a learner, and
    /// in the same step in which it becomes a voter the old one leaves. The cluster survives at
    /// least as many failures as before at every moment.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn replace(&self, old: u64, new: u64, address: &str) -> Result<LogId, ChangeError> {
        let (node, context) = (NodeId(new), Bytes::copy_from_slice(address.as_bytes()));
        let replaces = Some(NodeId(old));
        self.change(ChangeStep::AddVoter { node, context, replaces }.into()).await
    }

    /// Any change: all steps together, by a joint configuration if it needs one (§6).
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn change(&self, change: Change) -> Result<LogId, ChangeError> {
        self.check_addresses(&change)?;
        let effect = self.effect_of(&change);
        let deadline = Instant::now() + self.limits.leader_wait;
        loop {
            let (to, answer) = oneshot::channel();
            let request = Request::Change(change.clone());
            let refused = self.shared.inbox.request(request, ReplyTo::Change(to));
            refused.map_err(|refused| match refused {
                Refused::Full => ChangeError::Busy,
                Refused::Closed => ChangeError::Stopped(self.shared.stop_reason()),
            })?;
            match answer.await {
                Ok(Ok(at)) => return Ok(at),
                Err(_) => return Err(ChangeError::Stopped(self.shared.why_unanswered().await)),
                // A new leader commits an entry of its own first, and changes follow one another.
                Ok(Err(Core::NotReady | Core::InFlight { .. })) if Instant::now() < deadline => {
                    self.pause(self.leader_changed(), deadline).await;
                }
                Ok(Err(why)) => return Err(ChangeError::Refused { why, effect }),
            }
        }
    }

    fn check_addresses(&self, change: &Change) -> Result<(), ChangeError> {
        let Some(address_of) = self.limits.dialled else { return Ok(()) };
        change.steps.iter().try_for_each(|step| match step {
            ChangeStep::AddLearner { node, context }
            | ChangeStep::AddVoter { node, context, .. }
            | ChangeStep::SetContext { node, context } => {
                let checked = addresses::check(&address_of(context));
                checked.map_err(|why| ChangeError::Address { node: *node, why })
            }
            _ => Ok(()),
        })
    }

    fn effect_of(&self, change: &Change) -> Option<FaultTolerance> {
        let membership = self.membership();
        let voters_before = membership.voters().len();
        let is_voter = |node: &NodeId| membership.voters().contains(node);
        let mut voters_after = voters_before;
        for step in &change.steps {
            match step {
                ChangeStep::AddVoter { replaces: None, .. } => voters_after += 1,
                ChangeStep::Promote { node } if !is_voter(node) => voters_after += 1,
                ChangeStep::Demote { node } | ChangeStep::Remove { node } if is_voter(node) => {
                    voters_after = voters_after.saturating_sub(1);
                }
                _ => {}
            }
        }
        let effect = FaultTolerance { voters_before, voters_after };
        (voters_before != voters_after).then_some(effect)
    }

    /// How far a member is, as the leader sees it. `None` if this node does not lead, or the member
    /// is none.
    ///
    /// # Errors
    ///
    /// When the node does not run.
    pub async fn catch_up(&self, id: u64) -> Result<Option<CatchUp>, StopReason> {
        let status = self.status().await?;
        let peer = status.peers.iter().find(|peer| peer.node == NodeId(id));
        Ok(peer.map(|peer| CatchUp {
            matched: peer.match_index,
            last: status.last_log.index,
            snapshot: peer.snapshot,
        }))
    }

    /// Makes another voter lead. Answered when it does.
    ///
    /// # Errors
    ///
    /// See [`TransferError`].
    pub async fn transfer(&self, id: u64) -> Result<Term, TransferError> {
        let (to, answer) = oneshot::channel();
        let request = Request::Transfer { to: NodeId(id) };
        let refused = self.shared.inbox.request(request, ReplyTo::Transfer(to));
        refused.map_err(|refused| match refused {
            Refused::Full => TransferError::Busy,
            Refused::Closed => TransferError::Stopped(self.shared.stop_reason()),
        })?;
        match answer.await {
            Ok(result) => result.map_err(TransferError::Refused),
            Err(_) => Err(TransferError::Stopped(self.shared.why_unanswered().await)),
        }
    }

    /// If this node leads: makes the voter lead that is furthest, and waits for it.
    pub(crate) async fn hand_over(&self) {
        for _ in 0..3 {
            let Ok(status) = self.status().await else { return };
            if status.leader != Some(self.id()) {
                return;
            }
            // One that does not answer cannot take over.
            let (now, limit) = (clock::now(), self.limits.election_timeout.as_micros());
            let lives = |contact| u128::from(now.since(contact)) < limit;
            let others = status
                .peers
                .iter()
                .filter(|peer| status.membership.is_voter(peer.node) && lives(peer.last_contact));
            // The one that answered last, of those that are equally far.
            let Some(next) = others.max_by_key(|peer| (peer.match_index, peer.last_contact)) else {
                return;
            };
            let limit = self.limits.election_timeout;
            let transfer = tokio::time::timeout(limit, self.transfer(next.node.0)).await;
            if matches!(transfer, Ok(Ok(_))) {
                return;
            }
        }
    }
}

/// Why leadership was not transferred.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TransferError {
    /// The core refused, or it did not work: see the reason.
    Refused(quorate_raft::TransferError),
    /// Too much is under way; retry later.
    Busy,
    /// This node does not run.
    Stopped(StopReason),
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => why.fmt(f),
            Self::Busy => f.write_str("too much is under way; retry later"),
            Self::Stopped(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for TransferError {}
