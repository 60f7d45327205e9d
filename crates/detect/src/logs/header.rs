//! Finds where the header of a raw log line ends: time, host, level, component, in the orders that are common.
//!
//! Collect knows the format of what it follows and does not need this; it is for files of unknown make.

const LEVELS: &[&str] = &[
    "TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "WARNING", "ERROR", "ERR", "SEVERE", "CRITICAL", "CRIT", "ALERT",
    "FATAL", "EMERG", "PANIC", "FAILURE",
];
/// Fields from one time of a header to the next at most: host, month, day, time.
const GAP_MAX: usize = 4;
/// Fields that a header has at most.
const FIELDS_MAX: usize = 20;

/// The message of a raw line: what stands after the header, the whole line when there is none.
pub fn split(line: &str) -> &str {
    let start = content_at(line.as_bytes()).min(line.len());
    line.get(start..).unwrap_or(line).trim_start()
}

/// The same for a line of any bytes.
pub fn split_bytes(line: &[u8]) -> &[u8] {
    line.get(content_at(line)..).unwrap_or_default().trim_ascii_start()
}

fn content_at(line: &[u8]) -> usize {
    let mut fields: [(usize, usize); FIELDS_MAX] = [(0, 0); FIELDS_MAX];
    let mut n = 0;
    let mut i = 0;
    while n < FIELDS_MAX {
        while line.get(i).is_some_and(u8::is_ascii_whitespace) {
            i += 1;
        }
        let start = i;
        while line.get(i).is_some_and(|b| !b.is_ascii_whitespace()) {
            i += 1;
        }
        if i == start {
            break;
        }
        fields[n] = (start, i);
        n += 1;
    }
    let field = |i: usize| if i < n { &line[fields[i].0..fields[i].1] } else { &[] as &[u8] };
    let first = field(0);
    if let Some(bar) = first.iter().position(|b| *b == b'|')
        && is_time(&first[..bar])
    {
        return bars(line, bar);
    }
    // Some headers carry two times, with a host and the words of a date between them. A later one is the message's,
    // as is what follows a level or a component's colon.
    let ends = |i: usize| ends_colon(field(i)) || is_level(field(i));
    let named = (0..n.min(8)).find(|i| ends(*i)).unwrap_or(n.min(8));
    let (mut time, mut seen) = (None, 0);
    for i in 0..named {
        if is_time(field(i)) && (time.is_none() || i - seen <= GAP_MAX) {
            time = Some(i);
            seen = i;
        }
    }
    let Some(time) = time else { return 0 };
    let mut at = time + 1;
    let level = (at..n.min(at + 5)).find(|i| {
        let f = field(*i);
        let letter = matches!(f, b"V" | b"D" | b"I" | b"W" | b"E" | b"F") && is_number(field(i - 1));
        letter || is_level(f)
    });
    if let Some(level) = level {
        at = level + 1;
    }
    while is_number(field(at)) && level.is_some() && ends_colon(field(at + 1)) {
        at += 1;
    }
    let begin = |i: usize| if i < n { fields[i].0 } else { line.len() };
    // [thread], [request and tenant]
    let skip_brackets = |mut i: usize| {
        if field(i).first() == Some(&b'[')
            && let Some(end) = (i..n).find(|k| matches!(field(*k), [.., b']'] | [.., b']', b':']))
        {
            i = end + 1;
        }
        i
    };
    if level.is_some() {
        let after_level = at;
        at = skip_brackets(at);
        let name = field(at);
        // `Window:`, `a.b.C:`, `[main] c:` name a component; after a bare level `ciod:` belongs to the message.
        let component = at > after_level || name.contains(&b'.') || name.first().is_some_and(u8::is_ascii_uppercase);
        if ends_colon(name) && component {
            return begin(at + 1);
        }
        let dotted = name.contains(&b'.') && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'));
        if dotted && field(at + 1).first() == Some(&b'[') {
            at = skip_brackets(at + 1);
        }
        return begin(at);
    }
    // Syslog: host, program[pid]: where the program's name may have blanks.
    if let Some(program) = (at..n.min(at + 4)).find(|i| ends_colon(field(*i)))
        && (at..=program).any(|i| field(i).contains(&b'['))
    {
        return begin(program + 1);
    }
    if !ends_colon(field(at)) && ends_colon(field(at + 1)) {
        return begin(at + 2);
    }
    if ends_colon(field(at)) {
        return begin(at + 1);
    }
    begin(at)
}

/// `time|component|number|message`
fn bars(line: &[u8], first: usize) -> usize {
    let mut at = first + 1;
    for _ in 0..2 {
        let Some(len) = line[at..].iter().position(|b| *b == b'|') else { break };
        if line[at..at + len].iter().any(u8::is_ascii_whitespace) {
            break;
        }
        at += len + 1;
    }
    at
}

