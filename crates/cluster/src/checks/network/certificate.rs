//! Certificates: what is read of them, and whether one stands for a host.

use nightshift_model::Timestamp;
use std::net::IpAddr;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;

/// Certificates that are read of one bundle at most.
const CERTIFICATES_MAX: usize = 64;
/// Names that are read of one certificate at most.
const NAMES_MAX: usize = 256;
/// Longest bundle that is read, bytes.
const BYTES_MAX: usize = 512 << 10;

/// What is read of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    /// Hosts that it stands for, lower case; the common name where it lists none.
    pub(super) names: Vec<String>,
    /// Addresses that it stands for.
    pub(super) addresses: Vec<IpAddr>,
    /// Valid from.
    pub(super) from: Timestamp,
    /// Valid until.
    pub(super) until: Timestamp,
    /// Name of who issued it, for people.
    pub(super) issuer: String,
    issuer_raw: Vec<u8>,
    subject_raw: Vec<u8>,
    key: Vec<u8>,
    own_key_id: Option<Vec<u8>>,
    issuer_key_id: Option<Vec<u8>>,
}

/// Reads the certificates of a PEM text, the first one first.
///
/// # Errors
/// When there is none, or one cannot be read: what is wrong, for people.
pub(super) fn read(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    if pem.len() > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    let mut all = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let n = all.len() + 1;
        let block = block.map_err(|_| format!("certificate {n} is no PEM block"))?;
        if !block.label.ends_with("CERTIFICATE") {
            continue;
        }
        let parsed = block.parse_x509().map_err(|_| format!("certificate {n} is no X.509 certificate"))?;
        all.push(Certificate::of(&parsed).ok_or_else(|| format!("certificate {n} has no validity that can be read"))?);
        if all.len() >= CERTIFICATES_MAX {
            break;
        }
    }
    if all.is_empty() { Err("it holds no certificate (no PEM block `BEGIN CERTIFICATE`)".to_owned()) } else { Ok(all) }
}

impl Certificate {
    fn of(parsed: &X509Certificate<'_>) -> Option<Self> {
        let mut names = Vec::new();
        let mut addresses = Vec::new();
        let (mut own_key_id, mut issuer_key_id) = (None, None);
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(list) => {
                    for name in list.general_names.iter().take(NAMES_MAX) {
                        match name {
                            GeneralName::DNSName(host) => names.push(host.to_ascii_lowercase()),
                            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                            _ => {}
                        }
                    }
                }
                ParsedExtension::SubjectKeyIdentifier(id) => own_key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    issuer_key_id = id.key_identifier.as_ref().map(|k| k.0.to_vec());
                }
                _ => {}
            }
        }
        if names.is_empty() && addresses.is_empty() {
            let common = parsed.subject().iter_common_name().filter_map(|n| n.as_str().ok());
            names.extend(common.map(str::to_ascii_lowercase));
        }
        let validity = parsed.validity();
        Some(Self {
            names,
            addresses,
            from: Timestamp::from_secs(validity.not_before.timestamp()),
            until: Timestamp::from_secs(validity.not_after.timestamp()),
            issuer: parsed.issuer().to_string().chars().take(200).collect(),
            issuer_raw: parsed.issuer().as_raw().to_vec(),
            subject_raw: parsed.subject().as_raw().to_vec(),
            key: parsed.public_key().raw.to_vec(),
            own_key_id,
            issuer_key_id,
        })
    }

    /// Whether it stands for a host (or wildcard, as a route writes it).
    pub(super) fn covers(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        self.names.iter().any(|name| {
            let name = name.trim_end_matches('.');
            // A star stands for one label, and only the first.
            name == host
                || name.strip_prefix("*.").is_some_and(|rest| {
                    host.split_once('.').is_some_and(|(first, tail)| !first.is_empty() && first != "*" && tail == rest)
                })
        })
    }

    /// What it stands for, in words.
    pub(super) fn stands_for(&self) -> String {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let all: Vec<String> = self.names.iter().cloned().chain(addresses).collect();
        let shown = all.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        match all.len() {
            0 => "no host".to_owned(),
            1..=5 => shown,
            n => format!("{shown} and {} more", n - 5),
        }
    }

    /// Whether that one may have issued this one: names and key ids agree. No signature is computed.
    pub(super) fn issued_by(&self, authority: &Self) -> bool {
        let ids = match (&self.issuer_key_id, &authority.own_key_id) {
            (Some(wanted), Some(has)) => wanted == has,
            _ => true,
        };
        self.issuer_raw == authority.subject_raw && ids
    }

    /// Whether both are for one key and name.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.key == other.key && self.subject_raw == other.subject_raw
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For `*.example.com`, self-signed; its key was thrown away.
    const WILD: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBSjCB8aADAgECAgIQATAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDAR3aWxkMCAX\n\
