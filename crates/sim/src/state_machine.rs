//! The state machine of a simulated host.
//!
//! [`StateMachine`] is the seam at which the real key-value store takes the place of [`KvMachine`].
//!
//! Around the map stands the table of client sessions that production has
//! ([`quorate_node::sessions`]): part of the replicated state, of snapshots and of what is durable.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use quorate_node::sessions::{Response, Sessions};
use quorate_raft::{Entry, Index, LogId, Payload, crc32c};
use quorate_wire::Form as _;

/// Applies the log, entry by entry.
pub trait StateMachine: fmt::Debug {
    /// Applies one entry, of any kind. Returns the response to a command; what it is for other
    /// entries does not matter.
    fn apply(&mut self, entry: &Entry) -> Bytes;

    /// Answers a question about the contents.
    fn query(&self, query: &[u8]) -> Bytes;

    /// The last entry applied.
    fn applied(&self) -> LogId;

    /// All contents, as a snapshot.
    fn snapshot(&mut self) -> Bytes;

    /// Takes the contents of a snapshot, durably, all or nothing.
    fn restore(&mut self, snapshot: &[u8]);

    /// Makes the contents durable.
    fn flush(&mut self);

    /// What a snapshot of this machine contains is durable, unless something newer is.
    fn keep(&mut self, snapshot: &[u8]);

    /// The last entry whose effect is durable.
    fn durable(&self) -> LogId;

    /// The host dies: back to what is durable.
    fn crash(&mut self);

    /// A number that is equal for equal contents.
    fn digest(&self) -> u64;

    /// Itself, for those who know what it is.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// A command of [`KvMachine`]: every one says what was there before, which leaves a checker few
/// orders to choose from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KvCommand {
    /// Sets a value. Answered by [`KvReply::Value`] with what was there before.
    Put {
        /// The key.
        key: u64,
        /// Its new value.
        value: u64,
    },
    /// Removes a value. Answered by [`KvReply::Value`] with what was there before.
    Delete {
        /// The key.
        key: u64,
    },
    /// Sets (or with `None` removes) the value if it is as expected. Answered by
    /// [`KvReply::Swapped`].
    CompareAndSwap {
        /// The key.
        key: u64,
        /// What must be there; `None`: nothing.
        expected: Option<u64>,
        /// What is there then.
        new: Option<u64>,
    },
}

/// A question to [`KvMachine`]: the value of a key. Answered by [`KvReply::Value`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvQuery {
    /// The key.
    pub key: u64,
}

/// What [`KvMachine`] answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KvReply {
    /// The value that is or was there, if any.
    Value(Option<u64>),
    /// Whether the value was the expected one, and so was changed.
    Swapped(bool),
}

/// A value, or `-` for none.
struct OrNone(Option<u64>);

impl fmt::Display for OrNone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

impl FromStr for OrNone {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "-" => Ok(Self(None)),
            number => number.parse().map(|value| Self(Some(value))).map_err(|_| ()),
        }
    }
}

impl fmt::Display for KvCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "put {key} {value}"),
            Self::Delete { key } => write!(f, "del {key}"),
            Self::CompareAndSwap { key, expected, new } => {
                write!(f, "cas {key} {} {}", OrNone(*expected), OrNone(*new))
            }
        }
    }
}

impl FromStr for KvCommand {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().map_err(|_| ());
        match words[..] {
            ["put", key, value] => Ok(Self::Put { key: number(key)?, value: number(value)? }),
            ["del", key] => Ok(Self::Delete { key: number(key)? }),
            ["cas", key, expected, new] => Ok(Self::CompareAndSwap {
                key: number(key)?,
                expected: expected.parse::<OrNone>()?.0,
                new: new.parse::<OrNone>()?.0,
            }),
            _ => Err(()),
        }
    }
}

impl KvCommand {
    /// The command as bytes: its text.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(self.to_string())
    }

    /// Which key it is about.
    #[must_use]
    pub const fn key(&self) -> u64 {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::CompareAndSwap { key, .. } => *key,
        }
    }
}

impl KvQuery {
    /// The question as bytes: its text.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(format!("get {}", self.key))
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = std::str::from_utf8(bytes).ok()?.strip_prefix("get ")?.parse().ok()?;
        Some(Self { key })
    }
}

impl fmt::Display for KvReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => OrNone(*value).fmt(f),
            Self::Swapped(true) => f.write_str("swapped"),
            Self::Swapped(false) => f.write_str("unchanged"),
        }
    }
}

impl KvReply {
    /// The reply as bytes: its text.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(self.to_string())
    }

    /// What bytes say, if they are those of a reply.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match std::str::from_utf8(bytes).ok()? {
            "swapped" => Some(Self::Swapped(true)),
            "unchanged" => Some(Self::Swapped(false)),
            value => value.parse::<OrNone>().ok().map(|value| Self::Value(value.0)),
        }
    }
}

