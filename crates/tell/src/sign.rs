//! Signatures of what leaves: HMAC-SHA256 (RFC 2104) over the time and the body.
//!
//! `t=UNIX_SECONDS,v1=HEX`, where `HEX` is the HMAC of `UNIX_SECONDS.BODY`. The time is signed with the body, so that a
//! message that was overheard cannot be sent again tomorrow; the version leaves room for another recipe beside it.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt::Write as _;
use subtle::ConstantTimeEq;

/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "nightshift-signature";
/// The header that names the delivery: the same one again is the same message.
pub const DELIVERY_HEADER: &str = "nightshift-delivery";

/// How far the clocks of sender and receiver may be apart, in seconds.
pub const TOLERANCE_SECS: i64 = 300;

/// Longest signature header that is read, in bytes. Ours has 81.
const HEADER_BYTES_MAX: usize = 512;

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is not `t=SECONDS,v1=HEX`.
    #[error("read the signature: it is not `t=SECONDS,v1=HEX`")]
    Malformed,
    /// It was made too long ago, or lies in the future.
    #[error("accept the signature: its time is more than {TOLERANCE_SECS} s away, check both clocks")]
    Stale,
    /// Another secret, or another body.
    #[error("accept the signature: it is not of this body and secret")]
    Mismatch,
}

fn digest(secret: &[u8], unix_secs: i64, body: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(unix_secs.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

/// The value of [`SIGNATURE_HEADER`] for this body, signed at this time (seconds since 1970, UTC).
pub fn sign(secret: &[u8], unix_secs: i64, body: &[u8]) -> String {
    let mut out = format!("t={unix_secs},v1=");
    for byte in digest(secret, unix_secs, body) {
        // Writing into a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// What a receiver does: whether the header was made with this secret for this body within [`TOLERANCE_SECS`] of `now`.
///
/// # Errors
/// Why it does not count.
pub fn verify(secret: &[u8], header: &str, body: &[u8], now_unix_secs: i64) -> Result<(), SignatureError> {
    if header.len() > HEADER_BYTES_MAX {
        return Err(SignatureError::Malformed);
    }
    let (mut time, mut given) = (None, None);
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", text)) => time = text.parse::<i64>().ok(),
            Some(("v1", text)) => given = Some(text),
            // Another recipe beside ours is not ours to judge.
            Some(_) => {}
            None => return Err(SignatureError::Malformed),
        }
    }
    let (Some(time), Some(given)) = (time, given) else { return Err(SignatureError::Malformed) };
    if time.abs_diff(now_unix_secs) > TOLERANCE_SECS.unsigned_abs() {
        return Err(SignatureError::Stale);
    }
    let whole = sign(secret, time, body);
    let wanted = whole.rsplit_once('=').map_or("", |(_, hex)| hex);
    if bool::from(wanted.as_bytes().ct_eq(given.as_bytes())) { Ok(()) } else { Err(SignatureError::Mismatch) }
}

/// Reads any bytes as a signature header: for fuzzing.
#[doc(hidden)]
pub fn fuzz_signature(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert!(verify(b"secret", &text, b"body", 1_700_000_000).is_err(), "nobody guesses a signature");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl dgst -sha256 -hmac secret` over `1700000000.{"a":1}`.
    const KNOWN: &str = "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";

    #[test]
    fn the_recipe_is_the_documented_one() {
        assert_eq!(sign(b"secret", 1_700_000_000, br#"{"a":1}"#), KNOWN);
        assert_eq!(verify(b"secret", KNOWN, br#"{"a":1}"#, 1_700_000_000), Ok(()));
        assert_eq!(verify(b"secret", KNOWN, br#"{"a":1}"#, 1_700_000_300), Ok(()));
        let spaced = KNOWN.replace(",v1", ", v9=00, v1");
        assert_eq!(verify(b"secret", &spaced, br#"{"a":1}"#, 1_699_999_700), Ok(()));
    }

    #[test]
    fn bad_headers_and_what_each_is_told() {
        use SignatureError::{Malformed, Mismatch, Stale};
        let now = 1_700_000_000;
        let long = format!("{KNOWN},{}", "x=1,".repeat(200));
        let other_time = KNOWN.replace("1700000000", "1700000001");
        let cut = &KNOWN[..KNOWN.len() - 1];
        for (header, want) in [
            ("", Malformed),
            ("t=1700000000", Malformed),
            ("v1=00", Malformed),
            ("t=soon,v1=00", Malformed),
            ("t=99999999999999999999,v1=00", Malformed),
            (long.as_str(), Malformed),
            ("t=1700000000,v1=", Mismatch),
            ("t=1700000000,v1=zz", Mismatch),
            (cut, Mismatch),
            (&other_time, Mismatch),
            ("t=1600000000,v1=00", Stale),
            ("t=-9223372036854775808,v1=00", Stale),
        ] {
            assert_eq!(verify(b"secret", header, br#"{"a":1}"#, now), Err(want), "{header}");
        }
        assert_eq!(verify(b"other", KNOWN, br#"{"a":1}"#, now), Err(Mismatch));
        assert_eq!(verify(b"secret", KNOWN, br#"{"a":2}"#, now), Err(Mismatch));
        assert_eq!(verify(b"secret", KNOWN, br#"{"a":1}"#, now + 301), Err(Stale));
    }

    #[test]
    fn the_corpus_is_replayed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/signature");
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz_signature(&std::fs::read(entry.unwrap().path()).unwrap());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            fuzz_signature(&bytes);
        }

        #[test]
        fn what_is_signed_is_accepted(
            secret in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            at in 0i64..4_000_000_000,
        ) {
            proptest::prop_assert_eq!(verify(&secret, &sign(&secret, at, &body), &body, at), Ok(()));
        }
    }
}
