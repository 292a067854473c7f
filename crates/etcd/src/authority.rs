//! Connections of clients that give a whole URL for the authority of their requests.
//!
//! The etcd clients up to 3.4 do that when they call one endpoint by name (`http://host:port` where `host:port` belongs). A
//! server of HTTP/2 must refuse such a request, and ours does, before anybody here sees it. So the bytes that come in are
//! looked at until the first request has passed, and the name in it is put right there. Later requests of the connection
//! refer to the first one's header, in a table that both sides keep (RFC 7541, section 2.3); a name of the same length keeps
//! the two alike. Nothing here goes by the authority, so it does not matter that it becomes a strange name.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Longest frame that a client may send, since we ask for nothing else (RFC 9113, section 4.2).
const FRAME_BYTES_MAX: usize = 16_384;
/// The place of `:authority` in the table that every connection begins with.
const AUTHORITY: usize = 1;

/// A connection whose first request is put right.
pub(crate) struct Lenient<IO> {
    io: IO,
    looking: Looking,
    /// What has come in and was not looked at yet.
    held: BytesMut,
    /// What may be read.
    passed: BytesMut,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Looking {
    /// For what every connection of HTTP/2 begins with.
    ForPreface,
    /// For the first request.
    ForHeaders,
    /// Not any more.
    No,
}

impl<IO> Lenient<IO> {
    pub(crate) fn new(io: IO) -> Self {
        let (held, passed) = (BytesMut::new(), BytesMut::new());
        Self { io, looking: Looking::ForPreface, held, passed }
    }

    fn pass_all(&mut self) {
        self.looking = Looking::No;
        self.passed.unsplit(self.held.split());
    }

