//! Templates of recorded log lines: which lines say the same thing with other values.
//!
//! Coarse on purpose. The miner of the detect room is finer and learns; this only has to tell a line that a request
//! always writes from one that it never does, for thousands of lines in a millisecond or two, so it makes a number of
//! a line and no text.

/// Words of a line that make its template: what comes later is nearly always payload.
const WORDS_MAX: usize = 24;
/// Bytes of a line that are looked at, so that one huge line costs no more than a long one.
const BYTES_MAX: usize = 512;
/// Words that tell of failure in any language of programs.
const FAILURE: [&[u8]; 8] = [b"error", b"exception", b"fail", b"fatal", b"panic", b"refused", b"timeout", b"timed out"];

/// A number that lines of one template share.
///
/// A word is a run of letters, digits, `_` and non-ASCII bytes. A word with a digit is a value, and so is what follows
/// `:` or `=` (with at most one space between) in lines that name their values. Punctuation does not count.
/// Hash: FNV-1a of 64 bits, the same on every machine.
pub(super) fn template(message: &str) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = message.as_bytes();
    let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let (mut i, mut words) = (0, 0);
    while i < bytes.len() && words < WORDS_MAX {
        if !is_word(bytes[i]) {
            i += 1;
            continue;
        }
        let begin = i;
        let mut digits = false;
        while i < bytes.len() && is_word(bytes[i]) {
            digits |= bytes[i].is_ascii_digit();
            i += 1;
        }
        words += 1;
        let before = bytes[..begin].trim_ascii_end();
        let is_value = before.len() + 1 >= begin && before.last().is_some_and(|b| matches!(b, b':' | b'='));
        if digits || is_value {
            hash = (hash ^ u64::from(b'*')).wrapping_mul(PRIME);
            continue;
        }
        for b in &bytes[begin..i] {
            hash = (hash ^ u64::from(*b)).wrapping_mul(PRIME);
        }
        hash = (hash ^ u64::from(b' ')).wrapping_mul(PRIME);
    }
    hash
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
