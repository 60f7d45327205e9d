//! Figures and names as people read them, for the texts of findings.

use crate::objects::text::distance;
pub(super) use crate::objects::text::span as duration;

/// `1.5 GiB`; whole numbers without a fraction.
pub(super) fn bytes(amount: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = amount.max(0.0);
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let tenths = (value * 10.0).round() / 10.0;
    if tenths.fract() == 0.0 { format!("{tenths:.0} {}", UNITS[unit]) } else { format!("{tenths:.1} {}", UNITS[unit]) }
}

/// `a`, `a and b`, `a, b and 3 more`.
pub(super) fn list<S: AsRef<str>>(items: &[S]) -> String {
    const SHOWN: usize = 4;
    let text = |some: &[S]| some.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    match items {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        _ if items.len() > SHOWN => format!("{} and {} more", text(&items[..SHOWN]), items.len() - SHOWN),
        [most @ .., last] => format!("{} and {}", text(most), last.as_ref()),
    }
}

/// The name among some that is most like this one, if it could be a slip of the pen: few letters differ, or one is the
/// other with something added.
pub(super) fn nearest<'a>(name: &str, others: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let far = name.len() / 4 + 1;
    let like = |other: &str| {
        let (short, long) = if name.len() < other.len() { (name, other) } else { (other, name) };
        let added = short.len() >= 4 && (long.starts_with(short) || long.ends_with(short));
        let steps = distance(name, other, far);
        if steps <= far { Some(steps) } else { added.then_some(far) }
    };
    others.filter(|o| *o != name).filter_map(|o| like(o).map(|steps| (steps, o))).min().map(|(_, o)| o)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(
            [bytes(512.0), bytes(1536.0), bytes(10_737_418_240.0)],
            ["512 B", "1.5 KiB", "10 GiB"].map(String::from)
        );
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(list(&["a", "b", "c", "d", "e"]), "a, b, c, d and 1 more");
    }

    #[test]
    fn slips_of_the_pen_are_seen_and_strangers_are_not() {
        let all = ["standard", "premium-rwo"];
        assert_eq!(nearest("standrad", all.into_iter()), Some("standard"));
        assert_eq!(nearest("premium", all.into_iter()), Some("premium-rwo"));
        assert_eq!(nearest("gp3", all.into_iter()), None);
        assert_eq!(nearest("standard", all.into_iter()), None);
    }
}
