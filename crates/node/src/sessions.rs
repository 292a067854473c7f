//! Exactly-once commands (thesis 6.3).
//!
//! A client that does not hear what became of a command must ask again, and the command must not
//! take effect twice. So the client opens a *session* through the log, numbers its commands, and
//! every replica remembers, as part of the replicated state, which numbers it has executed and what
//! it answered. A repeated command gets the answer of the first one.
//!
//! ```text
//!  client                          log                         every replica
//!  open            ──►  7: Open                       session 7 exists
//!  command 1       ──►  8: 7/1 "add 5"                executes, keeps the reply "5"
//!  (no answer)
//!  command 1 again ──►  9: 7/1 "add 5"                executes nothing, answers "5"
//!  command 2       ──► 10: 7/2 "add 1", 1 is acknowledged   forgets the reply "5"
//! ```
//!
//! What bounds the table:
//!
//! * A reply is kept until a later command of the session says that its client has it. A session
//!   has at most [`REPLIES_MAX`] replies that are not acknowledged; beyond that its commands are
//!   refused, and not executed.
//! * There are at most so many sessions as the command that opens one says. If there are more, the
//!   one whose last command stands first in the log is forgotten. The log alone decides that, no
//!   clock, so all replicas forget the same session at the same place.
//!
//! A command of a session that is not known (any more) is refused as [`Response::Expired`] and
//! never executed: opening a new session in its name could execute a command a second time.
//!
//! How commands are cut into batches changes nothing: the outcome is that of one after another.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use quorate_raft::Index;
use quorate_wire::{Form, Reader, WireError};

/// Most replies that are kept for one session; more commands than that may not be under way in it.
pub const REPLIES_MAX: usize = 1024;

/// Most sessions, whatever the command that opens one says.
pub const SESSIONS_MAX: u32 = 1 << 20;

/// Names a session: the index of the entry that opened it. Never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// What the command of an entry says: the user's own command, alone or in a session, or something
/// about sessions.
///
/// ```text
/// 0 | command                                               plain
/// 1 | most sessions u32                                     open a session
/// 2 | session u64 | number u64 | acknowledged u64 | command in a session
/// 3 | session u64                                           close a session
/// 4 | per command: length u32, command                      several in one entry
/// ```
///
/// Several commands that arrive at the same time go into one entry ([`Together`]): what an entry
/// costs in log, network and memory, they share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A command without a session: executed as often as it is in the log.
    Plain(Bytes),
    /// Opens a session.
    Open {
        /// How many sessions there may be then; if there are more, the least recently used ends.
        sessions_max: u32,
    },
    /// A command in a session: executed once.
    Numbered {
        /// The session.
        session: SessionId,
        /// The command's number in it, from 1 on.
        number: u64,
        /// The client has the replies to all commands with lower numbers than this.
        acknowledged: u64,
        /// The user's command.
        command: Bytes,
    },
    /// Ends a session.
    Close {
        /// The session.
        session: SessionId,
    },
}

const PLAIN: u8 = 0;
const OPEN: u8 = 1;
const NUMBERED: u8 = 2;
const CLOSE: u8 = 3;
const TOGETHER: u8 = 4;

/// Puts several commands into one entry. Each is a [`Command::Plain`] or [`Command::Numbered`].
///
/// They are executed in their order, one after another, as if each had an entry of its own; only
/// their index is the same. The response to the entry is read by [`split_responses`].
#[derive(Clone, Debug, Default)]
pub struct Together {
    bytes: Vec<u8>,
    count: usize,
}

impl Together {
    /// No commands.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), count: 0 }
    }

    /// Adds the bytes of a command.
    pub fn push(&mut self, command: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.push(TOGETHER);
        }
        put_count(command.len(), &mut self.bytes);
        self.bytes.extend_from_slice(command);
        self.count += 1;
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bytes they take.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of the entry. Nothing is left behind but memory.
    pub fn take(&mut self) -> Bytes {
        let bytes = Bytes::copy_from_slice(&self.bytes);
        self.bytes.clear();
        self.count = 0;
        bytes
    }
}

/// The responses to the commands of an entry that was made by [`Together`], in their order.
///
/// # Errors
///
/// When the bytes are no such response.
pub fn split_responses(
    response: &Bytes,
) -> Result<impl Iterator<Item = Result<Bytes, WireError>> + '_, WireError> {
    match response.first() {
        Some(&RESPONSES) => {}
        Some(_) => return Err(WireError::Value { what: "response to several commands" }),
        None => return Err(WireError::Truncated),
    }
    let mut reader = Reader::shared(response);
    let _kind: [u8; 1] = reader.array()?;
    Ok(std::iter::from_fn(move || (reader.remaining() > 0).then(|| Bytes::take(&mut reader))))
}

