//! Words for people: durations, sizes, near names, and what must not be told.

use std::time::Duration;

/// `3 minutes`, `2 hours`, `5 days`: rounded down, of the largest unit that fits.
pub(super) fn span(time: Duration) -> String {
    let secs = time.as_secs();
    let (n, unit) = match secs {
        0..=119 => (secs, "second"),
        120..=7199 => (secs / 60, "minute"),
        7200..=172_799 => (secs / 3600, "hour"),
        _ => (secs / 86_400, "day"),
    };
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

/// `512 MiB`.
pub(super) fn bytes(n: f64) -> String {
    match n {
        n if n >= 1_073_741_824.0 => format!("{:.1} GiB", n / 1_073_741_824.0),
        n if n >= 1_048_576.0 => format!("{:.0} MiB", n / 1_048_576.0),
        n if n >= 1024.0 => format!("{:.0} KiB", n / 1024.0),
        n => format!("{n:.0} bytes"),
    }
}

/// An amount of a resource: cores and pieces as they are, memory in units.
pub(super) fn amount(resource: &str, n: f64) -> String {
    match resource {
        "memory" | "ephemeral-storage" => bytes(n),
        "cpu" if n < 1.0 => format!("{:.0}m", n * 1000.0),
        _ => format!("{n}"),
    }
}

/// Memory as manifests write it, rounded up to whole MiB.
pub(super) fn mebibytes(n: f64) -> String {
    format!("{:.0}Mi", (n / 1_048_576.0).ceil())
}

/// The name most like the wanted one, when it is like enough to be a slip.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wanted.len() / 3).clamp(1, 4);
    let like = |n: &str| {
        let d = distance(wanted, n);
        let part = n.len() > 3 && wanted.len() > 3 && (n.starts_with(wanted) || wanted.starts_with(n));
        (d <= limit || part).then_some(d)
    };
    names.filter(|n| *n != wanted).filter_map(|n| like(n).map(|d| (d, n))).min().map(|(_, n)| n)
}

/// Longest name that is compared: object names are at most 253 letters.
const NAME_MAX: usize = 253;

/// Letters to add, take out or change.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(NAME_MAX).collect(), b.chars().take(NAME_MAX).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

/// Longest log line that is quoted, characters.
const QUOTE_MAX: usize = 240;
/// What a value after it must not be told of.
const SECRETS: [&str; 9] =
    ["password", "passwd", "pwd", "secret", "token", "api_key", "apikey", "access_key", "authorization"];

/// A line of a log as it may be quoted: in one line, cut, values of what sounds secret and credentials in URLs left out.
pub(super) fn quote(line: &str) -> String {
    let mut out = Vec::new();
    let mut hide = 0;
    for word in line.split_whitespace() {
        if hide > 0 {
            let scheme = matches!(word.to_ascii_lowercase().as_str(), "bearer" | "basic" | "=" | ":");
            out.push(if scheme { word.to_owned() } else { "***".to_owned() });
            hide = if scheme { 1 } else { hide - 1 };
            continue;
        }
        let low = word.to_ascii_lowercase();
        let secret = SECRETS.iter().any(|s| low.contains(s));
        match word.find(['=', ':']) {
            Some(at) if secret && !word.contains("://") => {
                let (name, value) = word.split_at(at + 1);
                out.push(if value.is_empty() { name.to_owned() } else { format!("{name}***") });
                hide = usize::from(value.is_empty());
            }
            _ => out.push(without_credentials(word)),
        }
    }
    out.join(" ").chars().take(QUOTE_MAX).collect()
}

fn without_credentials(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path.split_once('?').map_or(path, |(p, _)| p);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{path}"),
        None => format!("{scheme}://{authority}{path}"),
    }
}

/// What stands between two marks, without them.
pub(super) fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let rest = &text[text.find(from)? + from.len()..];
    let found = &rest[..rest.find(to)?];
    (!found.is_empty()).then_some(found)
}

/// Some of a list, and how many more: `a, b and 3 more`.
pub(super) fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = names.collect();
    let shown = all.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    if all.len() > 3 { format!("{shown} and {} more", all.len() - 3) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_quoted() {
        let line = "login postgres://app:hunter2@db:5432/x?password=hunter2 password=hunter2 token: hunter2 Authorization: Bearer hunter2";
        let quoted = quote(line);
        assert!(!quoted.contains("hunter2"), "{quoted}");
        assert!(quoted.contains("db:5432"));
        assert_eq!(quote("password authentication failed for user app"), "password authentication failed for user app");
    }

    #[test]
    fn only_slips_are_near() {
        let near = |w: &str, all: &[&'static str]| nearest(w, all.iter().copied());
        assert_eq!(near("app-confg", &["app-config", "other"]), Some("app-config"));
        assert_eq!(near("app", &["web", "db-credentials"]), None);
        assert_eq!(near("db-credentials-v2", &["db-credentials"]), Some("db-credentials"));
    }

    #[test]
    fn spans_have_one_unit() {
        assert_eq!(span(Duration::from_secs(61)), "61 seconds");
        assert_eq!(span(Duration::from_secs(7200)), "2 hours");
        assert_eq!(span(Duration::from_secs(200_000)), "2 days");
    }
}
