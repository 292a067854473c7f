//! The state machine with its sessions, as the driver sees it: bytes in, bytes out.

use std::any::Any;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use quorate_node::sessions::{Response, Sessions};
use quorate_raft::{Entry, LogId, Payload};
use quorate_wire::Form;

use crate::codec::Codec;
use crate::durable::{self, Batch, DurableStateMachine, Flush, LibraryRow, Restore};
use crate::error::StopReason;
use crate::machine::{Snapshot, StateMachine};
use crate::panics::message_of;

/// What can be replicated: every [`StateMachine`], and every [`DurableStateMachine`] in
/// [`Durable`]. You never implement it yourself.
pub trait Machine: sealed::Sealed + Send + Sync + 'static {
    /// What is proposed and replicated.
    type Command: Codec;
    /// What the proposer gets back.
    type Reply: Codec;
    /// What reads see.
    type Data: 'static;

    #[doc(hidden)]
    fn data(&self) -> &Self::Data;
    /// `None`: the library keeps its data durable, by snapshots.
    #[doc(hidden)]
    fn open(&mut self) -> Option<io::Result<(LogId, Sessions)>>;
    #[doc(hidden)]
    fn execute(
        &mut self,
        commands: Vec<Self::Command>,
        last: LogId,
        finish: &mut dyn FnMut(Vec<Self::Reply>) -> Vec<LibraryRow>,
    ) -> io::Result<()>;
    #[doc(hidden)]
    fn flush(&mut self) -> io::Result<Option<Flush>>;
    #[doc(hidden)]
    fn view(&self) -> io::Result<Snapshot>;
    #[doc(hidden)]
    fn replace(&mut self, at: LogId, sessions: &Sessions, reader: &mut dyn Read) -> io::Result<()>;
}

mod sealed {
    pub trait Sealed {}
    impl<S: super::StateMachine> Sealed for S {}
    impl<D: super::DurableStateMachine> Sealed for super::Durable<D> {}
}

impl<S: StateMachine> Machine for S {
    type Command = S::Command;
    type Reply = S::Reply;
    type Data = S;

    fn data(&self) -> &S {
        self
    }

    fn open(&mut self) -> Option<io::Result<(LogId, Sessions)>> {
        None
    }

    fn execute(
        &mut self,
        commands: Vec<S::Command>,
        _: LogId,
        finish: &mut dyn FnMut(Vec<S::Reply>) -> Vec<LibraryRow>,
    ) -> io::Result<()> {
        let count = commands.len();
        let replies = if count == 0 { Vec::new() } else { self.apply(commands) };
        assert_eq!(replies.len(), count, "`apply` gives one reply to each command, in order");
        finish(replies);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Option<Flush>> {
        Ok(None)
    }

    fn view(&self) -> io::Result<Snapshot> {
        Ok(self.snapshot())
    }

    fn replace(&mut self, _: LogId, _: &Sessions, reader: &mut dyn Read) -> io::Result<()> {
        self.restore(reader)
    }
}

/// Marks a [`DurableStateMachine`] as one: `Node::builder(Durable(words))`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Durable<D>(pub D);

impl<D: DurableStateMachine> Machine for Durable<D> {
    type Command = D::Command;
    type Reply = D::Reply;
    type Data = D;

    fn data(&self) -> &D {
        &self.0
    }

    fn open(&mut self) -> Option<io::Result<(LogId, Sessions)>> {
        let opened = self.0.open();
        Some(opened.and_then(|opened| Ok((opened.applied, durable::sessions_of(opened.library)?))))
    }

    fn execute(
        &mut self,
        commands: Vec<D::Command>,
        last: LogId,
        finish: &mut dyn FnMut(Vec<D::Reply>) -> Vec<LibraryRow>,
    ) -> io::Result<()> {
        let applied = self.0.apply(Batch::new(commands, last, finish))?;
        assert_eq!(applied.at(), last, "`apply` gives back what its batch's `finish` gave it");
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Option<Flush>> {
        self.0.flush().map(Some)
    }

    fn view(&self) -> io::Result<Snapshot> {
        self.0.snapshot()
    }

    fn replace(&mut self, at: LogId, sessions: &Sessions, reader: &mut dyn Read) -> io::Result<()> {
        self.0.restore(Restore { at, library: durable::all_rows(sessions), reader })
    }
}

/// A machine with its sessions, shared by whoever applies and whoever reads.
pub(crate) struct Replica<M> {
    inner: RwLock<Inner<M>>,
    /// Whether the machine keeps its data on disk by itself.
    durable: bool,
}

struct Inner<M> {
    machine: M,
    sessions: Sessions,
    applied: LogId,
}

/// A consistent view, to be written later.
pub(crate) struct View {
    pub(crate) at: LogId,
    /// The table of sessions.
    pub(crate) sessions: Vec<u8>,
    pub(crate) machine: Snapshot,
}

/// [`Replica`] without its types.
pub(crate) trait Replicated: Send + Sync {
    fn is_durable(&self) -> bool;
    fn applied(&self) -> LogId;
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Bytes>, StopReason>;
    fn flush(&self) -> Result<Option<Flush>, StopReason>;
    fn view(&self) -> Result<View, StopReason>;
    /// `reader` has what follows the table of sessions.
    fn restore(
        &self,
        at: LogId,
        sessions: Sessions,
        reader: &mut dyn Read,
    ) -> Result<(), StopReason>;
}

impl<M: Machine> Replica<M> {
    /// Opens the machine, if it keeps its data itself.
    pub(crate) fn open(mut machine: M) -> Result<Self, StopReason> {
        let opened = catch_unwind(AssertUnwindSafe(|| machine.open()));
        let opened = opened.map_err(|panic| panicked("open", &*panic))?;
        let durable = opened.is_some();
        let opened = opened.unwrap_or_else(|| Ok((LogId::ZERO, Sessions::new())));
        let (applied, sessions) = opened.map_err(failed("open"))?;
        Ok(Self { inner: RwLock::new(Inner { machine, sessions, applied }), durable })
    }

