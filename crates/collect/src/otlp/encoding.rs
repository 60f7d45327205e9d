//! Bodies of OTLP over HTTP: compression and the two spellings of its messages.

use std::io::Read;

/// Largest window that a zstd frame may ask for, as a power of two (8 MiB, what its format asks every decoder to do).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// By the `Content-Encoding` header; `None` for one that is not taken.
    pub(crate) fn parse(header: Option<&str>) -> Option<Self> {
        match header.map(|h| h.trim().to_ascii_lowercase()).as_deref() {
            None | Some("" | "identity") => Some(Self::None),
            Some("gzip" | "x-gzip") => Some(Self::Gzip),
            Some("zstd") => Some(Self::Zstd),
            Some(_) => None,
        }
    }
}

/// Why a body was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Larger than is taken.
    #[error("body has more than {limit_bytes} bytes when decompressed; send smaller batches")]
    TooLarge {
        /// What is taken.
        limit_bytes: usize,
    },
    /// Not compressed as it says.
    #[error("body is not {0}")]
    Compression(&'static str),
    /// Not the message.
    #[error("body is not OTLP protobuf: {0}")]
    Protobuf(String),
    /// Not the message.
    #[error("body is not OTLP JSON: {0}")]
    Json(String),
}

/// The spelling of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

impl Format {
    /// By the `Content-Type` header; `None` for one that is not taken.
    pub(crate) fn parse(header: Option<&str>) -> Option<Self> {
        let media = header?.split(';').next()?.trim().to_ascii_lowercase();
        match media.as_str() {
            "application/x-protobuf" | "application/protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Its media type.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    /// Reads a message.
    pub(crate) fn decode<T: prost::Message + Default + serde::de::DeserializeOwned>(
        self,
        bytes: &[u8],
    ) -> Result<T, DecodeError> {
        match self {
            Self::Protobuf => T::decode(bytes).map_err(|e| DecodeError::Protobuf(e.to_string())),
            Self::Json => serde_json::from_slice(bytes).map_err(|e| DecodeError::Json(e.to_string())),
        }
    }
}

/// Decompresses a body, at most to `limit` bytes.
pub(crate) fn decompress(
    body: &[u8],
    compression: Compression,
    limit: usize,
) -> Result<std::borrow::Cow<'_, [u8]>, DecodeError> {
    let too_large = DecodeError::TooLarge { limit_bytes: limit };
    let (mut reader, name): (Box<dyn Read + '_>, _) = match compression {
        Compression::None if body.len() > limit => return Err(too_large),
        Compression::None => return Ok(body.into()),
        Compression::Gzip => (Box::new(flate2::read::MultiGzDecoder::new(body)), "gzip"),
        Compression::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(body).map_err(|_| DecodeError::Compression("zstd"))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| DecodeError::Compression("zstd"))?;
            (Box::new(decoder), "zstd")
        }
    };
    let mut out = Vec::new();
    let taken = reader.by_ref().take(limit as u64 + 1).read_to_end(&mut out);
    if out.len() > limit {
        return Err(too_large);
    }
    taken.map_err(|_| DecodeError::Compression(name))?;
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(data).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn bodies_are_decompressed_within_the_limit() {
        let data = vec![7u8; 100_000];
        let zstd = zstd::encode_all(&data[..], 3).unwrap();
        let gz = gzip(&data);
        for (body, compression) in [(&gz, Compression::Gzip), (&zstd, Compression::Zstd), (&data, Compression::None)] {
            assert_eq!(decompress(body, compression, 100_000).unwrap(), data);
            assert_eq!(
                decompress(body, compression, 99_999),
                Err(DecodeError::TooLarge { limit_bytes: 99_999 }),
                "{compression:?}"
            );
        }
        for (body, compression, name) in [
            (&gz[..20], Compression::Gzip, "gzip"),
            (&b"plain"[..], Compression::Gzip, "gzip"),
            (&zstd[..6], Compression::Zstd, "zstd"),
            (&b"plain"[..], Compression::Zstd, "zstd"),
        ] {
            assert_eq!(decompress(body, compression, 1 << 20), Err(DecodeError::Compression(name)));
        }
    }

    #[test]
    fn headers_decide() {
        assert_eq!(Compression::parse(Some("GZIP")), Some(Compression::Gzip));
        assert_eq!(Compression::parse(Some("br")), None);
        assert_eq!(Format::parse(Some("application/json; charset=utf-8")), Some(Format::Json));
        assert_eq!((Format::parse(Some("text/plain")), Format::parse(None)), (None, None));
    }
}