DTI1MDEwMTAwMDAwMFoYDzIwOTkxMjMxMDAwMDAwWjAPMQ0wCwYDVQQDDAR3aWxk\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4HuPvFtaRv6ODOcqRM811x+6crz4\n\
g4UdMTaj3WZ7sisn6klTzpFrNj1y5DcJQYwJKxyXzYOqk6DOalFhiyE2LqM7MDkw\n\
GAYDVR0RBBEwD4INKi5leGFtcGxlLmNvbTAdBgNVHQ4EFgQUTDEd0uZPUAo5UdX/\n\
Ckeu+MkyLVcwCgYIKoZIzj0EAwIDSAAwRQIhAL9349eXdE0WrK71xA7Hexiud11r\n\
cmJoJlCoVXZyBMvBAiAVeQGEojwXDNkYFRWDJZBmqFeObDlGvmxuUc7H51mfYw==\n\
-----END CERTIFICATE-----\n";
    /// An authority that signed nothing of the above.
    const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBEzCBuwICEAUwCgYIKoZIzj0EAwIwFTETMBEGA1UEAwwKd2ViaG9vay1jYTAg\n\
Fw0yNTAxMDEwMDAwMDBaGA8yMDk5MTIzMTAwMDAwMFowFTETMBEGA1UEAwwKd2Vi\n\
aG9vay1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDJ3W6RdQ2VsCKLcCHYw\n\
Wa1V490j8JowY/YWjyAXJxBRfsfjNSLgGaB1pOIY2bf5ESPz1z42Mwl6UOKEFE5R\n\
xXAwCgYIKoZIzj0EAwIDRwAwRAIgC6BPR0Hvj2WyUEzBFRaHpZzlyjCWQw5RgKJ+\n\
qwGlqvMCIDnnBlmToHSHvxXpTo6re2C/lW2vdgE7DMt9QR9/mkV/\n\
-----END CERTIFICATE-----\n";

    #[test]
    fn a_star_stands_for_one_label() {
        let all = read(WILD.as_bytes()).unwrap();
        let is = |host: &str| all[0].covers(host);
        assert!(is("shop.example.com") && is("SHOP.example.com.") && is("*.example.com"));
        assert!(!is("example.com") && !is("a.b.example.com") && !is("shop.example.org") && !is(".example.com"));
        assert_eq!(all[0].until.to_rfc3339(), "2099-12-31T00:00:00Z");
        assert_eq!(all[0].stands_for(), "*.example.com");
    }

    #[test]
    fn issuers_are_told_apart() {
        let bundle = read(format!("{AUTHORITY}{WILD}").as_bytes()).unwrap();
        let leaf = &read(WILD.as_bytes()).unwrap()[0];
        assert_eq!(bundle.len(), 2);
        assert!(!leaf.issued_by(&bundle[0]) && leaf.issued_by(&bundle[1]) && leaf.same(&bundle[1]));
    }

    #[test]
    fn what_is_no_certificate_says_so() {
        for (bad, says) in [
            ("", "holds no certificate"),
            ("hello", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n", "no X.509"),
            ("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n", "no PEM"),
        ] {
            let why = read(bad.as_bytes()).unwrap_err();
            assert!(why.contains(says), "{bad}: {why}");
        }
        assert!(read(&vec![b'x'; BYTES_MAX + 1]).unwrap_err().contains("more than"));
    }

    proptest::proptest! {
        #[test]
        fn any_change_of_a_certificate_is_read_or_refused(at in 0usize..500, byte in 0u8..=255) {
            let mut pem = WILD.as_bytes().to_vec();
            let at = at % pem.len();
            pem[at] = byte;
            if let Ok(all) = read(&pem) {
                all[0].covers("shop.example.com");
            }
        }
    }
}
