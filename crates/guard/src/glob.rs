//! Patterns in which `*` stands for any run of characters, also none.

/// Whether the whole text fits. Linear in the text for each `*`; no other sign has a meaning.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(i) => rest = &rest[i + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;
    use proptest::prelude::*;

    #[test]
    fn a_star_is_any_run() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("ab*ba", "aba", false),
            ("*b*", "abc", true),
            ("*bb*", "abc", false),
            ("a**c", "axc", true),
            ("prod/*/shop/*", "prod/service/shop/cart", true),
            ("prod/*/shop/*", "prod/service/other/cart", false),
            ("?", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    /// The obvious definition, exponential and right.
    fn slow(p: &[char], t: &[char]) -> bool {
        match p.split_first() {
            None => t.is_empty(),
            Some(('*', rest)) => (0..=t.len()).any(|i| slow(rest, &t[i..])),
            Some((c, rest)) => t.first() == Some(c) && slow(rest, &t[1..]),
        }
    }

    proptest! {
        #[test]
        fn it_is_the_obvious_definition(p in "[ab*]{0,7}", t in "[ab]{0,8}") {
            let (pc, tc): (Vec<char>, Vec<char>) = (p.chars().collect(), t.chars().collect());
            prop_assert_eq!(matches(&p, &t), slow(&pc, &tc));
        }
    }
}
