//! Templates of recorded log lines: which lines say the same thing with other values.
//!
//! Coarse on purpose. The miner of the detect room is finer and learns; this only has to tell a line that a request
//! always writes from one that it never does, for thousands of lines in a millisecond or two, so it makes a number of
//! a line and no text.

/// Words of a line that make its template, runs of values as one: what comes later is nearly always payload.
const WORDS_MAX: usize = 20;
/// Bytes of a line that are looked at, so that one huge line costs no more than a long one.
const BYTES_MAX: usize = 384;
/// Words that tell of failure in any language of programs.
const FAILURE: [&[u8]; 8] = [b"error", b"exception", b"fail", b"fatal", b"panic", b"refused", b"timeout", b"timed out"];

/// What a byte is to a word: no part of one, a part, a digit.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        if byte.is_ascii_digit() {
            kinds[b] = 2;
        } else if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 {
            kinds[b] = 1;
        }
        b += 1;
    }
    kinds
};

/// A number that lines of one template share.
///
/// A word is a run of letters, digits, `_` and non-ASCII bytes. A word with a digit is a value, and so is what follows
/// `:` or `=` (with at most one space between) in lines that name their values; values in a row are one. Punctuation
/// does not count. The same on every machine.
pub(super) fn template(message: &str) -> u64 {
    let bytes = message.as_bytes();
    let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    let kind = |i: usize| bytes.get(i).map_or(0, |b| KINDS[*b as usize]);
    let mut hash: u64 = 0;
    let (mut i, mut words, mut after_value) = (0, 0, false);
    while i < bytes.len() && words < WORDS_MAX {
        if kind(i) == 0 {
            i += 1;
            continue;
        }
        let begin = i;
        let mut seen = 0;
        while kind(i) != 0 {
            seen |= kind(i);
            i += 1;
        }
        let names = |back: usize| begin.checked_sub(back).is_some_and(|at| matches!(bytes[at], b':' | b'='));
        // Ids are written in parts, of which some have no digit.
        let goes_on = after_value && begin > 0 && bytes[begin - 1] == b'-';
        let is_value = seen & 2 != 0 || goes_on || names(1) || (names(2) && bytes[begin - 1] == b' ');
        if is_value && after_value {
            continue;
        }
        after_value = is_value;
        words += 1;
        hash = if is_value { mixed(hash, 1) } else { word(hash, &bytes[begin..i]) };
    }
    hash
}

/// The hash with a word added, eight bytes at a time.
fn word(hash: u64, bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let hash = chunks.iter().fold(hash, |hash, chunk| mixed(hash, u64::from_le_bytes(*chunk)));
    let rest = rest.iter().fold(0, |sum, b| sum << 8 | u64::from(*b));
    mixed(hash ^ (bytes.len() as u64) << 56, rest)
}

/// Multiplies and folds (as wyhash and its kin do), with the golden ratio's digits as the odd factor.
fn mixed(hash: u64, value: u64) -> u64 {
    let wide = u128::from(hash ^ value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    (wide as u64) ^ (wide >> 64) as u64 ^ hash.rotate_left(23)
}

/// Whether a line speaks of failure.
pub(super) fn tells_of_failure(message: &str) -> bool {
    let bytes = message.as_bytes();
    let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    FAILURE.iter().any(|word| bytes.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word)))
}

/// The beginning of a line, for people.
pub(super) fn shortened(message: &str) -> String {
    const CHARS: usize = 120;
    let mut out: String = message.chars().take(CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if message.chars().nth(CHARS).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_do_not_matter_and_words_do() {
        let a = template("12:01:02.5 INFO [query][Get order][id: 7f-abc, name: anna]");
        assert_eq!(a, template("13:59:00.1 INFO [query][Get order][id: 91-fe, name: bert]"));
        assert_ne!(a, template("13:59:00.1 WARN [query][Get order][id: 91-fe, name: bert]"));
        assert_ne!(a, template("13:59:00.1 INFO [query][Get price][id: 91-fe, name: bert]"));
        assert_ne!(template("ab c"), template("a bc"), "words have ends");
    }

    #[test]
    fn lines_of_any_bytes_have_a_template() {
        for message in ["", "::::", "=", "ü: ö", "\u{0}\n", &"x=1 ".repeat(100_000)] {
            let _ = (template(message), shortened(message));
        }
        assert!(tells_of_failure("Connection REFUSED by peer") && !tells_of_failure("all is well"));
    }
}
