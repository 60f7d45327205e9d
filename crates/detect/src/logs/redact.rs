//! Takes secrets out of a line before it is shown: samples leave the house in chat and mail.
//!
//! Better too much than too little: what follows a key that names a secret goes, also in a URL's user part, and so do
//! words with the well-known shapes of tokens.

/// Longest sample, bytes.
pub const SAMPLE_BYTES_MAX: usize = 2 << 10;

const KEYS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "accesskey",
    "private_key",
    "credential",
    "credentials",
    "authorization",
    "auth",
    "cookie",
    "session_id",
    "sessionid",
    "signature",
    "sig",
];

/// Beginnings of tokens that are recognised without a key.
const SHAPES: &[&str] =
    &["AKIA", "ASIA", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "eyJ", "sk-", "nst_"];

/// The line, cut to [`SAMPLE_BYTES_MAX`], its secrets replaced by `***`.
pub fn redact(line: &str) -> String {
    let cut = line.floor_char_boundary(SAMPLE_BYTES_MAX);
    let (text, whole) = (&line[..cut], cut == line.len());
    let mut out = String::with_capacity(text.len().min(SAMPLE_BYTES_MAX));
    let bytes = text.as_bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-') || b >= 0x80;
    let mut i = 0;
    while i < bytes.len() {
        if !word(bytes[i]) {
            // user:password@ of a URL.
            if text[i..].starts_with("://") {
                out.push_str("://");
                i += 3;
                let rest = &text[i..];
                let end =
                    rest.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '?')).unwrap_or(rest.len());
                if let Some(at) = rest[..end].rfind('@') {
                    out.push_str("***");
                    i += at;
                }
                continue;
            }
            let ch = text[i..].chars().next().unwrap_or(' ');
            out.push(if ch.is_control() { ' ' } else { ch });
            i += ch.len_utf8();
            continue;
        }
        let start = i;
        while i < bytes.len() && word(bytes[i]) {
            i += 1;
        }
        let name = &text[start..i];
        if name.len() >= 12 && SHAPES.iter().any(|s| name.starts_with(s)) {
            out.push_str("***");
            // The further parts of a JSON web token.
            while i < bytes.len() && (word(bytes[i]) || bytes[i] == b'.') {
                i += 1;
            }
            continue;
        }
        out.push_str(name);
        if name.eq_ignore_ascii_case("bearer") || name.eq_ignore_ascii_case("basic") {
            if bytes.get(i) == Some(&b' ') && token_follows(&bytes[i + 1..]) {
                out.push_str(" ***");
                i = value_end(bytes, i + 1);
            }
            continue;
        }
        if !names_secret(name) {
            continue;
        }
        // key=value, key: value, "key": "value", key => value
        let mut at = i;
        while at < bytes.len() && matches!(bytes[at], b'"' | b'\'' | b' ' | b'\\') && at < i + 4 {
            at += 1;
        }
        if !matches!(bytes.get(at), Some(b'=' | b':')) {
            continue;
        }
        while at < bytes.len() && matches!(bytes[at], b'=' | b':' | b'>' | b' ' | b'"' | b'\'' | b'\\') {
            at += 1;
        }
        out.push_str(&text[i..at]);
        i = at;
        if at < bytes.len() {
            out.push_str("***");
            let end = value_end(bytes, at);
            // Authorization: Bearer …
            let scheme = &text[at..end];
            let two =
                ["bearer", "basic", "token", "digest", "negotiate"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
            i = if two && bytes.get(end) == Some(&b' ') { value_end(bytes, end + 1) } else { end };
        }
    }
    if !whole {
        let room = out.floor_char_boundary(SAMPLE_BYTES_MAX - '…'.len_utf8());
        out.truncate(room);
        out.push('…');
    }
    out.truncate(out.floor_char_boundary(SAMPLE_BYTES_MAX));
    out
}

fn names_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    KEYS.iter().any(|key| {
        lower
            .strip_suffix(key)
            .is_some_and(|before| before.is_empty() || before.ends_with(['_', '-']) || key.len() >= 5)
    })
}

fn token_follows(rest: &[u8]) -> bool {
    value_end(rest, 0) >= 8
}

/// Where a value ends: at a blank, quote, comma, semicolon, ampersand or closing bracket.
fn value_end(bytes: &[u8], from: usize) -> usize {
    let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b',' | b';' | b'&' | b')' | b']' | b'}');
    from + bytes[from..].iter().position(ends).unwrap_or(bytes.len() - from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let cases = [
            ("login user=bob password=hunter2 ok", "login user=bob password=*** ok"),
            ("DB_PASSWORD: 'x y' done", "DB_PASSWORD: '*** y' done"),
            (r#"{"api_key": "abc", "n": 3}"#, r#"{"api_key": "***", "n": 3}"#),
            ("Authorization: Bearer abc.def.ghi next", "Authorization: *** next"),
            ("sent Bearer abcdefgh1234 to", "sent Bearer *** to"),
            ("the bearer of news", "the bearer of news"),
            ("connect postgres://app:s3cret@db:5432/x", "connect postgres://***@db:5432/x"),
            ("GET https://example.com/a@b", "GET https://example.com/a@b"),
            ("key AKIAIOSFODNN7EXAMPLE used", "key *** used"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc end", "jwt *** end"),
            ("GET /x?token=abc&y=1", "GET /x?token=***&y=1"),
            ("tokens left: 5", "tokens left: 5"),
            ("design: blue", "design: blue"),
            ("password=", "password="),
            ("secret", "secret"),
            ("ünïcode pwd=ü!x", "ünïcode pwd=***"),
            ("", ""),
        ];
        for (line, want) in cases {
            assert_eq!(redact(line), want, "{line}");
        }
    }

    #[test]
    fn long_lines_are_cut_at_a_character() {
        for line in ["x".repeat(5000), "ü".repeat(5000), "pwd=a ".repeat(2000)] {
            let out = redact(&line);
            assert!(out.len() <= SAMPLE_BYTES_MAX && out.ends_with('…'), "{}", out.len());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_a_secret_never_survives(a in ".{0,60}", b in ".{0,60}") {
            let out = redact(&format!("{a} password=Zq9Zq9Zq9Zq9 {b}"));
            proptest::prop_assert!(!out.contains("Zq9Zq9Zq9Zq9"), "{}", out);
        }
    }
}
