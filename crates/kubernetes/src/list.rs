//! Whole lists, page by page.
//!
//! A page is decoded into the compact views straight from its bytes, and the bytes are dropped before the next is asked
//! for: what a list needs at a time is one page and what is kept of it.

use crate::client::{ApiServer, KubeError};
use crate::discovery::Endpoint;
use nightshift_cluster::World;

/// Objects of a page.
const PAGE: usize = 500;
/// Largest page, bytes. One that is larger (500 config maps of a megabyte) is asked for again in smaller pieces.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// A list whose later pages have expired is begun again this often.
const RESTARTS_MAX: u32 = 3;

/// Lists a kind, of the whole cluster or of a namespace, into a new world that holds nothing else; gives the version from
/// which a watch goes on.
///
/// # Errors
/// When it is refused, or the server does not answer although it was asked several times.
pub async fn list(
    server: &ApiServer,
    endpoint: &Endpoint,
    namespace: Option<&str>,
) -> Result<(World, String), KubeError> {
    let base = endpoint.path(namespace);
    let (mut restarts, mut page) = (0, PAGE);
    'whole: loop {
        let mut world = World::default();
        let mut next = String::new();
        loop {
            let mut path = format!("{base}?limit={page}");
            if !next.is_empty() {
                path.push_str("&continue=");
                escape(&next, &mut path);
            }
            match server.get_patiently(&path, PAGE_BYTES_MAX).await {
                Ok(bytes) => {
                    let (token, version) = endpoint.kind.read(&mut world, &bytes)?;
                    if token.is_empty() {
                        return Ok((world, version));
                    }
                    next = token;
                }
                Err(KubeError::TooLarge(_)) if page > 1 => page = (page / 8).max(1),
                Err(KubeError::Gone) if restarts < RESTARTS_MAX => {
                    restarts += 1;
                    continue 'whole;
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// Percent-encodes a value of a query.
pub(crate) fn escape(value: &str, out: &mut String) {
    use std::fmt::Write as _;
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}
