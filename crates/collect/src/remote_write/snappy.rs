//! Snappy's block format with a bound on what comes out.

/// Why a body could not be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnappyError {
    /// It says that it is larger than is taken.
    #[error("body of {bytes} bytes when decompressed, at most {limit} are taken; send fewer samples per request")]
    TooLarge {
        /// What it says.
        bytes: usize,
        /// What is taken.
        limit: usize,
    },
    /// It says that it is larger than its compressed bytes could make.
    #[error("snappy header promises more bytes than the body can hold")]
    Lying,
    /// Not snappy's block format.
    #[error("body is not snappy (block format)")]
    Corrupt,
}

/// The densest element of the format is a copy of 64 bytes written in three.
const RATIO_MAX: usize = 22;

/// Decompresses `body` into `out`, whose first bytes (as many as are returned) are the result. `out` only grows, so
/// that a buffer that is used again is not cleared each time.
///
/// # Errors
/// When it is too large or not snappy; nothing is reserved for a length that the body cannot have.
pub fn decompress(body: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<usize, SnappyError> {
    let promised = snap::raw::decompress_len(body).map_err(|_| SnappyError::Corrupt)?;
    if promised > limit {
        return Err(SnappyError::TooLarge { bytes: promised, limit });
    }
    if promised > body.len().saturating_mul(RATIO_MAX) {
        return Err(SnappyError::Lying);
    }
    if out.len() < promised {
        out.resize(promised, 0);
    }
    let mut decoder = snap::raw::Decoder::new();
    decoder.decompress(body, &mut out[..promised]).map_err(|_| SnappyError::Corrupt)
}

/// For fuzzing: whatever the bytes, what comes out stays within the limit.
#[doc(hidden)]
pub fn fuzz_snappy(bytes: &[u8]) {
    let mut out = Vec::new();
    if let Ok(n) = decompress(bytes, &mut out, 1 << 20) {
        assert!(n <= 1 << 20, "more than the limit came out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_bodies_get_their_answer() {
        let good = snap::raw::Encoder::new().compress_vec(&[7; 5_000]).unwrap();
        let rows: [(&[u8], usize, Result<usize, SnappyError>); 7] = [
            (&good, 1 << 20, Ok(5_000)),
            (&good, 4_999, Err(SnappyError::TooLarge { bytes: 5_000, limit: 4_999 })),
            (&good[..good.len() - 1], 1 << 20, Err(SnappyError::Corrupt)),
            // An empty body is not snappy; one that says that it is empty is.
            (&[], 1 << 20, Err(SnappyError::Corrupt)),
            (&[0], 1 << 20, Ok(0)),
            (&[0xff, 0xff, 0xff, 0x0f, 1, 2], 64 << 20, Err(SnappyError::Lying)),
            (b"plain text, no snappy", 1 << 20, Err(SnappyError::Corrupt)),
        ];
        for (body, limit, want) in rows {
            let mut out = Vec::new();
            assert_eq!(decompress(body, &mut out, limit), want, "{body:?}");
        }
    }

    #[test]
    fn a_lying_header_reserves_nothing() {
        let mut out = Vec::new();
        assert!(decompress(&[0xff, 0xff, 0xff, 0x0f, 1, 2], &mut out, usize::MAX).is_err());
        assert_eq!(out.capacity(), 0);
    }

    proptest::proptest! {
        #[test]
        fn whatever_was_compressed_comes_out(data in proptest::collection::vec(0u8..4, 0..5_000)) {
            let body = snap::raw::Encoder::new().compress_vec(&data).unwrap();
            let mut out = vec![9; 10];
            let n = decompress(&body, &mut out, 1 << 20).unwrap();
            proptest::prop_assert_eq!(&out[..n], &data[..]);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            fuzz_snappy(&bytes);
        }
    }
}
