//! Freeze and maintenance windows: arithmetic on times that are passed in.

use crate::glob::matches;
use nightshift_model::{EntityId, Timestamp, time::NANOS_PER_SEC};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a window means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// Nothing may be changed: a plan is denied, and only an admin may override it.
    #[default]
    Freeze,
    /// People are at work: a plan waits until it is over.
    Maintenance,
}

impl WindowKind {
    /// Name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Maintenance => "maintenance",
        }
    }
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    /// The week.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// Name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }
}

/// A time in which nothing is changed. Either weekly (`days`, `from`, `to`) or once (`starts_at`, `ends_at`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Window {
    /// Its name, in every reason that it gives.
    pub name: String,
    /// What it means.
    pub kind: WindowKind,
    /// Days on which it begins; empty: every day.
    pub days: Vec<Day>,
    /// When it begins, `HH:MM`.
    #[schemars(extend("pattern" = "^([01][0-9]|2[0-3]):[0-5][0-9]$|^$"))]
    pub from: String,
    /// When it ends, `HH:MM`; not after `from`: on the day after. `24:00` is the end of the day.
    #[schemars(extend("pattern" = "^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$|^$"))]
    pub to: String,
    /// Minutes by which these local times are ahead of UTC; Berlin in winter: 60. Summer time is not known here.
    #[schemars(range(min = -840, max = 840))]
    pub utc_offset_minutes: i32,
    /// When it begins, once (RFC 3339).
    #[schemars(with = "Option<String>")]
    pub starts_at: Option<Timestamp>,
    /// When it ends, once (RFC 3339).
    #[schemars(with = "Option<String>")]
    pub ends_at: Option<Timestamp>,
    /// What it is about: patterns with `*` over ids, names or namespaces of entities; empty: everything.
    pub entities: Vec<String>,
}

const MINUTES_A_DAY: i64 = 24 * 60;

/// Minutes since midnight, 0..=1440; `None` when it is no time of day.
fn minutes(text: &str) -> Option<i64> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |t: &str| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(hour) || !digits(minute) {
        return None;
    }
    let (hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= MINUTES_A_DAY).then_some(all)
}

/// Day of the week and minute of the day at an offset from UTC.
pub(crate) fn local(at: Timestamp, utc_offset_minutes: i32) -> (Day, i64) {
    let minute = at.nanos().div_euclid(60 * NANOS_PER_SEC) + i64::from(utc_offset_minutes);
    // The epoch was a Thursday, the fourth day of a week that begins on Monday.
    let day = (minute.div_euclid(MINUTES_A_DAY) + 3).rem_euclid(7);
    let day = usize::try_from(day).map_or(Day::Mon, |d| Day::ALL[d % 7]);
    (day, minute.rem_euclid(MINUTES_A_DAY))
}