/// What the response to an entry of [`Together`] begins with; per command, length and response
/// follow.
const RESPONSES: u8 = 6;

impl Command {
    /// The bytes before the user's command, if there is one; else all bytes. To be filled up by
    /// whoever writes the user's command.
    pub fn put_head(&self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(_) => out.push(PLAIN),
            Self::Open { sessions_max } => {
                out.push(OPEN);
                sessions_max.put(out);
            }
            Self::Numbered { session, number, acknowledged, .. } => {
                out.push(NUMBERED);
                session.0.put(out);
                number.put(out);
                acknowledged.put(out);
            }
            Self::Close { session } => {
                out.push(CLOSE);
                session.0.put(out);
            }
        }
    }

    /// All bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.put_head(&mut out);
        if let Self::Plain(command) | Self::Numbered { command, .. } = self {
            out.extend_from_slice(command);
        }
        out.into()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; the user's command shares the memory.
    ///
    /// # Errors
    ///
    /// When the bytes are no command.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::shared(bytes);
        match u8::take(&mut reader)? {
            PLAIN => Ok(Self::Plain(bytes.slice(1..))),
            OPEN => {
                let sessions_max = u32::take(&mut reader)?;
                reader.finish()?;
                Ok(Self::Open { sessions_max })
            }
            NUMBERED => Self::take_numbered(&mut reader),
            CLOSE => {
                let session = SessionId(u64::take(&mut reader)?);
                reader.finish()?;
                Ok(Self::Close { session })
            }
            _ => Err(WireError::Value { what: "kind of command" }),
        }
    }

    /// The commands of an entry, one or several.
    ///
    /// # Errors
    ///
    /// When the bytes are no commands.
    pub fn all_from_bytes(bytes: &Bytes) -> Result<Vec<Self>, WireError> {
        if bytes.first() != Some(&TOGETHER) {
            return Self::from_bytes(bytes).map(|command| vec![command]);
        }
        let mut reader = Reader::shared(bytes);
        let _kind: [u8; 1] = reader.array()?;
        let mut commands = Vec::new();
        while reader.remaining() > 0 {
            let command = Bytes::take(&mut reader)?;
            if !Self::may_share(&command) {
                return Err(WireError::Value { what: "kind of command among several" });
            }
            commands.push(Self::from_bytes(&command)?);
        }
        Ok(commands)
    }

    fn take_numbered(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self::Numbered {
            session: SessionId(u64::take(reader)?),
            number: u64::take(reader)?,
            acknowledged: u64::take(reader)?,
            command: {
                let rest = reader.remaining();
                reader.bytes(rest)?
            },
        })
    }

    /// Whether the command with these bytes may go into one entry with others.
    #[must_use]
    pub fn may_share(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(&(PLAIN | NUMBERED)))
    }
}

/// What became of a [`Command`], identical on every replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// It was executed, now or, if it was numbered, perhaps earlier. This is what the state machine
    /// said.
    Executed(Bytes),
    /// The session is open. Its name is the index of the entry.
    Opened,
    /// The session is closed, or was not known.
    Closed,
    /// The session is not known (any more). Nothing was executed now; an earlier copy of the command
    /// may have been.
    Expired,
    /// The client has acknowledged the reply to that number. Nothing was executed now.
    Acknowledged,
    /// The session has [`REPLIES_MAX`] replies that are not acknowledged. Nothing was executed.
    TooMany,
}

impl Response {
    /// What the bytes of an executed command's response begin with; the state machine's reply
    /// follows.
    pub const EXECUTED: u8 = 0;

    /// The bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Executed(reply) => {
                let mut out = Vec::with_capacity(1 + reply.len());
                out.push(Self::EXECUTED);
                out.extend_from_slice(reply);
                out.into()
            }
            Self::Opened => Bytes::from_static(&[1]),
            Self::Closed => Bytes::from_static(&[2]),
            Self::Expired => Bytes::from_static(&[3]),
            Self::Acknowledged => Bytes::from_static(&[4]),
            Self::TooMany => Bytes::from_static(&[5]),
        }
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; the reply shares the memory.
    ///
    /// # Errors
    ///
    /// When the bytes are no response.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, WireError> {
        match (bytes.first(), bytes.len()) {
            (None, _) => Err(WireError::Truncated),
            (Some(&Self::EXECUTED), _) => Ok(Self::Executed(bytes.slice(1..))),
            (Some(1), 1) => Ok(Self::Opened),
            (Some(2), 1) => Ok(Self::Closed),
            (Some(3), 1) => Ok(Self::Expired),
            (Some(4), 1) => Ok(Self::Acknowledged),
            (Some(5), 1) => Ok(Self::TooMany),
            (Some(1..=5), _) => Err(WireError::Trailing),
            (Some(_), _) => Err(WireError::Value { what: "response" }),
        }
    }
}