    /// Lets pass what is complete.
    fn look(&mut self) {
        if self.looking == Looking::ForPreface {
            let known = self.held.len().min(PREFACE.len());
            if self.held[..known] != PREFACE[..known] {
                return self.pass_all();
            }
            if known < PREFACE.len() {
                return;
            }
            self.passed.unsplit(self.held.split_to(known));
            self.looking = Looking::ForHeaders;
        }
        while self.looking == Looking::ForHeaders && self.held.len() >= FRAME_HEAD_BYTES {
            let length = usize::from(self.held[0]) << 16
                | usize::from(self.held[1]) << 8
                | usize::from(self.held[2]);
            if length > FRAME_BYTES_MAX {
                return self.pass_all();
            }
            if self.held.len() < FRAME_HEAD_BYTES + length {
                return;
            }
            let frame = self.held.split_to(FRAME_HEAD_BYTES + length);
            if frame[3] != HEADERS {
                self.passed.unsplit(frame);
                continue;
            }
            match put_right(&frame) {
                Some(better) => self.passed.extend_from_slice(&better),
                None => self.passed.unsplit(frame),
            }
            return self.pass_all();
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Lenient<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.passed.is_empty() {
                let count = this.passed.len().min(out.remaining());
                out.put_slice(&this.passed[..count]);
                this.passed.advance(count);
                return Poll::Ready(Ok(()));
            }
            if this.looking == Looking::No {
                return Pin::new(&mut this.io).poll_read(cx, out);
            }
            let mut bytes = [0; 4096];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // The end. What is incomplete is for others to complain about.
                this.pass_all();
                continue;
            }
            this.held.extend_from_slice(read.filled());
            this.look();
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Lenient<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// The frame with a proper authority, if it had a URL there.
fn put_right(frame: &[u8]) -> Option<Vec<u8>> {
    let flags = frame[4];
    let padding = if flags & PADDED == 0 { 0 } else { usize::from(*frame.get(FRAME_HEAD_BYTES)?) };
    let begin = FRAME_HEAD_BYTES
        + usize::from(flags & PADDED != 0)
        + if flags & PRIORITY == 0 { 0 } else { 5 };
    let block = frame.get(begin..frame.len().checked_sub(padding)?)?;
    let (from, to, authority) = authority(block)?;
    if !authority.contains("://") {
        return None;
    }
    let proper = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' => byte,
        _ => b'.',
    };
    let mut better = frame[..begin + from].to_vec();
    put_length(authority.len(), &mut better);
    better.extend(authority.bytes().map(proper));
    better.extend_from_slice(&frame[begin + to..]);
    let length = better.len() - FRAME_HEAD_BYTES;
    if length > FRAME_BYTES_MAX {
        return None;
    }
    better[..3].copy_from_slice(&u32::try_from(length).ok()?.to_be_bytes()[1..]);
    Some(better)
}

/// Where in a header block the authority is, with its length in front, and what it says. Fields are as in RFC 7541, section 6.
fn authority(block: &[u8]) -> Option<(usize, usize, String)> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        let (prefix_bits, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let name = take_number(block, &mut at, prefix_bits)?;
        if !is_literal {
            continue;
        }
        if name == 0 {
            take_text(block, &mut at)?;
        }
        let from = at;
        let value = take_text(block, &mut at)?;
        if name == AUTHORITY {
            let (huffman, bytes) = value;
            let text = if huffman { unpack(bytes)? } else { bytes.to_vec() };
            return Some((from, at, String::from_utf8(text).ok()?));
        }
    }
    None
}

/// RFC 7541, section 5.1.
fn take_number(block: &[u8], at: &mut usize, prefix_bits: u32) -> Option<usize> {
    let most = (1 << prefix_bits) - 1;
    let first = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if first < most {
        return Some(first);
    }
    let mut number = most;
    // Nothing in a frame is longer than three of these say.
    for shift in [0, 7, 14] {
        let byte = *block.get(*at)?;
        *at += 1;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// RFC 7541, section 5.2: whether the text is packed, and its bytes.
fn take_text<'a>(block: &'a [u8], at: &mut usize) -> Option<(bool, &'a [u8])> {
    let packed = block.get(*at)? & 0x80 != 0;
    let length = take_number(block, at, 7)?;
    let bytes = block.get(*at..at.checked_add(length)?)?;
    *at += length;
    Some((packed, bytes))
}

/// The length of a text that is not packed.
fn put_length(length: usize, out: &mut Vec<u8>) {
    if length < 0x7f {
        out.push(length.to_le_bytes()[0]);
        return;
    }
    out.push(0x7f);
    let mut rest = length - 0x7f;
    while rest >= 0x80 {
        out.push((rest & 0x7f).to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

/// The characters with codes of so many bits (RFC 7541, appendix B). Codes of one length follow each other, and those of the
/// next length follow them; longer ones are of characters that no URL has.
const CODES: [(u32, &[u8]); 8] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
];

/// What a packed text says; `None` if it has other characters.
fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let bits = bytes.len() * 8;
    let bit = |at: usize| u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let mut at = 0;
    'text: while at < bits {
        let (mut code, mut length) = (0, 0);
        // The first code of a length, were all those before it used up.
        let (mut first, mut first_length) = (0, 0);
        for (code_length, characters) in CODES {
            while length < code_length {
                if at + usize::try_from(length).ok()? >= bits {
                    // What is left are ones, fewer than a byte of them: padding.
                    let is_padding = length < 8 && code + 1 == 1 << length;
                    return is_padding.then_some(text);
                }
                code = code << 1 | bit(at + usize::try_from(length).ok()?);
                length += 1;
            }
            first <<= code_length - first_length;
            first_length = code_length;
            let place = usize::try_from(code.checked_sub(first)?).ok()?;
            if let Some(character) = characters.get(place) {
                text.push(*character);
                at += usize::try_from(length).ok()?;
                continue 'text;
            }
            first += u32::try_from(characters.len()).ok()?;
        }
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn bytes_of(hex: &str) -> Vec<u8> {
        let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16);
        (0..hex.len()).step_by(2).map(|at| digits(at).expect("hexadecimal digits")).collect()
    }

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("a short frame").to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        frame.extend_from_slice(content);
        frame
    }

    /// The header block of a client of 3.4 that asks `http://127.0.0.1:45999` for its status.
    const BLOCK: &str = "8386459760a924882d9dcb6571afa066a925a87510ac6e48d36a3f41909d29aee30c044eae05c0b86e34dbefbf5f\
        8b1d75d0620d263d4c4d65647a8b9acac8b4c7602bb2caecff40027465864d833505b11f";
    const WRONG: &str = "http://127.0.0.1:45999";
    const RIGHT: &str = "http...127.0.0.1.45999";

    async fn passed(chunks: &[&[u8]]) -> Vec<u8> {
        let mut io = tokio_test_io(chunks);
        let mut all = Vec::new();
        io.read_to_end(&mut all).await.expect("nothing fails");
        all
    }

    /// A connection on which these chunks arrive, one by one.
    fn tokio_test_io(chunks: &[&[u8]]) -> Lenient<impl AsyncRead + Unpin + use<>> {
        struct Chunks(std::collections::VecDeque<Vec<u8>>);
        impl AsyncRead for Chunks {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                out: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                if let Some(chunk) = self.0.pop_front() {
                    out.put_slice(&chunk);
                }
                Poll::Ready(Ok(()))
            }
        }
        Lenient::new(Chunks(chunks.iter().map(|chunk| chunk.to_vec()).collect()))
    }

