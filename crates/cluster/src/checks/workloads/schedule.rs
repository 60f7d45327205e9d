//! Schedules of cron jobs: five fields or a short name, and when they come next.
//!
//! Follows what Kubernetes' own controller accepts (the `robfig/cron` standard form): lists, ranges, steps, names of
//! months and days; days 0 to 6 with 0 for Sunday. When both the day of the month and the day of the week are
//! restricted, either is enough.

use nightshift_model::Timestamp;

/// Longest schedule that is read, bytes.
const BYTES_MAX: usize = 256;
/// Parts of one field at most.
const PARTS_MAX: usize = 64;
/// Days that are searched: eight years and a bit hold every 29 February, also around the year 2100.
const DAYS_MAX: i64 = 366 * 8 + 2;
const DAY_SECS: i64 = 86_400;

/// When a cron job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::checks) enum Schedule {
    /// At times of the clock.
    Clock(Clock),
    /// Every so many seconds.
    Every(i64),
}

/// Times of the clock: a bit for each value that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::checks) struct Clock {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// Reads a schedule, without a time zone in front.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(in crate::checks) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("it has {} characters, at most {BYTES_MAX} are read", text.len()));
        }
        let text = text.trim();
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            return Err("a time zone belongs in spec.timeZone, not in the schedule".into());
        }
        if let Some(name) = text.strip_prefix('@') {
            return Self::named(name);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!("it has {} fields, not 5", fields.len()));
        };
        let (minutes, _) = field("minute", minute, 0, 59, &[])?;
        let (hours, _) = field("hour", hour, 0, 23, &[])?;
        let (days, any_day) = field("day of the month", day, 1, 31, &[])?;
        let (months, _) = field("month", month, 1, 12, &MONTHS)?;
        let (weekdays, any_weekday) = field("day of the week", weekday, 0, 6, &WEEKDAYS)?;
        Ok(Self::Clock(Clock { minutes, hours, days, months, weekdays, any_day, any_weekday }))
    }

    fn named(name: &str) -> Result<Self, String> {
        let fields = match name {
            "yearly" | "annually" => "0 0 1 1 *",
            "monthly" => "0 0 1 * *",
            "weekly" => "0 0 * * 0",
            "daily" | "midnight" => "0 0 * * *",
            "hourly" => "0 * * * *",
            _ => {
                let Some(every) = name.strip_prefix("every ") else {
                    return Err(format!("`@{name}` is not known"));
                };
                return duration_secs(every.trim())
                    .map(Self::Every)
                    .ok_or_else(|| format!("`{}` is not a duration such as 1h30m", every.trim()));
            }
        };
        Self::parse(fields)
    }

    /// The first time after this one. `None`: it never comes.
    pub(in crate::checks) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after_secs = after.millis().div_euclid(1000);
        match self {
            Self::Every(secs) => Some(Timestamp::from_secs(after_secs.saturating_add(*secs))),
            Self::Clock(clock) => clock.next(after_secs).map(Timestamp::from_secs),
        }
    }

    /// Seconds between the next time after this one and the one after it. `None`: it does not come twice.
    pub(in crate::checks) fn interval_secs(&self, after: Timestamp) -> Option<i64> {
        let first = self.next(after)?;
        let second = self.next(first)?;
        Some((second.millis() - first.millis()) / 1000)
    }
}

impl Clock {
    fn next(&self, after_secs: i64) -> Option<i64> {
        // The next whole minute.
        let from = after_secs.div_euclid(60).checked_add(1)?.checked_mul(60)?;
        let first_day = from.div_euclid(DAY_SECS);
        (first_day..first_day + DAYS_MAX).filter(|d| self.has_day(*d)).find_map(|day| {
            let earliest = if day == first_day { from.rem_euclid(DAY_SECS) / 60 } else { 0 };
            let minute = (earliest..24 * 60).find(|m| bit(self.hours, m / 60) && bit(self.minutes, m % 60))?;
            Some(day * DAY_SECS + minute * 60)
        })
    }

