//! The four roles and the ways between them (Figure 4; thesis 9.6).
//!
//! ```text
//!             election timeout                  a quorum would vote
//!  ┌──────────┐ ──────────────► ┌───────────────┐ ──────────────► ┌───────────┐
//!  │ Follower │                 │ PreCandidate  │                 │ Candidate │──┐ timeout:
//!  └──────────┘ ◄────────────── └───────────────┘ ◄────────────── └───────────┘◄─┘ new election
//!    ▲      ▲    leader found          timeout, with pre-vote        │   │ a quorum has voted
//!    │      └─────────────── leader found, or higher term ───────────┘   ▼ and so has the own disk
//!    │                                                              ┌────────┐
//!    └─────────────── higher term, no quorum, removed ──────────────│ Leader │
//!                                                                   └────────┘
//! ```
//!
//! Without pre-vote, followers become candidates at once, and so do those told by `TimeoutNow`.

use alloc::boxed::Box;

use crate::candidate::Candidate;
use crate::error::StepDownReason;
use crate::follower::Follower;
use crate::leader::Leader;
use crate::message::ElectionCause;
use crate::pre_candidate::PreCandidate;
use crate::status::RoleName;

/// What a server has only in the role that it plays.
#[derive(Debug)]
pub(crate) enum Role {
    Follower(Follower),
    PreCandidate(PreCandidate),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

/// What a handler wants to become of the role. One function carries it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Stay what it is.
    Stay,
    /// Follow, whoever comes to lead the current term.
    Follow,
    /// Follow, having granted this term's vote: give the candidate time to win (§5.2).
    Voted,
    /// Ask whether an election could be won.
    PreCampaign,
    /// Begin an election in the next term.
    Campaign(ElectionCause),
    /// Lead the current term.
    Lead,
    /// Give up leadership.
    StepDown(StepDownReason),
}

impl Role {
    pub(crate) const fn name(&self) -> RoleName {
        match self {
            Self::Follower(_) => RoleName::Follower,
            Self::PreCandidate(_) => RoleName::PreCandidate,
            Self::Candidate(_) => RoleName::Candidate,
            Self::Leader(_) => RoleName::Leader,
        }
    }
}
