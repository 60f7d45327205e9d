//! How numbers, times and outside texts are written for people.

use nightshift_model::Timestamp;

/// Longest outside text that is quoted, in characters.
const QUOTE_CHARS_MAX: usize = 240;

/// A number as people read it: thousands apart, no more decimals than say something.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "no number".into();
    }
    let size = value.abs();
    let decimals = if size >= 1_000.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    let plain = format!("{value:.decimals$}");
    let plain = if plain.contains('.') { plain.trim_end_matches('0').trim_end_matches('.') } else { &plain };
    let plain = if plain == "-0" { "0" } else { plain };
    let (sign, digits) = plain.strip_prefix('-').map_or(("", plain), |d| ("-", d));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(w, f)| (w, Some(f)));
    let mut out = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// A share as a whole percentage: 0.87 is `87 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Seconds as people say them: `420 ms`, `1.2 s`, `42 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn duration(secs: f64) -> String {
    // Rejects NaN too.
    if !(secs >= 0.0 && secs.is_finite()) {
        return "an unknown time".into();
    }
    if secs < 1.0 {
        return format!("{:.0} ms", secs * 1_000.0);
    }
    if secs < 9.95 {
        return format!("{secs:.1} s");
    }
    // From an hour on seconds are left out, so it is minutes that are rounded.
    let unit = if secs < 3_599.5 { 1.0 } else { 60.0 };
    let whole = ((secs / unit).round() * unit) as u64;
    match (whole / 3_600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, 0) => format!("{m} min"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, 0, _) => format!("{h} h"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// Time from one moment to another, for people.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> String {
    duration(to.since(from).as_secs_f64())
}

/// `2026-11-22`, UTC.
pub(crate) fn date(at: Timestamp) -> String {
    at.to_rfc3339().chars().take(10).collect()
}

/// `03:12:07`, UTC.
pub(crate) fn time_of_day(at: Timestamp) -> String {
    at.to_rfc3339().chars().skip(11).take(8).collect()
}

/// Text from outside on one line: no control characters, no end of a sentence within, cut.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        if out.chars().count() > QUOTE_CHARS_MAX {
            let cut: String = out.chars().take(QUOTE_CHARS_MAX - 2).collect();
            // Half a word, and worse half a number, says something else.
            let end = cut.rfind(' ').unwrap_or(cut.len());
            out = format!("{} …", &cut[..end]);
            break;
        }
    }
    let trimmed = out.trim_end_matches(['.', '!', '?', ';', ':']).len();
    out.truncate(trimmed);
    out
}

/// Text from outside as it may stand in Markdown: on one line, within one sentence, and neither markup nor a link.
pub(crate) fn quoted(text: &str) -> String {
    let line = one_line(text).replace(". ", "; ").replace("! ", "; ").replace("? ", "; ");
    let mut out = String::with_capacity(line.len());
    for (i, c) in line.chars().enumerate() {
        // At the beginning of a line these would make a heading or a list of it.
        let begins = i == 0 && matches!(c, '#' | '-' | '+' | '=' | '~');
        if begins || matches!(c, '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|') {
            out.push('\\');
        }
        out.push(c);
    }
    // A bare address would become a link on most pages.
    out.replace("://", "\\://")
}

/// Things in a row: `a`, `a and b`, `a, b and c`, at most `most` of them.
pub(crate) fn listed(names: &[String], most: usize) -> String {
    let more = names.len().saturating_sub(most);
    let shown = &names[..names.len() - more];
    match (shown, more) {
        ([], _) => "nothing".into(),
        (all, 1..) => format!("{} and {more} more", all.join(", ")),
        ([only], 0) => only.clone(),
        ([head @ .., last], 0) => format!("{} and {last}", head.join(", ")),
    }
}

/// `1 step`, `2 steps`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(n as f64), if n == 1 { one } else { many })
}

/// A text with a capital at its beginning.
pub(crate) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        for (value, want) in [
            (7380.4, "7,380"),
            (50_000.0, "50,000"),
            (1_234_567.0, "1,234,567"),
            (380.0, "380"),
            (97.25, "97.2"),
            (0.456, "0.46"),
            (-0.001, "0"),
            (-1500.0, "-1,500"),
            (100.0, "100"),
            (f64::NAN, "no number"),
        ] {
            assert_eq!(number(value), want);
        }
        for (secs, want) in [
            (0.42, "420 ms"),
            (1.24, "1.2 s"),
            (9.96, "10 s"),
            (59.6, "1 min"),
            (200.0, "3 min 20 s"),
            (3_600.0, "1 h"),
            (7_500.0, "2 h 5 min"),
            (3_993.0, "1 h 7 min"),
            (7_199.0, "2 h"),
            (-1.0, "an unknown time"),
        ] {
            assert_eq!(duration(secs), want);
        }
        let at = Timestamp::from_secs(1_700_000_000);
        assert_eq!((date(at), time_of_day(at)), ("2023-11-14".into(), "22:13:20".into()));
    }

    #[test]
    fn outside_text_stays_text() {
        assert_eq!(
            quoted("a\n# head\u{7} [x](http://y) <b> `c` | d. E. "),
            "a # head \\[x\\](http\\://y) \\<b\\> \\`c\\` \\| d; E"
        );
        assert!(quoted(&"word ".repeat(500)).chars().count() <= QUOTE_CHARS_MAX);
        assert!(quoted(&"x".repeat(5_000)).ends_with('…'));
        let names: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        assert_eq!(listed(&names, 5), "a, b and c");
        assert_eq!(listed(&names, 2), "a, b and 1 more");
        assert_eq!(listed(&names[..1], 2), "a");
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in ".{0,400}", value: f64) {
            let _ = (quoted(&text), number(value), duration(value), percent(value), capital(&text));
        }
    }
}