    fn has_day(&self, day: i64) -> bool {
        let (month, day_of_month) = civil(day);
        // 1 January 1970 was a Thursday.
        let weekday = (day + 4).rem_euclid(7);
        let (by_month, by_week) = (bit(self.days, day_of_month), bit(self.weekdays, weekday));
        let wanted = if self.any_day || self.any_weekday { by_month && by_week } else { by_month || by_week };
        bit(self.months, month) && wanted
    }
}

fn bit(bits: u64, at: i64) -> bool {
    u32::try_from(at).ok().and_then(|n| 1_u64.checked_shl(n)).is_some_and(|b| bits & b != 0)
}

/// Month and day of the month, both from 1, of a day since the epoch (proleptic Gregorian).
fn civil(day: i64) -> (i64, i64) {
    // Counts from 1 March of year 0, so that a leap day is the last of its year; 146097 days are 400 years.
    let of_era = (day + 719_468).rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    (if month < 10 { month + 3 } else { month - 9 }, of_year - (153 * month + 2) / 5 + 1)
}

/// The bits of one field, and whether it is a bare star.
fn field(what: &str, text: &str, least: u32, most: u32, names: &[&str]) -> Result<(u64, bool), String> {
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > PARTS_MAX {
        return Err(format!("{what} has {} parts, at most {PARTS_MAX} are read", parts.len()));
    }
    let (mut bits, mut any) = (0_u64, false);
    for part in parts {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(what, step)?)),
            None => (part, None),
        };
        if step == Some(0) {
            return Err(format!("{what} has step 0 in `{part}`"));
        }
        let star = range == "*" || range == "?";
        any |= star && step.is_none_or(|s| s == 1);
        let value = |word: &str| name_or_number(what, word, least, names);
        let (from, to) = if star {
            (least, most)
        } else if let Some((from, to)) = range.split_once('-') {
            (value(from)?, value(to)?)
        } else {
            let one = value(range)?;
            // `5/15` runs on to the end of the range.
            (one, if step.is_some() { most } else { one })
        };
        if from < least || to > most || from > to {
            return Err(format!("{what} `{part}` is outside {least} to {most}"));
        }
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        bits |= (from..=to).step_by(step).fold(0, |all, n| all | (1_u64 << n));
    }
    Ok((bits, any))
}

fn name_or_number(what: &str, word: &str, least: u32, names: &[&str]) -> Result<u32, String> {
    let lower = word.to_ascii_lowercase();
    match names.iter().zip(least..).find(|(name, _)| **name == lower) {
        Some((_, value)) => Ok(value),
        None => number(what, word),
    }
}

fn number(what: &str, word: &str) -> Result<u32, String> {
    let digits = !word.is_empty() && word.len() <= 4 && word.bytes().all(|b| b.is_ascii_digit());
    word.parse().ok().filter(|_| digits).ok_or_else(|| format!("{what} has `{word}`, which is no number"))
}