fn ends_colon(field: &[u8]) -> bool {
    field.len() > 1 && field.ends_with(b":")
}

/// `INFO`, `[warn]`, `error:`
fn is_level(field: &[u8]) -> bool {
    let bare = field.strip_prefix(b"[").and_then(|f| f.strip_suffix(b"]")).unwrap_or(field);
    let bare = bare.strip_suffix(b":").unwrap_or(bare);
    LEVELS.iter().any(|l| bare.eq_ignore_ascii_case(l.as_bytes()))
}

fn is_number(field: &[u8]) -> bool {
    !field.is_empty() && field.iter().all(u8::is_ascii_digit)
}

/// A date, a time of day, both in one, a Unix time. Strict in the number of digits: versions and addresses are none.
fn is_time(field: &[u8]) -> bool {
    let field = field.strip_prefix(b"[").unwrap_or(field);
    let field = field.strip_suffix(b"]").unwrap_or(field);
    if is_number(field) {
        return (10..=19).contains(&field.len());
    }
    if !field.iter().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b':' | b'/' | b'.' | b',' | b'T' | b'Z' | b'+')) {
        return false;
    }
    let digits = |from: usize| field[from.min(field.len())..].iter().take_while(|b| b.is_ascii_digit()).count();
    let (first, sign) = (digits(0), |i: usize| field.get(i).copied().unwrap_or_default());
    let (a, second) = (sign(first), digits(first + 1));
    let (b, third) = (sign(first + 1 + second), digits(first + second + 2));
    match first {
        // 2026-01-02, 2026.01.02, 2026/01/02, and what follows.
        4 => a == b && matches!(a, b'-' | b'.' | b'/') && (second, third) == (2, 2),
        // 20260102-03:04:05
        8 => a == b'-' && b == b':',
        // 03:04, 03:04:05.678; 01-02; 26/01/02
        2 => match a {
            b':' => second == 2 && (b == 0 || b == b':' && third == 2),
            b'-' => second == 2 && b == 0,
            b'/' => second == 2 && (b == 0 || b == b'/' && matches!(third, 2 | 4)),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_common_makes() {
        let cases = [
            ("2026-01-02T03:04:05Z INFO [main] org.example.App: it began", "it began"),
            ("2026-01-02 03:04:05,678 WARN  [a b] x.y.Z: too: slow", "too: slow"),
            ("Jan  2 03:04:05 web1 sshd[123]: session closed", "session closed"),
            ("01-02 03:04:05.678  123  456 D Window: shown", "shown"),
            ("2026-01-02 03:04:05.678 123 INFO a.b.c [req-1 - -] GET", "GET"),
            ("2026-01-02 03:04:05 9 INFO a.b.c [req-1 b c - - -] GET /", "GET /"),
            ("- 1700000000 x KERNEL INFO ciod: died", "ciod: died"),
            ("20260102-03:04:05:678|Step|300|went 5", "went 5"),
            ("- 1700000000 2026.01.02 n1 2026-01-02-03.04.05.6 n1 RAS KERNEL INFO parity error", "parity error"),
            ("Jan  2 03:04:05 web1 Big Word[7]: opened", "opened"),
            ("Jan  2 03:04:05 web1 kernel[0]: ARPT: 620701.011328: System Sleep", "ARPT: 620701.011328: System Sleep"),
            ("2026-01-02 03:04:05 10.0.0.1 \"GET /\" 200", "10.0.0.1 \"GET /\" 200"),
            ("2026-01-02 03:04:05 9 INFO a.b [-] 10.0.0.1,10.0.0.2 x", "10.0.0.1,10.0.0.2 x"),
            ("2026-01-02 03:04:05 status installed libc6:amd64 2.118-1", "status installed libc6:amd64 2.118-1"),
            ("2026-01-02 03:04:05 INFO next run at 04:00:00 daily", "next run at 04:00:00 daily"),
            ("2026/01/02 03:04:05 [error] 31#31: *7 open() failed", "31#31: *7 open() failed"),
            ("26/01/02 03:04:05 INFO a.B: it began", "it began"),
            ("no header here", "no header here"),
            ("1234 lines", "1234 lines"),
            ("", ""),
            ("2026-01-02", ""),
        ];
        for (line, want) in cases {
            assert_eq!(split(line), want, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_a_message_that_is_its_end(line in "[ -~ä]{0,120}") {
            proptest::prop_assert!(line.ends_with(split(&line)));
            proptest::prop_assert_eq!(split_bytes(line.as_bytes()), split(&line).as_bytes());
        }
    }
}
