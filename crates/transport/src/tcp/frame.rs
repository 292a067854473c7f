//! Frames: what a connection carries once both sides know each other.
//!
//! ```text
//!  0  CRC32C   u32   of everything behind it
//!  4  length   u32   of the payload
//!  8  kind     u8
//!  9  zero     3 bytes
//! 12  payload
//! ```

use std::fmt;
use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the payload.
pub(super) const HEAD_BYTES: usize = 12;

/// Memory taken for one read, and what a frame must exceed to get memory of its own.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// With less room than this in the buffer, a new one is begun.
const ROOM_BYTES_MIN: usize = 8 * 1024;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    /// For the host.
    Data = 1,
    /// Answer this, or at least know that the other end is alive.
    Ping = 2,
    /// A ping's payload comes back.
    Pong = 3,
    /// The connection is closed on purpose; see [`Reason`].
    Goodbye = 4,
    /// The dialling side does not want what it found, or the dialled one has changed its mind.
    Refusal = 5,
    /// A receiver asks for a snapshot.
    Fetch = 16,
    /// The sender has it.
    Begin = 17,
    /// Bytes of it.
    Chunk = 18,
    /// The sender does not send it, or not now.
    Denied = 19,
}

impl Kind {
    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Data,
            2 => Self::Ping,
            3 => Self::Pong,
            4 => Self::Goodbye,
            5 => Self::Refusal,
            16 => Self::Fetch,
            17 => Self::Begin,
            18 => Self::Chunk,
            19 => Self::Denied,
            _ => return None,
        })
    }
}

/// Why a connection is closed on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// The process ends.
    ShuttingDown,
    /// Another connection takes its place, or it is not needed any more.
    NotNeeded,
    /// What a later version says.
    Other,
}

impl Reason {
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::ShuttingDown => 1,
            Self::NotNeeded => 2,
            Self::Other => 0,
        }
    }

    pub(super) const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::ShuttingDown,
            2 => Self::NotNeeded,
            _ => Self::Other,
        }
    }
}

/// Why bytes are not a frame. Nothing behind them can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FrameError {
    TooLarge {
        bytes: usize,
        bytes_max: usize,
    },
    Checksum,
    Kind {
        number: u8,
    },
    /// A control frame whose payload is not what its kind says.
    Payload {
        kind: Kind,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "a frame of {bytes} bytes, and {bytes_max} are allowed")
            }
            Self::Checksum => f.write_str("a frame was damaged on its way"),
            Self::Kind { number } => write!(f, "a frame of unknown kind {number}"),
            Self::Payload { kind } => write!(f, "a frame of kind {kind:?} that makes no sense"),
        }
    }
}

/// Appends a whole frame.
pub(super) fn put_frame(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    let length = u32::try_from(payload.len()).expect("longer frames are refused before");
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[kind as u8, 0, 0, 0]);
    out.extend_from_slice(payload);
    let checksum = crc32c::crc32c(&out[begin + 4..]);
    out[begin..begin + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// Appends only the head of a frame; the payload must follow.
pub(super) fn put_head(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("longer frames are refused before");
    let mut rest = [0; 8];
    rest[..4].copy_from_slice(&length.to_le_bytes());
    rest[4] = kind as u8;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&rest), payload);
    out.put_u32_le(checksum);
    out.extend_from_slice(&rest);
}

/// Bytes as they come in, and the frames in them.
///
/// All frames of one read share its memory; nothing is copied unless a frame is longer than what
/// is left of the buffer.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) buffer: BytesMut,
    frame_bytes_max: usize,
    /// Frames found in `buffer`, before their memory is shared.
    found: Vec<(Kind, Range<usize>)>,
}

impl Input {
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), frame_bytes_max, found: Vec::new() }
    }

    /// Makes room for the next read.
    pub(super) fn reserve(&mut self) {
        if self.buffer.capacity() - self.buffer.len() < ROOM_BYTES_MIN {
            self.buffer.reserve(READ_BYTES);
        }
    }

    /// Hands out all whole frames. If there is one that is not right, those before it are given
    /// out too.
    pub(super) fn take(&mut self, mut out: impl FnMut(Kind, Bytes)) -> Result<(), FrameError> {
        let mut at = 0;
        let mut error = None;
        while let Some(rest) = self.buffer.get(at..)
            && rest.len() >= HEAD_BYTES
        {
            match self.frame(rest) {
                Ok(Some((kind, bytes))) => {
                    self.found.push((kind, at + HEAD_BYTES..at + bytes));
                    at += bytes;
                }
                Ok(None) => break,
                Err(why) => {
                    error = Some(why);
                    break;
                }
            }
        }
        if at > 0 {
            let block = self.buffer.split_to(at).freeze();
            for (kind, range) in self.found.drain(..) {
                out(kind, block.slice(range));
            }
        }
        if let Some(error) = error {
            return Err(error);
        }
        self.reserve_for_long_frame();
        Ok(())
    }

    /// The frame at the front: its kind, and its bytes with the head.
    fn frame(&self, rest: &[u8]) -> Result<Option<(Kind, usize)>, FrameError> {
        let mut head = &rest[..HEAD_BYTES];
        let checksum = head.get_u32_le();
        let length = head.get_u32_le() as usize;
        if length > self.frame_bytes_max {
            return Err(FrameError::TooLarge { bytes: length, bytes_max: self.frame_bytes_max });
        }
        let Some(covered) = rest.get(4..HEAD_BYTES + length) else { return Ok(None) };
        if crc32c::crc32c(covered) != checksum {
            return Err(FrameError::Checksum);
        }
        let number = head.get_u8();
        if head != [0; 3] {
            return Err(FrameError::Kind { number });
        }
        let kind = Kind::from_number(number).ok_or(FrameError::Kind { number })?;
        Ok(Some((kind, HEAD_BYTES + length)))
    }

    /// A frame that has begun and is long gets its memory in one piece, but no more than as much
    /// again as has already come of it (or [`LONG_BYTES`]): a length alone costs nothing.
    fn reserve_for_long_frame(&mut self) {
        if self.buffer.len() < HEAD_BYTES {
            return;
        }
        let length = (&self.buffer[4..8]).get_u32_le() as usize;
        let missing = (HEAD_BYTES + length).saturating_sub(self.buffer.len());
        let room = self.buffer.capacity() - self.buffer.len();
        if missing > room {
            self.buffer.reserve(missing.min(self.buffer.len().max(LONG_BYTES)));
        }
    }
}

