//! What the log carries, and what comes of it.
//!
//! A command of the store has the store's bytes, which begin with a version of 1. One of the server's own, about members
//! and versions, begins with [`HOST`].

use bytes::Bytes;
use prost::Message;
use quorate::{Codec, CodecError};
use quorate_kv::{Command, EncodeError, RequestError};

use crate::convert;
use crate::proto::etcdserverpb as pb;
use crate::proto::host::{HostCommand, Outcome, outcome};

/// First byte of the server's own commands.
const HOST: u8 = 0x80;

/// A command of the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    /// As it is proposed: the bytes of a command of the store.
    Encoded(Bytes),
    /// As it is carried out.
    Store(Command),
    /// One of the server's own.
    Host(HostCommand),
}

impl Entry {
    /// A command of the store, to be proposed.
    pub(crate) fn of(command: &Command) -> Result<Self, EncodeError> {
        command.encode().map(Self::Encoded)
    }
}

impl Codec for Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Encoded(bytes) => out.extend_from_slice(bytes),
            Self::Store(command) => {
                let bytes = command.encode().expect("what was decoded has bytes");
                out.extend_from_slice(&bytes);
            }
            Self::Host(command) => {
                out.push(HOST);
                out.extend_from_slice(&command.encode_to_vec());
            }
        }
    }

    fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        match bytes.first() {
            Some(&HOST) => {
                HostCommand::decode(bytes.slice(1..)).map(Self::Host).map_err(CodecError::new)
            }
            _ => Command::decode(bytes).map(Self::Store).map_err(CodecError::new),
        }
    }
}

/// What a command came to, as the one who proposed it gets it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply(pub(crate) Outcome);

/// Errors of the store by their number, from 1. New ones go to the end.
const ERRORS: [RequestError; 14] = [
    RequestError::EmptyKey,
    RequestError::KeyNotFound,
    RequestError::ValueProvided,
    RequestError::LeaseProvided,
    RequestError::TooManyOps,
    RequestError::DuplicateKey,
    RequestError::InvalidSortOption,
    RequestError::Compacted,
    RequestError::FutureRevision,
    RequestError::NoSpace,
    RequestError::LeaseNotFound,
    RequestError::LeaseExist,
    RequestError::LeaseTtlTooLarge,
    RequestError::Corrupt,
];

/// The number of an error that this build of the server does not know by name.
const UNKNOWN: u32 = u32::MAX;

impl Reply {
    pub(crate) fn of(result: Result<quorate_kv::Reply, RequestError>) -> Self {
        Self(match result {
            Ok(reply) => Outcome { error: 0, reply: Some(convert::outcome(reply)) },
            Err(why) => {
                let number = (1..).zip(ERRORS).find(|(_, error)| *error == why);
                Outcome { error: number.map_or(UNKNOWN, |(number, _)| number), reply: None }
            }
        })
    }

    /// Done, by a command of the server's own.
    pub(crate) fn done() -> Self {
        Self(Outcome { error: 0, reply: Some(outcome::Reply::Revision(0)) })
    }

    /// The reply, or why there is none; `Err(None)` for an error that a newer member gave.
    pub(crate) fn into_result(self) -> Result<outcome::Reply, Option<RequestError>> {
        match (self.0.error, self.0.reply) {
            (0, Some(reply)) => Ok(reply),
            (0, None) => Err(None),
            (number, _) => {
                let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
                Err(ERRORS.get(index).copied())
            }
        }
    }
}

impl Codec for Reply {
    fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.0.encoded_len());
        self.0.encode_raw(out);
    }

    fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        Outcome::decode(bytes.clone()).map(Self).map_err(CodecError::new)
    }
}

/// A header that says the revision; the rest is filled in by whoever answers the client.
pub(crate) const fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { cluster_id: 0, member_id: 0, revision, raft_term: 0 })
}

#[cfg(test)]
mod tests {
    use quorate_kv::{LeaseId, Revision};

    use super::*;
    use crate::proto::host::{Attributes, host_command};

    #[test]
    fn entries_are_told_apart() {
        let store = Command::LeaseRevoke(LeaseId(7));
        let own = HostCommand {
            command: Some(host_command::Command::Attributes(Attributes {
                member: 1,
                name: "a".to_owned(),
                ..Attributes::default()
            })),
        };
        let entries = [
            (Entry::of(&store).unwrap(), Entry::Store(store)),
            (Entry::Host(own.clone()), Entry::Host(own)),
        ];
        for (proposed, carried_out) in entries {
            let mut bytes = Vec::new();
            proposed.encode(&mut bytes);
            assert_eq!(Entry::decode(&bytes.into()).unwrap(), carried_out);
        }
        assert!(Entry::decode(&Bytes::new()).is_err());
        assert!(Entry::decode(&Bytes::from_static(&[HOST, 0xff])).is_err());
    }

    #[test]
    fn errors_survive_the_way() {
        for error in ERRORS {
            let mut bytes = Vec::new();
            Reply::of(Err(error)).encode(&mut bytes);
            let reply = Reply::decode(&bytes.into()).unwrap();
            assert_eq!(reply.into_result(), Err(Some(error)));
        }
        let reply = quorate_kv::Reply::Done { revision: Revision(3) };
        assert_eq!(Reply::of(Ok(reply)).into_result(), Ok(outcome::Reply::Revision(3)));
    }
}
