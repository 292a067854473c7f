//! Bytes of commands and replies.

use std::fmt;

use bytes::Bytes;

/// A command or reply that can be written as bytes and read back.
///
/// With the feature `postcard` (on by default) everything that implements serde's `Serialize` and
/// `DeserializeOwned` has it, in the [postcard](https://docs.rs/postcard) encoding: compact, and
/// described by a specification. For another encoding, implement this trait for a type of your own
/// that does not implement serde's traits. [`Raw`] is for those whose commands are bytes already.
///
/// What was written by one version of your program is read by the next one: from the log after a
/// restart, and from peers during a rolling upgrade. So change types only in ways that the encoding
/// allows (with postcard: add variants to the end of an enum), and start to *propose* what is new
/// only when every member understands it.
pub trait Codec: Sized + Send + 'static {
    /// Appends the bytes of this value.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a value that takes up all of `bytes`.
    ///
    /// # Errors
    ///
    /// When the bytes are no such value.
    fn decode(bytes: &Bytes) -> Result<Self, CodecError>;
}

/// Why bytes could not be decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CodecError {
    /// What is wrong, for people.
    pub why: String,
}

impl CodecError {
    /// An error that says `why`.
    pub fn new(why: impl fmt::Display) -> Self {
        Self { why: why.to_string() }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot be decoded: {}", self.why)
    }
}

impl std::error::Error for CodecError {}

#[cfg(feature = "postcard")]
impl<T> Codec for T
where
    T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    fn encode(&self, out: &mut Vec<u8>) {
        // The only failures are a full buffer, which a vector is not, and types that have no
        // serialised form at all, which are found the first time they are used.
        postcard::to_io(self, out).expect("commands and replies have a serialised form");
    }

    fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(CodecError::new(format!("{} bytes left over", rest.len()))),
            Err(error) => Err(CodecError::new(error)),
        }
    }
}

/// Bytes as they are, shared and not copied: for commands and replies that are encoded elsewhere.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Raw(pub Bytes);

impl Codec for Raw {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        Ok(Self(bytes.clone()))
    }
}
