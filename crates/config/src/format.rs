//! Texts with a form: listen addresses, addresses, URIs.

use std::net::{IpAddr, SocketAddr};

/// Why `text` does not have the form, and what to write; `None` when it has, or the form is none of ours.
pub(crate) fn wrong(format: &str, text: &str) -> Option<(String, String)> {
    match format {
        "listen" => listen(text).map(|why| (format!("is not a listen address: {why}"), EXAMPLE_LISTEN.to_owned())),
        "ip" | "ipv4" | "ipv6" => {
            let ok = match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => format != "ipv6",
                Ok(IpAddr::V6(_)) => format != "ipv4",
                Err(_) => false,
            };
            (!ok).then(|| ("is not an IP address".to_owned(), "write one such as \"192.0.2.1\" or \"::1\"".to_owned()))
        }
        "uri" | "url" => uri(text)
            .map(|why| (format!("is not a URL: {why}"), "write one such as \"http://127.0.0.1:9090\"".to_owned())),
        _ => None,
    }
}

/// Formats that [`wrong`] knows, and those that only size a number.
pub(crate) const KNOWN: &[&str] = &[
    "listen", "ip", "ipv4", "ipv6", "uri", "url", "int8", "int16", "int32", "int64", "int128", "int", "uint8",
    "uint16", "uint32", "uint64", "uint128", "uint", "float", "double",
];

const EXAMPLE_LISTEN: &str = "write ADDRESS:PORT such as \"127.0.0.1:8080\"; port 0 picks a free one";

fn listen(text: &str) -> Option<String> {
    if text.parse::<SocketAddr>().is_ok() {
        return None;
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Some(if text.parse::<u16>().is_ok() { "the address is missing" } else { "the port is missing" }.into());
    };
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Some("the port is not a number".into());
    }
    if port.parse::<u16>().is_err() {
        return Some(format!("port {port} is above 65535"));
    }
    if host.is_empty() {
        return Some("the address is missing".into());
    }
    if text.matches(':').count() > 1 {
        return Some("an IPv6 address stands in brackets, [::1]:8080".into());
    }
    if host == "localhost" {
        return Some("a name can stand for several addresses; write 127.0.0.1".into());
    }
    Some(format!("`{host}` is not an IP address"))
}

fn uri(text: &str) -> Option<String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Some("it has no scheme".into());
    };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if !scheme_ok {
        return Some(format!("`{scheme}` is not a scheme"));
    }
    if rest.is_empty() || rest.starts_with(['/', ':', '?', '#']) && scheme != "file" {
        return Some("it has no host".into());
    }
    text.contains(|c: char| c.is_whitespace() || c.is_control()).then(|| "it has white space in it".into())
}

/// Why a URL that may hold a password cannot stand in the open. The text is not repeated.
///
/// # Errors
/// It is no URL, or a password is in it: between `:` and `@`, or as a parameter.
pub(crate) fn open_url(text: &str) -> Result<(), &'static str> {
    if uri(text).is_some() {
        return Err("is neither a URL nor a reference to one");
    }
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    // A password may hold a `/` that should have been escaped: all that is before an `@` counts.
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    let named = rest.split_once('?').is_some_and(|(_, query)| query.to_ascii_lowercase().contains("password"));
    if user.contains(':') || named {
        return Err("holds a password, and a secret is never written into the file");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_a_password_does_not_stand_in_the_open() {
        for (text, want) in [
            ("postgres://db.example:5432/n", ""),
            ("postgres://nightshift@db.example/n?sslmode=verify-full", ""),
            ("postgres://u:hunter2@db/n", "holds a password"),
            ("postgres://:hunter2@db/n", "is neither a URL"),
            ("postgres://u:hun/ter2@db/n", "holds a password"),
            ("postgres://u:hun?ter2@db/n", "holds a password"),
            ("postgres://db/n?user=u&PASSWORD=hunter2", "holds a password"),
            ("postgres//u:hunter2@db/n", "is neither a URL"),
            ("hunter2", "is neither a URL"),
            ("", "is neither a URL"),
        ] {
            match open_url(text) {
                Ok(()) => assert!(want.is_empty(), "{text}"),
                Err(why) => {
                    assert!(!want.is_empty() && why.starts_with(want) && !why.contains("hunter2"), "{text}: {why}")
                }
            }
        }
    }

    #[test]
    fn bad_addresses_say_what_is_wrong_with_them() {
        for (format, text, want) in [
            ("listen", "127.0.0.1:8080", ""),
            ("listen", "[::1]:0", ""),
            ("listen", "127.0.0.1", "the port is missing"),
            ("listen", "8080", "the address is missing"),
            ("listen", ":8080", "the address is missing"),
            ("listen", "127.0.0.1:http", "the port is not a number"),
            ("listen", "127.0.0.1:99999", "port 99999 is above 65535"),
            ("listen", "::1:8080x", "the port is not a number"),
            ("listen", "a::1:80", "an IPv6 address stands in brackets"),
            ("listen", "localhost:80", "write 127.0.0.1"),
            ("listen", "example.org:80", "`example.org` is not an IP address"),
            ("listen", "", "the port is missing"),
            ("ip", "10.0.0.1", ""),
            ("ipv6", "10.0.0.1", "is not an IP address"),
            ("ip", "ten", "is not an IP address"),
            ("uri", "https://example.org/x", ""),
            ("uri", "example.org", "it has no scheme"),
            ("uri", "http://", "it has no host"),
            ("uri", "http:///x", "it has no host"),
            ("uri", "ht tp://x", "is not a scheme"),
            ("uri", "http://a b", "white space"),
            ("unheard of", "anything", ""),
        ] {
            let got = wrong(format, text).map(|(why, _)| why).unwrap_or_default();
            assert!(if want.is_empty() { got.is_empty() } else { got.contains(want) }, "{format} {text}: {got}");
        }
    }
}
