//! What the last lines of a container say about why it ended.

use super::text::quote;
use crate::LogTail;

/// Why a container ended or does not work, by its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// A variable is not set.
    Variable(String),
    /// Somebody does not take its connections: `host:port`, `host` or empty.
    Refused(String),
    /// A name does not resolve.
    UnknownHost(String),
    /// Somebody does not answer in time.
    TimedOut(String),
    /// Credentials are refused.
    Credentials,
    /// The API server refuses its service account.
    Forbidden,
    /// A file is missing: its path, or empty.
    File(String),
    /// It may not use a file: its path, or empty.
    Permission(String),
    /// It writes where it may only read: the path, or empty.
    ReadOnly(String),
    /// Its port is taken: the port, or empty.
    AddressInUse(String),
    /// The program is for another processor.
    Architecture,
    /// The command is not there.
    NoCommand(String),
    SharedMemory,
    FileDescriptors,
    /// Out of memory by its own account, or a child of it was killed.
    OutOfMemory,
    /// Its file system is full.
    DiskFull,
    /// An error of its own.
    Error,
    /// Nothing: the line is only its last.
    Nothing,
}

/// What was read, with the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) why: Why,
    /// As it may be quoted.
    pub(super) line: String,
    /// `previous` or `current`.
    pub(super) place: &'static str,
}

/// Lines that are looked at, from the end.
const LINES_MAX: usize = 100;

/// Reads why the container ended: the log before the last restart first, where there is one.
pub(super) fn read(tail: &LogTail) -> Option<Read> {
    let places = [("previous", &tail.previous), ("current", &tail.current)];
    let (place, lines) = places.into_iter().find(|(_, l)| l.iter().any(|l| !l.trim().is_empty()))?;
    let last = || lines.iter().rev().filter(|l| !l.trim().is_empty()).take(LINES_MAX);
    let said = last().find_map(|l| exact(l).map(|w| (w, l)));
    let (why, line) = said
        .or_else(|| last().find(|l| is_error(l)).map(|l| (Why::Error, l)))
        .or_else(|| last().next().map(|l| (Why::Nothing, l)))?;
    Some(Read { why, line: quote(line), place })
}

/// The newest line, of now or before, that says what the test wants.
pub(super) fn find(tail: &LogTail, test: impl Fn(&Why) -> bool) -> Option<Read> {
    let newest = |place: &'static str, lines: &[String]| {
        let mut last = lines.iter().rev().filter(|l| !l.trim().is_empty()).take(LINES_MAX);
        last.find_map(|l| exact(l).filter(&test).map(|why| Read { why, line: quote(l), place }))
    };
    newest("current", &tail.current).or_else(|| newest("previous", &tail.previous))
}

fn has(low: &str, any: &[&str]) -> bool {
    any.iter().any(|w| low.contains(w))
}

fn is_error(line: &str) -> bool {
    let low = line.to_ascii_lowercase();
    has(
        &low,
        &[
            "error",
            "fatal",
            "panic",
            "exception",
            "traceback",
            "critical",
            "failed",
            "cannot",
            "segmentation fault",
            "abort",
        ],
    )
}

