//! Signatures of orders: HMAC-SHA256 (RFC 2104) over the time and the body, the recipe that our letters use too.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt::Write as _;

/// The header that carries it.
pub const SIGNATURE_HEADER: &str = "nightshift-signature";

/// `t=UNIX_SECONDS,v1=HEX`, where `HEX` is the HMAC of `UNIX_SECONDS.BODY`.
pub fn sign(secret: &[u8], unix_secs: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(unix_secs.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut out = format!("t={unix_secs},v1=");
    for byte in mac.finalize().into_bytes() {
        // Writing into a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_recipe_in_the_docs() {
        // printf '1700000000.{"version":1}' | openssl dgst -sha256 -hmac s3cret
        let want = "t=1700000000,v1=a88b61052c4236878628e418fb04bb6048d23e65d5ad3c5daf2866200cb2994f";
        assert_eq!(sign(b"s3cret", 1_700_000_000, br#"{"version":1}"#), want);
    }
}