/// Seconds of `1h30m`, at least one; a fraction of a second is dropped.
fn duration_secs(text: &str) -> Option<i64> {
    let (mut rest, mut sum) = (text, 0_i64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest.get(..digits)?.parse().ok()?;
        let tail = rest.get(digits..)?;
        let unit = if tail.starts_with("ms") {
            rest = tail.get(2..)?;
            continue;
        } else {
            match tail.bytes().next()? {
                b'h' => 3600,
                b'm' => 60,
                b's' => 1,
                _ => return None,
            }
        };
        sum = sum.checked_add(number.checked_mul(unit)?)?;
        rest = tail.get(1..)?;
    }
    (!text.is_empty() && sum < 100 * 366 * DAY_SECS).then_some(sum.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[track_caller]
    fn check(schedule: &str, after: &str, next: Option<&str>) {
        let found = Schedule::parse(schedule).unwrap().next(at(after));
        assert_eq!(found, next.map(at), "{schedule} after {after}");
    }

    #[test]
    fn the_next_time_is_found() {
        check("*/5 * * * *", "2026-03-01T12:00:00Z", Some("2026-03-01T12:05:00Z"));
        check("*/5 * * * *", "2026-03-01T12:04:59Z", Some("2026-03-01T12:05:00Z"));
        check("30 2 * * *", "2026-03-01T12:00:00Z", Some("2026-03-02T02:30:00Z"));
        check("0 9 * * mon-fri", "2026-02-28T12:00:00Z", Some("2026-03-02T09:00:00Z"));
        check("0 0 1 JAN ?", "2026-03-01T12:00:00Z", Some("2027-01-01T00:00:00Z"));
        check("7/20 1,3 * * *", "2026-03-01T01:28:00Z", Some("2026-03-01T01:47:00Z"));
        check("@daily", "2026-12-31T23:59:30Z", Some("2027-01-01T00:00:00Z"));
        check("@weekly", "2026-03-01T12:00:00Z", Some("2026-03-08T00:00:00Z"));
        check("@every 1h30m", "2026-03-01T12:00:00Z", Some("2026-03-01T13:30:00Z"));
        // Both days restricted: either is enough. The first Friday or the 13th.
        check("0 0 13 * 5", "2026-03-01T12:00:00Z", Some("2026-03-06T00:00:00Z"));
        // A star with a step is a restriction too.
        check("0 0 */31 * 3", "2026-03-01T12:00:00Z", Some("2026-03-04T00:00:00Z"));
    }

    #[test]
    fn days_that_never_come_are_known() {
        check("0 0 31 2 *", "2026-03-01T12:00:00Z", None);
        check("0 0 30 feb *", "2026-03-01T12:00:00Z", None);
        check("0 0 31 4,6,9,11 *", "2026-03-01T12:00:00Z", None);
        check("0 0 29 2 *", "2026-03-01T12:00:00Z", Some("2028-02-29T00:00:00Z"));
        check("0 0 29 2 *", "2096-03-01T12:00:00Z", Some("2104-02-29T00:00:00Z"));
        // The day of the week makes up for the day that never comes.
        check("0 0 31 2 1", "2026-03-01T12:00:00Z", Some("2027-02-01T00:00:00Z"));
    }

    #[test]
    fn bad_schedules_are_told_apart() {
        for (bad, says) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("* * * * * *", "6 fields"),
            ("60 * * * *", "minute `60`"),
            ("* 24 * * *", "hour `24`"),
            ("* * 0 * *", "day of the month `0`"),
            ("* * 32 * *", "day of the month `32`"),
            ("* * * 13 *", "month `13`"),
            ("* * * * 7", "day of the week `7`"),
            ("*/0 * * * *", "step 0"),
            ("9-5 * * * *", "`9-5`"),
            ("a * * * *", "`a`"),
            ("-1 * * * *", "``"),
            ("1,,2 * * * *", "``"),
            ("* * L * *", "`L`"),
            ("* * * * mon#2", "`mon#2`"),
            ("* * * foo *", "`foo`"),
            ("+1 * * * *", "`+1`"),
            ("99999999999 * * * *", "no number"),
            ("@reboot", "`@reboot`"),
            ("@every ten minutes", "`ten minutes`"),
            ("@every ", "@every"),
            ("@every 9999999999999h", "duration"),
            ("TZ=Europe/Berlin 0 1 * * *", "spec.timeZone"),
            ("every day", "2 fields"),
            ("ä * * * *", "`ä`"),
        ] {
            let error = Schedule::parse(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
        assert!(Schedule::parse(&"1,".repeat(300)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics_and_next_is_later(text in "\\PC{0,40}", fields in "[0-9*/,? -]{0,30}", secs in -4_000_000_000_i64..4_000_000_000) {
            let now = Timestamp::from_secs(secs);
            for text in [text, fields] {
                if let Ok(schedule) = Schedule::parse(&text) {
                    proptest::prop_assert!(schedule.next(now).is_none_or(|n| n > now));
                }
            }
        }
    }
}