/// Memory that is taken at once for a frame of which only the length is known.
const LONG_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    fn frames(input: &mut Input) -> Result<Vec<(Kind, Bytes)>, FrameError> {
        let mut out = Vec::new();
        input.take(|kind, bytes| out.push((kind, bytes))).map(|()| out)
    }

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        put_frame(Kind::Data, b"hello", &mut bytes);
        put_frame(Kind::Ping, b"", &mut bytes);
        put_head(Kind::Data, &[7; 3000], &mut bytes);
        bytes.extend_from_slice(&[7; 3000]);
        bytes
    }

    #[test]
    fn known_bytes() {
        let mut bytes = Vec::new();
        put_frame(Kind::Data, b"hi", &mut bytes);
        assert_eq!(bytes[4..], [2, 0, 0, 0, 1, 0, 0, 0, b'h', b'i']);
        assert_eq!(bytes[..4], quorate_raft::crc32c(&bytes[4..]).to_le_bytes());
    }

    #[test]
    fn whole_however_they_are_cut() {
        let bytes = sample();
        for step in [1, 2, 11, 12, 13, 1000, bytes.len()] {
            let mut input = Input::new(MAX);
            let mut got = Vec::new();
            for part in bytes.chunks(step) {
                input.reserve();
                input.buffer.extend_from_slice(part);
                input.take(|kind, bytes| got.push((kind, bytes))).unwrap();
            }
            let expected: [(Kind, &[u8]); 3] =
                [(Kind::Data, b"hello"), (Kind::Ping, b""), (Kind::Data, &[7; 3000])];
            assert_eq!(got.len(), 3);
            for (got, expected) in got.iter().zip(expected) {
                assert_eq!((got.0, &got.1[..]), expected);
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut bytes = Vec::new();
        put_frame(Kind::Data, b"hello", &mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut input = Input::new(MAX);
            input.buffer.extend_from_slice(&damaged);
            match frames(&mut input) {
                Err(_) => {}
                // The length has grown: the frame is not whole yet, and will not match later.
                Ok(frames) => assert!(frames.is_empty() && (32..64).contains(&bit), "bit {bit}"),
            }
        }
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        let mut input = Input::new(usize::MAX);
        input.buffer.put_u32_le(0);
        input.buffer.put_u32_le(u32::MAX);
        input.buffer.put_u32_le(1);
        assert!(frames(&mut input).unwrap().is_empty());
        assert!(input.buffer.capacity() <= 2 * LONG_BYTES);
        let mut input = Input::new(1000);
        input.buffer.put_u32_le(0);
        input.buffer.put_u32_le(1001);
        input.buffer.put_u32_le(1);
        let error = frames(&mut input).unwrap_err();
        assert_eq!(error, FrameError::TooLarge { bytes: 1001, bytes_max: 1000 });
    }

    /// Hostile bytes: errors, at worst, and no more memory than they paid for.
    #[test]
    fn noise_is_never_more_than_an_error() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        for _ in 0..2_000 {
            let mut input = Input::new(1 << 16);
            let mut bytes = sample();
            for _ in 0..=random() % 8 {
                let at = (usize::from(random()) * 256 + usize::from(random())) % bytes.len();
                bytes[at] = random();
            }
            bytes.extend((0..random()).map(|_| random()));
            for part in bytes.chunks(usize::from(random()) + 1) {
                input.reserve();
                input.buffer.extend_from_slice(part);
                if frames(&mut input).is_err() {
                    break;
                }
                assert!(input.buffer.capacity() <= 4 * READ_BYTES);
            }
        }
    }

    #[test]
    fn good_frames_before_a_bad_one_are_kept() {
        let mut bytes = sample();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let mut input = Input::new(MAX);
        input.buffer.extend_from_slice(&bytes);
        let mut out = Vec::new();
        assert_eq!(input.take(|kind, bytes| out.push((kind, bytes))), Err(FrameError::Checksum));
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn unknown_kinds_and_reserved_bytes_are_refused() {
        for (at, value) in [(8, 99), (9, 1), (11, 1)] {
            let mut bytes = Vec::new();
            put_frame(Kind::Data, b"hello", &mut bytes);
            bytes[at] = value;
            let checksum = quorate_raft::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&checksum.to_le_bytes());
            let mut input = Input::new(MAX);
            input.buffer.extend_from_slice(&bytes);
            assert!(matches!(frames(&mut input), Err(FrameError::Kind { .. })));
        }
    }
}
