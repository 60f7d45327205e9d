//! Masks the variable parts of a log line in one pass over its bytes.
//!
//! Lives here: what a number, an address, a path or an identifier looks like, as byte classes. Never here: grouping
//! (`miner`). No regular expression, no allocation once the buffer has grown to its bound.
//!
//! A line becomes words and separators. Words without a digit, slash or colon are copied as they are (the common
//! case); the others are taken apart by [`word`]. Every masked part is the single byte [`WILD`], so the masked form
//! is never longer than the line.

/// Stands for one variable part in a masked form. Control bytes of a line become blanks, so it cannot be forged.
pub const WILD: u8 = 1;

const DIGIT: u8 = 1;
const ALPHA: u8 = 2;
const DELIM: u8 = 4;
const SLASH: u8 = 8;
const COLON: u8 = 16;
const JOIN: u8 = 32;
const HEX: u8 = 64;
const BLANK: u8 = 128;

/// Class bits of every byte. Bytes of multi-byte characters count as letters.
const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        table[b] = match c {
            b'0'..=b'9' => DIGIT | HEX,
            b'a'..=b'f' | b'A'..=b'F' => ALPHA | HEX,
            b'a'..=b'z' | b'A'..=b'Z' | 0x80..=0xff => ALPHA,
            b'/' | b'\\' => SLASH,
            b':' => COLON,
            b'.' | b'-' | b'_' | b'@' | b'#' | b'$' | b'%' | b'&' | b'+' | b'*' | b'~' | b'^' => JOIN,
            0..=b' ' | 0x7f => DELIM | BLANK,
            _ => DELIM,
        };
        b += 1;
    }
    table
};

const fn is(b: u8, class: u8) -> bool {
    CLASS[b as usize] & class != 0
}

/// Separates tokens of a masked form: a delimiter or a colon, each a token of its own.
pub(super) const fn separates(b: u8) -> bool {
    b != WILD && is(b, DELIM | COLON)
}

/// Holds the buffer of the masked form.
#[derive(Debug, Clone)]
pub struct Masker {
    buf: Vec<u8>,
    len: usize,
    line_bytes_max: usize,
}

impl Masker {
    /// A masker that reads at most `line_bytes_max` bytes of a line.
    pub fn new(line_bytes_max: usize) -> Self {
        Self { buf: vec![0; line_bytes_max + 8], len: 0, line_bytes_max }
    }