/// What a batch of commands comes to: what the state machine is to execute, and how the rest is
/// answered. Made by [`Sessions::plan`], ended by [`Sessions::finish`].
///
/// The commands of an entry of [`Together`] are planned one by one.
#[derive(Debug, Default)]
#[must_use = "the state machine executes the commands, then `finish` answers all"]
pub struct Plan {
    execute: Vec<(Index, Bytes)>,
    outcomes: Vec<Outcome>,
    /// How many of the outcomes belong to each entry that has several: its place among the entries,
    /// and their number.
    together: Vec<(usize, usize)>,
    entries: usize,
    /// Where the last command of a session was.
    last: Moment,
    /// Numbered commands among those to execute: the place in `execute`, and whose it is.
    numbered: Vec<(usize, SessionId, u64)>,
}

impl Plan {
    /// The user's commands to execute, in order, each with the index of its entry.
    #[must_use]
    pub fn commands(&self) -> &[(Index, Bytes)] {
        &self.execute
    }

    /// The same, taken out.
    #[must_use]
    pub fn take_commands(&mut self) -> Vec<(Index, Bytes)> {
        std::mem::take(&mut self.execute)
    }
}

#[derive(Debug)]
enum Outcome {
    /// The response of the command at that place in `Plan::execute`.
    Executes(usize),
    Known(Bytes),
}

/// The table of sessions: replicated state, the same on every replica after the same entries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    /// By the entry that used them last, so the first is the least recently used.
    by_use: BTreeMap<Moment, SessionId>,
    /// What was changed (`true`) or ended since the last [`take_changes`](Self::take_changes).
    changes: BTreeMap<SessionId, bool>,
}

