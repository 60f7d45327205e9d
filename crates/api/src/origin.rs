//! Which names a request may be addressed to, and which pages it may come from.
//!
//! Loopback is open to whoever runs on this machine, and a browser does: without these checks any web page could read
//! incidents by pointing a name of its own at 127.0.0.1 (DNS rebinding), or post to us in a visitor's name (CSRF).

use crate::ApiError;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use std::net::IpAddr;

/// Checks where a request is addressed to and where it comes from. `loopback`: through a listener on loopback.
pub(crate) fn check(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    loopback: bool,
    names: &[String],
) -> Result<(), ApiError> {
    let host = host_of(uri, headers);
    if loopback && !host.as_deref().is_some_and(|h| is_ours(h, names)) {
        let shown = host.as_deref().map_or("no host".to_owned(), |h| format!("`{}`", h.escape_debug()));
        return Err(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected",
            format!("the request is addressed to {shown}, which is no name of this server"),
            "use http://127.0.0.1 or http://localhost, or add the name to api.hosts",
        ));
    }
    // Reading across origins is what the browser itself refuses; an upgrade it does not.
    if method.is_safe() && !headers.contains_key(header::UPGRADE) {
        return Ok(());
    }
    let cross = |why: &str| {
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "cross_origin",
            format!("the request comes from another site: {why}"),
            "send it from this server's own pages, or without an Origin header",
        ))
    };
    if headers.get("sec-fetch-site").is_some_and(|v| v == "cross-site") {
        return cross("the browser says so");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("unreadable");
    let from = origin.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https")).map(|(_, a)| a);
    let same = match (from, host.as_deref()) {
        (Some(from), Some(host)) => from.eq_ignore_ascii_case(host) || names.iter().any(|n| is_name(from, n)),
        _ => false,
    };
    if same { Ok(()) } else { cross(&format!("Origin is `{}`", origin.escape_debug())) }
}

/// `Host`, or the authority of an HTTP/2 request.
fn host_of(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    if let Some(authority) = uri.authority() {
        return Some(authority.as_str().to_owned());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next()?.to_str().ok()?.to_owned();
    // Two of them: one for us to check and one for somebody else to use.
    hosts.next().is_none().then_some(host)
}

/// The name without the port.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']')?;
            (name, port)
        }
        None => match host.find(':') {
            Some(i) => host.split_at(i),
            None => (host, ""),
        },
    };
    let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok());
    (port_ok && !name.is_empty()).then_some(name)
}

fn is_ours(host: &str, names: &[String]) -> bool {
    let Some(name) = name_of(host) else { return false };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || names.iter().any(|n| is_name(host, n))
}

fn is_name(host: &str, name: &str) -> bool {
    name_of(host).is_some_and(|h| h.eq_ignore_ascii_case(name)) || host.eq_ignore_ascii_case(name)
}

pub(crate) fn fuzz(text: &str) {
    let mut headers = HeaderMap::new();
    for name in [header::HOST, header::ORIGIN] {
        if let Ok(value) = axum::http::HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    let _ = check(&Method::POST, &Uri::from_static("/"), &headers, true, &["a.example".to_owned()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: Method, headers: &[(&'static str, &str)], loopback: bool) -> &'static str {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        match check(&method, &Uri::from_static("/x"), &map, loopback, &["night.example".to_owned()]) {
            Ok(()) => "ok",
            Err(e) => e.kind,
        }
    }

    #[test]
    fn on_loopback_only_our_names_are_answered() {
        for (host, want) in [
            ("127.0.0.1:8080", "ok"),
            ("127.0.0.1", "ok"),
            ("127.1.2.3:1", "ok"),
            ("localhost:8080", "ok"),
            ("LOCALHOST", "ok"),
            ("[::1]:8080", "ok"),
            ("night.example:8080", "ok"),
            ("evil.example", "misdirected"),
            ("evil.example:8080", "misdirected"),
            ("127.0.0.1.evil.example", "misdirected"),
            ("localhost.evil.example", "misdirected"),
            ("evil.example@127.0.0.1", "misdirected"),
            ("127.0.0.1:8080:evil", "misdirected"),
            ("[::1", "misdirected"),
            ("192.168.0.1", "misdirected"),
            ("0.0.0.0", "misdirected"),
            ("", "misdirected"),
        ] {
            assert_eq!(answer(Method::GET, &[("host", host)], true), want, "{host}");
        }
        assert_eq!(answer(Method::GET, &[], true), "misdirected");
        assert_eq!(answer(Method::GET, &[("host", "localhost"), ("host", "evil.example")], true), "misdirected");
        assert_eq!(answer(Method::GET, &[("host", "any.example")], false), "ok", "beyond loopback tokens guard");
    }

    #[test]
    fn a_post_from_another_site_is_refused() {
        let host = ("host", "127.0.0.1:8080");
        for (origin, want) in [
            ("http://127.0.0.1:8080", "ok"),
            ("https://night.example", "ok"),
            ("http://127.0.0.1:9999", "cross_origin"),
            ("http://localhost:8080", "cross_origin"),
            ("http://evil.example", "cross_origin"),
            ("null", "cross_origin"),
            ("ftp://127.0.0.1:8080", "cross_origin"),
        ] {
            assert_eq!(answer(Method::POST, &[host, ("origin", origin)], true), want, "{origin}");
            let upgrade = [host, ("origin", origin), ("upgrade", "websocket")];
            assert_eq!(answer(Method::GET, &upgrade, true), want, "{origin}");
        }
        assert_eq!(answer(Method::GET, &[host, ("origin", "http://evil.example")], true), "ok");
        assert_eq!(answer(Method::POST, &[host], true), "ok", "no browser");
        assert_eq!(answer(Method::POST, &[host, ("sec-fetch-site", "cross-site")], true), "cross_origin");
        let beyond = [("host", "a.example"), ("origin", "http://evil.example")];
        assert_eq!(answer(Method::POST, &beyond, false), "cross_origin");
    }
}