    /// The masked form of `line`. White space at both ends is gone, inside it is one blank.
    pub fn mask(&mut self, line: &[u8]) -> &[u8] {
        let line = &line[..line.len().min(self.line_bytes_max)];
        let n = line.len();
        // What is written is never longer than what was read, so `o <= i` at every store.
        let buf = &mut self.buf[..n + 8];
        let (mut i, mut o) = (0, 0);
        // Words with digits in a row, a blank between them: where in `buf` the row began, and how many.
        let (mut row, mut row_words) = (0, 0u32);
        while i < n {
            let b = line[i];
            let class = CLASS[b as usize];
            if class & DELIM != 0 {
                if class & BLANK == 0 {
                    buf[o] = b;
                    o += 1;
                    i += 1;
                    row_words = 0;
                    if matches!(b, b'"' | b'\'' | b'[') && i >= 3 && line[i - 2] == b'=' {
                        i = value_group(line, i, b, buf, &mut o);
                    }
                } else {
                    i += 1;
                    if o > 0 && buf[o - 1] != b' ' {
                        buf[o] = b' ';
                        o += 1;
                    }
                }
                continue;
            }
            let (start, from) = (i, o);
            let mut flags = 0;
            while i < n {
                let b = line[i];
                let class = CLASS[b as usize];
                if class & DELIM != 0 {
                    break;
                }
                flags |= class;
                buf[o] = b;
                o += 1;
                i += 1;
            }
            if flags & DIGIT == 0 {
                row_words = 0;
            }
            let before = if start > 0 { line[start - 1] } else { b' ' };
            if before == b'=' && start >= 2 && is(line[start - 2], ALPHA | DIGIT | JOIN) && flags & (ALPHA | DIGIT) != 0
            {
                // The value of `key=value` is a parameter whatever it looks like, unless it is a constructor:
                // `x=Rect(`. One without blanks in it is a value again: `x=Source{7}`.
                match if i < n { line[i] } else { b' ' } {
                    b'(' | b'<' => {}
                    open @ (b'{' | b'[') => {
                        if let Some(end) = closed_group(line, i + 1, open) {
                            buf[from] = WILD;
                            o = from + 1;
                            i = end;
                            continue;
                        }
                    }
                    _ => {
                        let tail = line[start..i].iter().rev().take_while(|b| **b == b':').count();
                        buf[from] = WILD;
                        o = from + 1;
                        for _ in 0..tail {
                            buf[o] = b':';
                            o += 1;
                        }
                        continue;
                    }
                }
            }
            if flags & (DIGIT | SLASH | COLON) == 0 {
                if i - start <= 5 && i - start >= 3 {
                    let text = &line[start..i];
                    let next = if i < n { line[i] } else { b' ' };
                    if known_value(text) || (is_null(text) && value_place(line, start, next)) {
                        buf[from] = WILD;
                        o = from + 1;
                    } else if next == b' '
                        && let Some(end) = date(line, start, i)
                    {
                        buf[from] = WILD;
                        o = from + 1;
                        i = end;
                    } else if next == b'('
                        && i + 2 < n
                        && line[i + 2] == b')'
                        && line[i + 1].is_ascii_digit()
                        && text.iter().all(u8::is_ascii_uppercase)
                    {
                        // A unit of a reference clock: LOCAL(0), GPS(1).
                        buf[from] = WILD;
                        o = from + 1;
                        i += 3;
                    }
                }
                continue;
            }
            let text = &line[start..i];
            // A function's name, `init_2()`: its digits are no parameter.
            if flags & (SLASH | COLON) == 0 && line[i..].starts_with(b"()") && is(text[0], ALPHA) {
                row_words = 0;
                continue;
            }
            // A request line's target and protocol version are one parameter.
            if from >= 2 && buf[from - 2] == WILD && buf[from - 1] == b' ' && text.starts_with(b"HTTP/") {
                o = from - 1;
                continue;
            }
            o = word(text, flags, buf, from);
            if o != from + 1 || buf[from] != WILD {
                if flags & DIGIT != 0 && before == b' ' {
                    row_words += 1;
                    if row_words == 1 {
                        row = from;
                    }
                }
            } else {
                if flags & SLASH != 0 && i < n && line[i] == b'?' {
                    // The query of a path.
                    while i < n && !is(line[i], BLANK) && !matches!(line[i], b'"' | b'\'' | b')' | b'>') {
                        i += 1;
                    }
                }
                // a,b without a blank is one value, but not where `key=` begins it: the next may be its own.
                if before == b',' && from >= 2 && buf[from - 2] == WILD && (from < 3 || buf[from - 3] != b'=') {
                    o = from - 1;
                } else if flags & DIGIT != 0 && before == b' ' {
                    row_words += 1;
                    if row_words == 1 {
                        row = from;
                    }
                }
            }
            if row_words >= LIST {
                // A list of any length: one parameter.
                buf[row] = WILD;
                o = row + 1;
            }
        }
        while o > 0 && buf[o - 1] == b' ' {
            o -= 1;
        }
        self.len = o;
        &self.buf[..o]
    }

