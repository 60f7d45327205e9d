//! The words of a query, each known and each checked: a filter with a slip in its name must not list everything.

use crate::ApiError;
use axum::extract::Query;
use axum::http::Uri;
use nightshift_model::Timestamp;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

/// Longest query, bytes.
const QUERY_BYTES_MAX: usize = 4_096;

/// A query as read.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the query of `uri`, in which only the words `known` may occur. An empty value is as good as none: forms
    /// send those.
    pub(crate) fn read(uri: &Uri, known: &[&str]) -> Result<Self, ApiError> {
        if uri.query().is_some_and(|q| q.len() > QUERY_BYTES_MAX) {
            let detail = format!("the query has more than {QUERY_BYTES_MAX} bytes");
            return Err(ApiError::bad_request(detail, "ask for less at once"));
        }
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Err(ApiError::bad_request(
                "the query cannot be read",
                "write name=value&name=value, percent-encoded",
            ));
        };
        for (name, _) in &pairs {
            if !known.contains(&name.as_str()) {
                let hint = if known.is_empty() {
                    "nothing can be asked for here".to_owned()
                } else {
                    format!("known here: {}", known.join(", "))
                };
                return Err(ApiError::bad_request(format!("`{}` is not known", short(name)), hint));
            }
        }
        Ok(Self(pairs.into_iter().map(|(n, v)| (n, v.trim().to_owned())).filter(|(_, v)| !v.is_empty()).collect()))
    }

    /// The value, the last one when it is there twice.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values, repeated or with commas between.
    pub(crate) fn list<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let values = self.0.iter().filter(move |(n, _)| n == name);
        values.flat_map(|(_, v)| v.split(',')).map(str::trim).filter(|v| !v.is_empty())
    }

    /// All values, parsed.
    pub(crate) fn parsed<T: FromStr<Err = String>>(&self, name: &str) -> Result<Vec<T>, ApiError> {
        self.list(name).map(|v| short(v).parse().map_err(|e: String| bad(name, e))).collect()
    }

    /// `true`, `1` or nothing behind the name's sign; absent is `false`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "on") => Ok(true),
            Some(other) => Err(bad(name, format!("`{}` is neither true nor false", short(other)))),
        }
    }

    /// A number within `least..=most`.
    pub(crate) fn number(&self, name: &str, default: u64, least: u64, most: u64) -> Result<u64, ApiError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| bad(name, format!("`{}` is not a number of {least} to {most}", short(text))))
    }

    /// A moment: RFC 3339, seconds since 1970, or how long ago: `90s`, `15m`, `2h`, `7d`.
    pub(crate) fn time(&self, name: &str, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let ago = |unit: u64, digits: &str| {
            let secs = digits.parse::<u64>().ok()?.checked_mul(unit)?;
            Some(now - Duration::from_secs(secs))
        };
        let last = text.chars().next_back().unwrap_or_default();
        let digits = &text[..text.len() - last.len_utf8()];
        let at = match last {
            's' => ago(1, digits),
            'm' => ago(60, digits),
            'h' => ago(3_600, digits),
            'd' => ago(86_400, digits),
            _ => None,
        };
        let at = at.or_else(|| Timestamp::parse_rfc3339(text).ok());
        let at = at.or_else(|| Timestamp::from_secs_f64(text.parse().ok()?));
        at.map(Some).ok_or_else(|| {
            let example = "write 2026-01-31T03:00:00Z, 1769828400 or how long ago: 15m, 2h, 7d";
            ApiError::bad_request(format!("{name}: `{}` is not a time", short(text)), example)
        })
    }

    /// The query without `name`, ready for another one behind it.
    pub(crate) fn without(&self, name: &str) -> String {
        let mut out = String::new();
        for (n, v) in self.0.iter().filter(|(n, _)| n != name) {
            let _ = write!(out, "{}={}&", encode(n), encode(v));
        }
        out
    }
}

fn bad(name: &str, why: String) -> ApiError {
    ApiError::bad_request(format!("{name}: {why}"), "/api/openapi.json has what can be asked for")
}

/// What a message repeats of a value.
pub(crate) fn short(text: &str) -> String {
    let mut out: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().count() > 60 {
        out.push('…');
    }
    out
}

/// Percent-encodes whatever is not plainly harmless in a query.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

pub(crate) fn fuzz(text: &str) {
    let Ok(uri) = format!("/?{text}").parse::<Uri>() else { return };
    if let Ok(params) = Params::read(&uri, &["status", "since", "limit", "flag"]) {
        let _ = (params.time("since", Timestamp(0)), params.number("limit", 1, 1, 9), params.flag("flag"));
        let _ = params.parsed::<nightshift_model::IncidentStatus>("status");
        let _ = params.without("limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Params, ApiError> {
        Params::read(&format!("/x?{query}").parse().unwrap(), &["status", "since", "limit", "flag"])
    }

    #[test]
    fn bad_queries_say_what_is_wrong() {
        let now = Timestamp::from_secs(1_000_000);
        let asked = |query: &str| -> Result<(), ApiError> {
            let p = read(query)?;
            p.time("since", now)?;
            p.number("limit", 100, 1, 500)?;
            p.flag("flag")?;
            p.parsed::<nightshift_model::IncidentStatus>("status").map(drop)
        };
        for (query, want) in [
            ("", ""),
            ("status=&since=&limit=&flag=", ""),
            ("status=resolved,merged&status=detecting&since=2h&limit=500&flag=true", ""),
            ("stauts=resolved", "`stauts` is not known"),
            ("status=resolvd", "status: `resolvd` is not a status; one of detecting"),
            ("since=yesterday", "since: `yesterday` is not a time"),
            ("since=9999999999999999999d", "is not a time"),
            ("since=%C3%A4", "is not a time"),
            ("since=NaN", "is not a time"),
            ("limit=0", "limit: `0` is not a number of 1 to 500"),
            ("limit=-1", "is not a number"),
            ("limit=501", "is not a number"),
            ("flag=perhaps", "neither true nor false"),
            (&format!("status={}", "x".repeat(5_000)), "more than 4096 bytes"),
        ] {
            let got = asked(query).map_or_else(|e| e.detail, |()| String::new());
            assert!(if want.is_empty() { got.is_empty() } else { got.contains(want) }, "{query}: {got}");
        }
    }

    #[test]
    fn times_are_absolute_or_ago() {
        let now = Timestamp::from_secs(1_000_000);
        for (text, want) in [
            ("15m", 999_100),
            ("2h", 992_800),
            ("1d", 913_600),
            ("30s", 999_970),
            ("1000", 1_000),
            ("1970-01-01T00:00:07Z", 7),
        ] {
            let got = read(&format!("since={text}")).unwrap().time("since", now);
            assert_eq!(got, Ok(Some(Timestamp::from_secs(want))), "{text}");
        }
    }

    #[test]
    fn the_rest_of_a_query_survives() {
        let p = read("status=a%26b&limit=3&since=%C3%A4").unwrap();
        assert_eq!(p.without("limit"), "status=a%26b&since=%C3%A4&");
    }
}
