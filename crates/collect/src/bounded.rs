//! Lines of a stream, each of bounded length, whatever the other side sends.

use bytes::{Buf, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// One line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub bytes: Vec<u8>,
    /// Bytes over the limit that were thrown away.
    pub missing: u64,
}

/// Reads lines and never holds more than the limit and one buffer.
#[derive(Debug)]
pub(crate) struct BoundedLines<R> {
    reader: R,
    buffer: BytesMut,
    held: Vec<u8>,
    missing: u64,
    line_max: usize,
}

impl<R: AsyncRead + Unpin> BoundedLines<R> {
    pub(crate) fn new(reader: R, line_max: usize) -> Self {
        Self { reader, buffer: BytesMut::with_capacity(16 << 10), held: Vec::new(), missing: 0, line_max }
    }

    /// The next line; a last one without an end counts. `None`: the stream has ended. Cancelling loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if !self.buffer.is_empty() {
                let newline = memchr::memchr(b'\n', &self.buffer);
                let part = newline.unwrap_or(self.buffer.len());
                let kept = part.min(self.line_max.saturating_sub(self.held.len()));
                self.held.extend_from_slice(&self.buffer[..kept]);
                self.missing += (part - kept) as u64;
                self.buffer.advance(part + usize::from(newline.is_some()));
                if newline.is_some() {
                    return Ok(Some(self.line()));
                }
            }
            self.buffer.reserve(16 << 10);
            // `read_buf` is cancel safe: bytes are in the buffer or still in the stream.
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                let rest = !self.held.is_empty() || self.missing > 0;
                return Ok(rest.then(|| self.line()));
            }
        }
    }

    fn line(&mut self) -> Line {
        let mut bytes = std::mem::take(&mut self.held);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Line { bytes, missing: std::mem::take(&mut self.missing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_the_last_counts() {
        let text = format!("a\r\n\n{}\nend", "x".repeat(100_000));
        let mut lines = BoundedLines::new(text.as_bytes(), 10);
        let mut got = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            got.push((String::from_utf8(line.bytes).unwrap(), line.missing));
        }
        let want = [("a".to_owned(), 0), (String::new(), 0), ("x".repeat(10), 99_990), ("end".to_owned(), 0)];
        assert_eq!(got, want);
    }
}
