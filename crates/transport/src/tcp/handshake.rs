//! The first bytes of a connection: who is there, who is wanted, and which words both know.
//!
//! The layout of this exchange never changes, so that any two releases can at least tell each
//! other that they do not understand each other. `docs/transport-format.md` has the byte maps.

use std::io;
use std::sync::Arc;

use quorate_raft::NodeId;
use quorate_wire::{Form, Reader, WireError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::TEXT_BYTES_MAX;
use super::stream::Stream;
use crate::admission::Claim;
use crate::refusal::{Refusal, RefusalCode};
use crate::transport::FOUNDERS_MAX;

/// The versions of the protocol that this software speaks.
pub(super) const VERSIONS: (u16, u16) = (1, 1);

/// Not text, so that nothing that speaks text is taken for a node; and mangled by whatever
/// changes line ends or strips eighth bits.
pub(super) const MAGIC: [u8; 8] = *b"\x89QRM\r\n\x1a\n";

/// What follows the magic: kind, zero, length, checksum.
const HEAD_BYTES: usize = 8;

/// The longest body that is read. Later versions may add to a body, up to here.
const BODY_BYTES_MAX: usize = 1024;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSAL: u8 = 3;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Urgent,
    Bulk,
    Snapshot,
}

impl Purpose {
    const fn number(self) -> u8 {
        match self {
            Self::Urgent => 1,
            Self::Bulk => 2,
            Self::Snapshot => 3,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Urgent,
            2 => Self::Bulk,
            3 => Self::Snapshot,
            _ => return None,
        })
    }
}

/// The dialling side introduces itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    pub(super) versions: (u16, u16),
    /// `None`: a purpose that only a later version knows.
    pub(super) purpose: Option<Purpose>,
    pub(super) claim: Claim,
}

/// Why no introduction came.
#[derive(Debug)]
pub(super) enum Greeting {
    /// These are not nodes of Quorate.
    NotOurs,
    /// The connection failed.
    Failed(io::Error),
}

impl From<io::Error> for Greeting {
    fn from(why: io::Error) -> Self {
        Self::Failed(why)
    }
}

impl Hello {
    fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.versions.0.put(&mut body);
        self.versions.1.put(&mut body);
        self.purpose.map_or(0, Purpose::number).put(&mut body);
        body.extend_from_slice(&[0; 3]);
        put_claim(&self.claim, &mut body);
        message(HELLO, &body)
    }

    fn from_body(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let versions = (u16::take(&mut reader)?, u16::take(&mut reader)?);
        let purpose = Purpose::from_number(u8::take(&mut reader)?);
        let _zero: [u8; 3] = reader.array()?;
        let claim = take_claim(&mut reader)?;
        Ok(Self { versions, purpose, claim })
    }
}

fn put_claim(claim: &Claim, out: &mut Vec<u8>) {
    claim.cluster.put(out);
    claim.node.put(out);
    claim.incarnation.put(out);
    claim.boot.put(out);
    claim.wanted.put(out);
    claim.features.put(out);
    // Too many to be said are not known.
    let founders = if claim.founders.len() > FOUNDERS_MAX { &[][..] } else { &claim.founders };
    u16::try_from(founders.len()).expect("it was just looked at").put(out);
    for node in founders {
        node.put(out);
    }
}

fn take_claim(reader: &mut Reader<'_>) -> Result<Claim, WireError> {
    Ok(Claim {
        cluster: Form::take(reader)?,
        node: Form::take(reader)?,
        incarnation: Form::take(reader)?,
        boot: Form::take(reader)?,
        wanted: Form::take(reader)?,
        features: Form::take(reader)?,
        founders: take_founders(reader)?,
    })
}

/// Earlier releases do not say them.
fn take_founders(reader: &mut Reader<'_>) -> Result<Arc<[NodeId]>, WireError> {
    if reader.remaining() == 0 {
        return Ok(Arc::default());
    }
    let count = u16::take(reader)?;
    (0..count).map(|_| NodeId::take(reader)).collect()
}

/// A whole message of the handshake.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let mut head = [kind, 0, 0, 0];
    let length = u16::try_from(body.len()).expect("bodies are short");
    head[2..].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head), body);
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Reads a message; whatever is none is found out as early as possible.
async fn read_message(stream: &mut dyn Stream) -> Result<(u8, Vec<u8>), Greeting> {
    let mut magic = [0; MAGIC.len()];
    let mut have = 0;
    while have < magic.len() {
        let count = stream.read(&mut magic[have..]).await?;
        have += count;
        if count == 0 && have == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if count == 0 || magic[..have] != MAGIC[..have] {
            return Err(Greeting::NotOurs);
        }
    }
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let [kind, zero, low, high, checksum @ ..] = head;
    let length = usize::from(u16::from_le_bytes([low, high]));
    if zero != 0 || length > BODY_BYTES_MAX {
        return Err(Greeting::NotOurs);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&head[..4]), &body);
    if sum != u32::from_le_bytes(checksum) {
        return Err(Greeting::NotOurs);
    }
    Ok((kind, body))
}