    /// The form that [`Self::mask`] made last.
    pub fn last(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

/// So many words with digits in a row are a list.
const LIST: u32 = 10;
/// Longest quoted or bracketed value that is looked at, bytes.
const GROUP_MAX: usize = 256;

/// Words that are values wherever they stand: booleans, and the account that every machine has.
fn known_value(word: &[u8]) -> bool {
    match word.len() {
        4 => word == b"true" || word == b"root" || word == b"True" || word == b"TRUE",
        5 => word == b"false" || word == b"False" || word == b"FALSE",
        _ => false,
    }
}

fn is_null(word: &[u8]) -> bool {
    word == b"null" || word == b"NULL" || word == b"nil"
}

/// Whether a word stands where values stand: `(null)`, `x = null`, not `a null pointer`.
fn value_place(line: &[u8], start: usize, next: u8) -> bool {
    let before = if start > 0 { line[start - 1] } else { return false };
    let assigned = before == b' ' && start >= 2 && line[start - 2] == b'=' && next != b'?';
    assigned || (before != b' ' && is(before, DELIM))
}

/// The value after `key="` (or `'`, `[`), up to where it closes. Writes it masked, returns where reading goes on.
fn value_group(line: &[u8], i: usize, open: u8, buf: &mut [u8], o: &mut usize) -> usize {
    if open == b'[' {
        let Some(end) = closed_group(line, i, open) else { return i };
        buf[*o - 1] = WILD;
        // [0,0][10,10] is one value.
        return if end < line.len() && line[end] == b'[' {
            closed_group(line, end + 1, b'[').unwrap_or(end)
        } else {
            end
        };
    }
    let Some(len) = line[i..].iter().take(GROUP_MAX).position(|b| *b == open) else { return i };
    if len == 0 {
        return i;
    }
    buf[*o] = WILD;
    buf[*o + 1] = open;
    *o += 2;
    i + len + 1
}

/// End of a group that opened before `i` and holds neither blank, `=` nor another group.
fn closed_group(line: &[u8], i: usize, open: u8) -> Option<usize> {
    let close = if open == b'{' { b'}' } else { b']' };
    let inside = &line[i..line.len().min(i + GROUP_MAX)];
    let len = inside.iter().position(|b| is(*b, BLANK) || matches!(b, b'=' | b'{' | b'}' | b'[' | b']'))?;
    (len > 0 && inside[len] == close).then_some(i + len + 1)
}

/// End of a date in words that begins at `start`: `[Thu ]Aug 11[ 16:35:31][ PDT][ 2005]`.
fn date(line: &[u8], start: usize, end: usize) -> Option<usize> {
    const DAYS: &[u8] = b"MonTueWedThuFriSatSun";
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let one_of = |names: &[u8], w: &[u8]| w.len() == 3 && names.chunks_exact(3).any(|n| n == w);
    let word_at = |mut i: usize| {
        while line.get(i) == Some(&b' ') {
            i += 1;
        }
        let len = line[i.min(line.len())..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b':').count();
        (i, i + len)
    };
    let mut at = (start, end);
    if one_of(DAYS, &line[at.0..at.1]) {
        at = word_at(at.1);
    }
    if !one_of(MONTHS, &line[at.0..at.1]) {
        return None;
    }
    let digits = |w: &[u8]| !w.is_empty() && w.iter().all(u8::is_ascii_digit);
    at = word_at(at.1);
    let day = &line[at.0..at.1];
    if !digits(day) || day.len() > 2 {
        return None;
    }
    let mut end = at.1;
    at = word_at(end);
    let time = &line[at.0..at.1];
    if time.contains(&b':') && time.iter().all(|b| b.is_ascii_digit() || *b == b':') {
        end = at.1;
        at = word_at(end);
        if at.1 - at.0 >= 3 && at.1 - at.0 <= 4 && line[at.0..at.1].iter().all(u8::is_ascii_uppercase) {
            let zone = at;
            at = word_at(at.1);
            if digits(&line[at.0..at.1]) {
                end = zone.1;
            }
        }
    }
    if at.1 - at.0 == 4 && digits(&line[at.0..at.1]) {
        end = at.1;
    }
    Some(end)
}

/// Masks a word that holds a digit, a slash or a colon; writes at `o`, returns where it ended.
fn word(text: &[u8], flags: u8, buf: &mut [u8], mut o: usize) -> usize {
    let body_len = text.len() - text.iter().rev().take_while(|b| matches!(b, b'.' | b':')).count();
    let (body, tail) = text.split_at(body_len);
    if body.is_empty() {
        return put(buf, o, tail);
    }
    if flags & SLASH != 0 {
        // `path:/var/log` is a name and a path; `hdfs://…` and `/a:b` are one.
        if flags & COLON != 0
            && let Some(colon) = body.iter().position(|b| *b == b':')
            && colon > 0
            // Neither a drive, `C:\x`, nor a scheme.
            && body.get(colon + 1) != Some(&b'\\')
            && body[..colon].iter().all(|b| is(*b, ALPHA) || *b == b'_')
            && !body[colon..].starts_with(b"://")
            && body.len() > colon + 1
        {
            o = put(buf, o, &body[..=colon]);
            return word(&text[colon + 1..], flags, buf, o);
        }
        if is_path(body) {
            buf[o] = WILD;
            return put(buf, o + 1, tail);
        }
    }
    let colons = if flags & COLON == 0 { 0 } else { body.iter().filter(|b| **b == b':').count() };
    // The one host name that needs no digit, dot or hyphen to be known as one: with its port it is an address.
    if colons == 1 && body.strip_prefix(b"localhost:").is_some_and(|port| port.iter().all(u8::is_ascii_digit)) {
        buf[o] = WILD;
        return put(buf, o + 1, tail);
    }
    if colons == 0 {
        o = part(body, buf, o);
    } else if colons >= 2 && flags & DIGIT != 0 && body.iter().all(|b| is(*b, HEX | COLON) || *b == b'.') {
        // Time of day, MAC, IPv6.
        buf[o] = WILD;
        o += 1;
    } else {
        let begin = o;
        let mut whole_wild = false;
        for (i, piece) in body.split(|b| *b == b':').enumerate() {
            if i > 0 {
                buf[o] = b':';
                o += 1;
            }
            let from = o;
            o = part(piece, buf, o);
            let wild = o == from + 1 && buf[from] == WILD;
            // host:port is one parameter, file.c:17 is a name and one.
            if wild && whole_wild && from >= begin + 2 {
                o = from - 1;
            } else {
                whole_wild = wild;
            }
        }
    }
    put(buf, o, tail)
}

fn put(buf: &mut [u8], o: usize, text: &[u8]) -> usize {
    buf[o..o + text.len()].copy_from_slice(text);
    o + text.len()
}

/// A path or URL, and not `read/write`.
fn is_path(body: &[u8]) -> bool {
    let slashes = body.iter().filter(|b| is(**b, SLASH)).count();
    if slashes == 0 {
        return false;
    }
    (is(body[0], SLASH) && body.len() > 1)
        || (body.len() > 3 && body[1] == b':' && body[2] == b'\\')
        || slashes >= 3
        || body.iter().any(|b| is(*b, DIGIT))
        || body.windows(2).any(|w| (is(w[0], SLASH) && w[1] == b'.') || (w[0] == b'.' && is(w[1], SLASH)))
        || body.windows(2).any(|w| w == b"//")
        || (is(body[body.len() - 1], SLASH) && body.len() > 2 && slashes >= 2)
}

/// Masks a piece without a colon.
fn part(text: &[u8], buf: &mut [u8], mut o: usize) -> usize {
    if !text.iter().any(|b| is(*b, DIGIT)) {
        if known_value(text) {
            buf[o] = WILD;
            return o + 1;
        }
        return put(buf, o, text);
    }
    // Anonymised names (#28#) and hosts (db-7.eu.example.com) are values whole.
    let anonymous = text.len() > 2 && text[0] == b'#' && text[text.len() - 1] == b'#';
    if (anonymous && text[1..text.len() - 1].iter().all(u8::is_ascii_digit))
        || (text.contains(&b'-') && text.iter().filter(|b| **b == b'.').count() >= 2 && is_host(text))
    {
        buf[o] = WILD;
        return o + 1;
    }
    let begin = o;
    let mut i = 0;
    // v1.2.3
    if matches!(text[0], b'v' | b'V')
        && text[1..].contains(&b'.')
        && text[1..].iter().all(|b| is(*b, DIGIT) || *b == b'.')
    {
        buf[o] = text[0];
        buf[o + 1] = WILD;
        return o + 2;
    }
    // What the chunk before the last dot was: wild dots on through dots, `core.4900` keeps its name.
    let mut wild_before = false;
    let mut dots = 0;
    while i < text.len() {
        if text[i] == b'.' {
            dots += 1;
            buf[o] = b'.';
            o += 1;
            i += 1;
            continue;
        }
        let start = i;
        while i < text.len() && text[i] != b'.' {
            i += 1;
        }
        let from = o;
        o = chunk(&text[start..i], buf, o);
        if wild_before && dots == 1 && o > from && from >= begin + 2 {
            // Versions, addresses, file extensions and domains after something masked belong to it.
            o = from - 1;
        } else {
            wild_before = o > from && buf[o - 1] == WILD;
        }
        dots = 0;
    }
    o
}

fn is_host(text: &[u8]) -> bool {
    text.split(|b| *b == b'.').all(|l| !l.is_empty() && l.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-'))
}

/// Masks a piece without colon and dot: parts between signs.
fn chunk(text: &[u8], buf: &mut [u8], mut o: usize) -> usize {
    let from = o;
    // A sign belongs to its number.
    let signed = text.len() > 1 && matches!(text[0], b'-' | b'+') && is(text[1], DIGIT);
    let body = if signed { &text[1..] } else { text };
    let mut i = 0;
    let (mut any_wild, mut hyphen) = (false, false);
    while i < body.len() {
        let b = body[i];
        if is(b, JOIN) && b != b'_' {
            hyphen |= b == b'-';
            buf[o] = b;
            o += 1;
            i += 1;
            continue;
        }
        let start = i;
        while i < body.len() && (!is(body[i], JOIN) || body[i] == b'_') {
            i += 1;
        }
        let piece = &body[start..i];
        if variable(piece) {
            any_wild = true;
            // a+b, a*b of two masked parts.
            if o >= from + 2 && buf[o - 2] == WILD && buf[o - 1] == b'+' {
                o -= 1;
            } else {
                buf[o] = WILD;
                o += 1;
            }
        } else {
            o = put(buf, o, piece);
        }
    }
    // rack-7, 2026-01-31, jetty-6: one name.
    if any_wild && hyphen {
        let lead = usize::from(body[0] == b'-');
        let tail = usize::from(body[body.len() - 1] == b'-');
        if body.len() > lead + tail && !body[lead..].iter().any(|b| is(*b, JOIN) && !matches!(b, b'-' | b'_')) {
            o = from;
            o = put(buf, o, &body[..lead]);
            buf[o] = WILD;
            o = put(buf, o + 1, &body[body.len() - tail..]);
        }
    }
    o
}

/// Whether letters, digits and underscores are a value: numbers, hex, identifiers; not `en0`, `IPv6`, `L2`, `ssh2`.
fn variable(piece: &[u8]) -> bool {
    let digits = piece.iter().filter(|b| is(**b, DIGIT)).count();
    if digits == 0 {
        return false;
    }
    is(piece[0], DIGIT)
        || digits >= 3
        || piece.contains(&b'_')
        || (piece.len() >= 4 && piece.iter().all(|b| is(*b, HEX)))
}

#[cfg(test)]
mod tests;
