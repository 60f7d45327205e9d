//! Words for people: how long ago, how near two names are.

use std::time::Duration;

/// Longest name of which the distance is taken, bytes.
const NAME_BYTES_MAX: usize = 253;

/// How many letters must be put in, taken out, changed or swapped with the next to make one name of the other; more than
/// `max` counts as `max + 1`.
pub(crate) fn distance(a: &str, b: &str, max: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > max || a.len() > NAME_BYTES_MAX || b.len() > NAME_BYTES_MAX {
        return max + 1;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (row[j] + usize::from(x != y)).min(row[j + 1] + 1).min(next[j] + 1);
            // Two letters in the wrong order are one slip.
            if i > 0 && j > 0 && a[i - 1] == *y && *x == b[j - 1] {
                cost = cost.min(before[j - 1] + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()].min(max + 1)
}

/// Whether two names look like one with a slip: one letter of three or more, two of six or more.
pub(crate) fn is_slip(a: &str, b: &str) -> bool {
    let shorter = a.len().min(b.len());
    let slips = if shorter >= 6 { 2 } else { 1 };
    shorter >= 3 && distance(a, b, slips) <= slips
}

/// Whether two names look like one with a slip, or one is within the other.
pub(crate) fn alike(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    is_slip(a, b) || (a.len().min(b.len()) >= 3 && (a.contains(b) || b.contains(a)))
}

/// `2 minutes`: the largest unit that fits.
pub(crate) fn span(time: Duration) -> String {
    let secs = time.as_secs();
    let (n, unit) = match secs {
        0..=119 => (secs, "second"),
        120..=7199 => (secs / 60, "minute"),
        7200..=172_799 => (secs / 3600, "hour"),
        _ => (secs / 86_400, "day"),
    };
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_slips() {
        for (a, b, d) in [
            ("web", "web", 0),
            ("web", "wed", 1),
            ("payments", "payment", 1),
            ("cart", "crat", 1),
            ("edge", "egde", 1),
            ("abcd", "badc", 2),
            ("a", "xyz", 3),
        ] {
            assert_eq!(distance(a, b, 2), d, "{a} {b}");
            assert_eq!(distance(b, a, 2), d, "{b} {a}");
        }
        assert!(
            alike("payment", "payments")
                && alike("web-frontend", "web")
                && !is_slip("payments-db", "payments")
                && !alike("cart", "mail")
        );
    }

    #[test]
    fn spans_are_short() {
        for (secs, text) in
            [(1, "1 second"), (119, "119 seconds"), (120, "2 minutes"), (90_000, "25 hours"), (864_000, "10 days")]
        {
            assert_eq!(span(Duration::from_secs(secs)), text);
        }
    }
}
