//! Lines that are an anomaly by themselves: the words that systems print when they die.
//!
//! One Aho-Corasick automaton over all patterns (Aho and Corasick, CACM 1975), letters of any case; a match counts
//! only where no letter or digit stands next to it, so `panicked` is listed apart from `panic` and `BUGS:` is none.

use aho_corasick::{AhoCorasick, MatchKind};
use nightshift_model::FaultClass;
use serde::{Deserialize, Serialize};

/// One pattern and what it says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct CriticalPattern {
    /// The words, letters of any case. No wildcard.
    pub text: String,
    /// What it suggests.
    pub fault: FaultClass,
    /// Score of the anomaly.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub score: f64,
    /// Whether it counts on a line that says of itself that it is DEBUG or INFO.
    pub any_level: bool,
}

impl Default for CriticalPattern {
    fn default() -> Self {
        Self { text: String::new(), fault: FaultClass::CriticalLog, score: 0.8, any_level: false }
    }
}

/// The built-in list: words, fault, score, whether at any level.
const BUILTIN: &[(&str, FaultClass, f64, bool)] = &[
    ("kernel panic", FaultClass::ProcessFailure, 0.95, true),
    ("out of memory: kill", FaultClass::OomKill, 0.9, true),
    ("out of memory: killed process", FaultClass::OomKill, 0.9, true),
    ("memory cgroup out of memory", FaultClass::OomKill, 0.9, true),
    ("invoked oom-killer", FaultClass::OomKill, 0.9, true),
    ("oom-kill:constraint", FaultClass::OomKill, 0.9, true),
    ("oomkilled", FaultClass::OomKill, 0.9, true),
    ("killed by the oom killer", FaultClass::OomKill, 0.9, true),
    ("java.lang.outofmemoryerror", FaultClass::OomKill, 0.9, true),
    ("out of memory", FaultClass::MemorySaturation, 0.75, false),
    ("cannot allocate memory", FaultClass::MemorySaturation, 0.75, false),
    ("segfault at", FaultClass::ProcessFailure, 0.85, true),
    ("segmentation fault", FaultClass::ProcessFailure, 0.85, false),
    ("general protection fault", FaultClass::ProcessFailure, 0.85, true),
    ("core dumped", FaultClass::ProcessFailure, 0.8, false),
    ("kernel bug at", FaultClass::ProcessFailure, 0.95, true),
    ("bug: unable to handle", FaultClass::ProcessFailure, 0.95, true),
    ("bug: soft lockup", FaultClass::CpuSaturation, 0.95, true),
    ("bug: scheduling while atomic", FaultClass::ProcessFailure, 0.9, true),
    ("panic:", FaultClass::ProcessFailure, 0.85, false),
    ("panicked at", FaultClass::ProcessFailure, 0.85, false),
    ("goroutine panic", FaultClass::ProcessFailure, 0.85, false),
    ("fatal error:", FaultClass::ProcessFailure, 0.8, false),
    ("unhandled exception", FaultClass::ProcessFailure, 0.7, false),
    ("stack overflow", FaultClass::ProcessFailure, 0.75, false),
    ("blocked for more than 120 seconds", FaultClass::DiskSaturation, 0.8, true),
    ("data corruption", FaultClass::CriticalLog, 0.95, false),
    ("corrupted page", FaultClass::CriticalLog, 0.95, false),
    ("checksum mismatch", FaultClass::CriticalLog, 0.8, false),
    ("i/o error, dev", FaultClass::CriticalLog, 0.85, true),
    ("remounting filesystem read-only", FaultClass::CriticalLog, 0.95, true),
    ("read-only file system", FaultClass::CriticalLog, 0.85, false),
    ("machine check exception", FaultClass::CriticalLog, 0.9, true),
    ("no space left on device", FaultClass::DiskFull, 0.85, false),
    ("disk quota exceeded", FaultClass::DiskFull, 0.75, false),
    ("too many open files", FaultClass::QuotaExhausted, 0.75, false),
    ("fork: resource temporarily unavailable", FaultClass::QuotaExhausted, 0.8, false),
    ("certificate has expired", FaultClass::CertificateExpiry, 0.8, false),
    ("certificate expired", FaultClass::CertificateExpiry, 0.8, false),
    ("deadlock detected", FaultClass::LockContention, 0.75, false),
    ("deadlock found when trying to get lock", FaultClass::LockContention, 0.75, false),
    ("too many connections", FaultClass::DbConnectionExhaustion, 0.8, false),
    ("too many clients already", FaultClass::DbConnectionExhaustion, 0.85, false),
    ("remaining connection slots are reserved", FaultClass::DbConnectionExhaustion, 0.85, false),
    ("connection pool exhausted", FaultClass::DbConnectionExhaustion, 0.8, false),
    ("temporary failure in name resolution", FaultClass::DnsFailure, 0.7, false),
    ("nxdomain looking up", FaultClass::DnsFailure, 0.6, false),
    ("back-off restarting failed container", FaultClass::CrashLoop, 0.8, true),
    ("crashloopbackoff", FaultClass::CrashLoop, 0.8, true),
    ("imagepullbackoff", FaultClass::ImagePullFailure, 0.75, true),
    ("main process exited, code=dumped", FaultClass::ProcessFailure, 0.8, true),
    ("nf_conntrack: table full", FaultClass::NetworkSaturation, 0.85, true),
];

