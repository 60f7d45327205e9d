//! Hashes that never change: fingerprints, shards and ids are written to disk and compared across machines.

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

/// 64-bit hash of some bytes (XXH3).
pub fn hash64(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// 128-bit hash of parts, each preceded by its length, so that `["ab","c"]` and `["a","bc"]` differ.
pub fn hash128(parts: &[&[u8]]) -> u128 {
    if let [only] = parts {
        return xxh3_128(only);
    }
    let mut h = Xxh3::new();
    for part in parts {
        h.update(&(part.len() as u64).to_le_bytes());
        h.update(part);
    }
    h.digest128()
}

/// Shard of an entity: 0..[`crate::SHARDS`].
pub fn shard_of(tenant: &str, cluster: &str, entity: &str) -> u32 {
    (hash128(&[tenant.as_bytes(), cluster.as_bytes(), entity.as_bytes()]) % u128::from(crate::SHARDS)) as u32
}

/// Fingerprint of one series: its tenant, entity and labels in the wire form of [`crate::batch`].
pub fn series_fingerprint(tenant: &str, entity: &str, labels: &[u8]) -> u64 {
    (hash128(&[tenant.as_bytes(), entity.as_bytes(), labels]) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These values are on disks: a change here orphans every snapshot and every incident id.
    #[test]
    fn values_are_pinned() {
        assert_eq!(hash64(b"nightshift"), 0xa8ea_6037_8308_8dbf_u64, "{:#x}", hash64(b"nightshift"));
        assert_eq!(shard_of("default", "local", "local/host/-/web1"), 19);
        assert_ne!(hash128(&[b"ab", b"c"]), hash128(&[b"a", b"bc"]));
    }
}