impl Window {
    /// What is wrong with it, each with the name of the key.
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        let weekly = !self.from.is_empty() || !self.to.is_empty() || !self.days.is_empty();
        let once = self.starts_at.is_some() || self.ends_at.is_some();
        if self.name.is_empty() {
            out.push("name: give the window a name, it is in every reason".into());
        }
        match (weekly, once) {
            (true, true) => {
                out.push("starts_at: a window is weekly (days, from, to) or once (starts_at, ends_at), not both".into())
            }
            (false, false) => out.push("from: say when: days, from and to, or starts_at and ends_at".into()),
            (true, false) => {
                for (key, text) in [("from", &self.from), ("to", &self.to)] {
                    if minutes(text).is_none() {
                        out.push(format!("{key}: `{text}` is no time of day; write HH:MM"));
                    }
                }
                if !self.from.is_empty() && self.from == self.to {
                    out.push("to: is the same as from; for a whole day write from = \"00:00\", to = \"24:00\"".into());
                }
            }
            (false, true) => match (self.starts_at, self.ends_at) {
                (Some(start), Some(end)) if start < end => {}
                (Some(_), Some(_)) => out.push("ends_at: is not after starts_at".into()),
                _ => out.push("ends_at: both starts_at and ends_at are needed".into()),
            },
        }
        out
    }

    /// Whether it is on. A window that says nothing usable is always on: what cannot be read must not open a door.
    pub fn is_on(&self, at: Timestamp) -> bool {
        if self.starts_at.is_some() || self.ends_at.is_some() {
            return self.starts_at.is_none_or(|s| s <= at) && self.ends_at.is_none_or(|e| at < e);
        }
        let (Some(from), Some(to)) = (minutes(&self.from), minutes(&self.to)) else {
            return true;
        };
        let (day, minute) = local(at, self.utc_offset_minutes);
        let before = Day::ALL[(day as usize + 6) % 7];
        let begins_on = |d: Day| self.days.is_empty() || self.days.contains(&d);
        if from < to {
            begins_on(day) && (from..to).contains(&minute)
        } else {
            begins_on(day) && minute >= from || begins_on(before) && minute < to
        }
    }

    /// Whether it is about this entity.
    pub fn covers(&self, entity: &EntityId) -> bool {
        self.entities.is_empty()
            || self.entities.iter().any(|p| {
                matches(p, entity.as_str()) || matches(p, &entity.name()) || {
                    let namespace = entity.namespace();
                    !namespace.is_empty() && matches(p, &namespace)
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn weekly(days: &[Day], from: &str, to: &str, utc_offset_minutes: i32) -> Window {
        Window {
            name: "w".into(),
            days: days.to_vec(),
            from: from.into(),
            to: to.into(),
            utc_offset_minutes,
            ..Window::default()
        }
    }

    #[test]
    fn days_of_the_week_are_those_of_the_calendar() {
        for (time, day, minute) in [
            ("1970-01-01T00:00:00Z", Day::Thu, 0),
            ("1969-12-31T23:59:00Z", Day::Wed, 1439),
            ("2026-11-22T14:08:41Z", Day::Sun, 14 * 60 + 8),
            ("2024-02-29T12:30:00Z", Day::Thu, 750),
            ("2000-01-01T00:00:00Z", Day::Sat, 0),
        ] {
            assert_eq!(local(at(time), 0), (day, minute), "{time}");
        }
        assert_eq!(local(at("2026-11-22T23:30:00Z"), 60), (Day::Mon, 30));
        assert_eq!(local(at("2026-11-22T00:30:00Z"), -60), (Day::Sat, 1410));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let w = weekly(&[Day::Fri], "18:00", "08:00", 0);
        for (time, on) in [
            ("2026-11-20T17:59:59Z", false),
            ("2026-11-20T18:00:00Z", true),
            ("2026-11-21T07:59:59Z", true),
            ("2026-11-21T08:00:00Z", false),
            ("2026-11-21T18:00:00Z", false),
            ("2026-11-20T07:00:00Z", false),
        ] {
            assert_eq!(w.is_on(at(time)), on, "{time}");
        }
        assert!(weekly(&[], "00:00", "24:00", 0).is_on(at("2026-11-21T23:59:59Z")));
        assert!(weekly(&[Day::Mon], "00:30", "01:00", 60).is_on(at("2026-11-22T23:45:00Z")));
    }

    #[test]
    fn windows_that_say_nothing_usable_are_told_and_are_on() {
        let once = |s: Option<&str>, e: Option<&str>| Window {
            name: "w".into(),
            starts_at: s.map(at),
            ends_at: e.map(at),
            ..Window::default()
        };
        let both = Window { ends_at: Some(Timestamp(1)), ..weekly(&[], "01:00", "02:00", 0) };
        for (window, expected) in [
            (weekly(&[], "1:00", "02:00", 0), "from: `1:00` is no time of day; write HH:MM"),
            (weekly(&[], "01:00", "25:00", 0), "to: `25:00` is no time of day; write HH:MM"),
            (weekly(&[], "01:60", "02:00", 0), "from: `01:60` is no time of day; write HH:MM"),
            (weekly(&[Day::Mon], "", "", 0), "from: `` is no time of day; write HH:MM"),
            (once(Some("2026-01-02T00:00:00Z"), Some("2026-01-01T00:00:00Z")), "ends_at: is not after starts_at"),
            (once(Some("2026-01-02T00:00:00Z"), None), "ends_at: both starts_at and ends_at are needed"),
            (
                Window { name: "w".into(), ..Window::default() },
                "from: say when: days, from and to, or starts_at and ends_at",
            ),
            (both, "starts_at: a window is weekly (days, from, to) or once (starts_at, ends_at), not both"),
        ] {
            assert_eq!(window.problems().first().map(String::as_str), Some(expected), "{window:?}");
        }
        assert!(weekly(&[], "soon", "later", 0).is_on(Timestamp(0)));
        assert!(Window::default().is_on(Timestamp(0)), "an empty window freezes: it is told as a problem");
        assert_eq!(weekly(&[], "22:00", "06:00", 0).problems(), Vec::<String>::new());
    }

    #[test]
    fn it_covers_what_it_names() {
        let shop = EntityId::new("prod", "service", "shop", "checkout");
        let mut w = weekly(&[], "00:00", "24:00", 0);
        assert!(w.covers(&shop));
        for (pattern, covered) in
            [("prod/*", true), ("checkout", true), ("check*", true), ("shop", true), ("sho", false), ("stage/*", false)]
        {
            w.entities = vec![pattern.into()];
            assert_eq!(w.covers(&shop), covered, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn a_day_has_as_many_minutes_on_as_the_window_is_long(from in 0i64..1440, to in 1i64..=1440, day in 0i64..20_000, offset in -840i32..=840) {
            prop_assume!(from != to);
            let text = |m: i64| format!("{:02}:{:02}", m / 60, m % 60);
            let w = weekly(&[], &text(from), &text(to), offset);
            prop_assert_eq!(w.problems(), Vec::<String>::new());
            let on = (0..1440).filter(|m| w.is_on(Timestamp::from_secs((day * 1440 + m) * 60))).count() as i64;
            prop_assert_eq!(on, if from < to { to - from } else { 1440 - from + to });
        }
    }
}