/// Most patterns of one's own.
pub const PATTERNS_MAX: usize = 1024;
/// Longest pattern, bytes.
pub const PATTERN_BYTES_MAX: usize = 256;

/// What was found in a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Critical<'a> {
    /// The pattern; `None` when the level alone makes it critical.
    pub pattern: Option<&'a str>,
    /// What it suggests.
    pub fault: FaultClass,
    /// 0..=1.
    pub score: f64,
}

/// Why a list of patterns cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Empty, or too long.
    #[error("pattern {index}: use 3 to {PATTERN_BYTES_MAX} bytes, this has {bytes}")]
    Length {
        /// Which, from 0.
        index: usize,
        /// How long.
        bytes: usize,
    },
    /// Not in 0..=1.
    #[error("pattern {index}: give a score from 0 to 1")]
    Score {
        /// Which, from 0.
        index: usize,
    },
    /// More than [`PATTERNS_MAX`].
    #[error("at most {PATTERNS_MAX} patterns are taken, these are {0}")]
    Count(usize),
    /// The automaton could not be built.
    #[error("build the matcher: {0}")]
    Build(String),
}

/// Finds critical lines.
#[derive(Debug, Clone)]
pub struct Matcher {
    automaton: AhoCorasick,
    patterns: Vec<CriticalPattern>,
}

impl Matcher {
    /// The built-in list (if wanted) and `own`, which comes first.
    ///
    /// # Errors
    /// When a pattern cannot be used.
    pub fn new(builtin: bool, own: &[CriticalPattern]) -> Result<Self, PatternError> {
        if own.len() > PATTERNS_MAX {
            return Err(PatternError::Count(own.len()));
        }
        for (index, p) in own.iter().enumerate() {
            if p.text.len() < 3 || p.text.len() > PATTERN_BYTES_MAX {
                return Err(PatternError::Length { index, bytes: p.text.len() });
            }
            if !(0.0..=1.0).contains(&p.score) {
                return Err(PatternError::Score { index });
            }
        }
        let mut patterns = own.to_vec();
        if builtin {
            patterns.extend(BUILTIN.iter().map(|&(text, fault, score, any_level)| CriticalPattern {
                text: text.into(),
                fault,
                score,
                any_level,
            }));
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(patterns.iter().map(|p| p.text.as_bytes()))
            .map_err(|e| PatternError::Build(e.to_string()))?;
        Ok(Self { automaton, patterns })
    }

    /// What is critical about a line of this severity number (OpenTelemetry: 1..=24, 0 unknown): the pattern with the
    /// highest score, the first listed of several, or the level.
    pub fn find(&self, line: &str, severity: u32) -> Option<Critical<'_>> {
        let bytes = line.as_bytes();
        let quiet = (1..=12).contains(&severity);
        let mut best: Option<Critical<'_>> = None;
        for m in self.automaton.find_overlapping_iter(bytes) {
            let p = &self.patterns[m.pattern().as_usize()];
            let alone = |inside: u8, outside: Option<&u8>| {
                !(inside.is_ascii_alphanumeric() && outside.is_some_and(|b| b.is_ascii_alphanumeric()))
            };
            let begins = m.start().checked_sub(1).and_then(|i| bytes.get(i));
            let open_end = p.text.ends_with("kill");
            if (quiet && !p.any_level)
                || !alone(bytes[m.start()], begins)
                || !(open_end || alone(bytes[m.end() - 1], bytes.get(m.end())))
            {
                continue;
            }
            if best.is_none_or(|b| p.score > b.score) {
                best = Some(Critical { pattern: Some(&p.text), fault: p.fault, score: p.score });
            }
        }
        if severity >= FATAL && best.is_none_or(|b| b.score < FATAL_SCORE) {
            let fault = best.map_or(FaultClass::CriticalLog, |b| b.fault);
            best = Some(Critical { pattern: best.and_then(|b| b.pattern), fault, score: FATAL_SCORE });
        }
        best
    }
}

/// OpenTelemetry's FATAL begins here.
pub const FATAL: u32 = 21;
/// OpenTelemetry's ERROR begins here.
pub const ERROR: u32 = 17;
/// OpenTelemetry's WARN begins here.
pub const WARN: u32 = 13;
/// Score of a line that is critical by its level alone.
const FATAL_SCORE: f64 = 0.8;

#[cfg(test)]
mod tests;