/// The accepting side: waits for an introduction.
pub(super) async fn receive_hello(stream: &mut dyn Stream) -> Result<Hello, Greeting> {
    let (kind, body) = read_message(stream).await?;
    if kind != HELLO {
        return Err(Greeting::NotOurs);
    }
    Hello::from_body(&body).map_err(|_| Greeting::NotOurs)
}

/// The accepting side: the version to speak from now on.
pub(super) fn choose_version(theirs: (u16, u16)) -> Result<u16, Refusal> {
    let version = VERSIONS.1.min(theirs.1);
    if version >= VERSIONS.0.max(theirs.0) {
        Ok(version)
    } else {
        Err(Refusal::version(VERSIONS, theirs))
    }
}

/// The accepting side: lets the other in.
pub(super) async fn send_welcome(
    stream: &mut dyn Stream,
    version: u16,
    claim: &Claim,
) -> io::Result<()> {
    let mut body = Vec::new();
    version.put(&mut body);
    body.extend_from_slice(&[0; 6]);
    put_claim(claim, &mut body);
    stream.write_all(&message(WELCOME, &body)).await?;
    stream.flush().await
}

/// The accepting side: does not let the other in, says why, and hangs up.
pub(super) async fn send_refusal(stream: &mut dyn Stream, refusal: &Refusal) -> io::Result<()> {
    let mut body = Vec::new();
    refusal.code.number().put(&mut body);
    VERSIONS.0.put(&mut body);
    VERSIONS.1.put(&mut body);
    let text = refusal.text.as_bytes();
    let text = &text[..text.len().min(TEXT_BYTES_MAX)];
    u16::try_from(text.len()).expect("texts are short").put(&mut body);
    body.extend_from_slice(text);
    stream.write_all(&message(REFUSAL, &body)).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// What the dialling side hears.
#[derive(Debug)]
pub(super) enum Reply {
    /// It is let in; this is who is there.
    Welcome(Claim),
    /// It is not.
    Refused(Refusal),
}

/// The dialling side: introduces itself and waits for the answer.
pub(super) async fn introduce(
    stream: &mut dyn Stream,
    purpose: Purpose,
    claim: Claim,
) -> Result<Reply, Greeting> {
    let hello = Hello { versions: VERSIONS, purpose: Some(purpose), claim };
    stream.write_all(&hello.bytes()).await?;
    stream.flush().await?;
    let (kind, body) = read_message(stream).await?;
    reply_from(kind, &body).map_err(|_| Greeting::NotOurs)
}

fn reply_from(kind: u8, body: &[u8]) -> Result<Reply, WireError> {
    let mut reader = Reader::new(body);
    match kind {
        WELCOME => {
            let version = u16::take(&mut reader)?;
            if version < VERSIONS.0 || version > VERSIONS.1 {
                return Err(WireError::Value { what: "version" });
            }
            let _zero: [u8; 6] = reader.array()?;
            take_claim(&mut reader).map(Reply::Welcome)
        }
        REFUSAL => {
            let code = RefusalCode::from_number(u16::take(&mut reader)?);
            let _versions = (u16::take(&mut reader)?, u16::take(&mut reader)?);
            let length = usize::from(u16::take(&mut reader)?).min(TEXT_BYTES_MAX);
            let text = String::from_utf8_lossy(reader.take(length)?).into_owned();
            Ok(Reply::Refused(Refusal { code, text }))
        }
        _ => Err(WireError::Value { what: "reply" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::{ClusterId, Incarnation};

    fn claim() -> Claim {
        Claim {
            cluster: ClusterId(1),
            node: NodeId(2),
            incarnation: Incarnation(3),
            boot: 4,
            wanted: NodeId(5),
            features: 6,
            founders: [NodeId(2), NodeId(5)].into(),
        }
    }

    fn hello() -> Hello {
        Hello { versions: VERSIONS, purpose: Some(Purpose::Bulk), claim: claim() }
    }

    #[test]
    fn known_bytes() {
        let bytes = hello().bytes();
        assert_eq!(bytes[..12], *b"\x89QRM\r\n\x1a\n\x01\x00\x4a\x00");
        assert_eq!(bytes[16..24], [1, 0, 1, 0, 2, 0, 0, 0]);
        let numbers: Vec<u8> = (1..=6u64).flat_map(u64::to_le_bytes).collect();
        assert_eq!(bytes[24..72], numbers);
        assert_eq!(bytes[72..], [2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[12..16], {
            let covered: Vec<u8> = bytes[8..12].iter().chain(&bytes[16..]).copied().collect();
            quorate_raft::crc32c(&covered).to_le_bytes()
        });
    }

    #[tokio::test]
    async fn introductions_arrive_and_damaged_ones_do_not() {
        let bytes = hello().bytes();
        let (mut near, mut far) = tokio::io::duplex(4096);
        near.write_all(&bytes).await.unwrap();
        assert_eq!(receive_hello(&mut far).await.unwrap(), hello());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (mut near, mut far) = tokio::io::duplex(4096);
            near.write_all(&damaged).await.unwrap();
            drop(near);
            assert!(receive_hello(&mut far).await.is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            let (mut near, mut far) = tokio::io::duplex(4096);
            near.write_all(&bytes[..len]).await.unwrap();
            drop(near);
            assert!(receive_hello(&mut far).await.is_err(), "length {len}");
        }
    }

    /// It is refused at its length, before its body is waited for.
    #[tokio::test]
    async fn a_body_that_is_too_long_is_not_read() {
        let mut bytes = message(HELLO, &[0; BODY_BYTES_MAX]);
        let length = BODY_BYTES_MAX as u16 + 1;
        bytes[10..12].copy_from_slice(&length.to_le_bytes());
        bytes.truncate(MAGIC.len() + HEAD_BYTES);
        let (mut near, mut far) = tokio::io::duplex(4096);
        near.write_all(&bytes).await.unwrap();
        let limit = std::time::Duration::from_secs(10);
        let result = tokio::time::timeout(limit, receive_hello(&mut far)).await;
        assert!(matches!(result, Ok(Err(Greeting::NotOurs))));
    }

    #[tokio::test]
    async fn a_longer_body_of_a_later_version_is_understood() {
        let mut body = hello().bytes()[16..].to_vec();
        body.extend_from_slice(b"something new");
        let (mut near, mut far) = tokio::io::duplex(4096);
        near.write_all(&message(HELLO, &body)).await.unwrap();
        assert_eq!(receive_hello(&mut far).await.unwrap(), hello());
    }

    /// Of earlier releases, which end before the founders, and of clusters with too many of them.
    #[tokio::test]
    async fn founders_may_be_unknown() {
        let many = Claim { founders: (1..=200).map(NodeId).collect(), ..claim() };
        let said = Hello { claim: many, ..hello() }.bytes();
        let earlier = message(HELLO, &hello().bytes()[16..72]);
        for bytes in [said, earlier] {
            let (mut near, mut far) = tokio::io::duplex(4096);
            near.write_all(&bytes).await.unwrap();
            let heard = receive_hello(&mut far).await.unwrap();
            assert_eq!(heard.claim, Claim { founders: Arc::default(), ..claim() });
        }
    }

    #[tokio::test]
    async fn replies_arrive() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        send_welcome(&mut far, 1, &claim()).await.unwrap();
        let reply = introduce(&mut near, Purpose::Urgent, claim()).await.unwrap();
        assert!(matches!(reply, Reply::Welcome(found) if found == claim()));
        let (mut near, mut far) = tokio::io::duplex(4096);
        let refusal = Refusal::unknown_node(NodeId(5));
        send_refusal(&mut far, &refusal).await.unwrap();
        let reply = introduce(&mut near, Purpose::Urgent, claim()).await.unwrap();
        assert!(matches!(reply, Reply::Refused(got) if got == refusal));
    }

    /// What claims to be a reply, however it is cut or changed, is one or an error.
    #[test]
    fn replies_of_any_bytes_never_panic() {
        let mut body = vec![1, 0];
        body.resize(60, 3);
        for kind in 0..=4 {
            for len in 0..body.len() {
                for change in 0..=255 {
                    body[len / 2] = change;
                    let _ = reply_from(kind, &body[..len]);
                    let _ = Hello::from_body(&body[..len]);
                }
            }
        }
    }

    #[test]
    fn versions_meet_at_the_highest_that_both_speak() {
        assert_eq!(choose_version((1, 1)).unwrap(), 1);
        assert_eq!(choose_version((0, 7)).unwrap(), 1);
        for theirs in [(2, 3), (0, 0)] {
            let refusal = choose_version(theirs).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::Version);
            assert!(refusal.text.contains("speaks 1,"), "{}", refusal.text);
        }
        assert!(choose_version((2, 3)).unwrap_err().text.contains("you speak 2 to 3"));
    }
}