/// What a [`KvMachine`] holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Contents {
    values: BTreeMap<u64, u64>,
    sessions: Sessions,
    applied: LogId,
    /// Rolls over every command, so that two replicas that applied different ones differ even if
    /// their values agree.
    history: u64,
}

/// A map from numbers to numbers, with client sessions. Commands that it does not understand change
/// nothing, and still count in its digest; scripts propose such.
#[derive(Clone, Debug, Default)]
pub struct KvMachine {
    now: Contents,
    /// What a crash leaves. The map is small, so it is simply a copy.
    durable: Contents,
}

impl StateMachine for KvMachine {
    fn apply(&mut self, entry: &Entry) -> Bytes {
        let next = self.now.applied.index.next();
        assert_eq!(entry.index, next, "State Machine Safety: entries are applied in order");
        self.now.applied = entry.log_id();
        let Payload::Command(command) = &entry.payload else { return Bytes::new() };
        self.now.history = mix(self.now.history, u64::from(crc32c(command)));
        // Text never begins like that; what comes from clients with sessions always does.
        if command.first().is_some_and(|first| *first < b' ') {
            return self.now.execute_in_session(entry.index, command);
        }
        self.now.execute_text(command)
    }

    fn query(&self, query: &[u8]) -> Bytes {
        match KvQuery::from_bytes(query) {
            Some(query) => KvReply::Value(self.now.values.get(&query.key).copied()).to_bytes(),
            None => Bytes::new(),
        }
    }

    fn applied(&self) -> LogId {
        self.now.applied
    }

    fn snapshot(&mut self) -> Bytes {
        let Contents { values, applied, history, sessions } = &self.now;
        let head = [applied.index.0, applied.term.0, *history, values.len() as u64];
        let pairs = values.iter().flat_map(|(key, value)| [*key, *value]);
        let words = head.into_iter().chain(pairs).flat_map(u64::to_le_bytes);
        words.chain(sessions.to_form()).collect::<Vec<u8>>().into()
    }

    fn restore(&mut self, snapshot: &[u8]) {
        self.now = Contents::of(snapshot);
        self.flush();
    }

    fn keep(&mut self, snapshot: &[u8]) {
        let contents = Contents::of(snapshot);
        if contents.applied.index > self.durable.applied.index {
            self.durable = contents;
        }
    }

    fn flush(&mut self) {
        self.durable.clone_from(&self.now);
    }

    fn durable(&self) -> LogId {
        self.durable.applied
    }

    fn crash(&mut self) {
        self.now.clone_from(&self.durable);
    }

    fn digest(&self) -> u64 {
        let pairs = self.now.values.iter().flat_map(|(key, value)| [*key, *value]);
        let sessions = u64::from(crc32c(&self.now.sessions.to_form()));
        pairs.fold(mix(mix(self.now.history, self.now.applied.index.0), sessions), mix)
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl Contents {
    fn of(snapshot: &[u8]) -> Self {
        let mut rest = snapshot;
        let mut next = || {
            let (bytes, behind) = rest.split_first_chunk::<8>().expect("a whole snapshot");
            rest = behind;
            u64::from_le_bytes(*bytes)
        };
        let mut contents = Self::default();
        contents.applied.index.0 = next();
        contents.applied.term.0 = next();
        contents.history = next();
        for _ in 0..next() {
            let (key, value) = (next(), next());
            contents.values.insert(key, value);
        }
        contents.sessions = Sessions::from_form(rest).expect("a whole snapshot");
        contents
    }

    fn execute_text(&mut self, command: &[u8]) -> Bytes {
        match std::str::from_utf8(command).ok().and_then(|text| text.parse().ok()) {
            Some(command) => self.execute(command).to_bytes(),
            None => Bytes::new(),
        }
    }

    fn execute_in_session(&mut self, index: Index, command: &Bytes) -> Bytes {
        let plan = self.sessions.plan([(index, command)]);
        let plan = plan.expect("nobody proposes commands that are none");
        let executed = plan
            .commands()
            .iter()
            .map(|(_, command)| Response::Executed(self.execute_text(command)).to_bytes())
            .collect();
        let mut responses = self.sessions.finish(plan, executed);
        responses.pop().expect("one command, one response")
    }

    fn execute(&mut self, command: KvCommand) -> KvReply {
        match command {
            KvCommand::Put { key, value } => KvReply::Value(self.values.insert(key, value)),
            KvCommand::Delete { key } => KvReply::Value(self.values.remove(&key)),
            KvCommand::CompareAndSwap { key, expected, new } => {
                let matches = self.values.get(&key).copied() == expected;
                if matches {
                    match new {
                        Some(value) => self.values.insert(key, value),
                        None => self.values.remove(&key),
                    };
                }
                KvReply::Swapped(matches)
            }
        }
    }
}

/// One step of a rolling hash (the finaliser of SplitMix64).
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    let mut z = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
