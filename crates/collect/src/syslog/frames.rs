//! Messages in a TCP stream: octet counting (RFC 6587 §3.4.1) and lines, told apart message by message.

use bytes::{Buf, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Most digits of an octet count.
const COUNT_DIGITS: usize = 9;

/// One message's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub bytes: Vec<u8>,
    /// Bytes over the limit that were thrown away.
    pub missing: u64,
}

/// What the bytes at the front are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not known yet.
    Start,
    /// A counted message, of which so many bytes are to come.
    Counted(u64),
    /// A line.
    Line,
}

/// Cuts bytes into frames. Holds at most one frame of the limit.
#[derive(Debug)]
pub(super) struct Splitter {
    state: State,
    held: Vec<u8>,
    missing: u64,
    frame_max: usize,
}

impl Splitter {
    pub(super) const fn new(frame_max: usize) -> Self {
        Self { state: State::Start, held: Vec::new(), missing: 0, frame_max }
    }

    /// Whether a frame has begun and not ended.
    pub(super) fn is_inside(&self, buffer: &[u8]) -> bool {
        self.state != State::Start || !buffer.is_empty()
    }

    fn keep(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(self.frame_max.saturating_sub(self.held.len()));
        self.held.extend_from_slice(&bytes[..kept]);
        self.missing += (bytes.len() - kept) as u64;
    }

    fn done(&mut self) -> Frame {
        self.state = State::Start;
        Frame { bytes: std::mem::take(&mut self.held), missing: std::mem::take(&mut self.missing) }
    }

    /// The next whole frame of `buffer`, which is used up as far as it is understood.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        loop {
            match self.state {
                State::Start => {
                    // Some senders end counted messages with a line feed as well.
                    while matches!(buffer.first(), Some(b'\n' | b'\r' | b'\0')) {
                        buffer.advance(1);
                    }
                    if buffer.is_empty() {
                        return None;
                    }
                    let digits = buffer.iter().take_while(|b| b.is_ascii_digit()).count();
                    match buffer.get(digits..digits + 2) {
                        // A count is followed by a space and a priority; a line that begins with a number is not.
                        Some(b" <") if (1..=COUNT_DIGITS).contains(&digits) => {
                            let count = buffer[..digits].iter().fold(0, |n, d| n * 10 + u64::from(d - b'0'));
                            buffer.advance(digits + 1);
                            self.state = State::Counted(count);
                        }
                        None if (1..=COUNT_DIGITS).contains(&digits) && !buffer.contains(&b'\n') => return None,
                        _ => self.state = State::Line,
                    }
                }
                State::Counted(0) => return Some(self.done()),
                State::Counted(left) => {
                    if buffer.is_empty() {
                        return None;
                    }
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let part = buffer.split_to(n);
                    self.keep(&part);
                    self.state = State::Counted(left - n as u64);
                }
                State::Line => {
                    let newline = memchr::memchr(b'\n', buffer);
                    let part = buffer.split_to(newline.unwrap_or(buffer.len()));
                    self.keep(&part);
                    newline?;
                    buffer.advance(1);
                    return Some(self.done());
                }
            }
        }
    }

    /// What is left when the stream ends.
    pub(super) fn finish(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        let rest = buffer.split();
        self.keep(&rest);
        (!self.held.is_empty()).then(|| self.done())
    }
}

/// Frames of a stream.
#[derive(Debug)]
pub(super) struct Frames<R> {
    reader: R,
    buffer: BytesMut,
    splitter: Splitter,
    /// A frame that has begun must end within this time: a sender of a byte a second holds no connection for ever.
    limit: std::time::Duration,
    over: bool,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(reader: R, frame_max: usize, limit: std::time::Duration) -> Self {
        Self {
            reader,
            buffer: BytesMut::with_capacity(8 << 10),
            splitter: Splitter::new(frame_max),
            limit,
            over: false,
        }
    }

    /// The next frame; a last one without an end counts. `None`: the stream has ended.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        let mut deadline = None;
        while !self.over {
            if let Some(frame) = self.splitter.next(&mut self.buffer) {
                return Ok(Some(frame));
            }
            self.buffer.reserve(8 << 10);
            let read = self.reader.read_buf(&mut self.buffer);
            let n = if self.splitter.is_inside(&[]) || deadline.is_some() {
                let by = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + self.limit);
                match tokio::time::timeout_at(by, read).await {
                    Ok(n) => n?,
                    // What came is kept; the next call ends the connection.
                    Err(_) => 0,
                }
            } else {
                read.await?
            };
            if n == 0 {
                self.over = true;
                return Ok(self.splitter.finish(&mut self.buffer));
            }
            if deadline.is_none() && self.splitter.is_inside(&self.buffer) {
                deadline = Some(tokio::time::Instant::now() + self.limit);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]], max: usize) -> Vec<(String, u64)> {
        let mut splitter = Splitter::new(max);
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            frames.extend(std::iter::from_fn(|| splitter.next(&mut buffer)));
        }
        frames.extend(splitter.finish(&mut buffer));
        frames.into_iter().map(|f| (String::from_utf8_lossy(&f.bytes).into_owned(), f.missing)).collect()
    }

    fn whole(texts: &[&str]) -> Vec<(String, u64)> {
        texts.iter().map(|t| ((*t).to_owned(), 0)).collect()
    }

    #[test]
    fn counted_and_lines_mix() {
        assert_eq!(split(&[b"5 <1>ab7 <2>c\nde<3>f\n<4>g"], 99), whole(&["<1>ab", "<2>c\nde", "<3>f", "<4>g"]));
        assert_eq!(split(&[b"5", b" ", b"<1", b">ab\n<2>", b"c\n"], 99), whole(&["<1>ab", "<2>c"]));
        assert_eq!(split(&[b"12 apples\n99\n"], 99), whole(&["12 apples", "99"]));
    }

    #[test]
    fn giants_and_lies_are_bounded() {
        assert_eq!(split(&[b"10 <1>abcdefg<2>z\n"], 5), [("<1>ab".into(), 5), ("<2>z".into(), 0)]);
        assert_eq!(split(&[&[b'x'; 1000], b"\n<1>a\n"], 4), [("xxxx".into(), 996), ("<1>a".into(), 0)]);
        // A count of a gigabyte: the frame ends with the stream.
        assert_eq!(split(&[b"999999999 <1>a"], 99), whole(&["<1>a"]));
        // More digits than a count has: a line.
        assert_eq!(split(&[b"9999999999 <1>a\n"], 99), whole(&["9999999999 <1>a"]));
        assert_eq!(split(&[b"0 <1>a\n"], 99), whole(&["", "<1>a"]));
        assert_eq!(split(&[b"\n\r\n\0"], 99), whole(&[]));
    }

    proptest::proptest! {
        #[test]
        fn pieces_do_not_matter(text in "([0-9]{1,2} )?[<>0-9a-c \n]{0,60}", cut in 0usize..60) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            proptest::prop_assert_eq!(split(&[&bytes[..cut], &bytes[cut..]], 8), split(&[bytes], 8));
        }
    }
}
