//! What to write instead.

/// Longest part of a value that a message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// The text on one line, controls escaped, shortened.
pub(crate) fn cut(text: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == SHOWN_CHARS_MAX {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The same, in quotes.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", cut(text))
}

/// The known name that `wrong` was most likely meant to be.
pub(crate) fn nearest<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if wrong.len() > 64 {
        return None;
    }
    let wrong = wrong.to_lowercase().replace('-', "_");
    let (mut best, mut least) = (None, usize::MAX);
    for name in names {
        let lower = name.to_lowercase().replace('-', "_");
        // `interval` for `interval_secs`: the unit was left out.
        let distance = if lower.strip_prefix(&wrong).is_some_and(|rest| rest.starts_with('_')) {
            1
        } else {
            strsim::damerau_levenshtein(&wrong, &lower)
        };
        // One slip in three characters still reads as the same word; more is guessing.
        if distance <= (lower.len().max(wrong.len()) / 3).max(1) && distance < least {
            (best, least) = (Some(name), distance);
        }
    }
    best
}

/// `a`, `b` or `c`; at most a dozen.
pub(crate) fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<_> = names.into_iter().collect();
    let mut out = String::new();
    for (i, name) in names.iter().enumerate().take(12) {
        out.push_str(match i {
            0 => "",
            _ if i + 1 == names.len() => " or ",
            _ => ", ",
        });
        out.push_str(&format!("`{name}`"));
    }
    if names.len() > 12 {
        out.push_str(&format!(" and {} more", names.len() - 12));
    }
    out
}

/// A text that was meant as a number of the unit in which `key` ends: `"5m"` for `_secs` is 300.
pub(crate) fn in_unit(key: &str, text: &str) -> Option<String> {
    let digits = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.trim()[digits.len()..].to_ascii_lowercase();
    let n: f64 = digits.trim().parse().ok()?;
    let ms = |unit: &str| {
        Some(match unit {
            "ms" => 1.0,
            "s" | "sec" | "secs" => 1e3,
            "m" | "min" | "mins" => 60e3,
            "h" | "hour" | "hours" => 3_600e3,
            "d" | "day" | "days" => 86_400e3,
            _ => return None,
        })
    };
    let bytes = |unit: &str| {
        Some(match unit {
            "b" => 1.0,
            "k" | "kb" => 1e3,
            "kib" => 1024.0,
            "m" | "mb" => 1e6,
            "mib" => 1_048_576.0,
            "g" | "gb" => 1e9,
            "gib" => 1_073_741_824.0,
            _ => return None,
        })
    };
    let (name, scaled) = if unit.is_empty() {
        return Some(format!("write {digits} without quotes"));
    } else if key.ends_with("_secs") {
        ("seconds", n * ms(&unit)? / 1e3)
    } else if key.ends_with("_ms") {
        ("milliseconds", n * ms(&unit)?)
    } else if key == "days" || key.ends_with("_days") {
        ("days", n * ms(&unit)? / 86_400e3)
    } else if key.ends_with("_bytes") || key.ends_with("_bytes_max") {
        ("bytes", n * bytes(&unit)?)
    } else {
        return None;
    };
    Some(format!("write it in {name}: {scaled}"))
}

/// What to do about a line that is not TOML.
pub(crate) fn syntax(line: &str, message: &str) -> &'static str {
    let bare = line.split_once('=').map(|(_, v)| v.trim()).unwrap_or_default();
    if message.contains("duplicate") {
        "a key or table can be there once: join the two"
    } else if line.trim_start().starts_with('[') {
        "a table is [name], one of a list [[name]]"
    } else if !line.contains('=') && line.contains(':') {
        "TOML writes `key = value`"
    } else if !line.contains('=') {
        "write `key = value`, or start a comment with #"
    } else if matches!(bare.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off" | "true" | "false") {
        "write true or false"
    } else if bare.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') {
        "put text in double quotes"
    } else if bare.matches('"').count() % 2 == 1 {
        "close the double quotes"
    } else {
        "see https://toml.io for how values are written"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_a_slip_away_or_nothing() {
        let names = ["listen", "interval_secs", "type", "name"];
        for (wrong, want) in [
            ("typ", Some("type")),
            ("litsen", Some("listen")),
            ("interval", Some("interval_secs")),
            ("Interval-Secs", Some("interval_secs")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, names), want, "{wrong}");
        }
    }

    #[test]
    fn a_quantity_is_turned_into_the_unit_of_its_key() {
        for (key, text, want) in [
            ("interval_secs", "5m", Some("write it in seconds: 300")),
            ("timeout_ms", "2s", Some("write it in milliseconds: 2000")),
            ("body_bytes_max", "16MiB", Some("write it in bytes: 16777216")),
            ("days", "30d", Some("write it in days: 30")),
            ("points", "30", Some("write 30 without quotes")),
            ("points", "5m", None),
            ("interval_secs", "soon", None),
        ] {
            assert_eq!(in_unit(key, text).as_deref(), want, "{key} {text}");
        }
    }
}