/// What one line says, if it says something exact.
pub(super) fn exact(line: &str) -> Option<Why> {
    let low = line.to_ascii_lowercase();
    if has(&low, &["exec format error"]) {
        return Some(Why::Architecture);
    }
    let shm = has(&low, &["shared memory", "/dev/shm", "(shm)"]);
    if shm
        && has(&low, &["no space left", "bus error", "insufficient", "could not resize", "out of shared", "exhausted"])
    {
        return Some(Why::SharedMemory);
    }
    if has(&low, &["too many open files", "emfile", "enfile"]) {
        return Some(Why::FileDescriptors);
    }
    if has(&low, &["address already in use", "eaddrinuse", "port is already allocated"])
        || (low.contains("port") && low.contains("already in use"))
    {
        return Some(Why::AddressInUse(port(line).unwrap_or_default()));
    }
    if has(&low, &["no space left on device", "enospc", "disk full"]) {
        return Some(Why::DiskFull);
    }
    if has(
        &low,
        &[
            "java heap space",
            "outofmemoryerror",
            "heap out of memory",
            "cannot allocate memory",
            "memoryerror",
            "perhaps out of memory",
            "oom-kill",
            "signal: killed",
            "signal 9",
            "sigkill",
        ],
    ) {
        return Some(Why::OutOfMemory);
    }
    if low.contains("read-only file system") || low.contains("erofs") {
        return Some(Why::ReadOnly(path(line).unwrap_or_default()));
    }
    if has(&low, &["is forbidden: user", "forbidden: user \"system:serviceaccount"]) {
        return Some(Why::Forbidden);
    }
    if let Some(name) = variable(line, &low) {
        return Some(Why::Variable(name));
    }
    if has(
        &low,
        &[
            "no such host",
            "could not resolve",
            "name or service not known",
            "enotfound",
            "eai_again",
            "unknownhost",
            "could not translate host name",
            "failure in name resolution",
            "nodename nor servname",
            "server misbehaving",
            "getaddrinfo failed",
        ],
    ) {
        return Some(Why::UnknownHost(looked_up(line).or_else(|| address(line)).unwrap_or_default()));
    }
    if has(
        &low,
        &["connection refused", "econnrefused", "connectionrefused", "could not connect to server", "actively refused"],
    ) {
        return Some(Why::Refused(address(line).unwrap_or_default()));
    }
    if has(
        &low,
        &[
            "password authentication failed",
            "access denied for user",
            "authentication failed",
            "invalid password",
            "wrongpass",
            "noauth",
            "invalid credentials",
            "invalid username",
            "login failed",
            "not authorized on",
            "sasl authentication",
        ],
    ) {
        return Some(Why::Credentials);
    }
    if has(
        &low,
        &[
            "i/o timeout",
            "connection timed out",
            "etimedout",
            "connect timeout",
            "connection timeout",
            "context deadline exceeded",
            "no route to host",
            "ehostunreach",
        ],
    ) {
        return Some(Why::TimedOut(address(line).unwrap_or_default()));
    }
    if has(&low, &["command not found", "executable file not found", ": not found"])
        && has(&low, &["sh:", "bash:", "exec:", "command not found"])
    {
        return Some(Why::NoCommand(command(line).unwrap_or_default()));
    }
    if has(&low, &["no such file or directory", "filenotfound", "enoent", "file not found"]) {
        return Some(Why::File(path(line).unwrap_or_default()));
    }
    if has(&low, &["permission denied", "eacces", "operation not permitted", "eperm"]) {
        return Some(Why::Permission(path(line).unwrap_or_default()));
    }
    None
}

/// A word without the marks around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.' | '[' | ']')))
        .trim_end_matches('.')
}

/// Words in capitals that are no variables.
const NOT_VARIABLES: [&str; 18] = [
    "ERROR", "FATAL", "WARN", "WARNING", "INFO", "DEBUG", "PANIC", "CRITICAL", "TRACE", "SEVERE", "ENV", "URL", "API",
    "HTTP", "JSON", "YAML", "NOT", "UTC",
];

fn variable(line: &str, low: &str) -> Option<String> {
    let env = has(
        low,
        &[
            "environment variable",
            "env var",
            "environment:",
            "environ",
            "keyerror",
            "unbound variable",
            "process.env",
            "getenv",
            "missing env",
            "required env",
        ],
    );
    let unset = has(
        low,
        &[
            "not set",
            "must be set",
            "is required",
            "is missing",
            "missing required",
            "undefined",
            "not defined",
            "is empty",
            "unset",
        ],
    );
    let mut words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let name = words.find(|w| {
        w.len() >= 3
            && w.starts_with(|c: char| c.is_ascii_uppercase())
            && w.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            && !NOT_VARIABLES.contains(w)
            && (env || w.contains('_'))
    })?;
    let complains =
        unset || has(low, &["missing", "keyerror", "unbound", "not found", "expected", "required", "no value"]);
    ((env && complains) || (unset && name.contains('_'))).then(|| name.to_owned())
}

/// `host:port` of a line, or a host that it names.
fn address(line: &str) -> Option<String> {
    // connection to server at "db" (10.1.2.3), port 5432 failed
    if let Some(host) = super::text::between(line, "server at \"", "\"") {
        let port = line.split("port ").nth(1).and_then(|r| r.split(|c: char| !c.is_ascii_digit()).next());
        return Some(port.filter(|p| !p.is_empty()).map_or(host.to_owned(), |p| format!("{host}:{p}")));
    }
    let words =
        || line.split(|c: char| c.is_whitespace() || matches!(c, ',' | '"' | '\'' | '(' | ')' | '=' | '>' | '@'));
    let with_port = |word: &str| {
        let word = word.split("://").last().unwrap_or(word);
        let word = bare(word.split(['/', '?']).next().unwrap_or(word));
        let (host, port) = word.rsplit_once(':')?;
        let good = !host.is_empty()
            && host.len() <= 253
            && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_')
            && host.chars().any(|c| c.is_ascii_alphabetic() || c == '.')
            && port.parse::<u16>().is_ok_and(|p| p > 0);
        good.then(|| format!("{host}:{port}"))
    };
    // In a sequence of two addresses the last is the one that was called.
    words().filter_map(with_port).rfind(|a| !a.ends_with(":53"))
}

