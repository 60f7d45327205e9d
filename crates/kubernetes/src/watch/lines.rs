//! Lines of a streamed answer, each of bounded length.

use crate::client::KubeError;
use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use kube::client::Body;

/// Reads lines and never holds more than the limit and one frame.
pub(crate) struct Lines {
    body: Body,
    buffer: BytesMut,
    /// Bytes that are known to have no end of line.
    searched: usize,
    line_max: usize,
}

impl Lines {
    pub(crate) fn new(body: Body, line_max: usize) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0, line_max }
    }

    /// The next line that is not empty; `None` at the end. A last line without an end is dropped: it is half an object.
    ///
    /// # Errors
    /// When the connection breaks, or a line is too long.
    pub(crate) async fn next(&mut self, url: &str) -> Result<Option<BytesMut>, KubeError> {
        loop {
            while let Some(end) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
                let mut line = self.buffer.split_to(self.searched + end + 1);
                self.searched = 0;
                line.truncate(line.len() - 1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                if !line.is_empty() {
                    return Ok(Some(line));
                }
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.line_max {
                self.buffer.advance(self.buffer.len());
                return Err(KubeError::TooLarge(self.line_max));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|e| crate::client::of_kube(&e, url))?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_whole_and_bounded() {
        let mut lines = Lines::new(Body::from(b"one\r\n\ntwo\nhalf".to_vec()), 10);
        assert_eq!(&lines.next("").await.unwrap().unwrap()[..], b"one");
        assert_eq!(&lines.next("").await.unwrap().unwrap()[..], b"two");
        assert_eq!(lines.next("").await.unwrap(), None);
        let mut lines = Lines::new(Body::from(vec![b'x'; 100]), 10);
        assert_eq!(lines.next("").await.unwrap_err(), KubeError::TooLarge(10));
    }
}
