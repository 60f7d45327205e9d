//! The API's part of the configuration.

use nightshift_config::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The HTTP API and its pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ApiConfig {
    /// Where it listens: ingest, API and pages. Beyond loopback an [auth] section is needed.
    #[schemars(extend("format" = "listen"))]
    pub listen: String,
    /// Host names besides those of loopback that requests may be addressed to (a proxy's name for us). Requests to
    /// other names are refused on loopback, so that no web page can reach us under a name of its own.
    pub hosts: Vec<String>,
    /// Seconds within which a request to the API must have come whole and been answered (ingest and the event stream
    /// have their own limits).
    #[schemars(range(min = 1, max = 300))]
    pub answer_timeout_secs: u64,
    /// Largest body of a request to the API, bytes (ingest has its own limits).
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub body_bytes_max: usize,
    /// Largest page of a list, bytes; a list that is longer goes on at `next`.
    #[schemars(range(min = 65_536, max = 268_435_456))]
    pub page_bytes_max: usize,
    /// Listeners of the event stream at a time.
    #[schemars(range(min = 1, max = 10_000))]
    pub stream_clients_max: usize,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            hosts: Vec::new(),
            answer_timeout_secs: 30,
            body_bytes_max: 64 << 10,
            page_bytes_max: 4 << 20,
            stream_clients_max: 100,
        }
    }
}

/// Our own metrics on a port of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MetricsConfig {
    /// Whether they are served there (they always are at /metrics of the API).
    pub enabled: bool,
    /// Where they are served. No token is asked for here.
    #[schemars(extend("format" = "listen"))]
    pub listen: String,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { enabled: true, listen: "127.0.0.1:9090".into() }
    }
}

/// Who may call. Its being there allows listening beyond loopback, where every call needs a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AuthConfig {
    /// Seconds for which the list of tokens is remembered; a token that was withdrawn is refused after them at most.
    #[schemars(range(min = 0, max = 300))]
    pub cache_secs: u64,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { cache_secs: 5 }
    }
}

/// A listener to be checked.
#[derive(Debug, Clone, Copy)]
pub struct Listener<'a> {
    /// The key that says where it listens: `api.listen`.
    pub key: &'a str,
    /// What it says.
    pub listen: &'a str,
    /// Whether it asks for no token by design (the metrics port).
    pub open: bool,
}

/// Refuses listeners beyond loopback that nobody would guard: those need an `[auth]` section. The token that the first
/// start makes by itself does not count, as nobody decided to open anything then.
pub fn validate_listeners(listeners: &[Listener<'_>], auth: Option<&AuthConfig>, problems: &mut Problems) {
    let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
    for listener in listeners {
        // What is no address was told by the check of the file.
        let Ok(addr) = listener.listen.parse::<SocketAddr>() else { continue };
        if !addr.ip().is_loopback() && !listener.open && auth.is_none() {
            problems.error(
                listener.key,
                format!("{addr} is beyond loopback and there is no [auth] section"),
                "add an [auth] section and make tokens with `nightshift token create`, or listen on 127.0.0.1",
            );
        }
        if addr.port() == 0 {
            continue;
        }
        if let Some((other, _)) = taken.iter().find(|(_, a)| a.port() == addr.port() && overlap(*a, addr)) {
            problems.error(
                listener.key,
                format!("{addr} is taken by {other}"),
                "give each listener a port of its own; port 0 picks a free one",
            );
        }
        taken.push((listener.key, addr));
    }
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listeners: &[(&str, &str, bool)], auth: bool) -> Vec<String> {
        let listeners: Vec<_> =
            listeners.iter().map(|(key, listen, open)| Listener { key, listen, open: *open }).collect();
        let mut problems = Problems::new("nightshift.toml");
        validate_listeners(&listeners, auth.then_some(&AuthConfig::default()), &mut problems);
        problems.sorted().iter().map(|p| format!("{}: {}", p.path, p.message)).collect()
    }

    #[test]
    fn beyond_loopback_only_with_an_auth_section() {
        let none: Vec<String> = vec![];
        assert_eq!(
            check(&[("api.listen", "127.0.0.1:8080", false), ("otlp.listen", "[::1]:4317", false)], false),
            none
        );
        assert_eq!(check(&[("api.listen", "0.0.0.0:8080", false)], true), none);
        assert_eq!(check(&[("metrics.listen", "0.0.0.0:9090", true)], false), none);
        for addr in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "0.0.0.0:0"] {
            let want = format!("api.listen: {addr} is beyond loopback and there is no [auth] section");
            assert_eq!(check(&[("api.listen", addr, false)], false), [want]);
        }
    }

    #[test]
    fn two_listeners_on_one_port_are_told_before_the_second_fails() {
        let got = check(&[("a.listen", "127.0.0.1:1", false), ("b.listen", "127.0.0.1:1", false)], false);
        assert_eq!(got, ["b.listen: 127.0.0.1:1 is taken by a.listen"]);
        let free =
            [("a.listen", "127.0.0.1:0", false), ("b.listen", "127.0.0.1:0", false), ("c.listen", "[::1]:1", false)];
        assert!(check(&free, false).is_empty());
        assert_eq!(check(&[("a", "127.0.0.1:1", false), ("b", "0.0.0.0:1", false)], true).len(), 1);
    }
}
