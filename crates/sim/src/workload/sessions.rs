//! Clients with sessions: a command whose outcome is unknown is asked again under its number, until
//! it is known, and is *one* operation in the history, however often it was asked.
//!
//! So a command that takes effect twice is one that the judge of histories cannot place; and every
//! answer to a number must be the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_node::sessions::{Command, Response, SessionId};

use crate::linearizability::OpId;
use crate::marks::{Mark, Marks};
use crate::state_machine::KvCommand;

/// Answers that are remembered, to compare late ones with.
const REMEMBERED_MAX: usize = 32;

/// A client's end of its session.
#[derive(Debug, Default)]
pub(super) struct Session {
    id: Option<SessionId>,
    last_number: u64,
    doubt: Option<Doubt>,
    answers: BTreeMap<(SessionId, u64), Bytes>,
}

/// A command that was asked, and whose outcome is not known.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    number: u64,
    command: KvCommand,
    operation: OpId,
    asked: u32,
}

/// A command in a session, as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Numbered {
    session: SessionId,
    number: u64,
    /// The user's command.
    pub(super) command: KvCommand,
}

/// What an answer means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// The operation is over; this is the state machine's reply.
    Done(OpId, Bytes),
    /// Nothing new.
    Nothing,
}

impl Session {
    /// The command that opens it.
    pub(super) fn open(sessions_max: u64) -> Bytes {
        Command::Open { sessions_max: u32::try_from(sessions_max).unwrap_or(u32::MAX) }.to_bytes()
    }

    /// It was opened by the entry with that index.
    pub(super) fn opened(&mut self, index: u64, marks: &mut Marks) {
        // A second answer, to a copy, would be another session; the first one is as good.
        if self.id.is_none() {
            marks.hit(Mark::SessionOpened);
            self.id = Some(SessionId(index));
            self.last_number = 0;
        }
    }

    /// Whether there is a command to ask again.
    pub(super) const fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// What to send: the command that is in doubt, or else a new one, which `invoke` records.
    pub(super) fn ask(
        &mut self,
        command: KvCommand,
        invoke: impl FnOnce() -> OpId,
        marks: &mut Marks,
    ) -> Option<Numbered> {
        let session = self.id?;
        let last_number = &mut self.last_number;
        let doubt = self.doubt.get_or_insert_with(|| {
            *last_number += 1;
            Doubt { number: *last_number, command, operation: invoke(), asked: 0 }
        });
        if doubt.asked > 0 {
            marks.hit(Mark::SessionRetried);
        }
        doubt.asked += 1;
        Some(Numbered { session, number: doubt.number, command: doubt.command })
    }

    /// An answer from the log.
    pub(super) fn answered(
        &mut self,
        asked: Numbered,
        response: &Bytes,
        marks: &mut Marks,
    ) -> Result<Known, String> {
        let name = (asked.session, asked.number);
        let doubt = self
            .doubt
            .filter(|doubt| self.id == Some(asked.session) && doubt.number == asked.number);
        let response = Response::from_bytes(response)
            .map_err(|why| format!("the answer to {}/{} makes no sense: {why}", name.0, name.1))?;
        match (response, doubt) {
            (Response::Executed(reply), Some(doubt)) => {
                if doubt.asked > 1 {
                    marks.hit(Mark::SessionRetryAnswered);
                }
                self.doubt = None;
                self.answers.insert(name, reply.clone());
                if self.answers.len() > REMEMBERED_MAX {
                    self.answers.pop_first();
                }
                Ok(Known::Done(doubt.operation, reply))
            }
            (Response::Executed(reply), None) => match self.answers.get(&name) {
                Some(first) if *first != reply => Err(format!(
                    "command {}/{} was answered by {first:?}, and then by {reply:?}",
                    name.0, name.1
                )),
                _ => {
                    marks.hit(Mark::SessionLateAnswer);
                    Ok(Known::Nothing)
                }
            },
            // What is in doubt then stays so for ever.
            (Response::Expired, _) => {
                if self.id == Some(asked.session) {
                    marks.hit(Mark::SessionExpired);
                    (self.id, self.doubt) = (None, None);
                }
                Ok(Known::Nothing)
            }
            (Response::Acknowledged, None) => {
                marks.hit(Mark::SessionLateAnswer);
                Ok(Known::Nothing)
            }
            (response, _) => {
                Err(format!("command {}/{} was answered by {response:?}", name.0, name.1))
            }
        }
    }
}

impl Numbered {
    /// The command as it is proposed. There is one at a time, so the client knows all before it.
    pub(super) fn to_bytes(self) -> Bytes {
        let Self { session, number, command } = self;
        let command = command.to_bytes();
        Command::Numbered { session, number, acknowledged: number, command }.to_bytes()
    }
}