    #[test]
    fn the_authority_is_found_and_made_a_name_of_the_same_length() {
        let block = bytes_of(&BLOCK.replace(char::is_whitespace, ""));
        assert_eq!(authority(&block).expect("it has one").2, WRONG);
        let right = put_right(&frame(HEADERS, 4, &block)).expect("it is wrong");
        let (from, to, said) = authority(&right[9..]).expect("it still has one");
        assert_eq!(said, RIGHT);
        assert_eq!(usize::from(right[2]) + 9, right.len());
        let (old_from, old_to, _) = authority(&block).expect("it has one");
        assert_eq!((from, &right[9..9 + from]), (old_from, &block[..old_from]));
        assert_eq!(right[9 + to..], block[old_to..]);
        assert_eq!(put_right(&right), None, "nothing is left to be done");
    }

    #[test]
    fn every_character_of_urls_can_be_read() {
        // `[::1]` and letters of every length of code.
        assert_eq!(unpack(&bytes_of("9d29aee30c044eae05c0b86e34dbefbf")), Some(WRONG.into()));
        // RFC 7541, appendix C.4.
        assert_eq!(
            unpack(&bytes_of("f1e3c2e5f23a6ba0ab90f4ff")),
            Some(b"www.example.com".to_vec())
        );
        assert_eq!(unpack(&bytes_of("25a849e95bb8e8b4bf")), Some(b"custom-value".to_vec()));
        assert_eq!(unpack(&[0xff; 4]), None);
        assert_eq!(unpack(&[]), Some(Vec::new()));
    }

    #[tokio::test]
    async fn only_the_first_request_of_http_2_is_changed_however_it_arrives() {
        let block = bytes_of(&BLOCK.replace(char::is_whitespace, ""));
        let settings = frame(4, 0, &[]);
        let wrong = frame(HEADERS, 4, &block);
        let right = put_right(&wrong).expect("it is wrong");
        let all = [PREFACE, &settings, &wrong, &settings, &wrong, b"rest"].concat();
        let expected = [PREFACE, &settings, &right, &settings, &wrong, b"rest"].concat();
        for size in [1, 2, 3, 7, 24, 25, 100, 4096] {
            let chunks: Vec<&[u8]> = all.chunks(size).collect();
            assert!(passed(&chunks).await == expected, "in chunks of {size}");
        }
    }

    #[tokio::test]
    async fn everything_else_passes_as_it_is() {
        let broken = [PREFACE, &[0xff; 40]].concat();
        let short = [PREFACE, &[0, 0, 9, 1, 0x2c, 0, 0, 0, 1, 200, 0x41]].concat();
        for bytes in [&b"GET /health HTTP/1.1\r\n\r\n"[..], b"PRI", b"", &broken, &short] {
            assert_eq!(passed(&[bytes]).await, bytes);
        }
    }

    #[test]
    fn arbitrary_frames_do_no_harm() {
        let mut state = 7_u64;
        for length in 0..2000 {
            let content: Vec<u8> = (0..length % 60)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56).to_le_bytes()[0]
                })
                .collect();
            let _ = put_right(&frame(HEADERS, (state >> 40).to_le_bytes()[0], &content));
        }
    }
}
