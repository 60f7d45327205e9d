//! Times as logs write them. Lives here: reading them. Never here: a clock; the present is passed in.

use super::LineContext;
use chrono::{Datelike, NaiveDate};
use nightshift_model::Timestamp;

const DAY: i64 = 86_400;

/// Reads from the front of bytes.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// Exactly `n` digits.
    fn digits(&mut self, n: usize) -> Option<u32> {
        let text = self.bytes.get(self.at..self.at + n)?;
        let mut value = 0;
        for &b in text {
            value = value * 10 + char::from(b).to_digit(10)?;
        }
        self.at += n;
        Some(value)
    }

    /// One of these bytes.
    fn one_of(&mut self, any: &[u8]) -> Option<u8> {
        let b = *self.bytes.get(self.at)?;
        any.contains(&b).then(|| self.at += 1)?;
        Some(b)
    }

    /// `HH:MM:SS` and a fraction; second of day and nanoseconds. A leap second counts as the one before.
    fn clock(&mut self) -> Option<(u32, u32)> {
        let hour = self.digits(2)?;
        self.one_of(b":")?;
        let minute = self.digits(2)?;
        self.one_of(b":")?;
        let second = self.digits(2)?;
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        Some((hour * 3600 + minute * 60 + second.min(59), self.fraction()))
    }

    /// Nanoseconds of `.123` or `,123`; nothing taken when there are no digits.
    fn fraction(&mut self) -> u32 {
        let start = self.at;
        if self.one_of(b".,").is_none() {
            return 0;
        }
        let (mut ns, mut n) = (0, 0);
        while let Some(d) = self.bytes.get(self.at).and_then(|b| char::from(*b).to_digit(10)) {
            // Digits beyond nanoseconds are taken and mean nothing.
            if n < 9 {
                ns = ns * 10 + d;
                n += 1;
            }
            self.at += 1;
        }
        if n == 0 {
            self.at = start;
        }
        ns * 10u32.pow(9 - n)
    }

    /// `Z`, ` UTC`, `+02:00`, `+0200`; seconds east. `None`, and nothing taken, when there is no zone.
    fn zone(&mut self) -> Option<i32> {
        let start = self.at;
        if self.one_of(b"Zz").is_some() {
            return Some(0);
        }
        let _space = self.one_of(b" ");
        if [&b"UTC"[..], b"GMT"].iter().any(|z| self.bytes[self.at..].starts_with(z)) {
            self.at += 3;
            return Some(0);
        }
        let zone = (|| {
            let sign = if self.one_of(b"+-")? == b'-' { -1 } else { 1 };
            let hours = self.digits(2)?;
            let _colon = self.one_of(b":");
            let minutes = self.digits(2)?;
            (hours <= 15 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60) as i32)
        })();
        if zone.is_none() {
            self.at = start;
        }
        zone
    }
}

fn make(date: NaiveDate, second: u32, ns: u32, east: i32) -> Option<Timestamp> {
    let days = date.signed_duration_since(NaiveDate::default()).num_days();
    let secs = days * DAY + i64::from(second) - i64::from(east);
    secs.checked_mul(1_000_000_000)?.checked_add(i64::from(ns)).map(Timestamp)
}

/// A time at the front of `text` (a bracket before it is fine), and how many bytes it takes.
pub(crate) fn leading(text: &str, context: &LineContext<'_>) -> Option<(Timestamp, usize)> {
    let skip = text.len() - text.trim_start_matches(['[', '(', '"']).len();
    let inner = &text[skip..];
    let (at, taken) = iso(inner, context).or_else(|| bsd(inner, context)).or_else(|| leading_epoch(inner))?;
    let rest = &inner[taken..];
    // `2026-01-02-backup` is a name, not a time: what follows must end the word.
    if rest.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '.')) {
        return None;
    }
    let closing = usize::from(skip > 0 && rest.starts_with([']', ')', '"']));
    Some((at, skip + taken + closing))
}

/// A time that is the whole of `text`: a field's value.
pub(crate) fn whole(text: &str, context: &LineContext<'_>) -> Option<Timestamp> {
    if let Some((at, taken)) = iso(text, context).or_else(|| bsd(text, context)) {
        return text[taken..].trim().is_empty().then_some(at);
    }
    if text.len() <= 30 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return text.parse().ok().and_then(epoch);
    }
    None
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by size; `None` before 2001. To the
/// microsecond: a double holds no more of a present time in seconds.
pub(crate) fn epoch(value: f64) -> Option<Timestamp> {
    let micros = match value {
        v if !(1e9..9.2e18).contains(&v) => return None,
        v if v < 1e11 => v * 1e6,
        v if v < 1e14 => v * 1e3,
        v if v < 1e17 => v,
        v => v / 1e3,
    };
    // At most 1e17, so it fits; a thousandfold that does not is no time that we know.
    (micros.round() as i64).checked_mul(1_000).map(Timestamp)
}

