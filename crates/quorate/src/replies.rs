//! Who waits for which answer.

use quorate_node::sessions::split_responses;
use quorate_node::{Executed, ProposeFailure, ReadFailure, Reply};
use quorate_raft::{ChangeError, Index, LogId, RequestId, Term, TransferError};
use tokio::sync::oneshot;

/// Why a proposal has no reply.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Node(ProposeFailure),
    NoSpace,
}

/// Where the answer to a request goes.
pub(crate) enum ReplyTo {
    Propose(oneshot::Sender<Result<Executed, Refusal>>),
    /// Several that went into one entry, in their order.
    Together(Vec<oneshot::Sender<Result<Executed, Refusal>>>),
    /// In two steps: the place as soon as it is known, the outcome later.
    Start(oneshot::Sender<LogId>, oneshot::Sender<Result<Executed, Refusal>>),
    /// The second step of that.
    Outcome(oneshot::Sender<Result<Executed, Refusal>>),
    Read(oneshot::Sender<Result<Index, ReadFailure>>),
    Change(oneshot::Sender<Result<LogId, ChangeError>>),
    Transfer(oneshot::Sender<Result<Term, TransferError>>),
    /// Nobody wants to know.
    Nobody,
}

impl ReplyTo {
    /// How many wait for it.
    fn count(&self) -> usize {
        match self {
            Self::Together(to) => to.len(),
            _ => 1,
        }
    }

    /// There is no room on the disk: nothing was done.
    pub(crate) fn refuse_no_space(self) {
        match self {
            Self::Propose(to) | Self::Outcome(to) | Self::Start(_, to) => {
                let _ = to.send(Err(Refusal::NoSpace));
            }
            Self::Together(_)
            | Self::Read(_)
            | Self::Change(_)
            | Self::Transfer(_)
            | Self::Nobody => {}
        }
    }
}

/// A slab: requests are named by their place, and places are used again.
#[derive(Default)]
pub(crate) struct Replies {
    places: Vec<Option<ReplyTo>>,
    free: Vec<u32>,
    /// How many wait.
    waiting: usize,
}

impl Replies {
    /// How many wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Remembers who waits; returns the request's name.
    pub(crate) fn insert(&mut self, reply: ReplyTo) -> RequestId {
        self.waiting += reply.count();
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = Some(reply);
            return RequestId(u64::from(place));
        }
        self.places.push(Some(reply));
        RequestId(self.places.len() as u64 - 1)
    }

    fn remove(&mut self, id: RequestId) -> Option<ReplyTo> {
        let place = u32::try_from(id.0).ok()?;
        let reply = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        self.waiting -= reply.count();
        Some(reply)
    }

    /// Passes an answer on. Whoever does not wait any more does not get it.
    pub(crate) fn answer(&mut self, id: RequestId, reply: Reply) {
        // The end of the node is told to all who still wait, with its reason.
        if reply == Reply::Stopped {
            return;
        }
        let Some(waiting) = self.remove(id) else { return };
        match (waiting, reply) {
            (
                ReplyTo::Propose(to) | ReplyTo::Outcome(to) | ReplyTo::Start(_, to),
                Reply::Proposed(result),
            ) => {
                let _ = to.send(result.map_err(Refusal::Node));
            }
            (ReplyTo::Together(to), Reply::Proposed(result)) => share(to, result),
            (ReplyTo::Read(to), Reply::Read(result)) => {
                let _ = to.send(result);
            }
            (ReplyTo::Change(to), Reply::Changed(result)) => {
                let _ = to.send(result);
            }
            (ReplyTo::Transfer(to), Reply::Transferred(result)) => {
                let _ = to.send(result);
            }
            (ReplyTo::Nobody, _) => {}
            _ => debug_assert!(false, "every request is answered in its own kind"),
        }
    }

    /// A proposal in two steps has its place.
    pub(crate) fn appended(&mut self, id: RequestId, at: LogId) {
        let place = usize::try_from(id.0).unwrap_or(usize::MAX);
        let Some(waiting) = self.places.get_mut(place) else { return };
        *waiting = match waiting.take() {
            Some(ReplyTo::Start(appended, outcome)) => {
                let _ = appended.send(at);
                Some(ReplyTo::Outcome(outcome))
            }
            other => other,
        };
    }
}

/// Gives each of several commands of one entry its part of the response.
fn share(
    to: Vec<oneshot::Sender<Result<Executed, Refusal>>>,
    result: Result<Executed, ProposeFailure>,
) {
    match result {
        Ok(Executed { at, response }) => {
            let mut responses = split_responses(&response).into_iter().flatten();
            for to in to {
                // What cannot be read is found out where it is decoded.
                let response = responses.next().and_then(Result::ok).unwrap_or_default();
                let _ = to.send(Ok(Executed { at, response }));
            }
        }
        Err(failure) => {
            for to in to {
                let _ = to.send(Err(Refusal::Node(failure)));
            }
        }
    }
}