/// The name that was looked up.
fn looked_up(line: &str) -> Option<String> {
    let low = line.to_ascii_lowercase();
    for mark in [
        "lookup ",
        "enotfound ",
        "eai_again ",
        "host name \"",
        "resolve host: ",
        "resolve host '",
        "resolve '",
        "unknownhostexception: ",
        "resolve \"",
        "host: ",
    ] {
        if let Some(at) = low.find(mark) {
            let rest = &line[at + mark.len()..];
            let word = rest
                .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ':'))
                .find(|w| !w.is_empty())?;
            let host = bare(word);
            if !host.is_empty() && host.chars().any(|c| c.is_ascii_alphabetic()) {
                return Some(host.to_owned());
            }
        }
    }
    None
}

/// The first path of a line.
fn path(line: &str) -> Option<String> {
    let words = line.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | '(' | ')' | '='));
    words.map(|w| w.trim_end_matches([':', '.', ';'])).find(|w| w.starts_with('/') && w.len() > 1).map(str::to_owned)
}

fn port(line: &str) -> Option<String> {
    let words = line.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '(' | ')'));
    let mut numbered = words.filter_map(|w| {
        let w = w.trim_end_matches([':', '.']);
        let number = w.rsplit(':').next()?;
        (w.contains(':') && number.parse::<u16>().is_ok_and(|p| p > 0)).then(|| number.to_owned())
    });
    numbered.next_back().or_else(|| {
        let low = line.to_ascii_lowercase();
        let rest = low.split("port ").nth(1)?.to_owned();
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        (!number.is_empty()).then_some(number)
    })
}

/// The command that was not found.
fn command(line: &str) -> Option<String> {
    if let Some(name) = super::text::between(line, "exec: \"", "\"") {
        return Some(name.to_owned());
    }
    let end = line.find(": command not found").or_else(|| line.find(": not found"))?;
    let name = line[..end].rsplit([':', ' ']).next().map(bare)?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_why() {
        for (line, why) in [
            ("Error: connect ECONNREFUSED 10.0.0.5:5432", Why::Refused("10.0.0.5:5432".into())),
            (
                "dial tcp 10.1.0.9:40312->10.96.0.7:6379: connect: connection refused",
                Why::Refused("10.96.0.7:6379".into()),
            ),
            (
                "could not connect: connection to server at \"db\" (10.1.2.3), port 5432 failed: Connection refused",
                Why::Refused("db:5432".into()),
            ),
            ("Failed to reach http://api.shop:8080/v1: Connection refused", Why::Refused("api.shop:8080".into())),
            ("dial tcp: lookup db.shop on 10.96.0.10:53: no such host", Why::UnknownHost("db.shop".into())),
            ("Error: getaddrinfo ENOTFOUND redis-master", Why::UnknownHost("redis-master".into())),
            ("KeyError: 'DATABASE_URL'", Why::Variable("DATABASE_URL".into())),
            ("FATAL: environment variable API_KEY is not set", Why::Variable("API_KEY".into())),
            ("panic: required environment variable \"TOKEN\" missing", Why::Variable("TOKEN".into())),
            ("./run.sh: line 3: DB_HOST: unbound variable", Why::Variable("DB_HOST".into())),
            ("open /etc/app/app.yaml: no such file or directory", Why::File("/etc/app/app.yaml".into())),
            ("mkdir '/var/cache': Permission denied", Why::Permission("/var/cache".into())),
            ("touch: /tmp/x: Read-only file system", Why::ReadOnly("/tmp/x".into())),
            ("listen tcp :8080: bind: address already in use", Why::AddressInUse("8080".into())),
            ("exec /app/server: exec format error", Why::Architecture),
            ("/bin/sh: 1: gunicorn: not found", Why::NoCommand("gunicorn".into())),
            (
                "could not resize shared memory segment \"/PostgreSQL.1\" to 8 bytes: No space left on device",
                Why::SharedMemory,
            ),
            ("accept4: too many open files", Why::FileDescriptors),
            ("FATAL: password authentication failed for user \"app\"", Why::Credentials),
            ("java.lang.OutOfMemoryError: Java heap space", Why::OutOfMemory),
        ] {
            assert_eq!(exact(line), Some(why), "{line}");
        }
        for line in [
            "server started on :8080",
            "GET /healthz 200",
            "max open files 65536",
            "shared memory size 64 MB",
            "INFO listening on port 80",
            "",
        ] {
            assert_eq!(exact(line), None, "{line}");
        }
    }

    #[test]
    fn the_newest_telling_line_of_the_run_before_counts() {
        let tail = LogTail {
            current: vec!["starting".into()],
            previous: vec!["connect: connection refused 10.0.0.1:80".into(), "bye".into(), String::new()],
        };
        let read = read(&tail).unwrap();
        assert_eq!((read.why, read.place), (Why::Refused("10.0.0.1:80".into()), "previous"));
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_odd(line in ".{0,200}") {
            let _ = (exact(&line), quote(&line));
        }
    }
}