    /// Lets `look` see the data. `None` if a panic has left them in an unknown state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&M::Data) -> T) -> Option<T> {
        self.read_lock().map(|inner| look(inner.machine.data()))
    }

    fn read_lock(&self) -> Option<RwLockReadGuard<'_, Inner<M>>> {
        self.inner.read().ok()
    }

    fn write_lock(&self) -> Result<RwLockWriteGuard<'_, Inner<M>>, StopReason> {
        self.inner.write().map_err(|_| StopReason::Panicked {
            operation: "an earlier call",
            message: String::new(),
        })
    }

    /// Runs a method of the user's machine, turning a panic into a reason to stop. The lock is
    /// taken inside, so a panic poisons it, and nobody reads what is left behind.
    fn guarded<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&mut Inner<M>) -> Result<T, StopReason>,
    ) -> Result<T, StopReason> {
        let run = || {
            let mut inner = self.write_lock()?;
            call(&mut inner)
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => result,
            Err(panic) => Err(panicked(operation, &*panic)),
        }
    }
}

fn panicked(operation: &'static str, panic: &(dyn Any + Send)) -> StopReason {
    StopReason::Panicked { operation, message: message_of(panic) }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> StopReason {
    move |error| StopReason::Machine { operation, message: error.to_string() }
}

impl<M: Machine> Replicated for Replica<M> {
    fn is_durable(&self) -> bool {
        self.durable
    }

    fn applied(&self) -> LogId {
        self.read_lock().map_or(LogId::ZERO, |inner| inner.applied)
    }

    fn apply(&self, entries: &[Entry]) -> Result<Vec<Bytes>, StopReason> {
        let Some(last) = entries.last().map(Entry::log_id) else { return Ok(Vec::new()) };
        let durable = self.durable;
        self.guarded("apply", |inner| {
            let Inner { machine, sessions, applied } = inner;
            let commands = entries.iter().filter_map(|entry| match &entry.payload {
                Payload::Command(command) => Some((entry.index, command)),
                Payload::Noop | Payload::Membership(_) => None,
            });
            let undecodable = |index, why: &dyn std::fmt::Display| StopReason::Undecodable {
                index,
                message: why.to_string(),
            };
            let plan = sessions.plan(commands).map_err(|(index, why)| undecodable(index, &why))?;
            let mut decoded = Vec::with_capacity(plan.commands().len());
            for (index, command) in plan.commands() {
                let command = M::Command::decode(command);
                decoded.push(command.map_err(|why| undecodable(*index, &why))?);
            }
            let mut plan = Some(plan);
            let mut responses = Vec::new();
            let mut finish = |replies: Vec<M::Reply>| {
                if let Some(plan) = plan.take() {
                    responses = sessions.finish(plan, encode_replies(&replies));
                }
                if durable {
                    return durable::changed_rows(sessions);
                }
                sessions.drop_changes();
                Vec::new()
            };
            machine.execute(decoded, last, &mut finish).map_err(failed("apply"))?;
            *applied = last;
            Ok(responses)
        })
    }

    fn flush(&self) -> Result<Option<Flush>, StopReason> {
        self.guarded("flush", |inner| inner.machine.flush().map_err(failed("flush")))
    }

    fn view(&self) -> Result<View, StopReason> {
        self.guarded("snapshot", |inner| {
            let machine = inner.machine.view().map_err(failed("snapshot"))?;
            Ok(View { at: inner.applied, sessions: inner.sessions.to_form(), machine })
        })
    }

    fn restore(
        &self,
        at: LogId,
        sessions: Sessions,
        reader: &mut dyn Read,
    ) -> Result<(), StopReason> {
        self.guarded("restore", |inner| {
            inner.machine.replace(at, &sessions, reader).map_err(failed("restore"))?;
            inner.sessions = sessions;
            inner.applied = at;
            Ok(())
        })
    }
}

/// The bytes of replies, as [`Response::Executed`]: in one buffer that they share.
fn encode_replies<R: Codec>(replies: &[R]) -> Vec<Bytes> {
    // What most replies without content come to needs no memory.
    const EMPTY: &[u8] = &[Response::EXECUTED];
    let mut buffer = Vec::new();
    let mut ends = Vec::with_capacity(replies.len());
    for reply in replies {
        buffer.push(Response::EXECUTED);
        reply.encode(&mut buffer);
        ends.push(buffer.len());
    }
    if buffer.len() == replies.len() {
        return vec![Bytes::from_static(EMPTY); replies.len()];
    }
    let buffer = Bytes::from(buffer);
    let mut start = 0;
    ends.into_iter().map(|end| buffer.slice(std::mem::replace(&mut start, end)..end)).collect()
}
