//! Frames on their way out, written with as few calls as possible.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use super::frame::{Kind, put_frame, put_head};

/// Payloads up to here are copied next to each other; longer ones are written from where they
/// lie. A copy of this size costs less than one more piece in a vectored write.
const COPY_BYTES_MAX: usize = 1024;

/// Pieces in one call.
pub(super) const PIECES_MAX: usize = 64;

/// Memory kept for copies when all is written.
const KEEP_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Output {
    copied: Vec<u8>,
    pieces: VecDeque<Piece>,
    bytes: usize,
}

#[derive(Debug)]
enum Piece {
    /// A part of `copied`.
    Copied(Range<usize>),
    Shared(Bytes),
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes not yet written.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a frame whose payload may be shared.
    pub(super) fn push(&mut self, kind: Kind, payload: Bytes) {
        if payload.len() <= COPY_BYTES_MAX {
            self.push_copy(kind, &payload);
            return;
        }
        let begin = self.copied.len();
        put_head(kind, &payload, &mut self.copied);
        self.copied_since(begin);
        self.bytes += payload.len();
        self.pieces.push_back(Piece::Shared(payload));
    }

    /// Adds a frame with a small payload.
    pub(super) fn push_copy(&mut self, kind: Kind, payload: &[u8]) {
        let begin = self.copied.len();
        put_frame(kind, payload, &mut self.copied);
        self.copied_since(begin);
    }

    fn copied_since(&mut self, begin: usize) {
        let end = self.copied.len();
        self.bytes += end - begin;
        if let Some(Piece::Copied(last)) = self.pieces.back_mut()
            && last.end == begin
        {
            last.end = end;
        } else {
            self.pieces.push_back(Piece::Copied(begin..end));
        }
    }

    /// What to write next; the number of slices that were set.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; PIECES_MAX]) -> usize {
        let count = self.pieces.len().min(PIECES_MAX);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(match piece {
                Piece::Copied(range) => &self.copied[range.clone()],
                Piece::Shared(bytes) => bytes,
            });
        }
        count
    }

    /// So many bytes were written.
    pub(super) fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(piece) = self.pieces.front_mut() {
            let len = match piece {
                Piece::Copied(range) => range.len(),
                Piece::Shared(bytes) => bytes.len(),
            };
            if count < len {
                match piece {
                    Piece::Copied(range) => range.start += count,
                    Piece::Shared(bytes) => *bytes = bytes.slice(count..),
                }
                return;
            }
            count -= len;
            self.pieces.pop_front();
        }
        self.copied.clear();
        if self.copied.capacity() > KEEP_BYTES_MAX {
            self.copied = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_in_any_portions_it_is_the_same() {
        let payloads: Vec<Bytes> = [0, 10, 5000, 4096, 4097, 9000, 3]
            .iter()
            .map(|len| Bytes::from(vec![*len as u8; *len]))
            .collect();
        let mut expected = Vec::new();
        for payload in &payloads {
            put_frame(Kind::Data, payload, &mut expected);
        }
        for portion in [1, 7, 100, 4000, 100_000] {
            let mut output = Output::default();
            let mut written = Vec::new();
            for payload in &payloads {
                output.push(Kind::Data, payload.clone());
            }
            while !output.is_empty() {
                let mut slices = [IoSlice::new(&[]); PIECES_MAX];
                let count = output.slices(&mut slices);
                let now: Vec<u8> =
                    slices[..count].iter().flat_map(|s| s.iter()).take(portion).copied().collect();
                written.extend_from_slice(&now);
                output.advance(now.len());
            }
            assert_eq!(written, expected);
            assert!(output.pieces.is_empty() && output.copied.is_empty());
        }
    }
}