/// The place of a command: its entry, and which of the commands in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
struct Moment(Index, u32);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Session {
    last_used: Moment,
    /// Replies to lower numbers are not needed any more.
    acknowledged: u64,
    replies: BTreeMap<u64, Kept>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Kept {
    /// Between `plan` and `finish`: the place in `Plan::execute`.
    Executing(usize),
    /// The bytes of the response.
    Response(Bytes),
}

impl Sessions {
    /// No sessions.
    #[must_use]
    pub const fn new() -> Self {
        Self { by_id: BTreeMap::new(), by_use: BTreeMap::new(), changes: BTreeMap::new() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Decides what the commands of committed entries, in the order of the log, come to.
    ///
    /// # Errors
    ///
    /// The entry at that index means nothing to this software: newer software has proposed it, or
    /// something that does not belong to this library. Members that understand it may execute it,
    /// so this one must not go on without it.
    pub fn plan<'a>(
        &mut self,
        commands: impl IntoIterator<Item = (Index, &'a Bytes)>,
    ) -> Result<Plan, (Index, WireError)> {
        let mut plan = Plan::default();
        for (index, bytes) in commands {
            if bytes.first() == Some(&TOGETHER) {
                let before = plan.outcomes.len();
                let mut reader = Reader::shared(bytes);
                let _kind: [u8; 1] = reader.array().map_err(|why| (index, why))?;
                while reader.remaining() > 0 {
                    self.plan_next(index, &mut reader, &mut plan).map_err(|why| (index, why))?;
                }
                plan.together.push((plan.entries, plan.outcomes.len() - before));
            } else {
                self.plan_one(index, bytes, &mut plan).map_err(|why| (index, why))?;
            }
            plan.entries += 1;
        }
        Ok(plan)
    }

    /// One of several commands in an entry.
    fn plan_next(
        &mut self,
        index: Index,
        reader: &mut Reader<'_>,
        plan: &mut Plan,
    ) -> Result<(), WireError> {
        let length = reader.count(1)?.checked_sub(1).ok_or(WireError::Truncated)?;
        let outcome = match u8::take(reader)? {
            PLAIN => plan.execute(index, reader.bytes(length)?),
            NUMBERED => {
                let command = Command::take_numbered(&mut Reader::shared(&reader.bytes(length)?))?;
                self.decide(index, command, plan)
            }
            // Sessions are named by the index of their entry, so it belongs to them alone.
            _ => return Err(WireError::Value { what: "kind of command among several" }),
        };
        plan.outcomes.push(outcome);
        Ok(())
    }

    fn plan_one(&mut self, index: Index, bytes: &Bytes, plan: &mut Plan) -> Result<(), WireError> {
        let outcome = match bytes.first() {
            // Most commands, without a detour.
            Some(&PLAIN) => plan.execute(index, bytes.slice(1..)),
            _ => self.decide(index, Command::from_bytes(bytes)?, plan),
        };
        plan.outcomes.push(outcome);
        Ok(())
    }

    fn decide(&mut self, index: Index, command: Command, plan: &mut Plan) -> Outcome {
        match command {
            Command::Plain(command) => plan.execute(index, command),
            Command::Open { sessions_max } => {
                self.open(index, sessions_max);
                known(&Response::Opened)
            }
            Command::Close { session } => {
                self.end(session);
                known(&Response::Closed)
            }
            Command::Numbered { session: id, number, acknowledged, command } => {
                let Some(session) = self.by_id.get_mut(&id) else {
                    return known(&Response::Expired);
                };
                self.changes.insert(id, true);
                self.by_use.remove(&session.last_used);
                let now = plan.moment(index);
                self.by_use.insert(now, id);
                session.last_used = now;
                if acknowledged > session.acknowledged {
                    session.acknowledged = acknowledged;
                    session.replies = session.replies.split_off(&acknowledged);
                }
                if number < session.acknowledged {
                    return known(&Response::Acknowledged);
                }
                match session.replies.get(&number) {
                    Some(Kept::Response(response)) => return Outcome::Known(response.clone()),
                    Some(Kept::Executing(place)) => return Outcome::Executes(*place),
                    None => {}
                }
                if session.replies.len() >= REPLIES_MAX {
                    return known(&Response::TooMany);
                }
                let place = plan.execute.len();
                session.replies.insert(number, Kept::Executing(place));
                plan.numbered.push((place, id, number));
                plan.execute(index, command)
            }
        }
    }

    /// The state machine has executed the plan's commands: `responses` has the response of each,
    /// as bytes of [`Response::Executed`]. Returns the responses to all commands of the batch.
    ///
    /// # Panics
    ///
    /// If there is not one response for each command.
    #[must_use]
    pub fn finish(&mut self, plan: Plan, responses: Vec<Bytes>) -> Vec<Bytes> {
        for (place, id, number) in &plan.numbered {
            // It may have been acknowledged, or its session ended, later in the same batch.
            if let Some(session) = self.by_id.get_mut(id)
                && let Some(kept) = session.replies.get_mut(number)
                && *kept == Kept::Executing(*place)
            {
                // A copy: the responses of a batch may share one buffer, and this one may stay.
                *kept = Kept::Response(Bytes::copy_from_slice(&responses[*place]));
            }
        }
        let response = |outcome| match outcome {
            Outcome::Executes(place) => responses[place].clone(),
            Outcome::Known(response) => response,
        };
        let Plan { outcomes, together, entries, .. } = plan;
        // Every command was executed, in order.
        let plainly = responses.len() == outcomes.len();
        if together.is_empty() {
            return if plainly { responses } else { outcomes.into_iter().map(response).collect() };
        }
        let mut told = Vec::with_capacity(entries);
        let mut outcomes = outcomes.into_iter().map(response);
        let mut together = together.into_iter().peekable();
        for entry in 0..entries {
            match together.next_if(|(place, _)| *place == entry) {
                None => told.extend(outcomes.next()),
                Some((_, count)) => {
                    let mut bytes = vec![RESPONSES];
                    for response in outcomes.by_ref().take(count) {
                        response.put(&mut bytes);
                    }
                    told.push(bytes.into());
                }
            }
        }
        told
    }

    fn open(&mut self, index: Index, sessions_max: u32) {
        let sessions_max = sessions_max.clamp(1, SESSIONS_MAX) as usize;
        while self.by_id.len() >= sessions_max {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            self.end(*oldest);
        }
        let id = SessionId(index.0);
        let last_used = Moment(index, 0);
        let session = Session { last_used, acknowledged: 0, replies: BTreeMap::new() };
        self.by_id.insert(id, session);
        self.by_use.insert(last_used, id);
        self.changes.insert(id, true);
    }

    fn end(&mut self, id: SessionId) {
        if let Some(session) = self.by_id.remove(&id) {
            self.by_use.remove(&session.last_used);
            self.changes.insert(id, false);
        }
    }

    /// The sessions that changed since the last call: the bytes of each, or nothing for one that
    /// has ended. For state machines that keep the table on disk, row by row.
    #[must_use]
    pub fn take_changes(&mut self) -> Vec<(SessionId, Option<Vec<u8>>)> {
        std::mem::take(&mut self.changes)
            .into_iter()
            .map(|(id, exists)| {
                let session = self.by_id.get(&id).filter(|_| exists);
                (id, session.map(Session::to_form))
            })
            .collect()
    }

    /// All rows, ascending, as [`take_changes`](Self::take_changes) would give them.
    #[must_use]
    pub fn rows(&self) -> Vec<(SessionId, Vec<u8>)> {
        self.by_id.iter().map(|(id, session)| (*id, session.to_form())).collect()
    }

    /// Forgets what has changed, where nobody will ask.
    pub fn drop_changes(&mut self) {
        self.changes.clear();
    }

    /// A table from its rows, as [`take_changes`](Self::take_changes) gave them.
    ///
    /// # Errors
    ///
    /// When the bytes of a row are no session, or two rows contradict each other.
    pub fn from_rows(
        rows: impl IntoIterator<Item = (SessionId, Vec<u8>)>,
    ) -> Result<Self, WireError> {
        let mut sessions = Self::new();
        for (id, row) in rows {
            sessions.insert(id, Session::from_form(&row)?)?;
        }
        Ok(sessions)
    }

    fn insert(&mut self, id: SessionId, session: Session) -> Result<(), WireError> {
        let fresh = self.by_use.insert(session.last_used, id).is_none()
            && session.last_used.0.0 >= id.0
            && self.by_id.insert(id, session).is_none();
        if fresh { Ok(()) } else { Err(WireError::Value { what: "table of sessions" }) }
    }
}

impl Plan {
    /// The place of the next command.
    fn moment(&mut self, index: Index) -> Moment {
        if self.last.0 == index {
            self.last.1 += 1;
        } else {
            self.last = Moment(index, 0);
        }
        self.last
    }

    fn execute(&mut self, index: Index, command: Bytes) -> Outcome {
        self.execute.push((index, command));
        Outcome::Executes(self.execute.len() - 1)
    }
}

fn known(response: &Response) -> Outcome {
    Outcome::Known(response.to_bytes())
}

/// ```text
/// count u32 | per session, ascending: name u64, session
/// ```
impl Form for Sessions {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(self.by_id.len(), out);
        for (id, session) in &self.by_id {
            id.0.put(out);
            session.put(out);
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = reader.count(8 + SESSION_BYTES_MIN)?;
        let mut sessions = Self::new();
        for _ in 0..count {
            let id = SessionId(u64::take(reader)?);
            if sessions.by_id.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(WireError::Value { what: "order of sessions" });
            }
            sessions.insert(id, Session::take(reader)?)?;
        }
        Ok(sessions)
    }
}

const SESSION_BYTES_MIN: usize = 12 + 8 + 4;

/// ```text
/// last used u64, u32 | acknowledged u64 | count u32 | per reply, ascending: number u64, length u32, response
/// ```
impl Form for Session {
    fn put(&self, out: &mut Vec<u8>) {
        self.last_used.0.put(out);
        self.last_used.1.put(out);
        self.acknowledged.put(out);
        put_count(self.replies.len(), out);
        for (number, kept) in &self.replies {
            let Kept::Response(response) = kept else {
                unreachable!("no table is written between `plan` and `finish`")
            };
            number.put(out);
            response.put(out);
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let last_used = Moment(Index::take(reader)?, u32::take(reader)?);
        let acknowledged = u64::take(reader)?;
        let count = reader.count(8 + 4)?;
        let mut replies = BTreeMap::new();
        for _ in 0..count {
            let number = u64::take(reader)?;
            let last = replies.last_key_value().map(|(last, _)| *last);
            if number < acknowledged || last.is_some_and(|last| last >= number) {
                return Err(WireError::Value { what: "order of replies" });
            }
            replies.insert(number, Kept::Response(Bytes::take(reader)?));
        }
        Ok(Self { last_used, acknowledged, replies })
    }
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    u32::try_from(count).expect("limits keep every count far below 2^32").put(out);
}