/// `2026-01-02T03:04:05.678Z`, also with a space, slashes, a comma, or without a zone.
fn iso(text: &str, context: &LineContext<'_>) -> Option<(Timestamp, usize)> {
    let mut c = Cursor { bytes: text.as_bytes(), at: 0 };
    let year = c.digits(4)?;
    let separator = c.one_of(b"-/")?;
    let month = c.digits(2)?;
    c.one_of(&[separator])?;
    let day = c.digits(2)?;
    c.one_of(b"Tt _")?;
    let (second, ns) = c.clock()?;
    let east = c.zone().unwrap_or(context.utc_offset_secs);
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    Some((make(date, second, ns, east)?, c.at))
}

fn month(name: &[u8]) -> Option<u32> {
    const NAMES: [&[u8; 3]; 12] =
        [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    NAMES.iter().position(|n| n.eq_ignore_ascii_case(name)).map(|i| i as u32 + 1)
}

/// `Jan  2 03:04:05`, as BSD syslog writes it; a year may follow.
fn bsd(text: &str, context: &LineContext<'_>) -> Option<(Timestamp, usize)> {
    let mut c = Cursor { bytes: text.as_bytes(), at: 3 };
    let month = month(text.as_bytes().get(..3)?)?;
    c.one_of(b" ")?;
    let day = if c.one_of(b" ").is_some() { c.digits(1)? } else { c.digits(2).or_else(|| c.digits(1))? };
    c.one_of(b" ")?;
    let (second, ns) = c.clock()?;
    let taken = c.at;
    // A year must end its word: `Jan  2 03:04:05 2026 host`, but not `… 20260102.log`.
    if c.one_of(b" ").is_some()
        && let Some(year @ 1970..=2200) = c.digits(4)
        && c.bytes.get(c.at).is_none_or(u8::is_ascii_whitespace)
        && let Some(date) = NaiveDate::from_ymd_opt(year as i32, month, day)
    {
        return Some((make(date, second, ns, context.utc_offset_secs)?, c.at));
    }
    Some((without_year(month, day, second, ns, context)?, taken))
}

/// The newest such moment that is not more than a day ahead of now: December's lines read in January are last
/// year's, and a sender whose new year came first is believed.
fn without_year(month: u32, day: u32, second: u32, ns: u32, context: &LineContext<'_>) -> Option<Timestamp> {
    let this = chrono::DateTime::from_timestamp_nanos(context.now.0).year();
    let latest = context.now + std::time::Duration::from_secs(DAY as u64);
    (this - 4..=this + 1)
        .rev()
        .filter_map(|year| make(NaiveDate::from_ymd_opt(year, month, day)?, second, ns, context.utc_offset_secs))
        .find(|at| *at <= latest)
}

/// Ten digits (seconds, a fraction may follow) or thirteen (milliseconds) that are a word.
fn leading_epoch(text: &str) -> Option<(Timestamp, usize)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let whole = text[..end].split('.').next().unwrap_or("");
    if !matches!(whole.len(), 10 | 13) || text[..end].ends_with('.') || end > 24 || end == text.len() {
        return None;
    }
    Some((epoch(text[..end].parse().ok()?)?, end))
}

/// `[02/Jan/2026:03:04:05 +0000]` within the first 300 bytes: the time, and where it stands.
pub(super) fn bracketed(text: &str, context: &LineContext<'_>) -> Option<(Timestamp, usize, usize)> {
    let end = text.floor_char_boundary(300);
    for (from, _) in text[..end].match_indices('[') {
        let mut c = Cursor { bytes: text.as_bytes(), at: from + 1 };
        let found = (|| {
            let day = c.digits(2)?;
            c.one_of(b"/")?;
            let month = month(c.bytes.get(c.at..c.at + 3)?)?;
            c.at += 3;
            c.one_of(b"/")?;
            let year = c.digits(4)?;
            c.one_of(b":")?;
            let (second, ns) = c.clock()?;
            let east = c.zone().unwrap_or(context.utc_offset_secs);
            c.one_of(b"]")?;
            make(NaiveDate::from_ymd_opt(year as i32, month, day)?, second, ns, east)
        })();
        if let Some(at) = found {
            return Some((at, from, c.at));
        }
    }
    None
}

/// `E0102 03:04:05.123456 1234 file.go:12] message`, as Kubernetes' components write it.
pub(super) fn klog<'a>(text: &'a str, context: &LineContext<'_>) -> Option<(Timestamp, u8, &'a str)> {
    let severity = match text.as_bytes().first()? {
        b'I' => 9,
        b'W' => 13,
        b'E' => 17,
        b'F' => 21,
        _ => return None,
    };
    let mut c = Cursor { bytes: text.as_bytes(), at: 1 };
    let (month, day) = (c.digits(2)?, c.digits(2)?);
    c.one_of(b" ")?;
    let (second, ns) = c.clock()?;
    c.one_of(b" ")?;
    let at = without_year(month, day, second, ns, context)?;
    Some((at, severity, text[c.at..].trim_start()))
}
